local unic = require "unic"
local ops = require "spec.support.ops"
local sgd = require("unic.core").ops.call.sgd

describe("sgd", function()
  local function case(shapes, more)
    local c = { params = {}, grads = {}, lr = 0.1, layouts = false }
    for k, v in pairs(more or {}) do c[k] = v end
    if (c.momentum or 0) ~= 0 then c.momentum_buffers = {} end
    for i, s in ipairs(shapes) do
      c.params[i], c.grads[i] = ops.normal(s), ops.normal(s)
      if c.momentum_buffers then c.momentum_buffers[i] = ops.normal(s) end
    end
    return c
  end
  ops.check("sgd", {
    case({ { 3, 4 }, { 5 }, {} }, { note = "plain" }),
    case({ { 3, 4 }, { 5 } }, { weight_decay = 0.1, scale = 0.5, note = "decay and scale" }),
    case({ { 3, 4 }, { 5 } }, { weight_decay = 0.1, momentum = 0.9, dampening = 0.3, note = "momentum" }),
    case({ { 70, 130 }, { 0 }, { 9000 } }, { momentum = 0.9, nesterov = true, note = "Nesterov, several chunks, an empty tensor" }),
    case({}, { note = "no tensors" }),
  }, {
    gradient = false, dtypes = { "f32" },
    errors = {
      { { params = { { 3 } }, grads = { { 4 } }, lr = 1 }, "argument 'grads'" },
      { { params = { { 3 } }, grads = { { 3 } }, lr = 1, momentum = 0.9 }, "argument 'momentum_buffers'" },
      { { params = { { 3 } }, grads = { { 3 } }, lr = 1, momentum = -1 }, "argument 'momentum'" },
      { { params = { { 3 } }, grads = { { 3 } }, lr = 1, nesterov = true }, "argument 'nesterov'" },
      { { params = { { 3 } }, grads = { { 3 } }, lr = 1, weight_decay = -1 }, "argument 'weight_decay'" },
    },
  })

  it("gives the values worked out by hand", function()
    -- g' = 2 + 0.5 x 4 = 4; b = 0.5 x 10 + 4 = 9; p = 4 - 0.25 x 9 = 1.75; Nesterov: p = 4 - 0.25 x (4 + 0.5 x 9) = 1.875.
    for _, each in ipairs { { false, 1.75 }, { true, 1.875 } } do
      local p, b = unic.tensor { 4 }, unic.tensor { 10 }
      sgd({ p }, { unic.tensor { 2 } }, { b }, 0.25, { momentum = 0.5, weight_decay = 0.5, nesterov = each[1] })
      assert.same({ each[2] }, p:totable())
      assert.same({ 9 }, b:totable())
    end
    local p = unic.tensor { 4 }
    sgd({ p }, { unic.tensor { 2 } }, nil, 0.25, { weight_decay = 0.5, scale = 2 })
    assert.same({ 2.5 }, p:totable())
  end)

  it("takes gradients of another dtype and of another memory layout", function()
    local g = unic.reshape(unic.cast(unic.arange(120), "f32"), { 2, 3, 4, 5 })
    local function run(grad)
      local p = unic.full({ 2, 3, 4, 5 }, 1)
      sgd({ p }, { grad }, nil, 0.125)
      return p
    end
    assert.same_bits(run(g), run(unic.channels_last(g)))
    assert.same_bits(run(g), run(unic.cast(g, "bf16")))
  end)
end)
