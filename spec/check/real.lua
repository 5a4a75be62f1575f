-- The main recipe on real chest X-rays: 300 steps, the loss falls; real Spanish sentences through the tokeniser
-- Cost: about 2 min; needs the folder of real data (UNIC_DATA, or ../shared/data/real)
package.path = "./?.lua;" .. package.path
local support = require "spec.support.check"
local lfs = require "lfs"
local check = support.open "real"

local folder = os.getenv "UNIC_DATA" or "../shared/data/real"
if not lfs.attributes(folder .. "/cxr-nih") then
  check:skip("all", "the folder of real data is absent (UNIC_DATA)")
  check:close()
end
if folder:sub(1, 1) ~= "/" then folder = lfs.currentdir() .. "/" .. folder end

local base = os.tmpname()
os.remove(base)
lfs.mkdir(base)
local function must(command)
  local output, code = support.shell(command, { log = ".cache/check/real.log", timeout = 3600 })
  if code ~= 0 then error(("failed: %s\n%s"):format(command, output:sub(-2000)), 0) end
  return output
end

check:note("csv", must(("./unic spec/support/real_csv.lua '%s' %s/data.csv"):format(folder, base)):match "[^\n]*$")
check:note("skipped", must(("./unic recipes/pretrain_medunic.lua --data %s --run %s/run --steps 300 --log-every 1"):format(base, base)):match "[^\n]*skipped[^\n]*" or "none")
local losses, column = {}, nil
for line in io.lines(base .. "/run/metrics.csv") do
  local fields = {}
  for field in (line .. ","):gmatch "([^,]*)," do fields[#fields + 1] = field end
  if not column then
    for k, name in ipairs(fields) do if name == "loss" then column = k end end
  else
    losses[#losses + 1] = tonumber(fields[column])
  end
end
local function mean(first, last)
  local sum = 0
  for k = first, last do sum = sum + losses[k] end
  return sum / (last - first + 1)
end
check:at_least("steps", #losses, 300)
local first, last = mean(1, 30), mean(#losses - 29, #losses)
check:note("loss_of_first_30", first)
check:at_most("loss_of_last_30", last, first)

-- Share of [UNK]: the vocabulary is of the built-in set's words, and of pieces down to single letters for all others.
local code = [[
  local text, phantom = require("unic").text, require "unic.datasets.phantom"
  local tokenizer = text.wordpiece(phantom.vocab)
  local sentences, tokens, unknown = 0, 0, 0
  for line in io.lines(arg[1]) do
    sentences = sentences + 1
    for _, id in ipairs(tokenizer:encode(line)) do
      tokens = tokens + 1
      if tokenizer:token(id) == "[UNK]" then unknown = unknown + 1 end
    end
  end
  print(sentences, tokens, unknown)
]]
local path = base .. "/sentences.lua"
local file = assert(io.open(path, "w"))
file:write(code)
file:close()
local sentences, tokens, unknown = must(("./unic %s '%s/text-es-nubes/sentences.txt'"):format(path, folder)):match "(%d+)%s+(%d+)%s+(%d+)%s*$"
check:at_least("spanish_sentences", tonumber(sentences), 5000)
check:note("spanish_tokens", tonumber(tokens))
check:at_most("spanish_unknown_share", unknown / tokens, 0.02)
must(("rm -rf '%s'"):format(base))
check:close()
