-- 50 steps of a small ResNet, ViT and BERT with every optimiser and schedule against PyTorch's, f64 and f32 (spec/golden/trajectory.py)
-- Cost: about a minute
package.path = "./?.lua;" .. package.path
local support = require "spec.support.check"
local unic = require "unic"
local golden = require "spec.support.golden"
local check = support.open "trajectory"

local KEPT = 12
-- f64: only the order of sums differs; 50 steps let that grow. f32: three times what rounding alone does to PyTorch, see `noise`.
local F64, TIMES, LEAST = 1e-8, 3, 1e-6
-- A ReLU's input that rounding takes over zero changes a run by far more than rounding elsewhere, in one of several runs, by chance.
local BY_CHANCE = 1

local only
for i, word in ipairs(arg) do
  if word == "--only" then only = arg[i + 1] end
end

local function make(case)
  local models = { resnet = "unic.models.resnet", vit = "unic.models.vit", bert = "unic.models.bert" }
  local m = require(models[case.network])
  if case.network == "resnet" then return m.Resnet(m[case.block], case.depths, case.options) end
  if case.network == "vit" then return m.Vit(case.options) end
  return m.Bert(case.options)
end

-- Which elements of a parameter were kept, from 0.
local function places(case, name, n)
  local at = {}
  if n <= KEPT then
    for i = 1, n do at[i] = i - 1 end
    return at
  end
  return golden.places(("%s/%s/sample"):format(case.network, name), KEPT, n)
end

local function batch_of(case, at, dtype)
  local batch = {}
  local inputs = { target = { kind = "ints", shape = { case.inputs.x.shape[1] }, low = 0, high = case.classes - 1 } }
  for name, spec in pairs(case.inputs) do inputs[name] = spec end
  for name, spec in pairs(inputs) do
    local t = golden.values(spec, ("%s/%s%d"):format(case.network, name, at % case.batches), true)
    if t.dtype == "f64" and dtype ~= "f64" then t = unic.cast(t, dtype) end
    batch[name] = t
  end
  if batch.mask then batch.mask:narrow(2, 1, 1):fill_(1) end
  return batch
end

local function features(case, model, batch)
  if case.network ~= "bert" then return (model(batch.x)) end
  return require("unic.models.bert").mean(model(batch.x, batch.mask), batch.mask)
end

-- Distances from PyTorch's f64 run: of the losses, and the largest of any parameter or buffer.
local function train(file, case, params, dtype)
  local model = make(case)
  if dtype ~= "f32" then model:to(dtype) end
  local state, named = model:state_dict(), 0
  for name, t in pairs(state) do
    local spec = params[name] or error(("trajectory: PyTorch's %s has no '%s'"):format(case.network, name))
    unic.no_grad(function() t:copy_(unic.cast(golden.values(spec, case.network .. "/" .. name, true), t.dtype)) end)
    named = named + 1
  end
  for name in pairs(params) do
    if not state[name] then error(("trajectory: the %s has no '%s'"):format(case.network, name)) end
  end
  local optimizer = unic.optim[case.optimiser](model:groups(case.settings))
  local schedule = unic.optim[case.schedule](optimizer, next(case.rates) and case.rates or nil)
  local losses = {}
  for at = 0, case.steps - 1 do
    unic.scope(function()
      local batch = batch_of(case, at, dtype)
      model:zero_grad()
      local loss = unic.losses.cross_entropy(features(case, model, batch), batch.target)
      loss:backward()
      optimizer:step()
      schedule:step()
      losses[at + 1] = loss:item()
    end)
  end
  local d, largest, squares = 0, 0, 0
  for i, loss in ipairs(losses) do
    local ref = file.at[case.losses + i - 1]
    d, largest, squares = math.max(d, math.abs(loss - ref)), math.max(largest, math.abs(ref)), squares + ref * ref
  end
  local worst, where = 0, nil
  for name, record in pairs(case.final) do
    local list = unic.reshape(unic.cast(state[name]:detach(), "f64"), { -1 }):totable()
    if #list ~= record.n then error(("trajectory: %s has %d elements, expected %d"):format(name, #list, record.n)) end
    local at = file.at + record.offset
    local max, norm = at[0], at[1]
    local err, sum = 0, 0
    for _, v in ipairs(list) do sum = sum + v * v end
    for k, i in ipairs(places(case, name, record.n)) do err = math.max(err, math.abs(list[i + 1] - at[k + 1])) end
    err = math.max(err / math.max(max + norm / math.sqrt(record.n), 1e-30), math.abs(math.sqrt(sum) - norm) / math.max(norm, 1e-30))
    local silent = false
    for _, ending in ipairs(case.silent) do silent = silent or name:sub(-#ending) == ending end
    if not silent and not (err <= worst) then worst, where = err, name end
  end
  return d / (largest + math.sqrt(squares / #losses)), worst, where, losses
end

-- What f32 rounding alone does to PyTorch's run. The gap between one and two threads is often 0 or next to it (such small sums are hardly split), so
-- the f32 run's distance from f64, and that of runs which start one rounding beside it, count where they are larger.
local function noise(case, what) return math.max(case.gap[what], case.own[what], case.others[what]) end

local file = golden.load "spec/golden/trajectory.safetensors"
check:note("torch", file.versions.torch)
local params, networks, order = {}, {}, {}
for _, case in ipairs(file.cases) do
  local n = networks[case.network]
  if not n then
    n = { runs = 0, within = 0, loss = 0, params = 0 }
    networks[case.network] = n
    order[#order + 1] = case.network
  end
  for _, what in ipairs { "loss", "params" } do n[what] = math.max(n[what], noise(case, what)) end
end

-- The share of what is allowed: of the loss or of the parameters, whichever is larger.
local function share(loss, weights, limits)
  return math.max(loss / math.max(TIMES * limits.loss, LEAST), weights / math.max(TIMES * limits.params, LEAST))
end

print(("  %-20s %-8s %9s %9s %9s %9s %9s %9s"):format("distance from f64", "", "f64", "f32", "torch f32", "1-2 thr.", "beside", "last loss"))
for _, case in ipairs(file.cases) do
  if case.params then params[case.network] = case.params end
  if not only or case.name:find(only) then
    local n = networks[case.network]
    local wide_loss, wide_params, wide_at, losses = train(file, case, params[case.network], "f64")
    local loss, weights, at = train(file, case, params[case.network], "f32")
    for _, row in ipairs { { "loss", wide_loss, loss }, { "params", wide_params, weights } } do
      local what = row[1]
      print(("  %-20s %-8s %9.2g %9.2g %9.2g %9.2g %9.2g %9.4f"):format(case.name, what, row[2], row[3], case.own[what], case.gap[what], case.others[what],
        losses[#losses]))
    end
    -- The values are far below what the lines' four digits show: they are shares of the limits.
    if not check:at_most(case.name .. "_f64_share", math.max(wide_loss, wide_params) / F64, 1) then
      print(("    at most %g is allowed; worst parameter: %s"):format(F64, wide_at or "-"))
    end
    if not check:at_most(case.name .. "_f32_share", share(loss, weights, n), 1) then print(("    worst parameter: %s"):format(at or "-")) end
    n.runs = n.runs + 1
    if share(loss, weights, { loss = noise(case, "loss"), params = noise(case, "params") }) <= 1 then
      n.within = n.within + 1
    else
      print(("    beyond what this run's own noise allows; worst parameter: %s"):format(at or "-"))
    end
    collectgarbage()
  end
end
for _, network in ipairs(order) do
  local n = networks[network]
  check:at_least(network .. "_f32_runs_within_their_own_noise", n.within, n.runs - BY_CHANCE)
end
check:close()
