-- copy, fill and accumulate are services of the runtime; Lua reaches them through copy_, fill_, cast, channels_last and the tape.
local unic = require "unic"
local ops = require "spec.support.ops"

local DTYPES = { "f32", "bf16", "f16", "f64", "i64", "i32", "u8", "bool" }

describe("cast", function()
  ops.check("cast", {
    { x = { 3, 5 }, dtype = "f64" },
    { x = { 2, 3, 4, 5 }, dtype = "f32", gradient = false },
    { x = { 70, 1100 }, dtype = "f64", note = "several chunks" },
    { x = { 0, 3 }, dtype = "f32", gradient = false, note = "no elements" },
  }, { errors = { { { x = { 3 }, dtype = "f31" }, "argument 'dtype'" } } })

  it("converts small integers exactly between any two dtypes", function()
    for _, from in ipairs(DTYPES) do
      for _, to in ipairs(DTYPES) do
        local values = (from == "bool" or to == "bool") and { 0, 1, 1, 0 } or { 0, 1, 7, 200 }
        local x = unic.tensor(values, { dtype = from })
        local y = unic.cast(x, to)
        assert.equal(to, y.dtype)
        assert.same(values, unic.cast(y, "f64"):totable(), from .. " to " .. to)
      end
    end
  end)

  it("takes floats to integers towards zero, saturating, and NaN to 0", function()
    local inf, nan = math.huge, 0 / 0
    for _, from in ipairs { "f32", "f64" } do
      local x = unic.tensor({ 2.9, -2.9, 1e30, -1e30, inf, -inf, nan, 300 }, { dtype = from })
      assert.same({ 2, 0, 255, 0, 255, 0, 0, 255 }, unic.cast(x, "u8"):totable())
      assert.same({ 2, -2, 2147483647, -2147483648, 2147483647, -2147483648, 0, 300 }, unic.cast(x, "i32"):totable())
      local wide = unic.cast(unic.cast(x, "i64"), "f64"):totable()
      assert.same({ 2, -2, 2 ^ 63, -2 ^ 63, 2 ^ 63, -2 ^ 63, 0, 300 }, wide)
      assert.same({ true, true, true, true, true, true, true, true }, unic.cast(x, "bool"):totable())
    end
  end)

  it("wraps integers into narrower ones", function()
    local x = unic.tensor({ 256, -1, 2 ^ 32 + 5 }, { dtype = "i64" })
    assert.same({ 0, 255, 5 }, unic.cast(x, "u8"):totable())
    assert.same({ 256, -1, 5 }, unic.cast(x, "i32"):totable())
  end)

  it("rounds to the nearest, halves to even", function()
    local x = unic.tensor({ 1 + 2 ^ -8, 1 + 3 * 2 ^ -8, 1 + 2 ^ -8 + 2 ^ -30 }, { dtype = "f64" })
    assert.same({ 1, 1 + 2 ^ -6, 1 + 2 ^ -7 }, unic.cast(unic.cast(x, "bf16"), "f64"):totable())
    local h = unic.tensor({ 1 + 2 ^ -11, 1 + 3 * 2 ^ -11, 65520, 65519, 2 ^ -25, 2 ^ -24 }, { dtype = "f64" })
    assert.same({ 1, 1 + 2 ^ -9, math.huge, 65504, 0, 2 ^ -24 }, unic.cast(unic.cast(h, "f16"), "f64"):totable())
    for _, dtype in ipairs { "bf16", "f16", "f32" } do
      local n = unic.cast(unic.cast(unic.tensor({ 0 / 0, math.huge, -math.huge }, { dtype = "f64" }), dtype), "f64"):totable()
      assert.is_true(n[1] ~= n[1])
      assert.same({ math.huge, -math.huge }, { n[2], n[3] })
    end
  end)
end)

describe("channels_last", function()
  ops.check("channels_last", {
    { x = { 2, 3, 4, 5 } },
    { x = { 2, 33, 9, 8 }, note = "larger than a tile" },
    { x = { 0, 3, 4, 5 }, note = "no elements" },
  }, { errors = { { { x = { 3, 4 } }, "argument 'x'" } } })
end)

describe("copy_", function()
  local function ramp(shape, dtype)
    local n = 1
    for _, s in ipairs(shape) do n = n * s end
    return unic.reshape(unic.cast(unic.arange(n), dtype), shape)
  end

  it("moves between all memory layouts of all element sizes", function()
    for _, dtype in ipairs { "f32", "f64", "bf16", "u8" } do
      local x = ramp({ 2, 5, 4, 6 }, dtype)
      local plain = x:totable()
      local layouts = {
        function(t) return t end, unic.channels_last,
        function(t) return unic.transpose(unic.contiguous(unic.transpose(t, 1, 4)), 1, 4) end,
        function(t) return unic.narrow(unic.cat({ t, t }, 3), 3, 1, 4) end,
      }
      for i, from in ipairs(layouts) do
        for j, to in ipairs(layouts) do
          local y = to(unic.zeros({ 2, 5, 4, 6 }, { dtype = dtype }))
          y:copy_(from(x))
          assert.same(plain, y:totable(), ("%s, layout %d into %d"):format(dtype, i, j))
        end
      end
    end
  end)

  it("transposes sizes around a tile's edge", function()
    for _, n in ipairs { 1, 3, 4, 5, 31, 32, 33, 65 } do
      for _, m in ipairs { 1, 4, 7, 63, 64, 66 } do
        local x = ramp({ n, m }, "f32")
        local y = unic.contiguous(unic.transpose(x, 1, 2))
        for i = 1, n, 3 do for j = 1, m, 5 do assert.equal((i - 1) * m + j - 1, y[j][i]:item()) end end
      end
    end
  end)

  it("writes into a window and leaves the rest alone", function()
    local y = unic.zeros { 4, 5 }
    y:narrow(1, 2, 2):narrow(2, 2, 3, 1):copy_(unic.tensor({ { 1, 2, 3 }, { 4, 5, 6 } }, { dtype = "i64" }))
    assert.same({ { 0, 0, 0, 0, 0 }, { 0, 1, 2, 3, 0 }, { 0, 4, 5, 6, 0 }, { 0, 0, 0, 0, 0 } }, y:totable())
  end)
end)

describe("fill_", function()
  it("fills whole tensors and windows of any dtype", function()
    for _, dtype in ipairs { "f32", "bf16", "f16", "f64", "i64", "i32", "u8" } do
      local x = unic.zeros({ 3, 4 }, { dtype = dtype })
      x:narrow(2, 2, 2):fill_(7)
      assert.same({ { 0, 7, 7, 0 }, { 0, 7, 7, 0 }, { 0, 7, 7, 0 } }, unic.cast(x, "f64"):totable())
      x:fill_(0)
      assert.same({ { 0, 0, 0, 0 }, { 0, 0, 0, 0 }, { 0, 0, 0, 0 } }, unic.cast(x, "f64"):totable())
    end
    assert.same({ true, true }, unic.zeros({ 2 }, { dtype = "bool" }):fill_(0.5):totable())
  end)
end)

describe("accumulated gradients", function()
  it("add up over layouts and dtypes", function()
    for _, dtype in ipairs { "f32", "f64", "bf16" } do
      local x = unic.cast(unic.zeros { 2, 2, 4, 5 }, dtype)
      x.requires_grad = true
      local g = unic.cast(unic.reshape(unic.arange(80), { 2, 2, 4, 5 }), dtype)
      local function use(gradient) unic.channels_last(x):backward { gradient = gradient } end
      use(g)
      use(unic.channels_last(g))
      use(unic.transpose(unic.contiguous(unic.transpose(g, 2, 3)), 2, 3))
      assert.same(unic.cast(unic.mul(unic.cast(g, "f64"), 3), "f64"):totable(), unic.cast(unic.cast(x.grad, "f64"), "f64"):totable())
    end
  end)
end)
