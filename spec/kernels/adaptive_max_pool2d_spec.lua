local ops = require "spec.support.ops"
local unic = require "unic"
local blocked = require "spec.support.blocked"

local function values(t) return unic.reshape(unic.contiguous(t), { -1 }):totable() end

describe("adaptive_max_pool2d", function()
  ops.check("adaptive_max_pool2d", {
    { x = { 2, 3, 6, 4 }, size = { 3, 2 } },
    { x = { 1, 2, 7, 10 }, size = { 3, 4 }, note = "windows that overlap" },
    { x = { 2, 9, 3, 2 }, size = { 5, 3 }, note = "more windows than pixels" },
    { x = { 2, 140, 5, 5 }, size = 1, note = "one window, several pieces of channels" },
    { x = { 0, 3, 4, 4 }, size = 2, note = "no images" },
  }, {
    errors = {
      { { x = { 2, 3, 4, 4 }, size = 0 }, "argument 'size'.*at least 1" },
      { { x = { 2, 3, 4, 0 }, size = 2 }, "argument 'x'.*at least one pixel" },
      { { x = { 3, 4, 4 }, size = 2 }, "argument 'x'" },
    },
  })

  it("gives the values and the gradients worked out by hand", function()
    local x = unic.reshape(unic.tensor { 1, 5, 5, 2, 9 }, { 1, 1, 1, 5 })
    x.requires_grad = true
    local y = unic.adaptive_max_pool2d(x, { 1, 3 })   -- pixels 1-2, 2-4, 4-5
    assert.same({ 5, 5, 9 }, values(y))
    y:backward { gradient = unic.reshape(unic.tensor { 1, 10, 100 }, { 1, 1, 1, 3 }) }
    assert.same({ 0, 11, 0, 0, 100 }, values(x.grad))   -- the first of equal ones
    assert.same(values(unic.max_pool2d(unic.randn({ 2, 3, 4, 6 }, { rng = unic.new_generator(1) }), 2)),
                values(unic.adaptive_max_pool2d(unic.randn({ 2, 3, 4, 6 }, { rng = unic.new_generator(1) }), { 2, 3 })))
  end)

  it("lets NaN win, and knows a window of minus infinity", function()
    local v = values(unic.adaptive_max_pool2d(unic.reshape(unic.tensor { 1, 0 / 0, 3, -math.huge }, { 1, 1, 1, 4 }), { 1, 4 }))
    assert.is_true(v[2] ~= v[2])
    assert.equal(-math.huge, v[4])
    local one = unic.adaptive_max_pool2d(unic.reshape(unic.tensor { 1, 0 / 0, 3 }, { 1, 1, 1, 3 }), 1):item()
    assert.is_true(one ~= one)
  end)

  it("takes channels in blocks", function()
    if blocked.size() == 0 then return end
    local x = unic.uniform_(unic.empty { 2, 32, 7, 5 }, -1, 1, { rng = unic.new_generator(3) })
    blocked.check(function(t) return unic.adaptive_max_pool2d(t, { 3, 2 }) end, x, {})
  end)
end)
