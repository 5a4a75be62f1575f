local unic = require "unic"
local ops = require "spec.support.ops"
local core = require "unic.core"

local adamw = core.ops.call.adamw

-- The published formula on plain Lua numbers.
local function step_by_hand(p, g, m, v, t, o)
  g = g * (o.scale or 1)
  p = p - o.lr * o.weight_decay * p
  m = o.beta1 * m + (1 - o.beta1) * g
  v = o.beta2 * v + (1 - o.beta2) * g * g
  p = p - o.lr * (m / (1 - o.beta1 ^ t)) / (math.sqrt(v / (1 - o.beta2 ^ t)) + o.eps)
  return p, m, v
end

describe("adamw", function()
  local function case(shapes, more)
    local c = { params = {}, grads = {}, exp_avg = {}, exp_avg_sq = {}, lr = 0.01, step = ops.values(4, "f32"), weight_decay = 0.1, layouts = false }
    for i, s in ipairs(shapes) do
      c.params[i], c.grads[i], c.exp_avg[i], c.exp_avg_sq[i] = ops.normal(s), ops.normal(s), ops.normal(s), ops.uniform(s, 0.1, 2)
    end
    for k, v in pairs(more or {}) do c[k] = v end
    return c
  end
  ops.check("adamw", {
    case({ { 3, 4 }, { 5 }, {} }, { note = "three small tensors" }),
    case({ { 70, 130 }, { 1 }, { 20000 }, { 0 }, { 33, 1 } }, { scale = 0.5, note = "several chunks, an empty tensor, a scale" }),
    case({ { 2, 3, 4, 5 } }, { weight_decay = 0, beta1 = 0, eps = 1e-3, note = "no decay, no first moment" }),
    case({ { 4, 5 } }, { grads = { ops.normal({ 4, 5 }, 1e-3) }, exp_avg = { ops.normal({ 4, 5 }, 1e-3) }, exp_avg_sq = { ops.uniform({ 4, 5 }, 0, 1e-6) },
      lr = 1, eps = 1e-2, note = "an eps larger than the roots" }),
    case({ { 3, 4 } }, { counted = true, note = "a step that was counted before" }),
    case((function() local t = {} for i = 1, 190 do t[i] = { 1 + i % 5 } end return t end)(), { note = "more tensors than a launch takes" }),
    case({}, { note = "no tensors" }),
  }, {
    gradient = false, dtypes = { "f32" },
    errors = {
      { { params = { { 3 } }, grads = { { 4 } }, exp_avg = { { 3 } }, exp_avg_sq = { { 3 } }, lr = 1, step = ops.values(0, "f32") }, "argument 'grads'" },
      { { params = { { 3 } }, grads = { { 3 }, { 3 } }, exp_avg = { { 3 } }, exp_avg_sq = { { 3 } }, lr = 1, step = ops.values(0, "f32") }, "argument 'grads'" },
      { { params = { { 3 } }, grads = { { 3 } }, exp_avg = {}, exp_avg_sq = { { 3 } }, lr = 1, step = ops.values(0, "f32") }, "argument 'exp_avg'" },
      { { params = { { 3 } }, grads = { { 3 } }, exp_avg = { { 3 } }, exp_avg_sq = { { 3 } }, lr = 1, step = ops.values(0, "f32"), beta1 = 1 }, "argument 'beta1'" },
      { { params = { { 3 } }, grads = { { 3 } }, exp_avg = { { 3 } }, exp_avg_sq = { { 3 } }, lr = 1, step = ops.values(0, "f32"), eps = -1 }, "argument 'eps'" },
    },
  })

  it("follows the published formula for five steps", function()
    local o = { lr = 0.1, beta1 = 0.8, beta2 = 0.9, eps = 1e-6, weight_decay = 0.05, scale = 2 }
    local p, m, v = 1.5, 0, 0
    local tp, tm, tv = unic.tensor({ 1.5 }, { dtype = "f64" }), unic.zeros({ 1 }, { dtype = "f64" }), unic.zeros({ 1 }, { dtype = "f64" })
    local fp, fm, fv = unic.tensor { 1.5 }, unic.zeros { 1 }, unic.zeros { 1 }
    local step, fstep = unic.zeros {}, unic.zeros {}
    local lr, scale = unic.full({}, o.lr), unic.full({}, o.scale)
    o.lr = lr:item()   -- 0.1 as f32
    local options = { scale = scale, beta1 = o.beta1, beta2 = o.beta2, eps = o.eps, weight_decay = o.weight_decay }
    for t = 1, 5 do
      local g = math.sin(t)
      p, m, v = step_by_hand(p, g, m, v, t, o)
      adamw({ tp }, { unic.tensor({ g }, { dtype = "f64" }) }, { tm }, { tv }, lr, step, options)
      adamw({ fp }, { unic.tensor { g } }, { fm }, { fv }, lr, fstep, options)
      assert.is_true(math.abs(tp:totable()[1] - p) < 1e-13)
      assert.is_true(math.abs(tm:totable()[1] - m) < 1e-13 and math.abs(tv:totable()[1] - v) < 1e-13)
      assert.is_true(math.abs(fp:totable()[1] - p) < 1e-6)
      assert.equal(t, step:item())
      assert.equal(t, fstep:item())
    end
  end)

  it("counts a step once when its parameters come one by one, and not where it is left out", function()
    local function state(n) return { unic.full({ n }, 1) }, { unic.full({ n }, 0.5) }, { unic.zeros(n) }, { unic.zeros(n) } end
    local pa, ga, ma, va = state(3)
    local pb, gb, mb, vb = state(5)
    local step = unic.zeros {}
    adamw({ pa[1], pb[1] }, { ga[1], gb[1] }, { ma[1], mb[1] }, { va[1], vb[1] }, 0.1, step)
    local qa, _, na, wa = state(3)
    local qb, _, nb, wb = state(5)
    local count = unic.zeros {}
    adamw(qa, ga, na, wa, 0.1, count, { scale = 0 / 0 })
    adamw(qb, gb, nb, wb, 0.1, count, { scale = 0 / 0, counted = true })
    assert.equal(0, count:item())
    adamw(qb, gb, nb, wb, 0.1, count)
    adamw(qa, ga, na, wa, 0.1, count, { counted = true })
    assert.equal(1, count:item())
    for _, pair in ipairs { { pa, qa }, { pb, qb }, { ma, na }, { vb, wb } } do assert.same_bits(pair[1][1], pair[2][1]) end
  end)

  it("moves each weight by about lr at the first step, whatever the gradient's size", function()
    local p = unic.zeros { 3 }
    adamw({ p }, { unic.tensor { 1e-6, -3, 1e6 } }, { unic.zeros { 3 } }, { unic.zeros { 3 } }, 0.01, unic.zeros {}, { eps = 0, weight_decay = 0 })
    for i, sign in ipairs { -1, 1, -1 } do assert.is_true(math.abs(p:totable()[i] - sign * 0.01) < 1e-8) end
  end)

  it("takes gradients of another dtype and of another memory layout", function()
    local function run(change)
      local p, m, v = unic.full({ 2, 3, 4, 5 }, 1), unic.zeros { 2, 3, 4, 5 }, unic.zeros { 2, 3, 4, 5 }
      local g = unic.reshape(unic.cast(unic.arange(120), "f32"), { 2, 3, 4, 5 })
      adamw({ p }, { change(g) }, { m }, { v }, 0.1, unic.zeros {})
      return p
    end
    local plain = run(function(g) return g end)
    assert.same_bits(plain, run(unic.channels_last))
    assert.same_bits(plain, run(function(g) return unic.cast(g, "bf16") end))   -- integers below 256 are exact in bf16
    assert.same_bits(plain, run(function(g) return unic.transpose(unic.contiguous(unic.transpose(g, 1, 2)), 1, 2) end))
  end)

  it("takes a tensor whose gradient lies differently between others", function()
    local function run(change)
      local p, g, m, v = {}, {}, {}, {}
      for i = 1, 5 do
        p[i], m[i], v[i] = unic.full({ 3, 4 }, i), unic.zeros { 3, 4 }, unic.zeros { 3, 4 }
        g[i] = unic.reshape(unic.cast(unic.arange(12), "f32"), { 3, 4 })
        if i % 2 == 0 then g[i] = change(g[i]) end
      end
      adamw(p, g, m, v, 0.1, unic.zeros {})
      return p
    end
    local plain, mixed = run(function(g) return g end), run(function(g) return unic.transpose(unic.contiguous(unic.transpose(g, 1, 2)), 1, 2) end)
    for i = 1, 5 do assert.same_bits(plain[i], mixed[i]) end
  end)

  it("updates channels-last parameters in place", function()
    local g = unic.randn(2, 8, 3, 3)
    local a, b = unic.full({ 2, 8, 3, 3 }, 1), unic.channels_last(unic.full({ 2, 8, 3, 3 }, 1))
    adamw({ a }, { g }, { unic.zeros(a.shape) }, { unic.zeros(a.shape) }, 0.1, unic.zeros {})
    adamw({ b }, { g }, { unic.zeros(a.shape) }, { unic.zeros(a.shape) }, 0.1, unic.zeros {})
    assert.is_true(b:is_channels_last())
    assert.same_bits(a, unic.contiguous(b))
  end)

  it("replays with the learning rate of the day", function()
    local p, m, v, step, lr = unic.zeros { 4 }, unic.zeros { 4 }, unic.zeros { 4 }, unic.zeros {}, unic.full({}, 0.1)
    local g = unic.full({ 4 }, 1)
    local recorded = unic.record(function() adamw({ p }, { g }, { m }, { v }, lr, step, { weight_decay = 0 }) end)
    local first = p:totable()[1]
    lr:fill_(0)
    recorded:replay()
    assert.equal(first, p:totable()[1])
    assert.equal(2, step:item())
    lr:fill_(0.1)
    recorded:replay()
    assert.is_true(p:totable()[1] < first - 0.09)
  end)
end)
