--- Data: sets of pictures and reports, and batches of them, made ahead of their use by worker threads.
--
--    local data = require "unic.data"
--    local train = data.open("phantom", {split = "train"})       -- or a CSV file, a folder, a table of rows, a function
--    local views = {view1 = {{"random_crop", 56}, {"normalize", 0.5, 0.5}}}
--    for batch in data.batches(train, {batch = 64, views = views, tokenizer = tok}) do
--      model(batch.view1, batch.tokens, batch.mask)
--    end
--
-- What a batch holds follows from the seed, the epoch and the items: another number of workers or a resumed run gives the same bytes.
-- @module unic.data
local arguments = require "unic.arguments"
local core = require "unic.core"
local sets = require "unic.data.set"
local steps = require "unic.data.steps"
local unic = require "unic"

local data = {}

--- Open a data set.
--
-- A CSV file has a header with image, report, language (and patient, split, labels: findings separated by |); paths are relative to it; a
-- folder means its data.csv. Rows that are wrong and pictures that cannot be read are left out and listed by `ds:errors()`; with `strict` the
-- first is an error. Pictures are made square bytes once: cropped to what is not black, stretched to 0..255, resized (bilinear), and kept in
-- memory as far as cache_mb goes.
-- @param what "phantom" (the built-in set), the path of a CSV file or of a folder, a list of rows {image = path or tensor, report =, language =,
-- patient =, labels =, split =}, a function that gives such a row (or a tensor) for an item from 1 on, or {module = name} of a generator
-- @param[opt] options `split` ("train", "val", "test": by the column of that name, else by patient with the shares `val` and `test`, default 0.1
-- each), `size` in pixels (256; phantom 64), `strict`, `columns` ({image = "Path"}: names in the file), `language` (of rows without one),
-- `min_words` of a report (0), `crop` and `stretch` (true), `cache_mb` (512), `images` (true; false: texts alone, pictures are not looked for, and a
-- CSV file needs no such column; a file that ends in .txt then has a report a line, all in `language`). phantom: `studies`, `seed`, `languages`. Rows: `root`, the folder
-- that paths start from. Functions: `n` items, `size`, `channels` (1 or 3)
-- @return a data set: n, size, languages, report(i), language(i), patient(i), labels(i), image(i), row_number(i), sample_text(i, epoch), errors(),
-- hash(), check(), label_names(), label_tensor(), write_skipped(path)
function data.open(what, options)
  return sets.open(what, options)
end

local OPTIONS = {
  batch = "integer", views = "table", shuffle = "boolean", seed = "integer", epoch = "integer", epochs = "number", drop_last = "boolean",
  workers = "integer", prefetch = "integer", tokenizer = "table", max_length = "integer", multiple = "integer", device = "string",
  bucket = "integer", channels = "integer", labels = "table", rank = "integer", ranks = "integer", mlm = "table", text = true, start = true,
}
-- Masked language modelling as BERT does it, at most 77 tokens of a text as Med-UniC's code has it.
local MLM = { share = 0.15, most = 77, mask = 0.8, random = 0.1 }
-- Fields of a batch, which no view may be called.
local TAKEN = { n = 1, epoch = 1, position = 1, index = 1, language = 1, tokens = 1, mask = 1, labels = 1, places = 1, targets = 1, reports = 1,
  texts = 1 }

local function fail(sentence, ...) arguments.fail("batches", sentence, ...) end

local function check_options(options)
  if type(options) == "table" then
    for _, name in ipairs { "text", "start" } do
      local kind = type(options[name])
      if name == "text" and options.text ~= nil and kind ~= "string" and kind ~= "function" then
        fail("option 'text': a %s, expected \"report\", \"sample\" or a function", kind)
      elseif name == "start" and options.start ~= nil and kind ~= "number" and kind ~= "table" then
        fail("option 'start': a %s, expected what state() gave, or a number of batches", kind)
      end
    end
  end
  local plain, text, start = {}, type(options) == "table" and options.text, type(options) == "table" and options.start
  if type(options) == "table" then
    for key, value in pairs(options) do
      if key ~= "text" and key ~= "start" then plain[key] = value end
    end
  else
    plain = options
  end
  plain = arguments.options("batches", plain, OPTIONS)
  local function range(name, low, high)
    local value = plain[name]
    if value and not (value >= low and value <= high) then fail("option '%s': %.14g, expected %.14g to %.14g", name, value, low, high) end
  end
  range("batch", 1, 2 ^ 24)
  range("epoch", 0, 2 ^ 31)
  range("epochs", 1, math.huge)
  range("workers", 0, 256)
  range("prefetch", 1, 4096)
  range("max_length", 2, 2 ^ 20)
  range("multiple", 1, 65536)
  range("bucket", 1, 65536)
  range("ranks", 1, 65536)
  range("rank", 0, (plain.ranks or 1) - 1)
  if plain.channels and plain.channels ~= 1 and plain.channels ~= 3 then fail("option 'channels': %d, expected 1 or 3", plain.channels) end
  if text and type(text) == "string" and text ~= "report" and text ~= "sample" then
    local near = core.nearest(text, { "report", "sample" })
    fail("option 'text': '%s', expected \"report\", \"sample\" or a function%s", text, near and (", did you mean '%s'?"):format(near) or "")
  end
  return plain, text or nil, start or nil
end

-- The option `mlm`, filled; nil where nothing is masked.
local function check_mlm(given, tokenizer, labels)
  if not given then return nil end
  if not tokenizer then fail "option 'mlm': is given without the option 'tokenizer'" end
  if labels then fail "option 'mlm': its labels are what the option 'labels' names, too; expected one of them" end
  local share = { "number", least = 0, most = 1 }
  local filled = {}
  for key, value in pairs(arguments.options("batches", given, { share = share, most = { "integer", least = 1, most = 2 ^ 20 }, mask = share, random = share })) do
    filled[key] = value
  end
  for key, value in pairs(MLM) do filled[key] = filled[key] or value end
  if filled.mask + filled.random > 1 then
    fail("option 'mlm': the shares 'mask' and 'random' are %.14g and %.14g, expected together at most 1", filled.mask, filled.random)
  end
  return filled
end

-- {epoch =, position =} or a number of batches; nil = the beginning.
local function starting_point(start, options)
  local epoch, position = options.epoch or 0, 0
  if type(start) == "table" then
    for key in pairs(start) do
      if key ~= "epoch" and key ~= "position" and key ~= "seed" then fail("option 'start': there is no '%s', expected what state() gave", tostring(key)) end
    end
    epoch, position = start.epoch or epoch, start.position or 0
    local seed = options.seed or 0
    if start.seed and start.seed ~= seed then fail("option 'start': it belongs to seed %s, the option 'seed' is %s", tostring(start.seed), seed) end
  elseif start then
    position = start
  end
  if type(position) ~= "number" or type(epoch) ~= "number" or position % 1 ~= 0 or epoch % 1 ~= 0 or position < 0 or epoch < 0 then
    fail("option 'start': epoch %s, position %s, expected whole numbers from 0 on", tostring(epoch), tostring(position))
  end
  return epoch, position
end

-- ---------------------------------------------------------------- iterators

local Batch = {}

-- Texts are looked up when they are asked for.
function Batch.__index(batch, key)
  if key ~= "reports" and key ~= "texts" then return nil end
  local source = rawget(batch, "source")
  local list = {}
  for row, item in ipairs(batch.index:totable()) do
    list[row] = key == "texts" and source.text(item + 1, batch.epoch) or source.set:report(item + 1)
  end
  rawset(batch, key, list)
  return list
end

local Iterator = {}
Iterator.__index = Iterator
Iterator.__name = "unic.data.batches"

function Iterator:__tostring()
  local at = self:state()
  return ("batches: %d of %d items an epoch, at epoch %d, position %d%s"):format(self.per_epoch, self.batch, at.epoch, at.position,
    self.handle and "" or ", closed")
end

--- The next batch, or nil after the last. Calling the iterator, as `for` does, is the same.
function Iterator:next()
  if not self.handle then return nil end
  local set = self.set
  if set.forget then set.forget() end
  local ok, batch = pcall(self.handle.next, self.handle, self.device)
  if not ok then
    self:close()
    error(batch, 0)
  end
  if not batch then
    self.last = { self.handle:state() }
    self:close()
    return nil
  end
  batch.source = self.source
  if set.record then
    local codes = {}
    for row, item in ipairs(batch.index:totable()) do
      local _, number = set:language(item + 1)
      codes[row] = number or -1
    end
    batch.language = core.tensor.from_table(codes, "i64", self.device)
  end
  if self.labels then
    local items = batch.index:totable()
    for row = 1, #items do items[row] = items[row] + 1 end
    batch.labels = set:label_tensor(self.labels, items):to(self.device or core.device_default())
  end
  return setmetatable(batch, Batch)
end

Iterator.__call = Iterator.next

--- Where it stands, for a checkpoint: `start = it:state()` goes on behind the last batch that was handed out.
-- @return {epoch =, position =, seed =}; position: batches of that epoch that were handed out
function Iterator:state()
  local epoch, position
  if self.handle then epoch, position = self.handle:state()
  else epoch, position = self.last[1], self.last[2] end
  return { epoch = epoch, position = position, seed = self.seed }
end

--- Stop the workers now, instead of when the iterator is collected. Harmless when it is closed.
function Iterator:close()
  local handle = self.handle
  if handle then
    self.last = self.last or { handle:state() }
    self.handle = nil
    handle:close()
  end
end

--- Batches of a data set, for a `for` loop: `for batch in data.batches(ds, {...}) do`.
--
-- A batch has its views (f32 [B, C, H, W]) under their names, `tokens` (i64 [B, L]) and `mask` (bool [B, L]; true for a token) if there is a
-- tokenizer, `language` (i64 [B], places in ds.languages from 0, -1 for unknown), `index` (i64 [B] on the CPU, items from 0), `labels` if asked
-- for, `n`, `epoch`, `position`; and lists made when they are looked at: `reports`, and `texts`, what was tokenised.
--
-- A view is a list of steps: a name, then values in order or by name. `data.steps()` lists them; `{"lua", "module", "function", args}` calls a
-- function of a module, in a Lua state of the worker's own, with {pixels = float pointer, channels =, height =, width =, random = function} and
-- args; it changes the pixels in place.
--
-- With `mlm`, tokens are masked for a language model (`tokens` holds what it sees): `labels` (i64 [B, L]) are the tokens that were there where it is
-- asked, -100 elsewhere; `places` (i64 [M], ascending positions among the B L, from 0) and `targets` (i64 [M]) say the same for heads that are
-- computed at these places alone. Of n tokens ([CLS] and [SEP] count, and are never chosen) `share` are chosen, at least one and at most `most`; of
-- these, the share `mask` becomes [MASK], `random` another token of the vocabulary (none written in brackets), the rest stays. Every epoch chooses
-- anew. A text without any token to choose is left out, and listed by `ds:errors()`.
--
-- A picture that cannot be read: with drop_last (training) the next good item of the data set stands in for it, else its row is left out.
-- @param ds a data set
-- @param options `batch` (32), `views` ({name = {steps}}; default {image = {{"normalize", 0.5, 0.5}}}; {} for texts alone), `channels` (3: grey
-- pictures are repeated), `shuffle` (true), `drop_last` (as shuffle), `seed` (0), `epoch` (0) the first one, `epochs` (1; math.huge for ever),
-- `start` (a state, or batches to leave out), `workers` (2; 0 = on this thread; functions as data sets take 0), `prefetch` batches made ahead
-- (2 + workers), `tokenizer` (of unic.text), `max_length` tokens (256), `multiple` (8) that L is rounded up to, `text` ("report", "sample" =
-- ds:sample_text, or a function of ds, item and epoch), `bucket` (1) = sort by length within so many batches, `labels` (a list of findings),
-- `mlm` ({share = 0.15, most = 77, mask = 0.8, random = 0.1}), `device`, `rank` and `ranks` (this process takes every ranks-th batch, from rank on)
-- @return an iterator with the fields per_epoch, batch, seed and the methods next(), state(), close()
function data.batches(ds, options)
  if type(ds) ~= "table" or not ds.handle or not ds.report then fail("argument 'ds': a %s was given, expected a data set that data.open gave", type(ds)) end
  local text, start
  options, text, start = check_options(options)
  local epoch, position = starting_point(start, options)
  local workers = options.workers or (ds.record and 0 or 2)
  if ds.record and workers > 0 then fail("option 'workers': %d, but the data set is a function, which runs on this thread alone: 0", workers) end
  local shuffle = options.shuffle ~= false
  local drop_last = options.drop_last
  if drop_last == nil then drop_last = shuffle end

  local names, functions, views = {}, {}, {}
  if ds.texts_only and next(options.views or {}) then fail "option 'views': the data set was opened without pictures (images = false), expected none" end
  for name in pairs(options.views or (ds.texts_only and {} or { image = true })) do
    if type(name) ~= "string" then fail("option 'views': a view's name is a %s, expected {name = steps}", type(name)) end
    if TAKEN[name] then fail("option 'views': a view cannot be called '%s', a batch has a field of that name", name) end
    if #name > 63 then fail("option 'views': the name '%s...' is longer than 63 letters", name:sub(1, 20)) end
    names[#names + 1] = name
  end
  table.sort(names)
  for k, name in ipairs(names) do
    views[k] = steps.compile("batches", name, options.views and options.views[name] or { { "normalize", 0.5, 0.5 } }, functions)
  end

  local tokenizer = options.tokenizer
  if tokenizer and type(tokenizer.handle) ~= "userdata" then fail "option 'tokenizer': a table was given, expected what unic.text.wordpiece gave" end
  local mlm = check_mlm(options.mlm, tokenizer, options.labels)
  if text and not tokenizer then fail "option 'text': is given without the option 'tokenizer'" end
  if text == "sample" and ds.record then fail "option 'text': \"sample\" takes sentences from columns, and the data set is a function; give a function" end
  local calls = {}
  local seed = options.seed or 0
  local text_source = "none"
  local text_of = function(i) return ds:report(i) end
  if tokenizer then
    text_source = type(text) == "function" and "call" or ds.record and "call" or text or "report"
    if type(text) == "function" then text_of = function(i, e) return text(ds, i, e) end
    elseif text == "sample" then text_of = function(i, e) return ds:sample_text(i, core.data.text_epoch(seed, e)) end end
    calls.text = text_of
  end
  if ds.record then calls.picture = function(i) return ds:float_picture(i) end end

  local self = setmetatable({ set = ds, batch = options.batch or 32, seed = seed, device = options.device, labels = options.labels }, Iterator)
  self.source = { set = ds, text = text_of }
  local needs_lua = #functions > 0 or (ds.worker_source and #names > 0)
  self.handle = core.data.pipeline(ds.handle, {
    batch = self.batch, views = views, channels = options.channels, shuffle = shuffle, drop_last = drop_last, seed = seed, epoch = epoch,
    epochs = math.min(options.epochs or 1, 2 ^ 40), start = position, rank = options.rank, ranks = options.ranks, workers = workers,
    prefetch = options.prefetch or 2 + workers, bucket = options.bucket, text = text_source, vocabulary = tokenizer and tokenizer.handle,
    max_length = options.max_length or 256, multiple = options.multiple or 8, mlm = mlm,
    setup = needs_lua and sets.setup { source = ds.worker_source, steps = functions } or nil,
  }, calls)
  self.per_epoch = self.handle:per_epoch()
  return self
end

-- ---------------------------------------------------------------- single pictures

--- The steps of augmentation.
-- @return a list of {name =, help =, parameters = {{name =, required =, fallback =}, ...}}
function data.steps()
  return steps.forms
end

--- Run a view's steps on one picture, to look at what they do.
-- @param view a list of steps, as in batches
-- @param image a tensor [H, W] or [C, H, W] with one or three channels, u8 (0..255 become 0..1) or f32
-- @param[opt] options `seed`, `epoch`, `item` (0 each; another gives other random numbers), `name` of the view ("image"): `batches` with the same
-- four (items from 0) gives the same picture
-- @return an f32 tensor [C, H, W]
function data.apply(view, image, options)
  options = arguments.options("apply", options, { seed = "integer", epoch = "integer", item = "integer", name = "string" })
  if not unic.is_tensor(image) then arguments.fail("apply", "argument 'image': a %s was given, expected a tensor [H, W] or [C, H, W]", type(image)) end
  local shape = image.shape
  if image.dtype ~= "u8" and image.dtype ~= "f32" or #shape < 2 or #shape > 3 or #shape == 3 and shape[1] ~= 1 and shape[1] ~= 3 or image:numel() == 0 then
    arguments.fail("apply", "argument 'image': %s [%s] was given, expected u8 or f32 of shape [H, W], [1, H, W] or [3, H, W]", image.dtype, table.concat(shape, ", "))
  end
  if #shape == 2 then image = image:reshape { 1, shape[1], shape[2] } end
  local functions = {}
  local compiled = steps.compile("apply", options.name or "image", view, functions)
  return core.data.apply(compiled, image, options.seed or 0, options.epoch or 0, options.item or 0, #functions > 0 and sets.setup { steps = functions } or nil)
end

--- Make a picture square bytes, as data sets do: crop to the pixels that are not zero, stretch to 0..255, resize.
-- @param image a tensor [H, W], u8 or (16 bits) i32 of 0..65535
-- @param size of the result
-- @param[opt] options `crop` and `stretch` (true)
-- @return a u8 tensor [size, size]
function data.prepare(image, size, options)
  options = arguments.options("prepare", options, { crop = "boolean", stretch = "boolean" })
  arguments.check("prepare", "size", size, "integer")
  if size < 1 or size > 16384 then arguments.fail("prepare", "argument 'size': %d, expected 1 to 16384", size) end
  return core.data.prepare(image, size, options.crop ~= false, options.stretch ~= false)
end

return data
