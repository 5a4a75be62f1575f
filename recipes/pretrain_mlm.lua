--- Masked language modelling (Devlin et al., 2019) on reports in several languages: the first stage of Med-UniC, which makes its text encoder.
--
--   ./unic recipes/pretrain_mlm.lua                                        a small encoder from scratch on the built-in reports, minutes on a CPU
--   ./unic recipes/pretrain_mlm.lua --data reports.csv --vocab vocab.txt   one's own: report,language; or a .txt file with a report a line
--   ./unic recipes/pretrain_mlm.lua --preset official --init FOLDER --vocab vocab.txt --data reports.csv
--                                                                          from a Hugging Face folder (CXR-BERT), as the published code does it
--
-- Ends as a Hugging Face folder, which `pretrain_medunic.lua --text-init FOLDER` takes.
local lfs = require "lfs"
local unic = require "unic"
local losses, optim, data, text = unic.losses, unic.optim, unic.data, unic.text
local bert = require "unic.models.bert"
local phantom = require "unic.datasets.phantom"
local text_weights = require "unic.recipes.text_weights"
local weights = require "unic.weights"

local official = {
  text = "bert_base", batch = 8, accumulate = 16, epochs = 15, steps = 0, lr = 5e-4, optimizer = "bertadam", beta2 = 0.999, schedule = "linear",
  warmup = 50, weight_decay = 0.01, clip = 1, max_length = 256, seed = 42,
}
local adamw = { optimizer = "adamw" }
for key, value in pairs(official) do adamw[key] = adamw[key] or value end

local opt = unic.options {
  usage = "Pre-train a text encoder on reports: predict the tokens that are hidden.",
  presets = { small = {}, official = official, adamw = adamw },
  { "text", "bert_small", "text encoder: bert_small, bert_base; an --init with a config.json says it itself" },
  { "init", nil, "start from this Hugging Face folder or weight file; a vocabulary with more tokens extends it" },
  { "cased", false, "the vocabulary keeps capitals and accents (a folder of weights says it itself)" },
  { "data", "phantom", "reports: a CSV file (report,language), a folder with data.csv, a .txt file with a report a line, or phantom (the built-in set)" },
  { "language", nil, "two letters: the language of rows that name none", kind = "string" },
  { "studies", 12000, "training studies of the built-in set", kind = "integer", least = 2 },
  { "steps", 2500, "optimiser steps; 0 = by --epochs", kind = "integer", least = 0 },
  { "batch", 64, "reports in a batch", kind = "integer", least = 1 },
  { "lr", 2e-3, "peak learning rate" },
  { "weight_decay", 0.01, "of weights with two or more dimensions" },
  { "optimizer", "adamw", "adamw, or bertadam (no bias correction, each gradient clipped on its own, too)", choices = { "adamw", "bertadam" } },
  { "beta2", 0.98, "second moment" },
  { "schedule", "cosine", "after the warm-up: cosine, or linear to 0", choices = { "cosine", "linear" } },
  { "warmup", 60, "steps of linear warm-up; below 1: a share of all steps" },
  { "clip", 1, "largest norm of the gradients" },
  { "share", 0.15, "of the tokens of a report that are asked for", least = 0, most = 1 },
  { "most", 77, "tokens of a report that are asked for", kind = "integer", least = 1 },
  { "dropout", nil, "default: as --init was trained, else 0.05 for bert_small and 0.1 for bert_base", kind = "number", least = 0, most = 1 },
  { "freeze", 0, "embeddings and the first so many layers stay as they are", kind = "integer", least = 0 },
  { "sample", false, "built-in set: train on random parts of the reports" },
  { "max_length", 128, "tokens of a report", kind = "integer", least = 4 },
  { "out", nil, "folder for the trained model (default: huggingface in the run folder)", kind = "string", shown = "DIR" },
}
if opt.out and not opt.resume and lfs.attributes(opt.out, "mode") then error(("--out: '%s' is there already, expected a new folder"):format(opt.out), 0) end
local run = unic.run("pretrain_mlm", opt)

local built_in = opt.data == "phantom"
local function open(split)
  return data.open(opt.data, {
    split = split, images = false, language = opt.language, strict = not built_in and opt.strict or nil,
    studies = built_in and split == "train" and opt.studies or nil,
  })
end
local train = run:data("train", open "train")
-- A run that goes on has its vocabulary and what its model is in its folder, and its weights in the checkpoint, if it came to one.
local source = opt.init and run.step == 0 and text_weights.open(opt.init)
local tokenizer = run.vocab and text.from_pretrained(run.dir) or text_weights.tokenizer(source, opt.vocab or not source and phantom.vocab, opt.cased)
run:vocabulary(tokenizer)

local dropout = opt.dropout or not opt.init and opt.text == "bert_small" and 0.05 or nil   -- 0.1 is much for two layers
local model = text_weights.model(source, {
  config = run.resumed and not source and bert.read_config(run.dir .. "/text_config.json") or nil, text = opt.text, head = "mlm", dropout = dropout,
}, tokenizer)
if run.dir then bert.write_config(run.dir .. "/text_config.json", model) end
model:freeze(opt.freeze)
model:to(run.device)

local make = opt.optimizer == "adamw" and optim.AdamW or optim.BertAdam
local optimizer = make(model:groups { lr = opt.lr, weight_decay = opt.weight_decay, betas = { 0.9, opt.beta2 } })
local steps = run:steps(train)
local schedule = opt.schedule == "cosine" and optim.warmup_cosine or optim.bert_linear
local sched = schedule(optimizer, { steps = steps, warmup = opt.schedule == "cosine" and math.min(opt.warmup, 0.5 * steps) or opt.warmup })
run:attach { model = model, optimizers = { [opt.optimizer] = optimizer }, schedules = { sched = sched } }

-- Which languages there are: {name =, number =}, the number as batch.language has it.
local languages = {}
for number, name in ipairs(train.languages) do
  for i = 1, train.n do
    if train:language(i) == name then
      languages[#languages + 1] = { name = name, number = number - 1 }
      break
    end
  end
end

-- Loss of every hidden token, whether it was found (1 or 0), and its report's language. The head, most of the work, is computed for them alone.
local function ask(batch)
  local n, l = batch.tokens:size(1), batch.tokens:size(2)
  local hidden = model.bert(batch.tokens, batch.mask):reshape { n * l, model.features }
  local logits = model:predict(hidden:index_select(1, batch.places))
  local each = losses.cross_entropy(logits, batch.targets, { reduction = "none" })
  local right = logits:detach():argmax(2):eq(batch.targets):cast "f32"
  return each, right, batch.language:reshape { n, 1 }:expand { n, l }:reshape { n * l }:index_select(1, batch.places)
end

local masking = { share = opt.share, most = opt.most }
local reading = { views = {}, tokenizer = tokenizer, max_length = opt.max_length, mlm = masking, text = "report", seed = opt.seed }
local function with(more)
  local all = {}
  for _, from in ipairs { reading, more } do
    for key, value in pairs(from) do all[key] = value end
  end
  return all
end

-- A part that is not trained on; where a handful of rows has none to spare, the training rows.
local parts = {}
local function part(split)
  if parts[split] then return parts[split] end
  local opened, ds = pcall(open, split)
  if not opened then
    if built_in or not tostring(ds):find("belongs to split", 1, true) then error(ds, 0) end
    run:say("no row is held out (split '%s'): what follows is measured on the training rows", split)
    ds = train
  end
  parts[split] = ds
  return ds
end

-- Loss and accuracy over all hidden tokens of a split and by language, into eval.csv; the same tokens are hidden at every call.
local function evaluate(split)
  local ds = part(split)
  local sums = {}   -- name -> loss, hits, tokens
  local was = model.training
  model:eval()
  unic.no_grad(function()
    for batch in data.batches(ds, with { batch = 64, shuffle = false, bucket = 64, device = run.device }) do
      local each, right, language = run:autocast(ask, batch)
      local function add(name, of)
        local sum = sums[name] or { 0, 0, 0 }
        sums[name] = { sum[1] + (each * of):sum(), sum[2] + (right * of):sum(), sum[3] + of:sum() }
      end
      add("", unic.ones_like(right))
      for _, one in ipairs(languages) do add(one.name, language:eq(one.number):cast "f32") end
    end
  end)
  model:train(was)
  local rows, found = {}, {}
  for name, sum in pairs(sums) do
    local loss, hits, n = sum[1]:item(), sum[2]:item(), sum[3]:item()
    found[name] = { loss = loss / n, accuracy = hits / n }
    rows[#rows + 1] = { split = ds.split, metric = "mlm_loss", language = name, value = loss / n, n = n }
    rows[#rows + 1] = { split = ds.split, metric = "mlm_accuracy", language = name, value = hits / n, n = n }
  end
  table.sort(rows, function(a, b) return a.metric .. a.language < b.metric .. b.language end)
  run:eval(rows)
  run:skipped(ds:errors())
  return found
end

for batch in run:batches(train, with { bucket = 8, text = built_in and opt.sample and "sample" or "report" }) do
  local each, right, language = run:autocast(ask, batch)
  local loss = each:mean()
  if run:backward(loss) then
    local norm = optim.clip_grad_norm(model:parameters(), opt.clip)
    optimizer:step()
    sched:step()
    run:log({}, { grad_norm = norm })
  end
  local seen = { acc = right:mean() }
  for _, one in ipairs(languages) do
    local of = language:eq(one.number):cast "f32"
    local count = of:sum()   -- a batch without the language gives nan
    seen["loss_" .. one.name], seen["acc_" .. one.name] = (each:detach() * of):sum() / count, (right * of):sum() / count
  end
  run:log({}, seen)
  if run:every(opt.eval_every) then evaluate "val" end
end
run:skipped(train:errors())

local out = opt.out or run.dir .. "/huggingface"
weights.save_pretrained(out, model, { config = bert.config(model), tokenizer = tokenizer, overwrite = run.resumed or not opt.out })
run:say("the model is in " .. out .. "; pretrain_medunic.lua --text-init takes it")

local found = evaluate "test"
local line = { { "loss", found[""].loss }, { "accuracy", found[""].accuracy } }
for _, one in ipairs(languages) do
  local own = found[one.name] or { loss = 0 / 0, accuracy = 0 / 0 }
  line[#line + 1] = { "loss_" .. one.name, own.loss }
  line[#line + 1] = { "accuracy_" .. one.name, own.accuracy }
end
line[#line + 1] = { "vocab", ("%d"):format(tokenizer.size) }
line[#line + 1] = { "seconds", run:seconds() }
line[#line + 1] = { "peak_mb", unic.memory().peak / 1e6 }
line[#line + 1] = { "steps", run.step }
run:result(line)
