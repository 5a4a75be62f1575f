-- Loading BERT-base (435 MB of safetensors, in the page cache) into a model that is made for it: seconds, copies
-- Cost: half a minute, 0.5 GB in .cache
package.path = "./?.lua;" .. package.path
local unic = require "unic"
local bert = require "unic.models.bert"
local ffi = require "ffi"
local time = require "posix.time"
local support = require "spec.support.check"

local PATH = ".cache/bert_base.safetensors"

local function now()
  local t = time.clock_gettime(time.CLOCK_MONOTONIC)
  return t.tv_sec + t.tv_nsec * 1e-9
end

local function model() return bert.bert_base { vocab = 30522 } end

local function timed(fn)
  local start = now()
  local value = fn()
  return now() - start, value
end

-- In a process of its own: construction and loading, the memory it took, and what copying the same bytes takes.
if arg[1] == "--child" then
  local before = unic.memory().active
  unic.memory_peak_reset()
  local seconds, net = timed(function() return (unic.weights.build(model, PATH, { quiet = true })) end)
  local bytes = 0
  for _, t in pairs(net:state_dict()) do bytes = bytes + 4 * t:numel() end
  local copies = (unic.memory().peak - before) / bytes
  local again = timed(function() unic.weights.load(net, PATH, { quiet = true }) end)   -- into memory that is there: without page faults on that side
  local file = unic.files.safetensors_open(PATH)
  local largest = "embeddings.word_embeddings.weight"
  local from, size = file:pointer(largest)
  local to, floor = ffi.new("char[?]", size), math.huge
  for _ = 1, 5 do floor = math.min(floor, (timed(function() ffi.copy(to, from, size) end))) end
  print(("%.4f %.4f %.4f %.4f %d"):format(seconds, again, floor / tonumber(size) * bytes, copies, bytes))
  return
end

local check = support.open "load"
os.execute "mkdir -p .cache"
local drawn, net = timed(model)
unic.weights.save(PATH, net)
local best = { math.huge, math.huge, math.huge, 0, 0 }
for _ = 1, 5 do
  local output, code = support.shell "./unic spec/check/load.lua --child"
  assert(code == 0, output)
  local values = {}
  for word in output:gmatch "%S+" do values[#values + 1] = tonumber(word) end
  for i = 1, 3 do best[i] = math.min(best[i], values[i]) end
  best[4], best[5] = math.max(best[4], values[4]), values[5]
end
check:note("mb", best[5] / 1e6)
check:note("floor_s", best[3])          -- memcpy of as many bytes, both sides in memory
check:note("again_s", best[2])          -- into a model that is there
check:note("drawing_s", drawn)          -- what initial values would take
check:at_most("seconds", best[1], 0.3)  -- the model included, into fresh memory
check:at_most("copies", best[4], 1.01)  -- peak of memory beyond what was there, in sizes of the model
check:close()
