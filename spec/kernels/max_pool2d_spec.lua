local ops = require "spec.support.ops"
local unic = require "unic"
local blocked = require "spec.support.blocked"

local function values(t) return unic.reshape(unic.contiguous(t), { -1 }):totable() end
local function tensor(list, shape) return unic.reshape(unic.tensor(list), shape) end

describe("max_pool2d", function()
  ops.check("max_pool2d", {
    { x = { 2, 3, 6, 5 }, kernel = 2, note = "stride of the kernel's size" },
    { x = { 2, 3, 7, 6 }, kernel = 3, stride = 2, padding = 1, note = "overlapping windows" },
    { x = { 1, 2, 5, 7 }, kernel = { 2, 3 }, stride = { 1, 2 }, padding = { 1, 0 }, note = "unequal sides" },
    { x = { 2, 140, 9, 8 }, kernel = 3, stride = 2, padding = 1, note = "two pieces of channels and a tail" },
    { x = { 1, 8, 40, 36 }, kernel = 17, stride = 5, padding = 8, note = "windows too large for a byte" },
    { x = { 0, 3, 5, 5 }, kernel = 2, note = "no images" },
  }, {
    errors = {
      { { x = { 3, 5, 5 }, kernel = 2 }, "argument 'x'" },
      { { x = { 1, 3, 5, 5 }, kernel = 0 }, "argument 'kernel'.*at least 1" },
      { { x = { 1, 3, 5, 5 }, kernel = 6 }, "argument 'kernel'.*5 pixels in dimension 3" },
      { { x = { 1, 3, 5, 5 }, kernel = 2, stride = -1 }, "argument 'stride'" },
      { { x = { 1, 3, 5, 5 }, kernel = 3, padding = 2 }, "argument 'padding'.*0 to 1" },
    },
  })

  it("gives the values worked out by hand", function()
    local x = tensor({ 1, 2, 3, 4, 8, 7, 6, 5, -1, -2, -3, -4 }, { 1, 1, 3, 4 })
    assert.same({ 8, 7, 6, 8, 7, 6 }, values(unic.max_pool2d(x, 2, { stride = 1 })))
    assert.same({ 8, 6 }, values(unic.max_pool2d(x, 2)))
    -- Padding never wins, not even against negative numbers.
    assert.same({ -3, -1 }, values(unic.max_pool2d(tensor({ -3, -4, -2, -1 }, { 1, 1, 1, 4 }), { 1, 3 }, { stride = { 1, 3 }, padding = { 0, 1 } })))
  end)

  it("gives the gradient to the first of equal maxima", function()
    local x = tensor({ 5, 5, 5, 5, 1, 5 }, { 1, 1, 2, 3 })
    x.requires_grad = true
    unic.max_pool2d(x, 2, { stride = 1 }):backward { gradient = tensor({ 1, 10 }, { 1, 1, 1, 2 }) }
    assert.same({ 1, 10, 0, 0, 0, 0 }, values(x.grad))
  end)

  it("lets NaN win, and works on windows of -inf", function()
    local nan, inf = 0 / 0, math.huge
    local x = tensor({ 1, nan, 9, 2, -inf, -inf, -inf, -inf }, { 2, 1, 2, 2 })
    x.requires_grad = true
    local y = unic.max_pool2d(x, 2)
    local v = values(y)
    assert.is_true(v[1] ~= v[1])
    assert.equal(-inf, v[2])
    y:backward { gradient = tensor({ 1, 2 }, { 2, 1, 1, 1 }) }
    assert.same({ 0, 1, 0, 0, 2, 0, 0, 0 }, values(x.grad))
  end)

  -- From 2 MB on gradients are written past the caches; whole numbers make every form exact.
  it("is right where gradients pass the caches", function()
    if unic.device() ~= "cpu" then return end
    local rng = unic.new_generator(3)
    local x = unic.cast(unic.randn({ 4, 64, 80, 66 }, { rng = rng }), "bf16")
    local dy = unic.randint_(unic.empty({ 4, 64, 40, 33 }, { dtype = "i32" }), -8, 9, { rng = rng })
    local function run(dtype, enter)
      local a = (enter or unic.channels_last)(unic.cast(x, dtype))
      a.requires_grad = true
      unic.max_pool2d(a, 3, { stride = 2, padding = 1 }):backward { gradient = unic.channels_last(unic.cast(dy, dtype)) }
      return unic.contiguous(unic.cast(a.grad, "f64"))
    end
    local want = run "f64"
    assert.same_bits(want, run "bf16")
    assert.same_bits(want, run "f32")
    if blocked.size() > 0 then assert.same_bits(want, run("f32", blocked.enter)) end
  end)

  it("keeps channels in blocks", function()
    if blocked.size() == 0 then return end
    local x = unic.uniform_(unic.empty { 2, 32, 11, 8 }, -1, 1, { rng = unic.new_generator(1) })
    for _, attributes in ipairs { { kernel = 2 }, { kernel = 3, stride = 2, padding = 1 } } do
      local y = blocked.check(function(t) return unic.max_pool2d(t, attributes) end, x)
      assert.is_nil(y:stride())
    end
    local half = unic.max_pool2d(unic.cast(blocked.enter(x), "bf16"), 2)
    assert.same(blocked.values(unic.max_pool2d(unic.cast(x, "bf16"), 2)), blocked.values(half))
  end)
end)
