--- metrics.csv: one row for every step, written some steps late, because reading a loss waits for the device.
-- @module unic.run.metrics
local lfs = require "lfs"
local core = require "unic.core"
local files = require "unic.files"
local folder = require "unic.run.folder"

local is_tensor = core.tensor.is_tensor
local metrics = {}

local COLUMNS = { "step", "epoch", "seconds", "images_per_s", "lr", "loss", "cvl", "ssv", "ctr_tf", "ctr_tt", "grad_norm", "loss_scale", "mem_active_mb", "mem_peak_mb" }
local OWN = { step = true, epoch = true, seconds = true, images_per_s = true, mem_active_mb = true, mem_peak_mb = true }

local Metrics = {}
Metrics.__index = Metrics

--- 27891712 -> "27,891,712".
function metrics.with_thousands(n)
  local text = ("%d"):format(n)
  local count
  repeat text, count = text:gsub("^(%d+)(%d%d%d)", "%1,%2") until count == 0
  return text
end

--- Open metrics.csv; what it has stays.
-- @param path the file
function metrics.new(path)
  local self = setmetatable({ path = path, pending = {}, names = {}, known = {} }, Metrics)
  local file = io.open(path, "r")
  local header = file and file:read "*l"
  if file then file:close() end
  if header and header ~= "" then
    for name in (header .. ","):gmatch "([^,]*)," do self.names[#self.names + 1] = name end
  else
    for i, name in ipairs(COLUMNS) do self.names[i] = name end
  end
  for _, name in ipairs(self.names) do self.known[name] = true end
  return self
end

--- Check a value that is to be logged, and keep it where it is.
function metrics.hold(name, value)
  if type(name) ~= "string" or not name:find "^[%a_][%w_]*$" then folder.fail("log: '%s' is no name, expected a word", tostring(name)) end
  if OWN[name] then folder.fail("log: '%s' is written by the run itself, expected another name", name) end
  if type(value) == "number" then return value end
  if not is_tensor(value) then folder.fail("log: '%s' is a %s, expected a number or a tensor of one element", name, type(value)) end
  if value:numel() ~= 1 then folder.fail("log: '%s' has %d elements, expected one", name, value:numel()) end
  return value:detach()
end

--- Keep a step's row until the next flush.
-- @param row `step`, `epoch`, `seconds`, `rows`, `lr`, `total` (list), `values` (name -> list), `is_loss` (name -> true)
function Metrics:add(row) self.pending[#self.pending + 1] = row end

local function mean(list)
  local sum = 0
  for _, value in ipairs(list) do sum = sum + (is_tensor(value) and value:item() or value) end
  return sum / #list
end

-- Names of a row's losses: those of the contract in its order, then the others.
local function loss_names(row)
  local names, seen = {}, {}
  for _, name in ipairs(COLUMNS) do
    if row.is_loss[name] and name ~= "loss" then names[#names + 1] = name; seen[name] = true end
  end
  local others = {}
  for name in pairs(row.is_loss) do
    if not seen[name] and name ~= "loss" then others[#others + 1] = name end
  end
  table.sort(others)
  for _, name in ipairs(others) do names[#names + 1] = name end
  return names
end

-- Columns that came up after the header was written: the file is written anew with them.
function Metrics:widen(new)
  table.sort(new)
  for _, name in ipairs(new) do
    self.names[#self.names + 1] = name
    self.known[name] = true
  end
  if not self.file and not lfs.attributes(self.path, "mode") then return end
  if self.file then self.file:close() end
  self.file = nil
  local lines, more = {}, (","):rep(#new)
  for line in io.lines(self.path) do lines[#lines + 1] = line .. more end
  lines[1] = table.concat(self.names, ",")
  files.write_file(self.path, table.concat(lines, "\n") .. "\n")
end

local function is_bad(x) return x ~= x or x == math.huge or x == -math.huge end

--- Read what is pending, write it, and raise when a loss is NaN or Inf.
-- @param facts `rate`, `active`, `peak` (MB): of all these steps together
-- @return `loss` and `parts` (a list of {name, number}) of the last row, and `mean`, of the losses of all these rows
function Metrics:flush(facts)
  local rows, new, last, bad = {}, {}, nil, nil
  local sum_of_losses = 0
  for i, row in ipairs(self.pending) do
    local cells, parts, sum = {}, {}, 0
    for name, list in pairs(row.values) do
      cells[name] = mean(list)
      if not self.known[name] then
        new[#new + 1] = name
        self.known[name] = true
      end
    end
    for k, name in ipairs(loss_names(row)) do
      parts[k] = { name, cells[name] }
      sum = sum + cells[name]
      if is_bad(cells[name]) then bad = bad or { row.step, name, cells[name] } end
    end
    if not cells.loss then
      if #row.total > 0 then cells.loss = mean(row.total) else cells.loss = #parts > 0 and sum or nil end
    end
    if cells.loss and is_bad(cells.loss) then bad = bad or { row.step, "loss", cells.loss } end
    cells.step, cells.epoch, cells.seconds, cells.images_per_s = row.step, row.epoch, row.seconds, facts.rate
    cells.lr = cells.lr or row.lr
    cells.mem_active_mb, cells.mem_peak_mb = facts.active, facts.peak
    rows[i] = cells
    last = { loss = cells.loss or 0 / 0, parts = parts }
    sum_of_losses = sum_of_losses + last.loss
    if bad then break end
  end
  self.pending = {}
  if #new > 0 then self:widen(new) end
  self.file = self.file or files.append_csv(self.path, self.names)
  for _, cells in ipairs(rows) do self.file:row(cells) end
  if bad then
    local others = {}
    for _, part in ipairs(last.parts) do
      if part[1] ~= bad[2] then others[#others + 1] = ("%s %.4g"):format(part[1], part[2]) end
    end
    folder.fail("the loss '%s' is %s at step %d%s; a smaller --lr or --dtype f32 is the usual cure", bad[2], bad[3] ~= bad[3] and "nan" or tostring(bad[3]),
      bad[1], #others > 0 and " (" .. table.concat(others, ", ") .. ")" or "")
  end
  last.mean = sum_of_losses / #rows
  return last
end

return metrics
