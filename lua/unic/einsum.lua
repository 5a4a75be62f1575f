--- Sums of products by subscripts.
-- Everything becomes permutations, sums, and one batched matrix product (an element-wise product where nothing is contracted), so gradients and
-- speed are theirs.
-- @module unic.einsum
local arguments = require "unic.arguments"
local core = require "unic.core"

local ops = core.ops.call

local function fail(...) arguments.fail("einsum", ...) end

-- "i...j" -> labels; the dimensions that "..." stands for are "1" (the last of them), "2", ... so that they meet from the right.
local function read_labels(term, ndim, position)
  local labels, dots = {}, nil
  local at = 1
  while at <= #term do
    local c = term:sub(at, at)
    if c == "." then
      if term:sub(at, at + 2) ~= "..." then fail("argument 'equation': '%s' has a dot that is no part of \"...\"", term) end
      if dots then fail("argument 'equation': '%s' has \"...\" twice", term) end
      dots = #labels + 1
      at = at + 3
    elseif c:find "%a" then
      labels[#labels + 1] = c
      at = at + 1
    else
      fail("argument 'equation': '%s' has '%s', expected letters and \"...\"", term, c)
    end
  end
  if not ndim then return labels, dots end
  local rest = ndim - #labels
  if rest < 0 or (rest > 0 and not dots) then
    fail("operand %d has %d dimension%s, '%s' names %d", position, ndim, ndim == 1 and "" or "s", term, #labels)
  end
  for i = 1, dots and rest or 0 do table.insert(labels, dots + i - 1, tostring(rest - i + 1)) end
  return labels
end

-- A label that stands twice in one operand: its diagonal.
local function diagonals(x, labels, term)
  local first, i = {}, 1
  while i <= #labels do
    local label = labels[i]
    local j = first[label]
    if not j then
      first[label] = i
      i = i + 1
    else
      local n = x:size(j)
      if x:size(i) ~= n then fail("argument 'equation': '%s' stands for %d and %d elements in '%s'", label, n, x:size(i), term) end
      local order, shape = {}, {}
      for d = 1, #labels do
        if d ~= i and d ~= j then
          order[#order + 1] = d
          shape[#shape + 1] = x:size(d)
        end
      end
      local kept = #order
      order[kept + 1], order[kept + 2] = j, i
      shape[kept + 1] = n * n
      x = ops.reshape(ops.permute(x, order), shape)
      if n > 1 then x = ops.narrow(x, kept + 1, 1, n, n + 1) end
      local left = {}
      for d = 1, kept do left[d] = labels[order[d]] end
      left[kept + 1] = label
      labels = left
      return diagonals(x, labels, term)
    end
  end
  return x, labels
end

-- x with its labels in this order; labels that it has not become dimensions of size 1.
local function arrange(x, labels, wanted)
  local at, order, shape = {}, {}, {}
  for d, label in ipairs(labels) do at[label] = d end
  for d, label in ipairs(wanted) do
    if at[label] then
      order[#order + 1] = at[label]
      shape[d] = x:size(at[label])
    else
      shape[d] = 1
    end
  end
  if #order > 1 then x = ops.permute(x, order) end
  return #order < #wanted and ops.reshape(x, shape) or x
end

-- Sum over the labels for which `drop` says yes.
local function sum_out(x, labels, drop)
  local dims, left = {}, {}
  for d, label in ipairs(labels) do
    if drop(label) then dims[#dims + 1] = d else left[#left + 1] = label end
  end
  if #dims > 0 then x = ops.sum(x, dims) end
  return x, left
end

local function set_of(list)
  local set = {}
  for _, label in ipairs(list) do set[label] = true end
  return set
end

-- The labels of the result: as written, or (without "->") "..." and then, in alphabetical order, those that stand once.
local function result_labels(written, lists)
  local most, count = 0, {}
  for _, labels in ipairs(lists) do
    for _, label in ipairs(labels) do
      count[label] = (count[label] or 0) + 1
      most = math.max(most, tonumber(label) or 0)
    end
  end
  local out = {}
  local function dots() for i = most, 1, -1 do out[#out + 1] = tostring(i) end end
  if not written then
    dots()
    local once = {}
    for label, n in pairs(count) do if n == 1 and not tonumber(label) then once[#once + 1] = label end end
    table.sort(once)
    for _, label in ipairs(once) do out[#out + 1] = label end
    return out
  end
  local labels, at = read_labels(written)
  local seen = {}
  for i, label in ipairs(labels) do
    if i == at then dots() end
    if not count[label] then fail("argument 'equation': '%s' in the result stands in no operand", label) end
    if seen[label] then fail("argument 'equation': '%s' stands twice in the result", label) end
    seen[label] = true
    out[#out + 1] = label
  end
  if at == #labels + 1 then dots() end
  return out
end

-- Operands agree in the size of a label, or one of them has 1 there and is repeated.
local function meet(a, la, b, lb)
  local where = {}
  for d, label in ipairs(lb) do where[label] = d end
  local sa, sb, grow_a, grow_b = a.shape, b.shape, false, false
  for d, label in ipairs(la) do
    local e = where[label]
    if e and sa[d] ~= sb[e] then
      if sa[d] == 1 then
        sa[d], grow_a = sb[e], true
      elseif sb[e] == 1 then
        sb[e], grow_b = sa[d], true
      else
        fail("%s stands for %d elements in operand 1 and %d in operand 2", tonumber(label) and '"..."' or "'" .. label .. "'", sa[d], sb[e])
      end
    end
  end
  return grow_a and ops.expand(a, sa) or a, grow_b and ops.expand(b, sb) or b
end

local function product(shape, from, to)
  local n = 1
  for d = from, to do n = n * shape[d] end
  return n
end

local function join(...)
  local all = {}
  for _, list in ipairs { ... } do
    for _, each in ipairs(list) do all[#all + 1] = each end
  end
  return all
end

-- The product of two operands: labels that both have and the result has not are contracted.
local function multiply(a, la, b, lb, out)
  local in_a, in_b, in_out = set_of(la), set_of(lb), set_of(out)
  a, la = sum_out(a, la, function(label) return not in_b[label] and not in_out[label] end)
  b, lb = sum_out(b, lb, function(label) return not in_a[label] and not in_out[label] end)
  local batch, rows, columns, inner = {}, {}, {}, {}
  for _, label in ipairs(out) do
    local list = in_a[label] and in_b[label] and batch or in_a[label] and rows or columns
    list[#list + 1] = label
  end
  for _, label in ipairs(la) do
    if in_b[label] and not in_out[label] then inner[#inner + 1] = label end
  end
  if #inner == 0 then return ops.mul(arrange(a, la, out), arrange(b, lb, out)) end
  a, b = arrange(a, la, join(batch, rows, inner)), arrange(b, lb, join(batch, inner, columns))
  local sa, sb, n, shape = a.shape, b.shape, #batch, {}
  for d = 1, n + #rows do shape[d] = sa[d] end
  for d = 1, #columns do shape[n + #rows + d] = sb[n + #inner + d] end
  local m, k, p = product(sa, n + 1, n + #rows), product(sa, n + #rows + 1, #sa), product(sb, n + #inner + 1, #sb)
  local y
  if n == 0 then
    y = ops.matmul(ops.reshape(a, { m, k }), ops.reshape(b, { k, p }))
  else
    local t = product(sa, 1, n)
    y = ops.matmul(ops.reshape(a, { t, m, k }), ops.reshape(b, { t, k, p }))
  end
  return arrange(ops.reshape(y, shape), join(batch, rows, columns), out)
end

--- Sum of products by subscripts (Einstein's convention), for one or two tensors.
-- `einsum("bij,bjk->bik", a, b)` is a batched matrix product, `einsum("ii->i", a)` a diagonal, `einsum("ij->", a)` a sum, `einsum("i,j->ij", a, b)` an
-- outer product. "..." stands for further dimensions, which broadcast. Labels that stand twice in one operand take its diagonal; labels that are missing
-- in the result are summed over. Without "->" the result has "..." and the labels that stand once, in alphabetical order.
-- @param equation letters, one per dimension; "," between operands; "->" before the result
-- @param a a tensor
-- @param b a tensor of the same dtype, where the equation has a ","
-- @return a tensor
return function(equation, a, b, ...)
  arguments.check("einsum", "equation", equation, "string")
  local inputs, written = equation:gsub("%s+", ""), nil
  local arrow = inputs:find("->", 1, true)
  if arrow then inputs, written = inputs:sub(1, arrow - 1), inputs:sub(arrow + 2) end
  if written and written:find("->", 1, true) then fail("argument 'equation': '%s' has \"->\" twice", equation) end
  local terms = {}
  for term in (inputs .. ","):gmatch "([^,]*)," do terms[#terms + 1] = term end
  local given = select("#", ...) + (b ~= nil and 2 or 1)
  if given > 2 or #terms > 2 then fail("%d operands, expected one or two: longer products are written as several calls", math.max(given, #terms)) end
  arguments.check("einsum", "a", a, "tensor")
  if #terms == 2 then arguments.check("einsum", "b", b, "tensor") end
  if #terms ~= given then fail("argument 'equation': '%s' is for %d operand%s, %d were given", equation, #terms, #terms == 1 and "" or "s", given) end
  if b and a.dtype ~= b.dtype then fail("argument 'b': it is %s and a is %s; b:cast(\"%s\") converts it", b.dtype, a.dtype, a.dtype) end
  local operands, lists = { a, b }, {}
  for i, x in ipairs(operands) do lists[i] = read_labels(terms[i], x:dim(), i) end
  local out = result_labels(written, lists)
  for i, x in ipairs(operands) do operands[i], lists[i] = diagonals(x, lists[i], terms[i]) end
  if #operands == 1 then
    local keep = set_of(out)
    local x, labels = sum_out(operands[1], lists[1], function(label) return not keep[label] end)
    return arrange(x, labels, out)
  end
  a, b = meet(operands[1], lists[1], operands[2], lists[2])
  return multiply(a, lists[1], b, lists[2], out)
end
