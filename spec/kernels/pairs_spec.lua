-- Products of bf16 rows with a packed weight (kernels/pairs.h), through the ops that have them: linear and 1x1 convolutions. Small integers are exact in bf16 and
-- in f32 sums, so what comes out is the exact result rounded once, whoever computes it.
local unic = require "unic"

-- A file of the CPU's alone. (A GPU's library may round a convolution before the bias is added: linear_spec and conv2d_spec have its tolerance.)
if unic.device() ~= "cpu" then return end

local function ints(shape, from, to, seed)
  return unic.floor(unic.uniform_(unic.empty(shape), from, to + 1, { rng = unic.new_generator(seed) }))
end

-- y, dx and dw of `op` in `dtype`; the weight in `weight_dtype`.
local function run(op, c, dtype, weight_dtype, bias)
  local x, w = c.x:to(dtype):detach(), c.w:to(weight_dtype or dtype):detach()
  x.requires_grad, w.requires_grad = true, true
  local y = op(x, w, bias and bias:to(dtype == "f64" and "f64" or "f32") or nil)
  y:backward { gradient = c.dy:to(dtype), keep = true }
  local once = x.grad:clone()
  y:backward { gradient = c.dy:to(dtype) }   -- added onto the first
  return { y = y:detach(), dx = once, twice = x.grad, dw = w.grad }
end

local function same(exact, got, what)
  for name, value in pairs(exact) do
    local rounded = value:to(got[name].dtype)
    assert.equal(0, (got[name]:to "f64" - rounded:to "f64"):abs():max():item(), ("%s of %s"):format(name, what))
    assert.is_true(value:abs():max():item() > 0)
  end
end

local function linear(x, w, b) return unic.linear(x, w, b) end
local function pointwise(x, w, b) return unic.conv2d(x, w, b) end

describe("products of bf16 rows", function()
  local threads = unic.threads()
  after_each(function() unic.threads(threads) end)

  -- Rows, inner, columns: ends of tiles (6 rows, 16 and 64 columns), of packing (32 inner rows), odd sizes, several blocks of rows.
  local sizes = { { 1, 2, 1 }, { 5, 4, 15 }, { 6, 32, 16 }, { 7, 34, 17 }, { 12, 30, 63 }, { 13, 66, 64 }, { 17, 64, 65 },
    { 2, 96, 130 }, { 11, 33, 66 }, { 9, 62, 33 }, { 301, 256, 70 },
    { 19, 70, 1030 } }   -- the last: threads take columns
  for _, s in ipairs(sizes) do
    local m, i, o = unpack(s)
    it(("linear %d x %d to %d is exact on integers"):format(m, i, o), function()
      local c = { x = ints({ m, i }, -3, 3, 1), w = ints({ o, i }, -4, 4, 2), dy = ints({ m, o }, -3, 3, 3) }
      for _, bias in ipairs { false, ints({ o }, -9, 9, 4) } do
        local exact = run(linear, c, "f64", nil, bias)
        for n = 1, 3 do
          unic.threads(n)
          for _, weight_dtype in ipairs { "f32", "bf16" } do
            local got = run(linear, c, "bf16", weight_dtype, bias)
            if weight_dtype == "bf16" then got.dw, exact.dw = nil, nil end   -- rounded twice where it is added up
            got.twice, exact.twice = nil, nil
            same(exact, got, ("%d threads, weight %s"):format(n, weight_dtype))
          end
        end
      end
    end)
  end

  it("adds to a gradient that is there", function()
    local c = { x = ints({ 20, 64 }, -1, 1, 1), w = ints({ 80, 64 }, -1, 1, 2), dy = ints({ 20, 80 }, -1, 1, 3) }
    local exact, got = run(linear, c, "f64"), run(linear, c, "bf16", "f32")
    same({ twice = exact.twice }, { twice = got.twice }, "integers that bf16 holds")
  end)

  for _, s in ipairs { { 2, 64, 64, 7, 5 }, { 1, 96, 80, 3, 4 }, { 3, 34, 50, 5, 5 }, { 2, 33, 20, 4, 4 }, { 4, 256, 64, 14, 14 } } do
    local n, i, o, h, w = unpack(s)
    it(("a 1x1 convolution of %d images %d to %d, %d x %d, is exact on integers"):format(n, i, o, h, w), function()
      local c = { x = ints({ n, i, h, w }, -3, 3, 1), w = ints({ o, i, 1, 1 }, -4, 4, 2), dy = ints({ n, o, h, w }, -3, 3, 3) }
      for _, bias in ipairs { false, ints({ o }, -9, 9, 4) } do
        local exact = run(pointwise, c, "f64", nil, bias)
        exact.twice, exact.dw = nil, nil
        for _, weight_dtype in ipairs { "f32", "bf16" } do
          local got = run(pointwise, c, "bf16", weight_dtype, bias)
          same(exact, { y = got.y, dx = got.dx }, "weight " .. weight_dtype)
        end
      end
    end)
  end

  it("follow a weight that is changed in place, with and without a tape", function()
    local w = ints({ 48, 32 }, -3, 3, 1)
    for _, op in ipairs { { linear, ints({ 5, 32 }, -3, 3, 2), { 48, 32 } }, { pointwise, ints({ 2, 32, 3, 3 }, -3, 3, 2), { 48, 32, 1, 1 } } } do
      local call, x, shape = unpack(op)
      local weight = w:clone():reshape(shape)
      local half = x:to "bf16"
      for round = 1, 3 do
        local exact = call(x:to "f64", weight:to "f64"):to "bf16"
        assert.same_bits(exact:contiguous(), call(half, weight):contiguous())
        local taped = weight:detach()
        taped.requires_grad = true
        assert.same_bits(exact:contiguous(), call(half, taped):detach():contiguous())
        weight:add_(round)
      end
    end
  end)

  it("let a NaN reach its own row or column alone", function()
    local x, w = ints({ 14, 32 }, -3, 3, 1), ints({ 70, 32 }, -3, 3, 2)
    x[{ 8, 5 }] = 0 / 0
    w[{ 66, 7 }] = math.huge
    local y = unic.linear(x:to "bf16", w):to("f32"):totable()
    for m = 1, 14 do
      for o = 1, 70 do
        local v = y[m][o]
        assert.equal(m == 8 or o == 66, v ~= v or math.abs(v) == math.huge)
      end
    end
  end)
end)
