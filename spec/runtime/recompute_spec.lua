-- unic.checkpoint: the same bits with and without it, in less memory.
local unic = require "unic"
local nn = require "unic.nn"

-- Parameters' gradients, buffers and the loss of a step, with or without checkpointing.
local function step_of(make, options)
  options = options or {}
  return function(checkpointed)
    unic.manual_seed(7)
    local model = make()
    local run = checkpointed and unic.checkpoint or function(fn, ...) return fn(...) end
    unic.manual_seed(8)
    local x = options.input and options.input() or unic.randn(6, 16)
    x.requires_grad = options.input_gradient ~= false
    local loss
    local function forward() loss = options.loss and options.loss(model, x, run) or run(model, x):square():sum() end
    if options.autocast then unic.autocast(options.autocast, forward) else forward() end
    local before = unic.generator():totable()
    loss:backward()
    local found = { loss = loss:item(), x = x.grad, generator = { before, unic.generator():totable() } }
    for name, t in pairs((model:state_dict())) do found["state " .. name] = t end
    for _, p in ipairs(model:named_parameters()) do found["gradient " .. p.name] = p.value.grad or "none" end
    return found
  end
end

local function same(make, options)
  local step = step_of(make, options)
  local plain, again = step(false), step(true)
  local count = 0
  for key, value in pairs(plain) do
    if unic.is_tensor(value) then
      assert.same_bits(value:detach(), again[key]:detach())
      count = count + 1
    else
      assert.same(value, again[key], key)
    end
  end
  for key in pairs(again) do assert.is_not_nil(plain[key], key) end
  return count
end

local Block = nn.class "Block"
function Block:init(width, dropout)
  self.fc1, self.norm, self.drop, self.fc2 = nn.Linear(width, 2 * width), nn.BatchNorm1d(2 * width), nn.Dropout(dropout), nn.Linear(2 * width, width)
end
function Block:forward(x) return x + self.fc2(self.drop(self.norm(self.fc1(x)):relu())) end

describe("unic.checkpoint", function()
  it("is exact under dropout and batch norm", function()
    assert.is_true(same(function() return Block(16, .4) end) > 10)
  end)

  it("is exact when only parameters need a gradient", function()
    same(function() return Block(16, .4) end, { input_gradient = false })
  end)

  for _, low in ipairs { "bf16", "f16" } do
    it("is exact under autocast to " .. low, function() same(function() return Block(16, .3) end, { autocast = low }) end)
  end

  it("is exact for several pieces, one after the other and with something between them", function()
    local function make() return nn.Sequential(Block(16, .3), Block(16, .5), Block(16, .1)) end
    same(make, { loss = function(model, x, run)
      local h = run(model[1], x)
      h = run(model[2], h:dropout(.5)) + run(model[2], h)
      return run(function(a, b) return (model[3](a) * b):sum(), b end, h, x)
    end })
  end)

  it("makes a piece inside another one part of that", function()
    local function make() return nn.Sequential(Block(16, .3), Block(16, .5)) end
    same(make, { loss = function(model, x, run)
      return run(function(a) return run(model[2], run(model[1], a)):square():sum() end, x)
    end })
  end)

  it("is exact for tables of tensors, generators of one's own and ops written in Lua", function()
    local double = unic.fn { forward = function(x) return x * 2 end, backward = function(_, dy) return dy * 2 end }
    local rng
    local function make() rng = unic.new_generator(5) return Block(16, .3) end
    same(make, { loss = function(model, x, run)
      local out = run(function(a) return { y = double(model(a:dropout(.5, { rng = rng }))), { a:sigmoid() } } end, x)
      return (out.y * out[1][1]):sum()
    end })
    assert.is_true(rng:totable()[2] > 0)
  end)

  it("gives gradients to targets inside, and hooks run once", function()
    local block, x, calls = Block(8, .2), unic.randn(4, 8, { requires_grad = true }), 0
    unic.manual_seed(1)
    local loss = unic.checkpoint(function(a)
      local h = block.fc1(a)
      if h.requires_grad then h:hook(function() calls = calls + 1 end) end
      return block.fc2(h:dropout(.2)):sum()
    end, x)
    local grads = unic.grad(loss, { block.fc1.weight, x })
    unic.manual_seed(1)
    local plain = unic.grad(block.fc2(block.fc1(x):dropout(.2)):sum(), { block.fc1.weight, x })
    assert.same_bits(plain[1], grads[1])
    assert.same_bits(plain[2], grads[2])
    assert.equal(1, calls)
  end)

  it("can be walked twice when it is asked to keep", function()
    local block, x = Block(8, .2), unic.randn(4, 8, { requires_grad = true })
    local loss = unic.checkpoint(block, x):sum()
    loss:backward { keep = true }
    local once = x.grad:clone()
    loss:backward()
    assert.close(x.grad, once * 2)
    assert.raises_at(nil, "was walked already", function() loss:backward() end)
  end)

  it("replays in a recorded step", function()
    local function run(checkpointed)
      unic.manual_seed(3)
      local block, x = Block(8, .3), unic.randn(4, 8, { requires_grad = true })
      local go = checkpointed and unic.checkpoint or function(fn, ...) return fn(...) end
      local step = unic.record(function() go(block, x):sum():backward() end)
      step:replay()
      step:replay()
      return x.grad, block.fc1.weight.grad, block.norm.running_mean
    end
    local a, b = { run(false) }, { run(true) }
    for i = 1, 3 do assert.same_bits(a[i], b[i]) end
  end)

  it("just runs without gradients", function()
    local block = Block(8, 0)
    local y = unic.no_grad(unic.checkpoint, block, unic.randn(4, 8))
    assert.is_false(y.requires_grad)
    assert.same({ 1, nil, 3 }, { unic.checkpoint(function(...) return ... end, 1, nil, 3) })
  end)

  it("passes errors on, and works after them", function()
    local x = unic.randn(2, 2, { requires_grad = true })
    assert.raises_at(nil, "on purpose", function() unic.checkpoint(function() error "on purpose" end) end)
    local times = 0
    local y = unic.checkpoint(function(a)
      times = times + 1
      if times == 2 then error "only the second time" end
      return a:sigmoid():sum()
    end, x)
    assert.raises_at(nil, "only the second time", function() y:backward() end)
    y:backward()
    assert.equal(3, times)
    assert.close(x.grad, x:detach():sigmoid() * (1 - x:detach():sigmoid()), 1e-6)
  end)

  it("says when the second run is another one", function()
    local x, mode = unic.randn(2, 2, { requires_grad = true }), 1
    local function piece(a)
      if mode == 2 then return a:sigmoid():sum() end
      if mode == 3 then return a:square():relu():sum() end
      if mode == 4 then return a:relu():exp():sigmoid():sum():square() end
      return a:relu():exp():sigmoid():sum()
    end
    for wanted, words in pairs { [2] = "it did something else", [3] = "it did something else", [4] = "it did more" } do
      mode = 1
      local y = unic.checkpoint(piece, x)
      mode = wanted
      assert.raises_at(nil, words, function() y:backward() end)
    end
    mode = 4
    local y = unic.checkpoint(piece, x)
    mode = 1
    assert.raises_at(nil, "it did less", function() y:backward() end)
    local h = unic.randn(2, 2)
    y = unic.checkpoint(function() return (x * h):sigmoid():sum() end)
    h = unic.randn(2, 2)
    assert.raises_at(nil, "read another tensor", function() y:backward() end)
  end)

  it("sees what was changed in place since", function()
    local x, w = unic.randn(2, 2, { requires_grad = true }), unic.randn(2, 2)
    local y = unic.checkpoint(function(a) return (a * w):sigmoid():sum() end, x)
    w:fill_(1)
    assert.raises_at(nil, "changed in place", function() y:backward() end)
  end)

  it("lets go of everything, the states of its generators too", function()
    local x, rng = unic.ones(8, { requires_grad = true }), unic.new_generator(3)
    local function blocks()
      collectgarbage()
      collectgarbage()
      return unic.memory("cpu").blocks
    end
    local function run(times)
      for i = 1, times do
        local y = unic.checkpoint(function(a) return a:sigmoid():dropout(.3):dropout(.2, { rng = rng }):sum() end, x)
        if i % 2 == 0 then y:backward() end
      end
    end
    run(4)
    local before = blocks()
    run(60)
    assert.is_true(blocks() - before < 10)
  end)

  it("refuses what is no function", function()
    assert.raises_at(nil, "%[checkpoint%] argument 'fn'", function() unic.checkpoint(3) end)
  end)

  it("keeps one block's memory instead of all of them", function()
    local blocks = {}
    for i = 1, 8 do blocks[i] = Block(64, .1) end
    local function peak(checkpointed)
      local x = unic.randn(8192, 64)
      collectgarbage()
      collectgarbage()
      local base = unic.memory().active
      unic.memory_peak_reset()
      local h = x
      for i = 1, 8 do h = checkpointed and unic.checkpoint(blocks[i], h) or blocks[i](h) end
      h:sum():backward()
      h = nil   -- luacheck: ignore
      return unic.memory().peak - base
    end
    peak(false)   -- gradients are there from here on
    local plain, less = peak(false), peak(true)
    assert.is_true(less < .5 * plain, ("%d of %d bytes"):format(less, plain))
  end)

  it("does not leak when the function captures its own result", function()
    local block = Block(64, .1)
    local function once()
      local h = unic.randn(512, 64)
      h = unic.checkpoint(function() return block(h) end)
      return h
    end
    for _ = 1, 3 do once() end
    collectgarbage()
    collectgarbage()
    local base = unic.memory().active
    for _ = 1, 20 do once() end
    collectgarbage()
    collectgarbage()
    assert.equal(base, unic.memory().active)
  end)
end)
