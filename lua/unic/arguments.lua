--- Checks of arguments for the modules in lua/unic: a mistake is a sentence that names what was meant.
-- Sentences have the form `[function] argument 'name': what was given, what was expected` and are raised at the user's line.
--
-- A kind, what an argument may be, is one of
--   "number", "string", "boolean", "table", "function"   a Lua type
--   "integer", "finite"                                  a whole number; a number that is neither infinite nor NaN
--   "dim"                                                a dimension: an integer but 0
--   "tensor"
--   "callable"                                           a function, or what can be called like one (a module)
--   {"integer", least = 1}                               also "number": with the bounds least, most, above, below
--   {"pair", least = 0}                                  an integer within bounds, or a table of two
--   {"choice", "none", "gelu"}                           one of these strings
--   {test = function, text = "a module"}                 what a test says yes to
--   true                                                 anything
-- @module unic.arguments
local core = require "unic.core"

local is_tensor = core.tensor.is_tensor
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
  return (kind:find("^[aeio]") and "an " or "a ") .. kind
end

-- What a value is, said as a person would: its type, and the value itself where that helps.
local function describe(value)
  local kind = type(value)
  if kind == "number" then return ("the number %.14g"):format(value) end
  if kind == "boolean" then return tostring(value) end
  if kind == "string" then return ('the string "%s"'):format(#value > 40 and value:sub(1, 40) .. "..." or value) end
  if is_tensor(value) then return "a tensor" end
  return with_article(kind)
end
arguments.describe = describe

local function is_whole(value) return type(value) == "number" and value % 1 == 0 end   -- inf % 1 and nan % 1 are nan

local function within(value, kind)
  return (not kind.least or value >= kind.least) and (not kind.most or value <= kind.most) and (not kind.above or value > kind.above)
    and (not kind.below or value < kind.below)
end

local function bounds(kind)
  if kind.least and kind.most then return (" from %.14g to %.14g"):format(kind.least, kind.most) end
  local parts = {}
  if kind.least then parts[#parts + 1] = (" of %.14g or more"):format(kind.least) end
  if kind.above then parts[#parts + 1] = (" above %.14g"):format(kind.above) end
  if kind.most then parts[#parts + 1] = (" of at most %.14g"):format(kind.most) end
  if kind.below then parts[#parts + 1] = (" below %.14g"):format(kind.below) end
  return table.concat(parts, " and")
end

local function is_callable(value)
  if type(value) == "function" then return true end
  local meta = getmetatable(value)
  return type(meta) == "table" and meta.__call ~= nil
end

-- Kinds with a name of their own: a test, and what it asks for.
local NAMED = {
  integer = { is_whole, "an integer" },
  finite = { function(value) return type(value) == "number" and value - value == 0 end, "a finite number" },
  dim = { function(value) return is_whole(value) and value ~= 0 end, "a dimension counted from 1, or from the end: -1" },
  tensor = { is_tensor, "a tensor" },
  callable = { is_callable, "a function" },
}

-- Kinds that are tables, by their first word: a test, and a function that gives what it asks for.
local FORMS = {
  number = {
    function(value, kind) return type(value) == "number" and within(value, kind) end,
    function(kind) return "a number" .. bounds(kind) end,
  },
  integer = {
    function(value, kind) return is_whole(value) and within(value, kind) end,
    function(kind) return "an integer" .. bounds(kind) end,
  },
  pair = {
    function(value, kind)
      if type(value) ~= "table" then return is_whole(value) and within(value, kind) end
      return #value == 2 and is_whole(value[1]) and is_whole(value[2]) and within(value[1], kind) and within(value[2], kind)
    end,
    function(kind) return ("an integer%s, or a table of two"):format(bounds(kind)) end,
  },
  choice = {
    function(value, kind)
      for i = 2, #kind do
        if value == kind[i] then return true end
      end
      return false
    end,
    function(kind)
      local words = {}
      for i = 2, #kind do words[i - 1] = '"' .. kind[i] .. '"' end
      return #words == 1 and words[1] or table.concat(words, ", ", 1, #words - 1) .. " or " .. words[#words]
    end,
  },
}

-- What was expected, when a value is not of a kind; nil when it is.
local function expected(value, kind)
  if kind == true then return nil end
  if type(kind) == "string" then
    local named = NAMED[kind]
    if named then
      if not named[1](value) then return named[2] end
    elseif type(value) ~= kind then
      return with_article(kind)
    end
  elseif kind.test then
    if not kind.test(value) then return kind.text end
  else
    local form = FORMS[kind[1]]
    if not form[1](value, kind) then return form[2](kind) end
  end
  return nil
end

--- Check an argument.
-- @param op the function's name
-- @param name the argument's name
-- @param value what was given
-- @param kind a kind
-- @return the value
function arguments.check(op, name, value, kind)
  local wanted = expected(value, kind)
  if wanted then arguments.fail(op, "argument '%s': %s, expected %s", name, describe(value), wanted) end
  return value
end

--- Check an argument that may be left out.
-- @param op the function's name
-- @param name the argument's name
-- @param value what was given
-- @param kind a kind
-- @param default what stands for nil
-- @return the value, or the default
function arguments.default(op, name, value, kind, default)
  if value == nil then return default end
  return arguments.check(op, name, value, kind)
end

--- Check a list whose members are all of one kind.
-- @param op the function's name
-- @param name the argument's name
-- @param list what was given
-- @param kind a kind
-- @param words what the list is to be: "a list of tensors"
-- @return the list
function arguments.list(op, name, list, kind, words)
  if type(list) ~= "table" then arguments.fail(op, "argument '%s': %s, expected %s", name, describe(list), words) end
  for i = 1, #list do
    local wanted = expected(list[i], kind)
    if wanted then arguments.fail(op, "argument '%s': member %d is %s, expected %s", name, i, describe(list[i]), wanted) end
  end
  return list
end

--- Check the sizes of a tensor.
-- @param op the function's name
-- @param shape a table of sizes
-- @param count how many there are, where the table may hold nil
-- @return the table
function arguments.shape(op, shape, count)
  if type(shape) ~= "table" then arguments.fail(op, "argument 'shape': %s, expected a table of sizes such as {2, 3}", describe(shape)) end
  for i = 1, count or #shape do
    if not is_whole(shape[i]) or shape[i] < 0 then
      arguments.fail(op, "argument 'shape': size %d is %s, expected an integer of 0 or more", i, describe(shape[i]))
    end
  end
  return shape
end

--- Check a table of named options: their names and their kinds.
-- @param op the function's name
-- @param options the table, or nil for none
-- @param known the options there are: name = kind
-- @return the table, a fresh one for nil
function arguments.options(op, options, known)
  if options == nil then return {} end
  if type(options) ~= "table" then
    arguments.fail(op, "argument 'options': %s, expected a table of named options", describe(options))
  end
  for name, value in pairs(options) do
    local kind = known[name]
    if kind == nil then
      local names = {}
      for each in pairs(known) do names[#names + 1] = tostring(each) end
      table.sort(names)
      local near = core.nearest(tostring(name), names)
      arguments.fail(op, "there is no option '%s'%s", tostring(name),
        near and (", did you mean '%s'?"):format(near) or "; there are: " .. table.concat(names, ", "))
    end
    local wanted = expected(value, kind)
    if wanted then arguments.fail(op, "option '%s': %s, expected %s", name, describe(value), wanted) end
  end
  return options
end

return arguments
