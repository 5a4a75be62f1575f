-- Every allocation of a training step, of batches and of checkpoints fails once: a sentence each time, nothing lost, the same bits afterwards
-- Cost: about 4 min
package.path = "./?.lua;" .. package.path
local ffi = require "ffi"
local lfs = require "lfs"
local unic = require "unic"
local support = require "spec.support.check"
local core, nn, optim = unic.core, unic.nn, unic.optim

-- ---------------------------------------------------------------- what is allocated now

ffi.cdef [[
  int64_t failing_malloc_after(int64_t n, int64_t times);
  int64_t failing_malloc_live(void);
]]

local function open_files()
  local n = 0
  for _ in lfs.dir "/proc/self/fd" do n = n + 1 end
  return n
end

-- Bytes and blocks of the device, bytes that unic.so has from malloc, files, pipelines. What is kept on purpose goes first: packed weights, and
-- plans unless the case wants them there already.
local keep_plans = false
local function held()
  for _ = 1, 3 do collectgarbage() end
  core.drop_derived()
  if not keep_plans then core.drop_plans() end
  local memory, malloc = unic.memory(), tonumber(ffi.C.failing_malloc_live())
  return {
    bytes = memory.active, blocks = memory.blocks, taken = memory.active + memory.cached, malloc = malloc, files = open_files(),
    pipelines = core.data.live(),
  }
end

-- ---------------------------------------------------------------- the sweep

-- "place: [op] what is wrong", or without a place where there is no line of the user's.
local SENTENCE = "^[^%[]*%[[%w_. ]+%] %S.* %S"

-- case() gets things ready and returns the work; the work returns its bits as a string. switch(n, times) makes allocations fail. Everything is
-- done twice: what is made once and kept (the names of lines, say) is there after the first time, and leaks are counted in the second.
local function sweep(case, switch, times, stride, result)
  local work = case()
  work()
  work = case()
  local expected = work()
  local before, second, n = held(), false, 1
  local function complain(kind, text)
    result[kind] = result[kind] + 1
    if result[kind] <= 5 then io.stderr:write(("%s at allocation %d (%d in a row): %s\n"):format(kind, n, times, text)) end
  end
  while true do
    work = case()
    switch(n, times)
    local ok, bits = pcall(work)
    local counted = switch(0, 0)
    result.tried = result.tried + 1
    if not ok then
      result.failed = result.failed + 1
      if not tostring(bits):match "^[^\n]*":find(SENTENCE) then complain("unclear", tostring(bits)) end
    elseif bits ~= expected then
      complain("other_bits", "the work went through with other bits")
    end
    work = case()
    ok, bits = pcall(work)                                     -- at once: with the plans and packed weights that the failure left
    if not ok then complain("other_bits", "the next one failed: " .. tostring(bits))
    elseif bits ~= expected then complain("other_bits", "the next one has other bits") end
    work = case()                                              -- luacheck: ignore 311
    local after = held()
    for key, value in pairs(after) do
      if second and key ~= "taken" and value > before[key] then
        complain("leaks", ("%d %s"):format(value - before[key], key))
        if key == "malloc" or key == "bytes" then result.leaked = result.leaked + value - before[key] end
      end
    end
    before, n = after, n + stride
    if counted <= n - stride - 1 then
      if second then
        result.grown = result.grown + math.max(0, after.taken - second)
        return
      end
      second, n = after.taken, 1
    end
  end
end

local function runtime_switch(n, times) return core.memory_fail_after(n, times) end
local function malloc_switch(n, times) return tonumber(ffi.C.failing_malloc_after(n, times)) end

-- ---------------------------------------------------------------- training steps

local Net = nn.class "Net"
function Net:init()
  self.conv, self.bn = nn.Conv2d(2, 16, 3, { padding = 1 }), nn.BatchNorm2d(16)
  self.conv2, self.bn2 = nn.Conv2d(16, 16, 3, { padding = 1, bias = false }), nn.BatchNorm2d(16)
  self.words = nn.Embedding(20, 16, { padding = 0 })
  self.attention, self.norm = nn.MultiheadAttention(16, 2, { dropout = 0.1 }), nn.LayerNorm(16)
  self.up, self.dropout, self.down = nn.Linear(16, 32, { activation = "gelu" }), nn.Dropout(0.2), nn.Linear(32, 5)
end
function Net:forward(x, ids)
  local y = self.bn(self.conv(x), { relu = true })
  y = self.bn2(self.conv2(y), { residual = y, relu = true })
  local places = unic.max_pool2d(y, 2, 2, 0):flatten(3):transpose(2, 3)
  local all = unic.cat({ places, unic.cast(self.words(ids), places.dtype) }, 2)
  local mixed = self.norm:add(self.attention(all), all, 0.1)
  return self.down(unic.cast(self.dropout(self.up(mixed)):mean { 2 }, "f32"))
end

local function bits_of(net, loss)
  local parts = { loss:bytes() }
  for _, name in ipairs(net:state_names()) do parts[#parts + 1] = net:state_dict()[name]:bytes() end
  return table.concat(parts)
end

-- A training with its weights as drawn and no optimiser state yet.
local function fresh(options)
  options = options or {}
  unic.manual_seed(3)
  local net = Net()
  local adamw = optim.AdamW(net:groups { lr = 1e-3, weight_decay = 0.01 })
  local x, ids, target = unic.randn(3, 2, 8, 8), unic.randint(1, 20, { 3, 5 }), unic.randint(0, 5, { 3 })
  local function logits() return net(x, ids) end
  local function step()
    local y = options.low and unic.autocast("bf16", logits) or logits()
    local loss = unic.losses.cross_entropy(y, target)
    loss:backward()
    optim.clip_grad_norm(net:parameters(), 0.5)
    adamw:step()
    adamw:zero_grad()
    return loss
  end
  return step, net, adamw
end

local cases = {}

-- The first step of a training: optimiser state, plans and packed weights are made in it.
local function cold(options)
  return function()
    local step, net = fresh(options)
    return function() return bits_of(net, step()) end
  end
end
cases.step = cold()
cases.step_bf16 = cold { low = true }

-- A later step of one training, from the same state each time; plans are there.
function cases.step_warm()
  local step, net, adamw = fresh()
  step()
  local state, saved = { net:state_dict(), adamw:state_dict(optim.names(net)), { core.generator() } }, {}
  for i, part in ipairs(state) do
    saved[i] = {}
    for key, t in pairs(part) do saved[i][key] = t:clone() end
  end
  return function()
    net:zero_grad()
    unic.no_grad(function()
      for i, part in ipairs(state) do
        for key, t in pairs(part) do t:copy_(saved[i][key]) end
      end
    end)
    return function() return bits_of(net, step()) end
  end
end

-- A model asked twice, its weights as they are: packed and cast forms are made the first time and serve the second time.
local function asked(dtype)
  return function()
    local _, net = fresh()
    net:eval()
    local x, ids = unic.randn(2, 2, 8, 8), unic.randint(1, 20, { 2, 5 })
    return function()
      return function() return unic.autocast(dtype, net, x, ids):bytes() .. unic.autocast(dtype, net, x, ids):bytes() end
    end
  end
end
cases.asked, cases.asked_bf16 = asked "f32", asked "bf16"

-- A step recorded, then run again twice.
function cases.replay()
  local step, net = fresh()
  step()
  return function()
    local recording, loss = unic.record(step)
    recording:replay()
    recording:replay()
    return bits_of(net, loss)
  end
end

-- What else the tape can do: ops in Lua, hooks, gradients asked for, kept graphs, scopes, views, in-place changes, other types and layouts.
function cases.tape()
  unic.manual_seed(4)
  local w, x = nn.Parameter(unic.randn(6, 6)), unic.randn(2, 6, 4, 4)
  local cube = unic.fn {
    context = true,
    forward = function(ctx, a) ctx.a = a return a * a * a end,
    backward = function(ctx, dy) return dy * ctx.a * ctx.a * 3 end,
  }
  return function()
    local a = unic.scope(function() return (w * 2):transpose(1, 2):contiguous() end)
    local y = cube(unic.matmul(x:permute { 1, 3, 4, 2 }, a))
    y:hook(function(g) return g * 0.5 end)
    y:retain_grad()
    local z = unic.cat({ y, y:narrow(4, 1, 3) }, 4)
    local loss = (z:softmax() * z):sum() + w:select(1, 2):square():sum()
    loss:backward { keep = true }
    local grads = unic.grad(loss, { w, y })
    local b = x:cast "f64":clone()
    unic.no_grad(function() b[{ 1, {}, 2 }] = 3 end)
    local parts = { loss, w.grad, y.grad, grads[1], grads[2], b, x:sort(2), x:cast "bf16":sum(), unic.tensor { { 1, 2 }, { 3, 4 } } }
    for i, t in ipairs(parts) do parts[i] = t:bytes() end
    w.grad = nil
    return table.concat(parts)
  end
end

-- ---------------------------------------------------------------- files and batches: the C library's allocations

-- In memory where there is such a place: a checkpoint waits for the disk.
local folder = os.tmpname()
os.remove(folder)
if lfs.attributes("/dev/shm", "mode") == "directory" then folder = folder:gsub("^/tmp", "/dev/shm") end

local function checkpoint_case()
  local checkpoint = require "unic.run.checkpoint"
  local path = folder .. "/checkpoints"
  local step, net, adamw = fresh()
  step()
  local names = optim.names(net)
  return function()
    local file = checkpoint.save(path, 1, { model = net, optimizers = { adamw = adamw }, schedules = {}, tensors = {}, names = names }, { step = 1 })
    local saved = checkpoint.open(file)
    checkpoint.restore(saved, { model = net, optimizers = { adamw = adamw } }, names)
    checkpoint.finish(saved)
    unic.files.safetensors_save(folder .. "/one.safetensors", { one = net.conv.weight }, { a = "b" })
    local one = unic.files.safetensors_open(folder .. "/one.safetensors")
    local bits = one:tensor("one"):bytes() .. net.norm.weight:bytes()
    one:close()
    return bits
  end
end
cases.checkpoint = checkpoint_case

-- PyTorch's and NumPy's files, opened and read in every way.
function cases.weights()
  local build = require "spec.support.checkpoints"
  local files_support = require "spec.support.files"
  local p, values = build.pickle, build.floats { 1, 2, 3, 4, 5, 6 }
  local function tensor(stride, legacy) return p.tensor { count = 6, size = { 2, 3 }, stride = stride, legacy = legacy } end
  local function object(legacy) return p.dict("a", tensor({ 3, 1 }, legacy), "b", p.list(tensor({ 1, 2 }, legacy)), "c", p.int(3)) end
  local array = build.npy("{'descr': '>f4', 'fortran_order': True, 'shape': (2, 3), }", values)
  local made = {
    { core.files.torch_open, "a.pt", build.torch(object(), { ["0"] = values }) },
    { core.files.torch_open, "b.pt", build.torch(object(), { ["0"] = values }, { deflated = true }) },
    { core.files.torch_open, "c.pt", build.legacy(object(true), { { "0", 6, values } }) },
    { core.files.npy_open, "d.npy", array },
    { core.files.npy_open, "e.npz", build.zip { { name = "x.npy", data = array, deflated = true }, { name = "y.npy", data = array } } },
  }
  for _, file in ipairs(made) do files_support.write(folder .. "/" .. file[2], file[3]) end
  return function()
    local parts = {}
    for _, file in ipairs(made) do
      local opened = file[1](folder .. "/" .. file[2])
      for _, name in ipairs(opened:names()) do
        local t = unic.zeros(2, 3, { dtype = "f64" })
        opened:read(name, t)
        parts[#parts + 1] = opened:tensor(name):bytes() .. opened:data(name) .. t:bytes()
      end
      opened:close()
    end
    return table.concat(parts)
  end
end

local VIEWS = {
  view1 = { { "random_crop", 12 }, { "rotate", 0, 90 }, { "gamma" }, { "normalize", 0.5, 0.5 } },
  view2 = { { "jitter" }, { "affine" }, { "noise", 0.1 } },
}
local WORDS = { "[PAD]", "[UNK]", "[CLS]", "[SEP]", "report", "it", "has", "sentences", "three", "of", "them", ".", "1", "2", "3" }

local function batch_case(workers)
  return function()
    return function()
      local ds = unic.data.open(folder .. "/set", { size = 16 })
      local tokenizer, parts = unic.text.wordpiece(WORDS), {}
      local options = { batch = 4, seed = 5, views = VIEWS, tokenizer = tokenizer, workers = workers, labels = { "nodule" }, bucket = 2 }
      local it = unic.data.batches(ds, options)
      for batch in it do
        for _, name in ipairs { "view1", "view2", "tokens", "mask", "labels", "index" } do parts[#parts + 1] = batch[name]:bytes() end
        if #parts >= 18 then break end
      end
      it:close()
      return table.concat(parts)
    end
  end
end
cases.batches = batch_case(0)
cases.batches_workers = batch_case(2)

-- ---------------------------------------------------------------- the first step of a process

-- Once per process: allocations n and n + 1 fail somewhere between the seed and the end of the first step, then all is done again.
local function first(n)
  local function work()
    local step, net = fresh()
    return bits_of(net, step())
  end
  runtime_switch(n, 2)
  local ok, why = pcall(work)
  local counted = runtime_switch(0, 0)
  local clear = ok or tostring(why):match "^[^\n]*":find(SENTENCE) ~= nil
  local sum = 0
  for byte in work():gmatch "." do sum = (sum * 31 + byte:byte()) % 2 ^ 40 end
  io.write(("counted=%d failed=%d clear=%d bits=%d\n"):format(counted, ok and 0 or 1, clear and 1 or 0, sum))
end

-- ---------------------------------------------------------------- the parts, each in a process of its own

local C_LIBRARY = { checkpoint = true, weights = true, batches = true, batches_workers = true }

local function part(name, times, stride)
  ffi.C.failing_malloc_after(0, 0)
  lfs.mkdir(folder)
  lfs.mkdir(folder .. "/checkpoints")
  if name:find "^batches" then
    lfs.mkdir(folder .. "/set")
    require("spec.support.data").write_set(folder .. "/set", 13)
  end
  local switches = { runtime_switch }
  if C_LIBRARY[name] then switches = { malloc_switch, runtime_switch } end
  local case = cases[name]
  if name == "step_warm" or name:find "^asked" then case, keep_plans = cases[name](), name == "step_warm" end
  local sum = { tried = 0, failed = 0, unclear = 0, other_bits = 0, leaks = 0, leaked = 0, grown = 0 }
  for _, switch in ipairs(switches) do
    sweep(case, switch, times, stride, sum)
  end
  os.execute("rm -rf '" .. folder .. "'")
  for key, value in pairs(sum) do io.write(("%s=%d "):format(key, value)) end
  io.write "\n"
end

if arg[1] == "first" then return first(tonumber(arg[2])) end
if arg[1] and cases[arg[1]] then return part(arg[1], tonumber(arg[2]) or 2, tonumber(arg[3]) or 1) end

local check = support.open "alloc"
local SHIM = ".cache/check/failing_malloc.so"
local built = os.execute("mkdir -p .cache/check && cc -shared -fPIC -O1 -o " .. SHIM .. " spec/support/failing_malloc.c") == 0
assert(built, "failing_malloc.c does not build")

local function run(name, times, stride)
  local line = check:once(("%s %d"):format(name, times), function()
    local output, code = support.shell(("LD_PRELOAD=%s luajit spec/check/alloc.lua %s %d %d"):format(
      lfs.currentdir() .. "/" .. SHIM, name, times, stride), { timeout = 1200 })
    if code ~= 0 then return ("crashed=%d"):format(code) end
    local problems, last = output:match "^(.*\n)([^\n]*)$"
    if problems then io.stderr:write(name, ": ", problems) end
    return last or output
  end)
  local figures = {}
  for key, value in line:gmatch "([%w_]+)=(%d+)" do figures[key] = tonumber(value) end
  local label = ("%s_%d"):format(name, times)
  check:at_most(label .. "_crashed", figures.crashed or 0, 0)
  if figures.crashed then return end
  check:note(label .. "_tried", figures.tried)
  check:at_least(label .. "_sentences", figures.failed, 1)
  check:at_most(label .. "_unclear", figures.unclear, 0)
  check:at_most(label .. "_leaks", figures.leaks, 0)   -- blocks, files and pipelines too
  check:at_most(label .. "_leaked_bytes", figures.leaked, 0)
  check:at_most(label .. "_grown_mb", figures.grown / 1e6, 1)
  check:at_most(label .. "_other_bits", figures.other_bits, 0)
end

-- One failure at a time, two in a row (only then a block is refused), and all from there on.
for _, name in ipairs { "step_warm", "step", "step_bf16", "asked", "asked_bf16", "tape", "replay" } do
  run(name, 1, 1)
  run(name, 2, 1)
end
run("step_warm", 1000000, 1)
for _, name in ipairs { "checkpoint", "weights", "batches", "batches_workers" } do run(name, 1, 1) end

local line = check:once("first", function()
  local function one(n)
    local output, code = support.shell("luajit spec/check/alloc.lua first " .. n)
    local counted, failed, clear, bits = output:match "counted=(%d+) failed=(%d) clear=(%d) bits=(%d+)"
    if not bits then io.stderr:write("first ", n, ": exit code ", code, ": ", output, "\n") end
    return tonumber(counted), failed == "1", clear == "1", bits
  end
  local counted, _, _, expected = one(1e9)
  local tried, failed, wrong = 0, 0, 0
  for n = 1, counted, math.ceil(counted / 24) do
    local _, refused, clear, bits = one(n)
    tried = tried + 1
    if refused then failed = failed + 1 end
    if not clear or bits ~= expected then wrong = wrong + 1 end
  end
  return ("%d %d %d"):format(tried, failed, wrong)
end)
local tried, failed, wrong = line:match "^(%d+) (%d+) (%d+)$"
check:note("first_tried", tonumber(tried))
check:at_least("first_sentences", tonumber(failed), 1)
check:at_most("first_wrong", tonumber(wrong), 0)
check:close()
