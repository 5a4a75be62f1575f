--- Weights in and out: files of other programs into models, models into files that other programs open.
--
--    local weights = require "unic.weights"
--    weights.load(model, "resnet50.safetensors")                      -- prints what went where; refuses what does not fit
--    local file = weights.open("some/folder")                         -- look into it: file:names(), file:info(name), file:tensor(name)
--    weights.save("mine.safetensors", model)
--
-- Read are safetensors, PyTorch's .pt, .pth and .bin, NumPy's .npy and .npz, shards with an index, Hugging Face's folders, and run folders. Nothing in a
-- file is ever run as a program.
-- @module unic.weights
local weights = {}

--- Open weights of any kind, told by their contents. Headers are read and checked, tensors when they are asked for (safetensors are mapped).
-- @param path a safetensors, PyTorch or NumPy file; an index of shards; a Hugging Face folder (config.json, model.safetensors or pytorch_model.bin, with
-- or without an index); a run folder
-- @return an object with the fields `path`, `kind` ("safetensors", "checkpoint", "torch", "numpy", "sharded", "huggingface", "run"), `files` (their
-- paths), `config` (config.json as a table, or nil), `vocab` (the path of vocab.txt, or nil), and the methods names(), info(name) (-> {dtype, shape,
-- bytes}), metadata(), tensor(name, device), read(name, tensor), data(name), close()
function weights.open(path) return require("unic.weights.file").open(path) end

--- Load a file's weights into a model, by name.
-- The plan is made from the file's header and the model's names; where it does not work out nothing is changed. What is missing, of another shape or left
-- over is an error that lists it, unless it is allowed; classifiers and decoders that a map says the model need not have are reported only. Values are
-- read straight into their parameters; floats of another dtype are converted. A module with the method `adapt(name, t)` may fit a tensor of another
-- shape (position embeddings of another grid; see unic.weights.load).
-- @param model a module, or a part of one: `model.image_encoder`
-- @param path as for `open`, or what `open` returned
-- @param[opt] options `map`: "auto" (chosen by the names found), the name of one in models/names, a function of a name in the file that returns the name
-- in the model, or a table {["name in the file"] = "name in the model"}; `prefix`: only tensors whose names begin so are looked at, the rest of their
-- names counts; `strict` (true); `missing`, `left_over`: lists of patterns for names in the model that may stay as they are, and in the file that may be
-- left; `ignore`: patterns for both, treated as if they were not there; `quiet`: print no report
-- @return a report: `matched`, `total`, `map`, `unverified` (the map was never tried on a real file), `missing`, `mismatched`, `left_over`, `expected`,
-- `adapted`, ...; tostring gives what is printed to stderr
function weights.load(model, path, options) return require("unic.weights.load").load(model, path, options) end

--- Make a model and load its weights, without drawing initial values first where the file has all of them.
-- @param make a function that returns the model; it is run with `meta` as the default device, and once more on the real one where something is missing
-- @param path as for `load`
-- @param[opt] options as for `load`
-- @return the model, the report
function weights.build(make, path, options) return require("unic.weights.load").build(make, path, options) end

--- Save a model's parameters and buffers by name as one safetensors file, which PyTorch users open with safetensors' load_file.
-- A tensor that two modules share is written once. The file gets its name when it is whole.
-- @param path the file
-- @param model a module
-- @param[opt] options `dtype`: floats are written in it ("f32", "bf16", "f16", "f64"); `metadata`: {key = string}; `names`: a function of a name in the
-- model that returns the name in the file, or nil to leave it out
function weights.save(path, model, options) return require("unic.weights.save").save(path, model, options) end

--- Save a model as a folder that Hugging Face's transformers open: model.safetensors, config.json, and with a tokeniser vocab.txt and
-- tokenizer_config.json. The folder gets its name when it is whole.
-- @param folder its path; one that is there is refused unless it is empty
-- @param model a module
-- @param options `config`: what config.json is to say, such as bert.config(model); `tokenizer`: of unic.text; `overwrite`: replace a folder that is there;
-- `dtype`, `names` as for `save`
function weights.save_pretrained(folder, model, options) return require("unic.weights.save").save_pretrained(folder, model, options) end

return weights
