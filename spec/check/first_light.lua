-- The main recipe at three seeds and with permuted reports, and how hard its pictures are: pixel means and a supervised network
-- Cost: about 20 min on two idle cores
-- Options: --only baselines,seeds,shuffle
package.path = "./?.lua;" .. package.path
local support = require "spec.support.check"
local check = support.open "first_light"

local only
for i, word in ipairs(arg) do
  if word == "--only" then only = "," .. (arg[i + 1] or "") .. "," end
end
local function wanted(part) return not only or only:find("," .. part .. ",", 1, true) ~= nil end

-- A part in a process of its own; its last line is the answer.
local function answer(command, pattern)
  local output, code = support.shell(command, { log = ".cache/check/first_light.log", timeout = 3600 })
  local line = output:match("[^\n]*$")
  if code ~= 0 or not line:find(pattern) then error(("failed: %s\n%s"):format(command, output:sub(-2000)), 0) end
  return line
end

local function values(line)
  local map = {}
  for key, value in line:gmatch("([%w_]+)=(%S+)") do map[key] = tonumber(value) end
  return map
end

if wanted "baselines" then
  local v = values(check:once("baselines", function() return answer("./unic spec/support/baselines.lua", "^baselines ") end))
  check:at_most("pixel_means_auc", v.pixel_means_auc, 0.75)
  check:within("supervised_auc", v.supervised_auc, 0.88, 0.98)
  check:at_least("lowest_prevalence", v.lowest, 0.10)
  check:at_most("highest_prevalence", v.highest, 0.25)
  check:at_least("fewest_held_out", v.fewest, 40)
end

local function train(words)
  return answer("dir=$(mktemp -d) && ./unic recipes/pretrain_medunic.lua --run $dir/run " .. words .. "; code=$?; rm -rf $dir; (exit $code)", "^result ")
end

if wanted "seeds" then
  for seed = 1, 3 do
    local line = check:once("seed " .. seed, function() return train("--seed " .. seed) end)
    print(line)
    local v, name = values(line), "seed" .. seed .. "_"
    for _, language in ipairs { "en", "es" } do
      check:at_least(name .. "zero_shot_auc_" .. language, v["zero_shot_auc_" .. language], 0.83)
      check:at_least(name .. "bare_auc_" .. language, v["bare_auc_" .. language], 0.78)
      check:at_least(name .. "min_auc_" .. language, v["min_auc_" .. language], 0.60)
      check:within(name .. "untrained_auc_" .. language, v["untrained_auc_" .. language], 0.4, 0.6)
    end
    check:at_least(name .. "side_auc", v.side_auc, 0.88)
    check:note(name .. "swap_auc", v.swap_auc)
    check:at_most(name .. "median_rank", v.median_rank, 10)
    check:note(name .. "seconds", v.seconds)   -- whose limit is chroot's
  end
end

if wanted "shuffle" then
  local line = check:once("shuffle", function() return train("--seed 1 --control shuffle") end)
  print(line)
  local v = values(line)
  for _, language in ipairs { "en", "es" } do
    check:within("shuffle_zero_shot_auc_" .. language, v["zero_shot_auc_" .. language], 0.4, 0.6)
  end
  check:within("shuffle_median_rank", v.median_rank, 100, 156)
end
check:close()
