local unic = require "unic"
local ops = require "spec.support.ops"

local anywhere = { { 3, 5 }, { 2, 3, 701 }, { 0, 4 }, {} }
local positive = { ops.uniform({ 3, 5 }, 0.1, 3), ops.uniform({ 2, 3, 701 }, 0.1, 3) }
local apart = { ops.uniform({ 3, 5 }, 0.2, 0.8), ops.uniform({ 2, 3, 701 }, 0.2, 0.8) }   -- away from kinks and jumps

local rows = {
  neg = anywhere, abs = apart, exp = anywhere, log = positive, log1p = positive, sqrt = positive, rsqrt = positive, reciprocal = positive,
  square = anywhere, sin = anywhere, cos = anywhere, tanh = anywhere, sigmoid = anywhere, relu = apart, gelu = anywhere, silu = anywhere,
  softplus = anywhere, erf = anywhere, sign = apart, floor = apart, ceil = apart, round = { ops.uniform({ 3, 5 }, 0.1, 0.4) },
}

for name, cases in pairs(rows) do
  local list = {}
  for i, x in ipairs(cases) do list[i] = { x = x } end
  ops.check(name, list)
end

describe("element-wise functions", function()
  local inf, nan = math.huge, 0 / 0
  local function values(name, list, dtype)
    return unic.core.ops.call[name](unic.tensor(list, { dtype = dtype or "f32" })):totable()
  end
  local function same(expected, got)
    for i, e in ipairs(expected) do
      if e ~= e then assert.is_true(got[i] ~= got[i], "element " .. i .. " should be NaN")
      else assert.is_true(math.abs(e) == inf and e == got[i] or math.abs(e - got[i]) <= 1e-6 * math.max(1, math.abs(e)), ("element %d: %g, expected %g"):format(i, got[i], e)) end
    end
  end

  for _, dtype in ipairs { "f32", "f64" } do
    it("are right at special points in " .. dtype, function()
      same({ 0, 1, inf, nan, math.exp(1), math.exp(-5), math.exp(88) }, values("exp", { -inf, 0, inf, nan, 1, -5, 88 }, dtype))
      same({ 0, 0, 3, inf, nan }, values("relu", { -inf, -2, 3, inf, nan }, dtype))
      same({ 0, -0.15865525, 0.84134475, 0, nan, 5 }, values("gelu", { 0, -1, 1, -20, nan, 5 }, dtype), 1e-6)
      same({ 0, 0.5, 1, nan, 0.7310585786 }, values("sigmoid", { -1000, 0, 1000, nan, 1 }, dtype))
      same({ -1, 0, 1, nan, 0.76159415596, 1e-4 }, values("tanh", { -50, 0, 50, nan, 1, 1e-4 }, dtype))
      same({ 0, math.log(2), 1000, nan }, values("softplus", { -1000, 0, 1000, nan }, dtype))
      same({ -inf, 0, inf, nan }, values("log", { 0, 1, inf, -1 }, dtype))
      same({ -1, 0, 1, nan }, values("sign", { -3, 0, 3, nan }, dtype))
      same({ 0, 2, 2, -2 }, values("round", { 0.5, 1.5, 2.4, -1.6 }, dtype))
    end)
  end

  it("refuse integers with the cast to use", function()
    assert.raises_at(nil, "%[exp%] argument 'x': i64 %[2%] on %S+ was given, expected a floating type; t:cast%(\"f32\"%)", function()
      unic.exp(unic.tensor({ 1, 2 }, { dtype = "i64" }))
    end)
  end)
end)
