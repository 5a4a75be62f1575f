-- Every CUDA kernel for every architecture: registers, occupancy, tensor cores and 128-bit accesses as spec/cuda/static.csv has them; no spill, no local memory
-- Cost: about 20 min on two cores (kept per file and architecture); --write makes the table anew
package.path = "./?.lua;" .. package.path
local lfs = require "lfs"
local files = require "unic.files"
local sass = require "spec.cuda.sass"
local support = require "spec.support.check"
local check = support.open "cuda_static"

local TABLE = "spec/cuda/static.csv"
local ARCHS = { 80, 86, 89, 90, 100, 120 }
local THREADS = 256   -- of a block, where a kernel has no __launch_bounds__
local FLAGS = "-std=c++20 -O3 -Iruntime -Ikernels --expt-relaxed-constexpr -Xptxas -v,--warn-on-spills,--warn-on-local-memory-usage -Werror all-warnings"
  .. " -Xcompiler=-Wno-missing-field-initializers"

local nvcc = support.shell("command -v nvcc || ls /usr/local/cuda/bin/nvcc")
if not nvcc:match "nvcc" then
  check:skip("kernels", "no nvcc here")
  check:close()
end

local function read(path)
  local file = assert(io.open(path, "rb"))
  local text = file:read "*a"
  file:close()
  return text
end

-- "scale_kernel" of a mangled name: the last of its nested names before the template's arguments.
local function short(mangled)
  local at, last = 3, nil
  if mangled:sub(3, 3) == "N" then at = 4 end
  while true do
    local digits = mangled:match("^%d+", at)
    if not digits then break end
    local from = at + #digits
    local name = mangled:sub(from, from + tonumber(digits) - 1)
    if not name:match "^_GLOBAL__N_" and not name:match "^_INTERNAL" then last = name end
    at = from + tonumber(digits)
  end
  return last or mangled
end

-- All kernels of a file for one architecture, forms of a template together: the most registers, the fewest blocks, what all of them have.
local function measure(path, arch)
  local cubin = os.tmpname()
  local output, code = support.shell(("%s %s -arch=sm_%d -cubin -o %s %s"):format(nvcc:match "%S+", FLAGS, arch, cubin, path), { timeout = 1800 })
  if code ~= 0 then
    os.remove(cubin)
    return nil, output
  end
  local used, counts = sass.ptxas(output), sass.scan(read(cubin))
  os.remove(cubin)
  local kernels = {}
  for mangled, u in pairs(used) do
    local name = short(mangled)
    local c = counts[mangled] or {}
    local k = kernels[name]
    if not k then
      k = { registers = 0, blocks = math.huge, forms = 0, spills = 0, mma = true, wide = true, any_mma = false, any_wide = false }
      kernels[name] = k
    end
    local mma, wide = (c.HMMA or 0) > 0, (c.LDG128 or 0) + (c.LDGSTS or 0) > 0
    k.forms, k.registers = k.forms + 1, math.max(k.registers, u.registers)
    k.blocks = math.min(k.blocks, sass.blocks(arch, u.registers, u.shared, c.threads or THREADS))
    k.spills = k.spills + u.spills + u.stack + (c.LDL or 0) + (c.STL or 0)
    k.any_mma, k.any_wide, k.mma, k.wide = k.any_mma or mma, k.any_wide or wide, k.mma and mma, k.wide and wide
  end
  local lines = {}
  for name, k in pairs(kernels) do
    lines[#lines + 1] = ("%s %d %d %d %d %s"):format(name, k.registers, k.blocks, k.forms, k.spills,
      (k.mma and "mma" or k.any_mma and "some_mma" or "-") .. "+" .. (k.wide and "wide" or k.any_wide and "some_wide" or "-"))
  end
  table.sort(lines)
  return table.concat(lines, ";")
end

-- The table: kernel,arch,registers,blocks,forms,uses
local function read_table()
  local rows = {}
  local file = io.open(TABLE)
  if not file then return rows end
  for line in file:lines() do
    local source, kernel, arch, registers, blocks, forms, uses = line:match "^([%w_]+),([%w_]+),(%d+),(%d+),(%d+),(%d+),([%w_+-]+)$"
    if source then rows[source .. "," .. kernel .. "," .. arch] = { registers = tonumber(registers), blocks = tonumber(blocks), forms = tonumber(forms), uses = uses } end
  end
  file:close()
  return rows
end

local write = false
for _, word in ipairs(arg) do write = write or word == "--write" end

local sources = {}
for name in lfs.dir "kernels" do
  if name:match "%.cu$" then sources[#sources + 1] = name:sub(1, -4) end
end
table.sort(sources)

-- A file's answer holds as long as neither it nor one of our own headers that it includes has changed.
local KEPT = ".cache/check/cuda_static"
local hashes = {}
local function kept_at(source, arch)
  if not hashes[source] then
    local ours = {}
    for path in support.shell(("%s -MM -std=c++20 -Iruntime -Ikernels kernels/%s.cu"):format(nvcc:match "%S+", source)):gmatch "%S+" do
      if path:match "^kernels/" or path:match "^runtime/" then ours[#ours + 1] = path end
    end
    table.sort(ours)
    hashes[source] = support.shell(("cat %s | sha1sum"):format(table.concat(ours, " "))):match "^%x+"
  end
  return ("%s/%s_%d_%s"):format(KEPT, source, arch, hashes[source])
end
local function kept(source, arch)
  local file = io.open(kept_at(source, arch))
  local lines = file and file:read "*a"
  if file then file:close() end
  return lines
end
local function keep(source, arch)
  local lines = kept(source, arch)
  if lines then return lines end
  local why
  lines, why = measure("kernels/" .. source .. ".cu", arch)
  if lines then
    local into = files.output(kept_at(source, arch))
    into:write(lines)
    into:commit()
  end
  return lines, why
end

-- One compiler after the other leaves all cores but one idle: this script again, for one file and architecture each.
if arg[1] == "--one" then
  keep(arg[2], tonumber(arg[3]))
  os.exit(0, true)
end
os.execute("mkdir -p " .. KEPT)
local list = os.tmpname()
local todo = assert(io.open(list, "w"))
for _, source in ipairs(sources) do
  for _, arch in ipairs(ARCHS) do
    if not kept(source, arch) then todo:write(source, " ", arch, "\n") end
  end
end
todo:close()
os.execute(("xargs -r -P $(nproc) -L 1 luajit spec/check/cuda_static.lua --one < %s"):format(list))
os.remove(list)

local known, out = read_table(), { "file,kernel,arch,registers,blocks,forms,uses" }
local kernels, spills, seen = 0, 0, {}
for _, source in ipairs(sources) do
  for _, arch in ipairs(ARCHS) do
    local lines, why = keep(source, arch)
    if not lines then
      check:holds(("%s_sm_%d_compiles"):format(source, arch), false)
      for line in why:gmatch "[^\n]+" do if line:match "error" then io.stderr:write(line, "\n") end end
    else
      for name, registers, blocks, forms, spilt, uses in lines:gmatch "([%w_]+) (%d+) (%d+) (%d+) (%d+) ([%w_+-]+)" do
        registers, blocks, forms, spilt = tonumber(registers), tonumber(blocks), tonumber(forms), tonumber(spilt)
        local key = ("%s,%s,%d"):format(source, name, arch)
        kernels, spills, seen[key] = kernels + 1, spills + spilt, true
        out[#out + 1] = ("%s,%d,%d,%d,%s"):format(key, registers, blocks, forms, uses)
        if spilt > 0 then check:at_most(key:gsub(",", ".") .. "_spilt", spilt, 0) end
        local want = known[key]
        if not write then
          if not want then
            check:holds(key:gsub(",", ".") .. "_in_table", false)
          else
            -- A compiler's next version may take a register more; a kernel that loses a block for it must be looked at.
            if registers > want.registers + 4 then check:at_most(key:gsub(",", ".") .. "_registers", registers, want.registers + 4) end
            if blocks < want.blocks then check:at_least(key:gsub(",", ".") .. "_blocks", blocks, want.blocks) end
            if uses ~= want.uses then check:holds(("%s_uses_%s_not_%s"):format(key:gsub(",", "."), want.uses, uses), false) end
          end
        end
      end
    end
  end
end
if write then
  local output = files.output(TABLE)
  output:write(table.concat(out, "\n"), "\n")
  output:commit()
else
  local gone = 0
  for key in pairs(known) do if not seen[key] then gone = gone + 1 end end
  check:at_most("kernels_of_the_table_that_are_gone", gone, 0)
end
check:at_most("bytes_spilt", spills, 0)
check:at_least("kernels_by_architectures", kernels, 6 * #sources)
check:close()
