--- Settings in JSON, as Hugging Face's folders have them: read with sentences, written as a person writes them.
-- @module unic.json
local cjson = require "cjson"
local arguments = require "unic.arguments"

local fail = arguments.fail
local json = {}

local LIMIT = 64 * 2 ^ 20   -- an index of a million names has about 50 MB

-- null becomes nothing: a field that is null says no more than one that is not there.
local function without_null(t)
  for key, each in pairs(t) do
    if each == cjson.null then t[key] = nil elseif type(each) == "table" then without_null(each) end
  end
  return t
end

--- A JSON file as a table.
-- @param op the function's name, for the sentence
-- @param path the file
-- @return a table
function json.read(op, path)
  local stream, why = io.open(path, "rb")
  if not stream then fail(op, "'%s': cannot be read (%s)", path, (why:gsub("^.*: ", ""))) end
  local size = stream:seek "end"
  if not size or size > LIMIT then
    stream:close()
    fail(op, "'%s': is no JSON file of at most %d MB", path, LIMIT / 2 ^ 20)
  end
  stream:seek "set"
  local text = stream:read "*a"
  stream:close()
  local ok, value = pcall(cjson.decode, text or "")
  if not ok or type(value) ~= "table" then fail(op, "'%s': is no JSON object (%s)", path, ok and type(value) or tostring(value)) end
  return without_null(value)
end

local ESCAPES = { ['"'] = '\\"', ["\\"] = "\\\\", ["\n"] = "\\n", ["\r"] = "\\r", ["\t"] = "\\t" }

local function quoted(text)
  return '"' .. text:gsub('[%c"\\]', function(c) return ESCAPES[c] or ("\\u%04x"):format(c:byte()) end) .. '"'
end

-- The shortest digits that read back as the same number.
local function number_text(x)
  if x % 1 == 0 and math.abs(x) < 2 ^ 53 then return ("%d"):format(x) end
  for digits = 15, 16 do
    local text = ("%%.%dg"):format(digits):format(x)
    if tonumber(text) == x then return text end
  end
  return ("%.17g"):format(x)
end

-- JSON as a person writes it, keys in order: equal tables give equal files.
local function encode(value, indent, where, refuse)
  local kind = type(value)
  if kind == "string" then return quoted(value) end
  if kind == "boolean" then return tostring(value) end
  if kind == "number" and value - value == 0 then return number_text(value) end
  if kind ~= "table" then refuse("%s is %s, which JSON does not have", where, arguments.describe(value)) end
  local inner, parts = indent .. "  ", {}
  if #value > 0 then
    for i, each in ipairs(value) do parts[i] = inner .. encode(each, inner, where .. "[" .. i .. "]", refuse) end
    return "[\n" .. table.concat(parts, ",\n") .. "\n" .. indent .. "]"
  end
  local keys = {}
  for key in pairs(value) do
    if type(key) ~= "string" then refuse("%s has a key that is %s", where, arguments.describe(key)) end
    keys[#keys + 1] = key
  end
  table.sort(keys)
  for i, key in ipairs(keys) do parts[i] = inner .. quoted(key) .. ": " .. encode(value[key], inner, where .. "." .. key, refuse) end
  if #parts == 0 then return "{}" end
  return "{\n" .. table.concat(parts, ",\n") .. "\n" .. indent .. "}"
end

--- A table as JSON, indented, with a line's end.
-- @param op the function's name, for the sentence
-- @param what what the table is, for the sentence: "option 'config'"
-- @param value tables with strings as keys, lists, strings, finite numbers, booleans; an empty table is {}
-- @return a string
function json.encode(op, what, value)
  return encode(value, "", "it", function(sentence, ...) fail(op, what .. ": " .. sentence, ...) end) .. "\n"
end

return json
