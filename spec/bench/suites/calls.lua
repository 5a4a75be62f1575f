--- Op calls: one element through the door, without a tape and recorded, and what of a ResNet-50 step is not a kernel
-- Cost: about 30 s
local bars = require "spec.bench.bars"

-- A loop as a recipe has it: what each call makes is dropped, so collections are in it.
local function loops()
  local unic = require "unic"
  local x, y, p = unic.randn(1), unic.randn(1), unic.randn(1, { requires_grad = true })
  return {
    { "x:add(y)", "plain", function(n) for _ = 1, n do local _ = x:add(y) end end },
    { "x:mul(2)", "plain", function(n) for _ = 1, n do local _ = x:mul(2) end end },
    { "x:relu()", "plain", function(n) for _ = 1, n do local _ = x:relu() end end },
    { "x:reshape(1, 1)", "plain", function(n) for _ = 1, n do local _ = x:reshape(1, 1) end end },
    { "x:add_(y)", "plain", function(n) for _ = 1, n do x:add_(y) end end },
    { "p:add(y)", "recorded", function(n) for _ = 1, n do local _ = p:add(y) end end },
    { "p:mul(y)", "recorded", function(n) for _ = 1, n do local _ = p:mul(y) end end },
    { "p:relu()", "recorded", function(n) for _ = 1, n do local _ = p:relu() end end },
  }
end

-- The share of a training step in which no kernel runs: the profiler's clock is around each launch, the rest is door, dispatch, tape and Lua.
local function share_of_step(bench)
  local unic = require "unic"
  local losses, optim = require "unic.losses", require "unic.optim"
  local quick = bench.options.quick
  local batch, size = quick and 2 or 16, quick and 64 or 224
  local model = require("unic.models.resnet").resnet50 { classes = 1000 }
  local adamw = optim.AdamW(model:parameters(), { lr = 1e-4 })
  local images, labels = unic.randn(batch, 3, size, size), unic.randint(0, 1000, { batch })
  local function step()
    adamw:zero_grad()
    losses.cross_entropy(model(images), labels):backward()
    adamw:step()
  end
  local clock = require("unic.core").edit.clock
  for _ = 1, 3 do step() end
  local shares = {}
  for i = 1, bench.options.rounds do
    local begin = clock()
    local report = unic.profile(step)
    local seconds, kernels = clock() - begin, 0
    for _, event in ipairs(report.events) do kernels = kernels + event.seconds end
    shares[i] = (seconds - kernels) / seconds
  end
  return shares
end

return function(bench)
  local calls = bench.options.quick and 2000 or 200000
  local list = loops()
  for _, loop in ipairs(list) do
    local name, kind, run = loop[1], loop[2], loop[3]
    if bench:wants(name) then
      local times = bench.statistics.time(function() run(calls) end, { rounds = bench.options.rounds })
      for i, seconds in ipairs(times) do times[i] = seconds / calls end
      local bar = { name = ("calls.%s_%s_ns"):format(kind, name:match ":([%w_]+)"), value = 1e9 * bench.statistics.median(times), at_most = 1e9 * bars.calls[kind] }
      bench:row { name = name, unit = "ns", times = times, note = kind == "recorded" and "recorded on the tape" or nil, bars = not bench.options.quick and { bar } or nil }
    end
  end
  if bench:wants "share of a ResNet-50 step" then
    local value = bench.statistics.median(share_of_step(bench))
    bench:row { name = "share of a ResNet-50 step", unit = "%", value = 100 * value, note = "no kernel runs: door, dispatch, tape, Lua; one step under the profiler",
      bars = not bench.options.quick and { { name = "calls.share_of_step", value = value, at_most = bars.calls.share_of_step } } or nil }
  end
end
