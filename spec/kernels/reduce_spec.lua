local unic = require "unic"
local ops = require "spec.support.ops"

local cases = {
  { x = { 3, 5 } }, { x = { 3, 5 }, dims = { 1 } }, { x = { 3, 5 }, dims = { -1 }, keepdim = true }, { x = { 2, 3, 4 }, dims = { 1, 3 } },
  { x = { 4, 7, 5, 3 }, dims = { 2 } }, { x = { 4, 7, 5, 3 }, dims = { 3, 4 } }, { x = { 7, 1100 }, dims = { 1 } }, { x = { 7, 1100 }, dims = { 2 } }, { x = {} },
}
-- What all of them share: how long reductions are cut.
ops.check("sum", {
  { x = { 2, 34000 }, dims = { 2 }, note = "few long rows: pieces" }, { x = { 12000, 3 }, dims = { 1 }, note = "few long columns: pieces" },
  { x = { 2, 17000 }, dims = { 1 }, note = "many columns" }, { x = { 40000 }, note = "all of a long one" },
})
-- logsumexp's gradient is exp(x - y) with y rounded to the storage type: an error of half an ulp of y (0.02 at y = 8 in bf16) is one of its own.
local coarse = { logsumexp = { bf16 = 4e-2, f16 = 6e-3 } }
for _, name in ipairs { "sum", "mean", "max", "min", "logsumexp", "norm" } do
  ops.check(name, cases, { tolerance = coarse[name] or { bf16 = 1e-2 }, errors = {
    { { x = { 2, 3 }, dims = { 3 } }, "argument 'dims': dimension 3 was given" }, { { x = { 2, 3 }, dims = { 0 } }, "count from 1" },
    { { x = { 2, 3 }, dims = { 1, -2 } }, "given twice" } } })
end
ops.check("var", { { x = { 3, 5 }, dims = { 2 } }, { x = { 6, 700 }, dims = { 1 }, unbiased = false }, { x = ops.normal({ 4, 900 }, 1, 30), dims = { 2 } } },
  { tolerance = { f32 = 1e-5, bf16 = 1e-2 } })
ops.check("std", { { x = { 3, 5 }, dims = { 2 } }, { x = { 6, 700 }, dims = { 1 }, unbiased = false }, { x = ops.normal({ 4, 900 }, 1, 30), dims = { 2 } },
  { x = { 4, 7, 5, 3 }, dims = { 2, 4 }, keepdim = true } }, { tolerance = { f32 = 1e-5, bf16 = 1e-2 } })
local norms = {}
for _, p in ipairs { 1, math.huge } do
  for _, case in ipairs(cases) do
    local own = { p = p }
    for key, value in pairs(case) do own[key] = value end
    norms[#norms + 1] = own
  end
  norms[#norms + 1] = { x = { 2, 34000 }, dims = { 2 }, p = p, note = "few long rows: pieces" }
  norms[#norms + 1] = { x = { 12000, 3 }, dims = { 1 }, p = p, note = "few long columns: pieces" }
end
ops.check("norm", norms, { tolerance = { bf16 = 1e-2 }, errors = {
  { { x = { 2, 3 }, p = 3 }, "argument 'p': 3 was given, expected 1, 2 or math.huge" }, { { x = { 0, 3 }, p = math.huge }, "nothing to reduce" } } })
ops.check("prod", { { x = { 3, 5 }, dims = { 2 } }, { x = ops.values { { 2, 0, 3 }, { 0, 0, 1 } }, dims = { 2 } } }, { tolerance = { bf16 = 1e-2 } })
ops.check("any", { { x = ops.bools({ 3, 5 }, 0.2), dims = { 2 } } }, { layouts = false, dtypes = { "f32" } })
ops.check("all", { { x = ops.bools({ 3, 5 }, 0.8), dims = { 2 } } }, { layouts = false, dtypes = { "f32" } })

describe("reductions", function()
  it("sum integers to i64 exactly", function()
    local x = unic.full({ 3 }, 255, { dtype = "u8" })
    assert.equal(765, x:sum():item())
    assert.equal("i64", x:sum().dtype)
    assert.equal(3, unic.tensor { true, true, true }:sum():item())
  end)
  it("are the CPU's for integers, along any dimensions", function()
    for _, dtype in ipairs { "i64", "i32", "u8", "bool" } do
      for _, dims in ipairs { { 1 }, { 2 }, { 3 }, { 1, 3 }, { 1, 2, 3 } } do
        local found = {}
        for _, device in ipairs { "cpu", unic.device() } do
          local x = unic.randint_(unic.empty({ 5, 60, 33 }, { dtype = dtype, device = device }), dtype == "u8" and 0 or -100, 100, { rng = unic.new_generator(5, device) })
          found[#found + 1] = {}
          for _, name in ipairs { "sum", "prod", "max", "min", "any", "all" } do table.insert(found[#found], (unic[name](x, dims))) end
        end
        for j, t in ipairs(found[1]) do assert.same_bits(t, found[2][j]:to("cpu")) end
      end
    end
  end)
  it("of nothing are 0 or refused", function()
    assert.equal(0, unic.zeros(0):sum():item())
    assert.raises_at(nil, "nothing to reduce", function() return unic.zeros(0):max() end)
  end)
  it("know NaN and ties", function()
    local y = unic.tensor { 1, 0 / 0, 3 }
    assert.is_true(y:max():item() ~= y:max():item())
    assert.equal(1, unic.argmax(y):item())
    assert.equal(0, unic.argmax(unic.tensor { 5, 5 }):item())
    local x = unic.tensor({ 2, 2, 1 }, { requires_grad = true })
    x:max():backward()
    assert.same({ 0.5, 0.5, 0 }, x.grad:totable())
  end)
  it("have the gradients of the edges", function()
    local function gradient(fn, values)
      local x = unic.tensor(values, { requires_grad = true })
      fn(x):backward()
      return x.grad:totable()
    end
    assert.same({ 1, -1, 0 }, gradient(function(x) return x:norm({ p = 1 }) end, { 2, -3, 0 }))
    assert.same({ 0, -0.5, 0.5 }, gradient(function(x) return x:norm({ p = math.huge }) end, { 2, -3, 3 }))
    assert.same({ 0, 0 }, gradient(function(x) return x:norm({ p = math.huge }) end, { 0, 0 }))
    assert.same({ 0, 0 }, gradient(function(x) return x:norm() end, { 0, 0 }))
    assert.same({ 0, 0, 0 }, gradient(function(x) return x:std() end, { 2, 2, 2 }))
    assert.same({ 0, 6, 0 }, gradient(function(x) return x:prod() end, { 2, 0, 3 }))
    assert.same({ 0, 0, 0 }, gradient(function(x) return x:prod() end, { 0, 0, 3 }))
    assert.same({ 0.5, 0, 0.5 }, gradient(function(x) return x:logsumexp() end, { 0.5, -math.huge, 0.5 }))
    assert.same({ 0, 0.5, 0.5 }, gradient(function(x) return x:min() end, { 3, 1, 1 }))
  end)
  it("of too few elements are NaN", function()
    for _, dtype in ipairs { "f32", "f64" } do
      local one, none = unic.ones(1, { dtype = dtype }), unic.ones(0, { dtype = dtype })
      for _, y in ipairs { one:var(), one:std(), none:var(), none:std(), none:var({ unbiased = false }), none:mean() } do
        local v = y:item()
        assert.is_true(v ~= v)
      end
      assert.equal(0, one:std({ unbiased = false }):item())
      assert.equal(0, none:norm({ p = 1 }):item())
      assert.equal(1, none:prod():item())
      assert.equal(-math.huge, none:logsumexp():item())
    end
  end)
  it("let a NaN through norms", function()
    for _, p in ipairs { 1, 2, math.huge } do
      for _, at in ipairs { 1, 9, 30 } do
        local x = unic.ones(33)
        x[at] = 0 / 0
        local v = x:norm({ p = p }):item()
        assert.is_true(v ~= v)
        v = unic.cat({ x:unsqueeze(1), x:unsqueeze(1) }, 1):norm({ 1 }, { p = p })[at]:item()
        assert.is_true(v ~= v)
      end
    end
  end)
  it("do not overflow in logsumexp", function()
    assert.is_true(math.abs(unic.tensor { 1000, 1000 }:logsumexp():item() - (1000 + math.log(2))) < 1e-3)
    assert.equal(-math.huge, unic.tensor { -math.huge, -math.huge }:logsumexp():item())
  end)
  it("keep the precision of long f32 sums", function()
    local x = unic.full({ 1000003 }, 0.1)
    assert.is_true(math.abs(x:sum():item() / (1000003 * 0.10000000149011612) - 1) < 1e-6)
  end)
end)
