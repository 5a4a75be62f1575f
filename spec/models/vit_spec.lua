local unic = require "unic"
local vit = require "unic.models.vit"

local function small(more)
  local o = { size = 12, patch = 4, channels = 2, width = 8, depth = 3, heads = 2 }
  for key, value in pairs(more or {}) do o[key] = value end
  return vit.Vit(o)
end

-- Keys' kernel, a = -0.75; the weights of the four places around s, which may lie beyond the border.
local function cubic(s)
  local first, weights = math.floor(s) - 1, {}
  for k = 0, 3 do
    local d, a = math.abs(s - first - k), -0.75
    weights[k] = d <= 1 and (a + 2) * d ^ 3 - (a + 3) * d ^ 2 + 1 or a * d ^ 3 - 5 * a * d ^ 2 + 8 * a * d - 4 * a
  end
  return first, weights
end

local function slow_resize(list, from, to)
  local out = {}
  local function clip(i, n) return math.max(0, math.min(n - 1, i)) end
  for i = 0, to[1] - 1 do
    local y, a = cubic((i + 0.5) * from[1] / to[1] - 0.5)
    for j = 0, to[2] - 1 do
      local x, b = cubic((j + 0.5) * from[2] / to[2] - 0.5)
      local sum = 0
      for u = 0, 3 do
        for v = 0, 3 do sum = sum + a[u] * b[v] * list[clip(y + u, from[1]) * from[2] + clip(x + v, from[2]) + 1] end
      end
      out[#out + 1] = sum
    end
  end
  return out
end

describe("vit", function()
  local x
  setup(function()
    unic.manual_seed(6)
    x = unic.randn(2, 2, 12, 12)
  end)

  it("gives the tokens after every block, with and without the final norm", function()
    local model = small():eval()
    local plain, normed = model:states(x), model:states(x, { norm = true })
    assert.equal(3, #plain)
    assert.same({ 2, 10, 8 }, plain[1].shape)
    for i = 1, 3 do assert.close(model.norm(plain[i]), normed[i], 1e-6) end
    assert.close(normed[3], model:tokens(x), 1e-6)
    -- By hand: the blocks' plain sums.
    local tokens = unic.permute(unic.reshape(model.patch_embed.proj(x), { 2, 8, 9 }), { 1, 3, 2 })
    local h = unic.cat({ unic.expand(model.cls_token, { 2, 1, 8 }), tokens }, 2) + model.pos_embed
    for i = 1, 3 do
      local block = model.blocks[i]
      h = h + block.attn(block.norm1(h))
      h = h + block.mlp(block.norm2(h))
      assert.close(plain[i], h, 1e-5)
    end
    local some = model:states(x, { blocks = { 2, 3 }, map = true, norm = true })
    assert.equal(2, #some)
    assert.same({ 2, 8, 3, 3 }, some[1].shape)
    assert.close(unic.permute(unic.reshape(some[1], { 2, 8, 9 }), { 1, 3, 2 }), normed[2]:narrow(2, 2, 9), 1e-6)
    assert.close(some[2][1]:narrow(2, 1, 1):narrow(3, 2, 1):reshape { 8 }, normed[3][1][3], 1e-6)   -- row 1, column 2: the third token
    assert.raises_at(nil, "an integer from 1 to 3", function() model:states(x, { blocks = { 4 } }) end)
    assert.raises_at(nil, "did you mean 'norm'", function() model:states(x, { nrom = true }) end)
  end)

  it("gradients through the states are those of the tokens, in low memory or not", function()
    local grads = {}
    for i, run in ipairs { function(fn) return fn() end, unic.low_memory } do
      unic.manual_seed(7)
      local model = small()
      local states = run(function() return model:states(x, { norm = true }) end)
      states[3]:square():sum():backward()
      local direct = small()
      direct:load_state_dict(model:state_dict())
      direct:tokens(x):square():sum():backward()
      grads[i] = {}
      local theirs = {}
      for _, p in ipairs(direct:named_parameters()) do theirs[p.name] = p.value.grad end
      for _, p in ipairs(model:named_parameters()) do
        assert.close(p.value.grad, theirs[p.name], 1e-5)
        grads[i][p.name] = p.value.grad
      end
    end
    for name, grad in pairs(grads[1]) do assert.same_bits(grad, grads[2][name]) end
  end)

  it("dropout and drop path act on the states in training mode", function()
    local model = small { dropout = 0.5, drop_path = 0.9 }
    assert.is_false(unic.testing.same_bits(model:states(x)[1], model:states(x)[1]))
    model:eval()
    assert.same_bits(model:states(x)[3], model:states(x)[3])
  end)

  it("has timm's classifier when classes are asked for", function()
    local model = small { classes = 5 }
    assert.same({ 2, 5 }, model(x).shape)
    assert.same({ 5, 8 }, model:state_dict()["head.weight"].shape)
    assert.close(model(x), model.head(unic.select(model:tokens(x), 2, 1)), 1e-6)
    assert.is_nil(small():state_dict()["head.weight"])
  end)

  it("freezes the embeddings and so many blocks", function()
    local function frozen(count)
      local model, names = small { classes = 2 }, {}
      model:freeze(count)
      for _, p in ipairs(model:named_parameters()) do
        if not p.value.requires_grad then names[#names + 1] = p.name end
      end
      return names, model
    end
    assert.same({}, (frozen(0)))
    local names, model = frozen(1)
    assert.equal(4 + 12, #names)
    for _, name in ipairs(names) do assert.is_truthy(name:find "^blocks%.0%." or name:find "^patch_embed%." or name == "cls_token" or name == "pos_embed", name) end
    model(x):sum():backward()
    assert.is_nil(model.pos_embed.grad)
    assert.is_nil(model.blocks[1].attn.qkv.weight.grad)
    assert.is_truthy(model.blocks[2].attn.qkv.weight.grad)
    assert.equal(4 + 36, #(frozen(9)))
    assert.equal(4 + 36 + 2, #(frozen "all"))
    assert.raises_at(nil, 'expected a number of blocks of 0 or more, or "all"', function() model:freeze "some" end)
  end)

  it("resizes positions as bicubic interpolation over the grid, the class token's row kept", function()
    local t = unic.randn(1, 10, 8)
    for _, to in ipairs { { 5, 4 }, { 2, 3 }, { 7, 7 } } do
      local new = vit.resize_positions(t, to)
      assert.same({ 1, to[1] * to[2] + 1, 8 }, new.shape)
      assert.same_bits(new:narrow(2, 1, 1), t:narrow(2, 1, 1))
      for column = 1, 8, 7 do
        local places = t:narrow(2, 2, 9):narrow(3, column, 1):reshape { 9 }:totable()
        assert.close(new:narrow(2, 2, to[1] * to[2]):narrow(3, column, 1):reshape { to[1] * to[2] }, unic.tensor(slow_resize(places, { 3, 3 }, to)), 1e-6)
      end
    end
    assert.close(vit.resize_positions(t, { 3, 3 }), t, 1e-7)
    assert.equal("bf16", vit.resize_positions(unic.cast(t, "bf16"), { 2, 2 }).dtype)
    assert.is_nil(vit.resize_positions(unic.randn(1, 7, 8), { 2, 2 }))
    assert.same({ 1, 5, 8 }, vit.resize_positions(unic.randn(1, 7, 8), { 2, 2 }, { 2, 3 }).shape)
    assert.raises_at(nil, "a grid of 2x2 was given, the tensor has 6 places", function() vit.resize_positions(unic.randn(1, 7, 8), { 2, 2 }, { 2, 2 }) end)
  end)

  it("takes pictures of another size, and adapts a file's positions to them", function()
    local model = small()
    local before = model.pos_embed:detach():clone()
    local wide = small { size = { 8, 20 } }
    assert.same({ 2, 5 }, wide.grid)
    assert.same({ 2, 8 }, wide(unic.randn(2, 2, 8, 20)).shape)
    assert.raises_at(nil, "a picture of 12x12 was given, expected 8x20", function() wide(x) end)
    assert.same_bits(wide:adapt("pos_embed", before), vit.resize_positions(before, { 2, 5 }))
    assert.is_nil(wide:adapt("cls_token", unic.randn(1, 2, 8)))
    assert.is_nil(wide:adapt("pos_embed", unic.randn(1, 10, 6)))
    assert.is_nil(wide:adapt("pos_embed", unic.randn(1, 9, 8)))
    model:resize(20)
    assert.same({ 2, 8 }, model(unic.randn(2, 2, 20, 20)).shape)
    assert.is_true(model.pos_embed.requires_grad)
    assert.same_bits(model:state_dict().pos_embed, vit.resize_positions(before, { 5, 5 }))
    assert.same_bits(model:freeze(1):resize({ 20, 20 }).pos_embed, vit.resize_positions(before, { 5, 5 }))
    assert.is_false(model:resize(8).pos_embed.requires_grad)
    assert.raises_at(nil, "9 is no multiple of the patch size 4", function() model:resize(9) end)
  end)
end)
