local unic = require "unic"
local ops = require "spec.support.ops"
local core = require "unic.core"

local lars = core.ops.call.lars

local function case(shapes, more)
  local c = { params = {}, grads = {}, buffers = {}, lr = 0.3, weight_decay = 0.1, eta = 0.05, layouts = false }
  for i, s in ipairs(shapes) do c.params[i], c.grads[i], c.buffers[i] = ops.normal(s), ops.normal(s), ops.normal(s) end
  for k, v in pairs(more or {}) do c[k] = v end
  return c
end

ops.check("lars", {
  case({ { 3, 4 }, { 5 }, {} }, { note = "three small tensors" }),
  case({ { 70, 130 }, { 1 }, { 20000 }, { 0 }, { 33, 1 } }, { scale = 0.5, note = "several chunks, an empty tensor, a scale" }),
  case({ { 3, 4 }, { 50 }, {} }, { skip_decay = true, skip_adapt = true, note = "biases as SGD" }),
  case({ { 2, 3, 4, 5 } }, { weight_decay = 0, momentum = 0, note = "no decay, no momentum" }),
  case({}, { note = "no tensors" }),
}, {
  gradient = false, dtypes = { "f32" },
  errors = {
    { { params = { { 3 } }, grads = { { 4 } }, buffers = { { 3 } }, lr = 1 }, "argument 'grads'" },
    { { params = { { 3 } }, grads = { { 3 } }, buffers = {}, lr = 1 }, "argument 'buffers'" },
    { { params = { { 3 } }, grads = { { 3 } }, buffers = { { 3 } }, lr = 1, eta = -1 }, "argument 'eta'" },
    { { params = { { 3 } }, grads = { { 3 } }, buffers = { { 3 } }, lr = 1, momentum = -1 }, "argument 'momentum'" },
  },
})

describe("lars", function()
  it("steps by lr eta |p| at first, whatever the gradient's size", function()
    for _, size in ipairs { 1e-6, 1, 1e6 } do
      local p, was = unic.full({ 4, 25 }, 0.5), unic.full({ 4, 25 }, 0.5)
      lars({ p }, { unic.full({ 4, 25 }, size) }, { unic.zeros { 4, 25 } }, 2, { eta = 0.01 })
      assert.is_true(math.abs(unic.norm(p - was):item() / (2 * 0.01 * 5) - 1) < 1e-5)
    end
  end)
  it("updates channels-last parameters in place, and takes bf16 gradients", function()
    local g = unic.cast(unic.cast(unic.randn(2, 8, 3, 3), "bf16"), "f32")
    local function run(change, grad)
      local p = change(unic.full({ 2, 8, 3, 3 }, 1))
      lars({ p }, { grad }, { unic.zeros { 2, 8, 3, 3 } }, 0.1, { weight_decay = 0.1 })
      return p
    end
    local plain, last = run(function(t) return t end, g), run(unic.channels_last, g)
    assert.is_true(last:is_channels_last())
    assert.is_true(unic.max(unic.abs(plain - last)):item() < 1e-7)
    assert.same_bits(plain, run(function(t) return t end, g:cast("bf16")))
  end)
  it("leaves tensors of one dimension out of decay and adaption when it is told to", function()
    for skip = 0, 3 do
      local decay, adapt = skip % 2 == 1, skip >= 2
      local bias, matrix = unic.tensor { 3, 4 }, unic.tensor { { 3, 4 } }
      local options = { momentum = 0, weight_decay = 0.5, eta = 0.1, skip_decay = decay, skip_adapt = adapt }
      lars({ bias, matrix }, { unic.tensor { 6, 8 }, unic.tensor { { 6, 8 } } }, { unic.zeros(2), unic.zeros(1, 2) }, 0.1, options)
      -- The gradient, with or without half of (3, 4), goes the same way as the parameter; adapted, its length is 0.1 times 5.
      local g = (decay and 10 or 12.5) * (adapt and 1 or 0.1 * 5 / (decay and 10 or 12.5))
      assert.close(bias, { 3 - 0.1 * g * 0.6, 4 - 0.1 * g * 0.8 }, 1e-6)
      assert.close(matrix, { { 3 - 0.1 * 0.5 * 0.6, 4 - 0.1 * 0.5 * 0.8 } }, 1e-6)
    end
  end)

  it("changes nothing where the scale is not finite", function()
    for _, dtype in ipairs { "f32", "f64" } do
      for _, scale in ipairs { 0 / 0, math.huge } do
        local p, b = unic.ones({ 4 }, { dtype = dtype }), unic.zeros({ 4 }, { dtype = dtype })
        lars({ p }, { unic.ones({ 4 }, { dtype = dtype }) }, { b }, 0.1, { scale = scale })
        assert.same({ 1, 1, 1, 1 }, p:totable())
        assert.same({ 0, 0, 0, 0 }, b:totable())
      end
    end
  end)
  it("replays with the learning rate of the day", function()
    local p, b, lr = unic.ones { 4 }, unic.zeros { 4 }, unic.full({}, 0.1)
    local recorded = unic.record(function() lars({ p }, { unic.ones { 4 } }, { b }, lr, { eta = 1 }) end)
    local first = p:totable()[1]
    lr:fill_(0)
    recorded:replay()
    assert.equal(first, p:totable()[1])
    lr:fill_(0.1)
    recorded:replay()
    assert.is_true(p:totable()[1] < first - 0.1)
  end)
end)
