local unic = require "unic"
local ops = require "spec.support.ops"
local core = require "unic.core"

local bert_adam = core.ops.call.bert_adam

local function case(shapes, more)
  local c = { params = {}, grads = {}, exp_avg = {}, exp_avg_sq = {}, lr = 0.01, weight_decay = 0.1, layouts = false }
  for i, s in ipairs(shapes) do c.params[i], c.grads[i], c.exp_avg[i], c.exp_avg_sq[i] = ops.normal(s), ops.normal(s), ops.normal(s), ops.uniform(s, 0.1, 2) end
  for k, v in pairs(more or {}) do c[k] = v end
  return c
end
local one = { params = { { 3 } }, grads = { { 3 } }, exp_avg = { { 3 } }, exp_avg_sq = { { 3 } }, lr = 1 }
local function wrong(more)
  local c = {}
  for k, v in pairs(one) do c[k] = v end
  for k, v in pairs(more) do c[k] = v end
  return c
end

ops.check("bert_adam", {
  case({ { 3, 4 }, { 5 }, {} }, { note = "three small tensors" }),
  case({ { 70, 130 }, { 1 }, { 20000 }, { 0 }, { 33, 1 } }, { scale = 0.5, note = "several chunks, an empty tensor, a scale" }),
  case({ { 3, 4 }, { 50 } }, { max_norm = 0, weight_decay = 0, note = "no clipping, no decay" }),
  case({ { 3, 4 }, { 50 } }, { max_norm = 5, beta1 = 0, eps = 1e-3, note = "one is clipped, one is not" }),
  case({}, { note = "no tensors" }),
}, {
  gradient = false, dtypes = { "f32" },
  errors = {
    { wrong { grads = { { 4 } } }, "argument 'grads'" }, { wrong { exp_avg = {} }, "argument 'exp_avg'" }, { wrong { beta1 = 1 }, "argument 'beta1'" },
    { wrong { eps = -1 }, "argument 'eps'" }, { wrong { max_norm = -1 }, "argument 'max_norm'" },
  },
})

describe("bert_adam", function()
  it("does not correct the bias: the first step is 0.1 / sqrt(0.001) of lr", function()
    local p = unic.zeros { 3 }
    bert_adam({ p }, { unic.tensor { 1e-3, -0.3, 0.5 } }, { unic.zeros { 3 } }, { unic.zeros { 3 } }, 0.01, { eps = 0, weight_decay = 0 })
    for i, sign in ipairs { -1, 1, -1 } do assert.is_true(math.abs(p:totable()[i] - sign * 0.01 * 0.1 / math.sqrt(0.001)) < 1e-7) end
  end)
  it("clips each tensor on its own, after the scale", function()
    local function moment(values, options)
      local m = unic.zeros { 2 }
      bert_adam({ unic.zeros { 2 } }, { unic.tensor(values) }, { m }, { unic.zeros { 2 } }, 0.01, options)
      return m:totable()
    end
    local function near(want, got) for i = 1, 2 do assert.is_true(math.abs(want[i] - got[i]) < 1e-6) end end
    near({ 0.06, 0.08 }, moment({ 3, 4 }, {}))
    near({ 0.03, 0.04 }, moment({ 0.3, 0.4 }, {}))
    near({ 0.03, 0.04 }, moment({ 3, 4 }, { scale = 0.1 }))
    near({ 0.3, 0.4 }, moment({ 3, 4 }, { max_norm = 0 }))
    near({ -0.06, -0.08 }, moment({ 3, 4 }, { scale = -1 }))
  end)
  it("changes nothing where the scale is not finite", function()
    for _, dtype in ipairs { "f32", "f64" } do
      for _, scale in ipairs { 0 / 0, math.huge } do
        local p, b, v = unic.ones({ 4 }, { dtype = dtype }), unic.zeros({ 4 }, { dtype = dtype }), unic.zeros({ 4 }, { dtype = dtype })
        bert_adam({ p }, { unic.ones({ 4 }, { dtype = dtype }) }, { b }, { v }, 0.1, { scale = scale })
        assert.same({ 1, 1, 1, 1 }, p:totable())
        assert.same({ 0, 0, 0, 0 }, b:totable())
      end
    end
  end)
  it("replays with the learning rate of the day", function()
    local p, m, v, lr = unic.ones { 4 }, unic.zeros { 4 }, unic.zeros { 4 }, unic.full({}, 0.1)
    local recorded = unic.record(function() bert_adam({ p }, { unic.ones { 4 } }, { m }, { v }, lr) end)
    local first = p:totable()[1]
    lr:fill_(0)
    recorded:replay()
    assert.equal(first, p:totable()[1])
    lr:fill_(0.1)
    recorded:replay()
    assert.is_true(p:totable()[1] < first - 0.1)
  end)
end)
