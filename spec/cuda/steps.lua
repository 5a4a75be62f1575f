--- A training step on a device, timed: luajit spec/cuda/steps.lua WORKLOAD DTYPE DEVICE STEPS. Prints one line of JSON.
-- Eager, then captured (unic.capture), then one profiled step. Times are of whole steps that end in a synchronisation; medians.
package.path = "./?.lua;" .. package.path
local cjson = require "cjson"
local unic = require "unic"
local core = require "unic.core"

local name, dtype, device, steps = arg[1], arg[2], arg[3], tonumber(arg[4])
unic.device(device)
unic.manual_seed(1)
local work = require("spec.bench.workloads").make(name)
local parameters = work.model:parameters()
local adamw = unic.optim.AdamW(parameters, { lr = 1e-4 })

local function step()
  adamw:zero_grad()
  local loss = dtype == "f32" and work:loss() or unic.autocast(dtype, function() return work:loss() end)
  loss:backward()
  if work.clip then unic.optim.clip_grad_norm(parameters, work.clip) end
  adamw:step()
  return loss
end

local function timed(run)
  for _ = 1, 3 do run() end
  unic.synchronize(device)
  local times, loss = {}, nil
  for i = 1, steps do
    local begin = core.edit.clock()
    loss = run()
    unic.synchronize(device)
    times[i] = core.edit.clock() - begin
  end
  table.sort(times)
  return { median = times[math.ceil(#times / 2)], min = times[1], loss = loss:item() }
end

core.memory_peak_reset(device)
local out = { workload = name, dtype = dtype, device = device, eager = timed(step) }
out.peak_bytes = core.memory(device).peak
out.captured = timed(unic.capture(step, device))
out.kernels = {}
for i, row in ipairs(unic.profile(step).rows) do
  if i <= 15 then out.kernels[i] = { name = row.name, calls = row.calls, seconds = row.seconds, flops = row.flops, bytes = row.bytes } end
end
print(cjson.encode(out))
