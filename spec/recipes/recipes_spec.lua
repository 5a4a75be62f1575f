local unic = require "unic"
local testing = require "unic.testing"
local lfs = require "lfs"

local function temporary()
  local path = os.tmpname()
  os.remove(path)
  return path
end

-- A folder with a data.csv and grey pictures of 16 x 16; the language of one row may be none.
local function small_set(rows, bad)
  local own = temporary()
  assert(lfs.mkdir(own))
  local csv = assert(io.open(own .. "/data.csv", "w"))
  csv:write "image,report,language,patient,split\n"
  for i = 1, rows do
    local wrong = i == bad and "xx1" or nil
    csv:write(("%d.png,%s,%s,p%d,%s\n"):format(i, i % 2 == 0 and "No pleural effusion." or "Sin derrame pleural.",
      wrong or i % 2 == 0 and "en" or "es", i, i > 0.75 * rows and "test" or "train"))
    unic.files.write_png(("%s/%d.png"):format(own, i), unic.full({ 16, 16 }, 5 * i, { dtype = "u8" }))
  end
  csv:close()
  return own
end

describe("recipes/pretrain_medunic.lua", function()
  local dir = temporary()
  local shared = { steps = 24, studies = 64, batch = 8, lr = 3e-3, seed = 3, log_every = 1, run = dir }
  local root = unic.root

  it("trains, evaluates and ends with its result line", function()
    local out = testing.recipe(root .. "recipes/pretrain_medunic.lua", shared)
    for _, key in ipairs { "zero_shot_auc_en", "zero_shot_auc_es", "bare_auc_en", "side_auc", "retrieval_acc1", "language_gap", "untrained_auc_en" } do
      local v = out.result[key]
      assert.is_true(type(v) == "number" and v == v, key .. " is " .. tostring(v))
    end
    assert.equal(24, out.result.steps)
    assert.is_true(out.result.untrained_auc_en > 0.4 and out.result.untrained_auc_en < 0.6)
    for _, name in ipairs { "run.lua", "manifest.json", "metrics.csv", "eval.csv", "vocab.txt", "predictions.csv", "checkpoints/last.safetensors" } do
      assert.is_truthy(lfs.attributes(dir .. "/" .. name), name)
    end
    local metrics = unic.files.read_csv(dir .. "/metrics.csv")
    assert.equal(24, metrics:rows())
    local function mean(first)   -- single batches of 8 are too noisy to compare
      local sum = 0
      for row = first, first + 5 do sum = sum + tonumber(metrics:get(row, "cvl")) end
      return sum / 6
    end
    assert.is_true(mean(19) < mean(1), ("CVL %.3f at first, %.3f at the end"):format(mean(1), mean(19)))
  end)
  it("is asked again by zeroshot.lua, with the same answers", function()
    local was = io.open(dir .. "/predictions.csv"):read "*a"
    local out = testing.recipe(root .. "recipes/zeroshot.lua", { run = dir })
    assert.is_true(out.result.zero_shot_auc_en == out.result.zero_shot_auc_en)
    assert.equal(was, io.open(dir .. "/predictions.csv"):read "*a")
  end)
  it("gives embeddings through embed.lua", function()
    local path = temporary() .. ".safetensors"
    testing.recipe(root .. "recipes/embed.lua", { run = dir, out = path })
    local file = unic.files.safetensors_open(path)
    assert.same({ 500, 128 }, file:tensor("image").shape)
    assert.same({ 500, 128 }, file:tensor("text").shape)
    file:close()
    os.remove(path)
  end)
  it("leaves out bad rows of one's own data, counts and lists them; --strict stops at the first", function()
    local own = small_set(24, 5)
    unic.files.write_file(own .. "/7.png", "no picture")
    local options = { data = own, steps = 4, batch = 4, size = 16, run = own .. "/run" }
    local out = testing.recipe(root .. "recipes/pretrain_medunic.lua", options)
    assert.equal(4, out.result.steps)
    -- What it is asked at the end is the part that it has not seen: 6 rows of 24.
    local eval = unic.files.read_csv(own .. "/run/eval.csv")
    assert.is_true(eval:rows() > 3)
    for r = 1, eval:rows() do
      assert.equal("test", eval:get(r, "split"))
      assert.equal("6", eval:get(r, "n"))
    end
    local skipped = unic.files.read_csv(own .. "/run/skipped.csv")
    assert.same({ "row", "path", "reason" }, skipped:columns())
    local rows = {}
    for r = 1, skipped:rows() do rows[skipped:get(r, "row")] = skipped:get(r, "path") .. ": " .. skipped:get(r, "reason") end
    assert.equal(2, skipped:rows())
    assert.equal("5.png: language 'xx1', expected two letters such as en or es", rows["6"])
    assert.is_truthy(rows["8"]:find("7.png: is not a picture that can be read", 1, true))
    local log = io.open(own .. "/run/log.txt"):read "*a"
    assert.is_truthy(log:find("2 rows were left out, listed in " .. own .. "/run/skipped.csv", 1, true))
    options.strict, options.run = true, own .. "/strict"
    assert.raises_at(nil, "data%.csv' row 6 %('5%.png'%): language 'xx1', expected two letters", function()
      testing.recipe(root .. "recipes/pretrain_medunic.lua", options)
    end)
    require("spec.support.files").remove(own)
  end)
  it("trains with every optimizer, and a run goes on with its own", function()
    local own = small_set(24)
    local base = { data = own, size = 16, steps = 2, batch = 4, seed = 3, log_every = 1, lr = 1e-3 }
    local losses = {}
    local function run(name, more)
      local options = { optimizer = name }
      for _, from in ipairs { base, more or {} } do
        for key, value in pairs(from) do options[key] = value end
      end
      options.run = options.run or temporary()
      testing.recipe(root .. "recipes/pretrain_medunic.lua", options)
      local metrics = unic.files.read_csv(options.run .. "/metrics.csv")
      local column = {}
      for row = 1, metrics:rows() do column[row] = metrics:get(row, "loss") end
      return column, options.run
    end
    for _, name in ipairs { "adamw", "sgd", "lars", "bertadam" } do
      local column, folder = run(name)
      assert.equal(2, #column)
      losses[name] = column
      for _, text in ipairs(column) do assert.is_true(tonumber(text) > 0 and tonumber(text) < 100, name .. ": " .. text) end
      require("spec.support.files").remove(folder)
    end
    -- The first loss comes before any step. Each then goes its own way.
    for _, name in ipairs { "sgd", "lars", "bertadam" } do
      assert.equal(losses.adamw[1], losses[name][1])
      assert.are_not.equal(losses.adamw[2], losses[name][2])
    end
    -- Cut in its second step, and taken up again after the first: the same losses, the same weights and state of the optimizer.
    local _, whole = run("bertadam", { save_every = 1 })
    local optim, cut, steps = require "unic.optim", temporary(), 0
    local clip = optim.clip_grad_norm
    optim.clip_grad_norm = function(...)
      steps = steps + 1
      if steps == 2 then error("the power is gone", 0) end
      return clip(...)
    end
    local ok, why = pcall(run, "bertadam", { save_every = 1, run = cut })
    optim.clip_grad_norm = clip
    assert.is_false(ok)
    assert.is_truthy(tostring(why):find "the power is gone")
    testing.recipe(root .. "recipes/pretrain_medunic.lua", { resume = cut })
    local a, b = unic.files.safetensors_open(whole .. "/checkpoints/last.safetensors"), unic.files.safetensors_open(cut .. "/checkpoints/last.safetensors")
    local names, states = a:names(), 0
    assert.same(names, b:names())
    for _, name in ipairs(names) do
      if name:find "^optim%..*%.exp_avg_sq$" then states = states + 1 end
      assert.same_bits(a:tensor(name), b:tensor(name))
    end
    assert.is_true(states > 40)
    a:close()
    b:close()
    for _, folder in ipairs { own, whole, cut } do require("spec.support.files").remove(folder) end
  end)
  it("starts the vision encoder from a file of weights, and goes on without it", function()
    local own, folder = small_set(24), temporary()
    local path, theirs = own .. "/vision.safetensors", {}
    for name, t in pairs(require("unic.models.resnet").resnet_small {}:state_dict()) do theirs["module." .. name] = t end
    theirs["module.fc.bias"] = unic.ones(3)
    unic.files.safetensors_save(path, theirs)
    testing.recipe(root .. "recipes/pretrain_medunic.lua", { data = own, size = 16, steps = 1, batch = 4, seed = 3, lr = 0, vision_init = path, run = folder })
    local saved = unic.files.safetensors_open(folder .. "/checkpoints/last.safetensors")
    for _, name in ipairs { "conv1.weight", "layer4.0.bn2.bias" } do
      assert.same_bits(theirs["module." .. name]:detach(), saved:tensor("model.image_encoder." .. name))
    end
    saved:close()
    os.remove(path)
    testing.recipe(root .. "recipes/pretrain_medunic.lua", { resume = folder })
    for _, each in ipairs { own, folder } do require("spec.support.files").remove(each) end
  end)
  it("refuses an option that is none, with the nearest", function()
    local ok, why = pcall(testing.recipe, root .. "recipes/pretrain_medunic.lua", { ["vison"] = "resnet50", run = temporary() })
    assert.is_false(ok)
    assert.is_truthy(tostring(why):find "vision")
  end)
end)
