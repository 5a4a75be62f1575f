--- A run: its folder, seed, device, progress, checkpoints, and how it goes on after it was stopped.
--
--   local run = unic.run("pretrain_medunic", opt)
--   run:data("train", train)
--   run:attach { model = model, optimizers = { adamw = adamw }, schedules = { warmup = sched } }
--   for batch in run:batches(train, { views = views }) do
--     local loss = run:autocast(function() return losses_of(batch) end)
--     if run:backward(loss.cvl + loss.ssv) then        -- true when the gradients of --accumulate batches are in
--       local norm = optim.clip_grad_norm(model:parameters(), 1)
--       adamw:step(); sched:step()
--       run:log(loss, { grad_norm = norm })
--     end
--   end
--   run:result { { "auc", auc }, { "steps", run.step } }
--
-- The loop stays the recipe's. `run:batches` counts steps, drops the gradients before each of them, saves, and ends the loop; what a step
-- has to do it leaves to the lines in it. Fields: `dir`, `options`, `device`, `step` (the one being made, from 1), `epoch` (from 1), `total`,
-- `last_loss` (as last read), `vocab` (of a run that goes on: the path of its vocab.txt, which `text.from_pretrained(run.dir)` reads).
-- @module unic.run
local lfs = require "lfs"
local arguments = require "unic.arguments"
local core = require "unic.core"
local tensor = require "unic.tensor"
local checkpoint = require "unic.run.checkpoint"
local folder = require "unic.run.folder"
local finished = require "unic.run.finished"
local loop = require "unic.run.loop"
local metrics = require "unic.run.metrics"
local optim = require "unic.optim"
local outputs = require "unic.run.outputs"
local progress = require "unic.run.progress"
local source = require "unic.run.source"

local fail, is_quiet = folder.fail, folder.is_quiet

local run = {}
local Run = {}
Run.__index = Run
Run.__name = "unic.run"
for name, method in pairs(loop) do Run[name] = method end
for name, method in pairs(outputs) do Run[name] = method end

-- A resumed run may have other values of these: they change where and how fast, not what is computed (threads and device change the last
-- bits; the log says so).
local MAY_DIFFER = { run = true, resume = true, memory = true, threads = true, workers = true, eval_every = true, save_every = true, log_every = true, device = true,
  dry = true }
-- Never taken over from the run that is resumed.
local OWN = { run = true, resume = true, dry = true }

-- ---------------------------------------------------------------- options

local function same(a, b)
  if type(a) ~= "table" or type(b) ~= "table" then return a == b end
  if #a ~= #b then return false end
  for i = 1, #a do
    if a[i] ~= b[i] then return false end
  end
  return true
end

local function show(value)
  if type(value) == "table" then
    local words = {}
    for i, member in ipairs(value) do words[i] = tostring(member) end
    return table.concat(words, ",")
  end
  if value == nil then return "not set" end
  return type(value) == "number" and ("%.14g"):format(value) or tostring(value)
end

-- Options of the resumed run: what was not given now is as it was then, what was given must be as it was.
local function reconcile(opt, saved, dir)
  local plain = getmetatable(opt) == nil
  local names, wrong = {}, {}
  for name in pairs(saved) do names[name] = true end
  for name in pairs(opt) do names[name] = true end
  for name in pairs(names) do
    local now, was = rawget(opt, name), saved[name]
    local given
    if plain then given = now ~= nil else
      local ok, answer = pcall(opt.given, opt, name)
      given = ok and answer
    end
    if given then
      if not MAY_DIFFER[name] and not same(now, was) then wrong[#wrong + 1] = ("%s is %s here and %s in the run"):format(name, show(now), show(was)) end
    elseif not OWN[name] then
      if plain then opt[name] = was else opt:adopt(name, was) end
    end
  end
  if #wrong > 0 then
    table.sort(wrong)
    fail("--resume: '%s' was started with other options: %s", dir, table.concat(wrong, "; "))
  end
end

local function plain_options(opt)
  local data = {}
  for name, value in pairs(opt) do data[name] = value end
  return data
end

-- ---------------------------------------------------------------- making and opening

-- The folder to continue, from --resume [DIR] and --run DIR.
local function resume_folder(name, opt)
  local dir = type(opt.resume) == "string" and opt.resume or opt.run or folder.last(name)
  if not dir then fail("--resume: there is no run of %s in '%s' to continue", name, folder.base()) end
  if not lfs.attributes(dir .. "/run.lua", "mode") then fail("--resume: '%s' is no run folder (it has no run.lua)", dir) end
  local record = folder.read_record(dir)
  if record.recipe ~= name then fail("--resume: '%s' is a run of %s, expected one of %s", dir, record.recipe, name) end
  return dir, record
end

local function new_folder(name, opt)
  if not opt.run then return folder.next(name) end
  if lfs.attributes(opt.run .. "/run.lua", "mode") then
    fail("--run: '%s' holds a run already, expected a new folder; --resume %s continues it", opt.run, opt.run)
  end
  folder.make(opt.run)
  return opt.run
end

local function facts_for_manifest(self)
  local facts = require("unic.info").facts()
  return {
    recipe = self.name, started = os.date "!%Y-%m-%dT%H:%M:%SZ", seed = self.options.seed, device = self.device, dtype = self.options.dtype or "f32",
    threads = facts.threads, isa = facts.isa, version = facts.version, commit = facts.commit, luajit = facts.luajit, compiler = facts.compiler,
    system = facts.system, processor = facts.processor, cores = facts.cores, libraries = facts.libraries, data = {},
  }
end

-- What may change the last bits of a resumed run, as sentences.
local function differences(was, now)
  local list = {}
  for _, key in ipairs { "version", "commit", "isa", "threads", "device", "processor" } do
    if was[key] ~= now[key] then list[#list + 1] = ("%s was %s and is %s"):format(key, tostring(was[key]), tostring(now[key])) end
  end
  for name, version in pairs(now.libraries) do
    local before = (was.libraries or {})[name]
    if before ~= version then list[#list + 1] = ("%s was %s and is %s"):format(name, tostring(before), version) end
  end
  return list
end

--- Start a run, or continue one (`--resume`): makes the folder, sets threads, device and seed.
-- Call it right after the options are read: a resumed run takes what is not given on the command line from its folder.
-- @param name the recipe's name
-- @param opt what `unic.options` returned, or a table of values
-- @param extra `model`: as run:attach{model = ..}
-- @return a run
function run.new(name, opt, extra)
  if type(name) ~= "string" or not name:find "^[%w_][%w_.-]*$" then fail("argument 'name': %s, expected a word", arguments.describe(name)) end
  if type(opt) ~= "table" then fail("argument 'options': %s, expected what unic.options returns", arguments.describe(opt)) end
  extra = tensor.options("run", extra, { model = true })
  local self = setmetatable({
    name = name, options = opt, step = 0, epoch = 1, position = 0, micro = 0, total = nil, seconds_before = 0, saved_step = 0,
    attached = { optimizers = {}, schedules = {}, tensors = {}, names = {} }, seen_data = {},
  }, Run)
  local record
  if opt.resume and not opt.dry then
    self.dir, record = resume_folder(name, opt)
    reconcile(opt, record.options, self.dir)
    self.resumed = true
  end
  -- What this function itself uses; unic.options has looked at more.
  for field, kind in pairs { threads = "integer", seed = "integer", accumulate = "integer", log_every = "integer", run = "string", device = "string" } do
    if rawget(opt, field) ~= nil then arguments.check("run", field, opt[field], kind) end
  end
  if opt.threads and opt.threads > 0 then core.threads(opt.threads) end
  core.low_memory(opt.memory == "low")
  if opt.anomaly then require("unic.anomaly").anomaly(true) end
  if opt.device then core.device_default(opt.device) end
  self.device = core.device_default()
  self.accumulate = opt.accumulate or 1
  self.log_every = opt.log_every or 10
  require("unic").manual_seed(opt.seed or 1)

  if opt.dry then
    self.progress = progress.new(nil, is_quiet())
  else
    if not record then
      self.dir = new_folder(name, opt)
      folder.write_record(self.dir, name, plain_options(opt))
    end
    if not (is_quiet() and opt.run) then folder.note_last(self.dir) end
    self.progress = progress.new(self.dir .. "/log.txt", is_quiet())
    -- One process at a time: two that continued the same run would write into each other's files. The lock goes with the process. A file
    -- system without locks says something else than "taken", and is used without.
    local locked, why = lfs.lock(self.progress.log, "w")
    if not locked and (tostring(why):find "unavailable" or tostring(why):find "denied") then fail("'%s' is in use by another process", self.dir) end
    local now = facts_for_manifest(self)
    if record then
      self:open_resumed(now)
    else
      self.manifest = now
      folder.write_manifest(self.dir, now)
      self.progress:say(("%s: run folder %s"):format(name, self.dir))
    end
    self.metrics = metrics.new(self.dir .. "/metrics.csv")
  end
  if extra.model then self:attach { model = extra.model } end
  return self
end

-- The state of the run that goes on, as far as it needs no model.
function Run:open_resumed(now)
  self.manifest = folder.read_manifest(self.dir)
  self.manifest.data = self.manifest.data or {}
  local path = self.dir .. "/checkpoints/last.safetensors"
  local step = 0
  if lfs.symlinkattributes(path, "mode") then
    self.saved = checkpoint.open(path)
    local meta = self.saved.meta
    step = meta.step
    self.step, self.saved_step, self.epoch, self.position, self.seconds_before = meta.step, meta.step, meta.epoch, meta.position, meta.seconds or 0
    self.best_value, self.vocabulary_hash, self.last_loss = meta.best, meta.vocabulary, meta.loss
  end
  if lfs.attributes(self.dir .. "/vocab.txt", "mode") then self.vocab = self.dir .. "/vocab.txt" end
  folder.truncate(self.dir .. "/metrics.csv", step)
  folder.truncate(self.dir .. "/eval.csv", step)
  local notes = differences(self.manifest, now)
  self.manifest.resumed = self.manifest.resumed or {}
  table.insert(self.manifest.resumed, { at = os.date "!%Y-%m-%dT%H:%M:%SZ", step = step, changed = #notes > 0 and notes or nil })
  folder.write_manifest(self.dir, self.manifest)
  self.progress:say(("%s: continues %s after step %d"):format(self.name, self.dir, step))
  if #notes > 0 then self.progress:say("the last bits may differ from an unbroken run: " .. table.concat(notes, "; ")) end
end

--- Say something in a line of its own: on stderr and in log.txt.
-- @param format as string.format
-- @param ... its values
function Run:say(format, ...) self.progress:say(select("#", ...) > 0 and format:format(...) or format) end

-- ---------------------------------------------------------------- what the run knows about

--- Note a data set in the manifest; a resumed run refuses another one.
-- @param name "train", "test", ...
-- @param ds a data set with hash(); `split` is noted too
-- @return ds
function Run:data(name, ds)
  local hash, count, split = source.describe(ds)
  if self.options.dry then return ds end
  local was = self.resumed and self.manifest.data[name]
  if was and was.hash ~= hash then
    fail("--resume: the data set '%s' has other contents than in '%s' (hash %s here, %s there; %s rows here, %s there)", name, self.dir, hash, was.hash,
      tostring(count), tostring(was.n))
  end
  self.manifest.data[name] = { hash = hash, n = count, split = split }
  folder.write_manifest(self.dir, self.manifest)
  return ds
end

--- Note the vocabulary: vocab.txt and tokenizer_config.json in the folder, its hash in checkpoints; a resumed run refuses another one, and another
-- way to read text.
-- @param tokenizer from `unic.text`
-- @return the tokenizer
function Run:vocabulary(tokenizer)
  local hash = tokenizer:hash()
  if tokenizer:rules() ~= "uncased" then hash = hash .. " " .. tokenizer:rules() end
  if self.vocabulary_hash and self.vocabulary_hash ~= hash then
    fail("--resume: the vocabulary is another one than in '%s' (hash %s here, %s there)", self.dir, hash, self.vocabulary_hash)
  end
  self.vocabulary_hash = hash
  if self.dir then tokenizer:save_pretrained(self.dir) end
  return tokenizer
end

local function bytes_of(list)
  local size = { f64 = 8, i64 = 8, f32 = 4, i32 = 4, bf16 = 2, f16 = 2, u8 = 1, bool = 1 }
  local n = 0
  for _, t in ipairs(list) do n = n + t:numel() * size[t.dtype] end
  return n
end

-- --dry: how large it is, then leave.
function Run:end_dry()
  local attached = self.attached
  local lines = {}
  if attached.model then
    local params, buffers, trained = attached.model:parameters(), {}, {}
    for i, entry in ipairs(attached.model:named_buffers()) do buffers[i] = entry.value end
    for _, p in ipairs(params) do
      if p.requires_grad then trained[#trained + 1] = p end
    end
    local weights, gradients, state = bytes_of(params) + bytes_of(buffers), bytes_of(trained), 0
    for _, optimizer in pairs(attached.optimizers) do
      for _, group in ipairs(optimizer.groups) do state = state + #optimizer.names * bytes_of(group.params) end
    end
    if attached.ema then state = state + bytes_of(attached.ema.average) end
    lines[1] = ("%s parameters (%s trained) in %.3g MB; with gradients and the optimisers' state %.3g MB, activations not counted."):format(
      metrics.with_thousands(attached.model:count()), metrics.with_thousands(bytes_of(trained) / 4), weights / 1e6, (weights + gradients + state) / 1e6)
  else
    lines[1] = "No model is attached, so its size is not known; run:attach{model = ..} tells it."
  end
  lines[2] = ("--dry: nothing was trained and no run folder was made. The device's memory budget is %.1f GB."):format(core.memory().budget / 1e9)
  outputs.print(table.concat(lines, "\n"))
  if is_quiet() or package.loaded["unic.repl"] then error("dry run", 0) end
  os.exit(0, true)
end

--- Say what a checkpoint holds. In a resumed run it is read back here, to the bit.
-- @param what `model`; `optimizers` and `schedules`, each name -> object; `ema`; `tensors`, name -> tensor (state of one's own)
-- @return the run
function Run:attach(what)
  what = tensor.options("run:attach", what, { model = true, optimizers = true, schedules = true, ema = true, tensors = true })
  local attached = self.attached
  if what.model then
    attached.model = what.model
    for p, name in pairs(checkpoint.names(what.model)) do attached.names[p] = name end
  end
  for _, kind in ipairs { "optimizers", "schedules", "tensors" } do
    for label, object in pairs(what[kind] or {}) do
      if type(label) ~= "string" or not label:find "^[%w_]+$" then fail("attach: a name in '%s' is %s, expected a word", kind, tostring(label)) end
      attached[kind][label] = object
    end
  end
  attached.ema = what.ema or attached.ema
  -- A parameter outside the model (a temperature of its own, say) is named after its optimiser and its place.
  for label, optimizer in pairs(what.optimizers or {}) do
    for g, group in ipairs(optimizer.groups) do
      for i, p in ipairs(group.params) do
        if not attached.names[p] then
          attached.names[p] = ("%s.%d.%d"):format(label, g, i)
          attached.tensors[attached.names[p]] = p
          what.tensors = what.tensors or {}
          what.tensors[attached.names[p]] = p
        end
      end
    end
  end
  if self.options.dtype == "f16" and not self.scaler and next(attached.optimizers) then
    self.scaler = optim.GradScaler { device = self.device }
    what.tensors = what.tensors or {}
    for name, t in pairs(self.scaler:tensors()) do attached.tensors[name], what.tensors[name] = t, t end
  end
  if self.options.dry then
    if next(attached.optimizers) then self:end_dry() end   -- the size is known once the optimisers are
    return self
  end
  if self.saved then checkpoint.restore(self.saved, what, attached.names) end
  return self
end

-- ---------------------------------------------------------------- runs that are there

--- Open a run that was made before, to use its model.
-- @param dir its folder, runs/last, or one of its checkpoints
-- @return an object: `dir`, `name`, `options`, `manifest`, `step`, `checkpoint` (path), `load(model)`, `eval`, `predictions`, `skipped`, `result`
run.open = finished.open

--- The runs in runs/, as a list of tables (recipe, number, dir, when, steps, total, loss, result); with words of a command line, printed.
-- @param words the words after `./unic runs`: names of recipes to show (all without)
-- @return the list
run.list = finished.list

return setmetatable(run, { __call = function(_, ...) return run.new(...) end })
