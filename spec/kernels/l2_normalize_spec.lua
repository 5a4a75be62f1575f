local unic = require "unic"
local ops = require "spec.support.ops"

describe("l2_normalize", function()
  ops.check("l2_normalize", {
    { x = { 3, 5 } },
    { x = { 3, 5 }, dim = 1 },
    { x = { 2, 3, 4 }, dim = 2 },
    { x = { 6 } },
    { x = { 2, 3, 2, 2 }, dim = 2, note = "along channels" },
    { x = ops.uniform({ 4, 3 }, -0.1, 0.1), eps = 1, note = "shorter than eps" },
    { x = { 5, 512 }, note = "rows of whole vectors" },
    { x = { 2, 16, 5, 3 }, dim = 2, note = "along channels of whole vectors" },
    { x = { 8, 2500 }, note = "rows longer than a buffer" },
    { x = { 3, 40, 150 }, dim = 2, note = "columns, several blocks" },
    { x = { 0, 4 }, note = "no rows" },
    { x = { 3, 0 }, note = "no elements in a row" },
  }, {
    errors = {
      { { x = { 3, 4 }, dim = 3 }, "argument 'dim'" },
      { { x = { 3, 4 }, eps = 0 }, "argument 'eps'" },
      { { x = {} }, "argument 'x'" },
    },
  })

  it("brings 3, 4 to 0.6, 0.8", function()
    local y = unic.l2_normalize(unic.tensor({ { 3, 4 }, { -30, 40 } }, { dtype = "f64" })):totable()
    for i, v in ipairs { 0.6, 0.8 } do
      assert.is_true(math.abs(y[1][i] - v) < 1e-15)
      assert.is_true(math.abs(math.abs(y[2][i]) - v) < 1e-15)
    end
    assert.is_true(y[2][1] < 0)
  end)

  it("takes vectors whose squares overflow or vanish in f32, and zeros", function()
    local y = unic.l2_normalize(unic.tensor({ { 3e30, 4e30 }, { 3e-25, 4e-25 }, { 0, 0 } }), { eps = 1e-30 }):totable()
    for r = 1, 2 do
      assert.is_true(math.abs(y[r][1] - 0.6) < 1e-6 and math.abs(y[r][2] - 0.8) < 1e-6)
    end
    assert.same({ 0, 0 }, y[3])
  end)
end)
