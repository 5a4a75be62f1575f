-- Data sets: rows and what is wrong with them, splits, hashes, pictures from every kind of source.
local ffi = require "ffi"
local unic = require "unic"
local data = require "unic.data"
local files = require "unic.files"
local phantom = require "unic.datasets.phantom"
local support = require "spec.support.data"
local files_support = require "spec.support.files"

local function message(...) return files_support.refusal(data.open, ...) end

local function all(ds, what)
  local list = {}
  for i = 1, ds.n do list[i] = ds[what](ds, i) end
  return list
end

describe("a data set from a CSV file", function()
  local folder
  before_each(function() folder = files_support.folder() end)
  after_each(function() files_support.remove(folder) end)

  it("has the file's rows", function()
    support.write_set(folder, 6, function(i, row)
      row.age = 40 + i
      if i == 5 then row.language = " FR " end
    end)
    local ds = data.open(folder, { size = 16 })
    assert.equal(6, ds.n)
    assert.equal(1, ds.ignored)
    assert.same({ "en", "es", "fr" }, ds.languages)
    assert.same({ "en", "es", "en", "es", "fr", "es" }, all(ds, "language"))
    assert.same({ "es", 1 }, { ds:language(2) })
    assert.same({ "fr", 2 }, { ds:language(5) })
    assert.equal("Report 3. It has sentences. Three of them.", ds:report(3))
    assert.same({ "p1", "p1", "p2", "p2", "p3", "p3" }, all(ds, "patient"))
    assert.same({ { "effusion" }, {}, { "mass", "nodule" }, { "effusion" }, {}, { "mass", "nodule" } }, all(ds, "labels"))
    assert.same({ "effusion", "mass", "nodule" }, ds:label_names())
    assert.equal("image-04.png", ds:image_path(4))
    assert.same({ 2, 3, 4, 5, 6, 7 }, all(ds, "row_number"))
    assert.same({}, ds:errors())
    assert.equal(("data set: 6 items from %s/data.csv, 16x16"):format(folder), tostring(ds))
  end)

  it("gives labels as numbers", function()
    local ds = data.open(support.write_set(folder, 4), { size = 16 })
    assert.same({ { 1, 0, 0 }, { 0, 0, 0 }, { 0, 1, 1 }, { 1, 0, 0 } }, ds:label_tensor():totable())
    assert.same({ { 1, 0 }, { 0, 0 } }, ds:label_tensor({ "nodule", "effusion" }, { 3, 2 }):totable())
  end)

  it("has pictures cropped, stretched, resized, and kept", function()
    support.write_set(folder, 3)
    local ds, kept_nowhere = data.open(folder, { size = 9 }), data.open(folder .. "/data.csv", { size = 9, cache_mb = 0 })
    for i = 1, 3 do
      local bytes = support.noise(16, 16, i)
      local p = support.picture(16, 16, function(x, y) return bytes:byte(y * 16 + x + 1) end)
      assert.equal(0, support.difference(ds:image(i), support.prepare(p, 9)))
      assert.same_bits(ds:image(i), kept_nowhere:image(i))
    end
    -- Kept: the file is not looked at again. Not kept: it is.
    os.remove(folder .. "/image-01.png")
    assert.truthy(ds:image(1))
    local picture, reason = kept_nowhere:image(1)
    assert.is_nil(picture)
    assert.equal("cannot be read (No such file or directory)", reason)
  end)

  it("takes other names of columns, and one language for all", function()
    support.write_set(folder, 2, function(_, row)
      row.Path, row.image, row.language = row.image, nil, nil
    end)
    local ds = data.open(folder, { columns = { image = "Path" }, language = "es", size = 16 })
    assert.same({ "es", "es" }, all(ds, "language"))
    assert.equal(0, ds.ignored)
    assert.truthy(ds:image(1))
    assert.truthy(message(folder, { columns = { image = "Path" } }):find("language", 1, true))
    assert.equal("[open] option 'columns': there is no 'imgae', did you mean 'image'?", message(folder, { columns = { imgae = "Path" } }))
    assert.truthy(message(folder, { columns = { image = "Path", patient = "Who" }, language = "es" }):find("Who", 1, true))
  end)

  local function write_faulty()
    support.write_set(folder, 8)
    local text = files_support.read(folder .. "/data.csv"):gsub("\r", "")
    local lines = {}
    for line in text:gmatch "[^\n]+" do lines[#lines + 1] = line end
    -- image,labels,language,patient,report
    assert.equal("image,labels,language,patient,report", lines[1])
    lines[3] = ",,es,p1,Report 2."
    lines[4] = "image-03.png,,en,p2,"
    lines[5] = "image-04.png,,spanish,p2,Report 4."
    lines[6] = "image-99.png,,en,p3,Report 5."
    lines[7] = "image-06.png,en"
    files_support.write(folder .. "/image-07.png", files_support.read(folder .. "/image-07.png"):sub(1, 150))
    files_support.write(folder .. "/data.csv", table.concat(lines, "\n") .. "\n")
  end

  it("leaves out what is wrong, and says what and where", function()
    write_faulty()
    local ds = data.open(folder, { size = 16 })
    assert.equal(3, ds.n)   -- rows 2, 8 (its picture is damaged, which is not known yet) and 9
    local expected = {
      { row = 3, path = "", reason = "column 'image' is empty" },
      { row = 4, path = "image-03.png", reason = "column 'report' is empty" },
      { row = 5, path = "image-04.png", reason = "language 'spanish', expected two letters such as en or es" },
      { row = 6, path = "image-99.png", reason = "there is no such file" },
      { row = 7, path = "", reason = "2 fields, the header has 5" },
    }
    assert.same(expected, ds:errors())
    assert.equal(2, ds:check())
    assert.equal(2, ds:check())   -- noted once
    local errors = ds:errors()
    assert.equal(6, #errors)
    assert.equal(8, errors[6].row)
    assert.equal("image-07.png", errors[6].path)
    assert.is_nil(errors[6].reason:find(folder, 1, true))
    local picture, reason = ds:image(2)
    assert.is_nil(picture)
    assert.equal(errors[6].reason, reason)
    assert.equal(6, ds:write_skipped(folder .. "/skipped.csv"))
    assert.truthy(files_support.read(folder .. "/skipped.csv"):find("row,path,reason\n3,,column 'image' is empty\n4,image-03.png,", 1, true))
    assert.truthy(tostring(ds):find(", 6 left out", 1, true))
  end)

  it("stops at the first thing that is wrong with strict", function()
    write_faulty()
    local csv = folder .. "/data.csv"
    assert.equal(("[open] '%s' row 3: column 'image' is empty"):format(csv), message(folder, { strict = true }))
    local text = files_support.read(csv)
    local function without(line)
      text = text:gsub(line:gsub("[%-%.]", "%%%0") .. "\n", "")
      files_support.write(csv, text)
      return message(folder, { strict = true })
    end
    assert.equal(("[open] '%s' row 3 ('image-03.png'): column 'report' is empty"):format(csv), without ",,es,p1,Report 2.")
    assert.equal(("[open] '%s' row 3 ('image-04.png'): language 'spanish', expected two letters such as en or es"):format(csv), without "image-03.png,,en,p2,")
    assert.equal(("[open] '%s' row 3 ('image-99.png'): there is no such file"):format(csv), without "image-04.png,,spanish,p2,Report 4.")
    assert.equal(("[open] '%s' row 3: 2 fields, the header has 5"):format(csv), without "image-99.png,,en,p3,Report 5.")
    files_support.write(csv, (text:gsub("image%-06%.png,en\n", "")))
    local ds = data.open(folder, { strict = true, size = 16 })   -- a picture is looked at when it is needed
    assert.truthy(ds:image(1))
    assert.truthy(files_support.refusal(ds.image, ds, 2):find(("^%%[image%%] row 3: '%s/image%%-07%%.png': "):format(folder:gsub("%p", "%%%0"))))
    assert.truthy(ds:image(3))
  end)

  it("wants as many words as are asked for", function()
    support.write_set(folder, 3, function(i, row) row.report = ({ "Normal.", "Ápice, 2.5 cm", "uno dos" })[i] end)
    local ds = data.open(folder, { min_words = 3, size = 16 })
    assert.same({ 3 }, all(ds, "row_number"))
    assert.equal("the report has 1 word, expected at least 3", ds:errors()[1].reason)
    assert.equal("the report has 2 words, expected at least 3", ds:errors()[2].reason)
  end)

  it("has nothing usable: a sentence", function()
    support.write_set(folder, 2, function(_, row) row.image = "none.png" end)
    assert.equal(("[open] '%s/data.csv': no row can be used; the first of 2 that are wrong is row 2: 'none.png': there is no such file"):format(folder), message(folder))
    files_support.write(folder .. "/data.csv", "image,report,language\n")
    assert.equal(("[open] '%s/data.csv': has no rows"):format(folder), message(folder))
    files_support.write(folder .. "/data.csv", "image,report\na.png,x\n")
    assert.truthy(message(folder):find("language", 1, true))
  end)

  it("is not where it was looked for: a sentence", function()
    assert.equal("[open] 'phantm': there is no such file or folder, did you mean 'phantom'?", message "phantm")
    assert.equal(("[open] '%s/no.csv': there is no such file or folder, expected a CSV file, a folder with data.csv, or \"phantom\""):format(folder),
      message(folder .. "/no.csv"))
    assert.equal(("[open] '%s': is a folder without data.csv"):format(folder), message(folder))
    assert.equal("[open] argument 'what': the number 3, expected \"phantom\", a CSV file, a folder with data.csv, a table of rows or a function", message(3))
    support.write_set(folder, 1)
    assert.equal("[open] there is no option 'szie', did you mean 'size'?", message(folder .. "/", { szie = 3 }))
    assert.equal("[open] option 'studies' means nothing for a CSV file", message(folder, { studies = 3 }))
    assert.equal("[open] option 'size': 0, expected 1 to 16384", message(folder, { size = 0 }))
  end)
end)

describe("splits", function()
  local folder
  before_each(function() folder = files_support.folder() end)
  after_each(function() files_support.remove(folder) end)

  it("follow the column", function()
    support.write_set(folder, 8, function(i, row) row.split = ({ "train", "train", "Validate", "dev", "test", "TRAIN", "other", "" })[i] end)
    local function rows(split) return all(data.open(folder, { split = split, size = 16 }), "row_number") end
    assert.same({ 2, 3, 7 }, rows "train")
    assert.same({ 4, 5 }, rows "val")
    assert.same({ 4, 5 }, rows "validation")
    assert.same({ 6 }, rows "test")
    assert.same({ 8 }, rows "other")
    assert.same({ 2, 3, 4, 5, 6, 7, 8, 9 }, rows(nil))
    assert.equal(("[open] '%s/data.csv': none of its 8 rows belongs to split 'traim'"):format(folder), message(folder, { split = "traim" }))
    -- What is wrong in another split is not this one's affair.
    os.remove(folder .. "/image-05.png")
    assert.same({}, data.open(folder, { split = "train", size = 16 }):errors())
    assert.equal(1, #data.open(folder, { size = 16 }):errors())
  end)

  it("without a column go by patient", function()
    local rows, t = {}, unic.zeros(4, 4, { dtype = "u8" })
    for i = 1, 3000 do rows[i] = { image = t, patient = "patient " .. math.floor((i - 1) / 3) } end
    local seen, count = {}, {}
    for _, split in ipairs { "train", "val", "test" } do
      local ds = data.open(rows, { split = split, size = 4 })
      count[split] = ds.n
      for i = 1, ds.n do
        assert.is_true(seen[ds:patient(i)] == nil or seen[ds:patient(i)] == split)
        seen[ds:patient(i)] = split
      end
    end
    assert.equal(3000, count.train + count.val + count.test)
    assert.is_true(count.val > 210 and count.val < 390 and count.test > 210 and count.test < 390)   -- 100 patients of 1000 each, deviation 9.5
    assert.equal(3000, data.open(rows, { size = 4 }).n)
    -- With a larger share nobody leaves it.
    local small, large = data.open(rows, { split = "val", val = 0.05, size = 4 }), data.open(rows, { split = "val", val = 0.3, size = 4 })
    local inside = {}
    for i = 1, large.n do inside[large:patient(i)] = true end
    for i = 1, small.n do assert.is_true(inside[small:patient(i)]) end
    assert.equal(3000, data.open(rows, { split = "train", val = 0, size = 4 }).n)   -- `val` alone: no test split
    assert.equal("[open] options 'val' and 'test': together 1.2, expected at most 1", message(rows, { val = 0.6, test = 0.6 }))
  end)

  it("a file without the column has three of them", function()
    support.write_set(folder, 2)
    assert.equal(("[open] '%s/data.csv': has no column 'split'; by patient there are train, val and test, not 'fold1'"):format(folder),
      message(folder, { split = "fold1" }))
  end)
end)

describe("the hash of a data set", function()
  local folder, other
  before_each(function() folder, other = files_support.folder(), files_support.folder() end)
  after_each(function()
    files_support.remove(folder)
    files_support.remove(other)
  end)

  it("names its contents, wherever they lie", function()
    local one = data.open(support.write_set(folder, 3), { size = 16 }):hash()
    assert.truthy(one:match "^%x+$" and #one == 16)
    assert.equal(one, data.open(support.write_set(other, 3), { size = 8, cache_mb = 0 }):hash())
    local function changed(change)
      support.write_set(other, 3, change)
      return data.open(other, { size = 16 }):hash()
    end
    local seen = { [one] = true }
    for _, change in ipairs {
      function(i, row) if i == 2 then row.report = row.report .. " " end end,
      function(i, row) if i == 2 then row.language = "en" end end,
      function(i, row) if i == 2 then row.patient = "p9" end end,
      function(i, row) if i == 2 then row.labels = "mass" end end,
      function(i) return i ~= 2 end,
    } do
      local hash = changed(change)
      assert.is_nil(seen[hash])
      seen[hash] = true
    end
    changed(nil)
    files.write_png(other .. "/image-02.png", support.noise(17, 16, 2), { width = 17, height = 16 })
    assert.is_nil(seen[data.open(other, { size = 16 }):hash()])
  end)

  it("of the phantom covers its options", function()
    local function hash(options) return data.open("phantom", options):hash() end
    local one = hash { studies = 20, size = 16 }
    assert.equal(one, hash { studies = 20, size = 16, seed = 0, split = "train", cache_mb = 1 })
    local seen = { [one] = true }
    for _, options in ipairs { { studies = 21, size = 16 }, { studies = 20, size = 24 }, { studies = 20, size = 16, seed = 1 }, { studies = 20, size = 16, split = "val" },
                               { studies = 20, size = 16, languages = "en" } } do
      assert.is_nil(seen[hash(options)])
      seen[hash(options)] = true
    end
  end)
end)

describe("the built-in set", function()
  it("is the phantom, drawn", function()
    local ds, set = data.open("phantom", { studies = 12, size = 32, seed = 5 }), phantom.open { studies = 12, size = 32, seed = 5 }
    assert.equal(12, ds.n)
    assert.equal(32, ds.size)
    assert.same({ "en", "es" }, ds.languages)
    local pixels = ffi.new "uint8_t[1024]"
    for i = 1, 12 do
      set:image(i, pixels)
      assert.equal(ffi.string(pixels, 1024), ds:image(i):bytes())
      assert.equal(set:report(i), ds:report(i))
      assert.equal(set:patient(i), ds:patient(i))
      assert.same(set:labels(i), ds:labels(i))
      assert.equal(set:language(i), ds:language(i))
    end
    assert.equal(64, data.open("phantom", { studies = 2 }).size)
    assert.equal("[phantom] option 'seed': -1, expected a whole number of at least 0", message("phantom", { seed = -1 }))
    assert.equal("[open] option 'strict' means nothing for a generator", message("phantom", { strict = true }))
  end)

  it("samples texts: positive sentences, at most two others", function()
    local ds, set = data.open("phantom", { studies = 40, size = 16 }), phantom.open { studies = 40, size = 16 }
    local different = 0
    for i = 1, 40 do
      local positive = {}
      local sentences = {}
      for _, s in ipairs(set:sentences(i)) do
        sentences[#sentences + 1] = s.text
        if s.positive then positive[#positive + 1] = s.text end
      end
      table.sort(sentences, function(a, b) return #a > #b end)
      for epoch = 0, 4 do
        local text = ds:sample_text(i, epoch)
        assert.is_true(#text > 0)
        if text ~= ds:sample_text(i, epoch + 1) then different = different + 1 end
        -- It is made of the report's sentences and blanks, each at most once.
        local rest, kept, others = text, 0, 0
        for _, s in ipairs(sentences) do
          local from, to = rest:find(s, 1, true)
          if from then
            rest = rest:sub(1, from - 1) .. rest:sub(to + 1)
            local is_positive = false
            for _, q in ipairs(positive) do is_positive = is_positive or q == s end
            if is_positive then kept = kept + 1 else others = others + 1 end
          end
        end
        assert.equal("", (rest:gsub(" ", "")))
        assert.is_true(others <= 2 and kept == #positive)
      end
    end
    assert.is_true(different > 120)
  end)
end)

describe("sampled text of a report without marks", function()
  local function sampler(report)
    local ds = data.open({ { image = unic.zeros(2, 2, { dtype = "u8" }), report = report } }, { size = 2 })
    return function(epoch) return ds:sample_text(1, epoch) end
  end

  it("is some of its sentences in some order", function()
    local sample = sampler "First of 2.5 cm. Second!\nThird\n\nFourth? "
    local seen, lengths = {}, {}
    for epoch = 0, 199 do
      local text, count = sample(epoch), 0
      seen[text] = true
      local rest = text
      for _, s in ipairs { "First of 2.5 cm.", "Second!", "Third", "Fourth?" } do
        local from, to = rest:find(s, 1, true)
        if from then
          rest = rest:sub(1, from - 1) .. rest:sub(to + 1)
          count = count + 1
        end
      end
      assert.equal("", (rest:gsub(" ", "")))
      lengths[count] = (lengths[count] or 0) + 1
    end
    for count = 1, 4 do assert.is_true(lengths[count] > 25) end   -- 50 expected
    assert.is_true(seen["Third"] and seen["Fourth?"])
  end)

  it("of one sentence, of none", function()
    assert.equal("Only one", sampler "  Only one\n"(7))
    assert.equal("", sampler ""(0))
    local long = {}
    for i = 1, 200 do long[i] = ("Sentence %d."):format(i) end
    for epoch = 0, 20 do assert.is_true(#sampler(table.concat(long, " "))(epoch) <= #table.concat(long, " ")) end
  end)
end)

describe("a data set from a table", function()
  it("holds pictures in memory and on disk", function()
    local folder = files_support.folder()
    finally(function() files_support.remove(folder) end)
    files.write_png(folder .. "/a.png", "\0\50\100\200", { width = 2, height = 2 })
    local rows = {
      { image = unic.reshape(unic.tensor({ 10, 20, 30, 110 }, { dtype = "u8" }), { 2, 2 }), report = "One.", language = "es", labels = { "a", "b" }, patient = 7 },
      { image = "a.png" },
      { image = unic.reshape(unic.tensor({ 0, 65535 }, { dtype = "i32" }), { 1, 1, 2 }), language = "en" },
      { image = "b.png", report = "Two." },
    }
    local ds = data.open(rows, { root = folder, size = 2, crop = false })
    assert.equal(3, ds.n)
    assert.same({ { row = 4, path = "b.png", reason = "there is no such file" } }, ds:errors())
    assert.same({ 0, 26, 51, 255 }, ds:image(1):reshape({ -1 }):totable())   -- 25.5 rounds up
    assert.same({ 0, 64, 128, 255 }, ds:image(2):reshape({ -1 }):totable())
    assert.same({ 0, 255, 0, 255 }, ds:image(3):reshape({ -1 }):totable())
    assert.same({ "es", "en" }, { (ds:language(1)), (ds:language(3)) })
    assert.is_nil(ds:language(2))
    assert.equal("", ds:report(2))
    assert.equal("7", ds:patient(1))
    assert.same({ "a", "b" }, ds:labels(1))
  end)

  it("that is wrong is refused", function()
    assert.equal("[open] row 2: a string was given, expected a table such as {image = \"a.png\", report = \"...\"}", message { { image = "a.png" }, "b.png" })
    assert.equal("[open] there is no option 'imagee', did you mean 'image'?", message { { imagee = "a.png" } })
    assert.equal("[open] 'the table': has no rows", message {})
    assert.equal("[open] row 1: 'report' is a boolean, expected a string", message { { image = "a.png", report = true } })
    local big = unic.zeros(2, 2, { dtype = "u8" })
    assert.equal("[open] row 2: pictures in memory are more than the cache holds: 2, room for 1; a larger cache_mb takes them",
      message({ { image = big }, { image = big } }, { size = 1024, cache_mb = 1 }))
    assert.equal("[open] row 1: a picture is f32 [2, 2] on cpu, expected u8 or i32 (16 bits) of shape [H, W]", message({ { image = unic.zeros(2, 2) } }, { size = 2 }))
  end)
end)

describe("a data set from a function", function()
  it("asks it for what is needed", function()
    local asked = 0
    local ds = data.open(function(i)
      asked = asked + 1
      return { image = unic.full({ 4, 4 }, i / 10), report = "Report " .. i, language = i == 2 and "es" or "en", labels = "x|y", patient = i }
    end, { n = 3, size = 4 })
    assert.equal(3, ds.n)
    assert.equal(0, asked)
    assert.equal("Report 2", ds:report(2))
    assert.same({ "es", 1 }, { ds:language(2) })
    assert.same({ "x", "y" }, ds:labels(3))
    assert.equal(2, asked)   -- a record is asked for once
    assert.same({ 1, 4, 4 }, ds:image(1).shape)
  end)

  it("that gives something else is refused", function()
    local function of(value, options)
      options = options or { n = 2, size = 4 }
      local ds = data.open(function() return value end, options)
      return files_support.refusal(ds.image, ds, 1)
    end
    assert.equal("[open] option 'n': is missing, expected the number of items of the function", message(function() end, { size = 3 }))
    assert.equal("[open] option 'size': is missing, expected the width and height of the pictures", message(function() end, { n = 3 }))
    assert.equal("[open] option 'strict' means nothing for a function", message(function() end, { strict = true }))
    assert.equal("[open] item 1: the function gave a nil, expected a tensor or a table such as {image =, report =}", of(nil))
    assert.equal("[open] item 1: its image is a number, expected a path or a tensor", of { image = 3 })
    assert.equal("[open] item 1: its image is [4, 5], expected [1, 4, 4] (options 'channels' and 'size')", of(unic.zeros(4, 5)))
    assert.equal("[open] item 1: its image is i64, expected u8, i32 (16 bits) or f32", of(unic.zeros(4, 4, { dtype = "i64" })))
    assert.truthy(of { image = "/no/such.png" }:find("cannot be read", 1, true))
  end)
end)

describe("positions", function()
  it("count from 1 and end at n", function()
    local ds = data.open({ { image = unic.zeros(2, 2, { dtype = "u8" }) } }, { size = 2 })
    for _, i in ipairs { 0, 2, 1.5, "1" } do
      assert.truthy(files_support.refusal(ds.report, ds, i):find("^%[report%] argument 'i': .* was given, expected an item from 1 to 1$"))
    end
    assert.truthy(files_support.refusal(ds.image, ds, nil):find("nil was given", 1, true))
    assert.equal("[sample_text] argument 'epoch': -1, expected 0 or more", files_support.refusal(ds.sample_text, ds, 1, -1))
  end)
end)
