--- What a module is: a table whose fields are parameters, buffers and other modules, in the order in which they were set.
--
--   local Block = nn.class "Block"
--   function Block:init(width)
--     self.norm = nn.LayerNorm(width)
--     self.fc = nn.Linear(width, width)
--   end
--   function Block:forward(x) return x + self.fc(self.norm(x)) end
--   local block = Block(64)
--
-- Parameter names are PyTorch's: `encoder.layer.0.attention.query.weight`; members of a list count from 0 there.
-- @module unic.nn.module
local arguments = require "unic.arguments"
local core = require "unic.core"
local tensor = require "unic.tensor"

local is_tensor = core.tensor.is_tensor
local module = {}

-- The modules being run, outermost first: the path that an error report shows. Weak: what was run last is not kept alive by it.
local running, depth = setmetatable({}, { __mode = "v" }), 0

local Module = {}
module.Module = Module

local function is_module(x)
  return type(x) == "table" and rawget(x, "_order") ~= nil
end

--- Is x a module?
-- @param x anything
-- @return true or false
module.is_module = is_module

-- Fields that are tensors or modules are remembered in order; everything else is an ordinary field.
local function set_field(self, key, value)
  rawset(self, key, value)
  if is_tensor(value) then
    self._kind[key] = value.requires_grad and "parameter" or self._kind[key] or "plain"
    if self._kind[key] == "parameter" then value:set_keep(true) end
    self._order[#self._order + 1] = key
  elseif is_module(value) then
    self._kind[key] = "module"
    self._order[#self._order + 1] = key
  end
end

-- Who wants to know which module runs (the profiler, anomaly mode), and the numbers that stand for modules meanwhile.
local watchers, watched = {}, nil
local numbers, paths = setmetatable({}, { __mode = "k" }), {}

local function number_of(self)
  if not numbers[self] then
    local function add(each, path)
      if numbers[each] then return end
      paths[#paths + 1] = path
      numbers[each] = #paths
    end
    add(self, self._name)
    for _, entry in ipairs(self:named_modules()) do add(entry.value, self._name .. "." .. entry.name) end
  end
  return numbers[self]
end

local function leave(before, ...)
  core.watch.module(before)
  return ...
end

--- Note which module runs, or stop.
-- @param who a name for the one who asks
-- @param on true or false
function module.watch(who, on)
  watchers[who] = on or nil
  watched = next(watchers) ~= nil
  core.watch.module(0)
end

--- The path of a module by its number: `Resnet.layer1.0.conv1`.
-- @param number as noted
-- @return a string; "" for 0
function module.name_of(number) return paths[number] or "" end

local function run(self, ...)
  local mine = depth
  if mine > 200 then mine = 0 end   -- errors that unwound past us left it high
  depth = mine + 1
  running[depth] = self
  local hooks = self._hooks
  if not hooks then
    local y, z, more = self:forward(...)
    depth = mine
    if more ~= nil then return y, z, more end
    if z ~= nil then return y, z end
    return y
  end
  local outs = { self:forward(...) }
  for _, hook in ipairs(hooks) do
    local replaced = hook(self, { ... }, unpack(outs))
    if replaced ~= nil then outs = { replaced } end
  end
  depth = mine
  return unpack(outs)
end

local function call(self, ...)
  if watched then return leave(core.watch.module(number_of(self)), run(self, ...)) end
  return run(self, ...)
end

--- The modules that were being run when the last error was raised, as a path such as `Resnet > BasicBlock > Conv2d`; nil when none was.
function module.path()
  local names = {}
  for i = 1, depth do names[i] = running[i] and running[i]._name or "?" end
  depth = 0
  if #names == 0 then return nil end
  return table.concat(names, " > ")
end

--- Make a kind of module. Define `init(self, ...)` and `forward(self, ...)` on what is returned; calling it makes an instance.
-- @param name shown when a module is printed
-- @param parent a class to inherit from (nn.Module)
-- @return the class
function module.class(name, parent)
  arguments.check("nn.class", "name", name, "string")
  local class = setmetatable({ _name = name }, { __index = parent or Module })
  local meta = { __index = class, __newindex = set_field, __call = call, __name = name, __tostring = function(self) return self:describe() end }
  getmetatable(class).__call = function(_, ...)
    local self = setmetatable({ _order = {}, _kind = {}, training = true }, meta)
    if class.init then class.init(self, ...) end
    return self
  end
  return class
end

--- Turn a tensor into a parameter: it wants a gradient and is not freed by scopes.
-- @param t a tensor
-- @return t
function module.Parameter(t)
  arguments.check("nn.Parameter", "t", t, "tensor")
  t.requires_grad = true
  return t:set_keep(true)
end

-- ---------------------------------------------------------------- temporaries

-- Forwards that return a new tensor and keep nothing of what they are given: true, or a function of the module that says so of this one.
local lends = setmetatable({}, { __mode = "k" })

--- Say of a class of the library that its forward returns a new tensor and leaves neither that nor what it is given with anybody else.
-- @param class whose forward it is; a class that inherits this very forward says the same, one with a forward of its own says nothing
-- @param when a function of a module that says whether it is so now (nil: always)
function module.lends(class, when) lends[class.forward] = when or true end

--- Is a module's output the caller's alone, and its input no more than it was?
-- @param m a module or a function
-- @return true or false; false of a module with hooks, of one with a forward of its own, and of everything that is not the library's
function module.only_lent(m)
  if not is_module(m) or m._hooks then return false end
  local answer = lends[m.forward]
  if type(answer) == "function" then return answer(m) end
  return answer == true
end

--- Run a module on a temporary: m(x, ...), and then x is let go if nobody else can have it. A temporary whose handle waits for a collection holds memory,
-- and so much of it that it brings the collection about.
-- @param m a module or a function
-- @param x its first argument
-- @param own whether the caller alone has x and is done with it
-- @param ... further arguments
-- @return y, and whether the caller alone has that
function module.pass(m, x, own, ...)
  local lent = module.only_lent(m)   -- before it runs: a hook may take itself away
  local y = m(x, ...)
  if lent and own then x:free() end
  return y, lent
end

-- What a class without a forward of its own says when it is called.
function Module:forward() arguments.fail(self._name, "it has no forward, so it cannot be called") end

--- Give the module a buffer: a tensor that is saved and moved with it, without a gradient.
-- @param name field name
-- @param t a tensor
function Module:buffer(name, t)
  arguments.check("module:buffer", "name", name, "string")
  arguments.check("module:buffer", "t", t, "tensor")
  self._kind[name] = "buffer"
  t:set_keep(true)
  set_field(self, name, t)
  self._kind[name] = "buffer"
end

local function external(self, key)
  return type(key) == "number" and tostring(key - 1) or (self._torch_names and self._torch_names[key] or key)
end

-- Every (name, owner, key, value) below self, depth first in order of definition.
local function walk(self, prefix, visit, seen)
  if seen[self] then return end
  seen[self] = true
  for _, key in ipairs(self._order) do
    local value = rawget(self, key)
    local kind = self._kind[key]
    local name = prefix .. external(self, key)
    if value ~= nil then
      if kind == "module" then
        visit("module", name, self, key, value)
        walk(value, name .. ".", visit, seen)
      elseif kind == "parameter" or kind == "buffer" then
        visit(kind, name, self, key, value)
      end
    end
  end
end

local function collect(self, wanted)
  local list = {}
  walk(self, "", function(kind, name, owner, key, value)
    if kind == wanted then list[#list + 1] = { name = name, value = value, owner = owner, key = key } end
  end, {})
  return list
end

--- Parameters with their names, in order. A tensor that two modules share is listed once.
-- @return a list of {name =, value =, owner =, key =}
function Module:named_parameters()
  local list, kept, seen = collect(self, "parameter"), {}, {}
  for _, entry in ipairs(list) do
    if not seen[entry.value] then
      seen[entry.value] = true
      kept[#kept + 1] = entry
    end
  end
  return kept
end

--- Buffers with their names, in order.
-- @return a list of {name =, value =, owner =, key =}
function Module:named_buffers() return collect(self, "buffer") end

--- Parameters and buffers with their names and where they stand, in order. One that two modules share comes once for each.
-- @return a list of {name =, value =, owner =, key =, kind = "parameter" or "buffer"}
function Module:named_state()
  local list = {}
  walk(self, "", function(kind, name, owner, key, value)
    if kind ~= "module" then list[#list + 1] = { name = name, value = value, owner = owner, key = key, kind = kind } end
  end, {})
  return list
end

--- Modules below this one with their names, in order.
-- @return a list of {name =, value =}
function Module:named_modules() return collect(self, "module") end

--- All parameters, in order.
-- @return a list of tensors
function Module:parameters()
  local list = {}
  for i, entry in ipairs(self:named_parameters()) do list[i] = entry.value end
  return list
end

--- Parameters in two groups for an optimiser: weight decay on those with two or more dimensions, none on the others (biases, norms).
-- Frozen parameters are left out.
-- @param options what both groups get: `lr`, `weight_decay`, ...
-- @return a list of groups
function Module:groups(options)
  options = arguments.default("module:groups", "options", options, "table", {})
  local decay, plain = { params = {} }, { params = {} }
  for key, value in pairs(options) do decay[key], plain[key] = value, value end
  plain.weight_decay = 0
  for _, p in ipairs(self:parameters()) do
    if p.requires_grad then
      local group = p:dim() >= 2 and decay or plain
      group.params[#group.params + 1] = p
    end
  end
  local groups = {}
  if #decay.params > 0 then groups[#groups + 1] = decay end
  if #plain.params > 0 then groups[#groups + 1] = plain end
  return groups
end

--- The number of elements of all parameters.
-- @return a number
function Module:count()
  local n = 0
  for _, p in ipairs(self:parameters()) do n = n + p:numel() end
  return n
end

--- Training or evaluation mode, for this module and all below it.
-- @param on true (default) or false
-- @return self
function Module:train(on)
  on = on ~= false
  rawset(self, "training", on)
  for _, entry in ipairs(self:named_modules()) do rawset(entry.value, "training", on) end
  return self
end

--- Evaluation mode: no dropout, batch norm with its running statistics.
-- @return self
function Module:eval() return self:train(false) end

--- Drop all gradients; the next backward writes them anew.
function Module:zero_grad()
  for _, p in ipairs(self:parameters()) do p.grad = nil end
end

--- Freeze or thaw: no gradient flows into the parameters of this module (or those whose name matches).
-- @param on false freezes, true thaws
-- @param pattern a Lua pattern for parameter names (nil: all)
-- @return self
function Module:requires_grad_(on, pattern)
  arguments.default("module:requires_grad_", "pattern", pattern, "string")
  for _, entry in ipairs(self:named_parameters()) do
    if not pattern or entry.name:find(pattern) then
      entry.value.requires_grad = on ~= false
      if on == false then entry.value.grad = nil end
    end
  end
  return self
end

--- Move to a device or convert floating parameters and buffers: `model:to("cuda")`, `model:to("f64")`.
-- @param ... a device, a dtype, or both
-- @return self
function Module:to(...)
  local wanted = { ... }
  for i, what in ipairs(wanted) do
    arguments.check("module:to", i, what, "string")
    if what == "i64" or what == "i32" or what == "u8" or what == "bool" then
      arguments.fail("module:to", "argument '%d': %s was given, expected a floating dtype or a device", i, what)
    end
  end
  local moved = {}
  local function move(t)
    if moved[t] then return moved[t] end
    local wants, grad = t.requires_grad, nil
    local new = t:detach()
    for _, what in ipairs(wanted) do
      local dtypes = { f32 = 1, bf16 = 1, f16 = 1, f64 = 1 }
      local float = dtypes[new.dtype]
      if not dtypes[what] or float then new = new:to(what) end
    end
    if core.tensor.same_storage(new, t) then
      moved[t] = t
      return t
    end
    if wants then module.Parameter(new) else new:set_keep(true) end
    moved[t] = new
    return new, grad
  end
  walk(self, "", function(kind, _, owner, key, value)
    if kind ~= "module" then rawset(owner, key, (move(value))) end
  end, {})
  return self
end

--- Call fn on every module below, then on self.
-- @param fn a function of a module
-- @return self
function Module:apply(fn)
  arguments.check("module:apply", "fn", fn, "callable")
  for _, entry in ipairs(self:named_modules()) do fn(entry.value) end
  fn(self)
  return self
end

--- Run fn(module, inputs, outputs...) after every forward; what it returns (if anything) replaces the output.
-- @param fn a function
-- @return a function that takes the hook away again
function Module:hook(fn)
  arguments.check("module:hook", "fn", fn, "callable")
  local hooks = rawget(self, "_hooks") or {}
  hooks[#hooks + 1] = fn
  rawset(self, "_hooks", hooks)
  return function()
    for i, h in ipairs(hooks) do
      if h == fn then table.remove(hooks, i) break end
    end
    if #hooks == 0 then rawset(self, "_hooks", nil) end
  end
end

--- Parameters and buffers by name, as they are (not copied).
-- @return a table name -> tensor
function Module:state_dict()
  local dict = {}
  walk(self, "", function(kind, name, _, _, value)
    if kind ~= "module" then dict[name] = value end
  end, {})
  return dict
end

--- Names of parameters and buffers, in order of definition.
-- @return a list of strings
function Module:state_names()
  local names = {}
  walk(self, "", function(kind, name)
    if kind ~= "module" then names[#names + 1] = name end
  end, {})
  return names
end

local function sentence(list)
  if #list <= 8 then return table.concat(list, ", ") end
  return table.concat(list, ", ", 1, 8) .. (", ... (%d in all)"):format(#list)
end

--- Copy values in by name.
-- @param dict a table name -> tensor
-- @param options `strict` (true: missing, left-over or differently shaped tensors are an error), `prefix` (put before our names to find theirs),
-- `rename` (a function from our name to theirs, or nil for "no such")
-- @return a report {matched = n, missing = list, unexpected = list, mismatched = list}
function Module:load_state_dict(dict, options)
  arguments.check("load_state_dict", "dict", dict, "table")
  options = arguments.options("load_state_dict", options, { strict = "boolean", prefix = "string", rename = "callable" })
  local own, names = self:state_dict(), self:state_names()
  local report = { matched = 0, missing = {}, unexpected = {}, mismatched = {} }
  local used, copies = {}, {}
  for _, name in ipairs(names) do
    local theirs = (options.prefix or "") .. name
    if options.rename then theirs = options.rename(name) end
    local value = theirs and dict[theirs]
    if not value then
      report.missing[#report.missing + 1] = name
    else
      arguments.check("load_state_dict", theirs, value, "tensor")
      used[theirs] = true
      local a, b = table.concat(own[name].shape, "x"), table.concat(value.shape, "x")
      if a == b then
        copies[#copies + 1] = { own[name], value }
        report.matched = report.matched + 1
      else
        report.mismatched[#report.mismatched + 1] = ("%s is %s here and %s there"):format(name, a, b)
      end
    end
  end
  for name in pairs(dict) do
    if not used[name] then report.unexpected[#report.unexpected + 1] = name end
  end
  table.sort(report.unexpected)
  if options.strict ~= false and (#report.missing > 0 or #report.unexpected > 0 or #report.mismatched > 0) then
    local parts = {}
    if #report.missing > 0 then parts[#parts + 1] = "missing: " .. sentence(report.missing) end
    if #report.unexpected > 0 then parts[#parts + 1] = "left over: " .. sentence(report.unexpected) end
    if #report.mismatched > 0 then parts[#parts + 1] = "of another shape: " .. sentence(report.mismatched) end
    core.fail(("[load_state_dict] the %s has %d tensors, %d match; %s"):format(self._name, #names, report.matched, table.concat(parts, "; ")))
  end
  tensor.with(core.grad_mode, false, function()
    for _, pair in ipairs(copies) do pair[1]:copy_(pair[2]) end
  end)
  return report
end

--- What the module says about itself in one line; kinds with settings override it.
function Module:extra() return "" end

local function lines(self, indent, out, label)
  local head = indent .. (label and "(" .. label .. ") " or "") .. self._name .. "(" .. self:extra() .. ")"
  out[#out + 1] = head
  for _, key in ipairs(self._order) do
    if self._kind[key] == "module" and rawget(self, key) then lines(rawget(self, key), indent .. "  ", out, external(self, key)) end
  end
end

--- The tree below the module and its number of parameters, as text.
-- @return a string
function Module:describe()
  local out = {}
  lines(self, "", out)
  local n = self:count()
  out[#out + 1] = ("[%s parameters]"):format(n >= 1e6 and ("%.2f M"):format(n / 1e6) or tostring(n))
  return table.concat(out, "\n")
end

return module
