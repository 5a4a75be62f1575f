--- Runs that were made before: opening one to use its model, listing them.
-- @module unic.run.finished
local lfs = require "lfs"
local arguments = require "unic.arguments"
local core = require "unic.core"
local tensor = require "unic.tensor"
local checkpoint = require "unic.run.checkpoint"
local folder = require "unic.run.folder"
local outputs = require "unic.run.outputs"

local fail = folder.fail
local finished = {}

local Finished = {}
Finished.__index = Finished
Finished.__name = "unic.run"
for name, method in pairs(outputs) do Finished[name] = method end

--- Put the run's weights into a model. Its mode stays as it is: model:eval() before it is used, not trained.
-- @param model a module
-- @param options `which` ("last", "best", or a step), `ema` (the averaged weights), and those of `load_state_dict`
-- @return the loading report
function Finished:load(model, options)
  local own = { which = true, ema = true }
  local rest = {}
  for key, value in pairs(tensor.options("run:load", options, { which = true, ema = true, strict = true, prefix = true, rename = true })) do
    if not own[key] then rest[key] = value end
  end
  options = options or {}
  local path = options.which and self:path_of(options.which) or self.checkpoint
  if not path then fail("'%s' has no checkpoint to load", self.dir) end
  local saved = checkpoint.open(path)
  local loaded = checkpoint.load_model(saved, model, options.ema and "ema." or "model.", rest)
  saved.file:close()
  return loaded
end

-- The file of "last", "best" or a step.
function Finished:path_of(which)
  local name = type(which) == "number" and ("step-%d"):format(which) or which
  local path = ("%s/checkpoints/%s.safetensors"):format(self.dir, name)
  if not lfs.attributes(path, "mode") then fail("'%s' has no checkpoint '%s'", self.dir, name) end
  return path
end

function Finished:say(format, ...)
  if not folder.is_quiet() then io.stderr:write(format:format(...), "\n") end
end

--- Open a run that was made before.
-- @param dir its folder, or one of its checkpoints
-- @return an object: `dir`, `name`, `options`, `manifest`, `step`, `checkpoint` (the path of that file, of `last` for a folder, or nil), `vocab`
-- (path or nil), `load(model)`
function finished.open(dir)
  if type(dir) ~= "string" then fail("open: %s, expected a folder", arguments.describe(dir)) end
  dir = dir:gsub("(.)/+$", "%1")
  local kind, chosen = lfs.attributes(dir, "mode"), nil
  if not kind then fail("open: there is no '%s'", dir) end
  if kind ~= "directory" then
    chosen = folder.real(dir)
    local parent = chosen:match "^(.*)/checkpoints/[^/]+$"
    if not parent then fail("open: '%s' is a file outside a run folder, expected a run folder or RUN/checkpoints/FILE", dir) end
    dir = parent
  end
  if not lfs.attributes(dir .. "/run.lua", "mode") then fail("open: '%s' is no run folder (it has no run.lua)", dir) end
  local record = folder.read_record(dir)
  local self = setmetatable({ dir = folder.real(dir), name = record.recipe, options = record.options, manifest = folder.read_manifest(dir), read_only = true,
    step = 0 }, Finished)
  local last = chosen or self.dir .. "/checkpoints/last.safetensors"
  if lfs.attributes(last, "mode") then
    local saved = checkpoint.open(last)
    self.checkpoint, self.step, self.epoch, self.vocabulary_hash = last, saved.meta.step, saved.meta.epoch, saved.meta.vocabulary
    saved.file:close()
  end
  if lfs.attributes(self.dir .. "/vocab.txt", "mode") then self.vocab = self.dir .. "/vocab.txt" end
  return self
end

-- ---------------------------------------------------------------- ./unic runs

-- The last whole row of a CSV file, by column; a table without entries where there is none.
local function last_row(path)
  local file = io.open(path, "rb")
  if not file then return {} end
  local header = file:read "*l"
  local size = file:seek "end"
  file:seek("set", math.max(0, size - 4096))
  local text = file:read "*a" or ""
  file:close()
  local line
  for each in text:gmatch "([^\n]+)\n" do line = each end
  local row, cells = {}, {}
  if not header or not line or line == header then return row end
  for cell in (line .. ","):gmatch "([^,]*)," do cells[#cells + 1] = cell end
  local i = 0
  for name in (header .. ","):gmatch "([^,]*)," do
    i = i + 1
    row[name] = tonumber(cells[i])
  end
  return row
end

local function describe(recipe, number, dir)
  local ok, record = pcall(folder.read_record, dir)
  if not ok then return nil end
  local fine, manifest = pcall(folder.read_manifest, dir)
  manifest = fine and manifest or {}
  local row = last_row(dir .. "/metrics.csv")
  return {
    recipe = recipe, number = number, dir = dir, when = manifest.started, steps = row.step or 0, loss = row.loss,
    total = type(record.options.steps) == "number" and record.options.steps > 0 and record.options.steps or nil, result = manifest.result,
  }
end

local function collect(only)
  local base, list = folder.base(), {}
  if lfs.attributes(base, "mode") ~= "directory" then return list end
  local recipes = {}
  for name in lfs.dir(base) do
    if name:sub(1, 1) ~= "." and lfs.symlinkattributes(base .. "/" .. name, "mode") == "directory" and (not only or only[name]) then recipes[#recipes + 1] = name end
  end
  table.sort(recipes)
  for _, recipe in ipairs(recipes) do
    for _, number in ipairs(folder.numbers(base .. "/" .. recipe)) do
      list[#list + 1] = describe(recipe, number, ("%s/%s/%d"):format(base, recipe, number))
    end
  end
  return list
end

-- Rows as lines with columns below one another; the last column is cut at the terminal's edge.
local function lines_of(header, rows, width)
  local widths = {}
  for c, name in ipairs(header) do widths[c] = #name end
  for _, row in ipairs(rows) do
    for c, cell in ipairs(row) do widths[c] = math.max(widths[c], #cell) end
  end
  local out = {}
  for _, row in ipairs { header, unpack(rows) } do
    local cells = {}
    for c, cell in ipairs(row) do cells[c] = c < #row and cell .. (" "):rep(widths[c] - #cell) or cell end
    local line = table.concat(cells, "  ")
    out[#out + 1] = width and #line > width and line:sub(1, width - 3) .. "..." or line
  end
  return out
end

--- The runs in runs/. Without words it only returns them; `./unic runs [RECIPE ...]` prints them.
-- @param words names of recipes; {} shows all
-- @return a list of {recipe, number, dir, when, steps, total, loss, result}
function finished.list(words)
  local only
  if words and #words > 0 then
    only = {}
    for _, word in ipairs(words) do
      if word == "--help" or word == "-h" then
        outputs.print "./unic runs [RECIPE ...]   list the runs in runs/: folder, start (UTC), steps made of how many, last loss, result"
        return {}
      end
      only[word:gsub("^.*/", ""):gsub("%.lua$", "")] = true
    end
  end
  local list = collect(only)
  if not words then return list end
  if #list == 0 then
    outputs.print(("no runs in %s/%s"):format(folder.base(), only and " of " .. table.concat(words, ", ") or ""))
    return list
  end
  local rows = {}
  for i, one in ipairs(list) do
    rows[i] = {
      one.dir, (one.when or ""):gsub("T", " "):gsub(":%d+Z$", ""), one.total and ("%d/%d"):format(one.steps, one.total) or tostring(one.steps),
      one.loss and ("%.4g"):format(one.loss) or "", one.result and one.result:gsub("^result ", "") or (one.total and one.steps < one.total and "unfinished" or ""),
    }
  end
  local edit = core.edit
  for _, line in ipairs(lines_of({ "run", "started", "steps", "loss", "result" }, rows, edit.isatty(1) and edit.width() or nil)) do outputs.print(line) end
  return list
end

return finished
