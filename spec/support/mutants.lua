--- Faults planted one at a time, to see whether the specs notice. The faults are rows of a CSV:
--   file,original,replacement,what,specs
-- `original` must occur exactly once in `file`; `specs` are patterns for `./unic test`, tried before the whole suite.
local mutants = {}

local columns = { "file", "original", "replacement", "what", "specs" }

-- RFC 4180: fields in quotes may hold commas, line ends and doubled quotes.
local function parse_fields(text)
  local rows, row, at, line = {}, {}, 1, 1
  while at <= #text do
    local field
    if text:sub(at, at) == '"' then
      local parts = {}
      at = at + 1
      while true do
        local stop = text:find('"', at, true)
        if not stop then error(("line %d: a quote without its end"):format(line), 0) end
        parts[#parts + 1] = text:sub(at, stop - 1)
        at = stop + 1
        if text:sub(at, at) ~= '"' then break end
        parts[#parts + 1] = '"'
        at = at + 1
      end
      field = table.concat(parts)
    else
      local stop = text:find("[,\r\n]", at) or #text + 1
      field = text:sub(at, stop - 1)
      at = stop
    end
    row.line = row.line or line
    local _, ends = field:gsub("\n", "")
    line = line + ends
    row[#row + 1] = field
    local mark = text:match("^\r?\n", at)
    if mark then
      at, line = at + #mark, line + 1
    elseif text:sub(at, at) == "," then
      at = at + 1
      if at > #text then row[#row + 1] = "" end
    elseif at <= #text then
      error(("line %d: text after the closing quote"):format(line), 0)
    end
    if mark or at > #text then
      rows[#rows + 1] = row
      row = {}
    end
  end
  return rows
end

--- Read the faults.
-- @param text the CSV
-- @return a list of tables with the five columns
-- @raise a sentence that names the line
function mutants.parse(text)
  local rows = parse_fields(text)
  local header = table.remove(rows, 1) or {}
  if table.concat(header, ",") ~= table.concat(columns, ",") then
    error(("line 1: the header is '%s', expected '%s'"):format(table.concat(header, ","), table.concat(columns, ",")), 0)
  end
  for i, row in ipairs(rows) do
    if #row ~= #columns then error(("line %d: %d fields, expected %d"):format(row.line, #row, #columns), 0) end
    local fault = { line = row.line }
    for j, name in ipairs(columns) do
      fault[name] = row[j]
      if row[j] == "" and name ~= "replacement" then error(("line %d: '%s' is empty"):format(row.line, name), 0) end
    end
    if fault.original == fault.replacement then error(("line %d: the replacement is the original"):format(row.line), 0) end
    rows[i] = fault
  end
  return rows
end

local function read(path)
  local file, why = io.open(path, "rb")
  if not file then return nil, why end
  local text = file:read("*a")
  file:close()
  return text
end

local function write(path, text)
  local file = assert(io.open(path, "wb"))
  file:write(text)
  assert(file:close())
end

--- Plant a fault.
-- @param folder the root of the tree
-- @param fault a row
-- @return a function that takes it out again; or nil and a sentence
function mutants.plant(folder, fault)
  local path = folder .. "/" .. fault.file
  local text, why = read(path)
  if not text then return nil, why end
  local first, last = text:find(fault.original, 1, true)
  if not first then return nil, "the original text is not in the file" end
  if text:find(fault.original, first + 1, true) then return nil, "the original text is in the file more than once" end
  write(path, text:sub(1, first - 1) .. fault.replacement .. text:sub(last + 1))
  return function() write(path, text) end
end

--- Try one fault.
-- @param folder the root of the tree
-- @param fault a row
-- @param tree table of functions: `build()` returns whether it built; `test(patterns)` returns whether all passed, and a word on the first failure
-- @return "caught", "missed" or "invalid", and a word on it
function mutants.try(folder, fault, tree)
  local take_out, why = mutants.plant(folder, fault)
  if not take_out then return "invalid", why end
  local ok, verdict, word = pcall(function()
    if not tree.build() then return "invalid", "does not build" end
    local passed, failure = tree.test(fault.specs)
    if passed then passed, failure = tree.test("") end
    if passed then return "missed", "by the whole suite" end
    return "caught", failure
  end)
  take_out()
  if not ok then error(verdict, 0) end
  return verdict, word
end

return mutants
