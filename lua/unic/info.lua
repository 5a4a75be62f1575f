--- What this Unic is and what it runs on: for `./unic info` and for the manifest of a run.
-- @module unic.info
local core = require "unic.core"
local lfs = require "lfs"

local info = {}

local function first_line(path, pattern)
  local file = io.open(path, "r")
  if not file then return nil end
  for line in file:lines() do
    local found = line:match(pattern)
    if found then
      file:close()
      return found
    end
  end
  file:close()
end

-- The commit of the checkout that this file is in; nil for an installed copy.
local function commit()
  local root = require("unic").root
  local head = first_line(root .. ".git/HEAD", "^(.+)$") or first_line(root .. ".git", "^gitdir: (.+)$") and "worktree"
  if not head then return nil end
  local pipe = io.popen(("git -C '%s' describe --always --dirty --abbrev=12 2>/dev/null"):format((root:gsub("'", "'\\''"))))
  local line = pipe and pipe:read("*l")
  if pipe then pipe:close() end
  return line
end

-- Where `./unic check gpu` leaves what it saw, a JSON file per GPU.
local RESULTS = "spec/cuda/results"

local function gpu_results()
  local folder, found = require("unic").root .. RESULTS, {}
  if lfs.attributes(folder, "mode") == "directory" then
    for name in lfs.dir(folder) do found[#found + 1] = name:match "^(.+)%.json$" end
  end
  table.sort(found)
  return found
end

-- The CUDA plug-in in a sentence: built or not, what it finds here, and whether it ever ran on a GPU.
local function cuda_text()
  local name, why = core.device_open "cuda"
  local state = name and "there is " .. name or why:match "there is no cuda here: (.*)" or why:match "cuda cannot be used: (.*)" or "not built"
  local results = gpu_results()
  return ("%s; %s"):format(state, #results > 0 and "has run on " .. table.concat(results, ", ") or "never run on a GPU")
end

--- The facts as a table: strings, numbers and booleans only, so that it can be written anywhere.
-- @return a table: version, commit, luajit, compiler, sanitized, processor, cores, isa, best_isa, threads, memory_budget (bytes), libraries
-- (name -> version), devices (list of names)
function info.facts()
  local isa, best = core.isa()
  local compiler, sanitized = core.info.compiler()
  local cores = 0
  for line in io.lines("/proc/cpuinfo") do
    if line:match("^processor%s*:") then cores = cores + 1 end
  end
  return {
    version = core.version(),
    commit = commit(),
    luajit = jit.version,
    compiler = compiler,
    sanitized = sanitized,
    system = first_line("/etc/os-release", '^PRETTY_NAME="?([^"]*)"?$'),
    processor = first_line("/proc/cpuinfo", "^model name%s*:%s*(.+)$") or jit.arch,
    cores = cores,
    isa = isa,
    best_isa = best,
    threads = core.threads(),
    memory_budget = core.memory("cpu").budget,
    libraries = core.info.libraries(),
    devices = core.device_list(),
  }
end

--- The facts as text for a person.
-- @return a string that ends with a newline
function info.text()
  local facts = info.facts()
  local lines = {}
  local function row(name, format, ...) lines[#lines + 1] = ("%-12s " .. format):format(name, ...) end

  row("unic", "%s%s%s", facts.version, facts.commit and " (" .. facts.commit .. ")" or "", facts.sanitized and ", with sanitizers" or "")
  row("built with", "%s, %s", facts.compiler, facts.luajit)
  row("system", "%s", facts.system or "unknown")
  row("processor", "%s, %d cores", facts.processor, facts.cores)
  local why = facts.isa == facts.best_isa and "the best this processor runs" or "the processor runs " .. facts.best_isa
  row("kernels", "%s (%s)", facts.isa, why)
  row("threads", "%d", facts.threads)
  row("memory", "%.1f GB budget", facts.memory_budget / 1e9)
  local names = {}
  for name in pairs(facts.libraries) do names[#names + 1] = name end
  table.sort(names, function(a, b) return a:lower() < b:lower() end)
  for i, name in ipairs(names) do row(i == 1 and "libraries" or "", "%s %s", name, facts.libraries[name]) end
  for i, name in ipairs(facts.devices) do row(i == 1 and "devices" or "", "%s", name) end
  row("", "cuda: %s", cuda_text())
  return table.concat(lines, "\n") .. "\n"
end

return info
