-- Resume: 20 steps of the main recipe = 10, kill -9, 10, to the bit; killed in a checkpoint's write and in a group of batches; other workers
-- Cost: about 5 min
package.path = "./?.lua;" .. package.path
local lfs = require "lfs"
local support = require "spec.support.check"
local runs = require "spec.support.runs"
local check = support.open "resume"

local RECIPE = "recipes/pretrain_medunic.lua"
local base = os.tmpname()
os.remove(base)
lfs.mkdir(base)

local function spawn(words) return runs.spawn(RECIPE, words, { folder = base, log = base .. "/log" }) end

-- Run to the end; the log is shown when that fails.
local function complete(words)
  local how, code = runs.finish(spawn(words))
  if how ~= "exited" or code ~= 0 then
    io.stderr:write(runs.read(base .. "/log"))
    error(("%s: %s %s"):format(table.concat(words, " "), tostring(how), tostring(code)), 0)
  end
end

-- Kill a run when it is time, as often as asked, continue it to the end, and compare.
local function cut(name, whole, words, kills, is_time, then_words)
  local dir = base .. "/" .. name
  local ok, why = pcall(function()
    for kill = 1, kills do
      local start = { "--run=" .. dir, "--save-every=2", "--log-every=1", unpack(words) }
      if kill > 1 then start[#start + 1] = "--resume" end
      local how = runs.signal_when(spawn(start), runs.SIGKILL, function() return is_time(dir, kill) end, 600)
      if how ~= "killed" then error("it ended before it was killed", 0) end
    end
    complete { "--run=" .. dir, "--resume", unpack(then_words or {}) }
    local same, difference = runs.same(whole, dir)
    if not same then error(difference, 0) end
  end)
  if not ok then io.stderr:write(name, ": ", tostring(why), "\n") end
  check:holds(name, ok)
  runs.remove(dir)
end

local options = { "--steps=20", "--batch=16" }
local plain, grouped = base .. "/plain", base .. "/grouped"
complete { "--run=" .. plain, unpack(options) }
local function after(step) return function(dir, kill) return runs.steps_done(dir) >= step * kill end end
cut("killed", plain, options, 1, after(10))
cut("in_a_write", plain, options, 3, function(dir, kill) return runs.steps_done(dir) >= 4 * kill and runs.is_writing(dir) end)
cut("other_workers", plain, { "--workers=2", unpack(options) }, 1, after(10), { "--workers=0" })

local groups = { "--steps=8", "--batch=16", "--accumulate=3" }
complete { "--run=" .. grouped, unpack(groups) }
cut("in_a_group", grouped, groups, 2, after(3))

runs.remove(base)
check:close()
