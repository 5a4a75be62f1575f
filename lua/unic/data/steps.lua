--- Steps of augmentation: from a recipe's `{"rotate", 0, 90}` to the numbers that C runs, and plain values as Lua text.
-- @module unic.data.steps
local arguments = require "unic.arguments"
local core = require "unic.core"

local steps = {}

local forms, kinds, names = core.data.steps(), {}, {}
for kind, form in ipairs(forms) do
  form.kind = kind
  kinds[form.name] = form
  names[kind] = form.name
end

--- The steps there are: a list of {name =, help =, parameters = {{name =, required =, fallback =}, ...}}.
steps.forms = forms

local function literal(value, op, seen)
  local kind = type(value)
  if kind == "nil" or kind == "boolean" then return tostring(value) end
  if kind == "string" then return (("%q"):format(value):gsub("\\\n", "\\n"):gsub("\r", "\\r"):gsub("%z", "\\0")) end
  if kind == "number" then
    if value ~= value then return "(0/0)" end
    if value == math.huge then return "math.huge" elseif value == -math.huge then return "-math.huge" end
    return ("%.17g"):format(value)
  end
  if kind ~= "table" then arguments.fail(op, "a %s cannot be handed to a worker, expected numbers, strings, booleans and tables of them", kind) end
  if seen[value] then arguments.fail(op, "a table that holds itself cannot be handed to a worker") end
  seen[value] = true
  local keys, parts = {}, {}
  for key in pairs(value) do
    if type(key) ~= "string" and type(key) ~= "number" then arguments.fail(op, "a key is a %s, expected a string or a number", type(key)) end
    keys[#keys + 1] = key
  end
  table.sort(keys, function(a, b)
    if type(a) ~= type(b) then return type(a) == "number" end
    return a < b
  end)
  for i, key in ipairs(keys) do parts[i] = ("[%s]=%s"):format(literal(key, op, seen), literal(value[key], op, seen)) end
  seen[value] = nil
  return "{" .. table.concat(parts, ",") .. "}"
end

--- Plain data as Lua text; equal data give equal text.
-- @param value nil, a boolean, number, string, or a table of such
-- @param op name for sentences
-- @return a string that `loadstring("return " .. s)()` turns back into the value
function steps.literal(value, op)
  return literal(value, op, {})
end

local function fail_step(op, view, at, name, sentence, ...)
  arguments.fail(op, "view '%s', step %d (%s): " .. sentence, view, at, name, ...)
end

-- {"lua", "my_module", "fn", args}
local function lua_step(op, view, at, step, functions)
  local module, name = step[2], step[3]
  if type(module) ~= "string" or type(name) ~= "string" then
    fail_step(op, view, at, "lua", "expected {\"lua\", \"module\", \"function\", args}")
  end
  functions[#functions + 1] = { module = module, name = name, args = step[4] }
  steps.literal(step[4], op)   -- refused here rather than in a worker
  return { kinds.lua.kind, #functions }
end

local function number_of(op, view, at, name, parameter, value)
  if value == nil then
    if parameter.required then fail_step(op, view, at, name, "'%s' is missing", parameter.name) end
    return parameter.fallback
  end
  if type(value) == "boolean" then return value and 1 or 0 end
  if type(value) ~= "number" then fail_step(op, view, at, name, "'%s' is a %s, expected a number", parameter.name, type(value)) end
  return value
end

local function plain_step(op, view, at, step, form)
  local out, known = { form.kind }, {}
  for p, parameter in ipairs(form.parameters) do known[p] = parameter.name end
  for key in pairs(step) do
    if type(key) == "number" then
      if key > #form.parameters + 1 then
        fail_step(op, view, at, form.name, "%d values were given, it takes %s", key - 1,
          #known == 0 and "none" or ("%d: %s"):format(#known, table.concat(known, ", ")))
      end
    else
      local found = false
      for _, name in ipairs(known) do found = found or name == key end
      if not found then
        local near = core.nearest(tostring(key), known)
        fail_step(op, view, at, form.name, "there is no '%s'%s", tostring(key),
          near and (", did you mean '%s'?"):format(near) or "; it takes " .. (#known > 0 and table.concat(known, ", ") or "nothing"))
      end
    end
  end
  for p, parameter in ipairs(form.parameters) do
    local value = step[parameter.name]
    if value == nil then value = step[p + 1] end
    out[p + 1] = number_of(op, view, at, form.name, parameter, value)
  end
  return out
end

--- Check a view and turn it into what C takes.
-- @param op name for sentences
-- @param view its name
-- @param list `{{"random_crop", 224}, {"affine", shear = 5}, ...}`
-- @param functions a list that gets the steps that are Lua functions
-- @return {name =, {kind, numbers ...}, ...}
function steps.compile(op, view, list, functions)
  if type(list) ~= "table" then arguments.fail(op, "view '%s': a %s was given, expected a list of steps such as {\"random_crop\", 224}", view, type(list)) end
  local out = { name = view }
  for key in pairs(list) do
    if type(key) ~= "number" then arguments.fail(op, "view '%s': there is something called '%s' among the steps, expected a list", view, tostring(key)) end
  end
  for at, step in ipairs(list) do
    local name = type(step) == "table" and step[1]
    if type(name) ~= "string" then
      arguments.fail(op, "view '%s', step %d: a %s was given, expected a table that begins with a step's name, such as {\"random_crop\", 224}", view, at, type(step))
    end
    local form = kinds[name]
    if not form then
      local near = core.nearest(name, names)
      arguments.fail(op, "view '%s', step %d: there is no step '%s'%s", view, at, name,
        near and (", did you mean '%s'?"):format(near) or "; there are: " .. table.concat(names, ", "))
    end
    out[at] = name == "lua" and lua_step(op, view, at, step, functions) or plain_step(op, view, at, step, form)
  end
  return out
end

return steps
