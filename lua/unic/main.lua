--- Where `./unic` arrives: runs a recipe, a line of code, the prompt, the tests or a check. The launcher has set the module paths and has
-- refused what is no command; here the words after it are `arg`.
local traceback = require "unic.traceback"

-- ".../lua/unic/main.lua" -> "..."; the launcher calls it by its full path.
local root = arg[0]:match("^(.*)/lua/unic/main%.lua$")
local commands = {}

-- Lua's finalisers run (os.exit without `true` would skip them): files are flushed, devices closed.
local function leave(code)
  io.stdout:flush()
  os.exit(code, true)
end

local function wrong_use(format, ...)
  io.stderr:write("unic: ", format:format(...), "\n")
  leave(2)
end

-- LuaJIT says "interrupted!", the library "interrupted"; both may have calls below them.
local function is_interrupt(report)
  return report:match("^interrupted!?$") ~= nil or report:match("^interrupted!?\n") ~= nil
end

local function report_and_leave(report)
  io.stdout:flush()
  if is_interrupt(report) then
    io.stderr:write("interrupted\n")
    leave(130)
  end
  io.stderr:write(report, "\n")
  leave(1)
end

-- Read a script as luajit would: a first line that starts with # is a comment.
local function read_script(path)
  local file, why = io.open(path, "rb")
  if not file then wrong_use("cannot read %s", why) end
  local source, unread = file:read("*a")
  file:close()
  if not source then wrong_use("cannot read %s: %s", path, unread) end
  return (source:gsub("^#[^\n]*", ""))
end

-- Compile; a syntax error is a sentence with its own file and line.
local function compile(source, name)
  local chunk, why = loadstring(source, name)
  if not chunk then report_and_leave(traceback.clean(why)) end
  return chunk
end

-- arg as a script expects it: its own name at 0, its options from 1.
local function script_arguments(words, name, from)
  local list = { [0] = name }
  for i = from, #words do list[#list + 1] = words[i] end
  return list
end

local function run_script(path, words, from)
  local chunk = compile(read_script(path), "@" .. path)
  arg = script_arguments(words, path, from)
  -- Ctrl-C is seen by long loops in C as well, and ends a script that does not react to it.
  local edit = require("unic.core").edit
  edit.install_sigint "recipe"
  local ok, report = edit.run(chunk, traceback.handler, unpack(arg))
  if not ok then report_and_leave(report) end
end

commands["-e"] = function(words)
  local chunk = compile(words[2], "=(command line)")
  -- Loading the library takes longer than most one-liners, so only a line that names it gets it.
  if words[2]:find("%f[%w_]unic%f[^%w_]") then _G.unic = require "unic" end
  arg = script_arguments(words, "-e", 3)
  local ok, report = xpcall(chunk, traceback.handler, unpack(arg))
  if not ok then report_and_leave(report) end
end

-- ---- the prompt ----------------------------------------------------------------------------------------------------------------------

commands["-i"] = function(words)
  arg = script_arguments(words, words[2], 3)
  leave(require("unic.repl").start { script = words[2], arguments = arg })
end

commands[""] = function()
  leave(require("unic.repl").start())
end

-- ---- tests ---------------------------------------------------------------------------------------------------------------------------

-- All files below a folder that end in `suffix`, sorted.
local function files_below(folder, suffix, found)
  local lfs = require "lfs"
  found = found or {}
  for name in lfs.dir(folder) do
    local path = folder .. "/" .. name
    if name:sub(1, 1) ~= "." then
      if lfs.attributes(path, "mode") == "directory" then
        files_below(path, suffix, found)
      elseif name:sub(-#suffix) == suffix then
        found[#found + 1] = path
      end
    end
  end
  table.sort(found)
  return found
end

-- Split the words of `test` into patterns and options.
local function test_options(words)
  local options, patterns = {}, {}
  local takes_value = { device = true, slowest = true }
  local i = 2
  while i <= #words do
    local word = words[i]
    local name, value = word:match("^%-%-([%w-]+)=(.*)$")
    name = name or word:match("^%-%-([%w-]+)$")
    if name == "list" or name == "stop" then
      options[name] = true
    elseif name and takes_value[name] then
      if not value then
        i = i + 1
        value = words[i]
      end
      if not value or value == "" then wrong_use("test: --%s needs a value", name) end
      options[name] = value
    elseif word:sub(1, 1) == "-" then
      wrong_use("test: unknown option '%s', expected --device D, --slowest N, --stop or --list", word)
    else
      patterns[#patterns + 1] = word
    end
    i = i + 1
  end
  if options.slowest and not options.slowest:match("^%d+$") then
    wrong_use("test: --slowest needs a whole number, not '%s'", options.slowest)
  end
  return options, patterns
end

commands.test = function(words)
  local options, patterns = test_options(words)
  require("lfs").chdir(root)
  if options.device then
    -- Before the library is loaded: it reads its environment once.
    require("posix.stdlib").setenv("UNIC_DEVICE", options.device)
  end

  -- A pattern that is part of a spec's path chooses files; one that is not chooses tests by name in the files chosen (or in all).
  local chosen, seen, filters = {}, {}, {}
  local all = files_below("spec", "_spec.lua")
  for _, pattern in ipairs(patterns) do
    local matched = false
    for _, path in ipairs(all) do
      if path:find(pattern:gsub("^%./", ""), 1, true) then
        matched = true
        if not seen[path] then
          seen[path] = true
          chosen[#chosen + 1] = path
        end
      end
    end
    if not matched then filters[#filters + 1] = "--filter=" .. pattern:gsub("%p", "%%%0") end
  end

  -- The module beside the launcher's choice of build folder, not the one that .busted names for a bare `busted`.
  arg = { [0] = "busted", "--ignore-lua", "--output=spec/support/unic_output.lua", "--cpath=" .. package.cpath:match("^[^;]*") }
  if options.slowest then arg[#arg + 1] = "-Xoutput"; arg[#arg + 1] = "slowest=" .. options.slowest end
  if options.list then arg[#arg + 1] = "--list" end
  if options.stop then arg[#arg + 1] = "--no-keep-going" end
  for _, filter in ipairs(filters) do arg[#arg + 1] = filter end
  for _, path in ipairs(chosen) do arg[#arg + 1] = path end

  -- busted's runner raises nil where it means "exit with 1".
  local ok, why = pcall(function() require "busted.runner" { standalone = false } end)
  if not ok and why ~= nil then
    if is_interrupt(traceback.clean(tostring(why))) then
      io.stderr:write("interrupted\n")
      leave(130)
    end
    io.stderr:write(tostring(why), "\n")
  end
  leave(ok and 0 or 1)
end

-- ---- checks --------------------------------------------------------------------------------------------------------------------------

-- Run a script in a process of its own, in the root of the tree; its exit code. Interrupted, we are too.
local function run_program(program, path, words)
  local function quote(word) return "'" .. word:gsub("'", "'\\''") .. "'" end
  local line = { "cd", quote(root), "&&", "exec", program, quote(path) }
  for _, word in ipairs(words) do line[#line + 1] = quote(word) end
  local status = os.execute(table.concat(line, " "))
  -- wait(2)'s status: a signal in the low bits, else the exit code above them.
  if status % 128 == 2 or status == 130 * 256 then leave(130) end
  return status % 256 == 0 and status / 256 or 1
end

-- A check is a script spec/check/NAME.lua or NAME.sh. Its first comment line says what it checks, a line "Cost: ..." what it takes.
local function find_checks()
  local list = {}
  for _, suffix in ipairs { "lua", "sh" } do
    for _, path in ipairs(files_below(root .. "/spec/check", "." .. suffix)) do
      local check = { name = path:match("([^/]+)%.%w+$"), path = path, suffix = suffix }
      for line in io.lines(path) do
        local text = line:match("^%-%-%-?%s*(.*)$") or line:match("^#%s+(.*)$")
        if not text and not line:match("^#!") then break end
        if text then
          check.cost = check.cost or text:match("^Cost: (.*)$")
          check.title = check.title or text
        end
      end
      list[#list + 1] = check
      list[check.name] = check
    end
  end
  table.sort(list, function(a, b) return a.name < b.name end)
  return list
end

local function list_checks(checks)
  local width = 0
  for _, check in ipairs(checks) do width = math.max(width, #check.name) end
  io.write("./unic check NAME runs one of these; each prints lines `pass NAME value limit` or `short NAME value limit`.\n")
  for _, check in ipairs(checks) do
    io.write("\n  ", check.name, (" "):rep(width - #check.name + 2), check.title or "", "\n", (" "):rep(width + 4), "cost: ", check.cost or "?", "\n")
  end
end

commands.check = function(words)
  local checks = find_checks()
  if not words[2] then return list_checks(checks) end

  local names, options = {}, {}
  for i = 2, #words do
    local list = (words[i]:sub(1, 1) == "-" or #options > 0) and options or names
    list[#list + 1] = words[i]
  end
  for _, name in ipairs(names) do
    if not checks[name] then
      local known = {}
      for _, check in ipairs(checks) do known[#known + 1] = check.name end
      wrong_use("no check '%s', expected one of: %s", name, table.concat(known, ", "))
    end
  end

  local failed = false
  for _, name in ipairs(names) do
    local check = checks[name]
    failed = run_program(check.suffix == "lua" and "luajit" or "sh", check.path, options) ~= 0 or failed
  end
  leave(failed and 1 or 0)
end

-- ---- measurements --------------------------------------------------------------------------------------------------------------------

commands.bench = function(words)
  leave(run_program("luajit", root .. "/spec/bench/main.lua", script_arguments(words, "bench", 2)))
end

-- ---- the rest ------------------------------------------------------------------------------------------------------------------------

commands.info = function()
  io.write(require("unic.info").text())
end

commands.runs = function(words)
  require("unic.run").list(script_arguments(words, "runs", 2))
end

local words = arg
local command = commands[words[1] or ""]
if not command then
  run_script(words[1], words, 2)
elseif words[1] == "-i" or words[1] == "-e" or words[1] == nil then
  command(words)
else
  local ok, report = xpcall(command, traceback.handler, words)
  if not ok then report_and_leave(report) end
end
