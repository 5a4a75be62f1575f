--- Unic: tensors, gradients and optimised kernels for LuaJIT.
-- `local unic = require "unic"` gives constructors (`unic.randn`), every op as a function (`unic.softmax`), and the switches around them
-- (`unic.no_grad`, `unic.autocast`, `unic.scope`). Modules beside it: `unic.nn`, `unic.losses`, `unic.optim`, `unic.data`, `unic.text`,
-- `unic.metrics`, `unic.run`; `unic.models.resnet` is models/resnet.lua, `unic.datasets.phantom` is data/phantom.lua.
-- @module unic

local core = require "unic.core"

-- LuaJIT drops all machine code when 1000 traces or 512 KB are reached, and starts over. A long-lived process that trains, draws and tests
-- passes these limits every few seconds and then mostly recompiles: the same specs took 6 s or 75 s, by chance. Memory is cheap here.
require("jit.opt").start("maxtrace=8000", "maxmcode=16384")

-- ".../lua/unic/init.lua" -> "..."; an installed tree keeps models/ and data/ beside lua/unic.
local here = debug.getinfo(1, "S").source:match("^@(.*)init%.lua$") or "./lua/unic/"
local tree = here:match("^(.*)lua/unic/$") or here
if tree == "" then tree = "./" end

local FOLDERS = { models = "models/", datasets = "data/", recipes = "recipes/" }

-- unic.models.resnet -> models/resnet.lua, unic.datasets.phantom.draw -> data/phantom/draw.lua
local function search(name)
  local kind, rest = name:match("^unic%.(%a+)%.(.+)$")
  local folder = kind and FOLDERS[kind]
  if not folder then return nil end
  local base = tree .. folder .. rest:gsub("%.", "/")
  local tried = {}
  for _, path in ipairs { base .. ".lua", base .. "/init.lua", here .. kind .. "/" .. rest:gsub("%.", "/") .. ".lua" } do
    local file = io.open(path, "rb")
    if file then
      file:close()
      return assert(loadfile(path))
    end
    tried[#tried + 1] = "\n\tno file '" .. path .. "'"
  end
  -- A person's own one may lie where Lua looks; otherwise one sentence says more than the list of all places.
  if package.searchpath(name, package.path) then return table.concat(tried) end
  local names = {}
  for file in require("lfs").dir(tree .. folder) do
    local module = file:match "^(%a[%w_]*)%.lua$"
    if module then names[#names + 1] = module end
  end
  table.sort(names)
  local near = core.nearest(rest, names)
  core.fail(("[require] there is no module '%s'%s"):format(name, near and (", did you mean 'unic.%s.%s'?"):format(kind, near)
    or ("; there are: unic.%s.{%s}"):format(kind, table.concat(names, ", "))))
end

if not package.loaded["unic.searcher"] then
  package.loaded["unic.searcher"] = search
  table.insert(package.loaders, 2, search)
end

local unic = { core = core, root = tree, version = core.version() }

--- The folder that holds the tree (models/, data/, recipes/), with a slash at its end.
-- @field unic.root

local arguments = require "unic.arguments"
local tensor = require "unic.tensor"
for name, fn in pairs(core.ops.call) do unic[name] = fn end
for name, value in pairs(tensor.exports) do unic[name] = value end

--- Is x a tensor?
-- @param x anything
-- @return true or false
unic.is_tensor = core.tensor.is_tensor

--- Run fn without recording gradients.
-- @param fn a function
-- @param ... its arguments
-- @return what fn returns
function unic.no_grad(fn, ...)
  arguments.check("no_grad", "fn", fn, "callable")
  return tensor.with(core.grad_mode, false, fn, ...)
end

--- Run fn with gradients recorded, also inside `unic.no_grad`.
-- @param fn a function
-- @param ... its arguments
-- @return what fn returns
function unic.with_grad(fn, ...)
  arguments.check("with_grad", "fn", fn, "callable")
  return tensor.with(core.grad_mode, true, fn, ...)
end

--- Are gradients being recorded?
-- @return true or false
function unic.grad_enabled()
  return core.grad_mode()
end

--- Run fn with matrix products and convolutions in a 16-bit type, and sums, norms and losses in f32; `unic.autocast_table()` lists every op.
-- Parameters stay f32 (their 16-bit forms are kept until the parameter changes), and so do their gradients. f16 needs `optim.GradScaler`.
-- @param dtype "bf16", "f16", or "f32" (off)
-- @param fn a function
-- @param ... its arguments
-- @return what fn returns
function unic.autocast(dtype, fn, ...)
  arguments.check("autocast", "dtype", dtype, { "choice", "bf16", "f16", "f32" })
  arguments.check("autocast", "fn", fn, "callable")
  return tensor.with(core.autocast, dtype, fn, ...)
end

--- What each op does under `unic.autocast`, from the ops' own descriptors.
-- @return {low =, f32 =, ["as given"] =}, lists of op names: products in the 16-bit type; ops that are computed and stored in f32; ops that run
-- in what they are given, of several types in the widest. `tostring` shows it
function unic.autocast_table()
  local lists = { low = {}, f32 = {}, ["as given"] = {} }
  for name in pairs(core.ops.call) do
    local info = core.ops.describe(name)
    if info.args[1] and info.args[1].class ~= "any" then table.insert(lists[info.autocast], name) end
  end
  for _, list in pairs(lists) do table.sort(list) end
  return setmetatable(lists, { __tostring = function()
    local lines = {}
    for _, pair in ipairs { { "low", "in the 16-bit type" }, { "f32", "in f32" }, { "as given", "in the type of their inputs, of several in the widest" } } do
      lines[#lines + 1] = pair[2] .. ":\n  " .. table.concat(lists[pair[1]], " ")
    end
    return table.concat(lines, "\n")
  end })
end

--- Run fn and free every tensor it made, except those it returns (in tables too), those marked with `t:keep()`, and parameters, buffers,
-- gradients and optimiser state. A tensor used after its scope is an error that names the scope.
-- @param fn a function
-- @param ... its arguments
-- @return what fn returns
unic.scope = core.tensor.scope

--- Run fn without keeping what its backward needs: the walk back runs it again (checkpointing; Chen et al. 2016). Less memory for one more forward.
-- Gradients are those without it, to the bit: dropout draws the same masks again, running statistics and counters are changed once, autocast is
-- as it was. What fn works on is to be passed as arguments or not to change in between. As in `unic.scope`, tensors made inside are freed unless they
-- are returned or marked with `t:keep()`. A piece inside another one is part of that.
-- @param fn a function, or a module
-- @param ... its arguments
-- @return what fn returns
function unic.checkpoint(fn, ...)
  arguments.check("checkpoint", "fn", fn, "callable")
  if type(fn) ~= "function" then return core.tensor.checkpoint(function(...) return fn(...) end, ...) end
  return core.tensor.checkpoint(fn, ...)
end

--- Run fn so that the backward of what it computes makes products again too, where that frees memory at a good price: the projections of a transformer, its
-- attention, the early convolutions of a ResNet. What is cheap to make again (norms, activations, dropout) is never kept, with it or without. Gradients
-- are those without it, to the bit. A run's `--memory low` does this for all of it.
-- @param fn a function
-- @param ... its arguments
-- @return what fn returns
function unic.low_memory(fn, ...)
  arguments.check("low_memory", "fn", fn, "callable")
  return tensor.with(core.low_memory, true, fn, ...)
end

--- Gradients of a loss with respect to some tensors, without touching anyone's `.grad`.
-- @param loss a tensor of one element (or any shape, with options.gradient)
-- @param inputs a list of tensors
-- @param options `gradient` (of the loss), `keep` (the graph can be used again)
-- @return a list of tensors; false where no gradient flows
function unic.grad(loss, inputs, options)
  options = arguments.options("grad", options, { gradient = true, keep = "boolean" })
  return core.tensor.gradients(loss, inputs, options.gradient, options.keep)
end

--- An op written in Lua, with its own backward.
-- @param definition `forward(...)` takes tensors and returns one or more tensors; `backward(ctx, ...)` takes a context and the gradients of
-- the outputs (nil where none flows) and returns one gradient (or nil) per input. `forward` gets the context first when `context = true`.
-- @return a function of tensors
function unic.fn(definition)
  definition = arguments.options("fn", definition, { forward = true, backward = true, context = "boolean" })
  local wants = definition.context
  local forward = arguments.check("fn", "forward", definition.forward, "callable")
  local backward = arguments.check("fn", "backward", definition.backward, "callable")
  return function(...)
    local inputs = { ... }
    for i = 1, select("#", ...) do
      arguments.check("fn", i, inputs[i], "tensor")
    end
    local ctx = { inputs = inputs }
    local outs
    if wants then outs = { unic.no_grad(forward, ctx, ...) } else outs = { unic.no_grad(forward, ...) } end
    return unpack(core.tensor.record(inputs, outs, function(...) return backward(ctx, ...) end))
  end
end

--- Record a step and get something that runs it again without Lua: `local step = unic.record(function() ... end); step:replay()`.
-- fn runs once, eagerly. What changes from step to step must lie in tensors (learning rate, counters, the batch copied into fixed tensors with
-- `copy_`); shapes stay as they were.
-- @param fn a function without arguments
-- @param device "cpu", ...
-- @return the recording (`replay()`, `launches()`), then what fn returned
unic.record = core.record

--- A training step that is recorded at its second call and replayed from then on, on a GPU as one CUDA graph: see unic.capture's module.
unic.capture = require "unic.capture"

--- Seed the default generators of all open devices (and of those opened later).
-- @param seed an integer
function unic.manual_seed(seed)
  for _, name in ipairs(core.device_list()) do
    if name ~= "meta" then tensor.set_generator(core.generator(name), seed, 0) end
  end
end

--- The state of a device's generator, an i64 tensor {seed, counter} that is the generator itself.
-- @param device nil = the default device
-- @return a tensor
unic.generator = core.generator

--- A generator of one's own, to be given as `rng = g` to any op that draws.
-- @param seed an integer
-- @param device nil = the default device
-- @return a tensor
function unic.new_generator(seed, device)
  return tensor.set_generator(core.tensor.empty({ 2 }, "i64", device), seed, 0)
end

--- Memory of a device in bytes: active, peak, cached, budget, and counts of blocks and collections.
-- @param device nil = the default device
-- @return a table
unic.memory = core.memory

--- Start the peak of `unic.memory` again from what is active now.
-- @param device nil = the default device
unic.memory_peak_reset = core.memory_peak_reset

--- The number of compute threads; sets it when n is given.
-- @param n 1 or more
-- @return the number
unic.threads = core.threads

--- The default device's name; sets it when a name is given.
-- @param name "cpu", "cuda", "cuda:1"
-- @return the name
unic.device = core.device_default
do
  local name = os.getenv "UNIC_DEVICE"
  if name and name ~= "" then unic.device(name) end
end

--- Wait until a device has done everything it was given.
-- @param device nil = the default device
unic.synchronize = core.synchronize

--- Anomaly mode: stop at the first NaN or infinity in an op's output or in a gradient, and name the op, the module, the tensor and the line.
-- Infinities that were asked for (an infinite fill value, an input that has some already) are let through. Slow: for finding a fault.
-- @param what true, false, or a function (or module) to run in it
-- @param ... arguments of the function
-- @return what the function returns; else whether it was on before
function unic.anomaly(what, ...)
  return require("unic.anomaly").anomaly(what, ...)
end

--- Run fn and note every launch: `print(unic.profile(fn))` shows calls, milliseconds, GFLOP/s, GB/s and the share of the measured peak per op.
-- @param fn a function; best a few steps, after one that warms up
-- @param options `by` = "op" (default), "line", "module" or "shape": what the rows of the table are; `trace` = a file for a trace that
-- chrome://tracing and Perfetto show
-- @return a report: `tostring(report)`, `report.rows`, `report.events`, `report:table(by)`, `report:write_trace(path)`; then what fn returned
function unic.profile(fn, options)
  return require("unic.profile").profile(fn, options)
end

--- What a model is made of: a table of its modules with output shapes, parameters, flops, bytes. It is run on the `meta` device: no memory, no time.
-- `unic.summary(net, {1, 3, 224, 224})`, `unic.summary(bert, {8, 128, dtype = "i64"})`. See lua/unic/summary.lua.
-- @param model a module
-- @param ... shapes of its inputs, then options (`call`, `depth`, `print`)
-- @return the rows
function unic.summary(model, ...)
  return require("unic.summary")(model, ...)
end

--- Stop here and open the prompt with the caller's local variables; Ctrl-D goes on. What is set at the prompt is set in the program.
function unic.debug()
  require("unic.repl.debug").stop(3)   -- no tail call: the levels are counted
end

--- Places for unic.grid_sample from affine maps: `unic.affine_grid(theta, { N, C, H, W })`. See lua/unic/affine_grid.lua.
-- @param theta affine maps [N, 2, 3]
-- @param size shape of the result, {N, C, H, W}
-- @param options `align_corners` (false)
-- @return places [N, H, W, 2]
function unic.affine_grid(theta, size, options)
  return require("unic.affine_grid")(theta, size, options)
end

--- Sum of products by subscripts, for one or two tensors: `unic.einsum("bij,bjk->bik", a, b)`. See lua/unic/einsum.lua.
-- @param equation letters, one per dimension; "..." for further ones; "," between operands; "->" before the result
-- @param ... one or two tensors
-- @return a tensor
function unic.einsum(equation, ...)
  return require("unic.einsum")(equation, ...)
end

--- Save a tensor, or a table of tensors, strings, numbers, booleans and tables, as a safetensors file.
-- A tensor or table that occurs twice is saved once and is one again when it is loaded; `requires_grad` is kept; save a module by its
-- `:state_dict()`.
-- @param path the file; an existing one is replaced when the new one is whole
-- @param value what to save
function unic.save(path, value)
  return require("unic.save").save(path, value)
end

--- Load what `unic.save` wrote. Other weights (safetensors, PyTorch's .pt, .pth and .bin, .npz, shards with an index, a Hugging Face folder) give a table of
-- their tensors by name, a .npy file a tensor. To put weights into a model: `unic.weights.load`.
-- @param path the file, or a folder
-- @param[opt] options `device` for the tensors: nil = the default device
-- @return what was saved
function unic.load(path, options)
  return require("unic.save").load(path, options)
end

--- Print what is in a file of weights: its kind, what it says about itself, every tensor, and which name maps fit. Modules and tables of tensors, too.
-- @param what a path (of anything that unic.weights.open takes), an open file of weights, a module, or a table of tensors
-- @param[opt] options `pattern`: print only tensors whose names it fits; `print` (true)
-- @return a list of rows {name =, dtype =, shape =, bytes =} with the fields `total`, `maps`, `text` (what is printed), and for a file `kind`, `files`,
-- `metadata`, `config`
function unic.inspect(what, options)
  return require("unic.weights.inspect")(what, options)
end

-- Sub-modules on first use: unic.nn, unic.optim, ...
local LAZY = { nn = 1, weights = 1, losses = 1, optim = 1, data = 1, text = 1, files = 1, metrics = 1, run = 1, plot = 1, testing = 1, options = 1 }
local names = {}
for name in pairs(LAZY) do
  if package.searchpath("unic." .. name, package.path) then names[#names + 1] = name end
end
return setmetatable(unic, {
  __names = names,   -- for completion at the prompt
  __index = function(self, name)
    if not LAZY[name] then
      if type(name) == "string" then
        local all = {}
        for key in pairs(self) do all[#all + 1] = key end
        for key in pairs(LAZY) do all[#all + 1] = key end
        local near = core.nearest(name, all)
        if near then core.fail(("[unic] there is no 'unic.%s', did you mean 'unic.%s'?"):format(name, near)) end
      end
      return nil
    end
    local module = require("unic." .. name)
    rawset(self, name, module)
    return module
  end,
})
