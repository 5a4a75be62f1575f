local unic = require "unic"
local ops = require "spec.support.ops"

local function key_mask(lengths, keys)
  local rows = {}
  for i, n in ipairs(lengths) do
    rows[i] = {}
    for j = 1, keys do rows[i][j] = j <= n end
  end
  return ops.values(rows, "bool")
end

describe("attention", function()
  ops.check("attention", {
    { q = { 1, 3, 2, 4 }, k = { 1, 3, 2, 4 }, v = { 1, 3, 2, 4 } },
    { q = { 2, 2, 1, 3 }, k = { 2, 5, 1, 3 }, v = { 2, 5, 1, 3 }, scale = 0.7, note = "more keys than queries, own scale" },
    { q = { 1, 4, 2, 2 }, k = { 1, 4, 2, 2 }, v = { 1, 4, 2, 2 }, causal = true, note = "causal" },
    { q = { 1, 2, 1, 3 }, k = { 1, 4, 1, 3 }, v = { 1, 4, 1, 3 }, causal = true, note = "causal, more keys than queries" },
    { q = { 2, 3, 1, 2 }, k = { 2, 4, 1, 2 }, v = { 2, 4, 1, 2 }, mask = key_mask({ 2, 4 }, 4), note = "key padding" },
    { q = { 2, 3, 1, 2 }, k = { 2, 4, 1, 2 }, v = { 2, 4, 1, 2 }, mask = key_mask({ 0, 3 }, 4), note = "a sample that is all padding" },
    { q = { 2, 3, 2, 2 }, k = { 2, 4, 2, 2 }, v = { 2, 4, 2, 2 }, mask = ops.bools({ 2, 3, 4 }, 0.6), note = "mask per query" },
    { q = { 2, 3, 2, 2 }, k = { 2, 4, 2, 2 }, v = { 2, 4, 2, 2 }, mask = ops.bools({ 2, 2, 3, 4 }, 0.6), causal = true, note = "mask per head, causal" },
    { q = { 2, 3, 2, 2 }, k = { 2, 4, 2, 2 }, v = { 2, 4, 2, 2 }, mask = ops.constant({ 1, 2, 3, 4 }), note = "additive mask" },
    { q = { 1, 2, 1, 3 }, k = { 1, 1100, 1, 3 }, v = { 1, 1100, 1, 3 }, mask = ops.normal({ 1, 2, 1100 }, 4), note = "additive mask, longer than a buffer" },
    { q = { 1, 3, 2, 2 }, k = { 1, 5, 2, 2 }, v = { 1, 5, 2, 2 }, dropout = 0.4, note = "dropout" },
    { q = { 1, 3, 2, 2 }, k = { 1, 5, 2, 2 }, v = { 1, 5, 2, 2 }, dropout = 1, note = "everything dropped" },
    { q = { 2, 67, 3, 20 }, k = { 2, 67, 3, 20 }, v = { 2, 67, 3, 20 }, note = "ragged sizes" },
    { q = { 1, 60, 1, 5 }, k = { 1, 1300, 1, 5 }, v = { 1, 1300, 1, 5 }, mask = key_mask({ 1111 }, 1300), dropout = 0.1, note = "several blocks of queries" },
    { q = { 1, 300, 1, 5 }, k = { 1, 300, 1, 5 }, v = { 1, 300, 1, 5 }, causal = true, dropout = 0.2, note = "several blocks, causal" },
    { q = { 1, 301, 1, 16 }, k = { 1, 301, 1, 16 }, v = { 1, 301, 1, 16 }, causal = true, dropout = 0.2, note = "whole vectors, several blocks, causal" },
    { q = { 1, 61, 1, 16 }, k = { 1, 1303, 1, 16 }, v = { 1, 1303, 1, 16 }, mask = key_mask({ 1111 }, 1303), note = "whole vectors, more keys than queries" },
    { q = { 1, 5, 2, 256 }, k = { 1, 6, 2, 256 }, v = { 1, 6, 2, 256 }, note = "wide heads" },
    { q = { 3, 5, 2, 1 }, k = { 3, 6, 2, 1 }, v = { 3, 6, 2, 1 }, note = "heads of one feature" },
    { q = { 0, 3, 2, 4 }, k = { 0, 3, 2, 4 }, v = { 0, 3, 2, 4 }, note = "empty batch" },
    { q = { 1, 0, 2, 4 }, k = { 1, 3, 2, 4 }, v = { 1, 3, 2, 4 }, note = "no queries" },
    { q = { 1, 2, 2, 4 }, k = { 1, 0, 2, 4 }, v = { 1, 0, 2, 4 }, note = "no keys" },
  }, {
    errors = {
      { { q = { 1, 3, 2, 4 }, k = { 1, 3, 2, 5 }, v = { 1, 3, 2, 5 } }, "argument 'k'" },
      { { q = { 1, 3, 2, 4 }, k = { 1, 3, 2, 4 }, v = { 1, 2, 2, 4 } }, "argument 'v'" },
      { { q = { 1, 3, 2, 4 }, k = { 1, 3, 2, 4 }, v = { 1, 3, 2, 4 }, mask = ops.bools({ 1, 4 }) }, "argument 'mask'" },
      { { q = { 1, 3, 2, 4 }, k = { 1, 3, 2, 4 }, v = { 1, 3, 2, 4 }, mask = ops.ints({ 1, 3 }, 0, 1) }, "expected bool" },
      { { q = { 1, 3, 2, 4 }, k = { 1, 3, 2, 4 }, v = { 1, 3, 2, 4 }, dropout = 1.5 }, "argument 'dropout'" },
    },
  })

  ops.check("self_attention", {
    { qkv = { 1, 3, 3, 2, 4 } },
    { qkv = { 2, 4, 3, 1, 3 }, causal = true },
    { qkv = { 2, 4, 3, 1, 3 }, mask = key_mask({ 2, 4 }, 4), scale = 0.3 },
    { qkv = { 1, 4, 3, 2, 2 }, dropout = 0.3 },
    { qkv = { 2, 197, 3, 1, 8 }, mask = key_mask({ 197, 150 }, 197), dropout = 0.1, note = "large" },
    { qkv = { 1, 300, 3, 2, 8 }, causal = true, note = "several blocks" },
  }, {
    errors = {
      { { qkv = { 1, 3, 2, 2, 4 } }, "argument 'qkv'" },
      { { qkv = { 1, 3, 3, 2, 4 }, mask = ops.bools({ 1, 3, 4 }) }, "argument 'mask'" },
    },
  })

  local function close(a, b, limit) return math.abs(a - b) <= (limit or 1e-6) end

  it("weighs values by the softmax of the scores", function()
    -- one head, D = 1, scale 1: scores 0 and log 3, weights 1/4 and 3/4
    local q = unic.tensor({ { { { 1 } } } })
    local k = unic.tensor({ { { { 0 } }, { { math.log(3) } } } })
    local v = unic.tensor({ { { { 8 } }, { { 16 } } } })
    assert.is_true(close(unic.attention(q, k, v):totable()[1][1][1][1], 14, 2e-6))
    -- scale 2: weights 1/10 and 9/10
    assert.is_true(close(unic.attention(q, k, v, { scale = 2 }):totable()[1][1][1][1], 15.2, 2e-6))
    -- masked to the first key
    local mask = unic.tensor({ { true, false } }, { dtype = "bool" })
    assert.equal(8, unic.attention(q, k, v, mask):totable()[1][1][1][1])
    -- additive: log 3 on the first key makes them equal
    local add = unic.tensor({ { math.log(3), 0 } })
    assert.is_true(close(unic.attention(q, k, v, add):totable()[1][1][1][1], 12, 2e-6))
    -- causal: the only query sees the only first key
    assert.equal(8, unic.attention(q, k, v, { causal = true }):totable()[1][1][1][1])
  end)

  it("gives zeros and zero gradients to a query that may attend to nothing", function()
    for _, kind in ipairs { "bool", "additive" } do
      local q, k, v = unic.randn({ 2, 3, 2, 4 }), unic.randn({ 2, 5, 2, 4 }), unic.randn({ 2, 5, 2, 4 })
      q.requires_grad, k.requires_grad, v.requires_grad = true, true, true
      local inf = math.huge
      local mask = kind == "bool" and unic.tensor({ { false, false, false, false, false }, { true, false, true, false, false } }, { dtype = "bool" })
        or unic.tensor({ { -inf, -inf, -inf, -inf, -inf }, { 0, -inf, 0, -inf, -inf } })
      local y = unic.attention(q, k, v, mask)
      local values = y:totable()
      for i = 1, 3 do
        for h = 1, 2 do
          for d = 1, 4 do
            assert.equal(0, values[1][i][h][d])
            assert.is_true(values[2][i][h][d] == values[2][i][h][d])
          end
        end
      end
      y:backward { gradient = unic.randn(y.shape) }
      local dq, dk, dv = q.grad:totable(), k.grad:totable(), v.grad:totable()
      for h = 1, 2 do
        for d = 1, 4 do
          for i = 1, 3 do assert.equal(0, dq[1][i][h][d]) end
          for j = 1, 5 do
            assert.equal(0, dk[1][j][h][d])
            assert.equal(0, dv[1][j][h][d])
          end
          for _, j in ipairs { 2, 4, 5 } do assert.equal(0, dv[2][j][h][d]) end
          assert.is_true(dv[2][1][h][d] ~= 0)
        end
      end
    end
  end)

  it("never reads what a key mask hides at the end", function()
    local q, k, v = unic.randn({ 1, 3, 1, 4 }), unic.randn({ 1, 4, 1, 4 }), unic.randn({ 1, 4, 1, 4 })
    local mask = unic.tensor({ { true, true, false, false } }, { dtype = "bool" })
    local clean = unic.attention(q, k, v, mask)
    for _, t in ipairs { k, v } do unic.narrow(t, 2, 3, 2):fill_(0 / 0) end
    assert.same_bits(clean, unic.attention(q, k, v, mask))
  end)

  it("keeps what is far apart finite", function()
    local q = unic.tensor({ { { { 100, 0 } } } })
    local k = unic.tensor({ { { { 100, 0 } }, { { -100, 0 } } } })
    local v = unic.tensor({ { { { 1, 2 } }, { { 3, 4 } } } })
    assert.same({ { { { 1, 2 } } } }, unic.attention(q, k, v):totable())
  end)

  it("drops the same weights whatever the block size, and advances the generator by them", function()
    -- the numbers of element ((b H + h) S + i) L + j decide; v = identity shows the weights themselves
    local S, L, p = 3, 8, 0.5
    local q, k = unic.zeros({ 1, S, 1, L }), unic.zeros({ 1, L, 1, L })
    local eye = {}
    for i = 1, L do
      eye[i] = { {} }
      for j = 1, L do eye[i][1][j] = i == j and 1 or 0 end
    end
    local v = unic.tensor({ eye })
    local rng = unic.new_generator(7)
    local y = unic.attention(q, k, v, { dropout = p, rng = rng }):totable()
    local draw = unic.uniform_(unic.empty({ S * L }), 0, 1, { rng = unic.new_generator(7) }):totable()
    for i = 1, S do
      for j = 1, L do
        local expected = draw[(i - 1) * L + j] < p and 0 or 1 / L / (1 - p)
        assert.is_true(close(y[1][i][1][j], expected, 1e-7))
      end
    end
    assert.same({ 7, S * L / 4 }, rng:totable())
  end)

  it("gives a packed projection the same bits as its three parts", function()
    local qkv = unic.randn({ 2, 37, 3, 2, 8 })
    local parts = {}
    for i = 1, 3 do parts[i] = unic.select(qkv, 3, i) end
    assert.same_bits(unic.self_attention(qkv), unic.attention(parts[1], parts[2], parts[3]))
  end)

  -- The same from plain ops: matmul, softmax, dropout and masked_fill, in f64.
  local function composed(q, k, v, options, rng)
    local function heads(x) return x:permute(1, 3, 2, 4) end
    local s = heads(q):matmul(heads(k):transpose(3, 4)) / math.sqrt(q:size(4))
    local S, L = q:size(2), k:size(2)
    local mask = options.mask
    if mask then
      if mask:dim() == 2 then mask = mask:reshape({ mask:size(1), 1, 1, L }) end
      if mask:dim() == 3 then mask = mask:reshape({ mask:size(1), 1, S, L }) end
      s = mask.dtype == "bool" and s:masked_fill(mask:expand(s.shape):eq(0), -math.huge) or s + mask:cast("f64")
    end
    if options.causal then s = s:masked_fill(unic.ones(S, L):tril():eq(0), -math.huge) end
    local p = s:softmax(4)
    if options.dropout then p = p:dropout(options.dropout, { rng = rng }) end
    return heads(p:matmul(heads(v))):contiguous()
  end

  describe("agrees with its composition of plain ops,", function()
    local B, S, L, H = 2, 19, 23, 2
    local function bools(shape)   -- the first key is seen by everyone: a row without any is another spec's
      local flags = unic.uniform_(unic.empty(shape), 0, 1, { rng = unic.new_generator(11) }):gt(0.4)
      flags:narrow(#shape, 1, 1):fill_(1)
      return flags
    end
    local function added(shape) return unic.randn(shape, { rng = unic.new_generator(12) }) end
    local far = added { B, 1, S, L }
    far:narrow(4, 7, 5):fill_(-math.huge)
    local cases = {
      { "no mask" }, { "causal", causal = true },
      { "boolean keys", mask = bools { B, L } }, { "boolean", mask = bools { B, S, L } }, { "boolean per head", mask = bools { B, H, S, L } },
      { "additive", mask = added { B, S, L } }, { "additive per head", mask = added { 1, H, S, L } }, { "additive with -inf", mask = far },
      { "boolean and causal", mask = bools { B, L }, causal = true }, { "boolean per head and causal", mask = bools { B, H, S, L }, causal = true },
      { "additive and causal", mask = added { B, H, S, L }, causal = true }, { "additive with -inf and causal", mask = far, causal = true },
    }
    local names = { "y", "dq", "dk", "dv" }

    for _, D in ipairs { 32, 64, 80, 96, 128 } do
      it("heads of " .. D, function()
        local function values(n, seed) return unic.randn({ B, n, H, D }, { dtype = "f64", rng = unic.new_generator(seed) }) end
        for _, dtype in ipairs { "f32", "bf16", "f16", "f64" } do
          -- The same numbers for both forms: rounded to the dtype first.
          local q, k, v = values(S, 1):cast(dtype), values(L, 2):cast(dtype), values(L, 3):cast(dtype)
          local dy = values(S, 4):cast(dtype)
          local function run(fn, wide)
            local t = {}
            for i, x in ipairs { q, k, v } do
              t[i] = (wide and x:cast("f64") or x):clone()
              t[i].requires_grad = true
            end
            local y = fn(t[1], t[2], t[3])
            y:backward { gradient = wide and dy:cast "f64" or dy }
            return { y:detach(), t[1].grad, t[2].grad, t[3].grad }
          end
          for _, case in ipairs(cases) do
            for _, p in ipairs { 0, 0.3 } do
              local mask = case.mask
              if mask and mask.dtype == "f32" and dtype ~= "f32" then mask = mask:cast(dtype) end
              local dropout = p > 0 and p or nil
              local mine, theirs = unic.new_generator(5), unic.new_generator(5)
              local got = run(function(a, b, c) return unic.attention(a, b, c, mask, { causal = case.causal, dropout = dropout, rng = mine }) end)
              local want = run(function(a, b, c) return composed(a, b, c, { mask = mask, causal = case.causal, dropout = dropout }, theirs) end, true)
              for i, name in ipairs(names) do
                local ok, why = require("unic.testing").close(got[i], want[i], dtype == "f64" and 1e-12 or require("unic.testing").tolerance[dtype])
                assert.is_true(ok, ("%s, %s, dropout %g, %s: %s"):format(dtype, case[1], p, name, tostring(why)))
              end
              if dropout then assert.same(theirs:totable(), mine:totable()) end
            end
          end
        end
      end)

      it("heads of " .. D .. ", packed", function()
        local qkv = unic.randn({ B, S, 3, H, D }, { rng = unic.new_generator(6) })
        local dy = unic.randn({ B, S, H, D }, { rng = unic.new_generator(7) })
        for _, dtype in ipairs { "f32", "bf16", "f16", "f64" } do
          local x, g = qkv:cast(dtype), dy:cast(dtype)
          for _, options in ipairs { {}, { causal = true }, { dropout = 0.3 }, { causal = true, dropout = 0.3, mask = bools { B, S } } } do
            local packed, wide = x:clone(), x:cast("f64"):clone()
            packed.requires_grad, wide.requires_grad = true, true
            local y = unic.self_attention(packed, options.mask, { causal = options.causal, dropout = options.dropout, rng = unic.new_generator(5) })
            y:backward { gradient = g }
            local want = composed(wide:select(3, 1), wide:select(3, 2), wide:select(3, 3), options, unic.new_generator(5))
            want:backward { gradient = g:cast "f64" }
            local limit = dtype == "f64" and 1e-12 or require("unic.testing").tolerance[dtype]
            assert.close(y:detach(), want:detach(), limit)
            assert.close(packed.grad, wide.grad, limit)
          end
        end
      end)
    end
  end)
end)
