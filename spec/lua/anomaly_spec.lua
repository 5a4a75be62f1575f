-- Anomaly mode: planted NaNs and infinities, each found where it comes into being, with op, tensor, module and line.
local unic = require "unic"
local nn = require "unic.nn"

local nan, inf = 0 / 0, math.huge

local function leaf(values) return unic.tensor(values, { requires_grad = true }) end

-- A network with names to be found, and a place where a fault can be planted: a function of the hidden state.
local Net = nn.class "Net"
function Net:init(plant)
  self.stem, self.blocks, self.head, self.plant = nn.Linear(4, 8), nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8)), nn.Linear(8, 2), plant
end
function Net:forward(x)
  local h = self.blocks(self.stem(x))
  if self.plant then h = self.plant(h) end
  return self.head(h)
end

local Bad = nn.class "Bad"
function Bad:init(fn) self.fn = fn end
function Bad:forward(x) return self.fn(x) end

local function poison(t, value) unic.no_grad(function() t:reshape({ -1 })[{ { 1, 1 } }]:fill_(value) end) end

local function net_with(name, value)
  local net = Net()
  local t = net
  for key in name:gmatch "[^.]+" do t = t[tonumber(key) or key] end
  poison(t, value)
  return net
end

-- Each: what is done, what the sentence has to say. SPEC is the row's own line.
local rows = {
  { "the logarithm of a negative number", function() leaf({ 1, -1, 2 }):log() end,
    "SPEC: [log] anomaly: its output 'y', f32 [3], has 1 NaN, the first at {2}; its inputs were finite" },
  { "the logarithm of zero", function() leaf({ { 1, 2 }, { 3, 0 } }):log() end,
    "SPEC: [log] anomaly: its output 'y', f32 [2, 2], has 1 infinite value, the first at {2, 2}; its inputs were finite" },
  { "a division of zero by zero", function() return unic.zeros(3) / unic.zeros(3) end, "[div] anomaly: its output 'y', f32 [3], has 3 NaN, the first at {1};" },
  { "the root of a negative number", function() unic.tensor({ 4, -4 }):sqrt() end, "[sqrt] anomaly: its output 'y', f32 [2], has 1 NaN, the first at {2};" },
  { "an overflow of exp", function() unic.tensor({ 100 }):exp() end, "[exp] anomaly: its output 'y', f32 [1], has 1 infinite value" },
  { "a power that overflows", function() return unic.tensor { 1e20 } ^ 2 end, "[pow] anomaly" },
  { "an overflow of f16", function() unic.autocast("f16", function() return unic.full({ 2, 4 }, 300):matmul(unic.full({ 4, 2 }, 300)) end) end,
    "[matmul] anomaly: its output 'y', f16 [2, 2], has 4 infinite values, the first at {1, 1}; its inputs were finite" },
  { "infinity less infinity", function() local x = unic.full({ 2 }, inf) return x - x end,
    "[sub] anomaly: its output 'y', f32 [2], has 2 NaN, the first at {1}; its input 'a' has 2 infinite values already, 'b' has 2 infinite values already" },
  { "a NaN in the data", function() return Net()(unic.tensor { { 1, 2, nan, 4 } }) end,
    "[linear] anomaly: its output 'y', f32 [1, 8], has 8 NaN, the first at {1, 1}; its input 'x' has 1 NaN already; in Net.stem" },
  { "a NaN in a weight", function() return net_with("blocks.3.weight", nan)(unic.ones(2, 4)) end,
    "[linear] anomaly: its output 'y', f32 [2, 8], has 2 NaN, the first at {1, 1}; its input 'weight' has 1 NaN already; in Net.blocks.2" },
  { "a NaN in a bias", function() return net_with("head.bias", nan)(unic.ones(2, 4)) end, "its input 'bias' has 1 NaN already; in Net.head" },
  { "an infinite weight", function() return net_with("stem.weight", inf)(unic.ones(2, 4)):relu():log_softmax():sum() end,
    "[linear] anomaly: its output 'y', f32 [2, 8], has 2 infinite values, the first at {1, 1}; its input 'weight' has 1 infinite value already; in Net.stem" },
  { "a fault inside a module of one's own", function() return Net(Bad(function(h) return (h - h - 1):log() end))(unic.ones(2, 4)) end,
    "[log] anomaly: its output 'y', f32 [2, 8], has 16 NaN, the first at {1, 1}; its inputs were finite; in Net.plant" },
  { "a softmax of minus infinities", function() unic.full({ 2, 3 }, -inf):softmax() end, "[softmax] anomaly: its output 'y', f32 [2, 3], has 6 NaN" },
  { "a normalisation without a spread", function() unic.layer_norm(unic.ones(2, 4), { eps = 0 }) end, "[layer_norm] anomaly" },
  { "the gradient of a root at zero", function() leaf({ 4, 0 }):sqrt():sum():backward() end,
    "SPEC: [sqrt] anomaly: in its backward the gradient of 'x', f32 [2], has 1 infinite value, the first at {2}; the op ran at SPEC" },
  { "the gradient of a norm at zero", function() Net(Bad(function(h) return (h - h):square():sum(-1, true):sqrt() + h end))(unic.ones(2, 4)):sum():backward() end,
    "[sqrt] anomaly: in its backward the gradient of 'x', f32 [2, 1], has 2 infinite values, the first at {1, 1}; the op ran at SPEC in Net.plant" },
  { "a gradient that where lets through", function() local x = leaf { 1, 0 } unic.where(x:gt(0), x:log(), 0):sum():backward() end, "[log] anomaly" },
  { "a backward in Lua", function() unic.fn({ forward = function(x) return x * 1 end, backward = function(_, d) return d * nan end })(leaf { 1 }):backward() end,
    "[mul] anomaly" },
  { "a gradient that comes in", function() leaf({ 1, 2 }):sigmoid():backward { gradient = unic.tensor { nan, 1 } } end,
    "[sigmoid] anomaly: in its backward the gradient of 'x', f32 [2], has 1 NaN, the first at {1}" },
  { "inside a checkpointed piece", function() unic.checkpoint(function(a) return a:sqrt():sum() end, leaf { 0, 4 }):backward() end,
    "[sqrt] anomaly: in its backward" },
  { "in an optimiser's step", function() local p = leaf { 1 } p.grad = unic.tensor { nan } unic.optim.SGD({ p }, { lr = 1 }):step() end,
    "[sgd] anomaly: its output 'params', f32 [1], has 1 NaN, the first at {1}; its input 'grads' has 1 NaN already" },
  { "in a loss", function() unic.losses.cross_entropy(unic.tensor { { inf, 0 } }, unic.tensor({ 1 }, { dtype = "i64" })) end, "[cross_entropy] anomaly" },
}

describe("unic.anomaly", function()
  after_each(function() unic.anomaly(false) end)

  for _, row in ipairs(rows) do
    it("finds " .. row[1], function()
      local info = debug.getinfo(row[2], "S")
      local ok, why = pcall(unic.anomaly, row[2])
      assert.is_false(ok)
      local wanted = row[3]:gsub("SPEC", info.short_src .. ":" .. info.linedefined)
      assert.is_true(why:find(wanted, 1, true) ~= nil, why)
      assert.is_false(unic.anomaly(false), "it was left on")
    end)
  end

  it("lets through what was asked for", function()
    unic.anomaly(true)
    local scores = unic.randn(2, 4, { requires_grad = true })
    local mask = unic.tensor { { true, false, false, true }, { false, false, true, false } }
    local p = scores:masked_fill(mask, -inf):softmax()
    local q = (scores + unic.where(mask, unic.full({ 2, 4 }, -inf), 0)):softmax()
    assert.close(p, q:detach())
    p:square():sum():backward()
    unic.full({ 3 }, inf):relu()
    unic.anomaly(false)
  end)

  it("changes no result", function()
    local function train()
      unic.manual_seed(5)
      local net = Net()
      local optimizer = unic.optim.AdamW(net:parameters(), { lr = 1e-2 })
      for _ = 1, 3 do
        net:zero_grad()
        unic.autocast("bf16", function() net(unic.randn(5, 4)):dropout(.2):square():sum():backward() end)
        optimizer:step()
      end
      return net.head.weight:detach()
    end
    assert.same_bits(train(), unic.anomaly(train))
  end)

  it("gives back what a function returns, and says whether it was on", function()
    assert.same({ 1, nil, 3 }, { unic.anomaly(function(...) return ... end, 1, nil, 3) })
    assert.is_false(unic.anomaly(true))
    assert.is_true(unic.anomaly(true))
    assert.is_true(unic.anomaly(false))
    assert.raises_at(nil, "%[anomaly%] argument 'what': the number 1", function() unic.anomaly(1) end)
  end)
end)
