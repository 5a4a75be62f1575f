local unic = require "unic"
local ops = require "spec.support.ops"

local away = function(shape) return ops.uniform(shape, 0.5, 2) end
local shapes = {
  { { 3, 5 }, { 3, 5 } }, { { 3, 5 }, { 5 } }, { { 3, 1 }, { 1, 4 } }, { {}, { 2, 3 } }, { { 2, 3, 4, 5 }, { 3, 1, 1 } }, { { 2, 40, 301 }, { 2, 40, 301 } },
  { { 70, 33 }, { 33 } }, { { 33 }, { 70, 33 } }, { { 2, 1, 600 }, { 2, 40, 1 } }, { { 0, 3 }, { 3 } },
  { { 2300, 33 }, { 33 } },   -- sums in several pieces
}
for _, name in ipairs { "add", "sub", "mul", "div", "pow" } do
  local list = {}
  for i, s in ipairs(shapes) do
    local positive = name == "div" or name == "pow"
    list[i] = { a = positive and away(s[1]) or s[1], b = positive and away(s[2]) or s[2] }
  end
  list[#list + 1] = { a = away { 4, 3 }, b = 1.5, note = "a number on the right" }
  list[#list + 1] = { a = 1.5, b = away { 4, 3 }, note = "a number on the left" }
  ops.check(name, list, { errors = { { { a = { 2, 3 }, b = { 2, 4 } }, "do not broadcast" } } })
end
for _, name in ipairs { "maximum", "minimum" } do
  ops.check(name, { { a = { 3, 5 }, b = { 5 } }, { a = { 4, 333 }, b = { 4, 333 } }, { a = { 4, 3 }, b = 0.5 } })
end
-- Away from whole quotients, where the remainder jumps (a rounded operand would land on the other side).
ops.check("remainder", {
  { a = ops.uniform({ 4, 5 }, 2.2, 2.8), b = ops.uniform({ 5 }, 0.9, 1.05) }, { a = ops.uniform({ 4, 333 }, -2.8, -2.2), b = ops.uniform({ 4, 333 }, 0.9, 1.05) },
  { a = ops.uniform({ 4, 3 }, 2.2, 2.8), b = -1 }, { a = 2.5, b = ops.uniform({ 4, 3 }, 0.9, 1.1) }, { a = { 0, 3 }, b = { 3 } },
})
for _, name in ipairs { "eq", "ne", "lt", "le", "gt", "ge", "logical_and", "logical_or" } do
  ops.check(name, { { a = { 3, 5 }, b = { 5 } }, { a = { 4, 333 }, b = 0.1 }, { a = ops.ints({ 4, 5 }, 0, 3), b = ops.ints({ 5 }, 0, 3) } }, { layouts = false })
end
ops.check("clamp", { { x = { 3, 5 }, min = -0.7, max = 0.6 }, { x = { 2, 901 }, max = 0.5 } },
  { errors = { { { x = { 2 } }, "neither min nor max" }, { { x = { 2 }, min = 2, max = 1 }, "argument 'min'" } } })

describe("binary operations", function()
  it("count in 64 bits", function()
    local big = unic.tensor({ 2 ^ 53 }, { dtype = "i64" })
    assert.equal(1, ((big + 1) - big):item())
    assert.same({ 6, 3 }, unic.mul(unic.tensor({ 2, 1 }, { dtype = "i32" }), 3):totable())
    assert.equal("i32", unic.mul(unic.tensor({ 2, 1 }, { dtype = "i32" }), 3).dtype)
  end)
  it("sum the gradient of a broadcast operand over all of its repeats", function()
    -- Large enough for sums in several pieces, the last of them smaller.
    for _, case in ipairs { { { 2300, 33 }, { 33 }, 2300 }, { { 33, 2300 }, { 33, 1 }, 2300 }, { { 100003 }, {}, 100003 } } do
      for _, dtype in ipairs { "f32", "f64" } do
        local b = unic.full(case[2], 1, { dtype = dtype, requires_grad = true })
        unic.add(unic.ones(case[1], { dtype = dtype }), b):sum():backward()
        assert.same({ case[3], case[3] }, { b.grad:min():item(), b.grad:max():item() })
      end
    end
  end)
  it("are reached by operators", function()
    local x = unic.tensor { 1, 2 }
    assert.same({ 3, 5 }, (2 * x + 1):totable())
    assert.same({ 0, 0.5 }, ((x - 1) / 2):totable())
    assert.same({ 1, 4 }, (x ^ 2):totable())
    assert.same({ -1, -2 }, (-x):totable())
    assert.same({ 1, 0 }, (x % 2):totable())
    assert.same({ 2, 1 }, (5 % unic.tensor { 3, 2 }):totable())
  end)
  it("take the remainder's sign from the divisor, exactly", function()
    for _, dtype in ipairs { "f32", "f64", "i64", "i32" } do
      local a = unic.tensor({ 7, -7, 7, -7, 6, -6 }, { dtype = dtype })
      assert.same({ 1, 2, -2, -1, 0, 0 }, unic.remainder(a, unic.tensor({ 3, 3, -3, -3, 3, -3 }, { dtype = dtype })):totable())
    end
    local big = unic.tensor({ 2 ^ 53 - 1, -5, 5 }, { dtype = "i64" })
    assert.same({ 1, 1, 2 }, (big % 3):totable())
    assert.same({ 0, 0, 0 }, (big % 0):totable())
    assert.equal(math.fmod(2 ^ 40, 3), (unic.tensor { 2 ^ 40 } % 3):item())
    assert.equal(3, (unic.tensor { 3 } % math.huge):item())
    assert.equal(math.huge, (unic.tensor { -3 } % math.huge):item())
    for _, case in ipairs { { 1, 0 }, { math.huge, 2 }, { 0 / 0, 2 } } do
      local v = (unic.tensor { case[1] } % case[2]):item()
      assert.is_true(v ~= v)
    end
  end)
  it("are exact on integers and wrap where 64 bits end", function()
    local big = unic.tensor({ 2 ^ 53 }, { dtype = "i64" })
    assert.equal(1, (big + 1 - big):item())
    assert.equal(7, (big * 512 + 7):remainder(16):item())
    assert.equal(0, (big * big):item())
    assert.is_true((big * 512 + big * 512):item() < 0)   -- 2^63
    assert.equal(0, (big * 1024 % -1):item())
    assert.equal(1, ((big + 1):cumsum(1) - big):item())
    assert.equal(0, unic.cat({ big, big, big }, 1):prod():item())
  end)
  it("name the dtypes that do not fit", function()
    assert.raises_at(nil, "%[add%] argument 'b': it is f64 and the tensor before it is f32; t:cast%(\"f32\"%)", function()
      return unic.zeros(2) + unic.zeros(2, { dtype = "f64" })
    end)
  end)
  it("propagate NaN through maximum", function()
    local y = unic.maximum(unic.tensor { 0 / 0, 1 }, unic.tensor { 1, 0 / 0 }):totable()
    assert.is_true(y[1] ~= y[1])
    assert.is_true(y[2] ~= y[2])
  end)
end)

describe("remainder of large quotients", function()
  it("is exact", function()
    for _, dtype in ipairs { "f32", "f64" } do
      for _, pair in ipairs { { 3e38, 0.7 }, { 1e30, 3 }, { 2 ^ 40 + 2 ^ 20, 3 }, { 1e9, 0.1 }, { 16777217 * 0.3, 0.3 }, { 2 ^ 100, 7 } } do
        local a, b = unic.tensor({ pair[1], -pair[1] }, { dtype = dtype }), unic.tensor({ pair[2] }, { dtype = dtype })
        local x, y = a[1]:item(), b:item()   -- as they were rounded
        local r = math.fmod(x, y)
        local expected = unic.tensor({ r, r > 0 and y - r or 0 }, { dtype = "f64" }):cast(dtype)
        assert.same(expected:totable(), unic.remainder(a, b):totable())
      end
    end
  end)
end)
