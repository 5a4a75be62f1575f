--- The words of a corpus, counted: how often each occurs, in how many documents, in which order a vocabulary should take them, and what a
-- tokeniser makes of them.
--
--    local counts = require("unic.text.counts").new { document = 500 }
--    for _, report in ipairs(reports) do counts:add(tok:words(report)) end
--    for _, entry in ipairs(counts:ranked()) do print(entry.word, entry.idf) end
--    local m = counts:measure(tok)                    -- m.unknown, m.tokens_per_word
--
-- The counts are Lua tables, some 150 bytes a different word: reports of a hospital have tens of thousands.
-- @module unic.text.counts
local arguments = require "unic.arguments"
local text = require "unic.text"

local counts = {}
local Counts = {}
Counts.__index = Counts
Counts.__name = "unic.text.counts"

--- Begin to count.
-- @param[opt] options `document` (500): reports that make one document, for the number of documents that a word occurs in. As in Med-UniC's
-- code the first document holds one report and each further one so many
-- @return an object; what follows is called on it. Its fields `reports`, `words` (all that were counted) and `distinct` may be read
function counts.new(options)
  options = arguments.options("counts", options, { document = { "integer", least = 1 } })
  return setmetatable({
    document = options.document or 500, reports = 0, words = 0, distinct = 0,
    count = {},        -- word -> how often it occurs
    candidates = {},   -- word -> how often it occurs where it is no stop word
    frequency = {},    -- word -> documents that it is a candidate in
    seen = {},         -- word -> the last of them
  }, Counts)
end

--- Count the words of one report.
-- @param words a list of strings
-- @param[opt] skip a list as long: true for a word that is counted but is no candidate for a vocabulary (a stop word, punctuation)
function Counts:add(words, skip)
  local count, candidates, frequency, seen = self.count, self.candidates, self.frequency, self.seen
  local number = math.ceil(self.reports / self.document) + 1   -- report 0 is a document of its own
  self.reports = self.reports + 1
  self.words = self.words + #words
  for i = 1, #words do
    local word = words[i]
    local n = count[word]
    if not n then
      n = 0
      self.distinct = self.distinct + 1
    end
    count[word] = n + 1
    if not (skip and skip[i]) then
      candidates[word] = (candidates[word] or 0) + 1
      if seen[word] ~= number then
        seen[word] = number
        frequency[word] = (frequency[word] or 0) + 1
      end
    end
  end
end

--- How many documents the reports make.
function Counts:documents() return self.reports > 0 and math.ceil((self.reports - 1) / self.document) + 1 or 0 end

--- The candidates for a vocabulary: by smoothed idf = ln((1 + n) / (1 + documents with the word)) + 1, the most widespread first, equals by
-- their bytes.
-- @param[opt] options `least` documents (1) that a word must occur in
-- @return a list of {word =, documents =, count =, idf =}
function Counts:ranked(options)
  options = arguments.options("ranked", options, { least = { "integer", least = 1 } })
  local least, n, list = options.least or 1, self:documents(), {}
  for word, documents in pairs(self.frequency) do
    if documents >= least then
      list[#list + 1] = { word = word, documents = documents, count = self.candidates[word], idf = math.log((1 + n) / (1 + documents)) + 1 }
    end
  end
  table.sort(list, function(a, b)
    if a.documents ~= b.documents then return a.documents > b.documents end
    return a.word < b.word
  end)
  return list
end

--- What a tokeniser makes of the words that were counted; punctuation is left out, since it is a token by itself in any vocabulary.
-- @param tokenizer of unic.text
-- @return {words =, unknown = share of them that have an unknown part, tokens_per_word =}; nan where no word was counted
function Counts:measure(tokenizer)
  local words, unknown, tokens, is_mark = 0, 0, 0, counts.is_punctuation
  for word, count in pairs(self.count) do
    if not is_mark(word) then
      local ids = tokenizer:encode(word, { bare = true, max_length = math.huge })
      words = words + count
      tokens = tokens + count * #ids
      for i = 1, #ids do
        if ids[i] == tokenizer.unk then
          unknown = unknown + count
          break
        end
      end
    end
  end
  return { words = words, unknown = unknown / words, tokens_per_word = tokens / words }
end

local plain

--- Is a word of the basic tokeniser a punctuation mark?
-- @param word a string
-- @return true or false
function counts.is_punctuation(word)
  if #word > 4 or word:find "^%w" then return false end
  if #word == 1 then return word:find "^%p" ~= nil end
  -- Beyond ASCII the tokeniser knows: a mark parts letters (with `cjk` off nothing else does).
  plain = plain or text.wordpiece({ "[PAD]", "[UNK]", "[CLS]", "[SEP]" }, { cjk = false })
  return #plain:words("a" .. word .. "a") == 3
end

return counts
