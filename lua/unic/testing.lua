--- What tests of recipes, losses and modules need: comparison with the project's measure of error, gradient checks, busted assertions.
-- `require("unic.testing").install()` adds `assert.close`, `assert.gradcheck`, `assert.same_bits` and `assert.raises_at` to busted.
-- @module unic.testing
local unic = require "unic"
local core = require "unic.core"
local ffi = require "ffi"

local testing = {}

-- The one table of tolerances; each with its reason.
testing.tolerance = {
  f64 = 1e-11,    -- two summation orders of a few thousand terms
  f32 = 2e-6,     -- 1e-6 (contracts) for each of two f32 forms compared with f64
  bf16 = 7.9e-3,  -- 2 ulp of an 8-bit mantissa at the largest value
  f16 = 2e-3,     -- 2 ulp of an 11-bit mantissa at the largest value
  gradcheck = 1e-6, -- central differences in f64 with a step of 1e-6: truncation and rounding both near 1e-9, relative to small gradients
}

-- The elements as f64 in row-major order: a pointer, their number, and the tensor that owns them.
local function flat(x)
  local host = x:detach()
  if host.device ~= "cpu" then host = host:to("cpu") end
  if host.dtype ~= "f64" then host = unic.cast(host, "f64") end
  host = unic.contiguous(host)
  return ffi.cast("const double *", host:data_ptr()), host:numel(), host
end

--- The largest magnitude among finite elements.
-- @param x a tensor
-- @return a number
function testing.largest(x)
  local p, n, owner = flat(x)
  local m = 0
  for i = 0, n - 1 do
    local v = math.abs(p[i])
    if v > m and v < math.huge then m = v end
  end
  owner:touched()
  return m
end

--- error(a, ref) = max|a - ref| / (max|ref| + rms(ref)), ref in f64; NaN and Inf must agree in place and sign.
-- @param a a tensor
-- @param ref a tensor of the same shape
-- @param scale added to the denominator instead of rms(ref) when given (for gradients: 1e-3 x the largest gradient of the module)
-- @return the error, and where it is largest (0-based)
function testing.error(a, ref, scale)
  local x, n, ox = flat(a)
  local y, m, oy = flat(ref)
  if n ~= m then return math.huge, 0 end
  local worst, at, largest, squares = 0, 0, 0, 0
  for i = 0, n - 1 do
    local p, q = x[i], y[i]
    local size = math.abs(q)
    if size < math.huge then   -- false for NaN too
      if size > largest then largest = size end
      squares = squares + q * q
    end
    if p ~= p or q ~= q then
      if (p ~= p) ~= (q ~= q) then return math.huge, i end
    elseif size == math.huge or math.abs(p) == math.huge then
      if p ~= q then return math.huge, i end
    else
      local d = math.abs(p - q)
      if d > worst then worst, at = d, i end
    end
  end
  ox:touched()
  oy:touched()
  if worst == 0 then return 0, 0 end
  local rms = n > 0 and math.sqrt(squares / n) or 0
  return worst / math.max(largest + (scale or rms), 1e-30), at
end

--- Are two tensors close? Returns true, or false and a sentence.
function testing.close(a, ref, tolerance)
  if type(a) == "number" then a = unic.tensor(a, { dtype = "f64" }) end
  if type(ref) == "number" or type(ref) == "table" then ref = unic.tensor(ref, { dtype = "f64" }) end
  local sa, sr = table.concat(a.shape, "x"), table.concat(ref.shape, "x")
  if sa ~= sr then return false, ("shape %s, expected %s"):format(sa, sr) end
  tolerance = tolerance or testing.tolerance[a.dtype] or 0
  local err, at = testing.error(a, ref)
  if err <= tolerance then return true, err end
  return false, ("error %.3g at element %d (%.9g, expected %.9g), allowed %.3g"):format(err, at, core.tensor.peek(unic.reshape(a:detach(), { -1 }), at),
    core.tensor.peek(unic.reshape(ref:detach(), { -1 }), at), tolerance), err
end

--- Have two tensors the same bytes? Returns true, or false and a sentence.
function testing.same_bits(a, b)
  if a.dtype ~= b.dtype then return false, ("dtype %s and %s"):format(a.dtype, b.dtype) end
  local sa, sb = table.concat(a.shape, "x"), table.concat(b.shape, "x")
  if sa ~= sb then return false, ("shapes %s and %s"):format(sa, sb) end
  local x, y = a:detach():bytes(), b:detach():bytes()
  if x == y then return true end
  for i = 1, #x do
    if x:byte(i) ~= y:byte(i) then return false, ("byte %d of %d differs"):format(i, #x) end
  end
  return false, "different lengths"
end

--- Compare the gradients that backward gives with central differences.
-- @param fn a function of the inputs that returns a tensor (or several)
-- @param inputs f64 tensors; those with a floating type are checked
-- @param options `eps` (1e-6), `tolerance`
-- @return true, or false and a sentence
function testing.gradcheck(fn, inputs, options)
  options = options or {}
  local eps, tolerance = options.eps or 1e-6, options.tolerance or testing.tolerance.gradcheck
  local checked = {}
  for i, x in ipairs(inputs) do
    if x.dtype == "f64" then
      inputs[i] = unic.clone(x:detach())
      inputs[i].requires_grad = true
      checked[#checked + 1] = i
    elseif x.dtype == "f32" or x.dtype == "bf16" or x.dtype == "f16" then
      return false, ("input %d is %s, differences need f64"):format(i, x.dtype)
    end
  end
  local rng = unic.new_generator(1234)
  local weights
  -- One number out of everything fn returns: a fixed random weighting of all elements.
  local function total()
    local outs, sum = { fn(unpack(inputs)) }, nil
    weights = weights or {}
    local index = 0
    for _, y in ipairs(outs) do
      if core.tensor.is_tensor(y) and y.dtype == "f64" then
        index = index + 1
        weights[index] = weights[index] or unic.randn(y.shape, { dtype = "f64", rng = rng })
        local part = unic.sum(unic.mul(y, weights[index]))
        sum = sum and sum + part or part
      end
    end
    return sum
  end
  local loss = total()
  if not loss then return false, "fn returned no f64 tensor" end
  local grads = unic.grad(loss, (function() local t = {} for k, i in ipairs(checked) do t[k] = inputs[i] end return t end)())
  for k, i in ipairs(checked) do
    local x = inputs[i]
    local n = x:numel()
    local numeric = {}
    local values = unic.reshape(x:detach(), { -1 })
    unic.no_grad(function()
      for e = 1, n do
        local at = values:totable()[e]
        local one = unic.narrow(values, 1, e, 1)
        one:fill_(at + eps)
        local up = total():item()
        one:fill_(at - eps)
        local down = total():item()
        one:fill_(at)
        numeric[e] = (up - down) / (2 * eps)
      end
    end)
    if n > 0 then
      local given = grads[k]
      if not given then given = unic.zeros(x.shape, { dtype = "f64" }) end
      local err, where = testing.error(unic.reshape(given, { -1 }), unic.tensor(numeric, { dtype = "f64" }))
      if not (err <= tolerance) then
        return false, ("gradient of input %d, element %d: %.9g by backward, %.9g by differences (error %.3g, allowed %.3g)"):format(i, where,
          unic.reshape(given, { -1 }):totable()[where + 1], numeric[where + 1], err, tolerance)
      end
    end
  end
  return true
end

--- The folder of real data (UNIC_DATA, or shared/data/real beside the checkout), or nil.
function testing.real_data()
  local lfs = require "lfs"
  for _, path in ipairs { os.getenv "UNIC_DATA" or "", unic.root .. "../shared/data/real", unic.root .. "shared/data/real" } do
    if path ~= "" and lfs.attributes(path, "mode") == "directory" then return path end
  end
  return nil
end

-- A folder of its own for the runs of a recipe, so that a test leaves nothing behind; fn gets its path.
local function with_folder(fn)
  local path = os.tmpname()
  os.remove(path)
  local ok, why = require("lfs").mkdir(path)
  if not ok then error("testing.recipe: cannot make a folder in " .. (path:match "^(.*)/" or ".") .. ": " .. why, 0) end
  local was = testing.runs
  testing.runs = path .. "/runs"
  local done, answer = pcall(fn)
  testing.runs = was
  local function remove(folder)
    local lfs = require "lfs"
    for name in lfs.dir(folder) do
      local inner = folder .. "/" .. name
      if name ~= "." and name ~= ".." then
        if lfs.symlinkattributes(inner, "mode") == "directory" then remove(inner) else os.remove(inner) end
      end
    end
    lfs.rmdir(folder)
  end
  remove(path)
  if not done then error(answer, 0) end
  return answer
end

--- Run a flat recipe in a fresh environment, as `./unic RECIPE` would, without its progress output. Its run folder is a temporary one unless
-- the option `run` names another; `--dry` ends it early.
-- @param path the recipe's file
-- @param options its options by name: `{steps = 5, batch = 8}`; true for a switch, a list for several values
-- @return a table: `result` (the fields of the result line as numbers), `output` (what it printed), `env` (its globals)
function testing.recipe(path, options)
  local words = { [0] = path }
  for name, value in pairs(options or {}) do
    name = "--" .. name:gsub("_", "-")
    if value == true then words[#words + 1] = name
    elseif value ~= false then words[#words + 1] = name .. "=" .. tostring(value) end
  end
  table.sort(words)
  local printed = {}
  local env = setmetatable({ arg = words }, { __index = _G })
  env._G = env
  env.print = function(...)
    local parts = {}
    for i = 1, select("#", ...) do parts[i] = tostring((select(i, ...))) end
    printed[#printed + 1] = table.concat(parts, "\t")
  end
  local chunk = assert(loadfile(path))
  setfenv(chunk, env)
  local saved, quiet, sink = arg, testing.quiet, testing.print
  arg = words
  testing.quiet = true
  testing.print = env.print   -- what the library prints for the recipe (the result line) is its output too
  local ok, why = pcall(with_folder, function()
    local done, problem = xpcall(chunk, function(e) return type(e) == "string" and e or tostring(e) end)
    if not done and problem ~= "dry run" then error(problem, 0) end
  end)
  arg, testing.quiet, testing.print = saved, quiet, sink
  if not ok then error(why, 0) end
  local output = table.concat(printed, "\n")
  local result = {}
  for line in output:gmatch "[^\n]+" do
    local fields = line:match "^result (.*)$"
    if fields then
      for key, value in fields:gmatch "([%w_]+)=(%S+)" do result[key] = value == "nan" and 0 / 0 or tonumber(value) or value end
    end
  end
  return { result = result, output = output, env = env }
end

--- Add the assertions to busted (luassert).
function testing.install()
  local assert = require "luassert"
  local say = require "say"
  local function add(name, sentence, check)
    say:set("assertion." .. name .. ".positive", sentence .. "\n%s")
    say:set("assertion." .. name .. ".negative", "expected the opposite of: " .. sentence)
    assert:register("assertion", name, function(state, arguments)
      local ok, why = check(unpack(arguments, 1, arguments.n))
      state.failure_message = not ok and (sentence .. ": " .. tostring(why)) or nil
      return ok
    end, "assertion." .. name .. ".positive", "assertion." .. name .. ".negative")
  end
  add("close", "the tensors are not close", testing.close)
  add("same_bits", "the tensors differ in their bits", testing.same_bits)
  add("gradcheck", "backward disagrees with differences", testing.gradcheck)
  -- assert.raises_at(line, pattern, fn): fn raises, its message matches, and starts at that line of the calling file (nil: any line).
  add("raises_at", "the error is not as expected", function(line, pattern, fn)
    local ok, message = pcall(fn)
    if ok then return false, "nothing was raised" end
    message = tostring(message)
    if not message:find(pattern) then return false, ("raised %q, expected a match for %q"):format(message, pattern) end
    if line and not message:find((":%d: "):format(line), 1, true) then return false, ("raised %q, expected it at line %d"):format(message, line) end
    return true
  end)
end

return testing
