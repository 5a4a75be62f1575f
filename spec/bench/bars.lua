--- The bars: what a value must reach. One table; a change here is a visible one.
--
-- Training steps, f32 / bf16: share of the limit; ratio to the fastest form of the peers; ratio to the fastest of them as shipped. `aim`: where the work goes on
-- to. Memory: ours over PyTorch's leanest form, at full speed and under `low`.
local bars = {}

local function step(limit, fastest, shipped, aim_limit, aim_fastest)
  local by = {}
  for i, dtype in ipairs { "f32", "bf16" } do
    by[dtype] = { limit = limit[i], fastest = fastest[i], shipped = shipped[i], aim = { limit = aim_limit[i], fastest = aim_fastest[i] } }
  end
  return by
end

bars.steps = {
  resnet50 = step({ 0.72, 0.62 }, { 1.15, 1.15 }, { 1.7, 1.4 }, { 0.85, 0.80 }, { 1.4, 1.4 }),
  vit_b16 = step({ 0.80, 0.66 }, { 1.08, 1.1 }, { 1.15, 1.15 }, { 0.88, 0.80 }, { 1.2, 1.3 }),
  bert_base = step({ 0.76, 0.64 }, { 1.1, 1.15 }, { 1.3, 1.3 }, { 0.86, 0.80 }, { 1.3, 1.4 }),
  vit_l32 = step({ 0.74, 0.64 }, { 1.1, 1.15 }, { 1.3, 1.3 }, { 0.86, 0.80 }, { 1.4, 1.4 }),
  medunic = step({ 0.72, 0.62 }, { 1.15, 1.15 }, { 1.5, 1.4 }, { 0.85, 0.80 }, { 1.4, 1.4 }),
}

bars.memory = { full = 0.7, low = 0.4, low_speed = 0.8 }                 -- of the peer's memory; of our own speed at full memory
bars.growth = { per_flop = 1.10, threads = 1.7 }                         -- time per flop at the ends over that in the middle; one thread over two
bars.start = { print = 60e-3, require = 20e-3 }                          -- seconds
bars.calls = { plain = 200e-9, recorded = 350e-9, share_of_step = 0.01 } -- seconds; of a ResNet-50 b16 step
bars.data = { ratio = 2 }                                                -- against torchvision and Pillow in DataLoader workers
bars.tokenizer = { ratio = 1, aim = 3 }                                  -- against Hugging Face's tokenizers

return bars
