--- `unic.debug()`: the prompt in the middle of a program.
-- @module unic.repl.debug
local repl = require "unic.repl"
local traceback = require "unic.traceback"

local debugger = {}

-- The variables a function sees at `level`: its locals (of two with one name the later) and what it uses from around it, with how to set each.
local function variables_at(level)
  local found = {}
  local info = debug.getinfo(level + 1, "f")
  local i = 1
  while true do
    local name, value = debug.getupvalue(info.func, i)
    if not name then break end
    local index = i
    if name ~= "" then found[name] = { value = value, set = function(new) debug.setupvalue(info.func, index, new) end } end
    i = i + 1
  end
  i = 1
  while true do
    local name, value = debug.getlocal(level + 1, i)
    if not name then break end
    local index = i
    if name:sub(1, 1) ~= "(" then found[name] = { value = value, set = function(new, at) debug.setlocal(at, index, new) end } end
    i = i + 1
  end
  return found
end

--- Open the prompt with the variables of the frame at `level`; what was set there is set in the frame when the prompt is left.
-- @param level as for debug.getinfo: 2 is the caller of this function
function debugger.stop(level)
  level = level or 2
  local found = variables_at(level)
  local values, names = {}, {}
  for name, variable in pairs(found) do
    values[name] = variable.value
    names[#names + 1] = name
  end
  table.sort(names)
  local info = debug.getinfo(level, "Sl")
  io.stdout:flush()
  local _, after = repl.start {
    locals = values, banner = false,
    greeting = ("stopped at %s; Ctrl-D goes on\nvariables: %s"):format(traceback.place(info), table.concat(names, ", ")),
  }
  for name, variable in pairs(found) do
    local value = rawget(after, name)
    if not rawequal(value, variable.value) then variable.set(value, level + 1) end
  end
end

return debugger
