--- The two sides of a comparison of whole models: processes of ours and of a peer that take steps in turn.
local fair = require "spec.bench.fair"

local sides = {}

-- Two steps, then the highest resident memory starts anew, three more: what is timed and looked at are steps 6 on and 3 on.
local WARM, MARKED = 5, 2
-- Memory is read when step 10 is done.
local UNTIL = 10

--- A process of ours.
-- @param bench the suite's
-- @param o `workload`, `dtype`, `file`, `threads`
-- @param mode "work" or "infer"
-- @param memory "full" (as it is without a word) or "low"
function sides.ours(bench, o, mode, memory)
  local words = { "luajit", "spec/bench/worker.lua", mode, o.workload, o.dtype, memory or "full" }
  words[#words + 1] = o.file
  return bench:process(words, bench:our_env(o.threads))
end

local function theirs(bench, o, mode, peer)
  return bench:process({ peer.python, "-W", "ignore", "spec/bench/peer.py", mode, o.workload, o.dtype, peer.run, o.file }, bench:peer_env(peer, o.threads))
end

--- Weights and inputs that both sides load, made by a peer's Python.
-- @return a file; nil without peers
function sides.state(bench, workload)
  local peer = bench:peers()[1]
  if not peer then return nil end
  local file = ("%s/%s.pt"):format(bench.options.folder, (workload:gsub("%W", "_")))
  local maker = bench:process({ peer.python, "-W", "ignore", "spec/bench/peer.py", "state", workload, file }, bench:peer_env(peer))
  maker:close()
  return file
end

-- Loss and gradient norm of the first step, each in a process of its own: a second model, without dropout, must not count in the peak.
-- trained: also the losses of two steps with dropout, the second after an update.
local function first_step(start, trained)
  local side = start()
  local answer = side:ask "norm"
  if trained then answer.first, answer.second = side:ask "steps 1".loss, side:ask "steps 1".loss end
  side:close()
  return answer
end

--- The steps that go before, the start of the highest resident memory among them.
function sides.warm(side)
  side:ask("steps " .. MARKED)
  side:ask "mark"
  side:ask("steps " .. WARM - MARKED)
end

-- What a process holds beyond its libraries, its parameters and its optimiser's state.
local function net(side, peak, about) return peak - side.hello.imported - 4 * (about.parameters + about.state) end

-- Steps in turn; a list of seconds and the peak of each, and how many rounds were taken again.
-- Reads the peak of both when step UNTIL is done; ours may have taken more steps, its peak was read with the first.
local function in_turn(bench, list, rounds)
  local first = math.min(rounds, UNTIL - WARM)
  local times, disturbed = bench:alternate(list, { rounds = first })
  local peaks = {}
  for i, side in ipairs(list) do peaks[i] = side:ask "peak".peak end
  if rounds > first then
    local others, more_disturbed = bench:alternate(list, { rounds = rounds - first })
    disturbed = disturbed + more_disturbed
    for i, more in ipairs(others) do
      for _, seconds in ipairs(more) do times[i][#times[i] + 1] = seconds end
    end
  end
  return times, peaks, disturbed
end

-- Is the first training step the same here, there and under "low"? An error when ours differ: recomputing must not change a bit.
-- Returns, by Python, why there is no ratio; false where there is one.
local function first_steps(bench, o, low)
  local refused = {}
  if #o.peers == 0 and not low then return refused end
  local own = first_step(function() return sides.ours(bench, o, "work") end, low)
  if low then
    local again = first_step(function() return sides.ours(bench, o, "work", "low") end, true)
    if again.first ~= own.first or again.second ~= own.second then
      error(("bench: %s %s: training in little memory has other losses: %.9g, %.9g and %.9g, %.9g"):format(o.workload, o.dtype, own.first, own.second, again.first,
        again.second), 0)
    end
    if again.loss ~= own.loss or again.norm ~= own.norm then
      error(("bench: %s %s: recomputing changes the first step: loss %.9g and %.9g, norm %.9g and %.9g"):format(o.workload, o.dtype, own.loss, again.loss,
        own.norm, again.norm), 0)
    end
  end
  for _, peer in ipairs(o.peers) do
    if refused[peer.python] == nil then
      local answer = first_step(function() return theirs(bench, o, "work", peer) end)
      refused[peer.python] = fair.same_step(own, answer, o.dtype) or false
      bench:say("%s %s, first step without dropout: loss %.6g, gradient norm %.6g; PyTorch %s: %.6g, %.6g", o.workload, o.dtype, own.loss, own.norm,
        peer.version, answer.loss, answer.norm)
    end
  end
  return refused
end

-- One peer beside ours.
local function against(bench, o, own, peer, refused)
  local entry = { key = peer.key, name = peer.name, shipped = peer.shipped, refused = refused[peer.python] }
  if entry.refused then return entry end
  local side = theirs(bench, o, o.mode, peer)
  local hello = side.hello
  entry.about = ("PyTorch %s (%s, %d threads)"):format(peer.version, hello.isa, hello.threads)
  if not bench.told[peer.key] then bench:say("%s: %s", peer.name, entry.about) end
  bench.told[peer.key] = true
  entry.refused = fair.same_machine(own.hello, hello, o.threads)
  if not entry.refused then
    sides.warm(side)
    local times, peaks, disturbed = in_turn(bench, { own, side }, o.rounds)
    entry.ours, entry.times, entry.disturbed = times[1], times[2], disturbed
    local about = side:ask "about"
    entry.refused = fair.same_training(own:ask "about", about, o.mode == "work")
    -- A training step's first was looked at before; a forward pass is the same every time.
    if o.mode == "infer" then
      entry.refused = entry.refused or fair.same_result(own:ask("steps 1").loss, side:ask("steps 1").loss, o.dtype)
    end
    entry.memory = net(side, peaks[2], about)
    entry.own_peak = peaks[1]
  end
  side:close()
  return entry
end

--- Measure a workload: ours, beside every peer in turn, and beside ours with little memory.
-- @param bench the suite's
-- @param o `name` (of the row), `workload`, `dtype`, `mode` ("work" or "infer"), `peers` (a list), `file` (weights and inputs; nil without peers), `memory`, `low` (true: measured
-- too), `kept` (what an earlier part of this run measured: its steps and peers are added)
-- @return a row
function sides.compare(bench, o)
  o.threads, o.rounds = bench.options.threads, bench.options.rounds
  local kept, peers = o.kept or {}, o.peers
  local low_done = kept.memory and kept.memory.low
  local refused = o.mode == "work" and first_steps(bench, o, o.low and not low_done) or {}

  bench:peaks(o.threads, true)
  local own = sides.ours(bench, o, o.mode)
  sides.warm(own)
  local row = { name = o.name, dtype = o.dtype, unit = "ms", times = {}, peers = {}, threads = o.threads }
  local function pool(times)
    for _, seconds in ipairs(times) do row.times[#row.times + 1] = seconds end
  end
  local measured = {}
  for _, peer in ipairs(peers) do measured[peer.key] = true end
  for _, peer in ipairs(kept.peers or {}) do
    if not measured[peer.key] then row.peers[#row.peers + 1] = peer end
  end
  pool(kept.times or {})
  local peak
  for _, peer in ipairs(peers) do
    local entry = against(bench, o, own, peer, refused)
    entry.refused = entry.refused or nil
    peak, entry.own_peak = peak or entry.own_peak, nil
    if entry.ours then pool(entry.ours) end
    row.peers[#row.peers + 1] = entry
    bench:part(row)
  end
  if not peak then
    local times, peaks = in_turn(bench, { own }, o.rounds)
    peak = peaks[1]
    pool(times[1])
  end
  if o.memory then
    local m = {}
    row.memory = m
    local about = own:ask "about"
    m.full = net(own, peak, about)
    if low_done then
      m.low, m.low_speed = kept.memory.low, kept.memory.low_speed
    elseif o.low then
      local low = sides.ours(bench, o, o.mode, "low")
      sides.warm(low)
      local times, peaks = in_turn(bench, { own, low }, o.rounds)
      m.low, m.low_speed = net(low, peaks[2], about), 1 / bench.statistics.ratio(times[2], times[1]).median
      low:close()
    end
    for _, peer in ipairs(row.peers) do
      if not peer.refused then m.leanest = math.min(m.leanest or math.huge, peer.memory) end
    end
  end
  -- Last, as the notes of the launches take memory of their own.
  local work = own:ask "work"
  for dtype, rate in pairs(work.best) do bench:reached(dtype, rate, o.threads) end
  row.work = { flops = work.flops, bytes = work.bytes }
  -- What is kept goes as the gradients come: first all of the one is there, at last all of the other.
  if o.memory then row.memory.bound = math.max(work.kept, work.gradients) + work.inputs end
  own:close()
  -- Memory has fast and slow hours: probed on both sides of the steps, the better counts.
  bench:peaks(o.threads, true)
  return row
end

return sides
