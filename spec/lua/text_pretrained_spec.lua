-- Tokenisers of Hugging Face's folders: vocab.txt and tokenizer.json, cased and uncased, and what is refused.
local unic = require "unic"
local cjson = require "cjson"
local support = require "spec.support.files"
local testing = require "unic.testing"
local text = unic.text

local TOKENS = { "[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "á", "Á", "##b", "中" }

-- What transformers 5 writes, without what nobody reads.
local function tokenizer_json(change)
  local vocab = {}
  for i, token in ipairs(TOKENS) do vocab[token] = i - 1 end
  local whole = {
    version = "1.0", truncation = cjson.null, added_tokens = { { id = 0, content = "[PAD]", special = true }, { id = 4, content = "[MASK]", special = true } },
    normalizer = { type = "BertNormalizer", clean_text = true, handle_chinese_chars = true, strip_accents = cjson.null, lowercase = false },
    pre_tokenizer = { type = "BertPreTokenizer" },
    model = { type = "WordPiece", unk_token = "[UNK]", continuing_subword_prefix = "##", max_input_chars_per_word = 100, vocab = vocab },
  }
  if change then change(whole) end
  return cjson.encode(whole)
end

describe("text.from_pretrained", function()
  local folder
  before_each(function() folder = support.folder() end)
  after_each(function() support.remove(folder) end)

  it("reads what save_pretrained writes, in the same way", function()
    for _, rules in ipairs { {}, { lowercase = false }, { strip_accents = false }, { lowercase = false, strip_accents = true }, { cjk = false } } do
      local made = text.wordpiece(TOKENS, rules)
      made:save_pretrained(folder)
      local again = text.from_pretrained(folder .. "/")
      assert.same({ made:hash(), made:rules() }, { again:hash(), again:rules() })
      for _, str in ipairs { "a Á áb ab中a", "[MASK] A" } do assert.same(made:encode(str), again:encode(str)) end
    end
    local rules = {}
    for i, each in ipairs { {}, { lowercase = false }, { strip_accents = false }, { lowercase = false, strip_accents = true }, { cjk = false } } do
      rules[i] = text.wordpiece(TOKENS, each):rules()
    end
    assert.same({ "uncased", "cased", "uncased accents", "cased stripped", "uncased nocjk" }, rules)
  end)

  it("takes a vocabulary alone for an uncased one, and tokenizer.json where there is no vocab.txt", function()
    support.write(folder .. "/vocab.txt", table.concat(TOKENS, "\n"))
    assert.equal("uncased", text.from_pretrained(folder):rules())
    os.remove(folder .. "/vocab.txt")
    support.write(folder .. "/tokenizer.json", tokenizer_json())
    local tok = text.from_pretrained(folder)
    assert.same({ #TOKENS, "cased" }, { tok.size, tok:rules() })
    assert.same({ 2, 7, 5, 8, 9, 3 }, tok:encode "Á ab中")
    -- The settings file has the last word, as in transformers.
    support.write(folder .. "/tokenizer_config.json", '{"do_lower_case": true, "strip_accents": false, "model_max_length": 1000000000000000019884624838656}')
    assert.equal("uncased accents", text.from_pretrained(folder):rules())
    support.write(folder .. "/tokenizer.json", tokenizer_json(function(t) t.normalizer.lowercase = true end))
    support.write(folder .. "/tokenizer_config.json", '{"do_lower_case": false}')
    assert.equal("cased", text.from_pretrained(folder):rules())
  end)

  it("refuses what it would read otherwise than its owner", function()
    local function refused(pattern, change, raw)
      support.write(folder .. "/tokenizer.json", raw or tokenizer_json(change))
      assert.raises_at(nil, pattern, function() text.from_pretrained(folder) end)
    end
    assert.raises_at(nil, "has neither vocab%.txt nor tokenizer%.json", function() text.from_pretrained(folder) end)
    assert.raises_at(nil, "argument 'folder'", function() text.from_pretrained(7) end)
    refused("is no JSON object", nil, "{")
    refused("model is 'BPE', expected 'WordPiece'", function(t) t.model.type = "BPE" end)
    refused("has no vocabulary", function(t) t.model = nil end)
    refused("prefix inside words is '@@'", function(t) t.model.continuing_subword_prefix = "@@" end)
    refused("longest word is '50'", function(t) t.model.max_input_chars_per_word = 50 end)
    refused("unknown token is '<unk>'", function(t) t.model.unk_token = "<unk>" end)
    refused("normalizer is 'Sequence'", function(t) t.normalizer.type = "Sequence" end)
    refused("pre%-tokenizer is 'Whitespace'", function(t) t.pre_tokenizer.type = "Whitespace" end)
    refused("lowercase is .*, expected true, false or null", function(t) t.normalizer.lowercase = "yes" end)
    refused("none of the id 9", function(t) t.model.vocab["中"] = 12 end)
    refused("gives '.*' the id 5", function(t) t.model.vocab["中"] = 5 end)
    refused("the id 1%.5", function(t) t.model.vocab["中"] = 1.5 end)
    refused("'%[NEW%]' was added behind its vocabulary", function(t) t.added_tokens[3] = { id = 10, content = "[NEW]" } end)
    refused("has no %[CLS%]", function(t)
      t.model.vocab["[CLS]"], t.model.vocab.b = nil, 2
    end)
    support.write(folder .. "/tokenizer.json", tokenizer_json())
    support.write(folder .. "/tokenizer_config.json", '{"do_lower_case": 1}')
    assert.raises_at(nil, "do_lower_case is .*, expected true, false or null", function() text.from_pretrained(folder) end)
  end)

  it("reads real vocabularies", function()
    local real = testing.real_data()
    if not real then return pending "the folder of real data is absent" end
    support.write(folder .. "/vocab.txt", support.read(real .. "/vocab/beto-spanish.vocab.txt"))
    support.write(folder .. "/tokenizer_config.json", '{"do_lower_case": false}')
    assert.same({ 4, 1001, 30938, 3330, 5 }, text.from_pretrained(folder):encode "Él niño")   -- as transformers 5.24 has them
  end)
end)
