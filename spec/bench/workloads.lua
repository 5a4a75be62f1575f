--- The training steps that `./unic bench` times, the same ones as in peer.py.
--
--   resnet50 vit_b16 vit_l32 bert_base medunic, or with other sizes: "resnet50:batch=4,size=128", "bert_base:batch=8,length=64"
local unic = require "unic"
local nn, losses = unic.nn, unic.losses
local resnet, vit, bert = require "unic.models.resnet", require "unic.models.vit", require "unic.models.bert"
local Medunic = require "unic.models.medunic"

local workloads = { names = { "resnet50", "vit_b16", "bert_base", "vit_l32", "medunic" } }

--- BERT with its pooler and two classes, as for a task on whole texts.
local Classifier = nn.class "BertClassifier"
function Classifier:init(options)
  options.pooler = true
  self.bert, self.classifier = bert.bert_base(options), nn.Linear(768, 2)
end
function Classifier:forward(ids)
  local _, pooled = self.bert(ids)
  return self.classifier(pooled)
end

local function pixels(n, size) return unic.randn(n, 3, size, size) end
local function tokens(n, length) return unic.randint(1, 30522, { n, length }) end

local function classified(model, x, classes)
  return {
    model = model, inputs = { x = x, y = unic.randint(0, classes, { x:size(1) }) },
    loss = function(self)
      local out = self.model(self.inputs.x)
      return losses.cross_entropy(out:to "f32", self.inputs.y)
    end,
  }
end

local MAKE = {}

function MAKE.resnet50(o)
  return classified(resnet.resnet50 { classes = 1000 }, pixels(o.batch or 16, o.size or 224), 1000)
end

function MAKE.vit_b16(o)
  local size = o.size or 224
  return classified(vit.vit_b16 { classes = 1000, size = size }, pixels(o.batch or 8, size), 1000)
end

function MAKE.vit_l32(o)
  return classified(vit.vit_l32 { classes = 1000, drop_path = 0 }, pixels(o.batch or 8, 224), 1000)
end

function MAKE.bert_base(o)
  return classified(Classifier { vocab = 30522, dropout = o.dropout, attention_dropout = o.dropout }, tokens(o.batch or 8, o.length or 128), 2)
end

-- As recipes/pretrain_medunic.lua with --preset official: nine text layers frozen, two views, two dropout passes, all three losses.
function MAKE.medunic(o)
  local n, size = o.batch or 8, o.size or 224
  local model = Medunic { vision = "resnet50", text = "bert_base", vocab = 30522, channels = 3, size = size, dropout = o.dropout }
  model.text_encoder:freeze(9)
  return {
    model = model, inputs = { view1 = pixels(n, size), view2 = pixels(n, size), ids = tokens(n, o.length or 128) }, clip = 1,
    loss = function(self)
      local m, i = self.model, self.inputs
      local v1, v2 = m:image(i.view1), m:image(i.view2)
      local h1, h2 = m:encode_text(i.ids), m:encode_text(i.ids)
      local ctr = losses.ctr(m:project_ctr(h1), m:project_ctr(h2))
      return losses.cvl(v1, m:project_text(h1), { tau = 0.07 }) + losses.ssv(v1, v2, { tau = 0.07 }) + ctr
    end,
  }
end

--- A workload by name.
-- @param name one of `names`, with sizes or without
-- @param[opt] options `dropout` (the model's own)
-- @return {model =, inputs =, loss = function(self), clip =}
function workloads.make(name, options)
  local kind, sizes = name:match "^([%w_]+):?(.*)$"
  local o = { dropout = options and options.dropout }
  for key, value in sizes:gmatch "(%w+)=(%d+)" do o[key] = tonumber(value) end
  if not MAKE[kind] then error(("bench: no workload '%s', expected one of: %s"):format(tostring(name), table.concat(workloads.names, ", ")), 0) end
  return MAKE[kind](o)
end

return workloads
