--- Med-UniC: an image encoder, a text encoder, and three projectors.
--
--   P_v (proj_v)   image features -> joint space, used by CVL and SSV
--   P_l (proj_l)   text features  -> joint space, used by CVL and for zero-shot prompts
--   P_d (proj_d)   text features  -> the space of CTR
-- @module unic.models.medunic
local arguments = require "unic.arguments"
local nn = require "unic.nn"
local core = require "unic.core"
local resnet = require "unic.models.resnet"
local vit = require "unic.models.vit"
local bert = require "unic.models.bert"
local Projector = require "unic.models.projector"
local ops = core.ops.call

local VISION = { resnet_small = resnet.resnet_small, vit_small = vit.vit_small, vit_b16 = vit.vit_b16, vit_l32 = vit.vit_l32 }
for _, depth in ipairs { 18, 34, 50, 101, 152 } do VISION["resnet" .. depth] = resnet["resnet" .. depth] end
local TEXT = { bert_small = bert.bert_small, bert_base = bert.bert_base }

local function pick(kind, name, from)
  if from[name] then return from[name] end
  local names = {}
  for key in pairs(from) do names[#names + 1] = key end
  table.sort(names)
  local near = core.nearest(tostring(name), names)
  local hint = near and (", did you mean '%s'?"):format(near) or "; there are: " .. table.concat(names, ", ")
  core.fail(("[medunic] argument '%s': there is no '%s'%s"):format(kind, tostring(name), hint))
end

local SIZE = { "integer", least = 1 }

local Medunic = nn.class "Medunic"

--- @param options `vision` and `text` (names of encoders), `text_config` (the text encoder as a Hugging Face config.json says, instead of `text`),
-- `vocab` (number of tokens), `channels` (of the pictures), `size` (their side), `dim` (512, joint space), `ctr_dim` (512), `hidden` (2048, of the
-- projectors), `pool` ("cls" or "mean", of the text), `dropout` (of the text encoder; 0.1, or as text_config says), `position_map` (false; small
-- networks: the last feature map, reduced, stands beside the pooled features, which keeps left and right apart)
function Medunic:init(options)
  local o = arguments.options("medunic", options, {
    vision = "string", text = "string", vocab = SIZE, channels = SIZE, size = SIZE, dim = SIZE, ctr_dim = SIZE, hidden = SIZE,
    pool = { "choice", "cls", "mean" }, dropout = { "number", least = 0, most = 1 }, position_map = "boolean",
    text_config = "table",
  })
  arguments.check("medunic", "vision", o.vision, "string")
  if not o.text_config then arguments.check("medunic", "text", o.text, "string") end
  local is_vit = o.vision:find "^vit" ~= nil
  self.image_encoder = pick("vision", o.vision, VISION){ channels = o.channels, size = is_vit and o.size or nil }
  local bert_options = { vocab = o.vocab, dropout = o.dropout, attention_dropout = o.dropout }
  if o.text_config then
    bert_options.head = "none"
    self.text_encoder = bert.from_config(o.text_config, bert_options)
  else
    self.text_encoder = pick("text", o.text, TEXT)(bert_options)
  end
  self.pool = o.pool or "cls"
  local features = self.image_encoder.features
  if o.position_map then
    if is_vit then core.fail "[medunic] argument 'position_map': it needs a convolutional encoder" end
    local side = math.ceil(arguments.check("medunic", "size", o.size, SIZE) / 16)
    self.reduce = nn.Conv2d(features, 16, 1)
    self.mix = nn.Linear(features + 16 * side * side, 2 * features, { activation = "relu" })
    features = 2 * features
  end
  self.proj_v = Projector(features, o.dim or 512, o.hidden)
  self.proj_l = Projector(self.text_encoder.features, o.dim or 512, o.hidden)
  self.proj_d = Projector(self.text_encoder.features, o.ctr_dim or 512, o.hidden)
end

--- What a recipe's options say of pictures: small encoders see the built-in set's 64 x 64 in one channel, the others crops of 224 from 256 in three.
-- @param opt `vision`, `size` and `store` (0 = as the encoder asks)
-- @return {size = what the network sees, store = what is kept and cropped from, channels =}
function Medunic.pictures(opt)
  local small = opt.vision == "resnet_small" or opt.vision == "vit_small"
  local size = opt.size > 0 and opt.size or small and 64 or 224
  return { size = size, store = opt.store > 0 and opt.store or small and size or math.floor(size * 256 / 224 + 0.5), channels = small and 1 or 3 }
end

--- The model that a recipe's options describe, with fresh weights.
-- @param opt the options of recipes/pretrain_medunic.lua
-- @param vocab number of tokens
-- @param[opt] text_config the text encoder as a Hugging Face config.json says, its vocabulary and dropout too (else by `opt.text` and `opt.dropout`)
-- @return a Medunic
function Medunic.from_options(opt, vocab, text_config)
  local pictures = Medunic.pictures(opt)
  return Medunic {
    vision = opt.vision, text = opt.text, vocab = text_config and text_config.vocab_size or vocab, channels = pictures.channels,
    size = pictures.size, dim = opt.dim, ctr_dim = opt.ctr_dim,
    hidden = opt.hidden, pool = opt.pool, dropout = not text_config and opt.dropout or nil, text_config = text_config, position_map = opt.map and opt.vision == "resnet_small",
  }
end

--- The file in a run's folder that says what its text encoder is, when it is none of those with a name.
-- @param dir the folder
-- @return a path
function Medunic.text_config(dir) return dir .. "/text_config.json" end

--- The model of a finished run, with fresh weights.
-- @param run what `unic.run.open` gave
-- @param vocab number of tokens
-- @return a Medunic
function Medunic.from_run(run, vocab)
  return Medunic.from_options(run.options, vocab, bert.read_config(Medunic.text_config(run.dir)))
end

--- Image features before projection.
-- @param x [N,C,H,W]
-- @return [N,features]
function Medunic:encode_image(x)
  local pooled, map = self.image_encoder(x)
  if not self.reduce then return pooled end
  local places = ops.flatten(ops.contiguous(self.reduce(map)), 2)
  return self.mix(ops.cat({ pooled, ops.cast(places, pooled.dtype) }, 2))
end

--- Image embeddings in the joint space (encoder + P_v).
-- @param x [N,C,H,W]
-- @return [N,dim]
function Medunic:image(x) return self.proj_v(self:encode_image(x)) end

--- Text features: the class token's last hidden state, or the mean over tokens. Two calls in training mode differ by their dropout: the two
-- views of CTR.
-- @param ids i64 [N,L]
-- @param mask bool [N,L]
-- @return [N,width]
function Medunic:encode_text(ids, mask)
  local hidden = self.text_encoder(ids, mask)
  if self.pool == "mean" then return bert.mean(hidden, mask) end
  return ops.select(hidden, 2, 1)
end

--- Text embeddings in the joint space (P_l of text features).
function Medunic:project_text(h) return self.proj_l(h) end
--- Text embeddings in the space of CTR (P_d of text features).
function Medunic:project_ctr(h) return self.proj_d(h) end
--- Text embeddings in the joint space from token ids.
function Medunic:text(ids, mask) return self.proj_l(self:encode_text(ids, mask)) end

return Medunic
