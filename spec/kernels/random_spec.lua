local unic = require "unic"
local ops = require "spec.support.ops"

-- Philox 4x32-10 in plain Lua, as the paper gives it.
local bit = require "bit"
local function mul32(a, b)   -- high and low word of a product
  local ah, al, bh, bl = math.floor(a / 65536), a % 65536, math.floor(b / 65536), b % 65536
  local low = al * bl
  local mid = ah * bl + math.floor(low / 65536)
  local mid2 = al * bh + mid % 65536
  return (ah * bh + math.floor(mid / 65536) + math.floor(mid2 / 65536)) % 2 ^ 32, (mid2 % 65536) * 65536 + low % 65536
end
local function u32(x) return x % 2 ^ 32 end
local function philox(seed, block)
  local c0, c1, c2, c3, k0, k1 = block, 0, 0, 0, seed, 0
  for _ = 1, 10 do
    local h0, l0 = mul32(0xD2511F53, c0)
    local h1, l1 = mul32(0xCD9E8D57, c2)
    c0, c1, c2, c3 = u32(bit.bxor(h1, c1, k0)), l1, u32(bit.bxor(h0, c3, k1)), l0
    k0, k1 = u32(k0 + 0x9E3779B9), u32(k1 + 0xBB67AE85)
  end
  return { c0, c1, c2, c3 }
end

local function generator(seed) return unic.new_generator(seed) end

describe("random fills", function()
  for name, case in pairs {
    uniform_ = { { x = { 3, 5 }, low = -1, high = 2 }, { x = { 70, 601 } }, { x = { 0, 3 } } },
    normal_ = { { x = { 3, 5 }, mean = 1, std = 2 }, { x = { 7 } }, { x = { 70, 601 } }, { x = { 0, 3 } } },
    randint_ = { { x = ops.ints({ 3, 5 }, 0, 1), low = -3, high = 4 }, { x = ops.ints({ 70, 601 }, 0, 1), low = 0, high = 1000 } },
    bernoulli_ = { { x = { 3, 5 }, p = 0.3 }, { x = ops.bools({ 70, 601 }), p = 0.5 } },
  } do
    -- f32 and f64 differ by one rounding; bf16 and f16 take fewer bits by design and are looked at below.
    ops.check(name, case, { dtypes = { "f32" } })
  end

  it("follow the published generator", function()
    assert.same({ 0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8 }, philox(0, 0))   -- the authors' known answer for zeros
    local rng, n = generator(123), 11
    local u = unic.uniform_(unic.empty { n }, { rng = rng }):totable()
    for i = 0, n - 1 do assert.equal(math.floor(philox(123, math.floor(i / 4))[i % 4 + 1] / 256) / 2 ^ 24, u[i + 1]) end
    assert.same({ 123, 3 }, rng:totable())
    -- the next call goes on where this one stopped
    local r = unic.randint_(unic.empty({ 3 }, { dtype = "i64" }), 10, 20, { rng = rng }):totable()
    for i = 0, 2 do assert.equal(10 + math.floor(philox(123, 3)[i + 1] * 10 / 2 ^ 32), r[i + 1]) end
    local z = unic.normal_(unic.empty({ 4 }, { dtype = "f64" }), 5, 2, { rng = generator(9) }):totable()
    for j = 0, 1 do
      local w = philox(9, j)
      local a, b = (w[1] * 2 ^ 21 + math.floor(w[2] / 2 ^ 11) + 1) / 2 ^ 53, (w[3] * 2 ^ 21 + math.floor(w[4] / 2 ^ 11)) / 2 ^ 53
      local radius = 2 * math.sqrt(-2 * math.log(a))
      assert.is_true(math.abs(z[2 * j + 1] - (5 + radius * math.cos(2 * math.pi * b))) < 1e-13)
      assert.is_true(math.abs(z[2 * j + 2] - (5 + radius * math.sin(2 * math.pi * b))) < 1e-13)
    end
  end)

  it("begin where the call before stopped: no number is used twice", function()
    for name, blocks in pairs { uniform_ = 3, bernoulli_ = 3, normal_ = 5 } do   -- of ten elements; normal_ takes a block for two
      local rng = generator(11)
      unic.core.ops.call[name](unic.zeros { 10 }, { rng = rng })
      assert.same({ 11, blocks }, rng:totable())
    end
    local first, second, both = unic.zeros { 4 }, unic.zeros { 4 }, unic.zeros { 8 }
    local rng = generator(11)
    unic.normal_(first, { rng = rng })
    unic.normal_(second, { rng = rng })
    unic.normal_(both, { rng = generator(11) })
    assert.same_bits(both, unic.cat({ first, second }, 1))
  end)

  it("are the same numbers on every device", function()
    local function both(name, dtype, ...)
      local made = {}
      for _, device in ipairs { "cpu", unic.device() } do
        local args = { ... }
        args[#args + 1] = { rng = unic.new_generator(21, device) }
        made[#made + 1] = unic.core.ops.call[name](unic.empty({ 1003 }, { dtype = dtype, device = device }), unpack(args)):to("cpu")
      end
      return made[1], made[2]
    end
    for _, dtype in ipairs { "f32", "bf16", "f16", "f64" } do
      assert.same_bits(both("uniform_", dtype, 0, 1))
      local a, b = both("normal_", dtype, 0, 1)   -- the CPU with FMA or without; one rounding beside it
      assert.close(a, b, ({ f32 = 2.4e-7, bf16 = 2 ^ -7, f16 = 2 ^ -10, f64 = 4.5e-16 })[dtype])
    end
    for _, dtype in ipairs { "f32", "bf16", "i64", "i32", "u8", "bool" } do
      assert.same_bits(both("randint_", dtype, -3, 250))
      assert.same_bits(both("bernoulli_", dtype, 0.3))
    end
  end)

  it("do not depend on the memory layout", function()
    for _, name in ipairs { "uniform_", "normal_", "bernoulli_" } do
      local a, b = unic.zeros { 2, 3, 4, 5 }, unic.channels_last(unic.zeros { 2, 3, 4, 5 })
      local fill = unic.core.ops.call[name]
      fill(a, { rng = generator(4) })
      fill(b, { rng = generator(4) })
      assert.same(a:totable(), b:totable())
    end
    local window = unic.zeros { 4, 6 }
    unic.uniform_(window:narrow(2, 3, 2), { rng = generator(4) })
    assert.same(unic.uniform_(unic.zeros { 4, 2 }, { rng = generator(4) }):totable(), unic.contiguous(window:narrow(2, 3, 2)):totable())
    assert.equal(0, window:narrow(2, 1, 2):sum():item())
  end)

  it("have the moments they should", function()
    local n = 200000
    local function moments(t)
      local x = unic.cast(t, "f64")
      local mean = x:mean():item()
      return mean, unic.mean(unic.square(unic.sub(x, mean))):item()
    end
    local mean, var = moments(unic.normal_(unic.empty { n }, 3, 0.5, { rng = generator(1) }))
    assert.is_true(math.abs(mean - 3) < 5 * 0.5 / math.sqrt(n) and math.abs(var / 0.25 - 1) < 5 * math.sqrt(2 / n))
    for _, dtype in ipairs { "f32", "bf16", "f16", "f64" } do
      local u = unic.uniform_(unic.empty({ n }, { dtype = dtype }), { rng = generator(2) })
      mean, var = moments(u)
      local slack = ({ bf16 = 2 ^ -9, f16 = 2 ^ -12 })[dtype] or 0
      assert.is_true(math.abs(mean - (0.5 - slack)) < 5 * math.sqrt(1 / 12 / n) and math.abs(var * 12 - 1) < 0.02, dtype)
      assert.is_true(u:min():item() >= 0 and u:max():item() < 1, dtype)
    end
    mean = moments(unic.bernoulli_(unic.empty({ n }, { dtype = "bool" }), 0.2, { rng = generator(3) }))
    assert.is_true(math.abs(mean - 0.2) < 5 * math.sqrt(0.16 / n))
    assert.equal(0, unic.bernoulli_(unic.empty { 99 }, 0):sum():item())
    assert.equal(99, unic.bernoulli_(unic.empty { 99 }, 1):sum():item())
  end)

  it("refuse what makes no sense", function()
    local x = unic.zeros { 3 }
    assert.raises_at(nil, "argument 'high'", function() x:uniform_(1, 0) end)
    assert.raises_at(nil, "argument 'std'", function() x:normal_(0, -1) end)
    assert.raises_at(nil, "argument 'high'", function() x:randint_(3, 3) end)
    assert.raises_at(nil, "argument 'p'", function() x:bernoulli_(2) end)
  end)
end)
