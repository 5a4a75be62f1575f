local unic = require "unic"
local ops = require "spec.support.ops"

describe("cumsum", function()
  ops.check("cumsum", {
    { x = { 3, 5 } }, { x = { 3, 5 }, dim = 1 }, { x = { 2, 3, 4 }, dim = 2 }, { x = { 7, 3000 }, note = "long lines" }, { x = { 0, 3 }, dim = 2 }, { x = { 3, 0 }, dim = 2 },
  }, {
    errors = { { { x = { 3 }, dim = 2 }, "argument 'dim'" }, { { x = {} }, "argument 'x'" } },
  })

  it("adds up, integers exactly", function()
    assert.same({ 1, 3, 6 }, unic.cumsum(unic.tensor { 1, 2, 3 }):totable())
    local y = unic.cumsum(unic.full({ 3 }, 200, { dtype = "u8" }))
    assert.equal("i64", y.dtype)
    assert.same({ 200, 400, 600 }, y:totable())
    assert.same({ { 1, 2 }, { 4, 6 } }, unic.cumsum(unic.tensor { { 1, 2 }, { 3, 4 } }, 1):totable())
  end)

  it("is the CPU's for integers", function()
    for _, dtype in ipairs { "i64", "i32", "u8", "bool" } do
      for _, dim in ipairs { 1, 2 } do
        local found = {}
        for _, device in ipairs { "cpu", unic.device() } do
          local x = unic.randint_(unic.empty({ 3, 1500 }, { dtype = dtype, device = device }), dtype == "u8" and 0 or -100, 100, { rng = unic.new_generator(5, device) })
          found[#found + 1] = unic.cumsum(x, dim):to("cpu")
        end
        assert.same_bits(found[1], found[2])
      end
    end
  end)

  it("does not lose small terms of a long f32 line", function()
    local y = unic.cumsum(unic.full({ 1000000 }, 0.1))
    assert.is_true(math.abs(y[1000000]:item() / (1000000 * 0.10000000149011612) - 1) < 1e-6)
  end)
end)
