local unic = require "unic"
local ops = require "spec.support.ops"

describe("scale_", function()
  ops.check("scale_", { { values = { { 3, 5 }, { 7 }, { 0 } }, by = ops.values(0.25) }, { values = { { 40000 } }, by = 3 } },
    { errors = { { { values = { { 2 } }, by = { 2 } }, "argument 'by'" } } })
  it("multiplies in place", function()
    local a, b = unic.tensor { 1, 2 }, unic.tensor { 4 }
    unic.scale_({ a, b }, 0.5)
    assert.same({ 0.5, 1 }, a:totable())
    assert.same({ 2 }, b:totable())
  end)
end)
