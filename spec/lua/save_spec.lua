-- unic.save and unic.load: what is saved comes back, tensors to the bit; the file is one that other programs read.
local unic = require "unic"
local lfs = require "lfs"
local files = require "unic.files"
local nn = require "unic.nn"
local support = require "spec.support.files"

describe("unic.save and unic.load", function()
  local dir, path
  setup(function()
    dir = support.folder()
    path = dir .. "/value.safetensors"
  end)
  teardown(function() support.remove(dir) end)

  local function again(value)
    unic.save(path, value)
    return unic.load(path)
  end

  local function same_bits(a, b)
    assert.same(a.shape, b.shape)
    assert.equal(a.dtype, b.dtype)
    unic.save(dir .. "/a.safetensors", a)
    unic.save(dir .. "/b.safetensors", b)
    assert.is_true(support.read(dir .. "/a.safetensors") == support.read(dir .. "/b.safetensors"))
  end

  for _, dtype in ipairs { "f32", "bf16", "f16", "f64", "i64", "i32", "u8", "bool" } do
    it("keeps a tensor of " .. dtype, function()
      local x = unic.arange(24):sub(3):reshape({ 2, 3, 4 }):to(dtype == "u8" and "i32" or dtype):to(dtype)
      local y = again(x)
      same_bits(x, y)
      assert.same(x:totable(), y:totable())
    end)
  end

  it("keeps no dimension, no element, and an order of its own", function()
    local scalar, empty = again(unic.tensor(2.5)), again(unic.zeros(0, 3))
    assert.same({ {}, 2.5 }, { scalar.shape, scalar:item() })
    assert.same({ 0, 3 }, empty.shape)
    local x = unic.arange(6):reshape { 2, 3 }:t()
    assert.same(x:totable(), again(x):totable())
  end)

  it("keeps nan, infinities and the sign of zero in tensors and outside", function()
    local y = again { unic.tensor { 0 / 0, math.huge, -math.huge, -0 }, 0 / 0, math.huge, -math.huge, -0, .1, 2 ^ 53 + 2, 1 / 3, -17, 1e300, 5e-324 }
    local values = y[1]:totable()
    assert.is_true(values[1] ~= values[1])
    assert.same({ math.huge, -math.huge }, { values[2], values[3] })
    assert.equal(-math.huge, 1 / values[4])
    assert.is_true(y[2] ~= y[2])
    assert.same({ math.huge, -math.huge }, { y[3], y[4] })
    assert.equal(-math.huge, 1 / y[5])
    assert.same({ .1, 2 ^ 53 + 2, 1 / 3, -17, 1e300, 5e-324 }, { unpack(y, 6) })
  end)

  it("keeps tables of all kinds", function()
    local value = {
      "a", true, false, nil, "after a hole", name = "derrame pleural", [-1] = "minus one", [.5] = "a half", [true] = "yes", [false] = "no",
      deep = { { { x = {} } } }, ["a key.with dots\n"] = { 1, 2 }, bytes = "\0\255\"\\\n\127", empty = "",
    }
    assert.same(value, again(value))
    assert.same({}, again {})
    assert.equal("text", again "text")
    assert.equal(false, again(false))
    assert.equal(.1, again(.1))
  end)

  it("keeps what is one, one; also what contains itself", function()
    local w, t = unic.randn(3), { 1 }
    local value = { w = w, tied = { w }, t = t, u = { t } }
    value.me = value
    local y = again(value)
    assert.is_true(rawequal(y, y.me))
    assert.is_true(rawequal(y.t, y.u[1]))
    assert.is_true(rawequal(y.w, y.tied[1]))
    local file = files.safetensors_open(path)
    assert.equal(1, #file:names())
    file:close()
  end)

  it("keeps a long chain of tables", function()
    local chain = { 0 }
    for i = 1, 20000 do chain = { i, chain } end
    local y, length = again(chain), 0
    while y[2] do
      assert.equal(y[1] - 1, y[2][1])
      y, length = y[2], length + 1
    end
    assert.equal(20000, length)
  end)

  it("keeps what wants a gradient, and drops what it was computed from", function()
    local w = unic.ones(2, { requires_grad = true })
    local y = again { w = w, x = unic.ones(2), z = w * 2 }
    assert.same({ true, false, false }, { y.w.requires_grad, y.x.requires_grad, y.z.requires_grad });
    (y.w * y.z):sum():backward()
    assert.same({ 2, 2 }, y.w.grad:totable())
  end)

  it("takes a module's state_dict and gives it back", function()
    local a, b = nn.Linear(3, 2), nn.Linear(3, 2)
    unic.save(path, { model = a:state_dict(), step = 7 })
    local saved = unic.load(path)
    b:load_state_dict(saved.model)
    assert.equal(7, saved.step)
    same_bits(a.weight:detach(), b.weight:detach())
    same_bits(a.bias:detach(), b.bias:detach())
  end)

  it("names the tensors in the file by their path", function()
    unic.save(path, { model = { weight = unic.ones(2), ["a.b"] = unic.ones(1), a = { b = unic.zeros(1) } }, unic.ones(3), [""] = unic.ones(4), __metadata__ = unic.ones(5) })
    local file = files.safetensors_open(path)
    local names = file:names()
    table.sort(names)
    file:close()
    assert.same({ "1", "model.a.b", "model.weight", "tensor.2", "tensor.3", "tensor.4" }, names)
    local y = unic.load(path)
    assert.same({ 1, 0 }, { y.model["a.b"]:item(), y.model.a.b:item() })
    assert.same({ { 4 }, { 5 } }, { y[""].shape, y.__metadata__.shape })
  end)

  it("gives the same file for the same value", function()
    local function write(order)
      local t = {}
      for _, key in ipairs(order) do t[key] = unic.full({ 2 }, key) end
      unic.save(path, { x = t, y = { a = 1, b = 2 } })
      return support.read(path)
    end
    assert.is_true(write { 11, 12, 40, 1000 } == write { 1000, 40, 12, 11 })
  end)

  it("loads any safetensors file", function()
    files.safetensors_save(path, { ["layer.weight"] = unic.ones(2, 2) }, { made = "elsewhere" })
    local y = unic.load(path)
    assert.same({ { 1, 1 }, { 1, 1 } }, y["layer.weight"]:totable())
  end)

  it("loads to a device", function()
    unic.save(path, { x = unic.ones(2) })
    assert.equal("far:0", unic.load(path, { device = "far" }).x.device)
  end)

  it("leaves the old file where it cannot write the new one", function()
    unic.save(path, "old")
    assert.has_error(function() unic.save(path, { print }) end)
    assert.equal("old", unic.load(path))
    for name in lfs.dir(dir) do assert.is_nil(name:find("%.tmp%-"), name) end
  end)
end)
