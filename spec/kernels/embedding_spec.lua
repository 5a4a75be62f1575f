local unic = require "unic"
local ops = require "spec.support.ops"

describe("embedding", function()
  ops.check("embedding", {
    { ids = ops.ints({ 3, 5 }, 0, 9), table = { 10, 7 } },
    { ids = ops.ints({ 6 }, 0, 3), table = { 4, 5 }, padding = 2, gradient = false, note = "with a padding row" },
    { ids = ops.ints({}, 0, 3), table = { 4, 5 }, note = "one id without dimensions" },
    { ids = ops.values({ 0, 3, 3, 3, 1 }, "i32"), table = { 4, 3 }, note = "i32 ids that repeat" },
    { ids = ops.ints({ 3, 51 }, 0, 19), table = { 20, 1030 }, note = "columns longer than a buffer, ids that repeat" },
    { ids = ops.ints({ 700 }, 0, 5), table = { 6, 16 }, note = "few ids that repeat often" },
    { ids = ops.ints({ 3, 800 }, 0, 300), table = { 301, 4 }, padding = 7, gradient = false, note = "many ids" },
    { ids = ops.ints({ 2400 }, 0, 300), table = { 301, 4 }, note = "many ids, with gradients" },
    { ids = ops.ints({ 0, 4 }, 0, 1), table = { 3, 5 }, note = "no ids" },
    { ids = ops.ints({ 4 }, 0, 1), table = { 3, 0 }, note = "no columns" },
  }, {
    errors = {
      { { ids = ops.values({ 1, 10, 3 }, "i64"), table = { 10, 7 } }, "argument 'ids': value 10 at position 1 is outside 0..9" },
      { { ids = ops.values({ 1, 2, -1 }, "i64"), table = { 10, 7 } }, "argument 'ids': value -1 at position 2 is outside 0..9" },
      { { ids = { 3 }, table = { 10, 7 } }, "argument 'ids'" },
      { { ids = ops.ints({ 3 }, 0, 1), table = { 10 } }, "argument 'table'" },
      { { ids = ops.ints({ 3 }, 0, 1), table = { 10, 7 }, padding = 10 }, "argument 'padding'" },
      { { ids = ops.ints({ 2, 1, 1, 1, 1, 1, 1, 1 }, 0, 1), table = { 10, 7 } }, "argument 'ids'" },
    },
  })

  it("looks up rows and adds their gradients", function()
    local t = unic.tensor { { 1, 2 }, { 3, 4 }, { 5, 6 } }
    t.requires_grad = true
    local y = unic.embedding(unic.tensor({ 2, 0, 2 }, { dtype = "i64" }), t)
    assert.same({ { 5, 6 }, { 1, 2 }, { 5, 6 } }, y:detach():totable())
    y:backward { gradient = unic.tensor { { 1, 10 }, { 2, 20 }, { 3, 30 } } }
    assert.same({ { 2, 20 }, { 0, 0 }, { 4, 40 } }, t.grad:totable())
  end)

  it("keeps the padding row out of the gradient", function()
    local t = unic.zeros { 3, 2 }
    t.requires_grad = true
    unic.embedding(unic.tensor({ 0, 1, 0 }, { dtype = "i64" }), t, { padding = 0 }):backward { gradient = unic.full({ 3, 2 }, 1) }
    assert.same({ { 0, 0 }, { 1, 1 }, { 0, 0 } }, t.grad:totable())
  end)

  it("names the first bad id whatever the threads", function()
    local ids = {}
    for i = 1, 5000 do ids[i] = i % 7 end
    ids[1001], ids[4001] = 99, 98
    local before = unic.threads()
    for _, n in ipairs { 1, 2 } do
      unic.threads(n)
      local ok, why = pcall(function()
        unic.embedding(unic.tensor(ids, { dtype = "i64" }), unic.zeros { 7, 300 })
        unic.synchronize()   -- on a GPU it is raised here
      end)
      assert.is_false(ok)
      assert.matches("value 99 at position 1000 is outside 0%.%.6", tostring(why))
    end
    unic.threads(before)
  end)

  it("sums the gradient of a bf16 table in f32", function()
    local t = unic.cast(unic.zeros { 3, 2 }, "bf16")
    t.requires_grad = true
    local ids = {}
    for i = 1, 300 do ids[i] = 1 end
    unic.embedding(unic.tensor(ids, { dtype = "i64" }), t):backward { gradient = unic.cast(unic.full({ 300, 2 }, 1), "bf16") }
    assert.same({ { 0, 0 }, { 300, 300 }, { 0, 0 } }, t.grad:totable())   -- a sum in bf16 would stop at 256
  end)
end)
