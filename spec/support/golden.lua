--- The Lua side of spec/golden/*.py: the same inputs by the same formulas, the cases of a file, and their comparison with what PyTorch gave.
-- See spec/golden/README.md for the format and the limits.
local unic = require "unic"
local core = require "unic.core"
local bit = require "bit"
local ffi = require "ffi"
local cjson = require "cjson"

local golden = {}

-- ---------------------------------------------------------------- the formula

local bxor, rshift, band = bit.bxor, bit.rshift, bit.band

local function fnv(text)
  local h = 0xCBF29CE484222325ULL
  for i = 1, #text do h = bxor(h, ffi.cast("uint64_t", text:byte(i))) * 0x100000001B3ULL end
  return h
end

-- The i-th word of a name, i from 0.
local function word(key, i)
  local z = key + (ffi.cast("uint64_t", i) + 1) * 0x9E3779B97F4A7C15ULL
  z = bxor(z, rshift(z, 30)) * 0xBF58476D1CE4E5B9ULL
  z = bxor(z, rshift(z, 27)) * 0x94D049BB133111EBULL
  return bxor(z, rshift(z, 31))
end

local function bits(z, start, count) return tonumber(band(rshift(z, start), bit.lshift(1ULL, count) - 1)) end

-- Halves to even, as NumPy's rint: adding 1.5 * 2^52 leaves no room for a fraction.
local function rint(x) return (x + 6755399441055744) - 6755399441055744 end

local function round8(x)
  if x - x ~= 0 then return x end   -- NaN, infinite
  local m, e = math.frexp(x)
  return math.ldexp(rint(math.ldexp(m, 8)), e - 8)
end

local function gcd(a, b)
  while b ~= 0 do a, b = b, a % b end
  return a
end

local MAKE = {
  normal = function(spec, z)
    local k = bits(z, 0, 16) + bits(z, 16, 16) + bits(z, 32, 16) + bits(z, 48, 16) - 131070
    return k / 32768 * (spec.scale or 1) + (spec.shift or 0)
  end,
  uniform = function(spec, z) return spec.low + (spec.high - spec.low) * (bits(z, 0, 16) / 65536) end,
  whole = function(spec, z) return spec.low + math.floor(bits(z, 0, 24) / 16777216 * (spec.high - spec.low + 1)) end,
  bools = function(spec, z) return bits(z, 0, 24) / 16777216 < spec.p end,
  special = function(_, z)
    local which = bits(z, 20, 3)
    if which == 0 then return 0 / 0 elseif which == 1 then return math.huge elseif which == 2 then return -math.huge end
    return (bits(z, 0, 16) - 32768) / 4096
  end,
}
MAKE.ints = MAKE.whole

local DTYPE = { bools = "bool", ints = "i64" }

--- The values of one argument: f64, i64 or bool, of the shape that the spec says.
-- @param spec a table: `kind`, `shape` and what the kind needs
-- @param key the name they are made from
-- @param fine false: rounded to 8 bits, which bf16 and f16 hold exactly
function golden.values(spec, key, fine)
  local n = 1
  for _, size in ipairs(spec.shape) do n = n * size end
  local list = {}
  local dtype = DTYPE[spec.kind] or "f64"
  local hash = fnv(key)
  if spec.kind == "values" then
    list = spec.values
    if spec.float == false then dtype = "i64" end
  elseif spec.kind == "distinct" then
    local step = math.floor(n * 0.618) + 1
    while gcd(step, n) ~= 1 do step = step + 1 end
    local first = tonumber(hash % ffi.cast("uint64_t", n))
    for i = 0, n - 1 do
      list[i + 1] = ((i * step + first) % n - math.floor(n / 2)) / 64 + (fine and bits(word(hash, i), 0, 10) / 262144 or 0)
    end
  else
    local make = MAKE[spec.kind] or error("golden: unknown kind '" .. spec.kind .. "'")
    for i = 0, n - 1 do list[i + 1] = make(spec, word(hash, i)) end
  end
  if dtype == "f64" and not fine then
    local rounded = {}
    for i, v in ipairs(list) do rounded[i] = round8(v) end
    list = rounded
  end
  return unic.reshape(unic.tensor(list, { dtype = dtype, device = "cpu" }), spec.shape)
end

--- Write the values of a spec into a dense f32 or f64 tensor: those that `golden.values(spec, key, true)` gives, without lists in between.
-- @param t a tensor of the spec's shape, on the CPU
-- @param spec of kind "normal", or of few elements
-- @param key the name they are made from
function golden.fill(t, spec, key)
  local detached = t:detach()
  if spec.kind ~= "normal" or not (t.dtype == "f32" or t.dtype == "f64") then
    unic.no_grad(function() detached:copy_(unic.cast(golden.values(spec, key, true), t.dtype)) end)
    return
  end
  local n, scale, shift, hash = t:numel(), spec.scale or 1, spec.shift or 0, fnv(key)
  local to = ffi.cast(t.dtype == "f32" and "float *" or "double *", detached:data_ptr())
  for i = 0, n - 1 do
    local z = word(hash, i)
    to[i] = (bits(z, 0, 16) + bits(z, 16, 16) + bits(z, 32, 16) + bits(z, 48, 16) - 131070) / 32768 * scale + shift
  end
  detached:touched()
end

--- `count` positions (from 0) below n, from a name.
function golden.places(key, count, n)
  local at, hash = {}, fnv(key)
  for i = 0, count - 1 do at[i + 1] = tonumber(rshift(word(hash, i), 11) % ffi.cast("uint64_t", n)) end
  return at
end

local FULL, SAMPLE, ENDS = 96, 96, 16

-- Positions (from 0) of the elements that were stored.
local function sample(n, key)
  local at = {}
  if n <= FULL then
    for i = 1, n do at[i] = i - 1 end
    return at
  end
  for i = 1, ENDS do at[i], at[ENDS + i] = i - 1, n - ENDS + i - 1 end
  for _, i in ipairs(golden.places(key .. "/sample", SAMPLE - 2 * ENDS, n)) do at[#at + 1] = i end
  return at
end

-- ---------------------------------------------------------------- the file

--- Read a file of spec/golden: its cases, its versions, its values (a list).
function golden.load(path)
  local file = assert(io.open(path, "rb"))
  local length = tonumber(ffi.cast("const uint64_t *", file:read(8))[0])
  local meta = cjson.decode(file:read(length)).__metadata__
  local data = file:read "*a"
  file:close()
  local cases = cjson.decode(meta.cases)
  -- PyTorch's largest bf16 error of each op: one case's is a matter of luck where it has to stand in for f16.
  local own = {}
  for _, case in ipairs(cases) do
    for _, group in ipairs { "outs", "grads", "changed" } do
      for _, record in ipairs(case.coarse and case.coarse[group] or {}) do own[case.op] = math.max(own[case.op] or 0, record.bf16 or 0) end
    end
  end
  return { own = own, cases = cases, versions = cjson.decode(meta.versions), data = data, at = ffi.cast("const double *", data) }
end

-- ---------------------------------------------------------------- running a case

local FLOAT = { f32 = true, bf16 = true, f16 = true, f64 = true }
local WIDE = { f32 = "f32", bf16 = "f32", f16 = "f32", f64 = "f64" }

-- An argument other than a tensor, as Lua wants it.
local function plain(v)
  if v == "inf" then return math.huge end
  if v == cjson.null then return nil end
  return v
end

-- The set of inputs and answers of a dtype.
local FINE = { f64 = "fine", f32 = "fine", bf16 = "coarse", f16 = "coarse" }

local LAYOUT = {
  channels_last = function(t) return t:dim() == 4 and unic.channels_last(t) or t end,
  transposed = function(t)
    local d = t:dim()
    if d < 2 or t:numel() == 0 then return t end
    return unic.transpose(unic.contiguous(unic.transpose(t, d - 1, d)), d - 1, d)
  end,
}

-- What a case calls: `op` is an op of the runtime unless `call` says otherwise.
local function options_of(case)
  local options = {}
  for key, v in pairs(case.attrs) do options[key] = plain(v) end
  return options
end

-- A module of unic.nn by its name and arguments, which may be such modules too.
local function build(name, init)
  local values = {}
  for i, v in ipairs(init) do
    if type(v) == "table" and v.module then values[i] = build(v.module, v.init) else values[i] = plain(v) end
  end
  return (unic.nn[name] or error("golden: there is no unic.nn." .. name))(unpack(values))
end

-- Parameters and buffers of a module get the case's values; the names must be those of PyTorch.
local function make_module(case, dtype, fine, leaves, changed)
  local m = build(case.module, case.init)
  m:to(WIDE[dtype])
  m:train(case.mode ~= "eval")
  local seen, names = {}, m:state_dict()
  for name, spec in pairs(case.params or {}) do
    local t = names[name] or error(("golden: %s has no parameter '%s'"):format(case.name, name))
    unic.no_grad(function() t:copy_(unic.cast(golden.values(spec, case.name .. "/parameter " .. name, fine), t.dtype)) end)
    seen[name] = t
  end
  for _, entry in ipairs(m:named_parameters()) do
    if not seen[entry.name] then error(("golden: %s: PyTorch's module has no parameter '%s'"):format(case.name, entry.name)) end
    leaves["parameter " .. entry.name] = entry.value
  end
  for name, t in pairs(seen) do
    if case.params[name].mutated then changed["parameter " .. name] = t end
  end
  return m
end

-- One run: {outs = {name = tensor}, grads = ..., changed = ...}.
local function run(case, dtype, layout)
  local info = not case.call and not case.module and (core.ops.describe(case.op) or error("golden: there is no op '" .. case.op .. "'"))
  local kinds, fine = {}, FINE[dtype] == "fine"
  for _, arg in ipairs(info and info.args or {}) do kinds[arg.name] = arg end
  local leaves, changed, given = {}, {}, {}
  -- Modules keep f32 and work under autocast.
  local stored = case.module and WIDE[dtype] or dtype
  local function make(spec, name, arg)
    local t = golden.values(spec, case.name .. "/" .. name, fine)
    if FLOAT[t.dtype] then
      local own = stored
      if arg and FLOAT[arg.class] then own = arg.class
      elseif spec.wide or arg and (arg.kind == "scalar" or arg.class == "wide") then own = WIDE[dtype] end
      if own ~= "f64" then t = unic.cast(t, own) end
    end
    if spec.mutated then
      t = unic.clone(t)
      changed[name] = t
      return t
    end
    if layout then t = LAYOUT[layout](t) end
    if FLOAT[t.dtype] and not spec.constant then
      t = t:detach()
      t.requires_grad = true
      leaves[name] = t
    end
    return t
  end
  for _, name in ipairs(case.order) do
    local spec = case.args[name]
    if spec.kind then given[name] = make(spec, name, kinds[name])
    else
      given[name] = {}
      for i, s in ipairs(spec) do given[name][i] = make(s, ("%s.%d"):format(name, i), kinds[name]) end
    end
  end
  local outs
  if info then
    for key, v in pairs(options_of(case)) do given[key] = v end
    outs = { core.ops.call[case.op](given) }
    if info.inplace then outs = {} end
  else
    local list = {}
    local options = options_of(case)
    local positional = {}
    for _, name in ipairs(case.named or {}) do
      options[name] = given[name]
      positional[name] = false
    end
    for _, name in ipairs(case.order) do
      if positional[name] == nil then list[#list + 1] = given[name] end
    end
    if case.module then
      local m = make_module(case, dtype, fine, leaves, changed)
      if next(options) then list[#list + 1] = options end
      local call = case.method and function(...) return m[case.method](m, ...) end or m
      if stored ~= dtype then outs = { unic.autocast(dtype, call, unpack(list)) } else outs = { call(unpack(list)) } end
    else
      outs = { golden.call(case, list, options) }
    end
  end
  -- Some return nil for what was not asked: what is there counts, in its order.
  local given_back = {}
  for i = 1, 8 do
    if outs[i] ~= nil then given_back[#given_back + 1] = outs[i] end
  end
  outs = given_back
  local result = { outs = {}, grads = {}, changed = changed }
  local total, any
  for j, y in ipairs(outs) do
    result.outs["out" .. j] = y
    if FLOAT[y.dtype] and y.requires_grad then
      any = true
      local w = unic.cast(golden.values({ kind = "normal", shape = y.shape }, ("%s/dy%d"):format(case.name, j), fine), y.dtype)
      if #outs == 1 then
        y:backward { gradient = w }
      else
        local part = unic.sum(unic.cast(unic.mul(y, w), WIDE[y.dtype]))
        total = total and unic.add(total, part) or part
      end
    end
  end
  if total then total:backward() end
  if not any then return result end
  for name, t in pairs(leaves) do result.grads[name] = t.grad or unic.zeros(t.shape, { dtype = t.dtype }) end
  return result
end

--- Functions that are no ops: losses.NAME(tensors..., options), unic.NAME(tensors...), methods of tensors.
function golden.call(case, list, options)
  local where, name = case.call:match "^(%a+)%.([%w_]+)$"
  if where == "losses" then
    if next(options) then list[#list + 1] = options end
    return unic.losses[name](unpack(list))
  elseif where == "unic" then
    -- `before`: what comes in front of the tensors, as an equation.
    if case.before then table.insert(list, 1, case.before) end
    for _, v in ipairs(case.after or {}) do list[#list + 1] = plain(v) end
    if next(options) then list[#list + 1] = options end
    return unic[name](unpack(list))
  elseif where == "method" then
    for _, v in ipairs(case.after or {}) do list[#list + 1] = plain(v) end
    return list[1][name](unpack(list))
  end
  error("golden: cannot call '" .. case.call .. "'")
end

-- ---------------------------------------------------------------- comparing

-- Mantissa's bits and the smallest normal exponent (as of frexp).
local FORMAT = { bf16 = { 8, -125 }, f16 = { 11, -13 } }

-- One unit in the last place at v.
local function ulp(v, dtype)
  local format = FORMAT[dtype]
  local _, e = math.frexp(v)
  return math.ldexp(1, math.max(e, format[2]) - format[1])
end

local LIMIT = { f64 = 1e-11, f32 = 1e-6 }   -- two summation orders of a few thousand terms; the contract's
local TIMES, ULPS = 2, 2                    -- of PyTorch's own error; of the storage type's last place

-- The error of one tensor, its share of what is allowed (1 = just), and a sentence about the worst element.
local function compare(file, case, group, record, t, dtype)
  local shape = table.concat(t.shape, "x")
  local expected = table.concat(record.shape, "x")
  if shape ~= expected then return math.huge, math.huge, ("shape %s, expected %s"):format(shape, expected) end
  local values = t:detach()
  if values.dtype ~= "f64" then values = unic.cast(values, "f64") end
  values = unic.contiguous(values)
  local got = ffi.cast("const double *", values:data_ptr())
  local set = FINE[dtype]
  local largest = 1e-3 * case[set].largest
  local at = sample(record.n, ("%s/%s/%s/%s"):format(case.name, set, group, record.name))
  local worst, ulps, where = 0, 0, 1
  local floor = record.exact and 0 or (group == "grads" and math.max(record.rms, largest) or record.rms)
  for k, i in ipairs(at) do
    local a, ref = got[i], file.at[record.offset + k - 1]
    if a ~= ref and not (a ~= a and ref ~= ref) then
      local d = math.abs(a - ref)
      if not (d < math.huge) then d = math.huge end
      if d > worst then worst, where = d, k end
      if FORMAT[dtype] and not record.exact then ulps = math.max(ulps, d / ulp(math.max(math.abs(ref), floor), dtype)) end
    end
  end
  local near = ("element %d of %d: %.9g, expected %.9g"):format(at[where] or 0, record.n, #at > 0 and got[at[where]] or 0, #at > 0 and file.at[record.offset + where - 1] or 0)
  values:touched()
  if record.exact then return worst, worst == 0 and 0 or math.huge, near end
  local err = worst / math.max(record.max + (group == "grads" and largest or record.rms), 1e-30)
  -- Where PyTorch's CPU has no f16, its bf16 error on the op's cases stands in: the same steps with three more bits.
  local own = TIMES * (record[dtype] or dtype == "f16" and (file.own[case.op] or 0) / 8 or 0)
  if dtype == "f64" then return err, err / LIMIT.f64, near end
  if dtype == "f32" then return err, err / math.max(own, LIMIT.f32), near end
  local share = ulps / ULPS
  if own > 0 then share = math.min(share, err / own) end
  return err, share, near
end

--- Run one case in one dtype and compare everything.
-- @return the largest error, the largest share of what is allowed, a sentence about it
function golden.check(file, case, dtype, layout)
  local ok, result = pcall(run, case, dtype, layout)
  if not ok then return math.huge, math.huge, tostring(result) end
  local error_, share, about = 0, 0, nil
  for _, group in ipairs { "outs", "grads", "changed" } do
    for _, record in ipairs(case[FINE[dtype]][group]) do
      local t = result[group][record.name]
      local e, s, text = math.huge, math.huge, "is missing"
      if t then e, s, text = compare(file, case, group, record, t, dtype) end
      if e > error_ then error_ = e end
      if not (s <= share) then share, about = s, ("%s %s, %s"):format(group, record.name, text) end
    end
    local known = {}
    for _, record in ipairs(case[FINE[dtype]][group]) do known[record.name] = true end
    for name in pairs(result[group]) do
      if not known[name] then return math.huge, math.huge, ("%s %s: PyTorch's side has none"):format(group, name) end
    end
  end
  return error_, share, about
end

return golden
