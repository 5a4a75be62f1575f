-- Whole networks at their real sizes against torchvision's, timm's and transformers' (spec/golden/parity.py): values, statistics, gradients; and what we
-- save opened by those libraries, where the python3 in PATH has them: PATH=VENV/bin:$PATH ./unic check parity
-- Cost: some minutes, 7 GB of memory at most (ViT-L/32 in f64); --only NETWORK for one of them, --back for the second part alone
package.path = "./?.lua;" .. package.path
local support = require "spec.support.check"
local unic = require "unic"
local golden = require "spec.support.golden"
local ffi = require "ffi"
local cjson = require "cjson"
local check = support.open "parity"

local KEPT = 64
-- f64: sums of up to a few hundred thousand terms in another order. f32: the contract's for whole networks, of the largest error of PyTorch's forms.
local F64, TIMES = 1e-11, 1.5

local only, back_only
for i, word in ipairs(arg) do
  if word == "--only" then only = arg[i + 1] end
  if word == "--back" then back_only = true end
end

-- ---------------------------------------------------------------- networks

local MAKE = {
  resnet50 = function() return require("unic.models.resnet").resnet50 { classes = 1000 } end,
  vit_b16 = function() return require("unic.models.vit").vit_b16 { classes = 1000 } end,
  vit_l32 = function() return require("unic.models.vit").vit_l32 { classes = 1000, drop_path = 0 } end,
  bert = function() return require("unic.models.bert").bert_base { vocab = 30522, dropout = 0, attention_dropout = 0, pooler = true } end,
  bert_mlm = function() return require("unic.models.bert").BertForMaskedLM { vocab = 30522, dropout = 0, attention_dropout = 0 } end,
}

-- The network with the formula's values, and the names that only one side has.
local function make(case, dtype)
  local model, strange = MAKE[case.name](), {}
  if dtype == "f64" then model:to "f64" end
  local state = model:state_dict()
  for name, t in pairs(state) do
    local spec = case.params[name]
    if spec and table.concat(t.shape, "x") == table.concat(spec.shape, "x") then
      golden.fill(t, spec, case.name .. "/" .. name)
    else
      strange[#strange + 1] = "here: " .. name
    end
  end
  for name in pairs(case.params) do
    if not state[name] then strange[#strange + 1] = "there: " .. name end
  end
  return model, strange
end

local function batch_of(case, dtype)
  local batch = {}
  for name, spec in pairs(case.inputs) do
    local t = golden.values(spec, case.name .. "/" .. name, true)
    if t.dtype == "f64" and dtype ~= "f64" then t = unic.cast(t, dtype) end
    batch[name] = t
  end
  if batch.ids then
    local lengths = unic.tensor(case.lengths, { dtype = "i64" })
    batch.mask = unic.arange(batch.ids:size(2)):unsqueeze(1):lt(lengths:unsqueeze(2))
    batch.ids = unic.masked_fill(batch.ids, unic.logical_not(batch.mask), 0)
    batch.labels = unic.masked_fill(batch.labels, unic.logical_not(unic.mul(batch.asked, batch.mask)), -100)
  end
  return batch
end

-- {outputs = {output = tensor}, states = {name = tensor}}, and the loss.
local function forward(case, model, batch)
  local seen, loss = { outputs = {}, states = {} }, nil
  if case.name == "bert" then
    local states = model:states(batch.ids, batch.mask, batch.types)
    for i, h in ipairs(states) do seen.states["hidden" .. i - 1] = h end
    local hidden = states[#states]
    local pooled = model.pooler(hidden)
    seen.outputs.output = pooled
    local function distance(y, target) return unic.losses.mse(unic.cast(y, target.dtype), target) end
    loss = distance(hidden, batch.of_hidden) + distance(pooled, batch.of_pooled)
  elseif case.name == "bert_mlm" then
    local states = model.bert:states(batch.ids, batch.mask)
    for i, h in ipairs(states) do seen.states["hidden" .. i - 1] = h end
    local logits = model:predict(states[#states])
    seen.outputs.output = logits
    loss = unic.losses.cross_entropy(logits:reshape { -1, logits:size(3) }, batch.labels:reshape { -1 })
  elseif case.name == "resnet50" then
    local maps, stem = model:maps(batch.x)
    for s, map in ipairs(maps) do seen.states["layer" .. s] = map end
    seen.states.stem = stem
    seen.outputs.output = model.fc(unic.global_avg_pool2d(maps[#maps]))
  else
    local states = model:states(batch.x)
    for i, tokens in ipairs(states) do seen.states["block" .. i] = tokens end
    seen.states.tokens = model.norm(states[#states])
    seen.outputs.output = model.head(seen.states.tokens:select(2, 1))
  end
  return seen, loss or unic.losses.cross_entropy(seen.outputs.output, batch.target)
end

-- What a user calls, without looking at the layers on the way: the output alone.
local function call(case, model, batch)
  if case.name == "bert" then return (select(2, model(batch.ids, batch.mask, batch.types))) end
  if case.name == "bert_mlm" then return (model(batch.ids, batch.mask)) end
  return (model(batch.x))
end

-- ---------------------------------------------------------------- comparing

local POINTER = { f32 = "const float *", f64 = "const double *" }

-- The error of one tensor's probe: 64 elements, max and rms.
local function error_of(file, case, record, t)
  local n = t:numel()
  if n ~= record.n then error(("parity: %s %s has %d elements, expected %d"):format(case.name, record.name, n, record.n)) end
  t = t:detach()
  if not POINTER[t.dtype] then t = unic.cast(t, "f32") end
  t = unic.contiguous(t)
  local at, ref = ffi.cast(POINTER[t.dtype], t:data_ptr()), file.at + record.offset
  local max, squares = 0, 0
  for i = 0, n - 1 do
    local v = at[i]
    max, squares = math.max(max, math.abs(v)), squares + v * v
    if v ~= v then max = math.huge end
  end
  local worst = math.max(math.abs(max - ref[0]), math.abs(math.sqrt(squares / n) - ref[1]))
  for k, i in ipairs(golden.places(("%s/%s/%s/%s"):format(case.name, record.mode, record.kind, record.name), KEPT, n)) do
    local d = math.abs(at[i] - ref[k + 1])
    if not (d <= worst) then worst = d end
  end
  t:touched()
  return worst / record.below
end

-- Errors of one form of a network: {mode_kind = {errors..., worst = name}}.
local function measure(file, case, dtype, modes)
  local found = {}
  local model, strange = make(case, dtype == "f64" and "f64" or "f32")
  if #strange > 0 then return found, strange end
  local batch = batch_of(case, dtype == "f64" and "f64" or "f32")
  local records = {}
  for _, record in ipairs(case.records) do records[("%s/%s/%s"):format(record.mode, record.kind, record.name)] = record end
  local function note(mode, kind, name, t)
    local key = ("%s/%s/%s"):format(mode, kind, name)
    local record = records[key] or error(("parity: %s: there is no record of %s"):format(case.name, key))
    records[key] = nil
    local list = found[mode .. "_" .. kind] or { largest = 0 }
    found[mode .. "_" .. kind] = list
    local e = error_of(file, case, record, t)
    list[#list + 1] = e
    if not (e <= list.largest) then list.largest, list.worst = e, name end
  end
  local function note_all(mode, seen, loss)
    for kind, tensors in pairs(seen) do
      for name, t in pairs(tensors) do note(mode, kind, name, t) end
    end
    note(mode, "loss", "loss", loss)
  end
  for _, mode in ipairs(modes) do
    unic.scope(function()
      model:train(mode == "train")
      if mode == "eval" then
        unic.no_grad(function()
          local function run() return forward(case, model, batch) end
          if dtype == "bf16" then note_all(mode, unic.autocast("bf16", run)) else note_all(mode, run()) end
          if dtype ~= "f64" then return end
          -- The plain call gives the same as the way by the layers.
          local again = {}
          for _, record in ipairs(case.records) do again[record.mode .. record.kind] = record end
          found.eval_call = { error_of(file, case, again.evaloutputs, call(case, model, batch)), worst = "output" }
          found.eval_call.largest = found.eval_call[1]
        end)
        return
      end
      local seen, loss = forward(case, model, batch)
      loss:backward()
      note_all(mode, seen, loss)
      for _, entry in ipairs(model:named_buffers()) do
        if entry.value.dtype ~= "i64" then note(mode, "statistics", entry.name, entry.value) end
      end
      for _, entry in ipairs(model:named_parameters()) do
        note(mode, entry.name:find "attention%.self%.key%.bias$" and "noise" or "gradients", entry.name, entry.value.grad)
      end
      model:zero_grad()
    end)
  end
  for key, record in pairs(records) do
    for _, mode in ipairs(modes) do
      if record.mode == mode then error(("parity: %s: nothing was compared with %s"):format(case.name, key)) end
    end
  end
  for _, list in pairs(found) do
    local sorted = {}
    for i, e in ipairs(list) do sorted[i] = e end
    table.sort(sorted)
    list.median = (sorted[math.floor((#sorted + 1) / 2)] + sorted[math.ceil((#sorted + 1) / 2)]) / 2
  end
  return found, strange
end

-- The error of the loss is a matter of luck below a few units in the last place, and so is that of its like: errors below this count as this.
local LEAST = 2.5e-7

local KINDS = { "outputs", "states", "loss", "statistics", "gradients", "noise" }

local function compare(file, case)
  local wide, strange = measure(file, case, "f64", { "eval", "train" })
  if not check:holds(case.name .. "_names", #strange == 0) then
    print("    " .. table.concat(strange, ", ", 1, math.min(8, #strange)))
    return
  end
  collectgarbage()
  collectgarbage()
  local narrow = measure(file, case, "f32", { "eval", "train" })
  collectgarbage()
  collectgarbage()
  local half = measure(file, case, "bf16", { "eval" })
  collectgarbage()
  collectgarbage()
  print(("  %-9s %-16s %7s %9s %20s %20s"):format(case.name, "errors", "tensors", "f64", "f32 (median)", "torch f32 (median)"))
  local worst, where = wide.eval_call.largest, "plain call"
  for _, mode in ipairs { "eval", "train" } do
    for _, kind in ipairs(KINDS) do
      local key = mode .. "_" .. kind
      local list, own = narrow[key], case.kinds[key]
      if list then
        print(("  %-9s %-16s %7d %9.1e %9.1e (%.1e) %9.1e (%.1e)"):format("", key, #list, wide[key].largest, list.largest, list.median, own.largest, own.median))
        if not (wide[key].largest <= worst) then worst, where = wide[key].largest, key .. " " .. wide[key].worst end
        if not check:at_most(("%s_%s_f32_of_torchs"):format(case.name, key), list.largest / math.max(own.largest, LEAST), TIMES) then
          print("    worst: " .. list.worst)
        end
        if #list > 1 then check:at_most(("%s_%s_f32_median_of_torchs"):format(case.name, key), list.median / math.max(own.median, LEAST), TIMES) end
      end
    end
  end
  if not check:at_most(case.name .. "_f64_share_of_1e-11", worst / F64, 1) then print("    worst: " .. where) end
  for _, kind in ipairs { "outputs", "states" } do
    local own = 0
    for _, record in ipairs(case.records) do
      if record.mode == "eval" and record.kind == kind then own = math.max(own, record.bf16) end
    end
    check:note(("%s_%s_bf16"):format(case.name, kind), ("%.1e, PyTorch's own %.1e"):format(half["eval_" .. kind].largest, own))
  end
end

local file = golden.load "spec/golden/parity.safetensors"
for _, library in ipairs { "torch", "torchvision", "timm", "transformers" } do check:note(library, file.versions[library]) end
for _, case in ipairs(file.cases) do
  if not back_only and (not only or case.name:find(only)) then compare(file, case) end
end

-- ---------------------------------------------------------------- and back

local FOLDER = ".cache/check/parity"

local function python()
  local output, code = support.shell "python3 -c 'import torch, torchvision, timm, transformers'"
  if code == 0 then return true end
  return false, (output:match "([^\n]*)$")
end

-- What we save, opened there with strict names, gives what it gives here.
local function back(case)
  local folder = FOLDER .. "/" .. case.name
  os.execute(("rm -rf %s && mkdir -p %s"):format(folder, folder))
  local output
  unic.scope(function()
    local model = make(case, "f32")
    local batch = batch_of(case, "f32")
    output = unic.no_grad(call, case, model:eval(), batch):clone()
    local text = case.name:find "^bert"
    unic.files.safetensors_save(folder .. (text and "/model.safetensors" or "/weights.safetensors"), model:state_dict(), { format = "pt" })
    if text then unic.files.write_file(folder .. "/config.json", cjson.encode(require("unic.models.bert").config(model))) end
    unic.files.safetensors_save(folder .. "/output.safetensors", { output = output })
    model:zero_grad()
  end)
  collectgarbage()
  local said, code = support.shell(("python3 -W ignore spec/support/parity_back.py %s %s"):format(case.name, folder), { timeout = 580 })
  os.execute("rm -rf " .. folder)
  local names, difference = said:match "names (%a+)", tonumber(said:match "difference (%S+)")
  if not check:holds(case.name .. "_back_names", code == 0 and names == "equal") then print(said) end
  -- Two f32 implementations: each may be as far from f64 as PyTorch's forms, ours 1.5 times as far.
  local limit = math.max(case.kinds.eval_outputs.largest, LEAST) * (1 + TIMES)
  if not check:at_most(case.name .. "_back_output_share", difference and difference / limit, 1) then print(said) end
end

local there, why = python()
if there then
  for _, case in ipairs(file.cases) do
    if not only or case.name:find(only) then back(case) end
  end
else
  check:skip("back", ("the python3 in PATH lacks torch, torchvision, timm or transformers (%s): PATH=VENV/bin:$PATH ./unic check parity"):format(why))
end
check:close()
