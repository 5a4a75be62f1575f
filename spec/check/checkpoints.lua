-- Foreign checkpoints: every tensor of the folder of real files as PyTorch and NumPy read it, and of files PyTorch and NumPy write now
-- Cost: under a minute; needs the folder of real data (UNIC_DATA, or ../shared/data/real), and a python3 with torch in PATH for its second part
package.path = "./?.lua;" .. package.path
local lfs = require "lfs"
local core = require "unic.core".files
local testing = require "unic.testing"
local support = require "spec.support.check"
local folders = require "spec.support.files"
local check = support.open "checkpoints"

local function open(path)
  if path:find "%.safetensors$" then return core.safetensors_open(path) end
  return (path:find "%.np[yz]$" and core.npy_open or core.torch_open)(path)
end

local function fields(line, separator)
  local list = {}
  for field in (line .. separator):gmatch("(.-)" .. separator) do list[#list + 1] = field end
  return list
end

local complaints = 0
local function complain(...)
  complaints = complaints + 1
  if complaints <= 20 then io.stderr:write(table.concat({ ... }, " "), "\n") end
end

-- ---------------------------------------------------------------- the folder

local NAMES = { float32 = "F32", float64 = "F64", float16 = "F16", bfloat16 = "BF16", int64 = "I64", int32 = "I32", int16 = "I16", int8 = "I8", uint8 = "U8", bool = "BOOL" }

local base = testing.real_data()
base = base and base .. "/checkpoints/"
if not base or not lfs.attributes(base .. "expected.csv") then
  check:skip("real", "the folder of real checkpoints is absent (UNIC_DATA)")
else
  local by_file, order = {}, {}
  local first = true
  for line in io.lines(base .. "expected.csv") do
    if not first then
      local row = fields(line, ",")
      if not by_file[row[1]] then
        by_file[row[1]] = {}
        order[#order + 1] = row[1]
      end
      table.insert(by_file[row[1]], row)
    end
    first = false
  end
  local tensors, right, refused, extra, worst = 0, 0, 0, 0, 0
  for _, name in ipairs(order) do
    local rows = by_file[name]
    local ok, file = pcall(open, base .. name)
    if rows[1][2] == "refused" then
      if ok then complain(name, "was read, PyTorch refuses it") else refused = refused + 1 end
    elseif not ok then
      tensors = tensors + #rows
      complain(name, file)
    else
      local unnamed = {}
      for _, tensor in ipairs(file:names()) do unnamed[tensor] = true end
      for _, row in ipairs(rows) do
        tensors = tensors + 1
        local tensor, want, shape, sum, head = row[2], NAMES[row[3]] or row[3], row[4], row[5], row[6]
        unnamed[tensor] = nil
        local dtype, sizes = file:entry(tensor)
        if dtype ~= want or table.concat(sizes, "x") ~= shape then
          complain(name, tensor, "is", tostring(dtype), sizes and table.concat(sizes, "x") or "", "expected", want, shape)
        else
          local t = file:tensor(tensor):to "f64":reshape(-1)
          local got, got_head = t:sum():item(), t:numel() > 0 and t[1]:item() or nil
          -- Sums of another order differ by their rounding: the measure is the sum of magnitudes.
          local off = math.abs(got - tonumber(sum)) / math.max(t:abs():sum():item(), 1e-300)
          if got == tonumber(sum) then off = 0 end
          worst = math.max(worst, off)
          if off <= 1e-12 and (head == "" or got_head == tonumber(head)) then right = right + 1
          else complain(name, tensor, "sum", ("%.17g"):format(got), "first", tostring(got_head), "expected", sum, head) end
        end
      end
      for tensor in pairs(unnamed) do
        extra = extra + 1
        complain(name, "has", tensor, "which the list has not")
      end
    end
  end
  check:at_least("files", #order, 41)
  check:note("tensors", tensors)
  check:at_most("wrong", tensors - right, 0)
  check:at_most("extra", extra, 0)
  check:at_least("refused", refused, 1)
  check:at_most("sum_error", worst * 1e12, 1)
  -- Files that the list does not have are read, or refused with a sentence.
  local unlisted, unclear = 0, 0
  for _, sub in ipairs { "burn", "candle" } do
    for entry in lfs.dir(base .. sub) do
      local name = sub .. "/" .. entry
      if not by_file[name] and lfs.attributes(base .. name, "mode") == "file" and name:find "%." then
        unlisted = unlisted + 1
        local ok, why = pcall(open, base .. name)
        if not ok and not why:find("'" .. base .. name .. "'", 1, true) then unclear = unclear + 1 end
      end
    end
  end
  check:note("unlisted_files", unlisted)
  check:at_most("unlisted_unclear", unclear, 0)
  -- The two files of the one classifier (trained twice) have the same names and shapes.
  local a, b = open(base .. "burn/mnist.pt"), open(base .. "burn/mnist.safetensors")
  local same = #a:names() == #b:names()
  for _, name in ipairs(b:names()) do
    local da, sa = a:entry(name)
    local db, sb = b:entry(name)
    same = same and da == db and sa ~= nil and table.concat(sa, "x") == table.concat(sb, "x")
  end
  check:holds("mnist_names", same)
end

-- ---------------------------------------------------------------- PyTorch and NumPy, now

local _, absent = support.shell "python3 -c 'import torch, numpy'"
if absent ~= 0 then
  check:skip("written", "this python3 has no torch (PATH=VENV/bin:$PATH ./unic check checkpoints)")
  check:close()
end
local folder = folders.folder()
local output, code = support.shell(("python3 spec/support/torch_files.py '%s'"):format(folder), { timeout = 300 })
if not check:holds("written", code == 0) then
  io.stderr:write(output, "\n")
  folders.remove(folder)
  check:close()
end
check:note("versions", (output:match "[^\n]*$":gsub(" ", ",")))
local files, tensors, wrong, seen = 0, 0, 0, {}
for line in io.lines(folder .. "/expected.tsv") do
  local row = fields(line, "\t")
  local name, tensor, dtype, shape, hex = row[1], row[2], row[3], row[4], row[5]
  local had = seen[name]
  if not had then
    local ok, file = pcall(open, folder .. "/" .. name)
    had = { file = ok and file, names = {} }
    if not ok then complain(name, file) end
    seen[name] = had
    files = files + 1
  end
  tensors = tensors + 1
  had.names[tensor] = true
  local right = false
  if had.file then
    local got, sizes = had.file:entry(tensor)
    if got == dtype and table.concat(sizes, "x") == shape then
      local ok, data = pcall(had.file.data, had.file, tensor)
      if hex == "-" then right = not ok
      elseif ok then right = data:gsub(".", function(c) return ("%02x"):format(c:byte()) end) == hex end
    end
  end
  if not right then
    wrong = wrong + 1
    complain(name, tensor, "is not what was written")
  end
end
local extra = 0
for name, had in pairs(seen) do
  for _, tensor in ipairs(had.file and had.file:names() or {}) do
    if not had.names[tensor] then
      extra = extra + 1
      complain(name, "has", tensor, "which was not written")
    end
  end
end
folders.remove(folder)
check:at_least("written_files", files, 100)
check:at_least("written_tensors", tensors, 600)
check:at_most("written_wrong", wrong, 0)
check:at_most("written_extra", extra, 0)
check:close()
