--- Error reports that start at the user's line.
-- The sentence comes first; below it one line per frame of the user's own code, innermost first, with the text of the source line. Frames of
-- lua/unic and of C are left out: they say nothing about what to change.
-- @module unic.traceback
local traceback = {}

local FIRST, LAST = 10, 3     -- frames shown of a long stack (runaway recursion has thousands)
local LINE_LIMIT = 100        -- characters of a source line that are shown

local function current_folder()
  local ok, lfs = pcall(require, "lfs")
  return ok and lfs.currentdir() or nil
end

-- The full path of a chunk's file; the same file may have been loaded by a relative and by a full path. nil for what is no file.
local function full_path(source)
  if source:sub(1, 1) ~= "@" then return nil end
  local path = source:sub(2):gsub("^%./", "")
  if path:sub(1, 1) == "/" then return path end
  local folder = current_folder()
  return folder and folder .. "/" .. path or path
end

-- The folder lua/unic; every frame from below it is ours.
local OWN = full_path(debug.getinfo(1, "S").source):match("^(.*/)[^/]*$")

-- The path as a person in this folder would type it.
local function short_path(path, folder)
  path = path:gsub("^%./", "")
  if folder and path:sub(1, #folder + 1) == folder .. "/" then return path:sub(#folder + 2) end
  return path
end

local function line_of_text(text, number)
  local count = 0
  for line in (text .. "\n"):gmatch("(.-)\r?\n") do
    count = count + 1
    if count == number then return line end
  end
end

-- The source line of a frame, without its indentation; nil when it cannot be had.
local function source_line(source, number)
  local line
  local kind = source:sub(1, 1)
  if kind == "@" then
    local file = io.open(source:sub(2), "r")
    if not file then return nil end
    local count = 0
    for text in file:lines() do
      count = count + 1
      if count == number then line = text break end
    end
    file:close()
  elseif kind ~= "=" then
    line = line_of_text(source, number)
  end
  if not line then return nil end
  line = line:gsub("^%s+", ""):gsub("%s+$", "")
  if #line > LINE_LIMIT then line = line:sub(1, LINE_LIMIT) .. "..." end
  return line ~= "" and line or nil
end

local function is_text_chunk(source)
  local kind = source:sub(1, 1)
  return kind ~= "@" and kind ~= "="
end

local function place(frame, folder)
  local kind = frame.source:sub(1, 1)
  if kind == "@" then return short_path(frame.source:sub(2), folder) .. ":" .. frame.currentline end
  if kind == "=" then return frame.source:sub(2) .. ":" .. frame.currentline end
  return "line " .. frame.currentline
end

--- Where a frame is, as a person would write it: "recipes/x.lua:12".
-- @param frame a table of `debug.getinfo` with S and l
-- @return a string
function traceback.place(frame) return place(frame, current_folder()) end

local function message_of(err)
  if type(err) == "string" then return err end
  local meta = debug.getmetatable(err)
  if err ~= nil and meta and meta.__tostring then
    local ok, text = pcall(tostring, err)
    if ok then return text end
  end
  if type(err) == "number" then return tostring(err) end
  return "(the error is a " .. type(err) .. " value)"
end

--- True when `frame` (a table of `debug.getinfo` with S) belongs to C or to lua/unic.
-- @param frame the table
-- @return boolean
function traceback.is_library(frame)
  if frame.what == "C" then return true end
  local path = full_path(frame.source)
  return path ~= nil and path:sub(1, #OWN) == OWN
end

--- True when the error is a Ctrl-C, as it was raised or already formatted.
-- @param err the error
-- @return boolean
function traceback.is_interrupt(err)
  return type(err) == "string" and (err == "interrupted" or err:sub(1, 12) == "interrupted\n")
end

--- A message of `load` or `error` without the chunk text in front: `[string "x = = 1"]:1: unexpected ...` becomes `line 1: unexpected ...`.
-- @param message the message
-- @param one_line true leaves the line number out
-- @return a string
function traceback.clean(message, one_line)
  local number, rest = message:match('^%[string ".-"%]:(%d+): (.*)$')
  if not number then
    local path, tail = message:match("^([^\n]-)(:%d+: .*)$")
    return path and short_path(path, current_folder()) .. tail or message
  end
  return one_line and rest or "line " .. number .. ": " .. rest
end

local boundaries = setmetatable({}, { __mode = "k" })

--- Mark a function that starts the user's code: frames below it (what called the prompt) are not part of a report.
-- @param f the function
-- @return the function
function traceback.boundary(f)
  boundaries[f] = true
  return f
end

local MODULES = OWN .. "nn/module.lua"

-- The user's frames from `level` on, innermost first, and the nn modules that were being run, innermost first.
local function user_frames(level)
  local frames, modules = {}, {}
  while true do
    local info = debug.getinfo(level, "Slnf")
    if not info or boundaries[info.func] then return frames, modules end
    if full_path(info.source) == MODULES then
      local name, object = debug.getlocal(level, 1)
      if name == "self" and type(object) == "table" and rawget(object, "_order") and object ~= modules[#modules] then
        modules[#modules + 1] = object
      end
    end
    if not traceback.is_library(info) and info.currentline > 0 then frames[#frames + 1] = info end
    level = level + 1
  end
end

-- The fields that lead from one module to another below it, as one would type them: ".encoder.block[3]"; nil when they do not.
local function fields_between(from, to, seen)
  if seen[from] then return nil end
  seen[from] = true
  for _, key in ipairs(rawget(from, "_order")) do
    local value = rawget(from, key)
    if type(value) == "table" and rawget(value, "_order") then
      local step = type(key) == "number" and "[" .. key .. "]" or "." .. tostring(key)
      local rest = value == to and "" or fields_between(value, to, seen)
      if rest then return step .. rest end
    end
  end
end

-- Where in a model the error was raised: "Resnet.layer1[2].conv1 (Conv2d)".
local function module_path(modules)
  local inner, outer = modules[1], modules[#modules]
  if not inner then return nil end
  local function name_of(object) return tostring(object._name or "module") end
  if inner == outer then return name_of(inner) end
  local fields = fields_between(outer, inner, {})
  if fields then return name_of(outer) .. fields .. " (" .. name_of(inner) .. ")" end
  local names = {}
  for i = #modules, 1, -1 do names[#names + 1] = name_of(modules[i]) end   -- a module kept in a closure or a plain table
  return table.concat(names, " > ")
end

-- The sentence, the place in the model and the frames as text.
local function report(err, frames, modules)
  local message = message_of(err)
  local folder = current_folder()

  -- "file:line: " in front repeats one of the frames: it is dropped, and the frames inside the one it names (error level 2) with it.
  local first
  for i = 1, #frames do
    local prefix = frames[i].short_src .. ":" .. frames[i].currentline .. ": "
    if message:sub(1, #prefix) == prefix then
      message, first = message:sub(#prefix + 1), i
      break
    end
  end
  if not first then message = traceback.clean(message) end
  first = first or 1

  local lines, count = {message}, #frames - first + 1
  local where = module_path(modules)
  if where then lines[2] = "  in " .. where end
  if count == 1 then
    local only = frames[first]
    -- What was just typed needs no repetition.
    if only.what == "main" and is_text_chunk(only.source) and not only.source:find("\n", 1, true) then return table.concat(lines, "\n") end
  end
  for i = first, #frames do
    local position = i - first + 1
    if count > FIRST + LAST and position > FIRST and position <= count - LAST then
      if position == FIRST + 1 then lines[#lines + 1] = string.format("  ... %d more", count - FIRST - LAST) end
    else
      local frame = frames[i]
      local name = frame.what ~= "main" and frame.name and "in " .. frame.name .. ": " or ""
      local text = source_line(frame.source, frame.currentline) or ""
      lines[#lines + 1] = (string.format("  %s: %s%s", place(frame, folder), name, text):gsub("[:%s]+$", ""))
    end
  end
  return table.concat(lines, "\n")
end

-- "file:12: stack overflow": there are thousands of equal frames and no room to look at them; the place that is named says enough.
local function overflow_report(err)
  local path, number, message = err:match("^(.-):(%d+): (stack overflow.*)$")
  if not path then return traceback.clean(err) end
  message = message:match("^[^\n]*")
  local text = source_line("@" .. path, tonumber(number))
  local typed = path:match('^%[string "(.-)"%]$')
  if typed then return string.format("%s (runaway recursion)\n  line %s%s", message, number, number == "1" and ": " .. typed or "") end
  return string.format("%s (runaway recursion)\n  %s:%s%s", message, short_path(path, current_folder()), number, text and ": " .. text or "")
end

--- The report of an error: the sentence, then the user's frames with their source lines. Meant for `xpcall` and `core.edit.run`.
-- @param err the error, of any type
-- @param level the first frame to show, counted as `error` counts it (1 = the caller, the default)
-- @return a string without a final line end
function traceback.format(err, level)
  -- After a stack overflow LuaJIT leaves an error handler some forty slots, and overflowing those can crash it: the work is done on the
  -- stack of a coroutine.
  if type(err) == "string" and err:find("stack overflow", 1, true) then return coroutine.wrap(overflow_report)(err) end
  local text = report(err, user_frames((level or 1) + 2))   -- not a tail call, as in the handler
  return text
end

--- `traceback.format` in the form that `xpcall` takes.
-- @param err the error
-- @return a string
function traceback.handler(err)
  local text = traceback.format(err, 1)   -- not a tail call: it would take this frame, and so the level, away
  return text
end

return traceback
