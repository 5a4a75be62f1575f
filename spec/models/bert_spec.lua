local unic = require "unic"
local bert = require "unic.models.bert"

local SMALL = { vocab = 11, width = 8, depth = 2, heads = 2, hidden = 12, positions = 6, dropout = 0, attention_dropout = 0 }

local function options(more)
  local o = {}
  for key, value in pairs(SMALL) do o[key] = value end
  for key, value in pairs(more or {}) do o[key] = value end
  return o
end

describe("bert", function()
  local ids, mask, labels
  setup(function()
    unic.manual_seed(4)
    ids = unic.tensor({ { 2, 7, 9, 3 }, { 2, 5, 3, 0 } }, { dtype = "i64" })
    mask = unic.tensor { { true, true, true, true }, { true, true, true, false } }
    labels = unic.tensor({ { -100, 8, -100, -100 }, { -100, 5, 10, -100 } }, { dtype = "i64" })
  end)

  it("for masked tokens has Hugging Face's names, the decoder tied", function()
    local names = bert.BertForMaskedLM(options()):state_names()
    table.sort(names)
    local heads = {}
    for _, name in ipairs(names) do
      if not name:find "^bert%." then heads[#heads + 1] = name end
    end
    assert.same({ "cls.predictions.bias", "cls.predictions.transform.LayerNorm.bias", "cls.predictions.transform.LayerNorm.weight",
      "cls.predictions.transform.dense.bias", "cls.predictions.transform.dense.weight" }, heads)
    assert.equal(5 + 2 * 16 + 5, #names)
    local full = bert.BertForMaskedLM { vocab = 30522, depth = 1 }
    assert.equal(30522 * 768 + 512 * 768 + 2 * 768 + 2 * 768 + 7087872 + 768 * 768 + 3 * 768 + 30522, full:count())
  end)

  it("the loss is the mean over labelled places, of logits of chosen rows as of all", function()
    local model = bert.BertForMaskedLM(options())
    local logits = model(ids, mask)
    assert.same({ 2, 4, 11 }, logits.shape)
    local hidden = unic.reshape(model.bert(ids, mask), { 8, 8 })
    local rows = unic.index_select(hidden, 1, unic.tensor({ 1, 5, 6 }, { dtype = "i64" }))
    local some = model:predict(rows)
    assert.close(some, unic.index_select(unic.reshape(logits, { 8, 11 }), 1, unic.tensor({ 1, 5, 6 }, { dtype = "i64" })), 1e-6)
    local loss = model:loss(ids, mask, labels)
    assert.close(loss, unic.losses.cross_entropy(some, unic.tensor({ 8, 5, 10 }, { dtype = "i64" })), 1e-6)
    assert.close(model:loss(ids, mask, unic.full({ 2, 4 }, -100, { dtype = "i64" })), unic.tensor(0), 0)
  end)

  it("the tied matrix gets the gradients of both its uses, the padding row that of the head alone", function()
    local model = bert.BertForMaskedLM(options()):to "f64"
    local words = model.bert.embeddings.word_embeddings.weight
    model:loss(ids, mask, labels):backward()
    for _, p in ipairs(model:named_parameters()) do assert.is_truthy(p.value.grad, p.name) end
    local grad = words.grad
    -- Differences of the loss. The padding row: the loss hangs on it through the lookup too, but no gradient is sent there, so hide it from the lookup.
    for _, row in ipairs { 1, 3, 6, 8 } do
      for column = 1, 8, 3 do
        local cell, h, at = words:detach():narrow(1, row, 1):narrow(2, column, 1), 1e-5, {}
        local function loss() return unic.no_grad(function()
          local where = row == 1 and unic.tensor({ { 2, 7, 9, 3 }, { 2, 5, 3, 3 } }, { dtype = "i64" }) or ids
          return model:loss(where, mask, labels):item()
        end) end
        for i, sign in ipairs { 1, -1 } do
          cell:add_(sign * h)
          at[i] = loss()
          cell:add_(-sign * h)
        end
        assert.close(grad[row][column]:item(), (at[1] - at[2]) / (2 * h), 1e-8)
      end
    end
  end)

  it("token types, the pooler and the states of every layer", function()
    local model = bert.Bert(options { pooler = true })
    local hidden, pooled = model(ids, mask)
    assert.same({ 2, 8 }, pooled.shape)
    assert.close(pooled, unic.tanh(model.pooler.dense(unic.select(hidden, 2, 1))), 1e-6)
    assert.is_truthy(model:state_dict()["pooler.dense.weight"])
    assert.same_bits(hidden, (model(ids, mask, unic.zeros(2, 4, { dtype = "i64" }))))
    local second = unic.tensor({ { 0, 0, 1, 1 }, { 0, 0, 0, 0 } }, { dtype = "i64" })
    local other = model(ids, mask, second)
    assert.is_false(unic.testing.same_bits(hidden[1], other[1]))
    assert.same_bits(hidden[2], other[2])
    local states = model:states(ids, mask)
    assert.equal(3, #states)
    assert.same_bits(states[3], hidden)
    assert.same_bits(states[2], model.encoder.layer[1](states[1], mask))
    assert.raises_at(nil, "7 tokens were given, the model has 6 positions", function() model:states(unic.zeros(1, 7, { dtype = "i64" })) end)
  end)

  it("freezes the embeddings and so many layers, or all", function()
    local function frozen(count)
      local model, n = bert.Bert(options { pooler = true }), 0
      model:freeze(count)
      for _, p in ipairs(model:parameters()) do n = n + (p.requires_grad and 0 or 1) end
      return n, model
    end
    assert.equal(0, (frozen(0)))
    assert.equal(5 + 16, (frozen(1)))
    assert.equal(5 + 32, (frozen(2)))
    assert.equal(5 + 32, (frozen(12)))
    local n, model = frozen "all"
    assert.equal(5 + 32 + 2, n)
    assert.is_false((model(ids, mask)).requires_grad)
    assert.raises_at(nil, "argument 'count': the string \"some\", expected a number of layers of 0 or more, or \"all\"", function() model:freeze "some" end)
  end)

  it("has the same gradients in low memory", function()
    local plain, again = bert.BertForMaskedLM(options()), bert.BertForMaskedLM(options())
    again:load_state_dict(plain:state_dict())
    plain:loss(ids, mask, labels):backward()
    unic.low_memory(function() return again:loss(ids, mask, labels) end):backward()
    local grads = {}
    for _, p in ipairs(plain:named_parameters()) do grads[p.name] = p.value.grad end
    for _, p in ipairs(again:named_parameters()) do assert.same_bits(grads[p.name], p.value.grad) end
  end)

  it("a config.json makes a model, and a model a config.json", function()
    local config = { vocab_size = 11, hidden_size = 8, num_hidden_layers = 2, num_attention_heads = 2, intermediate_size = 12, max_position_embeddings = 6,
      hidden_dropout_prob = 0.2, attention_probs_dropout_prob = 0.3, layer_norm_eps = 1e-7, hidden_act = "gelu", pad_token_id = require("cjson").null,
      architectures = { "BertForMaskedLM" }, model_type = "bert", something_else = { 1 } }
    local model = bert.from_config(config)
    local layer = model.bert.encoder.layer[2]
    assert.equal(0.2, model.bert.embeddings.dropout.p)
    assert.equal(0.2, layer.output.dropout)
    assert.equal(0.3, layer.attention.self.dropout)
    assert.equal(1e-7, layer.output.LayerNorm.eps)
    assert.equal(1e-7, model.cls.predictions.transform.LayerNorm.eps)
    assert.equal(2, model.bert.embeddings.token_type_embeddings.rows)
    local back = bert.config(model)
    for _, name in ipairs { "vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "max_position_embeddings",
      "hidden_dropout_prob", "attention_probs_dropout_prob", "layer_norm_eps", "hidden_act", "model_type" } do assert.equal(config[name], back[name], name) end
    assert.same({ "BertForMaskedLM" }, back.architectures)
    assert.same({ "BertModel" }, bert.config(model.bert).architectures)
    assert.same(bert.config(bert.from_config(back)), back)
    local plain = bert.from_config(config, { head = "none", dropout = 0, vocab = 20 })
    assert.equal(0, plain.embeddings.dropout.p)
    assert.equal(20, plain.embeddings.word_embeddings.rows)
    assert.is_nil(plain.cls)
    assert.is_truthy(bert.from_config({ vocab_size = 5, hidden_size = 8, num_attention_heads = 2, num_hidden_layers = 1, intermediate_size = 8 }, { head = "mlm" }).cls)
  end)

  it("what a config.json asks for and there is not is refused", function()
    for _, case in ipairs {
      { { model_type = "roberta" }, "model_type is 'roberta', expected 'bert'" },
      { { hidden_act = "relu" }, "hidden_act is 'relu', expected 'gelu'" },
      { { position_embedding_type = "relative_key" }, "position_embedding_type is 'relative_key', expected 'absolute'" },
      { { tie_word_embeddings = false, architectures = { "BertForMaskedLM" } }, "tie_word_embeddings is 'false', expected 'true'" },
      { { hidden_size = "wide" }, "argument 'hidden_size': the string \"wide\", expected an integer of 1 or more" },
    } do assert.raises_at(nil, case[2], function() bert.from_config(case[1]) end) end
    assert.raises_at(nil, "did you mean 'dropout'", function() bert.from_config({}, { droput = 0 }) end)
    assert.raises_at(nil, "another module, expected a bert.Bert", function() bert.config(unic.nn.Linear(2, 2)) end)
    assert.raises_at(nil, "a number of layers", function() bert.Bert(options()):freeze(-1) end)
  end)

  it("extends its vocabulary: old tokens keep their logits, new ones start at small vectors and bias 0", function()
    local model = bert.BertForMaskedLM(options())
    model.cls.predictions.bias:detach():fill_(0.5)
    local before, old = model(ids, mask), model.bert.embeddings.word_embeddings.weight:detach():clone()
    assert.equal(model, bert.extend(model, 400))
    local words, bias = model.bert.embeddings.word_embeddings.weight, model.cls.predictions.bias
    assert.same({ 400, 8 }, words.shape)
    assert.same_bits(old, words:detach():narrow(1, 1, 11))
    assert.close(model(ids, mask):narrow(3, 1, 11), before, 1e-6)
    assert.close(bias, unic.cat({ unic.full({ 11 }, 0.5), unic.zeros(389) }, 1), 0)
    local new = words:detach():narrow(1, 12, 389)
    local std = new:square():mean():sqrt():item()
    assert.is_true(std > 0.0185 and std < 0.0215, tostring(std))   -- 3112 draws: 5 standard errors are 0.0013
    model:loss(ids, mask, labels):backward()
    assert.same({ 400, 8 }, words.grad.shape)
    assert.equal(400, bert.config(model).vocab_size)
    assert.same({ 2, 1, 400 }, model(unic.tensor({ { 399 }, { 11 } }, { dtype = "i64" })).shape)
    model.bert:freeze(1)
    assert.is_false(bert.extend(model, 500).bert.embeddings.word_embeddings.weight.requires_grad)
    assert.raises_at(nil, "expected an integer of 500 or more", function() bert.extend(model, 499) end)
  end)
end)
