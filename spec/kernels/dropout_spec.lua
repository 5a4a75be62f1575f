local unic = require "unic"
local ops = require "spec.support.ops"

describe("dropout", function()
  ops.check("dropout", {
    { x = { 3, 5 } },
    { x = { 2, 3, 4 }, p = 0.2 },
    { x = { 7 }, p = 0, note = "nothing dropped" },
    { x = { 7 }, p = 1, note = "everything dropped" },
    { x = { 97, 211 }, p = 0.1, note = "several chunks and a tail" },
    { x = { 0, 3 }, note = "no elements" },
    { x = {}, note = "a scalar" },
  }, {
    errors = {
      { { x = { 3 }, p = -0.1 }, "argument 'p'" },
      { { x = { 3 }, p = 1.1 }, "argument 'p'" },
      { { x = ops.ints({ 3 }, 0, 1) }, "argument 'x'" },
    },
  })

  it("drops the share asked for and keeps the mean", function()
    local n, p = 100000, 0.3
    local values, dropped = unic.dropout(unic.full({ n }, 7), p):totable(), 0
    for i = 1, n do
      if values[i] == 0 then dropped = dropped + 1 else assert.is_true(math.abs(values[i] - 10) < 1e-5) end
    end
    assert.is_true(math.abs(dropped - n * p) < 5 * math.sqrt(n * p * (1 - p)), dropped .. " were dropped")
  end)

  it("drops the same elements in the backward, also of a NaN", function()
    local x = unic.full({ 40, 40 }, 0 / 0)
    x.requires_grad = true
    local y = unic.dropout(x, 0.5)
    y:backward { gradient = unic.full({ 40, 40 }, 1) }
    local a, b = unic.reshape(y:detach(), { -1 }):totable(), unic.reshape(x.grad, { -1 }):totable()
    for i = 1, 1600 do assert.equal(a[i] == 0 and 0 or 2, b[i]) end
  end)

  it("gives another mask at each call, and the same from the same state", function()
    local x, rng = unic.full({ 64 }, 1), unic.new_generator(9)
    local a, b = unic.dropout(x, 0.5, { rng = rng }), unic.dropout(x, 0.5, { rng = rng })
    assert.is_false((require "unic.testing").same_bits(a, b))
    assert.same({ 9, 32 }, rng:totable())
    assert.same_bits(a, unic.dropout(x, 0.5, { rng = unic.new_generator(9) }))
  end)

  it("a recorded step draws a new mask at each replay", function()
    local x, y = unic.full({ 256 }, 1), nil
    local step = unic.record(function() y = unic.dropout(x, 0.5, { rng = nil }) end)
    local first = y:detach():bytes()
    step:replay()
    local second = y:detach():bytes()
    assert.is_true(first ~= second)
  end)
end)

describe("drop_path", function()
  ops.check("drop_path", {
    { x = { 6, 5 }, p = 0.5 },
    { x = { 5, 2, 3, 4 }, p = 0.4 },
    { x = { 7 }, p = 0, note = "nothing dropped" },
    { x = { 7, 2 }, p = 1, note = "everything dropped" },
    { x = { 33, 1500 }, p = 0.3, note = "samples longer than a buffer" },
    { x = { 0, 3 }, note = "no samples" },
    { x = { 3, 0 }, note = "empty samples" },
  }, {
    errors = {
      { { x = { 3 }, p = 2 }, "argument 'p'" },
      { { x = {} }, "argument 'x'" },
    },
  })

  it("drops whole samples", function()
    local y, dropped = unic.drop_path(unic.full({ 1000, 4 }, 3), 0.25):totable(), 0
    for _, row in ipairs(y) do
      for i = 2, 4 do assert.equal(row[1], row[i]) end
      if row[1] == 0 then dropped = dropped + 1 else assert.equal(4, row[1]) end
    end
    assert.is_true(math.abs(dropped - 250) < 5 * math.sqrt(1000 * 0.25 * 0.75), dropped .. " were dropped")
  end)

  it("keeps channels-last images as they lie", function()
    local x = unic.channels_last(unic.randn(4, 3, 5, 6))
    local y = unic.drop_path(x, 0.5, { rng = unic.new_generator(1) })
    assert.is_true(y:is_channels_last())
    assert.same_bits(unic.contiguous(y), unic.drop_path(unic.contiguous(x), 0.5, { rng = unic.new_generator(1) }))
  end)
end)
