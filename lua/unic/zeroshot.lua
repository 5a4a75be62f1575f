--- Zero-shot classification and retrieval with a trained Med-UniC model: embeddings of sets and prompts, and the scores of the result line.
-- @module unic.zeroshot
local unic = require "unic"
local arguments = require "unic.arguments"
local core = require "unic.core"
local data = require "unic.data"
local files = require "unic.files"
local metrics = require "unic.metrics"

local ops = core.ops.call
local zeroshot = {}

-- Kinds of arguments.
local MODEL = { text = "a model", test = function(m) return type(m) == "table" and m.eval ~= nil and m.train ~= nil end }
local TOKENIZER = { text = "a tokenizer of unic.text", test = function(t) return type(t) == "table" and t.batch ~= nil and t.handle ~= nil end }
local SIZE = { "integer", least = 1 }

--- Prompts from a CSV file with the columns set, finding, language, polarity, text.
-- @param path a file
-- @return a list of {set =, finding =, language =, polarity =, text =}
function zeroshot.prompts(path)
  local csv = files.read_csv(path, { strict = true })
  local list = {}
  for _, name in ipairs { "set", "finding", "language", "polarity", "text" } do
    if not csv:has(name) then core.fail(("[zeroshot.prompts] %s: it has no column '%s'"):format(path, name)) end
  end
  for row = 1, csv:rows() do
    list[row] = {
      set = csv:get(row, "set"), finding = csv:get(row, "finding"), language = csv:get(row, "language"), polarity = csv:get(row, "polarity"),
      text = csv:get(row, "text"),
    }
  end
  return list
end

-- Evaluation mode without gradients, and back.
local function quietly(model, fn)
  local training = model.training
  model:eval()
  local out = { pcall(unic.no_grad, fn) }
  model:train(training)
  if not out[1] then error(out[2], 0) end
  return unpack(out, 2)
end

--- Image embeddings of a whole set in the joint space, normalised.
-- @param model Med-UniC
-- @param ds a data set
-- @param options `view` (the steps), `channels`, `batch` (64), `device`, `workers`
-- @return [n, dim]
function zeroshot.images(model, ds, options)
  arguments.check("zeroshot.images", "model", model, MODEL)
  options = arguments.options("zeroshot.images", options, { view = "table", channels = SIZE, batch = SIZE, device = "string", workers = "integer" })
  return quietly(model, function()
    local parts, order = {}, {}
    for batch in data.batches(ds, {
      batch = options.batch or 64, views = { image = options.view or { { "normalize", 0.5, 0.5 } } }, channels = options.channels, shuffle = false, drop_last = false,
      device = options.device, workers = options.workers,
    }) do
      parts[#parts + 1] = ops.l2_normalize(model:image(batch.image)):keep()
      for _, item in ipairs(batch.index:totable()) do order[#order + 1] = item + 1 end
    end
    return ops.cat(parts, 1), order
  end)
end

--- Text embeddings in the joint space, normalised.
-- @param model Med-UniC
-- @param tokenizer of unic.text
-- @param texts a list of strings
-- @param options `batch` (64), `device`, `max_length` (256), `space` ("joint", or "encoder": before projection)
-- @return [n, dim]
function zeroshot.texts(model, tokenizer, texts, options)
  arguments.check("zeroshot.texts", "model", model, MODEL)
  arguments.check("zeroshot.texts", "tokenizer", tokenizer, TOKENIZER)
  arguments.list("zeroshot.texts", "texts", texts, "string", "a list of strings")
  if #texts == 0 then arguments.fail("zeroshot.texts", "argument 'texts': is empty, expected at least one string") end
  options = arguments.options("zeroshot.texts", options, { batch = SIZE, device = "string", max_length = SIZE, space = { "choice", "joint", "encoder" } })
  return quietly(model, function()
    local parts, size = {}, options.batch or 64
    for first = 1, #texts, size do
      local some = {}
      for i = first, math.min(first + size - 1, #texts) do some[#some + 1] = texts[i] end
      local ids, mask = tokenizer:batch(some, { max_length = options.max_length or 256, multiple = 8 })
      if options.device and ids.device ~= options.device then ids, mask = ids:to(options.device), mask:to(options.device) end
      local h = model:encode_text(ids, mask)
      if options.space ~= "encoder" then h = model:project_text(h) end
      parts[#parts + 1] = ops.l2_normalize(h)
    end
    return ops.cat(parts, 1)
  end)
end

-- The mean of a finding's prompts of one polarity; nil when there are none.
local function centre(embed, prompts, set, finding, language, polarity)
  local texts = {}
  for _, p in ipairs(prompts) do
    if p.set == set and p.finding == finding and p.language == language and p.polarity == polarity then texts[#texts + 1] = p.text end
  end
  if #texts == 0 then return nil end
  return ops.mean(embed(texts), { 1 })
end

local function contrast(images, a, b)
  local d = ops.sub(a, b)
  return ops.reshape(ops.matmul(images, ops.reshape(d, { -1, 1 })), { -1 }):totable()
end

local function check_prompts(op, images, embed, prompts)
  arguments.check(op, "images", images, "tensor")
  arguments.check(op, "embed", embed, "callable")
  arguments.list(op, "prompts", prompts, "table", "what zeroshot.prompts gave")
end

--- Scores of every finding: mean similarity to its positive prompts minus mean similarity to its negated prompts.
-- @param images normalised embeddings [n, dim]
-- @param embed a function: list of texts -> normalised embeddings
-- @param prompts of zeroshot.prompts
-- @param set "rich", "bare" or another set of the file
-- @param language "en" or "es"
-- @return a table finding -> list of n scores, and the findings in order
function zeroshot.scores(images, embed, prompts, set, language)
  check_prompts("zeroshot.scores", images, embed, prompts)
  local scores, order = {}, {}
  for _, p in ipairs(prompts) do
    if p.set == set and p.language == language and not scores[p.finding] then
      local yes = centre(embed, prompts, set, p.finding, language, "positive")
      local no = centre(embed, prompts, set, p.finding, language, "negative")
      if yes and no then
        scores[p.finding] = contrast(images, yes, no)
        order[#order + 1] = p.finding
      end
    end
  end
  return scores, order
end

--- AUC of every finding, and their mean.
-- @param scores a table finding -> list
-- @param has a function (item, finding) -> truth
-- @return macro AUC, a table finding -> AUC
function zeroshot.auc(scores, has)
  arguments.check("zeroshot.auc", "scores", scores, "table")
  arguments.check("zeroshot.auc", "has", has, "callable")
  local each = {}
  for finding, list in pairs(scores) do
    local labels = {}
    for i = 1, #list do labels[i] = has(i, finding) end
    each[finding] = metrics.auc(list, labels)
  end
  return metrics.mean(each), each
end

--- Telling left from right: for each finding with side prompts, the AUC of (left - right) on the items that have it on one side only.
-- @param images normalised embeddings
-- @param embed a function: list of texts -> normalised embeddings
-- @param prompts of zeroshot.prompts
-- @param language "en" or "es"
-- @param side a function (item, finding) -> "left", "right" or nil
-- @return mean AUC, a table finding -> AUC
function zeroshot.sides(images, embed, prompts, language, side)
  check_prompts("zeroshot.sides", images, embed, prompts)
  arguments.check("zeroshot.sides", "side", side, "callable")
  local each = {}
  for _, p in ipairs(prompts) do
    if p.set == "side" and p.language == language and each[p.finding] == nil then
      local left = centre(embed, prompts, "side", p.finding, language, "left")
      local right = centre(embed, prompts, "side", p.finding, language, "right")
      if left and right then
        local all, scores, labels = contrast(images, left, right), {}, {}
        for i = 1, #all do
          local where = side(i, p.finding)
          if where == "left" or where == "right" then
            scores[#scores + 1] = all[i]
            labels[#labels + 1] = where == "left"
          end
        end
        each[p.finding] = metrics.auc(scores, labels)
      end
    end
  end
  return metrics.mean(each), each
end

--- Telling "left X and right Y" from "right X and left Y", on the items that have both findings on opposite sides.
-- @return mean AUC over pairs of findings (NaN when no item has such a pair)
function zeroshot.swaps(images, embed, prompts, language, side)
  local each = {}
  for _, p in ipairs(prompts) do
    if p.set == "swap" and p.language == language and each[p.finding] == nil then
      local one, two = p.finding:match "^(.-)|(.+)$"
      local a = one and centre(embed, prompts, "swap", p.finding, language, "left|right")
      local b = one and centre(embed, prompts, "swap", p.finding, language, "right|left")
      if a and b then
        local all, scores, labels = contrast(images, a, b), {}, {}
        for i = 1, #all do
          local x, y = side(i, one), side(i, two)
          if (x == "left" and y == "right") or (x == "right" and y == "left") then
            scores[#scores + 1] = all[i]
            labels[#labels + 1] = x == "left"
          end
        end
        each[p.finding] = metrics.auc(scores, labels)
      end
    end
  end
  return metrics.mean(each)
end

return zeroshot
