--- WordPiece: pieces, ids, limits, batches, threads, decoding, and what a vocabulary file may not be.
local unic = require "unic"
local text = require "unic.text"
local support = require "spec.support.files"

local VOCABULARY = { "[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "un", "##aff", "##able", "##a", "##b", "want", "##want", "##ed", "wa", "runn",
                     "##ing", ",", ".", "low", "lower", "##er", "##s", "[", "]", "mask", "é", "##é", "e", "##", "#", "'", "s" }

local function id_of(token)
  for i, t in ipairs(VOCABULARY) do
    if t == token then return i - 1 end
  end
end

describe("wordpiece", function()
  local tok = text.wordpiece(VOCABULARY)
  local folder

  setup(function() folder = support.folder() end)
  teardown(function() support.remove(folder) end)

  local function pieces(str) return table.concat(tok:tokens(str), " ") end

  it("takes the longest piece first, then the longest that continues", function()
    assert.equal("un ##aff ##able", pieces("unaffable"))
    assert.equal("un ##want ##ed", pieces("UNwantéd"))
    assert.equal("want ##ed , runn ##ing .", pieces("wanted, running."))
    assert.equal("lower ##s", pieces("lowers"))
    assert.equal("low", pieces("low"))
    assert.equal("un ##a ##b", pieces("unab"))
  end)

  it("makes a word unknown when any part of it has no piece", function()
    assert.equal("[UNK]", pieces("unaffablex"))
    assert.equal("[UNK] low", pieces("xyz low"))
    assert.equal("[UNK]", pieces("ing"))          -- "##ing" only continues
    assert.equal("[UNK]", pieces("runningrunn"))
    assert.equal("# # s", pieces("##s"))          -- written in a text, "##" is punctuation
    assert.equal("[UNK]", pieces("un" .. ("a"):rep(99)))
    assert.equal("un" .. (" ##a"):rep(98), pieces("un" .. ("a"):rep(98)))
  end)

  it("encodes between [CLS] and [SEP]", function()
    assert.same({ 2, id_of "un", id_of "##aff", id_of "##able", 3 }, tok:encode("unaffable"))
    assert.same({ id_of "low" }, tok:encode("low", { bare = true }))
    assert.same({ 2, 3 }, tok:encode(""))
    assert.same({}, tok:encode("", { bare = true }))
  end)

  it("cuts at max_length, [CLS] and [SEP] included", function()
    local full = tok:encode("unaffable wanted")
    assert.equal(7, #full)
    for max = 2, 9 do
      local expected = {}
      for i = 1, math.min(max, 7) - 1 do expected[i] = full[i] end
      expected[#expected + 1] = 3
      assert.same(expected, tok:encode("unaffable wanted", { max_length = max }))
    end
    assert.same({ id_of "un" }, tok:encode("unaffable", { max_length = 1, bare = true }))
    assert.equal(256, #tok:encode(("low "):rep(1000)))
    assert.equal(1002, #tok:encode(("low "):rep(1000), { max_length = math.huge }))
    assert.same({ 2, 1, 3 }, tok:encode("unaffablex", { max_length = 3 }))   -- unknown, though its first piece would have fitted
  end)

  it("keeps special tokens written in a text apart from real ones, unless told otherwise", function()
    assert.equal("[ mask ] low [UNK]", pieces("[MASK] low SEP"))
    assert.same({ 2, 4, id_of "low", 3, 4, 3 }, tok:encode("[MASK]low[SEP] [MASK]", { specials_in_text = true }))
    assert.same({ 2, id_of "[", 4, id_of "]", 3 }, tok:encode("[[MASK]]", { specials_in_text = true }))
    assert.same({ 2, id_of "[", id_of "mask", 3 }, tok:encode("[mask", { specials_in_text = true }))
    assert.same({ 2, id_of "[", id_of "mask", id_of "]", 3 }, tok:encode("[mask]", { specials_in_text = true }))   -- names are as written
    assert.same({ 2, 4, 3 }, tok:encode("[MASK][MASK]", { specials_in_text = true, max_length = 3 }))
  end)

  it("tells where each token stands in the text", function()
    local str = "Un\204\129wanted,  \195\137 xyz"
    local ids, first, last = tok:encode(str, { spans = true })
    local shown = {}
    for i = 1, #ids do shown[i] = tok:token(ids[i]) .. "=" .. str:sub(first[i], last[i]) end
    -- a combining accent that goes belongs to nobody at a token's end; one that was composed belongs to its letter
    assert.same({ "[CLS]=", "un=Un", "##want=want", "##ed=ed", ",=,", "e=\195\137", "[UNK]=xyz", "[SEP]=" }, shown)
    assert.same(ids, tok:encode(str))
    ids, first, last = tok:encode(",[MASK]" .. ("x"):rep(300), { spans = true, specials_in_text = true, bare = true })
    assert.same({ id_of ",", 4, 1 }, ids)
    assert.same({ 1, 2, 8 }, first)
    assert.same({ 1, 7, 307 }, last)
    assert.same({ { 2, 3 }, { 1, 1 }, { 0, 0 } }, { tok:encode("", { spans = true }) })
  end)

  it("counts places in characters as well as in bytes, and in each text of a batch", function()
    local str = "\195\137\195\137 \255low\240\159\152\128s."   -- two letters of two bytes, one that is no UTF-8, one character of four bytes
    local odd = text.wordpiece { "[PAD]", "[UNK]", "[CLS]", "[SEP]", "e", "##e", "low", "." }
    local ids, first, last = odd:encode(str, { spans = "characters" })
    assert.same({ 2, 4, 5, 1, 7, 3 }, ids)
    assert.same({ { 1, 1, 2, 5, 10, 1 }, { 0, 1, 2, 9, 10, 0 } }, { first, last })
    local _, byte_first, byte_last = odd:encode(str, { spans = "bytes" })
    assert.same({ { 1, 1, 3, 7, 15, 1 }, { 0, 2, 4, 14, 15, 0 } }, { byte_first, byte_last })
    assert.same({ odd:encode(str, { spans = "bytes" }) }, { odd:encode(str, { spans = true }) })
    assert.is_nil((select(2, odd:encode(str, { spans = false }))))
    for kind, starts in pairs { bytes = byte_first, characters = first } do
      local rows, mask, spans = odd:batch({ "low", str }, { spans = kind, multiple = 8 })
      assert.same({ 2, 8 }, mask.shape)
      assert.same({ 2, 8, 2 }, spans.shape)
      assert.equal("i64", spans.dtype)
      assert.same({ 2, 6, 3, 0, 0, 0, 0, 0 }, rows:totable()[1])
      local places = spans:totable()
      assert.same({ { 0, 0 }, { 0, 3 }, { 0, 0 }, { 0, 0 } }, { unpack(places[1], 1, 4) })
      for i = 1, 6 do assert.equal(starts[i] - 1, places[2][i][1]) end
      assert.same({ 0, 0 }, places[2][8])
    end
  end)

  it("gives marks that changed places the places of those that stood there, as Hugging Face does", function()
    -- U+302E (class 224) is kept, U+0323 (220) goes; after ordering it is the second of both
    local odd = text.wordpiece { "[PAD]", "[UNK]", "[CLS]", "[SEP]", "e", "##\227\128\174" }
    local ids, first, last = odd:encode("e\227\128\174\204\163", { spans = "characters", bare = true })
    assert.same({ { 4, 5 }, { 1, 3 }, { 1, 3 } }, { ids, first, last })
    ids, first, last = odd:encode("e\204\163\227\128\174", { spans = "characters", bare = true })
    assert.same({ { 4, 5 }, { 1, 3 }, { 1, 3 } }, { ids, first, last })
    -- more marks than there is room to order: the mark keeps its own place
    local many = "e\227\128\174" .. ("\204\163"):rep(200)
    ids, first, last = odd:encode(many, { spans = "characters", bare = true })
    assert.same({ { 4, 5 }, { 1, 2 }, { 1, 2 } }, { ids, first, last })
  end)

  it("encodes pairs with token types, and shortens the longer text first", function()
    local low, s, dot = id_of "low", id_of "##s", id_of "."
    assert.same({ { 2, low, s, 3, low, dot, 3 }, { 0, 0, 0, 0, 1, 1, 1 } }, { tok:encode("lows", { pair = "low." }) })
    assert.same({ { low, s, low, dot }, { 0, 0, 1, 1 } }, { tok:encode("lows", { pair = "low.", bare = true }) })
    assert.same({ { 2, 3, 3 }, { 0, 0, 1 } }, { tok:encode("", { pair = "" }) })
    assert.same({ { 2, 4, 3, low, 3 }, { 0, 0, 0, 1, 1 } }, { tok:encode("[MASK]", { pair = "low", specials_in_text = true }) })
    local _, _, first, last = tok:encode("lows", { pair = " l\195\179w.", spans = "characters" })
    assert.same({ { 1, 1, 4, 1, 2, 5, 1 }, { 0, 3, 4, 0, 4, 5, 0 } }, { first, last })
    -- How many ids of 6 and of 7 are left, as tokenizers 0.23.3 has it ("longest_first").
    local six, seven = ("low "):rep(6), (". "):rep(7)
    local function left(a, b, max)
      local ids, types = tok:encode(a, { pair = b, max_length = max })
      assert.equal(#ids, #types)
      local n = { 0, 0 }
      for _, kind in ipairs(types) do n[kind + 1] = n[kind + 1] + 1 end
      assert.equal(3, ids[n[1]])
      assert.equal(3, ids[#ids])
      return { n[1] - 2, n[2] - 1 }
    end
    local table_of = {
      [3] = { 0, 0 }, [4] = { 0, 1 }, [5] = { 1, 1 }, [6] = { 1, 2 }, [8] = { 2, 3 }, [13] = { 5, 5 }, [14] = { 5, 6 }, [15] = { 6, 6 }, [16] = { 6, 7 },
    }
    for max, expected in pairs(table_of) do
      assert.same(expected, left(six, seven, max))
      assert.same({ expected[2], expected[1] }, left(seven, six, max))
    end
    assert.same({ 2, 3 }, left(six, six, 8))
    assert.same({ 1, 6 }, left("low", seven, 10))
    assert.same({ 6, 1 }, left(seven, "low", 10))
    assert.same({ 0, 5 }, left("", seven, 8))
  end)

  it("makes batches of pairs on any number of threads", function()
    local firsts, seconds = {}, {}
    for i = 1, 60 do firsts[i], seconds[i] = ("lower "):rep(i % 7), ("un\195\161ffable. "):rep(i % 11) end
    local before = unic.threads()
    finally(function() unic.threads(before) end)
    for threads = 1, 3 do
      unic.threads(threads)
      local rows, mask, types, spans = tok:batch(firsts, { pairs = seconds, max_length = 20, spans = "characters", multiple = 4 })
      assert.same({ 60, 20 }, rows.shape)
      assert.equal("i64", types.dtype)
      local ids, inside, kinds, places = rows:totable(), mask:to("i64"):totable(), types:totable(), spans:totable()
      for i = 1, 60 do
        local own, own_types, first, last = tok:encode(firsts[i], { pair = seconds[i], max_length = 20, spans = "characters" })
        for k = 1, 20 do
          local there = k <= #own
          assert.same({ own[k] or tok.pad, there and 1 or 0, own_types[k] or 0, there and first[k] - 1 or 0, there and last[k] or 0 },
                      { ids[i][k], inside[i][k], kinds[i][k], places[i][k][1], places[i][k][2] })
        end
      end
    end
  end)

  it("finds ids and tokens by string and number", function()
    assert.equal(32, tok.size)
    assert.same({ 0, 1, 2, 3, 4 }, { tok.pad, tok.unk, tok.cls, tok.sep, tok.mask })
    for id = 0, tok.size - 1 do
      assert.equal(VOCABULARY[id + 1], tok:token(id))
      assert.equal(id, tok:id(tok:token(id)))
    end
    assert.is_nil(tok:id("nowhere"))
    assert.is_nil(tok:id("##nowhere"))
    assert.is_nil(tok:id(""))
    assert.is_nil(tok:token(-1))
    assert.is_nil(tok:token(32))
    local other = text.wordpiece { "x", "[SEP]", "[UNK]", "[PAD]", "[CLS]" }   -- specials wherever they stand
    assert.same({ 3, 2, 4, 1 }, { other.pad, other.unk, other.cls, other.sep })
    assert.is_nil(other.mask)
    assert.same({ 4, 0, 1 }, other:encode("x"))
  end)

  it("pads a batch to its longest text or a multiple", function()
    local ids, mask = tok:batch { "low", "unaffable wanted", "" }
    assert.same({ 3, 7 }, ids.shape)
    assert.same({ "i64", "bool" }, { ids.dtype, mask.dtype })
    assert.same({ { 2, id_of "low", 3, 0, 0, 0, 0 }, tok:encode("unaffable wanted"), { 2, 3, 0, 0, 0, 0, 0 } }, ids:totable())
    local T, F = string.char(1), string.char(0)
    assert.equal(T:rep(3) .. F:rep(4) .. T:rep(7) .. T:rep(2) .. F:rep(5), mask:bytes())
    ids, mask = tok:batch({ "low" }, { multiple = 8 })
    assert.same({ { 1, 8 }, { 1, 8 } }, { ids.shape, mask.shape })
    assert.same({ 2, 16 }, tok:batch({ ("low "):rep(14), "low" }, { multiple = 8 }).shape)
    assert.same({ 2, 5 }, tok:batch({ ("low "):rep(14), "low" }, { max_length = 5 }).shape)
    assert.same({ { id_of "low", 0 }, { id_of "low", id_of "." } }, (tok:batch({ "low", "low." }, { bare = true })):totable())
    -- an odd vocabulary pads with its own [PAD]
    assert.same({ { 2, 0, 3 }, { 2, 3, 1 } }, (text.wordpiece { "low", "[PAD]", "[CLS]", "[SEP]", "[UNK]" }):batch { "low", "" }:totable())
  end)

  it("gives the same batch on any number of threads", function()
    local texts = {}
    for i = 1, 300 do
      local parts = {}
      for k = 1, i % 37 do parts[k] = ("unaffable, wanted Lowers xyz%d."):format(i * k) end
      texts[i] = table.concat(parts, " ")
    end
    local before = unic.threads()
    finally(function() unic.threads(before) end)
    unic.threads(1)
    local ids, mask = tok:batch(texts)
    for threads = 2, 4 do
      unic.threads(threads)
      for _ = 1, 5 do
        local again, again_mask = tok:batch(texts)
        assert.same_bits(ids, again)
        assert.same_bits(mask, again_mask)
      end
    end
    local rows = ids:totable()
    for i = 1, #texts do
      local single = tok:encode(texts[i])
      for k = 1, ids.shape[2] do
        if (single[k] or tok.pad) ~= rows[i][k] then error(("text %d, token %d"):format(i, k)) end
      end
    end
  end)

  it("decodes to readable text", function()
    local ids = tok:encode("Unaffable, wanted lowers.")
    assert.equal("unaffable, wanted lowers.", tok:decode(ids))
    assert.equal("unaffable , wanted lowers .", tok:decode(ids, { cleanup = false }))
    assert.equal("[CLS] unaffable, wanted lowers. [SEP]", tok:decode(ids, { specials = true }))
    assert.equal("##able un", tok:decode { id_of "##able", id_of "un" })   -- nothing before it to glue it to
    assert.equal("", tok:decode {})
    assert.equal("low ' s", tok:decode(tok:encode("low's")))
    local batch = tok:batch { "low", "unaffable" }
    assert.equal("low", tok:decode(batch[1]))
    assert.equal("[CLS] low [SEP] [PAD] [PAD]", tok:decode(batch[1], { specials = true }))
    assert.equal("unaffable", tok:decode(batch[2]))
  end)

  it("has a hash of the vocabulary's contents", function()
    local h = 0xcbf29ce484222325ULL
    for byte in (table.concat(VOCABULARY, "\n") .. "\n"):gmatch "." do h = bit.bxor(h, byte:byte() + 0ULL) * 0x100000001b3ULL end
    assert.equal(bit.tohex(h), tok:hash())
    local other = { unpack(VOCABULARY) }
    other[10] = "##c"
    assert.not_equal(tok:hash(), text.wordpiece(other):hash())
    assert.equal(tok:hash(), text.wordpiece(VOCABULARY, { lowercase = false }):hash())
  end)

  it("keeps 50,000 tokens apart", function()
    local many = { "[PAD]", "[UNK]", "[CLS]", "[SEP]" }
    for i = 1, 25000 do
      many[#many + 1] = ("w%x"):format(i * 7919 % 1000003)
      many[#many + 1] = ("##%x"):format(i * 7919 % 1000003)
    end
    local big = text.wordpiece(many)
    for i = 1, #many do
      if big:id(many[i]) ~= i - 1 then error(many[i]) end
    end
    for i = 5, #many, 2 do
      local ids = big:encode(many[i], { bare = true })
      if ids[1] ~= i - 1 or #ids ~= 1 then error(many[i]) end
    end
  end)

  describe("vocabulary file", function()
    local function file(contents) return support.write(folder .. "/vocab.txt", contents) end
    local plain = table.concat(VOCABULARY, "\n")

    it("may end its lines with LF or CRLF, the last one or not, and begin with a byte order mark", function()
      for _, contents in ipairs { plain, plain .. "\n", (plain .. "\n"):gsub("\n", "\r\n"), "\239\187\191" .. plain, (plain:gsub("\n", " \t\n")) } do
        local read = text.wordpiece(file(contents))
        assert.equal(tok:hash(), read:hash())
        assert.equal(32, read.size)
      end
    end)

    it("is written back as it was", function()
      tok:save(folder .. "/saved.txt")
      assert.equal(plain .. "\n", support.read(folder .. "/saved.txt"))
      assert.equal(tok:hash(), text.wordpiece(folder .. "/saved.txt"):hash())
    end)

    it("may hold tokens that no text can give", function()
      local read = text.wordpiece(file(plain .. "\n\226\128\168\n[unused0]\ntwo words\n" .. ("x"):rep(1000) .. "\n##" .. ("x"):rep(1000)))
      assert.equal(37, read.size)
      assert.equal(32, read:id("\226\128\168"))   -- a line of white space alone stays as it is
      assert.equal(34, read:id("two words"))
      assert.equal(36, read:id("##" .. ("x"):rep(1000)))
      assert.same({ 1 }, read:encode(("x"):rep(1000), { bare = true }))
    end)

    local bad = {
      { "empty", "", "is empty; expected a text file with one token a line" },
      { "without [CLS]", "[PAD]\n[UNK]\n[SEP]\n", "has no %[CLS%] among its 3 tokens" },
      { "without any special token", "a\nb\n", "has no %[PAD%], %[UNK%], %[CLS%], %[SEP%] among its 2 tokens" },
      { "with a repeated line", plain .. "\nlow\n", "line 33 of .* repeats the token 'low' of line 19" },
      { "with a line repeated but for a blank at its end", plain .. "\nlow \n", "line 33 of .* repeats the token 'low' of line 19" },
      { "with a repeated continuation", plain .. "\n##ed\n", "line 33 of .* repeats the token '##ed' of line 13" },
      { "with an empty line", "[PAD]\n\n[UNK]\n", "line 2 of .* is empty; every line is one token" },
      { "with an empty line at its end", plain .. "\n\n", "line 33 of .* is empty" },
      { "with an empty CRLF line", "[PAD]\r\n\r\n", "line 2 of .* is empty" },
      { "in Latin-1", plain .. "\nni\241o\n", "is not UTF%-8 %(byte 0xF1 in line 33%)" },
      { "in UTF-16", "\255\254[\0P\0A\0D\0]\0\n\0", "is not UTF%-8 %(byte 0xFF in line 1%)" },
    }
    for _, case in ipairs(bad) do
      it("is refused " .. case[1], function()
        local path = file(case[2])
        assert.raises_at(nil, "%[wordpiece%] argument 'vocabulary': .*" .. case[3], function() text.wordpiece(path) end)
        local _, message = pcall(text.wordpiece, path)
        assert.truthy(message:find(path, 1, true))
      end)
    end

    it("is refused when it cannot be read", function()
      assert.raises_at(nil, "cannot open .*/nowhere.txt: No such file", function() text.wordpiece(folder .. "/nowhere.txt") end)
      assert.raises_at(nil, "cannot read .*: Is a directory", function() text.wordpiece(folder) end)
    end)
  end)
end)
