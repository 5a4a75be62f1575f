local ops = require "spec.support.ops"
local unic = require "unic"
local blocked = require "spec.support.blocked"

local function values(t) return unic.reshape(unic.contiguous(t), { -1 }):totable() end
local function image(list, shape) return unic.reshape(unic.tensor(list), shape) end
local function random(shape, seed) return unic.uniform_(unic.empty(shape), -1, 1, { rng = unic.new_generator(seed) }) end

local cases = {}
for _, mode in ipairs { "nearest", "bilinear", "bicubic" } do
  for _, align in ipairs(mode == "nearest" and { false } or { false, true }) do
    local function add(x, size, note) cases[#cases + 1] = { x = x, size = size, mode = mode, align_corners = align, note = ("%s %s %s"):format(mode, tostring(align), note) } end
    add({ 2, 3, 5, 4 }, { 10, 8 }, "twice")
    add({ 1, 2, 7, 9 }, { 3, 4 }, "smaller")
    add({ 2, 9, 3, 3 }, { 4, 7 }, "a tail of channels")
    add({ 1, 1, 1, 6 }, { 3, 1 }, "one row in, one column out")
  end
end
cases[#cases + 1] = { x = { 2, 150, 4, 5 }, size = 3, mode = "bilinear", note = "several pieces of channels" }
cases[#cases + 1] = { x = { 0, 3, 4, 4 }, size = 2, note = "no images" }

describe("interpolate", function()
  ops.check("interpolate", cases, {
    errors = {
      { { x = { 2, 3, 4 }, size = 2 }, "argument 'x'" },
      { { x = { 2, 3, 4, 4 }, size = 0 }, "argument 'size'.*at least 1" },
      { { x = { 2, 3, 0, 4 }, size = 2 }, "argument 'x'.*at least one pixel" },
      { { x = { 2, 3, 4, 4 }, size = 2, align_corners = true }, "argument 'align_corners'.*no corners" },
      { { x = { 2, 3, 4, 4 }, size = 2, mode = "linear" }, "argument 'mode'" },
    },
  })

  it("gives the values worked out by hand", function()
    local x = image({ 1, 2, 3, 4 }, { 1, 1, 2, 2 })
    assert.same({ 1, 1, 2, 2, 1, 1, 2, 2, 3, 3, 4, 4, 3, 3, 4, 4 }, values(unic.interpolate(x, 4)))
    assert.same({ 1, 1.25, 1.75, 2 }, values(unic.interpolate(image({ 1, 2 }, { 1, 1, 1, 2 }), { 1, 4 }, { mode = "bilinear" })))
    assert.same({ 0, 1, 2, 3, 4 }, values(unic.interpolate(image({ 0, 2, 4 }, { 1, 1, 1, 3 }), { 1, 5 }, { mode = "bilinear", align_corners = true })))
    assert.same({ 10, 30 }, values(unic.interpolate(image({ 10, 20, 30, 40 }, { 1, 1, 1, 4 }), { 1, 2 })))
    -- Keys' kernel with a = -0.75, half-way between two pixels: -3/32, 19/32, 19/32, -3/32.
    local y = values(unic.interpolate(image({ 0, 32, 64, 32 }, { 1, 1, 1, 4 }), { 1, 1 }, { mode = "bicubic" }))
    assert.equal(19 + 38 - 3, y[1])
    -- Beyond the border stands the border: a constant stays one.
    for _, v in ipairs(values(unic.interpolate(unic.full({ 1, 1, 3, 3 }, 5), 7, { mode = "bicubic" }))) do assert.is_true(math.abs(v - 5) < 1e-5) end
  end)

  it("gives the gradients worked out by hand", function()
    local x = image({ 1, 2 }, { 1, 1, 1, 2 })
    x.requires_grad = true
    unic.interpolate(x, { 1, 4 }, { mode = "bilinear" }):backward { gradient = image({ 1, 10, 100, 1000 }, { 1, 1, 1, 4 }) }
    assert.same({ 1 + 7.5 + 25, 2.5 + 75 + 1000 }, values(x.grad))
  end)

  it("takes channels in blocks", function()
    if blocked.size() == 0 then return end
    for _, mode in ipairs { "nearest", "bilinear", "bicubic" } do
      blocked.check(function(x) return unic.interpolate(x, { 5, 9 }, { mode = mode }) end, random({ 2, 32, 6, 7 }, 3), {})
    end
  end)
end)

describe("adaptive_avg_pool2d", function()
  ops.check("adaptive_avg_pool2d", {
    { x = { 2, 3, 6, 4 }, size = { 3, 2 } },
    { x = { 1, 2, 7, 10 }, size = { 3, 4 }, note = "windows that overlap" },
    { x = { 2, 9, 3, 2 }, size = { 5, 3 }, note = "more windows than pixels" },
    { x = { 2, 140, 5, 5 }, size = 1, note = "one window, several pieces of channels" },
    { x = { 1, 1, 70, 33 }, size = { 1, 2 }, note = "long sums" },
    { x = { 0, 3, 4, 4 }, size = 2, note = "no images" },
  }, {
    errors = {
      { { x = { 2, 3, 4, 4 }, size = -1 }, "argument 'size'.*at least 1" },
      { { x = { 2, 3, 4, 0 }, size = 2 }, "argument 'x'.*at least one pixel" },
    },
  })

  it("gives the values worked out by hand", function()
    assert.same({ 1.5, 2.5, 4 }, values(unic.adaptive_avg_pool2d(image({ 1, 2, 3, 5 }, { 1, 1, 1, 4 }), { 1, 3 })))
    local x = random({ 2, 5, 6, 8 }, 1)
    assert.close(unic.adaptive_avg_pool2d(x, { 3, 4 }), unic.avg_pool2d(x, 2))
    assert.close(unic.adaptive_avg_pool2d(x, 1):reshape { 2, 5 }, unic.global_avg_pool2d(x))
  end)

  it("takes channels in blocks", function()
    if blocked.size() == 0 then return end
    blocked.check(function(x) return unic.adaptive_avg_pool2d(x, { 3, 2 }) end, random({ 2, 32, 7, 5 }, 3), {})
  end)
end)
