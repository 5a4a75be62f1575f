--- Layers over images beside those of unic.nn.layers: GroupNorm, ConvTranspose2d, adaptive pooling, Upsample. Names, defaults and initial values are PyTorch's.
-- @module unic.nn.spatial
local arguments = require "unic.arguments"
local core = require "unic.core"
local tensor = require "unic.tensor"
local module = require "unic.nn.module"

local ops = core.ops.call
local make = tensor.exports
local Parameter = module.Parameter
local spatial = {}

local check = arguments.check

-- Kinds of arguments.
local SIZE, EPS = { "integer", least = 1 }, { "number", least = 0 }
local WINDOW, PADDING = { "pair", least = 1 }, { "pair", least = 0 }

local function pair(v) return type(v) == "table" and v or { v, v } end
local function text(v) v = pair(v) return v[1] == v[2] and ("%g"):format(v[1]) or ("{%g, %g}"):format(v[1], v[2]) end

--- Group norm: each group of channels of each image gets mean 0 and variance 1, then each channel is scaled and shifted.
-- @param groups the channels are split into that many groups, in order
-- @param channels channels of x [N,C,...], a multiple of `groups`
-- @param options `eps` (1e-5), `affine` (true: `weight` of ones and `bias` of zeros)
spatial.GroupNorm = module.class "GroupNorm"
function spatial.GroupNorm:init(groups, channels, options)
  check("nn.GroupNorm", "groups", groups, SIZE)
  check("nn.GroupNorm", "channels", channels, SIZE)
  options = arguments.options("nn.GroupNorm", options, { eps = EPS, affine = "boolean" })
  if channels % groups ~= 0 then core.fail(("[nn.GroupNorm] argument 'groups': %d was given, expected a divisor of %d channels"):format(groups, channels)) end
  self.groups, self.channels, self.eps = groups, channels, options.eps or 1e-5
  if options.affine ~= false then
    self.weight = Parameter(make.ones(channels))
    self.bias = Parameter(make.zeros(channels))
  end
end
function spatial.GroupNorm:forward(x) return ops.group_norm(x, self.groups, self.weight, self.bias, self.eps) end
function spatial.GroupNorm:extra() return ("%d, %d, eps %g%s"):format(self.groups, self.channels, self.eps, self.weight and "" or ", affine = false") end

-- ---------------------------------------------------------------- ConvTranspose2d

--- Two-dimensional transposed convolution: the way back through a Conv2d with the same options.
-- @param in_channels channels of x
-- @param out_channels channels of y
-- @param kernel a number or {h, w}
-- @param options `stride` (1), `padding` (0), `output_padding` (0), `dilation` (1), `groups` (1), `bias` (true)
spatial.ConvTranspose2d = module.class "ConvTranspose2d"
function spatial.ConvTranspose2d:init(in_channels, out_channels, kernel, options)
  check("nn.ConvTranspose2d", "in_channels", in_channels, SIZE)
  check("nn.ConvTranspose2d", "out_channels", out_channels, SIZE)
  check("nn.ConvTranspose2d", "kernel", kernel, WINDOW)
  options = arguments.options("nn.ConvTranspose2d", options,
    { stride = WINDOW, padding = PADDING, output_padding = PADDING, dilation = WINDOW, groups = SIZE, bias = "boolean" })
  local groups = options.groups or 1
  for name, channels in pairs { in_channels = in_channels, out_channels = out_channels } do
    if channels % groups ~= 0 then arguments.fail("nn.ConvTranspose2d", "argument '%s': %d was given, expected a multiple of groups = %d", name, channels, groups) end
  end
  self.in_channels, self.out_channels, self.kernel, self.groups = in_channels, out_channels, pair(kernel), groups
  self.stride, self.padding, self.dilation, self.output_padding = options.stride or 1, options.padding or 0, options.dilation or 1, options.output_padding or 0
  -- PyTorch's: U(-b, b) with b = 1/sqrt(fan_in), where fan_in counts the weight's second dimension.
  local bound = 1 / math.sqrt(out_channels / groups * self.kernel[1] * self.kernel[2])
  self.weight = Parameter(ops.uniform_(make.empty { in_channels, out_channels / groups, self.kernel[1], self.kernel[2] }, -bound, bound))
  if options.bias ~= false then self.bias = Parameter(ops.uniform_(make.empty { out_channels }, -bound, bound)) end
end
function spatial.ConvTranspose2d:forward(x)
  return ops.conv_transpose2d(x, self.weight, self.bias, self.stride, self.padding, self.dilation, self.groups, self.output_padding)
end
function spatial.ConvTranspose2d:extra()
  return ("%d, %d, kernel %s, stride %s%s"):format(self.in_channels, self.out_channels, text(self.kernel), text(self.stride), self.bias and "" or ", bias = false")
end

-- ---------------------------------------------------------------- adaptive pooling, other sizes

--- Means over as many windows as the result has pixels.
-- @param size of the result, a number or {h, w}
spatial.AdaptiveAvgPool2d = module.class "AdaptiveAvgPool2d"
function spatial.AdaptiveAvgPool2d:init(size)
  check("nn.AdaptiveAvgPool2d", "size", size, WINDOW)
  self.size = size
end
function spatial.AdaptiveAvgPool2d:forward(x) return ops.adaptive_avg_pool2d(x, self.size) end
function spatial.AdaptiveAvgPool2d:extra() return text(self.size) end

--- Maxima over as many windows as the result has pixels.
-- @param size of the result, a number or {h, w}
spatial.AdaptiveMaxPool2d = module.class "AdaptiveMaxPool2d"
function spatial.AdaptiveMaxPool2d:init(size)
  check("nn.AdaptiveMaxPool2d", "size", size, WINDOW)
  self.size = size
end
function spatial.AdaptiveMaxPool2d:forward(x) return ops.adaptive_max_pool2d(x, self.size) end
function spatial.AdaptiveMaxPool2d:extra() return text(self.size) end

--- Images of another size.
-- @param options `size` (a number or {h, w}) or `scale_factor` (a positive number or a pair: the size is rounded down, and the ratio of the sizes is what
-- counts); `mode` ("nearest", "bilinear", "bicubic"), `align_corners` (false)
spatial.Upsample = module.class "Upsample"
local FACTOR = { text = "a positive number, or two", test = function(v)
  for _, each in ipairs(type(v) == "table" and (#v == 2 and v or { 0 }) or { v }) do
    if type(each) ~= "number" or not (each > 0 and each < math.huge) then return false end
  end
  return v ~= nil
end }
function spatial.Upsample:init(options)
  options = arguments.options("nn.Upsample", options, { size = WINDOW, scale_factor = FACTOR, mode = { "choice", "nearest", "bilinear", "bicubic" }, align_corners = "boolean" })
  if (options.size == nil) == (options.scale_factor == nil) then arguments.fail("nn.Upsample", "argument 'size': expected either size or scale_factor") end
  if options.align_corners and (options.mode or "nearest") == "nearest" then arguments.fail("nn.Upsample", "argument 'align_corners': nearest has no corners to align") end
  self.size, self.scale_factor, self.mode, self.align_corners = options.size, options.scale_factor, options.mode or "nearest", options.align_corners or false
end
function spatial.Upsample:forward(x)
  local size = self.size
  if not size then
    local factor = pair(self.scale_factor)
    size = { math.floor(x:size(3) * factor[1]), math.floor(x:size(4) * factor[2]) }
  end
  return ops.interpolate(x, size, self.mode, self.align_corners)
end
function spatial.Upsample:extra()
  return ("%s %s, %s%s"):format(self.size and "size" or "scale_factor", text(self.size or self.scale_factor), self.mode, self.align_corners and ", align_corners" or "")
end

return spatial
