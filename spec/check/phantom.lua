-- The built-in data set: how fast two processes draw and write it, and how often each finding occurs over many seeds
-- Cost: half a minute
package.path = "./?.lua;" .. package.path
require "unic"
local support = require "spec.support.check"
local check = support.open "phantom"
local phantom = require "unic.datasets.phantom"

-- Studies a second, picture and report, of two processes at a time: the bar is for two cores.
local CODE = [[
  local phantom, ffi, clock = require "unic.datasets.phantom", require "ffi", require("posix.time").clock_gettime
  local set, n = phantom.open {size = %d}, %d
  local picture, now = ffi.new("uint8_t[?]", set.size * set.size), function() local t = clock(1) return t.tv_sec + t.tv_nsec / 1e9 end
  for i = 1, 100 do set:image(i, picture) set:report(i) end
  local start = now()
  for i = 101, 100 + n do set:image(i, picture) set:report(i) end
  io.write(n / (now() - start), "\n")
]]
for _, bar in ipairs {{size = 64, studies = 4000, least = 1000}, {size = 128, studies = 1000, least = 250}} do
  local code = ('require "unic" ' .. CODE:format(bar.size, bar.studies)):gsub("\n%s*", " ")
  local one = ("./unic -e '%s' 2>/dev/null"):format(code)
  local rate = 0
  for line in support.shell(one .. " & " .. one .. " & wait"):gmatch("[^\n]+") do rate = rate + (tonumber(line) or 0) end
  check:at_least(("studies_per_second_%d"):format(bar.size), math.floor(rate), bar.least)
end

local low, high, fewest = 1, 0, math.huge
for seed = 0, 19 do
  for _, split in ipairs {"train", "val", "test"} do
    local set, count = phantom.open {split = split, seed = seed, studies = split == "train" and 2000 or 500}, {}
    for i = 1, set.n do
      for _, name in ipairs(set:labels(i)) do count[name] = (count[name] or 0) + 1 end
    end
    for _, name in ipairs(phantom.findings) do
      local n = count[name] or 0
      low, high = math.min(low, n / set.n), math.max(high, n / set.n)
      if split ~= "train" then fewest = math.min(fewest, n) end
    end
  end
end
check:at_least("lowest_prevalence", low, 0.10)
check:at_most("highest_prevalence", high, 0.25)
check:at_least("fewest_held_out", fewest, 40)
check:close()
