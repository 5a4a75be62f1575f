--- From a model into files that other programs open; see unic.weights.save and unic.weights.save_pretrained.
-- @module unic.weights.save
local lfs = require "lfs"
local unistd = require "posix.unistd"
local arguments = require "unic.arguments"
local core = require "unic.core"
local files = require "unic.files"
local json = require "unic.json"
local module = require "unic.nn.module"
local tensor = require "unic.tensor"

local fail = arguments.fail
local save = {}

local MODEL = { text = "a module", test = module.is_module }
local FLOATS = { f32 = true, f64 = true, f16 = true, bf16 = true }
local OPTIONS = { dtype = { "choice", "f32", "bf16", "f16", "f64" }, metadata = "table", names = "callable" }
local FOLDER_OPTIONS = { config = "table", tokenizer = "table", overwrite = "boolean", dtype = OPTIONS.dtype, names = OPTIONS.names }

-- What is written under which name; a tensor that has several names in the model has the first one in the file.
local function tensors_of(op, model, options)
  local dict, seen = {}, {}
  for _, entry in ipairs(model:named_state()) do
    if not seen[entry.value] then
      seen[entry.value] = true
      local name, value = entry.name, entry.value:detach()
      if options.names then name = options.names(name) end
      if name ~= nil then
        if type(name) ~= "string" then fail(op, "option 'names': it made %s of '%s', expected a name or nil", arguments.describe(name), entry.name) end
        if dict[name] then fail(op, "option 'names': two tensors are called '%s'", name) end
        if options.dtype and FLOATS[value.dtype] then value = tensor.with(core.grad_mode, false, value.to, value, options.dtype) end
        dict[name] = value
      end
    end
  end
  return dict
end

--- See unic.weights.save.
function save.save(path, model, options)
  arguments.check("weights.save", "path", path, "string")
  arguments.check("weights.save", "model", model, MODEL)
  options = arguments.options("weights.save", options, OPTIONS)
  local metadata = { format = "pt" }   -- transformers refuses a file without it
  for key, value in pairs(options.metadata or {}) do metadata[key] = value end
  files.safetensors_save(path, tensors_of("weights.save", model, options), metadata)
end

---------------------------------------------------------------------------------------------------------------------------- folders

local function remove(path)
  if lfs.symlinkattributes(path, "mode") == "directory" then
    for name in lfs.dir(path) do
      if name ~= "." and name ~= ".." then remove(path .. "/" .. name) end
    end
    return lfs.rmdir(path)
  end
  return os.remove(path)
end

local function is_empty(path)
  for name in lfs.dir(path) do
    if name ~= "." and name ~= ".." then return false end
  end
  return true
end

local function write(folder, model, options)
  files.write_file(folder .. "/config.json", json.encode("weights.save_pretrained", "option 'config'", options.config), { durable = true })
  if options.tokenizer then options.tokenizer:save_pretrained(folder, { max_length = options.config.max_position_embeddings }) end
  files.safetensors_save(folder .. "/model.safetensors", tensors_of("weights.save_pretrained", model, options), { format = "pt" })
end

--- See unic.weights.save_pretrained.
function save.save_pretrained(folder, model, options)
  local op = "weights.save_pretrained"
  arguments.check(op, "folder", folder, "string")
  arguments.check(op, "model", model, MODEL)
  options = arguments.options(op, options, FOLDER_OPTIONS)
  if not options.config then fail(op, "option 'config': is missing, expected what config.json is to say, such as bert.config(model)") end
  local tokenizer = options.tokenizer
  if tokenizer and not (tokenizer.handle and tokenizer.token and tokenizer.size) then fail(op, "option 'tokenizer': a table, expected a tokeniser of unic.text") end
  folder = folder:gsub("(.)/+$", "%1")
  local mode = lfs.attributes(folder, "mode")
  if mode and mode ~= "directory" then fail(op, "'%s': is a %s, expected the name of a new folder", folder, mode) end
  if mode and not is_empty(folder) and not options.overwrite then
    fail(op, "'%s': is there already, expected a new name, or overwrite = true", folder)
  end
  local new, old = ("%s.tmp-%d"):format(folder, unistd.getpid()), ("%s.old-%d"):format(folder, unistd.getpid())
  remove(new)   -- of a killed process that had this number
  local made, why = lfs.mkdir(new)
  if not made then fail(op, "'%s': cannot be made (%s)", folder, why) end
  local ok, problem = pcall(write, new, model, options)
  if not ok then
    remove(new)
    error(problem, 0)
  end
  files.sync_folder(new)
  -- A folder cannot be renamed over a full one: the old one steps aside first, and goes when the new one has its name.
  local aside = mode and (is_empty(folder) and lfs.rmdir(folder) or os.rename(folder, old))
  ok, why = os.rename(new, folder)
  if not ok then
    if aside and lfs.attributes(old, "mode") then os.rename(old, folder) end
    remove(new)
    fail(op, "'%s': cannot get its name (%s)", folder, why)
  end
  remove(old)
  files.sync_folder(folder:match "^(.+)/[^/]*$" or ".")
end

return save
