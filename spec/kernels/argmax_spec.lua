local unic = require "unic"
local ops = require "spec.support.ops"

describe("argmax and argmin", function()
  for _, name in ipairs { "argmax", "argmin" } do
    ops.check(name, {
      { x = { 3, 5 } }, { x = { 3, 5 }, dim = 1 }, { x = { 2, 3, 4 }, dim = 2, keepdim = true }, { x = { 4, 2100 }, note = "longer than a buffer" },
      { x = ops.ints({ 4, 50 }, 0, 9), note = "ints with ties" }, { x = { 0, 3 } },
    }, { errors = { { { x = { 3, 0 } }, "argument 'x'" }, { { x = {} }, "argument 'x'" }, { { x = { 3 }, dim = 2 }, "argument 'dim'" } } })
  end

  it("count from 0, take the first of equals and the first NaN", function()
    local nan = 0 / 0
    assert.same({ 1, 0, 2 }, unic.argmax(unic.tensor { { 1, 3, 3 }, { 5, 5, 1 }, { 1, 2, nan } }):totable())
    assert.same({ 0, 2, 1 }, unic.argmin(unic.tensor { { 1, 3, 3 }, { 5, 5, 1 }, { 1, nan, nan } }):totable())
    assert.same({ { 1 }, { 0 } }, unic.argmax(unic.tensor { { -math.huge, -5 }, { 2, 2 } }, -1, true):totable())
    assert.equal("i64", unic.argmax(unic.tensor { 1, 2 }).dtype)
  end)

  it("find what the CPU finds, in all types", function()
    for _, dtype in ipairs { "f32", "bf16", "f16", "f64", "i64", "i32", "u8", "bool" } do
      for _, dim in ipairs { 1, 2, 3 } do
        local found = {}
        for _, device in ipairs { "cpu", unic.device() } do
          local x = unic.randint_(unic.empty({ 3, 70, 41 }, { dtype = dtype, device = device }), dtype == "u8" and 0 or -30, 30, { rng = unic.new_generator(dim, device) })
          found[#found + 1] = { unic.argmax(x, dim), unic.argmin(x, dim) }
        end
        for j, t in ipairs(found[1]) do assert.same_bits(t, found[2][j]:to("cpu")) end
      end
    end
  end)

  it("compare i64 beyond 2^53 exactly", function()
    local x = unic.tensor({ 2 ^ 53, 2 ^ 53, 0 }, { dtype = "i64" })
    x:narrow(1, 2, 1):copy_(unic.add(x:narrow(1, 1, 1), 1))
    assert.equal(1, unic.argmax(x):item())
  end)
end)
