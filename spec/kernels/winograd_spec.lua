-- conv2d's dense 3x3 convolutions on channels in blocks, and in bf16 on channels-last images (kernels/winograd.h): forward and data gradient, from 48 tiles of 2x2
-- results on, where the output channels fill the products.
local unic = require "unic"
local blocked = require "spec.support.blocked"

local function ints(shape, from, to, seed)
  return unic.floor(unic.uniform_(unic.empty(shape), from, to + 1, { rng = unic.new_generator(seed) }))
end

--- y and dx of a convolution in f64 on plain memory or in f32 on blocks.
local function convolve(c, dtype)
  local x, w = c.x:to(dtype), c.w:to(dtype)
  x.requires_grad, w.requires_grad = true, c.train ~= false
  local b = c.b and c.b:to(dtype)
  local y = unic.conv2d(dtype == "f32" and blocked.enter(x) or x, w, b, { padding = c.padding })
  assert.equal(dtype == "f32", y:stride() == nil)
  c.dy = c.dy or c.random(y.shape)
  y:backward { gradient = c.dy:to(dtype) }
  local function plain(t) return unic.contiguous(t:detach()):to "f64" end
  return { y = plain(y), dx = plain(x.grad) }
end

-- Equal values; in words of its own, because assert.same takes minutes over what differs in tables of this size.
local function equal(a, b)
  local off = 0
  for i = 1, #a do if a[i] ~= b[i] then off = off + 1 end end
  assert.equal(#a, #b)
  assert.equal(0, off, "of " .. #a .. " values differ")
end

-- y and dx of the seven images x, which `enter` brings into their layout: the same bits with 1 to 3 threads, and y's of two images alone.
local function same_bits(x, w, b, enter)
  local function forward(images) return blocked.values(unic.conv2d(enter(images), w, b, { padding = 1 })) end
  local function gradient(images)
    local own = images:detach()
    own.requires_grad = true
    unic.conv2d(enter(own), w, b, { padding = 1 }):backward { gradient = images }
    return blocked.values(own.grad)
  end
  local y, dx, threads = forward(x), gradient(x), unic.threads()
  for n = 1, 3 do
    unic.threads(n)
    equal(y, forward(x))
    equal(dx, gradient(x))
  end
  unic.threads(threads)
  local per = #y / 7
  local alone = forward(unic.contiguous(x:narrow(1, 3, 2)))
  for i = 1, 2 * per, 7 do assert.equal(y[2 * per + i], alone[i]) end
end

-- Whether the kernel runs: infinities that go through its differences come out as NaN, and as infinities from direct sums.
local function runs(images, inputs, outputs, height, width, padding, more)
  local x = unic.ones(images, inputs, height, width) * math.huge
  local options = { padding = padding }
  for k, v in pairs(more or {}) do options[k] = v end
  local y = unic.contiguous(unic.conv2d(blocked.enter(x), unic.ones(outputs, inputs / (options.groups or 1), 3, 3), nil, options))
  return unic.ne(y, y):to("f32"):sum():item() > 0
end

-- A part of the CPU's alone: a GPU's library may round before the bias is added.
if unic.device() == "cpu" then describe("winograd in bf16", function()
  local native = require("unic.core").isa() == "avx512_bf16"

  local function low_runs(images, inputs, outputs, height, width, padding)
    local x = (unic.ones(images, inputs, height, width) * math.huge):to "bf16"
    local y = unic.conv2d(x, unic.ones(outputs, inputs, 3, 3), nil, { padding = padding })
    return unic.ne(y, y):to("f32"):sum():item() > 0
  end

  -- y and dx in `dtype`, as f64.
  local function low_convolve(c, dtype, weight_dtype)
    local x, w = c.x:to(dtype):detach(), c.w:to(weight_dtype or dtype):detach()
    x.requires_grad = true
    local y = unic.conv2d(x, w, c.b and c.b:to(dtype == "f64" and "f64" or "f32"), { padding = c.padding })
    c.dy = c.dy or c.random(y.shape):to "bf16"
    y:backward { gradient = c.dy:to(dtype) }
    return { y = unic.contiguous(y:detach()):to "f64", dx = unic.contiguous(x.grad):to "f64" }
  end

  it("takes channels-last images of whole words, where the processor has the instruction", function()
    assert.equal(native, low_runs(3, 32, 64, 8, 8, 1))
    assert.equal(native, low_runs(3, 64, 48, 8, 8, 1))
    assert.is_false(low_runs(3, 16, 64, 8, 8, 1))
    assert.is_false(low_runs(3, 32, 32, 8, 8, 1))
    assert.is_false(low_runs(2, 32, 64, 8, 8, 1))
  end)

  -- Exact up to the rounding of the result: integers this small pass through bf16 transforms whole.
  local sizes = { { 1, 2 }, { 2, 1 }, { 3, 5 }, { 4, 4 }, { 5, 8 }, { 6, 3 }, { 7, 7 }, { 8, 9 }, { 9, 6 }, { 5, 31 } }
  for padding = 0, 2 do
    it(("is exact on integers with padding %d"):format(padding), function()
      for i, size in ipairs(sizes) do
        local h, w = size[1], size[2]
        local oh, ow = h + 2 * padding - 2, w + 2 * padding - 2
        if oh > 0 and ow > 0 then
          local fewest = math.min(math.ceil(oh / 2) * math.ceil(ow / 2), math.ceil(h / 2) * math.ceil(w / 2))
          local images, inputs, outputs = math.ceil(48 / fewest) + i % 3, 64 * (1 + i % 2), i % 4 == 0 and 96 or 64
          local c = {
            x = ints({ images, inputs, h, w }, -3, 3, i), w = ints({ outputs, inputs, 3, 3 }, -2, 2, i + 100), b = i % 2 == 0 and ints({ outputs }, -9, 9, i + 200) or nil,
            padding = padding, random = function(shape) return ints(shape, -3, 3, i + 300) end,
          }
          assert.equal(native, low_runs(images, inputs, outputs, h, w, padding))
          local exact = low_convolve(c, "f64")
          for _, weight_dtype in ipairs { "f32", "bf16" } do
            local got = low_convolve(c, "bf16", weight_dtype)
            for name, value in pairs(exact) do
              assert.equal(0, (got[name] - value:to("bf16"):to "f64"):abs():max():item(), ("%s of %d x %d, weight %s"):format(name, h, w, weight_dtype))
              assert.is_true(value:abs():max():item() > 3)
            end
          end
        end
      end
    end)
  end

  -- The contract: twice the error of another bf16 form, which rounds the weight and the result.
  it("keeps within twice the error of a direct convolution, with rectified values too", function()
    unic.manual_seed(3)
    for _, s in ipairs { { 2, 64, 64, 30 }, { 3, 128, 96, 11 }, { 4, 512, 64, 7 }, { 4, 64, 512, 7 } } do
      local images, inputs, outputs, size = s[1], s[2], s[3], s[4]
      for _, shift in ipairs { 0, 1 } do
        local c = {
          x = unic.relu(unic.randn(images, inputs, size, size) + shift):to "bf16", w = unic.randn(outputs, inputs, 3, 3), padding = 1,
          random = function(shape) return unic.randn(shape) end,
        }
        local exact, got = low_convolve(c, "f64"), low_convolve(c, "bf16", "f32")
        c.w = c.w:to "bf16"
        local direct = low_convolve(c, "f64")
        for name, value in pairs(exact) do
          local off, other = got[name] - value, direct[name]:to("bf16"):to "f64" - value
          local what = ("%s, %d to %d, shift %d"):format(name, inputs, outputs, shift)
          assert.is_true(off:square():mean():item() <= 2 ^ 2 * other:square():mean():item(), what)
          assert.is_true(off:abs():max():item() <= 2 * other:abs():max():item(), what)
        end
      end
    end
  end)

  it("gives the same bits for any number of threads and whatever images are beside", function()
    unic.manual_seed(4)
    local x, w, b = unic.randn(7, 96, 13, 9):to "bf16", unic.randn(96, 96, 3, 3), unic.randn(96)
    if native then same_bits(x, w, b, function(images) return images end) end
  end)

  it("follows a weight that is changed in place, with and without a tape, and lets a NaN reach what it touches", function()
    local x, w = ints({ 3, 32, 9, 9 }, -3, 3, 1), ints({ 64, 32, 3, 3 }, -2, 2, 2)
    local function run(train)
      local own = w:detach()
      own.requires_grad = train
      local y = blocked.values(unic.conv2d(x:to "bf16", own, nil, { padding = 1 }))
      equal(blocked.values(unic.conv2d(x:to "f64", w:to "f64", nil, { padding = 1 }):to "bf16"), y)
    end
    for round = 1, 2 do
      run(false)
      run(true)
      w:copy_(ints({ 64, 32, 3, 3 }, -2, 2, 5 + round))
    end
    x[{ 2, 5, 4, 7 }] = 0 / 0
    local y = unic.contiguous(unic.conv2d(x:to "bf16", w, nil, { padding = 1 })):to("f32"):totable()
    for n = 1, 3 do
      for r = 1, 9 do
        for c = 1, 9 do
          local v, touched = y[n][1][r][c], n == 2 and math.abs(r - 4) <= 1 and math.abs(c - 7) <= 1
          assert.equal(touched, v ~= v)
        end
      end
    end
  end)
end) end

describe("winograd", function()
  it("leaves images in other layouts to the direct form", function()
    local y = unic.conv2d(unic.ones(3, 16, 8, 8) * math.huge, unic.ones(64, 16, 3, 3), nil, { padding = 1 })
    assert.equal(0, unic.ne(y, y):to("f32"):sum():item())
  end)

  if blocked.size() == 0 then return end   -- plain SSE2 has no blocked layout
  local lanes = blocked.size()
  local width = lanes == 16 and 64 or 16

  it("takes convolutions of enough tiles and output channels", function()
    assert.is_true(runs(3, 16, width, 8, 8, 1))            -- 48 tiles
    assert.is_true(runs(6, 16, width, 7, 8, 0))            -- 6 x 3 x 3
    assert.is_false(runs(5, 16, width, 7, 8, 0))
    assert.is_false(runs(47, 16, width, 2, 2, 1))
    assert.is_true(runs(48, 16, width, 2, 2, 1))
    assert.is_true(runs(3, 16, 5 * width, 8, 8, 1))
    if lanes == 16 then
      assert.is_true(runs(3, 16, 48, 8, 8, 1))
      assert.is_true(runs(3, 16, 80, 8, 8, 1))
      assert.is_false(runs(3, 16, 32, 8, 8, 1))
    else
      assert.is_false(runs(3, 16, 8, 8, 8, 1))
    end
    assert.is_false(runs(3, 16, width, 20, 20, 1, { stride = 2 }))
    assert.is_false(runs(3, 16, width, 20, 20, 2, { dilation = 2 }))
    assert.is_false(runs(3, 2 * width, 2 * width, 8, 8, 1, { groups = 2 }))
  end)

  it("leaves images in a half type on blocks to the direct form", function()
    local x, w = ints({ 3, 64, 9, 9 }, -1, 1, 1), ints({ 64, 64, 3, 3 }, -1, 1, 2)
    for _, dtype in ipairs { "f16", "bf16" } do
      local half = blocked.enter(x):to(dtype)
      assert.is_nil(half:stride())
      equal(blocked.values(unic.conv2d(x:to "f64", w:to "f64", nil, { padding = 1 }):to(dtype)), blocked.values(unic.conv2d(half, w, nil, { padding = 1 })))
    end
  end)

  -- Small integers pass through the transforms and the sums without rounding: equal values, at every way a tile can stick out, in rows and in columns.
  -- Images enough for the kernel to run; without a weight gradient, whose oneDNN form decides about padding 2.
  local sizes = { { 1, 2 }, { 2, 1 }, { 2, 2 }, { 3, 5 }, { 4, 4 }, { 5, 8 }, { 6, 3 }, { 7, 7 }, { 8, 9 }, { 9, 6 }, { 5, 31 } }
  for padding = 0, 2 do
    it(("is exact on integers with padding %d"):format(padding), function()
      for i, size in ipairs(sizes) do
        local h, w = size[1], size[2]
        local oh, ow = h + 2 * padding - 2, w + 2 * padding - 2
        if oh > 0 and ow > 0 then
          local fewest = math.min(math.ceil(oh / 2) * math.ceil(ow / 2), math.ceil(h / 2) * math.ceil(w / 2))
          local images, inputs, outputs = math.ceil(48 / fewest) + i % 3, width * (1 + i % 2), i % 4 == 0 and 80 or width
          local c = {
            x = ints({ images, inputs, h, w }, -3, 3, i), w = ints({ outputs, inputs, 3, 3 }, -2, 2, i + 100), b = i % 2 == 0 and ints({ outputs }, -9, 9, i + 200) or nil,
            padding = padding, train = false, random = function(shape) return ints(shape, -3, 3, i + 300) end,
          }
          assert.is_true(runs(images, inputs, outputs, h, w, padding))
          local exact, got = convolve(c, "f64"), convolve(c, "f32")
          for name, value in pairs(exact) do
            assert.equal(0, (got[name] - value):abs():max():item(), ("%s of %d x %d"):format(name, h, w))
            assert.is_true(value:abs():max():item() > 3)
          end
        end
      end
    end)
  end

  it("is exact on integers where channels are many or fill no product", function()
    for _, channels in ipairs { { 16, 48 }, { 48, 80 }, { 80, 64 }, { 272, 144 }, { 144, 320 } } do
      local inputs, outputs = channels[1], channels[2]
      local c = {
        x = ints({ 2, inputs, 11, 10 }, -3, 3, 1), w = ints({ outputs, inputs, 3, 3 }, -2, 2, 2), b = ints({ outputs }, -9, 9, 3), padding = { 1, 0 },
        random = function(shape) return ints(shape, -3, 3, 4) end,
      }
      local exact, got = convolve(c, "f64"), convolve(c, "f32")
      for name, value in pairs(exact) do assert.equal(0, (got[name] - value):abs():max():item(), ("%s, %d to %d"):format(name, inputs, outputs)) end
    end
  end)

  it("keeps the tolerance, with rectified values too", function()
    unic.manual_seed(3)
    for _, s in ipairs { { 2, 64, 64, 30 }, { 3, 128, 96, 11 }, { 4, 512, 64, 7 }, { 4, 64, 512, 7 } } do
      local images, inputs, outputs, size = s[1], s[2], s[3], s[4]
      local c = {
        x = unic.relu(unic.randn(images, inputs, size, size) + 1), w = unic.randn(outputs, inputs, 3, 3), b = unic.randn(outputs), padding = 1,
        random = function(shape) return unic.randn(shape) end,
      }
      local exact, got = convolve(c, "f64"), convolve(c, "f32")
      for name, value in pairs(exact) do
        local rms = math.sqrt(value:square():mean():item())
        local off = (got[name] - value):abs():max():item() / (value:abs():max():item() + rms)
        assert.is_true(off <= 7e-7 and off > 0, ("%s, %d to %d: %g"):format(name, inputs, outputs, off))
      end
    end
  end)

  it("gives the same bits for any number of threads and whatever images are beside", function()
    unic.manual_seed(4)
    local x, w, b = unic.randn(7, 144, 13, 9), unic.randn(144, 144, 3, 3), unic.randn(144)
    same_bits(x, w, b, blocked.enter)
  end)

  it("follows a weight that is changed in place, with and without a tape", function()
    local x = ints({ 3, 16, 9, 9 }, -3, 3, 1)
    local w = ints({ width, 16, 3, 3 }, -2, 2, 2)
    local function run(train)
      local own = w:detach()
      own.requires_grad = train
      local y = blocked.values(unic.conv2d(blocked.enter(x), own, nil, { padding = 1 }))
      equal(blocked.values(unic.conv2d(x:to "f64", w:to "f64", nil, { padding = 1 })), y)
      return y
    end
    local first = run(false)
    equal(first, run(true))
    w:copy_(ints({ width, 16, 3, 3 }, -2, 2, 5))
    equal(run(true), run(false))
    assert.has_error(function() equal(first, run(false)) end)
    -- Slices of one weight have forms of their own.
    local two = ints({ 2 * width, 16, 3, 3 }, -2, 2, 6)
    for from = 1, width + 1, width do
      local slice = two:narrow(1, from, width)
      local exact = unic.conv2d(x:to "f64", unic.contiguous(slice):to "f64", nil, { padding = 1 })
      equal(blocked.values(exact), blocked.values(unic.conv2d(blocked.enter(x), slice, nil, { padding = 1 })))
    end
  end)

  it("goes on with all gradients, accumulated, in a chain of blocked ops", function()
    unic.manual_seed(5)
    local w, b = unic.randn(64, 64, 3, 3), unic.randn(64)
    blocked.check(function(x) return unic.conv2d(x, w, b, { padding = 1 }) end, unic.randn(3, 64, 9, 10), { w, b })
  end)
end)
