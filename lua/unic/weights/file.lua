--- A file of weights of any kind behind one face: safetensors, PyTorch's, NumPy's, shards with an index, folders.
-- What a file is, is told by its first bytes, never by its name. Opening reads headers; a tensor is read when it is asked for.
-- @module unic.weights.file
local lfs = require "lfs"
local arguments = require "unic.arguments"
local core = require "unic.core"
local json = require "unic.json"

local fail = arguments.fail
local file = {}

local OP = "weights.open"

---------------------------------------------------------------------------------------------------------------------------- kinds

-- Files that people mistake for weights, by their first bytes.
local OTHERS = {
  { "^version https://git%-lfs", "is a Git LFS pointer: the file itself was not downloaded" },
  { "^\137HDF", "is an HDF5 file, which is not read" },
  { "^<!?[%a]", "is an HTML or XML page: the download went wrong" },
  { "^\137PNG", "is a picture" },
  { "^\31\139", "is compressed with gzip: unpack it first" },
}

local EXPECTED = "expected safetensors, PyTorch (.pt, .pth, .bin), NumPy (.npy, .npz), an index of shards (.index.json) or a folder"

-- The name of a zip file's first member: `x.npy` in NumPy's, `archive/data.pkl` in PyTorch's.
local function first_member(head)
  local length = (head:byte(27) or 0) + 256 * (head:byte(28) or 0)
  return head:sub(31, 30 + length)
end

-- The kind of a file and the reader's handle; an index has none.
local function open_one(path)
  local stream, why = io.open(path, "rb")
  if not stream then fail(OP, "'%s': cannot be read (%s)", path, (why:gsub("^.*: ", ""))) end
  local head = stream:read(512) or ""
  stream:close()
  if head == "" then fail(OP, "'%s': is empty, %s", path, EXPECTED) end
  -- First, as the length that a safetensors file begins with may look like anything, such as the start of a pickle; its upper half is 0.
  if head:sub(5, 9) == "\0\0\0\0{" then
    local handle = core.files.safetensors_open(path)
    return handle:metadata().unic and "checkpoint" or "safetensors", handle
  end
  if head:sub(1, 4) == "PK\3\4" then
    if first_member(head):find "%.npy$" then return "numpy", core.files.npy_open(path) end
    return "torch", core.files.torch_open(path)
  end
  if head:sub(1, 6) == "\147NUMPY" then return "numpy", core.files.npy_open(path) end
  if head:byte(1) == 0x80 and (head:byte(2) or 9) <= 5 or head:sub(258, 262) == "ustar" then return "torch", core.files.torch_open(path) end
  if head:find "^%s*{" then return "index" end
  for _, other in ipairs(OTHERS) do
    if head:find(other[1]) then fail(OP, "'%s': %s, %s", path, other[2], EXPECTED) end
  end
  local bytes = {}
  for i = 1, math.min(4, #head) do bytes[i] = ("%02x"):format(head:byte(i)) end
  fail(OP, "'%s': is no file of weights (its first bytes are %s), %s", path, table.concat(bytes, " "), EXPECTED)
end

---------------------------------------------------------------------------------------------------------------------------- the object

local File = {}
File.__index = File
File.__name = "unic.weights.file"

function File.__tostring(self)
  return ("%s '%s': %d tensors in %d %s"):format(self.kind, self.path, #self.list, #self.files, #self.files == 1 and "file" or "files")
end

-- The tensors of one more part; `listed` says which part has a name, where an index does.
local function add_part(self, handle, path, listed)
  self.handles[#self.handles + 1], self.files[#self.files + 1] = handle, path
  for _, name in ipairs(handle:names()) do
    if self.where[name] then fail(OP, "'%s': tensor '%s' stands in two files, also in '%s'", path, name, self.where[name]:path()) end
    if listed and listed[name] and listed[name] ~= path then
      fail(OP, "'%s': holds tensor '%s', which the index places in '%s'", path, name, listed[name])
    end
    self.where[name] = handle
    self.list[#self.list + 1] = name
  end
end

local function handle_of(self, op, name)
  arguments.check(op, "name", name, "string")
  if self.closed then fail(op, "argument 'file': '%s' was closed", self.path) end
  local handle = self.where[name]
  if not handle then
    local near = core.nearest(name, self.list)
    fail(op, "'%s': has no tensor '%s'%s", self.path, name, near and (", did you mean '%s'?"):format(near) or "")
  end
  return handle
end

--- Names of all tensors, in the order of the files.
-- @return a list of strings
function File:names()
  local names = {}
  for i, name in ipairs(self.list) do names[i] = name end
  return names
end

--- What is known about a tensor.
-- @param name of the tensor
-- @return {dtype = "F32", shape = {..}, bytes = n}; nil if there is no such tensor
function File:info(name)
  local handle = self.where[name]
  if not handle then return nil end
  local dtype, shape, bytes = handle:entry(name)
  return { dtype = dtype, shape = shape, bytes = bytes }
end

--- What the file says beside its tensors: strings by name.
-- @return a table
function File:metadata()
  local all = {}
  for _, handle in ipairs(self.handles) do
    for key, value in pairs(handle:metadata()) do
      if all[key] == nil then all[key] = value end
    end
  end
  return all
end

--- A tensor of the file, copied straight to its device.
-- @param name of the tensor
-- @param[opt] device nil = the default device
-- @return a tensor in the file's dtype
function File:tensor(name, device) return handle_of(self, "weights.tensor", name):tensor(name, device) end

--- Read a tensor of the file into one that is there (a parameter), of the same shape; another dtype is converted.
-- @param name of the tensor
-- @param t the tensor to be overwritten
function File:read(name, t) handle_of(self, "weights.read", name):read(name, t) end

--- A tensor's bytes as a string: row-major, little-endian.
-- @param name of the tensor
function File:data(name) return handle_of(self, "weights.data", name):data(name) end

--- Close all files now, instead of at a collection.
function File:close()
  for _, handle in ipairs(self.handles) do handle:close() end
  self.closed = true
end

local function new(path, kind)
  return setmetatable({ path = path, kind = kind, files = {}, handles = {}, list = {}, where = {}, config = nil, vocab = nil, closed = false }, File)
end

---------------------------------------------------------------------------------------------------------------------------- shards

-- A shard's path: a plain name or one below the index's folder. A name that leads out of it would let a downloaded index read any file.
local function shard_path(index, folder, name, shard)
  if type(shard) ~= "string" then fail(OP, "'%s': tensor '%s' lies in %s, expected a file's name", index, name, arguments.describe(shard)) end
  local outside = shard == "" or shard:find "^[/\\]" or shard:find "^%a:" or shard:find("\\", 1, true) or shard:find("\0", 1, true)
  for part in (shard .. "/"):gmatch "([^/]*)/" do outside = outside or part == ".." end
  if outside then fail(OP, "'%s': tensor '%s' lies in '%s', expected a file in the index's own folder", index, name, shard) end
  return folder .. shard
end

local function open_index(self, path)
  local index = json.read(OP, path)
  if type(index.weight_map) ~= "table" or next(index.weight_map) == nil then
    fail(OP, "'%s': is no index of shards (it has no weight_map), %s", path, EXPECTED)
  end
  local folder = path:match "^(.*/)[^/]*$" or ""
  local names, listed, shards, seen = {}, {}, {}, {}
  for name, shard in pairs(index.weight_map) do
    if type(name) ~= "string" then fail(OP, "'%s': its weight_map is a list, expected {tensor = file}", path) end
    names[#names + 1], listed[name] = name, shard_path(path, folder, name, shard)
    if not seen[listed[name]] then
      seen[listed[name]] = true
      shards[#shards + 1] = listed[name]
    end
  end
  table.sort(names)
  table.sort(shards)
  for _, shard in ipairs(shards) do
    if lfs.attributes(shard, "mode") ~= "file" then fail(OP, "'%s': its shard '%s' is not there", path, shard) end
  end
  for _, shard in ipairs(shards) do
    local kind, handle = open_one(shard)
    if kind == "index" then fail(OP, "'%s': its shard '%s' is JSON, expected tensors", path, shard) end
    add_part(self, handle, shard, listed)
  end
  for _, name in ipairs(names) do
    if not self.where[name] then fail(OP, "'%s': its shard '%s' has no tensor '%s'", path, listed[name], name) end
  end
  return self
end

---------------------------------------------------------------------------------------------------------------------------- folders

local IN_FOLDER = { "model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json" }

local function is_file(path) return lfs.attributes(path, "mode") == "file" end

-- What text.from_pretrained makes a tokeniser of.
local function vocabulary_of(base)
  for _, name in ipairs { "vocab.txt", "tokenizer.json" } do
    if is_file(base .. name) then return base .. name end
  end
end

local function open_folder(path)
  local base = path:gsub("/+$", "") .. "/"
  if is_file(base .. "run.lua") then
    local last = base .. "checkpoints/last.safetensors"
    if not is_file(last) then fail(OP, "'%s': is a run without a checkpoint", path) end
    local self = file.open(last)
    self.path, self.kind = path, "run"
    self.vocab = vocabulary_of(base)
    return self
  end
  for _, name in ipairs(IN_FOLDER) do
    if is_file(base .. name) then
      local self = file.open(base .. name)
      self.path, self.kind = path, "huggingface"
      if is_file(base .. "config.json") then self.config = json.read(OP, base .. "config.json") end
      self.vocab = vocabulary_of(base)
      return self
    end
  end
  fail(OP, "'%s': is a folder without weights; expected one of %s, or a run folder", path, table.concat(IN_FOLDER, ", "))
end

--- Open weights of any kind; see unic.weights.open.
-- @param path a file or a folder
-- @return the object
function file.open(path)
  arguments.check(OP, "path", path, "string")
  local mode = path ~= "" and not path:find("\0", 1, true) and lfs.attributes(path, "mode")
  if not mode then fail(OP, "'%s': there is no such file or folder", path) end
  if mode == "directory" then return open_folder(path) end
  if mode ~= "file" then fail(OP, "'%s': is a %s, expected a file or a folder", path, mode) end
  local kind, handle = open_one(path)
  local self = new(path, kind == "index" and "sharded" or kind)
  if kind == "index" then return open_index(self, path) end
  add_part(self, handle, path)
  return self
end

return file
