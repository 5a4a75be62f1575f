-- Five steps of the main recipe on the emulated GPU beside the CPU: f32 within three times what two correct f32 runs lie apart, bf16 beside it
-- Cost: about 6 min on two cores
package.path = "./?.lua;" .. package.path
local lfs = require "lfs"
local runs = require "spec.support.runs"
local support = require "spec.support.check"
local check = support.open "cuda_trajectory"

local RECIPE, STEPS = "recipes/pretrain_medunic.lua", 5
-- Contract for trajectories: three times the gap between two correct f32 runs. Those are the CPU's plain kernels and its best ones: other orders of sums, nothing
-- else. LEAST: relative, a few roundings of the loss, where the two happen to agree.
local TIMES, LEAST = 3, 1e-6

local text, code = support.shell("./unic -e '' --device cuda-emu", { timeout = 1800 })
if code ~= 0 then
  check:skip("all", text:match "[^\n]*$")
  check:close()
end
if not support.shell("./unic info"):match "avx" then
  check:skip("all", "this processor has one form of the CPU's kernels only: no gap to measure by")
  check:close()
end

local base = os.tmpname()
os.remove(base)
lfs.mkdir(base)

-- The loss of every step.
local function losses(name, device, dtype, isa)
  local line = check:once(name, function()
    local dir = base .. "/" .. name
    local log, status = support.shell(("env %s LUA_PATH=\"$PWD/lua/?.lua;$PWD/lua/?/init.lua;;\" LUA_CPATH=\"$PWD/build/?.so;;\" luajit \"$PWD/lua/unic/main.lua\" %s"
      .. " --device %s --dtype %s --steps %d --studies 64 --log-every 1 --run %s"):format(isa and "UNIC_ISA=" .. isa or "", RECIPE, device, dtype, STEPS, dir), { timeout = 1800 })
    if status ~= 0 then
      io.stderr:write(log, "\n")
      return "failed"
    end
    local list, column = {}, nil
    for row in io.lines(dir .. "/metrics.csv") do
      local cells, i = {}, 0
      for cell in (row .. ","):gmatch "([^,]*)," do
        i = i + 1
        cells[i] = cell
        if not column and cell == "loss" then column = i end
      end
      if tonumber(cells[1]) and tonumber(cells[column]) then list[#list + 1] = cells[column] end
    end
    return table.concat(list, " ")
  end)
  local list = {}
  for word in tostring(line):gmatch "%S+" do list[#list + 1] = tonumber(word) end
  check:note(name, line)
  return list
end

local best, plain, gpu = losses("cpu_f32", "cpu", "f32"), losses("cpu_f32_base", "cpu", "f32", "base"), losses("gpu_f32", "cuda-emu", "f32")
local best16, gpu16 = losses("cpu_bf16", "cpu", "bf16"), losses("gpu_bf16", "cuda-emu", "bf16")
runs.remove(base)
check:holds("all_steps", #best == STEPS and #plain == STEPS and #gpu == STEPS and #best16 == STEPS and #gpu16 == STEPS)
local gap, gap16 = 0, 0
for i = 1, STEPS do
  local size = math.abs(best[i] or 0)
  gap = math.max(gap, math.abs((best[i] or 0) - (plain[i] or 0)), LEAST * size)
  check:at_most(("f32_step_%d"):format(i), gpu[i] and math.abs(gpu[i] - best[i]) / size / 1e-6 or 0 / 0, TIMES * gap / size / 1e-6)   -- in millionths
  -- bf16 has no second correct run by which to judge: what rounding to bf16 itself moves the loss is the measure.
  gap16 = math.max(gap16, math.abs((best16[i] or 0) - (best[i] or 0)), 1e-3 * size)
  check:at_most(("bf16_step_%d"):format(i), gpu16[i] and math.abs(gpu16[i] - best16[i]) / size or 0 / 0, TIMES * gap16 / size)
end
check:close()
