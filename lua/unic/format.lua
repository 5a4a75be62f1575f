--- How a tensor looks when it is printed.
-- Columns of four decimals, a common factor in front where the values are very large or very small, long tensors cut in the middle, and one
-- last line with dtype, shape and device. The printer sees the tensor through an accessor, so that it knows nothing about memory.
-- @module unic.format
local format = {}

local THRESHOLD = 1000   -- more elements than this and the middle is left out
local EDGE = 3           -- elements kept at either end of a dimension that is cut
local SLICES = 16        -- small matrices shown of a tensor with more than two dimensions
local CUT_SLICES = 6     -- the same for matrices that are cut themselves: together they should fit a screen
local ROWS, COLUMNS, VECTOR = 60, 40, 300   -- longer rows, columns and vectors are cut even when the elements are few
local DECIMALS = 4

local INTEGER = { i64 = true, i32 = true, i16 = true, i8 = true, u8 = true }

-- The width to wrap at: the terminal's when there is one, so that a matrix fills it.
local function screen_width()
  local ok, core = pcall(require, "unic.core")
  if ok and type(core) == "table" and core.edit and core.edit.isatty(1) then return core.edit.width() end
  return 80
end

--- The shape as it is written everywhere: `2x3`, `scalar` when there are no dimensions.
-- @param shape list of sizes
-- @return a string
function format.shape(shape)
  if #shape == 0 then return "scalar" end
  local parts = {}
  for i = 1, #shape do parts[i] = (tostring(shape[i]):gsub("U?LL$", "")) end
  return table.concat(parts, "x")
end

--- The last line of a printed tensor: `[f32 2x3 cpu]`.
-- @param t the accessor that `format.tensor` takes; `t.note` (such as "requires_grad") is added at the end
-- @return a string
function format.footer(t)
  return string.format("[%s %s %s%s]", t.dtype, format.shape(t.shape), t.device, t.note and " " .. t.note or "")
end

-- Which positions (0-based) of a dimension are shown; false stands for what is left out.
local function shown_positions(size, edge)
  local list = {}
  if edge and size > 2 * edge then
    for i = 0, edge - 1 do list[#list + 1] = i end
    list[#list + 1] = false
    for i = size - edge, size - 1 do list[#list + 1] = i end
  else
    for i = 0, size - 1 do list[#list + 1] = i end
  end
  return list
end

local function is_finite(v) return v == v and v ~= math.huge and v ~= -math.huge end

local function non_finite(v) return v ~= v and "nan" or v > 0 and "inf" or "-inf" end

-- One function from value to text for all shown elements of a float tensor, and the factor in front (nil when there is none).
local function float_writer(values)
  local max, whole = 0, true
  for i = 1, #values do
    local v = values[i]
    if is_finite(v) then
      if math.abs(v) > max then max = math.abs(v) end
      if whole and v ~= math.floor(v) then whole = false end
    end
  end
  if whole and max < 1e8 then
    return function(v) return is_finite(v) and string.format("%.0f", v + 0) or non_finite(v) end
  end
  local power = 0
  -- Below 0.01 four decimals leave two digits or fewer, above 1e5 the columns grow too wide to read.
  if max > 0 and (max < 1e-2 or max >= 1e5) then power = math.max(-300, math.floor(math.log10(max))) end
  local divisor, pattern = 10 ^ power, "%." .. DECIMALS .. "f"
  local function write(v)
    if not is_finite(v) then return non_finite(v) end
    if v == 0 then return "0" end      -- an exact zero (ReLU, dropout, padding) is told from a small value
    return string.format(pattern, v / divisor)
  end
  return write, power ~= 0 and string.format("1e%+03d *", power) or nil
end

local function integer_text(v)
  if type(v) == "number" then return string.format("%.0f", v) end
  return (tostring(v):gsub("U?LL$", ""))
end

local function bool_text(v) return (v == true or (v ~= false and tonumber(v) ~= 0)) and "true" or "false" end

-- A scalar keeps six significant digits: a loss of 1.2e-05 must not read 0.0000.
local function scalar_text(dtype, v)
  if dtype == "bool" then return bool_text(v) end
  if INTEGER[dtype] then return integer_text(v) end
  if not is_finite(v) then return non_finite(v) end
  return string.format("%.6g", v)
end

local function pad(text, width) return string.rep(" ", width - #text) .. text end

-- Rows of cells as lines. `rows` holds lists of texts, or false for rows left out; columns[i] is the 0-based column or false.
local function matrix_lines(lines, rows, columns, cell, width)
  local per_block = math.max(1, math.floor((width + 1) / (cell + 2)))
  local count = #columns
  for first = 1, count, per_block do
    local last = math.min(count, first + per_block - 1)
    if count > per_block then
      local from, to = columns[first], columns[last]
      lines[#lines + 1] = string.format(" columns %d to %d:", (from or columns[first - 1] + 1) + 1, (to or columns[last + 1] - 1) + 1)
    end
    for r = 1, #rows do
      local row = rows[r]
      if row then
        local parts = {}
        for c = first, last do parts[#parts + 1] = columns[c] and pad(row[c], cell) or "..." end
        lines[#lines + 1] = " " .. table.concat(parts, "  ")
      else
        lines[#lines + 1] = " ..."
      end
    end
  end
end

-- A vector runs on over several lines, without headings.
local function vector_lines(lines, row, columns, cell, width)
  local per_line = math.max(1, math.floor((width + 1) / (cell + 2)))
  for first = 1, #columns, per_line do
    local parts = {}
    for c = first, math.min(#columns, first + per_line - 1) do parts[#parts + 1] = columns[c] and pad(row[c], cell) or "..." end
    lines[#lines + 1] = " " .. table.concat(parts, "  ")
  end
end

-- How many elements stay at either end of each dimension; false where all of it is shown. What matters is the number of lines: the matrix
-- of the last two dimensions is cut by the count of elements, the dimensions before it by the count of matrices.
local function choose_edges(shape, total, threshold)
  local rank, edges, slices = #shape, {}, 1
  local limit = total > threshold and CUT_SLICES or SLICES
  for d = 1, rank do
    local long = rank == 1 and VECTOR or d == rank and COLUMNS or d == rank - 1 and ROWS or math.huge
    edges[d] = (total > threshold or shape[d] > long) and (d == rank and rank <= 2 and EDGE + 1 or EDGE)
    if d <= rank - 2 then slices = slices * shape[d] end
  end
  for edge = EDGE, 1, -1 do
    if slices <= limit then break end
    slices = 1
    for d = 1, rank - 2 do
      edges[d] = edge
      slices = slices * math.min(shape[d], 2 * edge)
    end
  end
  return edges
end

--- A tensor as text.
-- @param t accessor: `shape` (list of sizes), `dtype` (`"f32"`), `device` (`"cpu"`), `get` (function from the 0-based row-major position to
--   the value; absent on a device that holds no data), `note` (optional words for the last line)
-- @param options optional: `width` (columns of the screen), `threshold` (elements above which the middle is left out, 1000)
-- @return a string without a final line end
-- @usage print(format.tensor{shape = {2, 2}, dtype = "f32", device = "cpu", get = function(i) return i end})
function format.tensor(t, options)
  options = options or {}
  local width, threshold = options.width or screen_width(), options.threshold or THRESHOLD
  local shape, dtype = {}, t.dtype
  local total = 1
  for i = 1, #t.shape do
    shape[i] = tonumber(t.shape[i])
    total = total * shape[i]
  end
  local footer = format.footer(t)
  if not t.get then return footer end
  if #shape == 0 then return scalar_text(dtype, t.get(0)) .. " " .. footer end
  if total == 0 then return "(empty)\n" .. footer end

  local rank = #shape
  local edges = choose_edges(shape, total, threshold)
  local positions, stride = {}, {}
  local step = 1
  for d = rank, 1, -1 do
    positions[d] = shown_positions(shape[d], edges[d])
    stride[d] = step
    step = step * shape[d]
  end

  -- Read what is shown, in order: the number format is chosen once for all of it.
  local values = {}
  local function gather(d, offset)
    local list = positions[d]
    for i = 1, #list do
      if list[i] then
        local here = offset + list[i] * stride[d]
        if d == rank then values[#values + 1] = t.get(here) else gather(d + 1, here) end
      end
    end
  end
  gather(1, 0)

  local write, factor
  if dtype == "bool" then write = bool_text
  elseif INTEGER[dtype] then write = integer_text
  else write, factor = float_writer(values) end
  local texts, cell = {}, 0
  for i = 1, #values do
    texts[i] = write(values[i])
    if #texts[i] > cell then cell = #texts[i] end
  end

  local lines, next_text = {}, 1
  if factor then lines[1] = factor end
  local function take_row()
    local row, columns = {}, positions[rank]
    for c = 1, #columns do
      if columns[c] then
        row[c] = texts[next_text]
        next_text = next_text + 1
      else
        row[c] = "..."
      end
    end
    return row
  end
  local function take_matrix()
    local rows, list = {}, positions[rank - 1]
    for r = 1, #list do rows[r] = list[r] and take_row() end
    matrix_lines(lines, rows, positions[rank], cell, width)
  end
  local index = {}
  local function slices(d)
    if d > rank - 2 then
      lines[#lines + 1] = "(" .. table.concat(index, ",") .. ",.,.) ="
      return take_matrix()
    end
    local list = positions[d]
    for i = 1, #list do
      if list[i] then
        index[d] = list[i] + 1
        slices(d + 1)
      else
        lines[#lines + 1] = "..."
      end
    end
    index[d] = nil
  end

  if rank == 1 then vector_lines(lines, take_row(), positions[1], cell, width)
  elseif rank == 2 then take_matrix()
  else slices(1) end
  lines[#lines + 1] = footer
  return table.concat(lines, "\n")
end

return format
