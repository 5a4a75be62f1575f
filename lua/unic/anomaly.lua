--- Anomaly mode: stop at the first NaN or infinity, and name the op, the module, the tensor and the line.
-- Every op's outputs and every gradient are looked at, which costs several times the run; for finding a fault, not for training.
-- Infinities that were asked for (an infinite fill value, an input that has some already and is no parameter) are no anomaly; a NaN always is.
-- @module unic.anomaly
local arguments = require "unic.arguments"
local core = require "unic.core"
local module = require "unic.nn.module"
local tensor = require "unic.tensor"

local ops = core.ops.call
local anomaly = {}

-- Numbers of NaN and of infinite elements.
local function count(t)
  if t:numel() == 0 or ops.all(ops.isfinite(t)):item() then return 0, 0 end
  local function number(mask) return ops.sum(ops.cast(mask, "i64")):item() end
  return number(ops.isnan(t)), number(ops.isinf(t))
end

-- Where the first such element is, as one writes it: {2, 5}.
local function first_place(t)
  local at = ops.argmax(ops.reshape(ops.cast(ops.logical_not(ops.isfinite(t)), "f32"), { -1 })):item()
  local shape, place = t.shape, {}
  for d = #shape, 1, -1 do
    place[d] = at % shape[d] + 1
    at = math.floor(at / shape[d])
  end
  return "{" .. table.concat(place, ", ") .. "}"
end

local function amount(nan, inf)
  if nan > 0 and inf > 0 then return ("%d NaN and %d infinite values"):format(nan, inf) end
  return nan > 0 and ("%d NaN"):format(nan) or ("%d infinite value%s"):format(inf, inf == 1 and "" or "s")
end

local function described(t) return ("%s [%s]"):format(t.dtype, table.concat(t.shape, ", ")) end

-- Ops of the look itself run as they are: no gradient, no autocast.
local function look(fn, ...) return tensor.with(core.autocast, "f32", tensor.with, core.grad_mode, false, fn, ...) end

local function on_forward(op, number, outs, ins, asked_for)
  for _, out in ipairs(outs) do
    local nan, inf = count(out.tensor)
    if nan > 0 or inf > 0 then
      local before = {}
      for _, input in ipairs(ins) do
        local n, i = count(input.tensor)
        if n > 0 or i > 0 then
          if i > 0 and not input.parameter then asked_for = true end
          before[#before + 1] = ("'%s' has %s already"):format(input.name, amount(n, i))
        end
      end
      if nan > 0 or not asked_for then
        core.fail(("[%s] anomaly: its output '%s', %s, has %s, the first at %s; %s%s"):format(op, out.name, described(out.tensor), amount(nan, inf),
          first_place(out.tensor), #before > 0 and "its input " .. table.concat(before, ", ") or "its inputs were finite",
          number > 0 and "; in " .. module.name_of(number) or ""))
      end
    end
  end
end

local function on_backward(op, number, argument, gradient, line)
  local nan, inf = count(gradient)
  if nan > 0 or inf > 0 then
    core.fail(("[%s] anomaly: in its backward the gradient of '%s', %s, has %s, the first at %s; the op ran at %s%s"):format(op, argument,
      described(gradient), amount(nan, inf), first_place(gradient), line or "an unknown line", number > 0 and " in " .. module.name_of(number) or ""))
  end
end

local function switch(on)
  if on == nil then return core.watch.watching end
  core.watch.watch(on and function(...) look(on_forward, ...) end or nil, on and function(...) look(on_backward, ...) end or nil)
  module.watch("anomaly", on)
  core.watch.watching = on
end
core.watch.watching = false

--- Switch anomaly mode on or off, or run a function in it.
-- @param what true, false, or a function (or module)
-- @param ... arguments of the function
-- @return what the function returns; else whether it was on before
function anomaly.anomaly(what, ...)
  if type(what) == "boolean" then
    local was = switch()
    switch(what)
    return was
  end
  arguments.check("anomaly", "what", what, { test = function(x) return type(x) == "function" or module.is_module(x) end, text = "true, false or a function" })
  return tensor.with(switch, true, what, ...)
end

return anomaly
