--- What a model is made of, module by module, found by running it once on the `meta` device: shapes only, no memory and no arithmetic.
-- @module unic.summary
local arguments = require "unic.arguments"
local core = require "unic.core"
local module = require "unic.nn.module"
local tensor = require "unic.tensor"

local make = tensor.exports
local is_tensor = core.tensor.is_tensor

local SIZES = { f64 = 8, f32 = 4, f16 = 2, bf16 = 2, i64 = 8, i32 = 4, u8 = 1, bool = 1 }
local OPTIONS = { call = "callable", depth = { "integer", least = 0 }, print = "boolean" }

-- ---------------------------------------------------------------- the model on meta

-- Every tensor that a module holds, exchanged for a meta tensor of the same shape, dtype and wish for a gradient; returns what puts them back.
local function exchange(modules)
  local was, twins = {}, {}
  for _, m in ipairs(modules) do
    for _, key in ipairs(m._order) do
      local t = rawget(m, key)
      if is_tensor(t) and t.device ~= "meta" then
        if not twins[t] then
          twins[t] = make.empty(t.shape, { dtype = t.dtype, device = "meta" }):set_keep(true)
          if t.requires_grad then twins[t].requires_grad = true end
        end
        was[#was + 1] = { m, key, t }
        rawset(m, key, twins[t])
      end
    end
  end
  return function()
    for _, entry in ipairs(was) do rawset(entry[1], entry[2], entry[3]) end
  end
end

-- An input: a shape (with `dtype`), or a tensor whose shape and dtype count.
local function input(i, given, dtype)
  if is_tensor(given) then return make.empty(given.shape, { dtype = given.dtype, device = "meta" }) end
  if type(given) ~= "table" then
    arguments.fail("summary", "input %d: %s, expected a shape such as {1, 3, 224, 224}, {8, 128, dtype = \"i64\"}, or a tensor", i, arguments.describe(given))
  end
  for key in pairs(given) do
    if type(key) ~= "number" and key ~= "dtype" then arguments.fail("summary", "input %d: there is no '%s', a shape is numbers and dtype", i, tostring(key)) end
  end
  return make.empty(arguments.shape("summary", { unpack(given) }), { dtype = given.dtype or dtype, device = "meta" })
end

-- The shape of the first tensor in what a module gave.
local function shape_of(value)
  if is_tensor(value) then return value.shape end
  if type(value) == "table" and not module.is_module(value) then
    for _, each in ipairs(value) do
      local shape = shape_of(each)
      if shape then return shape end
    end
  end
  return nil
end

-- ---------------------------------------------------------------- rows

-- One row per module, the model itself first, with what belongs to it alone.
local function new_rows(model)
  local rows, by_module, counted = {}, {}, {}
  local entries = { { name = "", value = model } }
  for _, entry in ipairs(model:named_modules()) do entries[#entries + 1] = entry end
  for _, entry in ipairs(entries) do
    local m = entry.value
    if not by_module[m] then
      local row = { name = entry.name, kind = m._name or "module", calls = 0, params = 0, trainable = 0, flops = 0, bytes = 0, saved = 0, module = m }
      for _, key in ipairs(m._order) do
        local t = rawget(m, key)
        if is_tensor(t) and m._kind[key] == "parameter" and not counted[t] then   -- a shared one counts where it stands first
          counted[t] = true
          row.params = row.params + t:numel()
          if t.requires_grad then row.trainable = row.trainable + t:numel() end
        end
      end
      rows[#rows + 1] = row
      by_module[m] = row
    end
  end
  return rows, by_module
end

-- What is below a module counts for it too.
local SUMS = { "params", "trainable", "flops", "bytes", "saved" }
local function add_up(rows)
  local by_name, own = {}, {}
  for i, row in ipairs(rows) do
    by_name[row.name] = row
    own[i] = {}
    for _, key in ipairs(SUMS) do own[i][key] = row[key] end
    row.own_flops = row.flops
  end
  for i, row in ipairs(rows) do
    local name, level = row.name, 0
    while name ~= "" do
      name = name:match "^(.*)%.[^.]*$" or ""
      local above = by_name[name]
      if above then
        level = level + 1
        for _, key in ipairs(SUMS) do above[key] = above[key] + own[i][key] end
      end
    end
    row.level = level
  end
end

-- ---------------------------------------------------------------- the text

local function grouped(n)
  local text = ("%.0f"):format(n)
  repeat
    local changed
    text, changed = text:gsub("^(%d+)(%d%d%d)", "%1,%2")
  until changed == 0
  return text
end

local function scaled(n)
  if n == 0 then return "" end
  for _, unit in ipairs { { 1e12, "T" }, { 1e9, "G" }, { 1e6, "M" }, { 1e3, "k" } } do
    if n >= unit[1] then return ("%.2f %s"):format(n / unit[1], unit[2]) end
  end
  return ("%.0f  "):format(n)
end

local function text_of(rows, depth)
  local lines = { { "module", "kind", "output", "parameters", "flops", "outputs B", "saved B" } }
  for _, row in ipairs(rows) do
    if row.level <= (depth or math.huge) then
      lines[#lines + 1] = {
        ("  "):rep(row.level) .. (row.name == "" and "(all)" or row.level > 0 and row.name:match "[^.]*$" or row.name), row.kind .. (row.calls > 1 and " x" .. row.calls or ""),
        row.shape and "[" .. table.concat(row.shape, ", ") .. "]" or "", row.params > 0 and grouped(row.params) or "", scaled(row.flops), scaled(row.bytes),
        scaled(row.saved),
      }
    end
  end
  local widths = {}
  for _, line in ipairs(lines) do
    for c, cell in ipairs(line) do widths[c] = math.max(widths[c] or 0, #cell) end
  end
  local out = {}
  for i, line in ipairs(lines) do
    for c, cell in ipairs(line) do line[c] = c <= 3 and cell .. (" "):rep(widths[c] - #cell) or (" "):rep(widths[c] - #cell) .. cell end
    out[i] = table.concat(line, "  "):gsub("%s+$", "")
  end
  local total = rows.total
  out[#out + 1] = ("parameters %s (%s trained, %sB); forward %sflops = %sMAC; outputs %sB, saved for the backward %sB"):format(grouped(total.params),
    grouped(total.trainable), scaled(total.param_bytes), scaled(total.flops), scaled(total.flops / 2), scaled(total.bytes), scaled(total.saved))
  return table.concat(out, "\n")
end

-- ---------------------------------------------------------------- the function

--- Print what a model is made of: for every module its path, kind, output shape, parameters, flops of the forward (2 per multiplication with addition;
-- products and convolutions count, the rest is bound by memory), bytes of all outputs, and bytes that are kept for the backward (parameters left out).
-- Numbers of a module include those below it. The model stays as it is: its tensors are exchanged for meta tensors while it is run, in its present mode.
-- A module that is not called as a whole (`norm:add(...)`) has no output; its work counts for the one above.
-- @param model a module
-- @param ... one shape per input, `{1, 3, 224, 224}` or with a dtype `{8, 128, dtype = "i64"}` (default: the first parameter's), or a tensor of that shape;
-- then options: `call` (a function of the model and the inputs that is run instead of the model: for models without a forward), `depth` (levels that are
-- printed), `print` (false: nothing is printed)
-- @return a list of rows `{name, kind, shape, calls, params, trainable, flops, own_flops, bytes, saved, level}`, with `total` (the same sums and
-- `param_bytes`) and `text` (what is printed)
return function(model, ...)
  arguments.check("summary", "model", model, { text = "a module", test = module.is_module })
  local given = { ... }
  local last, options = given[#given], {}
  if type(last) == "table" and not is_tensor(last) and last[1] == nil and next(last) ~= nil and last.dtype == nil then
    options = arguments.options("summary", last, OPTIONS)
    given[#given] = nil
  end
  if not options.call and model.forward == module.Module.forward then
    arguments.fail("summary", "argument 'model': %s has no forward: give the option call, such as call = function(m, x) return m:encode(x) end", model._name)
  end
  local rows, by_module = new_rows(model)
  local modules = {}
  for i, row in ipairs(rows) do modules[i] = row.module end
  local params = model:parameters()
  local param_bytes = 0
  for _, p in ipairs(params) do param_bytes = param_bytes + p:numel() * SIZES[p.dtype] end
  local inputs = {}
  for i, each in ipairs(given) do inputs[i] = input(i, each, params[1] and params[1].dtype) end

  -- The number under which events note a module is known while it runs.
  local by_number, unhook = {}, {}
  for _, m in ipairs(modules) do
    unhook[#unhook + 1] = m:hook(function(self, _, ...)
      local row, number = by_module[self], core.watch.module(0)
      core.watch.module(number)
      by_number[number] = row
      row.calls = row.calls + 1
      row.shape = row.shape or shape_of { ... }
    end)
  end
  local restore = exchange(modules)
  module.watch("summary", true)
  core.watch.profile_start()
  local ok, why = pcall(tensor.with, core.grad_mode, true, options.call or model, unpack(options.call and { model, unpack(inputs) } or inputs))
  local events = core.watch.profile_stop()
  module.watch("summary", false)
  restore()
  for _, off in ipairs(unhook) do off() end
  if not ok then error(why, 0) end

  for _, event in ipairs(events) do
    local row = by_number[event.module] or rows[1]
    row.flops, row.bytes, row.saved = row.flops + event.flops, row.bytes + event.made, row.saved + event.saved
  end
  add_up(rows)
  rows.total = { param_bytes = param_bytes }
  for _, key in ipairs(SUMS) do rows.total[key] = rows[1][key] end
  for _, row in ipairs(rows) do row.module = nil end
  rows.text = text_of(rows, options.depth)
  if options.print ~= false then print(rows.text) end
  return rows
end
