local unic = require "unic"
local ops = require "spec.support.ops"

local function case(shape, every)
  local n, flags, count = 1, {}, 0
  for _, size in ipairs(shape) do n = n * size end
  for i = 1, n do
    flags[i] = (i * 7919) % 13 % every == 0
    if flags[i] then count = count + 1 end
  end
  local mask = n > 0 and ops.values((function()   -- nested as the shape
    local at = 0
    local function nest(d)
      local t = {}
      for i = 1, shape[d] do
        if d == #shape then at = at + 1; t[i] = flags[at] else t[i] = nest(d + 1) end
      end
      return t
    end
    return nest(1)
  end)(), "bool") or ops.bools(shape)
  return { x = shape, mask = mask, count = count }
end

ops.check("masked_take", { case({ 3, 5 }, 2), case({ 7 }, 1), case({ 4, 5 }, 99), case({ 40, 1030 }, 3), case({ 2, 3, 4, 5 }, 2), case({ 0, 3 }, 1) }, {
  errors = {
    { { x = { 3 }, mask = ops.values({ true, false, true }, "bool"), count = 1 }, "argument 'count': 1 was given, the mask has 2 true elements" },
    { { x = { 3 }, mask = ops.values({ true, false, true }, "bool"), count = -1 }, "argument 'count'" },
    { { x = { 4 }, mask = ops.values({ true, false, true }, "bool"), count = 2 }, "argument 'mask'" },
    { { x = { 3 }, mask = { 3 }, count = 2 }, "argument 'mask'" },
  },
})

describe("masked_select", function()
  it("takes what the mask says, broadcasting", function()
    local x = unic.tensor({ { 1, 2, 3 }, { 4, 5, 6 } }, { requires_grad = true })
    local y = x:masked_select(x:gt(2))
    assert.same({ 3, 4, 5, 6 }, y:totable())
    unic.sum(y * unic.tensor { 1, 2, 3, 4 }):backward()
    assert.same({ { 0, 0, 1 }, { 2, 3, 4 } }, x.grad:totable())
    assert.same({ 1, 3, 4, 6 }, unic.masked_select(x, unic.tensor { true, false, true }):totable())
    assert.same({ 7, 7 }, unic.masked_select(unic.tensor({ 7 }, { dtype = "i64" }), unic.tensor { { true }, { false }, { true } }):totable())
    assert.same({ 0 }, unic.masked_select(x, x:gt(9)).shape)
    assert.same({ 2, 5 }, unic.transpose(x, 1, 2):masked_select(unic.tensor { { false }, { true }, { false } }):totable())
  end)
  it("says what is wrong", function()
    local x = unic.zeros(2, 3)
    assert.raises_at(nil, "%[masked_select%] argument 'mask': f32", function() x:masked_select(x) end)
    assert.raises_at(nil, "%[masked_select%] argument 'mask': shapes %[2, 3%] and %[4%] do not broadcast", function() x:masked_select(unic.zeros(4, { dtype = "bool" })) end)
    assert.raises_at(nil, "%[masked_select%] argument 'x'", function() unic.masked_select(3, x:gt(1)) end)
  end)
end)
