--- Kernels: products, ResNet-50's convolutions, normalisations, attention and the rest, each beside its limit
-- Cost: about 4 min; with --vs torch 15 min
local kernels = require "spec.bench.kernels"

-- A step is so many calls that the clock's grain and the way to the peer do not count.
local LEAST = 0.02

local function calls_for(clock, run)
  run()
  local begin = clock()
  run()
  return math.max(1, math.ceil(LEAST / math.max(clock() - begin, 1e-7)))
end

return function(bench)
  local clock = require("unic.core").edit.clock
  local peers, started = bench:peers { "eager" }, {}
  local rounds = bench.options.rounds

  local function peer_process(peer)
    started[peer.key] = started[peer.key] or bench:process({ peer.python, "-W", "ignore", "spec/bench/peer_kernels.py" }, bench:peer_env(peer))
    return started[peer.key]
  end

  -- One pass of one kernel: seconds of ours, and of each peer in turn with ours.
  local function measure(name, dtype, which, pass)
    if pass.prepare then pass.prepare() end
    local calls = bench.options.quick and 1 or calls_for(clock, pass.run)
    local function ours()
      local begin = clock()
      for _ = 1, calls do pass.run() end
      return (clock() - begin) / calls
    end
    local found = { peers = {} }
    for _, peer in ipairs(peers) do
      local theirs = peer_process(peer)
      if theirs:ask(("use %s|%s|%s|%d"):format(name, which, dtype, calls)).there then
        local times = bench:alternate({ ours, theirs }, { warm = 2 })
        found.times = found.times or times[1]
        found.peers[#found.peers + 1] = { name = peer.name, key = peer.key, shipped = true, times = times[2], ours = times[1] }
      end
    end
    found.times = found.times or bench:alternate({ ours }, { warm = 2 })[1]
    if pass.flops then bench:reached(dtype, pass.flops / bench.statistics.summary(found.times).min) end
    return found
  end

  local function row(name, dtype, which, pass)
    local title = which == "step" and name or name .. " " .. which
    if not bench:wants(title, dtype) then return end
    local found = measure(name, dtype, which, pass)
    bench:row { name = title, dtype = dtype, unit = "ms", times = found.times, peers = found.peers, work = { flops = pass.flops, bytes = pass.bytes, how = "larger" } }
  end

  for _, dtype in ipairs(bench.options.dtypes) do
    for _, name in ipairs(kernels.names) do
      local made
      for _, which in ipairs(kernels.passes) do
        local asked = bench:wants(name .. " " .. which, dtype) or (which == "step" and bench:wants(name, dtype))
        if asked then
          made = made or kernels.make(name, dtype)
          if made[which] then row(name, dtype, which, made[which]) end
        end
      end
      collectgarbage()   -- of the kernel before
    end

    -- All 53 convolutions, each as often as the net has it: seconds of a whole forward, of all data gradients (the first layer's is not asked for), of
    -- all weights' gradients.
    for _, which in ipairs { "forward", "data", "weights" } do
      local title = "ResNet-50 b16 convolutions " .. which
      if bench:wants(title, dtype) then
        local batch = bench.options.quick and 2 or 16
        local sum, flops, theirs = {}, 0, {}
        for i = 1, rounds do sum[i] = 0 end
        for at, layer in ipairs(kernels.resnet50) do
          if not (which == "data" and at == 1) then
            local i, o, k, stride, side, count = unpack(layer)
            local name = ("conv %d %d %d %d %d %d"):format(batch, i, o, k, stride, side)
            local pass = kernels.make(name, dtype)[which]
            local found = measure(name, dtype, which, pass)
            flops = flops + count * pass.flops
            for r = 1, rounds do sum[r] = sum[r] + count * found.times[r] end
            for p, peer in ipairs(found.peers) do
              theirs[p] = theirs[p] or { name = peer.name, key = peer.key, shipped = true, times = {}, ours = {} }
              for r = 1, rounds do
                theirs[p].times[r] = (theirs[p].times[r] or 0) + count * peer.times[r]
                theirs[p].ours[r] = (theirs[p].ours[r] or 0) + count * peer.ours[r]
              end
            end
            bench:say("%-40s %8.3f ms x %d, %4.0f GFLOP/s", name, 1e3 * bench.statistics.median(found.times), count, 1e-9 * pass.flops / bench.statistics.median(found.times))
            collectgarbage()
          end
        end
        bench:row { name = title, dtype = dtype, unit = "ms", times = sum, peers = theirs, work = { flops = flops }, note = "each layer by itself, times how often it is there" }
      end
    end
  end
  for _, process in pairs(started) do process:close() end
end
