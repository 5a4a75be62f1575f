-- Every op, module and loss, forward and every gradient, against values that PyTorch gave (spec/golden), in f64, f32, bf16 and f16
-- Cost: some seconds
package.path = "./?.lua;" .. package.path
local support = require "spec.support.check"
local unic = require "unic"
local core = require "unic.core"
local golden = require "spec.support.golden"
local check = support.open "golden"

-- Ops that have no case, each with the reason.
local DRAWS = "draws random numbers: PyTorch's generator is another one"
local WITHOUT = {
  bernoulli_ = DRAWS, drop_path = DRAWS, dropout = DRAWS, normal_ = DRAWS, randint_ = DRAWS, randperm = DRAWS, uniform_ = DRAWS,
}

local DTYPES = { "f64", "f32", "bf16", "f16" }
-- ./unic check golden --only PATTERN: the ops whose name matches, each case's shortcomings shown.
local only
for i, word in ipairs(arg) do
  if word == "--only" then only = arg[i + 1] end
end

local order, ops, families = {}, {}, {}
local function note(case, dtype, err, share, about, layout)
  local op = ops[case.op]
  if not (share <= op.share) then op.share = share end
  op[dtype] = math.max(op[dtype] or 0, err)
  local family = families[case.family]
  if err > family[dtype] then family[dtype] = err end
  if not (share <= 1) then
    op.short = op.short + 1
    if op.short <= (only and 1000 or 3) then
      print(("  %s %s%s: error %.3g, %.3g of the limit: %s"):format(case.name, dtype, layout and " " .. layout or "", err, share, about))
    end
  end
end

for _, name in ipairs { "ops", "spatial", "modules" } do
  local path = "spec/golden/" .. name .. ".safetensors"
  local there = io.open(path, "rb")
  if there then
    there:close()
    local file = golden.load(path)
    check:note(name .. "_torch", file.versions.torch)
    for _, case in ipairs(file.cases) do
      if not only or case.op:find(only) then
        if not ops[case.op] then
          ops[case.op] = { share = 0, short = 0, cases = 0 }
          order[#order + 1] = case.op
        end
        families[case.family] = families[case.family] or { f64 = 0, f32 = 0, bf16 = 0, f16 = 0, cases = 0 }
        ops[case.op].cases = ops[case.op].cases + 1
        families[case.family].cases = families[case.family].cases + 1
        for _, dtype in ipairs(case.dtypes or DTYPES) do
          note(case, dtype, golden.check(file, case, dtype))
        end
        for _, layout in ipairs { "transposed", "channels_last" } do
          local err, share, about = golden.check(file, case, "f32", layout)
          note(case, "f32", err, share, about, layout)
        end
        collectgarbage()
      end
    end
  end
end

for _, name in ipairs(order) do
  if only then
    for _, dtype in ipairs(DTYPES) do
      if ops[name][dtype] then print(("  %s %s: largest error %.3g"):format(name, dtype, ops[name][dtype])) end
    end
  end
  check:at_most(name, ops[name].share, 1)
  if ops[name].cases < 3 then check:at_least(name .. "_cases", ops[name].cases, 3) end
end

if not only then
  local missing, without, covered = {}, {}, 0
  for name in pairs(core.ops.call) do
    if ops[name] then covered = covered + 1
    elseif WITHOUT[name] then without[#without + 1] = name
    else missing[#missing + 1] = name end
  end
  table.sort(missing)
  table.sort(without)
  for _, name in ipairs(missing) do print("  no case: " .. name) end
  check:note("ops_covered", covered)
  check:at_most("ops_without_case", #missing, 0)
  -- Layers and losses by the names recipes use; what nn exports besides (Module, List, Parameter) computes nothing.
  local bare, layers = 0, 0
  for _, space in ipairs { "nn", "losses" } do
    for name, value in pairs(unic[space]) do
      local is = space == "nn" and type(value) == "table" and rawget(value, "forward") and name ~= "Module" or space == "losses" and type(value) == "function"
      if is and ops[space .. "." .. name] then layers = layers + 1
      elseif is then
        bare = bare + 1
        print("  no case: " .. space .. "." .. name)
      end
    end
  end
  check:note("layers_and_losses_covered", layers)
  check:at_most("layers_and_losses_without_case", bare, 0)
  for _, name in ipairs(without) do check:skip(name, WITHOUT[name]) end
end

print(("\n%-12s %6s %9s %9s %9s %9s   largest error against f64"):format("family", "cases", "f64", "f32", "bf16", "f16"))
local names = {}
for name in pairs(families) do names[#names + 1] = name end
table.sort(names)
for _, name in ipairs(names) do
  local f = families[name]
  print(("%-12s %6d %9.2g %9.2g %9.2g %9.2g"):format(name, f.cases, f.f64, f.f32, f.bf16, f.f16))
end
print(("threads %d, %s"):format(unic.threads(), (core.isa())))
check:close()
