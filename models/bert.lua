--- BERT encoders (Devlin et al., 2019) with Hugging Face's parameter names.
--
--   bert.bert_base{vocab = 30522}              12 x 768: ids [N,L], mask [N,L] -> [N,L,768]
--   bert.bert_small{vocab = 1000}              2 x 128, for the built-in set
--   bert.BertForMaskedLM{vocab = 30522}        with the head that predicts tokens -> [N,L,vocab]; CXR-BERT is one (its projection is left over)
--   bert.from_config(config, {dropout = 0})    as a Hugging Face config.json says
--   bert.from_pretrained("some/folder")        as a Hugging Face folder says, with its weights
-- @module unic.models.bert
local arguments = require "unic.arguments"
local nn = require "unic.nn"
local core = require "unic.core"
local layers = require "unic.models.bert_layers"
local files = require "unic.files"
local json = require "unic.json"
local losses = require "unic.losses"
local make = require("unic.tensor").exports
local weight_files = require "unic.weights"
local ops = core.ops.call

local bert = {}

local SIZE, SHARE = { "integer", least = 1 }, { "number", least = 0, most = 1 }
local KNOWN = {
  vocab = SIZE, width = SIZE, depth = SIZE, heads = SIZE, hidden = SIZE, positions = SIZE, types = SIZE, dropout = SHARE, attention_dropout = SHARE,
  eps = "number", padding = { "integer", least = -1 }, pooler = "boolean",
}
local DEFAULT = {
  width = 768, depth = 12, heads = 12, hidden = 3072, positions = 512, types = 2, dropout = 0.1, attention_dropout = 0.1, eps = 1e-12, padding = 0,
}

bert.Bert = nn.class "BertModel"

--- @param options `vocab` (its number of tokens, required), `width` (768), `depth` (12), `heads` (12), `hidden` (3072), `positions` (512), `types` (2),
-- `dropout` (0.1), `attention_dropout` (0.1), `eps` (1e-12), `padding` (0, the id of [PAD]; -1: none), `pooler` (false; a projection of the class
-- token through tanh, as in models made for next-sentence prediction)
function bert.Bert:init(options)
  local o = {}
  for key, value in pairs(arguments.options("bert", options, KNOWN)) do o[key] = value end
  for key, value in pairs(DEFAULT) do
    if o[key] == nil then o[key] = value end
  end
  if not o.vocab then core.fail "[bert] argument 'vocab': it is missing, expected the number of tokens" end
  if o.width % o.heads ~= 0 then core.fail(("[bert] argument 'heads': %d was given, expected a divisor of the width %d"):format(o.heads, o.width)) end
  self.settings, self.features, self.positions = o, o.width, o.positions
  self.embeddings = layers.Embeddings(o)
  self.encoder = layers.Encoder(o)
  if o.pooler then self.pooler = layers.Pooler(o) end
end

local function check_length(self, ids)
  if ids:size(2) > self.positions then
    core.fail(("[bert] argument 'ids': %d tokens were given, the model has %d positions"):format(ids:size(2), self.positions))
  end
end

--- The last hidden state of every token.
-- @param ids i64 [N,L], L at most `positions`
-- @param mask bool [N,L], true = a token, false = padding (nil: all tokens)
-- @param types i64 [N,L], which of two sequences a token is in, 0 or 1 (nil: 0 everywhere)
-- @return [N,L,width]; with a pooler then its output [N,width]
function bert.Bert:forward(ids, mask, types)
  check_length(self, ids)
  local hidden = self.encoder(self.embeddings(ids, types), mask)
  if not self.pooler then return hidden end
  return hidden, self.pooler(hidden)
end

--- The hidden states of every layer, Hugging Face's `hidden_states`.
-- @param ids i64 [N,L]
-- @param mask bool [N,L] (nil: all tokens)
-- @param types i64 [N,L] (nil: 0 everywhere)
-- @return a list of depth + 1 tensors [N,L,width]: the embeddings, then the output of each layer; the last one is what forward returns
function bert.Bert:states(ids, mask, types)
  check_length(self, ids)
  local states = { self.embeddings(ids, types) }
  self.encoder(states[1], mask, states)
  return states
end

--- Freeze the embeddings and the first layers, as the official code does. Their dropout stays: it goes with training mode, not with gradients.
-- @param count how many layers (0 freezes nothing, the depth or more all of them), or "all": the pooler too
-- @return self
function bert.Bert:freeze(count)
  if count == "all" then return self:requires_grad_(false) end
  arguments.check("bert:freeze", "count", count, { text = 'a number of layers of 0 or more, or "all"',
    test = function(n) return type(n) == "number" and n >= 0 and n % 1 == 0 end })
  if count == 0 then return self end
  self.embeddings:requires_grad_(false)
  for i = 1, math.min(count, #self.encoder.layer) do self.encoder.layer[i]:requires_grad_(false) end
  return self
end

bert.BertForMaskedLM = nn.class "BertForMaskedLM"

--- BERT with the head of masked language modelling. Logits are products with the word embeddings, which are stored once (tied).
-- @param options those of bert.Bert
function bert.BertForMaskedLM:init(options)
  self.bert = bert.Bert(options)
  self.cls = layers.Head(self.bert.settings)
  self.features = self.bert.features
end

--- Logits of hidden states: of all places, or of chosen rows only, which spares most of the work.
-- @param hidden [M,width] or [N,L,width]
-- @return [M,vocab] or [N,L,vocab]
function bert.BertForMaskedLM:predict(hidden) return self.cls(hidden, self.bert.embeddings.word_embeddings.weight) end

--- Logits of every place.
-- @param ids i64 [N,L]
-- @param mask bool [N,L] (nil: all tokens)
-- @param types i64 [N,L] (nil: 0 everywhere)
-- @return [N,L,vocab]
function bert.BertForMaskedLM:forward(ids, mask, types) return self:predict((self.bert(ids, mask, types))) end

--- Mean cross-entropy of the places that have a label.
-- @param ids i64 [N,L]
-- @param mask bool [N,L] (nil: all tokens)
-- @param labels i64 [N,L], the token that belongs there; -100 where nothing is asked
-- @param types i64 [N,L] (nil: 0 everywhere)
-- @return a tensor without dimensions; 0 where no place has a label
function bert.BertForMaskedLM:loss(ids, mask, labels, types)
  local logits = self:forward(ids, mask, types)
  local n, l, v = logits:size(1), logits:size(2), logits:size(3)
  return losses.cross_entropy(ops.reshape(logits, { n * l, v }), ops.reshape(labels, { n * l }))
end

--- Freeze the embeddings and the first layers; the word embeddings are the head's matrix too, so that this also fixes it.
-- @param count as of bert.Bert
-- @return self
function bert.BertForMaskedLM:freeze(count)
  self.bert:freeze(count)
  return self
end

-- ---------------------------------------------------------------- Hugging Face's config.json

-- Its fields and ours.
local FIELDS = {
  vocab_size = "vocab", hidden_size = "width", num_hidden_layers = "depth", num_attention_heads = "heads", intermediate_size = "hidden",
  max_position_embeddings = "positions", type_vocab_size = "types", hidden_dropout_prob = "dropout", attention_probs_dropout_prob = "attention_dropout",
  layer_norm_eps = "eps", pad_token_id = "padding",
}
-- What is one thing here and may be another there: other values are refused rather than computed wrongly.
local FIXED = { hidden_act = "gelu", position_embedding_type = "absolute", is_decoder = false, add_cross_attention = false, tie_word_embeddings = true }

local function encoder_of(op, model)
  local encoder = nn.is_module(model) and (model.settings and model or model.bert)
  if not encoder or not encoder.settings then
    core.fail(("[%s] argument 'model': %s, expected a bert.Bert or a bert.BertForMaskedLM"):format(op, nn.is_module(model) and "another module" or arguments.describe(model)))
  end
  return encoder
end

--- What a model is, as the fields of a Hugging Face config.json.
-- @param model a bert.Bert or a bert.BertForMaskedLM
-- @return a table that cjson can write
function bert.config(model)
  local o = encoder_of("bert.config", model).settings
  local config = { model_type = "bert", architectures = { model.cls and "BertForMaskedLM" or "BertModel" }, initializer_range = 0.02 }
  for theirs, ours in pairs(FIELDS) do config[theirs] = o[ours] end
  for name, value in pairs(FIXED) do config[name] = value end
  if config.pad_token_id < 0 then config.pad_token_id = nil end
  return config
end

-- Models with a head for masked tokens.
local MASKED = { BertForMaskedLM = true, BertForPreTraining = true, CXRBertModel = true, CXRBertForMaskedLM = true }

--- The model that a config.json describes, with fresh weights.
-- @param config its decoded fields; those that are missing have BERT-base's values, as in Hugging Face's library
-- @param overrides options of bert.Bert that count instead (`dropout`, `pooler`, ...), and `head`: "mlm" or "none" (by `architectures`:
-- a model with a head for masked tokens has it)
-- @return a bert.BertForMaskedLM, or a bert.Bert
function bert.from_config(config, overrides)
  arguments.check("bert.from_config", "config", config, "table")
  local known = { head = { "choice", "mlm", "none" } }
  for name, kind in pairs(KNOWN) do known[name] = kind end
  overrides = arguments.options("bert.from_config", overrides, known)
  local function field(name)
    local value = config[name]
    return type(value) ~= "userdata" and value or nil   -- cjson's null is userdata
  end
  local kind = field "model_type"
  if kind and kind ~= "bert" and kind ~= "cxr-bert" then
    core.fail(("[bert.from_config] argument 'config': model_type is '%s', expected 'bert'"):format(tostring(kind)))
  end
  local head = overrides.head
  for _, name in ipairs(field "architectures" or {}) do head = head or MASKED[name] and "mlm" end
  for name, value in pairs(FIXED) do
    local given = config[name]
    if given ~= nil and type(given) ~= "userdata" and given ~= value and (head == "mlm" or name ~= "tie_word_embeddings") then
      core.fail(("[bert.from_config] argument 'config': %s is '%s', expected '%s'"):format(name, tostring(given), tostring(value)))
    end
  end
  local o = { vocab = 30522 }
  for theirs, ours in pairs(FIELDS) do
    local value = field(theirs)
    if value ~= nil then o[ours] = arguments.check("bert.from_config", theirs, value, KNOWN[ours]) end
  end
  for name, value in pairs(overrides) do
    if name ~= "head" then o[name] = value end
  end
  return head == "mlm" and bert.BertForMaskedLM(o) or bert.Bert(o)
end

--- Keep what a model is beside other files: `config` as a JSON file, for `read_config`.
-- @param path the file
-- @param model a bert.Bert or a bert.BertForMaskedLM
-- @param[opt] more further fields
function bert.write_config(path, model, more)
  local config = bert.config(model)
  for key, value in pairs(more or {}) do config[key] = value end
  files.write_file(path, json.encode("bert.write_config", "argument 'more'", config))
end

--- What `write_config` wrote.
-- @param path the file
-- @return its fields, for `from_config`; nil where there is no such file
function bert.read_config(path)
  local file = io.open(path, "r")
  if not file then return nil end
  file:close()
  return json.read("bert.read_config", path)
end

--- The model of a Hugging Face folder with its weights: its config.json says what it is. Initial values are drawn only where a weight is missing.
-- @param path the folder
-- @param overrides as of from_config
-- @param options of unic.weights.load: `map`, `missing`, `quiet`, ...
-- @return a bert.BertForMaskedLM, or a bert.Bert; the report of the loading
function bert.from_pretrained(path, overrides, options)
  local file = weight_files.open(path)
  if not file.config then arguments.fail("bert.from_pretrained", "argument 'path': '%s' has no config.json, expected a Hugging Face folder", path) end
  local model, report = weight_files.build(function() return bert.from_config(file.config, overrides) end, file, options)
  file:close()
  return model, report
end

--- Grow the vocabulary: word embeddings get rows from N(0, 0.02^2), the head's bias zeros; what is there stays as it is. The parameters are new
-- tensors: make optimisers after this.
-- @param model a bert.Bert or a bert.BertForMaskedLM
-- @param rows the new number of tokens, at least the old one
-- @return model
function bert.extend(model, rows)
  local encoder = encoder_of("bert.extend", model)
  local words = encoder.embeddings.word_embeddings
  arguments.check("bert.extend", "rows", rows, { "integer", least = words.rows })
  if rows == words.rows then return model end
  local function grow(owner, name, fill)
    local old = owner[name]
    local more = fill(old)
    local new = nn.Parameter(ops.cat({ old:detach(), more }, 1))
    new.requires_grad = old.requires_grad
    rawset(owner, name, new)
  end
  grow(words, "weight", function(old)
    local more = make.empty({ rows - old:size(1), old:size(2) }, { dtype = old.dtype, device = old.device })
    return ops.normal_(more, 0, 0.02)
  end)
  if model.cls then
    grow(model.cls.predictions, "bias", function(old) return make.zeros({ rows - old:size(1) }, { dtype = old.dtype, device = old.device }) end)
  end
  words.rows, encoder.settings.vocab = rows, rows
  return model
end

--- Mean over the tokens that are not padding.
-- @param hidden [N,L,width]
-- @param mask bool [N,L]
-- @return [N,width]
function bert.mean(hidden, mask)
  local weights = ops.cast(mask, hidden.dtype)
  weights = ops.div(weights, ops.sum(weights, { 2 }, true))
  local n, l = mask:size(1), mask:size(2)
  return ops.reshape(ops.matmul(ops.reshape(weights, { n, 1, l }), hidden), { n, hidden:size(3) })
end

local function named(defaults)
  return function(options)
    local all = {}
    for key, value in pairs(defaults) do all[key] = value end
    for key, value in pairs(arguments.default("bert", "options", options, "table", {})) do all[key] = value end
    return bert.Bert(all)
  end
end

--- The encoders that have names, as options of bert.Bert and bert.BertForMaskedLM without `vocab`.
bert.sizes = {
  bert_base = { width = 768, depth = 12, heads = 12, hidden = 3072 },
  bert_small = { width = 128, depth = 2, heads = 4, hidden = 256, positions = 256 },
}
bert.bert_base, bert.bert_small = named(bert.sizes.bert_base), named(bert.sizes.bert_small)

return bert
