-- What runs in the Lua state of a pipeline's worker: drawing pictures, and steps that are Lua functions. A chunk, not a module:
-- it is loaded once for each worker, with
--   own      true in a state of its own, false on the owner's thread (workers = 0), where paths and searcher are set already
--   path, cpath, tree   where modules are
--   plan     a chunk that returns {source = {module =, args =}, steps = {{module =, name =, args =}, ...}}
--   random   a function: the next random number of the step that runs
-- The library itself (unic.core) lives in one Lua state only; modules named here need LuaJIT alone.
local own, path, cpath, tree, plan_text, random = ...
local ffi = require "ffi"

local FOLDERS = { models = "models/", datasets = "data/", recipes = "recipes/" }

-- unic.datasets.phantom.draw -> data/phantom/draw.lua, as in the main state.
local function search(name)
  local kind, rest = name:match("^unic%.(%a+)%.(.+)$")
  local folder = kind and FOLDERS[kind]
  if not folder then return nil end
  local base = tree .. folder .. rest:gsub("%.", "/")
  for _, file in ipairs { base .. ".lua", base .. "/init.lua", tree .. kind .. "/" .. rest:gsub("%.", "/") .. ".lua" } do
    local handle = io.open(file, "rb")
    if handle then
      handle:close()
      return assert(loadfile(file))
    end
  end
  return "\n\tno file for '" .. name .. "' below " .. tree
end

if own then
  package.path, package.cpath = path, cpath
  table.insert(package.loaders, 2, search)
end

local plan = assert(loadstring(plan_text, "=plan"))()
local functions = {}

if plan.source then
  -- Of as many studies as the whole set, so that every position is one.
  local source = require(plan.source.module).open(plan.source.args)
  local byte = ffi.typeof "uint8_t *"
  function functions.draw(i, pixels) source:image(i, ffi.cast(byte, pixels)) end
end

local steps = {}
for k, step in ipairs(plan.steps or {}) do
  local module = require(step.module)
  local fn = type(module) == "table" and module[step.name]
  if type(fn) ~= "function" then
    error(("step 'lua': module '%s' has no function '%s'"):format(step.module, step.name), 0)
  end
  steps[k] = { fn = fn, args = step.args }
end

local float = ffi.typeof "float *"
function functions.step(k, pixels, channels, height, width)
  local step = steps[k]
  return step.fn({ pixels = ffi.cast(float, pixels), channels = channels, height = height, width = width, random = random }, step.args)
end

return functions
