local ops = require "spec.support.ops"
local unic = require "unic"

local function values(t) return unic.reshape(unic.contiguous(t), { -1 }):totable() end
local function tensor(list, shape) return unic.reshape(unic.tensor(list), shape) end
local function random(shape, seed) return unic.uniform_(unic.empty(shape), -1, 1, { rng = unic.new_generator(seed) }) end

describe("conv_transpose2d", function()
  ops.check("conv_transpose2d", {
    { x = { 2, 4, 5, 4 }, weight = { 4, 3, 3, 3 }, bias = { 3 }, note = "3x3" },
    { x = { 2, 6, 4, 3 }, weight = { 6, 2, 3, 2 }, bias = { 4 }, stride = { 2, 1 }, padding = { 1, 0 }, dilation = { 1, 2 }, groups = 2, output_padding = { 1, 0 },
      note = "groups, unequal stride, padding, dilation and output padding" },
    { x = { 1, 8, 4, 4 }, weight = { 8, 1, 4, 4 }, stride = 2, padding = 1, groups = 8, note = "depthwise" },
    { x = { 2, 16, 6, 5 }, weight = { 16, 40, 2, 2 }, bias = { 40 }, stride = 2, note = "twice the size, several blocks and a tail" },
    { x = { 1, 5, 1, 1 }, weight = { 5, 7, 1, 1 }, bias = { 7 }, note = "one pixel" },
    { x = { 2, 12, 5, 3 }, weight = { 12, 20, 1, 1 }, bias = { 20 }, note = "1x1 of every pixel" },
    { x = { 1, 3, 3, 3 }, weight = { 3, 2, 3, 3 }, stride = 3, padding = 0, dilation = 3, output_padding = 2, note = "more output padding than padding" },
    { x = { 0, 3, 5, 5 }, weight = { 3, 2, 3, 3 }, bias = { 2 }, note = "no images" },
  }, {
    errors = {
      { { x = { 3, 5, 5 }, weight = { 4, 3, 3, 3 } }, "argument 'x'" },
      { { x = { 2, 3, 5, 5 }, weight = { 4, 2, 3, 3 } }, "argument 'weight'" },
      { { x = { 2, 3, 5, 5 }, weight = { 3, 2, 3, 3 }, bias = { 3 } }, "argument 'bias'.*2 channels" },
      { { x = { 2, 3, 5, 5 }, weight = { 3, 2, 3, 3 }, groups = 2 }, "argument 'groups'.*3 channels" },
      { { x = { 2, 3, 5, 5 }, weight = { 3, 2, 3, 3 }, groups = 0 }, "argument 'groups'.*at least 1" },
      { { x = { 2, 3, 5, 5 }, weight = { 3, 2, 3, 3 }, stride = 0 }, "argument 'stride'.*at least 1" },
      { { x = { 2, 3, 5, 5 }, weight = { 3, 2, 3, 3 }, padding = -1 }, "argument 'padding'.*at least 0" },
      { { x = { 2, 3, 1, 5 }, weight = { 3, 2, 3, 3 }, padding = 2 }, "argument 'padding'.*leaves nothing" },
      { { x = { 2, 3, 5, 5 }, weight = { 3, 2, 3, 3 }, dilation = 0 }, "argument 'dilation'.*at least 1" },
      { { x = { 2, 3, 5, 5 }, weight = { 3, 2, 3, 3 }, output_padding = 1 }, "argument 'output_padding'.*less than the stride" },
      { { x = { 2, 3, 0, 5 }, weight = { 3, 2, 3, 3 } }, "argument 'x'.*at least one pixel" },
      { { x = { 2, 3, 5, 5 }, weight = { 3, 2, 0, 3 } }, "argument 'weight'.*size 0" },
    },
  })

  it("gives the values worked out by hand", function()
    local x, w = tensor({ 1, 2 }, { 1, 1, 1, 2 }), tensor({ 1, 10, 100 }, { 1, 1, 1, 3 })
    assert.same({ 1, 12, 120, 200 }, values(unic.conv_transpose2d(x, w)))
    assert.same({ 1, 10, 102, 20, 200 }, values(unic.conv_transpose2d(x, w, nil, { stride = { 1, 2 } })))
    assert.same({ 1, 10, 102, 20, 200, 0 }, values(unic.conv_transpose2d(x, w, nil, { stride = { 1, 2 }, output_padding = { 0, 1 } })))
    assert.same({ 12.5, 120.5 }, values(unic.conv_transpose2d(x, w, unic.tensor { 0.5 }, { padding = { 0, 1 } })))
    assert.same({ 1, 2, 10, 20, 100, 200 }, values(unic.conv_transpose2d(x, w, nil, { dilation = { 1, 2 } })))
  end)

  it("is the gradient of conv2d with respect to its image", function()
    local image, w = random({ 2, 6, 9, 8 }, 1), random({ 8, 3, 3, 2 }, 2)
    local how = { stride = 2, padding = { 1, 0 }, groups = 2 }
    image.requires_grad = true
    local y = unic.conv2d(image, w, nil, how)
    local dy = random(y.shape, 3)
    y:backward { gradient = dy }
    how.output_padding = { 0, 0 }
    for d = 1, 2 do how.output_padding[d] = image:size(2 + d) - unic.conv_transpose2d(dy, w, nil, { stride = 2, padding = { 1, 0 }, groups = 2 }):size(2 + d) end
    assert.close(unic.conv_transpose2d(dy, w, nil, how), image.grad)
  end)

  it("follows a weight that was changed in place", function()
    local x, w = random({ 2, 16, 6, 6 }, 1), random({ 16, 16, 3, 3 }, 2)
    assert.is_true(math.abs(values(unic.conv_transpose2d(x, w))[1]) > 0)
    w:copy_(unic.zeros { 16, 16, 3, 3 })
    for _, v in ipairs(values(unic.conv_transpose2d(x, w))) do assert.equal(0, v) end
  end)
end)
