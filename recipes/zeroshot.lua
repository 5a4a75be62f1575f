--- Ask a finished run: zero-shot classification, retrieval, language gap, on the set it was trained with or another one. Adds to the run's eval.csv
-- and predictions.csv.
--
--   ./unic recipes/zeroshot.lua --run runs/last
--   ./unic recipes/zeroshot.lua --run runs/pretrain_medunic/3 --data my.csv --prompts my_prompts.csv
local unic = require "unic"
local medunic = require "unic.models.medunic"
local phantom = require "unic.datasets.phantom"
local evaluate = require "unic.recipes.evaluate"

local opt = unic.options {
  usage = "Zero-shot classification with a finished run.",
  { "run", "runs/last", "the finished run" },
  { "data", "", "data set (default: the run's own)" },
  { "prompts", phantom.prompt_file, "prompts: set,finding,language,polarity,text" },
  { "split", "test", "part of the run's own set; another is asked in full", choices = { "val", "test" } },
}
local run = unic.run.open(opt.run)
local tokenizer = unic.text.from_pretrained(run.dir)
local model = medunic.from_run(run, tokenizer.size)
run:load(model)

local pictures = medunic.pictures(run.options)
local source = opt.data ~= "" and opt.data or run.options.data
evaluate(run, model:to(unic.device(opt.device)), tokenizer, {
  data = source, size = pictures.store, crop = pictures.size, channels = pictures.channels, built_in = source == "phantom", seed = run.options.seed,
  prompts = opt.prompts, split = (opt.data == "" or source == "phantom") and opt.split or nil,
})
