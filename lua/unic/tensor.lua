--- What Lua adds to tensors: constructors, arithmetic, indexing, printing, moving, saving.
-- Counting: a position written as a number (dimension, `x[i]`, a slice) counts from 1, or from the end (-1); positions stored inside a
-- tensor (labels, ids, argmax) count from 0.
-- @module unic.tensor
local arguments = require "unic.arguments"
local core = require "unic.core"
local format = require "unic.format"

local T = core.tensor
local ops = core.ops.call
local methods = T.methods
local exports = {}
local tensor = { exports = exports, methods = methods }

-- ---------------------------------------------------------------- helpers for the library

tensor.options = arguments.options

local function restore(switch, was, ok, ...)
  switch(was)
  if not ok then error((...), 0) end
  return ...
end

--- Call fn with a switch set, and set it back whatever happens.
function tensor.with(switch, value, fn, ...)
  local was = switch()
  switch(value)
  return restore(switch, was, pcall(fn, ...))
end

--- Write seed and counter into a generator (an i64 tensor of two).
function tensor.set_generator(generator, seed, counter)
  arguments.check("manual_seed", "seed", seed, "integer")
  return generator:copy_(T.from_table({ seed, counter }, "i64", "cpu"))
end

-- ---------------------------------------------------------------- constructors

-- The dtype, the device and the layout are looked at in C.
local OPTIONS = { dtype = true, device = true, requires_grad = "boolean", rng = "tensor", layout = true }

-- randn(2, 3), randn({2, 3}), randn(2, 3, {dtype = "f64"}), randn({2, 3}, nil)
local function shape_and_options(op, ...)
  local n, options = select("#", ...), nil
  local first, last = ..., n > 0 and select(n, ...) or nil
  if type(first) == "table" and (n == 2 or n == 1 and (#first > 0 or next(first) == nil)) then
    return arguments.shape(op, first), arguments.options(op, n == 2 and last or nil, OPTIONS)
  end
  if type(last) == "table" and #last == 0 and next(last) ~= nil then options, n = last, n - 1 end
  local shape = { ... }
  shape[n + 1] = nil
  return arguments.shape(op, shape, n), arguments.options(op, options, OPTIONS)
end

local function finish(t, options)
  if options.requires_grad then t.requires_grad = true end
  return t
end

--- A tensor from nested Lua tables or a number.
-- @param values numbers or booleans, nested as deep as there are dimensions
-- @param options `dtype` ("f32"), `device`, `requires_grad`
-- @return a tensor
function exports.tensor(values, options)
  options = arguments.options("tensor", options, OPTIONS)
  if T.is_tensor(values) then return exports.clone(values):detach() end
  local dtype = options.dtype
  if not dtype then
    local first = values
    while type(first) == "table" do first = first[1] end
    if type(first) == "boolean" then dtype = "bool" end
  end
  return finish(T.from_table(values, dtype, options.device), options)
end

--- A tensor with undefined contents. Shapes are numbers or one table, options come last: `unic.empty(2, 3, {dtype = "f64"})`.
-- @param ... sizes
-- @return a tensor
function exports.empty(...)
  local shape, options = shape_and_options("empty", ...)
  return finish(T.empty(shape, options.dtype, options.device, options.layout), options)
end

local function filled(op, value)
  return function(...)
    local shape, options = shape_and_options(op, ...)
    return finish(T.full(shape, value, options.dtype, options.device), options)
  end
end

--- Zeros.
-- @param ... sizes, then options
-- @return a tensor
exports.zeros = filled("zeros", 0)

--- Ones.
-- @param ... sizes, then options
-- @return a tensor
exports.ones = filled("ones", 1)

--- A tensor filled with one value.
-- @param shape a table of sizes
-- @param value a number
-- @param options `dtype`, `device`, `requires_grad`
-- @return a tensor
function exports.full(shape, value, options)
  options = arguments.options("full", options, OPTIONS)
  return finish(T.full(arguments.shape("full", shape), value, options.dtype, options.device), options)
end

local function like(op, make)
  return function(x, options)
    arguments.check(op, "x", x, "tensor")
    options = arguments.options(op, options, OPTIONS)
    return finish(make(x.shape, { dtype = options.dtype or x.dtype, device = options.device or x.device, rng = options.rng }), options)
  end
end

--- Zeros with the shape, dtype and device of x.
exports.zeros_like = like("zeros_like", function(shape, o) return T.full(shape, 0, o.dtype, o.device) end)
--- Ones with the shape, dtype and device of x.
exports.ones_like = like("ones_like", function(shape, o) return T.full(shape, 1, o.dtype, o.device) end)
--- A tensor with undefined contents with the shape, dtype and device of x.
exports.empty_like = like("empty_like", function(shape, o) return T.empty(shape, o.dtype, o.device) end)

local function drawn(op, fill, ...)
  local shape, options = shape_and_options(op, ...)
  local t = T.empty(shape, options.dtype, options.device)
  return finish(fill(t, options), options)
end

--- Normal numbers (mean 0, standard deviation 1).
-- @param ... sizes, then options (`dtype`, `device`, `requires_grad`, `rng`)
-- @return a tensor
function exports.randn(...)
  return drawn("randn", function(t, o) return ops.normal_(t, 0, 1, { rng = o.rng }) end, ...)
end

--- Uniform numbers in [0, 1).
-- @param ... sizes, then options (`dtype`, `device`, `requires_grad`, `rng`)
-- @return a tensor
function exports.rand(...)
  return drawn("rand", function(t, o) return ops.uniform_(t, 0, 1, { rng = o.rng }) end, ...)
end

--- Integers in [low, high).
-- @param low the smallest
-- @param high one more than the largest
-- @param shape a table of sizes
-- @param options `dtype` ("i64"), `device`, `rng`
-- @return a tensor
function exports.randint(low, high, shape, options)
  options = arguments.options("randint", options, OPTIONS)
  arguments.check("randint", "low", low, "integer")
  arguments.check("randint", "high", high, "integer")
  return ops.randint_(T.empty(arguments.shape("randint", shape), options.dtype or "i64", options.device), low, high, { rng = options.rng })
end

--- Normal numbers with the shape, dtype and device of x.
exports.randn_like = like("randn_like", function(shape, o) return ops.normal_(T.empty(shape, o.dtype, o.device), 0, 1, { rng = o.rng }) end)
--- Uniform numbers with the shape, dtype and device of x.
exports.rand_like = like("rand_like", function(shape, o) return ops.uniform_(T.empty(shape, o.dtype, o.device), 0, 1, { rng = o.rng }) end)

-- What passes through a Lua table of numbers.
local LIST_LIMIT = 2 ^ 26

--- first, first + step, ... up to but without last; `unic.arange(n)` is 0 .. n-1.
-- @param first number
-- @param last number
-- @param step number (1)
-- @param options `dtype` ("i64" when all are integers, "f32" otherwise), `device`
-- @return a tensor
function exports.arange(first, last, step, options)
  if type(last) == "table" then last, options = nil, last end
  if type(step) == "table" then step, options = nil, step end
  if last == nil then first, last = 0, first end
  options = arguments.options("arange", options, OPTIONS)
  arguments.check("arange", "first", first, "finite")
  arguments.check("arange", "last", last, "finite")
  step = arguments.default("arange", "step", step, "finite", 1)
  if step == 0 then core.fail "[arange] argument 'step': 0 was given, expected another number" end
  local values, n = {}, math.max(0, math.ceil((last - first) / step))
  if n > LIST_LIMIT then arguments.fail("arange", "argument 'last': %.14g numbers from %.14g on, at most %d are possible", n, first, LIST_LIMIT) end
  for i = 1, n do values[i] = first + (i - 1) * step end
  local whole = first == math.floor(first) and step == math.floor(step)
  return finish(T.from_table(values, options.dtype or (whole and "i64" or "f32"), options.device), options)
end

--- n evenly spaced numbers from first to last, both included.
-- @return a tensor
function exports.linspace(first, last, n, options)
  options = arguments.options("linspace", options, OPTIONS)
  arguments.check("linspace", "first", first, "finite")
  arguments.check("linspace", "last", last, "finite")
  arguments.check("linspace", "n", n, { "integer", least = 0, most = LIST_LIMIT })
  local values = {}
  for i = 1, n do values[i] = n == 1 and first or first + (last - first) * (i - 1) / (n - 1) end
  return finish(T.from_table(values, options.dtype, options.device), options)
end

--- The unit matrix.
-- @param n rows and columns
-- @param options `dtype`, `device`
-- @return a tensor [n, n]
function exports.eye(n, options)
  options = arguments.options("eye", options, OPTIONS)
  arguments.check("eye", "n", n, { "integer", least = 0 })
  local t = T.full({ n, n }, 0, options.dtype, options.device)
  if n > 0 and t.device ~= "meta" then ops.narrow(ops.reshape(t, { -1 }), 1, 1, n, n + 1):fill_(1) end
  return finish(t, options)
end

--- A copy in new memory; gradients flow back through it.
function exports.clone(x)
  arguments.check("clone", "x", x, "tensor")
  return (x.requires_grad and core.grad_mode()) and ops.mul(x, 1) or methods.duplicate(x)
end

--- Fill with zeros or ones, in place.
methods.zero_ = function(x) return x:fill_(0) end

-- ---------------------------------------------------------------- methods

for name, fn in pairs(core.ops.methods) do
  if methods[name] == nil then methods[name] = fn end
end
methods.clone = exports.clone

--- Move x a part of the way towards another tensor, in place: x += weight (to - x).
-- @param to a tensor of x's shape and dtype
-- @param weight a number, or a tensor without dimensions
-- @return x
function methods.lerp_(x, to, weight)
  arguments.check("lerp_", "to", to, "tensor")
  if table.concat(to.shape, ", ") ~= table.concat(x.shape, ", ") then
    arguments.fail("lerp_", "argument 'to': shape [%s], expected that of x, [%s]", table.concat(to.shape, ", "), table.concat(x.shape, ", "))
  end
  if to.requires_grad and core.grad_mode() then
    arguments.fail("lerp_", "argument 'to': it needs a gradient, which what is written in place would lose; t:detach() or unic.no_grad(fn) says that none is wanted")
  end
  ops.lerp_({ x }, { to }, weight)
  return x
end

-- x += value a b, or value a / b, in place.
local function add_two(name, op)
  return function(x, a, b, options)
    options = arguments.options(name, options, { value = true })
    return ops.add_(x, op(a, b), { alpha = options.value or 1 })
  end
end

--- x += value * a * b, in place.
-- @param a, b tensors that broadcast to x's shape
-- @param options `value` (1)
-- @return x
methods.addcmul_ = add_two("addcmul_", ops.mul)

--- x += value * a / b, in place.
-- @param a, b tensors that broadcast to x's shape
-- @param options `value` (1)
-- @return x
methods.addcdiv_ = add_two("addcdiv_", ops.div)

--- The elements of x where a mask is true, as a vector in row-major order; x and mask broadcast. Gradients go back to where the elements were.
-- How many there are depends on the values: this waits for the device, and has no place in a recorded step.
-- @param x a tensor
-- @param mask a bool tensor
-- @return a tensor [n]
function exports.masked_select(x, mask)
  arguments.check("masked_select", "x", x, "tensor")
  arguments.check("masked_select", "mask", mask, "tensor")
  if mask.dtype ~= "bool" then arguments.fail("masked_select", "argument 'mask': %s, expected bool", mask.dtype) end
  local a, b, shape = x.shape, mask.shape, {}
  local n = math.max(#a, #b)
  for d = 1, n do
    local p, q = a[#a - n + d] or 1, b[#b - n + d] or 1
    if p ~= q and p ~= 1 and q ~= 1 then
      arguments.fail("masked_select", "argument 'mask': shapes [%s] and [%s] do not broadcast: from the right, sizes must be equal or 1", table.concat(a, ", "),
        table.concat(b, ", "))
    end
    shape[d] = p == 1 and q or p
  end
  mask = ops.expand(mask, shape)
  return ops.masked_take(ops.expand(x, shape), mask, ops.sum(mask):item())
end
methods.masked_select = exports.masked_select

--- Convert and move: `x:to("bf16")`, `x:to("cuda:1")`, `x:to("cpu", "f64")`.
-- @param ... a dtype, a device, or both
-- @return x itself when nothing changes
function methods.to(x, ...)
  for i = 1, select("#", ...) do
    local what = (select(i, ...))
    local dtypes = { f32 = 1, bf16 = 1, f16 = 1, f64 = 1, i64 = 1, i32 = 1, u8 = 1, bool = 1 }
    if type(what) ~= "string" then core.fail(("[to] argument %d: a %s was given, expected a dtype or a device name"):format(i, type(what))) end
    if dtypes[what] then
      if x.dtype ~= what then x = ops.cast(x, what) end
    elseif x.device ~= what then
      if x.requires_grad and not x.is_leaf then core.fail "[to] argument 'x': a computed tensor that needs a gradient cannot change its device; x:detach() first" end
      local leaf = x.requires_grad
      x = T.to_device(x, what)
      if leaf then x.requires_grad = true end
    end
  end
  return x
end

--- To the CPU.
function methods.cpu(x) return methods.to(x, "cpu") end

--- Mark a leaf as wanting its gradient; returns it.
function methods.requires_grad_(x, on)
  x.requires_grad = on ~= false
  return x
end

--- Walk back from x: gradients are added into the `.grad` of every leaf that wants one.
-- @param options `gradient` (of x, when it has more than one element), `keep` (the graph can be walked again).
-- `step`: an optimiser, or a list of them. Each parameter makes its step as soon as its gradient is complete and nothing that is still to come in the walk
-- reads its value, and the gradient goes: the bits of `loss:backward(); optimizer:step(); optimizer:zero_grad()`, without ever having all gradients at
-- once. See lua/unic/step_in_backward.lua for what does not go with it.
-- `ready`: what `step` stands on: a function that is called with each of the tensors in the list `leaves` at that moment, if it has a gradient; it may
-- change the tensor (PyTorch's post-accumulate-grad hook, which comes earlier)
function methods.backward(x, options)
  if T.is_tensor(options) then options = { gradient = options } end
  options = arguments.options("backward", options, { gradient = true, keep = true, step = "table", leaves = "table", ready = "callable" })
  if options.step then return require("unic.step_in_backward").walk(x, options) end
  if (options.ready == nil) ~= (options.leaves == nil) then core.fail "[backward] options 'ready' and 'leaves': one was given, expected both or none" end
  if not options.ready then return T.backward(x, options.gradient, options.keep) end
  local leaves, ready = options.leaves, options.ready
  return T.backward(x, options.gradient, options.keep, leaves, function(i) ready(leaves[i]) end)
end

--- Elements as f64, for a number in Lua: alias of item.
function methods.value(x) return x:item() end

--- The transpose of a matrix.
function methods.t(x) return ops.transpose(x, 1, 2) end

-- split(x, size, dim) and chunk(x, n, dim): looks at x.
function methods.split(x, size, dim)
  dim = dim or 1
  if type(size) == "table" then arguments.list("split", "size", size, { "integer", least = 1 }, "a list of sizes")
  else arguments.check("split", "size", size, { "integer", least = 1 }) end
  local out, total, at = {}, x:size(dim), 1
  while at <= total do
    local n
    if type(size) == "table" then n = size[#out + 1] else n = math.min(size, total - at + 1) end
    if not n then core.fail "[split] argument 'size': the sizes add up to less than the dimension" end
    out[#out + 1] = ops.narrow(x, dim, at, n)
    at = at + n
  end
  return out
end

--- Cut a dimension into n equal parts.
function methods.chunk(x, n, dim)
  local total = x:size(dim or 1)
  arguments.check("chunk", "n", n, { "integer", least = 1 })
  return methods.split(x, math.ceil(total / n), dim)
end

-- ---------------------------------------------------------------- indexing

-- x[i], x[{i, {first, last}, {}, {first, last, step}}]; a boolean or index tensor: x[mask] is refused with the op to use.
local function slice(x, key)
  if type(key) == "number" then return ops.select(x, 1, key) end
  if type(key) ~= "table" or T.is_tensor(key) then
    core.fail("[index] argument 'key': " .. (T.is_tensor(key) and "a tensor was given; index_select, gather and masked_fill take tensors"
      or ("a %s was given, expected a number or a table such as {1, {2, 5}}"):format(type(key))))
  end
  if #key > x:dim() then core.fail(("[index] argument 'key': %d positions were given, the tensor has %d dimensions"):format(#key, x:dim())) end
  local dim = 1
  for i = 1, #key do
    local at = key[i]
    if type(at) == "number" then
      x = ops.select(x, dim, at)
    else
      if type(at) ~= "table" then
        core.fail(("[index] argument 'key': position %d is %s, expected a number or a slice such as {2, 5}"):format(i, arguments.describe(at)))
      end
      arguments.list("index", "key", at, "integer", "a slice such as {2, 5}")
      if #at > 0 then
        local size = x:size(dim)
        local first, last, step = at[1], at[2] or at[1], at[3] or 1
        if first < 0 then first = size + 1 + first end
        if last < 0 then last = size + 1 + last end
        if first == 0 or last == 0 then core.fail "[index] argument 'key': positions count from 1, 0 was given" end
        if first < 1 or last > size or last < first or step < 1 then
          core.fail(("[index] argument 'key': the slice {%s, %s, %s} does not lie within 1..%d"):format(at[1], at[2] or at[1], step, size))
        end
        local n = math.floor((last - first) / step) + 1
        x = ops.narrow(x, dim, first, n, step)
      end
      dim = dim + 1
    end
  end
  return x
end
methods.__at = slice

-- x[key] = number or tensor: in place, without a gradient link.
methods.__set = function(x, key, value)
  local part = slice(x, key)
  if type(value) == "boolean" then value = value and 1 or 0 end
  if type(value) == "number" then part:fill_(value) else
    if not T.is_tensor(value) then arguments.fail("index", "argument 'value': %s, expected a number or a tensor", arguments.describe(value)) end
    if value:dim() < part:dim() or value:numel() ~= part:numel() then value = ops.expand(value, part.shape) end
    part:copy_(value)
  end
end

-- ---------------------------------------------------------------- arithmetic and printing

local meta = T.metatable
meta.__names = { "shape", "dtype", "device", "ndim", "requires_grad", "is_leaf", "grad" }   -- fields, for completion at the prompt
meta.__add = ops.add
meta.__sub = ops.sub
meta.__mul = ops.mul
meta.__div = ops.div
meta.__pow = ops.pow
meta.__mod = ops.remainder   -- the sign of the divisor, as Lua's own
meta.__unm = function(x) return ops.neg(x) end   -- Lua hands the operand over twice
-- Lua wants one truth of < and <=, and a string of ..; what was meant has another name.
meta.__lt = function() core.fail "[lt] tensors have no order: x:lt(y) compares element by element, x:item() < y:item() two numbers" end
meta.__le = function() core.fail "[le] tensors have no order: x:le(y) compares element by element, x:item() <= y:item() two numbers" end
meta.__concat = function() core.fail "[concat] a tensor is no string: x:item() gives its number, tostring(x) its text" end
meta.__len = function(x) return x:dim() == 0 and 1 or x:size(1) end
meta.__tostring = function(x)
  local ok, shape = pcall(function() return x.shape end)
  if not ok then return "[freed tensor]" end
  local note
  if x.requires_grad then note = x.is_leaf and "requires_grad" or "has gradient" end
  if x.device == "meta" then
    return format.footer { shape = shape, dtype = x.dtype, device = x.device, note = note }
  end
  local host = x:detach()
  if x.device ~= "cpu" then host = T.to_device(host, "cpu") end
  return format.tensor { shape = shape, dtype = x.dtype, device = x.device, note = note, get = function(i) return T.peek(host, i) end }
end

--- x as a Lua number: `tonumber`-like shorthand of item, for one-element tensors.
function exports.item(x)
  if type(x) == "number" then return x end
  return arguments.check("item", "x", x, "tensor"):item()
end

return tensor
