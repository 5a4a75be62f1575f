local unic = require "unic"

-- The definition, in loops: the sum over all values of all labels, for equations without "...".
local function by_hand(equation, ...)
  local inputs, out = equation:match "^(.-)%->(.*)$"
  local operands, terms, size, labels = { ... }, {}, {}, {}
  for term in (inputs .. ","):gmatch "([^,]*)," do terms[#terms + 1] = term end
  for i, term in ipairs(terms) do
    for d = 1, #term do
      local label = term:sub(d, d)
      if not size[label] then labels[#labels + 1] = label end
      if not size[label] or size[label] == 1 then size[label] = operands[i]:size(d) end
    end
  end
  local flat = {}
  for i, x in ipairs(operands) do flat[i] = x:reshape(-1):totable() end
  local shape, n = {}, 1
  for d = 1, #out do
    shape[d] = size[out:sub(d, d)]
    n = n * shape[d]
  end
  local result, value = {}, {}
  for i = 1, n do result[i] = 0 end
  local function place(term, dims)
    local at = 0
    for d = 1, #term do
      local v = dims[d] == 1 and 0 or value[term:sub(d, d)]
      at = at * dims[d] + v
    end
    return at + 1
  end
  local function loop(l)
    if l > #labels then
      local p = 1
      for i, term in ipairs(terms) do p = p * flat[i][place(term, operands[i].shape)] end
      local at = place(out, shape)
      result[at] = result[at] + p
      return
    end
    for v = 0, size[labels[l]] - 1 do
      value[labels[l]] = v
      loop(l + 1)
    end
  end
  loop(1)
  return unic.reshape(unic.tensor(result, { dtype = "f64" }), shape)
end

local function tensors(...)
  local list = {}
  for i, shape in ipairs { ... } do list[i] = unic.randn(shape, { dtype = "f64", rng = unic.new_generator(40 + i) }) end
  return list
end

local function close(want, got, what)
  assert.same(want.shape, got.shape, what)
  assert.is_true(want:numel() == 0 or unic.max(unic.abs(want - got)):item() < 1e-12, what)
end

describe("einsum", function()
  local cases = {
    { "ij->", { 2, 3 } }, { "ij->ij", { 2, 3 } }, { "ij->ji", { 2, 3 } }, { "ij->j", { 2, 3 } }, { "ii->i", { 3, 3 } }, { "ii->", { 3, 3 } }, { "iij->ji", { 3, 3, 2 } },
    { "ijij->ji", { 2, 3, 2, 3 } }, { "iii->i", { 3, 3, 3 } }, { "aabbc->cba", { 2, 2, 3, 3, 4 } }, { "ii->i", { 1, 1 } },
    { "ij,jk->ik", { 2, 3 }, { 3, 4 } }, { "bij,bjk->bik", { 2, 3, 4 }, { 2, 4, 5 } }, { "i,j->ij", { 3 }, { 4 } }, { "i,i->", { 5 }, { 5 } },
    { "ij,ij->ij", { 2, 3 }, { 2, 3 } }, { "ij,ij->", { 2, 3 }, { 2, 3 } }, { "ik,jk->ji", { 2, 3 }, { 4, 3 } }, { "bhqd,bhkd->bhqk", { 2, 2, 3, 4 }, { 2, 2, 5, 4 } },
    { "ijk,kl->il", { 2, 3, 4 }, { 4, 5 } }, { "ij,kl->", { 2, 3 }, { 3, 2 } }, { "abcd,efdb->eacf", { 2, 3, 2, 4 }, { 2, 3, 4, 3 } }, { "ii,ij->j", { 3, 3 }, { 3, 2 } },
    { "ij,jk->kji", { 2, 3 }, { 3, 4 } }, { "ij,jk->ik", { 2, 1 }, { 3, 4 } }, { "bi,bi->b", { 4, 3 }, { 4, 3 } }, { ",ij->ji", {}, { 2, 3 } }, { "ij,jk->ik", { 2, 0 }, { 0, 4 } },
    { "Aa,aA->A", { 2, 3 }, { 3, 2 } },
  }
  for _, case in ipairs(cases) do
    it(case[1], function()
      local list = tensors(unpack(case, 2))
      close(by_hand(case[1], unpack(list)), unic.einsum(case[1], unpack(list)), case[1])
      if list[1]:numel() > 0 then assert.gradcheck(function(...) return unic.einsum(case[1], ...) end, list) end
    end)
  end

  it("reads an ellipsis and an equation without result", function()
    local t = tensors({ 2, 3, 4 }, { 4, 5 }, { 3, 3 }, { 6, 2, 3, 4 })
    local a, b, c, d = unpack(t)
    close(by_hand("abj,jk->abk", a, b), unic.einsum("...j,jk->...k", a, b))
    close(by_hand("abj,jk->kab", a, b), unic.einsum("... j, jk -> k...", a, b))
    close(by_hand("abc->bca", a), unic.einsum("i...->...i", a))
    close(by_hand("abc->c", a), unic.einsum("i...k->k", a))
    close(by_hand("bxy,abxy->abxy", a, d), unic.einsum("...,...->...", a, d))
    close(by_hand("ij,jk->ik", c, c), unic.einsum("ij,jk", c, c))
    close(by_hand("ii->", c), unic.einsum("ii", c))
    close(by_hand("ab->ba", c), unic.einsum("ba", c))
    close(by_hand("abj,jk->abk", a, b), unic.einsum("...j,jk", a, b))
  end)

  it("takes other dtypes", function()
    local a = unic.tensor({ { 1, 2 }, { 3, 4 } }, { dtype = "i64" })
    assert.same({ 1, 4 }, unic.einsum("ii->i", a):totable())
    assert.same({ { 1, 6 }, { 6, 16 } }, unic.einsum("ij,ji->ij", a, a):totable())
    local h = unic.einsum("ij,jk->ik", a:cast("bf16"), a:cast("bf16"))
    assert.equal("bf16", h.dtype)
    assert.same({ { 7, 10 }, { 15, 22 } }, h:totable())
  end)

  it("says what is wrong", function()
    local a, b = unic.zeros(2, 3), unic.zeros(3, 4)
    for _, case in ipairs {
      { "[einsum] argument 'equation': nil", function() unic.einsum() end },
      { "argument 'a': nil, expected a tensor", function() unic.einsum("ij") end },
      { "operand 1 has 2 dimensions, 'ijk' names 3", function() unic.einsum("ijk->i", a) end },
      { "operand 2 has 2 dimensions, 'j' names 1", function() unic.einsum("ij,j->i", a, b) end },
      { "'k' in the result stands in no operand", function() unic.einsum("ij->k", a) end },
      { "'i' stands twice in the result", function() unic.einsum("ij->ii", a) end },
      { "'i' stands for 2 and 3 elements in 'ii'", function() unic.einsum("ii->i", a) end },
      { "'i' stands for 2 elements in operand 1 and 4 in operand 2", function() unic.einsum("ij,ji->", a, b) end },
      { "'i.j' has a dot", function() unic.einsum("i.j->i", a) end },
      { "\"...\" twice", function() unic.einsum("...i...->i", a) end },
      { "'1' , expected letters", function() unic.einsum("i1->i", a) end, "has '1', expected letters" },
      { "is for 2 operands, 1 were given", function() unic.einsum("ij,jk->ik", a, nil) end, "argument 'b': nil, expected a tensor" },
      { "is for 1 operand, 2 were given", function() unic.einsum("ij->i", a, b) end },
      { "3 operands, expected one or two", function() unic.einsum("ij,jk,kl->il", a, b, b) end },
      { "has \"->\" twice", function() unic.einsum("ij->i->", a) end },
      { "it is f64 and a is f32", function() unic.einsum("ij,jk->ik", a, b:cast("f64")) end },
    } do
      local ok, why = pcall(case[2])
      assert.is_false(ok)
      assert.is_truthy(tostring(why):find(case[3] or case[1], 1, true), tostring(why))
    end
  end)
end)
