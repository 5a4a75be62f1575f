--- The generic specs of an op, made from its descriptor and a table of cases.
--
--   ops.check("layer_norm", { { x = {4, 8}, weight = {8}, eps = 1e-3, note = "..." }, ... }, { errors = {...}, tolerance = {...} })
--
-- A table of numbers stands for a random normal tensor of that shape; ops.uniform, ops.ints, ops.bools, ops.values say otherwise; a tensor
-- list is a list of those; everything else is passed as it is. Each case gives specs that
--   * check the f64 form's gradients by differences (cases with at most 400 elements),
--   * compare every other form (f32, bf16, f16 x instruction-set table x 1 and 2 threads), forward and backward, with the f64 form on the
--     same rounded inputs,
--   * repeat with transposed and channels-last inputs, with gradients accumulated, and as a recorded step,
--   * compare outputs that the tape lets go and makes again (runtime/remake.h) with what they were, bit by bit,
-- and options.errors = {{args, pattern}, ...} lists calls that must raise a sentence.
-- options: tolerance = {f32 =, bf16 =, f16 =, gradcheck =}; dtypes = list; gradient = false (no backward); layouts = false; eps (of the
-- differences); compare = function(outs) (what to compare of non-float results; default: all outputs, equal for integers)
local unic = require "unic"
local core = require "unic.core"
local testing = require "unic.testing"

local ops = {}
local SEED = 20260101

local function spec(kind, shape, fields)
  fields = fields or {}
  fields.kind, fields.shape = kind, shape
  return setmetatable(fields, ops)
end

function ops.normal(shape, scale, shift) return spec("normal", shape, { scale = scale, shift = shift }) end
function ops.uniform(shape, low, high) return spec("uniform", shape, { low = low, high = high }) end
function ops.ints(shape, low, high) return spec("ints", shape, { low = low, high = high }) end
function ops.bools(shape, p) return spec("bools", shape, { p = p or 0.5 }) end
function ops.values(values, dtype) return spec("values", nil, { values = values, dtype = dtype }) end
-- A tensor that gets no gradient in the check (a target, a mask).
function ops.constant(shape) return spec("normal", shape, { constant = true }) end

local function is_shape(v)
  if type(v) ~= "table" or getmetatable(v) == ops or unic.is_tensor(v) then return false end
  for _, n in ipairs(v) do if type(n) ~= "number" then return false end end
  return true
end

-- Base values of one argument: f64 for floats.
local function base(value, key)
  local s = is_shape(value) and spec("normal", value) or value
  local rng = unic.new_generator(SEED + key, "cpu")
  if s.kind == "normal" then
    local t = unic.randn(s.shape, { dtype = "f64", device = "cpu", rng = rng })
    local a, b = s.scale or 1, s.shift or 0
    if a ~= 1 or b ~= 0 then t = unic.tensor((function()
      local v = unic.reshape(t, { -1 }):totable()
      for i = 1, #v do v[i] = v[i] * a + b end
      return v
    end)(), { dtype = "f64", device = "cpu" }); t = unic.reshape(t, s.shape) end
    return t, s
  elseif s.kind == "uniform" then
    return unic.uniform_(unic.empty(s.shape, { dtype = "f64", device = "cpu" }), s.low, s.high, { rng = rng }), s
  elseif s.kind == "ints" then
    return unic.randint_(unic.empty(s.shape, { dtype = "i64", device = "cpu" }), s.low, s.high + 1, { rng = rng }), s
  elseif s.kind == "bools" then
    local v = unic.randint_(unic.empty({ math.max(1, unic.empty(s.shape, { device = "meta" }):numel()) }, { dtype = "i64", device = "cpu" }), 0, 1000,
      { rng = rng }):totable()
    local n = unic.empty(s.shape, { device = "meta" }):numel()
    local flags = {}
    for i = 1, n do flags[i] = v[i] < s.p * 1000 end
    return unic.reshape(unic.tensor(flags, { dtype = "bool", device = "cpu" }), s.shape), s
  elseif s.kind == "values" then
    return unic.tensor(s.values, { dtype = s.dtype or "f64", device = "cpu" }), s
  end
  error("ops.check: cannot read a value of the case")
end

local WIDE = { f32 = "f32", bf16 = "f32", f16 = "f32", f64 = "f64" }
local FLOAT = { f32 = true, bf16 = true, f16 = true, f64 = true }

local function dtype_for(arg, t, dtype)
  if not FLOAT[t.dtype] then return t.dtype end
  local class = arg.class
  if arg.kind == "scalar" or class == "wide" then return WIDE[dtype] end
  if FLOAT[class] then return class end
  return dtype
end

local function transposed(t)
  if t:dim() < 2 or t:numel() == 0 then return t end
  local d = t:dim()
  return unic.transpose(unic.contiguous(unic.transpose(t, d - 1, d)), d - 1, d)
end

-- Every second element of something larger.
local function spread(t)
  if t:dim() == 0 or t:numel() == 0 or t.dtype == "bool" then return t end
  local shape = t.shape
  shape[#shape] = 2 * shape[#shape]
  local view = unic.zeros(shape, { dtype = t.dtype }):narrow(t:dim(), 1, t:size(t:dim()), 2)
  view:copy_(t)
  return view
end

local LAYOUT = {
  transposed = transposed,
  channels_last = function(t) return t:dim() == 4 and unic.channels_last(t) or t end,
  mixed = function(t, key) return key % 2 == 1 and transposed(t) or spread(t) end,
  mixed_last = function(t, key) return key % 2 == 0 and (t:dim() == 4 and unic.channels_last(t) or transposed(t)) or spread(t) end,
}

-- The arguments of one run: tensors of the wanted dtype with values rounded through `through` (so that all forms see the same numbers).
local function build(info, case, dtype, through, layout)
  local named, leaves, mutated, key = {}, {}, {}, 0
  local function make(arg, value)
    key = key + 1
    local t, s = base(value, key)
    if FLOAT[t.dtype] then
      local seen = dtype_for(arg, t, through or dtype)
      if seen ~= "f64" then t = unic.cast(unic.cast(t, seen), "f64") end
      local own = dtype_for(arg, t, dtype)
      if own ~= "f64" then t = unic.cast(t, own) end
    end
    local device = unic.device()
    if device ~= "cpu" then t = t:to(device) end
    if layout and not arg.mutated then t = LAYOUT[layout](t, key) end
    if arg.mutated then
      t = unic.clone(t)
      mutated[#mutated + 1] = t
    elseif arg.grad and FLOAT[t.dtype] and not s.constant then
      t = t:detach()
      t.requires_grad = true
      leaves[#leaves + 1] = t
    end
    return t
  end
  for _, arg in ipairs(info.args) do
    local value = case[arg.name]
    if arg.kind == "tensor" or ((arg.kind == "operand" or arg.kind == "scalar") and type(value) == "table") then
      if value ~= nil then named[arg.name] = make(arg, value) end
    elseif arg.kind == "tensors" then
      if value ~= nil then
        local list = {}
        for i, v in ipairs(value) do list[i] = make(arg, v) end
        named[arg.name] = list
      end
    elseif arg.kind == "rng" then
      named[arg.name] = unic.new_generator(SEED)
    elseif value ~= nil then
      named[arg.name] = value
    end
  end
  return named, leaves, mutated
end

-- Outputs, gradients and mutated tensors of one run.
local function run(info, case, dtype, through, options, layout, times)
  local named, leaves, mutated = build(info, case, dtype, through, layout)
  local result = { outs = {}, grads = {}, mutated = mutated }
  for _ = 1, times or 1 do
    result.outs = { core.ops.call[info.name](named) }
    if info.inplace then result.outs = {} end
    if options.gradient ~= false and info.differentiable and #leaves > 0 then
      local loss
      for j, y in ipairs(result.outs) do
        if FLOAT[y.dtype] and y.requires_grad then
          local w = unic.cast(unic.randn(y.shape, { dtype = "f64", device = "cpu", rng = unic.new_generator(SEED + 1000 + j, "cpu") }), y.dtype)
          if unic.device() ~= "cpu" then w = w:to(unic.device()) end
          if #result.outs == 1 then
            y:backward { gradient = w }
          else
            local part = unic.sum(unic.cast(unic.mul(y, w), WIDE[y.dtype]))
            loss = loss and unic.add(loss, part) or part
          end
        end
      end
      if loss then loss:backward() end
      for i, leaf in ipairs(leaves) do result.grads[i] = leaf.grad or unic.zeros(leaf.shape, { dtype = leaf.dtype }) end
    end
  end
  return result
end

-- The f64 form on the CPU, whatever the device: what all forms of all devices are compared with.
local function reference_run(...)
  local device = unic.device()
  unic.device "cpu"
  local ok, result = pcall(run, ...)
  unic.device(device)
  if not ok then error(result, 0) end
  return result
end

local function tolerance_of(options, dtype)
  return options.tolerance and options.tolerance[dtype] or testing.tolerance[dtype]
end

local function largest(grads)
  local m = 0
  for _, g in ipairs(grads) do m = math.max(m, testing.largest(g)) end
  return m
end

local function compare(result, reference, tolerance, what)
  for _, group in ipairs { "outs", "mutated" } do
    for j, ref in ipairs(reference[group]) do
      local got = result[group][j]
      if not FLOAT[ref.dtype] then
        local same, why = testing.same_bits(unic.contiguous(got), unic.contiguous(ref))
        if not same then error(("%s: %s %d: %s"):format(what, group, j, why), 0) end
      else
        local ok, why = testing.close(got, ref, tolerance)
        if not ok then error(("%s: %s %d: %s"):format(what, group, j, why), 0) end
      end
    end
  end
  local scale = 1e-3 * largest(reference.grads)
  for i, ref in ipairs(reference.grads) do
    local err, at = testing.error(result.grads[i], ref, scale)
    if not (err <= tolerance) then
      local a, b = unic.reshape(result.grads[i]:to("cpu"), { -1 }), unic.reshape(ref:to("cpu"), { -1 })
      error(("%s: gradient %d: error %.3g at element %d (%.9g, expected %.9g), allowed %.3g"):format(what, i, err, at, core.tensor.peek(a, at),
        core.tensor.peek(b, at), tolerance), 0)
    end
  end
end

local function all_bits(result)
  local parts = {}
  for _, group in ipairs { "outs", "mutated", "grads" } do
    for _, t in ipairs(result[group]) do parts[#parts + 1] = t:detach():bytes() end
  end
  return table.concat(parts, "|")
end

-- The gradients of a step that reads the op's outputs in its backward: while they are held, or after they were let go and were made again; and how many
-- launches made something again. A product with w reads them, so the gradient of w is the output's value.
local function read_back(info, case, dtype, layout, held)
  local named, leaves = build(info, case, dtype, dtype, layout)
  local outs, weights, loss = { core.ops.call[info.name](named) }, {}, nil
  for j, y in ipairs(outs) do
    if FLOAT[y.dtype] and y.requires_grad then
      local w = unic.ones(y.shape, { dtype = y.dtype })
      w.requires_grad = true
      weights[#weights + 1] = w
      local part = unic.sum(unic.cast(unic.mul(y, w), WIDE[dtype]))
      loss = loss and unic.add(loss, part) or part
    end
    if not held then outs[j] = y:free() end
  end
  if not held then   -- what nobody needs may go, as in a network
    for key, t in pairs(named) do
      if unic.is_tensor(t) and not t.requires_grad then t:free() end
      named[key] = nil
    end
  end
  core.watch.profile_start()
  if loss then loss:backward() end
  local count, bytes = 0, {}
  for _, event in ipairs(core.watch.profile_stop()) do
    if event.kind == "again" then count = count + 1 end
  end
  for _, list in ipairs { weights, leaves } do
    for _, t in ipairs(list) do bytes[#bytes + 1] = t.grad and unic.contiguous(t.grad):bytes() or "none" end
  end
  return bytes, count
end

-- How many launches of a step whose outputs were let go made something again; its gradients are those of one whose outputs were held.
local function made_again(info, case, dtype, layout)
  local held = read_back(info, case, dtype, layout, true)
  local again, count = read_back(info, case, dtype, layout, false)
  for j, bytes in ipairs(held) do
    if bytes ~= again[j] then error(("%s: gradient %d has other bits when an output is made again"):format(dtype, j), 0) end
  end
  return count
end

-- Instruction sets and thread counts are the CPU's.
local function thread_counts() return unic.device() == "cpu" and { 1, 2 } or { 1 } end

local function tables()
  if unic.device() ~= "cpu" then return { (core.isa()) } end
  local _, best = core.isa()
  local list = {}
  for _, name in ipairs { "base", "avx2", "avx512", "avx512_bf16" } do
    list[#list + 1] = name
    if name == best then break end
  end
  if os.getenv "UNIC_ISA" then list = { (core.isa()) } end
  return list
end

local function elements(info, case)
  local named = build(info, case, "f64", "f64")
  local n = 0
  for _, arg in ipairs(info.args) do
    local v = named[arg.name]
    if unic.is_tensor(v) and arg.grad then n = n + v:numel() end
    if type(v) == "table" and arg.grad then for _, t in ipairs(v) do n = n + t:numel() end end
  end
  return n
end

local function title(case, n)
  if case.note then return case.note end
  local keys = {}
  for key, v in pairs(case) do
    local s = is_shape(v) and v or type(v) == "table" and v.shape
    keys[#keys + 1] = key .. "=" .. (s and table.concat(s, "x") or type(v) == "table" and "..." or tostring(v))
  end
  table.sort(keys)
  return ("case %d (%s)"):format(n, table.concat(keys, " "))
end

--- Define the specs of one op. Call it inside a describe.
function ops.check(name, cases, options)
  local _G = _G
  local describe, it = _G.describe, _G.it
  options = options or {}
  local info = core.ops.describe(name)
  if not info then error("ops.check: there is no op '" .. name .. "'") end
  local dtypes = options.dtypes or { "f32", "bf16", "f16" }

  describe(name, function()
    local threads, isa, remade = unic.threads(), (core.isa()), 0
    local function back()
      core.low_memory(false)
      unic.threads(threads)
      core.isa(isa)
    end
    _G.after_each(back)

    it("has a help text and a signature", function()
      require("luassert").is_true(#info.doc > 20, name .. " has no doc")
      require("luassert").is_true(#info.signature > 0)
    end)

    for n, case in ipairs(cases) do
      describe(title(case, n), function()
        if info.differentiable and options.gradient ~= false and case.gradient ~= false then
          it("f64 form agrees with differences", function()
            if elements(info, case) > 400 then return end
            local named, leaves = build(info, case, "f64", "f64")
            if #leaves == 0 then return end
            local ok, why = testing.gradcheck(function(...)
              local values, k = { ... }, 0
              local fresh = {}
              for key, v in pairs(named) do fresh[key] = v end
              for _, arg in ipairs(info.args) do
                local v = named[arg.name]
                if arg.kind == "rng" then fresh[arg.name] = unic.new_generator(SEED)
                elseif arg.kind == "tensors" and v and not arg.mutated then
                  fresh[arg.name] = {}
                  for i, t in ipairs(v) do
                    if t.requires_grad then k = k + 1; fresh[arg.name][i] = values[k] else fresh[arg.name][i] = t end
                  end
                elseif unic.is_tensor(v) then
                  if arg.mutated then fresh[arg.name] = unic.clone(v)
                  elseif v.requires_grad then k = k + 1; fresh[arg.name] = values[k] end
                end
              end
              return core.ops.call[name](fresh)
            end, (function() local t = {} for i, l in ipairs(leaves) do t[i] = l end return t end)(),
              { eps = options.eps, tolerance = options.tolerance and options.tolerance.gradcheck })
            if not ok then error(why, 0) end
          end)
        end

        for _, dtype in ipairs(dtypes) do
          it(dtype .. " forms agree with f64", function()
            local reference = reference_run(info, case, "f64", dtype, options)
            for _, table_name in ipairs(tables()) do
              core.isa(table_name)
              local first
              for _, count in ipairs(thread_counts()) do
                unic.threads(count)
                local result = run(info, case, dtype, dtype, options)
                compare(result, reference, tolerance_of(options, dtype), ("%s %s %d threads"):format(dtype, table_name, count))
                if not info.same_threads then
                  local bits = all_bits(result)
                  if first and first ~= bits then error(("%s %s: 1 and 2 threads give different bits"):format(dtype, table_name), 0) end
                  first = bits
                end
              end
            end
          end)
        end

        if options.layouts ~= false and case.layouts ~= false then
          it("other memory layouts give the same values", function()
            local reference = reference_run(info, case, "f64", "f32", options)
            for _, layout in ipairs { "transposed", "channels_last", "mixed", "mixed_last" } do
              compare(run(info, case, "f32", "f32", options, layout), reference, tolerance_of(options, "f32"), "f32 " .. layout)
              compare(run(info, case, "f64", "f32", options, layout), reference, options.tolerance and options.tolerance.f64 or 1e-10, "f64 " .. layout)
            end
          end)
        end

        if info.differentiable and options.gradient ~= false and not info.inplace then
          it("accumulates gradients", function()
            for _, dtype in ipairs { "f32", "f64" } do
              local once = run(info, case, dtype, dtype, options)
              local twice = run(info, case, dtype, dtype, options, nil, 2)
              local has_rng, has_state = false, false
              for _, arg in ipairs(info.args) do
                has_rng = has_rng or arg.kind == "rng"
                has_state = has_state or (arg.mutated and arg.kind ~= "rng")
              end
              if not has_rng and not has_state then
                local scale = 1e-3 * largest(once.grads)
                for i, g in ipairs(once.grads) do
                  local err = testing.error(twice.grads[i], unic.mul(unic.cast(g, "f64"), 2), 2 * scale)
                  if not (err <= (dtype == "f64" and 1e-12 or 1e-6)) then error(("%s gradient %d: two backwards do not give twice one (error %.3g)"):format(dtype, i, err), 0) end
                end
              end
            end
          end)
        end

        if info.remakes and case.gradient ~= false then
          it("what is let go is made again with the same bits", function()
            for _, low in ipairs { false, true } do
              core.low_memory(low)
              for _, dtype in ipairs { "f64", unpack(dtypes) } do
                for _, table_name in ipairs(dtype == "f64" and { (core.isa()) } or tables()) do
                  core.isa(table_name)
                  for _, count in ipairs(thread_counts()) do
                    unic.threads(count)
                    remade = remade + made_again(info, case, dtype)
                  end
                end
              end
              for _, layout in ipairs { "transposed", "channels_last", "mixed" } do made_again(info, case, "f32", layout) end
            end
          end)
        end

        it("replays with the bits of the eager run", function()
          if info.inplace or info.view then return end
          for _, arg in ipairs(info.args) do if arg.mutated and arg.kind ~= "rng" then return end end
          local named = build(info, case, "f32", "f32")
          local result
          local step = unic.record(function() result = { core.ops.call[name](named) } end)
          local eager = {}
          for j, y in ipairs(result) do
            eager[j] = y:detach():bytes()
            if FLOAT[y.dtype] then y:detach():fill_(77) end
          end
          for _, arg in ipairs(info.args) do   -- the recorded call drew once: start the generator again
            if arg.kind == "rng" then named[arg.name]:copy_(unic.new_generator(SEED)) end
          end
          step:replay()
          for j, y in ipairs(result) do
            if eager[j] ~= y:detach():bytes() then error(("output %d: the replay gives other bits"):format(j), 0) end
          end
        end)
      end)
    end

    if info.remakes then
      it("was made again in one of these cases", function() require("luassert").is_true(remade > 0) end)
    end

    for _, bad in ipairs(options.errors or {}) do
      it("refuses: " .. bad[2], function()
        local case = bad[1]
        local ok, why = pcall(function()
          local named = build(info, case, "f32", "f32")
          for key, v in pairs(case) do if named[key] == nil then named[key] = v end end
          core.ops.call[name](named)
          unic.synchronize()   -- what only a kernel can see is raised here
        end)
        if ok then error("nothing was raised", 0) end
        why = tostring(why)
        if not why:find(bad[2], 1, true) and not why:find(bad[2]) then error(("raised %q, expected %q"):format(why, bad[2]), 0) end
        if not why:find("[" .. name .. "]", 1, true) and not bad.anywhere then error(("raised %q, which does not begin with the op's name"):format(why), 0) end
      end)
    end
  end)
end

return ops
