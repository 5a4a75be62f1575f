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
  it("do not overflow in logsumexp", function()
    assert.is_true(math.abs(unic.tensor { 1000, 1000 }:logsumexp():item() - (1000 + math.log(2))) < 1e-3)
    assert.equal(-math.huge, unic.tensor { -math.huge, -math.huge }:logsumexp():item())
  end)
  it("keep the precision of long f32 sums", function()
    local x = unic.full({ 1000003 }, 0.1)
    assert.is_true(math.abs(x:sum():item() / (1000003 * 0.10000000149011612) - 1) < 1e-6)
  end)
end)
