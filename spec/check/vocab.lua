-- Vocabularies by recipes/build_vocab.lua: the built-in Spanish reports and real Spanish clinical text behind an English base, with and without stems
-- Cost: about 20 s; needs the folder of real data for most of it, libstemmer0d for stems, a python3 with tokenizers for "equal ids"
package.path = "./?.lua;" .. package.path
local support = require "spec.support.check"
local check = support.open "vocab"
local unic = require "unic"
local testing = require "unic.testing"
local stem = require "unic.text.stem"
local text = unic.text

local OUT = ".cache/check/vocab"
assert(os.execute("mkdir -p " .. OUT) == 0)
local real = testing.real_data()
local _, absent = support.shell("python3 -c 'import tokenizers'")

local bert = real and real .. "/vocab/bert-base-uncased.vocab.txt"
local CASES = { { "phantom", { data = "phantom", base = "phantom", studies = 4000 } } }
if real then
  CASES[#CASES + 1] = { "phantom_on_bert", { data = "phantom", base = bert, studies = 4000 } }
  CASES[#CASES + 1] = { "nubes", { data = real .. "/text-es-nubes/sentences.txt", base = bert } }
  CASES[#CASES + 1] = { "meddocan", { data = real .. "/text-es-meddocan/chest_sentences.csv", columns = "report=sentence", base = bert } }
  CASES[#CASES + 1] = { "both", {
    data = real .. "/text-es-nubes/sentences.txt," .. real .. "/text-es-meddocan/chest_sentences.csv", columns = "report=sentence", base = bert, least = 2,
  } }
else
  check:skip("real", "the folder of real data is absent")
end

local function lines_of(path)
  local list = {}
  for line in io.lines(path) do list[#list + 1] = line end
  return list
end

-- Text that was not counted, for the comparison of ids: the reports of the built-in test set, or all real sentences.
local function texts_of(case, stemmed)
  local list = {}
  if case[2].data == "phantom" then
    local set = require("unic.datasets.phantom").open { split = "test", languages = "es" }
    for i = 1, set.n do list[i] = set:report(i, "es") end
  else
    list = lines_of(real .. "/text-es-nubes/sentences.txt")
  end
  if stemmed then
    for i = 1, #list do list[i] = text.stem(list[i], "es") end
  end
  return list
end

local rows = {}
for _, stemmed in ipairs { false, true } do
  if stemmed and not stem.available() then
    check:skip("stem", "libstemmer0d is not installed")
    break
  end
  for _, case in ipairs(CASES) do
    local name = case[1] .. (stemmed and "_stem" or "")
    local vocabulary = ("%s/%s.txt"):format(OUT, name)
    local options = { out = vocabulary, list = ("%s/%s.csv"):format(OUT, name), language = "es", heldout = 0.2, stem = stemmed }
    for key, value in pairs(case[2]) do options[key] = value end
    local result = testing.recipe("recipes/build_vocab.lua", options).result
    rows[#rows + 1] = { name, result }
    for _, key in ipairs { "n_base", "n_vocab", "n_reports", "n_heldout", "unknown_before", "unknown_after", "tokens_before", "tokens_after",
      "heldout_unknown_before", "heldout_unknown_after", "heldout_tokens_before", "heldout_tokens_after", "seconds" } do
      check:note(name .. "." .. key, result[key])
    end
    -- What a vocabulary is extended for: on reports that it has not seen the words come in at most three quarters of the pieces, none more is unknown.
    check:at_most(name .. ".heldout_tokens_ratio", result.heldout_tokens_after / result.heldout_tokens_before, 0.75)
    check:at_most(name .. ".heldout_unknown_more", result.heldout_unknown_after - result.heldout_unknown_before, 0)

    local lines, seen, doubles = lines_of(vocabulary), {}, 0
    for _, line in ipairs(lines) do
      doubles = doubles + (seen[line] and 1 or 0)
      seen[line] = true
    end
    check:holds(name .. ".lines", #lines == result.n_vocab)
    check:at_most(name .. ".doubles", doubles, 0)
    if options.base ~= "phantom" then
      local moved = 0
      for i, token in ipairs(lines_of(options.base)) do moved = moved + (lines[i] == token and 0 or 1) end
      check:at_most(name .. ".base_ids_moved", moved, 0)
    end
    -- Each new word is one token, at its place behind the base.
    local tok, split = text.wordpiece(vocabulary), 0
    for id = result.n_base, tok.size - 1 do
      local ids = tok:encode(tok:token(id), { bare = true })
      split = split + ((#ids == 1 and ids[1] == id) and 0 or 1)
    end
    check:at_most(name .. ".new_words_split", split, 0)
    -- The order: documents falling, equals by the alphabet.
    local list, disorder = unic.files.read_csv(options.list), 0
    if case[1] ~= "both" then   -- two data sets are two lists
      for r = 2, list:rows() do
        local a, b = tonumber(list:get(r - 1, "documents")), tonumber(list:get(r, "documents"))
        if a < b or a == b and not (list:get(r - 1, "word") < list:get(r, "word")) then disorder = disorder + 1 end
      end
      check:at_most(name .. ".disorder", disorder, 0)
    end

    if absent ~= 0 then
      check:skip(name .. ".ids", "this python3 has no tokenizers (pip install tokenizers)")
    else
      local texts, path = texts_of(case, stemmed), ("%s/%s.texts"):format(OUT, name)
      unic.files.write_file(path, table.concat(texts, "\n") .. "\n")
      local output, code = support.shell(("python3 spec/support/tokenizer_parity.py ids %s uncased %s > %s.ids"):format(vocabulary, path, path), { timeout = 600 })
      if code ~= 0 then error(output, 0) end
      local differ, compared = 0, 0
      for line in io.lines(path .. ".ids") do
        compared = compared + 1
        if table.concat(tok:encode(texts[compared], { max_length = math.huge }), " ") ~= line then differ = differ + 1 end
      end
      check:at_most(name .. ".ids_differ", differ, 0)
      check:holds(name .. ".ids_all_compared", compared == #texts)
    end
  end
end

print(("%-22s %8s %8s %19s %19s %19s"):format("", "base", "vocab", "unknown %", "tokens/word", "held out"))
for _, row in ipairs(rows) do
  local r = row[2]
  print(("%-22s %8d %8d %8.3f -> %7.3f %8.3f -> %7.3f %8.3f -> %7.3f"):format(row[1], r.n_base, r.n_vocab, 100 * r.unknown_before, 100 * r.unknown_after,
    r.tokens_before, r.tokens_after, r.heldout_tokens_before, r.heldout_tokens_after))
end
check:close()
