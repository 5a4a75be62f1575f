local unic = require "unic"
local ops = require "spec.support.ops"

describe("cat", function()
  ops.check("cat", {
    { xs = { { 2, 3 }, { 4, 3 } } },
    { xs = { { 2, 3, 4 }, { 2, 1, 4 }, { 2, 2, 4 } }, dim = 2 },
    { xs = { { 2, 3 }, { 2, 1 } }, dim = -1 },
    { xs = { { 5 } }, note = "one member" },
    { xs = { { 2, 3, 4, 5 }, { 2, 2, 4, 5 } }, dim = 2, note = "channels" },
    { xs = { { 3, 700 }, { 3, 900 } }, dim = 2, note = "rows longer than a buffer" },
    { xs = { { 2, 3 }, { 0, 3 } }, note = "an empty member" },
  }, {
    errors = {
      { { xs = {} }, "argument 'xs'" },
      { { xs = { { 2, 3 }, { 2, 4 } } }, "member 2 has shape" },
      { { xs = { { 2, 3 }, { 2 } } }, "member 2 has shape" },
      { { xs = { {}, {} } }, "argument 'xs'" },
      { { xs = { { 2, 3 } }, dim = 3 }, "argument 'dim'" },
      { { xs = { { 2 }, ops.ints({ 2 }, 0, 1) } }, "argument 'xs'" },
    },
  })

  it("puts values where they belong, of any dtype", function()
    for _, dtype in ipairs { "f32", "i64", "u8", "bool" } do
      local a, b = unic.tensor({ { 1, 0 }, { 1, 1 } }, { dtype = dtype }), unic.tensor({ { 0 }, { 1 } }, { dtype = dtype })
      assert.same(unic.tensor({ { 1, 0, 0 }, { 1, 1, 1 } }, { dtype = dtype }):totable(), unic.cat({ a, b }, 2):totable())
    end
  end)

  it("keeps channels-last images channels-last", function()
    local a, b = unic.randn(2, 3, 4, 5), unic.randn(2, 6, 4, 5)
    local y = unic.cat({ unic.channels_last(a), unic.channels_last(b) }, 2)
    assert.is_true(y:is_channels_last())
    assert.same_bits(unic.contiguous(y), unic.cat({ a, b }, 2))
  end)

  it("gives a member that stands twice both gradients", function()
    local x = unic.randn(3)
    x.requires_grad = true
    unic.cat { x, x }:backward { gradient = unic.tensor { 1, 2, 3, 10, 20, 30 } }
    assert.same({ 11, 22, 33 }, x.grad:totable())
  end)
end)

describe("stack", function()
  ops.check("stack", {
    { xs = { { 2, 3 }, { 2, 3 } } },
    { xs = { { 2, 3 }, { 2, 3 }, { 2, 3 } }, dim = 2 },
    { xs = { { 2, 3 }, { 2, 3 } }, dim = -1 },
    { xs = { {}, {} }, note = "scalars" },
    { xs = { { 40, 33 }, { 40, 33 }, { 40, 33 } }, dim = 3, note = "innermost, several rows" },
    { xs = { { 0, 3 }, { 0, 3 } }, note = "no elements" },
  }, {
    errors = {
      { { xs = {} }, "argument 'xs'" },
      { { xs = { { 2, 3 }, { 2, 4 } } }, "member 2 has shape" },
      { { xs = { { 2, 3 } }, dim = 4 }, "argument 'dim'" },
      { { xs = { { 1, 1, 1, 1, 1, 1, 1, 1 } } }, "argument 'xs'" },
    },
  })

  it("is a new dimension", function()
    assert.same({ { 1, 3 }, { 2, 4 } }, unic.stack({ unic.tensor { 1, 2 }, unic.tensor { 3, 4 } }, 2):totable())
    assert.same({ { 1, 2 }, { 3, 4 } }, unic.stack({ unic.tensor { 1, 2 }, unic.tensor { 3, 4 } }):totable())
  end)
end)
