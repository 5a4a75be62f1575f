local ops = require "spec.support.ops"
local unic = require "unic"
local blocked = require "spec.support.blocked"

local function values(t) return unic.reshape(unic.contiguous(t), { -1 }):totable() end
local function tensor(list, shape) return unic.reshape(unic.tensor(list), shape) end

describe("conv2d", function()
  ops.check("conv2d", {
    { x = { 2, 3, 5, 4 }, weight = { 4, 3, 3, 3 }, bias = { 4 }, padding = 1, note = "3x3, same size" },
    { x = { 2, 4, 6, 5 }, weight = { 6, 2, 3, 2 }, bias = { 6 }, stride = { 2, 1 }, padding = { 1, 0 }, dilation = { 1, 2 }, groups = 2,
      note = "groups, unequal stride, padding and dilation" },
    { x = { 1, 8, 4, 4 }, weight = { 8, 1, 3, 3 }, padding = 1, groups = 8, note = "depthwise" },
    { x = { 3, 1, 12, 11 }, weight = { 8, 1, 7, 7 }, stride = 2, padding = 3, note = "first layer on grey images" },
    { x = { 1, 5, 1, 1 }, weight = { 7, 5, 1, 1 }, bias = { 7 }, note = "one pixel" },
    { x = { 3, 16, 17, 13 }, weight = { 40, 16, 3, 3 }, bias = { 40 }, padding = 1, note = "several blocks and a tail" },
    { x = { 2, 32, 9, 9 }, weight = { 24, 32, 1, 1 }, stride = 2, note = "1x1 that leaves pixels over" },
    { x = { 2, 128, 3, 2 }, weight = { 130, 128, 1, 1 }, note = "1x1 with many channels" },
    { x = { 3, 12, 7, 5 }, weight = { 20, 12, 1, 1 }, bias = { 20 }, note = "1x1 of every pixel" },
    { x = { 2, 3, 33, 20 }, weight = { 16, 3, 16, 4 }, bias = { 16 }, stride = { 16, 4 }, note = "patches" },
    { x = { 0, 3, 5, 5 }, weight = { 2, 3, 3, 3 }, bias = { 2 }, note = "no images" },
  }, {
    errors = {
      { { x = { 3, 5, 5 }, weight = { 4, 3, 3, 3 } }, "argument 'x'" },
      { { x = { 2, 3, 5, 5 }, weight = { 4, 2, 3, 3 } }, "argument 'weight'.*second dimension must be 3" },
      { { x = { 2, 3, 5, 5 }, weight = { 4, 3, 3, 3 }, bias = { 3 } }, "argument 'bias'" },
      { { x = { 2, 3, 5, 5 }, weight = { 4, 3, 3, 3 }, groups = 2 }, "argument 'groups'.*3 channels" },
      { { x = { 2, 4, 5, 5 }, weight = { 3, 2, 3, 3 }, groups = 2 }, "argument 'groups'.*3 output channels" },
      { { x = { 2, 3, 5, 5 }, weight = { 4, 3, 3, 3 }, groups = 0 }, "argument 'groups'.*at least 1" },
      { { x = { 2, 3, 5, 5 }, weight = { 4, 3, 3, 3 }, stride = 0 }, "argument 'stride'.*at least 1" },
      { { x = { 2, 3, 5, 5 }, weight = { 4, 3, 3, 3 }, padding = -1 }, "argument 'padding'.*at least 0" },
      { { x = { 2, 3, 5, 5 }, weight = { 4, 3, 3, 3 }, dilation = 0 }, "argument 'dilation'.*at least 1" },
      { { x = { 2, 3, 5, 2 }, weight = { 4, 3, 3, 3 } }, "argument 'weight'.*spans 3 pixels in dimension 4.*has 2" },
      { { x = { 2, 3, 5, 5 }, weight = { 4, 3, 0, 3 } }, "argument 'weight'.*size 0" },
    },
  })

  it("gives the values worked out by hand", function()
    local x = tensor({ 1, 2, 3, 4, 5, 6, 7, 8, 9 }, { 1, 1, 3, 3 })
    local w = tensor({ 1, 0, 0, -1 }, { 1, 1, 2, 2 })
    assert.same({ -4, -4, -4, -4 }, values(unic.conv2d(x, w)))
    assert.same({ -3.5, -3.5, -3.5, -3.5 }, values(unic.conv2d(x, w, unic.tensor { 0.5 })))
    -- A ring of zeros: the corners of the 4 x 4 result see one pixel each, through the lower right or the upper left weight.
    assert.same({ -1, -2, -3, 0, -4, -4, -4, 3, -7, -4, -4, 6, 0, 7, 8, 9 }, values(unic.conv2d(x, w, nil, { padding = 1 })))
    assert.same({ -1, -3, -7, -4 }, values(unic.conv2d(x, w, nil, { padding = 1, stride = 2 })))
    assert.same({ -8 }, values(unic.conv2d(x, w, nil, { dilation = 2 })))
    -- Two groups: the second filter sees the second channel only.
    local two = tensor({ 1, 2, 3, 4, 10, 20, 30, 40 }, { 1, 2, 2, 2 })
    assert.same({ 2, 4, 6, 8, 30, 60, 90, 120 }, values(unic.conv2d(two, tensor({ 2, 3 }, { 2, 1, 1, 1 }), nil, { groups = 2 })))
  end)

  it("packs each slice of a weight by itself", function()
    local function random(shape, seed) return unic.uniform_(unic.empty(shape), -1, 1, { rng = unic.new_generator(seed) }) end
    local x, w = random({ 2, 16, 6, 6 }, 1), random({ 32, 16, 3, 3 }, 2)
    for first = 1, 17, 16 do
      local slice = w:narrow(1, first, 16)
      assert.close(unic.conv2d(x, slice), unic.conv2d(unic.cast(x, "f64"), unic.cast(slice, "f64")))
    end
  end)

  it("takes f32 weights beside images in a half type, rounded as a cast rounds them", function()
    for _, dtype in ipairs { "bf16", "f16" } do
      for _, op in ipairs { "conv2d", "conv_transpose2d" } do
        unic.manual_seed(6)
        local x, w = unic.randn(2, 16, 7, 6):to(dtype), unic.randn(16, 16, 3, 3)
        local dy = unic.randn(unic[op](x, w).shape):to(dtype)
        local function run(weight)
          local own = x:detach()
          own.requires_grad, w.requires_grad, w.grad = true, true, nil
          local y = unic[op](own, weight(w))
          y:backward { gradient = dy }
          return { y = y, dx = own.grad, dw = w.grad }
        end
        local plain, cast = run(function(t) return t end), run(function(t) return t:to(dtype) end)
        assert.equal("f32", plain.dw.dtype)
        plain.dw = plain.dw:to(dtype)   -- as it comes through the cast
        for name, t in pairs(plain) do assert.same(blocked.values(t:to "f32"), blocked.values(cast[name]:to "f32"), name) end
      end
      assert.has_error(function() unic.conv2d(unic.ones(1, 1, 3, 3), unic.ones(1, 1, 3, 3):to(dtype)) end)
    end
  end)

  -- A device's library wants whole vectors: what it cannot take, other kernels do.
  it("takes images that begin anywhere in memory", function()
    for _, dtype in ipairs { "f32", "bf16" } do
      for _, op in ipairs { "conv2d", "conv_transpose2d" } do
        unic.manual_seed(7)
        local all, w = unic.channels_last(unic.randn(3, 3, 3, 3):to(dtype)), unic.randn(3, 3, 2, 2)
        local function run(make)
          local leaf = make(all:narrow(1, 2, 1)):detach()
          leaf.requires_grad, w.requires_grad, w.grad = true, true, nil
          local y = unic[op](leaf, w)
          y:backward { gradient = unic.ones(y.shape, { dtype = dtype }) }
          return { y = y, dx = leaf.grad, dw = w.grad }
        end
        local odd, even = run(function(t) return t end), run(unic.clone)
        for name, t in pairs(odd) do
          assert.close(even[name]:to "f64", t:to "f64", dtype == "f32" and 1e-6 or 2e-2)
        end
      end
    end
  end)

  -- Large enough for Winograd's algorithm, where there is one: the contract's 1e-6 of the largest value holds as for the direct one.
  it("keeps the tolerance of the weight gradient at a network's sizes", function()
    if blocked.size() == 0 then return end
    unic.manual_seed(5)
    local x, dy = unic.relu(unic.randn(1, 64, 28, 30)), unic.randn(1, 64, 28, 30)
    local function gradient(input, dtype)
      local w = unic.zeros({ 64, 64, 3, 3 }, { dtype = dtype })
      w.requires_grad = true
      unic.conv2d(input, w, nil, { padding = 1 }):backward { gradient = dy:to(dtype) }
      return w.grad
    end
    local exact, got = gradient(x:to "f64", "f64"), gradient(blocked.enter(x), "f32"):to "f64"
    local rms = math.sqrt(exact:square():mean():item())
    assert.is_true((got - exact):abs():max():item() <= 1e-6 * (exact:abs():max():item() + rms))
    assert.is_true(rms > 1)
  end)

  it("has the weight gradient of narrow 1x1 convolutions with a stride, again and again", function()
    -- Where the library's own 1x1 implementation wrote beyond its memory: bits changed from run to run, threads waited for ever.
    for _, c in ipairs { { 4, 8, 64 }, { 2, 8, 32 }, { 7, 16, 32 }, { 12, 16, 64 }, { 4, 8, 16 } } do
      local x = unic.randn(4, c[1], c[3], c[3])
      local w = unic.randn(c[2], c[1], 1, 1)
      local function gradient(dtype)
        local weight = w:to(dtype):detach():requires_grad_(true)
        unic.conv2d(x:to(dtype), weight, nil, { stride = 2 }):square():mean():backward()
        return weight.grad
      end
      local first = gradient "f32"
      local exact = gradient "f64"
      assert.is_true((first:to "f64" - exact):abs():max():item() <= 2e-6 * exact:abs():max():item())
      for _ = 1, 5 do assert.same_bits(first, gradient "f32") end
    end
  end)

  it("gives the gradients worked out by hand", function()
    local x = tensor({ 1, 2, 3, 4 }, { 1, 1, 2, 2 })
    local w = tensor({ 3, 5 }, { 1, 1, 1, 2 })
    local b = unic.tensor { 1 }
    x.requires_grad, w.requires_grad, b.requires_grad = true, true, true
    local y = unic.conv2d(x, w, b)   -- 3 + 10 + 1, 9 + 20 + 1
    assert.same({ 14, 30 }, values(y))
    y:backward { gradient = tensor({ 1, 10 }, { 1, 1, 2, 1 }) }
    assert.same({ 3, 5, 30, 50 }, values(x.grad))
    assert.same({ 31, 42 }, values(w.grad))
    assert.same({ 11 }, values(b.grad))
  end)

  it("follows a weight that was changed in place", function()
    local x, w = unic.uniform_(unic.empty { 2, 16, 6, 6 }, -1, 1), unic.uniform_(unic.empty { 16, 16, 3, 3 }, -1, 1)
    local before = values(unic.conv2d(x, w))
    w:copy_(unic.zeros { 16, 16, 3, 3 })
    local after = values(unic.conv2d(x, w))
    for i = 1, #after do assert.equal(0, after[i]) end
    assert.is_true(math.abs(before[1]) > 0)
  end)

  it("leaves its result channels-last, and NaN where a window holds one", function()
    local y = unic.conv2d(unic.ones { 2, 8, 4, 4 }, unic.ones { 8, 8, 1, 1 })
    assert.same({ 128, 1, 32, 8 }, y:stride())
    local x = unic.ones { 1, 1, 4, 4 }
    x[{ 1, 1, 1, 1 }] = 0 / 0
    local v = values(unic.conv2d(x, unic.ones { 1, 1, 2, 2 }))
    assert.is_true(v[1] ~= v[1])
    for i = 2, 9 do assert.equal(4, v[i]) end
  end)

  describe("on channels in blocks", function()
    local function random(shape, seed) return unic.uniform_(unic.empty(shape), -1, 1, { rng = unic.new_generator(seed) }) end
    -- in, out, kernel, options, does the result stay blocked?
    for _, c in ipairs {
      { 32, 16, 3, { padding = 1 }, true },
      { 16, 48, 1, { stride = 2 }, true },
      { 16, 32, 3, { padding = 2, dilation = 2 }, true },
      { 32, 32, 3, { padding = 1, groups = 2 }, true },
      { 16, 16, 3, { padding = 1, groups = 16 }, true },
      { 32, 32, 3, { padding = 1, groups = 8 }, false },
      { 16, 10, 3, { padding = 1 }, false },
      { 16, 16, 16, { stride = 16 }, true },
    } do
      local inputs, outputs, kernel, attributes, stays = c[1], c[2], c[3], c[4], c[5]
      it(("%d to %d channels, kernel %d, groups %d"):format(inputs, outputs, kernel, attributes.groups or 1), function()
        if blocked.size() == 0 then return end
        local w, b = random({ outputs, inputs / (attributes.groups or 1), kernel, kernel }, 1), random({ outputs }, 2)
        local y = blocked.check(function(x) return unic.conv2d(x, w, b, attributes) end, random({ 2, inputs, 18, 17 }, 3), { w, b })
        assert.equal(stays, y:stride() == nil)
      end)
    end

    it("takes half precision through", function()
      if blocked.size() == 0 then return end
      local x, w = random({ 2, 16, 6, 6 }, 1), unic.cast(random({ 16, 16, 3, 3 }, 2), "bf16")
      local plain = unic.conv2d(unic.cast(x, "bf16"), w)
      local y = unic.conv2d(unic.cast(blocked.enter(x), "bf16"), w)
      assert.same(blocked.values(unic.cast(plain, "f32")), blocked.values(unic.cast(y, "f32")))
    end)
  end)
end)
