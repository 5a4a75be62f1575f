-- loss:backward{step = optimizer} against loss:backward(); optimizer:step(); optimizer:zero_grad(), to the bit.
local unic = require "unic"
local nn, optim = unic.nn, unic.optim

local MAKE = {
  AdamW = function(groups) return optim.AdamW(groups, { lr = 1e-2, weight_decay = 0.1 }) end,
  SGD = function(groups) return optim.SGD(groups, { lr = 1e-2, momentum = 0.9, dampening = 0.3, weight_decay = 0.1 }) end,
  ["SGD without momentum"] = function(groups) return optim.SGD(groups, { lr = 1e-2 }) end,
  LARS = function(groups) return optim.LARS(groups, { lr = 1e-1, weight_decay = 0.1 }) end,
  BertAdam = function(groups) return optim.BertAdam(groups, { lr = 1e-2, weight_decay = 0.1, max_norm = 0.01 }) end,
}

local ids = unic.tensor({ { 2, 5, 6, 3 }, { 2, 7, 3, 0 } }, { dtype = "i64" })
local labels = unic.tensor({ { -100, 5, -100, 3 }, { -100, 7, -100, -100 } }, { dtype = "i64" })
local picture = unic.randn(2, 1, 64, 64)

local models = {
  -- The word embeddings are the head's matrix, too.
  ["a masked language model, tied"] = {
    function() return require("unic.models.bert").BertForMaskedLM { vocab = 20, width = 16, depth = 2, heads = 2, hidden = 32 } end,
    function(m) return m:loss(ids, ids:ne(0), labels) end,
  },
  ["two views and frozen layers"] = {
    function()
      local m = require("unic.models.medunic") { vision = "resnet_small", text = "bert_small", vocab = 20, channels = 1, dim = 8, ctr_dim = 8, hidden = 16 }
      m.text_encoder:freeze(1)
      return m
    end,
    function(m)
      local v1, v2 = m:image(picture), m:image(picture:flip(4))
      return v1:mul(v2):sum() + m.text_encoder(ids, ids:ne(0)):square():mean()
    end,
  },
  ["checkpointed pieces"] = {
    function() return nn.Sequential(nn.Linear(6, 16, { activation = "gelu" }), nn.LayerNorm(16), nn.Linear(16, 16), nn.Dropout(0.1), nn.Linear(16, 3)) end,
    function(m)
      local h = unic.randn(5, 6)
      for _, layer in ipairs { m[1], m[2], m[3], m[4], m[5] } do h = unic.checkpoint(layer, h) end
      return h:square():sum()
    end,
  },
}

-- Three steps, each of `batches` backwards; how: what a step's last backward does.
local function train(model, make, how, options)
  unic.manual_seed(11)
  local m = model[1]()
  m:train()
  local groups = m:groups { weight_decay = 0.1 }
  local optimizer = make(groups)
  local losses = {}
  for step = 1, options.steps or 3 do
    unic.manual_seed(100 + step)
    optimizer:set_lr(1e-2 / step)
    for batch = 1, options.batches or 1 do
      local function forward() return (unic.autocast(options.dtype or "f32", function() return model[2](m) end)) end
      local loss = options.low and unic.low_memory(forward) or forward()
      losses[#losses + 1] = loss:item()
      if batch == (options.batches or 1) then how(loss, optimizer, m) else loss:backward() end
    end
  end
  return m, optimizer, losses
end

local function plain(loss, optimizer)
  loss:backward()
  optimizer:step()
  optimizer:zero_grad()
end

local function inside(loss, optimizer) loss:backward { step = optimizer } end

local function same(model, make, options)
  local a, one, first = train(model, make, plain, options)
  local b, two, second = train(model, make, inside, options)
  assert.same(first, second)
  local theirs = b:state_dict()
  for key, t in pairs(a:state_dict()) do assert.is_true(unic.testing.same_bits(t:detach(), theirs[key]:detach()), key) end
  local own, other = one:state_dict(optim.names(a)), two:state_dict(optim.names(b))
  local n = 0
  for key, t in pairs(own) do
    n = n + 1
    assert.is_true(unic.testing.same_bits(t, other[key]), key)
  end
  for key in pairs(other) do assert.is_truthy(own[key], key) end
  for _, p in ipairs(b:parameters()) do assert.is_nil(p.grad) end
  return n
end

describe("backward{step = optimizer}", function()
  for name, make in pairs(MAKE) do
    for kind, model in pairs(models) do
      it(("has the bits of the step after: %s, %s"):format(name, kind), function()
        for _, low in ipairs { false, true } do
          assert.is_true(same(model, make, { low = low }) > 0)
        end
      end)
    end
  end

  it("has them in bf16, and with gradients of earlier batches", function()
    for _, model in pairs(models) do
      same(model, MAKE.AdamW, { dtype = "bf16", low = true })
      same(model, MAKE.SGD, { batches = 3, steps = 2 })
    end
  end)

  it("steps what only earlier batches have used, and makes no state for what none has", function()
    local a, b, c = unic.ones({ 2 }, { requires_grad = true }), unic.ones({ 2 }, { requires_grad = true }), unic.ones({ 2 }, { requires_grad = true })
    local adamw = optim.AdamW({ a, b, c }, { lr = 0.5, weight_decay = 0 })
    a:sum():backward()
    b:mul(3):sum():backward { step = adamw }
    assert.is_true(a:totable()[1] < 0.6 and b:totable()[1] < 0.6 and c:totable()[1] == 1)
    assert.equal(1, adamw.groups[1].step:item())
    assert.is_nil(adamw.state[c])
    assert.is_truthy(adamw.state[a] and adamw.state[b])
    assert.is_nil(a.grad)
  end)

  it("takes several optimisers, and a gradient for a loss of several elements", function()
    local function two(how)
      unic.manual_seed(4)
      local m = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
      local first, second = optim.AdamW(m[1]:parameters()), optim.SGD(m[2]:parameters(), { momentum = 0.5 })
      for _ = 1, 3 do how(m(unic.randn(5, 3)), first, second, unic.ones(5, 2)) end
      return m
    end
    local want = two(function(y, first, second, dy)
      y:backward { gradient = dy }
      for _, o in ipairs { first, second } do o:step() o:zero_grad() end
    end):state_dict()
    for key, t in pairs(two(function(y, first, second, dy) y:backward { gradient = dy, step = { first, second } } end):state_dict()) do
      assert.same_bits(want[key]:detach(), t:detach())
    end
  end)

  it("keeps the graph where that is asked for", function()
    local function run(how)
      local w = unic.ones({ 3 }, { requires_grad = true })
      local sgd = optim.SGD({ w }, { lr = 0.1 })
      local y = w:add(unic.tensor { 1, 2, 3 }):sum()
      for _ = 1, 2 do how(y, sgd) end
      return w
    end
    assert.same_bits(run(function(y, sgd)
      y:backward { keep = true }
      sgd:step()
      sgd:zero_grad()
    end), run(function(y, sgd) y:backward { keep = true, step = sgd } end))
  end)

  it("goes on from a saved state to the bit", function()
    local model = models["a masked language model, tied"]
    local whole, unbroken = train(model, MAKE.AdamW, inside, { steps = 4 })
    local m, optimizer = train(model, MAKE.AdamW, inside, { steps = 2 })
    local again = model[1]()
    again:load_state_dict(m:state_dict())
    again:train()
    local second = MAKE.AdamW(again:groups { weight_decay = 0.1 })
    second:load_state_dict(optimizer:state_dict(optim.names(m)), optim.names(again))
    for step = 3, 4 do
      unic.manual_seed(100 + step)
      second:set_lr(1e-2 / step)
      inside(model[2](again), second)
    end
    local theirs = again:state_dict()
    for key, t in pairs(whole:state_dict()) do assert.is_true(unic.testing.same_bits(t:detach(), theirs[key]:detach()), key) end
    theirs = second:state_dict(optim.names(again))
    for key, t in pairs(unbroken:state_dict(optim.names(whole))) do assert.is_true(unic.testing.same_bits(t, theirs[key]), key) end
  end)

  it("replays", function()
    local function run(record)
      unic.manual_seed(6)
      local m = nn.Sequential(nn.Linear(4, 8, { activation = "gelu" }), nn.LayerNorm(8), nn.Linear(8, 2))
      local adamw, x = optim.AdamW(m:parameters(), { lr = 0.1 }), unic.randn(3, 4)
      local function step() m(x):square():sum():backward { step = adamw } end
      step()
      if not record then for _ = 1, 3 do step() end else
        local recorded = unic.record(step)
        for _ = 1, 2 do recorded:replay() end
      end
      return m, adamw.groups[1].step:item()
    end
    local a, steps = run(false)
    local b, replayed = run(true)
    assert.equal(4, steps)
    assert.equal(4, replayed)
    for i, p in ipairs(a:parameters()) do assert.same_bits(p, b:parameters()[i]) end
  end)

  it("never has all gradients at once", function()
    unic.manual_seed(1)
    local n, depth = 256, 12
    local function peak(how)
      local layers = {}
      for i = 1, depth do layers[i] = nn.Linear(n, n, { bias = false }) end
      local m = nn.Sequential(unpack(layers))
      local sgd = optim.SGD(m:parameters(), { lr = 1e-3 })
      local x, highest = unic.randn(4, n), 0
      for step = 1, 3 do
        local loss = m(x):square():sum()
        collectgarbage()
        collectgarbage()
        if step > 1 then unic.memory_peak_reset() end
        local before = unic.memory().active
        how(loss, sgd)
        if step > 1 then highest = math.max(highest, unic.memory().peak - before) end
      end
      return highest / (4 * n * n)
    end
    local all, few = peak(plain), peak(inside)
    assert.is_true(all > depth - 1 and few < 2, ("%.1f and %.1f gradients"):format(all, few))
  end)
end)

describe("what does not go with a step inside the backward", function()
  local function trained()
    local m = nn.Linear(3, 2)
    return m, optim.AdamW(m:parameters()), m(unic.randn(4, 3)):square():sum()
  end

  it("is the norm of all gradients, which are gone", function()
    local m, adamw, loss = trained()
    loss:backward { step = adamw }
    assert.raises_at(nil, "%[optim.clip_grad_norm%] argument 'params': gradients are gone", function() optim.clip_grad_norm(m:parameters(), 1) end)
    assert.raises_at(nil, "%[optim.grad_norm%] argument 'params': gradients are gone", function() optim.grad_norm(m:parameters()) end)
    m(unic.randn(4, 3)):square():sum():backward()
    assert.is_true(optim.clip_grad_norm(m:parameters(), 1):item() > 0)
    adamw:zero_grad()
    assert.equal(0, optim.clip_grad_norm(m:parameters(), 1):item())
  end)

  it("is a scaled loss", function()
    local _, adamw, loss = trained()
    local scaler = optim.GradScaler()
    assert.raises_at(nil, "the loss is scaled", function() scaler:scale(loss):backward { step = adamw } end)
  end)

  it("is said for wrong arguments", function()
    local m, adamw, loss = trained()
    local function with(options) return function() loss:backward(options) end end
    assert.raises_at(nil, "option 'step'", with { step = 3 })
    assert.raises_at(nil, "option 'step': an empty table", with { step = {} })
    assert.raises_at(nil, "member 1 is a tensor, expected an optimiser", with { step = { m.weight } })
    assert.raises_at(nil, "stands in two", with { step = { adamw, optim.SGD(m:parameters()) } })
    assert.raises_at(nil, "'ready' and 'leaves' were given too", with { step = adamw, leaves = m:parameters(), ready = print })
    loss:backward { step = adamw }   -- none of these did anything
    assert.equal(1, adamw.groups[1].step:item())
  end)
end)

describe("a backward that fails", function()
  -- An op in the middle whose backward raises.
  local function failing(fail)
    unic.manual_seed(8)
    local m = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3), nn.Linear(3, 3))
    local odd = unic.fn { forward = function(x) return x:mul(1) end, backward = function(_, dy) if fail.now then error("no way", 0) end return dy end }
    return m, function(x, at)
      local h = x
      for i = 1, 3 do
        h = m[i](h)
        if i == at then h = odd(h) end
      end
      return h:square():sum()
    end
  end

  it("before any step changes nothing", function()
    local fail = { now = true }
    local m, forward = failing(fail)
    local adamw = optim.AdamW(m:parameters())
    local before = {}
    for i, p in ipairs(m:parameters()) do before[i] = p:detach():clone() end
    -- Ops of Lua come before all steps.
    local ok, why = pcall(function() forward(unic.randn(2, 3), 1):backward { step = adamw } end)
    assert.is_false(ok)
    assert.equal("no way", why)
    for i, p in ipairs(m:parameters()) do assert.same_bits(before[i], p:detach()) end
    assert.equal(0, adamw.groups[1].step:item())
    assert.is_nil(next(adamw.state))
    fail.now = false
    adamw:zero_grad()
    forward(unic.randn(2, 3), 1):backward { step = adamw }
    assert.equal(1, adamw.groups[1].step:item())
  end)

  it("half-way says how many have made their step, counts it, and leaves no gradient", function()
    local m, forward = failing { now = false }
    local adamw = optim.AdamW(m:parameters(), { lr = 0.1 })
    forward(unic.randn(2, 3), 0):backward { step = adamw }
    local before = {}
    for i, p in ipairs(m:parameters()) do before[i] = p:detach():clone() end
    -- A hook runs where its tensor's turn has come.
    local h = m[1](unic.randn(2, 3))
    h:hook(function() error("stop here", 0) end)
    local loss = m[3](m[2](h)):square():sum()
    local ok, why = pcall(loss.backward, loss, { step = adamw })
    assert.is_false(ok)
    assert.equal("stop here; 4 of 6 parameters had made their step, the gradients of the others are dropped", why)
    local changed = 0
    for i, p in ipairs(m:parameters()) do
      assert.is_nil(p.grad)
      if not unic.testing.same_bits(before[i], p:detach()) then changed = changed + 1 end
    end
    assert.equal(4, changed)
    assert.equal(2, adamw.groups[1].step:item())
    -- And it goes on.
    forward(unic.randn(2, 3), 0):backward { step = adamw }
    assert.equal(3, adamw.groups[1].step:item())
  end)
end)
