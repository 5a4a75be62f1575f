local unic = require "unic"
local ops = require "spec.support.ops"

describe("sort and topk", function()
  ops.check("sort", {
    { x = { 3, 5 } }, { x = { 3, 5 }, dim = 1, descending = true }, { x = { 2, 3, 4 }, dim = 2 }, { x = { 40, 301 }, note = "long lines" },
    { x = { 1, 20000 }, descending = true, note = "one very long line" }, { x = { 0, 3 } }, { x = { 3, 0 } },
  }, { errors = { { { x = {} }, "argument 'x'" }, { { x = { 3 }, dim = 2 }, "argument 'dim'" } } })
  ops.check("topk", {
    { x = { 3, 5 }, k = 2 }, { x = { 5, 3 }, k = 2, dim = 1, largest = false }, { x = { 7, 300 }, k = 5 }, { x = { 7, 300 }, k = 100 }, { x = { 3, 4 }, k = 0 },
      { x = { 3, 4 }, k = 4 },
  }, { errors = { { { x = { 3 }, k = 4 }, "argument 'k'" }, { { x = { 3 }, k = -1 }, "argument 'k'" }, { { x = {}, k = 1 }, "argument 'x'" } } })

  it("keep the order of equals, and take NaN as the largest", function()
    local nan, inf = 0 / 0, math.huge
    local v, ids = unic.sort(unic.tensor { 2, nan, 1, 2, -inf, 0, inf, -0.0 })
    assert.same({ 4, 5, 7, 2, 0, 3, 6, 1 }, ids:totable())
    assert.same({ -inf, 0, 0, 1, 2, 2, inf }, { unpack(v:totable(), 1, 7) })
    assert.same({ 1, 6, 0, 3, 2, 5, 7, 4 }, select(2, unic.sort(unic.tensor { 2, nan, 1, 2, -inf, 0, inf, -0.0 }, { descending = true })):totable())
    assert.same({ 0, 3 }, select(2, unic.topk(unic.tensor { 5, 1, 2, 5, 5 }, 2)):totable())
    local values = {}
    for i = 1, 200 do values[i] = i % 3 end   -- long enough for the digit sort
    local _, order = unic.sort(unic.tensor(values))
    order = order:totable()
    for i = 2, 200 do
      local a, b = order[i - 1] + 1, order[i] + 1
      assert.is_true(values[a] < values[b] or (values[a] == values[b] and a < b))
    end
  end)

  it("sort integers of all sizes", function()
    for _, dtype in ipairs { "i64", "i32" } do
      assert.same({ -70000, -1, 0, 3, 70000 }, (unic.sort(unic.tensor({ 3, -1, 70000, 0, -70000 }, { dtype = dtype }))):totable())
    end
    local big = unic.tensor({ 2 ^ 53, 0 }, { dtype = "i64" })
    local v = unic.add(unic.cat { big:narrow(1, 1, 1), big:narrow(1, 1, 1) }, unic.tensor({ 1, 0 }, { dtype = "i64" }))
    assert.same({ 1, 0 }, select(2, unic.sort(v)):totable())
  end)

  it("are the CPU's, bit by bit, for all types and lengths", function()
    for _, dtype in ipairs { "f32", "bf16", "f16", "f64", "i64", "i32", "u8", "bool" } do
      for _, n in ipairs { 33, 300, 2049, 4500 } do
        local found = {}
        for _, device in ipairs { "cpu", unic.device() } do
          local x = unic.randint_(unic.empty({ 2, n }, { dtype = dtype, device = device }), dtype == "u8" and 0 or -90, 90, { rng = unic.new_generator(n, device) })
          local v, ids = unic.sort(x, { descending = n == 300 })
          local t, tids = unic.topk(x, 7, { largest = n == 300 })
          found[#found + 1] = { v, ids, t, tids }
        end
        for j, t in ipairs(found[1]) do assert.same_bits(t, found[2][j]:to("cpu")) end
      end
    end
  end)

  it("agree with each other", function()
    local x = unic.randn(9, 400)
    local sorted, where = unic.sort(x, { descending = true })
    for _, k in ipairs { 1, 10, 48, 49, 300 } do
      local v, ids = unic.topk(x, k)
      assert.same_bits(unic.contiguous(sorted:narrow(2, 1, k)), v)
      assert.same_bits(unic.contiguous(where:narrow(2, 1, k)), ids)
    end
  end)
end)

describe("randperm", function()
  it("is a permutation, another one at each call, the same from the same state", function()
    local rng = unic.new_generator(7)
    for _, n in ipairs { 0, 1, 2, 47, 1000 } do
      local seen = {}
      for _, v in ipairs(unic.randperm(n, { rng = rng }):totable()) do
        assert.is_true(v >= 0 and v < n and not seen[v])
        seen[v] = true
      end
      for i = 0, n - 1 do assert.is_true(seen[i]) end
    end
    local a, b = unic.randperm(100, { rng = rng }), unic.randperm(100, { rng = rng })
    assert.is_false((require "unic.testing").same_bits(a, b))
    assert.same_bits(unic.randperm(100, { rng = unic.new_generator(5) }), unic.randperm(100, { rng = unic.new_generator(5) }))
  end)

  it("is the CPU's", function()
    for _, n in ipairs { 9, 1000, 5001 } do
      local rng = unic.new_generator(3)
      assert.same_bits(unic.randperm(n, { rng = unic.new_generator(3, "cpu") }), unic.randperm(n, { rng = rng }):to("cpu"))
      assert.same({ 3, math.ceil(n / 2) }, rng:totable())
    end
  end)

  it("puts every number everywhere about equally often", function()
    local rng, count = unic.new_generator(11), {}
    for _ = 1, 3000 do
      local p = unic.randperm(4, { rng = rng }):totable()
      for i = 1, 4 do count[i * 4 + p[i]] = (count[i * 4 + p[i]] or 0) + 1 end
    end
    for _, c in pairs(count) do assert.is_true(math.abs(c - 750) < 5 * math.sqrt(3000 * 0.25 * 0.75)) end
  end)

  it("refuses less than nothing", function()
    assert.raises_at(nil, "argument 'n'", function() unic.randperm(-1) end)
  end)
end)
