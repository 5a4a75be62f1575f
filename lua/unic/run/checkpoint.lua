--- Checkpoints: everything that a training goes on from, in one safetensors file.
-- Keys: `model.<name>`, `optim.<parameter>.<what>` (and `optim.<optimiser>.group<g>.<what>`), `ema.<name>`, `state.<name>`, `rng`; the rest
-- (step, position in the data, schedules, options) as JSON under `unic` in the file's metadata.
-- @module unic.run.checkpoint
local cjson = require "cjson"
local lfs = require "lfs"
local unistd = require "posix.unistd"
local core = require "unic.core"
local files = require "unic.files"
local folder = require "unic.run.folder"
local optim = require "unic.optim"
local tensor = require "unic.tensor"

local checkpoint = { FORMAT = 1, KEEP = 2 }
local fail = folder.fail

local function add(tensors, name, t)
  if tensors[name] then fail("save: two tensors are called '%s'", name) end
  tensors[name] = t
end

-- Per-parameter state is named after the parameter; a group's after its optimiser, as two optimisers both have a group 1.
local function optimizer_key(optimizer, key)
  return key:find "^group%d+%.%a+$" and ("optim.%s.%s"):format(optimizer, key) or "optim." .. key
end

--- The tensors of a training by name.
-- @param attached `model`, `optimizers`, `schedules`, `ema`, `tensors`
function checkpoint.tensors(attached)
  local tensors = { rng = core.generator() }
  if attached.model then
    for name, t in pairs((attached.model:state_dict())) do add(tensors, "model." .. name, t) end
  end
  for label, optimizer in pairs(attached.optimizers) do
    for key, t in pairs(optimizer:state_dict(attached.names)) do add(tensors, optimizer_key(label, key), t) end
  end
  if attached.ema then
    for i, p in ipairs(attached.ema.params) do
      local name = attached.names[p] or fail "save: a parameter of the average (ema) is not in the model"
      add(tensors, "ema." .. name, attached.ema.average[i])
    end
  end
  for name, t in pairs(attached.tensors) do add(tensors, "state." .. name, t) end
  return tensors
end

local function step_of(name) return tonumber(name:match "^step%-(%d+)%.safetensors$") end

-- Files beyond the newest KEEP that neither `last` nor `best` names; and what a killed write left.
local function tidy(path)
  local named = {}
  for _, link in ipairs { "last", "best" } do
    local target = unistd.readlink(("%s/%s.safetensors"):format(path, link))
    if target then named[target] = true end
  end
  local steps = {}
  for name in lfs.dir(path) do
    if step_of(name) then steps[#steps + 1] = name end
    if name:find "%.tmp%-" then os.remove(path .. "/" .. name) end
  end
  table.sort(steps, function(a, b) return step_of(a) > step_of(b) end)
  for i = checkpoint.KEEP + 1, #steps do
    if not named[steps[i]] then os.remove(path .. "/" .. steps[i]) end
  end
end

--- Write checkpoints/step-N.safetensors and let `last` (and `best`) name it. A kill at any moment leaves `last` on a whole file: the file
-- gets its name when it is on the disk, the link changes after that, and what it named before goes last.
-- @param path the checkpoints folder
-- @param step its number
-- @param attached as for `tensors`
-- @param meta a table for the JSON
-- @param best true: this is the best so far
-- @return the path of the file
function checkpoint.save(path, step, attached, meta, best)
  folder.make(path)
  local name = ("step-%d.safetensors"):format(step)
  meta.format = checkpoint.FORMAT
  meta.schedules = {}
  for label, schedule in pairs(attached.schedules) do meta.schedules[label] = schedule.at end
  files.safetensors_save(path .. "/" .. name, checkpoint.tensors(attached), { unic = cjson.encode(meta), format = "pt" })
  folder.link(name, path .. "/last.safetensors")
  if best then folder.link(name, path .. "/best.safetensors") end
  files.sync_folder(path)
  tidy(path)
  return path .. "/" .. name
end

--- Open a checkpoint.
-- @param path a file
-- @return an object `{path, meta, file, taken}`
function checkpoint.open(path)
  local file = files.safetensors_open(path)
  local text = file:metadata().unic
  local ok, meta = pcall(cjson.decode, text or "")
  if not text or not ok or type(meta) ~= "table" then fail("'%s' holds weights but no training state (no `unic` in its metadata)", path) end
  if meta.format ~= checkpoint.FORMAT then
    fail("'%s' has the format %s, this version reads %d", path, tostring(meta.format), checkpoint.FORMAT)
  end
  return { path = path, meta = meta, file = file, taken = {} }
end

-- The tensors whose names begin so, by the rest of their names; those that `wanted` (a function of that rest) names differently or drops.
local function part(saved, prefix, wanted)
  local dict, count = {}, 0
  for _, name in ipairs(saved.file:names()) do
    if name:sub(1, #prefix) == prefix then
      local key = name:sub(#prefix + 1)
      if wanted then key = wanted(key) end
      if key then
        dict[key] = saved.file:tensor(name)
        saved.taken[name] = true
        count = count + 1
      end
    end
  end
  return dict, count
end

-- The tensors of one optimiser: state of its own parameters, values of its own groups.
local function optimizer_part(saved, label, optimizer, names)
  local own = {}
  for _, group in ipairs(optimizer.groups) do
    for _, p in ipairs(group.params) do own[names[p] or fail("a parameter of the optimiser '%s' is not in the model", label)] = true end
  end
  return part(saved, "optim.", function(key)
    if key:sub(1, #label + 1) == label .. "." and key:find("^group%d+%.%a+$", #label + 2) then return key:sub(#label + 2) end
    return own[key:match "^(.*)%.[^.]+$"] and key or nil
  end)
end

local function copy_named(what, saved, prefix, own)
  tensor.with(core.grad_mode, false, function()
    for name, t in pairs(own) do
      if not saved.file:info(prefix .. name) then fail("'%s' has no %s '%s'", saved.path, what, name) end
      saved.file:read(prefix .. name, t)
      saved.taken[prefix .. name] = true
    end
  end)
end

--- Put the weights of a checkpoint into a model.
-- @param saved from `open`
-- @param model a module
-- @param prefix "model." or "ema."
-- @param options as for `load_state_dict`
function checkpoint.load_model(saved, model, prefix, options)
  local dict, count = part(saved, prefix)
  if count == 0 then fail("'%s' has no tensor called '%s...'", saved.path, prefix) end
  return model:load_state_dict(dict, options)
end

--- Put back what is attached, to the bit.
-- @param saved from `open`
-- @param new what is attached now: `model`, `optimizers`, ...; with all parameters' `names`
function checkpoint.restore(saved, new, names)
  if new.model then checkpoint.load_model(saved, new.model, "model.") end
  for label, optimizer in pairs(new.optimizers or {}) do
    optimizer:load_state_dict(optimizer_part(saved, label, optimizer, names), names)
  end
  if new.ema then
    local average = {}
    for i, p in ipairs(new.ema.params) do average[names[p] or fail "a parameter of the average (ema) is not in the model"] = new.ema.average[i] end
    copy_named("averaged weight", saved, "ema.", average)
  end
  if new.tensors then copy_named("tensor", saved, "state.", new.tensors) end
  for label, schedule in pairs(new.schedules or {}) do
    local at = (saved.meta.schedules or {})[label]
    if not at then fail("'%s' has no schedule '%s'", saved.path, label) end
    schedule:seek(at)
  end
end

--- Put back the random generator, and refuse when something in the file was not asked for: a training that forgot its optimiser would go on
-- wrongly without a word.
function checkpoint.finish(saved)
  local rng = saved.file:tensor "rng"
  core.generator():copy_(rng)
  saved.taken.rng = true
  for _, name in ipairs(saved.file:names()) do
    if not saved.taken[name] then
      fail("'%s' holds '%s' and nothing is attached that takes it, expected run:attach{model = .., optimizers = .., schedules = ..}", saved.path, name)
    end
  end
  saved.file:close()
end

--- The parameters' names, of a model.
function checkpoint.names(model) return optim.names(model) end

return checkpoint
