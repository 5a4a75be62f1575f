-- unic.capture: a step that is recorded once and replayed has the bits of the same steps run eagerly.
local unic = require "unic"
local nn, optim, losses = unic.nn, unic.optim, unic.losses

local STEPS = 6

local function batches(n)
  local list = {}
  for i = 1, n do
    list[i] = { x = unic.randn({ 8, 12 }, { rng = unic.new_generator(i) }), y = unic.randint_(unic.empty({ 8 }, { dtype = "i64" }), 0, 5, { rng = unic.new_generator(100 + i) }) }
  end
  return list
end

-- Losses of some steps and the parameters after them.
local function train(captured, dtype)
  unic.manual_seed(3)
  local model = nn.Sequential(nn.Linear(12, 16), nn.GELU(), nn.Dropout(0.2), nn.LayerNorm(16), nn.Linear(16, 5))
  local adamw = optim.AdamW(model:parameters(), { lr = 1e-2 })
  local function step(x, y)
    adamw:zero_grad()
    local loss = unic.autocast(dtype, function() return losses.cross_entropy(model(x):to "f32", y) end)
    loss:backward()
    optim.clip_grad_norm(model:parameters(), 1)
    adamw:step()
    return loss
  end
  local run = captured and unic.capture(step) or step
  local seen = {}
  for i, batch in ipairs(batches(STEPS)) do seen[i] = run(batch.x, batch.y):item() end
  return seen, model:parameters(), captured and run:launches()
end

describe("a captured step", function()
  for _, dtype in ipairs { "f32", "bf16" } do
    it("has the bits of the eager one, " .. dtype, function()
      local a, p = train(false, dtype)
      local b, q, launches = train(true, dtype)
      assert.same(a, b)
      for i = 1, #p do assert.same_bits(p[i], q[i]) end
      assert.is_true(launches > 10)
      assert.is_true(a[1] ~= a[STEPS])
    end)
  end

  -- What recipes/pretrain_medunic.lua does with a batch: two views, two dropout passes, three losses, clipping, a new learning rate for every step.
  local function pretrain(captured, dtype)
    unic.manual_seed(5)
    local model = require("unic.models.medunic") {
      vision = "resnet_small", text = "bert_small", vocab = 40, channels = 1, size = 32, dim = 16, ctr_dim = 16, hidden = 16, dropout = 0.03, position_map = true,
    }
    model:train()
    local adamw = optim.AdamW(model:groups { lr = 1e-3, weight_decay = 0.05, betas = { 0.9, 0.98 } })
    local function step(view1, view2, tokens, mask)
      adamw:zero_grad()
      local total = unic.autocast(dtype, function()
        local v1, v2 = model:image(view1), model:image(view2)
        local h1, h2 = model:encode_text(tokens, mask), model:encode_text(tokens, mask)
        return losses.cvl(v1, model:project_text(h1), { tau = 0.2 }) + 0.2 * losses.ssv(v1, v2, { tau = 0.1 })
          + 0.05 * losses.ctr(model:project_ctr(h1), model:project_ctr(h2), { terms = "tf+tt" })
      end)
      total:backward()
      local norm = optim.clip_grad_norm(model:parameters(), 5)
      adamw:step()
      return total, norm
    end
    local run = captured and unic.capture(step) or step
    local seen = {}
    for i = 1, 5 do
      local rng = unic.new_generator(i)
      local lengths = unic.tensor({ { 8 }, { 3 }, { 6 }, { 1 + i } }, { dtype = "i64" })
      adamw:set_lr(1e-3 / i)
      local loss, norm = run(unic.randn({ 4, 1, 32, 32 }, { rng = rng }), unic.randn({ 4, 1, 32, 32 }, { rng = rng }),
        unic.randint_(unic.empty({ 4, 8 }, { dtype = "i64" }), 5, 40, { rng = rng }), unic.arange(8):reshape(1, 8):lt(lengths))
      seen[#seen + 1], seen[#seen + 2] = loss:item(), norm:item()
    end
    return seen, model:state_dict()
  end
  for _, dtype in ipairs { "f32", "bf16" } do
    it("has the bits of the eager one in Med-UniC, " .. dtype, function()
      local a, p = pretrain(false, dtype)
      local b, q = pretrain(true, dtype)
      assert.same(a, b)
      assert.is_true(a[1] ~= a[9] and a[2] > 0)
      for name, value in pairs(p) do assert.same_bits(value, q[name]) end
    end)
  end

  it("takes inputs of one shape and type, and says so", function()
    local step = unic.capture(function(x) return x * 2 end)
    for i = 1, 3 do assert.same({ 2 * i, 2 * i }, step(unic.full({ 2 }, i)):totable()) end
    assert.raises_at(nil, "%[capture%] input 1 is f32 %[3%].*it was f32 %[2%]", function() step(unic.ones(3)) end)
    assert.raises_at(nil, "%[capture%] input 1 is f64", function() step(unic.ones({ 2 }, { dtype = "f64" })) end)
    assert.raises_at(nil, "%[capture%] 0 inputs were given, 1 were there", function() step() end)
    assert.raises_at(nil, "%[capture%] argument 'fn'", function() unic.capture(3) end)
    assert.raises_at(nil, "there is no device 'tpu'", function() unic.capture(print, "tpu") end)
  end)

  it("returns several outputs, or none", function()
    local x = unic.ones(3)
    local two = unic.capture(function(a) return a + 1, a * 3 end)
    for i = 1, 4 do
      local p, q = two(x * i)
      assert.equal(i + 1, p:totable()[1])
      assert.equal(3 * i, q:totable()[1])
    end
    local none = unic.capture(function(a) x:copy_(a) end)
    for i = 1, 4 do assert.equal(0, select("#", none(unic.full({ 3 }, i)))) end
    assert.same({ 4, 4, 4 }, x:totable())
  end)
end)
