local unic = require "unic"
local ops = require "spec.support.ops"

local function labels(n, classes, ignored)
  local t = {}
  for i = 1, n do t[i] = i % 4 == 0 and ignored or (i * 7) % classes end
  return ops.values(t, "i64")
end

describe("cross_entropy", function()
  local weight = ops.uniform({ 5 }, 0.5, 2)
  weight.constant = true
  ops.check("cross_entropy", {
    { x = { 4, 5 }, target = ops.ints({ 4 }, 0, 4) },
    { x = { 6, 5 }, target = labels(6, 5, -100), note = "ignored rows" },
    { x = { 6, 5 }, target = labels(6, 5, 2), ignore_index = 2, note = "a class that is ignored" },
    { x = { 4, 5 }, target = ops.ints({ 4 }, 0, 4), smoothing = 0.1, note = "smoothing" },
    { x = { 6, 5 }, target = labels(6, 5, -100), weight = weight, note = "class weights" },
    { x = { 6, 5 }, target = labels(6, 5, -100), weight = weight, smoothing = 0.2, note = "class weights and smoothing" },
    { x = { 3, 4 }, target = ops.values({ -100, -100, -100 }, "i64"), note = "every row ignored" },
    { x = ops.uniform({ 9, 2300 }, -6, 6), target = labels(9, 2300, -100), note = "rows longer than a buffer" },
    { x = ops.uniform({ 14, 1300 }, -6, 6), target = labels(14, 1300, -100), smoothing = 0.1, note = "large, smoothing" },
    { x = ops.uniform({ 1300, 14 }, -6, 6), target = labels(1300, 14, -100), note = "many short rows" },
    { x = ops.uniform({ 5, 64 }, -6, 6), target = labels(5, 64, -100), smoothing = 0.1, note = "rows of whole vectors" },
    { x = ops.uniform({ 5, 2053 }, -6, 6), target = labels(5, 2053, -100), note = "long rows that begin anywhere" },
    { x = { 3, 4 }, target = ops.values({ 1, 0, 3 }, "i32"), note = "i32 labels" },
    { x = { 0, 4 }, target = ops.ints({ 0 }, 0, 3), note = "no rows" },
    { x = { 6, 5 }, target = labels(6, 5, -100), weight = weight, smoothing = 0.2, reduction = "sum" },
    { x = { 6, 5 }, target = labels(6, 5, -100), weight = weight, smoothing = 0.2, reduction = "none" },
    { x = ops.uniform({ 1300, 14 }, -6, 6), target = labels(1300, 14, -100), reduction = "none", note = "many short rows" },
    { x = ops.uniform({ 9, 2300 }, -6, 6), target = labels(9, 2300, -100), reduction = "none", smoothing = 0.1, note = "long rows" },
    { x = { 0, 4 }, target = ops.ints({ 0 }, 0, 3), reduction = "none", note = "no rows" },
  }, {
    errors = {
      { { x = { 3, 4 }, target = ops.values({ 0, 4, 1 }, "i64") }, "argument 'target': value 4 at position 1 is outside 0..3" },
      { { x = { 3, 4 }, target = ops.values({ 0, 1, -1 }, "i64") }, "value -1 at position 2" },
      { { x = { 3, 4 }, target = ops.ints({ 2 }, 0, 3) }, "argument 'target'" },
      { { x = { 3, 4 }, target = { 3 } }, "argument 'target'" },
      { { x = { 3, 4 }, target = ops.ints({ 3 }, 0, 3), weight = { 3 } }, "argument 'weight'" },
      { { x = { 3, 4 }, target = ops.ints({ 3 }, 0, 3), smoothing = 2 }, "argument 'smoothing'" },
      { { x = { 3, 4 }, target = ops.ints({ 3 }, 0, 3), reduction = "batchmean" }, "argument 'reduction'" },
    },
  })

  local function close(a, b, limit) return math.abs(a - b) <= (limit or 1e-6) end

  it("is the logarithm of the number of classes where nothing is known", function()
    local x = unic.zeros({ 3, 35675 })
    assert.is_true(close(unic.cross_entropy(x, unic.tensor({ 5, 0, 35674 }, { dtype = "i64" })):item(), math.log(35675)))
  end)

  it("gives values worked out by hand", function()
    -- shares 1/4 and 3/4 in both rows
    local l3 = math.log(3)
    local x = unic.tensor({ { 0, l3 }, { 0, l3 } })
    local t = unic.tensor({ 0, 1 }, { dtype = "i64" })
    local a, b = math.log(4), math.log(4 / 3)
    assert.is_true(close(unic.cross_entropy(x, t):item(), (a + b) / 2))
    assert.is_true(close(unic.cross_entropy(x, t, { weight = unic.tensor({ 3, 1 }) }):item(), (3 * a + b) / 4))
    assert.is_true(close(unic.cross_entropy(x, t, { smoothing = 0.5 }):item(), (a + b) / 2))
    assert.is_true(close(unic.cross_entropy(x, t, { smoothing = 0.2, weight = unic.tensor({ 3, 1 }) }):item(),
      (0.8 * (3 * a + b) + 2 * 0.1 * (3 * a + b)) / 4))
    local ignored = unic.tensor({ -100, 1 }, { dtype = "i64" })
    assert.is_true(close(unic.cross_entropy(x, ignored):item(), b))
    x.requires_grad = true
    unic.cross_entropy(x, ignored):backward()
    local g = x.grad:totable()
    assert.same({ 0, 0 }, g[1])
    assert.is_true(close(g[2][1], 0.25) and close(g[2][2], -0.25))
  end)

  it("is 0 with gradient 0 when every row is ignored", function()
    local x = unic.randn({ 2, 3 })
    x.requires_grad = true
    local loss = unic.cross_entropy(x, unic.tensor({ -100, -100 }, { dtype = "i64" }))
    assert.equal(0, loss:item())
    loss:backward()
    assert.same({ { 0, 0, 0 }, { 0, 0, 0 } }, x.grad:totable())
  end)

  it("stays finite for logits of 1e4 and gives a loss in f32 for bf16 logits", function()
    local t = unic.tensor({ 1, 0 }, { dtype = "i64" })
    assert.is_true(close(unic.cross_entropy(unic.tensor({ { 1e4, 0 }, { 1e4, 0 } }), t):item(), 5000))
    local loss = unic.cross_entropy(unic.tensor({ { 1, 2 }, { 3, 4 } }, { dtype = "bf16" }), t)
    assert.equal("f32", loss.dtype)
  end)
end)
