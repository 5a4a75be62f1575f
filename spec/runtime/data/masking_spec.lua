-- Masked language modelling in the pipeline: which tokens are chosen and what they become, beside a slow version of the rule; that workers and
-- resuming change nothing; texts that are too short; data sets of texts alone.
local unic = require "unic"
local data = require "unic.data"
local text = require "unic.text"
local support = require "spec.support.data"
local files_support = require "spec.support.files"

-- Every word is one token, so a text of k words has k + 2 of them.
local WORDS = 60
local vocabulary = { "[unused0]", "[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[", "]", "[unused1]" }
local FIRST = #vocabulary   -- the id of w1
for k = 1, WORDS do vocabulary[#vocabulary + 1] = "w" .. k end
local tok = text.wordpiece(vocabulary)

-- Reports of so many words, in both languages.
local function rows_of(lengths)
  local rows = {}
  for i, length in ipairs(lengths) do
    local words = {}
    for k = 1, length do words[k] = "w" .. (7 * i + 3 * k) % WORDS + 1 end
    rows[i] = { report = table.concat(words, " "), language = i % 2 == 0 and "en" or "es", patient = "p" .. i }
  end
  return rows
end

local function long_set(count, least, most)
  local lengths = {}
  for i = 1, count do lengths[i] = least + i % (most - least + 1) end
  return data.open(rows_of(lengths), { images = false })
end

local function merged(a, b)
  local t = {}
  for k, v in pairs(a) do t[k] = v end
  for k, v in pairs(b or {}) do t[k] = v end
  return t
end

local function bytes_of(batch)
  local parts = { batch.n, batch.epoch, batch.position }
  for _, name in ipairs { "index", "language", "tokens", "mask", "labels", "places", "targets" } do
    parts[#parts + 1] = table.concat(batch[name].shape, "x")
    parts[#parts + 1] = batch[name]:bytes()
  end
  return table.concat(parts, "/")
end

local function collect(ds, options, start)
  local list = {}
  for batch in data.batches(ds, merged(options, { start = start })) do list[#list + 1] = bytes_of(batch) end
  return list
end

-- Halves to the even number, as Python's round.
local function round(x)
  local down = math.floor(x)
  if x - down ~= 0.5 then return math.floor(x + 0.5) end
  return down % 2 == 0 and down or down + 1
end

-- The rule again, on a list of ids.
local function masked(ids, how, seed, epoch, item)
  local n = #ids
  local count = math.min(how.most, math.max(1, round(how.share * n)), n - 2)
  local stream = support.stream(seed, epoch, item, support.purpose("mlm", 1))
  local seen, places = {}, {}
  for i, id in ipairs(ids) do seen[i] = id end
  local ordinary = {}
  for id, token in ipairs(vocabulary) do
    if not token:find "^%[.+%]$" then ordinary[#ordinary + 1] = id - 1 end
  end
  for at = 1, n - 2 do
    if #places < count and stream:below(n - 1 - at) < count - #places then
      places[#places + 1] = at
      local u = stream:uniform()
      if u < how.mask then seen[at + 1] = tok.mask
      elseif u < how.mask + how.random then seen[at + 1] = ordinary[stream:below(#ordinary) + 1] end
    end
  end
  return seen, places
end

-- |count - expected| within z standard deviations of a binomial.
local function within_binomial(count, trials, p, z)
  local deviation = math.sqrt(trials * p * (1 - p))
  assert.is_true(math.abs(count - trials * p) <= z * deviation, ("%d of %d, expected %.1f, deviation %.1f"):format(count, trials, trials * p, deviation))
end

describe("masking", function()
  it("is the rule, token for token, at any options and lengths", function()
    local lengths = {}
    for length = 1, 90 do lengths[length] = length end
    local ds = data.open(rows_of(lengths), { images = false })
    for _, how in ipairs { {}, { share = 0.5, most = 7, mask = 0.2, random = 0.5 }, { share = 1, mask = 0, random = 1 }, { share = 0, mask = 1, random = 0 } } do
      local full = { share = how.share or 0.15, most = how.most or 77, mask = how.mask or 0.8, random = how.random or 0.1 }
      local rows = 0
      for batch in data.batches(ds, { batch = 7, seed = 5, epoch = 3, drop_last = false, tokenizer = tok, mlm = how, bucket = 2 }) do
        local tokens, labels, places, targets = batch.tokens:totable(), batch.labels:totable(), batch.places:totable(), batch.targets:totable()
        local width, k = batch.tokens:size(2), 0
        assert.same({ "i64", "i64", "i64" }, { batch.labels.dtype, batch.places.dtype, batch.targets.dtype })
        assert.same(batch.tokens.shape, batch.labels.shape)
        for row, item in ipairs(batch.index:totable()) do
          local ids = tok:encode(ds:report(item + 1))
          local seen, chosen = masked(ids, full, 5, 3, item)
          local expected = {}
          for at = 1, width do expected[at] = -100 end
          for _, at in ipairs(chosen) do
            k = k + 1
            expected[at + 1] = ids[at + 1]
            assert.equal((row - 1) * width + at, places[k])
            assert.equal(ids[at + 1], targets[k])
          end
          for at = 1, width do seen[at] = seen[at] or tok.pad end
          assert.same(seen, tokens[row])
          assert.same(expected, labels[row])
          rows = rows + 1
        end
        assert.equal(k, #places)
      end
      assert.equal(90, rows)
    end
  end)

  it("has the shares it should have, and chooses every place equally often", function()
    local ds = long_set(200, 20, 20)   -- 22 tokens: round(3.3) = 3 are chosen
    local total, hidden, changed, same = 0, 0, 0, 0
    local by_place, by_token = {}, {}
    local EPOCHS = 20
    for batch in data.batches(ds, { batch = 50, epochs = EPOCHS, seed = 11, tokenizer = tok, mlm = {} }) do
      local tokens, places, targets = batch.tokens:totable(), batch.places:totable(), batch.targets:totable()
      local width = batch.tokens:size(2)
      for k, place in ipairs(places) do
        local at, now = place % width, tokens[math.floor(place / width) + 1][place % width + 1]
        total = total + 1
        by_place[at] = (by_place[at] or 0) + 1
        if now == tok.mask then hidden = hidden + 1
        elseif now == targets[k] then same = same + 1
        else
          changed = changed + 1
          by_token[now] = (by_token[now] or 0) + 1
        end
        assert.is_true(targets[k] >= FIRST)   -- neither [CLS] nor [SEP] nor [PAD]
      end
    end
    assert.equal(200 * EPOCHS * 3, total)
    -- A random token is the one that was there once in 62 times (60 words and two brackets).
    within_binomial(hidden, total, 0.8, 4)
    within_binomial(changed, total, 0.1 * 61 / 62, 4)
    within_binomial(same, total, 0.1 + 0.1 / 62, 4)
    for at = 1, 20 do within_binomial(by_place[at], total, 1 / 20, 4) end
    assert.is_nil(by_place[0])
    assert.is_nil(by_place[21])
    -- What is put in: every ordinary token, the brackets among them, and no special or unused one.
    local kinds = 0
    for id, count in pairs(by_token) do
      kinds = kinds + 1
      assert.is_falsy(vocabulary[id + 1]:find "^%[.+%]$", vocabulary[id + 1])
      within_binomial(count, changed, 1 / 62, 5)
    end
    assert.equal(62, kinds)
  end)

  it("rounds halves to the even number and keeps to its bounds", function()
    local function chosen(words, how)
      local ds = data.open(rows_of { words }, { images = false })
      return data.batches(ds, { batch = 1, shuffle = false, tokenizer = tok, mlm = how, max_length = 1024 }):next().places:numel()
    end
    local expected = { [1] = 1, [2] = 1, [8] = 2, [28] = 4, [48] = 8, [68] = 10, [100] = 15, [511] = 77, [600] = 77 }
    -- 10 tokens: 1.5 -> 2; 30: 4.5 -> 4; 50: 7.5 -> 8; 70: 10.5 -> 10; 513: 76.95 -> 77
    for words, count in pairs(expected) do assert.equal(count, chosen(words, {}), words .. " words") end
    assert.equal(5, chosen(40, { share = 1, most = 5 }))
    assert.equal(40, chosen(40, { share = 1 }))
    assert.equal(1, chosen(40, { share = 0 }))
  end)

  it("is the same for any number of workers, and after a resume", function()
    local ds = long_set(64, 5, 40)
    local options = { batch = 8, seed = 3, epochs = 2, tokenizer = tok, mlm = {}, bucket = 4 }
    local reference = collect(ds, merged(options, { workers = 0 }))
    assert.equal(16, #reference)
    for _, workers in ipairs { 1, 4 } do assert.same(reference, collect(ds, merged(options, { workers = workers }))) end
    local it, rest = data.batches(ds, options), {}
    for _ = 1, 11 do it() end
    local state = it:state()
    it:close()
    for k = 12, 16 do rest[#rest + 1] = reference[k] end
    assert.same(rest, collect(ds, merged(options, { workers = 2, epochs = 1 }), state))
    -- Another seed and another epoch hide other tokens of the same texts.
    local function plain(seed, epoch)
      return data.batches(ds, { batch = 64, shuffle = false, seed = seed, epoch = epoch, tokenizer = tok, mlm = {} }):next()
    end
    local a = plain(3, 0)
    assert.same_bits(a.places, plain(3, 0).places)
    assert.are_not.same(a.places:totable(), plain(3, 1).places:totable())
    assert.are_not.same(a.places:totable(), plain(4, 0).places:totable())
  end)

  it("leaves out texts without a token to hide, once on the list, at every epoch", function()
    local rows = rows_of { 5, 5, 5, 5, 5, 5 }
    rows[3].report, rows[5].report = " \t", "\1\2"
    for _, workers in ipairs { 0, 2 } do
      local ds = data.open(rows, { images = false })
      local sizes, seen = {}, {}
      for batch in data.batches(ds, { batch = 3, shuffle = false, epochs = 3, drop_last = false, tokenizer = tok, mlm = {}, workers = workers }) do
        sizes[#sizes + 1] = batch.n
        assert.same({ batch.n, batch.n }, { batch.tokens:size(1), batch.language:size(1) })
        for row, item in ipairs(batch.index:totable()) do
          seen[item + 1] = (seen[item + 1] or 0) + 1
          assert.equal(select(2, ds:language(item + 1)), batch.language:totable()[row])
        end
      end
      assert.same({ 2, 2, 2, 2, 2, 2 }, sizes)
      assert.same({ 3, 3, nil, 3, nil, 3 }, seen)
      local errors = ds:errors()
      assert.equal(2, #errors)
      assert.same({ row = 3, path = "", reason = "the text has no token to mask" }, errors[1])
      assert.equal(5, errors[2].row)
    end
    -- A batch of nothing else is passed over.
    local two = data.open({ { report = "\1" }, { report = "w1" } }, { images = false })
    local batches = {}
    for batch in data.batches(two, { batch = 1, shuffle = false, tokenizer = tok, mlm = {} }) do batches[#batches + 1] = batch.index:totable()[1] end
    assert.same({ 1 }, batches)
    local strict = data.open(rows, { images = false, strict = true })
    assert.raises_at(nil, "%[batches%] row 3: the text has no token to mask", function()
      for _ in data.batches(strict, { batch = 3, shuffle = false, tokenizer = tok, mlm = {} }) do end   -- luacheck: ignore 542
    end)
  end)

  it("goes with pictures, and with texts that a function makes", function()
    local rows = rows_of { 6, 0, 6, 6 }
    for _, row in ipairs(rows) do row.image = unic.full({ 2, 2 }, #row.report, { dtype = "u8" }) end
    local ds = data.open(rows, { size = 2, crop = false, stretch = false })
    local batch = data.batches(ds, { batch = 4, shuffle = false, tokenizer = tok, mlm = {} }):next()
    assert.same({ 0, 2, 3 }, batch.index:totable())
    for row, item in ipairs { 0, 2, 3 } do   -- pictures stay with their texts
      assert.is_true(math.abs(batch.image[row][1][1][1]:item() - (2 * #rows[item + 1].report / 255 - 1)) < 1e-6)
    end
    local called = data.batches(ds, { batch = 4, shuffle = false, tokenizer = tok, mlm = { share = 1, mask = 1, random = 0 }, text = function(_, i) return "w" .. i end }):next()
    assert.same({ FIRST, FIRST + 1, FIRST + 2, FIRST + 3 }, called.targets:totable())
    assert.same({ { tok.cls, tok.mask, tok.sep, tok.pad, tok.pad, tok.pad, tok.pad, tok.pad } }, { called.tokens:totable()[2] })
  end)

  it("refuses what it cannot do", function()
    local ds = long_set(4, 5, 5)
    local no_mask = text.wordpiece { "[PAD]", "[UNK]", "[CLS]", "[SEP]", "w1" }
    local bare = text.wordpiece { "[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]" }
    local cases = {
      ["option 'mlm': is given without the option 'tokenizer'"] = { mlm = {} },
      ["option 'mlm': its labels are what the option 'labels' names, too"] = { mlm = {}, tokenizer = tok, labels = { "a" } },
      ["option 'mlm': the vocabulary has no [MASK]"] = { mlm = {}, tokenizer = no_mask },
      ["option 'mlm': the vocabulary has special tokens alone"] = { mlm = {}, tokenizer = bare },
      ["'mask' and 'random' are 0.8 and 0.3, expected together at most 1"] = { mlm = { random = 0.3 }, tokenizer = tok },
      ["did you mean 'share'?"] = { mlm = { shre = 0.3 }, tokenizer = tok },
      ["option 'share': the number 2, expected a number from 0 to 1"] = { mlm = { share = 2 }, tokenizer = tok },
    }
    for sentence, options in pairs(cases) do
      local ok, why = pcall(data.batches, ds, merged({ batch = 2 }, options))
      assert.is_false(ok)
      assert.is_truthy(tostring(why):find(sentence, 1, true), tostring(why))
    end
    -- Where nothing is put in at random, no ordinary token is needed.
    assert.equal(4, data.batches(ds, { batch = 4, tokenizer = bare, mlm = { random = 0 } }):next().places:numel())
  end)
end)

describe("data sets of texts alone", function()
  local folder
  setup(function() folder = files_support.folder() end)
  teardown(function() files_support.remove(folder) end)

  local function write(name, content)
    unic.files.write_file(folder .. "/" .. name, content)
    return folder .. "/" .. name
  end

  it("are read from a CSV file without pictures", function()
    local path = write("texts.csv", "report,language,note\nNo effusion.,en,x\n,es,x\nSin derrame.,es,x\nBad.,english,x\n")
    local ds = data.open(path, { images = false })
    assert.equal(2, ds.n)
    assert.same({ "No effusion.", "Sin derrame." }, { ds:report(1), ds:report(2) })
    assert.same({ "en", "es" }, { (ds:language(1)), (ds:language(2)) })
    assert.same({ "column 'report' is empty", "language 'english', expected two letters such as en or es" }, { ds:errors()[1].reason, ds:errors()[2].reason })
    assert.is_truthy(tostring(ds):find("texts alone", 1, true))
    for batch in data.batches(ds, { batch = 2, shuffle = false, tokenizer = tok }) do assert.is_nil(batch.image) end
    assert.raises_at(nil, "option 'views': the data set was opened without pictures", function() data.batches(ds, { views = { image = { { "normalize" } } } }) end)
    assert.raises_at(nil, "opened without pictures", function() ds:image(1) end)
    -- A column of pictures names the row that is held out, with and without pictures, and need not lead anywhere.
    local rows = { "image,report,language" }
    for i = 1, 300 do rows[#rows + 1] = ("missing%d.png,Report %d.,en"):format(i, i % 3) end
    local with = write("with.csv", table.concat(rows, "\n") .. "\n")
    local counts, total = {}, 0
    for k, split in ipairs { "train", "val", "test" } do
      counts[k] = data.open(with, { images = false, split = split }).n
      total = total + counts[k]
    end
    assert.equal(300, total)
    assert.is_true(counts[1] > 200 and counts[2] > 15 and counts[3] > 15)
    assert.raises_at(nil, "no row can be used", function() data.open(with) end)
    assert.raises_at(nil, "has no column 'image'", function() data.open(path) end)
  end)

  it("are read from a text file, a report a line", function()
    local lines = {}
    for i = 1, 200 do lines[i] = i % 10 == 0 and "" or ("Report %d."):format(i % 50) end
    lines[7] = "bad \255 bytes"
    local path = write("reports.txt", table.concat(lines, "\r\n") .. "\n")
    local ds = data.open(path, { images = false, language = "es" })
    assert.equal(179, ds.n)
    assert.equal("es", (ds:language(3)))
    assert.equal("Report 8.", ds:report(7))
    assert.equal(8, ds:row_number(7))
    assert.same({ { row = 7, path = "", reason = "is not UTF-8 text" } }, ds:errors())
    assert.raises_at(nil, "row 7: is not UTF%-8 text", function() data.open(path, { images = false, strict = true }) end)
    assert.is_nil(data.open(path, { images = false }):language(1))
    -- Equal reports lie in one split.
    local place = {}
    local total = 0
    for _, split in ipairs { "train", "val", "test" } do
      local part = data.open(path, { images = false, split = split, val = 0.3, test = 0.3 })
      total = total + part.n
      for i = 1, part.n do
        local was = place[part:report(i)]
        assert.is_true(was == nil or was == split)
        place[part:report(i)] = split
      end
    end
    assert.equal(179, total)
    assert.raises_at(nil, "option 'columns' means nothing for a text file", function() data.open(path, { images = false, columns = {} }) end)
    assert.raises_at(nil, "has no rows", function() data.open(write("empty.txt", "\n\n"), { images = false }) end)
  end)
end)
