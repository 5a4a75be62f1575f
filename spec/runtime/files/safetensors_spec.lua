-- safetensors: written and read back, files of others, and headers that lie.
local ffi = require "ffi"
local unic = require "unic"
local files = require "unic.files"
local testing = require "unic.testing"
local support = require "spec.support.files"

local real = testing.real_data()

-- A file out of a header and data.
local function build(header, data)
  return support.little_endian(#header, 8) .. header .. (data or "")
end

describe("safetensors", function()
  local folder, path
  setup(function()
    folder = support.folder()
    path = folder .. "/x.safetensors"
  end)
  teardown(function() support.remove(folder) end)

  local function refusal(bytes)
    support.write(path, bytes)
    local why = support.refusal(files.safetensors_open, path)
    assert.equal("[safetensors_open] '" .. path .. "': ", why:sub(1, #path + 23))
    return why:sub(#path + 24)
  end

  local f32 = ffi.string(ffi.new("float[6]", { 1, 2, 3, 4, 5, -0.5 }), 24)

  it("come back equal: every dtype, scalars, empty tensors, metadata", function()
    local tensors = {
      weight = { dtype = "F32", shape = { 2, 3 }, data = f32 },
      ["a/b.c ñ\"\\\1"] = { dtype = "U8", shape = { 3 }, data = "\1\2\3" },
      scalar = { dtype = "I64", shape = {}, data = support.little_endian(42, 8) },
      empty = { dtype = "F64", shape = { 0, 5 }, data = "" },
      f64 = { dtype = "F64", shape = { 1 }, data = ("x"):rep(8) },
      f16 = { dtype = "F16", shape = { 3, 1 }, data = "abcdef" },
      bf16 = { dtype = "BF16", shape = { 1, 1, 1, 1, 1, 1, 1, 2 }, data = "abcd" },
      i32 = { dtype = "I32", shape = { 2 }, data = "12345678" },
      bool = { dtype = "BOOL", shape = { 5 }, data = "\0\1\0\1\1" },
    }
    local metadata = { format = "pt", note = 'line\nend "quoted" \\ ñ', empty = "" }
    files.safetensors_save(path, tensors, metadata)
    local file = files.safetensors_open(path)
    assert.same(metadata, file:metadata())
    local count = 0
    for _, name in ipairs(file:names()) do
      local info = file:info(name)
      assert.same({ tensors[name].dtype, tensors[name].shape, #tensors[name].data }, { info.dtype, info.shape, info.bytes })
      assert.equal(tensors[name].data, file:data(name))
      local pointer, bytes = file:pointer(name)
      assert.equal(tensors[name].data, ffi.string(ffi.cast("const char *", pointer), bytes))
      count = count + 1
    end
    assert.equal(9, count)
    assert.is_nil(file:info("none"))
    file:close()
    local why = support.refusal(file.names, file)
    assert.equal("[safetensors] argument 'file': it was closed", why)
  end)

  local image = { { { { 1, 2 }, { 3, 4 } }, { { 5, 6 }, { 7, 8 } } } }   -- [1, 2, 2, 2]

  it("come back as tensors of every dtype, with the same bits", function()
    local tensors = {
      f32 = unic.tensor({ { 1.5, -2, 0 / 0 }, { 1e-40, math.huge, -0 } }), f64 = unic.tensor({ 1 / 3 }, { dtype = "f64" }),
      f16 = unic.tensor({ 1.5, 65504 }, { dtype = "f16" }), bf16 = unic.tensor({ 1.5, 3e38 }, { dtype = "bf16" }),
      i64 = unic.tensor(-5, { dtype = "i64" }), i32 = unic.tensor({ { -1 }, { 2 } }, { dtype = "i32" }),
      u8 = unic.tensor({ 0, 255 }, { dtype = "u8" }), bool = unic.tensor({ true, false, true }), none = unic.empty(0, 3),
      turned = unic.empty({ 1, 2, 2, 2 }, { layout = "channels_last" }):copy_(unic.tensor(image)),
    }
    files.safetensors_save(path, tensors, { format = "pt" })
    local file = files.safetensors_open(path)
    for name, t in pairs(tensors) do
      local read = file:tensor(name)
      assert.equal(t.dtype, read.dtype)
      assert.same(t.shape, read.shape)
      assert.equal(t:bytes(), read:bytes())
    end
    assert.equal("meta", file:tensor("f32", "meta").device)
    -- The tensor is its own: the file may go.
    local read = file:tensor("turned")
    file:close()
    assert.same(image, read:totable())
  end)

  it("are read into tensors that are there, of any dtype and layout", function()
    files.safetensors_save(path, { a = unic.tensor(image), b = unic.tensor({ 1 }) })
    local file = files.safetensors_open(path)
    local same, double = unic.zeros(1, 2, 2, 2), unic.zeros(1, 2, 2, 2, { dtype = "f64" })
    local turned = unic.empty({ 1, 2, 2, 2 }, { layout = "channels_last" })
    local version = same:version()
    file:read("a", same)
    file:read("a", double)
    file:read("a", turned)
    assert.same(image, same:totable())
    assert.is_true(same:version() > version)
    assert.same(image, double:totable())
    assert.same(image, turned:totable())
    assert.is_true(turned:is_channels_last())
    assert.equal("[safetensors] '" .. path .. "': tensor 'b': its shape is [1], expected [1, 2, 2, 2]", support.refusal(file.read, file, "b", same))
  end)

  it("with dtypes that are no tensor's, or a BOOL of 2, are refused tensor by tensor", function()
    support.write(path, build('{"a":{"dtype":"F8_E4M3","shape":[2],"data_offsets":[0,2]},"b":{"dtype":"BOOL","shape":[1],"data_offsets":[2,3]},'
      .. '"c":{"dtype":"U8","shape":[1],"data_offsets":[3,4]}}', "\1\2\2\7"))
    local file = files.safetensors_open(path)
    assert.equal("[safetensors] '" .. path .. "': tensor 'a': has dtype F8_E4M3, expected F32, BF16, F16, F64, I64, I32, I16, I8, U8, U16, U32 or BOOL",
      support.refusal(file.tensor, file, "a"))
    assert.equal("[safetensors] '" .. path .. "': tensor 'b': a BOOL of value 2, expected 0 or 1", support.refusal(file.tensor, file, "b"))
    assert.same({ 7 }, file:tensor("c"):totable())
  end)

  it("widen integers that the runtime has no type for", function()
    support.write(path, build('{"a":{"dtype":"I8","shape":[3],"data_offsets":[0,3]},"b":{"dtype":"U16","shape":[2],"data_offsets":[3,7]},'
      .. '"c":{"dtype":"I16","shape":[2],"data_offsets":[7,11]},"d":{"dtype":"U32","shape":[2],"data_offsets":[11,19]}}',
      "\127\128\255" .. "\255\255\1\0" .. "\255\255\0\128" .. "\255\255\255\255\1\0\0\0"))
    local file = files.safetensors_open(path)
    for name, want in pairs { a = { "i32", { 127, -128, -1 } }, b = { "i32", { 65535, 1 } }, c = { "i32", { -1, -32768 } }, d = { "i64", { 4294967295, 1 } } } do
      local t = file:tensor(name)
      assert.equal(want[1], t.dtype)
      assert.same(want[2], t:totable())
      local read = unic.zeros(#want[2], { dtype = "f64" })
      file:read(name, read)
      assert.same(want[2], read:totable())
    end
    assert.equal("\127\128\255", file:data("a"))
  end)

  it("are the same bytes for the same contents, each tensor aligned to its elements", function()
    local tensors = {}
    for i = 1, 20 do tensors["t" .. i] = { dtype = i % 2 == 0 and "U8" or "F32", shape = { i % 2 == 0 and i or 1 },
      data = i % 2 == 0 and ("u"):rep(i) or "ffff" } end
    files.safetensors_save(path, tensors, { b = "2", a = "1" })
    local first = support.read(path)
    files.safetensors_save(path, tensors, { a = "1", b = "2" })
    assert.equal(first, support.read(path))
    assert.same({ "x.safetensors" }, support.list(folder))
    local file = files.safetensors_open(path)
    for _, name in ipairs(file:names()) do
      if file:info(name).dtype == "F32" then
        assert.equal(0, tonumber(ffi.cast("uintptr_t", ffi.cast("char *", (file:pointer(name)))) % 4))
      end
    end
  end)

  it("may hold nothing", function()
    files.safetensors_save(path, {})
    local file = files.safetensors_open(path)
    assert.same({}, file:names())
    assert.same({}, file:metadata())
  end)

  it("of others are read: padding, order, unknown keys and dtypes, unaligned data", function()
    support.write(path, build('{"b":{"shape":[1],"data_offsets":[1,5],"extra":[{"deep":[null,true,1.5e-3]}],"dtype":"F32"},'
      .. ' "a" : {"dtype":"F8_E4M3","shape":[1],"data_offsets":[0,1]},"__metadata__":{"\\u00f1\\ud83d\\ude00":"\\/\\n"} ,'
      .. '"c":{"dtype":"X3","shape":[7],"data_offsets":[5,8]}}     \n', "abcdefgh"))
    local file = files.safetensors_open(path)
    assert.same({ "a", "b", "c" }, file:names())
    assert.equal("bcde", file:data("b"))
    assert.equal("F8_E4M3", file:info("a").dtype)
    assert.same({ ["ñ😀"] = "/\n" }, file:metadata())
  end)

  it("are refused in words when the header lies", function()
    local function entry(name, dtype, shape, first, last)
      return ('"%s":{"dtype":"%s","shape":%s,"data_offsets":[%s,%s]}'):format(name, dtype, shape, first, last)
    end
    local function one(...) return "{" .. entry(...) .. "}" end
    local cases = {
      { "", "is not a safetensors file (it has 0 bytes)" },
      { "PK\3\4....", "is not a safetensors file (its first bytes are no header's length and '{')" },
      { support.little_endian(100, 8) .. "{}", "is cut: its header has 100 bytes, the file only 10" },
      { support.little_endian(0, 8) .. "{", "is not a safetensors file (its header is empty)" },
      { build("[]"), "is not a safetensors file (its first bytes are no header's length and '{')" },
      { build("{}", "x"), "1 bytes of data follow the last tensor" },
      { build(one("a", "F32", "[2]", 0, 8), "1234567"), "tensor 'a': its data are bytes 0 to 8, the file holds 7 (is it cut?)" },
      { build(one("a", "F32", "[2]", 8, 0), "12345678"), "tensor 'a': its data are bytes 8 to 0, the file holds 8 (is it cut?)" },
      { build(one("a", "F32", "[3]", 0, 8), "12345678"),
        "tensor 'a': its shape and dtype F32 ask for 12 bytes, its data_offsets give 8" },
      { build(one("a", "F32", "[4294967296,4294967296,4294967296]", 0, 8), "12345678"),
        "tensor 'a': its shape and dtype F32 ask for -1 bytes, its data_offsets give 8" },
      { build(one("a", "F32", "[2,-1]", 0, 8), "12345678"), "shape holds something that is not a size" },
      { build(one("a", "F32", "[2.0]", 0, 8), "12345678"), "shape holds something that is not a size" },
      { build(one("a", "F32", "[1,1,1,1,1,1,1,1,2]", 0, 8), "12345678"), "shape has more than 8 numbers" },
      { build(one("a", "F32", "2", 0, 8), "12345678"), "shape is a number, expected an array" },
      { build('{"a":{"dtype":"F32","shape":[2]}}', "12345678"), "tensor 'a': has no data_offsets" },
      { build('{"a":{"dtype":7,"shape":[2]}}', "12345678"), "dtype is a number, expected a string" },
      { build('{"a":{"dtype":"F32","dtype":"F32"}}'), "tensor 'a': its dtype stands twice" },
      { build('{"a":{"data_offsets":[1]}}'), "tensor 'a': its data_offsets are 1 numbers, expected 2" },
      { build('{"a":3}'), "a tensor's description is a number, expected an object" },
      { build("{" .. entry("a", "U8", "[4]", 0, 4) .. "," .. entry("a", "U8", "[4]", 4, 8) .. "}", "12345678"), "tensor 'a': stands twice" },
      { build("{" .. entry("a", "U8", "[4]", 0, 4) .. "," .. entry("b", "U8", "[5]", 3, 8) .. "}", "12345678"),
        "tensor 'b': its data begin at byte 3, expected 4 (they overlap others)" },
      { build("{" .. entry("a", "U8", "[3]", 0, 3) .. "," .. entry("b", "U8", "[4]", 4, 8) .. "}", "12345678"),
        "tensor 'b': its data begin at byte 4, expected 3 (there is a hole)" },
      { build('{"__metadata__":{"a":1}}'), "a value in __metadata__ is a number, expected a string" },
      { build('{"__metadata__":{"a":"1","a":"2"}}'), "__metadata__: key 'a' stands twice" },
      { build('{"__metadata__":{},"__metadata__":{}}'), "__metadata__ stands twice" },
      { build('{"a\\u0000b":{}}'), "a string that holds a zero byte" },
      { build("{} {}"), "text after the end of the JSON value" },
      { build('{"a":{"shape":[01]}}'), "a number that begins with 0" },
      { build('{"a":{"x":1.}}'), "a number that ends with its point" },
      { build('{"a":{"x":1e}}'), "a number without an exponent after its e" },
      { build('{"a":{"x":-}}'), "a number without digits" },
      { build('{"a":{"x":nul}}'), "an unknown word" },
      { build('{"a":{"x":"\\q"}}'), "an unknown escape inside a string" },
      { build('{"a":{"x":"\\ud83d"}}'), "a high surrogate without its low one" },
      { build('{"a":{"x":"\\ude00"}}'), "a low surrogate without its high one" },
      { build('{"a":{"x":"\\u12g4"}}'), "a \\u without four hexadecimal digits" },
      { build('{"a":{"x":"\255"}}'), "a string that is not UTF-8" },
      { build('{"a":{"x":"\n"}}'), "a control character inside a string" },
      { build('{"a":{"x":1 "y":2}}'), "expected ',' or '}'" },
      { build('{"a":{"x":1,}}'), "expected a key in quotes" },
      { build('{"a":{"x"}}'), "expected ':' after a key" },
      { build('{"a":{"x":[1,]}}'), "a character that begins no JSON value" },
      { build('{"a":{"x":' .. ("["):rep(100) .. ("]"):rep(100) .. "}}"), "more than 64 nested levels" },
      { build('{"a":{"x":1'), "the JSON text ends early" },
      { build('{"a":{"x":"'), "the JSON text ends early" },
    }
    for _, case in ipairs(cases) do
      local why = refusal(case[1])
      assert.equal(case[2], why:gsub("^byte %d+: ", ""))
    end
  end)

  it("say what cannot be written, and leave the old file", function()
    files.safetensors_save(path, { a = { dtype = "U8", shape = { 1 }, data = "x" } })
    local before = support.read(path)
    local function message(...)
      local why = support.refusal(files.safetensors_save, path, ...)
      return (why:gsub("^%[safetensors_save%] ", ""):gsub("^'" .. path:gsub("%p", "%%%0") .. "': ", ""))
    end
    assert.equal("tensor 'a': its shape and dtype F32 ask for 8 bytes, 7 were given",
      message { a = { dtype = "F32", shape = { 2 }, data = "1234567" } })
    assert.equal("tensor 'a': dtype 'f32' is not one of the format", message { a = { dtype = "f32", shape = { 1 }, data = "1234" } })
    assert.equal("argument 'shape': 9 dimensions were given, at most 8 are possible",
      message { a = { dtype = "U8", shape = { 1, 1, 1, 1, 1, 1, 1, 1, 1 }, data = "1" } })
    assert.equal("tensor '__metadata__': the name is taken by the format",
      message { __metadata__ = { dtype = "U8", shape = { 1 }, data = "1" } })
    assert.equal("tensor '\255': is not UTF-8", message { ["\255"] = { dtype = "U8", shape = { 1 }, data = "1" } })
    assert.equal("argument 'shape': dimension 1 is -1, expected 0 or more", message { a = { dtype = "U8", shape = { -1 }, data = "1" } })
    assert.equal("metadata 'k': a number, expected strings as keys and values", message({}, { k = 1 }))
    assert.equal(before, support.read(path))
    assert.same({ "x.safetensors" }, support.list(folder))
  end)

  it("name the nearest tensor when one is asked for that is not there", function()
    files.safetensors_save(path, { ["conv1.weight"] = { dtype = "U8", shape = { 1 }, data = "x" } })
    local file = files.safetensors_open(path)
    local why = support.refusal(file.data, file, "conv1.wieght")
    assert.equal("[safetensors] '" .. path .. "': has no tensor 'conv1.wieght', did you mean 'conv1.weight'?", why)
  end)

  it("of a trained classifier are read with their published sums", function()
    if not real then return pending("needs the folder of real data (UNIC_DATA)") end
    local expected = files.read_csv(real .. "/checkpoints/expected.csv")
    local ctypes = { F32 = "float", I64 = "int64_t" }
    local compared = 0
    local open = {}
    for row = 1, expected:rows() do
      local name = expected:get(row, "file")
      if name:find("%.safetensors$") then
        open[name] = open[name] or files.safetensors_open(real .. "/checkpoints/" .. name)
        local tensor = expected:get(row, "tensor")
        local info = open[name]:info(tensor)
        assert.equal(expected:get(row, "dtype"), info.dtype)
        assert.equal(expected:get(row, "shape"), table.concat(info.shape, "x"))
        local text = open[name]:data(tensor)
        local p = ffi.cast("const " .. ctypes[info.dtype] .. " *", text)
        local sum, n = 0, #text / ffi.sizeof(ctypes[info.dtype])
        for i = 0, n - 1 do sum = sum + tonumber(p[i]) end
        assert.is_true(math.abs(sum - tonumber(expected:get(row, "sum_f64"))) <= 1e-9 * math.max(1, n))
        assert.equal(tonumber(expected:get(row, "first")), tonumber(p[0]))
        compared = compared + 1
      end
    end
    assert.is_true(compared >= 25, compared .. " tensors compared")
  end)
end)
