--- Data sets: columns of text in C memory, pictures that are decoded or drawn once. Opened by `unic.data.open`.
-- @module unic.data.set
local ffi = require "ffi"
local lfs = require "lfs"
local arguments = require "unic.arguments"
local core = require "unic.core"
local files = require "unic.files"
local steps = require "unic.data.steps"
local tensor = require "unic.tensor"

local is_tensor = core.tensor.is_tensor

local set = {}

local COLUMNS = { "image", "report", "language", "patient", "labels", "sentences", "split" }   -- in C's order
local GENERATORS = { phantom = "unic.datasets.phantom" }
local DEFAULT_SIZE, DEFAULT_CACHE_MB, DEFAULT_SHARE = 256, 512, 0.1
-- What a generator takes itself.
local GENERATOR_OPTIONS = { split = true, studies = true, size = true, seed = true, languages = true }

local OPTIONS = {
  split = "string", columns = "table", strict = "boolean", size = "integer", cache_mb = "number", crop = "boolean", stretch = "boolean",
  val = "number", test = "number", min_words = "integer", language = "string", root = "string", n = "integer", channels = "integer",
  studies = "integer", seed = "integer", languages = "string", images = "boolean",
}
-- Which options say something for which kind of data.
local COMMON = { size = true, cache_mb = true }
local ALLOWED = {
  generator = { split = true, studies = true, seed = true, languages = true, images = true },
  csv = { images = true, split = true, columns = true, strict = true, crop = true, stretch = true, val = true, test = true, min_words = true, language = true },
  rows = { images = true, split = true, strict = true, crop = true, stretch = true, val = true, test = true, min_words = true, language = true, root = true },
  calls = { n = true, channels = true, crop = true, stretch = true },
}
ALLOWED.lines = { images = true, split = true, strict = true, val = true, test = true, min_words = true, language = true }
local KIND_NAMES = { lines = "a text file", generator = "a generator", csv = "a CSV file", rows = "a table of rows", calls = "a function" }

local Set = {}
Set.__index = Set
Set.__name = "unic.data.set"

function Set:__tostring()
  local left_out = self.handle:fault_count()
  return ("data set: %d items from %s%s, %s%s"):format(self.n, self.source_name, self.split and (", split " .. self.split) or "",
    self.texts_only and "texts alone" or ("%dx%d"):format(self.size, self.size), left_out > 0 and (", %d left out"):format(left_out) or "")
end

-- ---------------------------------------------------------------- looking

--- The report of item i.
-- @param i from 1
-- @return a string; "" where there is none
function Set:report(i)
  if self.record then return self.record(i).report or "" end
  return self.handle:report(i)
end

--- A random part of the report of item i, as training shows it: where it is known which sentences state findings (phantom), all of these
-- and at most two others; else one sentence up to all of them. In random order.
-- @param i from 1
-- @param epoch a whole number; another epoch takes another part
-- @return a string
function Set:sample_text(i, epoch)
  arguments.check("sample_text", "epoch", epoch, "integer")
  if epoch < 0 then arguments.fail("sample_text", "argument 'epoch': %d, expected 0 or more", epoch) end
  if self.record then arguments.fail("sample_text", "a data set that is a function has no sentences to choose from; give a function as the option 'text'") end
  return self.handle:sample_text(i, epoch)
end

--- The language of item i.
-- @param i from 1
-- @return two letters, and its number in `languages` (from 0, as in batch.language); nil where it is unknown
function Set:language(i)
  if not self.record then return self.handle:language(i) end
  local code = self.record(i).language
  for k, name in ipairs(self.languages) do
    if name == code then return code, k - 1 end
  end
  return code
end

--- The patient of item i.
-- @param i from 1
-- @return a string; "" where there is none
function Set:patient(i)
  if self.record then return tostring(self.record(i).patient or "") end
  return self.handle:patient(i)
end

local function split_labels(text)
  local list = {}
  for name in text:gmatch "[^|]+" do
    name = name:match "^%s*(.-)%s*$"
    if name ~= "" then list[#list + 1] = name end
  end
  return list
end

--- The findings of item i.
-- @param i from 1
-- @return a list of names
function Set:labels(i)
  if self.record then
    local labels = self.record(i).labels
    return type(labels) == "table" and labels or split_labels(labels or "")
  end
  return split_labels(self.handle:labels(i))
end

--- Where the picture of item i comes from, as it is written in the table.
-- @param i from 1
function Set:image_path(i) return self.handle:image(i) end

--- The row of item i in its file; the header is row 1.
-- @param i from 1
function Set:row_number(i) return self.handle:row_number(i) end

--- The picture of item i as it is kept.
-- @param i from 1
-- @return a u8 tensor [size, size] (a function's picture: f32 [C, size, size]); or nil and the reason when it cannot be used
function Set:image(i)
  if self.texts_only then arguments.fail("image", "the data set was opened without pictures (images = false)") end
  if self.record then return self:float_picture(i) end
  local before = self.handle:fault_count()
  local picture = self.handle:picture(i, self.setup)
  if picture then return picture end
  for k = before + 1, self.handle:fault_count() do
    local row, _, reason = self.handle:fault(k)
    if row == self:row_number(i) then return nil, reason end
  end
  for _, fault in ipairs(self:errors()) do
    if fault.row == self:row_number(i) then return nil, fault.reason end
  end
  return nil, "it cannot be read"
end

--- What was left out so far: rows that are wrong, and pictures that could not be read (these are found when they are met).
-- @return a list of {row =, path =, reason =}
function Set:errors()
  local list = {}
  for k = 1, self.handle:fault_count() do
    local row, path, reason = self.handle:fault(k)
    list[k] = { row = row, path = path, reason = reason }
  end
  table.sort(list, function(a, b)
    if a.row ~= b.row then return a.row < b.row end
    return a.reason < b.reason
  end)
  return list
end

--- Write errors() as a CSV table: row,path,reason.
-- @param path the file
-- @return the number of rows
function Set:write_skipped(path)
  return files.write_csv(path, { "row", "path", "reason" }, self:errors())
end

--- A name for the contents, for manifests: equal for equal rows and picture sizes, wherever the files lie. Pictures are not read for it.
-- @return 16 hexadecimal digits
function Set:hash() return self.handle:hash() end

--- Read every picture now, instead of when it is met: fills the cache and finds those that cannot be used (with `strict`: the first is an
-- error).
-- @param[opt] workers threads that do it (2)
-- @return how many items have a good picture
function Set:check(workers)
  local good = 0
  local options = { batch = 64, shuffle = false, drop_last = false, workers = workers, views = { image = { { "center_crop", 1 } } } }
  for batch in require("unic.data").batches(self, options) do good = good + batch.n end
  return good
end

--- All findings that occur, sorted by name.
-- @return a list of names
function Set:label_names()
  if not self.known_labels then
    local seen, names = {}, {}
    for i = 1, self.n do
      for _, name in ipairs(self:labels(i)) do
        if not seen[name] then
          seen[name] = true
          names[#names + 1] = name
        end
      end
    end
    table.sort(names)
    self.known_labels = names
  end
  local copy = {}
  for i, name in ipairs(self.known_labels) do copy[i] = name end
  return copy
end

--- Findings as numbers.
-- @param names the columns: a list of findings (default: label_names())
-- @param items which rows: a list of items, from 1 (default: all)
-- @return an f32 tensor [items, findings] of zeros and ones
function Set:label_tensor(names, items)
  names = names or self:label_names()
  local place = {}
  for k, name in ipairs(names) do place[name] = k - 1 end
  local count, width = items and #items or self.n, #names
  local t = core.tensor.full({ count, width }, 0, "f32", "cpu")
  local p = ffi.cast("float *", t:data_ptr())
  for row = 1, count do
    for _, name in ipairs(self:labels(items and items[row] or row)) do
      local k = place[name]
      if k then p[(row - 1) * width + k] = 1 end
    end
  end
  t:touched()
  return t
end

-- ---------------------------------------------------------------- opening

--- What a worker's Lua state is made from.
-- @param plan plain data: {source = {module =, args =}, steps = {{module =, name =, args =}, ...}}
-- @return a table for core.data
function set.setup(plan)
  return {
    script = assert(package.searchpath("unic.data.worker", package.path)), path = package.path, cpath = package.cpath, tree = require("unic").root,
    plan = "return " .. steps.literal(plan, "batches"),
  }
end

local function fail(sentence, ...) arguments.fail("open", sentence, ...) end

local function check_range(name, value, low, high)
  if value ~= nil and not (value >= low and value <= high) then fail("option '%s': %.14g, expected %g to %g", name, value, low, high) end
end

-- Options that mean nothing for this kind of data are an error, not silence.
local function check_options(kind, options)
  options = arguments.options("open", options, OPTIONS)
  for name in pairs(options) do
    if not COMMON[name] and not ALLOWED[kind][name] then fail("option '%s' means nothing for %s", name, KIND_NAMES[kind]) end
  end
  check_range("size", options.size, 1, 16384)
  check_range("cache_mb", options.cache_mb, 0, 2 ^ 30)
  check_range("val", options.val, 0, 1)
  check_range("test", options.test, 0, 1)
  check_range("min_words", options.min_words, 0, 2 ^ 31)
  check_range("studies", options.studies, 1, 2 ^ 31)
  check_range("n", options.n, 1, 2 ^ 31)
  if options.language and not options.language:find "^%a%a$" then fail("option 'language': '%s', expected two letters such as en or es", options.language) end
  if options.channels and options.channels ~= 1 and options.channels ~= 3 then fail("option 'channels': %d, expected 1 or 3", options.channels) end
  if (options.val or 0) + (options.test or 0) > 1 then fail("options 'val' and 'test': together %.14g, expected at most 1", options.val + options.test) end
  return options
end

local function make(kind, options, more)
  local self = setmetatable({
    kind = kind, size = options.size or DEFAULT_SIZE, channels = options.channels or 1, split = options.split, source_name = more.source_name,
  }, Set)
  self.texts_only = options.images == false
  self.handle = core.data.dataset {
    source = self.texts_only and "none" or more.source, root = more.root or "", size = self.size, crop = options.crop ~= false, stretch = options.stretch ~= false,
    channels = self.channels, cache_bytes = (options.cache_mb or DEFAULT_CACHE_MB) * 2 ^ 20, min_words = options.min_words or 0,
    report_required = more.report_required, strict = options.strict, language = options.language, split = more.filter and options.split or nil,
    has_split_column = more.has_split_column,
    validation = options.val or DEFAULT_SHARE, test = options.test or (options.val and 0 or DEFAULT_SHARE),
  }
  return self
end

local function finish(self)
  self.n = self.handle:count()
  if self.n == 0 then
    local faults, others = self:errors(), self.handle:other_splits()
    if #faults > 0 then
      local first = faults[1]
      fail("'%s': no row can be used; the first of %d that are wrong is row %d: %s%s", self.source_name, #faults, first.row,
        first.path ~= "" and ("'" .. first.path .. "': ") or "", first.reason)
    end
    if others > 0 then fail("'%s': none of its %d rows belongs to split '%s'", self.source_name, others, self.split) end
    fail("'%s': has no rows", self.source_name)
  end
  self.handle:finish()
  self.languages = self.handle:languages()
  return self
end

-- Drawn by a module's functions: open{...} gives an object with n, size, image(i, pointer), sentences(i) or report(i), language(i), patient(i),
-- labels(i), args().
local function open_generator(name, module, options)
  options = check_options("generator", options)
  local own = {}
  for key in pairs(GENERATOR_OPTIONS) do own[key] = options[key] end
  local found, generator = pcall(require, module)
  if not found then
    -- What goes wrong inside of a module that is there is its own; that there is none needs no list of places.
    if tostring(generator):find("module '" .. module .. "' not found", 1, true) then fail("'%s': there is no such module", module) end
    error(generator, 0)
  end
  if type(generator) ~= "table" or type(generator.open) ~= "function" then fail("'%s': the module has no function open(options)", module) end
  local source = generator.open(own)
  local filled = {}
  for key, value in pairs(options) do filled[key] = value end
  filled.size = source.size
  local self = make("generator", filled, { source = "drawn", source_name = name })
  self.source = source
  self.split = self.split or source.split
  local args = source:args()
  args.studies = source.n
  self.worker_source = { module = module, args = args }
  self.setup = set.setup { source = self.worker_source }
  local add, handle = self.handle.add, self.handle
  for i = 1, source.n do
    local report, marks
    if source.sentences then
      local texts, lines = {}, {}
      for k, sentence in ipairs(source:sentences(i)) do
        texts[k] = sentence.text
        lines[k] = (sentence.positive and "+" or "-") .. sentence.text
      end
      report, marks = table.concat(texts, " "), table.concat(lines, "\n")
    else
      report = source:report(i)
    end
    add(handle, nil, report, source:language(i), source:patient(i), table.concat(source:labels(i), "|"), marks, nil, i)
  end
  handle:identify(steps.literal(self.worker_source, "open"))
  return finish(self)
end

local function open_csv(path, options)
  options = check_options("csv", options)
  local wanted = { image = "image", report = "report", language = "language" }
  local optional = { patient = "patient", labels = "labels", split = "split" }
  local known = {}
  for name in pairs(wanted) do known[#known + 1] = name end
  for name in pairs(optional) do known[#known + 1] = name end
  if options.language then wanted.language, optional.language = nil, "language" end
  if options.images == false then wanted.image, optional.image = nil, "image" end
  for name, column in pairs(options.columns or {}) do
    if type(column) ~= "string" then fail("option 'columns': the column of '%s' is a %s, expected its name in the file", tostring(name), type(column)) end
    if wanted[name] then wanted[name] = column
    elseif optional[name] then
      wanted[name], optional[name] = column, nil   -- one that is named must be there
    else
      local near = core.nearest(tostring(name), known)
      fail("option 'columns': there is no '%s'%s", tostring(name), near and (", did you mean '%s'?"):format(near) or "; there are image, report, language, patient, labels, split")
    end
  end
  local csv = files.read_csv(path, { columns = wanted, optional = optional })
  if options.split and not csv:has "split" and options.split ~= "train" and options.split ~= "val" and options.split ~= "test" then
    fail("'%s': has no column 'split'; by patient there are train, val and test, not '%s'", path, options.split)
  end
  local positions = {}
  for c, name in ipairs(COLUMNS) do positions[c] = csv.position[name] or false end
  local self = make("csv", options, {
    source = "files", source_name = path, root = path:match("^(.*/)") or "", filter = true, has_split_column = csv:has "split", report_required = true,
  })
  self.ignored = csv:ignored()
  self.handle:add_table(csv.handle, positions)
  return finish(self)
end

-- A report a line; empty lines are none.
local function open_lines(path, options)
  options = check_options("lines", options)
  local file, why = io.open(path, "rb")
  if not file then fail("'%s': cannot be read (%s)", path, (tostring(why):gsub("^.*: ", ""))) end
  local self = make("lines", options, { source = "none", source_name = path, filter = true })
  local number = 0
  for line in file:lines() do
    number = number + 1
    line = line:match "^%s*(.-)%s*$"
    if line:find("%z") or not core.files.is_utf8(line) then
      if options.strict then fail("'%s' row %d: is not UTF-8 text", path, number) end
      self.handle:note(number, "", "is not UTF-8 text")
    elseif line ~= "" then
      self.handle:add(nil, line, nil, nil, nil, nil, nil, number)
    end
  end
  file:close()
  return finish(self)
end

local ROW_KEYS = { image = true, report = true, language = true, patient = true, labels = true, split = true }

local function text_of(row, i, name)
  local value = row[name]
  if value == nil then return nil end
  if name == "labels" and type(value) == "table" then return table.concat(value, "|") end
  if type(value) == "number" then return ("%.14g"):format(value) end
  if type(value) ~= "string" then fail("row %d: '%s' is a %s, expected a string", i, name, type(value)) end
  return value
end

local function open_rows(rows, options)
  options = check_options("rows", options)
  local has_split, pictures = false, {}
  for i, row in ipairs(rows) do
    if type(row) ~= "table" or is_tensor(row) then fail("row %d: a %s was given, expected a table such as {image = \"a.png\", report = \"...\"}", i, type(row)) end
    tensor.options("open", row, ROW_KEYS)
    has_split = has_split or row.split ~= nil
  end
  local root = options.root or ""
  if root ~= "" and root:sub(-1) ~= "/" then root = root .. "/" end
  local self = make("rows", options, { source = "files", source_name = "the table", root = root, filter = true, has_split_column = has_split })
  for i, row in ipairs(rows) do
    local cells = {}
    for c, name in ipairs(COLUMNS) do
      if not (name == "image" and is_tensor(row.image)) then cells[c] = text_of(row, i, name) end
    end
    if row.image == nil and not self.texts_only then cells[1] = "" end
    local added = self.handle:add(cells[1], cells[2], cells[3], cells[4], cells[5], nil, cells[7], i)
    if added and is_tensor(row.image) and not self.texts_only then
      pictures[self.handle:count()] = row.image
    end
  end
  finish(self)
  for i = 1, self.n do
    if pictures[i] then self.handle:put(i, pictures[i]) end
  end
  return self
end

-- A record's picture as f32 [channels, size, size].
function Set:float_picture(i)
  local image = self.record(i).image
  if type(image) == "string" then image = files.read_image(image, { grey = true }):tensor "cpu" end
  if not is_tensor(image) then fail("item %d: its image is a %s, expected a path or a tensor", i, type(image)) end
  local options, size = self.options, self.size
  if image.dtype == "u8" or image.dtype == "i32" then
    image = core.data.prepare(image, size, options.crop ~= false, options.stretch ~= false)
    image = core.data.apply({ name = "image" }, image:reshape { 1, size, size }, 0, 0, 0)
  elseif image.dtype ~= "f32" then
    fail("item %d: its image is %s, expected u8, i32 (16 bits) or f32", i, image.dtype)
  end
  local shape = image.shape
  if #shape == 2 then shape = { 1, shape[1], shape[2] } end
  if #shape ~= 3 or shape[1] ~= self.channels or shape[2] ~= size or shape[3] ~= size then
    fail("item %d: its image is [%s], expected [%d, %d, %d] (options 'channels' and 'size')", i, table.concat(image.shape, ", "), self.channels, size, size)
  end
  return image:detach():to("cpu"):contiguous():reshape(shape)
end

local function open_calls(get, options)
  options = check_options("calls", options)
  if not options.n then fail "option 'n': is missing, expected the number of items of the function" end
  if not options.size then fail "option 'size': is missing, expected the width and height of the pictures" end
  local self = make("calls", options, { source = "calls", source_name = "a function" })
  self.options = options
  -- A record serves all that is asked about an item before the next batch begins.
  local records = {}
  function self.record(i)
    if type(i) ~= "number" or i % 1 ~= 0 or i < 1 or i > options.n then arguments.fail("get", "argument 'i': %s, expected an item from 1 to %d", tostring(i), options.n) end
    local record = records[i]
    if record == nil then
      record = get(i)
      if is_tensor(record) then record = { image = record } end
      if type(record) ~= "table" then fail("item %d: the function gave a %s, expected a tensor or a table such as {image =, report =}", i, type(record)) end
      records[i] = record
    end
    return record
  end
  function self.forget() records = {} end
  for i = 1, options.n do self.handle:add(nil, nil, nil, nil, nil, nil, nil, i) end
  return finish(self)
end

--- Open a data set. Documented as `unic.data.open`.
function set.open(what, options)
  if type(what) == "function" then return open_calls(what, options) end
  if type(what) == "table" and not is_tensor(what) then
    if type(what.module) == "string" then return open_generator(what.module, what.module, options) end
    return open_rows(what, options)
  end
  if type(what) ~= "string" then
    fail("argument 'what': %s, expected \"phantom\", a CSV file, a folder with data.csv, a table of rows or a function", arguments.describe(what))
  end
  if GENERATORS[what] then return open_generator(what, GENERATORS[what], options) end
  local mode = lfs.attributes(what, "mode")
  if mode == "directory" then
    local path = what:gsub("/+$", "") .. "/data.csv"
    if not lfs.attributes(path, "mode") then fail("'%s': is a folder without data.csv", what) end
    return open_csv(path, options)
  elseif not mode then
    local near = core.nearest(what, { "phantom" })
    fail("'%s': there is no such file or folder%s", what, near and (", did you mean '%s'?"):format(near) or ', expected a CSV file, a folder with data.csv, or "phantom"')
  end
  if what:lower():find "%.txt$" and type(options) == "table" and options.images == false then return open_lines(what, options) end
  return open_csv(what, options)
end

return set
