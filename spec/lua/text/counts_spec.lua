--- Words of a corpus, counted; what recipes/build_vocab.lua makes of them is in spec/recipes.
local unic = require "unic"
local counts = require "unic.text.counts"

local function words(str)
  local list = {}
  for word in str:gmatch "%S+" do list[#list + 1] = word end
  return list
end

describe("unic.text.counts", function()
  it("counts occurrences and documents; the first document is one report", function()
    local c = counts.new { document = 2 }
    assert.equal(0, c:documents())
    for i, report in ipairs { "a b", "a a c", "c", "d c" } do
      c:add(words(report))
      assert.equal(({ 1, 2, 2, 3 })[i], c:documents())
    end
    assert.same({ 4, 8, 4 }, { c.reports, c.words, c.distinct })
    assert.same({ a = 3, b = 1, c = 3, d = 1 }, c.count)
    assert.same({ a = 2, b = 1, c = 2, d = 1 }, c.frequency)
    local ranked = {}
    for i, entry in ipairs(c:ranked()) do
      ranked[i] = entry.word
      assert.equal(math.log(4 / (1 + entry.documents)) + 1, entry.idf)
    end
    assert.same({ "a", "c", "b", "d" }, ranked)
    assert.equal(2, #c:ranked { least = 2 })
  end)

  it("counts what is skipped, but ranks it not", function()
    local c = counts.new()
    c:add(words "la zona la", { true, false, true })
    c:add(words "zona la", { nil, nil })
    assert.same({ la = 3, zona = 2 }, c.count)
    local ranked = c:ranked()
    assert.same({ "zona", 2, 2 }, { ranked[1].word, ranked[1].documents, ranked[1].count })
    assert.same({ "la", 1, 1 }, { ranked[2].word, ranked[2].documents, ranked[2].count })
  end)

  it("orders equals by their bytes", function()
    local c = counts.new()
    c:add(words "é z a É 1 北")
    local order = {}
    for i, entry in ipairs(c:ranked()) do order[i] = entry.word end
    assert.same({ "1", "a", "z", "É", "é", "北" }, order)
  end)

  it("measures a tokeniser by words, each as often as it occurs", function()
    local c = counts.new()
    c:add(words "lows . low , xyz lows —")
    local tok = unic.text.wordpiece { "[PAD]", "[UNK]", "[CLS]", "[SEP]", "low", "##s" }
    assert.same({ words = 4, unknown = 0.25, tokens_per_word = 1.5 }, c:measure(tok))
    local empty = counts.new():measure(tok)
    assert.equal(0, empty.words)
    assert.is_true(empty.unknown ~= empty.unknown and empty.tokens_per_word ~= empty.tokens_per_word)
  end)

  it("tells punctuation from words in any script", function()
    for _, mark in ipairs { ".", "$", "^", "¿", "«", "—", "、", "…" } do assert.is_true(counts.is_punctuation(mark), mark) end
    for _, word in ipairs { "a", "é", "ñu", "北", "°", "1", "ab", "[UNK]", "²" } do assert.is_false(counts.is_punctuation(word), word) end
  end)

  it("refuses wrong options", function()
    assert.raises_at(nil, "%[counts%] option 'document': the number 0, expected an integer of 1 or more", function() counts.new { document = 0 } end)
    assert.raises_at(nil, "%[ranked%] there is no option 'lest', did you mean 'least'%?", function() counts.new():ranked { lest = 2 } end)
  end)
end)
