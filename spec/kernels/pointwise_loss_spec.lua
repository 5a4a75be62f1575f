local unic = require "unic"
local ops = require "spec.support.ops"

local function targets(shape, low, high)
  local t = ops.uniform(shape, low or 0, high or 1)
  t.constant = true
  return t
end

local errors = {
  { { x = { 3, 4 }, target = { 4, 3 } }, "argument 'target'" },
  { { x = { 3, 4 }, target = { 4 } }, "expected the shape of 'x', [3, 4]" },
  { { x = { 3 }, target = { 3 }, reduction = "batchmeans" }, "argument 'reduction'" },
}
local function with(list, ...)
  local all = { unpack(list) }
  for _, e in ipairs { ... } do all[#all + 1] = e end
  return all
end

ops.check("mse", {
  { x = { 3, 5 }, target = { 3, 5 } }, { x = { 3, 5 }, target = { 3, 5 }, reduction = "sum" }, { x = { 3, 5 }, target = { 3, 5 }, reduction = "none" },
  { x = {}, target = {} }, { x = { 2, 3, 4, 5 }, target = { 2, 3, 4, 5 }, reduction = "none", note = "four dimensions" },
  { x = { 17, 1030 }, target = { 17, 1030 }, note = "several chunks" }, { x = { 17, 1030 }, target = ops.constant { 17, 1030 }, reduction = "none", note = "large" },
  { x = { 0, 3 }, target = { 0, 3 }, note = "empty" }, { x = { 0, 3 }, target = { 0, 3 }, reduction = "none", note = "empty" },
}, { errors = errors })
ops.check("smooth_l1", {
  { x = { 3, 5 }, target = { 3, 5 } }, { x = { 3, 5 }, target = { 3, 5 }, beta = 0.3, reduction = "sum" }, { x = { 3, 5 }, target = { 3, 5 }, beta = 0 },
  { x = { 3, 50 }, target = { 3, 50 }, beta = 2.5, reduction = "none" }, { x = { 17, 1030 }, target = { 17, 1030 }, note = "several chunks" },
  { x = { 0, 3 }, target = { 0, 3 }, note = "empty" },
}, { errors = with(errors, { { x = { 3 }, target = { 3 }, beta = -1 }, "argument 'beta'" }) })
local logs = function(shape) return ops.uniform(shape, -5, -0.1) end
ops.check("kl_div", {
  { x = logs { 3, 5 }, target = ops.uniform({ 3, 5 }, 0.1, 1) }, { x = logs { 3, 5 }, target = ops.uniform({ 3, 5 }, 0.1, 1), reduction = "batchmean" },
  { x = logs { 3, 5 }, target = logs { 3, 5 }, log_target = true, reduction = "sum" },
  { x = logs { 3, 5 }, target = logs { 3, 5 }, log_target = true, reduction = "none" },
  { x = logs { 17, 1030 }, target = ops.uniform({ 17, 1030 }, 0.01, 1), reduction = "batchmean", note = "several chunks" },
  { x = logs { 2, 3, 4, 5 }, target = ops.uniform({ 2, 3, 4, 5 }, 0.1, 1), reduction = "batchmean", note = "four dimensions" },
  { x = { 0, 3 }, target = { 0, 3 }, reduction = "batchmean", note = "empty" },
}, { errors = with(errors, { { x = {}, target = {}, reduction = "batchmean" }, "there is no batch" }) })
ops.check("focal", {
  { x = { 3, 5 }, target = targets { 3, 5 } }, { x = { 3, 5 }, target = targets { 3, 5 }, gamma = 0, alpha = -1 },
  { x = { 3, 5 }, target = targets { 3, 5 }, gamma = 0.5, alpha = 0.7, reduction = "sum" }, { x = { 3, 5 }, target = targets { 3, 5 }, gamma = 1, reduction = "none" },
  { x = { 3, 5 }, target = targets { 3, 5 }, gamma = 3.5, alpha = -1 },
  { x = ops.uniform({ 17, 1030 }, -9, 9), target = targets { 17, 1030 }, note = "several chunks" },
  { x = ops.uniform({ 17, 130 }, -9, 9), target = targets { 17, 130 }, gamma = 1.5, reduction = "none", note = "large" },
  { x = { 0, 3 }, target = targets { 0, 3 }, note = "empty" },
}, { errors = with(errors, { { x = { 3 }, target = { 3 }, gamma = -1 }, "argument 'gamma'" }, { { x = { 3 }, target = { 3 }, alpha = 2 }, "argument 'alpha'" }) })

describe("losses of one element each", function()
  local function near(want, got, limit) assert.is_true(math.abs(want - got) <= (limit or 1e-6), ("%.9g, expected %.9g"):format(got, want)) end

  it("give values worked out by hand", function()
    local x, t = unic.tensor { 1, -2, 0.5 }, unic.tensor { 0, 0, 0.25 }
    near((1 + 4 + 0.0625) / 3, unic.mse(x, t):item())
    near(0.5 + 1.5 + 0.03125, unic.smooth_l1(x, t, { reduction = "sum" }):item())
    near(3.25, unic.smooth_l1(x, t, { reduction = "sum", beta = 0 }):item())
    local p = unic.tensor { { 0.25, 0.75 }, { 1, 0 } }
    local q = unic.log(unic.tensor { { 0.5, 0.5 }, { 0.25, 0.75 } })
    local want = 0.25 * math.log(0.5) + 0.75 * math.log(1.5) + math.log(4)
    near(want / 2, unic.kl_div(q, p, { reduction = "batchmean" }):item())
    for _, op in ipairs { unic.mse, unic.smooth_l1, unic.kl_div, unic.focal } do
      for _, dtype in ipairs { "f32", "bf16", "f64" } do assert.equal(0, op(unic.zeros({ 0, 3 }, { dtype = dtype }), unic.zeros({ 0, 3 }, { dtype = dtype })):item()) end
    end
    -- What is certain and right has neither loss nor gradient; certain and wrong counts in full.
    for _, dtype in ipairs { "f32", "bf16", "f64" } do
      for _, gamma in ipairs { 0, 0.5, 1, 2 } do
        local sure = unic.tensor({ 800, -800, -800, 800 }, { dtype = dtype, requires_grad = true })
        local each = unic.focal(sure, unic.tensor({ 1, 0, 1, 0 }, { dtype = dtype }), { alpha = -1, gamma = gamma, reduction = "none" })
        assert.same({ 0, 0, 800, 800 }, each:totable())
        each:sum():backward()
        assert.same({ 0, 0, -1, 1 }, sure.grad:totable())
      end
    end
    -- By the first dimension, whatever the others are.
    local x3, shares = unic.full({ 2, 3, 5 }, -1), unic.full({ 2, 3, 5 }, 0.25)
    near(unic.kl_div(x3, shares, { reduction = "sum" }):item() / 2, unic.kl_div(x3, shares, { reduction = "batchmean" }):item())
    near(want / 4, unic.kl_div(q, p):item())
    near(want, unic.kl_div(q, unic.log(p), { log_target = true, reduction = "sum" }):item())
    -- sigmoid = 3/4
    local l = unic.tensor { math.log(3) }
    near(0.25 * (1 / 16) * math.log(4 / 3), unic.focal(l, unic.tensor { 1 }):item())
    near(0.75 * (9 / 16) * math.log(4), unic.focal(l, unic.tensor { 0 }):item())
    near(unic.bce_with_logits(x, t):item(), unic.focal(x, t, { gamma = 0, alpha = -1 }):item())
  end)

  it("have finite gradients at the edges", function()
    local x = unic.tensor({ 100, -100, 100, -100, 0 }, { requires_grad = true })
    unic.focal(x, unic.tensor { 1, 1, 0, 0, 1 }, { gamma = 0.5, alpha = -1, reduction = "sum" }):backward()
    local g = x.grad:totable()
    near(0, g[1]); near(-1, g[2]); near(1, g[3]); near(0, g[4])
    local d = unic.tensor({ 1, 2, 0 }, { requires_grad = true })
    unic.smooth_l1(d, unic.tensor { 1, 1, 1 }, { beta = 0, reduction = "sum" }):backward()
    assert.same({ 0, 1, -1 }, d.grad:totable())
    local logp, target = unic.tensor({ -1, -math.huge }, { requires_grad = true }), unic.tensor({ 1, 0 }, { requires_grad = true })
    local loss = unic.kl_div(logp, target, { reduction = "sum" })
    near(1, loss:item())
    loss:backward()
    assert.same({ -1, 0 }, logp.grad:totable())
    assert.same({ 2, 0 }, target.grad:totable())
  end)

  it("let NaN through", function()
    local x, t = unic.tensor { 0 / 0 }, unic.tensor { 0.5 }
    for _, name in ipairs { "mse", "smooth_l1", "kl_div", "focal" } do
      local y = unic[name](x, t):item()
      assert.is_true(y ~= y, name)
    end
  end)

  it("keep the layout of channels-last inputs", function()
    local x, t = unic.channels_last(unic.randn(2, 8, 3, 3)), unic.randn(2, 8, 3, 3)
    local y = unic.mse(x, t, { reduction = "none" })
    assert.is_true(y:is_channels_last())
    assert.same_bits(unic.contiguous(y), unic.mse(unic.contiguous(x), t, { reduction = "none" }))
  end)
end)
