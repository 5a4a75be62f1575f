--- A WordPiece vocabulary extended by the words of reports in another language, as Med-UniC extends an English one by Spanish words.
--
--   ./unic recipes/build_vocab.lua                                                    the built-in set: its Spanish behind its English part
--   ./unic recipes/build_vocab.lua --base bert.txt --data padchest.csv --columns report=Report --language es --out vocab.txt
--   ./unic recipes/build_vocab.lua --base bert.txt --data es.csv,pt.txt --language es,pt --stem --heldout 0.1
--   ./unic recipes/build_vocab.lua --base bert.txt --words list.txt                   a given list behind a base, nothing counted
--
-- Reports are cut into words; stop words and punctuation go; 500 reports make a document; the words that are in most documents come first (idf
-- ascending, equals by the alphabet); what the base has already is left out; the rest is written behind the base, in that order. As they stand
-- in the vocabulary like any other token, the new words match at the beginning of a word and "##" pieces follow: "derrames" is "derrame ##s".
--
-- Words here are those of BERT's own basic tokeniser, which parts every punctuation mark. The official code used spaCy's Spanish tokeniser, which
-- keeps "1.5", "T12-L1" or "p.a." in one piece; such words can never match, because BERT cuts its text at those marks before it looks anything up.
-- Numbers are words in both (--no-numbers leaves them out). The official stop list is spaCy's; the lists here (data/stopwords) are our own and
-- keep negations. The official order, its documents (the first holds one report) and its lack of limits are the defaults. Behind a small base
-- that has no "de" or "la" either, --stopwords none saves the pieces that they fall into.
local unic = require "unic"
local counts = require "unic.text.counts"
local outputs = require "unic.run.outputs"
local phantom = require "unic.datasets.phantom"
local text, files = unic.text, unic.files

local opt = unic.options {
  usage = "Extend a WordPiece vocabulary with the words of reports in further languages.",
  { "data", { "phantom" }, "reports: CSV files, folders with data.csv, text files with one report a line, or phantom; several with commas", kind = "list" },
  { "language", { "es" }, "language of the reports, one for each data set: rows of a CSV with a column `language` are chosen by it", kind = "list" },
  { "columns", { "report=report" }, "column of the reports, one for all data sets or one for each; sections are joined: report=FINDINGS+IMPRESSION", kind = "list" },
  { "base", "phantom", "vocabulary to extend; phantom = the English part of the built-in set's" },
  { "out", "vocab.txt", "the file to write" },
  { "list", "", "write all candidates to this CSV: word, language, documents, count, idf, added" },
  { "words", "", "a given list, one word a line, instead of words counted in reports; --data is then only measured" },
  { "document", 500, "reports that make a document", kind = "integer", least = 1 },
  { "least", 1, "documents that a word must be in", kind = "integer", least = 1 },
  { "least_count", 1, "times that a word must occur", kind = "integer", least = 1 },
  { "most", 0, "new words of a data set at most; 0 = all", kind = "integer", least = 0 },
  { "stopwords", "auto", "auto = data/stopwords/LANGUAGE.txt, none, or a file of one's own" },
  { "numbers", true, "words of digits alone are candidates, too" },
  { "stem", false, "stem the reports first, as PadChest's are (needs libstemmer0d)" },
  { "cased", false, "the base is a cased vocabulary: case and accents stay" },
  { "heldout", 0, "share of the reports that are not counted but measured apart; equal reports stay together", least = 0, most = 0.9 },
  { "studies", 12000, "studies of the built-in set", kind = "integer", least = 1 },
  { "dry", false, "count and measure, but write nothing" },
}
local clock = unic.core.edit.clock
local started = clock()

local function fail(sentence, ...) unic.core.fail(("[build_vocab] " .. sentence):format(...)) end
local function say(sentence, ...)
  if not require("unic.run.folder").is_quiet() then io.stderr:write(sentence:format(...), "\n") end
end
if opt:given "vocab" then fail "--vocab: the vocabulary to extend is given by --base" end
if opt.stem and opt.cased then fail "--stem: stems are lower case, expected an uncased base (without --cased)" end

-- One of a list of options for each data set: as many, or one for all.
local function for_each(name, list)
  if #list ~= 1 and #list ~= #opt.data then fail("--%s: %d values for %d data sets, expected one, or one for each", name, #list, #opt.data) end
  return function(k) return list[#list == 1 and 1 or k] end
end
local language_of, columns_of = for_each("language", opt.language), for_each("columns", opt.columns)

-- ---------------------------------------------------------------- reports

-- {"FINDINGS", "IMPRESSION"} of "report=FINDINGS+IMPRESSION".
local function sections_of(columns)
  local names = columns:match "^report=(.+)$"
  if not names then fail("--columns: '%s', expected report=COLUMN or report=COLUMN+COLUMN", columns) end
  local list = {}
  for name in names:gmatch "[^+]+" do list[#list + 1] = name end
  return list
end

-- An iterator over the reports of a table of a user's own; empty ones are left out and counted.
local function csv_reports(path, sections, language)
  local wanted = {}
  for _, name in ipairs(sections) do wanted[name] = name end
  local rows = files.read_csv(path, { columns = wanted, optional = { language = "language" }, strict = opt.strict })
  local errors = rows:errors()
  if #errors > 0 then say("%s: %d rows left out, the first is row %d: %s", path, #errors, errors[1].row, errors[1].reason) end
  local by_language = rows:has "language"
  local row, empty, other = 0, 0, 0
  return function()
    while row < rows:rows() do
      row = row + 1
      if by_language and rows:get(row, "language") ~= language then
        other = other + 1
      else
        local parts = {}
        for _, name in ipairs(sections) do
          local part = rows:get(row, name)
          if part:find "%S" then parts[#parts + 1] = part end
        end
        if #parts > 0 then return table.concat(parts, " ") end
        empty = empty + 1
      end
    end
    if empty + other > 0 then say("%s: %d rows without a report, %d rows in another language than %s", path, empty, other, language) end
    rows:free()
  end
end

local function reports_of(k)
  local path, language = opt.data[k], language_of(k)
  if path == "phantom" then
    if language ~= "en" and language ~= "es" then fail("--language: the built-in set has en and es, '%s' was given", language) end
    local set, i = phantom.open { split = "train", studies = opt.studies, languages = language }, 0
    return function()
      i = i + 1
      return i <= set.n and set:report(i, language) or nil
    end
  end
  if require("lfs").attributes(path, "mode") == "directory" then path = path .. "/data.csv" end
  if path:lower():find "%.csv$" then return csv_reports(path, sections_of(columns_of(k)), language) end
  local file, why = io.open(path, "r")
  if not file then fail("--data: cannot open %s; expected a CSV file, a folder with data.csv, a text file or phantom", why) end
  return function()
    for line in file:lines() do
      if line:find "%S" then return line end
    end
    file:close()
  end
end

-- Is this text one of those held out? By a hash of its letters, so that copies (a report occurs once for each picture of a study) fall on one side.
local function is_heldout(str)
  if opt.heldout == 0 then return false end
  local hash = bit.tobit(0x811c9dc5 + opt.seed)
  for i = 1, #str do   -- FNV-1a; its prime is 2^24 + 0x193, in parts so that no product is rounded
    hash = bit.bxor(hash, str:byte(i))
    hash = bit.tobit(bit.lshift(hash, 24) + hash * 0x193)
  end
  for _ = 1, 3 do hash = bit.tobit(bit.bxor(hash, bit.rshift(hash, 15)) * 0x1935bd) end   -- texts that differ at their ends alone part as well
  return bit.rshift(hash, 8) / 0x1000000 < opt.heldout
end

-- ---------------------------------------------------------------- words

-- The words of reports in a language, as they are looked up, and which of them are no candidates: stop words, marks, numbers.
local function reader(language)
  local strip = not opt.cased
  -- Stems are made of words with their accents, which are taken off afterwards.
  local specials = { "[PAD]", "[UNK]", "[CLS]", "[SEP]" }
  local split = text.wordpiece(specials, { lowercase = not opt.cased, strip_accents = strip and not opt.stem })
  local stem = opt.stem and require("unic.text.stem").stemmer(language, { strip_accents = strip })
  local stop = {}
  if opt.stopwords ~= "none" then
    for word in pairs(text.stopwords(opt.stopwords == "auto" and language or opt.stopwords)) do
      for _, part in ipairs(split:words(word)) do stop[part] = true end
    end
  end
  local known = {}   -- word -> what it is looked up as, and whether it is no candidate: asked once for each different word
  local skipped = {}
  return function(report)
    local words, skip = split:words(report), {}
    for i = 1, #words do
      local word = words[i]
      local form = known[word]
      if not form then
        form = stem and stem(word) or word
        if form == "" then form = word end
        known[word] = form
        skipped[word] = stop[word] or stop[word:lower()] or counts.is_punctuation(word) or word == "[UNK]" or not opt.numbers and not word:find "%D" or nil
      end
      words[i], skip[i] = form, skipped[word]
    end
    return words, skip
  end
end

-- The built-in vocabulary without the words that only its Spanish reports have: what an English model's would be.
local function english_part()
  local set, english = phantom.open { split = "train", studies = 4000, languages = "en" }, {}
  local split = text.wordpiece(phantom.vocab)
  for i = 1, set.n do
    for _, word in ipairs(split:words(set:report(i, "en"))) do english[word] = true end
  end
  local list = {}
  for _, token in ipairs(phantom.vocabulary()) do
    if english[token] or token:find "^%[%u+%]$" or token:find "^##" or #token == 1 then list[#list + 1] = token end
  end
  return list
end

-- ---------------------------------------------------------------- the work

local rules = { lowercase = not opt.cased }
local base = text.wordpiece(opt.base == "phantom" and english_part() or opt.base, rules)

local given = opt.words ~= ""
local sets, reports, heldout = {}, 0, 0
for k = 1, (given and not opt:given "data") and 0 or #opt.data do
  local set = { data = opt.data[k], language = language_of(k), counts = counts.new { document = opt.document }, heldout = counts.new() }
  local words_of = reader(set.language)
  for report in reports_of(k) do
    if is_heldout(report) then
      set.heldout:add((words_of(report)))
    else
      set.counts:add(words_of(report))
    end
  end
  if set.counts.reports == 0 then fail("--data: %s has no report in '%s' that can be counted", set.data, set.language) end
  reports, heldout = reports + set.counts.reports, heldout + set.heldout.reports
  sets[k] = set
end

local tokens, there, added, candidates = {}, {}, 0, {}
for id = 0, base.size - 1 do
  tokens[id + 1] = base:token(id)
  there[tokens[id + 1]] = true
end

local function take(word)
  if there[word] then return false end
  there[word] = true
  tokens[#tokens + 1] = word
  added = added + 1
  return true
end

if given then
  local file, why = io.open(opt.words, "r")
  if not file then fail("--words: cannot open %s; expected a text file with one word a line", why) end
  local split, doubles, dead = text.wordpiece({ "[PAD]", "[UNK]", "[CLS]", "[SEP]" }, rules), 0, {}
  for line in file:lines() do
    local word = line:match "^%s*(.-)%s*$"
    if word ~= "" then
      if not take(word) then doubles = doubles + 1 end
      local parts = split:words((word:gsub("^##", "")))
      if #parts ~= 1 or parts[1] ~= word:gsub("^##", "") then dead[#dead + 1] = word end
    end
  end
  file:close()
  if doubles > 0 then say("%s: %d words left out that the base or the list itself has already", opt.words, doubles) end
  if #dead > 0 then say("%s: %d words can never match, the first is '%s': the tokeniser cuts or changes them", opt.words, #dead, dead[1]) end
else
  for _, set in ipairs(sets) do
    local before, in_base, rare, full = added, 0, 0, 0
    for _, entry in ipairs(set.counts:ranked()) do
      local taken = false
      if there[entry.word] then
        in_base = in_base + 1
      elseif entry.documents < opt.least or entry.count < opt.least_count then
        rare = rare + 1
      elseif opt.most > 0 and added - before >= opt.most then
        full = full + 1
      else
        taken = take(entry.word)
      end
      candidates[#candidates + 1] = { entry.word, set.language, entry.documents, entry.count, entry.idf, taken }
    end
    set.added = added - before
    say("%s (%s): %d reports, %d different words; %d added, %d known already, %d too rare, %d beyond --most", set.data, set.language, set.counts.reports,
      set.counts.distinct, set.added, in_base, rare, full)
  end
end

local extended = text.wordpiece(tokens, rules)
if opt.dry then
  say("--dry: %s is not written", opt.out)
else
  files.write_file(opt.out, table.concat(tokens, "\n") .. "\n")
end
if opt.list ~= "" and not opt.dry then files.write_csv(opt.list, { "word", "language", "documents", "count", "idf", "added" }, candidates) end

-- ---------------------------------------------------------------- what it is good for

-- Sums over the data sets, by words.
local function total(which, tokenizer)
  local sum = { words = 0, unknown = 0, tokens = 0 }
  for _, set in ipairs(sets) do
    local m = set[which]:measure(tokenizer)
    if m.words > 0 then
      sum.words, sum.unknown, sum.tokens = sum.words + m.words, sum.unknown + m.words * m.unknown, sum.tokens + m.words * m.tokens_per_word
    end
  end
  return sum.unknown / sum.words, sum.tokens / sum.words
end

local unknown_before, tokens_before = total("counts", base)
local unknown_after, tokens_after = total("counts", extended)
local heldout_unknown_before, heldout_tokens_before = total("heldout", base)
local heldout_unknown_after, heldout_tokens_after = total("heldout", extended)

outputs.print(("%-28s %10s %10s"):format("", "before", "after"))
local function row(name, format, before, after)
  if before == before then outputs.print(("%-28s %10s %10s"):format(name, format:format(before), format:format(after))) end
end
row("tokens in the vocabulary", "%d", base.size, extended.size)
row("unknown words, %", "%.3f", 100 * unknown_before, 100 * unknown_after)
row("tokens per word", "%.3f", tokens_before, tokens_after)
row("held out: unknown words, %", "%.3f", 100 * heldout_unknown_before, 100 * heldout_unknown_after)
row("held out: tokens per word", "%.3f", heldout_tokens_before, heldout_tokens_after)
outputs.print(outputs.line {
  { "n_base", base.size }, { "n_vocab", extended.size }, { "n_added", added }, { "n_reports", reports }, { "n_heldout", heldout },
  { "unknown_before", unknown_before }, { "unknown_after", unknown_after }, { "tokens_before", tokens_before }, { "tokens_after", tokens_after },
  { "heldout_unknown_before", heldout_unknown_before }, { "heldout_unknown_after", heldout_unknown_after },
  { "heldout_tokens_before", heldout_tokens_before }, { "heldout_tokens_after", heldout_tokens_after },
  { "seconds", clock() - started }, { "hash", extended:hash() },
})
