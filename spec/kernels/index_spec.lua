local unic = require "unic"
local ops = require "spec.support.ops"

describe("index ops", function()
  ops.check("index_select", {
    { x = { 5, 3 }, dim = 1, ids = ops.values({ 0, 4, 4, 2 }, "i64") },
    { x = { 3, 5 }, dim = -1, ids = ops.values({ 4, 0 }, "i32") },
    { x = { 2, 4, 3 }, dim = 2, ids = ops.ints({ 6 }, 0, 3) },
    { x = { 40, 300 }, dim = 1, ids = ops.ints({ 90 }, 0, 39), note = "rows in several column blocks" },
    { x = { 2, 9, 8 }, dim = 2, ids = ops.ints({ 20 }, 0, 8), note = "short rows of whole groups" },
    { x = { 3, 50 }, dim = 2, ids = ops.ints({ 2100 }, 0, 49), note = "many positions" },
    { x = { 5, 3 }, dim = 1, ids = ops.ints({ 0 }, 0, 1), note = "no positions" },
    { x = { 5, 0 }, dim = 1, ids = ops.ints({ 2 }, 0, 1), note = "empty rows" },
  }, {
    errors = {
      { { x = { 5, 3 }, dim = 1, ids = ops.values({ 0, 5 }, "i64") }, "value 5 at position 1 is outside 0..4, the places of dimension 1" },
      { { x = { 5, 3 }, dim = 2, ids = ops.values({ -1 }, "i64") }, "value -1 at position 0" },
      { { x = { 5, 3 }, dim = 3, ids = ops.ints({ 2 }, 0, 1) }, "argument 'dim'" },
      { { x = { 5, 3 }, dim = 1, ids = { 2 } }, "argument 'ids'" },
      { { x = { 5, 3 }, dim = 1, ids = ops.ints({ 2, 2 }, 0, 1) }, "argument 'ids'" },
    },
  })
  ops.check("gather", {
    { x = { 3, 5 }, dim = 2, ids = ops.ints({ 3, 4 }, 0, 4) },
    { x = { 3, 5 }, dim = 1, ids = ops.ints({ 6, 5 }, 0, 2) },
    { x = { 3, 4, 5 }, dim = 2, ids = ops.ints({ 2, 7, 3 }, 0, 3), note = "fewer lines than x" },
    { x = { 70, 300 }, dim = -1, ids = ops.ints({ 70, 40 }, 0, 299), note = "several chunks" },
    { x = { 2, 50 }, dim = 2, ids = ops.ints({ 2, 2100 }, 0, 49), note = "long lines of positions" },
    { x = { 3, 5 }, dim = 2, ids = ops.ints({ 3, 0 }, 0, 1), note = "no positions" },
  }, {
    errors = {
      { { x = { 3, 5 }, dim = 2, ids = ops.ints({ 3 }, 0, 1) }, "argument 'ids'" },
      { { x = { 3, 5 }, dim = 2, ids = ops.ints({ 4, 2 }, 0, 1) }, "argument 'ids'" },
      { { x = { 3, 5 }, dim = 2, ids = ops.ints({ 3, 1 }, 7, 7) }, "value 7 at position 0" },
    },
  })
  ops.check("scatter_add", {
    { x = { 3, 5 }, dim = 2, ids = ops.ints({ 3, 4 }, 0, 4), src = { 3, 4 } },
    { x = { 3, 5 }, dim = 1, ids = ops.ints({ 6, 5 }, 0, 2), src = { 6, 5 } },
    { x = { 3, 4, 5 }, dim = 2, ids = ops.ints({ 2, 7, 3 }, 0, 3), src = { 2, 7, 3 } },
    { x = { 70, 300 }, dim = -1, ids = ops.ints({ 70, 40 }, 0, 299), src = { 70, 40 }, note = "several chunks" },
    { x = { 3, 5 }, dim = 2, ids = ops.ints({ 3, 0 }, 0, 1), src = { 3, 0 }, note = "nothing added" },
  }, {
    errors = {
      { { x = { 3, 5 }, dim = 2, ids = ops.ints({ 3, 2 }, 0, 1), src = { 3, 3 } }, "argument 'src'" },
      { { x = { 3, 5 }, dim = 2, ids = ops.ints({ 3, 2 }, 9, 9), src = { 3, 2 } }, "value 9 at position 0" },
    },
  })

  it("give the values worked out by hand", function()
    local x = unic.tensor { { 1, 2, 3 }, { 4, 5, 6 } }
    assert.same({ { 3, 1 }, { 6, 4 } }, unic.index_select(x, 2, unic.tensor({ 2, 0 }, { dtype = "i64" })):totable())
    assert.same({ { 3, 1 }, { 5, 5 } }, unic.gather(x, 2, unic.tensor({ { 2, 0 }, { 1, 1 } }, { dtype = "i64" })):totable())
    assert.same({ { 1, 2, 13 }, { 34, 5, 6 } }, unic.scatter_add(x, 2, unic.tensor({ { 2 }, { 0 } }, { dtype = "i64" }), unic.tensor { { 10 }, { 30 } }):totable())
    assert.same({ 30, 10, 30 }, unic.index_select(unic.tensor({ 10, 20, 30 }, { dtype = "i64" }), 1, unic.tensor({ 2, 0, 2 }, { dtype = "i32" })):totable())
  end)

  it("add integers exactly, as a count of classes needs", function()
    local big = unic.tensor({ 2 ^ 53, 0 }, { dtype = "i64" })
    local counted = unic.scatter_add(big, 1, unic.tensor({ 0, 1, 1, 1 }, { dtype = "i64" }), unic.ones({ 4 }, { dtype = "i64" }))
    assert.same({ 1, 3 }, (counted - big):totable())
    assert.same({ 2, 1 }, unic.scatter_add(unic.zeros({ 2 }, { dtype = "i32" }), 1, unic.tensor({ 0, 1, 0 }, { dtype = "i32" }), unic.ones({ 3 }, { dtype = "i32" })):totable())
  end)

  it("sum the gradient of a bf16 tensor in f32", function()
    local x = unic.cast(unic.zeros { 2, 3 }, "bf16")
    x.requires_grad = true
    unic.index_select(x, 1, unic.zeros({ 300 }, { dtype = "i64" })):backward { gradient = unic.cast(unic.full({ 300, 3 }, 1), "bf16") }
    assert.same({ { 300, 300, 300 }, { 0, 0, 0 } }, x.grad:totable())
  end)
end)
