--- Places for unic.grid_sample from affine maps.
-- Broadcast sums rather than a matrix product: under autocast a product would round the places to bf16.
-- @module unic.affine_grid
local arguments = require "unic.arguments"
local core = require "unic.core"
local tensor = require "unic.tensor"

local ops = core.ops.call

-- Pixel centres of n pixels over -1 .. 1.
local function ramp(n, align, like)
  local step, first = align and (n > 1 and 2 / (n - 1) or 0) or 2 / n, align and (n > 1 and -1 or 0) or 1 / n - 1
  return tensor.exports.arange(n, { dtype = like.dtype, device = like.device }) * step + first
end

--- A grid of places: `grid[n][i][j] = theta[n] (across, down, 1)` for the pixel centres of an image.
-- @param theta affine maps [N, 2, 3], f32 or f64, from the result's places to the source's
-- @param size shape of the result, {N, C, H, W}
-- @param options `align_corners` (false): -1 and 1 are the centres of the border's pixels, not their outer edges
-- @return places [N, H, W, 2] for unic.grid_sample, differentiable in theta
return function(theta, size, options)
  arguments.check("affine_grid", "theta", theta, "tensor")
  arguments.check("affine_grid", "size", size, "table")
  options = arguments.options("affine_grid", options, { align_corners = "boolean" })
  local shape = theta.shape
  if #shape ~= 3 or shape[2] ~= 2 or shape[3] ~= 3 or (theta.dtype ~= "f32" and theta.dtype ~= "f64") then
    arguments.fail("affine_grid", "argument 'theta': %s [%s] was given, expected f32 or f64 [N, 2, 3]", theta.dtype, table.concat(shape, ", "))
  end
  for d = 1, 4 do
    local n = size[d]
    if #size ~= 4 or type(n) ~= "number" or n % 1 ~= 0 or n < (d > 2 and 1 or 0) then
      arguments.fail("affine_grid", "argument 'size': expected {N, C, H, W}, H and W at least 1")
    end
  end
  if size[1] ~= shape[1] then arguments.fail("affine_grid", "argument 'size': it is for %d images, theta has %d maps", size[1], shape[1]) end
  local function column(k) return ops.reshape(ops.narrow(theta, 3, k, 1), { shape[1], 1, 1, 2 }) end
  local across = ops.reshape(ramp(size[4], options.align_corners, theta), { 1, 1, size[4], 1 })
  local down = ops.reshape(ramp(size[3], options.align_corners, theta), { 1, size[3], 1, 1 })
  return column(1) * across + column(2) * down + column(3)
end
