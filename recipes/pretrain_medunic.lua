--- Med-UniC: cross-lingual medical vision-language pre-training (Wan et al., NeurIPS 2023, arXiv 2305.19894).
--
--   ./unic recipes/pretrain_medunic.lua                                  small encoders from scratch on the built-in set, minutes on a CPU
--   ./unic recipes/pretrain_medunic.lua --data my.csv --vocab vocab.txt  one's own pairs: image,report,language
--   ./unic recipes/pretrain_medunic.lua --preset paper --data my.csv     ResNet-50 and BERT-base as in the paper
--   ./unic recipes/pretrain_medunic.lua --text-init runs/pretrain_mlm/1 --freeze 1   the text encoder that pretrain_mlm.lua made
--
-- L = CVL + SSV + CTR: images against reports, two views of an image, two dropout views of a report.
local unic = require "unic"
local losses, optim, data, text = unic.losses, unic.optim, unic.data, unic.text
local bert = require "unic.models.bert"
local medunic = require "unic.models.medunic"
local phantom = require "unic.datasets.phantom"
local evaluate = require "unic.recipes.evaluate"
local text_weights = require "unic.recipes.text_weights"

local opt = unic.options {
  usage = "Pre-train an image and a text encoder on pairs of X-rays and reports in several languages.",
  presets = {
    small = {},
    paper = {
      vision = "resnet50", text = "bert_base", size = 224, store = 256, dim = 512, ctr_dim = 1024, hidden = 2048, pool = "cls", batch = 128, lr = 4e-5,
      weight_decay = 5e-2, epochs = 50, steps = 0, warmup = 0.1, floor = 0, clip = 1, beta2 = 0.999, freeze = 9, augment = "paper", max_length = 256,
      tau = 0.07, dropout = 0.1, ssv_weight = 1, ssv_tau = 0.07, ctr_weight = 1, sample = false, map = false,
    },
    official = {
      vision = "resnet50", text = "bert_base", size = 224, store = 256, dim = 512, ctr_dim = 512, hidden = 2048, pool = "cls", batch = 32, lr = 4e-5,
      weight_decay = 5e-2, epochs = 100, steps = 0, schedule = "restarts", clip = 1, beta2 = 0.999, freeze = 9, augment = "paper", max_length = 256,
      tau = 0.07, dropout = 0.1, ssv_weight = 1, ssv_tau = 0.07, ctr_weight = 1, ctr = "tf", sample = false, map = false,
    },
  },
  { "vision", "resnet_small", "vision encoder: resnet_small, resnet18 .. resnet152, vit_small, vit_b16, vit_l32" },
  { "vision_init", nil, "weights of the vision encoder: a file of torchvision, timm, MAE, ... (unic.weights.load)", kind = "string" },
  { "text", "bert_small", "text encoder: bert_small, bert_base" },
  { "text_init", nil, "weights of the text encoder: a Hugging Face folder (its size, vocabulary and dropout count) or a weight file", kind = "string" },
  { "cased", false, "the vocabulary keeps capitals and accents (a folder of weights says it itself)" },
  { "data", "phantom", "data set: a CSV file, a folder with data.csv, or phantom (the built-in set)" },
  { "size", 0, "side of the pictures the network sees; 0 = 64 for small encoders, 224 for the others", kind = "integer", least = 0 },
  { "store", 0, "side of the pictures kept in memory, from which crops are taken; 0 = as the encoder asks", kind = "integer", least = 0 },
  { "studies", 12000, "training studies of the built-in set", kind = "integer", least = 2 },
  { "steps", 860, "optimiser steps; 0 = by --epochs", kind = "integer", least = 0 },
  { "batch", 64, "pairs in a batch, the negatives of each other", kind = "integer", least = 2 },
  { "lr", 1.5e-3, "peak learning rate" },
  { "weight_decay", 0.05, "of weights with two or more dimensions" },
  { "optimizer", "adamw", "adamw, sgd (momentum 0.9), lars or bertadam", choices = { "adamw", "sgd", "lars", "bertadam" } },
  { "beta2", 0.98, "second moment of adamw and bertadam" },
  { "schedule", "cosine", "cosine (one, after a warm-up) or restarts (the official code's)", choices = { "cosine", "restarts" } },
  { "warmup", 60, "steps of linear warm-up; below 1: a share of all steps" },
  { "floor", 0.02, "share of the peak learning rate at the end" },
  { "clip", 5, "largest norm of the gradients" },
  { "dim", 128, "width of the joint space", kind = "integer", least = 2 },
  { "ctr_dim", 128, "width of the space of CTR", kind = "integer", least = 2 },
  { "hidden", 256, "width inside the projectors", kind = "integer", least = 2 },
  { "pool", "mean", "text feature: mean over tokens, or cls", choices = { "mean", "cls" } },
  { "map", true, "small networks: the reduced last feature map beside the pooled features" },
  { "tau", 0.2, "temperature of CVL" },
  { "ssv_tau", 0.1, "temperature of SSV" },
  { "ssv_weight", 0.2, "weight of SSV" },
  { "ctr_weight", 0.05, "weight of CTR" },
  { "ctr", "tf+tt", "terms of CTR", choices = { "tf+tt", "tf", "tt" } },
  { "dropout", 0.03, "of the text encoder" },
  { "freeze", 0, "embeddings and the first so many text layers stay as they are", kind = "integer", least = 0 },
  { "augment", "gentle", "gentle (small turns and shifts on view 2), paper (crops; rotation, affine, contrast on view 2)", choices = { "gentle", "paper" } },
  { "sample", true, "built-in set: train on random parts of the reports" },
  { "max_length", 64, "tokens of a report", kind = "integer", least = 4 },
  { "control", "none", "shuffle: reports permuted, which must end at chance", choices = { "none", "shuffle" } },
}
local run = unic.run("pretrain_medunic", opt)

local pictures = medunic.pictures(opt)
local size, store, channels = pictures.size, pictures.store, pictures.channels

local built_in = opt.data == "phantom"
local train = data.open(opt.data, { split = "train", size = store, strict = not built_in and opt.strict or nil, studies = built_in and opt.studies or nil })
run:data("train", train)
-- A run that goes on has its vocabulary and what its text encoder is in its folder, and its weights in the checkpoint, if it came to one.
local source = opt.text_init and run.step == 0 and text_weights.open(opt.text_init)
local tokenizer = run.vocab and text.from_pretrained(run.dir) or text_weights.tokenizer(source, opt.vocab or not source and phantom.vocab, opt.cased)
run:vocabulary(tokenizer)

local text_config = run.resumed and bert.read_config(medunic.text_config(run.dir)) or nil
if source then text_config = text_weights.config(source, opt:given "dropout" and opt.dropout or text_config and text_config.hidden_dropout_prob) end
local model = medunic.from_options(opt, source and source.rows or tokenizer.size, text_config)
local has_new_words = text_config and text_config.has_new_words
if source then
  has_new_words = text_weights.fill(model.text_encoder, source, tokenizer)
  if run.dir then bert.write_config(medunic.text_config(run.dir), model.text_encoder, { has_new_words = has_new_words }) end
end
if opt.vision_init and run.step == 0 then unic.weights.load(model.image_encoder, opt.vision_init) end
if opt.init and run.step == 0 then unic.run.open(opt.init):load(model) end   -- a run folder or a checkpoint of one
model.text_encoder:freeze(opt.freeze)
if has_new_words then model.text_encoder.embeddings:requires_grad_(true) end   -- they have everything to learn
model:to(run.device)

local make = ({ adamw = optim.AdamW, sgd = optim.SGD, lars = optim.LARS, bertadam = optim.BertAdam })[opt.optimizer]
local adaptive = opt.optimizer == "adamw" or opt.optimizer == "bertadam"
local optimizer = make(model:groups {
  lr = opt.lr, weight_decay = opt.weight_decay, betas = adaptive and { 0.9, opt.beta2 } or nil, momentum = opt.optimizer == "sgd" and 0.9 or nil,
})
local steps = run:steps(train)
local sched = opt.schedule == "cosine" and optim.warmup_cosine(optimizer, { steps = steps, warmup = math.min(opt.warmup, 0.5 * steps), floor = opt.floor })
  or optim.cosine_restarts(optimizer, { period = math.max(1, math.floor(0.4 * steps)) })
run:attach { model = model, optimizers = { [opt.optimizer] = optimizer }, schedules = { sched = sched } }

local normalize = { "normalize", 0.5, 0.5 }
local gentle = { { "jitter", 3, 0.08, 0.06 }, { "gamma" }, { "noise" }, normalize }
local views = { view1 = { normalize }, view2 = gentle }
if opt.augment == "paper" then
  views.view1 = { { "random_crop", size }, normalize }
  views.view2 = { { "random_crop", size }, { "rotate", 0, 90 }, { "affine", 0.1, 0.1, 10 }, { "auto_contrast", 0.5 }, normalize }
elseif store ~= size then
  views.view1 = { { "random_crop", size }, normalize }
  views.view2 = { { "random_crop", size }, unpack(gentle) }
end

-- Control: item i gets the report of another item, the same one at every epoch.
local report = opt.sample and "sample" or "report"
if opt.control == "shuffle" then
  report = function(ds, item, epoch) return ds:sample_text((item * 7919 + 104729) % ds.n + 1, epoch) end
end

for batch in run:batches(train, {
  views = views, channels = channels, tokenizer = tokenizer, max_length = opt.max_length, text = report, bucket = 2, seed = opt.seed,
}) do
  local loss = run:autocast(function()
    local v1, v2 = model:image(batch.view1), model:image(batch.view2)                                     -- encoder + P_v
    local h1, h2 = model:encode_text(batch.tokens, batch.mask), model:encode_text(batch.tokens, batch.mask)   -- two dropout passes
    local ctr, ctr_tf, ctr_tt = losses.ctr(model:project_ctr(h1), model:project_ctr(h2), { terms = opt.ctr })  -- P_d
    return {
      cvl = losses.cvl(v1, model:project_text(h1), { tau = opt.tau }),                                    -- P_l
      ssv = losses.ssv(v1, v2, { tau = opt.ssv_tau }),
      ctr = ctr, ctr_tf = ctr_tf, ctr_tt = ctr_tt,
    }
  end)
  local total = loss.cvl + opt.ssv_weight * loss.ssv + opt.ctr_weight * loss.ctr
  if run:backward(total) then
    local norm = optim.clip_grad_norm(model:parameters(), opt.clip)
    optimizer:step()
    sched:step()
    run:log({ loss = total, cvl = loss.cvl, ssv = loss.ssv, ctr_tf = loss.ctr_tf, ctr_tt = loss.ctr_tt }, { grad_norm = norm })
  end
end

run:skipped(train:errors())

-- The end: zero-shot classification by English and by Spanish prompts, retrieval, the language gap (recipes/evaluate.lua).
evaluate(run, model, tokenizer, {
  data = opt.data, size = store, crop = size, channels = channels, built_in = built_in, seed = opt.seed, prompts = phantom.prompt_file, split = "test",
  -- what chance is, for the built-in set's own encoders; five of the large ones would take longer than the training
  untrained = size <= 64 and function() return medunic.from_options(opt, tokenizer.size, text_config) end or nil,
})
