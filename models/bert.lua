--- BERT encoders (Devlin et al., 2019) with Hugging Face's parameter names.
--
--   bert.bert_base{vocab = 30522}      12 x 768: ids [N,L], mask [N,L] -> [N,L,768]
--   bert.bert_small{vocab = 1000}      2 x 128, for the built-in set
-- @module unic.models.bert
local arguments = require "unic.arguments"
local nn = require "unic.nn"
local core = require "unic.core"
local recompute = require "unic.recompute"
local ops = core.ops.call

local bert = {}

local SIZE, SHARE = { "integer", least = 1 }, { "number", least = 0, most = 1 }

local function linear(from, to, options)
  local l = nn.Linear(from, to, options)
  ops.normal_(l.weight:detach(), 0, 0.02)
  l.bias:detach():fill_(0)
  return l
end

local function table_of(rows, width, options)
  local e = nn.Embedding(rows, width, options)
  ops.normal_(e.weight:detach(), 0, 0.02)
  if options and options.padding then e.weight:detach():narrow(1, options.padding + 1, 1):fill_(0) end
  return e
end

-- embeddings.{word_embeddings, position_embeddings, token_type_embeddings, LayerNorm}
local Embeddings = nn.class "BertEmbeddings"
function Embeddings:init(o)
  self.word_embeddings = table_of(o.vocab, o.width, { padding = o.padding })
  self.position_embeddings = table_of(o.positions, o.width)
  self.token_type_embeddings = table_of(o.types, o.width)
  self.LayerNorm = nn.LayerNorm(o.width, { eps = o.eps })
  self.dropout = nn.Dropout(o.dropout)
end
function Embeddings:forward(ids)
  local length = ids:size(2)
  local words = self.word_embeddings(ids)
  -- Type 0 everywhere: reports are single sequences.
  local places = ops.add(ops.narrow(self.position_embeddings.weight, 1, 1, length), ops.narrow(self.token_type_embeddings.weight, 1, 1, 1))
  return self.dropout(self.LayerNorm(ops.add(words, places)))
end

-- attention.self.{query, key, value}, attention.output.{dense, LayerNorm}
local SelfAttention = nn.class "BertSelfAttention"
function SelfAttention:init(o)
  self.query, self.key, self.value = linear(o.width, o.width), linear(o.width, o.width), linear(o.width, o.width)
  self.heads, self.dropout = o.heads, o.attention_dropout
end
function SelfAttention:forward(x, mask)
  local b, s, w = x:size(1), x:size(2), x:size(3)
  local shape = { b, s, self.heads, w / self.heads }
  local y = ops.attention(ops.reshape(self.query(x), shape), ops.reshape(self.key(x), shape), ops.reshape(self.value(x), shape),
    { mask = mask, dropout = self.training and self.dropout or 0 })
  return ops.reshape(y, { b, s, w })
end

local Output = nn.class "BertOutput"
function Output:init(from, o)
  self.dense = linear(from, o.width)
  self.LayerNorm = nn.LayerNorm(o.width, { eps = o.eps })
  self.dropout = o.dropout
end
function Output:forward(x, residual) return (self.LayerNorm:add(self.dense(x), residual, self.dropout)) end

local Attention = nn.class "BertAttention"
function Attention:init(o)
  self.self = SelfAttention(o)
  self.output = Output(o.width, o)
end
function Attention:forward(x, mask) return self.output(self.self(x, mask), x) end

local Intermediate = nn.class "BertIntermediate"
function Intermediate:init(o) self.dense = linear(o.width, o.hidden, { activation = "gelu" }) end
function Intermediate:forward(x) return self.dense(x) end

local Layer = nn.class "BertLayer"
function Layer:init(o)
  self.attention = Attention(o)
  self.intermediate = Intermediate(o)
  self.output = Output(o.hidden, o)
end
function Layer:forward(x, mask)
  x = self.attention(x, mask)
  return self.output(self.intermediate(x), x)
end

local Encoder = nn.class "BertEncoder"
function Encoder:init(o)
  local layers = nn.List()
  for _ = 1, o.depth do layers:append(Layer(o)) end
  self.layer, self.checkpoint = layers, o.checkpoint
end
function Encoder:forward(x, mask)
  for i = 1, #self.layer do x = recompute.call(self.checkpoint, self.layer[i], x, mask) end
  return x
end

bert.Bert = nn.class "BertModel"

--- @param options `vocab` (its number of tokens, required), `width` (768), `depth` (12), `heads` (12), `hidden` (3072), `positions` (512), `types` (2),
-- `dropout` (0.1), `attention_dropout` (0.1), `eps` (1e-12), `padding` (0, the id of [PAD]),
-- `checkpoint` (layers are computed again in the backward: `unic.checkpoint`)
function bert.Bert:init(options)
  local o = {}
  for key, value in pairs(arguments.options("bert", options, {
    vocab = SIZE, width = SIZE, depth = SIZE, heads = SIZE, hidden = SIZE, positions = SIZE, types = SIZE, dropout = SHARE, attention_dropout = SHARE,
    eps = "number", padding = "integer", checkpoint = "boolean",
  })) do o[key] = value end
  for key, value in pairs { width = 768, depth = 12, heads = 12, hidden = 3072, positions = 512, types = 2, dropout = 0.1, attention_dropout = 0.1, eps = 1e-12, padding = 0 } do
    if o[key] == nil then o[key] = value end
  end
  if not o.vocab then core.fail "[bert] argument 'vocab': it is missing, expected the number of tokens" end
  if o.width % o.heads ~= 0 then core.fail(("[bert] argument 'heads': %d was given, expected a divisor of the width %d"):format(o.heads, o.width)) end
  self.features, self.positions = o.width, o.positions
  self.embeddings = Embeddings(o)
  self.encoder = Encoder(o)
end

--- The last hidden state of every token.
-- @param ids i64 [N,L], L at most `positions`
-- @param mask bool [N,L], true = a token, false = padding (nil: all tokens)
-- @return [N,L,width]
function bert.Bert:forward(ids, mask)
  if ids:size(2) > self.positions then
    core.fail(("[bert] argument 'ids': %d tokens were given, the model has %d positions"):format(ids:size(2), self.positions))
  end
  return self.encoder(self.embeddings(ids), mask)
end

--- Freeze the embeddings and the first layers, as the official code does.
-- @param layers how many of them (0 freezes nothing)
function bert.Bert:freeze(layers)
  if layers <= 0 then return self end
  self.embeddings:requires_grad_(false)
  for i = 1, math.min(layers, #self.encoder.layer) do self.encoder.layer[i]:requires_grad_(false) end
  return self
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
bert.bert_base = named { width = 768, depth = 12, heads = 12, hidden = 3072 }
bert.bert_small = named { width = 128, depth = 2, heads = 4, hidden = 256, positions = 256 }

return bert
