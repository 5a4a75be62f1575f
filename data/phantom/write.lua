--- Writes a phantom set to disk as a user's own data looks like: pictures, data.csv, masks, boxes.json. Also the two committed tables.
-- @module unic.datasets.phantom.write

local ffi = require "ffi"
local hint = require("unic.datasets.phantom.names").hint

local write = {}

local SPLITS = {"train", "val", "test"}

local function files()
  return require "unic.files"
end

local function make_folder(path)
  local lfs = require "lfs"
  local at = path:sub(1, 1) == "/" and "/" or ""
  for part in path:gmatch("[^/]+") do
    at = at .. part .. "/"
    if lfs.attributes(at, "mode") == nil then
      local ok, why = lfs.mkdir(at)
      if not ok and lfs.attributes(at, "mode") ~= "directory" then error(("[phantom] cannot make the folder '%s': %s"):format(at, why), 0) end
    end
  end
end

--- Write a set: images/, masks/, boxes.json, and data.csv last, so that a folder with data.csv is whole.
-- @param phantom the module
-- @param options {out=, studies=, seed=, size=, languages=}; of the studies a tenth each is for validation and test
-- @return how many studies of each split were written
function write.folder(phantom, options)
  local out = options.out:gsub("/+$", "")
  make_folder(out .. "/images")
  make_folder(out .. "/masks")
  local held = math.floor(options.studies / 10)
  local count = {train = options.studies - 2 * held, val = held, test = held}
  local size = options.size
  local picture = ffi.new("uint8_t[?]", size * size)
  local shape = {width = size, height = size, channels = 1, bits = 8}
  local rows, boxes = {}, {}
  for _, split in ipairs(SPLITS) do
    local set = count[split] > 0 and phantom.open {
      split = split, studies = count[split], size = size, seed = options.seed, languages = options.languages,
    }
    for i = 1, count[split] do
      local name = ("%s-%05d"):format(split, i)
      local image = "images/" .. name .. ".png"
      local info = set:study(i)
      set:image(i, picture)
      files().write_png(out .. "/" .. image, ffi.cast("uint8_t *", picture), shape)
      for _, finding in ipairs(info.labels) do
        set:masks(i, finding, picture)
        files().write_png(("%s/masks/%s-%s.png"):format(out, name, finding), ffi.cast("uint8_t *", picture), shape)
      end
      rows[#rows + 1] = {
        image = image, report = set:report(i), language = info.language, patient = info.patient, split = split,
        labels = table.concat(info.labels, "|"), sex = info.sex, age = info.age, site = info.site,
      }
      boxes[#boxes + 1] = {image = image, boxes = set:boxes(i)}
    end
  end
  write.boxes(out .. "/boxes.json", boxes)
  files().write_csv(out .. "/data.csv", {"image", "report", "language", "patient", "split", "labels", "sex", "age", "site"}, rows)
  return count
end

--- boxes.json: an object with, for each picture's path, a list of boxes in pixels; keys in a fixed order, so that equal sets are equal files.
function write.boxes(path, list)
  local file, why = io.open(path .. ".part", "wb")
  if not file then error(("[phantom] cannot write '%s': %s"):format(path, why), 0) end
  file:write("{\n")
  for k, item in ipairs(list) do
    local parts = {}
    for j, box in ipairs(item.boxes) do
      parts[j] = ('{"finding": "%s", %s"x": %d, "y": %d, "width": %d, "height": %d}'):format(
        box.finding, box.side and ('"side": "%s", '):format(box.side) or "", box.x, box.y, box.width, box.height)
    end
    file:write(('"%s": [%s]%s\n'):format(item.image, table.concat(parts, ", "), k < #list and "," or ""))
  end
  file:write("}\n")
  local ok, problem = file:close()
  if ok then ok, problem = os.rename(path .. ".part", path) end
  if not ok then error(("[phantom] cannot write '%s': %s"):format(path, problem), 0) end
end

local function write_lines(path, lines)
  local file, why = io.open(path, "wb")
  if not file then error(("[phantom] cannot write '%s': %s"):format(path, why), 0) end
  file:write(table.concat(lines, "\n"), "\n")
  file:close()
end

--- The lines of the prompt file.
function write.prompt_lines(phantom)
  local lines = {"set,finding,language,polarity,text"}
  for _, row in ipairs(phantom.prompts()) do
    local text = row.text
    if text:find('[,"]') then text = '"' .. text:gsub('"', '""') .. '"' end
    lines[#lines + 1] = table.concat({row.set, row.finding, row.language, row.polarity, text}, ",")
  end
  return lines
end

--- Write data/prompts/phantom.csv and data/phantom/vocab.txt anew, after a change of the grammars.
function write.tables(phantom)
  write_lines(phantom.prompt_file, write.prompt_lines(phantom))
  write_lines(phantom.vocab, phantom.vocabulary())
end

local HELP = [[
Usage: ./unic data/phantom.lua --out DIR [--studies N] [--seed S] [--size PIXELS] [--languages both|en|es]
       ./unic data/phantom.lua --tables

Draws synthetic chest X-rays and writes them as a data set of one's own looks like: DIR/images/*.png, DIR/masks/*.png, DIR/boxes.json and
DIR/data.csv (image, report, language, patient, split, labels, sex, age, site). A tenth of the studies is for validation, a tenth for test.

  --out DIR         where to; made if absent
  --studies N       how many in all (1000)
  --seed S          another seed, other studies (0)
  --size PIXELS     width and height (256)
  --languages L     both (half and half), en or es (both)
  --tables          write data/prompts/phantom.csv and data/phantom/vocab.txt anew from the grammars
]]

local OPTIONS = {out = true, studies = true, seed = true, size = true, languages = true, tables = true, help = true}

local function wrong_use(format, ...)
  io.stderr:write("phantom: ", format:format(...), "; --help lists the options\n")
  os.exit(2, true)
end

--- The script: reads the options and does what they say.
function write.main(phantom, words)
  local options = {studies = 1000, seed = 0, size = 256, languages = "both"}
  local k = 1
  while k <= #words do
    local name, value = words[k]:match("^%-%-([%w-]+)=(.*)$")
    name = name or words[k]:match("^%-%-([%w-]+)$")
    if name == "help" or words[k] == "-h" then
      io.stdout:write(HELP)
      return
    elseif name == "tables" then
      options.tables = true
    elseif OPTIONS[name] then
      if not value then
        k = k + 1
        value = words[k]
      end
      if not value or value == "" then wrong_use("--%s needs a value", name) end
      if name ~= "out" and name ~= "languages" then
        value = tonumber(value) or wrong_use("--%s: '%s' is no number", name, value)
      end
      options[name] = value
    else
      wrong_use("unknown option '%s'%s", words[k], name and hint(name, OPTIONS, "--") or "")
    end
    k = k + 1
  end
  if options.tables then write.tables(phantom) end
  if not options.out then
    if options.tables then return end
    wrong_use("--out DIR is missing")
  end
  -- a wrong value is said before anything is made
  local ok, problem = pcall(phantom.open, {
    studies = options.studies, seed = options.seed, size = options.size, languages = options.languages,
  })
  if not ok then wrong_use("%s", (tostring(problem):gsub("^.-(%[phantom%])", "%1"))) end
  local count = write.folder(phantom, options)
  io.stderr:write(("%s: %d training, %d validation, %d test studies\n"):format(options.out, count.train, count.val, count.test))
end

return write
