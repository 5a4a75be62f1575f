--- Error reports that start at the user's line: the sentence, then the calls that led to it without Unic's own.
local trace = {}

-- "@/path/to/lua/unic/": sources that begin so are Unic's own.
local own = debug.getinfo(1, "S").source:match("^(@.*)trace%.lua$")

local function is_own(info)
  return info.what == "C" or (own ~= nil and info.source:sub(1, #own) == own)
end

local function describe(info)
  local what
  if info.what == "main" then
    what = "in the main part"
  elseif info.name and info.name ~= "" then
    what = ("in %s '%s'"):format(info.namewhat == "method" and "method" or "function", info.name)
  else
    what = ("in the function of line %d"):format(info.linedefined)
  end
  local source = info.source:sub(1, 1) == "@" and info.source:sub(2) or info.short_src
  return ("  %s:%d: %s"):format(source, info.currentline, what)
end

--- Describe an error; to be called inside the message handler of an xpcall, while the stack still stands.
-- @param message what was raised: a string, or anything with __tostring
-- @param level the first stack level to look at, as in debug.traceback (default: the caller of the handler)
-- @return a table: `sentence` (the message without a position that the first call repeats), `calls` (lines, innermost first)
function trace.describe(message, level)
  level = (level or 2) + 1
  local sentence = tostring(message)
  local calls = {}
  while true do
    local info = debug.getinfo(level, "Sln")
    if not info then break end
    if not is_own(info) and info.currentline >= 0 then
      if #calls == 0 then
        local position = ("%s:%d: "):format(info.short_src, info.currentline)
        if sentence:sub(1, #position) == position then sentence = sentence:sub(#position + 1) end
      end
      calls[#calls + 1] = describe(info)
    end
    level = level + 1
  end
  -- A deep recursion is shown by its two ends.
  if #calls > 24 then
    local short = {}
    for i = 1, 12 do short[i] = calls[i] end
    short[13] = ("  ... %d more"):format(#calls - 22)
    for i = #calls - 9, #calls do short[#short + 1] = calls[i] end
    calls = short
  end
  return { sentence = sentence, calls = calls }
end

--- Whether an error is a Ctrl-C: LuaJIT's own or the one that C code raises.
-- @param message what was raised, or trace.describe's table
-- @return true or false
function trace.interrupted(message)
  local text = type(message) == "table" and message.sentence or message
  return type(text) == "string" and (text:match("^interrupted!?$") or text:match("^[^\n]*: interrupted!?$")) ~= nil
end

--- The report as text, ending in a newline.
-- @param report what trace.describe returned
-- @return a string
function trace.format(report)
  local lines = { report.sentence }
  for _, call in ipairs(report.calls) do lines[#lines + 1] = call end
  return table.concat(lines, "\n") .. "\n"
end

return trace
