local unic = require "unic"
local ops = require "spec.support.ops"

describe("matmul", function()
  ops.check("matmul", {
    { a = { 3, 4 }, b = { 4, 2 } },
    { a = { 4 }, b = { 4 }, note = "vector by vector" },
    { a = { 4 }, b = { 4, 3 }, note = "vector by matrix" },
    { a = { 3, 4 }, b = { 4 }, note = "matrix by vector" },
    { a = { 2, 3, 4 }, b = { 2, 4, 2 }, note = "batch" },
    { a = { 2, 3, 4 }, b = { 4, 2 }, note = "batch by one matrix" },
    { a = { 3, 4 }, b = { 2, 4, 2 }, note = "one matrix by a batch" },
    { a = { 2, 1, 3, 4 }, b = { 5, 4, 2 }, note = "both broadcast" },
    { a = { 4 }, b = { 2, 4, 3 }, note = "vector by a batch" },
    { a = { 2, 3, 4 }, b = { 4 }, note = "batch by vector" },
    { a = { 3, 1 }, b = { 1, 4 }, note = "outer product" },
    { a = { 20, 23, 17 }, b = { 20, 17, 19 }, note = "many small products, spread over the team" },
    { a = { 2, 128, 128 }, b = { 2, 128, 128 }, note = "few large products" },
    { a = { 6, 5, 13, 20 }, b = { 20, 25 }, note = "leading dimensions folded into rows" },
    { a = { 150, 65 }, b = { 65, 70 }, note = "one large product" },
    { a = { 70, 96 }, b = { 12, 96, 64 }, note = "a large matrix by a batch" },
    { a = { 0, 4 }, b = { 4, 2 }, note = "no rows" },
    { a = { 3, 0 }, b = { 0, 2 }, note = "nothing to sum" },
    { a = { 0, 3, 4 }, b = { 4, 2 }, note = "empty batch" },
  }, {
    errors = {
      { { a = { 3, 4 }, b = { 5, 2 } }, "argument 'b'" },
      { { a = { 3, 4 }, b = { 3 } }, "its only dimension is 3" },
      { { a = { 2, 3, 4 }, b = { 3, 4, 2 } }, "do not broadcast" },
      { { a = {}, b = { 3 } }, "argument 'a'" },
    },
  })

  it("multiplies", function()
    local a, b = unic.tensor({ { 1, 2 }, { 3, 4 } }), unic.tensor({ { 5, 6 }, { 7, 8 } })
    assert.same({ { 19, 22 }, { 43, 50 } }, unic.matmul(a, b):totable())
    assert.equal(11, unic.matmul(unic.tensor({ 1, 2 }), unic.tensor({ 3, 4 })):item())
    assert.same({ 17, 39 }, unic.matmul(a, unic.tensor({ 5, 6 })):totable())
    assert.same({ 23, 34 }, unic.matmul(unic.tensor({ 5, 6 }), a):totable())
  end)

  it("reads transposed, sliced and expanded operands as they are", function()
    local a = unic.randn({ 6, 7, 5 }, { dtype = "f64" })
    local b = unic.randn({ 6, 9, 5 }, { dtype = "f64" })
    local function check(x, y, what)
      local got = unic.matmul(unic.cast(x, "f32"), unic.cast(y, "f32"))
      local views = unic.matmul(x, y)
      assert.close(got, views, 1e-6, what)
      assert.close(views, unic.matmul(unic.contiguous(x), unic.contiguous(y)), 1e-14, what)
    end
    check(a, unic.transpose(b, 2, 3), "transposed right")
    check(unic.permute(a, { 2, 1, 3 }), unic.transpose(unic.narrow(b, 1, 1, 1), 2, 3), "permuted left, broadcast right")
    check(unic.narrow(a, 3, 1, 3, 2), unic.transpose(unic.narrow(b, 3, 1, 3, 2), 2, 3), "every second column")
    check(unic.expand(unic.narrow(a, 2, 1, 1), { 6, 4, 5 }), unic.transpose(b, 2, 3), "expanded rows")
    -- a cast makes dense copies; f32 views reach the fast form only this way
    local f = unic.cast(a, "f32")
    local g = unic.cast(b, "f32")
    assert.close(unic.matmul(unic.narrow(f, 3, 1, 3, 2), unic.transpose(unic.narrow(g, 3, 1, 3, 2), 2, 3)),
      unic.matmul(unic.narrow(unic.cast(f, "f64"), 3, 1, 3, 2), unic.transpose(unic.narrow(unic.cast(g, "f64"), 3, 1, 3, 2), 2, 3)), 1e-6)
    assert.close(unic.matmul(unic.expand(unic.narrow(f, 2, 1, 1), { 6, 4, 5 }), unic.transpose(g, 2, 3)),
      unic.matmul(unic.cast(unic.expand(unic.narrow(f, 2, 1, 1), { 6, 4, 5 }), "f64"), unic.transpose(unic.cast(g, "f64"), 2, 3)), 1e-6)
    assert.close(unic.matmul(unic.permute(f, { 2, 1, 3 }), unic.permute(unic.narrow(g, 1, 1, 1), { 1, 3, 2 })),
      unic.matmul(unic.cast(unic.permute(f, { 2, 1, 3 }), "f64"), unic.cast(unic.permute(unic.narrow(g, 1, 1, 1), { 1, 3, 2 }), "f64")), 1e-6)
  end)

  it("gives gradients through views", function()
    for _, dtype in ipairs { "f32", "bf16" } do
      local a = unic.randn({ 4, 3, 5 })
      local b = unic.randn({ 6, 5 })
      local w = unic.randn({ 3, 4, 6 })
      local function grads(kind)
        local x, y = unic.cast(unic.cast(a, dtype), kind):detach(), unic.cast(unic.cast(b, dtype), kind):detach()
        x.requires_grad, y.requires_grad = true, true
        unic.matmul(unic.permute(x, { 2, 1, 3 }), unic.transpose(y, 1, 2)):backward { gradient = unic.cast(unic.cast(w, dtype), kind) }
        return x.grad, y.grad
      end
      local dx, dy = grads(dtype)
      local ex, ey = grads("f64")
      assert.close(dx, ex)
      assert.close(dy, ey)
    end
  end)

  it("multiplies heads that lie between each other", function()
    local batch, rows, heads, width = 2, 96, 8, 64
    local a = unic.randn({ batch, rows, heads, width }, { rng = unic.new_generator(1) })
    local b = unic.randn({ batch, rows, heads, width }, { rng = unic.new_generator(2) })
    local w = unic.randn({ batch, heads, rows, rows }, { rng = unic.new_generator(3) })
    for _, dtype in ipairs { "f32", "bf16" } do
      local function run(kind)
        local x, y = unic.cast(unic.cast(a, dtype), kind):detach(), unic.cast(unic.cast(b, dtype), kind):detach()
        x.requires_grad, y.requires_grad = true, true
        local z = unic.matmul(unic.permute(x, { 1, 3, 2, 4 }), unic.permute(y, { 1, 3, 4, 2 }))
        z:backward { gradient = unic.cast(unic.cast(w, dtype), kind) }
        return { z:detach(), x.grad, y.grad }
      end
      local got, expected = run(dtype), run "f64"
      for i = 1, 3 do assert.close(got[i], expected[i]) end
    end
  end)

  it("works through half-precision operands in panels", function()
    -- zeros and ones: all sums below 2048 are exact in f16
    for _, shape in ipairs { { {}, 3, 5000, 1100 }, { { 9 }, 2, 1000, 300 } } do
      local lead, m, k, n = shape[1], shape[2], shape[3], shape[4]
      local function zeros_and_ones(rows, cols, below)
        local full = lead[1] and { lead[1], rows, cols } or { rows, cols }
        local t = unic.randint_(unic.empty(full, { dtype = "i64" }), 0, below, { rng = unic.new_generator(rows) })
        return unic.cast(unic.cast(unic.cast(t, "bool"), "u8"), "f32")
      end
      local a, b = zeros_and_ones(m, k, 2), zeros_and_ones(k, n, 2)
      local exact = unic.matmul(a, b)
      assert.same_bits(unic.cast(unic.matmul(unic.cast(a, "f16"), unic.cast(b, "f16")), "f32"), exact)
    end
  end)

  it("sums NaN and infinities as arithmetic does", function()
    local inf = math.huge
    local y = unic.matmul(unic.tensor({ { inf, 1 }, { inf, 1 }, { 0 / 0, 1 } }), unic.tensor({ { 1, 0 }, { 1, 1 } })):totable()
    assert.equal(inf, y[1][1])
    assert.is_true(y[2][2] ~= y[2][2])
    assert.is_true(y[3][1] ~= y[3][1])
  end)
end)
