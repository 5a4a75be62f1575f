--- Embeddings of a data set by a finished run: a safetensors file with `image` and `text` [n, dim] (normalised) and `item` [n], rows counted from 1.
--
--   ./unic recipes/embed.lua --run runs/last --data my.csv --out embeddings.safetensors
local unic = require "unic"
local medunic = require "unic.models.medunic"
local zeroshot = require "unic.zeroshot"

local opt = unic.options {
  usage = "Image and text embeddings of a data set by a finished run.",
  { "run", "runs/last", "the finished run" },
  { "data", "", "data set (default: the run's own, its test part)" },
  { "out", "embeddings.safetensors", "the file to write" },
}
local run = unic.run.open(opt.run)
local device = unic.device(opt.device)
local tokenizer = unic.text.from_pretrained(run.dir)
local model = medunic.from_run(run, tokenizer.size)
run:load(model)
model:to(device)

local pictures = medunic.pictures(run.options)
local source = opt.data ~= "" and opt.data or run.options.data
local ds = unic.data.open(source, { split = (opt.data == "" or source == "phantom") and "test" or nil, size = pictures.store })
local view = { { "normalize", 0.5, 0.5 } }
if pictures.store ~= pictures.size then table.insert(view, 1, { "center_crop", pictures.size }) end

local images, items = zeroshot.images(model, ds, { view = view, channels = pictures.channels, device = device })
local reports = {}
for row, item in ipairs(items) do reports[row] = ds:report(item) end
local texts = zeroshot.texts(model, tokenizer, reports, { device = device })
unic.files.safetensors_save(opt.out, { image = images, text = texts, item = unic.tensor(items, { dtype = "i64" }) }, { run = run.dir, data = source })
print(("%s: %d rows of %d"):format(opt.out, #items, images:size(2)))
