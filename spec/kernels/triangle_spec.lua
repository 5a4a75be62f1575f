local unic = require "unic"
local ops = require "spec.support.ops"

for _, name in ipairs { "tril", "triu" } do
  ops.check(name, {
    { x = { 4, 5 } }, { x = { 5, 4 }, diagonal = 1 }, { x = { 2, 3, 4, 5 }, diagonal = -1 }, { x = { 3, 3 }, diagonal = 9 }, { x = { 3, 3 }, diagonal = -9 },
    { x = { 70, 1300 }, diagonal = 3, note = "long rows" }, { x = { 2, 300, 170 }, diagonal = -2, note = "many rows" }, { x = { 0, 3 } }, { x = { 2, 3, 0 } },
  }, { errors = { { { x = { 3 } }, "argument 'x'" }, { { x = { 3, 3 }, diagonal = 0.5 }, "argument 'diagonal'" } } })
end

describe("triangles", function()
  it("of small matrices", function()
    local x = unic.tensor({ { 1, 2, 3 }, { 4, 5, 6 } }, { dtype = "i64" })
    assert.same({ { 1, 0, 0 }, { 4, 5, 0 } }, x:tril():totable())
    assert.same({ { 1, 2, 3 }, { 0, 5, 6 } }, x:triu():totable())
    assert.same({ { 1, 2, 0 }, { 4, 5, 6 } }, x:tril(1):totable())
    assert.same({ { 0, 0, 0 }, { 4, 0, 0 } }, x:tril({ diagonal = -1 }):totable())
    assert.same({ { 0, 0, 3 }, { 0, 0, 0 } }, x:triu(2):totable())
    assert.same({ { true, false }, { true, true } }, unic.tensor({ { true, true }, { true, true } }):tril():totable())
  end)
  it("leave no trace of NaN where they are 0", function()
    assert.same({ { 1, 0 }, { 1, 1 } }, unic.tensor({ { 1, 0 / 0 }, { 1, 1 } }):tril():totable())
  end)
end)
