local unic = require "unic"
local ops = require "spec.support.ops"

describe("where", function()
  ops.check("where", {
    { cond = ops.bools { 3, 5 }, a = { 3, 5 }, b = { 5 } }, { cond = ops.bools { 3, 1 }, a = { 4 }, b = 0.5 }, { cond = ops.bools { 4 }, a = -1, b = { 2, 3, 4 } },
    { cond = ops.bools { 2, 3, 4, 5 }, a = { 2, 3, 4, 5 }, b = { 1, 3, 1, 1 }, note = "images and a value per channel" },
    { cond = ops.bools { 1, 3 }, a = { 1, 3 }, b = { 3 }, note = "a leading dimension of size 1" },
    { cond = ops.bools { 40, 1100 }, a = { 40, 1100 }, b = { 1100 }, note = "several chunks" },
    { cond = ops.bools { 0, 3 }, a = { 3 }, b = { 0, 3 }, note = "no elements" },
  }, {
    errors = {
      { { cond = ops.bools { 3 }, a = 1, b = 2 }, "argument 'a'" },
      { { cond = ops.bools { 3 }, a = { 4 }, b = 1 }, "argument 'a'" },
      { { cond = ops.bools { 3 }, a = { 3 }, b = { 2 } }, "argument 'b'" },
      { { cond = { 3 }, a = { 3 }, b = { 3 } }, "argument 'cond'" },
    },
  })

  it("chooses among any dtype, and never mixes in what was not chosen", function()
    local cond = unic.tensor { true, false, true }
    for _, dtype in ipairs { "f32", "bf16", "f64", "i64", "u8" } do
      assert.same({ 1, 9, 3 }, unic.cast(unic.where(cond, unic.tensor({ 1, 2, 3 }, { dtype = dtype }), 9), "f64"):totable())
      assert.same({ 7, 2, 7 }, unic.cast(unic.where(cond, 7, unic.tensor({ 1, 2, 3 }, { dtype = dtype })), "f64"):totable())
    end
    local a = unic.tensor({ 0 / 0, 1, 2 }, { requires_grad = true })
    local y = unic.where(unic.tensor { false, true, true }, a, 0)
    assert.same({ 0, 1, 2 }, y:detach():totable())
    y:backward { gradient = unic.tensor { 0 / 0, 5, 6 } }
    assert.same({ 0, 5, 6 }, a.grad:totable())
  end)
end)
