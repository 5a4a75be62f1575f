--- Tokenisers of Hugging Face's folders: vocab.txt, or what newer versions of transformers write in its place (tokenizer.json), and how text is read
-- (tokenizer_config.json). A run folder is read in the same way.
-- @module unic.text.pretrained
local lfs = require "lfs"
local arguments = require "unic.arguments"
local files = require "unic.files"
local json = require "unic.json"

local fail = arguments.fail
local pretrained = {}

local OP = "text.from_pretrained"

local function is_file(path) return lfs.attributes(path, "mode") == "file" end

-- A field of a settings file; of another type it is no setting that this tokeniser could follow.
local function boolean(path, settings, name)
  local value = settings[name]
  if value ~= nil and type(value) ~= "boolean" then fail(OP, "'%s': its %s is %s, expected true, false or null", path, name, arguments.describe(value)) end
  return value
end

-- The tokens of tokenizer.json by their ids, and how it reads text. What is done in another way there than here is refused.
local function read_tokenizer(path)
  local whole = json.read(OP, path)
  local model, normalizer = whole.model, whole.normalizer or {}
  local function expect(what, value, wanted)
    if value ~= nil and value ~= wanted then fail(OP, "'%s': its %s is '%s', expected '%s' as in BERT's", path, what, tostring(value), tostring(wanted)) end
  end
  if type(model) ~= "table" or type(model.vocab) ~= "table" then fail(OP, "'%s': has no vocabulary (model.vocab)", path) end
  if type(normalizer) ~= "table" then fail(OP, "'%s': its normalizer is %s, expected a table", path, arguments.describe(normalizer)) end
  expect("model", model.type, "WordPiece")
  expect("unknown token", model.unk_token, "[UNK]")
  expect("prefix inside words", model.continuing_subword_prefix, "##")
  expect("longest word", model.max_input_chars_per_word, 100)
  expect("normalizer", normalizer.type, "BertNormalizer")
  expect("pre-tokenizer", type(whole.pre_tokenizer) == "table" and whole.pre_tokenizer.type or nil, "BertPreTokenizer")
  local tokens, count = {}, 0
  for token, id in pairs(model.vocab) do
    if type(token) ~= "string" or type(id) ~= "number" or id % 1 ~= 0 or id < 0 or tokens[id + 1] then
      fail(OP, "'%s': its vocabulary gives '%s' the id %s, expected a whole number of its own", path, tostring(token), tostring(id))
    end
    tokens[id + 1], count = token, count + 1
  end
  for id = 0, count - 1 do
    if not tokens[id + 1] then fail(OP, "'%s': its vocabulary of %d tokens has none of the id %d", path, count, id) end
  end
  for _, added in ipairs(type(whole.added_tokens) == "table" and whole.added_tokens or {}) do
    if type(added) == "table" and tokens[(tonumber(added.id) or 0) + 1] ~= added.content then
      fail(OP, "'%s': '%s' was added behind its vocabulary, to be matched whole; such tokens are not read", path, tostring(added.content))
    end
  end
  return tokens, {
    lowercase = boolean(path, normalizer, "lowercase"), strip_accents = boolean(path, normalizer, "strip_accents"),
    cjk = boolean(path, normalizer, "handle_chinese_chars"),
  }
end

--- See unic.text.from_pretrained.
-- @param wordpiece unic.text.wordpiece
-- @param folder the folder
-- @return a tokeniser
function pretrained.load(wordpiece, folder)
  arguments.check(OP, "folder", folder, "string")
  local base = folder:gsub("(.)/+$", "%1") .. "/"
  local vocabulary, rules = base .. "vocab.txt", {}
  if not is_file(vocabulary) then
    if not is_file(base .. "tokenizer.json") then fail(OP, "'%s': has neither vocab.txt nor tokenizer.json, expected a folder with a tokeniser", folder) end
    vocabulary, rules = read_tokenizer(base .. "tokenizer.json")
  end
  if is_file(base .. "tokenizer_config.json") then
    local path = base .. "tokenizer_config.json"
    local settings = json.read(OP, path)
    for theirs, ours in pairs { do_lower_case = "lowercase", strip_accents = "strip_accents", tokenize_chinese_chars = "cjk" } do
      local value = boolean(path, settings, theirs)
      if value ~= nil then rules[ours] = value end
    end
  end
  local made = wordpiece(vocabulary, rules)
  made.source = folder
  return made
end

local SPECIALS = { unk_token = "unk", sep_token = "sep", pad_token = "pad", cls_token = "cls", mask_token = "mask" }

--- See save_pretrained of a tokeniser.
function pretrained.save(tokenizer, folder, options)
  options = arguments.options("save_pretrained", options, { max_length = { "integer", least = 2 } })
  arguments.check("save_pretrained", "folder", folder, "string")
  local config = {
    tokenizer_class = "BertTokenizer", do_lower_case = tokenizer.lowercase, strip_accents = tokenizer.strip_accents, tokenize_chinese_chars = tokenizer.cjk,
    model_max_length = options.max_length or 512, clean_up_tokenization_spaces = true,
  }
  for key, field in pairs(SPECIALS) do config[key] = tokenizer[field] and tokenizer:token(tokenizer[field]) end
  tokenizer:save(folder .. "/vocab.txt")
  files.write_file(folder .. "/tokenizer_config.json", json.encode("save_pretrained", "its settings", config), { durable = true })
end

return pretrained
