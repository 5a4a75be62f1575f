local unic = require "unic"
local ops = require "spec.support.ops"

describe("cross_correlation", function()
  ops.check("cross_correlation", {
    { a = { 6, 4 }, b = { 6, 4 } },
    { a = { 6, 4 }, b = { 6, 4 }, along = "samples" },
    { a = { 6, 4 }, b = { 6, 4 }, lambda = 0.5, eps = 0.1 },
    { a = { 4, 7 }, b = { 4, 7 }, along = "samples", lambda = 0.3, eps = 0.1 },
    { a = ops.uniform({ 130, 70 }, 2, 9), b = ops.uniform({ 130, 70 }, 2, 9), note = "features, large, far from zero" },
    { a = { 20, 1100 }, b = { 20, 1100 }, along = "samples", note = "samples, long rows" },
    { a = { 20, 300 }, b = { 20, 300 }, note = "more features than samples" },
    { a = { 0, 4 }, b = { 0, 4 }, note = "no samples" },
    { a = { 3, 0 }, b = { 3, 0 }, along = "samples", note = "no features" },
  }, {
    errors = {
      { { a = { 4, 6 }, b = { 5, 6 } }, "argument 'b'" },
      { { a = { 4, 6 }, b = { 4, 5 } }, "argument 'b'" },
      { { a = { 4, 6 }, b = { 4, 6 }, along = "rows" }, "argument 'along'" },
      { { a = { 4, 6 }, b = { 4, 6 }, eps = -1 }, "argument 'eps'" },
    },
  })

  local function close(a, b, limit) return math.abs(a - b) <= (limit or 1e-6) end

  it("gives values worked out by hand", function()
    -- columns of a: (1, 2, 3) and (1, -2, 1), uncorrelated; b = a with the second column negated: C = diag(1, -1)
    local a = unic.tensor({ { 1, 1 }, { 2, -2 }, { 3, 1 } }, { dtype = "f64" })
    local b = unic.tensor({ { 1, -1 }, { 2, 2 }, { 3, -1 } }, { dtype = "f64" })
    assert.is_true(close(unic.cross_correlation(a, a, { eps = 0 }):item(), 0, 1e-14))
    assert.is_true(close(unic.cross_correlation(a, b, { eps = 0 }):item(), 4 / 2, 1e-14))
    -- b's columns exchanged: C = [[0, 1], [1, 0]], both diagonals miss by 1, off-diagonals weigh lambda
    local c = unic.tensor({ { 1, 1 }, { -2, 2 }, { 1, 3 } }, { dtype = "f64" })
    assert.is_true(close(unic.cross_correlation(a, c, { eps = 0, lambda = 0.25 }):item(), (2 + 0.25 * 2) / 2, 1e-14))
    -- rows (1, 2, 3) and (3, 2, 1) correlate by -1 with each other and 1 with themselves
    local r = unic.tensor({ { 1, 2, 3 }, { 3, 2, 1 } }, { dtype = "f64" })
    assert.is_true(close(unic.cross_correlation(r, r, { along = "samples", eps = 0, lambda = 0.5 }):item(), 0.5 * 2 / 2, 1e-14))
  end)

  it("does not care about the scale and offset of a feature, but for eps", function()
    local a, b = unic.randn({ 40, 6 }, { dtype = "f64" }), unic.randn({ 40, 6 }, { dtype = "f64" })
    local scaled = unic.add(unic.mul(a, unic.tensor({ 1, 2, 3, 4, 5, 6 }, { dtype = "f64" })), 7)
    assert.is_true(close(unic.cross_correlation(a, b, { eps = 0 }):item(), unic.cross_correlation(scaled, b, { eps = 0 }):item(), 1e-12))
  end)

  it("expects squared correlations of 1/(K - 1) between independent views", function()
    local K, D = 64, 256
    local a, b = unic.randn({ K, D }), unic.randn({ K, D })
    local on = unic.cross_correlation(a, b, { lambda = 0 }):item()
    local all = unic.cross_correlation(a, b, { lambda = 1 }):item()
    assert.is_true(math.abs((all - on) / (D - 1) - 1 / (K - 1)) < 0.001)
  end)

  it("takes a feature without variance as correlated with nothing", function()
    local a = unic.randn({ 8, 3 })
    unic.narrow(a, 2, 2, 1):fill_(4)
    a.requires_grad = true
    local loss = unic.cross_correlation(a, a:detach(), { lambda = 0 })
    assert.is_true(close(loss:item(), 1 / 3, 1e-4))
    loss:backward()
    for _, row in ipairs(a.grad:totable()) do
      for _, v in ipairs(row) do assert.is_true(v == v) end
    end
  end)

  it("works in panels for thousands of features", function()
    local a, b = unic.randn({ 3, 2500 }), unic.randn({ 3, 2500 })
    local x, y = a:detach(), b:detach()
    x.requires_grad, y.requires_grad = true, true
    local loss = unic.cross_correlation(x, y)
    loss:backward()
    local u, v = unic.cast(a, "f64"), unic.cast(b, "f64")
    u.requires_grad, v.requires_grad = true, true
    local exact = unic.cross_correlation(u, v)
    exact:backward()
    assert.close(loss, exact)
    assert.close(x.grad, u.grad)
    assert.close(y.grad, v.grad)
  end)

  it("does not care how the batch is ordered", function()
    local a, b = unic.randn({ 32, 16 }, { dtype = "f64" }), unic.randn({ 32, 16 }, { dtype = "f64" })
    local function shuffled(t)
      local rows, out = t:totable(), {}
      for i = 1, 32 do out[i] = rows[(i * 13) % 32 + 1] end
      return unic.tensor(out, { dtype = "f64" })
    end
    for _, along in ipairs { "features", "samples" } do
      assert.is_true(close(unic.cross_correlation(a, b, { along = along }):item(),
        unic.cross_correlation(shuffled(a), shuffled(b), { along = along }):item(), 1e-12))
    end
  end)
end)
