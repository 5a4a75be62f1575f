--- Medians and ratios of repeated measurements.
local clock = require("unic.core").edit.clock

local statistics = {}

local function sorted(list)
  local copy = {}
  for i, x in ipairs(list) do copy[i] = x end
  table.sort(copy)
  return copy
end

--- The median of a list of numbers; of an even number of them the mean of the two in the middle.
function statistics.median(list)
  local s = sorted(list)
  local n = #s
  assert(n > 0, "the median of nothing")
  return n % 2 == 1 and s[(n + 1) / 2] or (s[n / 2] + s[n / 2 + 1]) / 2
end

--- median, min, max, n of a list.
function statistics.summary(list)
  local s = sorted(list)
  return { median = statistics.median(s), min = s[1], max = s[#s], n = #s }
end

--- How many times as long they take as we do.
-- @param theirs seconds, a list
-- @param ours seconds of the steps beside them: equally many, pair by pair
-- @return median (of medians), min (of minima), low and high (smallest and largest of the pairs)
function statistics.ratio(theirs, ours)
  assert(#theirs == #ours, "a ratio needs pairs")
  local pairwise = {}
  for i, t in ipairs(theirs) do pairwise[i] = t / ours[i] end
  local t, o, p = statistics.summary(theirs), statistics.summary(ours), statistics.summary(pairwise)
  return { median = t.median / o.median, min = t.min / o.min, low = p.min, high = p.max }
end

--- Seconds of a call, several times.
-- @param fn what is timed
-- @param options `rounds` (7), `least` (seconds that a round takes at least, by calling more often: 0), `warm` (calls before: 1)
-- @return a list of seconds for one call each
function statistics.time(fn, options)
  for _ = 1, options.warm or 1 do fn() end
  local calls = 1
  if options.least and options.least > 0 then
    while true do
      local begin = clock()
      for _ = 1, calls do fn() end
      local seconds = clock() - begin
      if seconds >= options.least then break end
      calls = math.max(calls + 1, math.min(10 * calls, math.ceil(1.2 * calls * options.least / math.max(seconds, 1e-9))))
    end
  end
  local times = {}
  for i = 1, options.rounds or 7 do
    local begin = clock()
    for _ = 1, calls do fn() end
    times[i] = (clock() - begin) / calls
  end
  return times
end

return statistics
