--- How hard the built-in set's pictures are: macro AUC of a logistic regression on 16x16 pixel means, and of a supervised resnet_small.
--   ./unic spec/support/baselines.lua [split] [data seed] [steps]
-- prints the AUC of each finding and a last line `baselines key=value ...`.
local unic = require "unic"
local nn, optim, data, losses, metrics = unic.nn, unic.optim, unic.data, unic.losses, unic.metrics
local phantom = require "unic.datasets.phantom"
local resnet = require "unic.models.resnet"

local split, seed, steps = arg[1] or "test", tonumber(arg[2] or 0), tonumber(arg[3] or 900)
local train = data.open("phantom", { split = "train", seed = seed })
local held = data.open("phantom", { split = split, seed = seed })
unic.manual_seed(1)

local NORMALIZE = { "normalize", 0.5, 0.5 }
local GENTLE = { { "jitter", 3, 0.08, 0.06 }, { "gamma" }, { "noise" }, NORMALIZE }

local function batches(ds, steps_of_view, options)
  options.views, options.labels, options.channels = { x = steps_of_view }, phantom.findings, 1
  return data.batches(ds, options)
end

-- AUC per finding of a function from pictures to logits, on the held-out studies.
local function score(name, logits_of)
  local scores, truth = {}, {}
  for f in ipairs(phantom.findings) do scores[f], truth[f] = {}, {} end
  for batch in batches(held, { NORMALIZE }, { batch = 100, shuffle = false, drop_last = false }) do
    local logits, labels = unic.no_grad(function() return logits_of(batch.x) end):totable(), batch.labels:totable()
    for row = 1, #logits do
      for f in ipairs(phantom.findings) do
        scores[f][#scores[f] + 1], truth[f][#truth[f] + 1] = logits[row][f], labels[row][f]
      end
    end
  end
  local list = {}
  for f, finding in ipairs(phantom.findings) do
    list[f] = metrics.auc(scores[f], truth[f])
    print(("%s %s %.4f"):format(name, finding, list[f]))
  end
  return metrics.mean(list), truth
end

local function fit(logits_of, parameters, view, lr, decay)
  local adamw = optim.AdamW(parameters, { lr = lr, weight_decay = decay })
  local sched = optim.warmup_cosine(adamw, { steps = steps, warmup = 60, floor = 0.02 })
  local step = 0
  for batch in batches(train, view, { batch = 64, epochs = math.huge, seed = 1 }) do
    losses.bce_with_logits(logits_of(batch.x), batch.labels):backward()
    optim.clip_grad_norm(parameters, 5)
    adamw:step()
    adamw:zero_grad()
    sched:step()
    step = step + 1
    if step == steps then return end
  end
end

-- Means of 4x4 pixels of a 64x64 picture, standardised by the batch while training and by the running figures after it.
local pool, standard, linear = nn.AvgPool2d(4), nn.BatchNorm1d(256), nn.Linear(256, #phantom.findings)
local function from_means(x) return linear(standard(pool(x):flatten(2))) end
fit(from_means, linear:parameters(), { NORMALIZE }, 1e-2, 1e-3)
standard:eval()
local means, truth = score("pixel_means", from_means)

local net = resnet.resnet_small { channels = 1, classes = #phantom.findings }
fit(function(x) return (net(x)) end, net:parameters(), GENTLE, 1.5e-3, 0.05)
net:eval()
local supervised = score("supervised", function(x) return (net(x)) end)

local fewest, most = math.huge, 0
for f in ipairs(phantom.findings) do
  local count = 0
  for _, label in ipairs(truth[f]) do count = count + label end
  fewest, most = math.min(fewest, count), math.max(most, count)
end
print(("baselines pixel_means_auc=%.4f supervised_auc=%.4f lowest=%.4f highest=%.4f fewest=%d")
  :format(means, supervised, fewest / held.n, most / held.n, fewest))
