-- The main recipe in bf16 beside f32, three seeds each: the mean zero-shot AUC is the same within its noise
-- Cost: about 30 min on two idle cores
package.path = "./?.lua;" .. package.path
local support = require "spec.support.check"
local check = support.open "bf16"

local COMMAND = "dir=$(mktemp -d) && ./unic recipes/pretrain_medunic.lua --run $dir/run --dtype %s --seed %d; code=$?; rm -rf $dir; (exit $code)"

local function train(dtype, seed)
  local line = check:once(dtype .. " " .. seed, function()
    local output, code = support.shell(COMMAND:format(dtype, seed), { log = ".cache/check/bf16.log", timeout = 3600 })
    local last = output:match "[^\n]*$"
    if code ~= 0 or not last:find "^result " then error(("failed: %s %d\n%s"):format(dtype, seed, output:sub(-2000)), 0) end
    return last
  end)
  local value = {}
  for key, text in line:gmatch "([%w_]+)=(%S+)" do value[key] = tonumber(text) end
  local auc = (value.zero_shot_auc_en + value.zero_shot_auc_es) / 2
  check:note(("%s_seed%d_auc"):format(dtype, seed), auc)
  check:note(("%s_seed%d_seconds"):format(dtype, seed), value.seconds)
  return auc
end

local mean, list = { f32 = 0, bf16 = 0 }, {}
for seed = 1, 3 do
  for _, dtype in ipairs { "bf16", "f32" } do
    local auc = train(dtype, seed)
    mean[dtype] = mean[dtype] + auc / 3
    if dtype == "f32" then list[seed] = auc end
  end
end
local squares = 0
for seed = 1, 3 do squares = squares + (list[seed] - mean.f32) ^ 2 end
local standard_error = math.sqrt(squares / 2) / math.sqrt(3)
check:note("f32_auc", mean.f32)
check:note("f32_standard_error", standard_error)
check:note("bf16_auc", mean.bf16)
check:at_most("difference", math.abs(mean.bf16 - mean.f32), math.max(0.02, 2 * standard_error))
check:close()
