local unic = require "unic"
local ops = require "spec.support.ops"

describe("info_nce", function()
  ops.check("info_nce", {
    { a = { 4, 6 }, b = { 4, 6 }, scale = 3 },
    { a = { 4, 6 }, b = { 4, 6 }, scale = 3, symmetric = false },
    { a = { 5, 4 }, b = { 5, 4 }, scale = ops.values(0.8), note = "scale with a gradient" },
    { a = { 5, 4 }, b = { 5, 4 }, scale = ops.values(0.8), symmetric = false, note = "scale with a gradient, one direction" },
    { a = { 1, 3 }, b = { 1, 3 }, scale = 5, note = "a single pair" },
    { a = { 17, 1100 }, b = { 17, 1100 }, scale = 1 / 0.07, note = "long rows" },
    { a = { 300, 20 }, b = { 300, 20 }, scale = 1 / 0.07, note = "many pairs" },
    { a = { 0, 4 }, b = { 0, 4 }, scale = 2, note = "no pairs" },
  }, {
    errors = {
      { { a = { 4, 6 }, b = { 5, 6 }, scale = 1 }, "argument 'b'" },
      { { a = { 4, 6 }, b = { 4, 5 }, scale = 1 }, "argument 'b'" },
      { { a = { 4, 6 }, b = { 4, 6 } }, "argument 'scale'" },
    },
  })

  local function close(a, b, limit) return math.abs(a - b) <= (limit or 1e-6) end

  it("is exactly log K for equal embeddings", function()
    for _, pairs_ in ipairs { 2, 32, 128 } do
      local row, rows = {}, {}
      for d = 1, 48 do row[d] = math.sin(d) end
      for i = 1, pairs_ do rows[i] = row end
      local e = unic.tensor(rows)
      assert.is_true(close(unic.info_nce(e, e, 1 / 0.07):item(), math.log(pairs_)))
      assert.is_true(close(unic.info_nce(e, e, 1 / 0.07, { symmetric = false }):item(), math.log(pairs_)))
    end
  end)

  it("gives values worked out by hand", function()
    -- orthogonal pairs: s = scale * identity, loss = log(1 + exp(-scale)) for K = 2; lengths do not matter
    local a, b = unic.tensor({ { 2, 0 }, { 0, 0.5 } }), unic.tensor({ { 10, 0 }, { 0, 1 } })
    local expected = math.log(1 + math.exp(-3))
    assert.is_true(close(unic.info_nce(a, b, 3):item(), expected))
    assert.is_true(close(unic.info_nce(a, b, { scale = 3, symmetric = false }):item(), expected))
    -- d/dscale log(1 + exp(-scale)) = -1 / (1 + exp(scale))
    local scale = unic.tensor(3)
    scale.requires_grad = true
    unic.info_nce(a, b, scale):backward()
    assert.is_true(close(scale.grad:item(), -1 / (1 + math.exp(3))))
  end)

  it("tells the two directions apart", function()
    -- a's rows equal, b's rows orthogonal: rows of s are (c, 0) and (c, 0), columns are equal within themselves
    local a, b = unic.tensor({ { 1, 0 }, { 1, 0 } }), unic.tensor({ { 1, 0 }, { 0, 1 } })
    local rows = (math.log(1 + math.exp(-2)) + math.log(1 + math.exp(2))) / 2
    assert.is_true(close(unic.info_nce(a, b, 2, { symmetric = false }):item(), rows))
    assert.is_true(close(unic.info_nce(b, a, 2, { symmetric = false }):item(), math.log(2)))
    assert.is_true(close(unic.info_nce(a, b, 2):item(), (rows + math.log(2)) / 2))
    assert.is_true(close(unic.info_nce(b, a, 2):item(), (rows + math.log(2)) / 2))
  end)

  it("is near log K + 1/(2 D tau^2) for random embeddings", function()
    -- One draw is 0.056 off on average and 0.15 once in 200, so the mean of sixteen.
    local sum = 0
    for _ = 1, 16 do sum = sum + unic.info_nce(unic.randn({ 128, 512 }), unic.randn({ 128, 512 }), 1 / 0.07):item() end
    assert.is_true(math.abs(sum / 16 - (math.log(128) + 0.2)) < 0.1)
  end)

  it("does not care how the batch is ordered", function()
    local a, b = unic.randn({ 64, 32 }, { dtype = "f64" }), unic.randn({ 64, 32 }, { dtype = "f64" })
    local function shuffled(t)
      local rows, out = t:totable(), {}
      for i = 1, 64 do out[i] = rows[(i * 29) % 64 + 1] end
      return unic.tensor(out, { dtype = "f64" })
    end
    assert.is_true(close(unic.info_nce(a, b, 10):item(), unic.info_nce(shuffled(a), shuffled(b), 10):item(), 1e-12))
  end)

  it("gives a row of zeros a finite loss and gradient", function()
    local a, b = unic.randn({ 3, 4 }), unic.randn({ 3, 4 })
    unic.narrow(a, 1, 1, 1):fill_(0)
    b.requires_grad = true
    local loss = unic.info_nce(a, b, 4)
    loss:backward()
    assert.is_true(loss:item() == loss:item() and loss:item() < 100)
    for _, row in ipairs(b.grad:totable()) do
      for _, v in ipairs(row) do assert.is_true(v == v and math.abs(v) < 100) end
    end
  end)

  it("works in panels for thousands of pairs", function()
    local a, b = unic.randn({ 1500, 8 }), unic.randn({ 1500, 8 })
    local x, y = a:detach(), b:detach()
    x.requires_grad, y.requires_grad = true, true
    local loss = unic.info_nce(x, y, 7)
    loss:backward()
    local u, v = unic.cast(a, "f64"), unic.cast(b, "f64")
    u.requires_grad, v.requires_grad = true, true
    local exact = unic.info_nce(u, v, 7)
    exact:backward()
    assert.close(loss, exact)
    assert.close(x.grad, u.grad)
    assert.close(y.grad, v.grad)
  end)
end)
