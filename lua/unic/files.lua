--- Pictures, tables, safetensors and safe writing of files.
-- Everything that reads gives a sentence with the path (and the row, where there is one) when a file is wrong, and never half of its
-- contents. Everything that writes does so under a temporary name and renames it at the end: a killed program leaves the old file.
-- @module unic.files
local ffi = require "ffi"
local fcntl = require "posix.fcntl"
local unistd = require "posix.unistd"
local arguments = require "unic.arguments"
local unic_core = require "unic.core"
local core = unic_core.files
local is_tensor = unic_core.tensor.is_tensor

local files = {}

local function fail(op, sentence, ...)
  unic_core.fail(("[%s] " .. sentence):format(op, ...))
end

-- ", did you mean 'x'?", where something is near.
local function hint(word, list)
  local near = unic_core.nearest(tostring(word), list)
  return near and (", did you mean '%s'?"):format(near) or ""
end

local function check_string(op, name, value)
  return arguments.check(op, name, value, "string")
end

local function check_path(op, path)
  check_string(op, "path", path)
  if path == "" then fail(op, "argument 'path': is empty, expected the name of a file") end
  if path:find("\0", 1, true) then fail(op, "argument 'path': holds a zero byte, expected the name of a file") end
  return path
end

---------------------------------------------------------------------------------------------------------------------------- pictures

--- Read a PNG or JPEG picture.
-- The format is told by the file's first bytes. Samples are kept as stored (1, 2 and 4 bits widened to 8; no gamma, no colour profile, no
-- EXIF rotation), palettes become RGB, CMYK becomes RGB, alpha is dropped. Damaged or cut files, and more than 2^28 pixels, are refused.
-- @param path the file
-- @param[opt] options `grey = true` reduces colour to one channel: .2989 R + .5870 G + .1140 B
-- @return a picture with the methods width(), height(), channels() (1 or 3), bits() (8 or 16), tensor(device) ([H, W] or [3, H, W], u8, or
-- i32 for 16 bits), bytes() (all samples as a string: rows from the top, channels beside one another, 16 bit in host order), pointer() (the
-- same as a light userdata, good as long as the picture), free()
function files.read_image(path, options)
  options = arguments.options("read_image", options, { grey = "boolean" })
  return core.read_image(check_path("read_image", path), options.grey)
end

--- Decode a PNG or JPEG picture that is in memory.
-- @param data the file's bytes, a string
-- @param[opt] options `grey` as in read_image; `name` stands for the path in error sentences
-- @return a picture, as read_image
function files.decode_image(data, options)
  options = arguments.options("decode_image", options, { grey = "boolean", name = "string" })
  return core.decode_image(check_string("decode_image", "data", data), options.name or "picture", options.grey)
end

--- Write a PNG picture.
-- @param path the file; an existing one is replaced by one rename
-- @param data a picture; a tensor [H, W], [1, H, W] or [3, H, W], u8 (written with 8 bits) or i32 of 0..65535 (16 bits); or samples, rows
-- from the top, channels beside one another, 16 bit in host order: a string, an FFI pointer or array, or a light userdata
-- @param[opt] options for samples: `width`, `height`; `channels` = 1 (grey) or 3 (RGB), `bits` = 8 or 16
function files.write_png(path, data, options)
  check_path("write_png", path)
  options = arguments.options("write_png", options, { width = "number", height = "number", channels = "number", bits = "number" })
  local kind = type(data)
  if is_tensor(data) or kind == "userdata" and getmetatable(data) then return core.write_png(path, data) end
  local size = { channels = 1, bits = 8 }
  for _, name in ipairs { "width", "height", "channels", "bits" } do
    size[name] = options[name] or size[name]
    if not size[name] then fail("write_png", "option '%s': is missing, expected the size of the picture", name) end
    if size[name] % 1 ~= 0 or size[name] < 1 or size[name] > 2^31 - 1 then
      fail("write_png", "option '%s': %s, expected a whole number of at least 1", name, size[name])
    end
  end
  if kind == "cdata" then
    data = ffi.string(data, size.width * size.height * size.channels * size.bits / 8)
  elseif kind ~= "string" and kind ~= "userdata" then
    fail("write_png", "argument 'data': %s, expected a picture, a tensor, a string or a pointer", arguments.describe(data))
  end
  return core.write_png(path, data, size.width, size.height, size.channels, size.bits)
end

------------------------------------------------------------------------------------------------------------------------------ tables

local Table = {}
Table.__index = Table

--- Number of good rows.
function Table:rows() return self.handle:rows() end

--- Names of the columns: those asked for (under the names of the caller) or all, sorted as in the file.
function Table:columns()
  local names = {}
  for i, name in ipairs(self.names) do names[i] = name end
  return names
end

--- Number of columns in the file that were not asked for.
function Table:ignored() return self.handle:ignored() end

--- Is there a column of that name?
function Table:has(name) return self.position[name] ~= nil end

--- A cell, a string.
-- @param row good rows from 1
-- @param name of the column
function Table:get(row, name)
  local column = self.position[name]
  if not column then
    fail("csv", "'%s': no column '%s' was read%s", self.handle:path(), tostring(name), hint(name, self.names))
  end
  return self.handle:cell(row, column)
end

--- The number of a good row as a spreadsheet shows it: the header is row 1.
function Table:row_number(row) return self.handle:row_number(row) end

--- The rows that were left out.
-- @return a list of {row = number in the file, reason = sentence}
function Table:errors()
  local list = {}
  for i = 1, self.handle:error_count() do
    local row, reason = self.handle:error(i)
    list[i] = { row = row, reason = reason }
  end
  return list
end

--- Give the memory back now, instead of at a collection.
function Table:free() self.handle:free() end

-- {image = "Path"} or {"image", "report"} as sorted lists: the caller's names, the file's names.
local function column_list(op, option, map, into, required)
  local aliases = {}
  for alias, name in pairs(map or {}) do
    if type(name) ~= "string" then fail(op, "option '%s': a column's name is a %s, expected a string", option, type(name)) end
    aliases[#aliases + 1] = { type(alias) == "number" and name or alias, name }
  end
  table.sort(aliases, function(a, b) return a[1] < b[1] end)
  for _, pair in ipairs(aliases) do
    local n = #into.names + 1
    into.aliases[n], into.names[n], into.required[n] = pair[1], pair[2], required
  end
end

--- Read a CSV table: UTF-8, RFC 4180, comma, header line.
-- Its text stays in C memory, Lua strings are made cell by cell. Wrong rows (number of fields, quotes, UTF-8) are left out and listed by
-- errors(); what makes the whole file useless raises.
-- @param path the file
-- @param[opt] options `columns` and `optional`: which columns to keep, as a list of names or as {name to use = name in the file}; a missing
-- one of `columns` raises, one of `optional` is absent; without `columns`, all are kept. `strict = true`: a wrong row raises. `text`: a
-- string to read instead of the file, which `path` then only names
-- @return a table object: rows(), columns(), ignored(), has(name), get(row, name), row_number(row), errors(), free()
function files.read_csv(path, options)
  check_path("read_csv", path)
  options = arguments.options("read_csv", options, { columns = "table", optional = "table", strict = "boolean", text = "string" })
  local wanted
  if options.columns then
    wanted = { aliases = {}, names = {}, required = {} }
    column_list("read_csv", "columns", options.columns, wanted, true)
    column_list("read_csv", "optional", options.optional, wanted, false)
  end
  local handle = core.read_csv(path, options.text, wanted and wanted.names, wanted and wanted.required)
  local self = setmetatable({ handle = handle, names = {}, position = {} }, Table)
  if wanted then
    for i, alias in ipairs(wanted.aliases) do
      local column = handle:find(wanted.names[i])
      if column and not self.position[alias] then
        self.names[#self.names + 1] = alias
        self.position[alias] = column
      end
    end
    table.sort(self.names, function(a, b)
      if self.position[a] ~= self.position[b] then return self.position[a] < self.position[b] end
      return a < b
    end)
  else
    for i, name in ipairs(handle:columns()) do
      self.names[i] = name
      self.position[name] = self.position[name] or i
    end
  end
  if options.strict and handle:error_count() > 0 then
    local count, _, reason = handle:error_count(), handle:error(1)
    handle:free()
    fail("read_csv", "'%s' %s%s", path, reason, count > 1 and (" (and %d more)"):format(count - 1) or "")
  end
  return self
end

-- A cell as text: whole numbers in full, others with 9 digits, nil as nothing; quoted where it must be.
local function cell_text(value)
  local kind = type(value)
  if value == nil then return "" end
  if kind == "number" then
    if value % 1 == 0 and math.abs(value) < 2^53 then return ("%d"):format(value) end
    return value ~= value and "nan" or ("%.9g"):format(value)
  elseif kind == "boolean" then
    return tostring(value)
  elseif kind ~= "string" then
    fail("write_csv", "a cell is a %s, expected a string, number, boolean or nil", kind)
  end
  if value:find('[",\r\n]') then return '"' .. value:gsub('"', '""') .. '"' end
  return value
end

--- One line of CSV, with its line end.
-- @param values list of strings, numbers (9 digits), booleans, nil (an empty cell)
-- @param[opt] count how many there are, where the list holds nil
function files.csv_line(values, count)
  local cells = {}
  for i = 1, count or #values do cells[i] = cell_text(values[i]) end
  if #cells == 1 and cells[1] == "" then cells[1] = '""' end   -- an empty line would be no row
  return table.concat(cells, ",") .. "\n"
end

-- A row given as a list, or by the names of its columns.
local function row_line(op, names, row)
  if type(row) ~= "table" then fail(op, "a row is a %s, expected a table", type(row)) end
  local values, count = {}, #names
  local known = {}
  for i, name in ipairs(names) do
    known[name] = true
    values[i] = row[name]
  end
  for key in pairs(row) do
    if type(key) == "number" then
      if key % 1 ~= 0 or key < 1 or key > count then fail(op, "a row has a value at position %s, the header has %d columns", key, count) end
      values[key] = row[key]
    elseif not known[key] then
      fail(op, "a row has a value for '%s', the header has no such column%s", tostring(key), hint(key, names))
    end
  end
  return files.csv_line(values, count)
end

--- Write a CSV table in one go.
-- @param path the file; an existing one is replaced by one rename
-- @param names list of column names
-- @param rows a list of rows, or a function that gives the next row at each call; a row is a list of values or {column = value}
-- @return the number of rows written
function files.write_csv(path, names, rows)
  check_path("write_csv", path)
  arguments.list("write_csv", "names", names, "string", "a list of column names")
  local next_row = rows
  if type(rows) == "table" then
    local i = 0
    next_row = function()
      i = i + 1
      return rows[i]
    end
  elseif type(rows) ~= "function" then
    fail("write_csv", "argument 'rows': a %s, expected a list or a function", type(rows))
  end
  local output = core.output(path)
  local count = 0
  local ok, problem = pcall(function()
    output:write(files.csv_line(names))
    for row in next_row do
      output:write(row_line("write_csv", names, row))
      count = count + 1
    end
  end)
  if not ok then
    output:abandon()
    error(problem, 0)
  end
  output:commit()
  return count
end

local Appender = {}
Appender.__index = Appender

--- Append a row and hand it to the system, so that it is there after a kill.
-- @param row a list of values or {column = value}
function Appender:row(row)
  if not self.file then fail("append_csv", "'%s': is closed already", self.path) end
  local ok, problem = self.file:write(row_line("append_csv", self.names, row))
  if ok then ok, problem = self.file:flush() end
  if not ok then fail("append_csv", "'%s': cannot be written (%s)", self.path, problem) end
end

--- Close the file; harmless when it is closed.
function Appender:close()
  if self.file then self.file:close() end
  self.file = nil
end

--- Append to a CSV table row by row, for logs that grow. A new or empty file gets the header; an existing one must begin with it.
-- @param path the file
-- @param names list of column names
-- @return an object with the methods row(row) and close()
function files.append_csv(path, names)
  check_path("append_csv", path)
  arguments.list("append_csv", "names", names, "string", "a list of column names")
  local header = files.csv_line(names)
  local file = io.open(path, "rb")
  local first = file and file:read("*l")
  if file then file:close() end
  if first and (first:gsub("\r$", "")) .. "\n" ~= header then
    fail("append_csv", "'%s': its header is '%s', expected '%s'", path, first, header:sub(1, -2))
  end
  local problem
  file, problem = io.open(path, "ab")
  if not file then fail("append_csv", "%s", problem) end
  if not first then file:write(header) end
  return setmetatable({ file = file, path = path, names = names }, Appender)
end

------------------------------------------------------------------------------------------------------------------------- safetensors

local Safetensors = {}
Safetensors.__index = Safetensors

--- Names of all tensors, in the order of their data.
function Safetensors:names() return self.handle:names() end

--- The map of strings in the header.
function Safetensors:metadata() return self.handle:metadata() end

--- What is known about a tensor.
-- @param name of the tensor
-- @return {dtype = "F32", shape = {..}, bytes = n}, or nil if there is no such tensor
function Safetensors:info(name)
  local dtype, shape, bytes = self.handle:entry(name)
  return dtype and { dtype = dtype, shape = shape, bytes = bytes }
end

local function check_name(self, name)
  check_string("safetensors", "name", name)
  local dtype, shape, bytes, pointer = self.handle:entry(name)
  if not dtype then fail("safetensors", "'%s': has no tensor '%s'%s", self.handle:path(), name, hint(name, self.handle:names())) end
  return dtype, shape, bytes, pointer
end

--- A tensor's bytes as a string: row-major, little-endian.
function Safetensors:data(name)
  check_name(self, name)
  return self.handle:data(name)
end

--- A light userdata on a tensor's bytes inside the mapped file (perhaps not aligned), good until close(); and their number.
function Safetensors:pointer(name)
  local _, _, bytes, pointer = check_name(self, name)
  return pointer, bytes
end

--- A tensor of the file, copied from the map straight to its device.
-- @param name of the tensor
-- @param[opt] device nil = the default device
-- @return a tensor in the file's dtype; I8, I16 and U16 come as i32, U32 as i64
function Safetensors:tensor(name, device)
  check_name(self, name)
  return self.handle:tensor(name, device)
end

--- Read a tensor of the file into one that is there (a parameter), of the same shape; another dtype is converted.
-- @param name of the tensor
-- @param t the tensor to be overwritten
function Safetensors:read(name, t)
  check_name(self, name)
  self.handle:read(name, t)
end

--- Unmap the file now, instead of at a collection.
function Safetensors:close() self.handle:close() end

--- Open a safetensors file. Its header is checked in full; data are mapped, not read.
-- @param path the file
-- @return an object: names(), info(name), metadata(), tensor(name, device), read(name, tensor), data(name), pointer(name), close()
function files.safetensors_open(path)
  return setmetatable({ handle = core.safetensors_open(check_path("safetensors_open", path)) }, Safetensors)
end

--- Write a safetensors file: to a temporary name, synced to the disk, renamed, the folder synced.
-- The same contents give the same bytes.
-- @param path the file
-- @param tensors {name = tensor}; a tensor may also be {dtype = "F32", shape = {..}, data = string}
-- @param[opt] metadata {key = string}
function files.safetensors_save(path, tensors, metadata)
  check_path("safetensors_save", path)
  if type(tensors) ~= "table" then fail("safetensors_save", "argument 'tensors': a %s was given, expected {name = tensor}", type(tensors)) end
  local list, pairs_list = {}, {}
  for name, t in pairs(tensors) do
    if type(name) ~= "string" then fail("safetensors_save", "argument 'tensors': a name is a %s, expected a string", type(name)) end
    if is_tensor(t) then
      list[#list + 1] = { name = name, tensor = t }
    elseif type(t) == "table" then
      list[#list + 1] = { name = name, dtype = t.dtype, shape = t.shape, data = t.data }
    else
      fail("safetensors_save", "tensor '%s': a %s was given, expected a tensor", name, type(t))
    end
  end
  for key, value in pairs(metadata or {}) do
    if type(key) ~= "string" or type(value) ~= "string" then
      fail("safetensors_save", "metadata '%s': a %s, expected strings as keys and values", tostring(key), type(value))
    end
    pairs_list[#pairs_list + 1] = key
    pairs_list[#pairs_list + 1] = value
  end
  return core.safetensors_save(path, list, pairs_list)
end

------------------------------------------------------------------------------------------------------------------------------ output

--- Write a file in one go, by a temporary name and a rename.
-- @param path the file
-- @param text its new contents, a string
-- @param[opt] options `durable = true` also syncs file and folder to the disk
function files.write_file(path, text, options)
  options = arguments.options("write_file", options, { durable = "boolean" })
  check_string("write_file", "text", text)
  core.output(check_path("write_file", path)):write(text):commit(options.durable)
end

--- Sync a folder to the disk: that a file was renamed into it survives a power cut.
-- @param path the folder; one that cannot be opened is left as it is
function files.sync_folder(path)
  local handle = fcntl.open(check_path("sync_folder", path), fcntl.O_RDONLY)
  if handle then
    unistd.fsync(handle)
    unistd.close(handle)
  end
end

--- Write a file piece by piece.
-- @param path the file
-- @return an object: write(string, ...) (returns itself), commit(durable) gives the file its name, abandon() removes what was written
function files.output(path)
  return core.output(check_path("output", path))
end

return files
