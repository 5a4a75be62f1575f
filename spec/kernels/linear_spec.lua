local unic = require "unic"
local ops = require "spec.support.ops"

describe("linear", function()
  ops.check("linear", {
    { x = { 5, 3 }, weight = { 4, 3 }, bias = { 4 } },
    { x = { 2, 3, 3 }, weight = { 4, 3 }, bias = { 4 }, activation = "gelu" },
    { x = { 5, 3 }, weight = { 4, 3 }, bias = { 4 }, activation = "relu" },
    { x = { 3, 4 }, weight = { 2, 4 }, activation = "gelu", note = "no bias" },
    { x = { 6 }, weight = { 4, 6 }, bias = { 4 }, activation = "relu", note = "a single row without its dimension" },
    { x = { 33, 17 }, weight = { 1100, 17 }, bias = { 1100 }, activation = "gelu", note = "crosses a row buffer, a chunk of sums and a thread split" },
    { x = { 3, 41, 33 }, weight = { 70, 33 }, bias = { 70 }, note = "large, no activation" },
    { x = { 301, 65 }, weight = { 33, 65 }, bias = { 33 }, activation = "relu", note = "large, relu" },
    { x = { 0, 3 }, weight = { 4, 3 }, bias = { 4 }, note = "no rows" },
    { x = { 2, 0 }, weight = { 4, 0 }, bias = { 4 }, note = "nothing to sum" },
  }, {
    errors = {
      { { x = { 4, 3 }, weight = { 5, 2 } }, "argument 'weight'" },
      { { x = { 4, 3 }, weight = { 5, 3 }, bias = { 4 } }, "argument 'bias'" },
      { { x = { 4, 3 }, weight = { 5, 3 }, activation = "swish" }, "argument 'activation'" },
    },
  })

  local x = unic.tensor({ { 1, 2, 3 }, { -1, 0, 1 } })
  local weight = unic.tensor({ { 1, 0, -1 }, { 2, 1, 0 } })
  local bias = unic.tensor({ 0.5, -1 })

  it("computes x weight' + bias", function()
    assert.same({ { -1.5, 3 }, { -1.5, -3 } }, unic.linear(x, weight, bias):totable())
    assert.same({ { -2, 4 }, { -2, -2 } }, unic.linear(x, weight):totable())
    assert.same({ { 0, 3 }, { 0, 0 } }, unic.linear(x, weight, bias, "relu"):totable())
  end)

  it("has the exact GELU, not its tanh approximation", function()
    -- x cdf(x) from tables of the normal distribution; the approximation differs from the fourth digit on
    local one = unic.tensor({ { 1 } }, { dtype = "f64" })
    local function gelu(v) return unic.linear(unic.tensor({ { v } }, { dtype = "f64" }), one, nil, "gelu"):item() end
    assert.is_true(math.abs(gelu(1) - 0.841344746068543) < 1e-12)
    assert.is_true(math.abs(gelu(-2) + 0.0455002638963584) < 1e-12)
    assert.is_true(math.abs(gelu(0.5) - 0.345731230637007) < 1e-12)
    local low = unic.linear(unic.tensor({ { 1 }, { -2 }, { 0.5 } }), unic.tensor({ { 1 } }), nil, "gelu"):totable()
    assert.is_true(math.abs(low[1][1] - 0.841344746) < 2e-7)
    assert.is_true(math.abs(low[2][1] + 0.045500264) < 2e-8)
    assert.is_true(math.abs(low[3][1] - 0.345731231) < 1e-7)
  end)

  it("gives the gradients worked out by hand", function()
    local xs, w, b = x:detach(), weight:detach(), bias:detach()
    xs.requires_grad, w.requires_grad, b.requires_grad = true, true, true
    unic.linear(xs, w, b, "relu"):backward { gradient = unic.tensor({ { 1, 10 }, { 100, 1000 } }) }
    -- only the element [1, 2] of z is above zero
    assert.same({ { 20, 10, 0 }, { 0, 0, 0 } }, xs.grad:totable())
    assert.same({ { 0, 0, 0 }, { 10, 20, 30 } }, w.grad:totable())
    assert.same({ 0, 10 }, b.grad:totable())
  end)

  it("serves bf16 and f16 by turns with one f32 weight, and sees the weight change", function()
    local w, b = unic.randn { 6, 8 }, unic.randn { 6 }
    local xs = unic.randn { 5, 8 }
    for round = 1, 2 do
      for _, dtype in ipairs { "bf16", "f16", "bf16" } do
        local half = xs:to(dtype)
        -- a weight that nobody has seen before has no kept form
        assert.same_bits(unic.linear(half, w:clone(), b:clone()), unic.linear(half, w, b))
      end
      if round == 1 then w:add_(1) end
    end
  end)

  it("lets NaN and infinities through", function()
    local inf = math.huge
    local y = unic.linear(unic.tensor({ { 0 / 0 }, { inf }, { 1e30 }, { -1e30 } }), unic.tensor({ { 1 } }), nil, "relu"):totable()
    assert.is_true(y[1][1] ~= y[1][1])
    assert.equal(inf, y[2][1])
    assert.is_true(y[3][1] > 9e29)
    assert.equal(0, y[4][1])
    local g = unic.linear(unic.tensor({ { 0 / 0 }, { inf }, { 1e30 }, { -1e30 } }), unic.tensor({ { 1 } }), nil, "gelu"):totable()
    assert.is_true(g[1][1] ~= g[1][1])
    assert.equal(inf, g[2][1])
    assert.is_true(g[3][1] > 9e29)
    assert.equal(0, g[4][1])
  end)

  it("has a GELU slope of 0 and 1 far from zero, and no NaN there", function()
    local z = unic.tensor({ { -1e4 }, { 1e4 }, { -40 }, { 40 } })
    z.requires_grad = true
    unic.linear(z, unic.tensor({ { 1 } }), nil, "gelu"):backward { gradient = unic.tensor({ { 1 }, { 1 }, { 1 }, { 1 } }) }
    assert.same({ { 0 }, { 1 }, { 0 }, { 1 } }, z.grad:totable())
  end)

  it("works through a batch of gradients in pieces of 64 MB", function()
    -- 18 M gradients of z, all of them 1: every sum is known
    local rows, width = 1100, 16384
    local xs, w, b = unic.ones({ rows, 1 }), unic.ones({ width, 1 }), unic.zeros({ width })
    xs.requires_grad, w.requires_grad, b.requires_grad = true, true, true
    unic.linear(xs, w, b, "relu"):backward { gradient = unic.ones({ rows, width }) }
    for _, v in ipairs(unic.reshape(xs.grad, { -1 }):totable()) do assert.equal(width, v) end
    for _, t in ipairs { w.grad, b.grad } do
      for _, v in ipairs(unic.reshape(t, { -1 }):totable()) do assert.equal(rows, v) end
    end
  end)

  it("gives parameters f32 gradients under bf16", function()
    local w = unic.cast(weight, "bf16"):detach()
    w.requires_grad = true
    local b = bias:detach()
    b.requires_grad = true
    unic.linear(unic.cast(x, "bf16"), w, b):backward { gradient = unic.cast(unic.tensor({ { 1, 1 }, { 1, 1 } }), "bf16") }
    assert.same({ 2, 2 }, b.grad:totable())
    assert.equal("f32", b.grad.dtype)
  end)

  -- What a cast of the weight before the product would give, bit for bit: over the edges of blocks of 32 and 64, of one row and many, with what comes after it.
  describe("with an f32 weight beside a half type", function()
    local function bits(t) return unic.reshape(t:to "f32", { -1 }):totable() end
    local function forms(dtype, input, w, b, activation, weight_of)
      local own = input:detach()
      own.requires_grad, w.requires_grad, w.grad = true, true, nil
      local made = {}
      made.y = unic.linear(own, weight_of(w), b, activation)
      made.y:backward { gradient = unic.cast(made.y:detach(), dtype) }
      made.dx, made.dw = own.grad, w.grad
      made.plain = unic.no_grad(function() return unic.linear(input, weight_of(w), b, activation) end)
      return made
    end

    it("rounds it as a cast does", function()
      for _, dtype in ipairs { "bf16", "f16" } do
        for _, s in ipairs { { { 5 }, 3, 4 }, { { 33 }, 17, 70 }, { { 2, 3 }, 64, 64 }, { {}, 40, 100 }, { { 520 }, 31, 16 }, { { 3, 200 }, 95, 130 }, { { 0 }, 3, 4 } } do
          for _, activation in ipairs { "none", "gelu" } do
            unic.manual_seed(3)
            local rows, i, o = s[1], s[2], s[3]
            local shape = { unpack(rows) }
            shape[#shape + 1] = i
            local own_x, w, b = unic.randn(shape):to(dtype), unic.randn(o, i), o ~= 16 and unic.randn(o) or nil
            local wide = forms(dtype, own_x, w, b, activation, function(t) return t end)
            local cast = forms(dtype, own_x, w, b, activation, function(t) return t:to(dtype) end)
            assert.equal(dtype, wide.y.dtype)
            assert.equal(dtype, wide.dx.dtype)
            assert.equal("f32", wide.dw.dtype)
            wide.dw = wide.dw:to(dtype)   -- as it comes through the cast
            for name, t in pairs(wide) do assert.same(bits(cast[name]), bits(t), name .. " " .. table.concat(shape, ",")) end
          end
        end
      end
    end)

    it("adds to the gradient that is there", function()
      local xs, w = unic.cast(x, "bf16"), weight:detach()
      w.requires_grad = true
      for _ = 1, 2 do unic.linear(xs, w):backward { gradient = unic.ones(2, 2):to "bf16" } end
      assert.same({ { 0, 4, 8 }, { 0, 4, 8 } }, w.grad:totable())
    end)

    it("keeps the rounded form without a tape until the weight changes", function()
      local core = require "unic.core"
      unic.manual_seed(5)
      local w, xs = unic.randn(96, 64), unic.randn(7, 64):to "bf16"
      core.drop_derived()
      collectgarbage()
      collectgarbage()
      local before = unic.memory().active
      local first = unic.linear(xs, w)
      local kept = unic.memory().active - before
      assert.is_true(kept >= 96 * 64 * 2, kept)
      assert.same(bits(unic.linear(xs, w:to "bf16")), bits(first))
      w:mul_(2)
      assert.same(bits(unic.linear(xs, w:to "bf16")), bits(unic.linear(xs, w)))
      assert.same(bits(first:to "f32" * 2), bits(unic.linear(xs, w)))
      -- The same memory as another matrix has a form of its own.
      local other, seven = w:reshape { 64, 96 }, unic.randn(7, 96):to "bf16"
      assert.same(bits(unic.linear(seven, other:to "bf16")), bits(unic.linear(seven, other)))
      core.drop_derived()
    end)

    it("holds no copy of it from the forward to the backward", function()
      -- A GPU keeps the rounded form of a version: rounding it again costs bandwidth that it has not, the copy memory that it has.
      if unic.device() ~= "cpu" then return end
      local width, rows = 512, 64
      local function held(weight_of)
        local w, xs = unic.randn(width, width), unic.randn(rows, width):to "bf16"
        w.requires_grad = true
        collectgarbage()
        collectgarbage()
        local before = unic.memory().active
        local y = unic.linear(xs, weight_of(w))
        local bytes = unic.memory().active - before
        y:backward { gradient = y:detach() }
        return bytes
      end
      local result = rows * width * 2
      assert.is_true(held(function(w) return w end) < result + 16384)
      assert.is_true(held(function(w) return w:to "bf16" end) >= result + width * width * 2)
      assert.is_true(unic.autocast("bf16", function() return held(function(w) return w end) end) < result + 16384)
    end)

    it("refuses other pairs of types", function()
      assert.has_error(function() unic.linear(x, weight:to "bf16") end)
      assert.has_error(function() unic.linear(x:to "bf16", weight:to "f16") end)
      assert.has_error(function() unic.linear(x:to "f64", weight) end)
    end)
  end)
end)
