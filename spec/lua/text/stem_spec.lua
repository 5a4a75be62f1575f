--- Stems as PadChest's reports have them, and stop words.
local unic = require "unic"
local text = unic.text
local stem = require "unic.text.stem"
local stopwords = require "unic.text.stopwords"
local support = require "spec.support.files"

describe("unic.text.stem", function()
  if not stem.available() then
    it("stems", function() pending("libstemmer0d is not installed") end)
  else
    it("gives the stems that PadChest's vocabulary shows", function()
      -- named in the published vocabulary: lower-case ASCII
      for word, expected in pairs { hallazgos = "hallazg", Derrame = "derram", ["crónico"] = "cronic", ["CRÓNICAS"] = "cronic" } do
        assert.equal(expected, text.stem(word, "es"))
      end
    end)

    it("stems a text word by word, and parts its punctuation", function()
      assert.equal("derram pleural cronic . sin hallazg : corazon aument , 3 mm", text.stem("Derrame  pleural crónico. Sin hallazgos: corazón aumentado, 3 mm", "es"))
      assert.equal("", text.stem("", "es"))
      assert.equal("[UNK] cas", text.stem(("x"):rep(300) .. " casas", "es"))
    end)

    it("keeps accents where wished", function()
      assert.equal("nin", text.stem("niñas", "es"))
      assert.equal("niñ", text.stem("niñas", "es", { strip_accents = false }))
    end)

    it("knows languages by code and by name", function()
      assert.equal("effus", text.stem("effusions", "en"))
      assert.equal(text.stem("effusions", "en"), text.stem("effusions", "english"))
      assert.equal("derram", text.stem("derrames", "pt"))
      local names = {}
      for _, name in ipairs(stem.languages()) do names[name] = true end
      for _, name in ipairs { "spanish", "english", "portuguese", "french", "german", "italian" } do assert.is_true(names[name], name) end
    end)

    it("gives the same stem the second time, and for a word that has been pushed out", function()
      local stemmer = stem.stemmer("es")
      assert.equal(stemmer, stem.stemmer("es"))
      assert.equal("cas", stemmer "casas")
      for i = 1, 2 ^ 18 + 10 do stemmer("w" .. i) end
      assert.equal("cas", stemmer "casas")
    end)

    it("refuses what it cannot stem", function()
      assert.raises_at(nil, "%[stem%] argument 'language': \"spanihs\" is none that libstemmer has, did you mean 'spanish'%?", function() text.stem("a", "spanihs") end)
      assert.raises_at(nil, "%[stem%] argument 'language': nil, expected a string", function() text.stem("a") end)
      assert.raises_at(nil, "%[stem%] argument 'text': the number 3, expected a string", function() text.stem(3, "es") end)
      assert.raises_at(nil, "%[stem%] there is no option 'accents'", function() text.stem("a", "es", { accents = true }) end)
    end)
  end

  it("names the package where the library is absent", function()
    local shell = require("spec.support.check").shell
    local output = shell [[./unic -e 'local stem = require "unic.text.stem" stem.libraries = { "libnowhere.so.0" }
      print(stem.available(), select(2, pcall(unic.text.stem, "casas", "es")))']]
    assert.is_truthy(output:find "^false%s")
    assert.is_truthy(output:find("[stem] the library libnowhere.so.0 is not installed; it is in Debian's package libstemmer0d", 1, true), output)
  end)
end)

describe("unic.text.stopwords", function()
  it("has lists of full forms, without negations", function()
    assert.same({ "de", "en", "es", "fr", "it", "pt" }, stopwords.languages())
    local cases = {
      { "es", "también", "sin" }, { "en", "the", "without" }, { "pt", "também", "não" }, { "fr", "être", "sans" }, { "de", "für", "ohne" }, { "it", "è", "senza" },
    }
    for _, case in ipairs(cases) do
      local words, count = text.stopwords(case[1])
      local n = 0
      for word in pairs(words) do
        n = n + 1
        assert.equal(word:lower(), word)
      end
      assert.equal(count, n)
      assert.is_true(count > 250, case[1])
      assert.is_true(words[case[2]], case[2])
      assert.is_nil(words[case[3]], case[3])
    end
  end)

  it("reads a list of one's own", function()
    local folder = support.folder()
    finally(function() support.remove(folder) end)
    local path = support.write(folder .. "/own.txt", "# a remark\nuno dos\r\n  tres\n\nuno\n")
    assert.same({ { uno = true, dos = true, tres = true }, 3 }, { text.stopwords(path) })
    support.write(path, "# nothing\n")
    assert.raises_at(nil, "own%.txt holds no word", function() text.stopwords(path) end)
    assert.raises_at(nil, "%[stopwords%] cannot open .*nowhere%.txt", function() text.stopwords(folder .. "/nowhere.txt") end)
    assert.raises_at(nil, "%[stopwords%] cannot read " .. folder:gsub("%p", "%%%0") .. ": Is a directory", function() text.stopwords(folder) end)
    assert.raises_at(nil, "there is no list for the language 'ess', did you mean 'es'%?; there are: de, en, es, fr, it, pt", function() text.stopwords "ess" end)
    assert.raises_at(nil, "%[stopwords%] argument 'which': nil, expected a string", function() text.stopwords() end)
  end)
end)
