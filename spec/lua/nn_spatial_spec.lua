local unic = require "unic"
local nn = unic.nn

describe("nn.GroupNorm", function()
  it("starts with ones and zeros, under PyTorch's names", function()
    local norm = nn.GroupNorm(2, 6)
    assert.same({ "weight", "bias" }, norm:state_names())
    assert.same({ 1, 1, 1, 1, 1, 1 }, norm.weight:totable())
    assert.same({ 0, 0, 0, 0, 0, 0 }, norm.bias:totable())
    assert.same({}, nn.GroupNorm(2, 6, { affine = false }):state_names())
  end)

  it("is the op with its own groups, parameters and eps", function()
    local x, norm = unic.randn(2, 6, 3, 4), nn.GroupNorm(3, 6, { eps = 0.1 })
    norm.weight:detach():copy_(unic.randn(6))
    norm.bias:detach():copy_(unic.randn(6))
    assert.same_bits(unic.group_norm(x, 3, norm.weight:detach(), norm.bias:detach(), { eps = 0.1 }), norm(x):detach())
    norm(x):sum():backward()
    assert.same({ 24, 24, 24, 24, 24, 24 }, norm.bias.grad:totable())
    assert.is_truthy(norm.weight.grad)
  end)

  it("refuses what does not fit", function()
    for _, case in ipairs {
      { { 4, 6 }, "argument 'groups': 4 was given, expected a divisor of 6 channels" },
      { { 0, 6 }, "argument 'groups'" },
      { { 2, 0 }, "argument 'channels'" },
    } do
      local ok, why = pcall(nn.GroupNorm, case[1][1], case[1][2])
      assert.is_false(ok)
      assert.is_truthy(tostring(why):find("[nn.GroupNorm] " .. case[2], 1, true), tostring(why))
    end
  end)
end)

describe("nn.ConvTranspose2d", function()
  it("has PyTorch's names, shapes and bounds", function()
    local layer = nn.ConvTranspose2d(6, 4, { 3, 2 }, { groups = 2 })
    assert.same({ "weight", "bias" }, layer:state_names())
    assert.same({ 6, 2, 3, 2 }, layer.weight.shape)
    assert.same({ 4 }, layer.bias.shape)
    local bound = 1 / math.sqrt(2 * 3 * 2)
    local most = layer.weight:detach():abs():max():item()
    assert.is_true(most <= bound and most > bound / 2)
    assert.same({ "weight" }, nn.ConvTranspose2d(2, 2, 1, { bias = false }):state_names())
  end)

  it("is the op with its own options", function()
    local x = unic.randn(2, 6, 4, 5)
    local layer = nn.ConvTranspose2d(6, 4, 3, { stride = 2, padding = 1, output_padding = { 1, 0 }, dilation = { 1, 2 }, groups = 2 })
    local expected = unic.conv_transpose2d(x, layer.weight, layer.bias, { stride = 2, padding = 1, output_padding = { 1, 0 }, dilation = { 1, 2 }, groups = 2 })
    assert.same_bits(expected:detach(), layer(x):detach())
    layer(x):sum():backward()
    assert.is_truthy(layer.weight.grad and layer.bias.grad)
  end)

  it("refuses what does not fit", function()
    for _, case in ipairs {
      { { 6, 4, 3, { groups = 4 } }, "argument 'in_channels'" }, { { 4, 6, 3, { groups = 4 } }, "argument 'out_channels'" }, { { 4, 4, 0 }, "argument 'kernel'" },
    } do
      local ok, why = pcall(nn.ConvTranspose2d, unpack(case[1]))
      assert.is_false(ok)
      assert.is_truthy(tostring(why):find("[nn.ConvTranspose2d] " .. case[2], 1, true), tostring(why))
    end
  end)
end)

describe("nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d and nn.Upsample", function()
  it("are their ops", function()
    local x = unic.randn(2, 3, 7, 6)
    assert.same_bits(unic.adaptive_avg_pool2d(x, { 3, 2 }), nn.AdaptiveAvgPool2d { 3, 2 }(x))
    assert.same_bits(unic.adaptive_max_pool2d(x, 2), nn.AdaptiveMaxPool2d(2)(x))
    assert.same_bits(unic.interpolate(x, { 10, 9 }, { mode = "bicubic", align_corners = true }), nn.Upsample { size = { 10, 9 }, mode = "bicubic", align_corners = true }(x))
    assert.same({ 2, 3, 14, 9 }, nn.Upsample { scale_factor = { 2, 1.5 }, mode = "bilinear" }(x).shape)
    assert.same({ 2, 3, 3, 3 }, nn.Upsample { scale_factor = .5 }(x).shape)
  end)

  it("refuse what does not fit", function()
    for _, case in ipairs {
      { nn.Upsample, {}, "[nn.Upsample] argument 'size'" },
      { nn.Upsample, { size = 2, scale_factor = 2 }, "[nn.Upsample] argument 'size'" },
      { nn.Upsample, { scale_factor = 0 }, "scale_factor" },
      { nn.Upsample, { scale_factor = { 1, 2, 3 } }, "scale_factor" },
      { nn.Upsample, { size = 2, align_corners = true }, "[nn.Upsample] argument 'align_corners'" },
      { nn.AdaptiveAvgPool2d, 0, "[nn.AdaptiveAvgPool2d] argument 'size'" },
      { nn.AdaptiveMaxPool2d, nil, "[nn.AdaptiveMaxPool2d] argument 'size'" },
    } do
      local ok, why = pcall(case[1], case[2])
      assert.is_false(ok)
      assert.is_truthy(tostring(why):find(case[3], 1, true), tostring(why))
    end
  end)
end)
