-- unic.summary: counts that are known of known networks, bytes that are really kept, and nothing changed by it.
local unic = require "unic"
local nn = require "unic.nn"
local bert, resnet, vit, Medunic = require "models.bert", require "models.resnet", require "models.vit", require "models.medunic"

local QUIET = { print = false }

local function by_name(rows)
  local named = {}
  for _, row in ipairs(rows) do named[row.name] = row end
  return named
end

-- Bytes that a forward in training keeps while only its (small) result is held.
local function kept(model, shape)
  model(unic.randn(shape))   -- packed weights and plans are there from here on
  collectgarbage()
  collectgarbage()
  local before = unic.memory(unic.device()).active
  local result = model(unic.randn(shape)):sum()
  collectgarbage()
  collectgarbage()
  return unic.memory(unic.device()).active - before, result
end

describe("unic.summary", function()
  it("counts ResNet-50: 25,557,032 parameters, 4.09 GMAC", function()
    local active = unic.memory("cpu").active
    local model = resnet.resnet50 { classes = 1000 }
    local rows = unic.summary(model, { 1, 3, 224, 224 }, QUIET)
    assert.equal(25557032, rows.total.params)
    assert.equal(4 * 25557032, rows.total.param_bytes)
    assert.equal(25557032, rows.total.trainable)
    assert.equal(4089184256, rows.total.flops / 2)
    local named = by_name(rows)
    assert.same({ 1, 2048, 7, 7 }, named["layer4.2"].shape)
    assert.equal(2 * 112 * 112 * 64 * 3 * 49, named.conv1.flops)
    assert.equal(4 * 112 * 112 * 64, named.conv1.bytes)
    assert.equal(4 * 224 * 224 * 3, named.conv1.saved)
    assert.equal(2049000, named.fc.params)
    local sum = 0
    for _, row in ipairs(rows) do sum = sum + row.own_flops end
    assert.equal(rows.total.flops, sum)
    assert.equal(named.layer1.flops, named["layer1.0"].flops + named["layer1.1"].flops + named["layer1.2"].flops)
    local ten = unic.summary(model, { 10, 3, 224, 224 }, QUIET)
    assert.equal(10 * rows.total.flops, ten.total.flops)
    -- The weights, and next to nothing more: no picture, no map was ever allocated.
    assert.is_true(unic.memory("cpu").active - active < 4 * 25.7e6)
  end)

  it("counts ViT-B/16 with a head for 1000 classes, BERT base and Med-UniC", function()
    local rows = unic.summary(nn.Sequential(vit.vit_b16(), nn.Linear(768, 1000)), { 2, 3, 224, 224 }, QUIET)
    assert.equal(86567656, rows.total.params)
    assert.is_true(math.abs(rows.total.flops / 2 / 2 - 17.56e9) < 0.02e9)
    assert.same({ 2, 1000 }, rows[1].shape)
    local tokens, width, hidden, depth = 8 * 128, 768, 3072, 12
    rows = unic.summary(bert.bert_base { vocab = 30522 }, { 8, 128, dtype = "i64" }, QUIET)
    assert.equal(108891648, rows.total.params)   -- Hugging Face's BertModel without its pooler
    -- Four projections, two products per head, two layers of the perceptron.
    assert.equal(depth * 2 * tokens * (4 * width * width + 2 * 128 * width + 2 * width * hidden), rows.total.flops)
    assert.same({ 8, 128, 768 }, rows[1].shape)
    local medunic = Medunic { vision = "resnet_small", text = "bert_small", vocab = 50, channels = 1, size = 64, dim = 32, ctr_dim = 32, hidden = 64 }
    rows = unic.summary(medunic, { 4, 1, 64, 64 }, { 4, 16, dtype = "i64" }, { print = false, call = function(m, x, ids) return m:image(x), m:text(ids) end })
    local named = by_name(rows)
    assert.equal(medunic:count(), rows.total.params)
    assert.same({ 4, 32 }, named.proj_l.shape)
    assert.is_true(named.text_encoder.flops > 0 and named.image_encoder.flops > 0)
    assert.equal(0, named.proj_d.calls)
    assert.equal(rows.total.flops, named.text_encoder.flops + named.image_encoder.flops + named.proj_v.flops + named.proj_l.flops)
  end)

  for name, case in pairs {
    perceptron = { function() return nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 64)) end, { 16, 64 } },
    dropout = { function() return nn.Sequential(nn.Linear(64, 128), nn.GELU(), nn.Dropout(.1), nn.Linear(128, 64), nn.LayerNorm(64)) end, { 16, 64 } },
    resnet = { resnet.resnet_small, { 4, 1, 64, 64 } },
    vit = { vit.vit_small, { 2, 1, 64, 64 } },
    checkpointed = { function()
      local Piece = nn.class "Piece"
      function Piece:init() self.block = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 64)) end
      function Piece:forward(x) return unic.checkpoint(self.block, x) end
      return nn.Sequential(nn.Linear(64, 64), Piece(), Piece())
    end, { 16, 64 } },
    ["resnet, low memory"] = { resnet.resnet_small, { 4, 1, 64, 64 }, unic.low_memory },
    ["vit, low memory"] = { vit.vit_small, { 2, 1, 64, 64 }, unic.low_memory },
  } do
    it("says how many bytes are kept for the backward: " .. name, function()
      -- It is counted on meta, whose masks of a batch norm have the form that they have in the CPU's blocked layout.
      if unic.device() ~= "cpu" and name:find "resnet" then return end
      local model = case[1]()
      local run = case[3] or function(fn, ...) return fn(...) end
      local said = run(unic.summary, model, case[2], QUIET).total.saved
      local active, result = run(kept, model, case[2])
      -- Every block takes whole lines of 64 bytes; the result has one. Nothing else.
      assert.is_true(active >= said and active < said + 4096 and active < 1.02 * said, ("said %d, kept %d"):format(said, active))
      result:backward()
    end)
  end

  it("leaves model, mode, statistics and generator as they are", function()
    local model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5), nn.ReLU())
    local was, tensors = model:state_dict(), {}
    for key, t in pairs(was) do tensors[key] = t:clone() end
    unic.manual_seed(7)
    local drawn = unic.randn(4)
    unic.manual_seed(7)
    local rows = unic.summary(model, { 2, 1, 8, 8 }, QUIET)
    assert.same_bits(drawn, unic.randn(4))
    for key, t in pairs(model:state_dict()) do
      assert.equal(unic.device(), t.device, key)
      assert.same_bits(tensors[key], t)
    end
    assert.is_true(model.training)
    assert.is_truthy(by_name(rows)["1"])
    -- In evaluation nothing is dropped and the statistics are read: less is kept.
    local evaluated = unic.summary(model:eval(), { 2, 1, 8, 8 }, QUIET)
    assert.is_true(evaluated.total.saved <= rows.total.saved)
    assert.is_false(model.training)
    -- The hooks are gone, after an error too.
    assert.raises_at(nil, "%[conv2d%]", function() unic.summary(model, { 2, 3, 8, 8 }, QUIET) end)
    assert.equal(unic.device(), model(unic.randn(1, 1, 8, 8)).device)
    local first, again = unic.summary(model, { 2, 1, 8, 8 }, QUIET), unic.summary(model, { 2, 1, 8, 8 }, QUIET)
    assert.equal(1, first[1].calls)
    assert.equal(1, again[1].calls)
    assert.equal(first.text, again.text)
  end)

  it("counts a shared parameter once and a frozen one apart", function()
    local model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 2))
    model[2].weight = model[1].weight
    model[3].weight.requires_grad = false
    local total = unic.summary(model, { 3, 4 }, QUIET).total
    assert.equal(16 + 4 + 4 + 8 + 2, total.params)
    assert.equal(total.params - 8, total.trainable)
  end)

  it("follows the dtype of the inputs and autocast", function()
    local model = nn.Sequential(nn.Linear(64, 64), nn.ReLU())
    local full = unic.summary(model, { 8, 64 }, QUIET)
    local low
    unic.autocast("bf16", function() low = unic.summary(model, { 8, 64 }, QUIET) end)
    assert.equal(full.total.flops, low.total.flops)
    assert.equal(full.total.bytes / 2 + 2 * 8 * 64, low.total.bytes)   -- halves, and the input in bf16
    assert.equal(full.total.saved / 2, low.total.saved)                -- the same; the weight is what it was
    local given = unic.summary(model, unic.randn(8, 64), QUIET)
    assert.equal(full.text, given.text)
    assert.equal(160, unic.summary(nn.Linear(4, 4):to "f64", { 2, 4 }, QUIET).total.param_bytes)
  end)

  it("prints a table, as deep as is wanted", function()
    local printed
    local was = print
    rawset(_G, "print", function(text) printed = text end)
    local ok, why = pcall(unic.summary, resnet.resnet_small(), { 1, 1, 64, 64 }, { depth = 1 })
    rawset(_G, "print", was)
    assert.is_true(ok, why)
    assert.equal(why.text, printed)
    local lines = {}
    for line in printed:gmatch "[^\n]+" do lines[#lines + 1] = line end
    assert.equal(1 + 1 + 6 + 1, #lines)   -- head, the model, its six parts, the sums
    assert.is_truthy(lines[1]:find "^module +kind +output +parameters +flops +outputs B +saved B$")
    assert.is_truthy(printed:find("  layer2 +Sequential +%[1, 32, 16, 16%] +14,528 "), printed)
    assert.is_truthy(lines[#lines]:find "^parameters 307,504 %(307,504 trained, 1.23 MB%); forward [%d.]+ Mflops = [%d.]+ MMAC; outputs ")
  end)

  it("refuses what is no model, no shape, no option", function()
    local model = nn.Linear(4, 4)
    assert.raises_at(nil, "%[summary%] argument 'model': the number 3, expected a module", function() unic.summary(3) end)
    assert.raises_at(nil, "%[summary%] input 1: the number 3, expected a shape such as", function() unic.summary(model, 3) end)
    assert.raises_at(nil, "%[summary%] there is no option 'deph', did you mean 'depth'?", function() unic.summary(model, { 1, 4 }, { deph = 1 }) end)
    assert.raises_at(nil, "%[summary%] input 1: there is no 'dtyp'", function() unic.summary(model, { 1, 4, dtyp = "f64" }) end)
    assert.raises_at(nil, "%[summary%] argument 'model': Parts has no forward: give the option call", function()
      local Parts = nn.class "Parts"
      function Parts:init() self.a = nn.Linear(2, 2) end
      unic.summary(Parts(), { 1, 2 })
    end)
  end)
end)
