--- Tab completion: names, fields, methods after a colon, modules in `require "..."`, files in other strings.
-- @module unic.repl.complete
local lexer = require "unic.repl.lexer"

local complete = {}

local LISTED = 300   -- names shown at most

-- The values behind the fields and methods of an object, by name: its own fields, then what its metatable leads to.
local function members(object)
  local found, seen = {}, {}
  local function add_fields(t)
    if seen[t] then return false end
    seen[t] = true
    for key, value in next, t do
      if type(key) == "string" and found[key] == nil then found[key] = value end
    end
    return true
  end
  local walk
  local function walk_meta(meta)
    if type(meta) ~= "table" then return end
    local index = rawget(meta, "__index")
    if type(rawget(meta, "__names")) == "table" then   -- fields that are not tables' fields, or not there yet
      for _, name in ipairs(meta.__names) do
        if found[name] == nil then found[name] = true end
      end
    end
    if type(index) == "table" then
      walk(index)
    elseif type(index) == "function" then
      -- A class written as a metatable keeps its methods beside __index; one written in C keeps them in an upvalue.
      walk(meta)
      if debug.getinfo(index, "S").what == "C" then
        for i = 1, 8 do
          local name, value = debug.getupvalue(index, i)
          if not name then break end
          if type(value) == "table" then walk(value) end
        end
      end
    end
  end
  function walk(t)
    if type(t) == "table" then
      if not add_fields(t) then return end
    end
    walk_meta(debug.getmetatable(t))
  end
  walk(object)
  return found
end
complete.members = members

--- The names after `object.` or `object:` that begin with a prefix, sorted. After a colon there are only functions (a layer in a field is
-- called with a dot); names that begin with an underscore are shown when the prefix does.
-- @param object any value
-- @param separator "." or ":"
-- @param prefix what is typed of the name
-- @return list of strings
function complete.fields(object, separator, prefix)
  local list = {}
  for name, value in pairs(members(object)) do
    if name:sub(1, #prefix) == prefix and name:find("^[%a_][%w_]*$") and not lexer.KEYWORDS[name]
      and (separator == "." or type(value) == "function") and (prefix ~= "" or name:sub(1, 1) ~= "_")
    then
      list[#list + 1] = name
    end
  end
  table.sort(list)
  return list
end

local function modules(prefix, session)
  local found = {}
  for _, folder in ipairs{"models", "datasets"} do   -- these come from folders that package.path does not name
    local t = session.lazy[folder] and session.lazy[folder]()
    for _, name in ipairs(t and getmetatable(t).__names or {}) do found["unic." .. folder .. "." .. name] = true end
  end
  for name in pairs(package.loaded) do found[name] = true end
  for name in pairs(package.preload) do found[name] = true end
  local parent = prefix:match("^(.*)%.") or ""
  local dots = parent == "" and "" or parent .. "."
  local ok, lfs = pcall(require, "lfs")
  for template in (ok and package.path or ""):gmatch("[^;]+") do
    local before, after = template:match("^(.-)%?(.*)$")
    local folder = before and before .. parent:gsub("%.", "/")
    if folder and (parent ~= "" or folder ~= "./") and lfs.attributes(folder == "" and "." or folder, "mode") == "directory" then
      for entry in lfs.dir(folder == "" and "." or folder) do
        local stem = #entry > #after and entry:sub(-#after) == after and entry:sub(1, -#after - 1)
        if stem and stem:find("^[%w_-]+$") then found[dots .. stem] = true end
        if after:find("^/init") and entry:find("^[%a_][%w_-]*$") and lfs.attributes(folder .. "/" .. entry .. after, "mode") == "file" then
          found[dots .. entry] = true
        end
      end
    end
  end
  local list = {}
  for name in pairs(found) do
    if name:sub(1, #prefix) == prefix then list[#list + 1] = name end
  end
  table.sort(list)
  return list
end

-- Paths that begin as typed, folders with a slash at the end.
local function files(prefix)
  local ok, lfs = pcall(require, "lfs")
  if not ok then return {} end
  local folder, start = prefix:match("^(.*/)([^/]*)$")
  folder, start = folder or "", start or prefix
  local real = folder:gsub("^~/", (os.getenv("HOME") or "~") .. "/")
  real = real == "" and "." or real
  if lfs.attributes(real, "mode") ~= "directory" then return {} end
  local list = {}
  for entry in lfs.dir(real) do
    if entry:sub(1, #start) == start and entry ~= "." and entry ~= ".." and (start ~= "" or entry:sub(1, 1) ~= ".") then
      local is_folder = lfs.attributes(real .. "/" .. entry, "mode") == "directory"
      list[#list + 1] = folder .. entry .. (is_folder and "/" or "")
    end
  end
  table.sort(list)
  return list
end

-- The value of a chain of names and constant indices that ends at tokens[last]; ok is false when it is anything else.
local function chain_value(tokens, last, session)
  local first = last
  while true do
    local token = tokens[first]
    if not token then return false end
    if token.kind == "name" then
      local before = tokens[first - 1]
      if before and (before.text == "." or before.text == ":") and before.kind == "op" then first = first - 2 else break end
    elseif token.text == "]" and token.kind == "op" then
      local key, open = tokens[first - 1], tokens[first - 2]
      if not (key and open and open.text == "[" and (key.kind == "number" or key.kind == "string")) then return false end
      first = first - 3
    else
      return false
    end
  end
  local parts = {}
  for i = first, last do parts[#parts + 1] = tokens[i].text end
  local chunk = load("return " .. table.concat(parts):gsub(":", "."))
  if not chunk then return false end
  return pcall(setfenv(chunk, session.env))
end

--- What could stand at the end of a text.
-- @param text the entry up to the cursor
-- @param session the session whose names count
-- @return what is typed of the word, list of whole words, what belongs behind a word that is the only one
function complete.candidates(text, session)
  text = text:gsub("^%s*%?%s*", "", 1)     -- "? name" is completed like the name
  local tokens = lexer.tokens(text)
  local last = tokens[#tokens]
  if last and last.last == #text and last.kind == "comment" then return "", {} end
  if last and last.kind == "string" and not last.closed and not last.text:find("^%[") then
    local prefix, quote = last.text:sub(2), last.text:sub(1, 1)
    local caller = tokens[#tokens - 1]
    if caller and caller.text == "(" then caller = tokens[#tokens - 2] end
    if caller and caller.text == "require" then return prefix, modules(prefix, session), quote end
    return prefix, files(prefix), quote
  end
  local prefix, at = "", #tokens
  if last and last.last == #text and (last.kind == "name" or last.kind == "keyword") then
    prefix = last.text
    at = at - 1
  end
  local separator = tokens[at]
  if separator and separator.kind == "op" and (separator.text == "." or separator.text == ":") then
    local object = tokens[at - 1]
    if object and object.kind == "string" and object.closed then return prefix, complete.fields("", separator.text, prefix) end
    local ok, value = chain_value(tokens, at - 1, session)
    if not ok or value == nil then return prefix, {} end
    return prefix, complete.fields(value, separator.text, prefix)
  end
  local list = {}
  if prefix == "" and last then return prefix, list end   -- after an operator anything may come: no use to list it all
  local names, seen = session:names(), {}
  for _, name in ipairs(names) do
    if name:sub(1, #prefix) == prefix and (prefix ~= "" or name:sub(1, 1) ~= "_") then
      list[#list + 1] = name
      seen[name] = true
    end
  end
  for word in pairs(lexer.KEYWORDS) do
    if prefix ~= "" and not seen[word] and word:sub(1, #prefix) == prefix then list[#list + 1] = word end
  end
  table.sort(list)
  return prefix, list
end

local function common_prefix(list)
  local common = list[1]
  for i = 2, #list do
    local same = 0
    while same < #common and common:byte(same + 1) == list[i]:byte(same + 1) do same = same + 1 end
    common = common:sub(1, same)
  end
  return common
end

--- Names in columns that read downwards.
-- @param list of strings
-- @param width columns of the screen
-- @return a string without a final line end
function complete.columns(list, width)
  local shown, widest = math.min(#list, LISTED), 0
  for i = 1, shown do widest = math.max(widest, #list[i]) end
  local columns = math.max(1, math.floor((width + 1) / (widest + 2)))
  local rows = math.ceil(shown / columns)
  local lines = {}
  for r = 1, rows do
    local line = {}
    for c = 0, columns - 1 do
      local item = list[c * rows + r]
      if item and c * rows + r <= shown then line[#line + 1] = item .. string.rep(" ", widest + 2 - #item) end
    end
    lines[r] = table.concat(line):gsub("%s+$", "")
  end
  if #list > shown then lines[#lines + 1] = string.format("... and %d more", #list - shown) end
  return table.concat(lines, "\n")
end

--- The answer to the Tab key.
-- @param before the entry up to the cursor
-- @param after the rest of the line
-- @param session the session
-- @param width columns of the screen
-- @return the text to insert or nil, the list to show or nil
function complete.answer(before, after, session, width)
  local line = before:match("[^\n]*$")
  if not line:find("%S") then return "  " end   -- indentation, also in a pasted block
  local prefix, list, closing = complete.candidates(before, session)
  if #list == 0 then return nil end
  local common = common_prefix(list)
  local insert = common:sub(#prefix + 1)
  if #list == 1 then
    if closing and common:sub(-1) ~= "/" and after:sub(1, 1) ~= closing then insert = insert .. closing end
    return insert ~= "" and insert or nil
  end
  if insert ~= "" then return insert end
  -- Of long paths only the last part tells them apart.
  local shown = list
  if closing and prefix:find("/") then
    shown = {}
    for i = 1, #list do shown[i] = list[i]:match("[^/]*/?$") end
  end
  return nil, complete.columns(shown, width)
end

return complete
