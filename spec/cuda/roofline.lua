--- What a training step would take on a GPU at best and by what is assumed of its kernels, from the launches that `meta` records.
--
-- A prediction, never a measurement: Unic's CUDA kernels have not run on a GPU until `./unic check gpu` has left a result file. Every number that goes into
-- it stands in the two tables below, with where it is from.
local unic = require "unic"

local roofline = {}

--- Published figures (NVIDIA's data sheets: dense, without sparsity). bytes: a second of device memory; flops: a second by type.
roofline.gpus = {
  { name = "A100", full = "A100 SXM 80 GB", bytes = 2.039e12, flops = { bf16 = 312e12, f16 = 312e12, f32 = 19.5e12, f64 = 9.7e12 } },
  { name = "H100", full = "H100 SXM 80 GB", bytes = 3.35e12, flops = { bf16 = 989e12, f16 = 989e12, f32 = 67e12, f64 = 34e12 } },
}

--- What is assumed: which share of the peak arithmetic and of the peak bandwidth a kernel of a class reaches, per GPU
-- (`f32`: of products without tensor cores; `again`: bytes moved over those of arguments and results). The H100 column follows rates that
-- PyTorch 2.11 (cuBLAS, cuDNN 9.19) and the prototypes of our own kernels reached on one H100; the A100 column is a guess: smaller peaks are easier to reach.
roofline.classes = {
  { name = "product", library = true, A100 = { .75, .80, f32 = .85 }, H100 = { .65, .80, f32 = .70 }, from = "cuBLAS bf16 575 to 717 of 989 TFLOP/s; f32 44 to 51 of 67" },
  { name = "conv", library = true, A100 = { .60, .75 }, H100 = { .53, .75 }, from = "cuDNN bf16 3x3 464 to 599 TFLOP/s at 128 and more channels; 1x1 at 56 x 56 2.6 TB/s" },
  { name = "conv narrow", library = true, A100 = { .40, .75 }, H100 = { .36, .75 }, from = "cuDNN bf16 64 channels 3x3 338 to 391 TFLOP/s" },
  { name = "conv stem", library = true, A100 = { .15, .50 }, H100 = { .09, .50 }, from = "cuDNN bf16, 3 channels padded to 8: 89, 80, 174 TFLOP/s" },
  { name = "attention", A100 = { .22, .60 }, H100 = { .13, .60 }, from = "our prototype's forward 111 to 181 TFLOP/s; the backward is taken at half" },
  { name = "attention backward", A100 = { .11, .60 }, H100 = { .065, .60 }, from = "as PyTorch's flash backward there: 57 to 106 TFLOP/s" },
  { name = "batch_norm", A100 = { 1, .65 }, H100 = { 1, .65 }, again = { forward = 3 / 2, backward = 5 / 3 },
    from = "PyTorch's backward 2.36 of 3.35 TB/s; statistics and sums are a pass of their own (3 passes for 2, 5 for 3)" },
  { name = "norm", A100 = { 1, .65 }, H100 = { 1, .65 }, from = "our prototype's layer_norm 2.34 TB/s; PyTorch 1.37 forward, .76 backward" },
  { name = "optimiser", A100 = { 1, .75 }, H100 = { 1, .75 }, from = "PyTorch's fused AdamW 2.56 TB/s" },
  { name = "element-wise", A100 = { 1, .80 }, H100 = { 1, .80 }, from = "a copy there 3.0 TB/s" },
  { name = "other", A100 = { 1, .50 }, H100 = { 1, .50 }, from = "a guess: reductions, gathers, losses" },
}
for _, class in ipairs(roofline.classes) do roofline.classes[class.name] = class end

--- The least time of a launch that has next to nothing to do, in seconds (a guess; with a captured step the launches follow each other closely).
roofline.least = 2.5e-6

local CLASS = {
  linear = "product", matmul = "product", attention = "attention", self_attention = "attention", batch_norm = "batch_norm", layer_norm = "norm",
  add_layer_norm = "norm", group_norm = "norm",
  l2_normalize = "norm", adamw = "optimiser", sgd = "optimiser", lars = "optimiser", bert_adam = "optimiser", grad_norm = "optimiser", scale_ = "optimiser",
}
-- One value out of few, where they lie: what a fusion with the neighbours would do in passing.
local ELEMENTWISE = {}
for name in ("add sub mul div relu gelu silu tanh sigmoid cast copy contiguous channels_last fill accumulate dropout drop_path masked_fill where clamp add_ mul_"):gmatch "%S+" do
  ELEMENTWISE[name] = true
end

--- The class of a launch.
function roofline.class_of(e)
  if e.op == "conv2d" or e.op == "conv_transpose2d" then
    local channels, pixels = e.shape[2] or 0, (e.shape[3] or 1) * (e.shape[4] or 1)
    if channels <= 64 and pixels >= 100 * 100 then return "conv stem" end
    return channels <= 64 and "conv narrow" or "conv"
  end
  local class = CLASS[e.op] or (ELEMENTWISE[e.op] and "element-wise") or "other"
  if class == "attention" and e.kind == "backward" then return "attention backward" end
  return class
end

--- Predicted and least seconds of a launch.
-- @return seconds as assumed, seconds at the published peaks, "compute", "memory" or "launch" (what it is bound by)
function roofline.seconds(e, gpu)
  local class = roofline.classes[roofline.class_of(e)]
  local share = class[gpu.name]
  local peak = gpu.flops[e.dtype] or gpu.flops.f32
  local compute, memory = e.flops / peak, e.bytes / gpu.bytes
  local a, b = compute / (share[e.dtype] or share[1]), memory / share[2] * (class.again and class.again[e.kind] or 1)
  local best = math.max(compute, memory)
  if math.max(a, b) < roofline.least then return roofline.least, best, "launch" end
  return math.max(a, b), best, a > b and "compute" or "memory"
end

--- The launches of one training step on `meta`: forward, backward, clipping where the workload clips, AdamW.
-- @param name a workload of spec/bench/workloads.lua, "medunic:batch=128"
-- @param dtype "f32", "bf16", "f16"
-- @return list of events (unic.profile), number of parameters
function roofline.record(name, dtype)
  local was = unic.device()
  unic.device "meta"
  local ok, events, parameters = pcall(function()
    local work = require("spec.bench.workloads").make(name)
    local list = work.model:parameters()
    local adamw = unic.optim.AdamW(list, { lr = 1e-4 })
    local count = 0
    for _, p in ipairs(list) do count = count + p:numel() end
    local function step()
      adamw:zero_grad()
      local loss = dtype == "f32" and work:loss() or unic.autocast(dtype, function() return work:loss() end)
      loss:backward()
      if work.clip then unic.optim.clip_grad_norm(list, work.clip) end
      adamw:step()
    end
    step()   -- moments are made in the first one
    return unic.profile(step).events, count
  end)
  unic.device(was)
  if not ok then error(events, 0) end
  return events, parameters
end

--- Sum the launches up.
-- @return { seconds, least, library, memory, launches, bytes, flops, rows = { by op and kind, largest first } }
function roofline.sheet(events, gpu)
  local sheet = { seconds = 0, least = 0, library = 0, memory = 0, compute = 0, launch = 0, fusable = 0, bytes = 0, flops = 0, launches = #events, rows = {} }
  for _, e in ipairs(events) do
    local class = roofline.class_of(e)
    local seconds, least, bound = roofline.seconds(e, gpu)
    local key = e.op .. (e.kind == "forward" and "" or " " .. e.kind)
    local row = sheet.rows[key]
    if not row then
      row = { name = key, class = class, calls = 0, seconds = 0, least = 0, bytes = 0, flops = 0 }
      sheet.rows[key] = row
      sheet.rows[#sheet.rows + 1] = row
    end
    for _, into in ipairs { sheet, row } do
      into.seconds, into.least = into.seconds + seconds, into.least + least
      into.bytes, into.flops = into.bytes + e.bytes, into.flops + e.flops
    end
    row.calls = row.calls + 1
    if row.class ~= class then row.class = class:match "^%S+" end   -- narrow and wide convolutions
    sheet[bound] = sheet[bound] + seconds
    if roofline.classes[class].library then sheet.library = sheet.library + seconds end
    if class == "element-wise" then sheet.fusable = sheet.fusable + seconds end
  end
  table.sort(sheet.rows, function(a, b)
    if a.seconds ~= b.seconds then return a.seconds > b.seconds end
    return a.name < b.name
  end)
  return sheet
end

return roofline
