--- What the scripts in spec/check/ share: result lines, measurements that survive a restart, the exit code.
--
--   local check = require("spec.support.check").open("memory")
--   check:at_most("peak_mb", peak, 300)            prints: pass memory.peak_mb 212 <=300
--   check:at_least("caught", caught, 38)           prints: short memory.caught 37 >=38
--   check:holds("same_bits", a == b)               prints: pass memory.same_bits yes yes
--   check:skip("real", "no folder shared/data/real")
--   local seconds = check:once("seed 1", function() return train(1) end)
--   check:close()                                  exits with 1 when anything was short
local check = {}

local Check = {}
Check.__index = Check
Check.__name = "spec.check"

local function quote(word) return "'" .. tostring(word):gsub("'", "'\\''") .. "'" end

local function output_of(command)
  local pipe = assert(io.popen(command))
  local text = pipe:read("*a")
  pipe:close()
  return (text:gsub("%s+$", ""))
end

--- The working tree as git would name it, changed and new files included: results are only resumed for the very same files. The checks
-- themselves and the texts (results of ./unic bench too) are left out: a fault added to mutants.csv does not undo the ones tried before.
-- @return a hash of 40 digits, or "unversioned" outside a git checkout
function check.tree()
  -- A copy of the index, so that nothing gets staged by looking.
  local script = [[
    set -e
    index=$(git rev-parse --git-path index)
    copy=$(mktemp)
    trap 'rm -f "$copy"' EXIT
    cp "$index" "$copy"
    export GIT_INDEX_FILE=$copy
    git add -A .
    git rm -rq --cached --ignore-unmatch spec/check spec/bench/RESULTS.md README.md
    git write-tree]]
  local hash = output_of("sh -c " .. quote(script) .. " 2>/dev/null")
  return hash:match("^%x+$") and hash or "unversioned"
end

--- Run a shell command and read what it prints.
-- @param command for sh
-- @param options table: `log` (append both outputs to this file and also return them), `timeout` (seconds; exit code 124 after it)
-- @return its output (stdout and stderr, without the last line's end), its exit code (128 + n for signal n, as a shell has it)
function check.shell(command, options)
  options = options or {}
  for key in pairs(options) do
    if key ~= "log" and key ~= "timeout" then error(("check.shell: unknown option '%s'"):format(key), 2) end
  end
  local inner = "sh -c " .. quote(command)
  if options.timeout then inner = ("timeout -k 10 %d %s"):format(options.timeout, inner) end
  local text = output_of(("{ %s ; } 2>&1 </dev/null; printf '\\n%%s' $?"):format(inner))
  local output, code = text:match("^(.-)\n*(%d+)$")
  if options.log then
    local file = assert(io.open(options.log, "a"))
    file:write("$ ", command, "\n", output, "\n[exit ", code, "]\n")
    file:close()
  end
  return output, tonumber(code)
end

--- The counts of a suite's last line.
-- @param output what `./unic test` printed
-- @return passed, failed, skipped; nil when there is no such line
function check.counts(output)
  local passed, failed, skipped = (output .. "\n"):match("\n?(%d+) passed, (%d+) failed, (%d+) skipped\n+$")
  return tonumber(passed), tonumber(failed), tonumber(skipped)
end

local function read_state(path)
  local state = {}
  local file = io.open(path, "r")
  if not file then return state end
  for line in file:lines() do
    local key, value = line:match("^(.-)\t(.*)$")
    if key then state[key] = value end
  end
  file:close()
  return state
end

--- Begin a check.
-- @param name the check's name, as in `./unic check NAME`
-- @param options table: `folder` (where measurements are kept; default .cache/check)
-- @return a check; what follows is called on it
function check.open(name, options)
  options = options or {}
  local folder = options.folder or ".cache/check"
  local tree = check.tree()
  assert(os.execute("mkdir -p " .. quote(folder)) == 0, "cannot make " .. folder)
  local self = setmetatable({ name = name, short = 0, passed = 0, path = ("%s/%s-%s.tsv"):format(folder, name, tree:sub(1, 12)) }, Check)
  -- `--fresh` measures everything anew.
  for _, word in ipairs(arg or {}) do
    if word == "--fresh" then os.remove(self.path) end
  end
  self.state = read_state(self.path)
  return self
end

--- Measure once: a later call of the same check on the same tree gets the value from the first one.
-- @param key names the measurement
-- @param measure function that returns a number or a line of text
-- @return the value, a number where it reads as one
function Check:once(key, measure)
  if self.state[key] == nil then
    local value = tostring(measure()):gsub("[\t\n]", " ")
    self.state[key] = value
    local file = assert(io.open(self.path, "a"))
    file:write(key, "\t", value, "\n")
    file:close()
  end
  return tonumber(self.state[key]) or self.state[key]
end

local function show(value)
  if type(value) == "number" and value ~= math.floor(value) then return ("%.4f"):format(value) end
  return tostring(value)
end

local function result(self, ok, name, value, limit)
  self[ok and "passed" or "short"] = self[ok and "passed" or "short"] + 1
  io.write(("%s %s.%s %s %s\n"):format(ok and "pass" or "short", self.name, name, show(value), limit))
  io.stdout:flush()
  return ok
end

--- Result lines; each returns whether it passed. A value that is no number (nil, nan) is short.
function Check:at_most(name, value, limit)
  return result(self, type(value) == "number" and value <= limit, name, value, "<=" .. show(limit))
end

function Check:at_least(name, value, limit)
  return result(self, type(value) == "number" and value >= limit, name, value, ">=" .. show(limit))
end

function Check:within(name, value, low, high)
  return result(self, type(value) == "number" and value >= low and value <= high, name, value, show(low) .. ".." .. show(high))
end

function Check:holds(name, truth)
  return result(self, truth and true or false, name, truth and "yes" or "no", "yes")
end

--- A value that is reported and has no limit.
function Check:note(name, value)
  io.write(("note %s.%s %s\n"):format(self.name, name, show(value)))
  io.stdout:flush()
end

--- A part that cannot run here, with the reason.
function Check:skip(name, reason)
  io.write(("skip %s.%s %s\n"):format(self.name, name, reason))
  io.stdout:flush()
end

--- End the process: 0 when nothing was short.
function Check:close()
  os.exit(self.short == 0 and 0 or 1, true)
end

return check
