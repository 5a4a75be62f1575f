local unic = require "unic"
local ops = require "spec.support.ops"
local lerp = require("unic.core").ops.call.lerp_

describe("lerp_", function()
  ops.check("lerp_", {
    { into = { { 3, 4 }, { 5 }, {} }, from = { { 3, 4 }, { 5 }, {} }, weight = 0.3, layouts = false, note = "three small tensors" },
    { into = { { 70, 130 }, { 0 }, { 9000 } }, from = { { 70, 130 }, { 0 }, { 9000 } }, weight = 0.01, layouts = false, note = "several chunks" },
    { into = {}, from = {}, weight = 0.3, note = "no tensors" },
  }, {
    gradient = false,
    errors = {
      { { into = { { 3 } }, from = { { 4 } }, weight = 0.5 }, "argument 'from'" },
      { { into = { { 3 }, { 3 } }, from = { { 3 } }, weight = 0.5 }, "argument 'from'" },
    },
  })

  it("moves a quarter of the way", function()
    local a = unic.tensor { 0, 8 }
    lerp({ a }, { unic.tensor { 4, 0 } }, 0.25)
    assert.same({ 1, 6 }, a:totable())
    lerp({ a }, { unic.tensor { 4, 0 } }, 0)
    assert.same({ 1, 6 }, a:totable())
    lerp({ a }, { unic.tensor { 4, 0 } }, 1)
    assert.same({ 4, 0 }, a:totable())
  end)

  it("works through any strides", function()
    local big = unic.zeros { 3, 4 }
    local column = big:narrow(2, 2, 1)
    lerp({ column }, { unic.full({ 3, 1 }, 2) }, 0.5)
    assert.same({ { 0, 1, 0, 0 }, { 0, 1, 0, 0 }, { 0, 1, 0, 0 } }, big:totable())
  end)
end)
