-- ./unic bench: its arithmetic, its protocol, and that it refuses ratios between sides that are not alike. Speeds are for the command itself.
local cjson = require "cjson"
local bars = require "spec.bench.bars"
local benches = require "spec.bench.bench"
local fair = require "spec.bench.fair"
local limit = require "spec.bench.limit"
local process = require "spec.bench.process"
local report = require "spec.bench.report"
local sides = require "spec.bench.sides"
local statistics = require "spec.bench.statistics"
local store = require "spec.bench.store"
local support = require "spec.support.files"
local check = require "spec.support.check"

local function close(a, b) assert.is_true(math.abs(a - b) <= 1e-12 * math.abs(b), ("%.17g is not %.17g"):format(a, b)) end

-- What fn writes to standard output.
local function printed(fn)
  local lines, write = {}, io.write
  io.write = function(...)   -- luacheck: ignore
    for _, word in ipairs { ... } do lines[#lines + 1] = tostring(word) end
    return true
  end
  local ok, why = pcall(fn)
  io.write = write   -- luacheck: ignore
  assert(ok, why)
  return table.concat(lines)
end

describe("bench: statistics", function()
  it("takes medians of odd and even numbers of measurements, in any order", function()
    assert.equal(2, statistics.median { 3, 1, 2 })
    assert.equal(2.5, statistics.median { 4, 1, 3, 2 })
    assert.same({ median = 2, min = 1, max = 9, n = 3 }, statistics.summary { 9, 1, 2 })
    assert.has_error(function() statistics.median {} end)
  end)

  it("takes ratios of medians, and of the pairs", function()
    local r = statistics.ratio({ 2, 8, 3 }, { 1, 2, 3 })
    close(r.median, 3 / 2)
    close(r.min, 2 / 1)
    close(r.low, 1)
    close(r.high, 4)
    assert.has_error(function() statistics.ratio({ 1, 2 }, { 1 }) end)
  end)

  it("times a short call many at a time", function()
    local calls = 0
    local times = statistics.time(function() calls = calls + 1 end, { rounds = 3, least = 1e-3, warm = 2 })
    assert.equal(3, #times)
    assert.is_true(calls > 100)
    for _, t in ipairs(times) do assert.is_true(t > 0 and t < 1e-4) end
  end)
end)

describe("bench: steps in turn", function()
  it("take a round again, for both sides, in which the machine stood still", function()
    local bench = setmetatable({ options = { rounds = 5 } }, getmetatable(benches.open("turns", { folder = support.folder() })))
    local order, slow = {}, { [4] = 83 }
    local function side(name, seconds)
      return function()
        order[#order + 1] = name
        return slow[#order] or seconds
      end
    end
    local times, again = bench:alternate { side("a", 1), side("b", 2) }
    assert.equal("a b a b a b a b a b a b", table.concat(order, " "))
    assert.same({ { 1, 1, 1, 1, 1 }, { 2, 2, 2, 2, 2 } }, times)
    assert.equal(1, again)
    -- Slow, but a side's own: it stays.
    order, slow = {}, { [4] = 5 }
    times, again = bench:alternate({ side("a", 1), side("b", 2) }, { rounds = 3, warm = 1 })
    assert.equal("a b a b a b a b", table.concat(order, " "))
    assert.same({ 5, 2, 2 }, times[2])
    assert.equal(0, again)
  end)
end)

describe("bench: the limit", function()
  local peaks = { flops = { f32 = 100, bf16 = 200 }, bytes = 10 }

  it("adds compute and bytes, each type at its own rate", function()
    close(limit.seconds({ flops = 300 }, "f32", peaks), 3)
    close(limit.seconds({ flops = { f32 = 100, bf16 = 400 }, bytes = 50 }, "bf16", peaks), 1 + 2 + 5)
    close(limit.seconds({ flops = 300, bytes = 50, how = "larger" }, "f32", peaks), 5)
    close(limit.seconds({ flops = { bf16 = 100 } }, "bf16", { flops = { f32 = 100 }, bytes = 10 }), 1)
    assert.is_nil(limit.seconds({}, "f32", peaks))
    local large = { flops = { f32 = 5e11, bf16 = 1e12 }, bytes = 1e11 }
    assert.equal("389 Gflop in bf16 at 1000/s + 1.5 Gflop in f32 at 500/s + 5.57 GB at 100/s",
      limit.text({ flops = { f32 = 1.5e9, bf16 = 389e9 }, bytes = 5.57e9 }, "bf16", large))
    assert.equal("2 Gflop at 500/s or 5.57 GB at 100/s", limit.text({ flops = 2e9, bytes = 5.57e9, how = "larger" }, "f32", large))
  end)

  it("is made of a step's products and of what the other launches move", function()
    local function event(op, kind, flops, more)
      local e = { op = op, kind = kind, dtype = "f32", flops = flops, bytes = 7, seconds = 1, made = 40, shape = { 2, 5 } }
      for key, value in pairs(more or {}) do e[key] = value end
      return e
    end
    local work = limit.of_events {
      event("linear", "forward", 10), event("linear", "backward", 20), event("linear", "forward", 10),                      -- the second has no backward
      event("linear", "forward", 30, { dtype = "bf16", seconds = .5 }), event("linear", "backward", 30, { shape = { 9 }, seconds = 1e-4 }),
      event("relu", "forward", 0), event("relu", "backward", 0), event("linear", "form", 0),
    }
    assert.same({ f32 = 70, bf16 = 30 }, work.flops)
    assert.equal(14, work.bytes)
    -- 30 in a tenth of a millisecond would be the best rate, and is not believed.
    assert.same({ f32 = 20, bf16 = 60 }, work.best)
    assert.equal(40, work.kept)
  end)
end)

describe("bench: are the sides alike", function()
  local step = { loss = 2, norm = 10, missing = 0 }
  local function with(t, more)
    local copy = {}
    for k, v in pairs(t) do copy[k] = v end
    for k, v in pairs(more) do copy[k] = v end
    return copy
  end

  it("takes the same first step, and refuses every other", function()
    for _, dtype in ipairs { "f32", "bf16" } do
      local t = fair.tolerance[dtype]
      assert.is_nil(fair.same_step(step, with(step, { loss = 2 * (1 + t.loss / 2), norm = 10 * (1 - t.norm / 2) }), dtype))
      assert.matches("losses differ", fair.same_step(step, with(step, { loss = 2 * (1 + 2 * t.loss) }), dtype))
      assert.matches("gradient norms differ", fair.same_step(with(step, { norm = 10 * (1 + 2 * t.norm) }), step, dtype))
      assert.matches("gradient norms differ", fair.same_step(step, with(step, { norm = 0 / 0 }), dtype))
      assert.matches("missing: 0 of ours, 3 of theirs", fair.same_step(step, with(step, { missing = 3 }), dtype))
    end
    assert.is_nil(fair.same_result(1, 1, "f32"))
    assert.matches("losses differ", fair.same_result(1, 1.1, "f32"))
  end)

  it("looks at threads, cores and OPENBLAS variables", function()
    local hello = { threads = 2, cores = { 0, 1 }, openblas = {} }
    assert.is_nil(fair.same_machine(hello, hello, 2))
    assert.matches("threads", fair.same_machine(hello, with(hello, { threads = 1 }), 2))
    assert.matches("threads", fair.same_machine(hello, hello, 4))
    assert.matches("cores", fair.same_machine(hello, with(hello, { cores = { 0 } }), 2))
    assert.matches("OPENBLAS_CORETYPE", fair.same_machine(hello, with(hello, { openblas = { "OPENBLAS_CORETYPE" } }), 2))
    assert.matches("reference BLAS", fair.same_machine(hello, with(hello, { blas = "/usr/lib/x86_64-linux-gnu/blas/libblas.so.3.11.0" }), 2))
    assert.is_nil(fair.same_machine(hello, with(hello, { blas = "/usr/lib/x86_64-linux-gnu/openblas-openmp/libblas.so.3" }), 2))
  end)

  it("looks at sizes, modes, dropout, gradients and types of what is trained", function()
    local about = { parameters = 5, state = 10, types = { "f32" }, dropout = { .1 }, training = true, gradients_missing = 0 }
    assert.is_nil(fair.same_training(about, about, true))
    for words, more in pairs {
      ["parameters"] = { parameters = 6 }, ["optimiser state"] = { state = 9 }, ["not f32"] = { types = { "f32", "bf16" } }, ["dropout"] = { dropout = {} },
      ["training mode"] = { training = false }, ["have no gradient"] = { gradients_missing = 1 },
    } do
      assert.matches(words, fair.same_training(about, with(about, more), true))
    end
    local still = with(about, { training = false, state = 0 })
    assert.is_nil(fair.same_training(still, with(still, { gradients_missing = 4 }), false))
  end)
end)

describe("bench: processes", function()
  local folder = support.folder()
  local SIDE = [[
    io.write("a library's remark\n", '{"threads": ', os.getenv "SIDE_THREADS" or "0", ', "gone": ', os.getenv "SIDE_GONE" and "false" or "true", '}\n')
    io.flush()
    for line in io.lines() do
      if line == "die" then io.stderr:write("no more memory\n") os.exit(3) end
      io.write('{"line": "', line, '"}\n')
      io.flush()
    end]]

  it("answers lines with objects, in an environment of its own", function()
    require("posix.stdlib").setenv("SIDE_GONE", "1")
    local side = process.start({ "luajit", "-e", SIDE }, { SIDE_THREADS = "3", SIDE_GONE = false }, folder .. "/log")
    require("posix.stdlib").setenv "SIDE_GONE"
    assert.same({ threads = 3, gone = true }, side.hello)
    assert.same({ line = "steps 4" }, side:ask "steps 4")
    local other = process.start({ "luajit", "-e", SIDE }, {}, folder .. "/other")
    side:close()   -- would wait for ever if the other held our end of its pipe
    side:close()
    assert.same({ line = "x" }, other:ask "x")
    other:close()
  end)

  it("says why one has ended", function()
    local side = process.start({ "luajit", "-e", SIDE }, {}, folder .. "/log")
    local ok, why = pcall(side.ask, side, "die")
    assert.is_false(ok)
    assert.matches("ended before it answered", why)
    assert.matches("no more memory", why)
    assert.is_nil(require("lfs").attributes(folder .. "/log"))
    ok, why = pcall(process.start, { "/no/such/program" }, {}, folder .. "/log")
    assert.is_false(ok)
    assert.matches("No such file", why)
  end)

  it("speaks with the worker: steps, sizes, flops, memory, and little memory with the same gradients", function()
    local words = { "luajit", "spec/bench/worker.lua", "work", "resnet50:batch=2,size=32", "f32", "full" }
    local env = { UNIC_THREADS = "1" }
    local side = process.start(words, env, folder .. "/log")
    assert.equal(1, side.hello.threads)
    assert.is_true(#side.hello.cores >= 1)
    local first = side:ask "norm"
    assert.equal(0, first.missing)
    assert.equal(2, #side:ask("steps 2").seconds)
    local about = side:ask "about"
    assert.equal(25557032, about.parameters)
    assert.equal(2 * about.parameters, about.state)
    assert.same({ "f32" }, about.types)
    assert.equal(0, about.gradients_missing)
    side:ask "mark"
    assert.is_true(side:ask("peak").peak > side.hello.imported)
    local work = side:ask "work"
    -- Pictures of 32 x 32 are 1/49 of 224 x 224 but for the classifier; forward and backward are 3 forwards but for the first convolution's picture.
    local convolutions, classifier, stem = (4089184256 - 2048000) / 49 * 2 * 2, 2 * 2 * 2048 * 1000, 2 * 2 * 64 * 16 * 16 * 3 * 49
    assert.equal(3 * (convolutions + classifier) - stem, work.flops.f32)
    assert.equal(4 * about.parameters, work.gradients)
    assert.equal(2 * 3 * 32 * 32 * 4 + 2 * 8, work.inputs)
    side:close()
    words[6] = "low"
    local low = process.start(words, env, folder .. "/log")
    local answer = low:ask "norm"
    low:close()
    assert.equal(first.loss, answer.loss)
    assert.equal(first.norm, answer.norm)
  end)
end)

describe("bench: the best rate known", function()
  it("is the probe's or a kernel's, but not that of an algorithm with fewer multiplications", function()
    local bench = benches.open("rates", { folder = support.folder(), dtypes = { "f32" }, rounds = 3, threads = 2 })
    bench.by_threads[2] = { flops = { f32 = 100 }, bytes = 10, probe = { f32 = { fma = 100 } } }
    bench:reached("f32", 105)
    assert.equal(105, bench:peaks().flops.f32)
    bench:reached("f32", 150)
    bench:reached("bf16", 105)   -- no such instructions
    assert.same({ f32 = 105 }, bench:peaks().flops)
  end)
end)

-- A bench whose processes are tables: the sides differ in what `change` says of the peer's answers.
local function pretended(change)
  local options = { folder = support.folder(), dtypes = { "f32", "bf16" }, rounds = 7, threads = 2, vs = "torch", forms = { "eager" } }
  local bench = benches.open("pretended", options)
  bench.peaks = function() return { flops = { f32 = 1e3, bf16 = 2e3 }, bytes = 1e3 } end
  bench.peers = function()
    return { { key = "1-eager", name = "Peer 1 eager", python = "python", version = "1", form = "eager", run = "eager", shipped = true } }
  end
  bench.asked = {}
  bench.process = function(self, words)
    local peer = words[1] == "python"
    local seconds = peer and 3 or words[6] == "low" and 2.2 or 2
    local side = { hello = { threads = 2, cores = { 0, 1 }, openblas = {}, imported = 1000, isa = "x" } }
    local answers = {
      norm = { loss = 1, norm = 5, missing = 0 }, mark = {}, peak = { peak = peer and 9000 or words[6] == "low" and 3400 or 5000 },
      about = { parameters = 100, state = 200, types = { "f32" }, dropout = {}, training = words[3] == "work" or words[5] == "work", gradients_missing = 0 },
      work = { flops = { f32 = 1000 }, bytes = 500, best = {}, kept = 10, gradients = 400, inputs = 20 },
    }
    if peer and change then change(side.hello, answers) end
    function side.ask(_, line)
      local word, n = line:match "^(%S+)%s*(%d*)$"
      self.asked[#self.asked + 1] = (peer and "theirs " or words[6] .. " ") .. line
      if word ~= "steps" then return answers[word] end
      local list = {}
      for i = 1, tonumber(n) do list[i] = seconds end
      return { seconds = list, loss = answers.norm.loss }
    end
    function side.close() end
    return side
  end
  return bench
end

local function compare(bench, more)
  local o = { name = "resnet50", workload = "resnet50", dtype = "f32", file = "f", peers = bench:lacking(), mode = "work", memory = true, low = true }
  for k, v in pairs(more or {}) do o[k] = v end
  local row
  local text = printed(function() row = bench:judge(sides.compare(bench, o)) end)
  return row, text
end

describe("bench: a comparison", function()
  it("takes steps in turn, with peaks of steps 3 to 10, the ratios and the share of the limit", function()
    local bench = pretended()
    local row = compare(bench)
    assert.equal(7, #row.times)
    close(row.limit, 1 + .5)
    close(row.share, 1.5 / 2)
    local peer = row.peers[1]
    close(peer.ratio.median, 1.5)
    -- Peak minus import minus 4 bytes for each of 100 parameters and 200 of state.
    assert.equal(5000 - 1000 - 1200, row.memory.full)
    assert.equal(9000 - 1000 - 1200, peer.memory)
    assert.equal(3400 - 1000 - 1200, row.memory.low)
    assert.equal(peer.memory, row.memory.leanest)
    close(row.memory.low_speed, 2 / 2.2)
    assert.equal(420, row.memory.bound)
    local timed = table.concat(bench.asked, "; ")
    local turn = "full steps 1; theirs steps 1; "
    assert.is_truthy(timed:find("theirs steps 2; theirs mark; theirs steps 3; " .. turn:rep(5) .. "full peak; theirs peak; " .. turn:rep(2), 1, true), timed)
  end)

  it("has no ratio where the sides are not alike", function()
    for words, change in pairs {
      ["gradient norms differ"] = function(_, answers) answers.norm = { loss = 1, norm = 5.5, missing = 0 } end,
      ["gradients are missing"] = function(_, answers) answers.norm = { loss = 1, norm = 5, missing = 2 } end,
      ["threads"] = function(hello) hello.threads = 1 end,
      ["OPENBLAS"] = function(hello) hello.openblas = { "OPENBLAS_NUM_THREADS" } end,
      ["dropout"] = function(_, answers) answers.about.dropout = { .1 } end,
      ["not f32"] = function(_, answers) answers.about.types = { "bf16" } end,
    } do
      local row = compare(pretended(change))
      assert.matches(words, row.peers[1].refused)
      assert.is_nil(row.peers[1].ratio)
      assert.is_nil(row.memory.leanest)
      local text = report.row(row)
      assert.matches("no ratio: [^\n]*" .. words, text)
      assert.is_nil(text:find("%dx"), text)
    end
    local row = compare(pretended(function(_, answers) answers.norm.loss = 1.5 end), { mode = "infer", memory = false, low = false })
    assert.matches("losses differ", row.peers[1].refused)
  end)

  it("stops where recomputing changes the gradients", function()
    local bench = pretended()
    local start = bench.process
    bench.process = function(self, words, env)
      local side = start(self, words, env)
      local ask = side.ask
      function side.ask(_, line)
        local answer = ask(side, line)
        return line == "norm" and words[6] == "low" and { loss = 1, norm = 5.0000001, missing = 0 } or answer
      end
      return side
    end
    local ok, why = pcall(sides.compare, bench, { name = "resnet50", workload = "resnet50", dtype = "f32", peers = {}, mode = "work", memory = true, low = true })
    assert.is_false(ok)
    assert.matches("recomputing changes the first step", why)
  end)

  it("steps: a bar for the limit, each kind of peer and memory; a peer that was refused meets none", function()
    local function lines(change)
      local bench = pretended(change)
      bench.options.only = "resnet50"
      bench.options.dtypes = { "f32" }
      local text = printed(function() loadfile "spec/bench/suites/steps.lua"()(bench) end)
      return text, bench
    end
    local text, bench = lines()
    for _, line in ipairs {
      "pass bench.steps.resnet50_f32_limit 0.7500 >=0.7200", "pass bench.steps.resnet50_f32_fastest 1.5000 >=1.1500",
      "short bench.steps.resnet50_f32_shipped 1.5000 >=1.7000", "pass bench.steps.resnet50_f32_memory 0.4118 <=0.7000",
      "pass bench.steps.resnet50_f32_memory_low 0.1765 <=0.4000", "pass bench.steps.resnet50_f32_low_speed 0.9091 >=0.8000",
    } do
      assert.is_truthy(text:find(line, 1, true), line .. " in\n" .. text)
    end
    assert.is_false(bench:close())
    text = lines(function(_, answers) answers.norm = { loss = 1, norm = 7, missing = 0 } end)
    for _, bar in ipairs { "fastest", "shipped", "memory", "memory_low" } do
      assert.is_truthy(text:find("short bench.steps.resnet50_f32_" .. bar .. " nil", 1, true), text)
    end
  end)
end)

describe("bench: rows", function()
  it("are kept until they are measured again, and left out under --resume for the same tree", function()
    local bench = pretended()
    bench.options.resume = true
    assert.is_true(bench:wants("a", "f32"))
    printed(function()
      bench:row { name = "a", dtype = "f32", times = { 1, 2, 3 } }
      bench:row { name = "b", value = 4, unit = "MB/s" }
      bench:row { name = "a", dtype = "f32", times = { 5 } }
    end)
    local rows = store.read(bench.options.folder, "pretended").rows
    assert.equal(2, #rows)
    assert.equal(5, rows[1].seconds.median)
    assert.equal("b", rows[2].name)
    local again = benches.open("pretended", bench.options)
    assert.is_false(again:wants("a", "f32"))
    assert.is_true(again:wants("a", "bf16"))
    again.tree = "another"
    assert.is_true(again:wants("a", "f32"))
    bench.options.only = "x,b"
    assert.is_true(again:wants("big", "f32"))
    assert.is_false(again:wants("a", "f32"))
    bench.options.dtypes = { "bf16" }
    assert.is_false(again:wants("big", "f32"))
  end)

  it("of steps get the peers that they do not have yet, beside those that they have", function()
    local bench = pretended()
    local options = bench.options
    options.only, options.dtypes, options.resume = "resnet50", { "f32" }, true
    local own_peers = bench.peers()
    local function run()
      local again = pretended()
      again.options.folder, again.known, again.tree = options.folder, {}, bench.tree
      for key, value in pairs(options) do again.options[key] = value end
      for _, row in ipairs(store.read(options.folder, "pretended").rows) do again.known[store.key(row)] = row end
      again.peers = function() return own_peers end
      printed(function() loadfile "spec/bench/suites/steps.lua"()(again) end)
      return store.read(options.folder, "pretended").rows[1], again.asked
    end
    local row = run()
    assert.equal(1, #row.peers)
    assert.equal(7, #row.times)
    local _, asked = run()
    assert.equal(0, #asked)
    own_peers[2] = { key = "1-tuned", name = "Peer 1 tuned", python = "python", version = "1", form = "tuned", run = "eager", tuned = true }
    row, asked = run()
    assert.equal(2, #row.peers)
    assert.equal(14, #row.times)
    assert.is_nil(table.concat(asked, ";"):find("low", 1, true))
    assert.equal(1200, row.memory.low)
    for _, peer in ipairs(row.peers) do close(peer.ratio.median, 1.5) end

    -- Cut off at the second of two more: what the first gave is there, and the row is still wanted.
    own_peers[3] = { key = "2-eager", name = "Peer 2 eager", python = "python", version = "2", form = "eager", run = "eager" }
    own_peers[4] = { key = "2-tuned", name = "Peer 2 tuned", python = "python", version = "2", form = "tuned", run = "eager", tuned = true }
    local against = fair.same_machine
    local calls = 0
    fair.same_machine = function(...)
      calls = calls + 1
      if calls == 2 then error("cut off", 0) end
      return against(...)
    end
    assert.is_false(pcall(run))
    fair.same_machine = against
    row = store.read(options.folder, "pretended").rows[1]
    assert.is_true(row.part)
    assert.equal(3, #row.peers)
    row, asked = run()
    assert.is_nil(row.part)
    assert.equal(4, #row.peers)
    assert.equal(28, #row.times)
    assert.is_not_nil(row.memory.low)
    assert.equal(1, select(2, table.concat(asked, ";"):gsub("theirs mark", "")))
  end)

  it("become RESULTS.md: bars met and short, ratios, memory", function()
    local bench = pretended()
    local row = compare(bench)
    row.bars = { { name = "one", value = 1.5, at_least = 1.15, aim = 1.4 }, { name = "two", at_least = 1 }, { name = "three", value = 3, at_most = 2 } }
    printed(function() bench:row(row) end)
    local facts = {
      processor = "P", cores = 2, memory = 2 ^ 34, system = "S", kernel = "6", version = "0", isa = "avx2", compiler = "c", luajit = "l", libraries = { x = "1" },
    }
    local kept = store.read(bench.options.folder, "pretended").rows
    local text = report.markdown({ { name = "pretended", title = "Rows", rows = kept }, { name = "none", title = "None", rows = {} } }, facts)
    for _, line in ipairs {
      "Machine: P, 2 cores, 16 GiB", "Peers: PyTorch 1 (x, 2 threads)", "Bars: 1 met, 2 short: two, three", "| one | 1.500 | at least 1.150 | 1.400 | met |",
      "| two | not measured | at least 1.000 |  | **short** |", "| three | 3.000 | at most 2.000 |  | **short** |",
      "| resnet50 | f32 | Peer 1 eager | 3000 ms | 3000 | 3000 | 1.50 | 1.50 | 1.50 to 1.50 | 0 |",
      "| resnet50 | f32 | 2000 ms | 2000 | 2000 | 7 | 1500 | 1e-06 Gflop at 0/s + 5e-07 GB at 0/s | 75 % |",
    } do
      assert.is_truthy(text:find(line, 1, true), line .. " in\n" .. text)
    end
    assert.is_nil(text:find("## None", 1, true))
  end)

  it("of every workload and type have bars", function()
    for _, name in ipairs(require("spec.bench.workloads").names) do
      for _, dtype in ipairs { "f32", "bf16" } do
        local must = bars.steps[name][dtype]
        assert.is_true(must.limit < must.aim.limit and must.aim.limit < 1 and must.fastest < must.aim.fastest and must.fastest <= must.shipped)
      end
    end
  end)
end)

describe("./unic bench", function()
  local function run(words) return check.shell("luajit spec/bench/main.lua " .. words) end

  it("lists its suites with titles and costs, and refuses what it does not know", function()
    local text, code = run ""
    assert.equal(0, code)
    for name in require("lfs").dir "spec/bench/suites" do
      local suite = name:match "^(%w+)%.lua$"
      if suite then assert.matches("\n  " .. suite .. " +%u[^\n]+\n +cost: about %d+", text) end
    end
    for words, said in pairs {
      ["stepz"] = "no suite 'stepz', expected all or one of: steps", ["steps --vs jax"] = "--vs knows no 'jax', expected: torch",
      ["steps --dtype f16"] = "--dtype knows no 'f16'", ["steps --rounds 0"] = "whole number from 1", ["steps --fast"] = "unknown option '--fast'",
      ["steps --only"] = "--only needs a value",
    } do
      text, code = run(words)
      assert.equal(2, code)
      assert.is_truthy(text:find(said, 1, true), text)
    end
  end)

  it("has a probe that this compiler takes", function()
    local program = support.folder() .. "/probe"
    local output, code = check.shell("cc -O3 -Wall -Wextra -Werror -pthread spec/bench/probe.c -o " .. program)
    assert.equal(0, code, output)
    assert.equal(2, select(2, check.shell(program .. " 0")))
  end)

  it("finds no PyTorch where there is none", function()
    assert.same({}, benches.pythons { "/no/such/python" })
    local ok, why = pcall(benches.pythons, { "/no/such/python" }, true)
    assert.is_false(ok)
    assert.matches("/no/such/python has no PyTorch", why)
    assert.is_string(cjson.encode(bars))
  end)
end)
