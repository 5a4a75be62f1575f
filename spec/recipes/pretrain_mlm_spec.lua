-- Masked language modelling as a recipe: it learns, goes on after a kill to the bit, ends as a folder that opens again, starts from one, and makes the
-- text encoder of pretrain_medunic.lua. recipes/text_weights.lua, which both load with.
local unic = require "unic"
local bert = require "unic.models.bert"
local lfs = require "lfs"
local phantom = require "unic.datasets.phantom"
local support = require "spec.support.files"
local testing = require "unic.testing"
local text = require "unic.text"
local text_weights = require "unic.recipes.text_weights"
local weights = require "unic.weights"

local RECIPE = unic.root .. "recipes/pretrain_mlm.lua"

local function merged(a, b)
  local t = {}
  for k, v in pairs(a) do t[k] = v end
  for k, v in pairs(b or {}) do t[k] = v end
  return t
end

local function column(path, name)
  local csv, list = unic.files.read_csv(path), {}
  for row = 1, csv:rows() do list[row] = tonumber(csv:get(row, name)) end
  return list
end

local function mean(list, first, last)
  local sum = 0
  for i = first, last do sum = sum + list[i] end
  return sum / (last - first + 1)
end

describe("recipes/pretrain_mlm.lua", function()
  local folder, base, result
  setup(function()
    folder = support.folder()
    base = { steps = 80, studies = 400, batch = 16, lr = 3e-3, warmup = 10, dropout = 0.2, seed = 2, log_every = 1, max_length = 64 }
    result = testing.recipe(RECIPE, merged(base, { run = folder .. "/run", eval_every = 40 })).result
  end)
  teardown(function() support.remove(folder) end)

  it("learns, and says how well by language", function()
    local loss = column(folder .. "/run/metrics.csv", "loss")
    assert.equal(80, #loss)
    assert.is_true(math.abs(loss[1] - math.log(832)) < 0.3, "first loss " .. loss[1])
    assert.is_true(mean(loss, 71, 80) < 0.85 * loss[1], ("%.3f at first, %.3f at the end"):format(loss[1], mean(loss, 71, 80)))
    -- The loss of a step lies between those of its languages.
    local en, es = column(folder .. "/run/metrics.csv", "loss_en"), column(folder .. "/run/metrics.csv", "loss_es")
    for i = 1, 80 do assert.is_true(loss[i] >= math.min(en[i], es[i]) - 1e-5 and loss[i] <= math.max(en[i], es[i]) + 1e-5) end
    for _, name in ipairs { "acc", "acc_en", "acc_es" } do
      local last = mean(column(folder .. "/run/metrics.csv", name), 71, 80)
      assert.is_true(last > 0.05 and last <= 1, name .. " " .. last)
    end
    assert.same({ 80, 832 }, { result.steps, result.vocab })
    assert.is_truthy(support.read(folder .. "/run/log.txt"):find "step 80/80  [%d.e+]+ texts/s")
    local eval = unic.files.read_csv(folder .. "/run/eval.csv")
    local found = {}
    for row = 1, eval:rows() do
      found[("%s %s %s %s"):format(eval:get(row, "step"), eval:get(row, "split"), eval:get(row, "metric"), eval:get(row, "language"))] =
        { tonumber(eval:get(row, "value")), tonumber(eval:get(row, "n")) }
    end
    for _, language in ipairs { "", "en", "es" } do
      for _, at in ipairs { "40 val", "80 val", "80 test" } do
        for _, metric in ipairs { "mlm_loss", "mlm_accuracy" } do assert.is_truthy(found[("%s %s %s"):format(at, metric, language)], at .. metric .. language) end
      end
    end
    assert.is_true(found["80 val mlm_loss "][1] < found["40 val mlm_loss "][1])
    local all, en_loss, es_loss = found["80 test mlm_loss "], found["80 test mlm_loss en"], found["80 test mlm_loss es"]
    assert.equal(all[2], en_loss[2] + es_loss[2])
    assert.is_true(math.abs(all[1] - (en_loss[1] * en_loss[2] + es_loss[1] * es_loss[2]) / all[2]) < 1e-4)
    assert.is_true(math.abs(result.loss - all[1]) < 1e-4 and math.abs(result.loss_es - es_loss[1]) < 1e-4)
    assert.is_true(math.abs(result.accuracy_en - found["80 test mlm_accuracy en"][1]) < 1e-4)
  end)

  it("ends as a folder that opens again, and the head at chosen places is the head everywhere", function()
    local path = folder .. "/run/huggingface"
    local file = weights.open(path)
    assert.same({ "bert", 832, 128, 2 }, { file.config.model_type, file.config.vocab_size, file.config.hidden_size, file.config.num_hidden_layers })
    assert.equal(text.wordpiece(phantom.vocab):hash(), text.wordpiece(file.vocab):hash())
    file:close()
    local source = text_weights.open(folder .. "/run")   -- the run folder, for the one in it
    assert.equal(path, source.path)
    local tokenizer = text_weights.tokenizer(source)
    local was_quiet = testing.quiet
    testing.quiet = true
    local again, kept = text_weights.model(source, { head = "mlm" }, tokenizer), bert.BertForMaskedLM(merged(bert.sizes.bert_small, { vocab = 832 }))
    testing.quiet = was_quiet
    unic.run.open(folder .. "/run"):load(kept)
    for name, t in pairs((kept:state_dict())) do assert.same_bits(t, (again:state_dict())[name]) end
    local ds = unic.data.open("phantom", { split = "val", studies = 20, images = false })
    local batch = unic.data.batches(ds, { batch = 20, views = {}, tokenizer = tokenizer, mlm = {} }):next()
    again:eval()
    local whole = again:loss(batch.tokens, batch.mask, batch.labels):item()
    local hidden = again.bert(batch.tokens, batch.mask):reshape { batch.tokens:numel(), 128 }
    local part = unic.losses.cross_entropy(again:predict(hidden:index_select(1, batch.places)), batch.targets):item()
    assert.is_true(math.abs(whole - part) < 1e-5, ("%.7f and %.7f"):format(whole, part))
    -- The loss of the result line, again: all 500 held-out reports, without dropout.
    local sum, count = 0, 0
    local held_out = unic.data.open("phantom", { split = "test", images = false })
    for each in unic.data.batches(held_out, { batch = 50, shuffle = false, views = {}, tokenizer = tokenizer, mlm = {}, max_length = 64, seed = 2 }) do
      sum, count = sum + again:loss(each.tokens, each.mask, each.labels):item() * each.places:numel(), count + each.places:numel()
    end
    assert.is_true(math.abs(sum / count - result.loss) < 1e-4, ("%.6f and %.6f"):format(sum / count, result.loss))
  end)

  it("goes on after it was cut, to the bit", function()
    local options = { steps = 6, studies = 64, batch = 4, accumulate = 2, save_every = 2, eval_every = 2, log_every = 1, seed = 4, dropout = 0.1, warmup = 2 }
    local optim = unic.optim
    for _, more in ipairs { {}, { optimizer = "bertadam", schedule = "linear" } } do
      local whole, cut = folder .. "/whole", folder .. "/cut"
      testing.recipe(RECIPE, merged(merged(options, more), { run = whole }))
      local steps, clip = 0, optim.clip_grad_norm
      optim.clip_grad_norm = function(...)
        steps = steps + 1
        if steps == 4 then error("the power is gone", 0) end
        return clip(...)
      end
      local ok, why = pcall(testing.recipe, RECIPE, merged(merged(options, more), { run = cut }))
      optim.clip_grad_norm = clip
      assert.is_false(ok)
      assert.is_truthy(tostring(why):find "the power is gone")
      testing.recipe(RECIPE, { resume = cut })
      local same, difference = require("spec.support.runs").same(whole, cut)
      assert.is_true(same, difference)
      assert.equal(support.read(whole .. "/eval.csv"), support.read(cut .. "/eval.csv"))
      assert.equal(support.read(whole .. "/huggingface/model.safetensors"), support.read(cut .. "/huggingface/model.safetensors"))
      support.remove(whole)
      support.remove(cut)
    end
  end)

  it("goes on without the weights and the vocabulary that it began with", function()
    local first, vocab, whole, cut = folder .. "/first", folder .. "/moved.txt", folder .. "/whole", folder .. "/cut"
    local model = bert.BertForMaskedLM { vocab = 832, width = 24, depth = 1, heads = 2, hidden = 32, positions = 64, dropout = 0.3 }
    weights.save_pretrained(first, model, { config = bert.config(model), tokenizer = text.wordpiece(phantom.vocab) })
    unic.files.write_file(vocab, support.read(phantom.vocab) .. "newword\n")
    local options = { steps = 4, studies = 64, batch = 4, save_every = 2, log_every = 1, init = first, vocab = vocab, max_length = 64 }
    testing.recipe(RECIPE, merged(options, { run = whole }))
    local steps, clip = 0, unic.optim.clip_grad_norm
    unic.optim.clip_grad_norm = function(...)
      steps = steps + 1
      if steps == 3 then error("the power is gone", 0) end
      return clip(...)
    end
    local ok = pcall(testing.recipe, RECIPE, merged(options, { run = cut }))
    unic.optim.clip_grad_norm = clip
    assert.is_false(ok)
    -- Cut before anything was saved, it begins again, from the same weights.
    local early = folder .. "/early"
    unic.optim.clip_grad_norm = function() error("the power is gone", 0) end
    ok = pcall(testing.recipe, RECIPE, merged(options, { run = early }))
    unic.optim.clip_grad_norm = clip
    assert.is_false(ok)
    testing.recipe(RECIPE, { resume = early })
    local equal, what = require("spec.support.runs").same(whole, early)
    assert.is_true(equal, what)
    support.remove(early)
    support.remove(first)
    os.remove(vocab)
    testing.recipe(RECIPE, { resume = cut })
    local same, difference = require("spec.support.runs").same(whole, cut)
    assert.is_true(same, difference)
    assert.equal(support.read(whole .. "/huggingface/model.safetensors"), support.read(cut .. "/huggingface/model.safetensors"))
    support.remove(whole)
    support.remove(cut)
  end)

  it("trains as the published code does", function()
    local out = testing.recipe(RECIPE, {
      preset = "official", text = "bert_small", batch = 4, accumulate = 1, steps = 52, studies = 64, run = folder .. "/official", log_every = 1,
    })
    assert.equal(52, out.result.steps)
    local options = unic.run.open(folder .. "/official").options
    assert.same({ "bertadam", "linear", 5e-4, 0.01, 42, 256 },
      { options.optimizer, options.schedule, options.lr, options.weight_decay, options.seed, options.max_length })
    local lr = column(folder .. "/official/metrics.csv", "lr")
    for step, factor in pairs { [1] = 1 / 50, [25] = 0.5, [50] = 1, [51] = 0.5, [52] = 0 } do
      assert.is_true(math.abs(lr[step] - 5e-4 * factor) < 1e-9, ("step %d: %g"):format(step, lr[step]))
    end
  end)

  it("reads CSV files without pictures, and text files", function()
    local lines, rows = {}, { "report,language,patient,split" }
    for i = 1, 40 do
      lines[i] = ("No pleural effusion. Report %d."):format(i)
      rows[i + 1] = ("%s,%s,p%d,%s"):format(i % 2 == 0 and "No pleural effusion." or "Sin derrame pleural.", i % 2 == 0 and "en" or "fr", i, i > 30 and "test" or "train")
    end
    rows[#rows + 1] = "Sin derrame.,spanish,p41,train"
    unic.files.write_file(folder .. "/lines.txt", table.concat(lines, "\n"))
    unic.files.write_file(folder .. "/rows.csv", table.concat(rows, "\n"))
    local own = { steps = 3, batch = 4, run = folder .. "/csv", data = folder .. "/rows.csv" }
    local out = testing.recipe(RECIPE, own).result
    assert.is_true(out.loss_en > 0 and out.loss_fr > 0 and out.loss_es == nil)
    assert.equal("language 'spanish', expected two letters such as en or es", unic.files.read_csv(folder .. "/csv/skipped.csv"):get(1, "reason"))
    out = testing.recipe(RECIPE, merged(own, { run = folder .. "/txt", data = folder .. "/lines.txt" })).result
    assert.is_true(out.loss > 0 and out.loss_en == nil)
    out = testing.recipe(RECIPE, merged(own, { run = folder .. "/lang", data = folder .. "/lines.txt", language = "en" })).result
    assert.is_true(out.loss_en > 0)
  end)

  it("starts from weights, and extends them to a larger vocabulary", function()
    local path, out = folder .. "/run/huggingface", folder .. "/extended"
    local tokens = {}
    for line in io.lines(path .. "/vocab.txt") do tokens[#tokens + 1] = line end
    for i = 1, 7 do tokens[#tokens + 1] = "word" .. i end
    local vocab = folder .. "/larger.txt"
    unic.files.write_file(vocab, table.concat(tokens, "\n") .. "\n")
    local more = testing.recipe(RECIPE, merged(base, { steps = 4, dropout = 0, init = path, vocab = vocab, out = out, run = folder .. "/more" }))
    assert.equal(839, more.result.vocab)
    assert.is_true(column(folder .. "/more/metrics.csv", "loss")[1] < result.loss + 1)   -- it does not begin anew
    local file = weights.open(out)
    assert.same({ 839, 128 }, file:info("bert.embeddings.word_embeddings.weight").shape)
    assert.equal(0, file.config.hidden_dropout_prob)
    file:close()
    assert.raises_at(nil, "is there already", function() testing.recipe(RECIPE, merged(base, { steps = 1, init = path, out = out, run = folder .. "/again" })) end)
  end)
end)

describe("recipes/text_weights.lua", function()
  local folder, path, tokens, was_quiet
  setup(function()
    was_quiet, testing.quiet = testing.quiet, true   -- no reports of loading
    folder = support.folder()
    path, tokens = folder .. "/small", { "[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "b" }
    weights.save_pretrained(path, bert.BertForMaskedLM { vocab = 7, width = 64, depth = 3, heads = 2, hidden = 16, positions = 12, dropout = 0.25 }, {
      config = bert.config(bert.Bert { vocab = 7, width = 64, depth = 3, heads = 2, hidden = 16, positions = 12, dropout = 0.25 }), tokenizer = text.wordpiece(tokens),
    })
  end)
  teardown(function()
    testing.quiet = was_quiet
    support.remove(folder)
  end)

  local function vocab_of(list)
    local name = os.tmpname()
    unic.files.write_file(name, table.concat(list, "\n") .. "\n")
    return name
  end

  it("takes size, vocabulary and dropout from the folder", function()
    local source = text_weights.open(path)
    local tokenizer = text_weights.tokenizer(source)
    assert.equal(7, tokenizer.size)
    local model = text_weights.model(source, { head = "mlm" }, tokenizer)
    assert.same({ 64, 3, 12, 0.25 }, { model.features, #model.bert.encoder.layer, model.bert.positions, model.bert.embeddings.dropout.p })
    assert.equal(0.5, text_weights.model(source, { head = "none", dropout = 0.5 }, tokenizer).embeddings.dropout.p)
    assert.equal(0.5, text_weights.config(source, 0.5).attention_probs_dropout_prob)
    assert.equal(0.25, text_weights.config(source).hidden_dropout_prob)
  end)

  it("gives old tokens their rows and new ones small random ones", function()
    local larger = { unpack(tokens) }
    for i = 1, 200 do larger[#larger + 1] = "new" .. i end
    local name = vocab_of(larger)
    local source = text_weights.open(path)
    local model = text_weights.model(source, { head = "mlm" }, text_weights.tokenizer(source, name))
    local rows = model.bert.embeddings.word_embeddings.weight:detach()
    assert.same({ 207, 64 }, rows.shape)
    assert.same_bits(source:tensor "bert.embeddings.word_embeddings.weight", rows:narrow(1, 1, 7):contiguous())
    local new = rows:narrow(1, 8, 200):contiguous()
    -- 12,800 numbers of deviation 0.02: their mean within 4 deviations of it, their deviation too.
    assert.is_true(math.abs(new:mean():item()) < 4 * 0.02 / math.sqrt(12800))
    assert.is_true(math.abs(math.sqrt(new:square():mean():item()) - 0.02) < 4 * 0.02 / math.sqrt(2 * 12800))
    local bias = model.cls.predictions.bias:detach()
    assert.same({ 207 }, bias.shape)
    assert.equal(0, bias:narrow(1, 8, 200):abs():max():item())
    local logits = model:predict(unic.randn(2, 64))
    assert.same({ 2, 207 }, logits.shape)
    os.remove(name)
  end)

  it("reads text as the folder says, and a larger vocabulary in the same way", function()
    local cased = folder .. "/cased"
    local small = { vocab = 7, width = 8, depth = 1, heads = 2, hidden = 16 }
    weights.save_pretrained(cased, bert.Bert(small), { config = bert.config(bert.Bert(small)), tokenizer = text.wordpiece(tokens, { lowercase = false }) })
    local source = text_weights.open(cased)
    assert.equal("cased", text_weights.tokenizer(source):rules())
    local larger = { unpack(tokens) }
    larger[8] = "Ñ"
    local name = vocab_of(larger)
    local tokenizer = text_weights.tokenizer(source, name)
    assert.equal("cased", tokenizer:rules())
    assert.same({ 2, 7, 3 }, tokenizer:encode "Ñ")
    assert.same({ "uncased", "cased" }, { text_weights.tokenizer(nil, name):rules(), text_weights.tokenizer(nil, name, true):rules() })
    os.remove(name)
  end)

  it("refuses vocabularies of other words, and what is no BERT", function()
    local source = text_weights.open(path)
    local turned = vocab_of { "[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "b", "a", "c" }
    assert.raises_at(nil, "token 5 is 'b', and 'a' in", function() text_weights.tokenizer(source, turned) end)
    os.remove(turned)
    unic.save(folder .. "/other.safetensors", { weight = unic.zeros(2, 2) })
    assert.raises_at(nil, "expected a BERT", function() text_weights.open(folder .. "/other.safetensors") end)
    weights.save(folder .. "/bare.safetensors", bert.Bert { vocab = 7, width = 128, depth = 2, heads = 4, hidden = 256, positions = 256 })
    local bare = text_weights.open(folder .. "/bare.safetensors")
    assert.raises_at(nil, "has no vocab.txt", function() text_weights.tokenizer(bare) end)
    -- A weight file without a config.json has the size that is named; its head is made new.
    local name = vocab_of(tokens)
    local model = text_weights.model(bare, { text = "bert_small", head = "mlm" }, text_weights.tokenizer(bare, name))
    assert.same_bits(bare:tensor "embeddings.word_embeddings.weight", model.bert.embeddings.word_embeddings.weight:detach())
    assert.raises_at(nil, "did you mean 'bert_small'", function() text_weights.model(nil, { text = "bert_smal" }, text.wordpiece(tokens)) end)
    os.remove(name)
  end)
end)

describe("pretrain_medunic.lua --text-init", function()
  local folder, path, options
  local MEDUNIC = unic.root .. "recipes/pretrain_medunic.lua"
  setup(function()
    folder = support.folder()
    path = folder .. "/text"
    local model = bert.BertForMaskedLM { vocab = 832, width = 32, depth = 3, heads = 2, hidden = 48, positions = 256, dropout = 0.2 }
    weights.save_pretrained(path, model, { config = bert.config(model), tokenizer = text.wordpiece(phantom.vocab) })
    assert(lfs.mkdir(folder .. "/pairs"))
    require("spec.support.data").write_set(folder .. "/pairs", 40)
    options = { data = folder .. "/pairs", size = 16, text_init = path, steps = 3, batch = 8, warmup = 1, lr = 1e-2, log_every = 1 }
  end)
  teardown(function() support.remove(folder) end)

  -- Names of text tensors in a run's last checkpoint that differ from the folder's.
  local function moved(run)
    local a, b = weights.open(path), unic.files.safetensors_open(run .. "/checkpoints/last.safetensors")
    local names = {}
    for _, name in ipairs(a:names()) do
      local rest = name:match "^bert%.(.*)$"
      if rest then
        local before, after = a:tensor(name), b:tensor("model.text_encoder." .. rest)
        if not testing.same_bits(before, after) then names[#names + 1] = rest end
      end
    end
    a:close()
    b:close()
    return names
  end

  it("takes the encoder, and frozen parts stay to the bit", function()
    local run = folder .. "/frozen"
    testing.recipe(MEDUNIC, merged(options, { freeze = 2, run = run }))
    local names = moved(run)
    assert.is_true(#names > 10)
    for _, name in ipairs(names) do assert.is_truthy(name:find "^encoder%.layer%.2%.", name) end
    testing.recipe(MEDUNIC, merged(options, { freeze = 12, run = folder .. "/all" }))
    assert.same({}, moved(folder .. "/all"))
    testing.recipe(MEDUNIC, merged(options, { run = folder .. "/none" }))
    assert.is_true(#moved(folder .. "/none") > 45)
    -- The run knows its encoder without the folder, and its dropout is the folder's.
    local config = bert.read_config(require("unic.models.medunic").text_config(run))
    assert.same({ 32, 3, 832, 0.2 }, { config.hidden_size, config.num_hidden_layers, config.vocab_size, config.hidden_dropout_prob })
    local was = support.read(run .. "/predictions.csv")
    testing.recipe(unic.root .. "recipes/zeroshot.lua", { run = run })
    assert.equal(was, support.read(run .. "/predictions.csv"))
  end)

  it("goes on after it was cut, to the bit, with the dropout that was given", function()
    local whole, cut = folder .. "/whole", folder .. "/cut"
    local own = merged(options, { steps = 4, save_every = 2, dropout = 0.4, freeze = 1 })
    testing.recipe(MEDUNIC, merged(own, { run = whole }))
    local optim, steps = unic.optim, 0
    local clip = optim.clip_grad_norm
    optim.clip_grad_norm = function(...)
      steps = steps + 1
      if steps == 3 then error("the power is gone", 0) end
      return clip(...)
    end
    local ok = pcall(testing.recipe, MEDUNIC, merged(own, { run = cut }))
    optim.clip_grad_norm = clip
    assert.is_false(ok)
    assert(os.rename(path, path .. "-away"))   -- it needs its own folder alone
    local again, why = pcall(testing.recipe, MEDUNIC, { resume = cut })
    assert(os.rename(path .. "-away", path))
    assert.is_true(again, why)
    local same, difference = require("spec.support.runs").same(whole, cut)
    assert.is_true(same, difference)
    -- Cut before anything was saved, it begins again from the same weights.
    local early = folder .. "/early"
    optim.clip_grad_norm = function() error("the power is gone", 0) end
    ok = pcall(testing.recipe, MEDUNIC, merged(own, { run = early }))
    optim.clip_grad_norm = clip
    assert.is_false(ok)
    testing.recipe(MEDUNIC, { resume = early })
    same, difference = require("spec.support.runs").same(whole, early)
    assert.is_true(same, difference)
  end)

  it("learns the words that are new, also where the rest is frozen", function()
    local vocab = folder .. "/larger.txt"
    unic.files.write_file(vocab, support.read(path .. "/vocab.txt") .. "newword\n")
    local run = folder .. "/larger"
    testing.recipe(MEDUNIC, merged(options, { freeze = 2, vocab = vocab, run = run }))
    local file = unic.files.safetensors_open(run .. "/checkpoints/last.safetensors")
    assert.same({ 833, 32 }, file:info("model.text_encoder.embeddings.word_embeddings.weight").shape)
    local source = weights.open(path)
    assert.is_false((testing.same_bits(source:tensor "bert.embeddings.LayerNorm.weight", file:tensor "model.text_encoder.embeddings.LayerNorm.weight")))
    assert.is_true((testing.same_bits(source:tensor "bert.encoder.layer.1.output.dense.weight", file:tensor "model.text_encoder.encoder.layer.1.output.dense.weight")))
    file:close()
    testing.recipe(unic.root .. "recipes/zeroshot.lua", { run = run })
  end)
end)
