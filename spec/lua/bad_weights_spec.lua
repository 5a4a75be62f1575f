-- Bad weights: files that are none, indexes that lead astray, models that a file does not fit, folders that cannot be written. Each has its sentence at
-- the line of the call. DIR stands for a temporary folder.
local unic = require "unic"
local lfs = require "lfs"
local bert = require "unic.models.bert"
local files = require "unic.files"
local nn = require "unic.nn"
local weights = require "unic.weights"
local bad = require "spec.support.bad_calls"
local support = require "spec.support.files"

local dir
local function at(name) return dir .. "/" .. name end
local function put(name, bytes) return support.write(at(name), bytes) end

local EXPECTED = "expected safetensors, PyTorch (.pt, .pth, .bin), NumPy (.npy, .npz), an index of shards (.index.json) or a folder"

local function index(name, map)
  local parts = {}
  for tensor, shard in pairs(map) do parts[#parts + 1] = ("%q:%s"):format(tensor, shard) end
  table.sort(parts)
  put(name, '{"metadata":{},"weight_map":{' .. table.concat(parts, ",") .. "}}")
end

local function write_files()
  dir = support.folder()
  put("empty.bin", "")
  put("text.bin", "just words")
  put("pointer.bin", "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 3\n")
  put("page.bin", "<!DOCTYPE html><html>Not found</html>")
  put("keras.h5", "\137HDF\r\n\26\n")
  put("packed.gz", "\31\139\8\0")
  put("config.json", '{"model_type":"bert"}')
  put("list.json", '["model.safetensors"]')
  put("broken.json", '{"weight_map":')
  files.safetensors_save(at "linear.safetensors", { weight = unic.ones(2, 3), bias = unic.ones(2) })
  files.safetensors_save(at "weight.safetensors", { weight = unic.ones(2, 3) })
  files.safetensors_save(at "wide.safetensors", { weight = unic.ones(2, 4), bias = unic.ones(2) })
  files.safetensors_save(at "more.safetensors", { weight = unic.ones(2, 3), bias = unic.ones(2), gate = unic.ones(2) })
  files.safetensors_save(at "whole.safetensors", { weight = unic.ones(2, 3, { dtype = "i32" }), bias = unic.ones(2) })
  files.safetensors_save(at "other.safetensors", { kernel = unic.ones(2) })
  files.safetensors_save(at "both.safetensors", { ["a.weight"] = unic.ones(2, 3), ["b.weight"] = unic.ones(2, 3), bias = unic.ones(2) })
  files.safetensors_save(at "nested.safetensors", { ["model.a.weight"] = unic.ones(2, 3), ["model.a.bias"] = unic.ones(2) })
  files.safetensors_save(at "none.safetensors", {})
  index("up.index.json", { weight = '"../linear.safetensors"' })
  index("deep.index.json", { weight = '"a/../../linear.safetensors"' })
  index("root.index.json", { weight = '"/etc/passwd"' })
  index("back.index.json", { weight = '"..\\\\linear.safetensors"' })
  index("number.index.json", { weight = "3" })
  index("gone.index.json", { weight = '"gone.safetensors"' })
  index("lacks.index.json", { weight = '"linear.safetensors"', gate = '"linear.safetensors"' })
  index("twice.index.json", { weight = '"linear.safetensors"', bias = '"more.safetensors"' })
  index("loop.index.json", { weight = '"loop.index.json"' })
  for _, name in ipairs { "bare", "run", "full", "badconfig" } do lfs.mkdir(at(name)) end
  put("run/run.lua", "return {}")
  put("full/notes.txt", "mine")
  files.safetensors_save(at "badconfig/model.safetensors", {})
  put("badconfig/config.json", "{nope")
end

local function linear() return nn.Linear(3, 2) end

local Twin = nn.class "Twin"
function Twin:init()
  self.a, self.b = nn.Linear(3, 2), nn.Linear(3, 2)
end

-- `model.a.weight` in a file may be meant for model.a.weight, or, as in a checkpoint, for a.weight.
local Nested = nn.class "Nested"
function Nested:init() self.a, self.model = nn.Linear(3, 2), nn.List {} self.model.a = nn.Linear(3, 2) end

local ROWS = {
  -- what is no file of weights
  { "open: nothing", function() weights.open() end, "[weights.open] argument 'path': nil, expected a string" },
  { "open: no such file", function() weights.open(at "gone.pt") end, "[weights.open] 'DIR/gone.pt': there is no such file or folder" },
  { "open: an empty path", function() weights.open "" end, "[weights.open] '': there is no such file or folder" },
  { "open: no file", function() weights.open "/dev/null" end, "[weights.open] '/dev/null': is a char device, expected a file or a folder" },
  { "open: an empty file", function() weights.open(at "empty.bin") end, "[weights.open] 'DIR/empty.bin': is empty, " .. EXPECTED },
  { "open: text", function() weights.open(at "text.bin") end,
    "[weights.open] 'DIR/text.bin': is no file of weights (its first bytes are 6a 75 73 74), " .. EXPECTED },
  { "open: a pointer", function() weights.open(at "pointer.bin") end,
    "[weights.open] 'DIR/pointer.bin': is a Git LFS pointer: the file itself was not downloaded, " .. EXPECTED },
  { "open: a page", function() weights.open(at "page.bin") end,
    "[weights.open] 'DIR/page.bin': is an HTML or XML page: the download went wrong, " .. EXPECTED },
  { "open: Keras", function() weights.open(at "keras.h5") end, "[weights.open] 'DIR/keras.h5': is an HDF5 file, which is not read, " .. EXPECTED },
  { "open: gzip", function() weights.open(at "packed.gz") end,
    "[weights.open] 'DIR/packed.gz': is compressed with gzip: unpack it first, " .. EXPECTED },
  { "open: JSON that is no index", function() weights.open(at "config.json") end,
    "[weights.open] 'DIR/config.json': is no index of shards (it has no weight_map), " .. EXPECTED },
  { "open: JSON that is cut", function() weights.open(at "broken.json") end,
    "[weights.open] 'DIR/broken.json': is no JSON object (Expected value but found T_END at character 15)" },
  -- indexes
  { "index: out of the folder", function() weights.open(at "up.index.json") end,
    "[weights.open] 'DIR/up.index.json': tensor 'weight' lies in '../linear.safetensors', expected a file in the index's own folder" },
  { "index: out of the folder by way of another", function() weights.open(at "deep.index.json") end,
    "[weights.open] 'DIR/deep.index.json': tensor 'weight' lies in 'a/../../linear.safetensors', expected a file in the index's own folder" },
  { "index: an absolute path", function() weights.open(at "root.index.json") end,
    "[weights.open] 'DIR/root.index.json': tensor 'weight' lies in '/etc/passwd', expected a file in the index's own folder" },
  { "index: backslashes", function() weights.open(at "back.index.json") end,
    "[weights.open] 'DIR/back.index.json': tensor 'weight' lies in '..\\linear.safetensors', expected a file in the index's own folder" },
  { "index: a number", function() weights.open(at "number.index.json") end,
    "[weights.open] 'DIR/number.index.json': tensor 'weight' lies in the number 3, expected a file's name" },
  { "index: a shard that is not there", function() weights.open(at "gone.index.json") end,
    "[weights.open] 'DIR/gone.index.json': its shard 'DIR/gone.safetensors' is not there" },
  { "index: a tensor that is not there", function() weights.open(at "lacks.index.json") end,
    "[weights.open] 'DIR/lacks.index.json': its shard 'DIR/linear.safetensors' has no tensor 'gate'" },
  { "index: a tensor in two shards", function() weights.open(at "twice.index.json") end,
    "[weights.open] 'DIR/linear.safetensors': holds tensor 'bias', which the index places in 'DIR/more.safetensors'" },
  { "index: itself", function() weights.open(at "loop.index.json") end,
    "[weights.open] 'DIR/loop.index.json': its shard 'DIR/loop.index.json' is JSON, expected tensors" },
  -- folders
  { "folder: without weights", function() weights.open(at "bare") end,
    "[weights.open] 'DIR/bare': is a folder without weights; expected one of model.safetensors, model.safetensors.index.json, ..." },
  { "folder: a run without a checkpoint", function() weights.open(at "run") end, "[weights.open] 'DIR/run': is a run without a checkpoint" },
  { "folder: a config that is no JSON", function() weights.open(at "badconfig") end, "[weights.open] 'DIR/badconfig/config.json': is no JSON object ..." },
  -- an open file
  { "tensor: one there is not", function() weights.open(at "linear.safetensors"):tensor "wieght" end,
    "[weights.tensor] 'DIR/linear.safetensors': has no tensor 'wieght', did you mean 'weight'?" },
  { "tensor: a number", function() weights.open(at "linear.safetensors"):tensor(1) end, "[weights.tensor] argument 'name': the number 1, expected a string" },
  { "read: into another shape", function() weights.open(at "linear.safetensors"):read("weight", unic.ones(3)) end,
    "[safetensors] 'DIR/linear.safetensors': tensor 'weight': its shape is [2, 3], expected [3]" },
  { "data: after it was closed", function() local f = weights.open(at "linear.safetensors") f:close() f:data "bias" end,
    "[weights.data] argument 'file': 'DIR/linear.safetensors' was closed" },
  -- loading
  { "load: no module", function() weights.load({}, at "linear.safetensors") end, "[weights.load] argument 'model': a table, expected a module" },
  { "load: a misspelt option", function() weights.load(linear(), at "linear.safetensors", { prefx = "a" }) end,
    "[weights.load] there is no option 'prefx', did you mean 'prefix'?" },
  { "load: patterns that are numbers", function() weights.load(linear(), at "linear.safetensors", { ignore = { 3 } }) end,
    "[weights.load] argument 'ignore': member 1 is the number 3, expected a string" },
  { "load: a misspelt map", function() weights.load(linear(), at "linear.safetensors", { map = "torchvison" }) end,
    "[weights.load] option 'map': there is no map 'torchvison', did you mean 'torchvision'?" },
  { "load: a map there is not", function() weights.load(linear(), at "linear.safetensors", { map = "zzzzzzzz" }) end,
    "[weights.load] option 'map': there is no map 'zzzzzzzz'; there are: auto, same, checkpoint, bert, cxr_bert, deit, mae, medunic, mgca, timm, torchvision" },
  { "load: a map that is a number", function() weights.load(linear(), at "linear.safetensors", { map = 3 }) end,
    "[weights.load] option 'map': the number 3, expected a name, a function or a table" },
  { "load: a map that makes numbers", function() weights.load(linear(), at "linear.safetensors", { map = function() return 3 end }) end,
    "[weights.load] option 'map': it made the number 3 of 'bias', expected a name or nil" },
  { "load: two for one", function() weights.load(linear(), at "both.safetensors", { map = { ["a.weight"] = "weight", ["b.weight"] = "weight", bias = "bias" } }) end,
    "[weights.load] 'DIR/both.safetensors': 'a.weight' and 'b.weight' are both for 'weight' by the map the caller's" },
  { "load: something is missing", function() weights.load(linear(), at "weight.safetensors") end,
    "[weights.load] 'DIR/weight.safetensors': 1 of the Linear's 2 tensors match by the map same; missing: bias" },
  { "load: another thing is allowed to be missing", function() weights.load(linear(), at "weight.safetensors", { missing = { "^gate$" }, map = "timm" }) end,
    "[weights.load] 'DIR/weight.safetensors': 1 of the Linear's 2 tensors match by the map timm; missing: bias" },
  { "load: another shape", function() weights.load(linear(), at "wide.safetensors") end,
    "[weights.load] 'DIR/wide.safetensors': 1 of the Linear's 2 tensors match by the map same; of another shape or type: weight is [2, 3] here and [2, 4] there" },
  { "load: something is left over", function() weights.load(linear(), at "more.safetensors") end,
    "[weights.load] 'DIR/more.safetensors': 2 of the Linear's 2 tensors match by the map same; left over: gate" },
  { "load: whole numbers", function() weights.load(linear(), at "whole.safetensors") end,
    "[weights.load] 'DIR/whole.safetensors': 1 of the Linear's 2 tensors match by the map same; of another shape or type: weight is f32 here and I32 there" },
  { "load: nothing in common", function() weights.load(linear(), at "other.safetensors") end,
    "[weights.load] 'DIR/other.safetensors': no name in it is one of the Linear's by any map; it has kernel; the model has weight, bias" },
  { "load: no tensor", function() weights.load(linear(), at "none.safetensors") end, "[weights.load] 'DIR/none.safetensors': has no tensor; it has none at all" },
  { "load: nothing in common, not strict", function() weights.load(linear(), at "other.safetensors", { map = "same", strict = false }) end,
    "[weights.load] 'DIR/other.safetensors': none of the Linear's 2 tensors is in it by the map same" },
  { "load: a prefix that nothing has", function() weights.load(linear(), at "linear.safetensors", { prefix = "encoder." }) end,
    "[weights.load] 'DIR/linear.safetensors': has no tensor whose name begins with 'encoder.'; it has bias, weight" },
  { "load: a model with half the names", function() weights.load(Twin(), at "linear.safetensors", { map = function(n) return "a." .. n end }) end,
    "[weights.load] 'DIR/linear.safetensors': 2 of the Twin's 4 tensors match by the map the caller's; missing: b.weight, b.bias" },
  { "build: no function", function() weights.build(3, at "linear.safetensors") end, "[weights.build] argument 'make': the number 3, expected a function" },
  { "load: maps that fit equally well", function() weights.load(Nested(), at "nested.safetensors") end,
    "[weights.load] 'DIR/nested.safetensors': these maps fit the Nested equally well and differ: same (2 of 4), deit (2 of 4), mae (2 of 4), " ..
    "torchvision (2 of 4); choose one with the option map" },
  { "build: a function of nothing", function() weights.build(function() end, at "linear.safetensors") end,
    "[weights.build] argument 'make's result': nil, expected a module" },
  -- saving
  { "save: no module", function() weights.save(at "new.safetensors", {}) end, "[weights.save] argument 'model': a table, expected a module" },
  { "save: a dtype there is not", function() weights.save(at "new.safetensors", linear(), { dtype = "f8" }) end,
    '[weights.save] option \'dtype\': the string "f8", expected "f32", "bf16", "f16" or "f64"' },
  { "save: two names that are one", function() weights.save(at "new.safetensors", linear(), { names = function() return "x" end }) end,
    "[weights.save] option 'names': two tensors are called 'x'" },
  { "save: names that are numbers", function() weights.save(at "new.safetensors", linear(), { names = function() return 3 end }) end,
    "[weights.save] option 'names': it made the number 3 of 'weight', expected a name or nil" },
  { "save: no such folder", function() weights.save(at "gone/new.safetensors", linear()) end,
    "[safetensors_save] 'DIR/gone/new.safetensors': cannot be written (No such file or directory)" },
  { "save_pretrained: no config", function() weights.save_pretrained(at "new", linear()) end,
    "[weights.save_pretrained] option 'config': is missing, expected what config.json is to say, such as bert.config(model)" },
  { "save_pretrained: a folder that is there", function() weights.save_pretrained(at "full", linear(), { config = {} }) end,
    "[weights.save_pretrained] 'DIR/full': is there already, expected a new name, or overwrite = true" },
  { "save_pretrained: a file that is there", function() weights.save_pretrained(at "text.bin", linear(), { config = {} }) end,
    "[weights.save_pretrained] 'DIR/text.bin': is a file, expected the name of a new folder" },
  { "save_pretrained: into nowhere", function() weights.save_pretrained(at "gone/new", linear(), { config = {} }) end,
    "[weights.save_pretrained] 'DIR/gone/new': cannot be made (No such file or directory)" },
  { "save_pretrained: a function in the config", function() weights.save_pretrained(at "new", linear(), { config = { a = { print } } }) end,
    "[weights.save_pretrained] option 'config': it.a[1] is a function, which JSON does not have" },
  { "save_pretrained: no tokeniser", function() weights.save_pretrained(at "new", linear(), { config = {}, tokenizer = {} }) end,
    "[weights.save_pretrained] option 'tokenizer': a table, expected a tokeniser of unic.text" },
  { "from_pretrained: a file", function() bert.from_pretrained(at "linear.safetensors") end,
    "[bert.from_pretrained] argument 'path': 'DIR/linear.safetensors' has no config.json, expected a Hugging Face folder", "models/bert.lua" },
  -- looking
  { "inspect: a number", function() unic.inspect(3) end,
    "[inspect] argument 'what': the number 3, expected a path, an open file of weights, a module or a table of tensors" },
  { "inspect: a misspelt option", function() unic.inspect({}, { patern = "x" }) end, "[inspect] there is no option 'patern', did you mean 'pattern'?" },
}

describe("bad weights", function()
  setup(write_files)
  teardown(function() support.remove(dir) end)
  bad.specs(ROWS, function() return { DIR = dir } end)

  it("leave nothing behind", function()
    for _, name in ipairs { "new", "new.safetensors" } do assert.is_nil(lfs.attributes(at(name), "mode"), name) end
    for name in lfs.dir(dir) do assert.is_nil(name:find "%.tmp%-", name) end
  end)

  it("change nothing in the model", function()
    local model = linear()
    local before = { model.weight:detach():clone(), model.bias:detach():clone() }
    for _, name in ipairs { "weight", "wide", "more", "whole", "other" } do
      assert.has_error(function() weights.load(model, at(name .. ".safetensors"), { quiet = true }) end)
    end
    assert.same_bits(before[1], model.weight:detach())
    assert.same_bits(before[2], model.bias:detach())
  end)
end)
