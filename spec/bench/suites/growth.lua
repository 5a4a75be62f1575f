--- Growth: time per flop of a training step from small to large batches, sequences and pictures; one thread against all
-- Cost: about 17 min
local bars = require "spec.bench.bars"
local sides = require "spec.bench.sides"

-- The middle of each range is what the ends are measured against, in turn. Batches of the pictures' sizes are smaller: at 512 they must fit beside the middle.
local RANGES = {
  { title = "resnet50 batch", workload = "resnet50:batch=%d", sizes = { 4, 8, 16, 32, 64 }, middle = 16, quick = { { 1, 2, 4 }, 2, ",size=64" } },
  { title = "bert_base length", workload = "bert_base:batch=8,length=%d", sizes = { 64, 128, 256, 512 }, middle = 128, quick = { { 8, 16 }, 16, "" } },
  { title = "vit_b16 side", workload = "vit_b16:batch=4,size=%d", sizes = { 128, 224, 384, 512 }, middle = 224, quick = { { 32, 64 }, 64, "" } },
  { title = "resnet50 side", workload = "resnet50:batch=8,size=%d", sizes = { 128, 224, 384, 512 }, middle = 224, quick = { { 32, 64 }, 64, "" } },
}
local THREADS = { "resnet50", "vit_b16", "bert_base" }

local function flops_of(side)
  local sum = 0
  for _, flops in pairs(side:ask("work").flops) do sum = sum + flops end
  return sum
end

local function start(bench, workload, dtype, threads)
  local side = sides.ours(bench, { workload = workload, dtype = dtype, threads = threads }, "work")
  sides.warm(side)
  return side
end

-- A range: the size in the middle stays, each other one takes steps in turn with it.
local function range(bench, r, dtype)
  local quick = bench.options.quick
  local sizes, middle = quick and r.quick[1] or r.sizes, quick and r.quick[2] or r.middle
  local pattern = r.workload .. (quick and r.quick[3] or "")
  local reference, reference_flops
  for _, size in ipairs(sizes) do
    local name = ("%s %d"):format(r.title, size)
    if size ~= middle and bench:wants(name, dtype) then
      if not reference then
        reference = start(bench, pattern:format(middle), dtype)
        reference_flops = flops_of(reference)
      end
      local side = start(bench, pattern:format(size), dtype)
      local flops = flops_of(side)
      local times = bench:alternate { reference, side }
      side:close()
      local per_flop = bench.statistics.ratio(times[2], times[1]).median * reference_flops / flops
      local row = { name = name, dtype = dtype, unit = "ms", times = times[2],
        note = ("%.3f times the time per flop of %s %d (%.1f Gflop in %.1f ms)"):format(per_flop, r.title, middle, reference_flops / 1e9,
          1e3 * bench.statistics.median(times[1])) }
      if not quick then
        row.bars = { { name = ("growth.%s_%s_per_flop"):format(name:gsub(" ", "_"), dtype), value = per_flop, at_most = bars.growth.per_flop } }
      end
      bench:row(row)
    end
  end
  if reference then reference:close() end
end

local function threads(bench, name, dtype)
  local title, all = name .. " threads", bench.options.threads
  if all < 2 or not bench:wants(title, dtype) then return end
  local workload = bench.options.quick and name .. ":batch=1" or name
  local one, two = start(bench, workload, dtype, 1), start(bench, workload, dtype, 2)
  local times = bench:alternate { two, one }
  one:close()
  two:close()
  local ratio = bench.statistics.ratio(times[2], times[1])
  local row = { name = title, dtype = dtype, unit = "x", value = ratio.median, note = ("one thread over two: pairs %.2f to %.2f"):format(ratio.low, ratio.high) }
  if not bench.options.quick then
    row.bars = { { name = ("growth.%s_%s_threads"):format(name, dtype), value = ratio.median, at_least = bars.growth.threads } }
  end
  bench:row(row)
end

return function(bench)
  for _, dtype in ipairs(bench.options.dtypes) do
    for _, r in ipairs(RANGES) do range(bench, r, dtype) end
    for _, name in ipairs(THREADS) do threads(bench, name, dtype) end
  end
end
