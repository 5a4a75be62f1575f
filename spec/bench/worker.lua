--- One side of a comparison: a model that takes training steps when it is told to. Lines on stdin, a line of JSON for each on stdout; peer.py is the other
-- side and speaks the same.
--
--   luajit spec/bench/worker.lua (work|infer) WORKLOAD (f32|bf16) (full|low) [FILE]
--     low: little memory, by recomputing and by steps inside the backward; FILE: weights and inputs, made by peer.py (drawn here without it)
--   norm      loss and norm of all gradients without dropout; changes nothing
--   steps N   N steps, seconds of each
--   about     sizes and types
--   work      a step's flops, bytes and best rates (limit.lua)
--   mark      forget the highest resident memory so far
--   peak      the highest since then
--   profile   a step under unic.profile: seconds of every op
--   quit
package.path = "./?.lua;" .. package.path
local cjson = require "cjson"

-- A loss that is no number is for the other end to judge.
cjson.encode_invalid_numbers(true)

local function resident(field)
  for line in io.lines "/proc/self/status" do
    local kb = line:match("^" .. (field or "VmRSS") .. ":%s+(%d+)")
    if kb then return kb * 1024 end
  end
end

local unic = require "unic"
local core = require "unic.core"
local imported = resident()
local mode, name, dtype, memory, path = unpack(arg)
local limit = require "spec.bench.limit"
local workloads = require "spec.bench.workloads"
local optim = unic.optim

unic.manual_seed(0)
core.low_memory(memory == "low")
local side = workloads.make(name)
if path then
  local file = unic.weights.open(path)
  unic.weights.load(side.model, file, { left_over = { "^input%." }, ignore = { "num_batches_tracked$" }, map = function(n) return n end, quiet = true })
  for key in pairs(side.inputs) do side.inputs[key] = file:tensor("input." .. key) end
  file:close()
end
side.model[mode == "work" and "train" or "eval"](side.model)

local params = {}
for _, p in ipairs(side.model:parameters()) do
  if p.requires_grad then params[#params + 1] = p end
end
local adamw = optim.AdamW(params, { lr = 1e-4, weight_decay = 0.05 })
local clock = core.edit.clock

local function loss_of()
  if dtype == "f32" then return side:loss() end
  return unic.autocast(dtype, function() return side:loss() end)
end

-- Clipping by the norm of all gradients takes all gradients at once.
local in_backward = memory == "low" and not side.clip

local value
local function step()
  local begin = clock()
  adamw:zero_grad()
  local loss = loss_of()
  if in_backward then loss:backward { step = adamw } else
    loss:backward()
    if side.clip then optim.clip_grad_norm(params, side.clip) end
    adamw:step()
  end
  value = loss:item()
  return clock() - begin
end

local function infer()
  local begin = clock()
  unic.no_grad(function() value = loss_of():item() end)
  return clock() - begin
end

local once = mode == "work" and step or infer
local commands = {}

local function keys(set)
  local list = {}
  for key in pairs(set) do list[#list + 1] = key end
  return list
end

function commands.norm()
  -- Without dropout: a model of its own with these weights, or the rates would have to be put back one by one.
  local probe = workloads.make(name, { dropout = 0 })
  local own = side.model:state_dict()
  probe.model:load_state_dict(own)
  probe.model:train()
  probe.inputs = side.inputs
  local keep = side
  side = probe
  local loss = loss_of()
  loss:backward()
  side = keep
  local grads, missing = {}, 0
  for _, p in ipairs(probe.model:parameters()) do
    if p.grad then grads[#grads + 1] = p.grad elseif p.requires_grad then missing = missing + 1 end
  end
  local total = 0
  for _, g in ipairs(grads) do total = total + g:to("f64"):square():sum():item() end
  return { loss = loss:item(), norm = math.sqrt(total), missing = missing }
end

function commands.steps(n)
  local seconds = {}
  for i = 1, tonumber(n) do seconds[i] = once() end
  return { seconds = seconds, loss = value }
end

function commands.about()
  local types, count, state = {}, 0, 0
  for _, p in ipairs(side.model:parameters()) do
    count = count + p:numel()
    types[p.dtype] = true
  end
  for _, t in pairs(adamw:state_dict(optim.names(side.model))) do
    if t:dim() > 0 then
      state = state + t:numel()
      types[t.dtype] = true
    end
  end
  local rates = {}
  side.model:apply(function(m)
    local own = (m._name == "Dropout" or m._name == "DropPath") and m.p
    for _, rate in ipairs { m.dropout or 0, m.attention_dropout or 0, own or 0 } do
      if type(rate) == "number" and rate > 0 then rates[rate] = true end
    end
  end)
  local missing = 0
  for _, p in ipairs(params) do
    -- Where gradients are used up one by one, what has no state had none.
    if not (in_backward and adamw.state[p] or p.grad) then missing = missing + 1 end
  end
  return { parameters = count, state = state, types = keys(types), dropout = keys(rates), training = side.model.training, gradients_missing = missing }
end

function commands.work()
  core.watch.profile_start()
  once()
  local work = limit.of_events(core.watch.profile_stop())
  work.gradients, work.inputs = 0, 0
  for _, p in ipairs(params) do work.gradients = work.gradients + 4 * p:numel() end
  for _, t in pairs(side.inputs) do work.inputs = work.inputs + t:numel() * (t.dtype == "i64" and 8 or 4) end
  return work
end

function commands.mark()
  local file = assert(io.open("/proc/self/clear_refs", "w"))
  file:write "5"
  file:close()
  return { resident = resident() }
end

function commands.peak() return { peak = resident "VmHWM", resident = resident(), memory = unic.memory() } end

function commands.profile()
  local report = unic.profile(step, { by = os.getenv "BY" })
  io.stderr:write(report:table(nil, 60), "\n")
  return {}
end

local function answer(t)
  io.write(cjson.encode(t), "\n")
  io.flush()
end

-- "0-3,8" -> 0, 1, 2, 3, 8
local function cores()
  local list = {}
  for line in io.lines "/proc/self/status" do
    for part in (line:match "^Cpus_allowed_list:%s*(.*)$" or ""):gmatch "[^,]+" do
      local first, last = part:match "^(%d+)%-?(%d*)"
      for core_ = tonumber(first), tonumber(last) or tonumber(first) do list[#list + 1] = core_ end
    end
  end
  return list
end

local openblas = {}
for variable in pairs(require("posix.stdlib").getenv()) do
  if variable:match "^OPENBLAS" then openblas[variable] = true end
end

answer { version = core.version(), isa = (core.isa()), threads = core.threads(), imported = imported, cores = cores(), openblas = keys(openblas) }
for line in io.lines() do
  local command, rest = line:match "^(%S+)%s*(.*)$"
  if command == "quit" then break end
  answer(commands[command](rest))
end
