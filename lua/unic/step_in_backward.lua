--- An optimiser that steps inside the backward: `loss:backward{step = adamw}`.
--
-- A parameter makes its step when the walk is through with it: its gradient is complete, and nothing that is still to come reads its value (a product that
-- is made again, tied weights, a checkpointed piece). Then its gradient goes. Gradients are as large as the parameters; this way only a few of
-- them are there at a time. The bits are those of
--
--   loss:backward()
--   adamw:step()
--   adamw:zero_grad()
--
-- What was accumulated by `loss:backward()` of earlier batches is part of the step; only the last of them is walked with `step`. What needs all gradients
-- at once does not go with it: `optim.clip_grad_norm` and `optim.grad_norm` (BertAdam clips each by itself, and goes), and `optim.GradScaler`, which
-- may leave out the step. Hooks (`x:hook`) see parameters that may have made their step.
-- After a failure half-way the parameters that have made their step keep it, the step counts, and the gradients of the others are dropped.
-- @module unic.step_in_backward
local arguments = require "unic.arguments"
local core = require "unic.core"

local in_backward = {}

local weak = { __mode = "k" }
local spent, refused = setmetatable({}, weak), setmetatable({}, weak)

--- Whether a parameter's last gradient was used up in a backward.
-- @param p a parameter
function in_backward.spent(p) return spent[p] end

--- An optimiser has dropped or used its gradients in the ordinary way.
-- @param optimizer whose parameters are meant
function in_backward.forget(optimizer)
  if next(spent) == nil then return end
  for _, group in ipairs(optimizer.groups) do
    for _, p in ipairs(group.params) do spent[p] = nil end
  end
end

--- No optimiser may step in the backward of this loss.
-- @param loss a tensor
-- @param why a part of a sentence
function in_backward.refuse(loss, why) refused[loss] = why end

local function list_of(step)
  local list = rawget(step, "groups") and { step } or step
  if #list == 0 then core.fail "[backward] option 'step': an empty table, expected an optimiser or a list of them" end
  for i, optimizer in ipairs(list) do
    if type(optimizer) ~= "table" or not rawget(optimizer, "groups") then
      arguments.fail("backward", "option 'step': member %d is %s, expected an optimiser", i, arguments.describe(optimizer))
    end
  end
  return list
end

-- Every parameter with its optimiser and group. State is made before the walk: it stays, and would else lie between values that go.
local function collect(list)
  local entries, seen = {}, {}
  for _, optimizer in ipairs(list) do
    for _, group in ipairs(optimizer.groups) do
      for _, p in ipairs(group.params) do
        if seen[p] then core.fail "[backward] option 'step': one parameter stands in two of the optimisers" end
        seen[p] = true
        local entry = { p = p, optimizer = optimizer, group = group }
        if p.requires_grad then
          entry.fresh = optimizer.state[p] == nil
          optimizer:state_of(p, group)
        end
        entries[#entries + 1] = entry
      end
    end
  end
  return entries
end

--- Walk back from a loss while optimisers step.
-- @param loss a tensor
-- @param options of `x:backward`: `step`, `gradient`, `keep`
function in_backward.walk(loss, options)
  if options.ready or options.leaves then core.fail "[backward] option 'step': 'ready' and 'leaves' were given too, expected one or the other" end
  if refused[loss] then arguments.fail("backward", "option 'step': %s: loss:backward(), then scaler:step(optimizer)", refused[loss]) end
  local entries = collect(list_of(options.step))
  local counted, steps = {}, 0
  local function update(entry)
    local p, group, grad = entry.p, entry.group, entry.p.grad
    local own, state = entry.optimizer:state_of(p, group), {}
    for i, tensor in ipairs(own) do state[i] = { tensor } end
    entry.optimizer:update(group, { p }, { grad }, state, counted[group])
    counted[group], entry.fresh, spent[p] = true, false, true
    steps = steps + 1
    p.grad = nil
    grad:free()
  end
  local walked, leaves = {}, {}
  for _, entry in ipairs(entries) do
    if entry.p.requires_grad then walked[#walked + 1], leaves[#leaves + 1] = entry, entry.p end
  end
  local ok, why = pcall(core.tensor.backward, loss, options.gradient, options.keep, leaves, function(i) update(walked[i]) end)
  -- Gradients of earlier backwards, of parameters that had no part in this one.
  if ok then
    ok, why = pcall(function()
      local was = core.grad_mode()
      core.grad_mode(false)
      for _, entry in ipairs(entries) do
        if entry.p.grad then update(entry) end
      end
      core.grad_mode(was)
    end)
  end
  for _, entry in ipairs(entries) do
    if entry.fresh then entry.optimizer.state[entry.p] = nil end
  end
  if ok then return end
  if steps > 0 and why ~= "interrupted" then
    for _, entry in ipairs(entries) do entry.p.grad = nil end
    why = ("%s; %d of %d parameters had made their step, the gradients of the others are dropped"):format(tostring(why), steps, #entries)
  end
  error(why, 0)
end

return in_backward
