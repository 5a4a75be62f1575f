local ops = require "spec.support.ops"
local unic = require "unic"
local blocked = require "spec.support.blocked"

local function values(t) return unic.reshape(unic.contiguous(t), { -1 }):totable() end
local function tensor(list, shape) return unic.reshape(unic.tensor(list), shape) end
local function near(want, got, tolerance)
  assert.equal(#want, #got)
  for i = 1, #want do
    if math.abs(want[i] - got[i]) > (tolerance or 1e-6) * (1 + math.abs(want[i])) then
      error(("element %d is %.9g, expected %.9g"):format(i, got[i], want[i]), 2)
    end
  end
end

describe("batch_norm", function()
  local var = function(n) return ops.uniform({ n }, 0.5, 2) end
  ops.check("batch_norm", {
    { x = { 6, 5 }, weight = { 5 }, bias = { 5 }, running_mean = { 5 }, running_var = var(5), note = "rows" },
    { x = { 2, 3, 3, 4 }, weight = { 3 }, bias = { 3 }, residual = { 2, 3, 3, 4 }, relu = true, note = "residual and ReLU" },
    { x = { 2, 3, 3, 4 }, relu = true, eps = 1e-2, note = "no weight, no bias, ReLU" },
    { x = { 2, 4, 3, 3 }, weight = { 4 }, bias = { 4 }, running_mean = { 4 }, running_var = var(4), residual = { 2, 4, 3, 3 }, relu = true, training = false,
      note = "running statistics, residual and ReLU" },
    { x = { 5, 8 }, weight = { 8 }, running_mean = { 8 }, running_var = var(8), training = false, note = "running statistics, rows" },
    { x = { 3, 24, 21, 21 }, weight = { 24 }, bias = { 24 }, running_mean = { 24 }, running_var = var(24), momentum = 0.3, relu = true, note = "several chunks" },
    { x = { 2, 140, 9, 5 }, weight = { 140 }, bias = { 140 }, residual = { 2, 140, 9, 5 }, relu = true, note = "two tiles and tails" },
    { x = { 3, 16, 7, 7 }, weight = { 16 }, bias = { 16 }, residual = { 3, 16, 7, 7 }, note = "residual alone" },
    { x = { 0, 4, 3, 3 }, weight = { 4 }, bias = { 4 }, note = "no images" },
  }, {
    errors = {
      { { x = { 4 } }, "argument 'x'" },
      { { x = { 4, 3, 2 } }, "argument 'x'.*expected %[N, C%] or %[N, C, H, W%]" },
      { { x = { 4, 3 }, weight = { 4 } }, "argument 'weight'" },
      { { x = { 4, 3 }, bias = { 3, 1 } }, "argument 'bias'" },
      { { x = { 1, 3 } }, "argument 'x'.*more than 1 value per channel when training" },
      { { x = { 1, 3, 1, 1 } }, "argument 'x'.*more than 1 value per channel when training" },
      { { x = { 4, 3 }, training = false }, "argument 'running_mean'.*missing" },
      { { x = { 4, 3 }, running_mean = { 3 } }, "argument 'running_var'.*missing" },
      { { x = { 4, 3, 2, 2 }, residual = { 4, 3, 2, 1 } }, "argument 'residual'" },
      { { x = { 4, 3 }, eps = -1 }, "argument 'eps'" },
      { { x = { 4, 3 }, momentum = 1.5 }, "argument 'momentum'" },
    },
  })

  it("gives the values worked out by hand", function()
    -- Channel 1: 1, 3 (mean 2, variance 1); channel 2: 10, 30 (mean 20, variance 100).
    local x = unic.tensor { { 1, 10 }, { 3, 30 } }
    local mean, var_ = unic.tensor { 0, 0 }, unic.tensor { 1, 1 }
    local y = unic.batch_norm(x, unic.tensor { 2, 1 }, unic.tensor { 0.5, 0 }, mean, var_, { eps = 0 })
    near({ -1.5, -1, 2.5, 1 }, values(y))
    near({ 0.2, 2 }, values(mean))                 -- 0.9 * 0 + 0.1 * mean
    near({ 0.9 + 0.1 * 2, 0.9 + 0.1 * 200 }, values(var_))   -- unbiased: 2 and 200
    near({ 0, 0, 2.5, 1 }, values(unic.batch_norm(x, unic.tensor { 2, 1 }, unic.tensor { 0.5, 0 }, { eps = 0, relu = true })))
    local eval = unic.batch_norm(x, nil, nil, unic.tensor { 1, 10 }, unic.tensor { 4, 25 }, { training = false, eps = 0 })
    near({ 0, 0, 1, 4 }, values(eval))
    near({ 0, 5, 3, 9 }, values(unic.batch_norm(x, nil, nil, unic.tensor { 1, 10 }, unic.tensor { 4, 25 }, tensor({ -1, 5, 2, 5 }, { 2, 2 }),
      { training = false, eps = 0, relu = true })))
  end)

  it("counts the batches of training, beyond what f32 holds", function()
    for _, dtype in ipairs { "f32", "bf16", "f64" } do
      local x = unic.randn(4, 3, { dtype = dtype })
      local wide = dtype == "f64" and "f64" or "f32"
      local mean, var_ = unic.zeros({ 3 }, { dtype = wide }), unic.ones({ 3 }, { dtype = wide })
      local n = unic.full({}, 16777216, { dtype = "i64" })
      for _ = 1, 3 do unic.batch_norm(x, nil, nil, mean, var_, nil, n) end
      assert.equal(16777219, n:item())
      unic.batch_norm(x, nil, nil, mean, var_, nil, n, { training = false })
      assert.equal(16777219, n:item())
    end
    local x = unic.ones(4, 3)
    assert.error_matches(function() unic.batch_norm(x, { num_batches_tracked = unic.full({}, 0, { dtype = "i32" }) }) end, "argument 'num_batches_tracked'.*expected i64 %[%]")
    assert.error_matches(function() unic.batch_norm(x, { num_batches_tracked = unic.zeros({ 1 }, { dtype = "i64" }) }) end, "argument 'num_batches_tracked'.*expected i64 %[%]")
  end)

  it("keeps its digits under a large mean and beside an outlier", function()
    -- 0, 1, 2, 3 repeated: variance 1.25 exactly, wherever the mean lies; f32 holds 100000 + k exactly.
    local n = 4096
    local list = {}
    for i = 1, n do list[i] = 100000 + i % 4 end
    local var_ = unic.tensor { 0 }
    local y = values(unic.batch_norm(tensor(list, { n, 1 }), nil, nil, unic.tensor { 0 }, var_, { momentum = 1, eps = 0 }))
    near({ 1.25 * n / (n - 1) }, values(var_), 1e-6)
    for i = 1, 8 do near({ (i % 4 - 1.5) / math.sqrt(1.25) }, { y[i] }, 1e-5) end
    -- One row a million away from the rest, first in memory: mean and variance are dominated by it and must still be right.
    for i = 1, n do list[i] = i == 1 and 1e6 or 0 end
    unic.batch_norm(tensor(list, { n, 1 }), nil, nil, unic.tensor { 0 }, var_, { momentum = 1, eps = 0 })
    near({ 1e12 / n }, values(var_), 1e-5)
  end)

  it("lets NaN through its ReLU and keeps it in its channel", function()
    local x = tensor({ 0 / 0, 1, 2, 3, 4, 5 }, { 3, 2 })
    local y = values(unic.batch_norm(x, { relu = true }))
    for i = 1, 6, 2 do assert.is_true(y[i] ~= y[i]) end
    near({ 0, 0, math.sqrt(1.5) }, { y[2], y[4], y[6] }, 1e-4)
  end)

  it("sums two gradients of its output itself", function()
    local function run(twice)
      local x = unic.randn({ 4, 6, 3, 3 }, { rng = unic.new_generator(5) })
      local r = unic.randn({ 4, 6, 3, 3 }, { rng = unic.new_generator(6) })
      x.requires_grad, r.requires_grad = true, true
      local y = unic.batch_norm(x, nil, nil, nil, nil, r, { relu = true })
      local a = unic.mul(y, 3)
      local loss = twice and unic.add(unic.sum(unic.mul(a, a)), unic.sum(unic.mul(y, r:detach()))) or nil
      if not twice then
        -- the same function with one use of y
        local g = unic.add(unic.mul(y:detach(), 18), r:detach())
        y:backward { gradient = g }
      else
        loss:backward()
      end
      return values(x.grad), values(r.grad)
    end
    local x1, r1 = run(true)
    local x2, r2 = run(false)
    near(x2, x1, 1e-4)
    near(r2, r1, 1e-5)
  end)

  -- 2 MB of bf16 and more are written past the caches, in tiles of 32 or 8 whole rows, dresidual in the second pass.
  for _, shape in ipairs { { 5, 512, 21, 21 }, { 3, 1024, 19, 19 } } do
    for _, case in ipairs { { "", 1 }, { " and a residual", 1, true }, { " and a residual, its gradient in two parts", 2, true } } do
      it(("is right where bf16 results pass the caches: %d channels%s"):format(shape[2], case[1]), function()
        if unic.device() ~= "cpu" then return end
        local rng = unic.new_generator(7)
        local function draw(dims) return unic.cast(unic.randn(dims, { rng = rng }), "bf16") end
        local x, r, g, h, w = draw(shape), draw(shape), draw(shape), draw(shape), draw { shape[2] }
        local function run(dtype, wide)
          local a, e, scale = unic.cast(x, dtype):channels_last(), case[3] and unic.cast(r, dtype):channels_last(), unic.cast(w, wide)
          a.requires_grad, scale.requires_grad = true, true
          if e then e.requires_grad = true end
          local y = unic.batch_norm(a, scale, nil, nil, nil, e or nil, { relu = true })
          local loss = unic.sum(unic.mul(y, unic.cast(g, dtype)))
          if case[2] == 2 then loss = unic.add(loss, unic.sum(unic.mul(y, unic.cast(h, dtype)))) end
          loss:backward()
          return { y = y:detach(), dx = a.grad, dweight = scale.grad, dresidual = e and e.grad or nil }
        end
        local got, want, threads = run("bf16", "f32"), run("f64", "f64"), unic.threads()
        for name, t in pairs(want) do
          -- A few values of a million lie so near 0 that f32 and f64 disagree on which side.
          local off = unic.abs(unic.sub(unic.cast(got[name], "f64"), t))
          local wrong = unic.sum(unic.cast(unic.gt(off, unic.mul(unic.add(unic.abs(t), 1), name == "dweight" and 1e-3 or 2 ^ -7)), "f64")):item()
          assert.is_true(wrong <= 4, ("%s: %d values are off, by up to %g"):format(name, wrong, unic.max(off):item()))
        end
        unic.threads(threads == 1 and 2 or 1)
        local other = run("bf16", "f32")
        unic.threads(threads)
        for name, t in pairs(got) do assert.same_bits(t, other[name]) end
      end)
    end
  end

  describe("on channels in blocks", function()
    local function random(shape, seed) return unic.uniform_(unic.empty(shape), -1, 1, { rng = unic.new_generator(seed) }) end

    it("writes them whatever it is given, if channels fill blocks", function()
      local size = blocked.size()
      local function is_blocked(shape, dtype) return unic.batch_norm(unic.cast(random(shape, 1), dtype or "f32")):stride() == nil end
      assert.equal(size > 0, is_blocked { 2, 48, 3, 3 })
      assert.is_false(is_blocked { 2, 20, 3, 3 })
      assert.is_false(is_blocked { 2, 48, 1, 1 })
      assert.is_false(is_blocked { 2, 48 })
      assert.is_false(is_blocked({ 2, 48, 3, 3 }, "bf16"))
      assert.is_false(is_blocked({ 2, 48, 3, 3 }, "f64"))
    end)

    for _, shape in ipairs { { 2, 48, 9, 11 }, { 3, 16, 23, 30 }, { 2, 32, 1, 3 } } do
      it("has the same values and gradients for " .. table.concat(shape, " x "), function()
        if blocked.size() == 0 then return end
        local c = shape[2]
        local w, b, r = random({ c }, 1), random({ c }, 2), random(shape, 3)
        local x = random(shape, 4)
        blocked.check(function(t) return unic.batch_norm(t, w, b, { relu = true }) end, x, { w, b }, 1e-5)
        blocked.check(function(t) return unic.batch_norm(t, w, b, nil, nil, r, { relu = true }) end, x, { w, b, r }, 1e-5)
        blocked.check(function(t) return unic.batch_norm(t, w, b, nil, nil, blocked.enter(r), { relu = true }) end, x, { w, b, r }, 1e-5)
        blocked.check(function(t) return unic.batch_norm(r, w, b, nil, nil, t, { relu = true }) end, x, { w, b, r }, 1e-5)
        blocked.check(function(t) return unic.batch_norm(t, w, b, unic.zeros { c }, unic.ones { c }, { training = false }) end, x, { w, b }, 1e-5)
      end)
    end

    it("has the same values as the f64 form", function()
      local x, r = random({ 2, 16, 13, 5 }, 1), random({ 2, 16, 13, 5 }, 2)
      local function run(dtype)
        local a, e = unic.cast(x, dtype), unic.cast(r, dtype)
        a.requires_grad, e.requires_grad = true, true
        local y = unic.batch_norm(a, nil, nil, nil, nil, e, { relu = true })
        y:backward { gradient = unic.cast(r, dtype) }
        return blocked.values(y), blocked.values(a.grad), blocked.values(e.grad)
      end
      local y, dx, dr = run "f32"
      local y64, dx64, dr64 = run "f64"
      near(y64, y, 1e-5)
      near(dx64, dx, 1e-5)
      near(dr64, dr, 1e-5)
    end)
  end)
end)
