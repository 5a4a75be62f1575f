--- BERT's basic tokeniser: which words a text has. Expected words are written out by hand from the rules.
local text = require "unic.text"

local SPECIALS = { "[PAD]", "[UNK]", "[CLS]", "[SEP]" }

describe("words", function()
  local uncased = text.wordpiece(SPECIALS)
  local cased = text.wordpiece(SPECIALS, { lowercase = false })
  local accents = text.wordpiece(SPECIALS, { strip_accents = false })
  local stripped = text.wordpiece(SPECIALS, { lowercase = false, strip_accents = true })

  -- Words of `str`, with a bar between them.
  local function words(tok, str) return table.concat(tok:words(str), "|") end

  it("parts words at white space of every kind", function()
    assert.equal("a|b|c|d|e", words(uncased, " a\tb\nc\r\nd  e "))
    assert.equal("a|b|c|d", words(uncased, "a\194\160b\226\128\168c\227\128\128d"))   -- U+00A0, U+2028, U+3000
    assert.equal("", words(uncased, ""))
    assert.equal("", words(uncased, " \t\n"))
  end)

  it("makes each punctuation mark a word, ASCII symbols included", function()
    assert.equal("no|,|1|.|5|-|2|mm|(|l|/|r|)|.", words(uncased, "No, 1.5-2 mm (L/R)."))
    assert.equal("a|$|b|^|c|`|d|~|e|||+", words(uncased, "a$b^c`d~e|+"))
    assert.equal("¿|que|?|¡|no|!|«|si|»|–|…", words(uncased, "¿Qué? ¡No! «sí»–…"))
    assert.equal("10°|5±1", words(uncased, "10° 5±1"))   -- symbols beyond ASCII are letters to BERT
  end)

  it("removes control and format characters without parting words", function()
    assert.equal("abcdef", words(uncased, "a\0b\1c\194\173d\226\128\139e\239\187\191f"))   -- NUL, SOH, soft hyphen, U+200B, U+FEFF
    assert.equal("ab", words(uncased, "a\239\191\189b"))                                   -- U+FFFD
    assert.equal("abc", words(uncased, "a\11b\12c"))   -- vertical tab and form feed are controls, not blanks
    assert.equal("ab", words(uncased, "a\238\128\128b"))                                   -- private use
    assert.equal("a\205\184b", words(uncased, "a\205\184b"))                               -- unassigned U+0378 stays
  end)

  it("lowers case and strips accents as told", function()
    assert.equal("torax|nandu|uber", words(uncased, "TÓRAX Ñandú Über"))
    assert.equal("TÓRAX|Ñandú|Über", words(cased, "TÓRAX Ñandú Über"))
    assert.equal("tórax|ñandú|über", words(accents, "TÓRAX Ñandú Über"))
    assert.equal("TORAX|Nandu|Uber", words(stripped, "TÓRAX Ñandú Über"))
    assert.equal("nino|nino", words(uncased, "nin\204\131o niño"))   -- decomposed and composed
    assert.equal("n\204\131", words(accents, "N\204\131"))
  end)

  it("lowers case by full Unicode rules, whatever the neighbours", function()
    assert.equal("i\204\135stanbul", words(accents, "İstanbul"))     -- U+0130 becomes two characters
    assert.equal("istanbul", words(uncased, "İstanbul"))
    assert.equal("όσοσ", words(accents, "ΌΣΟΣ"))                     -- no final sigma
    assert.equal("ß|straße", words(uncased, "ẞ STRAßE"))
    assert.equal("k|å|ω", words(accents, "\226\132\170 \226\132\171 \226\132\166"))   -- Kelvin, Angstrom, Ohm signs
    assert.equal("ѐж", words(accents, "ЀЖ"))
  end)

  it("takes characters apart canonically, Hangul too", function()
    assert.equal("\225\132\146\225\133\161\225\134\171", words(uncased, "한"))
    assert.equal("한", words(accents, "한"))
    assert.equal("か", words(uncased, "が"))
    assert.equal("ﬁ", words(uncased, "ﬁ"))                                                 -- a compatibility form stays
    assert.equal("=|<|;", words(uncased, "≠ ≮ \205\190"))                                  -- what is left is punctuation
    assert.equal("≠|≮|\205\190", words(cased, "≠ ≮ \205\190"))
    assert.equal("\232\177\136", words(uncased, "\239\164\128"))                           -- U+F900 -> U+8C48
  end)

  it("puts the marks that stay into canonical order", function()
    -- U+1D165 (class 216) and U+302E (class 224) are spacing marks: they stay when accents go.
    local stem, dot = "\240\157\133\165", "\227\128\174"
    assert.equal("a" .. stem .. dot, words(cased, "a" .. stem .. dot))
    assert.equal("a" .. stem .. stem, words(uncased, "a" .. stem .. stem))
    for _, mark in ipairs { "\204\129", "" } do   -- an accent between them does not part them
      assert.equal(words(uncased, "a" .. stem .. dot), words(uncased, "a" .. dot .. mark .. stem))
    end
    assert.not_equal(words(uncased, "a" .. stem .. dot), words(uncased, "a" .. dot .. "\224\164\129" .. stem))   -- U+0901, a mark of class 0, does
    assert.not_equal(words(uncased, "a" .. stem .. dot), words(uncased, "a" .. dot .. "b" .. stem))
    assert.not_equal(words(accents, "a" .. stem .. dot), words(accents, "a" .. dot .. stem))   -- no decomposition, no order
  end)

  it("makes Chinese characters words, unless told not to", function()
    local plain = text.wordpiece(SPECIALS, { cjk = false })
    assert.equal("x|北|京|y", words(uncased, "x北京y"))
    assert.equal("x北京y", words(plain, "x北京y"))
    assert.equal("かな|한국", words(cased, "かな 한국"))   -- kana and Hangul are letters
  end)

  it("removes what is not UTF-8, a maximal ill-formed part at a time", function()
    assert.equal("ab", words(uncased, "a\255b"))
    assert.equal("ab", words(uncased, "a\226\130b"))           -- cut short
    assert.equal("ab", words(uncased, "a\192\175b"))           -- overlong
    assert.equal("ab", words(uncased, "a\237\160\128b"))       -- a surrogate
    assert.equal("ab", words(uncased, "a\244\144\128\128b"))   -- above U+10FFFF
    assert.equal("a|(|b", words(uncased, "a\226(\161b"))       -- the bracket is no part of it
    assert.equal("a", words(uncased, "a\240\159\146"))         -- the text ends inside
    assert.equal("aé", words(cased, "a\226\195\169"))
  end)

  it("survives any bytes", function()
    local seed = 1
    local function random(n)
      seed = (seed * 16807) % 2147483647
      return seed % n
    end
    for _ = 1, 2000 do
      local bytes = {}
      for i = 1, random(60) do bytes[i] = string.char(random(256)) end
      local found = uncased:words(table.concat(bytes))
      for _, word in ipairs(found) do assert.is_true(#word > 0) end
      assert.same(found, uncased:words(table.concat(found, " ")))   -- words of words are words
    end
  end)

  it("gives up on words over 100 characters, not bytes", function()
    assert.equal(("é"):rep(100), words(cased, ("é"):rep(100)))
    assert.equal("[UNK]", words(cased, ("é"):rep(101)))
    assert.equal(("e"):rep(100), words(uncased, ("e\204\129"):rep(100)))   -- counted after accents went
    assert.equal("[UNK]|a", words(cased, ("x"):rep(5000) .. " a"))
    assert.equal(("x"):rep(100) .. "|.|" .. ("x"):rep(100), words(cased, ("x"):rep(100) .. "." .. ("x"):rep(100)))
    assert.equal("[UNK]|.", words(cased, ("\240\144\144\128"):rep(101) .. "."))   -- four bytes each
  end)
end)
