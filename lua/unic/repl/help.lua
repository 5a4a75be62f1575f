--- What `? name` prints: the doc comment above a function, the text of an op, the head of a module.
-- @module unic.repl.help
local complete = require "unic.repl.complete"
local docs = require "unic.repl.docs"
local lexer = require "unic.repl.lexer"
local pretty = require "unic.repl.pretty"

local help = {}

local TEXT_WIDTH = 100   -- lines longer than this are hard to read, however wide the screen is

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

local function module_of(value)
  for name, module in pairs(package.loaded) do
    if module == value and name ~= "_G" then return name end
  end
end

-- The file of a module. Those of models/ and data/ are not on package.path; there one of the module's own functions tells.
local function file_of_module(name)
  if not name then return nil end
  local path = package.searchpath(name, package.path)
  if path then return path end
  local stem = "/" .. name:match("[^.]+$")
  for _, value in pairs(type(package.loaded[name]) == "table" and package.loaded[name] or {}) do
    local source = type(value) == "function" and debug.getinfo(value, "S").source or ""
    if source:sub(1, 1) == "@" and (source:sub(-#stem - 4) == stem .. ".lua" or source:sub(-#stem - 9) == stem .. "/init.lua") then
      return source:sub(2)
    end
  end
end

-- Where the names of an object may be documented: the file of the module it is, or, for a tensor and for what unic takes over from there,
-- lua/unic/tensor.lua.
local function files_of(owner)
  local paths = {}
  if type(owner) == "table" then paths[1] = file_of_module(module_of(owner)) end
  paths[#paths + 1] = file_of_module("unic.tensor")
  return paths
end

local function function_help(typed, f, owner, width)
  local doc = docs.of_function(f, typed:match("[%w_]+$"), files_of(owner))
  if not doc then return nil end
  local head = doc.arguments and signature(typed, doc.arguments, doc.with_colon) or typed
  if not doc.documented then return head .. "\n  (no doc comment; " .. doc.place .. ")" end
  return render(head, doc, width)
end

local function op_text(core, name) return core and core.ops and core.ops.help(name) or nil end

-- What is written about a class: a table that is called to make an object. Its comment stands above the constructor, or above the class.
local function class_doc(name, class, owner)
  local found = complete.members(class)
  for _, maker in ipairs{"new", "init", "_init", "__init"} do
    local f = found[maker]
    local doc = type(f) == "function" and docs.of_function(f, name, files_of(owner))
    if doc and doc.documented then return doc end
  end
  local call = debug.getmetatable(class).__call
  local doc = type(call) == "function" and docs.of_function(call, name, files_of(owner))
  return doc and doc.documented and doc or nil
end

-- Callable tables are classes, unless they show themselves: those are objects that are called, such as layers.
local function is_class(value)
  local meta = type(value) == "table" and debug.getmetatable(value)
  return type(meta) == "table" and rawget(meta, "__call") ~= nil and rawget(meta, "__tostring") == nil
end

-- One sentence about a member, for lists.
local function sentence_of(name, value, owner, core)
  if type(value) == "function" then
    local doc = docs.of_function(value, name, files_of(owner))
    if doc and doc.documented then return docs.sentence(doc) end
    local text = op_text(core, name)
    if not text then return "" end
    return docs.sentence{ text = { (text:match("\n\n(.*)$") or ""):match("^[^\n]*") } }
  end
  if is_class(value) and not module_of(value) then
    local doc = class_doc(name, value, owner)
    return doc and docs.sentence(doc) or ""
  end
  if type(value) == "table" or value == true then
    -- true stands for a part of a module that is not loaded yet
    local path = file_of_module(value == true and (module_of(owner) or "") .. "." .. name or module_of(value))
    local doc = path and docs.head(path)
    return doc and docs.sentence(doc) or ""
  end
  return type(value) ~= "boolean" and pretty.text(value):match("^[^\n]*") or ""
end

-- Rows of name and sentence, cut at the width.
local function rows_text(rows, width)
  local widest = 0
  for _, row in ipairs(rows) do widest = math.max(widest, math.min(#row[1], 30)) end
  local lines = {}
  for i, row in ipairs(rows) do
    local line = "  " .. row[1]
    if row[2] ~= "" then line = line .. string.rep(" ", math.max(2, widest + 2 - #row[1])) .. row[2] end
    lines[i] = #line > width and line:sub(1, width - 3) .. "..." or line
  end
  return table.concat(lines, "\n")
end

local function list_members(separator, object, core, width)
  local found, rows = complete.members(object), {}
  for i, name in ipairs(complete.fields(object, separator, "")) do
    rows[i] = { name, sentence_of(name, found[name], object, core) }
  end
  return rows_text(rows, width)
end

local function module_help(typed, value, core, width)
  local name = module_of(value)
  local path = file_of_module(name)
  local doc = path and docs.head(path) or { text = {}, params = {}, returns = {}, usage = {} }
  local list = list_members(".", value, core, width)
  return render(name or typed, doc, width) .. (list ~= "" and "\n" .. list or "")
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
  local rows = {}
  for _, name in ipairs(session.lazy_names) do
    local ok, value = pcall(function() return session.env[name] end)
    local sentence = ""
    if ok and type(value) == "table" then
      sentence = sentence_of(name, value)
      if sentence == "" and getmetatable(value) and rawget(getmetatable(value), "__names") then sentence = tostring(value) end
    end
    rows[#rows + 1] = { name, sentence }
  end
  rows[#rows + 1] = { "prompt", "Keys and habits of this prompt." }
  return "? name tells about one of these, about a function (? unic.randn), a method (? x:softmax) or a layer (? nn.Linear):\n"
    .. rows_text(rows, width)
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
      if not ok or field == nil then
        field = complete.members(value)[name]
        if field == true then field = nil end   -- announced, but it does not load
      end
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

  local value, owner = resolve(path, session)
  if value == nil and not path:find("[.:]") then
    -- A bare name may be meant as a function of unic or a layer.
    for _, place in ipairs{"unic", "nn", "losses", "optim"} do
      local holder = session.lazy[place] and session.env[place]
      if type(holder) == "table" and rawget(holder, path) ~= nil then
        value, owner, path = rawget(holder, path), holder, place .. "." .. path
        break
      end
    end
  end
  local op = op_text(core, word)
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
    local text = function_help(path, value, owner, width)
    if op and debug.getinfo(value, "S").what == "C" and not (text and text:find("\n", 1, true)) then text = op end
    return text or op or path .. "\n  a function of Lua itself or written in C; there is no text about it"
  end
  local meta = debug.getmetatable(value)
  if is_class(value) and not module_of(value) then
    local doc = class_doc(word, value, owner)
    if doc then return render(doc.arguments and signature(path, doc.arguments, false) or path, doc, width) end
  end
  if kind == "table" and meta == nil and not module_of(value) then return path .. ": a table\n" .. pretty.text(value, width) end
  if kind == "table" and module_of(value) then return module_help(path, value, core, width) end
  if kind == "table" or kind == "userdata" then
    if kind == "userdata" then
      local shown = tostring(value)
      local names = complete.fields(value, ":", "")
      return path .. ": " .. (shown:match("(%[[^\n]*%])$") or shown:match("^[^\n]*")) .. "\nmethods (? " .. path .. ":name tells about one):\n"
        .. complete.columns(names, width)
    end
    -- An object: itself, what its class says, its methods.
    local class = type(meta) == "table" and rawget(meta, "__index")
    local doc = is_class(class) and class_doc(rawget(class, "_name") or word, class, nil)
    local shown = pretty.text(value, width)
    local _, lines = shown:gsub("\n", "")
    if lines > 8 then shown = shown:match("^[^\n]*") .. " ..." end   -- a whole network; its own name prints it
    local head = path .. ": " .. shown
    if doc then head = head .. "\n" .. wrap(doc.text, "  ", width) end
    local list = list_members(":", value, core, width)
    return list == "" and head or head .. "\nmethods (? " .. path .. ":name tells about one):\n" .. list
  end
  return path .. ": a " .. kind .. " value, " .. tostring(value)
end

return help
