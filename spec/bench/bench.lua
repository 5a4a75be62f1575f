--- What a suite is given: options, peaks, peers, processes, rows that are printed and kept. README.md says how it is used.
local cjson = require "cjson"
local lfs = require "lfs"
local stdlib = require "posix.stdlib"
local bars = require "spec.bench.bars"
local check = require "spec.support.check"
local limit = require "spec.bench.limit"
local process = require "spec.bench.process"
local report = require "spec.bench.report"
local statistics = require "spec.bench.statistics"
local store = require "spec.bench.store"

local bench = { bars = bars, statistics = statistics }

local Bench = { bars = bars, limit = limit, statistics = statistics }
Bench.__index = Bench
Bench.__name = "spec.bench"

-- Nothing on the heap goes back to the system, so a step has no page faults: what a user of PyTorch can set without touching a line of it.
local TUNED_MALLOC = "glibc.malloc.mmap_threshold=4294967296:glibc.malloc.trim_threshold=68719476736:glibc.malloc.top_pad=268435456:glibc.malloc.hugetlb=1"

-- In this order they are run. `shipped`: as it comes, without knowledge of malloc or compilers.
local FORMS = {
  { form = "eager", run = "eager", shipped = true, title = "eager" },
  { form = "tuned", run = "eager", tuned = true, title = "eager, tuned malloc" },
  { form = "compile", run = "compile", title = "torch.compile" },
  { form = "compile_tuned", run = "compile", tuned = true, title = "torch.compile, tuned malloc" },
}

local function quote(word) return "'" .. word:gsub("'", "'\\''") .. "'" end

--- Begin a suite.
-- @param suite its name
-- @param options of the command line: see README.md
-- @return what the suite's function is called with
function bench.open(suite, options)
  local self = setmetatable({ suite = suite, options = options, rows = {}, known = {}, by_threads = {}, started = 0, told = {} }, Bench)
  self.tree = check.tree()
  self.check = check.open("bench", { folder = options.folder })
  for _, row in ipairs(store.read(options.folder, suite).rows) do self.known[store.key(row)] = row end
  return self
end

--------------------------------------------------------------------------------------------------------------------------------- rows

--- Is this row asked for (`--only`, `--dtype`)?
function Bench:chosen(name, dtype)
  local options = self.options
  if options.only then
    local found = false
    for part in options.only:gmatch "[^,]+" do found = found or name:find(part, 1, true) ~= nil end
    if not found then return false end
  end
  local chosen = not dtype
  for _, known in ipairs(options.dtypes) do chosen = chosen or known == dtype end
  return chosen
end

--- With `--resume`: the row as it was measured for this very tree, with as many threads.
-- @return a row, or nil
function Bench:kept(name, dtype)
  local row = self.options.resume and self.known[store.key { name = name, dtype = dtype }]
  return row and row.tree == self.tree and row.threads == self.options.threads and row or nil
end

--- Is this row asked for, and with `--resume` not there yet (with peers, if those are asked for)?
function Bench:wants(name, dtype)
  if not self:chosen(name, dtype) then return false end
  local row = self:kept(name, dtype)
  return not row or row.part or self.options.vs ~= nil and row.vs == nil
end

--- The peers that a row does not have yet.
-- @param kept what `kept` returned; nil: none of them
-- @return a list as that of `peers`
function Bench:lacking(kept)
  local there = {}
  for _, peer in ipairs(kept and kept.peers or {}) do there[peer.key] = not peer.refused end
  local list = {}
  for _, peer in ipairs(self:peers()) do
    if not there[peer.key] then list[#list + 1] = peer end
  end
  return list
end

--- Work out what follows from a row's measurements: summaries, the limit and the share of it, ratios. `row` does it too; before it, for a suite whose bars
-- need it.
-- @param row see README.md
-- @return row
function Bench:judge(row)
  row.threads = row.threads or self.options.threads
  if row.times and #row.times > 0 then row.seconds = statistics.summary(row.times) end
  if row.work then
    row.peaks = self:peaks(row.threads)
    row.limit = limit.seconds(row.work, row.dtype, row.peaks)
    if row.limit and row.seconds then row.share = row.limit / row.seconds.median end
  end
  for _, peer in ipairs(row.peers or {}) do
    if peer.times and not peer.refused then
      peer.seconds = statistics.summary(peer.times)
      if peer.ours then peer.ratio = statistics.ratio(peer.times, peer.ours) end
    end
  end
  return row
end

local function keep(self, row)
  row.tree, row.date, row.vs = self.tree, os.date "!%Y-%m-%d %H:%M", self.options.vs
  if not self.options.quick then store.keep(self.options.folder, self.suite, row) end
end

--- Keep what there is of a row that is being measured: `--resume` goes on from it when this is cut off.
function Bench:part(row)
  row.part = true
  keep(self, self:judge(row))
  row.part = nil
end

--- Collect a row: it is printed, its bars become lines, and it is kept.
-- @param row see README.md
-- @return the row as it was kept
function Bench:row(row)
  self:judge(row)
  io.write(report.row(row))
  for _, bar in ipairs(row.bars or {}) do
    if bar.at_least then self.check:at_least(bar.name, bar.value, bar.at_least) else self.check:at_most(bar.name, bar.value, bar.at_most) end
  end
  io.stdout:flush()
  self.rows[#self.rows + 1] = row
  keep(self, row)
  return row
end

--- A remark beside the rows.
function Bench:say(format, ...)
  io.write("  ", format:format(...), "\n")
  io.stdout:flush()
end

-------------------------------------------------------------------------------------------------------------------------------- peaks

local function newer(a, b)
  local of_a, of_b = lfs.attributes(a, "modification"), lfs.attributes(b, "modification")
  return of_a ~= nil and (of_b == nil or of_a > of_b)
end

-- The probe is compiled for this machine at its first use.
local function probe_program(folder)
  local source, program = "spec/bench/probe.c", folder .. "/probe"
  if newer(source, program) then
    local output, code = check.shell(("cc -O3 -pthread %s -o %s"):format(source, quote(program)))
    if code ~= 0 then error("bench: the probe does not compile:\n" .. output, 0) end
  end
  return program
end

local function most(by)
  local best
  for _, rate in pairs(by) do best = math.max(best or 0, rate) end
  return best
end

--- The best rates known: those of the probe, and those that a kernel reached.
-- @param threads of the probe (the run's)
-- @param again probe once more and keep the better
-- @return { flops = { f32 =, bf16 = }, bytes =, probe = { what the probe said } }
function Bench:peaks(threads, again)
  threads = threads or self.options.threads
  local peaks = self.by_threads[threads] or { flops = {}, bytes = 0 }
  if again or not peaks.probe then
    local output, code = check.shell(quote(probe_program(self.options.folder)) .. " " .. threads)
    if code ~= 0 then error("bench: the probe ended with " .. code .. ": " .. output, 0) end
    local said = cjson.decode(output)
    if not peaks.probe or most(said.f32) > most(peaks.probe.f32) then peaks.probe = said end
    peaks.flops.f32 = math.max(peaks.flops.f32 or 0, most(said.f32))
    if most(said.bf16) then peaks.flops.bf16 = math.max(peaks.flops.bf16 or 0, most(said.bf16)) end
    peaks.bytes = math.max(peaks.bytes, most(said.bytes))
  end
  self.by_threads[threads] = peaks
  return peaks
end

-- Flops are counted as the definition of an op has them. An algorithm that needs fewer (Winograd's, in f32 weight gradients) can appear to go faster than
-- multiplications can be done at all; that is no rate of the processor's, and would be none that other kernels could have.
local BEYOND_THE_PROBE = 1.1

--- A kernel did this many flops a second.
function Bench:reached(dtype, rate, threads)
  local peaks = self:peaks(threads)
  -- A type without instructions of its own is done in f32 and says nothing beyond that.
  if peaks.flops[dtype] and rate <= BEYOND_THE_PROBE * most(peaks.probe[dtype]) then peaks.flops[dtype] = math.max(peaks.flops[dtype], rate) end
end

-------------------------------------------------------------------------------------------------------------------------------- peers

--- The Pythons that have PyTorch.
-- @param candidates paths, or names in PATH
-- @param must each of them has to have it
-- @return list of { python =, version = }; the same PyTorch under two names counts once
function bench.pythons(candidates, must)
  local list, seen = {}, {}
  for _, python in ipairs(candidates) do
    local output, code = check.shell(quote(python) .. [[ -W ignore -c 'import torch; print("\ntorch", torch.__version__, torch.__file__)']])
    local version, place = output:match "torch (%S+) (%S+)%s*$"
    if code == 0 and version and not seen[place] then
      seen[place] = true
      list[#list + 1] = { python = python, version = version }
    elseif must and not (code == 0 and version) then
      error(("bench: %s has no PyTorch: %s"):format(python, output:match "[^\n]*$"), 0)
    end
  end
  return list
end

--- The peers to compare with; none without `--vs torch`.
-- @param forms which of eager, tuned, compile, compile_tuned (all that are asked for)
-- @return list of { key =, name =, python =, version =, form =, run =, shipped =, tuned = }
function Bench:peers(forms)
  if not self.options.vs then return {} end
  if not self.found then
    local asked = self.options.pythons
    self.found = bench.pythons(asked or { "python3", "/usr/bin/python3" }, asked ~= nil)
    if #self.found == 0 then error("bench: no python3 with PyTorch was found; --python PATH names one", 0) end
  end
  local wanted = {}
  for _, form in ipairs(forms or self.options.forms) do wanted[form] = true end
  local list = {}
  for _, found in ipairs(self.found) do
    for _, form in ipairs(FORMS) do
      -- torch.compile came with 2.0.
      if wanted[form.form] and (form.run ~= "compile" or tonumber(found.version:match "^%d+") >= 2) then
        local number = found.version:match "^[^+]+"
        list[#list + 1] = {
          key = number .. "-" .. form.form, name = ("PyTorch %s %s"):format(number, form.title), python = found.python, version = found.version,
          form = form.form, run = form.run, shipped = form.shipped or false, tuned = form.tuned or false,
        }
      end
    end
  end
  return list
end

-- What neither side may inherit: settings of BLAS, OpenMP and malloc.
local function cleaned()
  local env = {}
  for name in pairs(stdlib.getenv()) do
    if name:match "^OPENBLAS" or name:match "^OMP_" or name:match "^KMP_" or name:match "^MKL_" or name == "GLIBC_TUNABLES" then env[name] = false end
  end
  return env
end

--- Environment of a process of ours. GOMP_SPINCOUNT is as the launcher sets it.
function Bench:our_env(threads)
  local env = cleaned()
  env.UNIC_THREADS = tostring(threads or self.options.threads)
  return env
end

--- Environment of a peer: nothing of ours reaches it.
-- @param peer one of peers(); nil: as shipped
function Bench:peer_env(peer, threads)
  local env = cleaned()
  for name in pairs(stdlib.getenv()) do
    if name:match "^GOMP_" or name:match "^LUA_" or name:match "^UNIC_" then env[name] = false end
  end
  env.OMP_NUM_THREADS = tostring(threads or self.options.threads)
  if peer and peer.tuned then env.GLIBC_TUNABLES = TUNED_MALLOC end
  return env
end

--- Start a process that is driven by lines (process.lua).
function Bench:process(words, env)
  self.started = self.started + 1
  return process.start(words, env, ("%s/%s-%d.log"):format(self.options.folder, self.suite, self.started))
end

local function once(side)
  if type(side) == "function" then return side() end
  return side:ask("steps 1").seconds[1]
end

-- A round in which a side took this many times its median was not ours alone: the whole machine stood still (83 s for a step of 1.4 were seen).
local DISTURBED = 3

--- One step of each side in turn. A round that was disturbed is taken again, for all sides, once.
-- @param sides list of processes (which answer `steps N`) and functions (which return their seconds)
-- @param options `rounds` (the run's), `warm` (steps of each before: 0)
-- @return a list of seconds for each side; how many rounds were taken again
function Bench:alternate(sides, options)
  options = options or {}
  local times = {}
  for i, side in ipairs(sides) do
    times[i] = {}
    for _ = 1, options.warm or 0 do once(side) end
  end
  for round = 1, options.rounds or self.options.rounds do
    for i, side in ipairs(sides) do times[i][round] = once(side) end
  end
  local again = {}
  for i in ipairs(sides) do
    local bound = DISTURBED * statistics.median(times[i])
    for round, seconds in ipairs(times[i]) do again[round] = again[round] or seconds > bound end
  end
  local count = 0
  for round, disturbed in ipairs(again) do
    if disturbed then
      count = count + 1
      for i, side in ipairs(sides) do times[i][round] = once(side) end
    end
  end
  return times, count
end

--- End of a suite.
-- @return whether nothing was short
function Bench:close() return self.check.short == 0 end

return bench
