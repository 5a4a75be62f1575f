--- Name maps: which tensor of a file is which tensor of a model. One small file each in models/names/.
--
-- A map is a table:
--   source     where files with these names come from
--   licence    of the weights, as known
--   verified   what it was tried on, in words (true: nothing needs saying); false: never on a file of its origin, and loading says so
--   rewrite    {{pattern, replacement}...}, done to a name in the file first, each as often as it occurs (old spellings)
--   rules      {{pattern, replacement}...}: a name in the file -> a name in the model; the first that names a tensor of the model counts
--   left_over  patterns of (rewritten) names in the file that the model need not have (classifiers, decoders): reported, no error
--   words      what those are, for the report
--   signs      patterns, each of which some (rewritten) name in such a file fits; `without`: patterns that none fits. unic.inspect tells files by them
-- @module unic.weights.names
local lfs = require "lfs"
local arguments = require "unic.arguments"
local core = require "unic.core"

local fail = arguments.fail
local names = {}

local KINDS = {
  source = "string", licence = "string", verified = true, rewrite = "table", rules = "table", left_over = "table", words = "string", signs = "table",
  without = "table",
}

-- The names themselves, and those of our own checkpoints (unic.run): what is tried before the maps of others.
local OWN = {
  same = { source = "the model's own names", verified = true, rules = { { "^.*$", "%0" } } },
  checkpoint = {
    source = "checkpoints of unic.run", verified = true, rules = { { "^model%.(.*)$", "%1" } },
    left_over = { "^optim%.", "^ema%.", "^state%.", "^rng$" }, words = "training state", signs = { "^model%.", "^rng$" },
  },
}

local found

local function folder()
  local here = debug.getinfo(1, "S").source:match "^@(.*)weights/names%.lua$"
  for _, path in ipairs { here and here:gsub("lua/unic/$", "") .. "models/names" or "", here and here .. "models/names" or "" } do
    if lfs.attributes(path, "mode") == "directory" then return path end
  end
  return nil
end

--- The names of all maps, in order.
-- @return a list of strings
function names.list()
  if found then return found end
  found = { "same", "checkpoint" }
  local others, path = {}, folder()
  for each in lfs.dir(path or ".") do
    local name = path and each:match "^(%w[%w_]*)%.lua$"
    if name then others[#others + 1] = name end
  end
  table.sort(others)
  for _, name in ipairs(others) do found[#found + 1] = name end
  return found
end

--- A map by its name.
-- @param op the function's name, for the sentence
-- @param name one of names.list()
-- @return the map
function names.get(op, name)
  if OWN[name] then return OWN[name] end
  local list = names.list()
  for _, each in ipairs(list) do
    if each == name then return require("unic.models.names." .. name) end
  end
  local near = core.nearest(name, list)
  fail(op, "option 'map': there is no map '%s'%s", name, near and (", did you mean '%s'?"):format(near) or "; there are: auto, " .. table.concat(list, ", "))
end

--- A person's own map, a function or a table, in the form of a map.
-- @param op the function's name
-- @param given a function of a name in the file that returns the name in the model (or nil); {["name in the file"] = "name in the model"}; or a map
-- @return a map
function names.own(op, given)
  if type(given) == "table" and given.rules then return arguments.options(op, given, KINDS) end
  return { source = "the caller", verified = true, find = type(given) == "function" and given or function(name) return given[name] end }
end

--- A name in the file with its old spellings put right.
-- @param map a map
-- @param name in the file
-- @return a name
function names.rewritten(map, name)
  for _, pair in ipairs(map.rewrite or {}) do name = name:gsub(pair[1], pair[2]) end
  return name
end

--- The names in the model that a name in the file may stand for, best first.
-- @param map a map
-- @param name in the file, rewritten
-- @return an iterator
function names.candidates(map, name)
  if map.find then
    local done = false
    return function()
      if done then return nil end
      done = true
      return map.find(name)
    end
  end
  local at = 0
  return function()
    while at < #map.rules do
      at = at + 1
      local new, count = name:gsub(map.rules[at][1], map.rules[at][2])
      if count > 0 then return new end
    end
    return nil
  end
end

--- Does one of these patterns fit?
-- @param patterns a list, or nil
-- @param name a string
-- @return true or false
function names.fits(patterns, name)
  for _, pattern in ipairs(patterns or {}) do
    if name:find(pattern) then return true end
  end
  return false
end

--- Does a file with these names look like one that a map is for? Told by the map's `signs`.
-- @param map a map
-- @param list names in the file
-- @return true or false
function names.looks_like(map, list)
  if not map.signs then return false end
  local seen = {}
  for _, name in ipairs(list) do
    name = names.rewritten(map, name)
    if names.fits(map.without, name) then return false end
    for i, sign in ipairs(map.signs) do seen[i] = seen[i] or name:find(sign) ~= nil end
  end
  for i = 1, #map.signs do
    if not seen[i] then return false end
  end
  return true
end

return names
