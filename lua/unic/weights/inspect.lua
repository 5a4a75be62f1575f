--- What is in a file of weights, printed; see unic.inspect.
-- @module unic.weights.inspect
local lfs = require "lfs"
local arguments = require "unic.arguments"
local core = require "unic.core"
local module = require "unic.nn.module"
local names = require "unic.weights.names"
local open = require "unic.weights.file".open

local is_tensor = core.tensor.is_tensor
local OPTIONS = { pattern = "string", print = "boolean" }
local BYTES = { f32 = 4, f64 = 8, f16 = 2, bf16 = 2, i64 = 8, i32 = 4, u8 = 1, bool = 1 }
-- What of a config.json says which model it is.
local CONFIG = {
  "model_type", "architectures", "vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "max_position_embeddings",
}

-- One line of text, of at most so many characters. Metadata may hold anything: what is no printable ASCII is shown as ?.
local function shortened(text, most)
  text = text:gsub("[^\32-\126]", "?")
  return #text > most and ("%s... (%d characters)"):format(text:sub(1, most), #text) or text
end

local function row_of(name, t)
  return { name = name, dtype = t.dtype:upper(), shape = t.shape, bytes = t:numel() * BYTES[t.dtype] }
end

-- Rows, and what is said above them.
local function of_file(file)
  local rows, head, bytes = { kind = file.kind, path = file.path, files = file.files }, {}, 0
  for _, path in ipairs(file.files) do bytes = bytes + lfs.attributes(path, "size") end
  head[1] = ("%s: %s, %d %s, %.1f MB"):format(file.path, file.kind, #file.files, #file.files == 1 and "file" or "files", bytes / 1e6)
  if #file.files > 1 or file.files[1] ~= file.path then
    for i, path in ipairs(file.files) do
      if i > 8 then head[#head + 1] = ("  ... (%d in all)"):format(#file.files) break end
      head[#head + 1] = "  " .. path
    end
  end
  local metadata, keys = file:metadata(), {}
  for key in pairs(metadata) do keys[#keys + 1] = key end
  table.sort(keys)
  for i, key in ipairs(keys) do
    if i > 12 then head[#head + 1] = ("metadata ... (%d in all)"):format(#keys) break end
    head[#head + 1] = ("metadata %s = %s"):format(shortened(key, 40), shortened(metadata[key], 100))
  end
  if file.config then
    local parts = {}
    for _, key in ipairs(CONFIG) do
      local value = file.config[key]
      if type(value) == "table" then value = tostring(value[1]) end
      if value ~= nil then parts[#parts + 1] = ("%s %s"):format(key, shortened(tostring(value), 60)) end
    end
    head[#head + 1] = "config " .. table.concat(parts, ", ")
  end
  if file.vocab then head[#head + 1] = "vocabulary " .. file.vocab end
  for i, name in ipairs(file.list) do
    rows[i] = file:info(name)
    rows[i].name = name
  end
  rows.metadata, rows.config = metadata, file.config
  return rows, head
end

local function of_values(list, words)
  local rows = { kind = words }
  for i, entry in ipairs(list) do rows[i] = row_of(entry.name, entry.value) end
  return rows, { words }
end

-- Every tensor in a table of tables, by its path; a table that holds itself is walked once.
local function tensors_in(t, prefix, list, seen)
  if seen[t] then return list end
  seen[t] = true
  local keys = {}
  for key in pairs(t) do keys[#keys + 1] = key end
  table.sort(keys, function(a, b) return tostring(a) < tostring(b) end)
  for _, key in ipairs(keys) do
    local value, name = t[key], prefix .. tostring(key)
    if is_tensor(value) then list[#list + 1] = { name = name, value = value }
    elseif type(value) == "table" then tensors_in(value, name .. ".", list, seen) end
  end
  return list
end

local function shape_text(shape) return "[" .. table.concat(shape, ", ") .. "]" end

-- A table of name, dtype, shape, MB; below it the sums.
local function lines_of(rows, pattern)
  local lines, width, shape_width = {}, 6, 5
  local shown = {}
  for _, row in ipairs(rows) do
    if not pattern or row.name:find(pattern) then
      shown[#shown + 1] = row
      width, shape_width = math.max(width, #shortened(row.name, 100)), math.max(shape_width, #shape_text(row.shape))
    end
  end
  local format = ("%%-%ds  %%-5s  %%-%ds  %%10s"):format(math.min(width, 99), math.min(shape_width, 99))
  if #shown > 0 then lines[1] = format:format("tensor", "dtype", "shape", "MB") end
  for _, row in ipairs(shown) do
    lines[#lines + 1] = format:format(shortened(row.name, 100), row.dtype, shape_text(row.shape), ("%.3f"):format(row.bytes / 1e6))
  end
  local total, kinds, order = { tensors = #rows, elements = 0, bytes = 0 }, {}, {}
  for _, row in ipairs(rows) do
    local n = 1
    for _, size in ipairs(row.shape) do n = n * size end
    total.elements, total.bytes = total.elements + n, total.bytes + row.bytes
    if not kinds[row.dtype] then
      kinds[row.dtype] = 0
      order[#order + 1] = row.dtype
    end
    kinds[row.dtype] = kinds[row.dtype] + 1
  end
  for i, kind in ipairs(order) do order[i] = ("%s %d"):format(kind, kinds[kind]) end
  lines[#lines + 1] = ("%d tensors, %.0f elements, %.3f MB%s"):format(total.tensors, total.elements, total.bytes / 1e6,
    #order > 0 and " (" .. table.concat(order, ", ") .. ")" or "")
  rows.total = total
  return lines
end

local function maps_of(rows)
  local list, found, words = {}, {}, {}
  for i, row in ipairs(rows) do list[i] = row.name end
  for _, name in ipairs(names.list()) do
    local map = names.get("inspect", name)
    if names.looks_like(map, list) then
      found[#found + 1] = name
      words[#words + 1] = map.verified and name or name .. " (unverified: never tried on a real file)"
    end
  end
  return found, #words > 0 and "maps that fit: " .. table.concat(words, ", ") or "maps that fit: none is known for such names"
end

--- See unic.inspect.
return function(what, options)
  options = arguments.options("inspect", options, OPTIONS)
  local rows, head
  if module.is_module(what) then
    rows, head = of_values(what:named_state(), what._name)
  elseif is_tensor(what) then
    rows, head = of_values({ { name = "", value = what } }, "a tensor")
  elseif type(what) == "string" then
    local file = open(what)
    local ok, a, b = pcall(of_file, file)
    file:close()
    if not ok then error(a, 0) end
    rows, head = a, b
  elseif type(what) == "table" and getmetatable(what) and getmetatable(what).__name == "unic.weights.file" then
    rows, head = of_file(what)
  elseif type(what) == "table" and getmetatable(what) == nil then
    rows, head = of_values(tensors_in(what, "", {}, {}), "a table")
  else
    arguments.fail("inspect", "argument 'what': %s, expected a path, an open file of weights, a module or a table of tensors", arguments.describe(what))
  end
  local lines = lines_of(rows, options.pattern)
  local words
  rows.maps, words = maps_of(rows)
  lines[#lines + 1] = words
  rows.text = table.concat(head, "\n") .. "\n" .. table.concat(lines, "\n")
  if options.print ~= false then print(rows.text) end
  return rows
end
