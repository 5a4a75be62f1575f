--- Methods of a run around the training loop: batches, gradients, losses, checkpoints. Loaded by unic.run.
-- @module unic.run.loop
local core = require "unic.core"
local tensor = require "unic.tensor"
local checkpoint = require "unic.run.checkpoint"
local folder = require "unic.run.folder"
local metrics = require "unic.run.metrics"
local source = require "unic.run.source"

local fail = folder.fail
local clock, hold = core.edit.clock, core.edit.hold
local is_tensor = core.tensor.is_tensor
local loop = {}

--- The number of optimiser steps in all: --steps, or --epochs times the data.
-- @param ds a data set (needed when --steps is 0)
-- @param options as for `batches`
-- @return a number
function loop:steps(ds, options)
  local opt = self.options
  if opt.steps and opt.steps > 0 then return opt.steps end
  if not opt.epochs or opt.epochs == 0 then fail "neither --steps nor --epochs is set, expected one of them" end
  local count = source.batches_per_epoch(ds, self:source_options(options))
  if not count then fail "--epochs needs to know how many batches the data has; a function does not tell, expected --steps" end
  local steps = math.floor(opt.epochs * count / self.accumulate)
  if steps == 0 then fail("%d batches make no step of --accumulate %d", opt.epochs * count, self.accumulate) end
  return steps
end

-- Options of the data pipeline: the recipe's own, and for what it leaves open those of the command line.
function loop:source_options(options)
  local merged = {}
  for key, value in pairs(options or {}) do merged[key] = value end
  local opt = self.options
  if merged.batch == nil then merged.batch = opt.batch end
  if merged.seed == nil then merged.seed = opt.seed or 1 end
  if merged.workers == nil then merged.workers = opt.workers end
  if merged.device == nil then merged.device = self.device end
  return merged
end

local function zero_grad(attached)
  for _, optimizer in pairs(attached.optimizers) do optimizer:zero_grad() end
  if attached.model then attached.model:zero_grad() end
end

--- The batches of a training, over the epochs, until the last step: the head of the loop. Before each step it drops the gradients of the
-- attached optimisers and model. It saves at the end, every --save-every steps, and at Ctrl-C (which ends the program after the step).
-- @param ds a data set; a list of batches; or a function (epoch) -> iterator over the batches of that epoch, the same ones at every call
-- @param options for `unic.data.batches`: `views`, `batch` (--batch), ...
-- @return an iterator: batch, step
function loop:batches(ds, options)
  if self.options.dry then self:end_dry() end
  if self.next_batch then fail "batches: this run has a loop already, expected one" end
  if self.saved and not self.attached.model then fail "batches: the run is resumed and nothing is attached, expected run:attach{model = ..} before the loop" end
  local merged = self:source_options(options)
  self.total = self:steps(ds, options)
  self.usual_rows, self.rows_are = merged.batch, type(ds) == "table" and ds.texts_only and "texts" or "images"
  local stream = self.step < self.total and source.open(ds, merged, self.epoch, self.position) or nil
  self.stream = stream
  if self.saved then
    -- After the source was opened: what it drew to come to its place is undone.
    checkpoint.finish(self.saved)
    self.saved = nil
  end
  self.begun, self.first_step = clock(), self.step
  self.window_begun, self.read_at = self.begun, -math.huge
  self.done = { epoch = self.epoch, position = self.position }
  core.memory_peak_reset()
  self.next_batch = function() return self:advance(stream) end
  hold(true)
  return self.next_batch
end

-- One turn of the loop's head: end the body that ran, begin the next.
function loop:advance(stream)
  self:end_body()
  if self.micro == 0 then
    if hold(true) then self:stop_interrupted() end
    if self.step >= self.total then
      self:finish()
      return nil
    end
    zero_grad(self.attached)
    self.step = self.step + 1
    self.row = { values = {}, is_loss = {}, total = {}, rows = 0 }
  end
  local batch, epoch, position = stream:next()
  if batch == nil then
    local step = self.step
    self:finish()
    fail("the data ended in step %d of %d", step, self.total)
  end
  self.micro = self.micro + 1
  self.epoch, self.position = epoch, position
  self.row.rows = self.row.rows + source.rows(batch, self.usual_rows)
  self.in_body = true
  return batch, self.step
end

-- What is left to do after a body: at the end of a group, the step is over.
function loop:end_body()
  if not self.in_body then return end
  self.in_body = false
  if self.micro < self.accumulate then return end
  self.micro = 0
  self.done = { epoch = self.epoch, position = self.position }
  local row = self.row
  row.step, row.epoch, row.seconds = self.step, self.epoch, self:seconds()
  self.metrics:add(row)
  -- Reading the losses waits for the device, so it is done seldom; but a person waits no longer than a second for a slow step.
  local first = self.step == self.first_step + 1
  if first or self.step % self.log_every == 0 or self.step == self.total or clock() - self.read_at > 1 then self:read_metrics() end
  local every = self.options.save_every or 0
  if self.save_wanted or (every > 0 and self.step % every == 0) then self:save() end
end

--- Seconds of training, those before a resume included.
function loop:seconds() return self.seconds_before + (self.begun and clock() - self.begun or 0) end

-- Read the losses since the last time, write them, show them.
function loop:read_metrics()
  local rows = 0
  for _, row in ipairs(self.metrics.pending) do rows = rows + row.rows end
  if #self.metrics.pending == 0 then return end
  -- Temporaries of the last steps go now, so that the memory below is what the training needs and not what the collector has not met yet.
  collectgarbage()
  local now = clock()
  local rate = rows / math.max(1e-9, now - self.window_begun)
  local memory = core.memory(self.device)
  local last = self.metrics:flush { rate = rate, active = memory.active / 1e6, peak = memory.peak / 1e6 }
  self.window_begun, self.read_at = now, now
  self.last_loss = last.loss == last.loss and last.loss or nil   -- NaN where the recipe logs no loss
  local per_step = (now - self.begun) / math.max(1, self.step - self.first_step)
  self.progress:update {
    step = self.step, total = self.total, rate = rate, rows_are = self.rows_are, left = per_step * (self.total - self.step), loss = last.loss,
    mean = last.mean, parts = last.parts,
  }
end

-- Ctrl-C came during the step that has just ended.
function loop:stop_interrupted()
  hold(false)
  self:read_metrics()
  self:save()
  self.progress:done()
  self:say("stopped after step %d of %d; --resume %s continues", self.step, self.total, self.dir)
  error("interrupted", 0)
end

-- The end of the training: after the last step, or when the loop was left by `break` and the recipe goes on.
function loop:finish()
  if self.finished or not self.next_batch then return end
  self.finished = true
  local waited = hold(false)
  if self.stream then self.stream:close() end
  self:end_body()
  if self.micro > 0 then
    -- A step that was not completed does not count.
    self.step, self.micro = self.step - 1, 0
    self.epoch, self.position = self.done.epoch, self.done.position
  end
  self:read_metrics()
  if self.step > self.saved_step then self:save() end
  self.progress:done()
  self:write_report()
  if waited then error("interrupted", 0) end
end

--- Does this batch end a step that is a multiple of n? For what is done now and then in the loop: `if run:every(opt.eval_every) then`.
-- @param n steps; 0 = never
-- @return true or false
function loop:every(n) return n ~= nil and n > 0 and self.micro == self.accumulate and self.step % n == 0 end

--- Run fn with matrix products and convolutions in --dtype (`unic.autocast`); with f32, just run it.
-- @param fn a function
-- @param ... its arguments
-- @return what fn returns
function loop:autocast(fn, ...)
  local dtype = self.options.dtype
  if dtype == nil or dtype == "f32" then return fn(...) end
  return tensor.with(core.autocast, dtype, fn, ...)
end

-- The gradients of a step are complete: those of f16 are divided by the loss scale, and the optimisers are told when they overflowed.
local function settle_scale(self)
  local scaler = self.scaler
  self.row.values.loss_scale = { scaler.loss_scale:duplicate() }
  for _, optimizer in pairs(self.attached.optimizers) do scaler:unscale(optimizer) end
  for _, optimizer in pairs(self.attached.optimizers) do optimizer:set_scale(scaler:verdict()) end
  scaler:update()
end

--- Walk back from the loss. With --accumulate n, the gradients of n batches add up to their mean. With --dtype f16 the loss is scaled
-- (`optim.GradScaler`) and the gradients are not, when they are complete; where they overflowed, the attached optimisers leave out their step.
-- @param loss a tensor of one element
-- @return true when the gradients of the step are complete: now clip, step, log
function loop:backward(loss)
  if not is_tensor(loss) then fail("backward: a %s was given, expected a tensor", type(loss)) end
  if self.scaler and self.in_body then
    local scale = self.accumulate == 1 and self.scaler.loss_scale or self.scaler.loss_scale * (1 / self.accumulate)
    loss:backward { gradient = scale:cast(loss.dtype):reshape(loss.shape) }
  elseif self.accumulate == 1 then
    loss:backward()
  else
    if not self.share or self.share.dtype ~= loss.dtype or self.share:dim() ~= loss:dim() then
      self.share = tensor.exports.full(loss.shape, 1 / self.accumulate, { dtype = loss.dtype, device = loss.device }):set_keep(true)
    end
    loss:backward { gradient = self.share }
  end
  if not self.in_body then return true end
  self.row.total[#self.row.total + 1] = loss:detach()
  local _, optimizer = next(self.attached.optimizers)
  if optimizer then self.row.lr = optimizer:get_lr() end   -- now: the schedule moves on before the row is written
  local complete = self.micro == self.accumulate
  if complete and self.scaler then settle_scale(self) end
  return complete
end

--- Note losses of the step. They stay on the device and are read every --log-every steps; what is NaN or Inf then ends the run.
-- With --accumulate, every call adds to the step's mean.
-- @param values name -> number or tensor of one element; `cvl`, `ssv`, `ctr_tf`, `ctr_tt` have columns in metrics.csv, others get one. The
-- column `loss` is what `run:backward` was given, unless it is here
-- @param extra name -> number or tensor: `grad_norm`, `loss_scale`, `lr`, ...: noted, but not held to be losses
function loop:log(values, extra)
  if not self.in_body then fail "log: is for the loop over run:batches; run:eval notes what is measured outside" end
  local row = self.row
  for k, list in ipairs { values or {}, extra or {} } do
    for name, value in pairs(list) do
      value = metrics.hold(name, value)
      local held = row.values[name] or {}
      held[#held + 1] = value
      row.values[name] = held
      if k == 1 then row.is_loss[name] = true end
    end
  end
end

--- Save a checkpoint, in checkpoints/step-N.safetensors; `last` names it. The newest two and the best are kept. Called in the loop, it is
-- done when the step is over.
function loop:save()
  if self.options.dry then return end
  if self.in_body then
    self.save_wanted = true
    return
  end
  if not self.attached.model and not next(self.attached.tensors) then fail "save: nothing is attached, expected run:attach{model = ..}" end
  -- Rows of a step are on the disk before its checkpoint is, so that a resume finds them.
  if self.next_batch then self:read_metrics() end
  local options = {}
  for name, value in pairs(self.options) do options[name] = value end
  local done = self.done or { epoch = self.epoch, position = self.position }
  local path = checkpoint.save(self.dir .. "/checkpoints", self.step, self.attached, {
    recipe = self.name, step = self.step, epoch = done.epoch, position = done.position, seconds = self:seconds(), best = self.best_value,
    vocabulary = self.vocabulary_hash, options = options, loss = self.last_loss,
  }, self.best_wanted)
  self.saved_step, self.save_wanted, self.best_wanted = self.step, nil, nil
  self.progress:write_log("saved " .. path)
end

--- Note how good the model is now; the best so far is saved, and `checkpoints/best.safetensors` names it.
-- @param value a number, larger is better
-- @return true when it is the best
function loop:best(value)
  if type(value) ~= "number" then fail("best: a %s was given, expected a number", type(value)) end
  if self.best_value and not (value > self.best_value) then return false end
  self.best_value, self.best_wanted = value, true
  self:save()
  return true
end

return loop
