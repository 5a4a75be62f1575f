local unic = require "unic"
local ops = require "spec.support.ops"

local function targets(shape)
  local t = ops.uniform(shape, 0, 1)
  t.constant = true
  return t
end

describe("bce_with_logits", function()
  ops.check("bce_with_logits", {
    { x = { 3, 4 }, target = targets({ 3, 4 }) },
    { x = { 3, 4 }, target = targets({ 3, 4 }), pos_weight = ops.uniform({ 4 }, 0.5, 3), note = "a weight per column" },
    { x = { 3, 4 }, target = targets({ 3, 4 }), pos_weight = ops.values({ 2.5 }), note = "one weight" },
    { x = { 5 }, target = targets({ 5 }) },
    { x = ops.uniform({ 17, 1030 }, -9, 9), target = targets({ 17, 1030 }), pos_weight = ops.uniform({ 1030 }, 0.5, 3), note = "large" },
    { x = ops.uniform({ 3500, 5 }, -9, 9), target = targets({ 3500, 5 }), note = "many rows" },
    { x = { 0, 3 }, target = targets({ 0, 3 }), note = "empty" },
    { x = { 3, 4 }, target = targets({ 3, 4 }), reduction = "sum" },
    { x = { 3, 4 }, target = targets({ 3, 4 }), pos_weight = ops.uniform({ 4 }, 0.5, 3), reduction = "none" },
    { x = ops.uniform({ 17, 1030 }, -9, 9), target = targets({ 17, 1030 }), reduction = "none", note = "large" },
  }, {
    errors = {
      { { x = { 3, 4 }, target = { 4, 3 } }, "argument 'target'" },
      { { x = { 3, 4 }, target = { 3 } }, "argument 'target'" },
      { { x = { 3, 4 }, target = { 3, 4 }, pos_weight = { 3 } }, "argument 'pos_weight'" },
      { { x = { 3, 4 }, target = { 3, 4 }, reduction = "total" }, "argument 'reduction'" },
    },
  })

  local function close(a, b, limit) return math.abs(a - b) <= (limit or 1e-6) end

  it("gives values worked out by hand", function()
    assert.is_true(close(unic.bce_with_logits(unic.zeros({ 4 }), unic.tensor({ 0, 1, 0.5, 1 })):item(), math.log(2)))
    -- sigmoid = 3/4
    local x = unic.tensor({ math.log(3) })
    assert.is_true(close(unic.bce_with_logits(x, unic.tensor({ 1 })):item(), math.log(4 / 3)))
    assert.is_true(close(unic.bce_with_logits(x, unic.tensor({ 0 })):item(), math.log(4)))
    assert.is_true(close(unic.bce_with_logits(x, unic.tensor({ 1 }), unic.tensor({ 5 })):item(), 5 * math.log(4 / 3)))
    x.requires_grad = true
    unic.bce_with_logits(x, unic.tensor({ 1 }), unic.tensor({ 5 })):backward()
    assert.is_true(close(x.grad:totable()[1], -5 / 4))
  end)

  it("stays finite for large logits and exact for tiny ones", function()
    assert.equal(1000, unic.bce_with_logits(unic.tensor({ 1000 }), unic.tensor({ 0 })):item())
    assert.equal(0, unic.bce_with_logits(unic.tensor({ 1000 }), unic.tensor({ 1 })):item())
    assert.equal(1000, unic.bce_with_logits(unic.tensor({ -1000 }), unic.tensor({ 1 })):item())
    -- log(1 + exp(-20)) = 2.0611536e-9
    local small = unic.bce_with_logits(unic.tensor({ 20 }), unic.tensor({ 1 })):item()
    assert.is_true(math.abs(small / 2.0611536e-9 - 1) < 1e-6)
  end)
end)
