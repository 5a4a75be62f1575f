--- The profiler: every launch of an op with its time, beside what the machine can do.
-- @module unic.profile
local cjson = require "cjson"
local arguments = require "unic.arguments"
local core = require "unic.core"
local files = require "unic.files"
local module = require "unic.nn.module"
local tensor = require "unic.tensor"

local ops, make = core.ops.call, tensor.exports
local profile = {}

local Report = {}
Report.__index = Report

local function clock() return core.edit.clock() end

---------------------------------------------------------------------------------------------------------------------- what can be had

local peaks = {}   -- by number of threads: {flops, bytes} a second

local function best_of(times, fn)
  local best = math.huge
  for _ = 1, times do
    local start = clock()
    fn()
    best = math.min(best, clock() - start)
  end
  return best
end

--- What this machine's processor does at best with the present number of threads: a large f32 matrix product and a sum of long vectors, measured once.
-- @return {flops =, bytes =} a second
function profile.peak()
  local threads = core.threads()
  if not peaks[threads] then
    peaks[threads] = core.tensor.scope(function()
      return tensor.with(core.grad_mode, false, tensor.with, core.autocast, "f32", function()
        local n = 1024
        local a, b = make.full({ n, n }, .5, { device = "cpu" }), make.full({ n, n }, .5, { device = "cpu" })
        local x, y = make.full({ 2 ^ 23 }, 1, { device = "cpu" }), make.full({ 2 ^ 23 }, 1, { device = "cpu" })
        ops.matmul(a, b)
        local product = best_of(5, function() ops.matmul(a, b):free() end)
        local sum = best_of(5, function() ops.add(x, y):free() end)
        return { flops = 2 * n ^ 3 / product, bytes = 3 * 4 * 2 ^ 23 / sum }
      end)
    end)
  end
  return peaks[threads]
end

------------------------------------------------------------------------------------------------------------------------- the report

local function shape_text(event) return ("%s [%s]"):format(event.dtype, table.concat(event.shape, ", ")) end

local KINDS = { forward = "", backward = " backward", form = " (form of a weight)", again = " (again)" }
local NAMES = {
  op = function(event) return event.op .. KINDS[event.kind] end,
  line = function(event) return event.line or "(no line)" end,
  module = function(event) return event.module > 0 and module.name_of(event.module) or "(outside modules)" end,
  shape = function(event) return event.op .. KINDS[event.kind] .. " " .. shape_text(event) end,
}

local function rows_of(report, by)
  local rows, known = {}, {}
  local name_of, peak = NAMES[by], report.peak
  for _, event in ipairs(report.events) do
    local name = name_of(event)
    local row = known[name]
    if not row then
      row = { name = name, calls = 0, seconds = 0, flops = 0, bytes = 0, least = 0 }
      known[name] = row
      rows[#rows + 1] = row
    end
    row.calls, row.seconds = row.calls + 1, row.seconds + event.seconds
    row.flops, row.bytes = row.flops + event.flops, row.bytes + event.bytes
    row.least = row.least + math.max(event.flops / peak.flops, event.bytes / peak.bytes)
  end
  table.sort(rows, function(a, b)
    if a.seconds ~= b.seconds then return a.seconds > b.seconds end
    return a.name < b.name
  end)
  return rows
end

--- The report as a table of text.
-- @param by "op", "line", "module" or "shape"
-- @param most rows (30)
-- @return a string
function Report:table(by, most)
  by = arguments.default("report.table", "by", by, { "choice", "op", "line", "module", "shape" }, self.by)
  local rows = by == self.by and self.rows or rows_of(self, by)
  local width, shown = 12, math.min(#rows, most or 30)
  for i = 1, shown do width = math.max(width, math.min(#rows[i].name, 60)) end
  local lines = { ("%-" .. width .. "s %8s %10s %6s %9s %8s %7s"):format(by, "calls", "ms", "share", "GFLOP/s", "GB/s", "of peak") }
  local inside, calls = 0, 0
  for i, row in ipairs(rows) do
    inside, calls = inside + row.seconds, calls + row.calls
    if i <= shown then
      local rate = row.flops > 0 and ("%9.1f"):format(row.flops / row.seconds / 1e9) or ("%9s"):format ""
      lines[#lines + 1] = ("%-" .. width .. "s %8d %10.2f %5.1f%% %s %8.1f %6.0f%%"):format(row.name:sub(-60), row.calls, row.seconds * 1e3,
        100 * row.seconds / self.seconds, rate, row.bytes / row.seconds / 1e9, 100 * row.least / row.seconds)
    end
  end
  if #rows > shown then lines[#lines + 1] = ("... and %d more"):format(#rows - shown) end
  local rest = "%-" .. width .. "s %8s %10.2f %5.1f%%"
  lines[#lines + 1] = rest:format("ops together", calls, inside * 1e3, 100 * inside / self.seconds)
  lines[#lines + 1] = rest:format("Lua, dispatch", "", (self.seconds - inside) * 1e3, 100 * (self.seconds - inside) / self.seconds)
  lines[#lines + 1] = ("peak, measured on %d threads: %.0f GFLOP/s (f32 matrix product), %.1f GB/s (sum of long vectors; more is a cache)"):format(self.threads,
    self.peak.flops / 1e9, self.peak.bytes / 1e9)
  return table.concat(lines, "\n")
end

Report.__tostring = function(self) return self:table() end

--- Write the launches as a trace for chrome://tracing or Perfetto.
-- @param path the file
function Report:write_trace(path)
  local output = files.output(path)
  output:write '{"displayTimeUnit": "ms", "traceEvents": [\n'
  output:write '{"ph": "M", "pid": 1, "name": "process_name", "args": {"name": "unic"}}'
  for _, event in ipairs(self.events) do
    output:write(",\n", cjson.encode {
      ph = "X", pid = 1, tid = 1, name = NAMES.op(event), cat = event.kind, ts = event.begin * 1e6, dur = event.seconds * 1e6,
      args = { shape = shape_text(event), line = event.line or "", module = module.name_of(event.module),
        gflops = event.flops / event.seconds / 1e9, gbytes = event.bytes / event.seconds / 1e9 },
    })
  end
  output:write "\n]}\n"
  output:commit()
end

local function finish(report, options, ok, ...)
  report.seconds = clock() - report.start
  report.events = core.watch.profile_stop()
  module.watch("profile", false)
  if not ok then error((...), 0) end
  report.rows = rows_of(report, report.by)
  if options.trace then report:write_trace(options.trace) end
  return report, ...
end

--- Run fn and note every launch.
-- @param fn a function
-- @param options `by`, `trace`
-- @return a report, then what fn returned
function profile.profile(fn, options)
  arguments.check("profile", "fn", fn, "callable")
  options = arguments.options("profile", options, { by = { "choice", "op", "line", "module", "shape" }, trace = "string" })
  local report = setmetatable({ by = options.by or "op", threads = core.threads(), peak = profile.peak() }, Report)
  module.watch("profile", true)
  report.start = clock()
  core.watch.profile_start()
  return finish(report, options, pcall(fn))
end

return profile
