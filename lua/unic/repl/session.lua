--- What the prompt remembers between lines: its locals, the names that load a module on first use, and how a line becomes a chunk.
-- @module unic.repl.session
local lexer = require "unic.repl.lexer"
local rewrite = require "unic.repl.rewrite"
local traceback = require "unic.traceback"

local Session = {}
Session.__index = Session

-- The function that takes the values of an expression; like rewrite.LOCALS a name that nobody types.
local VALUES = "_VALUES_"

-- Where this file's tree has its Lua files: ".../lua/unic/".
local HERE = debug.getinfo(1, "S").source:match("^@(.*/)repl/[^/]*$") or "./lua/unic/"

-- Short names at the prompt, in the order of the banner, and the modules behind them.
local SHORT = {
  {"unic", "unic"}, {"nn", "unic.nn"}, {"optim", "unic.optim"}, {"losses", "unic.losses"}, {"data", "unic.data"}, {"text", "unic.text"},
  {"metrics", "unic.metrics"}, {"plot", "unic.plot"}, {"testing", "unic.testing"},
}

-- Short names of folders of modules: the files are in the tree beside lua/, after an install below lua/unic.
local FOLDERS = { models = {"unic.models.", HERE .. "../../models", HERE .. "models"}, datasets = {"unic.datasets.", HERE .. "../../data", HERE .. "datasets"} }

-- A table whose fields are the modules of a folder, loaded when they are looked at.
local function folder_table(entry)
  local files = {}
  local ok, lfs = pcall(require, "lfs")
  for i = 2, ok and #entry or 0 do
    if lfs.attributes(entry[i], "mode") == "directory" then
      for name in lfs.dir(entry[i]) do
        local stem = name:match("^([%a_][%w_]*)%.lua$")
        if stem then files[stem] = true end
      end
      break
    end
  end
  if next(files) == nil then return nil end
  local names = {}
  for name in pairs(files) do names[#names + 1] = name end
  table.sort(names)
  return setmetatable({}, {
    __index = function(t, name)
      if not files[name] then return nil end
      require "unic"   -- it knows where these modules are
      local module = require(entry[1] .. name)
      rawset(t, name, module)
      return module
    end,
    __tostring = function() return table.concat(names, ", ") end,
    __names = names,   -- for completion and help: fields that are not there yet
  })
end

--- A session.
-- @param options optional: `globals` (the table of globals, _G), `run` (as `core.edit.run`; `xpcall` when absent)
-- @return a session
function Session.new(options)
  options = options or {}
  local globals = options.globals or _G
  local self = setmetatable({
    globals = globals,
    run = options.run or function(f, handler, ...) return xpcall(f, handler, ...) end,
    declared = {},      -- name -> true: a local of the prompt, also while it is nil
    lazy = {},          -- name -> function that loads it
    lazy_names = {},    -- in order
  }, Session)

  -- Locals are raw fields of the environment, so that reading and setting one costs a table access; what is not a local is looked for
  -- among the globals and then among the names that load a module.
  local env, declared, lazy = {}, self.declared, self.lazy
  local locals = setmetatable({}, {
    __newindex = function(_, name, value)
      declared[name] = true
      rawset(env, name, value)
    end,
  })
  setmetatable(env, {
    __index = function(_, name)
      if name == rewrite.LOCALS then return locals end
      if name == VALUES then return self.keep end
      if declared[name] then return nil end
      local value = globals[name]
      if value == nil and lazy[name] then
        value = lazy[name]()
        lazy[name] = function() return value end
      end
      return value
    end,
    __newindex = function(_, name, value)
      if declared[name] then rawset(env, name, value) else globals[name] = value end
    end,
  })
  self.env, self.locals = env, locals

  local function offer(name, load)
    self.lazy_names[#self.lazy_names + 1] = name
    lazy[name] = load
  end
  for _, pair in ipairs(SHORT) do
    local name, module = pair[1], pair[2]
    if package.loaded[module] or package.preload[module] or package.searchpath(module, package.path) then
      offer(name, function() return require(module) end)
    end
  end
  for _, name in ipairs{"models", "datasets"} do
    local t = folder_table(FOLDERS[name])
    if t then offer(name, function() return t end) end
  end
  return self
end

--- Make a name a local of the prompt.
-- @param name the name
-- @param value its value
function Session:define(name, value) self.locals[name] = value end

--- The names that can be used, without duplicates, sorted: locals, names that load a module, globals.
-- @return list of strings
function Session:names()
  local seen, list = {}, {}
  local function add(name)
    if type(name) == "string" and not seen[name] and name ~= rewrite.LOCALS then
      seen[name] = true
      list[#list + 1] = name
    end
  end
  for name in pairs(self.declared) do add(name) end
  for _, name in ipairs(self.lazy_names) do add(name) end
  for name in pairs(self.globals) do add(name) end
  table.sort(list)
  return list
end

-- Returned values count only where none were handed over.
local function keep_returned(keep, ...)
  if select("#", ...) > 0 then keep(...) end
end

-- What `require` keeps in package.loaded while a module is being loaded, and leaves there when that fails.
local unfinished
package.preload["unic.repl.probe"] = function(name)
  unfinished = package.loaded[name]
  return true
end
require "unic.repl.probe"
package.preload["unic.repl.probe"], package.loaded["unic.repl.probe"] = nil, nil

-- After an error or Ctrl-C inside `require`: the next one shall load the module again (from its corrected file), not complain about this.
local function forget_unfinished_modules()
  for name, value in pairs(package.loaded) do
    if value == unfinished then package.loaded[name] = nil end
  end
end

local enter = traceback.boundary(function(keep, chunk) keep_returned(keep, chunk()) end)

-- Whether more lines may mend what a failed `load` complains about. "'<eof>' expected near 'x'" is no such case, nor is a quote that is not
-- closed on its line, unless a backslash takes the line's end into the string.
local function ends_too_early(message, text)
  if not message:find("near '<eof>'$") then return false end
  return not message:find("unfinished string near", 1, true) or text:find("\\$") ~= nil
end

-- The text without what follows its last token, without a final semicolon, and whether there was one.
local function without_end(text)
  local tokens = lexer.tokens(text)
  local quiet = false
  for i = #tokens, 1, -1 do
    local token = tokens[i]
    if token.text == ";" then quiet = true
    elseif token.kind ~= "comment" then return text:sub(1, token.last), quiet end
  end
  return "", quiet
end

--- Make a chunk of an entry.
-- An expression gives a chunk that hands its values over; a statement has its top-level locals turned into the session's.
-- @param text what was typed, of one or several lines
-- @return a table with `chunk`, `call` (true for a call, whose nil is not worth showing), `quiet` (true after a final semicolon); or nil,
--   the message, true when the entry is not finished
function Session:compile(text)
  text = text:gsub("^%s*=%s*", "", 1)        -- "= x", as Lua 5.1 wanted it
  text = text:gsub("^%s*return%f[^%w_]%s*", "", 1)
  local with_return, expression_error = load("return " .. text, text)
  local as_statement, statement_error = load(text, text)
  local entry
  if with_return then
    -- A final semicolon says that the value is not wanted on the screen. The values are handed over by a call and not returned: a tail
    -- call would take the typed line from the stack, and errors would have no place to point at.
    local bare, quiet = without_end(text)
    entry = { chunk = assert(load(VALUES .. "(" .. bare .. ")", text)), call = as_statement ~= nil, quiet = quiet }
  elseif as_statement then
    entry = { chunk = assert(load((rewrite.locals(text)), text)), call = true, quiet = false }
  else
    if ends_too_early(statement_error, text) or ends_too_early(expression_error, text) then return nil, statement_error, true end
    -- "1 + * 2" is no statement from its first token on; what the other reading says is of more use.
    local first = text:match("^%s*(%S+)") or ""
    local token = statement_error:match("unexpected symbol near '(.-)'$")
    return nil, (token and first:sub(1, #token) == token) and expression_error or statement_error
  end
  setfenv(entry.chunk, self.env)
  jit.off(entry.chunk, true)   -- compiled loops do not notice Ctrl-C
  return entry
end

-- Variables of the prompt are table fields to Lua, which calls them globals.
function Session:reword(message)
  return (message:gsub("global '([%a_][%w_]*)'", function(name)
    if self.declared[name] then return "local '" .. name .. "'" end
  end))
end

--- Run an entry.
-- @param entry what `compile` made
-- @return true and a table of its values with their count `n`, or false and the report of the error
function Session:call(entry)
  local results = { n = 0 }
  local function keep(...)
    results = { n = select("#", ...), ... }
  end
  self.keep = keep
  local ok, report = self.run(enter, traceback.handler, keep, entry.chunk)
  if not ok then
    forget_unfinished_modules()
    return false, self:reword(report)
  end
  return true, results
end

return Session
