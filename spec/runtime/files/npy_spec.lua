-- NumPy's files: .npy of every version, order and dtype, .npz archives, and files that are wrong.
local unic = require "unic"
local core = require "unic.core".files
local ffi = require "ffi"
local testing = require "unic.testing"
local support = require "spec.support.files"
local build = require "spec.support.checkpoints"

local npy, floats = build.npy, build.floats
local real = testing.real_data()

local function header(descr, shape, fortran)
  return ("{'descr': '%s', 'fortran_order': %s, 'shape': %s, }"):format(descr, fortran and "True" or "False", shape)
end

describe("NumPy files", function()
  local folder, path
  setup(function()
    folder = support.folder()
    path = folder .. "/x.npy"
  end)
  teardown(function() support.remove(folder) end)

  local function open(bytes)
    support.write(path, bytes)
    return core.npy_open(path)
  end

  local function refusal(bytes)
    support.write(path, bytes)
    local why = support.refusal(core.npy_open, path)
    local front = "[npy_open] '" .. path .. "': "
    assert.equal(front, why:sub(1, #front))
    return why:sub(#front + 1)
  end

  local function values(file, name) return file:tensor(name or "(root)"):totable() end
  local six = floats { 1, 2, 3, 4, 5, 6 }

  it("hold one array, of three versions", function()
    for version = 1, 3 do
      local file = open(npy(header("<f4", "(2, 3)"), six, version))
      assert.same({ "(root)" }, file:names())
      assert.same({ "F32", { 2, 3 }, 24 }, { file:entry "(root)" })
      assert.same({ { 1, 2, 3 }, { 4, 5, 6 } }, values(file))
      assert.same({}, file:metadata())
      assert.equal(six, file:data "(root)")
    end
    local file = open(npy('  { "shape" : ( 6, ) ,"fortran_order":False, "descr":"<f4"}  ', six))
    assert.same({ 1, 2, 3, 4, 5, 6 }, values(file))
    assert.equal(7, open(npy(header("<f8", "()"), ffi.string(ffi.new("double[1]", 7), 8))):tensor("(root)"):item())
    assert.equal(0, open(npy(header("<f8", "(0, 3)"))):tensor("(root)"):numel())
    assert.same({ 1, 2 }, values(open(npy(header("<f4", "(2L,)"), six:sub(1, 8)))))
  end)

  it("have every dtype, the unknown integers widened", function()
    local cases = {
      { "|b1", "BOOL", "\0\1", { false, true }, "bool" }, { "|u1", "U8", "\0\255", { 0, 255 }, "u8" }, { "|i1", "I8", "\127\128", { 127, -128 }, "i32" },
      { "<i2", "I16", "\1\0\255\255", { 1, -1 }, "i32" }, { "<u2", "U16", "\1\0\255\255", { 1, 65535 }, "i32" }, { "<i4", "I32", "\1\0\0\0\254\255\255\255", { 1, -2 }, "i32" },
      { "<u4", "U32", "\1\0\0\0\255\255\255\255", { 1, 4294967295 }, "i64" }, { "<i8", "I64", "\1\0\0\0\0\0\0\0" .. ("\255"):rep(8), { 1, -1 }, "i64" },
      { "<f2", "F16", "\0\60\0\192", { 1, -2 }, "f16" }, { "=f4", "F32", floats { 0.5, -2 }, { 0.5, -2 }, "f32" },
      { "<f8", "F64", ffi.string(ffi.new("double[2]", 0.1, -2), 16), { 0.1, -2 }, "f64" },
    }
    for _, case in ipairs(cases) do
      local file = open(npy(header(case[1], "(2,)"), case[3]))
      assert.equal(case[2], (file:entry "(root)"))
      local t = file:tensor "(root)"
      assert.equal(case[5], t.dtype)
      assert.same(case[4], t:totable())
      local order = case[1]:sub(1, 1)
      if order == "<" then
        local size = #case[3] / 2
        local turned = case[3]:sub(1, size):reverse() .. case[3]:sub(size + 1):reverse()
        local big = open(npy(header(">" .. case[1]:sub(2), "(2,)"), turned))
        assert.same(case[4], values(big))
        assert.equal(case[3], big:data "(root)")
      end
    end
  end)

  it("in column-major order come out row-major", function()
    assert.same({ { 1, 3, 5 }, { 2, 4, 6 } }, values(open(npy(header("<f4", "(2, 3)", true), six))))
    assert.same({ { { 1, 5 }, { 3, 7 } }, { { 2, 6 }, { 4, 8 } } }, values(open(npy(header("<f4", "(2, 2, 2)", true), floats { 1, 2, 3, 4, 5, 6, 7, 8 }))))
    assert.same({ 1, 2 }, values(open(npy(header("<f4", "(2,)", true), six:sub(1, 8)))))
    assert.same({ { 1 }, { 2 } }, values(open(npy(header(">f4", "(2, 1)", true), "\63\128\0\0\64\0\0\0"))))
  end)

  it("are read into tensors that are there", function()
    local file = open(npy(header("<f4", "(2, 3)", true), six))
    local t = unic.zeros(2, 3, { dtype = "f64" })
    assert.is_true(file:read("(root)", t))
    assert.same({ { 1, 3, 5 }, { 2, 4, 6 } }, t:totable())
    assert.equal("[npy] '" .. path .. "': tensor '(root)': its shape is [2, 3], expected [3, 2]", support.refusal(file.read, file, "(root)", unic.zeros(3, 2)))
    file:close()
    assert.equal("[npy] argument 'file': it was closed", support.refusal(file.names, file))
  end)

  it("of types without a tensor are listed and not read", function()
    local function one(descr, dtype, bytes, why)
      local file = open(npy(header(descr, "(1,)"), ("x"):rep(bytes)))
      assert.same({ dtype, { 1 }, bytes }, { file:entry "(root)" })
      assert.equal("[npy] '" .. path .. "': tensor '(root)': " .. (why or "is of a type that this runtime has none for"), support.refusal(file.data, file, "(root)"))
    end
    one("|S5", "S5", 5)
    one("<U3", "U3", 12)
    one("<u8", "U64", 8)
    one("<c8", "C64", 8)
    one("<c16", "C128", 16)
    one("<f16", "f16", 16)
    one("<M8[s]", "M8[s]", 8)
    one("|V7", "V7", 7)
  end)

  it("of Python objects are refused and never unpickled", function()
    local pickle = "\128\4\149" .. build.pickle.call("os", "system", build.pickle.text "touch /tmp/never") .. "."
    assert.equal("holds Python objects, which are never unpickled here", refusal(npy(header("|O", "(1,)"), pickle)))
    -- In an archive the others can be read.
    local file = open(build.zip { { name = "bad.npy", data = npy(header("|O", "(1,)"), pickle) }, { name = "good.npy", data = npy(header("<f4", "(6,)"), six) } })
    assert.same({ "bad", "good" }, file:names())
    assert.equal("[npy] '" .. path .. "': tensor 'bad': holds Python objects, which are never unpickled here", support.refusal(file.data, file, "bad"))
    assert.same({ 1, 2, 3, 4, 5, 6 }, values(file, "good"))
  end)

  it("in archives are read by name, stored or compressed", function()
    for _, deflated in ipairs { false, true } do
      local long = {}
      for i = 1, 20000 do long[i] = i end
      local file = open(build.zip { { name = "a.npy", data = npy(header("<f4", "(2, 3)"), six), deflated = deflated }, { name = "note.txt", data = "hello" },
        { name = "deep/b.npy", data = npy(header("<f4", "(2, 3)", true), six), deflated = deflated },
        { name = "big.npy", data = npy(header(">f4", "(1,)"), "\63\128\0\0"), deflated = deflated },
        { name = "long.npy", data = npy(header("<f4", "(100, 200)", true), floats(long)), deflated = deflated } })
      assert.same({ "a", "deep/b", "big", "long" }, file:names())
      assert.same({ { 1, 2, 3 }, { 4, 5, 6 } }, values(file, "a"))
      assert.same({ { 1, 3, 5 }, { 2, 4, 6 } }, values(file, "deep/b"))
      assert.same({ 1 }, values(file, "big"))
      assert.same({ ["note.txt"] = "<5 bytes>" }, file:metadata())
      local t = file:tensor "long"
      assert.same({ 101, 201, 19901 }, { t[1][2]:item(), t[1][3]:item(), t[1][200]:item() })
      assert.equal(100, t[100][1]:item())
    end
  end)

  it("with a header that lies are refused in words", function()
    local good = header("<f4", "(2, 3)")
    local cases = {
      { "", "is not an .npy file (its first bytes are not \\x93NUMPY)" },
      { "\147NUMPY\4\0\2\0{}", "has version 4.0, expected 1.0, 2.0 or 3.0" },
      { "\147NUMPY\1\0\255\255{}", "is cut in its header" },
      { "\147NUMPY\2\0\255\255\255\255{}", "has a header of 4294967295 bytes, at most 65536 can be read" },
      { npy(good, six:sub(2)), "its shape and dtype ask for 24 bytes, 23 follow the header (is it cut?)" },
      { npy(good, six .. "x"), "its shape and dtype ask for 24 bytes, 25 follow the header" },
      { npy(header("<f4", "(4611686018427387904, 4)"), six), "its shape and dtype ask for -1 bytes, 24 follow the header" },
      { npy(header("<f4", "(99999999999999999999,)"), six), "header, byte 69: a size beyond 63 bits" },
      { npy(header("<f4", "(1, 1, 1, 1, 1, 1, 1, 1, 1)"), six), "header, byte 75: the shape has more than 8 numbers" },
      { npy(header("<f4", "(-1,)"), six), "header, byte 51: the shape holds something that is not a size" },
      { npy(header("<f4", "(2 3)"), six), "header, byte 53: the shape is no tuple" },
      { npy(header("<f4", "(6)"), six), "header, byte 52: the shape is no tuple" },
      { npy(header("<f4", "[6]"), six), "header, byte 50: the shape is no tuple" },
      { npy("[]", six), "header, byte 0: is no dict" },
      { npy("{'descr': '<f4', 'shape': (6,)}", six), "header: has no fortran_order" },
      { npy("{'descr': '<f4', 'descr': '<f4'}", six), "header, byte 25: a key that stands twice or is not one of descr, fortran_order and shape" },
      { npy("{'evil': __import__('os')}", six), "header, byte 8: a key that stands twice or is not one of descr, fortran_order and shape" },
      { npy("{'fortran_order': Maybe}", six), "header, byte 18: True or False is expected" },
      { npy("{'descr': __import__('os').system('touch /tmp/never')}", six), "header, byte 10: a text in quotes is expected" },
      { npy("{'descr': '<f4\\x00'}", six), "header, byte 15: a text with an escape or a character beyond ASCII" },
      { npy("{'descr': '" .. ("x"):rep(99) .. "'}", six), "header, byte 110: a text that is too long" },
      { npy("{'descr': '<f4", six), "header, byte 15: a text with an escape or a character beyond ASCII" },
      { npy("{'descr': [('a', '<f4')]}", six), "is an array of records, expected one of numbers" },
      { npy(good .. "x", six), "header, byte 59: something follows the dict" },
      { npy("{'descr' '<f4'}", six), "header, byte 9: ':' is expected" },
      { npy("{'descr': '<f4' 'shape': (6,)}", six), "header, byte 16: ',' or '}' is expected" },
      { npy(header("f4", "(6,)"), six), "has dtype 'f4', which is none of NumPy's" },
      { npy(header("<z9", "(6,)"), six), "has dtype '<z9', which is none of NumPy's" },
      { npy(header("|S999999999999", "(6,)"), six), "has dtype '|S999999999999', which is none of NumPy's" },
      { npy(header("", "(6,)"), six), "has dtype '', which is none of NumPy's" },
    }
    for _, case in ipairs(cases) do assert.equal(case[2], refusal(case[1])) end
    local file = open(npy(header("|b1", "(2,)"), "\1\2"))
    assert.equal("[npy] '" .. path .. "': tensor '(root)': a BOOL of value 2, expected 0 or 1", support.refusal(file.data, file, "(root)"))
  end)

  it("in wrong archives are refused in words, and bombs before any memory is asked for", function()
    local good = npy(header("<f4", "(6,)"), six)
    assert.equal("is a zip archive without any .npy member", refusal(build.zip { { name = "a.txt", data = "x" } }))
    assert.equal("member 'a.npy': is not an .npy file (its first bytes are not \\x93NUMPY)", refusal(build.zip { { name = "a.npy", data = "x" } }))
    assert.equal("has a member '../a.npy', a name that leads out of the archive", refusal(build.zip { { name = "../a.npy", data = good } }))
    assert.equal("has two members 'a.npy'", refusal(build.zip { { name = "a.npy", data = good }, { name = "a.npy", data = good } }))
    assert.equal("member 'a.npy': its shape and dtype ask for 24 bytes, 25 follow the header", refusal(build.zip { { name = "a.npy", data = good .. "x", deflated = true } }))
    assert.truthy(refusal(build.zip { { name = "a.npy", data = good, deflated = true, size = 2 ^ 30 } }):find "^member 'a.npy': %d+ bytes cannot become 1073741824$")
    local file = open(build.zip { { name = "a.npy", data = good, crc = 1 } })
    assert.equal("[npy] '" .. path .. "': tensor 'a': member 'a.npy': its checksum does not fit, the file is damaged", support.refusal(file.data, file, "a"))
    file = open(build.zip { { name = "a.npy", data = good, crc = 1, deflated = true } })
    assert.equal("[npy] '" .. path .. "': tensor 'a': member 'a.npy': its checksum does not fit, the file is damaged", support.refusal(file.data, file, "a"))
    -- An honest deflated member of 20 MB of zeros in a file of 20 kB: listed, and refused when it is asked for.
    file = open(build.zip { { name = "a.npy", data = npy(header("|u1", "(20971520,)"), ("\0"):rep(20971520)), deflated = true } })
    assert.same({ "U8", { 20971520 }, 20971520 }, { file:entry "a" })
    local why = support.refusal(file.tensor, file, "a")
    assert.truthy(why:find("': tensor 'a': asks for 20971520 bytes, the whole file has %d+: save it with numpy.savez, uncompressed$"), why)
  end)

  it("that are cut anywhere are refused", function()
    local one = npy(header("<f4", "(2, 3)"), six)
    for _, whole in ipairs { one, build.zip { { name = "a.npy", data = one } }, build.zip { { name = "a.npy", data = one, deflated = true } } } do
      for n = 0, #whole - 1 do assert.is_true(#refusal(whole:sub(1, n)) > 10) end
    end
  end)

  if not real then pending("of others have the values NumPy reads in them: the folder of real data is absent (UNIC_DATA)") return end

  it("of others have the values NumPy reads in them", function()
    local base = real .. "/checkpoints/candle/"
    assert.same({ 0, 1, 2, 3, 4, 5, 6, 7, 8, 9 }, values(core.npy_open(base .. "test.npy")))
    local file = core.npy_open(base .. "test.npz")
    assert.same({ "x", "x_plus_one" }, file:names())
    assert.equal(55, file:tensor("x_plus_one"):sum():item())
  end)
end)
