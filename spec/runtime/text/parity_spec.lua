--- The same ids and words as Hugging Face's tokenizers (spec/golden/wordpiece.py says how they were made, and with which version).
local ffi = require "ffi"
local unic = require "unic"
local text = require "unic.text"
local files = require "unic.files"
local testing = require "unic.testing"

local RULES = {
  uncased = {},
  cased = { lowercase = false },
  uncased_accents = { strip_accents = false },
  cased_stripped = { lowercase = false, strip_accents = true },
  uncased_no_cjk = { cjk = false },
}

-- Pages of 256 code points, as in wordpiece.py; `./unic check tokenizer` compares all 4,352.
local PAGES = {}
for page = 0, 0x1FF do PAGES[#PAGES + 1] = page end
for _, page in ipairs { 0x2A6, 0x2A7, 0x2B7, 0x2B8, 0x2B9, 0x2CE, 0x2F8, 0x2F9, 0x2FA, 0x300, 0xE00, 0xE01, 0xF00, 0xFFF, 0x1000, 0x10FF } do
  PAGES[#PAGES + 1] = page
end

local function split(str, separator)
  local list, from = {}, 1
  while true do
    local first, last = str:find(separator, from, true)
    list[#list + 1] = str:sub(from, (first or 0) - 1)
    if not first then return list end
    from = last + 1
  end
end

local function utf8(c)
  if c < 0x80 then return string.char(c) end
  if c < 0x800 then return string.char(0xC0 + bit.rshift(c, 6), 0x80 + c % 64) end
  if c < 0x10000 then return string.char(0xE0 + bit.rshift(c, 12), 0x80 + bit.rshift(c, 6) % 64, 0x80 + c % 64) end
  return string.char(0xF0 + bit.rshift(c, 18), 0x80 + bit.rshift(c, 12) % 64, 0x80 + bit.rshift(c, 6) % 64, 0x80 + c % 64)
end

describe("parity with Hugging Face", function()
  local golden = files.safetensors_open(unic.root .. "spec/golden/wordpiece.safetensors")
  local metadata = golden:metadata()
  local vocabulary = split(golden:data("vocabulary"), "\n")
  local texts = split(golden:data("texts"), "\n\0\n")

  local function numbers(name)
    local bytes, list = golden:data(name), {}
    local values = ffi.cast("const int32_t *", bytes)
    for i = 1, #bytes / 4 do list[i] = values[i - 1] end
    return list
  end

  local function compare(name, tok, options)
    local ids, counts, at = numbers("ids." .. name), numbers("count." .. name), 0
    assert.is_true(#texts > 200)
    assert.equal(#texts, #counts)
    for i, str in ipairs(texts) do
      local expected = {}
      for k = 1, counts[i] do expected[k] = ids[at + k] end
      at = at + counts[i]
      assert.same(expected, tok:encode(str, options))
    end
    assert.equal(#ids, at)
  end

  for name, rules in pairs(RULES) do
    it("in ids: " .. name, function() compare(name, text.wordpiece(vocabulary, rules), { max_length = math.huge }) end)
  end

  it("in special tokens written in texts", function()
    compare("specials", text.wordpiece(vocabulary), { max_length = math.huge, specials_in_text = true })
  end)

  for name, rules in pairs(RULES) do
    if name ~= "uncased_no_cjk" then
      it("in the words around single code points: " .. name, function()
        local tok = text.wordpiece(vocabulary, rules)
        local pages = { "[PAD]", "[UNK]", "[CLS]", "[SEP]" }
        for _, page in ipairs(PAGES) do
          local parts = {}
          for c = page * 256, page * 256 + 255 do
            if c < 0xD800 or c > 0xDFFF then parts[#parts + 1] = "x" .. utf8(c) .. "Y " end
          end
          local words = tok:words(table.concat(parts))
          words[#words + 1] = "."
          pages[#pages + 1] = page .. " " .. table.concat(words, " ")
        end
        -- The hash of a vocabulary of these lines: computed in C, unlike any that a spec could.
        assert.equal(metadata["code_points." .. name], text.wordpiece(pages):hash())
      end)
    end
  end

  it("in the ids of real Spanish sentences, uncased and cased", function()
    local folder = testing.real_data()
    if not folder then return pending("the folder of real data is absent") end
    for _, case in ipairs { { "bert-base-uncased", {} }, { "beto-spanish", { lowercase = false } } } do
      local tok = text.wordpiece(("%s/vocab/%s.vocab.txt"):format(folder, case[1]), case[2])
      local lines, count = { "[PAD]", "[UNK]", "[CLS]", "[SEP]" }, 0
      for line in io.lines(folder .. "/text-es-nubes/sentences.txt") do
        local ids = tok:encode(line, { max_length = math.huge })
        count = count + #ids
        lines[#lines + 1] = #lines .. ": " .. table.concat(ids, " ")
      end
      assert.equal(metadata["nubes." .. case[1]], ("%d %s"):format(count, text.wordpiece(lines):hash()))
    end
  end)
end)
