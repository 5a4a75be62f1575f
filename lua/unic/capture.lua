--- A training step that runs without Lua: recorded once, then replayed, on a GPU as one CUDA graph.
-- @module unic.capture
local arguments = require "unic.arguments"
local core = require "unic.core"
local tensor = require "unic.tensor"

local ops = core.ops.call

local function text_of(t) return ("%s [%s] on %s"):format(t.dtype, table.concat(t.shape, ", "), t.device) end

local Step = {}
Step.__index = Step
Step.__name = "unic.capture"

-- The new inputs into the memory that the recorded launches read.
local function take(self, ...)
  local n = select("#", ...)
  if n ~= #self.inputs then arguments.fail("capture", "%d inputs were given, %d were there when the step was recorded", n, #self.inputs) end
  for i = 1, n do
    local new, fixed = select(i, ...), self.inputs[i]
    arguments.check("capture", tostring(i), new, "tensor")
    if text_of(new):match "^(.*) on" ~= text_of(fixed):match "^(.*) on" then
      arguments.fail("capture", "input %d is %s, it was %s when the step was recorded; shapes and types stay as they were", i, text_of(new), text_of(fixed))
    end
  end
  for i = 1, n do
    local new = select(i, ...)
    if new.device ~= self.device then new = new:to(self.device) end
    tensor.with(core.grad_mode, false, self.inputs[i].copy_, self.inputs[i], new)
  end
end

--- The next step. The first call runs the function (what is made once is made there: moments of an optimiser), the second records it, later ones replay.
-- @param ... the function's inputs, tensors; always of the same shapes and types
-- @return what the function returned: from the second call on always the same tensors, with new values
function Step:__call(...)
  self.calls = self.calls + 1
  if self.calls == 1 then return self.fn(...) end
  if not self.recording then
    self.inputs = {}
    for i = 1, select("#", ...) do
      local given = arguments.check("capture", tostring(i), (select(i, ...)), "tensor")
      self.inputs[i] = tensor.with(core.grad_mode, false, ops.contiguous, given.device == self.device and tensor.exports.clone(given:detach()) or given:detach():to(self.device))
    end
    local function keep(recording, ...)
      self.recording, self.outputs, self.count = recording, { ... }, select("#", ...)
      return ...
    end
    return keep(core.record(function() return self.fn(unpack(self.inputs)) end, self.device))
  end
  take(self, ...)
  self.recording:replay()
  return unpack(self.outputs, 1, self.count)
end

--- Number of launches of a recorded step; nil before the second call.
function Step:launches() return self.recording and self.recording:launches() end

--- A step of a training as one piece: `local step = unic.capture(function(x, y) ... return loss end)`, then `loss = step(x, y)` for every batch.
-- What changes from step to step must lie in tensors (optimisers and generators do so); the function must do the same with every batch: no branch on a
-- value, no number read back. Losses and parameters have the bits of the same steps run eagerly.
-- @param fn a function of tensors
-- @param device where the step runs (the default device)
-- @return a step, to be called
return function(fn, device)
  arguments.check("capture", "fn", fn, "callable")
  local name, why = core.device_open(device or core.device_default())
  if not name then core.fail(why) end
  return setmetatable({ fn = fn, device = name, calls = 0 }, Step)
end
