--- From a file of weights into a model: who goes where, what is missing, what is left over; see unic.weights.load.
-- A plan is made from headers alone, and refused before any value is touched; then every tensor is read straight into its place.
--
-- A model can help with a tensor of another shape (position embeddings of another grid): a class that has the method
--   function Class:adapt(name, t) return t2 end
-- is asked for its own tensor `name` ("pos_embed") with the file's tensor t; it returns one of the right shape, or nil where it cannot help.
-- @module unic.weights.load
local arguments = require "unic.arguments"
local core = require "unic.core"
local module = require "unic.nn.module"
local names = require "unic.weights.names"
local open = require "unic.weights.file".open
local tensor = require "unic.tensor"

local fail = arguments.fail
local load = {}

local MODEL = { text = "a module", test = module.is_module }
local OPTIONS = {
  map = { text = "a name, a function or a table", test = function(m) return type(m) == "string" or type(m) == "function" or type(m) == "table" end },
  prefix = "string", strict = "boolean", quiet = "boolean", ignore = "table", missing = "table", left_over = "table",
}
local FLOATS = { F32 = true, F64 = true, F16 = true, BF16 = true, f32 = true, f64 = true, f16 = true, bf16 = true }
local SAME = { F32 = "f32", F64 = "f64", F16 = "f16", BF16 = "bf16", I64 = "i64", I32 = "i32", U8 = "u8", BOOL = "bool" }
local COUNTER = "num_batches_tracked$"   -- counts steps, and is in no file of old; its absence changes nothing

---------------------------------------------------------------------------------------------------------------------------- the report

local Report = {}
Report.__index = Report
Report.__name = "unic.weights.report"

local function sentence(list)
  if #list <= 8 then return table.concat(list, ", ") end
  return table.concat(list, ", ", 1, 8) .. (", ... (%d in all)"):format(#list)
end

function Report.__tostring(self)
  local out = { ("%s (%s%s): %d of %d tensors matched, map %s%s"):format(self.path, self.kind, #self.files > 1 and (", %d files"):format(#self.files) or "",
    self.matched, self.total, self.map, self.unverified and ", unverified" or "") }
  local function say(...) out[#out + 1] = "  " .. (...):format(select(2, ...)) end
  if self.unverified then say("unverified: this map was never tried on a real file from %s", self.source) end
  if type(self.verified) == "string" then say("this map was tried on %s", self.verified) end
  if #self.missing > 0 then say("missing: %s", sentence(self.missing)) end
  if #self.mismatched > 0 then say("of another shape or type: %s", sentence(self.mismatched)) end
  if #self.left_over > 0 then say("left over: %s", sentence(self.left_over)) end
  if #self.expected > 0 then say("left over, as expected (%s): %s", self.words or "allowed", sentence(self.expected)) end
  if #self.ignored > 0 then say("ignored, as asked: %s", sentence(self.ignored)) end
  if #self.adapted > 0 then say("fitted to another shape: %s", sentence(self.adapted)) end
  if self.converted > 0 then say("converted: %d tensors to the model's dtype", self.converted) end
  if self.counters > 0 then say("without num_batches_tracked, on one side: %d norms (harmless)", self.counters) end
  return table.concat(out, "\n")
end

---------------------------------------------------------------------------------------------------------------------------- the plan

local function shape_text(shape) return "[" .. table.concat(shape, ", ") .. "]" end

local function same_shape(a, b)
  if #a ~= #b then return false end
  for d = 1, #a do
    if a[d] ~= b[d] then return false end
  end
  return true
end

-- Where values can go: one slot per tensor, under all names it has in the model.
local function slots_of(model)
  local list, by_name, by_value = {}, {}, {}
  for _, entry in ipairs(model:named_state()) do
    local slot = by_value[entry.value]
    if not slot then
      slot = { name = entry.name, value = entry.value, shape = entry.value.shape, owner = entry.owner, key = entry.key, places = {} }
      list[#list + 1], by_value[entry.value] = slot, slot
    end
    slot.places[#slot.places + 1] = entry
    by_name[entry.name] = slot
  end
  return list, by_name
end

-- The file's tensors that are looked at: those under the prefix, and not ignored.
local function theirs_of(file, options, ignored)
  local list, prefix = {}, options.prefix or ""
  for _, full in ipairs(file.list) do
    if full:sub(1, #prefix) == prefix then
      local name = full:sub(#prefix + 1)
      if names.fits(options.ignore, name) then ignored[#ignored + 1] = name else list[#list + 1] = { name = name, full = full } end
    end
  end
  return list
end

-- What a map makes of these names: sources (slot -> entry of the file), what is left over, what is unexplained among it.
local function assign(map, slots, theirs)
  local plan = { source = {}, left_over = {}, expected = {}, counters = 0, count = 0, twice = nil }
  for _, entry in ipairs(theirs) do
    local name, slot, ours = names.rewritten(map, entry.name), nil, nil
    for candidate in names.candidates(map, name) do
      if type(candidate) ~= "string" then fail("weights.load", "option 'map': it made %s of '%s', expected a name or nil", arguments.describe(candidate), name) end
      slot, ours = slots.by_name[candidate], candidate
      if slot then break end
    end
    if not slot then
      if name:find(COUNTER) then
        plan.counters = plan.counters + 1
      else
        local list = names.fits(map.left_over, name) and plan.expected or plan.left_over
        list[#list + 1] = entry.name
      end
    elseif not plan.source[slot] then
      plan.source[slot] = { entry = entry, ours = ours }
      plan.count = plan.count + 1
    elseif plan.source[slot].ours == ours then   -- under another of its names it is the same tensor again
      plan.twice = plan.twice or { plan.source[slot].entry.name, entry.name, ours }
    end
  end
  return plan
end

local function same_plan(a, b)
  for slot, source in pairs(a.source) do
    if not b.source[slot] or b.source[slot].entry ~= source.entry then return false end
  end
  return a.count == b.count
end

-- The map that names most of the model's tensors; among those that name the same ones, the one that explains most of the rest, then the one whose signs
-- the file bears.
local function choose(file, model, slots, theirs)
  local best, rivals, tried, all = nil, {}, {}, {}
  for i, entry in ipairs(theirs) do all[i] = entry.name end
  local function looks(map) return names.looks_like(map, all) end
  for order, name in ipairs(names.list()) do
    local map = names.get("weights.load", name)
    -- Others' files begin their names with `model.` too: only our own checkpoints are taken for such.
    local meant = name ~= "checkpoint" or file.kind == "checkpoint" or file.kind == "run"
    local plan = assign(map, slots, meant and theirs or {})
    local one = { name = name, map = map, plan = plan, order = order }
    if plan.count > 0 then tried[#tried + 1] = one end
    if not best or plan.count > best.plan.count then
      best, rivals = one, {}
    elseif plan.count == best.plan.count and plan.count > 0 then
      if not same_plan(plan, best.plan) then
        rivals[#rivals + 1] = one
      elseif #plan.left_over < #best.plan.left_over or #plan.left_over == #best.plan.left_over and best.name ~= "same" and looks(map) and not looks(best.map) then
        best = one
      end
    end
  end
  local function listed(list)
    local words = {}
    for i, one in ipairs(list) do words[i] = ("%s (%d of %d)"):format(one.name, one.plan.count, #slots.list) end
    return table.concat(words, ", ")
  end
  if best.plan.count == 0 then
    fail("weights.load", "'%s': no name in it is one of the %s's by any map; it has %s; the model has %s", file.path, model._name,
      sentence(file:names()), sentence(model:state_names()))
  end
  if #rivals > 0 then
    table.insert(rivals, 1, best)
    fail("weights.load", "'%s': these maps fit the %s equally well and differ: %s; choose one with the option map", file.path, model._name, listed(rivals))
  end
  if 2 * best.plan.count < #slots.list then
    table.sort(tried, function(a, b) return a.plan.count ~= b.plan.count and a.plan.count > b.plan.count or a.plan.count == b.plan.count and a.order < b.order end)
    best.few = "; maps that name some: " .. listed(tried)
  end
  return best
end

local function pick(file, model, slots, theirs, wanted)
  if wanted == nil or wanted == "auto" then return choose(file, model, slots, theirs) end
  local map = type(wanted) == "string" and names.get("weights.load", wanted) or names.own("weights.load", wanted)
  return { name = type(wanted) == "string" and wanted or "the caller's", map = map, plan = assign(map, slots, theirs) }
end

-- Sort every slot: to be read, to be adapted, missing, of another shape.
local function sort(file, slots, chosen, options, report)
  local jobs = {}
  for _, slot in ipairs(slots.list) do
    local source = chosen.plan.source[slot]
    if names.fits(options.ignore, slot.name) then
      report.ignored[#report.ignored + 1] = slot.name
      slot.kept = true
    elseif not source then
      slot.kept = true
      if slot.name:find(COUNTER) then
        report.counters = report.counters + 1
        slot.counter = true
      else
        report.missing[#report.missing + 1] = slot.name
      end
    else
      local info = file:info(source.entry.full)
      local job = { slot = slot, name = source.entry.full, info = info }
      local dtype = slot.value.dtype
      if same_shape(info.shape, slot.shape) then
        if SAME[info.dtype] ~= dtype then
          if FLOATS[info.dtype] and FLOATS[dtype] then
            report.converted = report.converted + 1
          else
            job.wrong = ("%s is %s here and %s there"):format(slot.name, dtype, info.dtype)
          end
        end
      elseif slot.owner.adapt and SAME[info.dtype] then
        job.adapt = true
      else
        job.wrong = ("%s is %s here and %s there"):format(slot.name, shape_text(slot.shape), shape_text(info.shape))
      end
      if job.wrong then
        report.mismatched[#report.mismatched + 1] = job.wrong
        slot.kept = true
      else
        jobs[#jobs + 1] = job
      end
    end
  end
  return jobs
end

-- What a model's own `adapt` makes of a tensor of another shape; before anything is written, as it may not be able to.
local function adapt(file, jobs, report)
  local kept = {}
  for _, job in ipairs(jobs) do
    local slot = job.slot
    if job.adapt then
      local given = file:tensor(job.name, slot.value.device ~= "meta" and slot.value.device or "cpu")
      local made = tensor.with(core.grad_mode, false, slot.owner.adapt, slot.owner, slot.key, given)
      local fits = core.tensor.is_tensor(made) and same_shape(made.shape, slot.shape)
      local words = ("%s is %s here and %s there"):format(slot.name, shape_text(slot.shape), shape_text(job.info.shape))
      if fits then
        job.made = made
        report.adapted[#report.adapted + 1] = words
        kept[#kept + 1] = job
      else
        report.mismatched[#report.mismatched + 1] = words
        slot.kept = true
      end
    else
      kept[#kept + 1] = job
    end
  end
  return kept
end

local function check_list(options, name)
  if options[name] then arguments.list("weights.load", name, options[name], "string", "a list of patterns") end
end

-- Everything but the reading: the file, the jobs, the report; raises where something does not fit and was not allowed to.
local function plan(model, file, options)
  local list, by_name = slots_of(model)
  local slots = { list = list, by_name = by_name }
  local report = setmetatable({
    path = file.path, kind = file.kind, files = file.files, total = #list, matched = 0, missing = {}, mismatched = {}, left_over = {}, expected = {}, ignored = {},
    adapted = {}, converted = 0, counters = 0,
  }, Report)
  local theirs = theirs_of(file, options, report.ignored)
  if #theirs == 0 then
    fail("weights.load", "'%s': has no tensor%s; it has %s", file.path, options.prefix and (" whose name begins with '%s'"):format(options.prefix) or "",
      #file.list > 0 and sentence(file:names()) or "none at all")
  end
  local chosen = pick(file, model, slots, theirs, options.map)
  local twice = chosen.plan.twice
  if twice then fail("weights.load", "'%s': '%s' and '%s' are both for '%s' by the map %s", file.path, twice[1], twice[2], twice[3], chosen.name) end
  report.map, report.source, report.verified, report.words = chosen.name, chosen.map.source, chosen.map.verified, chosen.map.words
  report.unverified = not chosen.map.verified
  report.left_over, report.expected = chosen.plan.left_over, chosen.plan.expected
  report.counters = chosen.plan.counters
  local jobs = adapt(file, sort(file, slots, chosen, options, report), report)
  report.matched = #jobs

  if options.strict ~= false then
    local function refused(all, allowed)
      local rest = {}
      for _, each in ipairs(all) do
        if not names.fits(allowed, (each:match "^(%S+) is " or each)) then rest[#rest + 1] = each end
      end
      return rest
    end
    local missing, mismatched = refused(report.missing, options.missing), refused(report.mismatched, options.missing)
    local left_over = refused(report.left_over, options.left_over)
    local parts = {}
    if #missing > 0 then parts[#parts + 1] = "missing: " .. sentence(missing) end
    if #mismatched > 0 then parts[#parts + 1] = "of another shape or type: " .. sentence(mismatched) end
    if #left_over > 0 then parts[#parts + 1] = "left over: " .. sentence(left_over) end
    if #parts > 0 then
      fail("weights.load", "'%s': %d of the %s's %d tensors match by the map %s; %s%s", file.path, #jobs, model._name, #list, chosen.name,
        table.concat(parts, "; "), chosen.few or "")
    end
  end
  if #jobs == 0 then fail("weights.load", "'%s': none of the %s's %d tensors is in it by the map %s", file.path, model._name, #list, chosen.name) end
  return jobs, report, list
end

local function read(file, jobs)
  tensor.with(core.grad_mode, false, function()
    for _, job in ipairs(jobs) do
      if job.made then job.slot.value:copy_(job.made) else file.where[job.name]:read(job.name, job.slot.value) end
    end
  end)
end

local function opened(what)
  if type(what) == "table" and getmetatable(what) and getmetatable(what).__name == "unic.weights.file" then return what, false end
  return open(what), true
end

local function check_options(options)
  options = arguments.options("weights.load", options, OPTIONS)
  check_list(options, "ignore")
  check_list(options, "missing")
  check_list(options, "left_over")
  return options
end

local function say(report, options)
  local testing = package.loaded["unic.testing"]
  if not options.quiet and not (testing and testing.quiet) then io.stderr:write(tostring(report), "\n") end
end

-- Close what was opened here, also after an error.
local function closing(file, mine, ok, ...)
  if mine then file:close() end
  if not ok then error((...), 0) end
  return ...
end

--- See unic.weights.load.
function load.load(model, path, options)
  arguments.check("weights.load", "model", model, MODEL)
  options = check_options(options)
  local file, mine = opened(path)
  return closing(file, mine, pcall(function()
    local jobs, report = plan(model, file, options)
    read(file, jobs)
    say(report, options)
    return report
  end))
end

---------------------------------------------------------------------------------------------------------------------------- building

-- Memory for a model that was made on `meta`, where it has shapes only. Nothing is filled in.
local function materialise(slots, device)
  for _, slot in ipairs(slots) do
    local old = slot.value
    local new = tensor.exports.empty(old.shape, { dtype = old.dtype, device = device })
    if old.requires_grad then module.Parameter(new) else new:set_keep(true) end
    if slot.counter then new:fill_(0) end
    slot.value = new
    for _, place in ipairs(slot.places) do rawset(place.owner, place.key, new) end
  end
end

-- Tensors of a module that are neither parameters nor buffers (constants it made for itself) have values that no file knows.
local function has_constants(model)
  local all = { model }
  for _, entry in ipairs(model:named_modules()) do all[#all + 1] = entry.value end
  for _, each in ipairs(all) do
    for _, key in ipairs(each._order) do
      if each._kind[key] == "plain" and core.tensor.is_tensor(rawget(each, key)) then return true end
    end
  end
  return false
end

--- See unic.weights.build.
function load.build(make, path, options)
  arguments.check("weights.build", "make", make, "callable")
  options = check_options(options)
  local file, mine = opened(path)
  return closing(file, mine, pcall(function()
    -- On `meta` a model of any size is made in milliseconds: shapes, no memory, no random numbers. With these the plan is made.
    local device = core.device_default()
    local model = arguments.check("weights.build", "make's result", tensor.with(core.device_default, "meta", make), MODEL)
    local jobs, report, slots = plan(model, file, options)
    local whole = not has_constants(model)
    for _, slot in ipairs(slots) do
      if slot.value.device ~= "meta" or slot.kept and not slot.counter then whole = false end
    end
    if whole then
      materialise(slots, device)
    else   -- what the file does not have needs its initial values
      model = make()
      jobs, report = plan(model, file, options)
    end
    read(file, jobs)
    say(report, options)
    return model, report
  end))
end

return load
