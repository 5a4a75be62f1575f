-- When a walk back is through with a leaf (runtime/ready.c), seen through backward{leaves =, ready =}: every ready below overwrites the leaf, so that a call
-- that came too early is a wrong gradient or the sentence of the version check.
local unic = require "unic"
local core = require "unic.core"
local nn = unic.nn

-- Gradients of fn's leaves in an ordinary backward, and at the moments when they are ready, with the order of these.
local function both(make, fn, options)
  local function run(ready)
    unic.manual_seed(3)
    local leaves = make()
    local loss = fn(unpack(leaves))
    local grads, order = {}, {}
    local o = { keep = options and options.keep }
    if ready then
      o.leaves = leaves
      o.ready = function(p)
        for i, leaf in ipairs(leaves) do
          if leaf == p then
            grads[i], order[#order + 1] = p.grad:clone(), i
          end
        end
        unic.no_grad(function() p:fill_(1e6) end)
        p.grad = nil
      end
    end
    loss:backward(o)
    if not ready then
      for i, p in ipairs(leaves) do grads[i] = p.grad end
    end
    return grads, order, leaves, loss
  end
  local plain = run(false)
  local early, order, leaves, loss = run(true)
  for i = 1, #leaves do
    assert.equal(plain[i] == nil, early[i] == nil)
    if plain[i] then assert.same_bits(plain[i], early[i]) end
    assert.is_nil(leaves[i].grad)
  end
  return order, loss, leaves
end

local function leaf(...) return unic.randn(..., { requires_grad = true }) end

describe("a leaf is ready", function()
  it("layer by layer, from the last to the first", function()
    local order = both(function() return { leaf { 4, 5 }, leaf { 5, 6 }, leaf { 6, 3 } } end, function(a, b, c)
      return unic.randn(2, 4):matmul(a):tanh():matmul(b):tanh():matmul(c):square():sum()
    end)
    assert.same({ 3, 2, 1 }, order)
  end)

  it("after its last use: tied weights, a product with itself, a use without a gradient", function()
    local order = both(function() return { leaf { 4, 4 }, leaf { 4, 4 } } end, function(w, v)
      return unic.randn(2, 4):matmul(w):tanh():matmul(v):tanh():matmul(w:t()):tanh():matmul(v):mul(w:select(1, 1)):square():sum()
    end)
    assert.same({ 2, 1 }, order)
    both(function() return { leaf { 3, 3 } } end, function(w) return w:matmul(w):mul(w):add(w):sum() end)
    -- v's gradient is complete after the first node, its value is read by the last.
    both(function() return { leaf { 3, 3 }, leaf { 3 } } end, function(w, v) return unic.randn(2, 3):matmul(w):mul(v:detach()):tanh():add(v):sum() end)
  end)

  it("when looks at it are done, too", function()
    both(function() return { leaf { 6, 4 } } end, function(w)
      local top, bottom = unpack(w:split(3, 1))
      return unic.randn(2, 3):matmul(top):tanh():mul(bottom:t():contiguous():t():select(1, 2)):matmul(w:t()):square():sum()
    end)
    -- Two leaves in one memory: the one that is done first waits for the other.
    local order = both(function()
      local whole = unic.randn(2, 4)
      return { whole:select(1, 1):detach():requires_grad_(), whole:select(1, 2):detach():requires_grad_() }
    end, function(a, b) return unic.randn(3, 4):mul(a):tanh():mul(b):square():sum() end)
    assert.same({ 1, 2 }, order)
  end)

  for _, low in ipairs { false, true } do
    it(("after the values that are made again from it%s"):format(low and ", products among them" or ""), function()
      both(function() return { leaf { 16, 8 }, leaf { 16 }, leaf { 16 }, leaf { 16 }, leaf { 8, 16 }, leaf { 8 } } end, function(w1, b1, gain, shift, w2, b2)
        local function forward()
          local h = unic.randn(4, 8)
          for _ = 1, 2 do
            h = unic.linear(h, w1, b1, { activation = "gelu" })
            h = unic.layer_norm(h, gain, shift)
            h = unic.linear(unic.dropout(h, 0.2), w2, b2):tanh()
          end
          return h:square():sum()
        end
        return low and unic.low_memory(forward) or forward()
      end)
    end)
  end

  it("after a checkpointed piece that reads it was run again, also where no gradient says so", function()
    for _, read in ipairs {
      function(x, w, v) return x:matmul(w):tanh():matmul(w):add(v) end,
      function(x, w, v) return x:matmul(w):tanh():add(v:detach()):square() end,
      function(x, w, v) return x:matmul(w):tanh():add(unic.no_grad(function() return v:mul(2) end)):square() end,
      function(x, w, v) return x:matmul(w):tanh():add(v:detach():clone()):square() end,
      function(x, w, v) return x:matmul(w):tanh():add(v:select(1, 1):item()):square() end,
    } do
      local order = both(function() return { leaf { 4, 4 }, leaf { 4 } } end, function(w, v)
        local x = leaf { 2, 4 }
        return unic.checkpoint(read, x, w, v):mul(v):sum()
      end)
      assert.equal(2, #order)
    end
  end)

  it("piece by piece, while other pieces are still to be run again", function()
    local order = both(function() return { leaf { 4, 4 }, leaf { 4, 4 }, leaf { 4, 4 } } end, function(a, b, c)
      local function piece(x, w) return x:matmul(w):tanh():matmul(w):tanh() end
      local h = unic.randn(2, 4)
      for _, w in ipairs { a, b, c } do h = unic.checkpoint(piece, h, w) end
      return h:sum()
    end)
    assert.same({ 3, 2, 1 }, order)
  end)

  it("not before the last op that is written in Lua, whose backward may read anything", function()
    local order = both(function() return { leaf { 3, 3 }, leaf { 3 }, leaf { 3 } } end, function(w, v, u)
      local odd = unic.fn { forward = function(x) return x:mul(2) end, backward = function(_, dy) return dy:mul(v:detach()) end }
      return odd(unic.randn(2, 3):mul(u):matmul(w)):mul(v):square():sum()
    end)
    assert.same({ 2, 1, 3 }, order)
  end)

  it("after what else lies in its memory: an output that its own backward reads", function()
    local w = leaf { 3 }
    local y = w:exp()
    local part = y:detach():requires_grad_()
    local want = y:detach():clone()
    part:mul(2):sum():add(y:sum()):backward { leaves = { part }, ready = function(p) unic.no_grad(function() p:fill_(1e6) end) end }
    assert.same_bits(want, w.grad)
  end)

  it("when it is the root itself; never when it has no gradient or no part in the graph", function()
    local w, other = leaf { 1 }, leaf { 1 }
    local calls = {}
    w:backward { leaves = { other, w }, ready = function(p) calls[#calls + 1] = p end }
    assert.same({ w }, calls)
    local frozen = leaf { 2 }
    unic.mul(w, 2):add(frozen:detach()):sum():backward {
      leaves = { other, frozen, w }, ready = function(p) calls[#calls + 1] = p end,
    }
    assert.same({ w, w }, calls)
  end)

  it("with gradients of earlier walks in its own", function()
    local w = leaf { 3 }
    w:mul(2):sum():backward()
    local got
    w:mul(3):sum():backward { leaves = { w }, ready = function(p) got = p.grad:totable() end }
    assert.same({ 5, 5, 5 }, got)
  end)

  it("and may change while the graph is kept: the next walk says what was changed where it would read it", function()
    local _, loss = both(function() return { leaf { 4, 4 } } end, function(w) return unic.randn(2, 4):matmul(w):tanh():matmul(w):sum() end, { keep = true })
    assert.raises_at(nil, "changed in place", function() loss:backward() end)
    -- Where nothing reads the value, the second walk is as good as the first.
    local x, b = unic.randn(2, 3), leaf { 3 }
    local y = x:add(b):sum()
    y:backward { keep = true, leaves = { b }, ready = function(p) unic.no_grad(function() p:fill_(0) end) p.grad = nil end }
    y:backward()
    assert.same({ 2, 2, 2 }, b.grad:totable())
  end)

  it("and an error in ready ends the walk", function()
    local a, b = leaf { 3, 3 }, leaf { 3, 3 }
    local loss = unic.randn(2, 3):matmul(a):matmul(b):sum()
    local ok, why = pcall(loss.backward, loss, { leaves = { a, b }, ready = function() error("so be it", 0) end })
    assert.is_false(ok)
    assert.equal("so be it", why)
    assert.is_nil(a.grad)
    assert.is_true(core.grad_mode())
  end)

  it("says what is wrong with its arguments", function()
    local a = leaf { 2 }
    local function with(options) return function() a:sum():backward(options) end end
    assert.raises_at(nil, "option 'leaves': member 2 needs no gradient", with { leaves = { a, unic.zeros(2) }, ready = print })
    assert.raises_at(nil, "option 'leaves': member 1 was computed from others", with { leaves = { a:mul(2) }, ready = print })
    assert.raises_at(nil, "argument 'leaves': the number 3 was given", with { leaves = { 3 }, ready = print })
    assert.raises_at(nil, "'ready' and 'leaves': one was given", with { leaves = { a } })
    assert.raises_at(nil, "'ready' and 'leaves': one was given", with { ready = print })
    assert.raises_at(nil, "option 'ready'", with { leaves = { a }, ready = 3 })
  end)

  it("in modules: batch norm, convolution, attention", function()
    unic.manual_seed(5)
    local net = nn.Sequential(nn.Conv2d(3, 8, 3, { padding = 1 }), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 4, 3))
    net:train()
    local x = unic.randn(2, 3, 8, 8)
    net(x):square():mean():backward()
    local want = {}
    for i, p in ipairs(net:parameters()) do want[i], p.grad = p.grad, nil end
    local params, seen = net:parameters(), 0
    net(x):square():mean():backward {
      leaves = params,
      ready = function(p)
        for i, q in ipairs(params) do
          if p == q then
            seen = seen + 1
            assert.same_bits(want[i], p.grad)
          end
        end
        unic.no_grad(function() p:fill_(1e6) end)
      end,
    }
    assert.equal(#params, seen)
  end)
end)
