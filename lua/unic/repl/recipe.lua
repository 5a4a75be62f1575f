--- Running a script so that its locals can be looked at afterwards: what `./unic -i FILE.lua` stands on.
-- @module unic.repl.recipe
local rewrite = require "unic.repl.rewrite"
local traceback = require "unic.traceback"

local recipe = {}

-- The locals of the frame at `level`; of two with one name the later counts.
local function locals_at(level)
  local found, index = {}, 1
  while true do
    local name, value = debug.getlocal(level + 1, index)
    if not name then return found end
    if name:sub(1, 1) ~= "(" then found[name] = value end
    index = index + 1
  end
end

-- Not a tail call: the chunk's frame is looked for when it fails.
local enter = traceback.boundary(function(chunk, ...)
  local _ = chunk(...)
end)

--- Run a script, and take the locals of its main chunk where it ends: at its last line, at a `return`, or at an error.
-- The values are copies of the variables: setting one at the prompt does not change the variable in the script's functions.
-- @param path the file
-- @param run as `core.edit.run`; `xpcall` when absent
-- @param ... arguments of the script
-- @return true or false, the locals (name -> value), the report of the error
function recipe.run(path, run, ...)
  run = run or xpcall
  local file, why = io.open(path, "rb")
  if not file then return false, {}, why end
  local source = file:read("*a")
  file:close()
  -- A syntax error is reported for the file as it is written.
  local ok, message = load((source:gsub("^#", "--", 1)), "@" .. path)
  if not ok then return false, {}, message end
  local chunk = assert(load(rewrite.keep(source), "@" .. path))
  local found = {}
  local before = rawget(_G, rewrite.KEEP)
  rawset(_G, rewrite.KEEP, function() found = locals_at(2) end)
  local report
  ok, report = run(enter, function(err)
    local level = 2
    while true do
      local info = debug.getinfo(level, "f")
      if not info then break end
      if info.func == chunk then
        found = locals_at(level)
        break
      end
      level = level + 1
    end
    local text = traceback.format(err, 1)
    return text
  end, chunk, ...)
  rawset(_G, rewrite.KEEP, before)
  if ok then return true, found end
  return false, found, report
end

return recipe
