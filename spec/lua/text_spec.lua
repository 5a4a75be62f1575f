--- unic.text as a person uses it: options, defaults, printing, and mistakes that are told at the user's line.
local unic = require "unic"
local text = require "unic.text"

local VOCABULARY = { "[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "low", "##s", "Low", "é", "e", "北", "." }

describe("unic.text", function()
  local tok = text.wordpiece(VOCABULARY)

  it("is reached from unic", function() assert.equal(text, unic.text) end)

  it("says what it is when printed", function()
    assert.equal("wordpiece: 12 tokens from the list, uncased, accents stripped", tostring(tok))
    assert.equal("wordpiece: 12 tokens from the list, cased, accents kept", tostring(text.wordpiece(VOCABULARY, { lowercase = false })))
  end)

  it("strips accents as it lowers case, unless told", function()
    local function pieces(options) return table.concat(text.wordpiece(VOCABULARY, options):tokens("LOW Low É é"), " ") end
    assert.equal("low low e e", pieces())
    assert.equal("low low e e", pieces { lowercase = true })
    assert.equal("[UNK] Low [UNK] é", pieces { lowercase = false })
    assert.equal("low low é é", pieces { strip_accents = false })
    assert.equal("[UNK] Low [UNK] e", pieces { lowercase = false, strip_accents = true })
    assert.same({ "北", "北" }, text.wordpiece(VOCABULARY):tokens("北北"))
    assert.same({ "[UNK]" }, text.wordpiece(VOCABULARY, { cjk = false }):tokens("北北"))
  end)

  it("keeps its options where they can be read", function()
    assert.same({ true, true, true }, { tok.lowercase, tok.strip_accents, tok.cjk })
    local cased = text.wordpiece(VOCABULARY, { lowercase = false, cjk = false })
    assert.same({ false, false, false }, { cased.lowercase, cased.strip_accents, cased.cjk })
    assert.equal("the list", tok.source)
  end)

  it("gives batches that an embedding takes", function()
    local ids, mask = tok:batch({ "low.", "lows low low" }, { multiple = 4 })
    assert.same({ 2, 8, 3 }, unic.embedding(ids, unic.randn({ tok.size, 3 }, { device = "cpu" })).shape)
    assert.same({ 2, 8 }, mask.shape)
    assert.same({ "cpu", "cpu" }, { ids.device, mask.device })
  end)

  it("outlives what it was made of", function()
    local short = text.wordpiece { "[PAD]", "[UNK]", "[CLS]", "[SEP]", "x" }
    collectgarbage()
    collectgarbage()
    assert.same({ 2, 4, 3 }, short:encode("x"))
    for _ = 1, 200 do short = text.wordpiece(VOCABULARY) end
    collectgarbage()
    assert.same({ 2, 5, 6, 3 }, short:encode("lows"))
  end)

  local mistakes = {
    { "%[wordpiece%] argument 'vocabulary': nil, expected the path of a vocabulary file or a list of tokens", function() text.wordpiece() end },
    { "%[wordpiece%] argument 'vocabulary': item 2 is not a token", function() text.wordpiece { "a", "b\nc" } end },
    { "%[wordpiece%] argument 'vocabulary': item 1 is not a token", function() text.wordpiece { 7 } end },
    { "%[wordpiece%] argument 'vocabulary': line 2 of the list is empty", function() text.wordpiece { "a", "", "b" } end },
    { "%[wordpiece%] there is no option 'lower_case', did you mean 'lowercase'%?", function() text.wordpiece(VOCABULARY, { lower_case = true }) end },
    { "%[wordpiece%] option 'cjk': the number 1, expected a boolean", function() text.wordpiece(VOCABULARY, { cjk = 1 }) end },
    { "%[encode%] argument 'text': nil, expected a string", function() tok:encode() end },
    { "%[encode%] argument 'text': a table, expected a string", function() tok:encode { "low" } end },
    { "%[encode%] there is no option 'max_lenght', did you mean 'max_length'%?", function() tok:encode("low", { max_lenght = 8 }) end },
    { "%[encode%] option 'max_length': 1, expected a whole number from 2 on", function() tok:encode("low", { max_length = 1 }) end },
    { "%[encode%] option 'max_length': 0, expected a whole number from 1 on$", function() tok:encode("low", { max_length = 0, bare = true }) end },
    { "%[encode%] option 'max_length': 2.5, expected", function() tok:encode("low", { max_length = 2.5 }) end },
    { "%[encode%] option 'max_length': %-?nan, expected", function() tok:encode("low", { max_length = 0 / 0 }) end },
    { "%[encode%] argument 'options': the number 8", function() tok:encode("low", 8) end },
    { "%[batch%] argument 'texts': the string \"low\", expected a table", function() tok:batch("low") end },
    { "%[batch%] argument 'texts': is empty", function() tok:batch {} end },
    { "%[batch%] argument 'texts': item 2 is false, expected a string", function() tok:batch { "low", false } end },
    { "%[batch%] argument 'texts': item 1 is the number 3, expected a string", function() tok:batch { 3 } end },
    { "%[batch%] option 'multiple': 0, expected 1 to 65536", function() tok:batch({ "low" }, { multiple = 0 }) end },
    { "%[batch%] option 'multiple': the number 1.5, expected an integer", function() tok:batch({ "low" }, { multiple = 1.5 }) end },
    { "%[batch%] option 'spans': the string \"chars\", expected true, \"bytes\" or \"characters\"", function() tok:batch({ "low" }, { spans = "chars" }) end },
    { "%[batch%] option 'pairs': 1 second texts, expected one for each of the 2 texts", function() tok:batch({ "low", "" }, { pairs = { "low" } }) end },
    { "%[batch%] option 'pairs': item 2 is a table, expected a string", function() tok:batch({ "low", "" }, { pairs = { "low", {} } }) end },
    { "%[batch%] option 'max_length': 2, expected a whole number from 3 on, because %[CLS%] and two %[SEP%] count",
      function() tok:batch({ "low" }, { pairs = { "low" }, max_length = 2 }) end },
    { "%[encode%] option 'pair': the number 3, expected a string", function() tok:encode("low", { pair = 3 }) end },
    { "%[encode%] option 'max_length': 2, expected a whole number from 3 on", function() tok:encode("low", { pair = "low", max_length = 2 }) end },
    { "%[encode%] option 'spans': the number 1, expected true, \"bytes\" or \"characters\"", function() tok:encode("low", { spans = 1 }) end },
    { "%[decode%] argument 'ids': 12 at position 2 is no id of the vocabulary, expected 0 to 11", function() tok:decode { 5, 12 } end },
    { "%[decode%] argument 'ids': %-1 at position 1 is no id", function() tok:decode { -1 } end },
    { "%[decode%] argument 'ids': the number 0.5 at position 1, expected token ids", function() tok:decode { 0.5 } end },
    { "%[decode%] argument 'ids': the number 1e%+20 at position 1", function() tok:decode { 1e20 } end },
    { "%[decode%] argument 'ids': the string \"low\" at position 1", function() tok:decode { "low" } end },
    { "%[decode%] argument 'ids': nil was given, expected a list of ids", function() tok:decode() end },
    { "%[decode%] argument 'ids': the tensor .* was given, expected a list of ids or an i64", function() tok:decode((tok:batch { "low" })) end },
    { "%[decode%] argument 'ids': the tensor .* was given", function() tok:decode(unic.zeros(3)) end },
    { "%[words%] argument 'text': true, expected a string", function() tok:words(true) end },
    { "%[tokens%] argument 'text': a function, expected a string", function() tok:tokens(print) end },
    { "%[id%] argument 'token': the number 3, expected a string", function() tok:id(3) end },
    { "%[token%] argument 'id': the string \"low\", expected an integer", function() tok:token("low") end },
    { "%[save%] argument 'path': nil, expected a string", function() tok:save() end },
  }
  for _, case in ipairs(mistakes) do
    it("answers: " .. case[1]:gsub("%%(.)", "%1"), function()
      assert.raises_at(debug.getinfo(case[2], "S").linedefined, case[1], case[2])
    end)
  end

  it("works on after a mistake", function() assert.same({ 2, 5, 3 }, tok:encode("low")) end)

  it("refuses a handle that was collected by hand", function()
    local one = text.wordpiece(VOCABULARY)
    debug.getmetatable(one.handle).__gc(one.handle)
    assert.raises_at(nil, "this vocabulary was freed", function() one:encode("low") end)
    debug.getmetatable(one.handle).__gc(one.handle)   -- twice does no harm
  end)
end)
