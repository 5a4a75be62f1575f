local unic = require "unic"
local resnet = require "unic.models.resnet"

local function frozen(model)
  local names = {}
  for _, p in ipairs(model:named_parameters()) do
    if not p.value.requires_grad then names[#names + 1] = p.name end
  end
  return names
end

describe("resnet", function()
  local x
  setup(function()
    unic.manual_seed(8)
    x = unic.randn(3, 3, 32, 32)
  end)

  it("gives the stem's map and every stage's", function()
    local model = resnet.resnet18 { width = 4 }
    local maps, stem = model:maps(x)
    assert.same({ 3, 4, 16, 16 }, stem.shape)
    assert.close(model.bn1(model.conv1(x)):relu(), stem, 1e-6)
    for s, shape in ipairs { { 3, 4, 8, 8 }, { 3, 8, 4, 4 }, { 3, 16, 2, 2 }, { 3, 32, 1, 1 } } do assert.same(shape, maps[s].shape) end
    assert.close(model.layer1(model.maxpool(stem)), maps[1], 1e-5)
    assert.close(model.layer3(maps[2]), maps[3], 1e-5)
  end)

  it("freezes the stem and so many stages", function()
    local function count(stages)
      local model = resnet.resnet18 { width = 4, classes = 2 }
      return #frozen(model:freeze(stages)), model
    end
    assert.equal(0, (count(0)))
    assert.equal(3, (count "stem"))
    assert.equal(3 + 12, (count(1)))
    assert.equal(3 + 12 + 15, (count(2)))
    assert.equal(3 + 12 + 45, (count(4)))
    assert.equal(3 + 12 + 45, (count(9)))
    local n, model = count "all"
    assert.equal(3 + 12 + 45, n)
    assert.is_true(model.fc.weight.requires_grad)
    assert.raises_at(nil, 'expected a number of stages of 0 or more, "stem" or "all"', function() model:freeze(-1) end)
    assert.raises_at(nil, '"batch" or "fixed"', function() model:freeze(1, { norms = "eval" }) end)
  end)

  it("frozen norms go on with their statistics, or keep them when they are fixed", function()
    for _, norms in ipairs { "batch", "fixed" } do
      local model = resnet.resnet18 { width = 4 }
      model(x)   -- statistics that are not those of a fresh norm
      model:freeze(1, { norms = norms }):train()
      local before = {}
      for name, t in pairs(model:state_dict()) do before[name] = t:clone() end
      local y = model(x)
      y:sum():backward()
      local after = model:state_dict()
      for _, name in ipairs { "bn1", "layer1.1.bn2" } do
        for _, what in ipairs { "running_mean", "running_var", "num_batches_tracked" } do
          assert.equal(norms == "fixed", unic.testing.same_bits(before[name .. "." .. what], after[name .. "." .. what]), norms .. " " .. name .. "." .. what)
        end
      end
      assert.is_false(unic.testing.same_bits(before["layer2.0.bn1.running_mean"], after["layer2.0.bn1.running_mean"]))
      assert.is_nil(model.conv1.weight.grad)
      assert.is_truthy(model.layer2[1].conv1.weight.grad)
      if norms == "fixed" then
        -- In training mode, the stem's values are those of evaluation mode.
        local _, trained = model:maps(x)
        local _, evaluated = model:eval():maps(x)
        assert.same_bits(trained, evaluated)
        model:train():freeze(1)   -- and back
        model(x)
        assert.is_false(unic.testing.same_bits(after["bn1.running_mean"], before["bn1.running_mean"]))
      end
    end
  end)

  it("has the same gradients in low memory, and statistics that move once", function()
    local grads, statistics = {}, {}
    for i, run in ipairs { function(fn) return fn() end, unic.low_memory } do
      unic.manual_seed(9)
      local model = resnet.resnet18 { width = 4, classes = 3 }
      run(function() return (model(x):sum()) end):backward()
      grads[i], statistics[i] = {}, model.layer2[1].bn1.running_mean
      for _, p in ipairs(model:named_parameters()) do grads[i][p.name] = p.value.grad end
    end
    for name, grad in pairs(grads[1]) do assert.same_bits(grad, grads[2][name]) end
    assert.same_bits(statistics[1], statistics[2])
  end)

  it("lets go of its temporaries, unless somebody looks", function()
    for _, make in ipairs { resnet.resnet18, resnet.resnet50 } do
      local grads, most, kept = {}, {}, {}
      for i = 1, 2 do
        unic.manual_seed(10)
        local model = make { width = 8, classes = 3 }
        local picture = unic.randn(2, 3, 64, 64)
        if i == 2 then
          model:apply(function(m)
            m:hook(function(_, inputs, y) kept[#kept + 1], kept[#kept + 2] = inputs[1], y end)
          end)
        end
        unic.no_grad(function() model(picture) end)   -- forms of the weights are there from here on
        collectgarbage() collectgarbage()
        collectgarbage "stop"
        local before = unic.memory().active
        local y, map = unic.no_grad(function() return model(picture) end)
        most[i] = unic.memory().active - before - 4 * (y:numel() + map:numel())
        collectgarbage "restart"
        model(picture):sum():backward()
        for n, p in ipairs(model:parameters()) do
          if i == 1 then grads[n] = p.grad else assert.same_bits(grads[n], p.grad) end
        end
      end
      assert.is_true(most[1] < 4096, ("%d bytes are left"):format(most[1]))   -- the pooled features
      assert.is_true(most[2] > 100 * 4096)
      for _, t in ipairs(kept) do assert.is_true(t:numel() > 0) end
    end
  end)
end)
