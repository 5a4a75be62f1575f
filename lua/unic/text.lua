--- Text to token ids and back: BERT's WordPiece tokeniser on a vocabulary file.
-- The ids are those of Hugging Face's BERT tokenisers, cased and uncased, for any text; bytes that are not UTF-8 are removed.
--
--    local text = require "unic.text"
--    local tok = text.wordpiece("vocab.txt")
--    local ids = tok:encode("No pleural effusion.")
--    print(table.concat(tok:tokens("No pleural effusion."), " "))
--
-- @module unic.text
local arguments = require "unic.arguments"
local core = require("unic.core").text
local files = require "unic.files"

local text = {}

local DEFAULT_LENGTH = 256   -- tokens per report in Med-UniC, [CLS] and [SEP] included

-- A WordPiece tokeniser. Fields that never change: `size` (tokens in the vocabulary), `pad`, `unk`, `cls`, `sep`, `mask` (ids; mask is nil in
-- a vocabulary without [MASK]), `lowercase`, `strip_accents`, `cjk` (as made), `source` (the path), `handle` (for C: the vocabulary itself).
local methods = {}
local metatable = { __index = methods, __name = "unic.text.wordpiece" }

function metatable.__tostring(tok)
  return ("wordpiece: %d tokens from %s, %s, accents %s"):format(tok.size, tok.source, tok.lowercase and "uncased" or "cased",
                                                                tok.strip_accents and "stripped" or "kept")
end

local WORDPIECE_OPTIONS = { lowercase = "boolean", strip_accents = "boolean", cjk = "boolean" }

--- Make a tokeniser of a vocabulary.
-- The vocabulary is UTF-8 text with one token a line; a line's number, from 0, is the token's id. [PAD], [UNK], [CLS] and [SEP] must be in it,
-- wherever; a repeated or an empty line is refused.
-- @param vocabulary the file's path, or a list of the tokens themselves
-- @param[opt] options `lowercase` (default true), `strip_accents` (default: as lowercase), `cjk` = make each Chinese character a word (default
-- true)
-- @return a tokeniser; its fields `size`, `pad`, `unk`, `cls`, `sep`, `mask` say what a model needs to know
function text.wordpiece(vocabulary, options)
  options = arguments.options("wordpiece", options, WORDPIECE_OPTIONS)
  local lowercase = options.lowercase ~= false
  local strip_accents = options.strip_accents
  if strip_accents == nil then strip_accents = lowercase end
  local cjk = options.cjk ~= false
  local handle, source
  if type(vocabulary) == "table" then
    for i = 1, #vocabulary do
      local token = vocabulary[i]
      if type(token) ~= "string" or token:find("\n", 1, true) then
        arguments.fail("wordpiece", "argument 'vocabulary': item %d is not a token, expected a string without a line's end", i)
      end
    end
    source = "the list"
    handle = core.parse(table.concat(vocabulary, "\n"), source, lowercase, strip_accents, cjk)
  else
    if type(vocabulary) ~= "string" then
      arguments.fail("wordpiece", "argument 'vocabulary': %s, expected the path of a vocabulary file or a list of tokens", arguments.describe(vocabulary))
    end
    source = vocabulary
    handle = core.load(source, lowercase, strip_accents, cjk)
  end
  local pad, unk, cls, sep, mask = core.specials(handle)
  return setmetatable({
    size = core.size(handle), pad = pad, unk = unk, cls = cls, sep = sep, mask = mask,
    lowercase = lowercase, strip_accents = strip_accents, cjk = cjk,
    source = source, handle = handle,
  }, metatable)
end

local SPANS = {
  test = function(value) return type(value) == "boolean" or value == "bytes" or value == "characters" end,
  text = 'true, "bytes" or "characters"',
}
--- The tokeniser of a Hugging Face folder, or of a run: its vocab.txt (or tokenizer.json, which newer versions of transformers write), cased or not as
-- its tokenizer_config.json says (uncased where it does not).
-- @param folder the folder
-- @return a tokeniser
function text.from_pretrained(folder)
  return require("unic.text.pretrained").load(text.wordpiece, folder)
end

local ENCODE_OPTIONS = { max_length = "number", bare = "boolean", specials_in_text = "boolean", spans = SPANS, pair = "string" }

-- max_length of the options: ids per text, or per pair of texts.
local function length_limit(op, options, pair, default)
  local max = options.max_length or default
  local least = options.bare and 1 or pair and 3 or 2
  if not (max >= least) or max ~= math.huge and max % 1 ~= 0 then
    arguments.fail(op, "option 'max_length': %.14g, expected a whole number from %d on%s", max, least,
                   least == 2 and ", because [CLS] and [SEP] count" or least == 3 and ", because [CLS] and two [SEP] count" or "")
  end
  return max
end

-- The option `spans` as the C side takes it.
local function spans_kind(options)
  return options.spans == true and "bytes" or options.spans or nil
end

--- Token ids of a text: [CLS], the pieces, [SEP]; or of two: [CLS], the first, [SEP], the second, [SEP].
-- Ids count from 0 and are what an embedding takes. What is beyond `max_length` is cut off at the text's end; of two texts the longer one is cut
-- until both are equally long, then both.
-- @param str the text
-- @param[opt] options `max_length` (default 256, [CLS] and [SEP] included; math.huge: no limit), `bare` = without [CLS] and [SEP],
-- `specials_in_text` = "[MASK]", "[SEP]", ... written in the text are those tokens (default false: a report cannot forge them; Hugging Face's
-- default is true), `pair` = a second text, `spans` = return where each token stands, too: true or "bytes", or "characters" (code points)
-- @return a list of ids
-- @return with `pair`: a list of token types, 0 for the first text with its [CLS] and [SEP], 1 for the second
-- @return with `spans`: two lists, the first and the last byte (or character) of each token, so that `str:sub(first[i], last[i])` is its text (""
-- for [CLS] and [SEP]); positions are those in the token's own text. Hugging Face's offsets of the token are first - 1 and last, in characters
function methods:encode(str, options)
  options = arguments.options("encode", options, ENCODE_OPTIONS)
  arguments.check("encode", "text", str, "string")
  return core.encode(self.handle, str, length_limit("encode", options, options.pair, DEFAULT_LENGTH), options.bare, options.specials_in_text,
                     spans_kind(options), options.pair)
end

local BATCH_OPTIONS = { max_length = "number", multiple = "integer", bare = "boolean", specials_in_text = "boolean", spans = SPANS, pairs = "table" }

--- Token ids of several texts, padded with [PAD] to the longest. Texts are shared among the threads.
-- @param texts a list of strings
-- @param[opt] options as for `encode`, and `multiple` = pad further, to a multiple of this (default 1); `pairs` = a list of second texts, as many
-- @return ids, an i64 tensor [B, L] on the CPU
-- @return mask, a bool tensor [B, L]: true for a token, false for padding
-- @return with `pairs`: types, an i64 tensor [B, L]: 1 for the second text, 0 for the first and for padding
-- @return with `spans`: an i64 tensor [B, L, 2]: where each token begins and ends in its text, counted from 0, the end not included, as Hugging
-- Face's offsets; 0 and 0 for special tokens and padding
function methods:batch(texts, options)
  options = arguments.options("batch", options, BATCH_OPTIONS)
  arguments.check("batch", "texts", texts, "table")
  if #texts == 0 then arguments.fail("batch", "argument 'texts': is empty, expected a list of at least one string") end
  if options.pairs and #options.pairs ~= #texts then
    arguments.fail("batch", "option 'pairs': %d second texts, expected one for each of the %d texts", #options.pairs, #texts)
  end
  local max, multiple = length_limit("batch", options, options.pairs, DEFAULT_LENGTH), options.multiple or 1
  if multiple < 1 or multiple > 65536 then arguments.fail("batch", "option 'multiple': %.14g, expected 1 to 65536", multiple) end
  return core.batch(self.handle, texts, max, multiple, options.bare, options.specials_in_text, spans_kind(options), options.pairs)
end

--- The pieces that a text is cut into, without [CLS] and [SEP] and without a limit.
-- @param str the text
-- @return a list of strings; "##" marks a piece that continues a word
function methods:tokens(str)
  arguments.check("tokens", "text", str, "string")
  local ids = core.encode(self.handle, str, math.huge, true)
  for i = 1, #ids do ids[i] = core.token(self.handle, ids[i]) end
  return ids
end

--- The words of a text before they are cut into pieces: cleaned, in lower case and without accents if the tokeniser is so.
-- @param str the text
-- @return a list of strings; a word of more than 100 characters is "[UNK]"
function methods:words(str)
  arguments.check("words", "text", str, "string")
  return core.words(self.handle, str)
end

--- The text of a list of ids.
-- @param ids a list of ids, or an integer tensor of one dimension, such as a row of `batch`
-- @param[opt] options `specials` = keep [CLS], [SEP], [PAD], ... (default false), `cleanup` = no blank before . ? ! , (default true)
-- @return a string
function methods:decode(ids, options)
  options = arguments.options("decode", options, { specials = "boolean", cleanup = "boolean" })
  return core.decode(self.handle, ids, not options.specials, options.cleanup ~= false)
end

--- The id of a token as it stands in the vocabulary ("##s").
-- @param token the token
-- @return its id, or nil
function methods:id(token)
  return core.id(self.handle, arguments.check("id", "token", token, "string"))
end

--- The token of an id.
-- @param id counted from 0
-- @return a string, or nil for an id outside the vocabulary
function methods:token(id)
  return core.token(self.handle, arguments.check("token", "id", id, "integer"))
end

--- A name for the vocabulary's contents, for manifests and checkpoints: equal for equal vocabularies, whatever their line ends.
-- @return 16 hexadecimal digits (FNV-1a, 64 bits, over the tokens and a line feed after each)
function methods:hash()
  return core.hash(self.handle)
end

--- Write the vocabulary, one token a line.
-- @param path the file; it appears when it is complete
function methods:save(path)
  local output = files.output(arguments.check("save", "path", path, "string"))
  for id = 0, self.size - 1 do output:write(core.token(self.handle, id), "\n") end
  output:commit()
end

--- Write vocab.txt and tokenizer_config.json, which Hugging Face's AutoTokenizer and `text.from_pretrained` read.
-- @param folder a folder that is there
-- @param[opt] options `max_length` that the model takes (512)
function methods:save_pretrained(folder, options)
  require("unic.text.pretrained").save(self, folder, options)
end

--- How the tokeniser reads text, in a word, for manifests: two with the same vocabulary and another word give other ids.
-- @return "uncased", "cased", and what differs from these: "uncased accents", "cased stripped", "uncased nocjk", ...
function methods:rules()
  local word = self.lowercase and "uncased" or "cased"
  if self.strip_accents ~= self.lowercase then word = word .. (self.strip_accents and " stripped" or " accents") end
  return self.cjk and word or word .. " nocjk"
end

--- Stem a text as PadChest's reports are: lower case, each word by its stem, no accents, one blank between words and marks.
-- `text.stem("Derrame pleural crónico.", "es")` is "derram pleural cronic ." Needs libstemmer (Debian package libstemmer0d).
-- @param str the text, or one word
-- @param language a language's code or English name: "es", "spanish", "pt", ...
-- @param[opt] options `strip_accents` (default true): take the accents off the stems
-- @return a text
function text.stem(str, language, options)
  return require("unic.text.stem").text(str, language, options)
end

--- The stop words of a language: articles, pronouns, prepositions, auxiliary verbs, ..., in full forms with their accents, without negations.
-- @param which a two-letter code (de, en, es, fr, it, pt), or the path of a file of one's own: words parted by white space, # for remarks
-- @return {word = true}
-- @return how many there are
function text.stopwords(which)
  return require("unic.text.stopwords").read(which)
end

return text
