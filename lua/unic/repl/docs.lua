--- Finding doc comments: above a function's definition, above the line that gives a name to it, at the head of a module's file.
-- @module unic.repl.docs
local docs = {}

local files = {}   -- path -> { lines, names } as read last, with the file's time: a recipe is edited while the prompt is open

local function modified(path)
  local ok, lfs = pcall(require, "lfs")
  return ok and lfs.attributes(path, "modification") or 0
end

-- The lines of the comment that ends right above line `number`, without their dashes; nil when it is no doc comment.
local function comment_above(lines, number)
  local first = number
  while first > 1 and lines[first - 1]:find("^%s*%-%-") do first = first - 1 end
  -- A comment that begins with three dashes documents; remarks may stand above it.
  while first < number and not lines[first]:find("^%s*%-%-%-%s*[^%s-]") do first = first + 1 end
  if first >= number then return nil end
  local comment = {}
  for i = first, number - 1 do comment[#comment + 1] = (lines[i]:gsub("^%s*%-%-%-*%s?", "", 1)) end
  return comment
end

-- The name a line defines: of a function, a field or a local.
local function defined_name(line)
  return line:match("^%s*local%s+function%s+([%w_]+)") or line:match("^%s*function%s+[%w_.:]-([%w_]+)%s*%(")
    or line:match("^%s*local%s+([%w_]+)%s*=") or line:match("^%s*[%w_.]-([%w_]+)%s*=[^=]")
end

-- The parameters of the function whose definition begins at a line: list of names, and whether it was written with a colon.
local function parameters(lines, number)
  local head = table.concat(lines, "\n", number, math.min(#lines, number + 8))
  local first = head:find("\n", 1, true) or #head + 1
  local at, name, list = head:match("()function%s*([%w_.:]*)%s*(%b())")
  if not at or at > first then return nil end
  local names = {}
  for part in list:sub(2, -2):gmatch("[^,%s]+") do names[#names + 1] = part end
  return names, name:find(":", 1, true) ~= nil
end

-- A file's lines, and its documented names with the line of each; nil when it cannot be read.
local function load_file(path)
  local time = modified(path)
  local known = files[path]
  if known and known.time == time then return known end
  local file = io.open(path, "r")
  if not file then return nil end
  local lines = {}
  for line in file:lines() do lines[#lines + 1] = line end
  file:close()
  local names = {}
  for number = 2, #lines do
    if lines[number - 1]:find("^%s*%-%-") and not lines[number]:find("^%s*%-%-") then
      local name = defined_name(lines[number])
      if name and not names[name] and comment_above(lines, number) then names[name] = number end
    end
  end
  known = { path = path, lines = lines, names = names, time = time }
  files[path] = known
  return known
end

local BODY = { param = true, field = true }

-- A comment as a table: text (list of lines), params ({name, text} each), returns ({text} each), usage (list of lines).
local function parse(comment)
  local doc = { text = {}, params = {}, returns = {}, usage = {} }
  local tag, item
  for _, line in ipairs(comment) do
    local word, rest = line:match("^%s*@(%w+)%s*(.*)$")
    if word then
      tag, item = word, nil
      rest = rest:gsub("^%b[]%s*", "")
      local typed = word:match("^t(param)$") or word:match("^t(field)$") or word:match("^t(return)$")
      if typed then
        word = typed
        rest = rest:gsub("^%S+%s*", "", 1)
      end
      if BODY[word] then
        local name, text = rest:match("^(%S+)%s*(.*)$")
        item = { name = name or "?", text = { text or "" } }
        doc.params[#doc.params + 1] = item
      elseif word == "return" then
        item = { text = { rest } }
        doc.returns[#doc.returns + 1] = item
      elseif word == "usage" and rest ~= "" then
        doc.usage[#doc.usage + 1] = rest
      end
    elseif tag == "usage" then
      doc.usage[#doc.usage + 1] = line
    elseif item then
      item.text[#item.text + 1] = (line:gsub("^%s+", ""))
    elseif not tag then
      doc.text[#doc.text + 1] = line
    end
  end
  return doc
end

--- The doc comment of a module's file.
-- @param path the file
-- @return a parsed comment or nil
function docs.head(path)
  local file = load_file(path)
  if not file then return nil end
  local first = file.lines[1] and file.lines[1]:find("^#!") and 2 or 1
  local number = first
  while file.lines[number] and file.lines[number]:find("^%s*%-%-") do number = number + 1 end
  if number == first or not file.lines[first]:find("^%s*%-%-%-") then return nil end
  local comment = comment_above(file.lines, number)
  return comment and parse(comment)
end

local function at_line(file, number)
  local comment = comment_above(file.lines, number)
  local names, with_colon = parameters(file.lines, number)
  local doc = comment and parse(comment) or nil
  if doc then doc.documented = true else doc = { text = {}, params = {}, returns = {}, usage = {} } end
  doc.place = file.path .. ":" .. number
  doc.with_colon = with_colon
  if names then
    doc.arguments = names
  elseif #doc.params > 0 then
    -- What a factory made, or a function of C under a Lua name: the comment says what it takes.
    doc.arguments = {}
    for i, item in ipairs(doc.params) do doc.arguments[i] = item.name end
  end
  return doc
end

--- What is written about a function.
-- @param f the function
-- @param name its name, for a function that was made elsewhere than it is named
-- @param paths files where the name may be documented, in order
-- @return a table: text, params, returns, usage, arguments (names, nil when unknown), with_colon, place, documented (true when there is a
--   comment); nil when nothing is known
function docs.of_function(f, name, paths)
  local info = debug.getinfo(f, "S")
  local own
  if info.what ~= "C" and info.source:sub(1, 1) == "@" and info.linedefined > 0 then
    local file = load_file(info.source:sub(2))
    if file and file.lines[info.linedefined] then
      own = at_line(file, info.linedefined)
      -- A method defined under this very name is the one meant: another class's comment would mislead.
      local method = file.lines[info.linedefined]:match("^%s*function%s+[%w_.]+[.:]([%w_]+)%s*%(")
      if own.documented or method == name then return own end
      if name and file.names[name] then return at_line(file, file.names[name]) end
    end
  end
  for _, path in ipairs(name and paths or {}) do
    local file = load_file(path)
    if file and file.names[name] then return at_line(file, file.names[name]) end
  end
  return own
end

--- The first sentence of a comment's text.
-- @param doc a parsed comment
-- @return a string, "" when there is none
function docs.sentence(doc)
  local text = table.concat(doc.text, " "):match("^%s*(.-)%s*$")
  -- A full stop ends a sentence when a space and a capital follow and it is no "...".
  local stop = text:match("[^.]()%.%s+[%u`\"]")
  return stop and text:sub(1, stop) or text
end

return docs
