-- Masked language modelling on the built-in reports: the loss falls below 1.5 in five minutes, and what its encoder is worth to pretrain_medunic
-- Cost: about 60 min on two idle cores, 3 min with --only fall
-- Options: --only fall,text; --steps N (of every training, to try the script: the values then mean nothing); --seeds N (3)
package.path = "./?.lua;" .. package.path
local lfs = require "lfs"
local support = require "spec.support.check"
local check = support.open "mlm"
local runs = require "spec.support.runs"
local unic = require "unic"

local option = {}
for i, word in ipairs(arg) do
  local name = word:match "^%-%-(%l+)$"
  if name then option[name] = arg[i + 1] end
end
local function wanted(part) return not option.only or ("," .. option.only .. ","):find("," .. part .. ",", 1, true) ~= nil end
local steps = option.steps and " --steps " .. tonumber(option.steps) or ""
local seeds = tonumber(option.seeds or 3)

-- A training in a process of its own; its last line is the result.
local function train(recipe, words)
  local command = ("./unic recipes/%s.lua %s%s"):format(recipe, words, steps)
  local output, code = support.shell(command, { log = ".cache/check/mlm.log", timeout = 3600 })
  local line = output:match "[^\n]*$"
  if code ~= 0 or not line:find "^result " then error(("failed: %s\n%s"):format(command, output:sub(-2000)), 0) end
  return line
end

local function values(line)
  local map = {}
  for key, value in line:gmatch "([%w_]+)=(%S+)" do map[key] = tonumber(value) or 0 / 0 end
  return map
end

-- Folders that a later call of the same check finds again.
local base = check.path:gsub("%.tsv$", "") .. (steps ~= "" and "-try" or "")
lfs.mkdir(base)

-- The text encoder of a seed: its folder, its line, and the losses of its steps as a line.
local function text_encoder(seed)
  local folder, key = ("%s/text-%d"):format(base, seed), ("text %d%s"):format(seed, steps)
  if not lfs.attributes(folder .. "/config.json", "mode") then check.state[key] = nil end   -- it was removed
  local line = check:once(key, function()
    local run = base .. "/run"
    if lfs.attributes(run, "mode") then runs.remove(run) end
    if lfs.attributes(folder, "mode") then runs.remove(folder) end
    local result = train("pretrain_mlm", ("--seed %d --run %s --out %s"):format(seed, run, folder))
    local csv = unic.files.read_csv(run .. "/metrics.csv")
    local count = csv:rows()
    local last = math.min(100, math.ceil(count / 10))
    local sum = 0
    for row = count - last + 1, count do sum = sum + tonumber(csv:get(row, "loss")) end
    local extra = (" first=%.4f last=%.4f"):format(tonumber(csv:get(1, "loss")), sum / last)
    csv:free()
    runs.remove(run)
    return result .. extra
  end)
  return folder, line
end

if wanted "fall" then
  local _, line = text_encoder(1)
  print(line)
  local v = values(line)
  check:note("ln_vocab", math.log(v.vocab))
  check:within("first_loss", v.first, math.log(v.vocab) - 0.2, math.log(v.vocab) + 0.4)
  check:at_most("last_loss", v.last, 1.5)   -- mean of the last 100 steps
  check:note("held_out_loss", v.loss)
  for _, language in ipairs { "en", "es" } do
    check:note("held_out_loss_" .. language, v["loss_" .. language])
    check:note("held_out_accuracy_" .. language, v["accuracy_" .. language])
  end
  check:at_most("seconds", v.seconds, 300)
end

if wanted "text" then
  -- The dropout of the recipe, so that the text encoders differ by their beginnings and what is frozen alone.
  local ways = { { "scratch" }, { "freeze0", 0 }, { "freeze1", 1 }, { "freeze2", 2 } }
  local columns = { "zero_shot_auc_en", "zero_shot_auc_es", "bare_auc_en", "bare_auc_es", "retrieval_acc1", "median_rank", "language_gap", "separability", "seconds" }
  local rows = {}
  for _, way in ipairs(ways) do
    local sums = {}
    for seed = 1, seeds do
      local line = check:once(("%s %d%s"):format(way[1], seed, steps), function()
        local run = base .. "/medunic"
        if lfs.attributes(run, "mode") then runs.remove(run) end
        local init = way[2] and ("--text-init %s --freeze %d --dropout 0.03"):format(text_encoder(seed), way[2]) or ""
        local result = train("pretrain_medunic", ("--seed %d --run %s %s"):format(seed, run, init))
        runs.remove(run)
        return result
      end)
      local v = values(line)
      local cells = { ("%-8s %4d"):format(way[1], seed) }
      for k, name in ipairs(columns) do
        sums[k] = (sums[k] or 0) + v[name]
        cells[k + 1] = ("%" .. #name .. ".4f"):format(v[name])
      end
      rows[#rows + 1] = table.concat(cells, "  ")
    end
    local cells = { ("%-8s mean"):format(way[1]) }
    for k, name in ipairs(columns) do
      check:note(way[1] .. "_" .. name, sums[k] / seeds)
      cells[k + 1] = ("%" .. #name .. ".4f"):format(sums[k] / seeds)
    end
    rows[#rows + 1] = table.concat(cells, "  ")
  end
  print("text     seed  " .. table.concat(columns, "  "))
  for _, row in ipairs(rows) do print(row) end
end
check:close()
