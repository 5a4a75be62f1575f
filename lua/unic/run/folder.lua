--- The folder of a run: its number, its links, and the files that say what was run (run.lua, manifest.json).
-- @module unic.run.folder
local lfs = require "lfs"
local stdlib = require "posix.stdlib"
local unistd = require "posix.unistd"
local core = require "unic.core"
local files = require "unic.files"
local json = require "unic.json"

local folder = {}

function folder.fail(sentence, ...) core.fail(("[run] " .. sentence):format(...)) end
local fail = folder.fail

--- Is a test running that wants no output?
function folder.is_quiet()
  local testing = package.loaded["unic.testing"]
  return testing and testing.quiet or false
end

--- Where runs are kept, relative to where the program was started.
function folder.base()
  local testing = package.loaded["unic.testing"]
  return testing and testing.runs or "runs"
end

--- Make a folder and those above it.
-- @return true when it was not there before
function folder.make(path)
  local kind = lfs.attributes(path, "mode")
  if kind == "directory" then return false end
  if kind then fail("'%s' is a %s, expected a folder", path, kind) end
  local above = path:match "^(.+)/[^/]+/*$"
  if above and not lfs.attributes(above, "mode") then folder.make(above) end
  local ok, why = lfs.mkdir(path)
  if ok then return true end
  if lfs.attributes(path, "mode") == "directory" then return false end   -- another process was faster
  fail("cannot make the folder '%s' (%s)", path, why)
end

--- The numbers in use below a recipe's folder, in order.
function folder.numbers(path)
  local list = {}
  if lfs.attributes(path, "mode") == "directory" then
    for name in lfs.dir(path) do
      if name:find "^%d+$" then list[#list + 1] = tonumber(name) end
    end
  end
  table.sort(list)
  return list
end

--- A new folder BASE/RECIPE/NUMBER. Two programs that start at once get two numbers: making a folder fails where one is.
function folder.next(recipe)
  local above = folder.base() .. "/" .. recipe
  folder.make(above)
  local numbers = folder.numbers(above)
  local number = (numbers[#numbers] or 0) + 1
  while not folder.make(("%s/%d"):format(above, number)) do number = number + 1 end
  return ("%s/%d"):format(above, number)
end

--- Let the symbolic link `path` point to `target`, in one step: readers see the old or the new one.
function folder.link(target, path)
  local temporary = ("%s.tmp-%d"):format(path, unistd.getpid())
  os.remove(temporary)
  local ok, why = unistd.link(target, temporary, true)
  if ok then ok, why = os.rename(temporary, path) end
  if not ok then fail("cannot make the link '%s' (%s)", path, why) end
end

--- The path without links, from the root.
function folder.real(path) return stdlib.realpath(path) end

--- Note a run as the last one: BASE/last.
function folder.note_last(path)
  local base = folder.base()
  folder.make(base)
  local root, target = folder.real(base), folder.real(path)
  if target:sub(1, #root + 1) == root .. "/" then target = target:sub(#root + 2) end
  folder.link(target, base .. "/last")
end

--- The folder of the last run of a recipe, or nil.
function folder.last(recipe)
  local last = folder.base() .. "/last"
  local record = lfs.attributes(last .. "/run.lua", "mode") and folder.read_record(last)
  if record and record.recipe == recipe then return folder.real(last) end
  local above = folder.base() .. "/" .. recipe
  local numbers = folder.numbers(above)
  for i = #numbers, 1, -1 do
    local path = ("%s/%d"):format(above, numbers[i])
    if lfs.attributes(path .. "/run.lua", "mode") then return path end
  end
end

-- ---------------------------------------------------------------- data as Lua

local function literal(value, indent)
  local kind = type(value)
  if kind == "number" then
    if value ~= value then return "0/0" elseif value == math.huge then return "math.huge" elseif value == -math.huge then return "-math.huge" end
    local short = ("%.14g"):format(value)
    return tonumber(short) == value and short or ("%.17g"):format(value)
  elseif kind == "boolean" then
    return tostring(value)
  elseif kind == "string" then
    return (("%q"):format(value):gsub("\\\n", "\\n"):gsub("\r", "\\r"))
  elseif kind == "table" then
    local parts, inner = {}, indent .. "  "
    if #value > 0 then
      for i, member in ipairs(value) do parts[i] = literal(member, inner) end
      return "{ " .. table.concat(parts, ", ") .. " }"
    end
    local keys = {}
    for key in pairs(value) do keys[#keys + 1] = key end
    table.sort(keys)
    if #keys == 0 then return "{}" end
    for i, key in ipairs(keys) do
      local shown = key:find "^[%a_][%w_]*$" and loadstring(key .. " = 0") and key or "[" .. literal(key, inner) .. "]"
      parts[i] = ("%s%s = %s,\n"):format(inner, shown, literal(value[key], inner))
    end
    return "{\n" .. table.concat(parts) .. indent .. "}"
  end
  fail("a value of type %s was given as an option, expected strings, numbers, booleans and lists of them", kind)
end

--- Write run.lua: which recipe, and its options, as a Lua table.
function folder.write_record(path, recipe, options)
  files.write_file(path .. "/run.lua", ("-- Options of a run, as data.\nreturn %s\n"):format(literal({ recipe = recipe, options = options }, "")), { durable = true })
end

--- Read run.lua: {recipe =, options =}. It is data; no function can be called from it.
function folder.read_record(path)
  local chunk, why = loadfile(path .. "/run.lua")
  if not chunk then fail("'%s' is no run folder (%s)", path, why) end
  setfenv(chunk, { math = { huge = math.huge } })
  local ok, record = pcall(chunk)
  if not ok or type(record) ~= "table" or type(record.options) ~= "table" or type(record.recipe) ~= "string" then
    fail("'%s/run.lua' does not hold the options of a run", path)
  end
  return record
end

-- ---------------------------------------------------------------- the manifest

--- Write manifest.json: one value a line, keys in order, so that a person reads it and two of them can be compared line by line.
function folder.write_manifest(path, manifest)
  files.write_file(path .. "/manifest.json", json.encode("run", "the manifest", manifest), { durable = true })
end

--- Read manifest.json; an empty table where there is none.
function folder.read_manifest(path)
  path = path .. "/manifest.json"
  return lfs.attributes(path, "mode") and json.read("run", path) or {}
end

-- ---------------------------------------------------------------- tables that grow

--- Leave out the rows of a CSV file beyond a step: they will be made again. Does nothing where there is no file.
function folder.truncate(path, step)
  if not lfs.attributes(path, "mode") then return end
  local lines, kept = {}, 0
  for line in io.lines(path) do
    local at = #lines > 0 and tonumber(line:match "^([^,]*)")
    -- A line that a kill cut short has too few fields; it is the last one and beyond the checkpoint, for checkpoints come after their rows.
    if #lines == 0 or (at and at <= step) then lines[#lines + 1] = line else kept = kept + 1 end
  end
  if kept > 0 then files.write_file(path, table.concat(lines, "\n") .. "\n", { durable = true }) end
end

return folder
