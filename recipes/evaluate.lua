--- What a finished Med-UniC model is asked, and the result line: shared by pretrain_medunic.lua and zeroshot.lua.
--
-- On the built-in set: zero-shot AUC by rich and by bare prompts in each language, left against right, swapped pairs, retrieval in pools of 256,
-- the language gap on 250 parallel reports, and the AUC of untrained models. On other data: retrieval and, where there are labels that the
-- prompts name, zero-shot AUC.
local unic = require "unic"
local data = require "unic.data"
local metrics = require "unic.metrics"
local phantom = require "unic.datasets.phantom"
local zeroshot = require "unic.zeroshot"

local LANGUAGES = { "en", "es" }

-- Which side a finding of the built-in set lies on, when it is one side only.
local function sides_of(set)
  local cache = {}
  return function(item, finding)
    local sides = cache[item]
    if not sides then
      sides = {}
      for _, f in ipairs(set:study(item).findings) do
        if f.side then sides[f.name] = sides[f.name] and sides[f.name] ~= f.side and "both" or f.side end
      end
      cache[item] = sides
    end
    return sides[finding]
  end
end

local function labels_of(ds)
  local cache = {}
  return function(item, finding)
    if not cache[item] then
      cache[item] = {}
      for _, name in ipairs(ds:labels(item)) do cache[item][name] = true end
    end
    return cache[item][finding] == true
  end
end

--- @param run the run
-- @param model Med-UniC
-- @param tokenizer of unic.text
-- @param options `data`, `size` (stored), `crop` (seen), `channels`, `built_in`, `seed`, `prompts` (a file), `untrained` (a function that makes a model),
-- `split` (none: all rows)
return function(run, model, tokenizer, options)
  local split = options.split or "all"
  local opened, ds = pcall(data.open, options.data, { split = options.split, size = options.size })
  if not opened then
    -- A handful of rows may have none to spare.
    if options.built_in or not tostring(ds):find("belongs to split", 1, true) then error(ds, 0) end
    run:say("no row is held out (split '%s'): what follows is measured on the training rows", split)
    split, ds = "all", data.open(options.data, { size = options.size })
  end
  local view = { { "normalize", 0.5, 0.5 } }
  if options.crop ~= options.size then table.insert(view, 1, { "center_crop", options.crop }) end
  local function embed_images(m)
    return zeroshot.images(m, ds, { view = view, channels = options.channels, device = unic.device() })
  end
  local function embedder(m)
    return function(texts) return zeroshot.texts(m, tokenizer, texts, { device = unic.device() }) end
  end
  local prompts = zeroshot.prompts(options.prompts)
  local has = labels_of(ds)
  local images, order = embed_images(model)
  local n = images:size(1)
  local function item_of(row) return order[row] end
  local embed = embedder(model)
  local rows, result, predictions = {}, {}, {}

  local function note(metric, language, finding, value)
    rows[#rows + 1] = { split = split, metric = metric, language = language or "", finding = finding or "", value = value, n = n }
  end

  for _, language in ipairs(LANGUAGES) do
    for _, set in ipairs { "rich", "bare" } do
      local scores = zeroshot.scores(images, embed, prompts, set, language)
      local auc, each = zeroshot.auc(scores, function(row, finding) return has(item_of(row), finding) end)
      local name = set == "rich" and "zero_shot_auc" or "bare_auc"
      result[name .. "_" .. language] = auc
      local least = math.huge
      for finding, value in pairs(each) do
        note(name, language, finding, value)
        if value == value then least = math.min(least, value) end
      end
      if set == "rich" then
        result["min_auc_" .. language] = least < math.huge and least or 0 / 0
        for finding, list in pairs(scores) do
          for row = 1, n do
            predictions[#predictions + 1] = { item = item_of(row), language = language, finding = finding, score = list[row], label = has(item_of(row), finding) and 1 or 0 }
          end
        end
      end
      note(name, language, "macro", auc)
    end
  end

  -- Retrieval: item i's own report, in its own language; equal reports count as right.
  local reports = {}
  for row = 1, n do reports[row] = ds:report(item_of(row)) end
  local found = metrics.retrieval(images, embed(reports), { pool = 256, same = reports })
  result.retrieval_acc1, result.chance_acc1, result.median_rank = found.acc1, found.chance_acc1, found.median_rank
  for _, name in ipairs { "acc1", "chance_acc1", "median_rank" } do note("retrieval_" .. name, "", "", found[name]) end

  if options.built_in then
    local set = phantom.open { split = split, size = options.size }
    local side = sides_of(set)
    local function side_of(row, finding) return side(item_of(row), finding) end
    local total_side, total_swap = {}, {}
    for _, language in ipairs(LANGUAGES) do
      local mean, each = zeroshot.sides(images, embed, prompts, language, side_of)
      for finding, value in pairs(each) do note("side_auc", language, finding, value) end
      total_side[#total_side + 1] = mean
      total_swap[#total_swap + 1] = zeroshot.swaps(images, embed, prompts, language, side_of)
    end
    result.side_auc, result.swap_auc = metrics.mean(total_side), metrics.mean(total_swap)
    local en, es = {}, {}
    for i = 1, math.min(250, set.n) do en[i], es[i] = set:report(i, "en"), set:report(i, "es") end
    local a, b = embed(en), embed(es)
    local gap = metrics.language_gap(a, b)
    result.language_gap, result.separability = gap.gap, metrics.separability(a, b)
    note("language_gap", "", "", gap.gap)
    note("separability", "", "", result.separability)
    note("swap_auc", "", "", result.swap_auc)
    if options.untrained then
      local sums = { en = {}, es = {} }
      for k = 1, 5 do
        unic.manual_seed(1000 * options.seed + k)
        local fresh = options.untrained():to(unic.device())
        local untrained_images = embed_images(fresh)
        for _, language in ipairs(LANGUAGES) do
          local scores = zeroshot.scores(untrained_images, embedder(fresh), prompts, "rich", language)
          sums[language][k] = zeroshot.auc(scores, function(row, finding) return has(item_of(row), finding) end)
        end
      end
      for _, language in ipairs(LANGUAGES) do result["untrained_auc_" .. language] = metrics.mean(sums[language]) end
    end
  end

  table.sort(rows, function(x, y) return x.metric .. x.language .. x.finding < y.metric .. y.language .. y.finding end)
  run:eval(rows)
  run:predictions(predictions)
  run:skipped(ds:errors())
  local line = {}
  for _, name in ipairs { "zero_shot_auc_en", "zero_shot_auc_es", "bare_auc_en", "bare_auc_es", "min_auc_en", "min_auc_es", "side_auc", "swap_auc", "retrieval_acc1",
    "chance_acc1", "median_rank", "language_gap", "separability", "untrained_auc_en", "untrained_auc_es" } do
    line[#line + 1] = { name, result[name] or 0 / 0 }
  end
  line[#line + 1] = { "seconds", run.seconds and run:seconds() or 0 / 0 }
  line[#line + 1] = { "peak_mb", unic.memory().peak / 1e6 }
  line[#line + 1] = { "steps", run.step }
  run:result(line)
  return result
end
