local unic = require "unic"
local ops = require "spec.support.ops"

local function close(a, expected, tolerance)
  for i, v in ipairs(expected) do assert.is_true(math.abs(a[i] - v) <= (tolerance or 1e-12), ("element %d: %.15g, expected %.15g"):format(i, a[i], v)) end
end

describe("layer_norm", function()
  ops.check("layer_norm", {
    { x = { 4, 8 }, weight = { 8 }, bias = { 8 } },
    { x = { 2, 3, 5 }, weight = { 5 }, note = "scale alone" },
    { x = { 3, 7 }, bias = { 7 }, eps = 1e-3, note = "shift alone" },
    { x = { 6 }, note = "one row, nothing else" },
    { x = ops.normal({ 3, 6 }, 1, 5), weight = { 6 }, bias = { 6 }, note = "mean far from 0" },
    { x = ops.uniform({ 150, 70 }, -3, 3), weight = { 70 }, bias = { 70 }, note = "several chunks and a tail" },
    { x = { 9, 2500 }, weight = { 2500 }, bias = { 2500 }, note = "rows longer than a buffer" },
    { x = { 21, 768 }, weight = { 768 }, bias = { 768 }, note = "rows that a warp holds" },
    { x = { 2, 1024 }, weight = { 1024 }, note = "the longest of them" },
    { x = { 3, 2048 }, weight = { 2048 }, bias = { 2048 }, note = "rows that a block holds" },
    { x = { 2, 8192 }, weight = { 8192 }, bias = { 8192 }, note = "the longest of them" },
    { x = { 2, 8200 }, weight = { 8200 }, bias = { 8200 }, note = "longer still" },
    { x = { 0, 4 }, weight = { 4 }, bias = { 4 }, note = "no rows" },
    { x = { 3, 0 }, weight = { 0 }, bias = { 0 }, note = "empty rows" },
  }, {
    errors = {
      { { x = { 4, 8 }, weight = { 7 } }, "argument 'weight'" },
      { { x = { 4, 8 }, weight = { 8 }, bias = { 8, 1 } }, "argument 'bias'" },
      { { x = {} }, "argument 'x'" },
      { { x = ops.ints({ 4, 8 }, 0, 9) }, "argument 'x'" },
    },
  })

  it("gives the values worked out by hand", function()
    -- mean 2.5, variance 1.25; eps 1 makes rstd 1 / 1.5.
    local y = unic.layer_norm(unic.tensor({ { 1, 2, 3, 4 } }, { dtype = "f64" }), unic.tensor({ 1, 2, 3, 6 }, { dtype = "f64" }),
      unic.tensor({ 0, 0, 1, 1 }, { dtype = "f64" }), { eps = 1 }):totable()
    close(y[1], { -1, -2 / 3, 2, 7 })
    local f = unic.layer_norm(unic.tensor { { 1, 2, 3, 4 } }, unic.tensor { 1, 2, 3, 6 }, unic.tensor { 0, 0, 1, 1 }, { eps = 1 }):totable()
    close(f[1], { -1, -2 / 3, 2, 7 }, 1e-6)
  end)

  it("keeps a NaN in its own row", function()
    local y = unic.layer_norm(unic.tensor { { 1, 0 / 0, 2 }, { 1, 2, 3 } }):totable()
    for i = 1, 3 do assert.is_true(y[1][i] ~= y[1][i]) end
    close(y[2], { -1.224735, 0, 1.224735 }, 1e-5)
  end)

  it("is accurate when the mean is large beside the spread", function()
    local y = unic.layer_norm(unic.tensor { { 4095, 4096, 4097 } }, { eps = 0 }):totable()
    close(y[1], { -math.sqrt(1.5), 0, math.sqrt(1.5) }, 1e-6)
  end)
end)

describe("add_layer_norm", function()
  ops.check("add_layer_norm", {
    { x = { 4, 8 }, residual = { 4, 8 }, weight = { 8 }, bias = { 8 } },
    { x = { 2, 3, 5 }, residual = { 2, 3, 5 }, note = "no parameters" },
    { x = { 4, 8 }, residual = { 4, 8 }, weight = { 8 }, bias = { 8 }, dropout = 0.4 },
    { x = { 3, 6 }, residual = { 3, 6 }, weight = { 6 }, dropout = 1, note = "everything dropped" },
    { x = { 130, 70 }, residual = { 130, 70 }, weight = { 70 }, bias = { 70 }, dropout = 0.1, note = "several chunks and a tail, dropout" },
    { x = { 5, 2100 }, residual = { 5, 2100 }, weight = { 2100 }, bias = { 2100 }, dropout = 0.25, note = "rows longer than a buffer" },
    { x = { 11, 512 }, residual = { 11, 512 }, weight = { 512 }, bias = { 512 }, dropout = 0.25, note = "rows that a warp holds" },
    { x = { 2, 4096 }, residual = { 2, 4096 }, weight = { 4096 }, dropout = 0.25, note = "rows that a block holds" },
    { x = { 0, 4 }, residual = { 0, 4 }, weight = { 4 }, dropout = 0.5, note = "no rows" },
  }, {
    errors = {
      { { x = { 4, 8 }, residual = { 4, 7 } }, "argument 'residual'" },
      { { x = { 4, 8 }, residual = { 1, 8 } }, "argument 'residual'" },
      { { x = { 4, 8 }, residual = { 4, 8 }, weight = { 4 } }, "argument 'weight'" },
      { { x = { 4, 8 }, residual = { 4, 8 }, dropout = 1.5 }, "argument 'dropout'" },
    },
  })

  it("is residual plus layer_norm when nothing is dropped", function()
    local x, r, w, b = unic.randn(5, 33), unic.randn(5, 33), unic.randn(33), unic.randn(33)
    local y, h = unic.add_layer_norm(x, r, w, b)
    assert.close(h, unic.add(x, r), 0)
    assert.close(y, unic.layer_norm(h, w, b), 0)
  end)

  it("drops x and never the residual, scales what it keeps, and repeats its mask in the backward", function()
    local n, p = 64, 0.25
    local x, r = unic.full({ n, n }, 3), unic.full({ n, n }, 10)
    x.requires_grad, r.requires_grad = true, true
    local _, h = unic.add_layer_norm(x, r, nil, nil, { dropout = p })
    local values, dropped = unic.reshape(h:detach(), { -1 }):totable(), 0
    h:backward { gradient = unic.full({ n, n }, 1) }
    local dx, dr = unic.reshape(x.grad, { -1 }):totable(), unic.reshape(r.grad, { -1 }):totable()
    for i = 1, n * n do
      if values[i] == 10 then dropped = dropped + 1 else assert.equal(14, values[i]) end
      assert.is_true(math.abs(dx[i] - (values[i] == 10 and 0 or 1 / (1 - p))) < 1e-6)
      assert.equal(1, dr[i])
    end
    -- 4096 draws with p = 1/4: standard deviation 27.7.
    assert.is_true(math.abs(dropped - n * n * p) < 5 * 27.7, dropped .. " of " .. n * n .. " were dropped")
  end)

  it("drops other elements in the next call", function()
    local x, r = unic.full({ 8, 32 }, 1), unic.zeros { 8, 32 }
    local rng = unic.new_generator(3)
    local _, a = unic.add_layer_norm(x, r, { dropout = 0.5, rng = rng })
    local _, b = unic.add_layer_norm(x, r, { dropout = 0.5, rng = rng })
    assert.is_false((unic.testing or require "unic.testing").same_bits(a, b))
    local _, c = unic.add_layer_norm(x, r, { dropout = 0.5, rng = unic.new_generator(3) })
    assert.same_bits(a, c)
  end)

  it("leaves the generator alone without dropout", function()
    local rng = unic.new_generator(3)
    unic.add_layer_norm(unic.randn(4, 4), unic.randn(4, 4), { rng = rng })
    assert.same({ 3, 0 }, rng:totable())
    unic.add_layer_norm(unic.randn(3, 3), unic.randn(3, 3), { dropout = 0.1, rng = rng })
    assert.same({ 3, 3 }, rng:totable())   -- nine numbers, three blocks of four
  end)
end)
