--- What BERT is made of: embeddings, attention, layers, the encoder; and the head of masked language modelling. Names are Hugging Face's.
-- `o` is what unic.models.bert makes of the options: every size and rate is set.
-- @module unic.models.bert_layers
local nn = require "unic.nn"
local core = require "unic.core"
local make = require("unic.tensor").exports
local ops = core.ops.call

local layers = {}

local function linear(from, to, options)
  local l = nn.Linear(from, to, options)
  ops.normal_(l.weight:detach(), 0, 0.02)
  l.bias:detach():fill_(0)
  return l
end

local function table_of(rows, width, options)
  local e = nn.Embedding(rows, width, options)
  ops.normal_(e.weight:detach(), 0, 0.02)
  if options and options.padding >= 0 then e.weight:detach():narrow(1, options.padding + 1, 1):fill_(0) end
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
-- ids [N,L]; types i64 [N,L], or nil: type 0 everywhere, as of single sequences.
function Embeddings:forward(ids, types)
  local sum = ops.narrow(self.position_embeddings.weight, 1, 1, ids:size(2))
  if types then
    sum = ops.add(self.token_type_embeddings(types), sum)
  else
    sum = ops.add(sum, ops.narrow(self.token_type_embeddings.weight, 1, 1, 1))
  end
  return self.dropout(self.LayerNorm(ops.add(self.word_embeddings(ids), sum)))
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
  self.layer = nn.List()
  for _ = 1, o.depth do self.layer:append(Layer(o)) end
end
-- `states`: a list that gets every layer's output, or nil.
function Encoder:forward(x, mask, states)
  for i = 1, #self.layer do
    x = self.layer[i](x, mask)
    if states then states[#states + 1] = x end
  end
  return x
end

-- pooler.dense: tanh of a projection of the first token.
local Pooler = nn.class "BertPooler"
function Pooler:init(o) self.dense = linear(o.width, o.width) end
function Pooler:forward(hidden) return ops.tanh(self.dense(ops.select(hidden, 2, 1))) end

-- cls.predictions.transform.{dense, LayerNorm}
local Transform = nn.class "BertPredictionHeadTransform"
function Transform:init(o)
  self.dense = linear(o.width, o.width, { activation = "gelu" })
  self.LayerNorm = nn.LayerNorm(o.width, { eps = o.eps })
end
function Transform:forward(x) return self.LayerNorm(self.dense(x)) end

-- cls.predictions.{bias, transform}: its other matrix is that of the word embeddings, which is handed in.
local Predictions = nn.class "BertLMPredictionHead"
function Predictions:init(o)
  self.bias = nn.Parameter(make.zeros(o.vocab))
  self.transform = Transform(o)
end
function Predictions:forward(x, words) return ops.linear(self.transform(x), words, self.bias, "none") end

local Head = nn.class "BertOnlyMLMHead"
function Head:init(o) self.predictions = Predictions(o) end
function Head:forward(x, words) return self.predictions(x, words) end

layers.Embeddings, layers.Encoder, layers.Pooler, layers.Head = Embeddings, Encoder, Pooler, Head

return layers
