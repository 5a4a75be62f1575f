-- Batches: what is in them, that workers and resuming change nothing, bad pictures, Lua steps, errors, and ends of every kind.
local unic = require "unic"
local core = require "unic.core"
local data = require "unic.data"
local phantom = require "unic.datasets.phantom"
local text = require "unic.text"
local support = require "spec.support.data"
local files_support = require "spec.support.files"

local VIEWS = {
  view1 = { { "random_crop", 12 }, { "gamma" }, { "normalize", 0.5, 0.5 } },
  view2 = { { "jitter" }, { "random_crop", 14 }, { "noise", 0.1 } },
}

local function merged(a, b)
  local t = {}
  for k, v in pairs(a) do t[k] = v end
  for k, v in pairs(b or {}) do t[k] = v end
  return t
end

-- Everything in a batch as one string.
local function bytes_of(batch)
  local parts = { batch.n, batch.epoch, batch.position, batch.index:bytes(), batch.language:bytes() }
  for _, name in ipairs { "view1", "view2", "image", "tokens", "mask", "labels" } do
    if batch[name] then
      parts[#parts + 1] = table.concat(batch[name].shape, "x")
      parts[#parts + 1] = batch[name]:bytes()
    end
  end
  return table.concat(parts, "/")
end

local function collect(ds, options, start)
  local list = {}
  for batch in data.batches(ds, merged(options, { start = start })) do list[#list + 1] = bytes_of(batch) end
  return list
end

local function items_of(ds, options)
  local list = {}
  for batch in data.batches(ds, options) do
    for _, item in ipairs(batch.index:totable()) do list[#list + 1] = item end
  end
  return list
end

-- Pipelines that were left are gone after a collection.
local function live()
  collectgarbage()
  collectgarbage()
  return core.data.live()
end

local function numbers(from, to)
  local list = {}
  for i = from, to do list[#list + 1] = i end
  return list
end

describe("batches", function()
  local folder, ds, tok
  setup(function()
    folder = files_support.folder()
    support.write_set(folder, 23)
    ds = data.open(folder, { size = 16 })
    tok = text.wordpiece { "[PAD]", "[UNK]", "[CLS]", "[SEP]", "report", "it", "has", "sentences", "three", "of", "them", ".", "1", "2", "3", "##1", "##2", "##3" }
  end)
  teardown(function() files_support.remove(folder) end)

  it("come in the order of the rows when they are not shuffled", function()
    assert.same(numbers(0, 22), items_of(ds, { batch = 5, shuffle = false }))
    assert.same(numbers(0, 19), items_of(ds, { batch = 5, shuffle = false, drop_last = true }))
    local sizes = {}
    for batch in data.batches(ds, { batch = 5, shuffle = false }) do sizes[#sizes + 1] = batch.n end
    assert.same({ 5, 5, 5, 5, 3 }, sizes)
  end)

  it("are shuffled anew in every epoch, each item once", function()
    local orders = {}
    for epoch = 0, 3 do
      local order = items_of(ds, { batch = 5, epoch = epoch, seed = 7, drop_last = false })
      orders[table.concat(order, ",")] = true
      table.sort(order)
      assert.same(numbers(0, 22), order)
    end
    orders[table.concat(items_of(ds, { batch = 5, epoch = 0, seed = 8, drop_last = false }), ",")] = true
    local count = 0
    for _ in pairs(orders) do count = count + 1 end
    assert.equal(5, count)
    -- Every place is taken by every item about equally often.
    local small = data.open((function() local l = {} for i = 1, 4 do l[i] = { image = unic.zeros(1, 1, { dtype = "u8" }) } end return l end)(), { size = 1 })
    local first = { [0] = 0, 0, 0, 0 }
    for batch in data.batches(small, { batch = 4, epochs = 800, workers = 0, views = {} }) do
      local item = batch.index:totable()[1]
      first[item] = first[item] + 1
    end
    for item = 0, 3 do assert.is_true(first[item] > 150 and first[item] < 250) end   -- 200 expected, deviation 12
  end)

  it("hold views, tokens, mask, languages, positions, labels", function()
    local it = data.batches(ds, { batch = 4, seed = 5, epoch = 2, views = VIEWS, tokenizer = tok, multiple = 8, labels = { "nodule", "effusion" } })
    assert.equal(5, it.per_epoch)
    local count = 0
    for batch in it do
      count = count + 1
      assert.same({ 4, 2, count }, { batch.n, batch.epoch, batch.position })
      assert.same({ 4, 1, 12, 12 }, batch.view1.shape)
      assert.same({ 4, 1, 14, 14 }, batch.view2.shape)
      assert.same({ "f32", "i64", "bool", "i64", "i64" }, { batch.view1.dtype, batch.tokens.dtype, batch.mask.dtype, batch.index.dtype, batch.language.dtype })
      local texts = {}
      for row, item in ipairs(batch.index:totable()) do
        -- A picture is what its steps make of the stored one.
        for name, view in pairs(VIEWS) do
          local expected = data.apply(view, ds:image(item + 1), { seed = 5, epoch = 2, item = item, name = name })
          assert.same_bits(expected, batch[name][row]:contiguous())
        end
        texts[row] = ds:report(item + 1)
        local _, language = ds:language(item + 1)
        assert.equal(language, batch.language:totable()[row])
      end
      assert.same(texts, batch.reports)
      assert.same(texts, batch.texts)
      local tokens, mask = tok:batch(texts, { multiple = 8 })
      assert.same_bits(tokens, batch.tokens)
      assert.same_bits(mask, batch.mask)
      local items = batch.index:totable()
      for row = 1, 4 do items[row] = items[row] + 1 end
      assert.same_bits(ds:label_tensor({ "nodule", "effusion" }, items), batch.labels)
    end
    assert.equal(5, count)
    assert.is_nil(it:next())
  end)

  it("cut texts at max_length, round widths up, and never beyond it", function()
    local function width(options)
      local batch = data.batches(ds, merged({ batch = 2, shuffle = false, views = {}, tokenizer = tok }, options)):next()
      assert.is_nil(batch.image)
      return batch.tokens.shape[2]
    end
    local length = #tok:encode(ds:report(1))
    assert.is_true(length > 11 and length < 16)
    assert.equal(16, width {})
    assert.equal(length, width { multiple = 1 })
    assert.equal(5, width { max_length = 5 })
    assert.equal(14, width { max_length = 14 })
    local batch = data.batches(ds, { batch = 1, shuffle = false, views = {}, tokenizer = tok, max_length = 5 }):next()
    assert.same({ tok:encode(ds:report(1), { max_length = 5 }) }, batch.tokens:totable())
  end)

  it("repeat grey as three channels when asked to", function()
    local one = data.batches(ds, { batch = 2, workers = 0, views = VIEWS }):next()
    local three = data.batches(ds, { batch = 2, workers = 0, views = VIEWS, channels = 3 }):next()
    assert.same({ 2, 3, 12, 12 }, three.view1.shape)
    for c = 1, 3 do assert.same_bits(one.view1[{ {}, 1 }]:contiguous(), three.view1[{ {}, c }]:contiguous()) end
  end)

  it("have default views", function()
    local batch = data.batches(ds, { batch = 2, shuffle = false }):next()
    assert.same({ 2, 1, 16, 16 }, batch.image.shape)
    assert.same_bits(data.apply({ { "normalize", 0.5, 0.5 } }, ds:image(2)), batch.image[2]:contiguous())
  end)

  describe("are the same", function()
    local options
    setup(function()
      options = { batch = 4, seed = 3, views = VIEWS, tokenizer = tok, text = "sample", epochs = 3, bucket = 2, labels = { "mass" } }
    end)

    it("with any number of workers, prefetched or not, cached or not", function()
      local reference = collect(ds, merged(options, { workers = 0 }))
      assert.equal(15, #reference)
      for _, other in ipairs { { workers = 1 }, { workers = 2 }, { workers = 5, prefetch = 9 }, { workers = 3, prefetch = 1 } } do
        assert.same(reference, collect(ds, merged(options, other)))
      end
      local uncached = data.open(folder, { size = 16, cache_mb = 0 })
      assert.same(reference, collect(uncached, merged(options, { workers = 2 })))
      assert.same(reference, collect(uncached, merged(options, { workers = 0 })))
      local partly = data.open(folder, { size = 16, cache_mb = 10 * 256 / 2 ^ 20 })
      assert.same(reference, collect(partly, merged(options, { workers = 3 })))
      assert.same(reference, collect(partly, merged(options, { workers = 3 })))
    end)

    it("when they are gone through by epochs", function()
      local reference, parts = collect(ds, options), {}
      for epoch = 0, 2 do
        for _, batch in ipairs(collect(ds, merged(options, { epochs = 1, epoch = epoch }))) do parts[#parts + 1] = batch end
      end
      assert.same(reference, parts)
    end)

    it("from any point on, with another number of workers", function()
      local reference = collect(ds, merged(options, { workers = 0 }))
      local it = data.batches(ds, merged(options, { workers = 2 }))
      assert.same({ epoch = 0, position = 0, seed = 3 }, it:state())
      for stop = 1, 15 do
        assert.equal(reference[stop], bytes_of(it:next()))
        local state = it:state()
        assert.same({ epoch = math.floor(stop / 5), position = stop % 5, seed = 3 }, state)
        if stop % 3 == 1 then
          -- What is left of three epochs, from there.
          local rest = collect(ds, merged(options, { workers = stop % 4, epochs = 3 - state.epoch }), state)
          assert.same(15 - stop, #rest)
          for k, batch in ipairs(rest) do assert.equal(reference[stop + k], batch) end
        end
      end
      assert.is_nil(it:next())
      assert.same({ epoch = 3, position = 0, seed = 3 }, it:state())
      assert.same(collect(ds, merged(options, { epochs = 1, epoch = 1 }), 2), collect(ds, merged(options, { epochs = 1 }), { epoch = 1, position = 2 }))
    end)

    it("but for another seed or epoch", function()
      local function first(more) return bytes_of(data.batches(ds, merged(options, more)):next()):gsub("^%d+/%d+/", "") end
      assert.equal(first {}, first { workers = 1 })
      assert.are_not.equal(first {}, first { seed = 4 })
      assert.are_not.equal(first {}, first { epoch = 1 })
    end)
  end)

  it("of similar lengths with bucket: every item once, less padding", function()
    local rows = {}
    for i = 1, 64 do rows[i] = { image = unic.zeros(1, 1, { dtype = "u8" }), report = ("report "):rep(1 + (i * 37) % 50) } end
    local long = data.open(rows, { size = 1 })
    local function run(more)
      local cells, items, widths = 0, {}, {}
      for batch in data.batches(long, merged({ batch = 8, views = {}, tokenizer = tok, multiple = 1, seed = 2 }, more)) do
        cells = cells + batch.tokens:numel()
        widths[#widths + 1] = batch.tokens.shape[2]
        for _, item in ipairs(batch.index:totable()) do items[#items + 1] = item end
      end
      local order = table.concat(items, ",")
      table.sort(items)
      assert.same(numbers(0, 63), items)
      return cells, order, widths
    end
    local plain = run {}
    local four = run { bucket = 4 }
    local eight, order, widths = run { bucket = 8 }
    assert.is_true(four < 0.85 * plain and eight < 0.8 * plain)
    assert.are_not.equal(order, (select(2, run { bucket = 8, epoch = 1 })))
    -- The batches of a window come in random order, or every window would begin with the short ones.
    local sorted = {}
    for i, w in ipairs(widths) do sorted[i] = w end
    table.sort(sorted)
    assert.are_not.same(sorted, widths)
    -- A last batch that is short stays the last one.
    local sizes = {}
    for batch in data.batches(long, { batch = 10, views = {}, tokenizer = tok, bucket = 8, drop_last = false }) do sizes[#sizes + 1] = batch.n end
    assert.same({ 10, 10, 10, 10, 10, 10, 4 }, sizes)
  end)

  it("are shared out among processes", function()
    for _, drop_last in ipairs { true, false } do
      local seen, counts = {}, {}
      for rank = 0, 2 do
        for batch in data.batches(ds, { batch = 3, seed = 1, rank = rank, ranks = 3, drop_last = drop_last }) do
          counts[rank] = (counts[rank] or 0) + 1
          for _, item in ipairs(batch.index:totable()) do
            assert.is_nil(seen[item])
            seen[item] = true
          end
        end
      end
      local total = 0
      for _ in pairs(seen) do total = total + 1 end
      assert.equal(drop_last and 18 or 23, total)
      assert.same(drop_last and { [0] = 2, 2, 2 } or { [0] = 3, 3, 2 }, counts)
    end
    -- Together they are what one process sees, batch by batch.
    local alone = collect(ds, { batch = 3, seed = 1, drop_last = false })
    local function strip(list)
      for i, s in ipairs(list) do list[i] = s:gsub("^%d+/%d+/%d+/", "") end
      return list
    end
    strip(alone)
    for rank = 0, 2 do
      for k, batch in ipairs(strip(collect(ds, { batch = 3, seed = 1, drop_last = false, rank = rank, ranks = 3 }))) do
        assert.equal(alone[(k - 1) * 3 + rank + 1], batch)
      end
    end
  end)

  describe("with text", function()
    it("sampled: as the data set samples it", function()
      local seen = {}
      for batch in data.batches(ds, { batch = 4, views = {}, tokenizer = tok, text = "sample", seed = 9, epochs = 2 }) do
        for row, item in ipairs(batch.index:totable()) do
          assert.equal(ds:sample_text(item + 1, core.data.text_epoch(9, batch.epoch)), batch.texts[row])
          seen[batch.texts[row]] = true
        end
        assert.same_bits((tok:batch(batch.texts, { multiple = 8 })), batch.tokens)
      end
      local count = 0
      for _ in pairs(seen) do count = count + 1 end
      assert.is_true(count > 15)
    end)

    it("from a function of the recipe", function()
      for _, workers in ipairs { 0, 2 } do
        for batch in data.batches(ds, { batch = 4, tokenizer = tok, workers = workers, epoch = 5, text = function(set, i, epoch)
          assert.equal(ds, set)
          return ("report "):rep(i % 5) .. epoch
        end }) do
          for row, item in ipairs(batch.index:totable()) do assert.equal(("report "):rep((item + 1) % 5) .. "5", batch.texts[row]) end
          assert.same_bits((tok:batch(batch.texts, { multiple = 8 })), batch.tokens)
        end
      end
    end)

    it("whose function fails", function()
      local it = data.batches(ds, { batch = 2, tokenizer = tok, shuffle = false, text = function(_, i) return i < 7 and "report" or nil end })
      local ok, why = pcall(function() for _ in it do end end)
      assert.is_false(ok)
      assert.truthy(why:find("[batches] item 7: the text is nil, expected a string", 1, true))
      assert.is_nil(it:next())
      it = data.batches(ds, { batch = 2, tokenizer = tok, text = function() error "no words" end })
      assert.raises_at(nil, "no words", function() it:next() end)
    end)
  end)

  describe("with pictures that cannot be read", function()
    local bad_folder, bad
    before_each(function()
      bad_folder = files_support.folder()
      support.write_set(bad_folder, 12)
      for _, i in ipairs { 3, 4, 12 } do files_support.write(bad_folder .. ("/image-%02d.png"):format(i), "no picture") end
      bad = data.open(bad_folder, { size = 16 })
    end)
    after_each(function() files_support.remove(bad_folder) end)

    it("train on the next good one instead", function()
      local options = { batch = 4, shuffle = false, drop_last = true, views = VIEWS, tokenizer = tok }
      assert.same({ 0, 1, 4, 4, 4, 5, 6, 7, 8, 9, 10, 0 }, items_of(bad, options))
      local reference = collect(bad, merged(options, { workers = 0 }))
      assert.same(reference, collect(data.open(bad_folder, { size = 16 }), merged(options, { workers = 3 })))
      -- The whole row is the other item's: picture, text, language.
      local batch = data.batches(bad, options):next()
      assert.equal(bad:report(5), batch.texts[3])
      assert.same_bits((tok:batch(batch.texts, { multiple = 8 })), batch.tokens)
      assert.same({ 0, 1, 0, 0 }, batch.language:totable())
      assert.same_bits(batch.view1[3]:contiguous(), batch.view1[4]:contiguous())
      local called = data.batches(bad, merged(options, { text = function(_, i) return ("report "):rep(i) end })):next()
      assert.same_bits((tok:batch({ "report", "report report", ("report "):rep(5), ("report "):rep(5) }, { multiple = 8 })), called.tokens)
      local rows = {}
      for k, fault in ipairs(bad:errors()) do rows[k] = fault.row end
      assert.same({ 4, 5, 13 }, rows)
      assert.equal("image-03.png", bad:errors()[1].path)
    end)

    it("evaluate without them", function()
      -- In fours the bad ones are the last of their batches, in fives rows move up.
      for _, case in ipairs { { 0, 4, { 2, 4, 3 } }, { 2, 4, { 2, 4, 3 } }, { 0, 5, { 3, 5, 1 } }, { 2, 5, { 3, 5, 1 } } } do
        local options = { batch = case[2], shuffle = false, views = VIEWS, tokenizer = tok, workers = case[1] }
        local shapes, items = {}, {}
        for batch in data.batches(bad, options) do
          shapes[#shapes + 1] = { batch.n, batch.view1.shape[1], batch.tokens.shape[1], batch.language.shape[1] }
          for row, item in ipairs(batch.index:totable()) do
            items[#items + 1] = item
            assert.same_bits(data.apply(VIEWS.view1, bad:image(item + 1), { item = item, name = "view1" }), batch.view1[row]:contiguous())
          end
          assert.same_bits((tok:batch(batch.texts, { multiple = 8 })), batch.tokens)
        end
        local expected = {}
        for k, n in ipairs(case[3]) do expected[k] = { n, n, n, n } end
        assert.same(expected, shapes)
        assert.same({ 0, 1, 4, 5, 6, 7, 8, 9, 10 }, items)
      end
    end)

    it("pass over a batch without any", function()
      assert.same({ 0, 1, 4, 5, 6, 7, 8, 9, 10 }, items_of(bad, { batch = 1, shuffle = false }))
      assert.same({ 0, 1, 4, 5, 6, 7, 8, 9, 10 }, items_of(bad, { batch = 2, shuffle = false, drop_last = false }))
    end)

    it("stop with strict, at the recipe's line", function()
      local strict = data.open(bad_folder, { size = 16, strict = true })
      for _, workers in ipairs { 0, 2 } do
        local line
        local ok, why = pcall(function()
          line = debug.getinfo(1, "l").currentline + 1
          for _ in data.batches(strict, { batch = 5, shuffle = false, workers = workers }) do end
        end)
        assert.is_false(ok)
        assert.truthy(why:find((":%d: [batches] row 4: '%s/image-03.png': "):format(line, bad_folder), 1, true))
      end
      assert.truthy(data.batches(strict, { batch = 2, shuffle = false }):next())
    end)

    it("end with a sentence when there is no other", function()
      for i = 1, 12 do files_support.write(bad_folder .. ("/image-%02d.png"):format(i), "no picture") end
      local none = data.open(bad_folder, { size = 16 })
      assert.raises_at(nil, "%[batches%] no picture of the data set can be used; the first that failed: ", function() data.batches(none, { batch = 2 }):next() end)
      assert.same({}, items_of(none, { batch = 2, shuffle = false }))
      assert.equal(12, #none:errors())
      assert.equal(0, none:check())
    end)
  end)
end)

describe("steps in Lua", function()
  local folder, path, ds
  setup(function()
    folder = files_support.folder()
    path = package.path
    package.path = folder .. "/?.lua;" .. path
    files_support.write(folder .. "/my_steps.lua", [[
      local steps = {}
      function steps.fill(image, args)
        for i = 0, image.channels * image.height * image.width - 1 do image.pixels[i] = args.value + (args.random and image.random() or 0) end
      end
      function steps.where(image) image.pixels[0], image.pixels[1], image.pixels[2] = image.channels, image.height, image.width end
      function steps.fail() error("something is wrong here") end
      function steps.index() return nil + 1 end
      function steps.forever_from(image, value) while image.pixels[0] > value - 0.001 do end end
      jit.off(steps.forever_from)   -- a compiled loop looks at no hook
      return steps]])
    ds = data.open((function() local l = {} for i = 1, 8 do l[i] = { image = unic.full({ 4, 3 }, i, { dtype = "u8" }) } end return l end)(),
      { size = 4, stretch = false })
  end)
  teardown(function()
    package.path = path
    package.loaded.my_steps = nil
    files_support.remove(folder)
  end)

  it("run in the workers, with their own random numbers", function()
    local views = { image = { { "center_crop", 2 }, { "lua", "my_steps", "fill", { value = 3, random = true, name = 'a "b"\n' } }, { "normalize", 0, 2 } } }
    local one = collect(ds, { batch = 4, views = views, workers = 0, seed = 4 })
    assert.same(one, collect(ds, { batch = 4, views = views, workers = 2, seed = 4 }))
    local batch = data.batches(ds, { batch = 4, views = views, seed = 4, shuffle = false }):next()
    local r = support.stream(4, 0, 2, support.purpose("image", 2))
    assert.is_true(math.abs((3 + r:uniform()) / 2 - batch.image[3]:reshape({ -1 }):totable()[1]) < 1e-6)
    assert.same_bits(data.apply(views.image, ds:image(3), { seed = 4, item = 2 }), batch.image[3]:contiguous())
    batch = data.batches(ds, { batch = 4, views = { image = { { "center_crop", 3 }, { "lua", "my_steps", "where" } } } }):next()
    assert.same({ 1, 3, 3 }, batch.image[{ 1, 1, 1 }]:totable())
  end)

  it("that fail are errors at the recipe's line", function()
    local function message(step, workers)
      local line
      local ok, why = pcall(function()
        line = debug.getinfo(1, "l").currentline + 1
        for _ in data.batches(ds, { batch = 4, workers = workers, views = { image = { { "grey" }, step } } }) do end
      end)
      assert.is_false(ok)
      assert.truthy(why:find((":%d: [batches] "):format(line), 1, true))
      return (why:gsub("^.-%[batches%] ", "", 1))
    end
    for _, workers in ipairs { 0, 1, 2 } do
      assert.equal(("view 'image', step 2 (lua): %s/my_steps.lua:6: something is wrong here"):format(folder), message({ "lua", "my_steps", "fail" }, workers))
      assert.truthy(message({ "lua", "my_steps", "index" }, workers):find("my_steps.lua:7: attempt to perform arithmetic on a nil value", 1, true))
      assert.equal("step 'lua': module 'my_steps' has no function 'fial'", message({ "lua", "my_steps", "fial" }, workers))
      assert.truthy(message({ "lua", "no_steps", "x" }, workers):find("module 'no_steps' not found", 1, true))
    end
  end)

  it("take plain data only", function()
    local function message(step) return files_support.refusal(data.batches, ds, { views = { image = { step } } }) end
    assert.equal("[batches] a function cannot be handed to a worker, expected numbers, strings, booleans and tables of them", message { "lua", "my_steps", "fill", print })
    local loop = {}
    loop[1] = loop
    assert.equal("[batches] a table that holds itself cannot be handed to a worker", message { "lua", "my_steps", "fill", loop })
    assert.equal("[batches] view 'image', step 1 (lua): expected {\"lua\", \"module\", \"function\", args}", message { "lua", "my_steps" })
  end)

  it("that never end are stopped when the iterator is closed", function()
    assert.equal(0, live())
    local it = data.batches(ds, { batch = 4, workers = 2, shuffle = false, views = { image = { { "lua", "my_steps", "forever_from", 5 / 255 } } } })
    assert.equal(4, it:next().n)   -- items 1 to 4; both workers hang in the next ones
    local before = os.time()
    it:close()
    assert.is_true(os.time() - before <= 3)
    assert.equal(0, core.data.live())
  end)
end)

describe("the built-in set in batches", function()
  it("is drawn by the workers, and the same however many there are", function()
    local tok = text.wordpiece(phantom.vocab)
    local options = { batch = 8, seed = 1, tokenizer = tok, text = "sample", views = VIEWS, epochs = 2 }
    local function run(workers) return collect(data.open("phantom", { studies = 30, size = 16 }), merged(options, { workers = workers })) end
    local reference = run(0)
    assert.equal(6, #reference)
    assert.same(reference, run(1))
    assert.same(reference, run(3))
    local ds = data.open("phantom", { studies = 30, size = 16 })
    assert.equal(30, ds:check())
    assert.same(reference, collect(ds, options))
    local batch = data.batches(ds, options):next()
    for row, item in ipairs(batch.index:totable()) do
      assert.same_bits(data.apply(VIEWS.view2, ds:image(item + 1), { seed = 1, item = item, name = "view2" }), batch.view2[row]:contiguous())
    end
  end)
end)

describe("a function as a data set", function()
  local function get(i)
    return { image = unic.full({ 1, 4, 4 }, i), report = ("x "):rep(i), language = i % 2 == 0 and "es" or "en", labels = { i == 3 and "mass" or nil } }
  end

  it("is asked on the recipe's thread", function()
    local ds = data.open(get, { n = 6, size = 4 })
    local tok = text.wordpiece { "[PAD]", "[UNK]", "[CLS]", "[SEP]", "x" }
    local seen = 0
    for batch in data.batches(ds, { batch = 2, tokenizer = tok, multiple = 1, views = { image = {} }, labels = { "mass" } }) do
      for row, item in ipairs(batch.index:totable()) do
        seen = seen + 1
        assert.equal(item + 1, batch.image[row]:reshape({ -1 }):totable()[16])
        assert.equal((item + 1) % 2 == 0 and 1 or 0, batch.language:totable()[row])
        assert.equal(item == 2 and 1 or 0, batch.labels:totable()[row][1])
        assert.equal(get(item + 1).report, batch.reports[row])
        local count = 0
        for _, on in ipairs(batch.mask:totable()[row]) do count = count + (on and on ~= 0 and 1 or 0) end
        assert.equal(item + 3, count)
      end
    end
    assert.equal(6, seen)
    assert.equal("[batches] option 'workers': 2, but the data set is a function, which runs on this thread alone: 0",
      files_support.refusal(data.batches, ds, { workers = 2 }))
  end)

  it("in colour", function()
    local ds = data.open(function(i) return unic.full({ 3, 4, 4 }, i) end, { n = 2, size = 4, channels = 3 })
    assert.same({ 2, 3, 2, 2 }, data.batches(ds, { batch = 2, views = { image = { { "random_crop", 2 } } } }):next().image.shape)
  end)

  it("whose errors are raised", function()
    local ds = data.open(function(i) if i == 4 then error "no fourth" end return unic.zeros(4, 4) end, { n = 6, size = 4 })
    local it = data.batches(ds, { batch = 2, shuffle = false })
    assert.truthy(it:next())
    assert.raises_at(nil, "no fourth", function() it:next() end)
    assert.is_nil(it:next())
  end)
end)

describe("the end of batches", function()
  local ds
  setup(function()
    local rows = {}
    for i = 1, 64 do rows[i] = { image = unic.full({ 32, 32 }, i, { dtype = "u8" }) } end
    ds = data.open(rows, { size = 32 })
  end)

  it("stops the workers", function()
    assert.equal(0, live())
    local it = data.batches(ds, { batch = 8, workers = 3 })
    assert.equal(0, core.data.live())   -- not before the first batch is asked for
    it:next()
    assert.equal(1, core.data.live())
    for _ in it do end
    assert.equal(0, core.data.live())
    it = data.batches(ds, { batch = 8, workers = 3 })
    it:next()
    it:close()
    it:close()
    assert.equal(0, core.data.live())
    assert.is_nil(it:next())
    assert.same({ epoch = 0, position = 1, seed = 0 }, it:state())
    assert.equal("batches: 8 of 8 items an epoch, at epoch 0, position 1, closed", tostring(it))
  end)

  it("by break: the collector stops them, and many leave few", function()
    local most = 0
    for _ = 1, 60 do
      for _ in data.batches(ds, { batch = 8, workers = 2 }) do break end   -- luacheck: ignore 512
      most = math.max(most, core.data.live())
    end
    assert.is_true(most <= 9)
    assert.equal(0, live())
  end)

  it("by an error in the loop", function()
    for _ = 1, 5 do
      pcall(function()
        for _ in data.batches(ds, { batch = 8 }) do error "enough" end
      end)
    end
    assert.equal(0, live())
  end)

  it("never comes with epochs = math.huge, and memory stays flat", function()
    local it = data.batches(ds, { batch = 32, epochs = math.huge, views = { view1 = { { "noise" } }, view2 = {} }, workers = 1 })
    local function active()
      collectgarbage()
      collectgarbage()
      return unic.memory("cpu").active
    end
    for _ = 1, 20 do it:next() end
    local before = active()
    for _ = 1, 1000 do assert.equal(32, it:next().n) end
    assert.equal(510, it:state().epoch)
    assert.is_true(active() - before < 2e6)   -- of 260 MB
    it:close()
  end)

  it("batches stay good after it", function()
    local kept = {}
    for batch in data.batches(ds, { batch = 8, shuffle = false, views = { image = {} } }) do kept[#kept + 1] = batch.image end
    collectgarbage()
    for _, image in ipairs(kept) do
      -- Pictures of one value are stretched to zeros.
      assert.equal(8, image.shape[1])
      assert.same_bits(unic.zeros(8, 1, 32, 32), image)
    end
  end)

  it("batches can be taken in a scope, and go with it", function()
    local it = data.batches(ds, { batch = 8 })
    local outside
    unic.scope(function() outside = it:next().image end)
    assert.is_false((pcall(function() return outside.shape end)))
    assert.truthy(it:next().image.shape)
    it:close()
  end)
end)
