-- Token ids beside Hugging Face's tokenizers: real text, random Unicode, every code point; cased and uncased; and the speed of both
-- Cost: about 3 min; needs a python3 with tokenizers (python3 -m venv V && V/bin/pip install tokenizers==0.23.3, then V/bin first in PATH)
package.path = "./?.lua;" .. package.path
local support = require "spec.support.check"
local check = support.open "tokenizer"
local ffi = require "ffi"
local unic = require "unic"
local text = require "unic.text"
local testing = require "unic.testing"

local OUT = ".cache/check/tokenizer"
local real = testing.real_data()

local _, absent = support.shell("python3 -c 'import tokenizers'")
if absent ~= 0 then
  check:skip("ids", "this python3 has no tokenizers (pip install tokenizers==0.23.3)")
  check:close()
end

check:once("reference", function()
  local output, code = support.shell(("python3 spec/support/tokenizer_parity.py %s %s"):format(OUT, real or ""), { timeout = 1800 })
  if code ~= 0 then error(output, 0) end
  return "made"
end)

local facts = {}
for line in io.lines(OUT .. "/facts.txt") do
  local key, value = line:match("^(%S+) (.*)$")
  facts[key] = value
end
check:note("reference", "tokenizers " .. facts.tokenizers)
check:note("texts", tonumber(facts.texts))

local function read(path)
  local file = assert(io.open(path, "rb"))
  local bytes = file:read("*a")
  file:close()
  return bytes
end

local texts = {}
do
  local bytes, at = read(OUT .. "/texts.bin"), 0
  local words = ffi.cast("const uint8_t *", bytes)
  while at < #bytes do
    local size = words[at] + words[at + 1] * 256 + words[at + 2] * 65536
    texts[#texts + 1] = bytes:sub(at + 5, at + 4 + size)
    at = at + 4 + size
  end
end

local CASES = {
  { "characters_uncased", OUT .. "/characters.vocab.txt", {} },
  { "characters_cased", OUT .. "/characters.vocab.txt", { lowercase = false } },
  { "characters_accents", OUT .. "/characters.vocab.txt", { strip_accents = false } },
  { "characters_stripped", OUT .. "/characters.vocab.txt", { lowercase = false, strip_accents = true } },
}
if real then
  CASES[#CASES + 1] = { "bert_base_uncased", real .. "/vocab/bert-base-uncased.vocab.txt", {} }
  CASES[#CASES + 1] = { "beto_cased", real .. "/vocab/beto-spanish.vocab.txt", { lowercase = false } }
else
  check:skip("bert_base_uncased", "the folder of real data is absent")
  check:skip("beto_cased", "the folder of real data is absent")
end

local function quoted(str)
  return (str:gsub("[%z\1-\31\127-\255]", function(c) return ("\\x%02x"):format(c:byte()) end))
end

for _, case in ipairs(CASES) do
  local name, tok = case[1], text.wordpiece(case[2], case[3])
  local bytes, at, differ = read(("%s/ids.%s.bin"):format(OUT, name)), 0, 0
  local expected = ffi.cast("const int32_t *", bytes)
  for _, str in ipairs(texts) do
    local ids, count = tok:encode(str, { max_length = math.huge }), expected[at]
    local same = #ids == count
    for i = 1, #ids do same = same and ids[i] == expected[at + i] end
    at = at + 1 + count
    if not same then
      differ = differ + 1
      if differ <= 5 then io.stderr:write(name, ": ", quoted(str), "\n") end
    end
  end
  check:at_most(name .. "_differ", differ, 0)
  check:holds(name .. "_all_compared", at * 4 == #bytes)

  local other = tonumber(facts["mb_per_s." .. name])
  if other then
    local lines, size = {}, 0
    for line in io.lines(real .. "/text-es-nubes/sentences.txt") do
      if line ~= "" then lines[#lines + 1] = line end
      size = size + #line
    end
    unic.threads(1)
    local best = math.huge
    for _ = 1, 5 do
      local start = os.clock()
      for first = 1, #lines, 64 do tok:batch({ unpack(lines, first, math.min(first + 63, #lines)) }, { max_length = 512 }) end
      best = math.min(best, os.clock() - start)
    end
    check:note(name .. "_mb_per_s", size / best / 1e6)
    check:note(name .. "_mb_per_s_reference", other)
    check:at_least(name .. "_speed_up", size / best / 1e6 / other, 3)
  end
end
check:close()
