--- Saving and loading of tensors and of tables that hold them: `unic.save(path, value)`, `unic.load(path)`.
-- The file is a safetensors file, so that other programs can read its tensors: a table `{name = tensor}` is saved under these names, deeper
-- ones under their path ("model.weight"). What safetensors cannot say (the shape of the tables, strings, numbers) stands as JSON under
-- `unic.value` in the file's metadata; a file without it loads as a table of its tensors. Nothing in a file is ever run as a program.
--
-- The JSON: `{"format": 1, "root": value, "tables": [{"list": [value...], "pairs": [[key, value]...]}...]}`. A value is a string, a boolean,
-- a whole number, or an object that says what JSON cannot: `{"number": "0.1"}` with 17 digits, "inf", "-inf" or "nan";
-- `{"bytes": "ff00"}`, a string that is not UTF-8; `{"table": 1}`, one of the tables, counted from 1, so that a table that occurs twice
-- is one again; `{"tensor": "name"}`, with `"gradient": true` for one that wants a gradient.
-- @module unic.save
local cjson = require "cjson"
local arguments = require "unic.arguments"
local core = require "unic.core"
local files = require "unic.files"

local save = {}

local FORMAT, KEY = 1, "unic.value"
local ROOT = "(root)"   -- what the readers of other formats call a tensor that is the whole file
local LONGEST = 1000   -- bytes of a tensor's name in the file
local is_tensor = core.tensor.is_tensor

---------------------------------------------------------------------------------------------------------------------------- writing

-- The way to a value is a chain of {up = the way to its table, key}, made into words only where they are needed.
local function keys_of(way)
  local keys = {}
  while way.up do
    table.insert(keys, 1, way.key)
    way = way.up
  end
  return keys
end

-- As a person writes it: value.model["layer 1"][3]
local function place(way)
  local parts = { "value" }
  for _, key in ipairs(keys_of(way)) do
    local name = type(key) == "string"
    parts[#parts + 1] = name and key:find "^[%a_][%w_]*$" and "." .. key or (name and "[%q]" or "[%s]"):format(tostring(key))
  end
  return table.concat(parts)
end

-- As a tensor is called in the file: model.layer 1.3
local function dotted(way)
  local keys = keys_of(way)
  if #keys == 0 then return "tensor" end
  for i, key in ipairs(keys) do keys[i] = tostring(key) end
  return table.concat(keys, ".")
end

local function encode_number(x)
  if x ~= x then return { number = "nan" } end
  if x == math.huge or x == -math.huge then return { number = x > 0 and "inf" or "-inf" } end
  if x % 1 == 0 and math.abs(x) < 1e14 and (x ~= 0 or 1 / x > 0) then return x end   -- as cjson writes it, with 14 digits
  return { number = ("%.17g"):format(x) }
end

local function encode_string(s)
  if core.files.is_utf8(s) then return s end
  return { bytes = (s:gsub(".", function(c) return ("%02x"):format(c:byte()) end)) }
end

-- The keys beyond the first `count` whole numbers, in an order that does not depend on addresses: equal values give equal files.
local function other_keys(t, count, way)
  local keys = {}
  for key in pairs(t) do
    local kind = type(key)
    if kind == "number" then
      if key % 1 ~= 0 or key < 1 or key > count then keys[#keys + 1] = key end
    elseif kind == "string" or kind == "boolean" then
      keys[#keys + 1] = key
    else
      arguments.fail("save", "%s has a key that is %s, expected strings, numbers and booleans as keys", place(way), arguments.describe(key))
    end
  end
  table.sort(keys, function(a, b)
    local kind_a, kind_b = type(a), type(b)
    if kind_a ~= kind_b then return kind_a < kind_b end
    if kind_a == "boolean" then return not a and b end
    return a < b
  end)
  return keys
end

-- A table gets its number here and its contents later, from `fill`: it may contain itself, and a chain of tables may be long.
local function encode_table(state, t, way)
  if not state.number[t] then
    if getmetatable(t) ~= nil then
      arguments.fail("save", "%s is a table with a metatable%s, expected tensors, plain tables, strings, numbers and booleans", place(way),
        type(t.state_dict) == "function" and " (save its :state_dict())" or "")
    end
    local n = #state.tables + 1
    state.tables[n] = { list = {}, pairs = {} }
    state.number[t] = n
    state.waiting[n] = { table = t, way = way }
  end
  return { table = state.number[t] }
end

-- The name in the file: the path, where it can be one and is free.
local function encode_tensor(state, t, way)
  local known = state.named[t]
  if not known then
    known = dotted(way)
    if known == "" or #known > LONGEST or known == "__metadata__" or known:find "%z" or not core.files.is_utf8(known) or state.tensors[known] then
      local base, n = "tensor", 1
      repeat
        n = n + 1
        known = ("%s.%d"):format(base, n)
      until not state.tensors[known]
    end
    state.named[t] = known
    state.tensors[known] = t
  end
  return { tensor = known, gradient = t.requires_grad and t.is_leaf or nil }
end

local function encode(state, value, way)
  local kind = type(value)
  if kind == "boolean" then return value end
  if kind == "number" then return encode_number(value) end
  if kind == "string" then return encode_string(value) end
  if is_tensor(value) then return encode_tensor(state, value, way) end
  if kind == "table" then return encode_table(state, value, way) end
  arguments.fail("save", "%s is %s, expected tensors, plain tables, strings, numbers and booleans", place(way), arguments.describe(value))
end

local function fill(state, node, t, way)
  local count = 0
  while t[count + 1] ~= nil do
    count = count + 1
    node.list[count] = encode(state, t[count], { up = way, key = count })
  end
  for i, key in ipairs(other_keys(t, count, way)) do
    node.pairs[i] = { encode(state, key), encode(state, t[key], { up = way, key = key }) }
  end
end

--- Save a tensor, or a table of anything but functions.
-- Tables may hold tensors, strings, numbers, booleans and tables, to any depth, also themselves; a tensor or table that occurs twice is
-- saved once and is one again when it is loaded. Of a tensor the values, dtype, shape and `requires_grad` are kept; views are saved each for
-- itself, and a computed tensor without what it was computed from. Save a module by its `:state_dict()`.
-- The file is a safetensors file and gets its name when it is whole.
-- @param path the file; an existing one is replaced by one rename
-- @param value what to save
function save.save(path, value)
  arguments.check("save", "path", path, "string")
  if value == nil then arguments.fail("save", "argument 'value': nil, expected a tensor or a table") end
  local state = { tables = {}, number = {}, waiting = {}, tensors = {}, named = {} }
  local root = encode(state, value, {})
  for n = 1, math.huge do   -- tables are added as they are met
    local each = state.waiting[n]
    if not each then break end
    fill(state, state.tables[n], each.table, each.way)
  end
  local text = cjson.encode { format = FORMAT, root = root, tables = state.tables }
  files.safetensors_save(path, state.tensors, { [KEY] = text, format = "pt" })
end

---------------------------------------------------------------------------------------------------------------------------- reading

local function damaged(path, sentence, ...)
  arguments.fail("load", "'%s': its '%s' " .. sentence, path, KEY, ...)
end

local NUMBERS = { inf = math.huge, ["-inf"] = -math.huge, nan = 0 / 0 }

local function decode(state, value)
  local kind = type(value)
  if kind == "string" or kind == "boolean" or kind == "number" then return value end
  if kind ~= "table" then damaged(state.path, "holds null, where a value should be") end
  if value.table ~= nil then
    return state.tables[value.table] or damaged(state.path, "names table %s of %d", tostring(value.table), #state.tables)
  elseif value.tensor ~= nil then
    local name = value.tensor
    if type(name) ~= "string" or not state.file:info(name) then damaged(state.path, "names a tensor '%s', which the file does not have", tostring(name)) end
    local t = state.tensors[name]
    if not t then
      t = state.file:tensor(name, state.device)
      if value.gradient == true then t.requires_grad = true end
      state.tensors[name] = t
    end
    return t
  elseif type(value.number) == "string" then
    local x = NUMBERS[value.number] or tonumber(value.number)
    return x or damaged(state.path, "holds '%s' as a number", value.number)
  elseif type(value.bytes) == "string" and #value.bytes % 2 == 0 and not value.bytes:find "%X" then
    return (value.bytes:gsub("..", function(byte) return string.char(tonumber(byte, 16)) end))
  end
  damaged(state.path, "holds an object that says nothing this version knows")
end

local function is_key(key) return key ~= nil and key == key and not is_tensor(key) and type(key) ~= "table" end

local function decode_tables(state, nodes)
  for i = 1, #nodes do state.tables[i] = {} end
  for i, node in ipairs(nodes) do
    if type(node) ~= "table" or type(node.list) ~= "table" or type(node.pairs) ~= "table" then damaged(state.path, "has a table %d without list and pairs", i) end
    local t = state.tables[i]
    for k, each in ipairs(node.list) do t[k] = decode(state, each) end
    for _, pair in ipairs(node.pairs) do
      local key = type(pair) == "table" and decode(state, pair[1])
      if not is_key(key) then damaged(state.path, "has a table %d with a key that cannot be one", i) end
      t[key] = decode(state, pair[2])
    end
  end
end

--- Load what `unic.save` wrote. Other weights give a table of their tensors by name, one without a name (.npy) the tensor itself.
-- @param path the file, or a folder of weights
-- @param[opt] options `device` for the tensors: nil = the default device
-- @return what was saved
function save.load(path, options)
  options = arguments.options("load", options, { device = "string" })
  local file = require("unic.weights").open(arguments.check("load", "path", path, "string"))
  local state = { path = path, file = file, device = options.device, tables = {}, tensors = {} }
  local text = file:metadata()[KEY]
  if not text or file.kind ~= "safetensors" then
    local all, list = {}, file:names()
    for _, name in ipairs(list) do all[name] = file:tensor(name, options.device) end
    file:close()
    return #list == 1 and all[ROOT] or all
  end
  local ok, saved = pcall(cjson.decode, text)
  if not ok or type(saved) ~= "table" or type(saved.tables) ~= "table" then damaged(path, "in the metadata is not what unic.save writes") end
  if saved.format ~= FORMAT then damaged(path, "has the format %s, this version reads %d", tostring(saved.format), FORMAT) end
  decode_tables(state, saved.tables)
  local value = decode(state, saved.root)
  file:close()
  return value
end

return save
