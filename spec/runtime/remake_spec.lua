-- Values that are made again instead of kept (runtime/remake.h). That each op makes them with the bits they had is in the generic specs of every op.
local unic = require "unic"
local core = require "unic.core"
local nn = require "unic.nn"

local function active()
  collectgarbage()
  collectgarbage()
  return unic.memory("cpu").active
end

-- Run fn and count the launches that made something again.
local function counted(fn)
  core.watch.profile_start()
  fn()
  local count = 0
  for _, event in ipairs(core.watch.profile_stop()) do
    if event.kind == "again" then count = count + 1 end
  end
  return count
end

local function leaf(...)
  local t = unic.randn(...)
  t.requires_grad = true
  return t
end

-- A norm and a product that reads what it gives.
local function normed_product(x, w)
  local y = unic.layer_norm(x)
  local z = unic.mul(y, w)
  return z, y
end

describe("values that are made again", function()
  it("are not kept: of norm and ReLU in front of a convolution only the norm's input stays", function()
    local conv1, norm, conv2 = nn.Conv2d(8, 16, 1, { bias = false }), nn.BatchNorm2d(16), nn.Conv2d(16, 4, 3)
    local x = unic.channels_last(unic.randn(4, 8, 32, 32))
    local before, size = active(), 4 * 16 * 32 * 32 * 4
    local loss = unic.sum(conv2(norm(conv1(x), { relu = true })))
    local kept = active() - before
    assert.is_true(kept >= size and kept < 1.2 * size, ("%d bytes stay, the norm's input has %d"):format(kept, size))
    assert.equal(1, counted(function() loss:backward() end))
  end)

  it("are not kept in another type either: of norm and linear layer under autocast only the norm's input stays", function()
    local x, w = leaf(64, 256), leaf(32, 256)
    local function loss_of() return unic.autocast("bf16", function() return unic.sum(unic.linear(unic.layer_norm(x), w):to "f32") end) end
    loss_of():backward()
    local before, first = active(), w.grad:bytes()
    x.grad, w.grad = nil, nil
    before = before - 64 * 256 * 4 - 32 * 256 * 4
    local loss = loss_of()
    local kept = active() - before
    assert.is_true(kept < 64 * 256, ("%d bytes stay, the norm's result has %d in bf16"):format(kept, 64 * 256 * 2))
    assert.equal(2, counted(function() loss:backward() end))   -- the norm's result, and that in bf16
    assert.equal(first, w.grad:bytes())
  end)

  it("are made once for all who read them, and go with the last", function()
    local x, w = leaf(64, 256), {}
    local y = unic.layer_norm(x)
    local sum
    for i = 1, 3 do
      w[i] = leaf(64, 256)
      local part = unic.sum(unic.mul(y, w[i]))
      sum = sum and unic.add(sum, part) or part
    end
    local held = unic.contiguous(y:detach()):bytes()
    y:free()
    assert.equal(1, counted(function() sum:backward() end))
    for i = 1, 3 do assert.equal(held, w[i].grad:bytes()) end
  end)

  it("are used as they are where their owner has them", function()
    local x, w = leaf(4, 8), leaf(4, 8)
    local z, y = normed_product(x, w)
    assert.equal(0, counted(function() unic.sum(z):backward() end))
    assert.same_bits(y:detach(), w.grad)
  end)

  it("are refused when their owner has changed them", function()
    local x, w = leaf(4, 8), leaf(4, 8)
    local z, y = normed_product(x, w)
    y:detach():fill_(1)
    assert.raises_at(nil, "argument 'a': its value was saved for backward at .* and changed in place", function() unic.sum(z):backward() end)
  end)

  it("are kept as they were read when they were changed before", function()
    local x, w = leaf(4, 8), leaf(4, 8)
    local y = unic.layer_norm(x)
    y:detach():fill_(3)
    local z = unic.mul(y, w)
    y:free()
    unic.sum(z):backward()
    assert.same_bits(unic.full({ 4, 8 }, 3), w.grad)
  end)

  it("are right through views", function()
    local x, w = leaf(4, 8), leaf(4, 3)
    local y = unic.layer_norm(x)
    local rows = y:narrow(1, 2, 2)
    local part = rows:narrow(2, 5, 4)
    local want = unic.contiguous(part:detach())
    local z = unic.matmul(part, w)   -- reads views where they lie; others take a copy
    y:free()
    rows:free()
    part:free()
    assert.equal(1, counted(function() unic.sum(z):backward() end))
    assert.same_bits(unic.matmul(want:t(), unic.ones(2, 3)), w.grad)
  end)

  it("are there for a second loss after the first took what they are made from", function()
    local x, w1, w2 = leaf(4, 8), leaf(4, 8), leaf(4, 8)
    local y = unic.layer_norm(x)
    local one, two = unic.sum(unic.mul(y, w1)), unic.sum(unic.mul(y, w2))
    local want = unic.contiguous(y:detach())
    y:free()
    one:backward()
    assert.same_bits(want, unic.grad(two, { w2 })[1])
    local before = active()
    w1, two = nil, nil   -- luacheck: ignore
    assert.is_true(active() < before)
  end)

  it("are made for every walk of a graph that is kept", function()
    local x, w = leaf(4, 8), leaf(4, 8)
    local z = unic.sum((normed_product(x, w)))
    z:backward { keep = true }
    local once = w.grad:clone()
    z:backward()
    assert.same_bits(once * 2, w.grad)
    assert.raises_at(nil, "was walked already", function() z:backward() end)
  end)

  it("form chains of any length without recursion", function()
    local norm, x = nn.BatchNorm1d(4), leaf(6, 4)
    local weights, h = {}, x
    for i = 1, 3000 do
      h = norm(h, { residual = h, relu = i % 2 == 0 })
      weights[i % 50 + 1] = leaf(6, 4)
      h = unic.mul(h, weights[i % 50 + 1])
    end
    unic.sum(h):backward()
    assert.is_not_nil(x.grad)
  end)

  -- What a second graph needs is made when the first is walked; it used to be lost when that graph was dropped.
  it("for a graph outside the walk go with that graph", function()
    local p = leaf { 4096 }
    local function run()
      local a = (p * 2):silu()
      local one, two = a:square():sum(), a:square():sum()   -- both read a, which is made again
      a:free()
      one:backward()
      return two
    end
    run()
    local before = active()
    for _ = 1, 4 do run() end
    assert.equal(before, active())
  end)
  it("of graphs that are never walked leave nothing behind", function()
    local x, w = leaf(64, 64), leaf(64, 64)
    local function once() return unic.sum((normed_product(x, w))) end
    once()
    local before = active()
    for _ = 1, 20 do once() end
    assert.equal(before, active())
  end)

  it("work with hooks, and in pieces that are computed again", function()
    local function grads(wrap)
      unic.manual_seed(3)
      local norm, fc = nn.LayerNorm(8), nn.Linear(8, 8, { activation = "gelu" })
      local x = leaf(5, 8)
      local seen
      local h = wrap(function(a) return fc(fc(norm(a))) end, x)
      h:hook(function(g) seen = g:clone() end)
      unic.mul(norm(h), fc(h)):sum():backward()
      return { x.grad, fc.weight.grad, norm.weight.grad, seen }
    end
    local plain, piece = grads(function(fn, x) return fn(x) end), grads(unic.checkpoint)
    local low = grads(function(fn, x) return unic.low_memory(unic.checkpoint, fn, x) end)
    for i = 1, #plain do
      assert.same_bits(plain[i], piece[i])
      assert.same_bits(plain[i], low[i])
    end
  end)

  it("replay in a recorded step", function()
    local fc1, norm, fc2 = nn.Linear(8, 16, { activation = "gelu" }), nn.LayerNorm(16), nn.Linear(16, 4)
    local x = unic.randn(5, 8)
    for _, low in ipairs { false, true } do
      local function step()
        for _, m in ipairs { fc1, norm, fc2 } do for _, p in ipairs(m:parameters()) do p.grad = nil end end
        local function forward() return (fc2(norm(fc1(x))):square():sum()) end
        local loss = low and unic.low_memory(forward) or forward()
        loss:backward()
      end
      step()
      local want = fc1.weight.grad:clone()
      local recorded = unic.record(step)
      fc1.weight.grad:fill_(7)
      recorded:replay()
      assert.same_bits(want, fc1.weight.grad)
    end
  end)
end)

describe("unic.low_memory", function()
  local picture, ids = unic.randn(2, 1, 64, 64), unic.tensor({ { 2, 5, 6, 3 }, { 2, 7, 3, 0 } }, { dtype = "i64" })
  local models = {
    resnet = { function() return require("unic.models.resnet").resnet18 { width = 8, channels = 1 } end, function(m) return (m(picture)) end },
    bottleneck = {
      function() local resnet = require "unic.models.resnet" return resnet.Resnet(resnet.Bottleneck, { 3, 2 }, { width = 8, channels = 1 }) end,
      function(m) return (m(picture)) end,
    },
    vit = {
      function() return require("unic.models.vit").Vit { size = 64, channels = 1, patch = 16, width = 32, depth = 3, heads = 2, dropout = .2, drop_path = .2 } end,
      function(m) return m(picture) end,
    },
    bert = {
      function() return require("unic.models.bert").bert_small { vocab = 20 } end, function(m) return (m(ids, ids:ne(0))) end,
    },
    medunic = {
      function()
        return require("unic.models.medunic") { vision = "resnet_small", text = "bert_small", vocab = 20, channels = 1, dim = 8, ctr_dim = 8, hidden = 16 }
      end,
      function(m) return m:image(picture):sum() + m.text_encoder(ids, ids:ne(0)):square():sum() end,
    },
  }
  for name, model in pairs(models) do
    for _, dtype in ipairs { "f32", "bf16" } do
      it(("changes no bit of a %s in %s, and makes more again"):format(name, dtype), function()
        local function run(low)
          unic.manual_seed(2)
          local m = model[1]()
          m:train()
          local function forward()
            return (unic.autocast(dtype, function() return model[2](m):square():sum() end))
          end
          local loss = low and unic.low_memory(forward) or forward()
          collectgarbage()
          collectgarbage()
          local count = counted(function() loss:backward() end)
          return m, count, loss:item()
        end
        local plain, few, loss = run(false)
        local again, many, same = run(true)
        assert.equal(loss, same)
        assert.is_true(many > few and few > 0, ("%d and %d"):format(many, few))
        local theirs, some = again:state_dict(), 0
        for key, t in pairs(plain:state_dict()) do assert.same_bits(t:detach(), theirs[key]:detach()) end
        for i, p in ipairs(plain:named_parameters()) do
          local other = again:named_parameters()[i].value
          if p.value.grad then
            some = some + 1
            assert.is_true(unic.testing.same_bits(p.value.grad, other.grad), p.name)
          end
        end
        assert.is_true(some > 20)
      end)
    end
  end

  it("keeps less of a transformer than half", function()
    local vit = models.vit[1]()
    local saved = {}
    for i, run in ipairs { function(fn) return fn() end, unic.low_memory } do
      saved[i] = run(function() return (unic.summary(vit, { 4, 1, 64, 64 }, { print = false }).total.saved) end)
    end
    assert.is_true(saved[2] < .5 * saved[1], ("%d of %d bytes"):format(saved[2], saved[1]))
  end)

  it("ends with its function, also by an error", function()
    assert.is_false(core.low_memory())
    unic.low_memory(function() assert.is_true(core.low_memory()) end)
    pcall(unic.low_memory, function() error "x" end)
    assert.is_false(core.low_memory())
    assert.raises_at(nil, "%[low_memory%] argument 'fn'", function() unic.low_memory(3) end)
  end)
end)
