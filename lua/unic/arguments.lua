--- Checks of arguments for the modules in lua/unic: a mistake is a sentence that names what was meant.
-- Sentences have the form `[function] argument 'name': what is wrong, what was given, what was expected` and are raised at the user's line.
-- @module unic.arguments
local core = require "unic.core"
local tensor = require "unic.tensor"

local arguments = {}

--- Raise a sentence at the first line that is not Unic's own.
-- @param op the function's name, as the user wrote it
-- @param sentence what is wrong; a format
-- @param ... its values
function arguments.fail(op, sentence, ...)
  core.fail(("[%s] " .. sentence):format(op, ...))
end

-- "a number", "an integer", "nil"
local function with_article(kind)
  if kind == "nil" then return kind end
  return (kind:find("^[aeiou]") and "an " or "a ") .. kind
end

-- What a value is, said as a person would: its type, and the value itself where that helps.
local function describe(value)
  local kind = type(value)
  if kind == "number" then return ("the number %.14g"):format(value) end
  if kind == "boolean" then return tostring(value) end
  if kind == "string" then return ('the string "%s"'):format(#value > 40 and value:sub(1, 40) .. "..." or value) end
  return with_article(kind)
end

local function is_kind(value, kind)
  if kind == "integer" then return type(value) == "number" and value % 1 == 0 end   -- inf % 1 and nan % 1 are nan
  return type(value) == kind
end

--- Check the type of an argument.
-- @param op the function's name
-- @param name the argument's name
-- @param value what was given
-- @param kind a Lua type, or "integer"
-- @return the value
function arguments.check(op, name, value, kind)
  if not is_kind(value, kind) then
    arguments.fail(op, "argument '%s': %s, expected %s", name, describe(value), with_article(kind))
  end
  return value
end

--- Check a table of named options: their names and their types.
-- @param op the function's name
-- @param options the table, or nil for none
-- @param known the options there are: name = Lua type or "integer"
-- @return the table, a fresh one for nil
function arguments.options(op, options, known)
  options = tensor.options(op, options, known)
  for name, value in pairs(options) do
    if not is_kind(value, known[name]) then
      arguments.fail(op, "option '%s': %s, expected %s", name, describe(value), with_article(known[name]))
    end
  end
  return options
end

return arguments
