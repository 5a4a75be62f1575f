-- Loss scaling: gradients that f16 would lose, steps that overflowed, a scale that finds its size.
local unic = require "unic"
local nn, optim = unic.nn, unic.optim

local function leaf(values, dtype) return unic.tensor(values, { requires_grad = true, dtype = dtype }) end

describe("optim.GradScaler", function()
  it("keeps gradients that f16 would round to zero", function()
    local w = leaf { 1 }
    -- The gradient of h is 1e-9 where it is an f16 tensor.
    local function loss() return w:cast("f16"):cast("f32"):sum() * 1e-9 end
    loss():backward()
    assert.equal(0, w.grad:item())
    w.grad = nil
    local scaler, sgd = optim.GradScaler(), optim.SGD({ w }, { lr = 1 })
    scaler:scale(loss()):backward()
    scaler:unscale(sgd)
    assert.close(w.grad, { 1e-9 }, 1e-3)
  end)

  for _, kind in ipairs { "AdamW", "SGD" } do
    it("leaves out a step that overflowed, and halves: " .. kind, function()
      local w = leaf { 1, 2 }
      local optimizer = optim[kind]({ w }, { lr = .1, weight_decay = .1, momentum = kind == "SGD" and .9 or nil })
      local scaler = optim.GradScaler { init = 8, interval = 2 }
      local function step(factor)
        optimizer:zero_grad()
        scaler:scale((w * factor):sum()):backward()
        scaler:step(optimizer)
        scaler:update()
        return w:totable()
      end
      local function state()
        local found = {}
        for name, t in pairs(optimizer:state_dict({ [w] = "w" })) do found[name] = t:totable() end
        return found
      end
      step(1)
      local before, moments = w:totable(), state()
      assert.same({ 8, 0 }, { scaler:get_scale(), scaler:skipped() })
      assert.same(before, step(math.huge))
      assert.same(moments, state())
      assert.same({ 4, 1 }, { scaler:get_scale(), scaler:skipped() })
      assert.same(before, step(0 / 0))
      assert.same({ 2, 2 }, { scaler:get_scale(), scaler:skipped() })
      assert.is_true(step(1)[1] < before[1])
      assert.equal(2, scaler:get_scale())
      step(1)
      assert.equal(4, scaler:get_scale())
      for _ = 1, 6 do step(math.huge) end
      assert.equal(1, scaler:get_scale())
    end)

    it("gives the steps of unscaled gradients: " .. kind, function()
      local function train(scaled)
        unic.manual_seed(3)
        local net, x = nn.Linear(8, 4), unic.randn(16, 8)
        local optimizer = optim[kind](net:parameters(), { lr = .1 })
        local scaler = scaled and optim.GradScaler()
        for _ = 1, 5 do
          optimizer:zero_grad()
          local loss = net(x):square():mean()
          if scaler then
            scaler:scale(loss):backward()
            scaler:unscale(optimizer)
            optim.clip_grad_norm(net:parameters(), .5)
            scaler:step(optimizer)
            scaler:update()
          else
            loss:backward()
            optim.clip_grad_norm(net:parameters(), .5)
            optimizer:step()
          end
        end
        return net.weight:detach()
      end
      assert.close(train(true), train(false), 1e-6)   -- a power of two: only the clip's epsilon may round otherwise
    end)
  end

  it("is recorded with its step", function()
    local w = leaf { 4 }
    local optimizer, scaler = optim.SGD({ w }, { lr = 1 }), optim.GradScaler { init = 4, interval = 1 }
    local factor = unic.tensor(1)
    local step = unic.record(function()
      optimizer:zero_grad()
      scaler:scale((w * factor):sum()):backward()
      scaler:step(optimizer)
      scaler:update()
    end)
    assert.same({ 3, 8 }, { w:item(), scaler:get_scale() })
    step:replay()
    assert.same({ 2, 16 }, { w:item(), scaler:get_scale() })
    factor:fill_(math.huge)
    step:replay()
    assert.same({ 2, 8, 1 }, { w:item(), scaler:get_scale(), scaler:skipped() })
  end)

  it("says what is wrong", function()
    local w = leaf { 1 }
    local sgd, scaler = optim.SGD({ w }, { lr = 1 }), optim.GradScaler()
    assert.raises_at(nil, "%[scaler.scale%] argument 'loss': the number 1", function() scaler:scale(1) end)
    assert.raises_at(nil, "%[scaler.unscale%] argument 'optimizer': a tensor", function() scaler:unscale(w) end)
    scaler:unscale(sgd)
    assert.raises_at(nil, "were divided already", function() scaler:unscale(sgd) end)
    assert.raises_at(nil, "%[optim.GradScaler%] option 'backoff'", function() optim.GradScaler { backoff = 2 } end)
  end)
end)
