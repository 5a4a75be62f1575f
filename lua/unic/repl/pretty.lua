--- Lua values as text for the prompt: tables with sorted keys, bounded depth and length, cycles marked.
-- @module unic.repl.pretty
local lexer = require "unic.repl.lexer"

local pretty = {}

local DEPTH, ITEMS, STRING_LIMIT = 4, 50, 200

local ESCAPES = { ["\n"] = "\\n", ["\r"] = "\\r", ["\t"] = "\\t", ['"'] = '\\"', ["\\"] = "\\\\" }

local function quote(text)
  local rest = ""
  if #text > STRING_LIMIT then
    rest = string.format("... (%d bytes)", #text)
    text = text:sub(1, STRING_LIMIT):gsub("[\192-\255][\128-\191]*$", "")   -- not in the middle of a character
  end
  return '"' .. text:gsub('[%c"\\]', function(c) return ESCAPES[c] or string.format("\\%03d", c:byte()) end) .. '"' .. rest
end

local function is_name(key) return type(key) == "string" and key:find("^[%a_][%w_]*$") and not lexer.KEYWORDS[key] end

-- What stands for an object inside a table: its one line; of a tensor the last one, which holds dtype and shape, of other objects the first.
local function brief(value)
  local text = tostring(value)
  if not text:find("\n", 1, true) then return text end
  if type(value) == "userdata" then
    local last = text:match("\n(%[[^\n]*%])$")
    if last then return last end
  end
  local first, second = text:match("^([^\n]*)\n([^\n]*)$")
  return first and first .. " " .. second or text:match("^[^\n]*") .. " ..."
end

local function has_tostring(value)
  local meta = debug.getmetatable(value)
  return type(meta) == "table" and rawget(meta, "__tostring") ~= nil
end

local function key_order(a, b)
  local x, y = type(a), type(b)
  if x ~= y then return x == "number" or (y ~= "number" and x < y) end
  if x == "number" or x == "string" then return a < b end
  return tostring(a) < tostring(b)
end

local write

local function write_table(t, indent, room, depth, seen)
  if seen[t] then return "<cycle>" end
  if next(t) == nil then return "{}" end
  if depth > DEPTH then return "{...}" end
  seen[t] = true
  local count = 0
  while rawget(t, count + 1) ~= nil do count = count + 1 end
  local parts, left_out = {}, 0
  local inner = indent .. "  "
  for i = 1, count do
    if i > ITEMS then left_out = count - ITEMS break end
    parts[#parts + 1] = write(rawget(t, i), inner, room, depth + 1, seen)
  end
  local keys = {}
  for key in next, t do
    if not (type(key) == "number" and key >= 1 and key <= count and key % 1 == 0) then keys[#keys + 1] = key end
  end
  table.sort(keys, key_order)
  for i = 1, #keys do
    if i > ITEMS then left_out = left_out + #keys - ITEMS break end
    local key = keys[i]
    local name = is_name(key) and key or "[" .. (type(key) == "string" and quote(key) or brief(key)) .. "]"
    parts[#parts + 1] = name .. " = " .. write(rawget(t, key), inner, room, depth + 1, seen)
  end
  if left_out > 0 then parts[#parts + 1] = "... " .. left_out .. " more" end
  seen[t] = nil

  local length, several = #indent + 4, false
  for i = 1, #parts do
    length = length + #parts[i] + 2
    several = several or parts[i]:find("\n", 1, true)
  end
  if length <= room and not several then return "{" .. table.concat(parts, ", ") .. "}" end
  -- A list of short things (numbers, say) runs on over the lines; anything else takes a line each.
  if #keys == 0 and not several then
    local widest = 0
    for i = 1, #parts do widest = math.max(widest, #parts[i]) end
    if widest <= 20 then
      local lines, line = {}, inner
      for i = 1, #parts do
        local piece = parts[i] .. (i < #parts and "," or "")
        if #line + #piece + 1 > room and line ~= inner then
          lines[#lines + 1] = line
          line = inner
        end
        line = line .. (line == inner and "" or " ") .. piece
      end
      lines[#lines + 1] = line
      return "{\n" .. table.concat(lines, "\n") .. "\n" .. indent .. "}"
    end
  end
  return "{\n" .. inner .. table.concat(parts, ",\n" .. inner) .. "\n" .. indent .. "}"
end

function write(value, indent, room, depth, seen)
  local kind = type(value)
  if kind == "string" then return quote(value) end
  if kind == "table" and not has_tostring(value) then return write_table(value, indent, room, depth, seen) end
  return brief(value)
end

--- The text for a value at the prompt. Objects with `__tostring` show themselves; a string with line ends is shown as it is, others quoted.
-- @param value anything
-- @param width columns of the screen, 80 when absent
-- @return a string
function pretty.text(value, width)
  local kind = type(value)
  if kind == "string" then return value:find("\n", 1, true) and value or quote(value) end
  if kind == "table" and not has_tostring(value) then return write_table(value, "", width or 80, 1, {}) end
  return tostring(value)
end

return pretty
