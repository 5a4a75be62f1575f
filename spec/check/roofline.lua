-- What training steps would take on an A100 and an H100, from the launches that `meta` records: a prediction; writes spec/cuda/ROOFLINE.md
-- Cost: about 1 min
package.path = "./?.lua;" .. package.path
local files = require "unic.files"
local roofline = require "spec.cuda.roofline"
local check = require("spec.support.check").open "roofline"

local STEPS = {
  { "resnet50:batch=128", "bf16" }, { "resnet50:batch=128", "f32" }, { "vit_b16:batch=128", "bf16" }, { "bert_base:batch=128", "bf16" },
  { "bert_base:batch=128", "f32" }, { "medunic:batch=128", "bf16" }, { "medunic:batch=128", "f32" },
}
-- PyTorch 2.11 (eager, fused AdamW, channels-last, CUDA 13.0) on one H100 80 GB HBM3, ms: what the assumptions can be held against. Another program's.
local MEASURED = { ["resnet50:batch=128 bf16"] = 34.5, ["resnet50:batch=128 f32"] = 140.6, ["bert_base:batch=128 bf16"] = 38.4, ["bert_base:batch=128 f32"] = 199.4,
  ["medunic:batch=128 bf16"] = 114.5 }

local text = {}
local function add(format, ...) text[#text + 1] = select("#", ...) > 0 and format:format(...) or format end
local function ms(seconds) return ("%.2f"):format(1e3 * seconds) end
local function percent(part, whole) return ("%.0f %%"):format(100 * part / whole) end

add "# Roofline: training steps on GPUs, predicted"
add ""
add "Made by `./unic check roofline` from the launches that the `meta` device records. **Unic's CUDA code has never run on a GPU; nothing below was measured with it.**"
add("A launch takes the larger of flops over (peak x assumed share) and bytes over (bandwidth x assumed share), and %.1f us at least.", 1e6 * roofline.least)
add ""
add "## What is assumed"
add ""
add "| GPU (published peaks) | bandwidth TB/s | bf16 TFLOP/s | f32 TFLOP/s |"
add "|---|---:|---:|---:|"
for _, gpu in ipairs(roofline.gpus) do add("| %s | %.2f | %.0f | %.1f |", gpu.full, gpu.bytes / 1e12, gpu.flops.bf16 / 1e12, gpu.flops.f32 / 1e12) end
add ""
add "| class | by | A100: share of arithmetic, of bandwidth | H100 | why |"
add "|---|---|---|---|---|"
for _, class in ipairs(roofline.classes) do
  add("| %s | %s | %.3g, %.3g | %.3g, %.3g | %s |", class.name, class.library and "library" or "own kernel", class.A100[1], class.A100[2], class.H100[1],
    class.H100[2], class.from)
end

local sheets = {}
for _, step in ipairs(STEPS) do
  local name, dtype = step[1], step[2]
  local events, parameters = roofline.record(name, dtype)
  for _, gpu in ipairs(roofline.gpus) do
    local sheet = roofline.sheet(events, gpu)
    sheet.name, sheet.gpu, sheet.parameters = name .. " " .. dtype, gpu, parameters
    sheets[#sheets + 1] = sheet
  end
end

add ""
add "## Steps"
add ""
add("| step | GPU | predicted ms | at the peaks ms | in libraries | at memory limits | short launches | element-wise (a fusion's at most) | launches "
  .. "| PyTorch 2.11 measured on an H100, ms |")
add "|---|---|---:|---:|---:|---:|---:|---:|---:|---:|"
for _, s in ipairs(sheets) do
  add("| %s | %s | %s | %s | %s | %s | %s | %s | %d | %s |", s.name, s.gpu.name, ms(s.seconds), ms(s.least), percent(s.library, s.seconds), percent(s.memory, s.seconds),
    percent(s.launch, s.seconds), percent(s.fusable, s.seconds), s.launches, s.gpu.name == "H100" and MEASURED[s.name] or "")
end

for _, s in ipairs(sheets) do
  add ""
  add("## %s on %s: the ten largest, and the rest", s.name, s.gpu.full)
  add ""
  add "| kernel | class | calls | predicted ms | share | at the peaks ms | above that ms | GB | Gflop |"
  add "|---|---|---:|---:|---:|---:|---:|---:|---:|"
  local rest = { calls = 0, seconds = 0, least = 0, bytes = 0, flops = 0 }
  local names = {}
  for i, row in ipairs(s.rows) do
    if i <= 10 then
      add("| %s | %s | %d | %s | %s | %s | %s | %.2f | %.0f |", row.name, row.class, row.calls, ms(row.seconds), percent(row.seconds, s.seconds), ms(row.least),
        ms(row.seconds - row.least), row.bytes / 1e9, row.flops / 1e9)
    else
      for key in pairs(rest) do rest[key] = rest[key] + row[key] end
      names[#names + 1] = ("%s %s"):format(row.name, ms(row.seconds))
    end
  end
  add("| the rest | | %d | %s | %s | %s | %s | %.2f | %.0f |", rest.calls, ms(rest.seconds), percent(rest.seconds, s.seconds), ms(rest.least), ms(rest.seconds - rest.least),
    rest.bytes / 1e9, rest.flops / 1e9)
  if #names > 0 then
    add ""
    add("The rest, ms: %s.", table.concat(names, ", "))
  end
end

local output = files.output "spec/cuda/ROOFLINE.md"
output:write(table.concat(text, "\n"), "\n")
output:commit()

for _, s in ipairs(sheets) do
  local key = (s.name .. "_" .. s.gpu.name):gsub("[^%w]+", "_")
  check:note(key .. "_predicted_ms", 1e3 * s.seconds)
  check:holds(key .. "_counts_bytes_and_flops", s.bytes > 1e9 and s.flops > 1e11)
end
check:close()
