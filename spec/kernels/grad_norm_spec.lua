local unic = require "unic"
local ops = require "spec.support.ops"
local grad_norm = require("unic.core").ops.call.grad_norm

describe("grad_norm", function()
  ops.check("grad_norm", {
    { tensors = { { 3, 4 }, { 5 }, {} }, note = "three small tensors" },
    { tensors = { { 70, 130 }, { 0 }, { 9001 } }, note = "several chunks and a tail" },
    { tensors = { { 2, 8, 3, 5 } }, note = "four dimensions" },
    { tensors = {}, note = "no tensors" },
  }, {
    errors = { { { tensors = { ops.ints({ 3 }, 0, 1) } }, "argument 'tensors'" } },
  })

  it("is 13 for 3, 4 and 12", function()
    assert.equal(13, grad_norm { unic.tensor { 3, 4 }, unic.cast(unic.tensor { { 12 } }, "bf16") }:item())
    assert.equal(0, grad_norm {}:item())
  end)

  it("neither overflows nor drowns small squares", function()
    assert.is_true(math.abs(grad_norm { unic.tensor { 3e30, 4e30 } }:item() / 5e30 - 1) < 1e-6)
    assert.is_true(math.abs(grad_norm { unic.tensor { 3e-30, 4e-30 } }:item() / 5e-30 - 1) < 1e-6)
    local ones = unic.full({ 3000, 1000 }, 1)
    assert.is_true(math.abs(grad_norm { ones }:item() - math.sqrt(3e6)) < 1e-3)
  end)

  it("shows a NaN and an Inf", function()
    local n = grad_norm { unic.tensor { 1, 0 / 0 } }:item()
    assert.is_true(n ~= n)
    assert.equal(math.huge, grad_norm { unic.tensor { 1, -math.huge } }:item())
  end)
end)
