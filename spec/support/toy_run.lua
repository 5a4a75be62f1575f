-- A small training that is started, cut and continued by spec/lua/run_spec.lua: dropout, noise, momentum and an average make it notice every
-- number that a checkpoint would forget.
local unic = require "unic"
local nn, optim = unic.nn, unic.optim

local opt = unic.options {
  usage = "A toy.",
  { "steps", 20, "optimiser steps" },
  { "batch", 8, "rows in a batch" },
  { "lr", 0.01, "learning rate" },
  { "slow", 0, "seconds that a step sleeps" },
  { "pictures", false, "train on a data set, read by workers" },
  { "ballast", 0, "MB that a checkpoint carries besides, so that its write takes a while" },
}
local run = unic.run("toy", opt)
the_run = run   -- luacheck: ignore

local model = nn.Linear(opt.pictures and 64 or 6, 3)
local adamw = optim.AdamW(model:groups { lr = opt.lr, weight_decay = 0.1 })
local sched = optim.warmup_cosine(adamw, { steps = run:steps() })
local ema = optim.EMA(model, 0.9)
run:attach {
  model = model, optimizers = { adamw = adamw }, schedules = { sched = sched }, ema = ema,
  tensors = opt.ballast > 0 and { ballast = unic.zeros(opt.ballast * 1e6 / 4) } or nil,
}

-- Five batches an epoch, other ones in each.
local function data(epoch)
  local rng, i = unic.new_generator(100 + epoch), 0
  return function()
    i = i + 1
    if i <= 5 then return { x = unic.randn(opt.batch, 6, { rng = rng }), y = unic.randint(0, 3, { opt.batch }, { rng = rng }) } end
  end
end

-- Twenty pictures of noise, five batches of four an epoch, cut and turned at random.
local function pictures()
  local rng, rows = unic.new_generator(7), {}
  for i = 1, 20 do
    rows[i] = { image = unic.cast(unic.randint(0, 256, { 16, 16 }, { rng = rng, dtype = "i32" }), "u8"), report = "row " .. i, language = i % 3 == 0 and "es" or "en" }
  end
  return run:data("train", require("unic.data").open(rows, { size = 16 }))
end

local source, views = data, nil
if opt.pictures then
  source = pictures()
  views = { batch = 4, channels = 1, views = { x = { { "random_crop", 8 }, { "rotate", 0, 90 }, { "normalize", 0.5, 0.5 } } } }
end

local micro = 0
for batch, step in run:batches(source, views) do
  micro = micro + 1
  -- stop_at 5 stops before step 5 moves the weights, 5.5 inside a group of several batches.
  if stop_at and step >= math.floor(stop_at) and (stop_at % 1 == 0 or micro % opt.accumulate == 2) then error "killed here" end   -- luacheck: ignore
  local clean = batch.x:flatten(2)
  local x = unic.dropout(clean, { p = 0.2 }) + unic.randn_like(clean) * 0.1
  local loss = run:autocast(function() return { ce = unic.cross_entropy(model(x), batch.y or batch.language) } end)
  if run:backward(loss.ce) then
    local norm = optim.clip_grad_norm(model:parameters(), 1)
    adamw:step()
    sched:step()
    ema:update()
    run:log(loss, { grad_norm = norm })
  end
  if opt.slow > 0 then require("posix.time").nanosleep { tv_sec = 0, tv_nsec = opt.slow * 1e9 } end
end
run:result { { "steps", run.step }, { "loss", run.last_loss }, { "absent" } }
