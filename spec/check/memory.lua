-- Memory stays flat: training steps, blocks written with locals, dropped tensors, hooks in cycles, texts of every length
-- Cost: about 5 min
package.path = "./?.lua;" .. package.path
local unic = require "unic"
local support = require "spec.support.check"

local function collect() collectgarbage() collectgarbage() end
local function active()
  collect()
  return unic.memory().active
end

-- Of the whole process, in bytes: VmRSS now, VmHWM its largest so far.
local function process(field)
  local file = assert(io.open("/proc/self/status"))
  local kb = file:read("*a"):match(field .. ":%s+(%d+) kB")
  file:close()
  return tonumber(kb) * 1024
end

-- Each part runs in a process of its own (luajit spec/check/memory.lua NAME), so that no figure depends on the others; it returns its figures.
local parts = {}

function parts.steps()
  unic.manual_seed(1)
  local medunic, losses = require "unic.models.medunic", unic.losses
  local model = medunic {
    vision = "resnet_small", text = "bert_small", vocab = 500, channels = 1, size = 64, hidden = 256, dim = 128, ctr_dim = 128,
  }
  local adamw = unic.optim.AdamW(model:groups { lr = 1e-3, weight_decay = 0.01 })
  local v1, v2 = unic.randn(4, 1, 64, 64), unic.randn(4, 1, 64, 64)
  local ids = unic.randint(1, 500, { 4, 24 })
  local function train()
    local a, b = model:image(v1), model:image(v2)
    local h1, h2 = model:encode_text(ids), model:encode_text(ids)
    local loss = losses.cvl(a, model:project_text(h1)) + losses.ssv(a, b) + losses.ctr(model:project_ctr(h1), model:project_ctr(h2))
    loss:backward()
    unic.optim.clip_grad_norm(model:parameters(), 1)
    adamw:step()
    adamw:zero_grad()
  end
  local at = {}
  for step = 1, 100 do
    train()
    if step == 3 or step == 100 then at[step] = active() end
  end
  return { at_3 = at[3], at_100 = at[100] }
end

-- Twelve pre-norm transformer blocks in plain Lua: every intermediate is a local, nothing is freed by hand.
local BATCH, LENGTH, WIDTH, HEADS, BLOCKS = 8, 128, 384, 6, 12

local function block_parameters()
  local function new(...) return unic.nn.Parameter(unic.randn(...) * 0.02) end
  return { n1 = unic.nn.Parameter(unic.ones(WIDTH)), b1 = new(WIDTH), n2 = unic.nn.Parameter(unic.ones(WIDTH)), b2 = new(WIDTH),
    q = new(WIDTH, WIDTH), k = new(WIDTH, WIDTH), v = new(WIDTH, WIDTH), o = new(WIDTH, WIDTH), up = new(4 * WIDTH, WIDTH), down = new(WIDTH, 4 * WIDTH) }
end

local function forward(x, blocks)
  local shape = { BATCH, LENGTH, HEADS, WIDTH / HEADS }
  for _, p in ipairs(blocks) do
    local normed = unic.layer_norm(x, p.n1, p.b1)
    local q = unic.linear(normed, p.q):reshape(shape)
    local k = unic.linear(normed, p.k):reshape(shape)
    local v = unic.linear(normed, p.v):reshape(shape)
    local mixed = unic.attention(q, k, v)
    local flat = mixed:reshape { BATCH, LENGTH, WIDTH }
    local branch = unic.linear(flat, p.o)
    local middle = x + branch
    local again = unic.layer_norm(middle, p.n2, p.b2)
    local wide = unic.linear(again, p.up)
    local bent = wide:gelu()
    local narrow = unic.linear(bent, p.down)
    x = middle + narrow
  end
  return x:square():mean()
end

-- The limit counts: what is active right before backward when only the loss is held (parameters, the input, what the tape has saved) after a
-- full collection and without packed forms of the weights, and the gradients to come (as many bytes as the parameters). The peak is of the
-- same step with everything that the allocator handed out: packed forms, scratch, garbage not yet collected, gradients in flight.
function parts.blocks()
  unic.manual_seed(1)
  local x, blocks, parameters = unic.randn(BATCH, LENGTH, WIDTH), {}, 0
  for i = 1, BLOCKS do
    blocks[i] = block_parameters()
    for _, p in pairs(blocks[i]) do parameters = parameters + 4 * p:numel() end
  end
  local function step() forward(x, blocks):backward() end
  local function active_with_graph()
    local loss = forward(x, blocks)
    unic.core.drop_derived()
    return active(), loss
  end
  local needed = active_with_graph() + parameters
  collect()
  unic.memory_peak_reset()
  step()
  local first = unic.memory().peak
  for i = 1, BLOCKS do
    for _, p in pairs(blocks[i]) do p.grad = nil end
  end
  step()
  return { needed = needed, first = first, peak = unic.memory().peak }
end

-- Every tensor is written, so that the system has to give the pages.
function parts.dropped()
  for _ = 1, 1000000 do unic.ones(262144) end
  return { peak = unic.memory().peak, process = process "VmHWM" }
end

-- y -> its hook -> y: a cycle through Lua and C that only the collector can take apart.
function parts.hooks()
  local w = unic.nn.Parameter(unic.randn(64, 64))
  local x = unic.randn(256, 64)
  local function step()
    local y = unic.matmul(x, w)
    y:hook(function(g) return g + y end)
    return (y * y):sum()
  end
  local figures = {}
  for i = 1, 10000 do
    step()
    if i == 1000 or i == 10000 then
      figures["active_" .. i] = active()
      figures["lua_" .. i] = collectgarbage "count" * 1024
    end
  end
  figures.peak = unic.memory().peak
  return figures
end

-- Lengths in an order that has the longest first and spreads the others over all steps. By itself the collector comes every 64 to 144 MiB,
-- more than this model needs, and how often depends on the clock: the second half of the figures is of steps that end in a collection.
local function lengths(collected)
  unic.manual_seed(1)
  local text = require("unic.models.bert").bert_small { vocab = 500 }
  local adamw = unic.optim.AdamW(text:groups { lr = 1e-4, weight_decay = 0.01 })
  local figures = {}
  for step = 0, 499 do
    local length = 256 - step * 97 % 254
    text(unic.randint(1, 500, { 4, length })):square():mean():backward()
    adamw:step()
    adamw:zero_grad()
    if collected then collect() end
    if step == 49 or step == 499 then
      local memory = unic.memory()
      figures["peak_" .. step + 1], figures["taken_" .. step + 1] = memory.peak, memory.active + memory.cached
      figures["process_" .. step + 1] = process "VmRSS"
      figures["active_" .. step + 1] = active()
      unic.memory_peak_reset()
    end
  end
  return figures
end
function parts.lengths() return lengths(false) end
function parts.lengths_collected() return lengths(true) end

if arg[1] and parts[arg[1]] then
  for key, value in pairs(parts[arg[1]]()) do io.write(("%s=%d "):format(key, value)) end
  io.write "\n"
  return
end

local check = support.open "memory"
local function run(name)
  local line = check:once(name, function()
    local output, code = support.shell("luajit spec/check/memory.lua " .. name, { timeout = 1200 })
    if code ~= 0 then error(("%s: exit code %d: %s"):format(name, code, output), 0) end
    return output
  end)
  local figures = {}
  for key, value in line:gmatch "([%w_]+)=(%d+)" do figures[key] = tonumber(value) end
  return figures
end

local MB = 2 ^ 20
local steps = run "steps"
check:note("steps_active_mb", steps.at_3 / MB)
check:holds("steps_flat", steps.at_3 == steps.at_100)

local blocks = run "blocks"
check:note("blocks_needed_mb", blocks.needed / MB)
check:note("blocks_first_step", blocks.first / blocks.needed)
check:at_most("blocks_peak", blocks.peak / blocks.needed, 1.15)

local dropped = run "dropped"
check:at_most("dropped_peak_mb", dropped.peak / 1e6, 300)
check:at_most("dropped_process_mb", dropped.process / 1e6, 300)

local hooks = run "hooks"
check:holds("hooks_flat", hooks.active_1000 == hooks.active_10000)
check:at_most("hooks_peak_mb", hooks.peak / 1e6, 160)   -- collections come after 64 to 144 MiB
check:at_most("hooks_lua_growth_mb", (hooks.lua_10000 - hooks.lua_1000) / MB, 0.1)

local own = run "lengths"
check:at_most("lengths_peak_mb", own.peak_500 / 1e6, 200)
check:at_most("lengths_active_growth", own.active_500 / own.active_50, 1)
local exact = run "lengths_collected"
check:note("lengths_collected_peak_mb", exact.peak_50 / 1e6)
check:at_most("lengths_peak_growth", exact.peak_500 / exact.peak_50, 1.02)
check:at_most("lengths_taken_growth", exact.taken_500 / exact.taken_50, 1.02)
check:at_most("lengths_process_growth_mb", (exact.process_500 - exact.process_50) / 1e6, 8)
check:close()
