-- Runs: the folder, resuming to the bit, accumulation, refusals, what is written.
local lfs = require "lfs"
local unic = require "unic"
local testing = require "unic.testing"
local unistd = require "posix.unistd"
local run_folder = require "unic.run.folder"
local runs = require "spec.support.runs"
local nn, optim, files = unic.nn, unic.optim, unic.files
local read, steps_done = runs.read, runs.steps_done

local function same_state(a, b, ignored)
  local same, why = runs.same(a, b, ignored)
  assert.is_true(same, why)
end

describe("run", function()
  local base, quiet, threads

  setup(function()
    base = os.tmpname()
    os.remove(base)
    lfs.mkdir(base)
    quiet, threads = testing.quiet, unic.threads()
    testing.quiet, testing.runs = true, base .. "/runs"
    testing.print = function() end
    unic.threads(1)   -- as in the programs below
  end)

  teardown(function()
    runs.remove(base)
    testing.quiet, testing.runs, testing.print = quiet, nil, nil
    unic.threads(threads)
  end)

  -- The toy in this process; stop_at: a step before which the loop is left as a kill would leave it.
  local function toy(options, stop_at)
    local words = { [0] = "toy.lua" }
    for name, value in pairs(options) do words[#words + 1] = ("--%s=%s"):format(name, tostring(value)):gsub("=true$", "") end
    local chunk = assert(loadfile(runs.root .. "/spec/support/toy_run.lua"))
    local env = setmetatable({ arg = words, stop_at = stop_at }, { __index = _G })
    setfenv(chunk, env)
    local before = rawget(_G, "arg")
    rawset(_G, "arg", words)
    local ok, why = pcall(chunk)
    rawset(_G, "arg", before)
    if not ok and not tostring(why):find "killed here" then error(why, 0) end
    return env.the_run
  end

  -- The toy as a program of its own. Returns its process.
  local function spawn(dir, words)
    return runs.spawn("spec/support/toy_run.lua", { "--run=" .. dir, unpack(words) }, { folder = base, log = base .. "/child.log" })
  end

  local function child_log() return read(base .. "/child.log") end

  describe("that goes on", function()
    local whole

    setup(function()
      whole = base .. "/whole"
      toy { run = whole }
    end)

    it("after a kill ends with the same bits", function()
      local dir = base .. "/cut"
      toy({ run = dir, ["save-every"] = 10 }, 14)   -- steps 11 to 13 are lost
      local run = toy { run = dir, resume = true }
      assert.equal(20, run.step)
      same_state(whole, dir)
    end)

    it("with f16 and its loss scale ends with the same bits", function()
      local a, b = base .. "/f16", base .. "/f16-cut"
      toy { run = a, dtype = "f16", accumulate = 2 }
      toy({ run = b, dtype = "f16", accumulate = 2, ["save-every"] = 5 }, 8)
      local run = toy { run = b, resume = true }
      assert.equal(20, run.step)
      same_state(a, b)
      local file = files.safetensors_open(a .. "/checkpoints/last.safetensors")
      assert.equal(65536, file:tensor("state.loss_scale"):item())
      assert.equal(20, file:tensor("state.loss_scale_good"):item())
      file:close()
      local table_of = files.read_csv(a .. "/metrics.csv")
      assert.equal("65536", table_of:get(20, "loss_scale"))
      -- The same training in f32 ends near by.
      toy { run = base .. "/f32", accumulate = 2 }
      local plain = files.read_csv(base .. "/f32/metrics.csv")
      assert.is_true(math.abs(plain:get(20, "loss") - table_of:get(20, "loss")) < 5e-3)
      assert.is_true(math.abs(plain:get(20, "grad_norm") - table_of:get(20, "grad_norm")) < 5e-3)
    end)

    it("inside an accumulation group ends with the same bits", function()
      local a, b = base .. "/groups", base .. "/groups-cut"
      toy { run = a, accumulate = 3, steps = 8 }
      toy({ run = b, accumulate = 3, steps = 8, ["save-every"] = 2 }, 5.5)
      toy { resume = b }
      same_state(a, b)
    end)

    it("without a checkpoint begins again", function()
      local dir = base .. "/early"
      toy({ run = dir }, 4)
      assert.is_nil(lfs.attributes(dir .. "/checkpoints"))
      toy { run = dir, resume = true }
      same_state(whole, dir)
    end)

    it("when it is over makes no step more", function()
      local before = runs.contents(whole .. "/checkpoints/last.safetensors")
      local run = toy { run = whole, resume = true }
      assert.equal(20, run.step)
      assert.same(before, runs.contents(whole .. "/checkpoints/last.safetensors"))
      assert.equal(20, #runs.rows(whole .. "/metrics.csv"))
    end)

    it("after kill -9 at many moments ends with the same bits", function()
      local dir = base .. "/killed"
      local arguments = { "--save-every=1", "--log-every=1", "--slow=0.01" }
      local kills = 0
      for _, at in ipairs { 4, 9, 15 } do
        local pid = spawn(dir, kills > 0 and { "--resume", unpack(arguments) } or arguments)
        local how, code = runs.signal_when(pid, runs.SIGKILL, function() return steps_done(dir) >= at end)
        assert.same({ "killed", runs.SIGKILL }, { how, code }, child_log())
        kills = kills + 1
      end
      assert.same({ "exited", 0 }, { runs.finish(spawn(dir, { "--resume" })) }, child_log())
      same_state(whole, dir)
      assert.truthy(child_log():find "\nresult steps=20 loss=%d")
    end)

    it("after Ctrl-C was saved at the end of the step", function()
      local dir = base .. "/interrupted"
      local pid = spawn(dir, { "--log-every=1", "--slow=0.05" })
      local how, code = runs.signal_when(pid, runs.SIGINT, function() return steps_done(dir) >= 3 end)
      assert.same({ "exited", 130 }, { how, code }, child_log())
      local step = unic.run.open(dir).step
      assert.is_true(step >= 3 and step < 20)
      assert.equal(step, steps_done(dir))
      assert.truthy(child_log():find("stopped after step " .. step, 1, true))
      toy { resume = dir }
      same_state(whole, dir)
    end)

    it("finds a checkpoint whole wherever a write was cut", function()
      -- A write cut short leaves a temporary file; a rename that did not happen leaves the links as they were.
      local dir = base .. "/torn"
      toy({ run = dir, ["save-every"] = 5 }, 13)
      local folder = dir .. "/checkpoints/"
      local torn = io.open(folder .. "step-15.safetensors.tmp-1-1", "wb")
      torn:write(read(folder .. "step-10.safetensors"):sub(1, 100))
      torn:close()
      unistd.link("step-15.safetensors", folder .. "last.safetensors.tmp-1", true)
      toy { resume = dir }
      same_state(whole, dir)
      for name in lfs.dir(folder) do assert.is_nil(name:find "tmp", name .. " is left over") end
    end)

    it("after kill -9 in the middle of a checkpoint's write goes on from the one before", function()
      local dir = base .. "/writing"
      for kill = 1, 3 do
        local pid = spawn(dir, { "--ballast=30", "--save-every=1", kill > 1 and "--resume" or nil })
        local how = runs.signal_when(pid, runs.SIGKILL, function() return steps_done(dir) > 2 * kill and runs.is_writing(dir) end)
        assert.equal("killed", how, child_log())
        assert.is_true(unic.run.open(dir).step > 0)
      end
      assert.same({ "exited", 0 }, { runs.finish(spawn(dir, { "--resume", "--save-every=0" })) }, child_log())
      same_state(whole, dir, "state.ballast")
    end)

    it("with another number of workers sees the same batches", function()
      local a, b = base .. "/workers", base .. "/workers-cut"
      toy { run = a, pictures = true, workers = 2, steps = 12 }
      toy({ run = b, pictures = true, workers = 2, steps = 12, ["save-every"] = 4 }, 8)
      local run = toy { resume = b, workers = 0 }
      assert.equal(0, run.options.workers)
      same_state(a, b)
      assert.truthy(run_folder.read_manifest(b).data.train.hash)
    end)

    it("refuses other options, naming them, and takes over those not given", function()
      local dir = base .. "/options"
      toy({ run = dir, lr = 0.02, ["save-every"] = 2 }, 5)
      assert.raises_at(nil, "other options: batch is 4 here and 8 in the run; lr is 0.5 here and 0.02 in the run", function()
        toy { resume = dir, lr = 0.5, batch = 4 }
      end)
      local run = toy { resume = dir, ["log-every"] = 3 }
      assert.same({ 0.02, 3 }, { run.options.lr, run.options.log_every })
    end)

    it("compares lists by what is in them", function()
      local dir = base .. "/lists"
      unic.run("lists", { run = dir, sizes = { 1, 2 } })
      assert.same({ 1, 2 }, unic.run("lists", { resume = dir, sizes = { 1, 2 } }).options.sizes)
      assert.raises_at(nil, "sizes is 1,3 here and 1,2 in the run", function() unic.run("lists", { resume = dir, sizes = { 1, 3 } }) end)
    end)

    it("refuses other data, another vocabulary, another model, a missing optimiser", function()
      local dir = base .. "/data"
      local function dataset(hash) return { hash = function() return hash end, n = 7, split = "train" } end
      local tokens = { "[PAD]", "[UNK]", "[CLS]", "[SEP]", "a" }
      local words = unic.text.wordpiece(tokens)
      local function start(resume)
        return unic.run("toy", { run = not resume and dir or nil, resume = resume and dir or nil, steps = 2 })
      end
      local run = start()
      run:data("train", dataset "abc")
      run:vocabulary(words)
      local model = nn.Linear(2, 2)
      local sgd = optim.SGD(model:parameters(), { lr = 0.1, momentum = 0.9 })
      run:attach { model = model, optimizers = { sgd = sgd } }
      for x in run:batches { unic.ones(1, 2) } do   -- luacheck: ignore 512
        run:backward(unic.sum(model(x)))
        sgd:step()
        break
      end
      run:finish()
      assert.equal(1, run.step)
      assert.same({ hash = "abc", n = 7, split = "train" }, run_folder.read_manifest(dir).data.train)
      run = start(true)
      assert.raises_at(nil, "'train' has other contents than in .*hash xyz here, abc there", function() run:data("train", dataset "xyz") end)
      assert.raises_at(nil, "vocabulary is another one.*hash " .. words:hash() .. " cased here, " .. words:hash() .. " there", function()
        run:vocabulary(unic.text.wordpiece(tokens, { lowercase = false }))
      end)
      tokens[5] = "b"
      assert.raises_at(nil, "vocabulary is another one.*hash %x+ here, " .. words:hash() .. " there", function() run:vocabulary(unic.text.wordpiece(tokens)) end)
      assert.equal(words:hash(), run:vocabulary(words):hash())
      assert.equal("uncased", unic.text.from_pretrained(dir):rules())
      assert.raises_at(nil, "weight is 3x2 here and 2x2 there", function() run:attach { model = nn.Linear(2, 3) } end)
      run:attach { model = model }
      assert.raises_at(nil, "holds 'optim%.[%w_.]+' and nothing is attached that takes it", function() run:batches { unic.ones(1, 2) } end)
      run = start(true)
      assert.raises_at(nil, "nothing is attached", function() run:batches { unic.ones(1, 2) } end)
    end)

    it("needs a run to go on with", function()
      assert.raises_at(nil, "no run of nothing in", function() unic.run("nothing", { resume = true }) end)
      assert.raises_at(nil, "is no run folder", function() unic.run("toy", { resume = base }) end)
      assert.raises_at(nil, "is a run of toy, expected one of other", function() unic.run("other", { resume = whole }) end)
      assert.raises_at(nil, "holds a run already", function() unic.run("toy", { run = whole }) end)
    end)
  end)

  describe("in its loop", function()
    -- One weight, loss = w * x: the gradient is x.
    local function linear(options)
      options.run = options.run or os.tmpname():gsub("^.*/", base .. "/loop-")
      local run = unic.run("linear", options)
      local model = nn.Linear(1, 1, { bias = false })
      local sgd = optim.SGD(model:parameters(), { lr = 1 })
      unic.no_grad(function() model.weight:fill_(0) end)
      run:attach { model = model, optimizers = { sgd = sgd } }
      return run, model, sgd
    end

    local function inputs(...)
      local list = {}
      for i, x in ipairs { ... } do list[i] = unic.tensor { { x } } end
      return list
    end

    it("steps once for every --accumulate batches, by the mean of their gradients", function()
      local run, model, sgd = linear { steps = 3, accumulate = 2 }
      local seen = {}
      for x, step in run:batches(inputs(1, 2, 3)) do
        seen[#seen + 1] = ("%d.%d"):format(run.epoch, step)
        if run:backward(unic.sum(model(x))) then sgd:step() end
      end
      -- Gradients (1+2)/2, (3+1)/2, (2+3)/2.
      assert.equal(-6, model.weight:item())
      assert.same({ "1.1", "1.1", "1.2", "2.2", "2.3", "2.3" }, seen)
      assert.equal(3, run.step)
      local csv = files.read_csv(run.dir .. "/metrics.csv")
      -- Mean over the group of w * x, w = 0, -1.5, -3.5.
      assert.same({ "0", "-3", "-8.75" }, { csv:get(1, "loss"), csv:get(2, "loss"), csv:get(3, "loss") })
      assert.same({ "1", "2", "2" }, { csv:get(1, "epoch"), csv:get(2, "epoch"), csv:get(3, "epoch") })
    end)

    it("counts epochs into steps", function()
      local run = linear { epochs = 2, accumulate = 2 }
      assert.equal(3, run:steps(inputs(1, 2, 3)))
      assert.raises_at(nil, "a function does not tell", function() run:steps(function() end) end)
      assert.raises_at(nil, "neither %-%-steps nor %-%-epochs", function() linear({}):steps(inputs(1)) end)
      assert.raises_at(nil, "1 batches make no step", function() linear({ epochs = 1, accumulate = 2 }):steps(inputs(1)) end)
    end)

    it("says when something is due", function()
      local run = linear { steps = 7, accumulate = 2 }
      local due = {}
      for _ in run:batches(inputs(1)) do
        if run:every(3) then due[#due + 1] = run.step end
        assert.is_false(run:every(0))
      end
      assert.same({ 3, 6 }, due)
    end)

    it("writes losses under their names, others in columns of their own, learning rates of their step", function()
      local run, model, sgd = linear { steps = 3, log_every = 2 }
      local sched = optim.schedule(sgd, function(at) return 10 - at end)
      for x, step in run:batches(inputs(2)) do
        run:backward(unic.sum(model(x)))
        sched:step()
        run:log({ cvl = unic.tensor(step), mine = 0.5 }, { grad_norm = 4 })
        if step == 3 then run:log { late = 1 / 3 } end
      end
      local csv = files.read_csv(run.dir .. "/metrics.csv")
      assert.equal("step,epoch,seconds,images_per_s,lr,loss,cvl,ssv,ctr_tf,ctr_tt,grad_norm,loss_scale,mem_active_mb,mem_peak_mb,mine,late",
        read(run.dir .. "/metrics.csv"):match "^[^\n]*")
      local rows = {}
      for i = 1, 3 do
        local cells = {}
        for k, name in ipairs { "step", "lr", "loss", "cvl", "ssv", "mine", "grad_norm", "late" } do cells[k] = csv:get(i, name) end
        rows[i] = table.concat(cells, " ")
        assert.is_true(tonumber(csv:get(i, "mem_peak_mb")) >= 0 and tonumber(csv:get(i, "images_per_s")) > 0)
      end
      assert.same({ "1 10 0 1  0.5 4 ", "2 9 0 2  0.5 4 ", "3 8 0 3  0.5 4 0.333333333" }, rows)
    end)

    it("stops at a loss that is not a number, naming step and loss", function()
      local run = linear { steps = 5 }
      assert.raises_at(nil, "the loss 'ssv' is nan at step 3 %(cvl 1%)", function()
        for _, step in run:batches(inputs(1)) do run:log { cvl = 1, ssv = step == 3 and 0 / 0 or 2 } end
      end)
      assert.equal(3, steps_done(run.dir))
      assert.is_nil(lfs.attributes(run.dir .. "/checkpoints"))
      run = linear { steps = 2 }
      assert.raises_at(nil, "the loss 'loss' is inf at step 1", function()
        for x in run:batches(inputs(1)) do run:backward(unic.full({}, math.huge, { requires_grad = true }), x) end
      end)
    end)

    it("refuses what it cannot log", function()
      local run = linear { steps = 1 }
      assert.raises_at(nil, "is for the loop", function() run:log { a = 1 } end)
      for _ in run:batches(inputs(1)) do
        assert.raises_at(nil, "'a' has 2 elements", function() run:log { a = unic.zeros(2) } end)
        assert.raises_at(nil, "'a' is a string", function() run:log { a = "1" } end)
        assert.raises_at(nil, "'step' is written by the run itself", function() run:log { step = 1 } end)
        assert.raises_at(nil, "'a b' is no name", function() run:log { ["a b"] = 1 } end)
      end
      assert.raises_at(nil, "a loop already", function() run:batches(inputs(1)) end)
    end)

    it("keeps the newest two checkpoints and the best", function()
      local run = linear { steps = 9, save_every = 2 }
      local goodness = { 1, 3, 2, 3, 0, 0, 0, 0, 0 }
      for _, step in run:batches(inputs(1)) do assert.equal(step <= 2, run:best(goodness[step])) end
      local names = {}
      for name in lfs.dir(run.dir .. "/checkpoints") do
        if not name:find "^%." then names[#names + 1] = name end
      end
      table.sort(names)
      assert.same({ "best.safetensors", "last.safetensors", "step-2.safetensors", "step-8.safetensors", "step-9.safetensors" }, names)
      assert.equal("step-9.safetensors", unistd.readlink(run.dir .. "/checkpoints/last.safetensors"))
      assert.equal("step-2.safetensors", unistd.readlink(run.dir .. "/checkpoints/best.safetensors"))
    end)

    it("ends early with break, after the step", function()
      local run, model, sgd = linear { steps = 9, accumulate = 2 }
      local n = 0
      for x in run:batches(inputs(1)) do
        n = n + 1
        if run:backward(unic.sum(model(x))) then sgd:step() end
        if n == 5 then break end
      end
      run:result { { "steps", run.step } }
      assert.equal(2, run.step)   -- half of the third does not count
      assert.equal(2, unic.run.open(run.dir).step)
    end)

    it("goes on before the half of a step that break left", function()
      local run = linear { steps = 9, accumulate = 2 }
      local n = 0
      for _ in run:batches(inputs(1, 2, 3)) do
        n = n + 1
        if n == 5 then break end
      end
      run:finish()
      -- Two steps took four batches: the next is the second of the second epoch.
      local again = linear { run = run.dir, resume = true }
      local batch = again:batches(inputs(1, 2, 3))()
      again:finish()
      assert.equal(2, batch:item())
    end)

    it("says when the data are over", function()
      local run = linear { steps = 3 }
      assert.raises_at(nil, "the data ended in step 1 of 3", function()
        for _ in run:batches(function() return function() end end) do error "no batch was expected" end
      end)
    end)

    it("keeps memory as it is", function()
      local run, model = linear { steps = 60, log_every = 1, save_every = 20 }
      local active = {}
      for x, step in run:batches(inputs(1)) do
        local big = unic.zeros(1000, 100)
        run:log { a = unic.sum(big) }
        run:backward(unic.sum(model(x)))
        if step == 4 or step == 60 then
          collectgarbage()
          active[#active + 1] = unic.memory().active
        end
      end
      assert.equal(active[1], active[2])
    end)
  end)

  describe("and its folder", function()
    it("have the next number, and runs/last names it", function()
      local first = unic.run("counted", { steps = 1 })
      local second = unic.run("counted", { steps = 1 })
      assert.same({ base .. "/runs/counted/1", base .. "/runs/counted/2" }, { first.dir, second.dir })
      assert.equal("counted/2", unistd.readlink(base .. "/runs/last"))
      assert.equal("counted", unic.run.open(base .. "/runs/last").name)
    end)

    it("say what was run", function()
      local run = toy { run = base .. "/facts", batch = 3, steps = 2 }
      local record = run_folder.read_record(run.dir)
      assert.same({ "toy", 3, 0.01 }, { record.recipe, record.options.batch, record.options.lr })
      local manifest = run_folder.read_manifest(run.dir)
      assert.same({ 1, unic.version, unic.device() }, { manifest.seed, manifest.version, manifest.device })
      assert.truthy(manifest.libraries.oneDNN)
      assert.truthy(manifest.result:find "^result steps=2 loss=%d+%.%d%d%d%d absent=nan$")
      assert.truthy(read(run.dir .. "/log.txt"):find "result steps=2")
      local html = read(run.dir .. "/report.html")
      assert.truthy(html:find("<svg", 1, true) and html:find("resumed", 1, true) == nil and html:find("</html>", 1, true))
    end)

    it("hold options of every kind, as data", function()
      local dir = base .. "/literal"
      lfs.mkdir(dir)
      local options = { a = 0.1, b = 1e-320, c = 2 ^ 53 + 2, d = 'x"\n\r\\\0y', e = { 1, 2.5 }, f = { "a" }, g = false, h = {}, ["end"] = 1, i = math.huge }
      run_folder.write_record(dir, "r", options)
      assert.same(options, run_folder.read_record(dir).options)
      local file = io.open(dir .. "/run.lua", "w")
      file:write "return { recipe = 'r', options = { a = os.time() } }"
      file:close()
      assert.raises_at(nil, "does not hold the options", function() run_folder.read_record(dir) end)
    end)

    it("collect evaluations, predictions and skipped rows", function()
      local run = unic.run("outputs", { steps = 1 })
      run.step = 5
      run:eval { { split = "test", metric = "auc", language = "es", finding = "mass, left", value = unic.tensor(0.5), n = 3 } }
      run:eval { { step = 7, metric = "auc", value = 1 / 3 } }
      assert.equal('step,split,metric,language,finding,value,n\n5,test,auc,es,"mass, left",0.5,3\n7,,auc,,,0.333333333,\n', read(run.dir .. "/eval.csv"))
      run:predictions({ { image = "a.png", mass = 0.25 } }, { "image", "mass" })
      assert.equal("image,mass\na.png,0.25\n", read(run.dir .. "/predictions.csv"))
      run:skipped { { row = 4, path = "b.png", reason = "no such file" } }
      run:skipped { { row = 9, path = "c.png", reason = "cut" } }
      assert.equal("row,path,reason\n4,b.png,no such file\n9,c.png,cut\n", read(run.dir .. "/skipped.csv"))
      run:result { { "steps", 12 }, { "auc", unic.tensor(0.25) }, { "gap", 0 / 0 }, { "word", "a b" }, { "seconds", 3 } }
      assert.truthy(read(run.dir .. "/log.txt"):find "2 rows were left out, listed in .*skipped.csv\n.*result steps=12 auc=0.2500 gap=nan word=a_b seconds=3.0000\n")
      local strict = unic.run("outputs", { strict = true })
      assert.raises_at(nil, "row 4 %(b.png%): no such file, and 1 rows more", function()
        strict:skipped { { row = 4, path = "b.png", reason = "no such file" }, { row = 5, reason = "x" } }
      end)
    end)

    it("are listed", function()
      local lines = {}
      testing.print = function(text) lines[#lines + 1] = text end
      toy { steps = 2 }
      toy { steps = 3 }
      lines = {}
      local list = unic.run.list { "toy" }
      testing.print = function() end
      assert.equal(#list + 1, #lines)
      local last = list[#list]
      assert.same({ "toy", 3, 3 }, { last.recipe, last.steps, last.total })
      assert.truthy(lines[1]:find "^run +started +steps +loss +result$")
      assert.truthy(lines[#lines]:find "runs/toy/%d+ +%d+%-%d+%-%d+ %d+:%d+ +3/3 +%d+%.%d+ +steps=3 loss=")
      assert.same({}, unic.run.list { "unheard-of" })
    end)

    it("give their weights to a model", function()
      local run = toy { run = base .. "/weights", steps = 3, ["save-every"] = 1 }
      local open = unic.run.open(base .. "/weights/")
      assert.same({ 3, 8 }, { open.step, open.options.batch })
      local model = nn.Linear(6, 3)
      open:load(model)
      assert.same_bits(run.attached.model.weight, model.weight)
      assert.is_true(model.training)   -- as it was
      open:load(model, { ema = true })
      assert.same_bits(run.attached.ema.average[1], model.weight)
      open:load(model, { which = 2 })
      assert.equal(2, unic.run.open(base .. "/weights/checkpoints/step-2.safetensors").step)
      assert.raises_at(nil, "is a file outside a run folder", function() unic.run.open(runs.root .. "/unic") end)
      assert.raises_at(nil, "has no checkpoint 'best'", function() open:load(model, { which = "best" }) end)
      assert.raises_at(nil, "there is no '", function() unic.run.open(base .. "/nowhere") end)
      assert.raises_at(nil, "is no run folder", function() unic.run.open(base) end)
    end)

    it("are not made by --dry", function()
      local text
      testing.print = function(line) text = line end
      local ok, why = pcall(toy, { dry = true, run = base .. "/dry" })
      testing.print = function() end
      assert.same({ false, "dry run" }, { ok, why })
      -- 21 parameters of 4 bytes, with gradients, two moments and an average.
      assert.truthy(text:find "^21 parameters %(21 trained%)")
      assert.is_nil(lfs.attributes(base .. "/dry"))
    end)
  end)
end)
