-- On a machine with an NVIDIA GPU: suite, PTX wrappers, sanitizer, kernels and training steps beside the roofline and PyTorch; writes spec/cuda/results/
-- Cost: up to 10 min; without a GPU it says so and ends
package.path = "./?.lua;" .. package.path
local cjson = require "cjson"
local core = require "unic.core"
local files = require "unic.files"
local roofline = require "spec.cuda.roofline"
local support = require "spec.support.check"
local check = support.open "gpu"

local LOG = ".cache/check/gpu.log"
local BUDGET = 600   -- seconds for everything; what does not fit is skipped, and said
local began = core.edit.clock()
local function left() return BUDGET - (core.edit.clock() - began) end
local function shell(command, seconds) return support.shell(command, { log = LOG, timeout = math.max(5, math.floor(math.min(seconds, left()))) }) end

local device, why = core.device_open "cuda"
if not device then
  check:skip("all", why)
  check:close()
end

local card, driver, capability = support.shell("nvidia-smi --query-gpu=name,driver_version,compute_cap --format=csv,noheader -i 0"):match "^(.-), (.-), (%d+%.%d)"
card, driver = card or "unknown GPU", driver or "unknown"
local arch = capability and capability:gsub("%.", "") or "native"
local out = { gpu = card, driver = driver, capability = capability, date = os.date "!%Y-%m-%d", steps = {}, peers = {} }
out.commit = support.shell "git describe --always --dirty --abbrev=12"
check:note("gpu", ("%s, driver %s, compute capability %s"):format(card, driver, capability or "?"))

-- 1. Built for this very GPU, so that no kernel is translated while it is timed.
local _, code = shell(("cmake --preset release -DUNIC_CUDA_ARCHITECTURES=%s-real && cmake --build build --target unic_cuda"):format(arch), 300)
check:holds("builds_for_this_gpu", code == 0)

-- 2. Each PTX wrapper alone.
local text
text, code = shell(("mkdir -p .cache/check && nvcc -std=c++20 -arch=sm_%s -Iruntime -Ikernels --expt-relaxed-constexpr -o .cache/check/wrappers"
  .. " spec/cuda/wrappers.cu && .cache/check/wrappers"):format(arch), 60)
out.wrappers = text
check:holds("wrappers", code == 0 and text:match "pass wrappers" ~= nil and not text:match "short")

-- 3. The specs of kernels on the GPU.
text, code = shell("./unic test spec/kernels --device cuda", 240)
local passed, failed, skipped = support.counts(text)
out.suite = { passed = passed, failed = failed, skipped = skipped, exit = code }
check:at_most("specs_failed", failed, 0)
check:at_least("specs_passed", passed, 1000)

-- 4. compute-sanitizer, where it is there, over a small training step.
if support.shell "command -v compute-sanitizer" ~= "" and left() > 60 then
  text, code = shell("compute-sanitizer --tool memcheck --error-exitcode 9 luajit spec/cuda/steps.lua resnet50:batch=2,size=64 bf16 cuda 1", 60)
  out.sanitizer = text:match "ERROR SUMMARY: [^\n]*"
  check:holds("sanitizer_clean", code == 0)
else
  check:skip("sanitizer", "compute-sanitizer is not here, or there is no time left")
end

-- 5. Training steps beside the roofline, and PyTorch's where it is there.
local env = 'LUA_PATH="$PWD/lua/?.lua;$PWD/lua/?/init.lua;;" LUA_CPATH="$PWD/build/?.so;;" '
local torch = support.shell "python3 -c 'import torch; print(torch.cuda.is_available())' 2>/dev/null" == "True"
if not torch then check:skip("pytorch", "no PyTorch that sees the GPU") end
local model_gpu = card:match "H100" and "H100" or card:match "A100" and "A100"
local rows = {}
for _, step in ipairs { { "resnet50", "bf16" }, { "bert_base", "bf16" }, { "vit_b16", "bf16" }, { "medunic", "bf16" }, { "resnet50", "f32" },
  { "bert_base", "f32" }, { "vit_b16", "f32" }, { "medunic", "f32" } } do
  local name, dtype = step[1] .. ":batch=" .. (step[1] == "medunic" and 64 or 128), step[2]
  local key = step[1] .. "_" .. dtype
  if left() < 30 then
    check:skip(key, "no time left")
  else
    text, code = shell(env .. ("luajit spec/cuda/steps.lua %s %s cuda 10"):format(name, dtype), 90)
    local ok, row = pcall(cjson.decode, text:match "{.*}$" or "")
    check:holds(key .. "_runs", code == 0 and ok)
    if ok then
      if model_gpu then
        for _, gpu in ipairs(roofline.gpus) do
          if gpu.name == model_gpu then row.predicted = roofline.sheet(roofline.record(name, dtype), gpu).seconds end
        end
      end
      out.steps[#out.steps + 1] = row
      local line = { ("%s %s: eager %.2f ms, captured %.2f ms"):format(name, dtype, 1e3 * row.eager.median, 1e3 * row.captured.median) }
      if row.predicted then line[#line + 1] = ("predicted %.2f"):format(1e3 * row.predicted) end
      check:holds(key .. "_captured_loss_is_finite", row.captured.loss == row.captured.loss and math.abs(row.captured.loss) < 1e4)
      for _, form in ipairs(torch and { "eager", "compile" } or {}) do
        if left() > 30 then
          local answer = shell(("python3 spec/cuda/peer_gpu.py %s %s %s 10"):format(name, dtype, form), 90)
          local fine, peer = pcall(cjson.decode, answer:match "{.*}$" or "")
          if fine then
            out.peers[#out.peers + 1] = peer
            line[#line + 1] = ("PyTorch %s %s %.2f (%.2fx)"):format(peer.torch, form, 1e3 * peer.median, peer.median / math.min(row.eager.median, row.captured.median))
          end
        end
      end
      rows[#rows + 1] = table.concat(line, "; ")
      check:note(key, rows[#rows])
    end
  end
end

os.execute "mkdir -p spec/cuda/results"
local path = ("spec/cuda/results/%s.json"):format((card:gsub("[^%w]+", "_")))
local output = files.output(path)
output:write(cjson.encode(out), "\n")
output:commit()
io.write("\n", table.concat(rows, "\n"), "\nwritten: ", path, "\n")
check:close()
