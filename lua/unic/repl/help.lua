--- What `? name` prints: the doc comment above a function, the text of an op, the head of a module.
-- @module unic.repl.help
local complete = require "unic.repl.complete"
local lexer = require "unic.repl.lexer"
local pretty = require "unic.repl.pretty"

local help = {}

local TEXT_WIDTH = 100   -- lines longer than this are hard to read, however wide the screen is

local function read_lines(path)
  local file = io.open(path, "r")
  if not file then return nil end
  local lines = {}
  for line in file:lines() do lines[#lines + 1] = line end
  file:close()
  return lines
end

-- A comment of "-- text" lines as a table: text (list of lines), params, returns, usage.
local function parse(comment)
  local doc = { text = {}, params = {}, returns = {}, usage = {} }
  local tag, item = nil, nil
  for _, line in ipairs(comment) do
    local word, rest = line:match("^%s*@(%w+)%s*(.*)$")
    if word then
      tag, item = word, nil
      rest = rest:gsub("^%b[]%s*", "")
      if word == "param" or word == "tparam" or word == "field" or word == "tfield" then
        if word:sub(1, 1) == "t" then rest = rest:gsub("^%S+%s*", "", 1) end
        local name, text = rest:match("^(%S+)%s*(.*)$")
        item = { name = name or "?", text = { text or "" } }
        doc.params[#doc.params + 1] = item
      elseif word == "return" or word == "treturn" then
        if word == "treturn" then rest = rest:gsub("^%S+%s*", "", 1) end
        item = { text = { rest } }
        doc.returns[#doc.returns + 1] = item
      elseif word == "usage" then
        if rest ~= "" then doc.usage[#doc.usage + 1] = rest end
      elseif word == "module" then
        doc.module = rest
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

-- The head comment of a file.
local function comment_at_top(lines)
  local number = 1
  if lines[1] and lines[1]:find("^#!") then number = 2 end
  local first = number
  while lines[number] and lines[number]:find("^%s*%-%-") do number = number + 1 end
  if number == first or not lines[first]:find("^%s*%-%-%-") then return nil end
  return comment_above(lines, number)
end

-- The parameters of the function defined at a line: list of names, and whether it was written with a colon.
local function parameters(lines, number)
  local head = table.concat(lines, "\n", number, math.min(#lines, number + 8))
  local name, list = head:match("function%s*([%w_.:]*)%s*(%b())")
  if not list then return nil end
  local names = {}
  for part in list:sub(2, -2):gmatch("[^,%s]+") do names[#names + 1] = part end
  return names, name:find(":", 1, true) ~= nil
end

-- name(arguments) as one would call it with the separator typed.
local function signature(typed, names, with_colon)
  local list = {}
  for i = 1, #names do list[i] = names[i] end
  local colon = typed:find(":[%a_][%w_]*$") ~= nil
  if colon and not with_colon then table.remove(list, 1)
  elseif with_colon and not colon then table.insert(list, 1, "self") end
  return typed .. "(" .. table.concat(list, ", ") .. ")"
end

-- Break paragraphs at `width`; indented lines (examples, tables) and list items stay on lines of their own.
local function wrap(lines, indent, width)
  local out, line = {}, nil
  local function flush()
    if line then out[#out + 1] = line end
    line = nil
  end
  for _, text in ipairs(lines) do
    if not text:find("%S") then
      flush()
      if #out > 0 then out[#out + 1] = "" end
    elseif text:find("^%s%s+") then
      flush()
      out[#out + 1] = indent .. text
    else
      if text:find("^%s*[-*]%s") then flush() end
      for word in text:gmatch("%S+") do
        if line and #line + 1 + #word > width then flush() end
        line = line and line .. " " .. word or indent .. word
      end
    end
  end
  flush()
  while out[#out] == "" do out[#out] = nil end
  return table.concat(out, "\n")
end

local function described(name, lines, widest, width)
  local margin = string.rep(" ", widest + 4)
  local text = wrap(lines, margin, width)
  return "  " .. name .. string.rep(" ", widest + 2 - #name) .. text:sub(#margin + 1)
end

local function render(head, doc, width)
  local parts = { head }
  local text = wrap(doc.text, "  ", width)
  if text ~= "" then parts[#parts + 1] = text end
  local widest = 0
  for _, item in ipairs(doc.params) do widest = math.max(widest, #item.name) end
  local list = {}
  for _, item in ipairs(doc.params) do list[#list + 1] = described(item.name, item.text, widest, width) end
  if #doc.returns > 0 then
    local words = {}
    for _, item in ipairs(doc.returns) do words[#words + 1] = wrap(item.text, "    ", width):gsub("^%s+", "") end
    list[#list + 1] = "  -> " .. table.concat(words, "; ")
  end
  if #list > 0 then parts[#parts + 1] = table.concat(list, "\n") end
  if #doc.usage > 0 then
    local lines = {}
    for _, line in ipairs(doc.usage) do lines[#lines + 1] = "    " .. line end
    parts[#parts + 1] = table.concat(lines, "\n")
  end
  return table.concat(parts, "\n")
end

-- The first sentence of a comment.
local function first_sentence(comment)
  local text = table.concat(comment, " "):match("^%s*(.-)%s*$")
  text = text:match("^(.-%.)%s") or text
  return (text:gsub("%s*@.*$", ""))
end

-- Where a Lua function stands: lines of its file and the line number; nil for a C function or a chunk from the prompt.
local function place_of(f)
  local info = debug.getinfo(f, "S")
  if info.what == "C" or info.source:sub(1, 1) ~= "@" or info.linedefined < 1 then return nil end
  local lines = read_lines(info.source:sub(2))
  if not lines or not lines[info.linedefined] then return nil end
  return lines, info.linedefined, info.source:sub(2)
end

local function function_help(typed, f, width)
  local lines, number, path = place_of(f)
  if not lines then return nil end
  local names, with_colon = parameters(lines, number)
  local head = names and signature(typed, names, with_colon) or typed
  local comment = comment_above(lines, number)
  if not comment then return head .. "\n  (no doc comment; " .. path .. ":" .. number .. ")" end
  return render(head, parse(comment), width)
end

-- One line about a function, for lists.
local function one_line(name, value, core)
  local lines, number = nil, nil
  if type(value) == "function" then lines, number = place_of(value) end
  if lines then
    local names, with_colon = parameters(lines, number)
    local comment = comment_above(lines, number)
    return names and signature(name, names, with_colon) or name, comment and first_sentence(comment) or ""
  end
  local text = type(value) == "function" and core and core.ops and core.ops.help(name:match("[%w_]+$"))
  if text then
    local sentence = text:match("\n\n%s*([^\n]*)") or ""
    return name, (sentence:match("^(.-%.)%s") or sentence)
  end
  return name, ""
end

local function list_members(prefix, names, found, core, width)
  local rows, widest = {}, 0
  for _, name in ipairs(names) do
    local head, sentence = one_line(prefix .. name, found[name], core)
    rows[#rows + 1] = { head, sentence }
    if #head <= 40 then widest = math.max(widest, #head) end
  end
  local lines = {}
  for i, row in ipairs(rows) do
    local gap = math.max(2, widest + 2 - #row[1])
    local line = "  " .. row[1] .. (row[2] ~= "" and string.rep(" ", gap) .. row[2] or "")
    lines[i] = #line > width and line:sub(1, width - 3) .. "..." or line
  end
  return table.concat(lines, "\n")
end

local function module_of(value)
  for name, module in pairs(package.loaded) do
    if module == value and name ~= "_G" then return name end
  end
end

local function module_help(typed, value, core, width)
  local name = module_of(value)
  local path = name and package.searchpath(name, package.path)
  local lines = path and read_lines(path)
  local comment = lines and comment_at_top(lines)
  local doc = comment and parse(comment) or { text = {}, params = {}, returns = {}, usage = {} }
  local found = complete.members(value)
  local names = complete.fields(value, ".", "")
  local list = list_members(typed .. ".", names, found, core, width)
  return render(name or typed, doc, width) .. (list ~= "" and "\n" .. list or "")
end

-- A class: what is callable and no function. Its constructor is documented where it is defined.
local function class_help(typed, value, width)
  local meta = debug.getmetatable(value)
  local found = complete.members(value)
  for _, name in ipairs{"new", "init", "_init", "__init"} do
    local f = rawget(found, name)
    if type(f) == "function" then
      local text = function_help(typed, f, width)
      if text then return text end
    end
  end
  local call = meta and rawget(meta, "__call")
  return type(call) == "function" and function_help(typed, call, width) or nil
end

local PROMPT = {
  "An expression prints its value; `_` is the last one. A semicolon at the end keeps the value off the screen.", "",
  "`local` lines last until the end of the session. An unfinished entry goes on at `..`; Ctrl-C gives it up.", "",
  'Tab completes names, methods after a colon, modules in require "...", files in other strings. Ctrl-R searches the history.', "",
  "Ctrl-C stops what runs; a second one within two seconds leaves. exit, quit and Ctrl-D leave.",
}

--- The list of topics, for a bare `?`.
-- @param session the session
-- @param width columns of the screen
-- @return a string
function help.topics(session, width)
  width = math.min(width or 80, TEXT_WIDTH)
  local rows, widest = {}, 0
  for _, name in ipairs(session.lazy_names) do
    local ok, value = pcall(function() return session.env[name] end)
    local sentence = ""
    if ok and type(value) == "table" then
      local module = module_of(value)
      local path = module and package.searchpath(module, package.path)
      local lines = path and read_lines(path)
      local comment = lines and comment_at_top(lines)
      local meta = getmetatable(value)
      if comment then sentence = first_sentence(comment)
      elseif meta and rawget(meta, "names") then sentence = tostring(value) end
    end
    rows[#rows + 1] = { name, sentence }
    widest = math.max(widest, #name)
  end
  rows[#rows + 1] = { "prompt", "Keys and habits of this prompt." }
  widest = math.max(widest, 6)
  local lines = { "? name tells about one of these, about a function (? unic.randn), a method (? x:softmax) or a layer (? nn.Linear):" }
  for _, row in ipairs(rows) do
    local line = "  " .. row[1] .. string.rep(" ", widest + 2 - #row[1]) .. row[2]
    lines[#lines + 1] = #line > width and line:sub(1, width - 3) .. "..." or line
  end
  return table.concat(lines, "\n")
end

-- A path of names evaluated step by step: the value, and the object it was found in. Fields are looked up without calling anything but
-- the object's own __index.
local function resolve(path, session)
  local value, owner = nil, nil
  local first = true
  for name in path:gmatch("[^.:]+") do
    if first then
      value = session.env[name]
      first = false
    else
      owner = value
      if value == nil then return nil end
      local ok, field = pcall(function() return value[name] end)
      if not ok or field == nil then field = complete.members(value)[name] end
      local module = field == nil and type(value) == "table" and module_of(value)
      if module and package.searchpath(module .. "." .. name, package.path) then   -- a part of the library that is not loaded yet
        local loaded, part = pcall(require, module .. "." .. name)
        if loaded then field = part end
      end
      value = field
    end
    if value == nil then return nil, owner end
  end
  return value, owner
end

local function nearest(word, candidates, core)
  if core and core.nearest and #candidates > 0 then return core.nearest(word, candidates) end
end

--- The text about a name.
-- @param path what follows the question mark: `nn.Linear`, `x:softmax`, `prompt`
-- @param session the session
-- @param width columns of the screen
-- @return a string
function help.about(path, session, width)
  width = math.min(width or 80, TEXT_WIDTH)
  path = path:match("^%s*(.-)%s*$"):gsub("%(.*%)$", "")
  if path == "" then return help.topics(session, width) end
  local ok, core = pcall(require, "unic.core")
  core = ok and type(core) == "table" and core or nil
  if path == "prompt" and session.env.prompt == nil then return "prompt\n" .. wrap(PROMPT, "  ", width) end
  if not path:find("^[%a_][%w_]*$") and not path:find("^[%a_][%w_.:]*[%w_]$") then
    return "? takes a name, such as ? nn.Linear or ? x:softmax, not '" .. path .. "'"
  end
  local word = path:match("[%w_]+$")
  if lexer.KEYWORDS[path] then return "'" .. path .. "' is a keyword of Lua" end

  local value = resolve(path, session)
  if value == nil and not path:find("[.:]") then
    -- A bare name may be meant as a function of unic or a layer.
    for _, place in ipairs{"unic", "nn", "losses", "optim"} do
      local holder = session.lazy[place] and session.env[place]
      if type(holder) == "table" and rawget(holder, path) ~= nil then
        value, path = rawget(holder, path), place .. "." .. path
        break
      end
    end
  end
  local op = core and core.ops and core.ops.help(word)
  if value == nil then
    if op then return op end
    local holder = path:match("^(.*)[.:]")
    local names = session:names()
    if holder then
      local object = resolve(holder, session)
      names = object ~= nil and complete.fields(object, ".", "") or names
    end
    local near = nearest(word, names, core)
    return "there is no '" .. path .. "'" .. (near and "; is it '" .. (holder and path:match("^.*[.:]") or "") .. near .. "'?" or "")
  end

  local kind = type(value)
  if kind == "function" then
    return function_help(path, value, width) or op or path .. "\n  a function of Lua itself or written in C; there is no text about it"
  end
  local meta = debug.getmetatable(value)
  local is_class = kind == "table" and type(meta) == "table" and rawget(meta, "__call")
  if is_class and not module_of(value) then
    local text = class_help(path, value, width)
    if text then return text end
  end
  if kind == "table" and meta == nil and not module_of(value) then return path .. ": a table\n" .. pretty.text(value, width) end
  if kind == "table" and module_of(value) then return module_help(path, value, core, width) end
  if kind == "table" or kind == "userdata" then
    local shown = tostring(value)
    local head = shown:match("\n(%[[^\n]*%])$") or shown:match("^[^\n]*")
    local names = complete.fields(value, ":", "")
    if kind == "userdata" then
      return path .. ": " .. head .. "\n  methods (? " .. path .. ":name tells about one):\n" .. complete.columns(names, width)
    end
    return path .. ": " .. head .. "\n" .. list_members(path .. ":", names, complete.members(value), core, width)
  end
  return path .. ": a " .. kind .. " value, " .. tostring(value)
end

return help
