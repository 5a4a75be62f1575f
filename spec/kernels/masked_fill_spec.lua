local unic = require "unic"
local ops = require "spec.support.ops"

describe("masked_fill", function()
  ops.check("masked_fill", {
    { x = { 3, 5 }, mask = ops.bools({ 3, 5 }), value = -2 },
    { x = { 2, 3, 4 }, mask = ops.bools({ 3, 1 }), value = 0.5, note = "mask broadcasts" },
    { x = { 2, 3, 4, 5 }, mask = ops.bools({ 4, 5 }), value = 1 },
    { x = { 17, 1500 }, mask = ops.bools({ 17, 1500 }, 0.3), value = 7, note = "several chunks" },
    { x = { 0, 3 }, mask = ops.bools({ 0, 3 }), value = 1 },
    { x = {}, mask = ops.bools({}, 1), value = 3 },
  }, {
    errors = {
      { { x = { 3 }, mask = ops.bools({ 4 }), value = 1 }, "argument 'mask'" },
      { { x = { 3 }, mask = ops.bools({ 2, 3 }), value = 1 }, "argument 'mask'" },
      { { x = { 3 }, mask = { 3 }, value = 1 }, "argument 'mask'" },
    },
  })

  it("fills tensors of any dtype, with infinity too", function()
    local mask = unic.tensor { true, false }
    for _, dtype in ipairs { "f32", "bf16", "f64", "i64", "i32", "u8" } do
      assert.same({ 9, 2 }, unic.cast(unic.masked_fill(unic.tensor({ 1, 2 }, { dtype = dtype }), mask, 9), "f64"):totable())
    end
    assert.same({ -math.huge, 2 }, unic.masked_fill(unic.tensor { 0 / 0, 2 }, mask, -math.huge):totable())
  end)
end)
