--- `./unic bench`: lists the suites, runs them (each in a process of its own), writes RESULTS.md.
package.path = "./?.lua;" .. package.path
local lfs = require "lfs"
local signal = require "posix.signal"
local stdlib = require "posix.stdlib"
local unistd = require "posix.unistd"
local wait = require "posix.sys.wait"

-- Ctrl-C ends us and all that we started; LuaJIT would make an error of it, in each on its own.
signal.signal(signal.SIGINT, signal.SIG_DFL)

local FOLDER = ".cache/bench"
-- In RESULTS.md they come in this order, others after them.
local ORDER = { "steps", "inference", "growth", "kernels", "start", "calls", "data", "tokenizer" }

local function wrong_use(format, ...)
  io.stderr:write("unic: bench: ", format:format(...), "\n")
  os.exit(2)
end

-- A suite is suites/NAME.lua; its first comment line says what it measures, a line "Cost: ..." what it takes.
local function find_suites()
  local list, place = {}, {}
  for i, name in ipairs(ORDER) do place[name] = i end
  for file in lfs.dir "spec/bench/suites" do
    local name = file:match "^(%w+)%.lua$"
    if name then
      local suite = { name = name, path = "spec/bench/suites/" .. file }
      for line in io.lines(suite.path) do
        local text = line:match "^%-%-%-?%s*(.*)$"
        if not text then break end
        suite.cost = suite.cost or text:match "^Cost: (.*)$"
        suite.title = suite.title or text
      end
      list[#list + 1] = suite
      list[name] = suite
    end
  end
  table.sort(list, function(a, b)
    local p, q = place[a.name] or math.huge, place[b.name] or math.huge
    if p ~= q then return p < q end
    return a.name < b.name
  end)
  return list
end

local USAGE = [[
./unic bench SUITE [SUITE ...] [options] measures; `all` stands for every suite. Results are kept in .cache/bench and shown in spec/bench/RESULTS.md (--write).
Lines `pass|short bench.NAME value limit` say where a bar is met; the exit code is 1 when one is short.

  --vs torch         measure the same work in PyTorch, in turn with ours
  --python PATH      a Python that has it; may be given again (default: each of python3 and /usr/bin/python3 that has one)
  --forms LIST       of it: eager, tuned (eager with a malloc that gives nothing back), compile; also compile_tuned (default: eager,tuned,compile)
  --only TEXT        the rows with TEXT in their name; TEXT,TEXT: either
  --dtype LIST       f32, bf16 (default: both)
  --rounds N         measurements of each side (default: 7)
  --threads N        threads of both sides (default: the processor's cores)
  --resume           leave out rows that were measured for this very tree
  --quick            small sizes, 3 rounds: does it work; nothing is kept, no bars
  --write            write spec/bench/RESULTS.md from all that was measured (alone: without measuring)

]]

local function list_suites(suites)
  local width = 0
  for _, suite in ipairs(suites) do width = math.max(width, #suite.name) end
  io.write(USAGE)
  for _, suite in ipairs(suites) do
    io.write("  ", suite.name, (" "):rep(width - #suite.name + 2), suite.title or "", "\n", (" "):rep(width + 4), "cost: ", suite.cost or "?", "\n")
  end
end

local TAKES = { vs = true, python = true, forms = true, only = true, dtype = true, rounds = true, threads = true }
local SWITCH = { resume = true, quick = true, write = true, help = true }

local function one_of(option, text, allowed)
  local list = {}
  for word in text:gmatch "[^,]+" do
    local known = false
    for _, name in ipairs(allowed) do known = known or name == word end
    if not known then wrong_use("--%s knows no '%s', expected: %s", option, word, table.concat(allowed, ", ")) end
    list[#list + 1] = word
  end
  if #list == 0 then wrong_use("--%s is empty, expected: %s", option, table.concat(allowed, ", ")) end
  return list
end

local function whole(option, text)
  local n = text:match "^%d+$" and tonumber(text)
  if not n or n < 1 then wrong_use("--%s needs a whole number from 1, not '%s'", option, text) end
  return n
end

local function cores()
  local n = 0
  for line in io.lines "/proc/cpuinfo" do
    if line:match "^processor%s*:" then n = n + 1 end
  end
  return math.max(n, 1)
end

local function parse(words)
  local given, names, pythons = {}, {}, nil
  local i = 1
  while i <= #words do
    local word = words[i]
    local name, value = word:match "^%-%-([%w-]+)=(.*)$"
    name = name or word:match "^%-%-([%w-]+)$"
    if name and SWITCH[name] and not value then
      given[name] = true
    elseif name and TAKES[name] then
      if not value then
        i = i + 1
        value = words[i]
      end
      if not value or value == "" then wrong_use("--%s needs a value", name) end
      if name == "python" then
        pythons = pythons or {}
        pythons[#pythons + 1] = value
      else
        given[name] = value
      end
    elseif word:sub(1, 1) == "-" then
      wrong_use("unknown option '%s'; ./unic bench lists them", word)
    else
      names[#names + 1] = word
    end
    i = i + 1
  end
  local options = {
    dtypes = one_of("dtype", given.dtype or "f32,bf16", { "f32", "bf16" }), folder = FOLDER, help = given.help,
    forms = one_of("forms", given.forms or "eager,tuned,compile", { "eager", "tuned", "compile", "compile_tuned" }), only = given.only, pythons = pythons,
    quick = given.quick or false, resume = given.resume or false, rounds = whole("rounds", given.rounds or (given.quick and "3" or "7")),
    threads = whole("threads", given.threads or tostring(cores())), vs = given.vs and one_of("vs", given.vs, { "torch" })[1], write = given.write or false,
  }
  return names, options
end

-- Weights of a workload that was cut off: too large to be left lying.
local function remove_weights()
  for name in lfs.dir(FOLDER) do
    if name:match "%.pt$" then os.remove(FOLDER .. "/" .. name) end
  end
end

-- In a process of its own: what one suite leaves in memory and caches must not be there for the next. The library is loaded only here, with nothing
-- of the caller's in the settings of BLAS and OpenMP.
local function run(suite, options)
  io.stdout:flush()
  local pid = assert(unistd.fork())
  if pid ~= 0 then
    local _, how, status = wait.wait(pid)
    remove_weights()
    return how == "exited" and status or 128 + status
  end
  for name in pairs(stdlib.getenv()) do
    if name:match "^OPENBLAS" or name:match "^OMP_" then stdlib.setenv(name) end
  end
  stdlib.setenv("UNIC_THREADS", tostring(options.threads))
  local code
  local ok, why = xpcall(function()
    local bench = require("spec.bench.bench").open(suite.name, options)
    io.write("# ", suite.name, ": ", suite.title, "\n")
    assert(loadfile(suite.path))()(bench)
    code = bench:close() and 0 or 1
  end, function(report) return type(report) == "string" and not report:match "^bench: " and debug.traceback(report) or report end)
  io.stdout:flush()
  if not ok then
    io.stderr:write(tostring(why), "\n")
    code = 1
  end
  os.exit(code, true)
end

local function write_results(suites)
  local report, store = require "spec.bench.report", require "spec.bench.store"
  local facts = require("unic.info").facts()
  local function line(path, pattern)
    for text in io.lines(path) do
      local found = text:match(pattern)
      if found then return found end
    end
  end
  -- Many processors go by one name.
  local family, model = line("/proc/cpuinfo", "^cpu family%s*:%s*(%d+)"), line("/proc/cpuinfo", "^model%s*:%s*(%d+)")
  if family and model then facts.processor = ("%s (family %s, model %s)"):format(facts.processor, family, model) end
  facts.kernel = line("/proc/sys/kernel/osrelease", "^(%S+)")
  facts.memory = tonumber(line("/proc/meminfo", "^MemTotal:%s+(%d+)")) * 1024
  local list = {}
  for _, suite in ipairs(suites) do
    list[#list + 1] = { name = suite.name, title = suite.title, rows = store.read(FOLDER, suite.name).rows }
  end
  local files = require "unic.files"
  local output = files.output "spec/bench/RESULTS.md"
  output:write(report.markdown(list, facts))
  output:commit()
  io.write "written: spec/bench/RESULTS.md\n"
end

local suites = find_suites()
local names, options = parse(arg)
if options.help or (#names == 0 and not options.write) then
  list_suites(suites)
  os.exit(0)
end
local chosen = {}
for _, name in ipairs(names) do
  if name == "all" then
    for _, suite in ipairs(suites) do chosen[#chosen + 1] = suite end
  elseif suites[name] then
    chosen[#chosen + 1] = suites[name]
  else
    local known = {}
    for _, suite in ipairs(suites) do known[#known + 1] = suite.name end
    wrong_use("no suite '%s', expected all or one of: %s", name, table.concat(known, ", "))
  end
end
os.execute("mkdir -p " .. FOLDER)
remove_weights()
local failed = false
for _, suite in ipairs(chosen) do
  local code = run(suite, options)
  failed = failed or code ~= 0
end
if options.write then write_results(suites) end
os.exit(failed and 1 or 0)
