-- The device door, on a device whose memory the host cannot touch and whose launches run late (spec/support/far.c).
local unic = require "unic"

describe("the far device", function()
  local opened, why = unic.core.device_open "far"
  if not opened then pending("far is not built: " .. why) return end

  it("computes and differentiates with the CPU's bits", function()
    local function work(device)
      local g = unic.new_generator(3, device)
      local x = unic.randn(5, 7, { device = device, rng = g, requires_grad = true })
      local w = unic.randn(4, 7, { device = device, rng = g, requires_grad = true })
      local loss = unic.linear(x, w, nil, "gelu"):square():mean()
      loss:backward()
      return loss, x.grad, w.grad
    end
    local a, b = { work "cpu" }, { work "far" }
    for i = 1, 3 do assert.same_bits(a[i], b[i]:detach():to "cpu") end
  end)
  it("trains", function()
    local net = unic.nn.Linear(3, 2):to "far"
    local opt = unic.optim.SGD(net:parameters(), { lr = 0.1, momentum = 0.5 })
    local x = unic.ones(4, 3, { device = "far" })
    local first, last
    for _ = 1, 20 do
      local loss = net(x):square():mean()
      loss:backward()
      opt:step()
      opt:zero_grad()
      first, last = first or loss:item(), loss:item()
    end
    assert.is_true(last < 0.1 * first)
  end)
  it("raises what a late kernel found at the next synchronisation", function()
    local y = unic.embedding(unic.tensor({ 9 }, { dtype = "i64", device = "far" }), unic.zeros(3, 2, { device = "far" }))
    assert.raises_at(nil, "%[embedding%] argument 'ids': value 9", function() unic.synchronize "far" end)
    assert.same({ 1, 2 }, y.shape)
    unic.synchronize "far"
  end)
  it("has a second one, and does not mix them", function()
    local a, b = unic.ones(2, { device = "far:0" }), unic.ones(2, { device = "far:1" })
    assert.raises_at(nil, "it is on far:1 and the tensors before it are on far:0; t:to%(\"far:0\"%) moves it", function() return a + b end)
    assert.same({ 2, 2 }, (a + b:to "far:0"):totable())
    assert.raises_at(nil, "far:7.*there are 2", function() return unic.ones(1, { device = "far:7" }) end)
  end)
  it("lends no pointer", function()
    assert.raises_at(nil, "memory Lua cannot reach", function() return unic.ones(1, { device = "far" }):data_ptr() end)
  end)
end)
