--- Metrics: ranking (AUC, average precision), classification (accuracy, F1, ...), retrieval, and how far apart two languages lie.
-- Scores and labels are plain Lua lists (or tensors, which are read once); labels are true/false or 1/0.
-- @module unic.metrics
local arguments = require "unic.arguments"
local core = require "unic.core"
local ops = core.ops.call

local metrics = {}
local NAN = 0 / 0

local TRUTH = { text = "true, false, 1 or 0", test = function(v) return type(v) == "boolean" or v == 1 or v == 0 end }

local function list(op, name, x, kind)
  if core.tensor.is_tensor(x) then return ops.reshape(x:detach(), { -1 }):totable() end
  return arguments.list("metrics." .. op, name, x, kind, "a list or a tensor")
end

local function truth(v) return v == true or v == 1 end

local function pair(op, scores, labels)
  scores, labels = list(op, "scores", scores, "number"), list(op, "labels", labels, TRUTH)
  if #scores ~= #labels then arguments.fail("metrics." .. op, "argument 'labels': %d were given for %d scores", #labels, #scores) end
  return scores, labels
end

local function check_embeddings(op, name, x)
  op = "metrics." .. op
  arguments.check(op, name, x, "tensor")
  if x:dim() ~= 2 then arguments.fail(op, "argument '%s': %d dimensions were given, expected 2: [N, D]", name, x:dim()) end
end

local function check_pair(op, a, b)
  check_embeddings(op, "a", a)
  check_embeddings(op, "b", b)
  if a:size(2) ~= b:size(2) then arguments.fail("metrics." .. op, "argument 'b': its rows have %d elements, those of 'a' %d", b:size(2), a:size(2)) end
end

-- Positions in descending order of score; equal scores keep their order, so that the result does not hang on the sort.
local function ranking(scores)
  local order = {}
  for i = 1, #scores do order[i] = i end
  table.sort(order, function(a, b)
    if scores[a] ~= scores[b] then return scores[a] > scores[b] end
    return a < b
  end)
  return order
end

--- Area under the ROC curve: the chance that a positive scores above a negative, ties counting half.
-- @param scores numbers
-- @param labels truths
-- @return a number; NaN when one class is absent or a score is NaN
function metrics.auc(scores, labels)
  scores, labels = pair("auc", scores, labels)
  local positives = 0
  for i = 1, #scores do
    if scores[i] ~= scores[i] then return NAN end
    if truth(labels[i]) then positives = positives + 1 end
  end
  local negatives = #scores - positives
  if positives == 0 or negatives == 0 then return NAN end
  local order, won, above, i = ranking(scores), 0, 0, 1   -- above: negatives ranked higher so far
  while i <= #order do
    local j, ties_pos, ties_neg = i, 0, 0
    while j <= #order and scores[order[j]] == scores[order[i]] do
      if truth(labels[order[j]]) then ties_pos = ties_pos + 1 else ties_neg = ties_neg + 1 end
      j = j + 1
    end
    won = won + ties_pos * (negatives - above - ties_neg) + 0.5 * ties_pos * ties_neg
    above = above + ties_neg
    i = j
  end
  return won / (positives * negatives)
end

--- Average precision: the mean, over positives, of the precision at their rank (equal scores are one rank).
-- @return a number; NaN without positives
function metrics.average_precision(scores, labels)
  scores, labels = pair("average_precision", scores, labels)
  local order, hits, sum, i = ranking(scores), 0, 0, 1
  while i <= #order do
    local j, new = i, 0
    while j <= #order and scores[order[j]] == scores[order[i]] do
      if truth(labels[order[j]]) then new = new + 1 end
      j = j + 1
    end
    hits = hits + new
    sum = sum + new * hits / (j - 1)   -- j - 1 rows stand at this rank or above
    i = j
  end
  return hits > 0 and sum / hits or NAN
end

--- Counts and rates at a threshold (score >= threshold is a yes).
-- @return {accuracy, precision, sensitivity, specificity, f1, tp, fp, tn, fn}; rates of nothing are NaN
function metrics.at(scores, labels, threshold)
  arguments.check("metrics.at", "threshold", threshold, "number")
  scores, labels = pair("at", scores, labels)
  local tp, fp, tn, fn = 0, 0, 0, 0
  for i = 1, #scores do
    if scores[i] >= threshold then
      if truth(labels[i]) then tp = tp + 1 else fp = fp + 1 end
    elseif truth(labels[i]) then fn = fn + 1 else tn = tn + 1 end
  end
  return {
    tp = tp, fp = fp, tn = tn, fn = fn, accuracy = (tp + tn) / #scores, precision = tp / (tp + fp), sensitivity = tp / (tp + fn),
    specificity = tn / (tn + fp), f1 = 2 * tp / (2 * tp + fp + fn),
  }
end

--- The threshold with the largest F1. Choose it on validation data, use it on others.
-- @return threshold, its F1
function metrics.best_threshold(scores, labels)
  scores, labels = pair("best_threshold", scores, labels)
  local order, positives, tp, best, at = ranking(scores), 0, 0, -1, NAN
  for i = 1, #labels do if truth(labels[i]) then positives = positives + 1 end end
  for i = 1, #order do
    if truth(labels[order[i]]) then tp = tp + 1 end
    if i == #order or scores[order[i + 1]] ~= scores[order[i]] then
      local f1 = 2 * tp / (i + positives)
      if f1 > best then best, at = f1, scores[order[i]] end
    end
  end
  return at, best
end

--- The share of rows whose largest score stands at the label (labels count from 0).
function metrics.accuracy(logits, target)
  arguments.check("metrics.accuracy", "logits", logits, "tensor")
  local found, wanted = list("accuracy", "logits", ops.argmax(logits, -1)), list("accuracy", "target", target, "integer")
  if #found ~= #wanted then arguments.fail("metrics.accuracy", "argument 'target': %d labels were given for %d rows", #wanted, #found) end
  local right = 0
  for i = 1, #wanted do if found[i] == wanted[i] then right = right + 1 end end
  return right / #wanted
end

--- The mean of the numbers that are not NaN; NaN of none.
function metrics.mean(values)
  arguments.list("metrics.mean", "values", values, "number", "a table of numbers")
  local sum, n = 0, 0
  for _, v in pairs(values) do
    if v == v then sum, n = sum + v, n + 1 end
  end
  return n > 0 and sum / n or NAN
end

--- The median; sorts the list it is given.
-- @param values a list of numbers
-- @return a number; NaN of none
function metrics.median(values)
  arguments.list("metrics.median", "values", values, "number", "a list of numbers")
  table.sort(values)
  local n = #values
  if n == 0 then return NAN end
  return n % 2 == 1 and values[(n + 1) / 2] or 0.5 * (values[n / 2] + values[n / 2 + 1])
end

--- Retrieval in both directions within fixed pools: row i of one belongs to row i of the other.
-- @param a embeddings [N,D]
-- @param b embeddings [N,D]
-- @param options `pool` (256; the last one may be smaller and is left out when there is another), `same` (a list of keys: rows with equal keys
-- count as right, as equal reports do)
-- @return {acc1, acc5, median_rank, chance_acc1}, means over both directions; chance: the expectation under a random ranking
function metrics.retrieval(a, b, options)
  options = arguments.options("metrics.retrieval", options, { pool = { "integer", least = 1 }, same = "table" })
  check_pair("retrieval", a, b)
  if a:size(1) ~= b:size(1) then arguments.fail("metrics.retrieval", "argument 'b': %d rows were given for %d of 'a'", b:size(1), a:size(1)) end
  if options.same and #options.same ~= a:size(1) then
    arguments.fail("metrics.retrieval", "option 'same': %d keys were given for %d rows", #options.same, a:size(1))
  end
  local n, pool, keys = a:size(1), math.min(options.pool or 256, a:size(1)), options.same
  local ranks, hit1, hit5, chance, queries = {}, 0, 0, 0, 0
  for first = 1, n - pool + 1, pool do
    local x = ops.l2_normalize(ops.narrow(a, 1, first, pool))
    local y = ops.l2_normalize(ops.narrow(b, 1, first, pool))
    local s = ops.matmul(x, ops.transpose(y, 1, 2)):totable()
    for q = 1, pool do
      local equal = { [q] = true }
      local count = 1
      if keys then
        for j = 1, pool do
          if j ~= q and keys[first + j - 1] == keys[first + q - 1] then equal[j], count = true, count + 1 end
        end
      end
      for direction = 1, 2 do
        local function score(j) return direction == 1 and s[q][j] or s[j][q] end
        local best = -math.huge
        for j in pairs(equal) do best = math.max(best, score(j)) end
        local rank = 1
        for j = 1, pool do if not equal[j] and score(j) >= best then rank = rank + 1 end end
        ranks[#ranks + 1] = rank
        if rank == 1 then hit1 = hit1 + 1 end
        if rank <= 5 then hit5 = hit5 + 1 end
        chance = chance + count / pool
        queries = queries + 1
      end
    end
  end
  return { acc1 = hit1 / queries, acc5 = hit5 / queries, median_rank = metrics.median(ranks), chance_acc1 = chance / queries }
end

--- How far apart two languages lie: cosine means within and across them.
-- @param a embeddings of language A [N,D]
-- @param b embeddings of language B [M,D]
-- @return {within_a, within_b, across, gap}; gap = (within_a + within_b) / 2 - across. Within leaves out a row against itself.
function metrics.language_gap(a, b)
  check_pair("language_gap", a, b)
  local x, y = ops.l2_normalize(a), ops.l2_normalize(b)
  local function within(z)
    local n = z:size(1)
    return (ops.sum(ops.matmul(z, ops.transpose(z, 1, 2))):item() - n) / (n * (n - 1))
  end
  local wa, wb = within(x), within(y)
  local across = ops.mean(ops.matmul(x, ops.transpose(y, 1, 2))):item()
  return { within_a = wa, within_b = wb, across = across, gap = 0.5 * (wa + wb) - across }
end

--- Accuracy of a linear probe that tells two sets apart: logistic regression on every other row, tested on the rest. 0.5 = inseparable.
-- @param a embeddings of one set [N,D]
-- @param b embeddings of the other [M,D]
-- @return a number
function metrics.separability(a, b)
  check_pair("separability", a, b)
  local x = ops.cat({ a:detach(), b:detach() }, 1)
  local mean = ops.mean(x, { 1 }, true)
  local std = ops.sqrt(ops.add(ops.var(x, { 1 }, true), 1e-8))
  x = ops.div(ops.sub(x, mean), std)
  local rows, d = x:totable(), x:size(2)
  local n, labels = a:size(1), {}
  for i = 1, #rows do labels[i] = i <= n and 1 or 0 end
  local w, bias, rate, decay = {}, 0, 0.5, 1e-3
  for j = 1, d do w[j] = 0 end
  local function score(row)
    local z = bias
    for j = 1, d do z = z + w[j] * row[j] end
    return z
  end
  for _ = 1, 100 do
    local g, gb, m = {}, 0, 0
    for j = 1, d do g[j] = decay * w[j] end
    for i = 1, #rows, 2 do
      m = m + 1
      local e = 1 / (1 + math.exp(-score(rows[i]))) - labels[i]
      gb = gb + e
      for j = 1, d do g[j] = g[j] + e * rows[i][j] * 2 / #rows end
    end
    bias = bias - rate * gb / m
    for j = 1, d do w[j] = w[j] - rate * g[j] end
  end
  local right, all = 0, 0
  for i = 2, #rows, 2 do
    all = all + 1
    if (score(rows[i]) > 0) == (labels[i] == 1) then right = right + 1 end
  end
  return right / all
end

return metrics
