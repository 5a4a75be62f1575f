--- Optimisers, learning-rate schedules, gradient clipping, averaged weights.
-- Everything that changes from step to step (learning rate, step count, clip coefficient) is a tensor on the device, so a recorded step stays
-- right when it is replayed.
-- @module unic.optim
local arguments = require "unic.arguments"
local core = require "unic.core"
local in_backward = require "unic.step_in_backward"
local module = require "unic.nn.module"
local tensor = require "unic.tensor"

local ops = core.ops.call
local make = tensor.exports
local optim = {}

-- ---------------------------------------------------------------- the common part

local Optimizer = {}
Optimizer.__index = Optimizer
Optimizer.__name = "unic.optimizer"

-- Kinds of arguments.
local NOT_NEGATIVE, SHARE = { "number", least = 0 }, { "number", least = 0, most = 1 }
local MODULE = { text = "a module", test = module.is_module }
local OPTIMIZER = { text = "an optimiser", test = function(o) return type(o) == "table" and type(rawget(o, "groups")) == "table" end }
local BETAS = { text = "two numbers of 0 or more and below 1", test = function(b)
  if type(b) ~= "table" or #b ~= 2 then return false end
  for i = 1, 2 do
    if type(b[i]) ~= "number" or not (b[i] >= 0 and b[i] < 1) then return false end
  end
  return true
end }

local function scalar(value, device) return make.full({}, value, { dtype = "f32", device = device }):set_keep(true) end

-- Groups from a list of parameters, a list of groups, or one group; options are defaults of every group. `kinds` says what options there are,
-- `defaults` what they are when nobody gives them.
local function read_groups(op, params, options, kinds, defaults)
  options = arguments.options(op, options, kinds)
  if type(params) ~= "table" or module.is_module(params) then
    arguments.fail(op, "argument 'params': %s, expected a list of parameters or of groups", module.is_module(params) and "a module (it has :parameters())"
      or arguments.describe(params))
  end
  local groups = params
  if core.tensor.is_tensor(params[1]) then groups = { { params = params } } end
  if params.params then groups = { params } end
  local list, seen, valid = {}, {}, { params = "table" }
  for key, kind in pairs(kinds) do valid[key] = kind end
  for g, given in ipairs(groups) do
    if type(given) ~= "table" then arguments.fail(op, "argument 'params': member %d is %s, expected a tensor or a group", g, arguments.describe(given)) end
    arguments.options(op, given, valid)
    local group = { params = given.params, index = g }
    for key, default in pairs(defaults) do
      local value = given[key]
      if value == nil then value = options[key] end
      if value == nil then value = default end
      group[key] = value
    end
    if not group.params then arguments.fail(op, "argument 'params': group %d has none", g) end
    for i, p in ipairs(group.params) do
      if not core.tensor.is_tensor(p) then
        arguments.fail(op, "argument 'params': member %d of group %d is %s, expected a tensor", i, g, arguments.describe(p))
      end
      if seen[p] then arguments.fail(op, "argument 'params': one parameter stands in two places of the groups") end
      seen[p] = true
    end
    group.base_lr = group.lr
    local first = group.params[1]
    group.lr_tensor = scalar(group.lr, first and first.device)
    list[g] = group
  end
  if #list == 0 then arguments.fail(op, "argument 'params': it is empty") end
  return list
end

local function check_group(op, self, group)
  return arguments.default(op, "group", group, { "integer", least = 1, most = #self.groups })
end

--- Set the learning rate of one group (or all).
-- @param lr a number
-- @param group its number (nil: all groups)
function Optimizer:set_lr(lr, group)
  arguments.check("optim.set_lr", "lr", lr, NOT_NEGATIVE)
  check_group("optim.set_lr", self, group)
  for g, each in ipairs(self.groups) do
    if group == nil or group == g then
      each.lr = lr
      each.lr_tensor:fill_(lr)
    end
  end
end

--- The learning rate of a group.
-- @param group its number (1)
-- @return a number
function Optimizer:get_lr(group) return self.groups[check_group("optim.get_lr", self, group) or 1].lr end

--- Drop all gradients; the next backward writes them anew.
function Optimizer:zero_grad()
  for _, group in ipairs(self.groups) do
    for _, p in ipairs(group.params) do p.grad = nil end
  end
  in_backward.forget(self)
end

--- Use the gradients times this number from now on (the inverse of a loss scale, a clip coefficient).
-- @param scale a number or a tensor without dimensions; nil = 1
function Optimizer:set_scale(scale)
  if not core.tensor.is_tensor(scale) then arguments.default("optim.set_scale", "scale", scale, "number") end
  self.scale = scale or 1
end

-- Let go of looks at gradients that were taken here: as garbage they would keep the gradients themselves until a collection, which may be after the next
-- forward has taken new memory.
local function release(grads)
  for i = 1, #grads do grads[i]:free() end
end

-- What state the parameters of a group have.
function Optimizer:state_names() return self.names end

-- The state tensors of a parameter, made at first use: a list that has them by name, too.
function Optimizer:state_of(p, group)
  local own = self.state[p]
  if own then return own end
  own = {}
  for i, name in ipairs(self:state_names(group)) do
    own[i] = tensor.with(core.lasting, true, make.zeros_like, p):set_keep(true)
    own[name] = own[i]
  end
  self.state[p] = own
  return own
end

--- One update from the gradients that are there; parameters without one stay as they are.
function Optimizer:step()
  tensor.with(core.grad_mode, false, function()
    for _, group in ipairs(self.groups) do
      local params, grads, state = {}, {}, {}
      local kinds = #self:state_names(group)
      for i = 1, kinds do state[i] = {} end
      for _, p in ipairs(group.params) do
        local grad = p.grad
        if grad then
          local own, n = self:state_of(p, group), #params + 1
          params[n], grads[n] = p, grad
          for i = 1, kinds do state[i][n] = own[i] end
        end
      end
      if #params > 0 then self:update(group, params, grads, state) end
      release(grads)
    end
  end)
  in_backward.forget(self)
end

--- The optimiser's state by name, for a checkpoint: `<parameter>.<what>`, and `step` per group.
-- @param names a table parameter -> name (from `optim.names(model)`)
-- @return a table name -> tensor
function Optimizer:state_dict(names)
  arguments.check("optim.state_dict", "names", names, "table")
  local dict = {}
  for p, own in pairs(self.state) do
    local name = names[p]
    if not name then core.fail "[optim.state_dict] argument 'names': a parameter of the optimiser is not among them" end
    for _, key in ipairs(self.names) do dict[name .. "." .. key] = own[key] end
  end
  for g, group in ipairs(self.groups) do
    if group.step then dict["group" .. g .. ".step"] = group.step end
    dict["group" .. g .. ".lr"] = group.lr_tensor
  end
  return dict
end

--- Put a saved state back, to the bit.
-- @param dict what state_dict gave
-- @param names a table parameter -> name
function Optimizer:load_state_dict(dict, names)
  arguments.check("optim.load_state_dict", "dict", dict, "table")
  arguments.check("optim.load_state_dict", "names", names, "table")
  for g, group in ipairs(self.groups) do
    for _, p in ipairs(group.params) do
      local name = names[p] or core.fail "[optim.load_state_dict] argument 'names': a parameter of the optimiser is not among them"
      local own
      for i, key in ipairs(self.names) do
        local value = dict[name .. "." .. key]
        if value then
          own = own or {}
          own[i] = make.empty(p.shape, { dtype = value.dtype, device = p.device }):copy_(value):set_keep(true)
          own[key] = own[i]
        end
      end
      self.state[p] = own
      if own and self.seen then self.seen[p] = true end   -- SGD: its buffer has had its first value
    end
    local step, lr = dict["group" .. g .. ".step"], dict["group" .. g .. ".lr"]
    if step and group.step then group.step:copy_(step) end
    if lr then
      group.lr_tensor:copy_(lr)
      group.lr = lr:item()
    end
  end
end

--- Names for an optimiser's parameters.
-- @param model a module
-- @return a table parameter -> name
function optim.names(model)
  arguments.check("optim.names", "model", model, MODULE)
  local names = {}
  for _, entry in ipairs(model:named_parameters()) do names[entry.value] = entry.name end
  return names
end

local function new(class, name, params, options, kinds, defaults, names)
  local self = setmetatable({ groups = read_groups(name, params, options, kinds, defaults), state = {}, names = names, scale = 1 }, class)
  return self
end

local function class()
  local c = setmetatable({}, { __index = Optimizer })
  c.__index = c
  return c
end

-- ---------------------------------------------------------------- AdamW, SGD

local AdamW = class()
local ADAMW_OPTIONS = { lr = NOT_NEGATIVE, betas = BETAS, eps = NOT_NEGATIVE, weight_decay = NOT_NEGATIVE }

--- Adam with decoupled weight decay (Loshchilov and Hutter, 2019).
-- @param params a list of parameters, or of groups `{params =, lr =, weight_decay =, ...}`
-- @param options `lr` (1e-3), `betas` ({0.9, 0.999}), `eps` (1e-8), `weight_decay` (1e-2)
-- @return an optimiser: `step()`, `zero_grad()`, `set_lr(lr)`, `state_dict(names)`; `loss:backward{step = it}`
function optim.AdamW(params, options)
  local self = new(AdamW, "optim.AdamW", params, options, ADAMW_OPTIONS, { lr = 1e-3, betas = { 0.9, 0.999 }, eps = 1e-8, weight_decay = 1e-2 },
    { "exp_avg", "exp_avg_sq" })
  for _, group in ipairs(self.groups) do group.step = scalar(0, group.params[1] and group.params[1].device) end
  return self
end

-- Update some parameters of a group. counted: others of the group have taken this step before.
function AdamW:update(group, params, grads, state, counted)
  ops.adamw(params, grads, state[1], state[2], group.lr_tensor, group.step, {
    scale = self.scale, beta1 = group.betas[1], beta2 = group.betas[2], eps = group.eps, weight_decay = group.weight_decay, counted = counted,
  })
end

local SGD = class()
local SGD_OPTIONS = { lr = NOT_NEGATIVE, momentum = NOT_NEGATIVE, dampening = "number", weight_decay = NOT_NEGATIVE, nesterov = "boolean" }

--- Stochastic gradient descent with momentum.
-- @param params a list of parameters or of groups
-- @param options `lr` (1e-2), `momentum` (0), `dampening` (0), `weight_decay` (0), `nesterov` (false)
-- @return an optimiser
function optim.SGD(params, options)
  local self = new(SGD, "optim.SGD", params, options, SGD_OPTIONS, { lr = 1e-2, momentum = 0, dampening = 0, weight_decay = 0, nesterov = false },
    { "momentum_buffer" })
  for g, group in ipairs(self.groups) do
    if group.nesterov and (group.momentum == 0 or group.dampening ~= 0) then
      arguments.fail("optim.SGD", "option 'nesterov': group %d has momentum %g and dampening %g, expected a momentum above 0 and no dampening", g,
        group.momentum, group.dampening)
    end
  end
  self.seen = {}   -- parameters that were stepped before
  return self
end

function SGD:state_names(group) return group.momentum ~= 0 and self.names or {} end

function SGD:update(group, params, grads, state)
  local with_momentum = group.momentum ~= 0
  -- A buffer's first value is the gradient itself, not (1 - dampening) of it: parameters met for the first time go apart.
  local fresh, old = { {}, {}, {} }, { {}, {}, {} }
  for i, p in ipairs(params) do
    local to = (with_momentum and group.dampening ~= 0 and not self.seen[p]) and fresh or old
    self.seen[p] = true
    to[1][#to[1] + 1], to[2][#to[2] + 1] = p, grads[i]
    if with_momentum then to[3][#to[3] + 1] = state[1][i] end
  end
  for k, part in ipairs { fresh, old } do
    if #part[1] > 0 then
      ops.sgd(part[1], part[2], part[3], group.lr_tensor, {
        scale = self.scale, momentum = group.momentum, dampening = k == 1 and 0 or group.dampening, weight_decay = group.weight_decay, nesterov = group.nesterov,
      })
    end
  end
end

-- ---------------------------------------------------------------- LARS, BertAdam

local LARS = class()
local LARS_OPTIONS = { lr = NOT_NEGATIVE, momentum = NOT_NEGATIVE, weight_decay = NOT_NEGATIVE, eta = NOT_NEGATIVE, skip_decay = "boolean", skip_adapt = "boolean" }

--- Layer-wise adaptive rate scaling (You, Gitman and Ginsburg, 2017): SGD with momentum, every tensor's gradient scaled to eta times the tensor's norm.
-- @param params a list of parameters or of groups
-- @param options `lr` (1e-2), `momentum` (0.9), `weight_decay` (0), `eta` (1e-3), `skip_decay` (false; true: no weight decay on tensors of at most one
-- dimension), `skip_adapt` (false; true: no scaling of those)
-- @return an optimiser
function optim.LARS(params, options)
  return new(LARS, "optim.LARS", params, options, LARS_OPTIONS,
    { lr = 1e-2, momentum = 0.9, weight_decay = 0, eta = 1e-3, skip_decay = false, skip_adapt = false }, { "momentum_buffer" })
end

function LARS:update(group, params, grads, state)
  ops.lars(params, grads, state[1], group.lr_tensor, {
    scale = self.scale, momentum = group.momentum, weight_decay = group.weight_decay, eta = group.eta, skip_decay = group.skip_decay,
    skip_adapt = group.skip_adapt,
  })
end

local BertAdam = class()
local BERT_ADAM_OPTIONS = { lr = NOT_NEGATIVE, betas = BETAS, eps = NOT_NEGATIVE, weight_decay = NOT_NEGATIVE, max_norm = NOT_NEGATIVE }

--- BERT's Adam (Devlin et al., 2019): decoupled weight decay, no bias correction, each gradient tensor clipped on its own. Goes with `optim.bert_linear`.
-- @param params a list of parameters or of groups
-- @param options `lr` (1e-3), `betas` ({0.9, 0.999}), `eps` (1e-8), `weight_decay` (1e-2), `max_norm` (1: norm that a tensor's gradient is clipped to; 0: not)
-- @return an optimiser
function optim.BertAdam(params, options)
  return new(BertAdam, "optim.BertAdam", params, options, BERT_ADAM_OPTIONS,
    { lr = 1e-3, betas = { 0.9, 0.999 }, eps = 1e-8, weight_decay = 1e-2, max_norm = 1 }, { "exp_avg", "exp_avg_sq" })
end

function BertAdam:update(group, params, grads, state)
  ops.bert_adam(params, grads, state[1], state[2], group.lr_tensor, {
    scale = self.scale, beta1 = group.betas[1], beta2 = group.betas[2], eps = group.eps, weight_decay = group.weight_decay, max_norm = group.max_norm,
  })
end

-- ---------------------------------------------------------------- clipping

local function gradients(op, params)
  if module.is_module(params) then arguments.fail(op, "argument 'params': a module, expected a list of parameters: model:parameters()") end
  arguments.list(op, "params", params, "tensor", "a list of parameters")
  local grads = {}
  for _, p in ipairs(params) do
    local grad = p.grad
    if grad then grads[#grads + 1] = grad
    elseif in_backward.spent(p) then
      arguments.fail(op, "argument 'params': gradients are gone: backward{step = ..} used them up one by one; the norm of all of them takes loss:backward() and optimizer:step()")
    end
  end
  return grads
end

--- The L2 norm of all gradients together.
-- @param params a list of parameters
-- @return a tensor without dimensions
function optim.grad_norm(params)
  local grads = gradients("optim.grad_norm", params)
  if #grads == 0 then return make.zeros {} end
  return tensor.with(core.grad_mode, false, ops.grad_norm, grads)
end

--- Scale all gradients so that their common L2 norm is at most max_norm.
-- @param params a list of parameters
-- @param max_norm a number
-- @return the norm before clipping, a tensor without dimensions
function optim.clip_grad_norm(params, max_norm)
  arguments.check("optim.clip_grad_norm", "max_norm", max_norm, NOT_NEGATIVE)
  return tensor.with(core.grad_mode, false, function()
    local grads = gradients("optim.clip_grad_norm", params)
    if #grads == 0 then return make.zeros {} end
    local norm = ops.grad_norm(grads)
    ops.scale_(grads, ops.clamp(ops.div(max_norm, ops.add(norm, 1e-6)), { max = 1 }))
    release(grads)
    return norm
  end)
end

-- ---------------------------------------------------------------- schedules

local Schedule = {}
Schedule.__index = Schedule

--- Go to the next step: sets every group's learning rate.
function Schedule:step() self:seek(self.at + 1) end

--- Go to a step (0 = the first): sets every group's learning rate to its base rate times the factor there.
-- @param at a number
function Schedule:seek(at)
  arguments.check("optim.schedule", "at", at, NOT_NEGATIVE)
  self.at = at
  for g, group in ipairs(self.optimizer.groups) do
    local rate = self.rate(at, group.base_lr)
    if type(rate) ~= "number" then arguments.fail("optim.schedule", "the rate of step %.14g is %s, expected a number", at, arguments.describe(rate)) end
    self.optimizer:set_lr(rate, g)
  end
end

--- A schedule of one's own.
-- @param optimizer what it steers
-- @param rate a function (step counted from 0, base learning rate) -> learning rate
-- @return a schedule with `step()` and `seek(n)`
function optim.schedule(optimizer, rate)
  arguments.check("optim.schedule", "optimizer", optimizer, OPTIMIZER)
  arguments.check("optim.schedule", "rate", rate, "callable")
  local self = setmetatable({ optimizer = optimizer, rate = rate, at = 0 }, Schedule)
  self:seek(0)
  return self
end

--- Linear warm-up from (almost) nothing, then one cosine down to `floor`.
-- @param optimizer what it steers
-- @param options `steps` (in all), `warmup` (a share of them when below 1, a number of steps otherwise; 0.1), `floor` (a share of the base rate; 0)
-- @return a schedule
function optim.warmup_cosine(optimizer, options)
  arguments.check("optim.warmup_cosine", "optimizer", optimizer, OPTIMIZER)
  options = arguments.options("optim.warmup_cosine", options, { steps = true, warmup = NOT_NEGATIVE, floor = NOT_NEGATIVE })
  local steps = arguments.check("optim.warmup_cosine", "steps", options.steps, { "number", least = 1 })
  local warmup = options.warmup or 0.1
  if warmup < 1 then warmup = math.floor(warmup * steps + 0.5) end
  local floor = options.floor or 0
  return optim.schedule(optimizer, function(at, base)
    if at < warmup then return base * (at + 1) / warmup end
    local x = math.min(1, (at - warmup) / math.max(1, steps - warmup))
    return base * (floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * x)))
  end)
end

--- Cosine from the base rate to `floor`, starting again every `period` steps (the official code's schedule).
-- @param optimizer what it steers
-- @param options `period` (steps of the first cycle), `factor` (each cycle is that much longer; 1), `floor` (a learning rate; 1e-8)
-- @return a schedule
function optim.cosine_restarts(optimizer, options)
  arguments.check("optim.cosine_restarts", "optimizer", optimizer, OPTIMIZER)
  options = arguments.options("optim.cosine_restarts", options, { period = true, factor = { "number", least = 1 }, floor = NOT_NEGATIVE })
  local period = arguments.check("optim.cosine_restarts", "period", options.period, { "number", least = 1 })
  local factor, floor = options.factor or 1, options.floor or 1e-8
  return optim.schedule(optimizer, function(at, base)
    local length = period
    while at >= length do
      at = at - length
      length = length * factor
    end
    return floor + 0.5 * (base - floor) * (1 + math.cos(math.pi * at / length))
  end)
end

--- BERT's schedule: with x = step / steps, steps counted from 1, the base rate times x / w below w, times (1 - x) / (1 - w), at least 0, from there on.
-- @param optimizer what it steers
-- @param options `steps` (in all), `warmup` (w; a share of them when below 1, a number of steps otherwise; 0.1)
-- @return a schedule
function optim.bert_linear(optimizer, options)
  arguments.check("optim.bert_linear", "optimizer", optimizer, OPTIMIZER)
  options = arguments.options("optim.bert_linear", options, { steps = true, warmup = NOT_NEGATIVE })
  local steps = arguments.check("optim.bert_linear", "steps", options.steps, { "number", least = 1 })
  local warmup = options.warmup or 0.1
  local w = warmup < 1 and warmup or warmup / steps
  if w >= 1 then arguments.fail("optim.bert_linear", "option 'warmup': %.14g of %.14g steps, expected fewer than all", warmup, steps) end
  return optim.schedule(optimizer, function(at, base)
    local x = (at + 1) / steps
    return base * (x < w and x / w or math.max((1 - x) / (1 - w), 0))
  end)
end

--- The base rate, always.
function optim.constant(optimizer) return optim.schedule(optimizer, function(_, base) return base end) end

-- ---------------------------------------------------------------- averaged weights

local EMA = {}
EMA.__index = EMA

--- An exponential moving average of a model's parameters.
-- @param model a module
-- @param decay the share of the average that stays at each update (0.999)
-- @return an object: `update()`, `swap()` (exchange the model's weights with the average, and again to go back)
function optim.EMA(model, decay)
  arguments.check("optim.EMA", "model", model, MODULE)
  decay = arguments.default("optim.EMA", "decay", decay, SHARE, 0.999)
  local self = setmetatable({ params = model:parameters(), average = {}, weight = scalar(1 - decay) }, EMA)
  for i, p in ipairs(self.params) do self.average[i] = p:detach():duplicate():set_keep(true) end
  return self
end

--- Move the average towards the present weights.
function EMA:update() tensor.with(core.grad_mode, false, ops.lerp_, self.average, self.params, self.weight) end

--- Exchange weights and average.
function EMA:swap()
  tensor.with(core.grad_mode, false, function()
    for i, p in ipairs(self.params) do
      local copy = p:detach():duplicate()
      p:copy_(self.average[i])
      self.average[i]:copy_(copy)
      copy:free()
    end
  end)
end

--- Dynamic loss scaling for f16, see lua/unic/grad_scaler.lua.
-- @param options `init` (65536), `growth` (2), `backoff` (0.5), `interval` (2000), `least` (1), `device`
-- @return a scaler: `scale(loss)`, `unscale(optimizer)`, `step(optimizer)`, `update()`
optim.GradScaler = require "unic.grad_scaler"

return optim
