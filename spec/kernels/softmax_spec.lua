local unic = require "unic"
local ops = require "spec.support.ops"

describe("softmax", function()
  for _, name in ipairs { "softmax", "log_softmax" } do
    ops.check(name, {
      { x = { 3, 5 } },
      { x = { 3, 5 }, dim = 1 },
      { x = { 2, 3, 4 }, dim = 2 },
      { x = { 7 }, dim = 1 },
      { x = { 2, 3, 2, 2 }, dim = 2, note = "along channels" },
      { x = { 3, 1 }, note = "one class" },
      { x = ops.uniform({ 7, 1300 }, -6, 6), note = "rows longer than a buffer" },
      { x = ops.uniform({ 3, 17, 150 }, -6, 6), dim = 2, note = "columns, several blocks" },
      { x = ops.uniform({ 300, 30 }, -9, 9), note = "many short rows" },
      { x = { 5, 96 }, note = "short rows of whole groups" },
      { x = { 3, 512 }, note = "longer rows of whole groups" },
      { x = { 2, 2048 }, note = "long rows of whole groups" },
      { x = { 3, 701 }, note = "longer rows" },
      { x = { 0, 4 }, note = "no rows" },
      { x = { 3, 0 }, note = "no classes" },
    }, {
      errors = {
        { { x = { 3, 4 }, dim = 3 }, "argument 'dim'" },
        { { x = { 3, 4 }, dim = 0 }, "argument 'dim'" },
        { { x = {} }, "argument 'x'" },
      },
    })
  end

  it("gives the shares 1/4 and 3/4 for a difference of log 3", function()
    local y = unic.softmax(unic.tensor({ 0, math.log(3) }, { dtype = "f64" })):totable()
    assert.is_true(math.abs(y[1] - 0.25) < 1e-15 and math.abs(y[2] - 0.75) < 1e-15)
    local l = unic.log_softmax(unic.tensor({ 0, math.log(3) }, { dtype = "f64" })):totable()
    assert.is_true(math.abs(l[1] - math.log(0.25)) < 1e-15 and math.abs(l[2] - math.log(0.75)) < 1e-15)
    local f = unic.softmax(unic.tensor({ 0, math.log(3) })):totable()
    assert.is_true(math.abs(f[1] - 0.25) < 1e-7 and math.abs(f[2] - 0.75) < 1e-7)
  end)

  it("stays finite for large logits and takes -inf as absent", function()
    local inf = math.huge
    assert.same({ 1, 0, 0 }, unic.softmax(unic.tensor({ 1e30, -1e30, 0 })):totable())
    local y = unic.softmax(unic.tensor({ 2, -inf, 2 })):totable()
    assert.same({ 0.5, 0, 0.5 }, y)
    local l = unic.log_softmax(unic.tensor({ 1000, 0 })):totable()
    assert.same({ 0, -1000 }, l)
    local n = unic.softmax(unic.tensor({ 1, 0 / 0 })):totable()
    assert.is_true(n[1] ~= n[1] and n[2] ~= n[2])
  end)
end)
