local unic = require "unic"
local ops = require "spec.support.ops"
local blocked = require "spec.support.blocked"

local function values(t) return unic.reshape(unic.contiguous(t), { -1 }):totable() end
local function tensor(list, shape, dtype) return unic.reshape(unic.tensor(list, { dtype = dtype or "f32" }), shape) end
local function random(shape, seed) return unic.uniform_(unic.empty(shape), -1, 1, { rng = unic.new_generator(seed) }) end
local function close(a, expected, tolerance)
  for i, v in ipairs(expected) do assert.is_true(math.abs(a[i] - v) <= (tolerance or 1e-12), ("element %d: %.15g, expected %.15g"):format(i, a[i], v)) end
end

describe("group_norm", function()
  ops.check("group_norm", {
    { x = { 2, 6, 3, 4 }, groups = 3, weight = { 6 }, bias = { 6 } },
    { x = { 2, 4, 5 }, groups = 2, weight = { 4 }, note = "three dimensions, scale alone" },
    { x = { 3, 8 }, groups = 2, bias = { 8 }, eps = 1e-3, note = "no pixels, shift alone" },
    { x = { 2, 3, 4, 5 }, groups = 3, note = "a group per channel, nothing else" },
    { x = { 2, 5, 2, 3, 2 }, groups = 1, weight = { 5 }, bias = { 5 }, note = "one group, five dimensions" },
    { x = ops.normal({ 2, 4, 3, 3 }, 1, 20), groups = 2, weight = { 4 }, bias = { 4 }, note = "mean far from 0" },
    { x = { 2, 6, 1, 1 }, groups = 2, weight = { 6 }, bias = { 6 }, note = "one pixel" },
    { x = { 2, 1, 3, 5 }, groups = 1, weight = { 1 }, bias = { 1 }, note = "one channel" },
    { x = { 2, 3, 47, 41 }, groups = 3, weight = { 3 }, bias = { 3 }, note = "planes longer than a buffer, narrow rows" },
    { x = { 1, 4, 90, 200 }, groups = 2, weight = { 4 }, note = "planes of several slices" },
    { x = { 1, 300, 9, 8 }, groups = 30, weight = { 300 }, bias = { 300 }, note = "rows of two tiles, several slices, groups across tiles" },
    { x = { 3, 96, 5, 5 }, groups = 32, weight = { 96 }, bias = { 96 }, note = "rows of one tile" },
    { x = { 2, 32, 40, 30 }, groups = 4, weight = { 32 }, bias = { 32 }, note = "channels of whole vectors, several slices" },
    { x = { 2, 64, 4, 4 }, groups = 64, weight = { 64 }, note = "small planes, a group per channel" },
    { x = { 0, 4, 3, 3 }, groups = 2, weight = { 4 }, bias = { 4 }, note = "no images" },
    { x = { 2, 4, 0, 3 }, groups = 2, weight = { 4 }, bias = { 4 }, note = "empty images" },
    { x = { 2, 0, 3, 3 }, groups = 2, weight = { 0 }, bias = { 0 }, note = "no channels" },
  }, {
    errors = {
      { { x = { 4 }, groups = 2 }, "argument 'x'.*at least two dimensions" },
      { { x = { 2, 4, 3 }, groups = 3 }, "argument 'groups'.*3 was given.*4 channels" },
      { { x = { 2, 4, 3 }, groups = 0 }, "argument 'groups'.*at least 1" },
      { { x = { 2, 4, 3 }, groups = 2, weight = { 3 } }, "argument 'weight'.*4 channels" },
      { { x = { 2, 4, 3 }, groups = 2, weight = { 4 }, bias = { 2 } }, "argument 'bias'" },
      { { x = { 2, 4, 3 }, groups = 2, bias = { 2 } }, "argument 'bias'.*4 channels" },
      { { x = ops.ints({ 2, 4, 3 }, 0, 9), groups = 2 }, "argument 'x'" },
    },
  })

  it("gives the values worked out by hand", function()
    -- Groups {1, 2, 3, 4} and {0, 0, 2, 2}: means 2.5 and 1, variances 1.25 and 1; eps makes them 2.25 and 2.
    for _, dtype in ipairs { "f64", "f32" } do
      local x = tensor({ 1, 2, 3, 4, 0, 0, 2, 2 }, { 1, 4, 2 }, dtype)
      local y = values(unic.group_norm(x, 2, tensor({ 1, 2, 3, 4 }, { 4 }, dtype), tensor({ 0, 1, 0, -1 }, { 4 }, dtype), { eps = 1 }))
      local r = math.sqrt(0.5)
      close(y, { -1, -1 / 3, 2 / 3 + 1, 3, -3 * r, -3 * r, 4 * r - 1, 4 * r - 1 }, dtype == "f64" and 1e-12 or 1e-6)
    end
  end)

  it("is layer_norm where there is one group, and normalises each channel where there is a group for each", function()
    local x = random({ 3, 6, 5, 7 }, 1)
    local rows = unic.layer_norm(unic.reshape(x, { 3, 210 }))
    assert.close(unic.group_norm(x, 1), unic.reshape(rows, { 3, 6, 5, 7 }), 1e-5)
    local planes = unic.layer_norm(unic.reshape(x, { 18, 35 }))
    assert.close(unic.group_norm(x, 6), unic.reshape(planes, { 3, 6, 5, 7 }), 1e-5)
  end)

  it("keeps a NaN in its own group", function()
    local y = values(unic.group_norm(tensor({ 1, 0 / 0, 2, 4, 3, 5, 7, 9 }, { 1, 4, 2 }), 2))
    for i = 1, 4 do assert.is_true(y[i] ~= y[i]) end
    close({ y[5], y[8] }, { -1.341640, 1.341640 }, 1e-5)
  end)

  it("is accurate when the mean is large beside the spread", function()
    for _, x in ipairs { tensor({ 4095, 4096, 4097, 4096 }, { 1, 2, 1, 2 }), unic.channels_last(tensor({ 4095, 4096, 4097, 4096 }, { 1, 2, 1, 2 })) } do
      close(values(unic.group_norm(x, 1, { eps = 0 })), { -math.sqrt(2), 0, math.sqrt(2), 0 }, 1e-6)
    end
  end)

  it("leaves the layout of x", function()
    local x = random({ 2, 8, 3, 5 }, 1)
    assert.same({ 120, 15, 5, 1 }, unic.group_norm(x, 4):stride())
    assert.same({ 120, 1, 40, 8 }, unic.group_norm(unic.channels_last(x), 4):stride())
  end)

  it("keeps channels in blocks", function()
    if blocked.size() == 0 then return end
    for _, groups in ipairs { 1, 2, 4, 32 } do   -- groups larger than a block, equal to one, smaller
      local w, b = random({ 32 }, 2), random({ 32 }, 3)
      local y = blocked.check(function(t) return unic.group_norm(t, groups, w, b) end, random({ 2, 32, 11, 8 }, 1), { w, b }, 1e-5)
      assert.is_nil(y:stride())
    end
  end)
end)
