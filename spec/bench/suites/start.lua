--- Start-up: the launcher with its look for a stale build, and `require "unic"`
-- Cost: about 10 s
local bars = require "spec.bench.bars"

local function quote(word) return "'" .. word:gsub("'", "'\\''") .. "'" end

return function(bench)
  local clock = require("unic.core").edit.clock
  local rounds = math.max(bench.options.rounds, bench.options.quick and 3 or 15)

  -- Seconds of a command, from the fork to its end. The first one reads files that may not be in memory yet.
  local function seconds_of(command)
    local times = {}
    for i = 0, rounds do
      local begin = clock()
      local code = os.execute(command .. " >/dev/null")
      local seconds = clock() - begin
      if code ~= 0 then error("bench: " .. command .. " ended with " .. tostring(code), 0) end
      if i > 0 then times[i] = seconds end
    end
    return times
  end

  local function row(name, times, bar, note)
    local median = bench.statistics.median(times)
    bench:row { name = name, unit = "ms", times = times, note = note,
      bars = bar and not bench.options.quick and { { name = "start." .. name .. "_ms", value = 1e3 * median, at_most = 1e3 * bar } } or nil }
  end

  if bench:wants "print" then row("print", seconds_of "./unic -e 'print(1)'", bars.start.print, "./unic -e 'print(1)', nothing stale") end

  -- The clock is read inside the process: the start of luajit itself is not the library's.
  if bench:wants "require" then
    local times = {}
    local code = [[
      local ffi = require "ffi"
      ffi.cdef "typedef struct { long s, ns; } bench_time; int clock_gettime(int, bench_time *);"
      local a, b = ffi.new "bench_time", ffi.new "bench_time"
      ffi.C.clock_gettime(1, a)
      require "unic"
      ffi.C.clock_gettime(1, b)
      print(tonumber(b.s - a.s) + 1e-9 * tonumber(b.ns - a.ns))]]
    for i = 0, rounds do
      local pipe = assert(io.popen("luajit -e " .. quote(code)))
      local seconds = tonumber(pipe:read "*a")
      pipe:close()
      if i > 0 then times[i] = seconds end
    end
    row("require", times, bars.start.require, 'require "unic" in a fresh luajit')
  end

  if bench:wants "luajit" then row("luajit", seconds_of "luajit -e 'print(1)'", nil, "luajit alone, the floor of the two") end
end
