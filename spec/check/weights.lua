-- Files of weights written by torchvision, timm, transformers and NumPy, loaded by name; and what we save, opened by those with strict names
-- Cost: half a minute; needs a python3 with torch, torchvision, timm, transformers and safetensors: PATH=VENV/bin:$PATH ./unic check weights
package.path = "./?.lua;" .. package.path
local support = require "spec.support.check"
local unic = require "unic"
local bert = require "unic.models.bert"
local phantom = require "unic.datasets.phantom"
local resnet = require "unic.models.resnet"
local vit = require "unic.models.vit"
local weights = unic.weights
local check = support.open "weights"

local FOLDER = ".cache/check/weights"
local SCRIPT = "spec/support/weights_files.py"

local _, absent = support.shell "python3 -c 'import torch, torchvision, timm, transformers, safetensors'"
if absent ~= 0 then
  check:skip("files", "the python3 in PATH lacks torch, torchvision, timm, transformers or safetensors")
  check:close()
end

os.execute(("rm -rf %s && mkdir -p %s/back"):format(FOLDER, FOLDER))
local versions, code = support.shell(("python3 -W ignore %s make %s"):format(SCRIPT, FOLDER), { timeout = 580 })
if code ~= 0 then error(versions, 0) end
check:note("reference", versions:match "[^\n]*$")

-- ---------------------------------------------------------------- theirs, loaded here

local function resnet18(classes) return function() return resnet.resnet18 { classes = classes } end end
local function vit_tiny(classes) return function() return vit.Vit { width = 192, depth = 2, heads = 3, classes = classes } end end
local SMALL = { vocab = 90, width = 32, depth = 2, heads = 2, hidden = 64, positions = 40, dropout = 0, attention_dropout = 0 }
local function small(more)
  local o = {}
  for _, from in ipairs { SMALL, more or {} } do
    for key, value in pairs(from) do o[key] = value end
  end
  return o
end
local function masked() return bert.BertForMaskedLM(small()) end
local function encoder(pooler) return function() return bert.Bert(small { pooler = pooler }) end end

-- file, model, map that is to be chosen, how many are left over as expected, prefix of the library's names
local CASES = {
  { "resnet_safetensors/model.safetensors", resnet18(5), "same", 0 },
  { "resnet_safetensors/model.safetensors", resnet18(), "torchvision", 2 },
  { "resnet_pt/model.pt", resnet18(), "torchvision", 2 },
  { "resnet_pt_legacy/model.pt", resnet18(), "torchvision", 2 },
  { "resnet_npz/model.npz", resnet18(), "torchvision", 2 },
  { "resnet_wrapped/checkpoint.pth.tar", resnet18(), "torchvision", 2 },
  { "resnet_bf16/model.pt", resnet18(), "torchvision", 2 },
  { "vit_safetensors/model.safetensors", vit_tiny(5), "same", 0 },
  { "vit_safetensors/model.safetensors", vit_tiny(), "timm", 2 },
  { "vit_deit/model.pth", vit_tiny(), "deit", 2 },
  { "vit_mae/model.pth", vit_tiny(), "mae", 0 },
  { "bert_mlm", masked, "same", 0 },
  { "bert_mlm", encoder(false), "bert", 5, "bert." },
  { "bert_sharded", masked, "same", 0 },
  { "bert_bare", encoder(true), "same", 0 },
  { "bert_bare", encoder(false), "bert", 2 },
  { "bert_bin", masked, "bert", 6 },
  { "bert_bin", encoder(true), "bert", 9, "bert." },
  { "bert_bin_sharded", masked, "bert", 6 },
}

for i, case in ipairs(CASES) do
  local path, make, map, expected, prefix = unpack(case)
  local name = path:match "^[^/]*"
  local ok, why = pcall(function()
    local model, report = weights.build(make, FOLDER .. "/" .. path, { quiet = true })
    local file = unic.files.safetensors_open(("%s/%s.expected.safetensors"):format(FOLDER, name))
    local differ = {}
    for own, t in pairs(model:state_dict()) do
      if not unic.testing.same_bits(file:tensor((prefix or "") .. own), t) then differ[#differ + 1] = own end
    end
    file:close()
    if #differ > 0 then error(#differ .. " differ, such as " .. differ[1], 0) end
    if report.map ~= map then error(("map %s, expected %s"):format(report.map, map), 0) end
    if #report.expected ~= expected or #report.left_over > 0 then
      error(("%d left over (%s)"):format(#report.expected + #report.left_over, table.concat(report.expected, " ")), 0)
    end
  end)
  if not check:holds(("loads_%d_%s"):format(i, name), ok) then print(why) end
end

-- ---------------------------------------------------------------- ours, opened there

local function drawn(model)
  for _, t in pairs(model:state_dict()) do
    if t.dtype == "f32" then t:detach():copy_(unic.randn(t.shape)) end
  end
  return model
end

local tokenizer = unic.text.wordpiece(phantom.vocab)
local back = FOLDER .. "/back/"
weights.save(back .. "resnet.safetensors", drawn(resnet18(5)()))
weights.save(back .. "vit.safetensors", drawn(vit_tiny(5)()))
local mlm = drawn(bert.BertForMaskedLM(small { vocab = tokenizer.size }))
weights.save_pretrained(back .. "bert_mlm", mlm, { config = bert.config(mlm), tokenizer = tokenizer })
weights.save_pretrained(back .. "bert_bf16", mlm, { config = bert.config(mlm), dtype = "bf16" })
local bare = drawn(encoder(true)())
weights.save_pretrained(back .. "bert_bare", bare, { config = bert.config(bare) })
local texts, ids = {}, {}
for i, text in ipairs { "No pleural effusion.", "Sin derrame pleural, índice cardiotorácico NORMAL", "[MASK] edema?", "x-ray of 中文", "ÑANDÚ" } do
  texts[i] = text
  ids[i] = table.concat(tokenizer:encode(text, { specials_in_text = true }), " ")
end
unic.files.write_file(back .. "texts.txt", table.concat(texts, "\n") .. "\n")
unic.files.write_file(back .. "ids.txt", table.concat(ids, "\n") .. "\n")

local said = support.shell(("python3 -W ignore %s back %s"):format(SCRIPT, FOLDER), { timeout = 580 })
for _, name in ipairs { "resnet", "vit", "bert_mlm", "bert_bare", "bert_bf16", "tokenizer" } do
  if not check:holds("back_" .. name, ("\n" .. said .. "\n"):find("\n" .. name .. " equal\n", 1, true)) then print(said) end
end
check:close()
