-- Ops in place: what they write, what they refuse, and what the tape, views, shared memory, checkpoints and recordings make of it.
local unic = require "unic"
local ops = require "spec.support.ops"

local BINARY = { "add", "sub", "mul", "div", "pow", "remainder", "maximum", "minimum" }
local UNARY = { "neg", "abs", "exp", "log", "log1p", "sqrt", "rsqrt", "reciprocal", "square", "sin", "cos", "tanh", "sigmoid", "relu", "gelu", "silu", "softplus",
  "erf", "sign", "floor", "ceil", "round" }

local function leaf(values) return unic.tensor(values, { dtype = "f64", requires_grad = true }) end

describe("in place", function()
  ops.check("add_", {
    { a = { 3, 5 }, b = { 3, 5 } },
    { a = { 4, 3, 5 }, b = { 3, 1 }, alpha = -0.5, note = "broadcast, alpha" },
    { a = { 67, 130 }, b = { 130 }, alpha = 2, note = "several chunks" },
    { a = { 3, 4 }, b = 0.25, alpha = 3, note = "a number" },
    { a = { 0, 3 }, b = { 3 }, note = "no elements" },
    { a = {}, b = {}, note = "scalars" },
  }, {
    errors = {
      { { a = { 3 }, b = { 2, 3 } }, "argument 'b': [2, 3] does not broadcast to a's shape [3], which stays as it is" },
      { { a = { 1, 3 }, b = { 2, 3 } }, "argument 'b'" },
      { { a = ops.ints({ 3 }, 0, 9), b = 1, alpha = 0.5 }, "argument 'alpha': 0.5 was given, expected a whole number beside i64" },
      { { a = ops.ints({ 3 }, 0, 9), b = 0.5 }, "argument 'b': 0.5 was given beside i64, expected a whole number" },
      { { a = { 3 }, b = ops.ints({ 3 }, 0, 9) }, "argument 'b'" },
    },
  })
  ops.check("div_", { { a = { 3, 5 }, b = ops.uniform and ops.uniform({ 5 }, 1, 2) or 1.5 } }, { errors = { { { a = ops.ints({ 3 }, 1, 9), b = 2 }, "argument 'a'" } } })
  ops.check("tanh_", { { x = { 3, 5 } }, { x = { 67, 130 }, note = "several chunks" }, { x = { 2, 0 }, note = "no elements" } })
  ops.check("clamp_", { { x = { 3, 5 }, min = -0.5, max = 0.25 }, { x = { 67, 130 }, min = 0, note = "several chunks, no maximum" } }, {
    errors = { { { x = { 3 } }, "neither min nor max" }, { { x = { 3 }, min = 2, max = 1 }, "argument 'min'" } } })
  ops.check("masked_fill_", {
    { x = { 3, 5 }, mask = ops.bools({ 3, 5 }, 0.5), value = 7 },
    { x = { 4, 67, 130 }, mask = ops.bools({ 67, 1 }, 0.5), value = -1, note = "several chunks, mask broadcast" },
  }, { errors = { { { x = { 3 }, mask = ops.bools({ 2, 3 }, 0.5), value = 1 }, "argument 'mask'" } } })

  it("every row has a form in place with the bits of the other, in every dtype and through strides", function()
    for _, dtype in ipairs { "f32", "bf16", "f16", "f64" } do
      local function fresh(seed)
        return unic.uniform_(unic.empty({ 6, 10 }, { dtype = dtype }), 0.5, 1.5, { rng = unic.new_generator(seed) })
      end
      for _, view in ipairs { function(t) return t end, function(t) return t:transpose(1, 2) end, function(t) return t:narrow(2, 2, 4, 2) end } do
        for _, name in ipairs(UNARY) do
          local x = view(fresh(1))
          local expected = unic[name](x)
          assert.is_true(rawequal(x[name .. "_"](x), x), name)
          assert.same_bits(expected:contiguous(), x:contiguous())
        end
        for _, name in ipairs(BINARY) do
          local a, b = view(fresh(1)), view(fresh(2))
          local expected = unic[name](a, b)
          assert.is_true(rawequal(a[name .. "_"](a, b), a), name)
          assert.same_bits(expected:contiguous(), a:contiguous())
          expected = unic[name](a, 1.25)
          assert.same_bits(expected:contiguous(), a[name .. "_"](a, 1.25):contiguous())
          expected = unic[name](b, b)
          assert.same_bits(expected:contiguous(), b[name .. "_"](b, b):contiguous())
        end
      end
    end
  end)

  it("works on integers", function()
    for _, dtype in ipairs { "i64", "i32", "u8" } do
      local x = unic.tensor({ 5, 9 }, { dtype = dtype })
      x:add_(unic.tensor({ 1, 2 }, { dtype = dtype }), { alpha = 3 }):mul_(2):sub_(1):remainder_(10):maximum_(6)
      assert.equal(dtype, x.dtype)
      assert.same({ 6, 9 }, x:cast("f64"):totable())
    end
    assert.same({ 0, 7 }, unic.tensor({ 5, 7 }, { dtype = "i64" }):masked_fill_(unic.tensor({ true, false }, { dtype = "bool" }), 0):totable())
    assert.raises_at(nil, "%[div_%] argument 'a': i64 %[1%] on cpu was given", function() unic.tensor({ 4 }, { dtype = "i64" }):div_(2) end)
  end)

  it("adds products and quotients, and goes a part of the way", function()
    local x = unic.tensor { 1, 2 }
    x:addcmul_(unic.tensor { 3, 4 }, unic.tensor { 2, 2 }, { value = 0.5 })
    assert.same({ 4, 6 }, x:totable())
    x:addcdiv_(unic.tensor { 3, 4 }, unic.tensor { 2, 2 })
    assert.same({ 5.5, 8 }, x:totable())
    assert.is_true(rawequal(x:lerp_(unic.tensor { 1.5, 0 }, 0.25), x))
    assert.same({ 4.5, 6 }, x:totable())
    assert.raises_at(nil, "%[addcmul_%] there is no option 'valu'", function() x:addcmul_(x, x, { valu = 2 }) end)
    assert.raises_at(nil, "%[lerp_%] argument 'to': shape %[3%], expected that of x, %[2%]", function() x:lerp_(unic.ones(3), 0.5) end)
    assert.raises_at(nil, "%[lerp_%] argument 'to': the number 3, expected a tensor", function() x:lerp_(3, 0.5) end)
  end)

  it("writes through views and leaves what lies between alone", function()
    local x = unic.zeros(4, 5)
    x:narrow(1, 2, 2):narrow(2, 1, 3, 2):add_(unic.tensor { 1, 2, 3 })
    x:select(1, 4):sub_(1)
    x[{ 1, { 2, 3 } }]:add_(7):mul_(2)
    x:transpose(1, 2):select(1, 5):clamp_(2, 4)
    assert.same({ { 0, 14, 14, 0, 2 }, { 1, 0, 2, 0, 3 }, { 1, 0, 2, 0, 3 }, { -1, -1, -1, -1, 2 } }, x:totable())
  end)

  it("reads what it overwrites as it was before", function()
    local function ramp(n) return unic.arange(n):cast "f32" end
    for _, n in ipairs { 5, 3000, 100000 } do
      local x = ramp(n)
      x:narrow(1, 2, n - 1):add_(x:narrow(1, 1, n - 1))   -- 0 1 3 5 7 ..; never a running sum
      local all = ramp(n) * 2 - 1
      all[1] = 0
      assert.same_bits(all, x)
      x = ramp(n)
      x:narrow(1, 2, n - 1):copy_(x:narrow(1, 1, n - 1))
      all = (ramp(n) - 1):clamp { min = 0 }
      assert.same_bits(all, x)
      x = ramp(n)
      x[{ { 1, n - 1 } }] = x[{ { 2, n } }]
      all = (ramp(n) + 1):clamp { max = n - 1 }
      assert.same_bits(all, x)
    end
    local m = unic.tensor { { 1, 2 }, { 3, 4 } }
    assert.same({ { 2, 5 }, { 5, 8 } }, (m:add_(m:t())):totable())
    m = unic.tensor { { 1, 2 }, { 3, 4 } }
    assert.same({ { 1, 4 }, { 3, 8 } }, m:mul_(m[1]):totable())
    m = unic.ones(3, 3)
    m:sub_(m:sum())
    assert.equal(-8 * 9, m:sum():item())
  end)

  it("refuses expanded tensors, whose elements share their place", function()
    local x = unic.zeros(3, 1):expand { 3, 4 }
    for name, call in pairs {
      add_ = function() x:add_(1) end, exp_ = function() x:exp_() end, clamp_ = function() x:clamp_(0, 1) end, fill_ = function() x:fill_(1) end,
      copy_ = function() x:copy_(unic.ones(3, 4)) end, normal_ = function() x:normal_() end,
      masked_fill_ = function() x:masked_fill_(unic.ones({ 3, 4 }, { dtype = "bool" }), 1) end,
      lerp_ = function() x:lerp_(unic.ones(3, 4), 0.5) end,
    } do
      assert.raises_at(nil, "%[" .. name .. "%] argument '%w+': f32 %[3, 4%] on cpu is expanded, several of its elements lie in one place; t:clone%(%)", call)
    end
    assert.equal(0, x:sum():item())
    assert.equal(12, x:clone():add_(1):sum():item())
    assert.same({ { 5 } }, unic.zeros(1, 1):expand { 1, 1 }:add_(5):totable())   -- nothing is shared here
    assert.same({ 2, 3 }, unic.zeros(2):add_(unic.tensor({ 2, 3 }):expand { 2 }):totable())
  end)

  it("refuses what needs a gradient, and what would lose one", function()
    local x, plain = leaf { 1, 2 }, unic.zeros({ 2 }, { dtype = "f64" })
    for _, call in ipairs {
      function() x:add_(1) end, function() x:relu_() end, function() (x * 2):mul_(2) end, function() x:narrow(1, 1, 1):clamp_(0, 1) end,
      function() x:masked_fill_(unic.ones({ 2 }, { dtype = "bool" }), 1) end, function() x:zero_() end,
    } do assert.raises_at(nil, "needs a gradient and would be overwritten; unic.no_grad%(fn%) allows it", call) end
    for _, call in ipairs {
      function() plain:add_(x) end, function() plain:mul_(x * 2) end, function() plain:copy_(x) end, function() plain[1] = x[1] end, function() plain:addcmul_(x, x) end,
      function() plain:lerp_(x, 0.5) end,
    } do assert.raises_at(nil, "it needs a gradient, which what is written in place would lose; t:detach%(%) or unic.no_grad%(fn%)", call) end
    assert.same({ 0, 0 }, plain:totable())
    unic.no_grad(function()
      x:mul_(3):add_(unic.tensor({ 1, 1 }, { dtype = "f64" }), { alpha = -0.5 })
      plain:add_(x)
    end)
    assert.same({ 2.5, 5.5 }, x:totable())
    assert.same({ 2.5, 5.5 }, plain:totable())
    assert.is_true(x.requires_grad and x.is_leaf)
    plain:add_(x:detach())
    assert.same({ 5, 11 }, plain:totable())
  end)

  it("is noticed by the backward of what had saved the value", function()
    local changes = {
      function(w) w:add_(1) end, function(w) w:exp_() end, function(w) w:clamp_(0, 1) end, function(w) w:narrow(1, 1, 1):mul_(2) end, function(w) w:detach():neg_() end,
      function(w) w[1] = 4 end, function(w) w:lerp_(w * 2, 0.5) end, function(w) w:reshape({ 2, 1 }):sub_(1) end,
    }
    for i, change in ipairs(changes) do
      local x, w = leaf { 1, 2 }, unic.tensor({ 3, 4 }, { dtype = "f64" })
      local y = (x * w):sum()
      change(w)
      assert.raises_at(nil, "%[mul%] argument 'b': its value was saved for backward at .* and changed in place at .*inplace_spec.lua", function() y:backward() end)
      x.grad = nil
      -- what was changed before it was used, and what nobody saved, is all right
      (x * w):sum():backward()
      assert.same(w:totable(), x.grad:totable(), i)
      x.grad = nil
      y = (x + w):sum()
      change(w)
      y:backward()
      assert.same({ 1, 1 }, x.grad:totable(), i)
    end
    -- A leaf that an optimizer's step has changed between forward and backward.
    local x = leaf { 1, 2 }
    local y = (x * x):sum()
    unic.no_grad(function() x:sub_(0.1) end)
    assert.raises_at(nil, "changed in place", function() y:backward() end)
  end)

  it("keeps the type of what is written, also under autocast", function()
    for _, low in ipairs { "bf16", "f16" } do
      unic.autocast(low, function()
        local a, b = unic.zeros(3, { dtype = low }), unic.tensor { 1, 2, 3 }
        assert.same({ 1, 2, 3 }, a:add_(b):cast("f32"):totable())
        assert.equal(low, a.dtype)
        assert.same({ 2, 4, 6 }, b:add_(a):totable())
        assert.equal("f32", b.dtype)
      end)
    end
    assert.raises_at(nil, "%[add_%] argument 'b': it is f32 and the tensor before it is bf16", function() unic.zeros(3, { dtype = "bf16" }):add_(unic.ones(3)) end)
  end)

  it("is done again at each replay of a recorded step", function()
    local x, w = unic.ones(3), unic.tensor { 1, 2, 3 }
    local step = unic.record(function() x:mul_(2):add_(w) end)
    assert.same({ 3, 4, 5 }, x:totable())
    step:replay()
    assert.same({ 7, 10, 13 }, x:totable())
    w:fill_(0)
    step:replay()
    assert.same({ 14, 20, 26 }, x:totable())
  end)

  it("inside a checkpointed piece changes what lies outside once, and what was made inside both times", function()
    local x, counter, last = leaf { 1, 2 }, unic.zeros(1), unic.zeros({ 2 }, { dtype = "f64" })
    local function piece(a)
      counter:add_(1)
      last:fill_(0)
      last:copy_((a * 1):detach())
      local gate = unic.zeros({ 2 }, { dtype = "f64" }):add_(3):mul_(2)
      return (a * gate):sigmoid():sum()
    end
    local y = unic.checkpoint(piece, x)
    last:fill_(9)
    y:backward()
    assert.equal(1, counter:item())
    assert.same({ 9, 9 }, last:totable())
    local again = leaf { 1, 2 }
    piece(again):backward()
    assert.same_bits(again.grad, x.grad)
  end)
end)

describe("numbers beside integers", function()
  it("must be whole, since an integer's result could not hold them", function()
    local n = unic.tensor({ 3, 4 }, { dtype = "i64" })
    for name, call in pairs { mul = function() return n * 0.5 end, add = function() return 0.5 + n end, maximum = function() return unic.maximum(n, 3.5) end } do
      assert.raises_at(nil, "%[" .. name .. "%] argument '[ab]': %d%.5 was given beside i64, expected a whole number; t:cast%(\"f32\"%)", call)
    end
    assert.same({ 6, 8 }, (n * 2):totable())
  end)
end)
