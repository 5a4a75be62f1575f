--- The prompt: `./unic` without arguments, `./unic -i FILE.lua` after the script.
-- Values print themselves, `local` lines last, Tab completes, `? name` explains, Ctrl-C stops what runs and comes back here.
-- @module unic.repl
local complete = require "unic.repl.complete"
local help = require "unic.repl.help"
local history = require "unic.repl.history"
local lexer = require "unic.repl.lexer"
local pretty = require "unic.repl.pretty"
local recipe = require "unic.repl.recipe"
local Session = require "unic.repl.session"
local traceback = require "unic.traceback"

local repl = {}

local SLOW = 1   -- seconds after which the time is shown

local COLOURS = { error = "31", dim = "2", prompt = "32" }

-- A function that colours text for a stream (1 or 2): only on a terminal, and not against the user's wish (no-color.org).
local function painter(edit, stream)
  local wish = os.getenv("NO_COLOR")
  if not edit.isatty(stream) or (wish and wish ~= "") or os.getenv("TERM") == "dumb" then
    return function(_, text) return text end
  end
  return function(name, text) return "\27[" .. COLOURS[name] .. "m" .. text .. "\27[0m" end
end

-- One history line for an entry of several: its lines joined, when that is the same to Lua (no comment, no string across lines).
local function one_line(text)
  if not text:find("\n", 1, true) then return text end
  for _, token in ipairs(lexer.tokens(text)) do
    if token.kind == "comment" or token.text:find("\n", 1, true) then return nil end
  end
  return (text:gsub("%s*\n%s*", " "))
end

-- What the values of an entry look like; nil when there is nothing to show.
local function shown(results, entry, width)
  if entry.quiet or results.n == 0 then return nil end
  local all_nil, parts, long = true, {}, false
  for i = 1, results.n do
    all_nil = all_nil and results[i] == nil
    parts[i] = pretty.text(results[i], width)
    long = long or parts[i]:find("\n", 1, true)
  end
  if all_nil and entry.call then return nil end
  return table.concat(parts, long and "\n" or "  ")
end

local function banner(core, session)
  local parts = {}
  local function ask(name, pattern)
    local ok, value = pcall(function() return core[name]() end)
    if ok and value ~= nil then parts[#parts + 1] = pattern:format(tostring(value)) end
  end
  ask("device_default", "%s")
  ask("isa", "%s")
  ask("threads", "%s threads")
  local ok, version = pcall(function() return core.version() end)
  return string.format("Unic%s%s. ? for help, Tab completes, Ctrl-D leaves.\nReady: %s", ok and " " .. tostring(version) or "",
    #parts > 0 and ", " .. table.concat(parts, ", ") or "", table.concat(session.lazy_names, ", "))
end

--- Read, run and print until the end of the input.
-- @param options optional: `script` (a file to run first; its locals are there afterwards), `arguments` (of the script, a list),
--   `locals` (name -> value), `banner` (false for none), `greeting` (a text instead)
-- @return the exit code: 0; 1 when an entry failed and nobody was at the keyboard; 130 after Ctrl-C in that case
-- @return the locals at the end (name -> value)
function repl.start(options)
  options = options or {}
  local core = require "unic.core"
  local edit = core.edit
  local session = Session.new{ run = edit.run }
  local on_keyboard = edit.isatty(0)
  local paint, paint_error = painter(edit, 1), painter(edit, 2)
  local failed = false
  local mode = edit.install_sigint("prompt")
  -- Inside a program (unic.debug) Ctrl-C goes back to what it was.
  local function leave(code)
    if mode then edit.install_sigint(mode) end
    return code, session.env
  end

  local function complain(report)
    failed = true
    io.stdout:flush()
    if on_keyboard and traceback.is_interrupt(report) then io.stderr:write("\n") end   -- the terminal has just echoed ^C
    local sentence, rest = report:match("^([^\n]*)(.*)$")
    io.stderr:write(paint_error("error", sentence), rest, "\n")
  end

  local function say(text) io.stdout:write(text, "\n") end

  local function took(seconds)
    if on_keyboard and seconds > SLOW then say(paint("dim", string.format("(%.2f s)", seconds))) end
  end

  for name, value in pairs(options.locals or {}) do session:define(name, value) end
  local function greet()
    if options.greeting then say(options.greeting) end
    if on_keyboard and options.banner ~= false then say(banner(core, session)) end
  end
  if not options.script then greet() else
    local start = edit.clock()
    local ok, locals, report = recipe.run(options.script, edit.run, unpack(options.arguments or {}))
    local names = {}
    for name, value in pairs(locals) do
      session:define(name, value)
      names[#names + 1] = name
    end
    if not ok then complain(report) end
    took(edit.clock() - start)
    greet()   -- below what the script printed
    table.sort(names)
    if on_keyboard and #names > 0 then say(paint("dim", "locals of " .. options.script .. ": " .. table.concat(names, ", "))) end
  end

  local pending   -- the lines of an unfinished entry
  edit.on_complete(function(before, after)
    return complete.answer((pending and pending .. "\n" or "") .. before, after, session, edit.width())
  end)
  local file = on_keyboard and history.path() or nil
  for _, line in ipairs(history.load(file)) do edit.history_add(line) end

  local function remember(text)
    if not on_keyboard then return end
    local joined = one_line(text)
    for line in (joined or text):gmatch("[^\n]+") do
      if line:find("%S") then
        edit.history_add(line)
        history.append(file, line)
      end
    end
  end

  local function run(entry)
    local start = edit.clock()
    local ok, results = session:call(entry)
    local seconds = edit.clock() - start
    if not ok then complain(results) else
      if results.n > 0 and results[1] ~= nil then session:define("_", results[1]) end
      -- Printing runs the user's code too (__tostring), and a huge table may have to be stopped.
      local text
      ok, text = edit.run(function() return shown(results, entry, edit.width()) end, traceback.handler)
      if not ok then complain(text) elseif text then say(text) end
    end
    took(seconds)
  end

  local function prompt(text)
    return (paint("prompt", text):gsub("\27%[%d+m", "\1%0\1")) .. " "
  end

  while true do
    local line, why = edit.readline(prompt(pending and ".." or ">"))
    if not line then
      if why == "interrupt" then
        pending = nil
        if not on_keyboard then return leave(130) end
      else
        if on_keyboard then say("") end
        if pending then complain("the input ends in the middle of an entry: " .. pending:match("^[^\n]*")) end
        return leave(failed and not on_keyboard and 1 or 0)
      end
    elseif not pending and line:find("^%s*%?") then
      remember(line)
      local ok, text = edit.run(help.about, traceback.handler, line:match("^%s*%?(.*)$"), session, edit.width())
      if ok then say(text) else complain(text) end
    elseif not pending and (line:find("^%s*exit%s*;?%s*$") or line:find("^%s*quit%s*;?%s*$") or line:find("^%s*exit%s*%(%s*%)%s*;?%s*$")
      or line:find("^%s*quit%s*%(%s*%)%s*;?%s*$")) and session.env[line:match("%a+")] == nil
    then
      remember(line)
      return leave(failed and not on_keyboard and 1 or 0)
    else
      local text = pending and pending .. "\n" .. line or line
      local entry, message, unfinished = session:compile(text)
      if unfinished and text:find("%S") then
        pending = text
      else
        pending = nil
        remember(text)
        if entry then run(entry) else complain(traceback.clean(message, not text:find("\n", 1, true))) end
      end
    end
  end
end

return repl
