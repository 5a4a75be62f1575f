local ops = require "spec.support.ops"
local unic = require "unic"
local blocked = require "spec.support.blocked"

local function values(t) return unic.reshape(unic.contiguous(t), { -1 }):totable() end
local function tensor(list, shape) return unic.reshape(unic.tensor(list), shape) end

describe("avg_pool2d", function()
  ops.check("avg_pool2d", {
    { x = { 2, 3, 6, 5 }, kernel = 2, note = "stride of the kernel's size" },
    { x = { 2, 3, 7, 6 }, kernel = 3, stride = 2, padding = 1, note = "overlapping windows" },
    { x = { 1, 2, 5, 7 }, kernel = { 2, 3 }, stride = { 1, 2 }, padding = { 1, 0 }, count_include_pad = false, note = "padding not counted" },
    { x = { 2, 140, 9, 8 }, kernel = 3, stride = 2, padding = 1, note = "two pieces of channels and a tail" },
    { x = { 1, 8, 24, 20 }, kernel = 11, stride = 3, padding = 5, count_include_pad = false, note = "windows of many pixels" },
    { x = { 0, 3, 5, 5 }, kernel = 2, note = "no images" },
  }, {
    errors = {
      { { x = { 3, 5, 5 }, kernel = 2 }, "argument 'x'" },
      { { x = { 1, 3, 5, 5 }, kernel = 0 }, "argument 'kernel'.*at least 1" },
      { { x = { 1, 3, 5, 5 }, kernel = { 2, 6 } }, "argument 'kernel'.*5 pixels in dimension 4" },
      { { x = { 1, 3, 5, 5 }, kernel = 2, stride = -1 }, "argument 'stride'" },
      { { x = { 1, 3, 5, 5 }, kernel = 3, padding = 2 }, "argument 'padding'.*0 to 1" },
    },
  })

  it("gives the values worked out by hand", function()
    local x = tensor({ 1, 2, 3, 4, 8, 6, 4, 2 }, { 1, 1, 2, 4 })
    assert.same({ 4.25, 3.25 }, values(unic.avg_pool2d(x, 2)))
    assert.same({ 4.25, 3.75, 3.25 }, values(unic.avg_pool2d(x, 2, { stride = 1 })))
    local row = tensor({ 3, 6, 9 }, { 1, 1, 1, 3 })
    assert.same({ 3, 6, 5 }, values(unic.avg_pool2d(row, { 1, 3 }, { stride = 1, padding = { 0, 1 } })))
    assert.same({ 4.5, 6, 7.5 }, values(unic.avg_pool2d(row, { 1, 3 }, { stride = 1, padding = { 0, 1 }, count_include_pad = false })))
  end)

  it("keeps channels in blocks", function()
    if blocked.size() == 0 then return end
    local x = unic.uniform_(unic.empty { 2, 32, 11, 8 }, -1, 1, { rng = unic.new_generator(1) })
    for _, attributes in ipairs { { kernel = 2 }, { kernel = 3, stride = 2, padding = 1, count_include_pad = false } } do
      local y = blocked.check(function(t) return unic.avg_pool2d(t, attributes) end, x)
      assert.is_nil(y:stride())
    end
    local y = blocked.check(unic.global_avg_pool2d, x)
    assert.same({ 32, 1 }, y:stride())
  end)
end)

describe("global_avg_pool2d", function()
  ops.check("global_avg_pool2d", {
    { x = { 2, 3, 4, 5 } },
    { x = { 3, 140, 9, 9 }, note = "two pieces of channels, a tail, two runs of pixels" },
    { x = { 0, 3, 4, 4 }, note = "no images" },
  }, {
    errors = {
      { { x = { 2, 3 } }, "argument 'x'" },
      { { x = { 2, 3, 0, 4 } }, "argument 'x'.*at least one pixel" },
    },
  })

  it("gives the values and gradients worked out by hand", function()
    local x = tensor({ 1, 2, 3, 6, 10, 20, 30, 60 }, { 1, 2, 2, 2 })
    x.requires_grad = true
    local y = unic.global_avg_pool2d(x)
    assert.same({ 1, 2 }, y.shape)
    assert.same({ 3, 30 }, values(y))
    y:backward { gradient = tensor({ 4, 8 }, { 1, 2 }) }
    assert.same({ 1, 1, 1, 1, 2, 2, 2, 2 }, values(x.grad))
  end)
end)
