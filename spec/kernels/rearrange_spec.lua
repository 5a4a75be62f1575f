local unic = require "unic"
local ops = require "spec.support.ops"

describe("rearranging ops", function()
  ops.check("pad", {
    { x = { 3, 4 }, amounts = { 1, 2 } },
    { x = { 2, 3, 4 }, amounts = { 0, 1, 2, 0, 1, 1 }, value = -2 },
    { x = { 2, 3, 4, 5 }, amounts = { 1, 1, 1, 1 }, note = "images" },
    { x = { 3, 1500 }, amounts = { 3, 4 }, note = "rows longer than a buffer" },
    { x = { 2, 0 }, amounts = { 1, 1 }, value = 3, note = "nothing but border" },
    { x = { 3 }, amounts = {}, note = "no border" },
  }, {
    errors = {
      { { x = { 3 }, amounts = { 1 } }, "argument 'amounts'" },
      { { x = { 3 }, amounts = { 1, 1, 1, 1 } }, "argument 'amounts'" },
      { { x = { 3 }, amounts = { -1, 0 } }, "narrow cuts" },
    },
  })
  ops.check("flip", {
    { x = { 5 }, dims = { 1 } }, { x = { 2, 3, 4 }, dims = { 1, -1 } }, { x = { 2, 3, 4, 5 }, dims = { 4 } }, { x = { 3, 1500 }, dims = { 2 } }, { x = { 3 }, dims = {} },
    { x = { 0, 3 }, dims = { 1 } },
  }, { errors = { { { x = { 3 }, dims = { 2 } }, "argument 'dims'" }, { { x = { 3 }, dims = { 1, -1 } }, "given twice" }, { { x = {}, dims = { 1 } }, "argument 'dims'" } } })
  ops.check("roll", {
    { x = { 5 }, shifts = { 2 }, dims = { 1 } }, { x = { 2, 3, 4 }, shifts = { -1, 6 }, dims = { 3, 2 } }, { x = { 3, 1500 }, shifts = { 700 }, dims = { -1 } },
    { x = { 4 }, shifts = { 0 }, dims = { 1 } }, { x = { 0, 3 }, shifts = { 1 }, dims = { 1 } },
  }, {
    errors = {
      { { x = { 3 }, shifts = { 1, 2 }, dims = { 1 } }, "argument 'dims'" },
      { { x = { 3 }, shifts = { 1 }, dims = { 3 } }, "argument 'dims'" },
    },
  })
  ops.check("repeat_", {
    { x = { 3 }, times = { 2 } }, { x = { 2, 3 }, times = { 2, 3 } }, { x = { 2, 3 }, times = { 2, 1, 3 } }, { x = { 1, 3 }, times = { 4, 1 } }, { x = {}, times = { 3 } },
    { x = { 2, 70 }, times = { 90, 2 }, note = "many copies" }, { x = { 2, 3 }, times = { 0, 2 } }, { x = { 0, 3 }, times = { 2, 2 } },
  }, {
    errors = {
      { { x = { 2, 3 }, times = { 2 } }, "argument 'times'" },
      { { x = { 2 }, times = { -1 } }, "argument 'times'" },
      { { x = { 2, 2, 2, 2, 2 }, times = { 2, 2, 2, 2, 2 } }, "argument 'times'" },
    },
  })

  it("give the values worked out by hand, of any dtype", function()
    for _, dtype in ipairs { "f32", "i64", "u8" } do
      local x = unic.tensor({ { 1, 2, 3 }, { 4, 5, 6 } }, { dtype = dtype })
      assert.same({ { 9, 9, 9, 9 }, { 9, 1, 2, 3 }, { 9, 4, 5, 6 } }, unic.pad(x, { 1, 0, 1, 0 }, { value = 9 }):totable())
      assert.same({ { 3, 2, 1 }, { 6, 5, 4 } }, unic.flip(x, { 2 }):totable())
      assert.same({ { 6, 5, 4 }, { 3, 2, 1 } }, unic.flip(x, { 1, 2 }):totable())
      assert.same({ { 3, 1, 2 }, { 6, 4, 5 } }, unic.roll(x, { 1 }, { 2 }):totable())
      assert.same({ { 5, 6, 4 }, { 2, 3, 1 } }, unic.roll(x, { 1, -1 }, { 1, 2 }):totable())
      assert.same({ { 1, 2, 3, 1, 2, 3 }, { 4, 5, 6, 4, 5, 6 }, { 1, 2, 3, 1, 2, 3 }, { 4, 5, 6, 4, 5, 6 } }, unic.repeat_(x, { 2, 2 }):totable())
    end
  end)
end)
