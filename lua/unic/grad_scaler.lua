--- Dynamic loss scaling (Micikevicius et al. 2018): f16 gradients below 6e-8 are zero, so the loss is multiplied by a large number before the
-- backward and the gradients are divided by it after. Where they overflow, the step is left out and the number is halved; after many steps
-- without that it is doubled. bf16 has the range of f32 and needs none of it.
--
--   local scaler = optim.GradScaler()
--   scaler:scale(loss):backward()
--   scaler:unscale(adamw)                      -- before clipping; step() does it otherwise
--   optim.clip_grad_norm(model:parameters(), 1)
--   scaler:step(adamw)
--   scaler:update()
--
-- The scale, its counters and what was found live on the device: nothing waits for them, and a recorded step replays.
-- Sources: PyTorch's names and defaults; apex O1's least scale of 1.
-- @module unic.grad_scaler
local arguments = require "unic.arguments"
local core = require "unic.core"
local in_backward = require "unic.step_in_backward"
local tensor = require "unic.tensor"

local ops, make = core.ops.call, tensor.exports

local GradScaler = {}
GradScaler.__index = GradScaler

local function without_grad(fn, ...) return tensor.with(core.grad_mode, false, fn, ...) end

--- A scaler.
-- @param options `init` (65536), `growth` (2), `backoff` (0.5), `interval` (2000 steps without an overflow until it grows), `least` (1),
-- `device` (of the losses; nil = the default device)
-- @return an object: `scale(loss)`, `unscale(optimizer)`, `step(optimizer)`, `update()`, `get_scale()`, `skipped()`, `tensors()` (for
-- `run:attach`), and `loss_scale`, the scale as a tensor
local function new(options)
  options = arguments.options("optim.GradScaler", options, {
    init = { "number", above = 0 }, growth = { "number", least = 1 }, backoff = { "number", above = 0, most = 1 }, interval = { "integer", least = 1 },
    least = { "number", above = 0 }, device = "string",
  })
  local function scalar(value) return make.full({}, value, { device = options.device }):set_keep(true) end
  return setmetatable({
    loss_scale = scalar(options.init or 65536), good = scalar(0), left_out = scalar(0), found = scalar(0),
    growth = options.growth or 2, backoff = options.backoff or .5, interval = options.interval or 2000, least = options.least or 1, unscaled = {},
  }, GradScaler)
end

--- The loss times the scale.
-- @param loss a tensor of one element
-- @return a tensor; walk back from it
function GradScaler:scale(loss)
  arguments.check("scaler.scale", "loss", loss, "tensor")
  local scaled = ops.mul(ops.cast(loss, "f32"), self.loss_scale)
  in_backward.refuse(scaled, "the loss is scaled, and whether the step is taken is known when all gradients are there")
  return scaled
end

-- Gradients over the scale, in place, and whether one of them is not finite.
local function unscale_list(self, grads)
  if #grads == 0 then return end
  without_grad(function()
    ops.scale_(grads, ops.reciprocal(self.loss_scale))
    local bad = ops.cast(ops.logical_not(ops.isfinite(ops.grad_norm(grads))), "f32")
    self.found:copy_(ops.maximum(self.found, bad))
  end)
end

--- Divide an optimiser's gradients by the scale, once a step, to clip or to look at them.
-- @param optimizer with parameters that have gradients
function GradScaler:unscale(optimizer)
  if type(optimizer) ~= "table" or not optimizer.groups then
    arguments.fail("scaler.unscale", "argument 'optimizer': %s, expected an optimiser", arguments.describe(optimizer))
  end
  if self.unscaled[optimizer] then arguments.fail("scaler.unscale", "argument 'optimizer': its gradients were divided already, expected scaler:update() in between") end
  self.unscaled[optimizer] = true
  local grads = {}
  for _, group in ipairs(optimizer.groups) do
    for _, p in ipairs(group.params) do grads[#grads + 1] = p.grad end
  end
  unscale_list(self, grads)
end

--- A number for `optimizer:set_scale`: 1, or NaN (which changes nothing) when a gradient overflowed.
-- @return a tensor without dimensions
function GradScaler:verdict()
  return without_grad(function() return ops.where(ops.gt(self.found, 0), 0 / 0, ops.add(ops.mul(self.found, 0), 1)) end)
end

--- Let an optimiser step, unless a gradient overflowed.
-- @param optimizer as for `unscale`
function GradScaler:step(optimizer)
  if not self.unscaled[optimizer] then self:unscale(optimizer) end
  local scale = optimizer.scale
  optimizer:set_scale(core.tensor.is_tensor(scale) and without_grad(ops.mul, scale, self:verdict()) or without_grad(ops.mul, self:verdict(), scale))
  optimizer:step()
  optimizer:set_scale(scale)
end

--- The end of the step: the scale for the next one.
function GradScaler:update()
  self.unscaled = {}
  without_grad(function()
    local bad, full = ops.gt(self.found, 0), ops.ge(ops.add(self.good, 1), self.interval)
    local grown = ops.where(full, ops.mul(self.loss_scale, self.growth), self.loss_scale)
    self.loss_scale:copy_(ops.where(bad, ops.clamp(ops.mul(self.loss_scale, self.backoff), { min = self.least }), grown))
    self.good:copy_(ops.where(ops.logical_or(bad, full), 0, ops.add(self.good, 1)))
    self.left_out:copy_(ops.add(self.left_out, self.found))
    self.found:fill_(0)
  end)
end

--- The scale, a number (waits for the device).
function GradScaler:get_scale() return self.loss_scale:item() end

--- How many steps were left out, a number (waits for the device).
function GradScaler:skipped() return self.left_out:item() end

--- What a checkpoint holds of it: `run:attach{tensors = scaler:tensors()}`.
-- @return {loss_scale =, loss_scale_good =, loss_scale_skipped =}
function GradScaler:tensors() return { loss_scale = self.loss_scale, loss_scale_good = self.good, loss_scale_skipped = self.left_out } end

return new
