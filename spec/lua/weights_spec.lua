-- unic.weights: files of every kind opened, loaded by name maps, built, saved. (What must fail: bad_weights_spec.lua.)
local unic = require "unic"
local cjson = require "cjson"
local lfs = require "lfs"
local bert = require "unic.models.bert"
local files = require "unic.files"
local medunic = require "unic.models.medunic"
local nn = require "unic.nn"
local resnet = require "unic.models.resnet"
local support = require "spec.support.files"
local vit = require "unic.models.vit"
local weights = require "unic.weights"

local real = unic.testing.real_data()
local QUIET = { quiet = true }

-- The tensors of a model with values of their own, under other names.
local function renamed(model, rename)
  local dict = {}
  for name, t in pairs(model:state_dict()) do
    local theirs = rename and rename(name) or not rename and name
    if theirs then dict[theirs] = t.dtype == "f32" and unic.randn(t.shape) or t end
  end
  return dict
end

local function same_values(expected, model, rename)
  local n = 0
  for name, t in pairs(model:state_dict()) do
    local theirs = expected[rename and rename(name) or name]
    assert.is_true(theirs ~= nil, name)
    assert.is_true(unic.testing.same_bits(theirs, t), name)
    n = n + 1
  end
  assert.is_true(n > 0)
end

local function sorted(list)
  table.sort(list)
  return list
end

describe("unic.weights", function()
  local dir
  local function at(name) return dir .. "/" .. name end
  local function put(name, dict, metadata)
    files.safetensors_save(at(name), dict, metadata)
    return at(name)
  end
  setup(function() dir = support.folder() end)
  teardown(function() support.remove(dir) end)

  local function vit_tiny(o)
    local all = { size = 32, patch = 16, channels = 1, width = 16, depth = 2, heads = 2 }
    for key, value in pairs(o or {}) do all[key] = value end
    return vit.Vit(all)
  end
  local function bert_tiny(o)
    local all = { vocab = 20, width = 16, depth = 2, heads = 2, hidden = 32, positions = 12 }
    for key, value in pairs(o or {}) do all[key] = value end
    return bert.Bert(all)
  end

  describe("opens", function()
    it("safetensors, whatever their name", function()
      local w = unic.randn(2, 3)
      local file = weights.open(put("odd.bin", { w = w, b = unic.zeros(2, { dtype = "bf16" }) }, { made = "here" }))
      assert.same({ "safetensors", { at "odd.bin" }, { "w", "b" } }, { file.kind, file.files, file:names() })
      assert.same({ dtype = "F32", shape = { 2, 3 }, bytes = 24 }, file:info "w")
      assert.is_nil(file:info "none")
      assert.same({ made = "here" }, file:metadata())
      assert.same_bits(w, file:tensor "w")
      assert.equal(24, #file:data "w")
      local into = unic.zeros(2, { dtype = "f64" })
      file:read("b", into)
      assert.same({ 0, 0 }, into:totable())
      file:close()
      assert.equal("safetensors '" .. at "odd.bin" .. "': 2 tensors in 1 file", tostring(file))
    end)

    it("safetensors whose header is as long as a pickle begins", function()
      local json = '{"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'
      local header = json .. (" "):rep(0x280 - #json)   -- 80 02: protocol 2
      support.write(at "pickle.bin", support.little_endian(#header, 8) .. header .. "\0\0\128\63")
      assert.same({ 1 }, weights.open(at "pickle.bin"):tensor("w"):totable())
    end)

    it("shards by their index, each name once", function()
      lfs.mkdir(at "part")
      local a, b, c = unic.randn(2), unic.randn(3), unic.randn(4)
      put("one.safetensors", { a = a, c = c })
      put("part/two.safetensors", { b = b })
      support.write(at "x.index.json", cjson.encode { metadata = {}, weight_map = { a = "one.safetensors", b = "part/two.safetensors", c = "one.safetensors" } })
      local file = weights.open(at "x.index.json")
      assert.same({ "sharded", { at "one.safetensors", at "part/two.safetensors" }, { "a", "b", "c" } }, { file.kind, file.files, sorted(file:names()) })
      assert.same_bits(b, file:tensor "b")
      assert.same_bits(c, file:tensor "c")
      local all = unic.load(at "x.index.json")
      assert.same_bits(a, all.a)
    end)

    it("a Hugging Face folder with its config and vocabulary", function()
      lfs.mkdir(at "hf")
      put("hf/model.safetensors", { a = unic.ones(1) })
      support.write(at "hf/config.json", '{"model_type":"bert","pad_token_id":null,"deep":{"x":null,"y":1}}')
      support.write(at "hf/vocab.txt", "[PAD]\n")
      local file = weights.open(at "hf")
      assert.same({ "huggingface", { model_type = "bert", deep = { y = 1 } }, at "hf/vocab.txt" }, { file.kind, file.config, file.vocab })
      assert.same({ a = { 1 } }, { a = unic.load(at "hf").a:totable() })
    end)

    it("a Hugging Face folder of shards", function()
      lfs.mkdir(at "shards")
      put("shards/model-00001-of-00002.safetensors", { a = unic.ones(1) })
      put("shards/model-00002-of-00002.safetensors", { b = unic.ones(1) })
      support.write(at "shards/model.safetensors.index.json",
        cjson.encode { weight_map = { a = "model-00001-of-00002.safetensors", b = "model-00002-of-00002.safetensors" } })
      local file = weights.open(at "shards")
      assert.same({ "huggingface", 2, { "a", "b" } }, { file.kind, #file.files, sorted(file:names()) })
      assert.is_nil(file.config)
    end)

    it("NumPy's array: a tensor", function()
      local text = "{'descr': '<f4', 'fortran_order': False, 'shape': (2,), }"
      text = text .. (" "):rep(118 - 1 - #text) .. "\n"
      support.write(at "array.bin", "\147NUMPY\1\0" .. support.little_endian(#text, 2) .. text .. "\0\0\128\63\0\0\0\64")
      local file = weights.open(at "array.bin")
      assert.same({ "numpy", { "(root)" } }, { file.kind, file:names() })
      assert.same({ 1, 2 }, unic.load(at "array.bin"):totable())
      assert.same({ dtype = "F32", shape = { 2 }, bytes = 8, name = "(root)" }, unic.inspect(at "array.bin", { print = false })[1])
    end)

    if real then
      -- The same network twice, from two trainings: names and shapes are equal.
      it("what PyTorch wrote: with the names and shapes of its twin in safetensors, and loaded by name into a model", function()
        local twin = unic.load(real .. "/checkpoints/burn/mnist.safetensors")
        local file = weights.open(real .. "/checkpoints/burn/mnist.pt")
        assert.equal("torch", file.kind)
        local all = unic.load(real .. "/checkpoints/burn/mnist.pt")
        local model, parts, n = nn.List {}, {}, 0
        for name, t in pairs(twin) do
          assert.same({ t.shape, t.dtype }, { all[name].shape, all[name].dtype })
          local part, field = name:match "^(.*)%.([^.]*)$"
          if not parts[part] then
            parts[part] = nn.List {}
            model[part] = parts[part]
          end
          if t.dtype == "f32" then parts[part][field] = nn.Parameter(unic.zeros(t.shape)) else parts[part]:buffer(field, unic.zeros_like(t)) end
          n = n + 1
        end
        assert.is_true(n > 10)
        local report = weights.load(model, file, QUIET)
        assert.same({ n, n, "same" }, { report.matched, report.total, report.map })
        same_values(all, model)
        file:close()
      end)

      it("NumPy's archive: tensors by name", function()
        local file = weights.open(real .. "/checkpoints/candle/test.npz")
        assert.same({ "numpy", { "x", "x_plus_one" } }, { file.kind, sorted(file:names()) })
        local all = unic.load(real .. "/checkpoints/candle/test.npz")
        assert.same(all.x:add(1):totable(), all.x_plus_one:totable())
      end)
    end

    it("checkpoints and run folders", function()
      lfs.mkdir(at "run")
      lfs.mkdir(at "run/checkpoints")
      support.write(at "run/run.lua", "return {}")
      local theirs = renamed(resnet.resnet_small {}, function(name) return "model." .. name end)
      theirs.rng, theirs["optim.conv1.weight.exp_avg"] = unic.zeros(2, { dtype = "i64" }), unic.zeros(1)
      put("run/checkpoints/last.safetensors", theirs, { unic = '{"format":1}' })
      assert.equal("checkpoint", weights.open(at "run/checkpoints/last.safetensors").kind)
      local model = resnet.resnet_small {}
      local report = weights.load(model, at "run", QUIET)
      assert.same({ "run", "checkpoint", 72, 72, { "optim.conv1.weight.exp_avg", "rng" } },
        { report.kind, report.map, report.matched, report.total, sorted(report.expected) })
      same_values(theirs, model, function(name) return "model." .. name end)
    end)
  end)

  describe("loads", function()
    local Tied = nn.class "Tied"
    function Tied:init()
      self.a = nn.Linear(3, 2, { bias = false })
      self.b = nn.Linear(3, 2)
      self.b.weight = self.a.weight
    end

    it("what has the model's names, to the bit, and keeps what wants no gradient", function()
      local model = nn.Linear(3, 2)
      model.bias.requires_grad = false
      local theirs = renamed(model)
      local report = weights.load(model, put("same.safetensors", theirs), QUIET)
      assert.same({ 2, 2, "same", false }, { report.matched, report.total, report.map, report.unverified })
      same_values(theirs, model)
      assert.same({ true, false }, { model.weight.requires_grad, model.bias.requires_grad })
    end)

    it("an open file, again and again", function()
      local theirs = renamed(nn.Linear(3, 2))
      local file = weights.open(put("open.safetensors", theirs))
      for _ = 1, 2 do
        local model = nn.Linear(3, 2)
        weights.load(model, file, QUIET)
        same_values(theirs, model)
      end
      file:close()
    end)

    it("16-bit files into f32 parameters", function()
      local model, w = nn.Linear(3, 2), unic.tensor({ { 1.5, -2, 3 }, { 0.5, 0.25, -8 } })
      for _, dtype in ipairs { "bf16", "f16", "f64" } do
        local report = weights.load(model, put("half.safetensors", { weight = w:to(dtype), bias = unic.zeros(2) }), QUIET)
        assert.equal(1, report.converted)
        assert.same(w:totable(), model.weight:totable())
      end
    end)

    it("a part, by its prefix", function()
      local theirs = renamed(nn.Linear(3, 2), function(name) return "net.head." .. name end)
      theirs["net.body.weight"], theirs["old.net.head.weight"] = unic.ones(1), unic.ones(1)
      local model = nn.Linear(3, 2)
      local report = weights.load(model, put("prefix.safetensors", theirs), { prefix = "net.head.", quiet = true })
      assert.same({ 2, {} }, { report.matched, report.left_over })
      same_values(theirs, model, function(name) return "net.head." .. name end)
    end)

    it("by a person's own map", function()
      local theirs = { W = unic.randn(2, 3), b = unic.randn(2), step = unic.ones(1) }
      local path = put("own.safetensors", theirs)
      for _, map in ipairs { { W = "weight", b = "bias" }, function(name) return ({ W = "weight", b = "bias" })[name] end,
        { source = "me", rules = { { "^W$", "weight" }, { "^b$", "bias" } } } } do
        local model = nn.Linear(3, 2)
        weights.load(model, path, { map = map, left_over = { "^step$" }, quiet = true })
        assert.same_bits(theirs.W, model.weight:detach())
        assert.same_bits(theirs.b, model.bias:detach())
      end
    end)

    it("what is there, where the rest was allowed to be missing", function()
      local w, model = unic.randn(2, 3), nn.Linear(3, 2)
      local bias = model.bias:detach():clone()
      local report = weights.load(model, put("part.safetensors", { weight = w }), { missing = { "^bias$" }, quiet = true })
      assert.same({ 1, { "bias" } }, { report.matched, report.missing })
      assert.same_bits(w, model.weight:detach())
      assert.same_bits(bias, model.bias:detach())
      report = weights.load(model, put("part.safetensors", { weight = w, bias = unic.ones(3), x = unic.ones(1) }), { strict = false, quiet = true })
      assert.same({ 1, { "bias is [2] here and [3] there" }, { "x" } }, { report.matched, report.mismatched, report.left_over })
      report = weights.load(model, at "part.safetensors", { ignore = { "^bias$", "^x$" }, quiet = true })
      assert.same({ 1, {}, {} }, { report.matched, report.mismatched, report.left_over })
      assert.same_bits(bias, model.bias:detach())
    end)

    it("a tensor that has two names in the model, from either or both", function()
      local w, b = unic.randn(2, 3), unic.randn(2)
      for _, names in ipairs { { "a.weight" }, { "b.weight" }, { "a.weight", "b.weight" } } do
        local dict, model = { ["b.bias"] = b }, Tied()
        for _, name in ipairs(names) do dict[name] = w end
        local report = weights.load(model, put("tied.safetensors", dict), QUIET)
        assert.same({ 2, 2 }, { report.matched, report.total })
        assert.same_bits(w, model.a.weight:detach())
        assert.is_true(rawequal(model.a.weight, model.b.weight))
      end
    end)

    it("norms with and without their count of batches", function()
      local theirs = renamed(resnet.resnet_small {}, function(name) return not name:find "num_batches" and name or nil end)
      local model = resnet.resnet_small {}
      local report = weights.load(model, put("count.safetensors", theirs), QUIET)
      assert.same({ 60, 72, 12, {} }, { report.matched, report.total, report.counters, report.missing })
      local plain = nn.Linear(3, 2)
      theirs = renamed(plain)
      theirs.num_batches_tracked = unic.zeros({}, { dtype = "i64" })
      report = weights.load(plain, put("count.safetensors", theirs), QUIET)
      assert.same({ 1, {} }, { report.counters, report.left_over })
    end)

    it("a tensor of another shape with the module's help", function()
      local Grid = nn.class "Grid"
      function Grid:init() self.inner = nn.List {} self.inner.pos = nn.Parameter(unic.zeros(4)) end
      local asked
      local model = Grid()
      rawset(model.inner, "adapt", function(_, name, t)
        asked = { name, t.shape }
        return t:size(1) == 2 and unic.cat({ t, t }, 1) or nil
      end)
      local report = weights.load(model, put("grid.safetensors", { ["inner.pos"] = unic.tensor { 1, 2 } }), QUIET)
      assert.same({ { "pos", { 2 } }, { 1, 2, 1, 2 }, { "inner.pos is [4] here and [2] there" } }, { asked, model.inner.pos:totable(), report.adapted })
      assert.is_true(model.inner.pos.is_leaf and model.inner.pos.requires_grad)
      local path = put("grid.safetensors", { ["inner.pos"] = unic.tensor { 1, 2, 3 } })
      local refusal = "of another shape or type: inner.pos is [4] here and [3] there"
      assert.matches(refusal, support.refusal(weights.load, model, path, QUIET), 1, true)
      for _, answer in ipairs { unic.ones(5), "no tensor" } do   -- of another shape still, or nothing that could be copied
        rawset(model.inner, "adapt", function() return answer end)
        assert.matches(refusal, support.refusal(weights.load, model, path, QUIET), 1, true)
      end
    end)

    it("position embeddings of another grid, as the ViT fits them", function()
      local small, large = vit_tiny(), vit_tiny { size = 64 }
      local theirs = renamed(small)
      local report = weights.load(large, put("grid.safetensors", theirs), QUIET)
      assert.same({ report.total, { "pos_embed is [1, 17, 16] here and [1, 5, 16] there" } }, { report.matched, report.adapted })
      -- A file's tensor may be made to fit on another device than the model's: to the bit only where there is one.
      local same = unic.device() == "cpu" and assert.same_bits or assert.close
      same(vit.resize_positions(theirs.pos_embed, { 4, 4 }):to "cpu", large.pos_embed:detach():to "cpu")
      local built = weights.build(function() return vit_tiny { size = 64 } end, at "grid.safetensors", QUIET)
      same(built.pos_embed:detach(), large.pos_embed:detach())
    end)

    it("and says what it did", function()
      local theirs = renamed(resnet.resnet_small {}, function(name) return "module." .. name end)
      theirs["module.fc.weight"], theirs["module.fc.bias"] = unic.ones(2, 128), unic.ones(2)
      theirs["module.bn1.weight"] = theirs["module.bn1.weight"]:to "bf16"
      local report = weights.load(resnet.resnet_small {}, put("said.safetensors", theirs), { map = "torchvision", quiet = true })
      assert.equal(at "said.safetensors" .. [[ (safetensors): 72 of 72 tensors matched, map torchvision
  this map was tried on files written by torchvision with random weights, not on downloaded ones
  left over, as expected (the classifier, training state): module.fc.bias, module.fc.weight
  converted: 1 tensors to the model's dtype]], tostring(report))
      assert.same({ kind = "safetensors", files = { at "said.safetensors" } }, { kind = report.kind, files = report.files })
    end)
  end)

  describe("knows the names of", function()
    -- Every map on made-up files with such names: what goes where, what is left over. `theirs` makes a file's name of a model's.
    local function loads(model, theirs, extra, map, left_over)
      local dict = renamed(model, theirs)
      for name, shape in pairs(extra) do dict[name] = unic.ones(shape) end
      local path = put("names.safetensors", dict)
      for _, option in ipairs { "auto", map } do
        local report = weights.load(model, path, { map = option, quiet = true })
        assert.equal(map, report.map)
        assert.equal(report.total, report.matched + report.counters)
        assert.same({ {}, {}, left_over }, { report.missing, report.left_over, sorted(report.expected) })
        assert.equal(not require("unic.models.names." .. map).verified, report.unverified)
        assert.equal(report.unverified, tostring(report):find("unverified", 1, true) ~= nil)
        same_values(dict, model, theirs)
      end
      local rows = unic.inspect(path, { print = false })
      assert.same({ map }, rows.maps)
    end
    local function with(prefix) return function(name) return prefix .. name end end

    it("torchvision", function()
      loads(resnet.resnet_small {}, with "", { ["fc.weight"] = { 3, 128 }, ["fc.bias"] = { 3 } }, "torchvision", { "fc.bias", "fc.weight" })
      loads(resnet.resnet_small {}, with "state_dict.module.", { ["state_dict.module.fc.bias"] = { 3 } }, "torchvision", { "state_dict.module.fc.bias" })
    end)
    it("torchvision's training scripts", function()
      loads(resnet.resnet_small {}, with "model.", { ["model.fc.bias"] = { 3 }, ["optimizer.state.0.momentum_buffer"] = { 1 } }, "torchvision",
        { "model.fc.bias", "optimizer.state.0.momentum_buffer" })
    end)
    it("timm", function() loads(vit_tiny(), with "", { ["head.weight"] = { 3, 16 }, ["head.bias"] = { 3 } }, "timm", { "head.bias", "head.weight" }) end)
    it("MAE", function()
      loads(vit_tiny(), with "model.", { ["model.mask_token"] = { 1 }, ["model.decoder_embed.weight"] = { 2 } }, "mae",
        { "model.decoder_embed.weight", "model.mask_token" })
      loads(vit_tiny(), with "model.", {}, "mae", {})
    end)
    it("DeiT", function() loads(vit_tiny(), with "model.", { ["model.head.bias"] = { 3 } }, "deit", { "model.head.bias" }) end)
    it("Hugging Face's BERT, old spellings too", function()
      local extra = { ["cls.predictions.bias"] = { 20 }, ["bert.pooler.dense.weight"] = { 16, 16 }, ["bert.embeddings.position_ids"] = { 1, 12 } }
      loads(bert_tiny(), function(name) return "bert." .. name:gsub("LayerNorm.weight$", "LayerNorm.gamma"):gsub("LayerNorm.bias$", "LayerNorm.beta") end, extra, "bert",
        { "bert.embeddings.position_ids", "bert.pooler.dense.weight", "cls.predictions.bias" })
      loads(bert_tiny(), with "", { ["pooler.dense.bias"] = { 16 } }, "bert", { "pooler.dense.bias" })
    end)
    it("CXR-BERT", function()
      loads(bert_tiny(), with "bert.", { ["cls.predictions.bias"] = { 20 }, ["cls_projection_head.dense.weight"] = { 2 } }, "cxr_bert",
        { "cls.predictions.bias", "cls_projection_head.dense.weight" })
    end)
    it("MGCA, each of its encoders", function()
      local others = { ["state_dict.text_encoder_q.model.x"] = { 1 }, ["state_dict.img_encoder_q.global_embed.x"] = { 1 }, ["state_dict.prototype_layer.weight"] = { 1 } }
      loads(resnet.resnet_small {}, with "state_dict.img_encoder_q.model.", others, "mgca",
        { "state_dict.img_encoder_q.global_embed.x", "state_dict.prototype_layer.weight", "state_dict.text_encoder_q.model.x" })
      local text = bert_tiny()
      local dict = renamed(text, with "text_encoder_q.model.")
      dict["img_encoder_q.model.conv1.weight"] = unic.ones(1)
      local report = weights.load(text, put("names.safetensors", dict), QUIET)
      assert.same({ "mgca", report.total }, { report.map, report.matched })
      same_values(dict, text, with "text_encoder_q.model.")
    end)
    it("Med-UniC, whole and in parts", function()
      local model = medunic { vision = "resnet_small", text = "bert_small", vocab = 20, channels = 1, size = 32, dim = 4, ctr_dim = 4, hidden = 8 }
      local MEMBERS = { fc1 = "0", bn1 = "1", fc2 = "3", bn2 = "4" }
      local PARTS = { proj_v = "proj_v", proj_l = "proj_t", proj_d = "proj_t_constrast" }
      local function theirs(name)
        name = name:gsub("^image_encoder", "encoder"):gsub("^text_encoder", "lm_model.bert")
        name = name:gsub("^(proj_%a)%.(%w+)", function(part, member) return PARTS[part] .. "." .. MEMBERS[member] end)
        return "module." .. name
      end
      assert.equal("module.proj_t_constrast.3.weight", theirs "proj_d.fc2.weight")
      loads(model, theirs, { ["module.lm_model.cls.predictions.bias"] = { 20 } }, "medunic", { "module.lm_model.cls.predictions.bias" })
      local dict = renamed(model, theirs)
      local path = put("total.safetensors", dict)
      local encoder, text = resnet.resnet_small {}, bert.bert_small { vocab = 20 }
      assert.equal("medunic", weights.load(encoder, path, QUIET).map)
      same_values(dict, encoder, with "module.encoder.")
      assert.equal("medunic", weights.load(text, path, QUIET).map)
      same_values(dict, text, with "module.lm_model.bert.")
      weights.load(encoder, put("encoder.safetensors", renamed(encoder)), { map = "medunic", quiet = true })
    end)
  end)

  describe("builds", function()
    it("a model without drawing numbers, to the bit that of the file", function()
      local theirs = renamed(vit_tiny())
      local path = put("build.safetensors", theirs)
      local before, runs, default = unic.generator():totable(), 0, unic.device()
      local model, report = weights.build(function()
        runs = runs + 1
        local net = vit_tiny()
        net.cls_token.requires_grad = false
        return net
      end, path, QUIET)
      assert.same({ 1, before, report.total, default }, { runs, unic.generator():totable(), report.matched, unic.device() })
      same_values(theirs, model)
      assert.same({ false, true, default }, { model.cls_token.requires_grad, model.pos_embed.requires_grad, model.pos_embed.device })
      model(unic.randn(1, 1, 32, 32)):sum():backward()
      assert.is_true(model.pos_embed.grad ~= nil)
      unic.scope(function() end)
      assert.equal(default, model.blocks[1].attn.qkv.weight.device)
    end)

    it("counts from 0 where the file has no count, in memory that held something", function()
      unic.scope(function()
        for _ = 1, 50 do unic.full({ 40 }, 7, { dtype = "i64" }) end
      end)
      collectgarbage()
      collectgarbage()
      local path = put("build.safetensors", renamed(resnet.resnet_small {}, function(name) return not name:find "num_batches" and name or nil end))
      local model = weights.build(function() return resnet.resnet_small {} end, path, QUIET)
      assert.equal(0, model.bn1.num_batches_tracked:item())
      assert.equal(0, model.layer4[1].bn2.num_batches_tracked:item())
    end)

    it("what is missing as ever", function()
      local theirs = renamed(nn.Linear(3, 2))
      theirs.bias = nil
      local path, runs = put("build.safetensors", theirs), 0
      local function make()
        runs = runs + 1
        return nn.Linear(3, 2)
      end
      unic.manual_seed(5)
      local expected = nn.Linear(3, 2)
      unic.manual_seed(5)
      local model = weights.build(make, path, { missing = { "bias" }, quiet = true })
      assert.equal(2, runs)
      assert.same_bits(expected.bias:detach(), model.bias:detach())
      assert.same_bits(theirs.weight, model.weight:detach())
    end)

    it("tied tensors as one, constants with their values", function()
      local Odd = nn.class "Odd"
      function Odd:init(constant)
        self.a, self.b = nn.Linear(3, 3), nn.Linear(3, 3)
        self.b.weight = self.a.weight
        if constant then self.scale = unic.tensor { 1, 2, 3 } end
      end
      local theirs = renamed(Odd())
      theirs["b.weight"] = nil
      local path = put("build.safetensors", theirs)
      local model = weights.build(function() return Odd() end, path, QUIET)
      assert.is_true(rawequal(model.a.weight, model.b.weight))
      assert.same_bits(theirs["a.weight"], model.b.weight:detach())
      model = weights.build(function() return Odd(true) end, path, QUIET)
      assert.same({ 1, 2, 3 }, model.scale:totable())
      assert.same_bits(theirs["a.bias"], model.a.bias:detach())
    end)

    it("with one copy of the values in memory", function()
      local path = put("build.safetensors", renamed(bert_tiny { vocab = 4000 }))
      weights.build(bert_tiny, put("warm.safetensors", renamed(bert_tiny())), QUIET)
      collectgarbage()
      collectgarbage()
      local before = unic.memory().active
      unic.memory_peak_reset()
      local model = weights.build(function() return bert_tiny { vocab = 4000 } end, path, QUIET)
      local bytes = 0
      for _, t in pairs(model:state_dict()) do bytes = bytes + 4 * t:numel() end
      assert.is_true((unic.memory().peak - before) / bytes < 1.1)
    end)

    it("on the device that is the default", function()
      local path = put("build.safetensors", renamed(nn.Linear(3, 2)))
      unic.device "far"
      local ok, model = pcall(weights.build, function() return nn.Linear(3, 2) end, path, QUIET)
      unic.device "cpu"
      assert.is_true(ok, model)
      assert.equal("far:0", model.weight.device)
    end)

    it("and sets the default device back after an error", function()
      assert.has_error(function() weights.build(function() error "no" end, put("build.safetensors", renamed(nn.Linear(3, 2))), QUIET) end)
      assert.equal("cpu", unic.device())
    end)
  end)

  describe("saves", function()
    it("a model under its names, which loads again", function()
      local a, b = resnet.resnet_small {}, resnet.resnet_small {}
      weights.save(at "saved.safetensors", a)
      assert.same({ format = "pt" }, weights.open(at "saved.safetensors"):metadata())
      local report = weights.load(b, at "saved.safetensors", QUIET)
      assert.same({ "same", report.total }, { report.map, report.matched })
      same_values(a:state_dict(), b)
    end)

    it("in another dtype, with other names, with metadata, to the same bytes", function()
      local model = nn.Linear(3, 2)
      local options = { dtype = "bf16", metadata = { by = "spec" }, names = function(name) return name ~= "bias" and "x." .. name or nil end }
      weights.save(at "half.safetensors", model, options)
      local file = weights.open(at "half.safetensors")
      assert.same({ { "x.weight" }, "BF16", { format = "pt", by = "spec" } }, { file:names(), file:info("x.weight").dtype, file:metadata() })
      file:close()
      assert.same_bits(model.weight:detach():to "bf16", unic.load(at "half.safetensors")["x.weight"])
      local bytes = support.read(at "half.safetensors")
      weights.save(at "half.safetensors", model, options)
      assert.is_true(bytes == support.read(at "half.safetensors"))
      assert.equal("f32", model.weight.dtype)
    end)

    it("a tensor that two modules share once", function()
      local model = nn.List { nn.Linear(3, 3), nn.Linear(3, 3) }
      model[2].weight = model[1].weight
      weights.save(at "shared.safetensors", model)
      assert.same({ "0.bias", "0.weight", "1.bias" }, sorted(weights.open(at "shared.safetensors"):names()))
      weights.load(model, at "shared.safetensors", QUIET)
    end)

    local CONFIG = { model_type = "bert", architectures = { "BertModel" }, layer_norm_eps = 1e-12, dropout = 0.1, vocab_size = 5, flag = false }
    local function tokenizer() return unic.text.wordpiece({ "[PAD]", "[UNK]", "[CLS]", "[SEP]", "caf\195\169" }, { lowercase = true, strip_accents = false }) end

    it("a folder that is opened again", function()
      local model = bert_tiny { vocab = 5 }
      weights.save_pretrained(at "pretrained/", model, { config = CONFIG, tokenizer = tokenizer() })
      assert.same({ "config.json", "model.safetensors", "tokenizer_config.json", "vocab.txt" }, support.list(at "pretrained"))
      local file = weights.open(at "pretrained")
      assert.same(CONFIG, file.config)
      assert.equal(tokenizer():hash(), unic.text.wordpiece(file.vocab, { strip_accents = false }):hash())
      assert.matches('"layer_norm_eps": 1e-12', support.read(at "pretrained/config.json"), 1, true)
      local words = cjson.decode(support.read(at "pretrained/tokenizer_config.json"))
      assert.same({ "BertTokenizer", true, false, true, 512, "[PAD]", "[UNK]", "[CLS]", "[SEP]" },
        { words.tokenizer_class, words.do_lower_case, words.strip_accents, words.tokenize_chinese_chars, words.model_max_length, words.pad_token, words.unk_token,
          words.cls_token, words.sep_token })
      assert.is_nil(words.mask_token)
      local cased = unic.text.wordpiece({ "[PAD]", "[UNK]", "[CLS]", "[SEP]" }, { lowercase = false, cjk = false })
      weights.save_pretrained(at "cased", model, { config = { max_position_embeddings = 12 }, tokenizer = cased })
      words = cjson.decode(support.read(at "cased/tokenizer_config.json"))
      assert.same({ false, false, false, 12 }, { words.do_lower_case, words.strip_accents, words.tokenize_chinese_chars, words.model_max_length })
      local again = bert_tiny { vocab = 5 }
      weights.load(again, at "pretrained", QUIET)
      same_values(model:state_dict(), again)
    end)

    it("a BERT for masked tokens that bert.from_pretrained makes again, or its encoder alone", function()
      local model = bert.BertForMaskedLM { vocab = 20, width = 16, depth = 1, heads = 2, hidden = 32, positions = 12, dropout = 0.25 }
      weights.save_pretrained(at "mlm", model, { config = bert.config(model) })
      local again, report = bert.from_pretrained(at "mlm", nil, QUIET)
      assert.same({ "BertForMaskedLM", 0.25, report.total }, { again._name, again.bert.settings.dropout, report.matched })
      same_values(model:state_dict(), again)
      local encoder = bert.from_pretrained(at "mlm", { head = "none", dropout = 0 }, QUIET)
      assert.equal("BertModel", encoder._name)
      same_values(model.bert:state_dict(), encoder)
      local ids = unic.tensor({ { 2, 5, 3 } }, { dtype = "i64" })
      assert.same_bits(model:eval()(ids):detach(), again:eval()(ids):detach())
    end)

    it("a folder over another, when it was told to", function()
      local path = at "again"
      lfs.mkdir(path)
      weights.save_pretrained(path, nn.Linear(3, 2), { config = { a = 1 } })          -- an empty one is as good as none
      support.write(path .. "/mine.txt", "x")
      weights.save_pretrained(path, nn.Linear(3, 2), { config = { a = 2 }, overwrite = true })
      assert.same({ { "config.json", "model.safetensors" }, { a = 2 } }, { support.list(path), weights.open(path).config })
      assert.has_error(function() weights.save_pretrained(path, nn.Linear(3, 2), { config = { a = print }, overwrite = true }) end)
      assert.same({ { "config.json", "model.safetensors" }, { a = 2 } }, { support.list(path), weights.open(path).config })
      for name in lfs.dir(dir) do assert.is_nil(name:find "%.tmp%-" or name:find "%.old%-", name) end
    end)
  end)

  describe("and unic.inspect", function()
    it("print what is in a file", function()
      put("seen.safetensors", { ["layer.weight"] = unic.ones(250, 1000), n = unic.zeros({}, { dtype = "i64" }) }, { note = ("x"):rep(200) .. "\n" })
      local printed = {}
      local print_before = print
      rawset(_G, "print", function(text) printed[#printed + 1] = text end)
      local ok, rows = pcall(unic.inspect, at "seen.safetensors")
      rawset(_G, "print", print_before)
      assert.is_true(ok, rows)
      assert.same({ rows.text }, printed)
      assert.equal(at "seen.safetensors" .. ": safetensors, 1 file, 1.0 MB\n" .. "metadata note = " .. ("x"):rep(100) .. [[... (201 characters)
tensor        dtype  shape                MB
n             I64    []                0.000
layer.weight  F32    [250, 1000]       1.000
2 tensors, 250001 elements, 1.000 MB (I64 1, F32 1)
maps that fit: none is known for such names]], rows.text)
      assert.same({ tensors = 2, elements = 250001, bytes = 1000008 }, rows.total)
      assert.same({ name = "layer.weight", dtype = "F32", shape = { 250, 1000 }, bytes = 1000000 }, rows[2])
      assert.equal("safetensors", rows.kind)
    end)

    it("and in modules and tables", function()
      local rows = unic.inspect(nn.Linear(3, 2), { print = false })
      assert.same({ { "weight", "bias" }, 8 }, { { rows[1].name, rows[2].name }, rows.total.elements })
      local t = { a = { unic.ones(2), { b = unic.ones(3, { dtype = "bf16" }) } }, other = 3 }
      t.me = t
      rows = unic.inspect(t, { print = false })
      assert.same({ { "a.1", "a.2.b" }, "BF16", 14 }, { { rows[1].name, rows[2].name }, rows[2].dtype, rows.total.bytes })
      rows = unic.inspect(t, { print = false, pattern = "^a%.2" })
      assert.is_nil(rows.text:find("a.1", 1, true))
      assert.equal(2, #rows)
    end)
  end)
end)
