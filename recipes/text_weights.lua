--- BERT weights that a recipe starts from: `--init` of pretrain_mlm.lua, `--text-init` of pretrain_medunic.lua.
--
--   local source = text_weights.open(path)                     -- a Hugging Face folder, or a weight file
--   local tokenizer = text_weights.tokenizer(source, opt.vocab)
--   local model = text_weights.model(source, { text = "bert_small", head = "mlm" }, tokenizer)
--
-- A vocabulary may have more tokens than the weights know: the old ones keep their places and rows, new rows are drawn from N(0, 0.02^2).
local lfs = require "lfs"
local arguments = require "unic.arguments"
local bert = require "unic.models.bert"
local core = require "unic.core"
local text = require "unic.text"
local weights = require "unic.weights"

local text_weights = {}

local function fail(path, sentence, ...) core.fail(("[text weights] '%s': " .. sentence):format(path, ...)) end

--- Open weights of a BERT.
-- @param path a Hugging Face folder (its config.json says what the model is), a run folder of pretrain_mlm.lua that has one, or a weight file
-- @return what `unic.weights.open` gives, with the field `rows`: how many tokens it has embeddings of
function text_weights.open(path)
  if lfs.attributes(path .. "/huggingface/config.json", "mode") then path = path .. "/huggingface" end
  local file = weights.open(path)
  for _, name in ipairs(file:names()) do
    if name:find "word_embeddings%.weight$" then
      if file.rows then fail(path, "has two tables of word embeddings, expected one BERT") end
      file.rows = file:info(name).shape[1]
    end
  end
  if not file.rows then fail(path, "has no tensor '...word_embeddings.weight', expected a BERT") end
  return file
end

--- The tokeniser of a run: that of --vocab, else that of the weights. A vocabulary must have the weights' tokens in their places, and is read as theirs is.
-- @param source what `open` gave, or nil
-- @param vocab path of a vocabulary, or nil
-- @param cased where the weights say nothing of it: keep capitals and accents
-- @return a tokeniser
function text_weights.tokenizer(source, vocab, cased)
  if not source then return text.wordpiece(vocab, { lowercase = not cased }) end
  local own = source.vocab and text.from_pretrained(source.vocab:match "^(.*)/[^/]*$" or ".")
  if not vocab then return own or fail(source.path, "has no vocab.txt, expected --vocab with its vocabulary") end
  if not own then return text.wordpiece(vocab, { lowercase = not cased }) end
  local tokenizer = text.wordpiece(vocab, { lowercase = own.lowercase, strip_accents = own.strip_accents, cjk = own.cjk })
  for id = 0, math.min(own.size, tokenizer.size) - 1 do
    if own:token(id) ~= tokenizer:token(id) then
      fail(vocab, "token %d is '%s', and '%s' in '%s': its embeddings would stand for other words; expected the same tokens, new ones behind them", id,
        tokenizer:token(id), own:token(id), source.vocab)
    end
  end
  return tokenizer
end

--- What the model is by the config.json beside its weights.
-- @param source what `open` gave
-- @param dropout to be had instead of what it says; nil or false: as it says
-- @return the fields, a new table; nil where there is no config.json
function text_weights.config(source, dropout)
  if not source.config then return nil end
  local config = {}
  for key, value in pairs(source.config) do config[key] = value end
  config.vocab_size = source.rows
  if dropout then config.hidden_dropout_prob, config.attention_probs_dropout_prob = dropout, dropout end
  return config
end

--- Load weights into a model that has as many rows of word embeddings as they have, then extend it to the vocabulary.
-- @param model a bert.Bert or bert.BertForMaskedLM
-- @param source what `open` gave
-- @param tokenizer the run's
-- @return true when rows were added
function text_weights.fill(model, source, tokenizer)
  weights.load(model, source, { missing = model.cls and { "^cls%." } or nil })
  if tokenizer.size <= source.rows then return false end
  bert.extend(model, tokenizer.size)
  return true
end

--- A BERT with the weights of a file, or with fresh ones.
-- @param source what `open` gave; nil: fresh weights
-- @param options `config` (fields of a config.json that say what it is, nil: those of the source), `text` (a name of bert.sizes, where no config.json says
-- it), `head` ("mlm" or "none"), `dropout` (nil: as the config.json or the size has it), `checkpoint`
-- @param tokenizer the run's
-- @return a bert.Bert or bert.BertForMaskedLM
function text_weights.model(source, options, tokenizer)
  local config = options.config or source and text_weights.config(source)
  local o = { dropout = options.dropout, attention_dropout = options.dropout, checkpoint = options.checkpoint }
  local model
  if config then
    o.head = options.head
    model = bert.from_config(config, o)
  else
    local size = bert.sizes[options.text]
    if not size then
      local near = core.nearest(options.text, { "bert_base", "bert_small" })
      arguments.fail("text weights", "option 'text': there is no '%s'%s", options.text, near and (", did you mean '%s'?"):format(near) or ", expected bert_base or bert_small")
    end
    for key, value in pairs(size) do o[key] = value end
    o.padding, o.vocab = tokenizer.pad, source and source.rows or tokenizer.size
    model = (options.head == "mlm" and bert.BertForMaskedLM or bert.Bert)(o)
  end
  if source then text_weights.fill(model, source, tokenizer) end
  return model
end

return text_weights
