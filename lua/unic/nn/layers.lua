--- Layers: Linear, Conv2d, norms, Embedding, Dropout, pooling, activations. Names, defaults and initial values are PyTorch's.
-- @module unic.nn.layers
local arguments = require "unic.arguments"
local core = require "unic.core"
local tensor = require "unic.tensor"
local module = require "unic.nn.module"

local ops = core.ops.call
local make = tensor.exports
local Parameter = module.Parameter
local layers = {}

local check, default = arguments.check, arguments.default

-- Kinds of arguments.
local SIZE, PROBABILITY, EPS = { "integer", least = 1 }, { "number", least = 0, most = 1 }, { "number", least = 0 }
local WINDOW, PADDING = { "pair", least = 1 }, { "pair", least = 0 }
local MODULE = { text = "a module or a function", test = function(m) return module.is_module(m) or type(m) == "function" end }
local MEMBER = { text = "a module", test = function(m) return m ~= nil and (MODULE.test(m) or core.tensor.is_tensor(m)) end }

local function pair(v) return type(v) == "table" and v or { v, v } end

-- U(-bound, bound), PyTorch's default for weights of Linear and Conv2d with bound = 1/sqrt(fan_in).
local function uniform(shape, bound) return Parameter(ops.uniform_(make.empty(shape), -bound, bound)) end

-- ---------------------------------------------------------------- Linear

--- y = x W^T + b.
-- @param in_features size of x's last dimension
-- @param out_features size of y's last dimension
-- @param options `bias` (true), `activation` ("none", "gelu", "relu": fused behind the product)
layers.Linear = module.class "Linear"
function layers.Linear:init(in_features, out_features, options)
  check("nn.Linear", "in_features", in_features, { "integer", least = 0 })
  check("nn.Linear", "out_features", out_features, { "integer", least = 0 })
  options = arguments.options("nn.Linear", options, { bias = "boolean", activation = { "choice", "none", "gelu", "relu" } })
  local bound = in_features > 0 and 1 / math.sqrt(in_features) or 0
  self.in_features, self.out_features, self.activation = in_features, out_features, options.activation or "none"
  self.weight = uniform({ out_features, in_features }, bound)
  if options.bias ~= false then self.bias = uniform({ out_features }, bound) end
end
function layers.Linear:forward(x) return ops.linear(x, self.weight, self.bias, self.activation) end
function layers.Linear:extra()
  return ("%d, %d%s%s"):format(self.in_features, self.out_features, self.bias and "" or ", bias = false", self.activation ~= "none" and ", " .. self.activation or "")
end

-- ---------------------------------------------------------------- Conv2d

--- Two-dimensional convolution.
-- @param in_channels channels of x
-- @param out_channels channels of y
-- @param kernel a number or {h, w}
-- @param options `stride` (1), `padding` (0), `dilation` (1), `groups` (1), `bias` (true)
layers.Conv2d = module.class "Conv2d"
function layers.Conv2d:init(in_channels, out_channels, kernel, options)
  check("nn.Conv2d", "in_channels", in_channels, SIZE)
  check("nn.Conv2d", "out_channels", out_channels, SIZE)
  check("nn.Conv2d", "kernel", kernel, WINDOW)
  options = arguments.options("nn.Conv2d", options, { stride = WINDOW, padding = PADDING, dilation = WINDOW, groups = SIZE, bias = "boolean" })
  local k, groups = pair(kernel), options.groups or 1
  if in_channels % groups ~= 0 or out_channels % groups ~= 0 then
    core.fail(("[nn.Conv2d] argument 'groups': %d was given, expected a divisor of %d and %d channels"):format(groups, in_channels, out_channels))
  end
  local bound = 1 / math.sqrt(in_channels / groups * k[1] * k[2])
  self.in_channels, self.out_channels, self.kernel = in_channels, out_channels, k
  self.options = { stride = options.stride or 1, padding = options.padding or 0, dilation = options.dilation or 1, groups = groups }
  self.weight = uniform({ out_channels, in_channels / groups, k[1], k[2] }, bound)
  if options.bias ~= false then self.bias = uniform({ out_channels }, bound) end
end
function layers.Conv2d:forward(x) return ops.conv2d(x, self.weight, self.bias, self.options) end
function layers.Conv2d:extra()
  local s = pair(self.options.stride)
  return ("%d, %d, %dx%d, stride %d%s"):format(self.in_channels, self.out_channels, self.kernel[1], self.kernel[2], s[1], self.bias and "" or ", bias = false")
end

-- ---------------------------------------------------------------- norms

-- One class for both ranks: the op takes [N,C] and [N,C,H,W].
local BatchNorm = module.class "BatchNorm"
function BatchNorm:init(features, options)
  check("nn." .. self._name, "features", features, SIZE)
  options = arguments.options("nn." .. self._name, options, { eps = EPS, momentum = PROBABILITY, affine = "boolean" })
  self.features, self.eps, self.momentum = features, options.eps or 1e-5, options.momentum or 0.1
  if options.affine ~= false then
    self.weight = Parameter(make.ones(features))
    self.bias = Parameter(make.zeros(features))
  end
  self:buffer("running_mean", make.zeros(features))
  self:buffer("running_var", make.ones(features))
  self:buffer("num_batches_tracked", make.full({}, 0, { dtype = "i64" }))
end
--- Normalise over the batch; with `residual` and `relu` the sum and the activation are done in the same pass. With the field `fixed = true` the running
-- statistics are used, and stay as they are, in training mode too.
-- @param x [N,C] or [N,C,H,W]
-- @param options `residual` (a tensor like x, added after the norm), `relu` (false)
function BatchNorm:forward(x, options)
  check("nn." .. self._name, "x", x, "tensor")
  if x:dim() ~= self.rank then core.fail(("[nn.%s] argument 'x': %d dimensions were given, expected %d"):format(self._name, x:dim(), self.rank)) end
  return ops.batch_norm(x, self.weight, self.bias, self.running_mean, self.running_var, options and options.residual or nil, self.num_batches_tracked, {
    training = self.training and not self.fixed, momentum = self.momentum, eps = self.eps, relu = options and options.relu or false,
  })
end
function BatchNorm:extra() return ("%d%s"):format(self.features, self.weight and "" or ", affine = false") end

--- Batch norm over [N,C]. Options: `eps` (1e-5), `momentum` (0.1), `affine` (true).
layers.BatchNorm1d = module.class("BatchNorm1d", BatchNorm)
layers.BatchNorm1d.rank = 2
--- Batch norm over [N,C,H,W]. Options: `eps` (1e-5), `momentum` (0.1), `affine` (true).
layers.BatchNorm2d = module.class("BatchNorm2d", BatchNorm)
layers.BatchNorm2d.rank = 4

--- Layer norm over the last dimension.
-- @param features its size
-- @param options `eps` (1e-5), `affine` (true)
layers.LayerNorm = module.class "LayerNorm"
function layers.LayerNorm:init(features, options)
  check("nn.LayerNorm", "features", features, SIZE)
  options = arguments.options("nn.LayerNorm", options, { eps = EPS, affine = "boolean" })
  self.features, self.eps = features, options.eps or 1e-5
  if options.affine ~= false then
    self.weight = Parameter(make.ones(features))
    self.bias = Parameter(make.zeros(features))
  end
end
function layers.LayerNorm:forward(x) return ops.layer_norm(x, self.weight, self.bias, self.eps) end

--- h = residual + dropout(x), y = norm(h), in one pass.
-- @param x the branch
-- @param residual what it is added to
-- @param dropout probability of dropping an element of x (0 in evaluation mode)
-- @return y, h
function layers.LayerNorm:add(x, residual, dropout)
  return ops.add_layer_norm(x, residual, self.weight, self.bias, { dropout = self.training and dropout or 0, eps = self.eps })
end
function layers.LayerNorm:extra() return ("%d, eps %g"):format(self.features, self.eps) end

-- ---------------------------------------------------------------- Embedding

--- A table of vectors, looked up by ids (which count from 0).
-- @param rows number of vectors
-- @param features their size
-- @param options `padding` (an id whose row gets no gradient and starts at 0)
layers.Embedding = module.class "Embedding"
function layers.Embedding:init(rows, features, options)
  check("nn.Embedding", "rows", rows, SIZE)
  check("nn.Embedding", "features", features, SIZE)
  options = arguments.options("nn.Embedding", options, { padding = { "integer", least = -1, most = rows - 1 } })
  self.rows, self.features, self.padding = rows, features, options.padding or -1
  local weight = make.randn(rows, features)
  if self.padding >= 0 then weight:narrow(1, self.padding + 1, 1):fill_(0) end
  self.weight = Parameter(weight)
end
function layers.Embedding:forward(ids) return ops.embedding(ids, self.weight, self.padding) end
function layers.Embedding:extra() return ("%d, %d"):format(self.rows, self.features) end

-- ---------------------------------------------------------------- dropout

--- Zero elements with probability p in training, scale the others by 1/(1-p).
layers.Dropout = module.class "Dropout"
function layers.Dropout:init(p) self.p = default("nn.Dropout", "p", p, PROBABILITY, 0.5) end
function layers.Dropout:forward(x)
  if not self.training or self.p == 0 then return x end
  return ops.dropout(x, self.p)
end
function layers.Dropout:extra() return ("%g"):format(self.p) end

--- Zero whole samples of a residual branch with probability p in training (stochastic depth), scale the others by 1/(1-p).
layers.DropPath = module.class "DropPath"
function layers.DropPath:init(p) self.p = default("nn.DropPath", "p", p, PROBABILITY, 0) end
function layers.DropPath:forward(x)
  if not self.training or self.p == 0 then return x end
  return ops.drop_path(x, self.p)
end
function layers.DropPath:extra() return ("%g"):format(self.p) end

-- ---------------------------------------------------------------- pooling, shape, activations

--- Largest value of each window. Options: `stride` (the kernel), `padding` (0).
layers.MaxPool2d = module.class "MaxPool2d"
function layers.MaxPool2d:init(kernel, options)
  check("nn.MaxPool2d", "kernel", kernel, WINDOW)
  options = arguments.options("nn.MaxPool2d", options, { stride = PADDING, padding = PADDING })
  self.kernel, self.stride, self.padding = kernel, options.stride or kernel, options.padding or 0
end
function layers.MaxPool2d:forward(x) return ops.max_pool2d(x, self.kernel, self.stride, self.padding) end

--- Mean of each window. Options: `stride` (the kernel), `padding` (0).
layers.AvgPool2d = module.class "AvgPool2d"
function layers.AvgPool2d:init(kernel, options)
  check("nn.AvgPool2d", "kernel", kernel, WINDOW)
  options = arguments.options("nn.AvgPool2d", options, { stride = PADDING, padding = PADDING })
  self.kernel, self.stride, self.padding = kernel, options.stride or kernel, options.padding or 0
end
function layers.AvgPool2d:forward(x) return ops.avg_pool2d(x, self.kernel, self.stride, self.padding) end

--- Mean over height and width: [N,C,H,W] -> [N,C].
layers.GlobalAvgPool2d = module.class "GlobalAvgPool2d"
function layers.GlobalAvgPool2d:forward(x) return ops.global_avg_pool2d(x) end

--- All dimensions from `first` (2) on become one.
layers.Flatten = module.class "Flatten"
function layers.Flatten:init(first) self.first = default("nn.Flatten", "first", first, "dim", 2) end
function layers.Flatten:forward(x) return ops.flatten(x, self.first) end

--- x itself.
layers.Identity = module.class "Identity"
function layers.Identity:forward(x) return x end

for name, op in pairs { ReLU = "relu", GELU = "gelu", Tanh = "tanh", Sigmoid = "sigmoid", SiLU = "silu", Softplus = "softplus" } do
  layers[name] = module.class(name)
  layers[name].forward = function(_, x) return ops[op](x) end
  module.lends(layers[name])
end

-- ---------------------------------------------------------------- containers

--- Modules (or plain functions) run one after the other.
layers.Sequential = module.class "Sequential"
function layers.Sequential:init(...)
  for i = 1, select("#", ...) do self[i] = check("nn.Sequential", i, (select(i, ...)), MODULE) end
end
function layers.Sequential:forward(x)
  local own = false
  for i = 1, #self do x, own = module.pass(self[i], x, own) end
  return x
end
module.lends(layers.Sequential, function(self)
  for i = 1, #self do if not module.only_lent(self[i]) then return false end end
  return #self > 0   -- an empty one returns what it is given
end)
--- Put one more module at the end.
function layers.Sequential:append(m)
  self[#self + 1] = check("nn.Sequential.append", "module", m, MODULE)
  return self
end

--- A list of modules, indexed from 1 (their names count from 0, as PyTorch's do).
layers.List = module.class "List"
function layers.List:init(members)
  if module.is_module(members) then arguments.fail("nn.List", "argument 'members': a module, expected a list of modules: nn.List{a, b}") end
  for i, m in ipairs(arguments.list("nn.List", "members", members or {}, MEMBER, "a list of modules")) do self[i] = m end
end
function layers.List:append(m)
  self[#self + 1] = check("nn.List.append", "module", m, MEMBER)
  return self
end

-- ---------------------------------------------------------------- attention

--- Multi-head self-attention with one packed projection.
-- @param width size of the last dimension
-- @param heads number of heads; width must be a multiple
-- @param options `bias` (true), `dropout` (0), `names` ("torch": in_proj_weight; "timm": qkv, proj)
layers.MultiheadAttention = module.class "MultiheadAttention"
function layers.MultiheadAttention:init(width, heads, options)
  check("nn.MultiheadAttention", "width", width, SIZE)
  check("nn.MultiheadAttention", "heads", heads, SIZE)
  options = arguments.options("nn.MultiheadAttention", options, { bias = "boolean", dropout = PROBABILITY })
  if width % heads ~= 0 then core.fail(("[nn.MultiheadAttention] argument 'heads': %d was given, expected a divisor of the width %d"):format(heads, width)) end
  self.width, self.heads, self.dropout = width, heads, options.dropout or 0
  self.qkv = layers.Linear(width, 3 * width, { bias = options.bias })
  self.proj = layers.Linear(width, width)
end
--- @param x [B,S,width]
-- @param options `mask` (bool [B,S], [B,S,S] or [B,H,S,S], true = attend; or added floats), `causal`
-- @return [B,S,width]
function layers.MultiheadAttention:forward(x, options)
  check("nn.MultiheadAttention", "x", x, "tensor")
  if x:dim() ~= 3 then core.fail(("[nn.MultiheadAttention] argument 'x': %d dimensions were given, expected 3: [B, S, width]"):format(x:dim())) end
  local b, s = x:size(1), x:size(2)
  local qkv = ops.reshape(self.qkv(x), { b, s, 3, self.heads, self.width / self.heads })
  local y = ops.self_attention(qkv, {
    mask = options and options.mask, causal = options and options.causal or false, dropout = self.training and self.dropout or 0,
  })
  return self.proj(ops.reshape(y, { b, s, self.width }))
end
function layers.MultiheadAttention:extra() return ("%d, %d heads"):format(self.width, self.heads) end

-- ---------------------------------------------------------------- whose the outputs are

for _, class in ipairs { layers.Linear, layers.Conv2d, BatchNorm, layers.LayerNorm, layers.Embedding, layers.MaxPool2d, layers.AvgPool2d,
  layers.GlobalAvgPool2d, layers.Flatten } do module.lends(class) end
for _, name in ipairs { "Dropout", "DropPath" } do   -- otherwise x itself comes back
  module.lends(layers[name], function(self) return self.training and self.p > 0 end)
end

return layers
