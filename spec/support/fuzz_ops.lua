--- Random calls of every op through the door: most of them sensible, many of them broken in one place.
-- A call has to be refused with a sentence that begins with the op's name, or to work; then its backward runs, and outputs, gradients and what was
-- written in place agree with the f64 form on the same values. What an op asks of its arguments beyond its signature stands in SHAPE below.
local unic = require "unic"
local core = require "unic.core"
local testing = require "unic.testing"

local fuzz = {}

local FLOAT = { f32 = true, bf16 = true, f16 = true, f64 = true }
local WIDE = { f32 = "f32", bf16 = "f32", f16 = "f32", f64 = "f64" }
-- Several times those of testing.tolerance: the shapes and values here are nobody's choice.
local TOLERANCE = { f32 = 5e-5, bf16 = 4e-2, f16 = 1e-2 }
-- What an error is measured against at the least, where the numbers themselves cancel or are too small for the dtype.
local FLOOR = { f32 = 1e-2, bf16 = .3, f16 = .3 }
local LEAST = { f32 = 1e-30, bf16 = 1e-30, f16 = 1e-4 }
local LARGEST = { f32 = 3e38, bf16 = 3e38, f16 = 6e4 }

-- A generator in Lua: the choices of a call must not depend on the library that is tested.
local state
local function random(low, high)
  state = (state * 16807) % 2147483647
  return low + state % (high - low + 1)
end
local function chance(percent) return random(1, 100) <= percent end
local function pick(list) return list[random(1, #list)] end

local SIZES = { 1, 2, 3, 4, 5, 7, 8, 9, 16, 17, 33 }
local function size() return chance(4) and 0 or pick(SIZES) end
local function small() return pick { 1, 2, 3, 4, 5, 8 } end
local function shape_of(rank)
  local shape, numel = {}, 1
  for d = 1, rank do
    shape[d] = numel > 2000 and small() or size()
    numel = numel * math.max(shape[d], 1)
  end
  return shape
end
local function copy(list)
  local new = {}
  for i, v in ipairs(list) do new[i] = v end
  return new
end
local function dim_of(shape)
  if #shape == 0 then return 1 end
  local d = random(1, #shape)
  return chance(50) and d or d - #shape - 1
end
local function place(dim, shape) return dim < 0 and #shape + 1 + dim or dim end
local function some_dims(shape)
  local dims = {}
  for d = 1, #shape do if chance(50) then dims[#dims + 1] = chance(50) and d or d - #shape - 1 end end
  return dims
end
local function like(shape) return { shape = copy(shape) } end
local function ids(shape, count) return { shape = copy(shape), ints = count } end

-- A shape that broadcasts with another.
local function broadcast(shape)
  local new = {}
  for d = random(1, #shape + 1), #shape do new[#new + 1] = chance(25) and 1 or shape[d] end
  return new
end

local function same_as(first, ...)
  local names = { ... }
  return function(c)
    for _, name in ipairs(names) do if c[name] ~= nil then c[name] = like(c[first].shape) end end
  end
end

local function lists(...)
  local names = { ... }
  return function(c)
    local shapes = {}
    for i = 1, random(1, 4) do shapes[i] = shape_of(random(0, 3)) end
    for _, name in ipairs(names) do
      if c[name] ~= nil then
        c[name] = {}
        for i, shape in ipairs(shapes) do c[name][i] = like(shape) end
      end
    end
  end
end

local function with_dim(c)
  if #c.x.shape == 0 then c.x = like(shape_of(random(1, 4))) end
  if c.dim ~= nil then c.dim = dim_of(c.x.shape) end
end

local function loss(c)
  c.target = { shape = copy(c.x.shape), unit = true }
  if c.log_target then c.log_target = false end
end

local function window(c)
  local h, w = c.x.shape[3], c.x.shape[4]
  c.kernel = { random(1, math.max(1, math.min(h, 4))), random(1, math.max(1, math.min(w, 4))) }
  if c.stride ~= nil then c.stride = { random(1, 3), random(1, 3) } end
  if c.padding ~= nil then c.padding = { random(0, math.floor(c.kernel[1] / 2)), random(0, math.floor(c.kernel[2] / 2)) } end
end

local function image() return { small(), small(), random(1, 9), random(1, 9) } end

local function heads(c, q, k)
  local b, s, l, h, d = random(1, 2), random(1, 9), random(1, 9), random(1, 3), pick { 1, 4, 8, 32, 33, 64 }
  if q then
    c.q, c.k, c.v = like { b, s, h, d }, like { b, l, h, d }, like { b, l, h, d }
    if c.causal then c.k, c.v, l = like { b, s, h, d }, like { b, s, h, d }, s end
  else
    c[k], l = like { b, s, 3, h, d }, s
  end
  if c.mask ~= nil then c.mask = chance(50) and { shape = { b, l }, bools = 70 } or nil end
  if c.dropout then c.dropout = pick { 0, 0, .3 } end
  c.scale = chance(70) and 0 or .3
end

-- What makes a call of an op sensible, beyond its signature.
local SHAPE = {
  adamw = function(c) lists("params", "grads", "exp_avg", "exp_avg_sq")(c) for _, t in ipairs(c.exp_avg_sq) do t.unit = true end c.lr, c.scale = .01, 1
    c.step, c.beta1, c.beta2, c.weight_decay, c.eps = { shape = {}, unit = true }, .9, .99, .1, 1e-6 end,
  bert_adam = function(c) lists("params", "grads", "exp_avg", "exp_avg_sq")(c) for _, t in ipairs(c.exp_avg_sq) do t.unit = true end c.lr, c.scale = .01, 1
    c.beta1, c.beta2, c.weight_decay, c.eps = .9, .99, .1, 1e-3 end,
  lars = function(c) lists("params", "grads", "buffers")(c) c.lr, c.scale, c.momentum, c.weight_decay = .1, 1, .9, .1 end,
  sgd = function(c) lists("params", "grads", "momentum_buffers")(c) c.lr, c.scale, c.momentum, c.weight_decay, c.dampening = .1, 1, .9, .1, 0 end,
  lerp_ = function(c) lists("into", "from")(c) c.weight = .3 end,
  scale_ = lists "values",
  grad_norm = lists "tensors",
  add_layer_norm = function(c) c.x = like(shape_of(random(1, 4))) c.residual = like(c.x.shape) c.dropout, c.eps = pick { 0, .2, 1 }, .1
    for _, name in ipairs { "weight", "bias" } do if c[name] ~= nil then c[name] = like { c.x.shape[#c.x.shape] } end end end,
  layer_norm = function(c) c.eps = .1 end,
  batch_norm = function(c) c.x = like(chance(50) and image() or { random(2, 9), small() }) c.residual = chance(50) and like(c.x.shape) or nil
    local n = c.x.shape[2]
    for _, name in ipairs { "weight", "bias" } do if c[name] ~= nil then c[name] = like { n } end end
    c.running_mean, c.running_var = nil, nil
    if chance(60) or not c.training then c.running_mean, c.running_var = like { n }, { shape = { n }, unit = true } end
    c.num_batches_tracked = chance(30) and ids({}, 9) or nil
    c.momentum, c.eps = .1, 1e-2 end,
  bce_with_logits = function(c) loss(c) if c.pos_weight then c.pos_weight = { shape = { chance(50) and 1 or c.x.shape[#c.x.shape] or 1 }, unit = true } end end,
  focal = function(c) loss(c) c.alpha, c.gamma = .25, 2 end,
  kl_div = loss, mse = same_as("x", "target"), smooth_l1 = function(c) same_as("x", "target")(c) c.beta = .7 end,
  bernoulli_ = function(c) c.p = .3 end, dropout = function(c) c.p = pick { 0, .3, 1 } end, drop_path = function(c) c.p = pick { 0, .3 } with_dim(c) end,
  normal_ = function(c) c.mean, c.std = .5, 2 end, uniform_ = function(c) c.low, c.high = -1, 2 end,
  randint_ = function(c) c.low, c.high = 0, random(1, 100) end, randperm = function(c) c.n = random(0, 100) end,
  cat = function(c) local s = shape_of(random(1, 4)) c.dim, c.xs = dim_of(s), {} local d = place(c.dim, s)
    for i = 1, random(1, 4) do local t = copy(s) t[d] = size() c.xs[i] = like(t) end end,
  stack = function(c) local s = shape_of(random(0, 3)) c.xs = {} for i = 1, random(1, 4) do c.xs[i] = like(s) end c.dim = random(1, #s + 1) end,
  clamp = function(c) c.min, c.max = chance(70) and -.5 or nil, .5 end,
  clamp_ = function(c) c.min, c.max = chance(70) and -.5 or nil, .5 end,
  conv2d = function(c) local g = pick { 1, 1, 2, 3 } local i, o, kh, kw = g * small(), g * small(), random(1, 4), random(1, 4)
    c.groups, c.stride, c.dilation, c.padding = g, { random(1, 2), random(1, 2) }, { random(1, 2), random(1, 2) }, { random(0, 2), random(0, 2) }
    c.x, c.weight = like { random(1, 3), i, random(7, 12), random(7, 12) }, like { o, i / g, kh, kw } if c.bias then c.bias = like { o } end end,
  conv_transpose2d = function(c) local g = pick { 1, 1, 2 } local i, o = g * small(), small()
    c.groups, c.stride, c.dilation, c.padding, c.output_padding = g, { 2, random(1, 2) }, { 1, random(1, 2) }, { random(0, 1), 0 }, { random(0, 1), 0 }
    c.x, c.weight = like { random(1, 3), i, random(2, 6), random(2, 6) }, like { i, o, random(2, 4), random(1, 4) } if c.bias then c.bias = like { o * g } end end,
  group_norm = function(c) local g = pick { 1, 2, 3 } local n = g * small() c.groups, c.eps = g, 1e-2
    c.x = like(chance(60) and { random(1, 3), n, random(1, 6), random(1, 6) } or { random(1, 3), n, random(2, 9) })
    for _, name in ipairs { "weight", "bias" } do if c[name] ~= nil then c[name] = like { n } end end end,
  adaptive_avg_pool2d = function(c) c.x = like(image()) c.size = { random(1, 5), random(1, 5) } end,
  adaptive_max_pool2d = function(c) c.x = like(image()) c.size = { random(1, 5), random(1, 5) } end,
  interpolate = function(c) c.x = like(image()) c.size = { random(1, 12), random(1, 12) } if c.mode == "nearest" then c.align_corners = false end end,
  grid_sample = function(c) local s = image() c.x, c.grid = like(s), { shape = { s[1], random(1, 5), random(1, 5), 2 } } end,
  affine_grid = function(c) local n = small() c.theta = like { n, 2, 3 } c.size = { random(1, 6), random(1, 6) } end,
  avg_pool2d = function(c) c.x = like(image()) window(c) end, max_pool2d = function(c) c.x = like(image()) window(c) end,
  channels_last = function(c) c.x = like(image()) end, global_avg_pool2d = function(c) c.x = like(image()) end,
  cross_correlation = function(c) local s = { random(2, 9), random(2, 9) } c.a, c.b, c.lambda, c.eps = like(s), like(s), .01, 1e-2 end,
  info_nce = function(c) local s = { random(1, 9), random(1, 9) } c.a, c.b, c.scale = like(s), like(s), 3 end,
  cross_entropy = function(c) local n, k = random(1, 9), random(1, 9) c.x, c.target = like { n, k }, ids({ n }, k) c.smoothing, c.ignore_index = pick { 0, .1 }, -100
    if c.weight then c.weight = { shape = { k }, unit = true } end end,
  embedding = function(c) local v = random(1, 20) c.table, c.ids, c.padding = like { v, small() }, ids(shape_of(random(0, 2)), v), pick { -1, 0 } end,
  expand = function(c) c.shape = copy(c.x.shape) local s = copy(c.x.shape) for d = 1, #s do if chance(30) then s[d] = 1 end end c.x = like(s)
    if chance(30) and #c.shape < 4 then table.insert(c.shape, 1, random(1, 3)) end end,
  reshape = function(c) local s = shape_of(random(1, 3)) c.x = like(s) local t = copy(s) c.shape = {} while #t > 0 do table.insert(c.shape, table.remove(t, random(1, #t))) end
    if chance(30) then table.insert(c.shape, random(1, #c.shape + 1), 1) end
    local n = 1 for _, v in ipairs(s) do n = n * v end if n > 0 and chance(30) then c.shape[random(1, #c.shape)] = -1 end end,
  flatten = function(c) c.first = #c.x.shape == 0 and 1 or random(1, #c.x.shape) end,
  flip = function(c) c.dims = some_dims(c.x.shape) end,
  roll = function(c) c.dims, c.shifts = some_dims(c.x.shape), {} for i = 1, #c.dims do c.shifts[i] = random(-9, 9) end end,
  permute = function(c) local left = {} for d = 1, #c.x.shape do left[d] = d end c.dims = {} while #left > 0 do table.insert(c.dims, table.remove(left, random(1, #left))) end end,
  transpose = function(c) with_dim(c) c.dim1, c.dim2 = dim_of(c.x.shape), dim_of(c.x.shape) end,
  squeeze = function(c) if chance(50) then c.dim = nil else c.x.shape[random(1, #c.x.shape + 1)] = 1 for d, n in ipairs(c.x.shape) do if n == 1 then c.dim = d end end end end,
  unsqueeze = function(c) c.dim = random(1, #c.x.shape + 1) end,
  select = function(c) c.x = like { small(), small(), small() } c.dim = dim_of(c.x.shape) c.index = random(1, c.x.shape[place(c.dim, c.x.shape)]) end,
  narrow = function(c) c.x = like { random(2, 9), random(2, 9) } c.dim = dim_of(c.x.shape) local n = c.x.shape[place(c.dim, c.x.shape)]
    c.start = random(1, n) c.length = random(0, n - c.start + 1) c.step = c.length > 1 and random(1, math.floor((n - c.start) / (c.length - 1))) or 1 end,
  pad = function(c) c.amounts = {} for d = 1, 2 * random(0, #c.x.shape) do c.amounts[d] = random(-1, 3) end for d = 1, #c.x.shape do c.x.shape[d] = c.x.shape[d] + 2 end end,
  repeat_ = function(c) c.x = like(shape_of(random(0, 2))) c.times = {} for d = 1, #c.x.shape + random(0, 1) do c.times[d] = random(0, 3) end end,
  gather = function(c) with_dim(c) c.ids = ids(c.x.shape, c.x.shape[place(c.dim, c.x.shape)]) c.ids.shape[place(c.dim, c.x.shape)] = random(0, 5)
    if c.ids.ints == 0 then c.ids.shape[place(c.dim, c.x.shape)] = 0 end end,
  index_select = function(c) with_dim(c) local n = c.x.shape[place(c.dim, c.x.shape)] c.ids = ids({ n == 0 and 0 or random(0, 9) }, n) end,
  scatter_add = function(c) with_dim(c) local d = place(c.dim, c.x.shape) c.ids = ids(c.x.shape, c.x.shape[d])
    c.ids.shape[d] = c.x.shape[d] == 0 and 0 or random(0, 5)
    c.src = like(c.ids.shape) end,
  linear = function(c) local i, o = size(), small() c.x = like(shape_of(random(0, 2))) table.insert(c.x.shape, i) c.weight = like { o, i }
    if c.bias then c.bias = like { o } end end,
  masked_fill = function(c) c.mask = { shape = broadcast(c.x.shape), bools = 50 } c.value = .5 end,
  masked_fill_ = function(c) c.mask = { shape = broadcast(c.x.shape), bools = 50 } c.value = .5 end,
  masked_take = function(c) c.mask = { shape = copy(c.x.shape), bools = 100 } c.count = 1 for _, n in ipairs(c.x.shape) do c.count = c.count * n end end,
  where = function(c) local s = shape_of(random(1, 3)) c.cond = { shape = broadcast(s), bools = 50 } c.a, c.b = like(s), chance(70) and like(broadcast(s)) or .5 end,
  matmul = function(c) local m, k, n, batch = size(), small(), size(), shape_of(random(0, 2)) c.a, c.b = like(batch), like(chance(50) and broadcast(batch) or batch)
    table.insert(c.a.shape, m) table.insert(c.a.shape, k) table.insert(c.b.shape, k) table.insert(c.b.shape, n) end,
  attention = function(c) heads(c, true) end, self_attention = function(c) heads(c, false, "qkv") end,
  topk = function(c) with_dim(c) c.k = random(0, c.x.shape[place(c.dim, c.x.shape)]) end,
  tril = function(c) c.x = like { size(), size() } c.diagonal = random(-3, 3) end, triu = function(c) c.x = like { size(), size() } c.diagonal = random(-3, 3) end,
  norm = function(c) c.p = pick { 1, 2, 2, math.huge } c.dims = some_dims(c.x.shape) end,
  cast = function(c) c.dtype = pick { "f32", "f64", "bf16", "f16", "i64", "i32", "u8", "bool" } end,
}
for _, name in ipairs { "softmax", "log_softmax", "cumsum", "sort", "argmax", "argmin", "l2_normalize" } do SHAPE[name] = with_dim end
for _, name in ipairs { "sum", "mean", "var", "std", "max", "min", "prod", "logsumexp", "all", "any" } do
  SHAPE[name] = function(c) c.dims = some_dims(c.x.shape) end
end
for _, name in ipairs { "add_", "sub_", "mul_", "div_", "pow_", "remainder_", "maximum_", "minimum_" } do
  SHAPE[name] = function(c) c.b = chance(70) and like(broadcast(c.a.shape)) or 1 if c.alpha then c.alpha = pick { 1, -2, 3 } end end
end
-- Positive values, where others give NaN nearly always.
local POSITIVE = { log = true, sqrt = true, rsqrt = true, log1p = true, pow = true, kl_div = false, log_ = true, sqrt_ = true, rsqrt_ = true, log1p_ = true, pow_ = true }
-- No f64 form to compare with: the draws differ, or nothing is computed.
local UNCOMPARED = { bernoulli_ = true, normal_ = true, uniform_ = true, randint_ = true, randperm = true, cast = true }

-- The arguments of a signature: name, kind, class, optional, dims (letters) or nil.
local function arguments_of(info)
  local list = {}
  for i, arg in ipairs(info.args) do
    local text = info.signature:match("%f[%w_]" .. arg.name .. "!?: ([^%]%->]*[<%w%.?>]*%b[])") or ""
    local dims = text:match "^%w+<?%w*>?%.?%.?%.?%??(%b[])$"
    local letters
    if dims and arg.kind ~= "ints" and arg.kind ~= "int" then
      letters = {}
      for word in dims:sub(2, -2):gmatch "[^,]+" do letters[#letters + 1] = word end
    end
    list[i] = { name = arg.name, kind = arg.kind, class = arg.class, optional = arg.optional, mutated = arg.mutated, has_default = arg.has_default,
      dims = letters, choices = info.signature:match("%f[%w_]" .. arg.name .. ": choice(%b())"), grad = arg.grad,
      fixed = tonumber(info.signature:match("%f[%w_]" .. arg.name .. ": int%[(%d)%]") or "") }
  end
  return list
end

-- A sensible call, as specs of tensors ({shape =, ints = | bools = | unit =}) and plain values.
local function sensible(info, args)
  local c, bound, base = {}, {}, shape_of(random(0, 4))
  for _, arg in ipairs(args) do
    local value
    if arg.kind == "tensor" then
      local shape = copy(base)
      if arg.dims then
        shape = {}
        for _, letter in ipairs(arg.dims) do
          if letter == "..." then
            for _ = 1, random(0, 2) do shape[#shape + 1] = small() end
          else
            bound[letter] = bound[letter] or tonumber(letter) or size()
            shape[#shape + 1] = bound[letter]
          end
        end
        if #shape > 0 and arg.dims[1] == "..." and arg == args[1] then base = shape end
      end
      value = { shape = shape }
      if arg.class == "int" then value.ints = 3 elseif arg.class == "bool" then value.bools = 50 end
    elseif arg.kind == "tensors" then
      value = { { shape = base } }
    elseif arg.kind == "operand" then
      value = chance(80) and { shape = broadcast(base) } or random(-3, 3) / 2
    elseif arg.kind == "scalar" then
      value = chance(50) and { shape = {}, unit = true } or .5
    elseif arg.kind == "number" then
      value = random(0, 20) / 10
    elseif arg.kind == "int" then
      value = random(0, 3)
    elseif arg.kind == "bool" then
      value = chance(50)
    elseif arg.kind == "ints" then
      value = {}
      for i = 1, arg.fixed or random(0, 3) do value[i] = random(1, 3) end
    elseif arg.kind == "choice" then
      local words = {}
      for word in arg.choices:sub(2, -2):gmatch "[^|]+" do words[#words + 1] = word end
      value = pick(words)
    elseif arg.kind == "dtype" then
      value = "f32"
    end
    c[arg.name] = value
  end
  -- Two operands: one of them the full shape, at least one a tensor.
  if args[1].kind == "operand" then c[chance(50) and "a" or "b"] = { shape = base } end
  if SHAPE[info.name] then SHAPE[info.name](c) end
  for _, arg in ipairs(args) do   -- what has a default or may be absent is, sometimes
    local optional = arg.optional or arg.has_default
    if optional and chance(25) and not (arg.name == "groups" and info.name ~= "group_norm") and arg.name ~= "dim" and arg.name ~= "weight_decay" and arg.name ~= "running_mean"
      and arg.name ~= "running_var" and arg.name ~= "momentum_buffers" and arg.name ~= "dilation" and arg.name ~= "stride" and arg.name ~= "momentum"
      and arg.name ~= "step" and arg.name ~= "eps" and arg.name ~= "training" and arg.name ~= "causal" and arg.name ~= "length" then c[arg.name] = nil end
  end
  return c
end

local function is_spec(value) return type(value) == "table" and value.shape ~= nil end

-- Something else in one place.
local function broken(c, args)
  local arg = pick(args)
  local value = c[arg.name]
  local kind = random(1, 12)
  local other = {
    function() return nil end,
    function() return "text" end,
    function() return pick { 0 / 0, math.huge, -math.huge, 2 ^ 40, -2 ^ 40, 2 ^ 31, -2 ^ 31, .5, -1, 0, 1e300, 9 } end,
    function() return {} end,
    function() return { 2 ^ 40, 2 ^ 40 } end,
    function() return { -1, 0, 2 } end,
    function() return true end,
    function() return print end,
    function() return { shape = shape_of(random(0, 6)) } end,
    function() return is_spec(value) and { shape = value.shape, dtype = pick { "f32", "f64", "bf16", "f16", "i64", "i32", "u8", "bool" } } or { 1, 2, 3, 4, 5, 6, 7, 8, 9 } end,
    function() return is_spec(value) and { shape = value.shape, ints = pick { 1000, 2 ^ 53 } } or random(-5, 5) end,
    function() return is_spec(value) and { shape = value.shape, dead = chance(50), meta = true } or { "a" } end,
  }
  c[arg.name] = other[kind]()
end

-- The tensor of a spec in f64 (floats), and how it lies in memory.
local function base_tensor(spec, arg, positive, seed)
  local rng = unic.new_generator(seed)
  local t
  if spec.ints then t = unic.randint(0, math.max(spec.ints, 1), spec.shape, { rng = rng, dtype = chance(50) and "i64" or "i32" })
  elseif spec.bools then t = unic.rand(spec.shape, { rng = rng }):lt(spec.bools / 100)
  elseif arg.class == "int" then t = unic.randint(0, 3, spec.shape, { rng = rng })
  elseif arg.class == "bool" then t = unic.rand(spec.shape, { rng = rng }):lt(.5)
  else
    t = unic.randn(spec.shape, { rng = rng, dtype = "f64" })
    if spec.unit or positive then t = t:abs():clamp { min = .05, max = spec.unit and .95 or nil } end
  end
  return t
end

local function lay(t, how)
  if how == 1 and t:dim() >= 2 then return unic.transpose(unic.contiguous(unic.transpose(t, 1, t:dim())), 1, t:dim()) end
  if how == 2 and t:dim() == 4 then return unic.channels_last(t) end
  if how == 3 and t:dim() >= 1 and t:numel() > 0 and t.dtype ~= "bool" then   -- every second element of something larger
    local wide = unic.zeros((function() local s = t.shape s[#s] = 2 * s[#s] return s end)(), { dtype = t.dtype })
    local view = wide:narrow(t:dim(), 1, t:size(t:dim()), 2)
    view:copy_(t)
    return view
  end
  return t
end

-- Everything that stays the same between the run in `dtype` and the run in f64.
local function fix(info, args, c, dtype)
  local fixed = {}
  for n, arg in ipairs(args) do
    local value = c[arg.name]
    local function one(spec, m)
      local how = { spec = spec, layout = random(0, 6), grad = chance(60), seed = 1000 * n + m + state % 1000 }
      local t = base_tensor(spec, arg, POSITIVE[info.name], how.seed)
      if FLOAT[t.dtype] then
        local own = spec.dtype or (arg.kind == "scalar" or arg.class == "wide") and WIDE[dtype] or FLOAT[arg.class] and arg.class or dtype
        how.dtype = own
        t = t:cast(own)
        how.floating = FLOAT[own]
      elseif spec.dtype then
        t = t:cast(spec.dtype)
      end
      how.value = t
      return how
    end
    if is_spec(value) then fixed[arg.name] = one(value, 0)
    elseif arg.kind == "tensors" and type(value) == "table" and is_spec(value[1]) then
      fixed[arg.name] = { list = {} }
      for m, spec in ipairs(value) do fixed[arg.name].list[m] = one(spec, m) end
    elseif arg.kind == "rng" and value == nil then fixed[arg.name] = { rng = true }
    elseif value ~= nil then fixed[arg.name] = { plain = value } end
  end
  return fixed
end

local function build(args, fixed, wide)
  local named, leaves, mutated = {}, {}, {}
  local function make(arg, how)
    local t = how.value
    if wide and how.floating and not (FLOAT[arg.class] and arg.kind ~= "scalar") then t = t:cast "f64" end
    t = lay(t:clone():detach(), (arg.mutated or wide) and 0 or how.layout)
    if how.spec.meta then t = how.spec.dead and t or t:to "meta" end
    if how.spec.dead then t:free() return t end
    if arg.mutated then mutated[#mutated + 1] = t
    elseif how.grad and arg.grad and FLOAT[t.dtype] then
      t = t:detach()
      t.requires_grad = true
      leaves[#leaves + 1] = t
    end
    return t
  end
  for _, arg in ipairs(args) do
    local how = fixed[arg.name]
    if how and how.list then
      named[arg.name] = {}
      for m, each in ipairs(how.list) do named[arg.name][m] = make(arg, each) end
    elseif how and how.rng then named[arg.name] = unic.new_generator(99)
    elseif how and how.value then named[arg.name] = make(arg, how)
    elseif how then named[arg.name] = how.plain end
  end
  return named, leaves, mutated
end

local function run(info, args, fixed, wide)
  local named, leaves, mutated = build(args, fixed, wide)
  local outs = { core.ops.call[info.name](named) }
  local result = { outs = info.inplace and {} or outs, mutated = mutated, grads = {} }
  local total, seed
  for j, y in ipairs(result.outs) do
    if FLOAT[y.dtype] and y.requires_grad and y.device ~= "meta" then
      seed = unic.randn(y.shape, { dtype = "f64", rng = unic.new_generator(500 + j) }):cast(y.dtype)
      local part = (y:cast "f64" * seed:cast "f64"):sum()
      total = total and total + part or part
    end
  end
  if total then
    local ok, why = pcall(total.backward, total)
    if not ok then return result, "backward: " .. tostring(why) end
    for i, leaf in ipairs(leaves) do result.grads[i] = leaf.grad or unic.zeros(leaf.shape, { dtype = "f64" }) end
  end
  return result
end

local function largest(list)
  local m = 0
  for _, t in ipairs(list) do m = math.max(m, testing.largest(t)) end
  return m
end

-- A sentence when two results differ by more than the dtype allows.
local function compare(result, reference, dtype)
  if math.max(largest(reference.outs), largest(reference.grads), largest(reference.mutated)) > LARGEST[dtype] then return nil end   -- overflows are not compared
  for _, group in ipairs { "outs", "mutated" } do
    for j, ref in ipairs(reference[group]) do
      local got = result[group][j]
      if got.device == "meta" then return nil end
      local err, at
      -- what is written in place may be the small difference of two larger numbers
      if FLOAT[ref.dtype] then err, at = testing.error(got, ref, group == "mutated" and FLOOR[dtype] or LEAST[dtype])
      else err, at = testing.same_bits(got:contiguous(), ref:contiguous()) and 0 or math.huge, 0 end
      if not (err <= TOLERANCE[dtype]) then return ("%s %d: error %.3g at %d"):format(group, j, err, at) end
    end
  end
  local scale = FLOOR[dtype] * math.max(largest(reference.grads), 1)
  for i, ref in ipairs(reference.grads) do
    local err, at = testing.error(result.grads[i], ref, scale)
    if not (err <= 2 * TOLERANCE[dtype]) then return ("gradient %d: error %.3g at %d"):format(i, err, at) end
  end
end

local function told(c, dtype)
  local parts = { dtype }
  local function text(v)
    if is_spec(v) then return "[" .. table.concat(v.shape, ",") .. "]" .. (v.dtype or v.meta and "meta" or v.ints and "ids" or "") end
    if type(v) ~= "table" then return tostring(v) end
    local list = {}
    for i, each in ipairs(v) do list[i] = text(each) end
    return "{" .. table.concat(list, ",") .. "}"
  end
  for key, v in pairs(c) do parts[#parts + 1] = key .. "=" .. text(v) end
  table.sort(parts)
  return table.concat(parts, " ")
end

--- Call an op `count` times.
-- @param name of the op
-- @param count of calls
-- @param seed of the choices
-- @return {calls, valid, compared, wrong = list of sentences}
function fuzz.op(name, count, seed)
  state = seed % 2147483646 + 1
  for i = 1, #name do state = (state * 31 + name:byte(i)) % 2147483646 + 1 end
  local info = core.ops.describe(name)
  local args = arguments_of(info)
  local found = { calls = 0, valid = 0, compared = 0, wrong = {} }
  local function wrong(c, dtype, ...)
    if #found.wrong < 20 then found.wrong[#found.wrong + 1] = ("%s: %s: %s"):format(name, told(c, dtype), table.concat({ ... }, " ")) end
  end
  for call = 1, count do
    local dtype = pick { "f32", "f32", "f32", "bf16", "f16", "f64" }
    local c = sensible(info, args)
    local whole = not chance(28)
    if not whole then broken(c, args) end
    local prepared, fixed = pcall(fix, info, args, c, dtype)
    if prepared then
      found.calls = found.calls + 1
      local ok, result, problem = pcall(run, info, args, fixed, false)
      if not ok then
        local why = tostring(result)
        local own = why:find("[" .. name .. "]", 1, true) or why:find("[memory]", 1, true) or why:find("[device]", 1, true)
        if not own then wrong(c, dtype, "refused without a sentence of its own:", why) end
        fuzz.last_refusal = whole and why or fuzz.last_refusal
      elseif problem then
        wrong(c, dtype, problem)
      else
        found.valid = found.valid + 1
        if TOLERANCE[dtype] and not UNCOMPARED[name] and whole then
          local fine, reference, trouble = pcall(run, info, args, fixed, true)
          if not fine or trouble then wrong(c, dtype, "the f64 form:", tostring(trouble or reference))
          else
            local difference = compare(result, reference, dtype)
            if difference then wrong(c, dtype, difference) end
            found.compared = found.compared + 1
          end
        end
      end
    end
    if call % 200 == 0 then collectgarbage() end
  end
  collectgarbage()
  collectgarbage()
  return found
end

--- All ops that Lua can call, sorted.
function fuzz.names()
  local names = {}
  for name in pairs(core.ops.call) do names[#names + 1] = name end
  table.sort(names)
  return names
end

return fuzz
