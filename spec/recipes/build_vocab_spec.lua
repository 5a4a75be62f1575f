--- recipes/build_vocab.lua: candidates, their order, what is left out, several languages, stems, given lists, held-out reports.
local unic = require "unic"
local testing = require "unic.testing"
local support = require "spec.support.files"
local stem = require "unic.text.stem"

local RECIPE = unic.root .. "recipes/build_vocab.lua"
local BASE = { "[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "pulmonar", "normal", "##es", ".", ",", "derrame" }
for c in ("abcdefghijklmnopqrstuvwxyz0123456789"):gmatch "." do
  BASE[#BASE + 1] = c
  BASE[#BASE + 1] = "##" .. c
end

describe("build_vocab", function()
  local folder, base, out
  setup(function()
    folder = support.folder()
    base = support.write(folder .. "/base.txt", table.concat(BASE, "\n") .. "\n")
    out = folder .. "/out.txt"
  end)
  teardown(function() support.remove(folder) end)

  local function run(options)
    local all = { base = base, out = out, language = "es" }
    for name, value in pairs(options) do all[name] = value end
    return testing.recipe(RECIPE, all).result
  end

  -- The lines behind the base.
  local function added()
    local lines = {}
    for line in io.lines(out) do lines[#lines + 1] = line end
    assert.same(BASE, { unpack(lines, 1, #BASE) })
    return { unpack(lines, #BASE + 1) }
  end

  local function text_file(name, lines) return support.write(folder .. "/" .. name, table.concat(lines, "\n") .. "\n") end

  it("puts words that are in most documents first, equals by the alphabet", function()
    -- With --document 2 the documents are: report 1; 2 and 3; 4 and 5; 6.
    local data = text_file("order.txt", {
      "Corazón grande.", "corazón corazón vidrio", "Ñandú", "corazón, ñandú vidrio", "zona", "Árbol zona corazón pulmonar derrame de la",
    })
    local result = run { data = data, document = 2, list = folder .. "/list.csv" }
    assert.same({ "corazon", "nandu", "vidrio", "zona", "arbol", "grande" }, added())
    assert.equal(#BASE, result.n_base)
    assert.equal(#BASE + 6, result.n_vocab)
    assert.equal(6, result.n_added)
    assert.equal(6, result.n_reports)
    local list = unic.files.read_csv(folder .. "/list.csv")
    local found = {}
    for r = 1, list:rows() do
      found[list:get(r, "word")] = { list:get(r, "documents"), list:get(r, "count"), tonumber(list:get(r, "idf")), list:get(r, "added") }
    end
    local function idf(df) return tonumber(("%.9g"):format(math.log((1 + 4) / (1 + df)) + 1)) end
    assert.same({ "4", "5", idf(4), "true" }, found.corazon)
    assert.same({ "2", "2", idf(2), "true" }, found.nandu)
    assert.same({ "1", "1", idf(1), "false" }, found.derrame)   -- the base has it
    assert.is_nil(found.de)
    assert.is_nil(found[","])
  end)

  it("makes the first document of one report, as the official code does", function()
    -- "b b" in reports 1 and 2 are two documents though 500 reports fit one; "a" is in one.
    local data = text_file("first.txt", { "bazo", "bazo arteria", "arteria" })
    run { data = data, list = folder .. "/list.csv" }
    assert.same({ "bazo", "arteria" }, added())
  end)

  it("leaves out stop words, punctuation and, where wished, numbers; keeps negations", function()
    local data = text_file("stop.txt", { "¿El pulmón no está en la «zona» 123 2a? — Sin él; ni ÉSTE, sin", ("x"):rep(101) .. " zona" })
    run { data = data }
    -- two documents: "zona" is in both
    assert.same({ "zona", "123", "2a", "ni", "no", "pulmon", "sin" }, added())
    run { data = data, ["no_numbers"] = true }
    assert.same({ "zona", "2a", "ni", "no", "pulmon", "sin" }, added())
    run { data = data, stopwords = "none" }
    assert.same({ "zona", "123", "2a", "el", "en", "esta", "este", "la", "ni", "no", "pulmon", "sin" }, added())
    local own = text_file("own.txt", { "# mine", "Zona no", "pulmón" })
    run { data = data, stopwords = own }
    assert.same({ "123", "2a", "el", "en", "esta", "este", "la", "ni", "sin" }, added())
  end)

  it("limits by documents, by occurrences and by number", function()
    local data = text_file("limits.txt", { "uno1 dos1", "uno1 dos1 tres1", "tres1 tres1 cuatro1" })
    run { data = data, document = 1 }
    assert.same({ "dos1", "tres1", "uno1", "cuatro1" }, added())
    run { data = data, document = 1, least = 2 }
    assert.same({ "dos1", "tres1", "uno1" }, added())
    run { data = data, document = 1, least_count = 3 }
    assert.same({ "tres1" }, added())
    run { data = data, document = 1, most = 2 }
    assert.same({ "dos1", "tres1" }, added())
    run { data = data, document = 1, least = 99 }
    assert.same({}, added())
  end)

  it("reads columns of a CSV, joins sections, chooses rows by language", function()
    local csv = support.write(folder .. "/r.csv", 'id,Find,Imp,language\n1,"bazo, grande",hilio,es\n2,,,es\n3,spleen,,en\n4,bazo,,es\n5,bad\n')
    local result = run { data = csv, columns = "report=Find+Imp" }
    assert.same({ "bazo", "grande", "hilio" }, added())
    assert.equal(2, result.n_reports)
    result = run { data = csv, columns = "report=Find", language = "en" }
    assert.same({ "spleen" }, added())
    assert.equal(1, result.n_reports)
    assert.raises_at(nil, "row 6", function() run { data = csv, columns = "report=Find", strict = true } end)
    local own = folder .. "/set"
    assert(require("lfs").mkdir(own))
    support.write(own .. "/data.csv", "image,report,language\na.png,hilio,es\n")
    run { data = own }
    assert.same({ "hilio" }, added())
  end)

  it("takes several data sets of several languages, one behind the other", function()
    local es, pt = text_file("es.txt", { "bazo fígado", "bazo" }), text_file("pt.txt", { "baço baco coração não", "coração coração" })
    local result = run { data = es .. "," .. pt, language = "es,pt" }
    -- "baco" is "baço" without its cedilla: once; "figado" stands already
    assert.same({ "bazo", "figado", "coracao", "baco", "nao" }, added())
    assert.equal(4, result.n_reports)
    run { data = es .. "," .. pt, language = "es,pt", most = 1 }
    assert.same({ "bazo", "coracao" }, added())
  end)

  it("keeps case and accents for a cased base", function()
    run { data = text_file("cased.txt", { "Corazón corazón Él", "corazón" }), cased = true }
    local cased = added()
    assert.same({ "corazón", "Corazón", "Él" }, cased)   -- the stop list has "él" as it is written there
  end)

  it("stems first where wished", function()
    if not stem.available() then return pending("libstemmer0d is not installed") end
    local data = text_file("stem.txt", { "Hallazgos crónicos", "hallazgo crónica; niñas en los ñus", "años" })
    run { data = data, stem = true }
    assert.same({ "cronic", "hallazg", "anos", "nin", "nus" }, added())
    local tok = unic.text.wordpiece(out)
    assert.same({ "hallazg", "cronic" }, tok:tokens(unic.text.stem("Hallazgo crónico", "es")))
    assert.raises_at(nil, "%-%-stem: stems are lower case", function() run { data = data, stem = true, cased = true } end)
  end)

  it("measures unknown words and tokens per word, before and after, on what was counted and on what was held out", function()
    local data = text_file("measure.txt", { "hilio hilio pulmonar, Ωhilio" })
    local result = run { data = data }
    -- before: h ##i ##l ##i ##o twice, pulmonar, and one word that no piece begins; the comma does not count
    assert.equal(0.25, result.unknown_before)
    assert.equal((5 + 5 + 1 + 1) / 4, result.tokens_before)
    assert.equal(0, result.unknown_after)
    assert.equal(1, result.tokens_after)
    assert.is_true(result.heldout_tokens_before ~= result.heldout_tokens_before)
    assert.equal(0, result.n_heldout)
    local lines = {}
    for i = 1, 400 do lines[i] = "informe " .. i % 200 end   -- each report twice
    lines[401] = "informe " .. ("z"):rep(30)
    result = run { data = text_file("held.txt", lines), heldout = 0.25 }
    assert.is_true(result.n_heldout > 60 and result.n_heldout < 140, tostring(result.n_heldout))
    assert.equal(401, result.n_heldout + result.n_reports)
    assert.is_true(result.n_heldout % 2 == 0 or result.n_reports % 2 == 0)   -- copies stay together
    assert.is_true(result.heldout_tokens_after < result.heldout_tokens_before)
    local other = run { data = folder .. "/held.txt", heldout = 0.25, seed = 7 }
    assert.is_true(other.n_heldout ~= result.n_heldout or other.hash ~= result.hash)
    assert.equal(result.hash, run { data = folder .. "/held.txt", heldout = 0.25 }.hash)
  end)

  it("merges a given list instead", function()
    local words = text_file("words.txt", { "hallazg", "derrame", " cronic ", "hallazg", "", "T12-L1" })
    local result = run { words = words }
    assert.same({ "hallazg", "cronic", "T12-L1" }, added())
    assert.equal(3, result.n_added)
    assert.equal(0, result.n_reports)
    assert.is_true(result.tokens_after ~= result.tokens_after)   -- nothing was measured
    result = run { words = words, data = text_file("w.txt", { "hallazgs" }) }
    assert.equal(8, result.tokens_before)
    assert.equal(2, result.tokens_after)
  end)

  it("extends the English part of the built-in vocabulary by the built-in Spanish reports", function()
    local result = testing.recipe(RECIPE, { out = out, studies = 1000, heldout = 0.2 }).result
    assert.is_true(result.n_added > 150, tostring(result.n_added))
    assert.is_true(result.heldout_tokens_before > 3 and result.heldout_tokens_after < 1.6)
    assert.equal(result.n_vocab, unic.text.wordpiece(out).size)
    assert.equal(result.hash, unic.text.wordpiece(out):hash())
    support.write(out, "old\n")
    assert.equal(result.n_added, testing.recipe(RECIPE, { out = out, studies = 1000, heldout = 0.2, dry = true }).result.n_added)
    assert.equal("old\n", support.read(out))
  end)

  it("says what is wrong", function()
    local data = text_file("few.txt", { "hilio" })
    local cases = {
      { { data = folder .. "/nowhere.txt" }, "%-%-data: cannot open .*nowhere%.txt" },
      { { data = folder .. "/nowhere.csv" }, "nowhere%.csv" },
      { { data = text_file("blank.txt", { "", "  " }) }, "%-%-data: .*blank%.txt has no report in 'es' that can be counted" },
      { { data = data, language = "xx" }, "there is no list for the language 'xx'" },
      { { data = data, language = "es,pt" }, "%-%-language: 2 values for 1 data sets, expected one, or one for each" },
      { { data = "phantom", language = "fr" }, "%-%-language: the built%-in set has en and es, 'fr' was given" },
      { { data = support.write(folder .. "/c.csv", "a,b\n1,2\n") }, "c%.csv.*report" },
      { { data = folder .. "/c.csv", columns = "text=a" }, "%-%-columns: 'text=a', expected report=COLUMN" },
      { { data = data, base = folder .. "/nobase.txt" }, "cannot open .*nobase%.txt" },
      { { data = data, words = folder .. "/nowords.txt" }, "%-%-words: cannot open .*nowords%.txt" },
      { { data = data, stopwords = folder .. "/nostop.txt" }, "%[stopwords%] cannot open .*nostop%.txt" },
      { { data = data, heldout = 1 }, "%-%-heldout: '1' was given, expected a number from 0 to 0%.9" },
      { { data = data, vocab = base }, "%-%-vocab: the vocabulary to extend is given by %-%-base" },
      { { data = data, lest = 2 }, "unknown option '%-%-lest'" },
    }
    for _, case in ipairs(cases) do assert.raises_at(nil, case[2], function() run(case[1]) end) end
    local before = support.write(out, "old\n")
    pcall(run, cases[1][1])
    assert.equal("old\n", support.read(before))   -- a vocabulary that is there stays until a new one is complete
  end)
end)
