local unic = require "unic"
local optim = unic.optim

-- One parameter with a gradient set by hand, f64.
local function parameter(value, grad)
  local p = unic.nn.Parameter(unic.tensor({ value }, { dtype = "f64" }))
  p.grad = unic.tensor({ grad }, { dtype = "f64" })
  return p
end

describe("AdamW", function()
  it("follows its formula for three steps", function()
    local lr, b1, b2, eps, wd = 0.1, 0.9, 0.999, 1e-8, 0.01
    local p = parameter(1, 0.5)
    local opt = optim.AdamW({ p }, { lr = lr, betas = { b1, b2 }, eps = eps, weight_decay = wd })
    local x, m, v = 1, 0, 0
    for t, g in ipairs { 0.5, -0.2, 0.3 } do
      p.grad = unic.tensor({ g }, { dtype = "f64" })
      opt:step()
      x = x - lr * wd * x
      m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g * g
      x = x - lr * (m / (1 - b1 ^ t)) / (math.sqrt(v / (1 - b2 ^ t)) + eps)
    end
    assert.is_true(math.abs(p:item() - x) < 1e-6)   -- the learning rate is an f32 tensor
  end)
  it("leaves no garbage that holds gradients: zero_grad gives their memory back at once", function()
    for _, make in ipairs { optim.AdamW, optim.SGD, optim.LARS, optim.BertAdam } do
      local p = unic.nn.Parameter(unic.ones(64, 64))
      local opt = make({ p })
      local function step()
        p.grad = unic.ones(64, 64)
        collectgarbage()
        collectgarbage "stop"
        local before = unic.memory().active
        optim.clip_grad_norm({ p }, 1)
        opt:step()
        opt:zero_grad()
        local gone = before - unic.memory().active
        collectgarbage "restart"
        return gone
      end
      step()
      assert.is_true(step() >= 64 * 64 * 4 - 1024)
    end
  end)
  it("leaves parameters without a gradient as they are, and state goes round a file's names", function()
    local net = unic.nn.Linear(3, 2)
    local opt = optim.AdamW(net:parameters(), { lr = 0.1 })
    net.weight.grad = unic.ones(2, 3)
    local bias = net.bias:bytes()
    opt:step()
    assert.equal(bias, net.bias:bytes())
    local names = optim.names(net)
    local dict = opt:state_dict(names)
    assert.is_truthy(dict["weight.exp_avg"])
    local again = optim.AdamW(net:parameters(), { lr = 0.1 })
    again:load_state_dict(dict, names)
    assert.same_bits(dict["weight.exp_avg_sq"], again:state_dict(names)["weight.exp_avg_sq"])
  end)
  it("refuses misspelt and impossible options", function()
    assert.raises_at(nil, "did you mean 'weight_decay'", function() optim.AdamW({ parameter(1, 1) }, { weight_deacy = 1 }) end)
    assert.raises_at(nil, "option 'lr'", function() optim.AdamW({ parameter(1, 1) }, { lr = -1 }) end)
    assert.raises_at(nil, "it is empty", function() optim.AdamW({}, {}) end)
    local p = parameter(1, 1)
    assert.raises_at(nil, "stands in two places", function() optim.AdamW({ p, p }) end)
  end)
end)

describe("SGD", function()
  it("follows PyTorch's formula with momentum, dampening, decay, Nesterov", function()
    for _, case in ipairs { { 0, 0, false }, { 0.9, 0, false }, { 0.9, 0.1, false }, { 0.9, 0, true } } do
      local momentum, dampening, nesterov = unpack(case)
      local p = parameter(1, 0)
      local opt = optim.SGD({ p }, { lr = 0.1, momentum = momentum, dampening = dampening, nesterov = nesterov, weight_decay = 0.01 })
      local x, buffer = 1, nil
      for _, g in ipairs { 0.5, -0.2, 0.3 } do
        p.grad = unic.tensor({ g }, { dtype = "f64" })
        opt:step()
        g = g + 0.01 * x
        if momentum ~= 0 then
          buffer = buffer and momentum * buffer + (1 - dampening) * g or g
          g = nesterov and g + momentum * buffer or buffer
        end
        x = x - 0.1 * g
      end
      assert.is_true(math.abs(p:item() - x) < 1e-6, ("momentum %g dampening %g"):format(momentum, dampening))
    end
  end)
  it("goes on from a saved buffer: its first step there is dampened, as any later one", function()
    local options = { lr = 0.1, momentum = 0.9, dampening = 0.5 }
    local whole, part = parameter(1, 0.5), parameter(1, 0.5)
    local unbroken, first, second = optim.SGD({ whole }, options), optim.SGD({ part }, options), optim.SGD({ part }, options)
    unbroken:step()
    first:step()
    second:load_state_dict(first:state_dict { [part] = "w" }, { [part] = "w" })
    unbroken:step()
    second:step()
    assert.same_bits(whole, part)
  end)
end)

describe("clipping", function()
  it("scales all gradients by one factor, or leaves them", function()
    local a, b = parameter(0, 3), parameter(0, 4)
    assert.is_true(math.abs(optim.clip_grad_norm({ a, b }, 1):item() - 5) < 1e-6)
    assert.is_true(math.abs(a.grad:item() - 0.6) < 1e-5)
    assert.is_true(math.abs(optim.clip_grad_norm({ a, b }, 10):item() - 1) < 1e-5)
    assert.is_true(math.abs(b.grad:item() - 0.8) < 1e-5)
  end)
end)

describe("schedules", function()
  it("warm up, then fall along a cosine", function()
    local opt = optim.SGD({ parameter(1, 1) }, { lr = 2 })
    local s = optim.warmup_cosine(opt, { steps = 10, warmup = 4, floor = 0.1 })
    local rates = {}
    for i = 1, 11 do rates[i] = opt:get_lr() s:step() end
    assert.is_true(math.abs(rates[1] - 0.5) < 1e-12 and math.abs(rates[4] - 2) < 1e-12 and math.abs(rates[5] - 2) < 1e-12)
    assert.is_true(math.abs(rates[8] - 2 * (0.1 + 0.9 * 0.5)) < 1e-12)
    assert.is_true(math.abs(rates[11] - 0.2) < 1e-12)
  end)
  it("start again", function()
    local opt = optim.SGD({ parameter(1, 1) }, { lr = 2 })
    local s = optim.cosine_restarts(opt, { period = 4, floor = 0 })
    s:seek(2)
    assert.is_true(math.abs(opt:get_lr() - 1) < 1e-12)
    s:seek(4)
    assert.is_true(math.abs(opt:get_lr() - 2) < 1e-12)
    -- Cycles of 4, 8, 16 steps: the second begins at 4, is half over at 8, and the third begins at 12.
    s = optim.cosine_restarts(opt, { period = 4, factor = 2, floor = 0 })
    s:seek(8)
    assert.is_true(math.abs(opt:get_lr() - 1) < 1e-12)
    s:seek(12)
    assert.is_true(math.abs(opt:get_lr() - 2) < 1e-12)
  end)
end)

describe("EMA", function()
  it("follows the weights and changes places with them", function()
    local net = unic.nn.Linear(1, 1, { bias = false })
    unic.no_grad(function() net.weight:fill_(0) end)
    local ema = optim.EMA(net, 0.75)
    unic.no_grad(function() net.weight:fill_(4) end)
    ema:update()
    ema:swap()
    assert.equal(1, net.weight:item())
    ema:swap()
    assert.equal(4, net.weight:item())
  end)
end)

-- Steps with given gradients, against numbers worked out by a function of (parameter, gradient, state).
local function follow(make_optimizer, by_hand, shapes, steps, limit)
  local params, values, state = {}, {}, {}
  for i, shape in ipairs(shapes) do
    params[i] = unic.randn(shape, { dtype = "f64", rng = unic.new_generator(60 + i) }):requires_grad_()
    values[i], state[i] = params[i]:detach():reshape(-1):totable(), {}
  end
  local opt = make_optimizer(params)
  for t = 1, steps do
    for i, p in ipairs(params) do
      local g = unic.randn(p.shape, { dtype = "f64", rng = unic.new_generator(100 * t + i) })
      p.grad = g
      by_hand(values[i], g:reshape(-1):totable(), state[i], #p.shape)
    end
    opt:step()
  end
  for i, p in ipairs(params) do
    for j, v in ipairs(p:detach():reshape(-1):totable()) do
      assert.is_true(math.abs(v - values[i][j]) <= (limit or 1e-12), ("parameter %d[%d]: %.17g, expected %.17g"):format(i, j, v, values[i][j]))
    end
  end
  return opt, params
end

local function norm(list)
  local s = 0
  for _, v in ipairs(list) do s = s + v * v end
  return math.sqrt(s)
end

-- Half of the steps, saved and loaded into a fresh optimiser, then the other half: to the bit what all of them in one go give.
local function resumes(make_optimizer)
  local function model() unic.manual_seed(3) return unic.nn.Sequential(unic.nn.Linear(3, 4), unic.nn.Linear(4, 2)) end
  local function steps(net, opt, from, to)
    for t = from, to do
      for i, p in ipairs(net:parameters()) do p.grad = unic.randn(p.shape, { rng = unic.new_generator(10 * t + i) }) end
      opt:step()
    end
  end
  local whole, part = model(), model()
  local first = make_optimizer(part)
  steps(whole, make_optimizer(whole), 1, 6)
  steps(part, first, 1, 3)
  first:set_lr(first:get_lr())
  local second = make_optimizer(part)
  second:load_state_dict(first:state_dict(optim.names(part)), optim.names(part))
  steps(part, second, 4, 6)
  for i, p in ipairs(whole:parameters()) do assert.same_bits(p, part:parameters()[i]) end
end

describe("LARS", function()
  local lr, momentum, eta, wd = 0.5, 0.8, 0.02, 0.1
  local function rule(skip_decay, skip_adapt)
    return function(p, g, s, ndim)
      local decay = (skip_decay and ndim < 2) and 0 or wd
      local d = {}
      for j = 1, #p do d[j] = g[j] + decay * p[j] end
      local a, b = norm(p), norm(d)
      local by = (a > 0 and b > 0 and not (skip_adapt and ndim < 2)) and eta * a / b or 1
      for j = 1, #p do
        s[j] = momentum * (s[j] or 0) + by * d[j]
        p[j] = p[j] - lr * s[j]
      end
    end
  end
  it("follows its formula", function()
    for _, skip in ipairs { {}, { decay = true }, { adapt = true }, { decay = true, adapt = true } } do
      follow(function(params)
        return optim.LARS(params, { lr = lr, momentum = momentum, eta = eta, weight_decay = wd, skip_decay = skip.decay, skip_adapt = skip.adapt })
      end, rule(skip.decay, skip.adapt), { { 3, 4 }, { 5 }, {} }, 4)
    end
  end)
  it("takes the gradient as it is where a norm is 0", function()
    local p = unic.zeros(3):requires_grad_()
    p.grad = unic.tensor { 1, 2, 3 }
    optim.LARS({ p }, { lr = 0.1 }):step()
    for i, v in ipairs(p:detach():totable()) do assert.is_true(math.abs(v + 0.1 * i) < 1e-7) end
  end)
  it("goes on where it stopped", function()
    resumes(function(net) return optim.LARS(net:groups { lr = 0.3, weight_decay = 0.1, skip_adapt = true }) end)
  end)
  it("refuses what makes no sense", function()
    local p = unic.zeros(3):requires_grad_()
    assert.raises_at(nil, "option 'eta'", function() optim.LARS({ p }, { eta = -1 }) end)
    assert.raises_at(nil, "option 'skip_decay'", function() optim.LARS({ p }, { skip_decay = 1 }) end)
    assert.raises_at(nil, "did you mean 'skip_adapt'", function() optim.LARS({ p }, { skip_adap = true }) end)
  end)
end)

describe("BertAdam", function()
  local function rule(o)
    return function(p, g, s)
      local by = o.max_norm > 0 and math.min(1, o.max_norm / (norm(g) + 1e-6)) or 1
      s.m, s.v = s.m or {}, s.v or {}
      for j = 1, #p do
        local d = by * g[j]
        s.m[j] = 0.9 * (s.m[j] or 0) + 0.1 * d
        s.v[j] = 0.999 * (s.v[j] or 0) + 0.001 * d * d
        p[j] = p[j] - o.lr * (s.m[j] / (math.sqrt(s.v[j]) + 1e-8) + o.weight_decay * p[j])
      end
    end
  end
  it("follows its formula", function()
    -- 2 ^ -4: a learning rate that f32 holds exactly.
    for _, o in ipairs { { lr = 2 ^ -4, weight_decay = 0.01, max_norm = 1 }, { lr = 2 ^ -4, weight_decay = 0, max_norm = 0 }, { lr = 2 ^ -4, weight_decay = 0.1, max_norm = 9 } } do
      follow(function(params) return optim.BertAdam(params, o) end, rule(o), { { 3, 4 }, { 5 }, {} }, 4)
    end
  end)
  it("goes on where it stopped", function()
    resumes(function(net) return optim.BertAdam(net:groups { lr = 0.3, weight_decay = 0.1 }) end)
  end)
  it("refuses what makes no sense", function()
    local p = unic.zeros(3):requires_grad_()
    assert.raises_at(nil, "option 'max_norm'", function() optim.BertAdam({ p }, { max_norm = -1 }) end)
    assert.raises_at(nil, "option 'betas'", function() optim.BertAdam({ p }, { betas = { 1, 0 } }) end)
  end)
end)

describe("optim.bert_linear", function()
  it("rises to the base rate and falls to nothing", function()
    local opt = optim.SGD({ unic.zeros(1):requires_grad_() }, { lr = 5e-4 })
    local sched = optim.bert_linear(opt, { steps = 200, warmup = 50 })
    for step = 1, 210 do   -- counted from 1
      local x, w = step / 200, 50 / 200
      assert.is_true(math.abs(opt:get_lr() - (x < w and 5e-4 * x / w or 5e-4 * math.max((1 - x) / (1 - w), 0))) < 1e-15)
      sched:step()
    end
    assert.equal(0, opt:get_lr())
    assert.raises_at(nil, "option 'warmup': 50 of 50 steps", function() optim.bert_linear(opt, { steps = 50, warmup = 50 }) end)
  end)
  it("and cosine_restarts, the official code's", function()
    local opt = optim.SGD({ unic.zeros(1):requires_grad_() }, { lr = 4e-5 })
    local sched = optim.cosine_restarts(opt, { period = 7 })
    for t = 0, 30 do
      assert.is_true(math.abs(opt:get_lr() - (1e-8 + 0.5 * (4e-5 - 1e-8) * (1 + math.cos(math.pi * (t % 7) / 7)))) < 1e-18)
      sched:step()
    end
  end)
end)
