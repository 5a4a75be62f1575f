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
