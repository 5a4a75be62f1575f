--- Training steps: ResNet-50 b16, ViT-B/16 b8, BERT-base s128 b8, ViT-L/32 b8, Med-UniC b8; time, share of the limit, memory
-- Cost: about 6 min; with --vs torch about 60 min, in parts by --only, --dtype and --forms with --resume
local bars = require "spec.bench.bars"
local sides = require "spec.bench.sides"

local NAMES = { "resnet50", "vit_b16", "bert_base", "vit_l32", "medunic" }
-- Batches of two would leave batch norm so few numbers that correct programs differ.
local QUICK = {
  resnet50 = "resnet50:batch=8,size=64", vit_b16 = "vit_b16:batch=1,size=32", bert_base = "bert_base:batch=1,length=16", vit_l32 = "vit_l32:batch=1",
  medunic = "medunic:batch=8,length=16,size=64",
}

-- What must be reached, from what was measured.
local function bars_of(name, dtype, row)
  local must = bars.steps[name][dtype]
  local prefix = ("steps.%s_%s_"):format(name, dtype)
  local fastest, shipped
  for _, peer in ipairs(row.peers) do
    if not peer.refused then
      fastest = math.min(fastest or math.huge, peer.ratio.median)
      if peer.shipped then shipped = math.min(shipped or math.huge, peer.ratio.median) end
    end
  end
  local list = { { name = prefix .. "limit", value = row.share, at_least = must.limit, aim = must.aim.limit } }
  local function add(bar, value, more)
    more.name, more.value = prefix .. bar, value
    list[#list + 1] = more
  end
  local m = row.memory
  add("low_speed", m.low_speed, { at_least = bars.memory.low_speed })
  -- Without a peer there is nothing to say about peers; with one that was refused, the bar is not met.
  if #row.peers > 0 then
    add("fastest", fastest, { at_least = must.fastest, aim = must.aim.fastest })
    add("shipped", shipped, { at_least = must.shipped })
    add("memory", m.leanest and m.full / m.leanest, { at_most = bars.memory.full })
    add("memory_low", m.leanest and m.low and m.low / m.leanest, { at_most = bars.memory.low })
  end
  return list
end

return function(bench)
  for _, name in ipairs(NAMES) do
    local workload = bench.options.quick and QUICK[name] or name
    local file
    for _, dtype in ipairs { "f32", "bf16" } do
      local kept = bench:kept(name, dtype)
      local peers = bench:chosen(name, dtype) and bench:lacking(kept) or {}
      if bench:wants(name, dtype) or #peers > 0 then
        if #peers > 0 then file = file or sides.state(bench, workload) end
        local row = sides.compare(bench, {
          name = name, workload = workload, dtype = dtype, file = file, peers = peers, kept = kept, mode = "work", memory = true, low = true,
        })
        bench:judge(row)
        -- Sizes of --quick have bars of nothing.
        if not bench.options.quick then row.bars = bars_of(name, dtype, row) end
        bench:row(row)
      end
    end
    if file then os.remove(file) end
  end
end
