local unic = require "unic"
local ops = require "spec.support.ops"

describe("argmax and argmin", function()
  for _, name in ipairs { "argmax", "argmin" } do
    ops.check(name, {
      { x = { 3, 5 } }, { x = { 3, 5 }, dim = 1 }, { x = { 2, 3, 4 }, dim = 2, keepdim = true }, { x = { 4, 2100 }, note = "longer than a buffer" },
      { x = ops.ints({ 4, 50 }, 0, 9), note = "ints with ties" }, { x = { 0, 3 } },
    }, { errors = { { { x = { 3, 0 } }, "argument 'x'" }, { { x = {} }, "argument 'x'" }, { { x = { 3 }, dim = 2 }, "argument 'dim'" } } })
  end

  it("count from 0, take the first of equals and the first NaN", function()
    local nan = 0 / 0
    assert.same({ 1, 0, 2 }, unic.argmax(unic.tensor { { 1, 3, 3 }, { 5, 5, 1 }, { 1, 2, nan } }):totable())
    assert.same({ 0, 2, 1 }, unic.argmin(unic.tensor { { 1, 3, 3 }, { 5, 5, 1 }, { 1, nan, nan } }):totable())
    assert.same({ { 1 }, { 0 } }, unic.argmax(unic.tensor { { -math.huge, -5 }, { 2, 2 } }, -1, true):totable())
    assert.equal("i64", unic.argmax(unic.tensor { 1, 2 }).dtype)
  end)

  it("compare i64 beyond 2^53 exactly", function()
    local x = unic.tensor({ 2 ^ 53, 2 ^ 53, 0 }, { dtype = "i64" })
    x:narrow(1, 2, 1):copy_(unic.add(x:narrow(1, 1, 1), 1))
    assert.equal(1, unic.argmax(x):item())
  end)
end)
