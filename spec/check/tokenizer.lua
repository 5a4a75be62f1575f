-- Token ids, offsets, pairs, special tokens and decoding beside Hugging Face's tokenizers: real text, random Unicode, every code point; and the speed of both
-- Cost: about 3 min; needs a python3 with tokenizers (python3 -m venv V && V/bin/pip install tokenizers, then V/bin first in PATH)
package.path = "./?.lua;" .. package.path
local support = require "spec.support.check"
local check = support.open "tokenizer"
local ffi = require "ffi"
local unic = require "unic"
local text = require "unic.text"
local testing = require "unic.testing"

local OUT = ".cache/check/tokenizer"
local ROUNDS = 7   -- of timing, each side in turn: what else the machine does then falls on both
local real = testing.real_data()

local _, absent = support.shell("python3 -c 'import tokenizers'")
if absent ~= 0 then
  check:skip("ids", "this python3 has no tokenizers (pip install tokenizers)")
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
for _, key in ipairs { "texts", "real_texts", "random_texts", "special_texts", "pairs" } do check:note(key, tonumber(facts[key])) end

-- A file of records: numbers and texts, read one after the other.
local Reader = {}
Reader.__index = Reader

local function reader(name)
  local file = assert(io.open(OUT .. "/" .. name, "rb"))
  local bytes = file:read("*a")
  file:close()
  return setmetatable({ bytes = bytes, at = 0, data = ffi.cast("const uint8_t *", bytes) }, Reader)
end

function Reader:number()
  self.at = self.at + 4
  return ffi.cast("const uint32_t *", self.data + self.at - 4)[0]
end

function Reader:numbers(n)
  local list = {}
  for i = 1, n do list[i] = self:number() end
  return list
end

function Reader:text()
  local n = self:number()
  self.at = self.at + n
  return self.bytes:sub(self.at - n + 1, self.at)
end

function Reader:ended() return self.at == #self.bytes end

local function read_texts(name)
  local list, from = {}, reader(name)
  while not from:ended() do list[#list + 1] = from:text() end
  return list
end

local function quoted(str)
  return (str:gsub("[%z\1-\31\127-\255]", function(c) return ("\\x%02x"):format(c:byte()) end))
end

-- Counts what differs and shows the first few.
local function tally(name)
  local self = { differ = 0, compared = 0 }
  function self.take(same, str)
    self.compared = self.compared + 1
    if same then return end
    self.differ = self.differ + 1
    if self.differ <= 5 then io.stderr:write(name, ": ", quoted(str), "\n") end
  end
  function self.close(expected)
    check:at_most(name .. "_differ", self.differ, 0)
    check:holds(name .. "_all_compared", self.compared == expected)
  end
  return self
end

local function equal(a, b)
  if #a ~= #b then return false end
  for i = 1, #a do
    if a[i] ~= b[i] then return false end
  end
  return true
end

-- Hugging Face's offsets count characters from 0, the end not included; of [CLS] and [SEP] they are 0 and 0, which is first - 1 and last as well.
local function same_offsets(first, last, offsets)
  for i = 1, #first do
    if first[i] - 1 ~= offsets[2 * i - 1] or last[i] ~= offsets[2 * i] then return false end
  end
  return 2 * #first == #offsets
end

local texts = read_texts "texts.bin"
local special_texts, first_texts, second_texts = read_texts "special_texts.bin", read_texts "first_texts.bin", read_texts "second_texts.bin"

local function compare_ids(name, file, tok, list, specials)
  local from, ids_tally, offsets_tally = reader(file), tally(name), tally(name .. "_offsets")
  for _, str in ipairs(list) do
    local n = from:number()
    local ids, offsets = from:numbers(n), from:numbers(2 * n)
    local own, first, last = tok:encode(str, { max_length = math.huge, specials_in_text = specials, spans = "characters" })
    ids_tally.take(equal(own, ids), str)
    offsets_tally.take(same_offsets(first, last, offsets), str)
  end
  ids_tally.close(#list)
  offsets_tally.close(#list)
  check:holds(name .. "_read_to_the_end", from:ended())
end

-- The same texts in batches on several threads: rows, masks and offsets are those of single texts.
local function compare_batches(name, tok, list)
  local before, batches = unic.threads(), tally(name .. "_batches")
  unic.threads(3)
  local expected = 0
  for at = 1, #list, 997 do
    local part = { unpack(list, at, math.min(at + 63, #list)) }
    local ids, mask, spans = tok:batch(part, { max_length = 48, multiple = 8, spans = "characters" })
    local rows, masks, places = ids:totable(), mask:to("i64"):totable(), spans:totable()
    for row, str in ipairs(part) do
      local own, first, last = tok:encode(str, { max_length = 48, spans = "characters" })
      local same = #rows[row] % 8 == 0
      for k = 1, #rows[row] do
        local inside = k <= #own
        same = same and rows[row][k] == (own[k] or tok.pad) and masks[row][k] == (inside and 1 or 0)
          and places[row][k][1] == (inside and first[k] - 1 or 0) and places[row][k][2] == (inside and last[k] or 0)
      end
      expected = expected + 1
      batches.take(same, str)
    end
  end
  unic.threads(before)
  batches.close(expected)
end

local function compare_pairs(name, file, tok)
  local from, pairs_tally = reader(file), tally(name .. "_pairs")
  for i, a in ipairs(first_texts) do
    local limit, n = from:number(), from:number()
    local ids, types, offsets = from:numbers(n), from:numbers(n), from:numbers(2 * n)
    local own, own_types, first, last = tok:encode(a, { pair = second_texts[i], max_length = limit > 0 and limit or math.huge, spans = "characters" })
    pairs_tally.take(equal(own, ids) and equal(own_types, types) and same_offsets(first, last, offsets), a)
  end
  pairs_tally.close(#first_texts)
end

local function compare_decoded(name, file, tok)
  local from, decoded, count = reader(file), tally(name .. "_decoded"), 0
  while not from:ended() do
    local ids = from:numbers(from:number())
    local plain, whole, raw = from:text(), from:text(), from:text()
    count = count + 1
    decoded.take(tok:decode(ids) == plain and tok:decode(ids, { specials = true }) == whole and tok:decode(ids, { cleanup = false }) == raw, plain)
  end
  decoded.close(count)
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

local function exists(name)
  local file = io.open(OUT .. "/" .. name, "rb")
  return file and file:close()
end

for _, case in ipairs(CASES) do
  local name, tok = case[1], text.wordpiece(case[2], case[3])
  compare_ids(name, ("ids.%s.bin"):format(name), tok, texts, false)
  compare_batches(name, tok, texts)
  if exists(("pairs.%s.bin"):format(name)) then
    compare_pairs(name, ("pairs.%s.bin"):format(name), tok)
    compare_ids(name .. "_specials", ("special_ids.%s.bin"):format(name), tok, special_texts, true)
    compare_decoded(name, ("decoded.%s.bin"):format(name), tok)
  end
end

-- ---------------------------------------------------------------- speed, one thread on each side

local function median(list)
  table.sort(list)
  return (list[math.ceil(#list / 2)] + list[math.floor(#list / 2) + 1]) / 2
end

local function speed(name, vocabulary, options)
  local path = real .. "/text-es-nubes/sentences.txt"
  local tok, lines, size = text.wordpiece(vocabulary, options), {}, 0
  for line in io.lines(path) do
    if line ~= "" then
      lines[#lines + 1] = line
      size = size + #line
    end
  end
  local function best_of_3(run)
    local best = math.huge
    for _ = 1, 3 do
      local start = os.clock()
      run()
      best = math.min(best, os.clock() - start)
    end
    return best
  end
  local own, other, ratio = { batch = {}, single = {} }, { batch = {}, single = {} }, { batch = {}, single = {} }
  for round = 1, ROUNDS do
    local output, code = support.shell(("python3 spec/support/tokenizer_parity.py speed %s %s %s"):format(vocabulary, tok.lowercase and "uncased" or "cased", path))
    if code ~= 0 then error(output, 0) end
    local batched, single = output:match("^(%S+)\n(%S+)$")
    other.batch[round], other.single[round] = tonumber(batched), tonumber(single)
    own.batch[round] = best_of_3(function()
      for first = 1, #lines, 64 do tok:batch({ unpack(lines, first, math.min(first + 63, #lines)) }, { max_length = 512 }) end
    end)
    own.single[round] = best_of_3(function()
      for i = 1, #lines do tok:encode(lines[i], { max_length = 512 }) end
    end)
    for _, way in ipairs { "batch", "single" } do ratio[way][round] = other[way][round] / own[way][round] end
  end
  for _, way in ipairs { "batch", "single" } do
    check:note(("%s_%s_mb_per_s"):format(name, way), size / median(own[way]) / 1e6)
    check:note(("%s_%s_mb_per_s_reference"):format(name, way), size / median(other[way]) / 1e6)
    check:at_least(("%s_%s_speed_up"):format(name, way), median(ratio[way]), 3)
  end
end

if real then
  local before = unic.threads()
  unic.threads(1)
  speed("bert_base_uncased", real .. "/vocab/bert-base-uncased.vocab.txt", {})
  speed("beto_cased", real .. "/vocab/beto-spanish.vocab.txt", { lowercase = false })
  unic.threads(before)
else
  check:skip("speed", "the folder of real data is absent")
end
check:close()
