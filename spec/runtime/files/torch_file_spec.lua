-- PyTorch's files: both forms, views and shared storages, values beside tensors, and files that are wrong.
local unic = require "unic"
local core = require "unic.core".files
local testing = require "unic.testing"
local support = require "spec.support.files"
local build = require "spec.support.checkpoints"

local p = build.pickle
local le, floats = support.little_endian, build.floats
local real = testing.real_data()

describe("PyTorch files", function()
  local folder, path
  setup(function()
    folder = support.folder()
    path = folder .. "/x.pt"
  end)
  teardown(function() support.remove(folder) end)

  local function open(bytes)
    support.write(path, bytes)
    return core.torch_open(path)
  end

  local function refusal(bytes)
    support.write(path, bytes)
    local why = support.refusal(core.torch_open, path)
    local front = "[torch_open] '" .. path .. "': "
    assert.equal(front, why:sub(1, #front))
    return why:sub(#front + 1)
  end

  local function values(file, name) return file:tensor(name):totable() end

  local six = floats { 1, 2, 3, 4, 5, 6 }
  local function six_of(t)
    t.count = 6
    return p.tensor(t)
  end

  it("in the zip form give tensors by name, in order, and the rest as text", function()
    local file = open(build.torch(p.dict("a", six_of { size = { 2, 3 }, stride = { 3, 1 } },
      "deep", p.dict("list", p.list(six_of { size = { 3 }, stride = { 1 }, offset = 3 }, p.int(7)), "none", p.none),
      "epoch", p.int(3), "lr", "G" .. "\63\185\153\153\153\153\153\154", "args", p.call("argparse", "Namespace"), "flags", p.list(p.yes, p.no), "text", p.text "ñ"),
      { ["0"] = six }))
    assert.same({ "a", "deep.list.0" }, file:names())
    assert.same({ { 1, 2, 3 }, { 4, 5, 6 } }, values(file, "a"))
    assert.same({ 4, 5, 6 }, values(file, "deep.list.0"))
    local dtype, shape, bytes, pointer = file:entry "a"
    assert.same({ "F32", { 2, 3 }, 24 }, { dtype, shape, bytes })
    assert.is_nil(pointer)
    assert.equal(six, file:data "a")
    assert.same({ ["deep.list.1"] = "7", ["deep.none"] = "None", epoch = "3", lr = "0.1", args = "<object of argparse.Namespace>", flags = "[True, False]", text = "ñ" },
      file:metadata())
    assert.equal(path, file:path())
    assert.equal(0, select("#", file:entry "b"))
    assert.equal(0, select("#", file:tensor "b"))
    assert.equal(0, select("#", file:data "b"))
    file:close()
    assert.equal("[torch] argument 'file': it was closed", support.refusal(file.names, file))
  end)

  it("in the legacy form too, views of storages included", function()
    local function of(t)
      t.legacy = true
      return p.tensor(t)
    end
    local file = open(build.legacy(p.dict("a", of { key = "11", count = 6, size = { 2, 3 }, stride = { 3, 1 } },
      "b", of { key = "11", count = 6, view = { 2, 3 }, size = { 2 }, stride = { 1 }, offset = 1 },
      "c", of { key = "12", class = "LongStorage", count = 1, size = {}, stride = {} }, "epoch", p.int(4)),
      { { "12", 1, le(42, 8) }, { "11", 6, six } }))
    assert.same({ { 1, 2, 3 }, { 4, 5, 6 } }, values(file, "a"))
    assert.same({ 4, 5 }, values(file, "b"))
    assert.equal(42, file:tensor("c"):item())
    assert.same({ epoch = "4" }, file:metadata())
  end)

  it("give a tensor that is the whole object the name (root)", function()
    local file = open(build.torch(six_of { size = { 6 }, stride = { 1 } }, { ["0"] = six }))
    assert.same({ "(root)" }, file:names())
    assert.same({ 1, 2, 3, 4, 5, 6 }, values(file, "(root)"))
  end)

  it("have every dtype, the unknown integers widened", function()
    local cases = {
      { "DoubleStorage", "F64", 8, "f64" }, { "HalfStorage", "F16", 2, "f16" }, { "BFloat16Storage", "BF16", 2, "bf16" }, { "LongStorage", "I64", 8, "i64" },
      { "IntStorage", "I32", 4, "i32" }, { "ShortStorage", "I16", 2, "i32" }, { "CharStorage", "I8", 1, "i32" }, { "ByteStorage", "U8", 1, "u8" },
      { "BoolStorage", "BOOL", 1, "bool" },
    }
    for _, case in ipairs(cases) do
      local bytes = ("\1"):rep(2 * case[3])
      local file = open(build.torch(p.dict("x", p.tensor { class = case[1], count = 2, size = { 2 }, stride = { 1 } }), { ["0"] = bytes }))
      assert.same({ case[2], { 2 }, #bytes }, { file:entry "x" })
      assert.equal(case[4], file:tensor("x").dtype)
      assert.equal(bytes, file:data "x")
    end
    local file = open(build.torch(p.dict("x", p.tensor { class = "CharStorage", count = 4, size = { 4 }, stride = { 1 } },
      "y", p.tensor { class = "UntypedStorage", key = "1", count = 4, rebuild = "_rebuild_tensor_v3", size = { 2 }, stride = { 1 }, more = { p.global("torch", "uint16") } }),
      { ["0"] = "\127\128\255\0", ["1"] = "\255\255\1\0" }))
    assert.same({ 127, -128, -1, 0 }, values(file, "x"))
    assert.same({ 65535, 1 }, values(file, "y"))
    local read = unic.zeros(4, { dtype = "f64" })
    assert.is_true(file:read("x", read))
    assert.same({ 127, -128, -1, 0 }, read:totable())
    assert.equal(0, select("#", file:read("none", read)))
    assert.equal("[torch] '" .. path .. "': tensor 'x': its shape is [4], expected [3]", support.refusal(file.read, file, "x", unic.zeros(3)))
  end)

  it("may be any view: transposed, stepped, expanded, empty, of eight dimensions", function()
    local object = p.dict("turned", six_of { size = { 3, 2 }, stride = { 1, 3 } }, "stepped", six_of { size = { 2, 2 }, stride = { 3, 2 } },
      "expanded", six_of { size = { 2, 3 }, stride = { 0, 1 }, offset = 1 }, "column", six_of { size = { 2 }, stride = { 3 }, offset = 2 },
      "empty", six_of { size = { 0, 4 }, stride = { 4, 1 }, offset = 6 }, "scalar", six_of { size = {}, stride = {}, offset = 5 },
      "deep", six_of { size = { 1, 1, 2, 1, 1, 1, 3, 1 }, stride = { 9, 9, 3, 9, 9, 9, 1, 9 } })
    for _, deflated in ipairs { false, true } do
      local file = open(build.torch(object, { ["0"] = six }, { deflated = deflated }))
      assert.same({ { 1, 4 }, { 2, 5 }, { 3, 6 } }, values(file, "turned"))
      assert.same({ { 1, 3 }, { 4, 6 } }, values(file, "stepped"))
      assert.same({ { 2, 3, 4 }, { 2, 3, 4 } }, values(file, "expanded"))
      assert.same({ 3, 6 }, values(file, "column"))
      assert.equal(0, file:tensor("empty"):numel())
      assert.equal(6, file:tensor("scalar"):item())
      assert.same({ 1, 1, 2, 1, 1, 1, 3, 1 }, file:tensor("deep").shape)
      assert.same({ 1, 2, 3, 4, 5, 6 }, file:tensor("deep"):reshape(6):totable())
    end
  end)

  it("are read through parameters, subclasses, dicts of other kinds and lists of pairs", function()
    local t = six_of { size = { 6 }, stride = { 1 } }
    local state = p.call("collections", "OrderedDict")
    local file = open(build.torch(p.dict("a", p.call("torch._utils", "_rebuild_parameter", t, p.yes, state),
      "b", p.call("torch._utils", "_rebuild_parameter_with_state", t, p.yes, state, p.dict()),
      "c", p.call("torch._tensor", "_rebuild_from_type_v2", p.global("torch._utils", "_rebuild_tensor_v2"), p.global("torch.nn", "Buffer"),
        t:match "^c.-\n.-\n(.*)R$", p.dict()),
      "d", p.call("collections", "OrderedDict", p.list(p.list(p.text "x", t))) .. p.text "y" .. t .. "s",
      "e", p.call("collections", "defaultdict", p.global("builtins", "list")) .. "(" .. p.text "x" .. t .. "u" .. p.dict("_metadata", t) .. "b",
      "f", p.call("__builtin__", "set", p.list(t))), { ["0"] = six }))
    assert.same({ "a", "b", "c", "d.x", "d.y", "e.x", "f.0" }, file:names())
    for _, name in ipairs(file:names()) do assert.same({ 1, 2, 3, 4, 5, 6 }, values(file, name)) end
  end)

  it("list what is no plain tensor with its kind, and refuse to read it", function()
    local id = p.tuple(p.text "storage", p.global("torch", "QInt8Storage"), p.text "0", p.text "cpu", p.int(6)) .. "Q"
    local file = open(build.torch(p.dict(
      "quantised", p.call("torch._utils", "_rebuild_qtensor", id, p.int(0), p.ints { 2, 3 }, p.ints { 3, 1 }, p.tuple(), p.no, p.none),
      "complex", p.tensor { class = "ComplexFloatStorage", key = "1", count = 3, size = { 3 }, stride = { 1 } },
      "sparse", p.call("torch._utils", "_rebuild_sparse_tensor", p.text "layout", p.tuple(p.none, p.none, p.call("torch", "Size", p.ints { 4, 4 }))),
      "meta", p.call("torch._utils", "_rebuild_meta_tensor_no_storage", p.global("torch", "float32"), p.ints { 7 }, p.ints { 1 }, p.no),
      "negated", six_of { key = "2", size = { 6 }, stride = { 1 }, more = { p.dict("neg", p.yes) } }), { ["0"] = "123456", ["1"] = ("c"):rep(24), ["2"] = six }))
    local function is(name, dtype, shape, why)
      local d, s = file:entry(name)
      assert.same({ dtype, shape }, { d, s })
      assert.equal("[torch] '" .. path .. "': tensor '" .. name .. "': " .. why, support.refusal(file.data, file, name))
    end
    is("quantised", "QINT8", { 2, 3 }, "is quantised; save its dequantize() instead")
    is("complex", "C64", { 3 }, "holds complex numbers, which this runtime has no type for")
    is("sparse", "SPARSE", { 4, 4 }, "is sparse; save its to_dense() instead")
    is("meta", "F32", { 7 }, "was saved from the device meta: it has a shape and no values")
    is("negated", "F32", { 6 }, "is a lazily negated view; save its resolve_neg() instead")
    assert.equal("[torch] '" .. path .. "': tensor 'complex': has dtype C64, expected F32, BF16, F16, F64, I64, I32, I16, I8, U8, U16, U32 or BOOL",
      support.refusal(file.tensor, file, "complex"))
  end)

  it("of TorchScript give the attributes of their modules", function()
    local module = p.call("__torch__.torch.nn.Linear", "Linear") .. p.dict("weight", six_of { size = { 6 }, stride = { 1 } }, "training", p.yes) .. "b"
    local object = p.call("__torch__", "Net") .. p.dict("fc", module) .. "b"
    local more = { { name = "archive/constants.pkl", data = "\128\2)." }, { name = "archive/code/x.py", data = "import os" } }
    assert.same({ "fc.weight" }, open(build.torch(object, { ["0"] = six }, { more = more })):names())
    assert.equal("is a TorchScript archive, of which only plain tensors can be read: data.pkl: byte 3: 120 is no opcode of a pickle",
      refusal(build.torch("x", {}, { more = more })))
  end)

  it("read a storage's values only when its checksum fits, and a BOOL only of 0 and 1", function()
    local bytes = build.torch(p.dict("a", six_of { size = { 2 }, stride = { 1 } }), { ["0"] = six })
    local at = bytes:find(six, 1, true)
    local file = open(bytes:sub(1, at - 1) .. "\1" .. bytes:sub(at + 1))
    assert.equal("[torch] '" .. path .. "': tensor 'a': member 'archive/data/0': its checksum does not fit, the file is damaged", support.refusal(file.tensor, file, "a"))
    file = open(build.torch(p.dict("a", p.tensor { class = "BoolStorage", count = 3, size = { 3 }, stride = { 1 } }), { ["0"] = "\0\1\2" }))
    assert.equal("[torch] '" .. path .. "': tensor 'a': a BOOL of value 2, expected 0 or 1", support.refusal(file.tensor, file, "a"))
  end)

  it("are refused when a tensor does not fit its storage", function()
    local function one(t, storage)
      t.count = t.count or 6
      return refusal(build.torch(p.dict("a", p.tensor(t)), { ["0"] = storage or six }))
    end
    local big = 2 ^ 62
    local cases = {
      { { size = { 7 }, stride = { 1 } }, "it reaches from element 0 to 6 of its storage, which has 6" },
      { { size = { 2 }, stride = { 6 } }, "it reaches from element 0 to 6 of its storage, which has 6" },
      { { size = { 2 }, stride = { 1 }, offset = 5 }, "it reaches from element 5 to 6 of its storage, which has 6" },
      { { size = { 2 }, stride = { 1 }, offset = -1 }, "it reaches from element -1 to 0 of its storage, which has 6" },
      { { size = { 1 }, stride = { 1 }, offset = big }, "it reaches from element 4611686018427387904 to 4611686018427387904 of its storage, which has 6" },
      { { size = { -1 }, stride = { 1 } }, "its size holds -1, expected 0 or more" },
      { { size = { 2 }, stride = { -1 } }, "its stride holds -1, expected 0 or more" },
      { { size = { 2, 3 }, stride = { 1 } }, "it has 2 sizes and 1 strides" },
      { { size = { 5 }, stride = { big } }, "its strides reach too far" },
      { { size = { 3, 3 }, stride = { big - 1, big - 1 } }, "its strides reach too far" },
      { { size = { big, big }, stride = { 0, 0 } }, "its shape is too large" },
      { { size = { 1, 1, 1, 1, 1, 1, 1, 1, 1 }, stride = { 1, 1, 1, 1, 1, 1, 1, 1, 1 } }, "its size has 9 numbers, at most 8 can be read" },
      { { size_bytes = p.text "x", stride = { 1 } }, "its size is no tuple" },
      { { size_bytes = p.tuple(p.text "x"), stride = { 1 } }, "its size holds something that is not a size" },
      { { size = { 1 }, stride = { 1 }, class = "StringStorage" }, "its storage is of the unknown class 'torch.StringStorage'" },
      { { size = { 1 }, stride = { 1 }, class = "UntypedStorage" }, "its storage has no type" },
      { { size = { 1 }, stride = { 1 }, count = -1 }, "its storage has a number of elements that is none" },
      { { size = { 1 }, stride = { 1 }, count = big }, "its storage has a number of elements that is none" },
      { { size = { 1 }, stride = { 1 }, key = "../../etc/passwd" }, "a storage whose key is not made of letters and digits (a path trick?)" },
      { { size = { 1 }, stride = { 1 }, key = "" }, "a storage whose key is no short text" },
    }
    for _, case in ipairs(cases) do assert.equal("data.pkl: tensor 'a': " .. case[2], one(case[1])) end
    assert.equal("has no member 'archive/data/1', which data.pkl names", one { size = { 1 }, stride = { 1 }, key = "1" })
    assert.equal("member 'archive/data/0': has 20 bytes, data.pkl says 24", one({ size = { 1 }, stride = { 1 } }, six:sub(1, 20)))
    assert.equal("member 'archive/data/0': has 25 bytes, data.pkl says 24", one({ size = { 1 }, stride = { 1 } }, six .. "x"))
    assert.equal("data.pkl: tensor 'b': storage '0': has 24 bytes in one place and 12 in another",
      refusal(build.torch(p.dict("a", six_of { size = { 1 }, stride = { 1 } }, "b", p.tensor { count = 3, size = { 1 }, stride = { 1 } }), { ["0"] = six })))
    assert.equal("data.pkl: tensor 'a': its storage is not named as PyTorch does it",
      refusal(build.torch(p.dict("a", p.call("torch._utils", "_rebuild_tensor_v2", p.text "0", p.int(0), p.ints { 1 }, p.ints { 1 })))))
    assert.equal("data.pkl: tensor 'a': it is not described as PyTorch does it", refusal(build.torch(p.dict("a", p.call("torch._utils", "_rebuild_tensor_v2")))))
    assert.equal("data.pkl: tensor 'a': it is made by the unknown function 'os.system'",
      refusal(build.torch(p.dict("a", p.call("torch._utils", "_rebuild_parameter", p.call("os", "system", p.text "touch /tmp/x"))))))
    assert.equal("data.pkl: tensor 'a.b': stands twice",
      refusal(build.torch(p.dict("a.b", six_of { size = { 1 }, stride = { 1 } }, "a", p.dict("b", six_of { size = { 1 }, stride = { 1 } })), { ["0"] = six })))
    assert.equal("data.pkl: a name that holds a zero byte", refusal(build.torch(p.dict("a\0b", six_of { size = { 1 }, stride = { 1 } }), { ["0"] = six })))
    assert.equal("data.pkl: a name that is not UTF-8", refusal(build.torch(p.dict("a\255", six_of { size = { 1 }, stride = { 1 } }), { ["0"] = six })))
  end)

  it("that ask for more memory than they have bytes are refused", function()
    local file = open(build.torch(p.dict("a", p.tensor { class = "ByteStorage", count = 1, size = { 5 * 2 ^ 20 }, stride = { 0 } }), { ["0"] = "x" }))
    local size = #support.read(path)
    assert.equal(("[torch] '%s': tensor 'a': asks for 5242880 bytes, the whole file has %d"):format(path, size), support.refusal(file.tensor, file, "a"))
    -- No allocation is tried for any of these.
    assert.truthy(refusal(build.torch(p.dict("a", p.tensor { class = "ByteStorage", count = 1, size = { 2 ^ 40 }, stride = { 0 } }), { ["0"] = "x" }))
      :find "^its tensors ask for more than %d+ bytes in all, the file has %d+ %(expanded or shared without end%?%)$")
    local many = {}
    for i = 1, 20 do
      many[#many + 1] = "t" .. i
      many[#many + 1] = p.tensor { class = "ByteStorage", count = 1, size = { 4 * 2 ^ 20 }, stride = { 0 } }
    end
    assert.truthy(refusal(build.torch(p.dict(unpack(many)), { ["0"] = "x" })):find "^its tensors ask for more than")
  end)

  it("with a wrong archive around them are refused", function()
    local function archive(...) return refusal(build.zip { { name = "a/data.pkl", data = p.whole(p.dict()) }, ... }) end
    local cases = {
      { { name = "../../etc/passwd", data = "x" }, "has a member '../../etc/passwd', a name that leads out of the archive" },
      { { name = "/etc/passwd", data = "x" }, "has a member '/etc/passwd', a name that leads out of the archive" },
      { { name = "a/../../x", data = "x" }, "has a member 'a/../../x', a name that leads out of the archive" },
      { { name = "a\\x", data = "x" }, "has a member 'a\\x', a name that leads out of the archive" },
      { { name = "C:x", data = "x" }, "has a member 'C:x', a name that leads out of the archive" },
      { { name = "a/data.pkl", data = "x" }, "has two members 'a/data.pkl'" },
      { { name = "b/data.pkl", data = "x" }, "has two members <folder>/data.pkl, expected one" },
      { { name = "a/byteorder", data = "big" }, "was written by a big-endian machine" },
      { { name = "a/byteorder", data = "little", flags = 1 }, "member 'a/byteorder': is encrypted" },
      { { name = "a/byteorder", data = "little", method = 12 }, "member 'a/byteorder': is packed by method 12, expected stored or deflated" },
      { { name = "a/byteorder", data = "little", size = 7 }, "member 'a/byteorder': is stored as it is, in two sizes" },
      { { name = "a/byteorder", data = "little", packed = 2 ^ 31, size = 2 ^ 31 }, "member 'a/byteorder': has 2147483648 bytes, the file only " },
      { { name = "a/byteorder", data = "little", deflated = true, size = 2 ^ 31 }, "member 'a/byteorder': 8 bytes cannot become 2147483648" },
      { { name = "a/byteorder", data = "little", crc = 1 }, "member 'a/byteorder': its checksum does not fit, the file is damaged" },
    }
    for _, case in ipairs(cases) do assert.equal(case[2], archive(case[1]):sub(1, #case[2])) end
    assert.equal("is a zip archive and not a PyTorch file: it has no member <folder>/data.pkl", refusal(build.zip { { name = "data.pkl", data = "x" } }))
    assert.equal("is a zip archive and not a PyTorch file: it has no member <folder>/data.pkl (an .npz archive of NumPy arrays?)",
      refusal(build.zip { { name = "x.npy", data = "x" } }))
    assert.equal("member 'a/data.pkl': its checksum does not fit, the file is damaged", refusal(build.zip { { name = "a/data.pkl", data = p.whole(p.dict()), crc = 1 } }))
    local whole = build.torch(p.dict("a", six_of { size = { 6 }, stride = { 1 } }), { ["0"] = six })
    local directory = whole:sub(1, -23)
    assert.equal("has 50001 members, at most 50000 can be read", refusal(directory .. "PK\5\6" .. le(0, 4) .. le(50001, 2):rep(2) .. le(1, 4) .. le(0, 4) .. le(0, 2)))
  end)

  it("that are cut anywhere are refused in words", function()
    local zip = build.torch(p.dict("a", six_of { size = { 6 }, stride = { 1 } }), { ["0"] = six })
    local legacy = build.legacy(p.dict("a", p.tensor { legacy = true, key = "7", count = 6, size = { 6 }, stride = { 1 } }), { { "7", 6, six } })
    for _, whole in ipairs { zip, legacy } do
      assert.same({ 1, 2, 3, 4, 5, 6 }, values(open(whole), "a"))
      for n = 0, #whole - 1 do assert.is_true(#refusal(whole:sub(1, n)) > 10) end
    end
    assert.equal("storage '7': its 24 bytes do not lie in the file (is it cut?)", refusal(legacy:sub(1, -2)))
    assert.equal("1 bytes follow its last storage", refusal(legacy .. "x"))
  end)

  it("in the legacy form with a list of storages that lies are refused", function()
    local function of(t)
      t.legacy = true
      return p.tensor(t)
    end
    local a = of { key = "7", count = 6, size = { 6 }, stride = { 1 } }
    assert.equal("storage '7': has 5 elements in the file, its tensors say 6", refusal(build.legacy(p.dict("a", a), { { "7", 5, six } })))
    assert.equal("storage '7': stands twice in its list of storages", refusal(build.legacy(p.dict("a", a), { { "7", 6, six }, { "7", 6, six } })))
    assert.equal("storage '7': is not in its list of storages", refusal(build.legacy(p.dict("a", a), {})))
    assert.equal("its list of storages has one that its object does not name", refusal(build.legacy(p.dict(), { { "8", 6, six } })))
    assert.equal("was written by a big-endian machine", refusal(build.legacy(p.dict("a", a), { { "7", 6, six } }, { big = true })))
    assert.equal("has a protocol number that is not 1001", refusal(build.legacy(p.dict("a", a), { { "7", 6, six } }, { protocol = 1002 })))
    assert.equal("tensor 'a': its storage is a view of 5 elements from 2 on, there are 6",
      refusal(build.legacy(p.dict("a", of { key = "7", count = 6, view = { 2, 5 }, size = { 6 }, stride = { 1 } }), { { "7", 6, six } })))
    assert.equal("tensor 'a': it reaches from element 0 to 5 of its storage, which has 3",
      refusal(build.legacy(p.dict("a", of { key = "7", count = 6, view = { 2, 3 }, size = { 6 }, stride = { 1 } }), { { "7", 6, six } })))
  end)

  it("that are something else are named as what they are", function()
    assert.equal("is not a PyTorch file (it is empty)", refusal "")
    assert.equal("is not a PyTorch file (its first bytes begin no zip archive and no magic number)", refusal "abc")
    assert.equal("is a pickle that torch.save did not write; nothing in it is read", refusal(p.whole(p.dict())))
    assert.equal("is a pointer of Git LFS and not the file itself", refusal "version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
    assert.equal("is a tar archive, the form of PyTorch before 0.1.10; open it with a PyTorch of today and save it again",
      refusal(("x"):rep(257) .. "ustar" .. ("\0"):rep(250)))
    assert.equal("cannot be read (No such file or directory)", support.refusal(core.torch_open, folder .. "/none"):match "': (.*)$")
  end)

  it("with a whole model inside say so", function()
    assert.equal("data.pkl: holds an object of class 'models.Net' and no dict of tensors: nothing of it is run here; save its state_dict() instead",
      refusal(build.torch(p.call("models", "Net") .. p.dict("x", p.int(1)) .. "b")))
  end)

  if not real then pending("of others have the values PyTorch reads in them: the folder of real data is absent (UNIC_DATA)") return end

  it("of others have the tensors that PyTorch reads in them", function()
    local base = real .. "/checkpoints/"
    local file = core.torch_open(base .. "burn/mnist.pt")
    assert.equal(20, #file:names())
    assert.close(file:tensor("fc1.weight"):to("f64"):sum():item(), -510.434496281791, 1e-9)
    assert.same({ 3752 }, { file:tensor("norm1.num_batches_tracked"):item() })
    file = core.torch_open(base .. "burn/legacy_shared_storage.pt")
    assert.same({ "view1", "view2", "view3" }, file:names())
    assert.close(file:tensor("view2"):to("f64"):sum():item(), -0.007532984018325806, 1e-12)
  end)
end)
