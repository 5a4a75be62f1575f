--- The built-in data set: what is promised about its studies, words, pictures, masks and files.
local ffi = require "ffi"
local phantom = require "unic.datasets.phantom"
local report = require "unic.datasets.phantom.report"
local write = require "unic.datasets.phantom.write"

local function picture(size) return ffi.new("uint8_t[?]", size * size) end

local function bytes(set, i)
  local p = picture(set.size)
  set:image(i, p)
  return ffi.string(p, set.size * set.size)
end

-- 32-bit FNV-1a, in halves because a product of two 32-bit numbers does not fit a double.
local function hash(text)
  local h = 0x811c9dc5
  for k = 1, #text do
    h = bit.bxor(h, text:byte(k))
    local low, high = bit.band(h, 0xffff), bit.rshift(h, 16)
    h = bit.tobit(low * 0x0193 + bit.lshift(bit.band(high * 0x0193 + low * 0x0100, 0xffff), 16))
  end
  return bit.tohex(h)
end

local function lines_of(path)
  local list = {}
  for line in io.lines(path) do list[#list + 1] = line end
  return list
end

describe("phantom studies", function()
  it("have every finding in 10 to 25 % of studies, and in at least 40 of 500 held-out ones", function()
    for seed = 0, 2 do
      for split, studies in pairs {train = 3000, val = 500, test = 500} do
        local set, count = phantom.open {split = split, studies = studies, seed = seed}, {}
        for i = 1, set.n do
          for _, name in ipairs(set:labels(i)) do count[name] = (count[name] or 0) + 1 end
        end
        for _, name in ipairs(phantom.findings) do
          local share = (count[name] or 0) / set.n
          assert(share >= 0.10 and share <= 0.25, ("%s: %.3f in %s of seed %d"):format(name, share, split, seed))
          assert(split == "train" or count[name] >= 40)
        end
      end
    end
  end)

  it("have enough one-sided cases, and opposite sides of two findings", function()
    local set, left, right, opposite = phantom.open {split = "test"}, {}, {}, 0
    for i = 1, set.n do
      local sides = {}
      for _, f in ipairs(set:study(i).findings) do
        if f.side == "left" then left[f.name] = (left[f.name] or 0) + 1 end
        if f.side == "right" then right[f.name] = (right[f.name] or 0) + 1 end
        sides[f.side or ""] = true
      end
      if sides.left and sides.right then opposite = opposite + 1 end
    end
    for _, name in ipairs(phantom.lateralised) do
      assert(left[name] >= 15 and right[name] >= 15, name)
    end
    assert(opposite >= 100)
  end)

  it("belong to patients with several studies, whom no two splits share", function()
    local owner, studies_of = {}, {}
    for _, split in ipairs {"train", "val", "test"} do
      local set = phantom.open {split = split, studies = 1000}
      for i = 1, set.n do
        local name = set:patient(i)
        assert.equal(split, owner[name] or split)
        owner[name] = split
        studies_of[name] = (studies_of[name] or 0) + 1
      end
    end
    local sizes = {}
    for _, n in pairs(studies_of) do sizes[n] = (sizes[n] or 0) + 1 end
    for n = 1, 4 do assert.equal(300, sizes[n]) end
  end)

  it("keep a patient's sex, build, pacemaker and scoliosis from film to film", function()
    local set, seen, compared = phantom.open {studies = 400}, {}, 0
    for i = 1, set.n do
      local s, chronic = set:study(i), {}
      for _, f in ipairs(s.findings) do
        if f.name == "pacemaker" or f.name == "scoliosis" then chronic[#chronic + 1] = f.name .. f.side .. (f.severity or "") end
      end
      local state = s.sex .. s.site .. table.concat(chronic, ",")
      if seen[s.patient] then
        compared = compared + 1
        assert.equal(seen[s.patient], state)
      end
      seen[s.patient] = state
    end
    assert.equal(240, compared)
  end)

  it("are half English and half Spanish, or all in one language", function()
    for _, split in ipairs {"train", "val", "test"} do
      local set, english = phantom.open {split = split, studies = 500}, 0
      for i = 1, set.n do
        if set:language(i) == "en" then english = english + 1 else assert.equal("es", set:language(i)) end
      end
      assert.equal(250, english)
    end
    local set = phantom.open {languages = "es", studies = 20}
    for i = 1, set.n do assert.equal("es", set:language(i)) end
  end)

  it("have only the fields that make sense", function()
    local set, zones, sides = phantom.open {studies = 600}, {upper = 1, middle = 1, lower = 1}, {left = 1, right = 1, bilateral = 1}
    local lateral = {}
    for _, name in ipairs(phantom.lateralised) do lateral[name] = true end
    for i = 1, set.n do
      local s = set:study(i)
      assert(s.age >= 18 and s.age < 110 and (s.sex == "f" or s.sex == "m"))
      assert.equal(#s.labels, #s.findings)
      for k, f in ipairs(s.findings) do
        assert.equal(s.labels[k], f.name)
        if lateral[f.name] then assert(sides[f.side], f.name) end
        if f.name == "nodule" or f.name == "mass" or f.name == "consolidation" then assert(zones[f.zone]) else assert.is_nil(f.zone) end
        if f.severity then assert(f.severity >= 1 and f.severity <= 3) end
      end
    end
  end)
end)

describe("phantom pictures", function()
  it("are the same bytes however they are asked for, and known ones", function()
    local set = phantom.open {split = "test", size = 64, seed = 5}
    local forward = {}
    for i = 1, 6 do forward[i] = bytes(set, i) end
    local p = picture(64)
    for i = 6, 1, -1 do
      phantom.render(set:args(), i, p)
      assert.equal(forward[i], ffi.string(p, 4096))
    end
    assert.equal("a1b630e7", hash(table.concat(forward)))
    assert.equal("494f58f5", hash(bytes(phantom.open {size = 128}, 3)))
  end)

  it("are the same without the compiler of LuaJIT", function()
    local code = ([[
      jit.off()
      package.path = %q .. "lua/?.lua;" .. package.path
      table.insert(package.loaders, 2, function(name)
        local rest = name:match("^unic%%.datasets%%.(.+)$")
        if rest then return assert(loadfile(%q .. "data/" .. rest:gsub("%%.", "/") .. ".lua")) end
      end)
      local phantom = require "unic.datasets.phantom"
      assert(not package.loaded["unic.core"] and not package.loaded["unic"])
      local p = require("ffi").new("uint8_t[1024]")
      phantom.open {size = 32}:image(7, p)
      io.write(require("ffi").string(p, 1024))
    ]]):format(require("unic").root, require("unic").root)
    local path = os.tmpname()
    local file = assert(io.open(path, "wb"))
    file:write(code)
    file:close()
    local pipe = assert(io.popen("luajit " .. path))
    local there = pipe:read("*a")
    pipe:close()
    os.remove(path)
    assert.equal(hash(bytes(phantom.open {size = 32}, 7)), hash(there))
  end)

  it("change with study, seed, split and size", function()
    local seen = {}
    for _, set in ipairs {phantom.open {}, phantom.open {seed = 1}, phantom.open {split = "val"}, phantom.open {split = "test"}, phantom.open {size = 32}} do
      for i = 1, 3 do
        local h = hash(bytes(set, i))
        assert.is_nil(seen[h])
        seen[h] = true
      end
    end
  end)

  it("look like a chest: dark lungs, bright middle, the heart on the picture's right", function()
    local set, p, n = phantom.open {size = 64}, picture(64), 0
    local lung, middle, heart = 0, 0, 0
    local function mean(x0, x1, y0, y1)
      local sum = 0
      for y = y0, y1 do
        for x = x0, x1 do sum = sum + p[y * 64 + x] end
      end
      return sum / ((x1 - x0 + 1) * (y1 - y0 + 1))
    end
    for i = 1, 300 do
      if #set:labels(i) == 0 then
        set:image(i, p)
        n = n + 1
        lung = lung + mean(16, 21, 22, 32) + mean(43, 48, 22, 32)
        middle = middle + 2 * mean(30, 33, 22, 32)
        heart = heart + mean(36, 40, 36, 42) - mean(23, 27, 36, 42)
      end
    end
    assert(n >= 30)
    assert(middle / n > lung / n + 60)
    assert(heart / n > 20)
  end)

  it("use the range of a byte without drowning in black or white", function()
    local set, p, black, white = phantom.open {size = 64}, picture(64), 0, 0
    for i = 1, 100 do
      set:image(i, p)
      local low, high = 255, 0
      for k = 0, 4095 do
        low, high = math.min(low, p[k]), math.max(high, p[k])
        if p[k] == 0 then black = black + 1 elseif p[k] == 255 then white = white + 1 end
      end
      assert(high - low > 100, i)
    end
    assert(black < 0.2 * 409600 and white < 0.05 * 409600)
  end)
end)

describe("phantom masks and boxes", function()
  it("show every finding, on its side, and agree", function()
    local size = 64
    local set, p = phantom.open {size = size, split = "val"}, picture(size)
    local count, shown, right_side, sided = 0, 0, 0, 0
    for i = 1, 120 do
      local s, boxes = set:study(i), {}
      for _, box in ipairs(set:boxes(i)) do
        boxes[box.finding] = boxes[box.finding] or {}
        table.insert(boxes[box.finding], box)
      end
      for _, f in ipairs(s.findings) do
        count = count + 1
        local pixels = set:masks(i, f.name, p)
        if pixels > 0 then shown = shown + 1 end
        local set_pixels, inside, sum = 0, 0, 0
        for y = 0, size - 1 do
          for x = 0, size - 1 do
            local value = p[y * size + x]
            assert(value == 0 or value == 255)
            if value == 255 then
              set_pixels, sum = set_pixels + 1, sum + x
              for _, b in ipairs(boxes[f.name] or {}) do
                if x >= b.x and x < b.x + b.width and y >= b.y and y < b.y + b.height then
                  inside = inside + 1
                  break
                end
              end
            end
          end
        end
        assert.equal(pixels, set_pixels)
        assert.equal(pixels, inside)
        assert.equal(pixels == 0 and 0 or f.side == "bilateral" and 2 or 1, #(boxes[f.name] or {}))
        if pixels > 0 and (f.side == "left" or f.side == "right") and f.name ~= "scoliosis" and f.name ~= "pacemaker" then
          sided = sided + 1
          if (sum / pixels > size / 2) == (f.side == "left") then right_side = right_side + 1 end
        end
      end
    end
    assert(count > 150)
    assert(shown >= 0.98 * count, ("%d of %d are on the film"):format(shown, count))
    assert(right_side >= 0.93 * sided, ("%d of %d on their side"):format(right_side, sided))
  end)

  it("is where the picture differs when a finding is taken away", function()
    local study, draw = require "unic.datasets.phantom.study", require "unic.datasets.phantom.draw"
    local args = phantom.open {size = 64}:args()
    local p, q, m = picture(64), picture(64), picture(64)
    local tried = 0
    for i = 1, 200 do
      for _, name in ipairs {"nodule", "mass", "consolidation", "effusion", "pneumothorax", "foreign_body", "pacemaker"} do
        local scene = study.scene(args, i)
        if scene.findings[name] and draw.mask(scene, name, m) > 0 then
          draw.film(scene, p)
          scene.findings[name] = nil
          draw.film(scene, q)
          local inside, outside, pixels = 0, 0, 0
          for k = 0, 4095 do
            local d = math.abs(p[k] - q[k])
            if m[k] == 255 then inside, pixels = inside + d, pixels + 1 else outside = outside + d end
          end
          tried = tried + 1
          assert(inside / pixels > 4 * outside / (4096 - pixels), ("%s of study %d"):format(name, i))
        end
      end
    end
    assert(tried > 100)
  end)

  it("are empty for an absent finding", function()
    local set, p = phantom.open {size = 16}, picture(16)
    for i = 1, 10 do
      local has = {}
      for _, name in ipairs(set:labels(i)) do has[name] = true end
      for _, name in ipairs(phantom.findings) do
        if not has[name] then
          ffi.fill(p, 256, 7)
          assert.equal(0, set:masks(i, name, p))
          for k = 0, 255 do assert(p[k] == 0) end
        end
      end
    end
  end)
end)

describe("phantom reports", function()
  it("name all findings and nothing else, in both languages", function()
    for _, split in ipairs {"train", "test"} do
      local set = phantom.open {split = split, studies = 500}
      for i = 1, set.n do
        local labels = table.concat(set:labels(i), "|")
        for _, language in ipairs {"en", "es"} do
          local named = {}
          for _, s in ipairs(set:sentences(i, language)) do
            assert.equal(#s.findings > 0, s.positive)
            for _, name in ipairs(s.findings) do named[name] = true end
          end
          local list = {}
          for _, name in ipairs(phantom.findings) do
            if named[name] then list[#list + 1] = name end
          end
          assert.equal(labels, table.concat(list, "|"))
        end
      end
    end
  end)

  it("say left for left and right for right", function()
    local set = phantom.open {studies = 1500}
    local words = {en = {left = "%f[%a]left", right = "%f[%a]right"}, es = {left = "izquierd", right = "derech"}}
    local checked, said = 0, 0
    for i = 1, set.n do
      local list = set:study(i).findings
      local sides = {}
      for _, f in ipairs(list) do
        if f.name ~= "scoliosis" and f.side then sides[f.side] = true end
      end
      for language, word in pairs(words) do
        local text = set:report(i, language):lower():gsub("right ventricle", ""):gsub("ventrículo derecho", "")
        if not sides.left then assert.is_nil(text:find(word.left), text) end
        if not sides.right then assert.is_nil(text:find(word.right), text) end
        if sides.left and not sides.right then
          checked = checked + 1
          if text:find(word.left) then said = said + 1 end
        end
      end
    end
    -- now and then a finding is named without its place
    assert(checked > 500 and said > 0.8 * checked, ("%d of %d"):format(said, checked))
  end)

  it("are well formed", function()
    for _, split in ipairs {"train", "test"} do
      local set = phantom.open {split = split, studies = 700}
      for i = 1, set.n do
        for _, language in ipairs {"en", "es"} do
          for _, s in ipairs(set:sentences(i, language)) do
            local text = s.text
            assert.is_nil(text:find("[%[%]{}|~*]"), text)
            assert.is_nil(text:find("  ", 1, true), text)
            assert.is_nil(text:find(" [.,]"), text)
            assert.is_nil(text:find("^%l"), text)
            assert.truthy(text:find("[^.]%.$"), text)
            if language == "en" then
              assert.is_nil(text:find("%f[%a][Aa] [aeiou]"), text)
              assert.is_nil(text:find("%f[%a][Aa]n [^aeiou]"), text)
            end
          end
        end
      end
    end
  end)

  it("tell the same in both languages, sentence by sentence", function()
    local set = phantom.open {split = "test"}
    for i = 1, 250 do
      local en, es = set:sentences(i, "en"), set:sentences(i, "es")
      assert.equal(#en, #es)
      for k = 1, #en do
        assert.same(en[k].findings, es[k].findings)
        assert.not_equal(en[k].text, es[k].text)
      end
      assert.equal(set:report(i), set:report(i, set:language(i)))
    end
  end)

  it("vary: hundreds of words, hardly two reports alike", function()
    local set = phantom.open {studies = 4000}
    local words, n, reports, distinct = {}, 0, {}, 0
    for i = 1, set.n do
      local text = report.plain(set:report(i))
      if not reports[text] then distinct = distinct + 1 end
      reports[text] = true
      for word in text:gmatch("%a+") do
        if not words[word] then n = n + 1 end
        words[word] = true
      end
    end
    assert(n >= 400, n)
    assert(distinct >= 0.95 * set.n, distinct)
  end)

  it("keep some phrasings for the held-out studies", function()
    local function count(split)
      local set, n = phantom.open {split = split, studies = 500}, 0
      for i = 1, set.n do
        for _, language in ipairs {"en", "es"} do
          local text = set:report(i, language)
          for _, phrase in ipairs {"is seen in this study", "The findings are consistent", "is identified.", "En este estudio", "Los hallazgos son"} do
            -- "No ... is identified." is the held-out one; a positive sentence may end so everywhere
            local at = phrase == "is identified." and text:find("No [^.]- is identified%.") or phrase ~= "is identified." and text:find(phrase, 1, true)
            if at then n = n + 1 end
          end
        end
      end
      return n
    end
    assert.equal(0, count "train")
    assert(count "val" > 100)
    assert(count "test" > 100)
  end)

  it("give training texts that are parts of the report, new in each epoch", function()
    local set = phantom.open {studies = 300}
    local differ, single = 0, 0
    for i = 1, set.n do
      local language = set:language(i)
      local known, positives = {}, 0
      for _, s in ipairs(set:sentences(i)) do
        known[s.text] = s.positive
        if s.positive then positives = positives + 1 end
      end
      local first
      for epoch = 0, 3 do
        local text = set:sample_text(i, epoch)
        assert.equal(text, set:sample_text(i, epoch, language))
        local taken, others = 0, 0
        -- sentences end with a stop; none has one inside
        for sentence in text:gmatch("[^.]+%.") do
          local positive = known[(sentence:gsub("^ ", ""))]
          assert.is_not_nil(positive, sentence)
          if positive then taken = taken + 1 else others = others + 1 end
        end
        assert(others <= 2 and taken == positives)
        if taken + others == 1 then single = single + 1 end
        if first and text ~= first then differ = differ + 1 end
        first = first or text
      end
    end
    assert(differ > 500 and single > 100)
  end)

  it("come as columns", function()
    local set = phantom.open {split = "val", studies = 60}
    local columns = set:columns()
    for i = 1, set.n do
      assert.equal(set:report(i), columns.report[i])
      assert.equal(set:language(i), columns.language[i])
      assert.equal(set:patient(i), columns.patient[i])
      assert.equal(table.concat(set:labels(i), "|"), columns.labels[i])
    end
    assert.is_nil(columns.report[set.n + 1])
  end)
end)

describe("phantom prompts and vocabulary", function()
  it("are what the committed files hold", function()
    assert.same(lines_of(phantom.prompt_file), write.prompt_lines(phantom))
    assert.same(lines_of(phantom.vocab), phantom.vocabulary())
  end)

  it("cover every finding in both languages, as ensembles", function()
    local count = {}
    for _, row in ipairs(phantom.prompts()) do
      local key = table.concat({row.set, row.finding, row.language, row.polarity}, " ")
      count[key] = (count[key] or 0) + 1
    end
    for _, language in ipairs {"en", "es"} do
      for _, name in ipairs(phantom.findings) do
        local rich = count["rich " .. name .. " " .. language .. " positive"]
        assert(rich >= 12 and rich <= 16, name)
        for _, set in ipairs {"rich", "bare"} do assert(count[set .. " " .. name .. " " .. language .. " negative"] >= 3) end
        assert(count["bare " .. name .. " " .. language .. " positive"] >= 2)
      end
      for k, name in ipairs(phantom.lateralised) do
        for _, side in ipairs {"left", "right"} do assert(count[table.concat({"side", name, language, side}, " ")] >= 2) end
        for j = k + 1, #phantom.lateralised do
          for _, sides in ipairs {"left|right", "right|left"} do
            assert.equal(4, count[table.concat({"swap", name .. "|" .. phantom.lateralised[j], language, sides}, " ")])
          end
        end
      end
    end
  end)

  it("are no sentences of the training set", function()
    local asked = {}
    for _, row in ipairs(phantom.prompts()) do asked[report.plain(row.text)] = true end
    local set = phantom.open {studies = 4000}
    for i = 1, set.n do
      for _, language in ipairs {"en", "es"} do
        for _, s in ipairs(set:sentences(i, language)) do
          if asked[report.plain(s.text)] then error("a prompt is a training sentence: " .. s.text) end
        end
      end
    end
  end)

  it("hold every word that is written, without capitals and accents", function()
    local known = {}
    for k, token in ipairs(phantom.vocabulary()) do
      assert.is_nil(known[token], token)
      assert.is_nil(token:find("[\128-\255]"), token)
      assert(k <= 5 or not token:find("%u"), token)
      known[token] = true
    end
    local texts = {}
    for _, split in ipairs {"train", "test"} do
      local set = phantom.open {split = split, studies = 1000}
      for i = 1, set.n do texts[#texts + 1] = set:report(i) end
    end
    for _, row in ipairs(phantom.prompts()) do texts[#texts + 1] = row.text end
    for _, text in ipairs(texts) do
      for word in report.plain(text):gmatch("%w+") do assert(known[word], word) end
      for mark in text:gmatch("%p") do assert(known[mark], mark) end
    end
    assert.same({"[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"}, {unpack(phantom.vocabulary(), 1, 5)})
    for letter in ("abcdefghijklmnopqrstuvwxyz0123456789"):gmatch "." do assert(known[letter] and known["##" .. letter]) end
  end)
end)

describe("phantom options", function()
  local function message(fn, ...)
    local ok, text = pcall(fn, ...)
    assert.is_false(ok)
    return text
  end

  it("refuse what is wrong, with the nearest name, at the caller's line", function()
    local line = debug.getinfo(1, "l").currentline + 1
    local text = message(function() phantom.open {sise = 3} end)
    assert.truthy(text:find("phantom_spec.lua:" .. line .. ":", 1, true), text)
    assert.truthy(text:find("[phantom] option 'sise' is unknown, did you mean 'size'?", 1, true), text)
    assert.truthy(message(phantom.open, {split = "tset"}):find("'tset', expected \"train\", \"val\" or \"test\", did you mean 'test'?", 1, true))
    assert.truthy(message(phantom.open, {languages = "fr"}):find("option 'languages': 'fr'", 1, true))
    assert.truthy(message(phantom.open, {studies = 0}):find("option 'studies': 0, expected a whole number", 1, true))
    assert.truthy(message(phantom.open, {size = 8}):find("option 'size': 8", 1, true))
    assert.truthy(message(phantom.open, {seed = -1}):find("option 'seed': -1", 1, true))
    assert.truthy(message(phantom.open, 3):find("argument 'options': a number was given", 1, true))
    local set = phantom.open {studies = 5}
    assert.truthy(message(set.report, set, 6):find("argument 'i': 6, expected a study from 1 to 5", 1, true))
    assert.truthy(message(set.report, set, 1, "fr"):find("argument 'language': 'fr'", 1, true))
    assert.truthy(message(set.masks, set, 1, "efusion", picture(64)):find("'efusion' is unknown, did you mean 'effusion'?", 1, true))
    assert.truthy(message(set.sample_text, set, 1, -1):find("argument 'epoch': -1", 1, true))
  end)

  it("are printed with the set", function()
    assert.equal("phantom val: 500 studies of 64x64, seed 2", tostring(phantom.open {split = "val", seed = 2}))
  end)
end)

describe("phantom on disk", function()
  local files, support = require "unic.files", require "spec.support.files"
  local folder

  before_each(function() folder = support.folder() end)
  after_each(function() support.remove(folder) end)

  it("is a data set of one's own: pictures, table, masks, boxes", function()
    local out = folder .. "/a/b"
    local count = write.folder(phantom, {out = out, studies = 20, seed = 3, size = 48, languages = "both"})
    assert.same({train = 16, val = 2, test = 2}, count)
    local csv = files.read_csv(out .. "/data.csv", {})
    assert.equal(20, csv:rows())
    local boxes = require("cjson").decode(support.read(out .. "/boxes.json"))
    local sets, at, masks = {}, {}, 0
    for _, split in ipairs {"train", "val", "test"} do sets[split] = phantom.open {split = split, seed = 3, size = 48} end
    for row = 1, csv:rows() do
      local split = csv:get(row, "split")
      at[split] = (at[split] or 0) + 1
      local set, i = sets[split], at[split]
      assert.equal(set:report(i), csv:get(row, "report"))
      assert.equal(set:language(i), csv:get(row, "language"))
      assert.equal(set:patient(i), csv:get(row, "patient"))
      assert.equal(table.concat(set:labels(i), "|"), csv:get(row, "labels"))
      local image = files.read_image(out .. "/" .. csv:get(row, "image"))
      assert.equal(48, image:width())
      assert.equal(8, image:bits())
      assert.equal(1, image:channels())
      local tensor = image:tensor():to "cpu"
      assert.equal(hash(bytes(set, i)), hash(ffi.string(tensor:data_ptr(), 48 * 48)))
      local list = set:boxes(i)
      assert.equal(#list, #boxes[csv:get(row, "image")])
      for k, box in ipairs(list) do assert.same(box, boxes[csv:get(row, "image")][k]) end
      for _, name in ipairs(set:labels(i)) do
        masks = masks + 1
        local mask = files.read_image(("%s/masks/%s-%05d-%s.png"):format(out, split, i, name))
        assert.equal(48, mask:height())
      end
    end
    assert(masks > 10)
    assert.equal(masks, #support.list(out .. "/masks"))
  end)
end)
