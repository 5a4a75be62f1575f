--- Checks of arguments for the modules in lua/unic: a mistake is a sentence that names what was meant.
-- Sentences have the form `[function] argument 'name': what is wrong, what was given, what was expected`; the report of an uncaught error puts
-- the user's own line under it.
-- @module unic.arguments
local arguments = {}

-- Edits that turn one word into the other; a swap of neighbours, the commonest slip of the fingers, is one.
local function distance(a, b)
  local before, row = {}, {}
  for j = 0, #b do row[j] = j end
  for i = 1, #a do
    local next_row = { [0] = i }
    for j = 1, #b do
      local cost = a:byte(i) == b:byte(j) and 0 or 1
      local best = math.min(row[j] + 1, next_row[j - 1] + 1, row[j - 1] + cost)
      if i > 1 and j > 1 and a:byte(i) == b:byte(j - 1) and a:byte(i - 1) == b:byte(j) then best = math.min(best, before[j - 2] + 1) end
      next_row[j] = best
    end
    before, row = row, next_row
  end
  return row[#b]
end

--- The word of a list that is nearest to the given one.
-- @param word what was written
-- @param list the words there are
-- @return the nearest, the first of equals in alphabetical order; nil when the list is empty
function arguments.nearest(word, list)
  local sorted = {}
  for i = 1, #list do sorted[i] = list[i] end
  table.sort(sorted)
  local best, least
  for _, name in ipairs(sorted) do
    local d = distance(word, name)
    if not least or d < least then best, least = name, d end
  end
  return best
end

--- Raise a sentence.
-- @param op the function's name, as the user wrote it
-- @param sentence what is wrong; a format
-- @param ... its values
function arguments.fail(op, sentence, ...)
  error(("[%s] " .. sentence):format(op, ...), 0)
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
  if kind == "string" then return ("the string '%s'"):format(#value > 40 and value:sub(1, 40) .. "..." or value) end
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

--- Check a table of named options.
-- @param op the function's name
-- @param options the table, or nil for none
-- @param known the options there are: name = Lua type or "integer"
-- @return the table, a fresh one for nil
function arguments.options(op, options, known)
  if options == nil then return {} end
  if type(options) ~= "table" then
    arguments.fail(op, "argument 'options': %s, expected a table of named options", describe(options))
  end
  for name, value in pairs(options) do
    local kind = known[name]
    if not kind then
      local list = {}
      for k in pairs(known) do list[#list + 1] = k end
      if type(name) ~= "string" then
        table.sort(list)
        arguments.fail(op, "argument 'options': has %s at [%s], expected named options: %s", describe(value), tostring(name), table.concat(list, ", "))
      end
      arguments.fail(op, "option '%s': there is none of that name; did you mean '%s'?", name, arguments.nearest(name, list))
    end
    if not is_kind(value, kind) then arguments.fail(op, "option '%s': %s, expected %s", name, describe(value), with_article(kind)) end
  end
  return options
end

return arguments
