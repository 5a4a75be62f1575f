local unic = require "unic"
local nn = unic.nn

describe("modules", function()
  local Net = nn.class "Net"
  function Net:init()
    self.conv = nn.Conv2d(2, 3, 3, { padding = 1, bias = false })
    self.bn = nn.BatchNorm2d(3)
    self.head = nn.Sequential(nn.Flatten(), nn.Linear(12, 2))
  end
  function Net:forward(x) return self.head(self.bn(self.conv(x), { relu = true })) end

  it("name parameters and buffers as PyTorch does", function()
    assert.same({ "conv.weight", "bn.weight", "bn.bias", "bn.running_mean", "bn.running_var", "bn.num_batches_tracked", "head.1.weight", "head.1.bias" }, Net():state_names())
  end)
  it("split decayed from plain parameters, and leave frozen ones out", function()
    local net = Net()
    local groups = net:groups { lr = 0.1, weight_decay = 0.5 }
    assert.equal(2, #groups)
    assert.equal(2, #groups[1].params)
    assert.equal(0.5, groups[1].weight_decay)
    assert.equal(0, groups[2].weight_decay)
    net:requires_grad_(false, "^conv")
    assert.equal(1, #net:groups { lr = 0.1 }[1].params)
  end)
  it("train and eval differ by batch norm's statistics, which training moves", function()
    local net = Net()
    local x = unic.randn(4, 2, 2, 2)
    net(x)
    assert.equal(1, net.bn.num_batches_tracked:item())
    local moved = net.bn.running_mean:bytes()
    net:eval()
    local a, b = net(x), net(x)
    assert.same_bits(a, b)
    assert.equal(moved, net.bn.running_mean:bytes())
  end)
  it("load by name, and say what does not fit", function()
    local a, b = Net(), Net()
    local report = b:load_state_dict(a:state_dict())
    assert.equal(8, report.matched)
    assert.same_bits(a.conv.weight, b.conv.weight)
    local dict = a:state_dict()
    dict["extra"], dict["bn.bias"] = unic.zeros(1), nil
    assert.raises_at(nil, "missing: bn.bias; left over: extra", function() b:load_state_dict(dict) end)
    assert.same({ "extra" }, b:load_state_dict(dict, { strict = false }).unexpected)
  end)
  it("convert and keep being trainable", function()
    local net = Net():to "f64"
    assert.equal("f64", net.conv.weight.dtype)
    assert.equal("i64", net.bn.num_batches_tracked.dtype)
    net(unic.randn(2, 2, 2, 2, { dtype = "f64" })):sum():backward()
    assert.is_truthy(net.conv.weight.grad)
    net:zero_grad()
    assert.is_nil(net.conv.weight.grad)
  end)
  it("keep tied weights tied when they are moved", function()
    local net = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    net[2].weight = net[1].weight
    net:to "f64"
    assert.is_true(rawequal(net[1].weight, net[2].weight))
    assert.equal(3, #net:parameters())
  end)
  it("run hooks after forward", function()
    local net, shape = Net(), nil
    local remove = net.conv:hook(function(_, _, y) shape = y.shape end)
    net(unic.randn(1, 2, 2, 2):expand { 3, 2, 2, 2 })
    assert.same({ 3, 3, 2, 2 }, shape)
    remove()
    shape = nil
    net(unic.randn(3, 2, 2, 2))
    assert.is_nil(shape)
  end)
  it("name a misspelt option", function()
    assert.raises_at(nil, "did you mean 'padding'", function() nn.Conv2d(1, 1, 3, { pading = 1 }) end)
    assert.raises_at(nil, "argument 'groups'", function() nn.Conv2d(3, 4, 3, { groups = 2 }) end)
    assert.raises_at(nil, "expected 2", function() nn.BatchNorm1d(3)(unic.zeros(1, 3, 1, 1)) end)
  end)
  it("print their tree", function()
    assert.is_truthy(tostring(Net()):find("(conv) Conv2d(2, 3, 3x3, stride 1, bias = false)", 1, true))
  end)
  it("start from PyTorch's distributions", function()
    local l = nn.Linear(100, 50)
    assert.is_true(l.weight:abs():max():item() <= 0.1 and l.weight:abs():max():item() > 0.09)
    local e = nn.Embedding(50, 8, { padding = 3 })
    assert.equal(0, e.weight[4]:abs():sum():item())
  end)
end)

describe("layers", function()
  it("have right gradients together", function()
    unic.manual_seed(1)
    local attention = nn.MultiheadAttention(8, 2):to "f64"
    local norm = nn.LayerNorm(8):to "f64"
    assert.gradcheck(function(x) return norm(attention(x)) end, { unic.randn(2, 3, 8, { dtype = "f64" }) })
    local y, h = norm:add(unic.ones(2, 8, { dtype = "f64" }), unic.ones(2, 8, { dtype = "f64" }), 0)
    assert.same({ 2, 8 }, y.shape)
    assert.equal(2, h[{ 1, 1 }]:item())
  end)
  it("drop in training only", function()
    local d = nn.Dropout(0.5)
    local x = unic.ones(1000)
    local zeros = d(x):eq(0):sum():item()
    assert.is_true(zeros > 400 and zeros < 600)
    d:eval()
    assert.same_bits(x, d(x))
    local norm = nn.LayerNorm(1000)
    local _, h = norm:add(x, x, 0.5)
    assert.is_false(unic.testing.same_bits(x * 2, h))
    norm:eval()
    _, h = norm:add(x, x, 0.5)
    assert.same_bits(x * 2, h)
  end)
end)

describe("temporaries of modules", function()
  -- Bytes that live after model(x), the result's own not counted. No collection gets in between.
  local function left(model, x)
    return unic.no_grad(function()
      collectgarbage() collectgarbage()
      collectgarbage "stop"
      local before = unic.memory().active
      local y = model(x)
      local now = unic.memory().active
      collectgarbage "restart"
      return now - before - 4 * y:numel()
    end)
  end
  local x = unic.randn(64, 32)
  local size = 4 * 64 * 32

  it("go as soon as the next is made", function()
    local net = nn.Sequential(nn.Linear(32, 32), nn.ReLU(), nn.Sequential(nn.Dropout(0.5), nn.LayerNorm(32)), nn.Flatten(), nn.Linear(32, 32))
    assert.equal(0, left(net, x))
    assert.equal(64, x:size(1))
  end)
  it("stay with whoever may have them", function()
    local kept = {}
    local first, norm = nn.Linear(32, 32), nn.LayerNorm(32)
    local Mine = nn.class("Mine", nn.Linear)
    function Mine:forward(input)
      kept[#kept + 1] = input
      return nn.Linear.forward(self, input)
    end
    local function function_of(input)
      kept[#kept + 1] = input
      return input
    end
    local net = nn.Sequential(first, Mine(32, 32), nn.Identity(), norm, function_of, nn.Linear(32, 32), nn.Sequential(), nn.Linear(32, 32))
    local once
    once = norm:hook(function(_, inputs, y)
      kept[#kept + 1], kept[#kept + 2] = inputs[1], y
      once()
    end)
    net(x)
    assert.equal(4, #kept)
    for _, t in ipairs(kept) do assert.equal(32, t:size(2)) end
    local eval = nn.Sequential(nn.Dropout(0.5), nn.Linear(32, 32)):eval()
    eval(x)
    assert.equal(64, x:size(1))
  end)
  it("stay where a member of a member is looked at", function()
    local inner = nn.Linear(32, 32)
    local net, kept = nn.Sequential(nn.ReLU(), nn.Sequential(inner, nn.ReLU()), nn.ReLU())
    inner:hook(function(_, inputs) kept = inputs[1] end)
    net(x)
    assert.equal(64, kept:size(1))
    assert.equal(size, left(nn.Sequential(nn.ReLU(), function(y) return y * 1 end), x))
  end)
  it("are not missed on the way back", function()
    local grads = {}
    for i = 1, 2 do
      unic.manual_seed(3)
      local net = nn.Sequential(nn.Linear(32, 32), nn.LayerNorm(32), nn.GELU(), nn.Linear(32, 32), nn.Dropout(0.3), nn.Linear(32, 4))
      if i == 2 then net:apply(function(m) m:hook(function() end) end) end   -- nothing goes early
      net(x):sum():backward()
      for n, p in ipairs(net:parameters()) do
        if i == 1 then grads[n] = p.grad else assert.same_bits(grads[n], p.grad) end
      end
    end
  end)
end)
