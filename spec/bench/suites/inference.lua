--- Inference: forward passes of ResNet-50, ViT-B/16, ViT-L/32 and BERT-base, in batches and one by one
-- Cost: about 2 min; with --vs torch about 20 min
local sides = require "spec.bench.sides"

local SIZES = {
  { "resnet50", { 16, 1 }, "size=224" }, { "vit_b16", { 8, 1 }, "size=224" }, { "vit_l32", { 8, 1 } }, { "bert_base", { 8, 1 }, "length=128" },
}

return function(bench)
  for _, item in ipairs(SIZES) do
    local name, batches, size = unpack(item)
    for _, batch in ipairs(bench.options.quick and { 1 } or batches) do
      local workload = ("%s:batch=%d%s"):format(name, batch, size and "," .. size or "")
      local file
      for _, dtype in ipairs { "f32", "bf16" } do
        local title = ("%s b%d"):format(name, batch)
        local kept = bench:kept(title, dtype)
        local peers = bench:chosen(title, dtype) and bench:lacking(kept) or {}
        if bench:wants(title, dtype) or #peers > 0 then
          if #peers > 0 then file = file or sides.state(bench, workload) end
          bench:row(sides.compare(bench, { name = title, workload = workload, dtype = dtype, file = file, peers = peers, kept = kept, mode = "infer" }))
        end
      end
      if file then os.remove(file) end
    end
  end
end
