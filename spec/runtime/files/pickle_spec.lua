-- Pickles are read as data: every opcode, and pickles that were made to do harm. Seen through PyTorch files, which hold them.
local core = require "unic.core".files
local lfs = require "lfs"
local support = require "spec.support.files"
local build = require "spec.support.checkpoints"

local p = build.pickle
local le = support.little_endian

local function peak_kb()
  local file = io.open("/proc/self/status")
  local kb = file:read("*a"):match("VmHWM:%s*(%d+)")
  file:close()
  return tonumber(kb)
end

describe("pickles", function()
  local folder, path
  setup(function()
    folder = support.folder()
    path = folder .. "/x.pt"
  end)
  teardown(function() support.remove(folder) end)

  -- What follows the protocol's two bytes, as it stands.
  local function write(body)
    return support.write(path, build.zip { { name = "a/data.pkl", data = body } })
  end

  -- What the values of a dict look like.
  local function metadata(...)
    write(p.whole(p.dict(...)))
    local file = core.torch_open(path)
    assert.same({}, file:names())
    return file:metadata()
  end

  local function refusal(body)
    write(body)
    local why = support.refusal(core.torch_open, path)
    local front = "[torch_open] '" .. path .. "': data.pkl: "
    assert.equal(front, why:sub(1, #front))
    return why:sub(#front + 1)
  end

  it("hold numbers and texts of every opcode", function()
    assert.same({
      none = "None", yes = "True", no = "False", k = "200", m = "60000", j = "-2", long = "-1", long0 = "0", long8 = "4611686018427387904", big = "<whole number of 9 bytes>",
      i = "-12", ib = "True", l = "77", digits = "123456789012345678901234567890", f = "0.5", g = "-1.5", s = "a\nb'A", u = "short", t = "string", v = "ñ€x", x = "text",
      short = "y", b = "<2 bytes>", sb = "<1 bytes>", b8 = "<0 bytes>", array = "<3 bytes>", x8 = "eight", long4 = "258",
    }, metadata("none", "N", "yes", "\136", "no", "\137", "k", "K\200", "m", "M" .. le(60000, 2), "j", "J\254\255\255\255", "long", "\138\1\255", "long0", "\138\0",
      "long8", "\138\8" .. le(2 ^ 62, 8), "big", "\138\9" .. ("\1"):rep(9), "i", "I-12\n", "ib", "I01\n", "l", "L77L\n", "digits", "L123456789012345678901234567890L\n",
      "f", "F0.5\n", "g", "G\191\248\0\0\0\0\0\0", "s", "S'a\\nb\\'\\x41'\n", "u", "U\5short", "t", "T" .. le(6, 4) .. "string", "v", "V\241\\u20acx\n", "x", p.text "text",
      "short", "\140\1y", "b", "B" .. le(2, 4) .. "ab", "sb", "C\1a", "b8", "\142" .. le(0, 8), "array", "\150" .. le(3, 8) .. "abc", "x8", "\141" .. le(5, 8) .. "eight",
      "long4", "\139" .. le(2, 4) .. "\2\1"))
  end)

  it("hold lists, tuples, sets and dicts of every opcode, through the memo too", function()
    assert.same({
      empty = "[]", tuple0 = "[]", tuple1 = "[1]", tuple2 = "[1, 2]", tuple3 = "[1, 2, 3]", marked = "[1, 2]", list = "[1, 2]", append = "[1]", set = "[1, 2]", frozen = "[1]",
      ["dict.a"] = "1", ["item.b"] = "2", get = "[1]", long = "[1]", line = "[1]", memoize = "7", dup = "[5, 5]", pop = "1", popmark = "1",
    }, metadata("empty", "]", "tuple0", ")", "tuple1", "K\1\133", "tuple2", "K\1K\2\134", "tuple3", "K\1K\2K\3\135", "marked", "(K\1K\2t", "list", "(K\1K\2l",
      "append", "]K\1aq\5", "set", "\143(K\1K\2\144", "frozen", "(K\1\145", "dict", "(" .. p.text "a" .. "K\1d", "item", "}" .. p.text "b" .. "K\2s", "get", "h\5r\9\0\0\0",
      "long", "j\9\0\0\0p12\n", "line", "g12\n", "memoize", "K\7\148", "dup", "(K\0052t", "pop", "K\1K\0020", "popmark", "K\1(K\2K\0031"))
  end)

  it("hold classes and objects, of which only the names are looked at", function()
    assert.same({
      class = "<class os.system>", stack = "<class a.b>", dtype = "torch.float16", new = "<object of a.B>", ex = "<object of a.B>",
        obj = "<object of a.B>", inst = "<object of a.B>",
      state = "<object of a.B>", twice = "<object of ?>", size = "[2, 3]", device = "cuda:1", scalar = "1.5", half = "1.5", int = "-2",
        old = "<2 bytes>", array = "<array of numpy>",
      storage = "<storage>", text = "<storage>", odd = "<class a??.b>",
    }, metadata("class", p.global("os", "system"), "stack", p.text "a" .. p.text "b" .. "\147", "dtype", p.global("torch", "float16"), "new", p.global("a", "B") .. ")\129",
      "ex", p.global("a", "B") .. ")}\146", "obj", "(" .. p.global("a", "B") .. "K\1o", "inst", "(K\1ia\nB\n", "state", p.call("a",
        "B") .. p.dict("x", p.call("os", "system")) .. "b",
      "twice", p.call("a", "b") .. ")R", "size", p.call("torch", "Size", p.ints { 2, 3 }), "device", p.call("torch", "device", p.text "cuda", p.int(1)),
      "scalar", p.call("numpy.core.multiarray", "scalar", p.call("numpy", "dtype", p.text "f8", p.no, p.yes), "C\8" .. "\0\0\0\0\0\0\248\63"),
      "half", p.call("numpy._core.multiarray", "scalar", p.call("numpy", "dtype", p.text "f2"), "C\2\0\62"),
      "int", p.call("numpy._core.multiarray", "scalar", p.call("numpy", "dtype", p.text "i2"), p.call("_codecs", "encode", p.text "þÿ", p.text "latin1")),
      "old", p.call("_codecs", "encode", p.text "\0ÿ", p.text "latin1"), "array", p.call("numpy.core.multiarray", "_reconstruct", p.global("numpy",
        "ndarray"), p.ints { 0 }, "C\1b"),
      "storage", p.tuple(p.text "storage") .. "Q", "text", "Px\n", "odd", p.global("a\1\255", "b")))
  end)

  it("never run what they name, whatever the opcode", function()
    local victim = folder .. "/victim"
    local command = p.text("touch " .. victim)
    local system = p.global("os", "system")
    local tensor = p.tensor { count = 1, size = { 1 }, stride = { 1 } }
    local evil = {
      p.call("os", "system", command), p.call("posix", "system", command), p.call("builtins", "eval", p.text(("__import__('os').system('touch %s')"):format(victim))),
      p.call("subprocess", "Popen", command), "(" .. command .. "ios\nsystem\n", "(" .. system .. command .. "o", system .. p.tuple(command) .. "\129",
      system .. p.tuple(command) .. "}\146", p.text "os" .. p.text "system" .. "\147" .. p.tuple(command) .. "R",
      p.call("a", "B") .. p.dict("__setstate__", p.call("os", "system", command)) .. "b", p.call("builtins", "getattr", p.global("os", ""),
        p.text "system") .. p.tuple(command) .. "R",
      p.call("collections", "defaultdict", system) .. p.text "k" .. p.call("os", "system", command) .. "s", p.call("torch", "load", p.text "/etc/passwd"),
      p.call("builtins", "open", p.text(victim), p.text "w"), p.call("numpy", "load", p.text(victim)), p.call("pathlib", "PosixPath", p.text(victim)),
    }
    for _, body in ipairs(evil) do
      -- Beside a tensor they are noted as what they are; alone they are refused.
      support.write(path, build.torch(p.dict("evil", body, "good", tensor), { ["0"] = build.floats { 5 } }))
      local file = core.torch_open(path)
      assert.same({ 5 }, file:tensor("good"):totable())
      for _, value in pairs(file:metadata()) do assert.truthy(value:find "^<", value) end
      if not body:find "defaultdict" then assert.truthy(refusal(p.whole(body)):find "^holds an object of class ") end
      assert.is_nil(lfs.attributes(victim))
    end
  end)

  it("are refused in words when they are cut, empty, or no pickles", function()
    local cases = {
      { "", "byte 0: it ends without its last opcode (is it cut?)" },
      { "\128\2", "byte 2: it ends without its last opcode (is it cut?)" },
      { ".", "byte 1: it ends with 0 values, expected 1" },
      { "NN.", "byte 3: it ends with 2 values, expected 1" },
      { "(N.", "byte 3: it ends with 1 values, expected 1" },
      { "\128\6N.", "byte 2: protocol 6, the last one known is 5" },
      { "\149" .. le(99, 8) .. "N.", "byte 9: a frame that is longer than the file (is it cut?)" },
      { "X\255\255\255\255abc", "byte 5: an opcode has 4294967295 bytes to it, 3 are left (is it cut?)" },
      { "\141\255\255\255\255\255\255\255\255abc", "byte 9: an opcode has 18446744073709551615 bytes to it, 3 are left (is it cut?)" },
      { "\139\255\255\255\255abc", "byte 5: an opcode has 4294967295 bytes to it, 3 are left (is it cut?)" },
      { "\142\0\0\0\0\0\0\0\128abc", "byte 9: an opcode has 9223372036854775808 bytes to it, 3 are left (is it cut?)" },
      { "cos", "byte 1: a line that does not end (is it cut?)" },
      { "cos\nsystem", "byte 4: a line that does not end (is it cut?)" },
      { "t.", "byte 1: an opcode takes what lies above a mark, and there is no mark" },
      { "R.", "byte 1: an opcode takes more values than there are" },
      { "(R.", "byte 2: an opcode takes more values than there are" },
      { "N(NR.", "byte 4: an opcode takes more values than there are" },
      { "0.", "byte 1: an opcode takes more values than there are" },
      { "(Ne.", "byte 3: an opcode takes more values than there are" },
      { "N(Ne.", "byte 4: items for something that is no list" },
      { "]NNs.", "byte 4: keys and values for something that is no dict" },
      { "}(Nu.", "byte 4: a dict of an odd number of keys and values" },
      { "(Nd.", "byte 3: a dict of an odd number of keys and values" },
      { "NNR.", "byte 3: a call whose arguments are no tuple" },
      { "NN\147.", "byte 3: a class whose name is no text" },
      { "c" .. ("x"):rep(200) .. "\n" .. ("y"):rep(100) .. "\n.", "byte 303: the name of a class or function has more than 255 bytes" },
      { p.call("collections", "OrderedDict", p.list("N")) .. ".", "byte 32: a dict of something that is no pair" },
      { "h\0.", "byte 2: place 0 of the memo is empty" },
      { "j\255\255\255\255.", "byte 5: place 4294967295 of the memo is empty" },
      { "Nr\255\255\255\255.", "byte 6: place 4294967295 of the memo, before which there is nothing" },
      { "Np99999999999\n.", "byte 14: place 99999999999 of the memo, before which there is nothing" },
      { "Np-1\n.", "byte 5: a place in the memo that is no number" },
      { "q\0.", "byte 2: an opcode takes more values than there are" },
      { "I1x\n.", "byte 4: a whole number that is not one" },
      { "I\n.", "byte 2: a whole number without digits" },
      { "F1x\n.", "byte 4: a number that is not one" },
      { "F" .. ("1"):rep(100) .. "\n.", "byte 102: a number that is not one" },
      { "S'a\n.", "byte 4: a string without its quotes" },
      { "V\\Uffffffff\n.", "byte 12: a character beyond the last one" },
      { "\130\1.", "byte 1: an extension code, whose meaning is not in the file" },
      { "\151.", "byte 1: a buffer outside the pickle, which is not in the file" },
      { "\255.", "byte 1: 255 is no opcode of a pickle" },
    }
    for _, case in ipairs(cases) do assert.equal(case[2], refusal(case[1])) end
  end)

  it("that hold themselves do not loop", function()
    write(p.whole("}q\0" .. p.text "self" .. "h\0s" .. p.text "n" .. "K\1s"))
    assert.same({ n = "1" }, core.torch_open(path):metadata())
    write(p.whole("]q\0h\0ah\0aK\1a"))
    assert.same({ ["2"] = "1" }, core.torch_open(path):metadata())
    -- A tuple's element that is the list that holds the tuple.
    write(p.whole("]q\0h\0\133a"))
    assert.same({}, core.torch_open(path):metadata())
  end)

  it("that are bombs are refused fast and in little memory", function()
    local before, begin = peak_kb(), os.clock()
    -- Each list holds the one before ten times, and is popped from the stack, but for the last.
    local laughs = "]q\0000"
    for i = 1, 30 do laughs = laughs .. "](" .. ("h" .. string.char(i - 1)):rep(10) .. "eq" .. string.char(i) .. (i < 30 and "0" or "") end
    -- A plain list, held so often that looking whether it is plain takes long.
    local plain = "](" .. ("K\1"):rep(20000) .. "eq\0000](" .. ("h\0"):rep(20000) .. "e"
    -- Deep in one another: by lists, by tuples, by calls.
    local deep = ")" .. ("\133"):rep(100000)
    local lists = ("]"):rep(100000) .. ("a"):rep(99999)
    local wrapped = p.global("torch._utils", "_rebuild_parameter") .. "q\0" .. ("h\0"):rep(99) .. p.tensor { count = 1, size = { 1 }, stride = { 1 } } .. ("\133R"):rep(100)
    local nested = "its values lie more than 64 deep in one another"
    local often = "its values hold one another too often (a bomb?)"
    for _, case in ipairs { { laughs, often }, { plain, often }, { deep, nested }, { lists, nested }, { wrapped, "tensor '(root)': it is wrapped in itself" } } do
      assert.equal(case[2], refusal(p.whole(case[1])))
    end
    assert.is_true(os.clock() - begin < 5)
    -- Many values out of few bytes each.
    local many = refusal(p.whole(("}"):rep(2 ^ 21)))
    assert.truthy(many:find "its values take more memory than a pickle in a file of this size may ask for$", many)
    -- Names that grow with each level.
    local long = {}
    for i = 1, 60 do long[i] = "}" .. p.text(("x"):rep(100)) end
    assert.equal("a name of more than 1023 bytes: its values lie too deep in one another", refusal(p.whole(table.concat(long) .. "N" .. ("s"):rep(60))))
    assert.is_true(peak_kb() - before < 64 * 1024, ("%d kB more"):format(peak_kb() - before))
  end)
end)
