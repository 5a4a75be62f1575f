--- What this machine could do at best: the limit that a share is a share of.
--
-- A step's limit is the time of its flops at the best rate known plus the time of its bytes at the measured bandwidth. Flops: of the products that the step
-- does (a gradient that nobody wants is none), counted by the ops themselves. Bytes: of the launches without flops, every argument read once and every result
-- written once, as fused as our ops are; what a product reads and writes overlaps its arithmetic and is not counted, neither are copies of weights
-- in other forms and values that are computed again. The rate is the larger of the FMA probe and the best that any kernel reached in the run.
local limit = {}

-- Below this a clock's grain and a cache could make a rate of anything.
local LEAST_SECONDS = 1e-3

--- What a step is made of, from the launches of one (core.watch).
-- @param events list of { op, kind, dtype, flops, bytes, seconds, made, shape }
-- @return { flops = { by dtype }, bytes =, best = { flops a second of the best launch, by dtype }, kept = bytes: one result for each product with a backward }
function limit.of_events(events)
  local work = { flops = {}, bytes = 0, best = {}, kept = 0 }
  local back = {}
  for _, e in ipairs(events) do
    if e.kind == "forward" or e.kind == "backward" then
      if e.flops > 0 then
        work.flops[e.dtype] = (work.flops[e.dtype] or 0) + e.flops
        if e.seconds >= LEAST_SECONDS then work.best[e.dtype] = math.max(work.best[e.dtype] or 0, e.flops / e.seconds) end
        if e.kind == "backward" then
          local key = e.op .. table.concat(e.shape, ",")
          back[key] = (back[key] or 0) + 1
        end
      else
        work.bytes = work.bytes + e.bytes
      end
    end
  end
  -- A backward that is not there (frozen layers) needs nothing kept; one that made its forward again has one backward for two forwards.
  for _, e in ipairs(events) do
    local key = e.kind == "forward" and e.flops > 0 and e.op .. table.concat(e.shape, ",")
    if key and (back[key] or 0) > 0 then
      back[key] = back[key] - 1
      work.kept = work.kept + e.made
    end
  end
  return work
end

--- The least seconds for a piece of work.
-- @param work { flops = number or { by dtype }, bytes = number, how = "larger" where the two may overlap (a single kernel) }
-- @param dtype of `flops` where it is a number
-- @param peaks { flops = { by dtype }, bytes = } a second
-- @return seconds; nil where there is no work to go by
function limit.seconds(work, dtype, peaks)
  local flops = type(work.flops) == "table" and work.flops or { [dtype] = work.flops or 0 }
  local compute = 0
  for type_, n in pairs(flops) do
    -- A processor without bf16 instructions does them in f32; so does it f64's, at best.
    if n > 0 then compute = compute + n / (peaks.flops[type_] or peaks.flops.f32) end
  end
  local moved = (work.bytes or 0) / peaks.bytes
  if compute == 0 and moved == 0 then return nil end
  return work.how == "larger" and math.max(compute, moved) or compute + moved
end

--- What a limit is made of, in words.
-- @return "388.8 Gflop at 524/s + 5.57 GB at 106/s"
function limit.text(work, dtype, peaks)
  local parts = {}
  local flops = type(work.flops) == "table" and work.flops or { [dtype] = work.flops or 0 }
  local types = {}
  for type_, n in pairs(flops) do
    if n > 0 then types[#types + 1] = type_ end
  end
  table.sort(types, function(a, b) return flops[a] > flops[b] end)
  for _, type_ in ipairs(types) do
    parts[#parts + 1] = ("%.4g Gflop%s at %.0f/s"):format(flops[type_] / 1e9, #types > 1 and " in " .. type_ or "", (peaks.flops[type_] or peaks.flops.f32) / 1e9)
  end
  if (work.bytes or 0) > 0 then parts[#parts + 1] = ("%.3g GB at %.0f/s"):format(work.bytes / 1e9, peaks.bytes / 1e9) end
  return table.concat(parts, work.how == "larger" and " or " or " + ")
end

return limit
