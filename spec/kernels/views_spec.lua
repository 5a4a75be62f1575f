local unic = require "unic"
local ops = require "spec.support.ops"

ops.check("reshape", { { x = { 3, 4 }, shape = { 2, -1 } }, { x = { 2, 3, 4 }, shape = { 6, 4 } }, { x = { 6 }, shape = { 1, 6, 1 } }, { x = { 0, 3 }, shape = { 3, 0 } } },
  { errors = { { { x = { 3, 4 }, shape = { 5 } }, "it holds 5 elements" }, { { x = { 3, 4 }, shape = { -1, -1 } }, "-1 was given twice" },
    { { x = { 3, 4 }, shape = { 2 ^ 40, 2 ^ 40 } }, "more elements than 64 bits can count" } } })
ops.check("permute", { { x = { 2, 3, 4 }, dims = { 3, 1, 2 } }, { x = { 2, 3, 4, 5 }, dims = { 1, 3, 4, 2 } } },
  { errors = { { { x = { 2, 3 }, dims = { 1 } }, "argument 'dims'" }, { { x = { 2, 3 }, dims = { 1, 1 } }, "given twice" } } })
ops.check("transpose", { { x = { 2, 3, 4 }, dim1 = 1, dim2 = -1 } })
ops.check("expand", { { x = { 3, 1 }, shape = { 3, 4 } }, { x = { 3 }, shape = { 2, 5, 3 } }, { x = {}, shape = { 2, 2 } } },
  { errors = { { { x = { 3, 2 }, shape = { 3, 4 } }, "only a dimension of size 1" } } })
ops.check("narrow", { { x = { 5, 6 }, dim = 2, start = 2, length = 3 }, { x = { 7, 3 }, dim = 1, start = 1, length = 3, step = 2 }, { x = { 4 }, dim = 1, start = -2,
  length = 2 } },
  { errors = { { { x = { 4 }, dim = 1, start = 4, length = 2 }, "positions 4..5" }, { { x = { 4 }, dim = 1, start = 0, length = 2 }, "count from 1" } } })
ops.check("select", { { x = { 5, 6 }, dim = 1, index = -1 }, { x = { 2, 3, 4 }, dim = 2, index = 2 } }, { errors = { { { x = { 4 }, dim = 1, index = 5 }, "argument 'index'" } } })
ops.check("squeeze", { { x = { 1, 3, 1 } }, { x = { 1, 3, 1 }, dim = 1 } }, { errors = { { { x = { 2, 3 }, dim = 1 }, "size 2" } } })
ops.check("unsqueeze", { { x = { 3, 2 }, dim = 1 }, { x = { 3, 2 }, dim = -1 } })
ops.check("flatten", { { x = { 2, 3, 4 }, first = 2 }, { x = { 2, 3 } } })
ops.check("contiguous", { { x = { 3, 4 } } })
ops.check("cast", { { x = { 3, 5 }, dtype = "f32" } }, { dtypes = { "f32" }, layouts = false, tolerance = { gradcheck = 1e-2, f32 = 1e-6 }, eps = 1e-2, gradient = false })
ops.check("channels_last", { { x = { 2, 3, 4, 5 } } }, { errors = { { { x = { 2, 3 } }, "expected 4" } } })

describe("lists of integers", function()
  local x = unic.reshape(unic.arange(6), { 2, 3 })
  it("are given one by one or as a table", function()
    for _, pair in ipairs {
      { x:reshape(3, -1), x:reshape { 3, -1 } }, { x:reshape(6), x:reshape { 6 } }, { unic.reshape(x, 1, 6, 1), unic.reshape(x, { 1, 6, 1 }) },
      { x:permute(2, 1), x:permute { 2, 1 } }, { x[1]:expand(2, 2, 3), x[1]:expand { 2, 2, 3 } }, { x:flip(1, 2), x:flip { 1, 2 } },
      { x:repeat_(2, 2), x:repeat_ { 2, 2 } }, { x:reshape(3, 2, {}), x:reshape { 3, 2 } }, { x:reshape { shape = { 3, 2 } }, x:reshape { 3, 2 } },
    } do
      assert.same(pair[2].shape, pair[1].shape)
      assert.same(pair[2]:totable(), pair[1]:totable())
    end
    assert.equal(0, x[{ 1, 1 }]:reshape {}:dim())
  end)
end)

describe("indexing", function()
  local x = unic.reshape(unic.arange(12, { dtype = "f32" }), { 3, 4 })
  it("counts from 1 and from the end", function()
    assert.same({ 0, 1, 2, 3 }, x[1]:totable())
    assert.same({ 8, 9, 10, 11 }, x[-1]:totable())
    assert.equal(6, x[{ 2, 3 }]:item())
    assert.same({ { 1, 2 }, { 5, 6 }, { 9, 10 } }, x[{ {}, { 2, 3 } }]:totable())
    assert.same({ { 0, 2 } }, x[{ { 1, 1 }, { 1, 4, 2 } }]:totable())
  end)
  it("shares memory, and writes through", function()
    local y = unic.clone(x)
    y[1] = 7
    y[{ 2, { 1, 2 } }] = unic.tensor { -1, -2 }
    assert.same({ { 7, 7, 7, 7 }, { -1, -2, 6, 7 }, { 8, 9, 10, 11 } }, y:totable())
  end)
  it("refuses 0 and what lies outside, at the user's line", function()
    assert.raises_at(nil, "count from 1", function() return x[0] end)
    assert.raises_at(nil, "dimension 1 has 1..3", function() return x[4] end)
    assert.raises_at(nil, "does not lie within 1..4", function() return x[{ 1, { 2, 5 } }] end)
  end)
  it("casts as C does, but saturating", function()
    assert.same({ 1, -1, 0 }, unic.tensor { 1.9, -1.9, 0 / 0 }:cast("i64"):totable())
    assert.same({ 0, 255 }, unic.tensor { -5, 300 }:cast("u8"):totable())
  end)
end)
