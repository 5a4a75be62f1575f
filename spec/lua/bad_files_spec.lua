-- Bad files and what reads them: vocabularies, command lines, pictures, tables, weights, data sets, prompts, runs.
-- Each has its sentence at the line of the call. DIR stands for a temporary folder.
local unic = require "unic"
local lfs = require "lfs"
local data = require "unic.data"
local files = require "unic.files"
local nn = require "unic.nn"
local options = require "unic.options"
local testing = require "unic.testing"
local text = require "unic.text"
local zeroshot = require "unic.zeroshot"
local bad = require "spec.support.bad_calls"
local support = require "spec.support.files"

local dir
local function at(name) return dir .. "/" .. name end
local function put(name, bytes) return support.write(at(name), bytes) end

-- A file of unic.save with such a text; written by the row itself, as many rows share its name.
local function put_value(name)
  return function(value)
    files.safetensors_save(at(name), {}, { ["unic.value"] = value })
    return at(name)
  end
end

local HEADER, VOCABULARY = "image,report,language\n", { "[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "no", "effusion", "##s" }

-- The files that rows read; a.png is a good picture.
local function write_files()
  dir = support.folder()
  files.write_png(at "a.png", unic.ones(8, 8, { dtype = "u8" }))
  local png = support.read(at "a.png")
  files.safetensors_save(at "good.safetensors", { weight = unic.ones(2, 2), bias = unic.ones(2) })
  local weights = support.read(at "good.safetensors")
  put("cut.png", png:sub(1, #png - 20))
  put("start.png", png:sub(1, 12))
  put("crc.png", (png:gsub("IDAT(.)", function(c) return "IDAT" .. string.char((c:byte() + 1) % 256) end)))
  put("magic.png", "MZ" .. png)
  put("empty.png", "")
  local function sized(width, height)
    local body = "IHDR" .. support.little_endian(width, 4):reverse() .. support.little_endian(height, 4):reverse() .. png:sub(25, 29)
    return png:sub(1, 12) .. body .. support.little_endian(support.crc32(body), 4):reverse() .. png:sub(34)
  end
  put("zero.png", sized(0, 8))
  put("absurd.png", sized(2 ^ 30, 2 ^ 30))
  put("cut.jpg", support.jpeg.grey:sub(1, 100))
  put("garbage.jpg", "\255\216\255\224" .. ("junk"):rep(20))
  put("empty.csv", "")
  put("header.csv", HEADER)
  put("column.csv", "image,text,language\na.png,x,en\n")
  put("quote.csv", HEADER .. 'a.png,"no end,en\n')
  put("language.csv", HEADER .. "a.png,words,english\n")
  put("missing.csv", HEADER .. "a.png,words\n")
  put("latin1.csv", HEADER .. "a.png,caf\233,en\n")
  put("utf16.csv", "\255\254i\0m\0a\0g\0e\0")
  put("twice.csv", "image,image,report,language\na.png,a.png,x,en\n")
  put("image.csv", HEADER .. ",words,en\n")
  put("good.csv", "\239\187\191" .. HEADER .. "a.png,some words,en\n")
  put("cut.safetensors", weights:sub(1, #weights - 3))
  put("short.safetensors", weights:sub(1, 4))
  put("length.safetensors", "\255\255\255\255\0\0\0\0{}")
  put("json.safetensors", support.little_endian(5, 8) .. "{nope")
  local function four_bytes(header) return support.little_endian(#header, 8) .. header .. "1234" end
  put("dtype.safetensors", four_bytes '{"w":{"dtype":"F8","shape":[4],"data_offsets":[0,4]}}')
  put("offsets.safetensors", four_bytes '{"w":{"dtype":"F32","shape":[4],"data_offsets":[0,4]}}')
  put("vocab.txt", table.concat(VOCABULARY, "\n") .. "\n")
  put("no_unk.txt", "[PAD]\n[CLS]\n[SEP]\na\n")
  put("empty.txt", "")
  put("twice.txt", "[PAD]\n[UNK]\n[CLS]\n[SEP]\na\na\n")
  put("gap.txt", "[PAD]\n[UNK]\n\n[CLS]\n[SEP]\n")
  put("latin1.txt", "[PAD]\n[UNK]\n[CLS]\n[SEP]\ncaf\233\n")
  put("prompts.csv", "set,finding,language,text\nrich,mass,en,a mass\n")
  put("prompt_row.csv", "set,finding,language,polarity,text\nrich,mass\n")
  lfs.mkdir(at "plain")
  lfs.mkdir(at "broken")
  put("broken/run.lua", "return {")
  lfs.mkdir(at "strange")
  put("strange/run.lua", "return 3")
end

local tokenizer = text.wordpiece(VOCABULARY)
local function rows() return data.open({ { image = unic.ones(8, 8, { dtype = "u8" }), report = "no effusion" } }, { size = 8 }) end
local function batches(o) return data.batches(rows(), o) end
local function option(list) return options.parse(list, {}) end
local LIST = { { "tau", 0.07, "t" }, { "vision", "resnet", "v", choices = { "resnet", "vit" } }, presets = { small = {} } }
-- A recipe's options, with these words on its command line.
local function command(words)
  rawset(_G, "arg", words)
  return options(LIST)
end

local ROWS = {
  -- vocabularies and tokenizers
  { "wordpiece: nothing", function() text.wordpiece() end,
    "[wordpiece] argument 'vocabulary': nil, expected the path of a vocabulary file or a list of tokens" },
  { "wordpiece: no such file", function() text.wordpiece(at "nowhere.txt") end,
    "[wordpiece] argument 'vocabulary': cannot open DIR/nowhere.txt: No such file or directory; expected a text file with one token ..." },
  { "wordpiece: a folder", function() text.wordpiece(dir) end,
    "[wordpiece] argument 'vocabulary': cannot read DIR: Is a directory; expected a text file with one token a line" },
  { "wordpiece: without [UNK]", function() text.wordpiece(at "no_unk.txt") end,
    "[wordpiece] argument 'vocabulary': DIR/no_unk.txt has no [UNK] among its 4 tokens; a BERT vocabulary has [PAD], [UNK], [CLS] ..." },
  { "wordpiece: an empty file", function() text.wordpiece(at "empty.txt") end,
    "[wordpiece] argument 'vocabulary': DIR/empty.txt is empty; expected a text file with one token a line" },
  { "wordpiece: an empty list", function() text.wordpiece {} end,
    "[wordpiece] argument 'vocabulary': the list is empty; expected a text file with one token a line" },
  { "wordpiece: a token twice", function() text.wordpiece(at "twice.txt") end,
    "[wordpiece] argument 'vocabulary': line 6 of DIR/twice.txt repeats the token 'a' of line 5; every token stands once" },
  { "wordpiece: an empty line", function() text.wordpiece(at "gap.txt") end,
    "[wordpiece] argument 'vocabulary': line 3 of DIR/gap.txt is empty; every line is one token, since its number is the token's id" },
  { "wordpiece: not UTF-8", function() text.wordpiece(at "latin1.txt") end,
    "[wordpiece] argument 'vocabulary': DIR/latin1.txt is not UTF-8 (byte 0xE9 in line 5); expected a text file with one token a line" },
  { "wordpiece: a number among the tokens", function() text.wordpiece { "[PAD]", 3 } end,
    "[wordpiece] argument 'vocabulary': item 2 is not a token, expected a string without a line's end" },
  { "wordpiece: a misspelt option", function() text.wordpiece(VOCABULARY, { lower_case = true }) end,
    "[wordpiece] there is no option 'lower_case', did you mean 'lowercase'?" },
  { "wordpiece: an option of another kind", function() text.wordpiece(VOCABULARY, { lowercase = "yes" }) end,
    "[wordpiece] option 'lowercase': the string \"yes\", expected a boolean" },
  { "encode: a number", function() tokenizer:encode(3) end, "[encode] argument 'text': the number 3, expected a string" },
  { "encode: too few tokens", function() tokenizer:encode("no", { max_length = 1 }) end,
    "[encode] option 'max_length': 1, expected a whole number from 2 on, because [CLS] and [SEP] count" },
  { "encode: half a token", function() tokenizer:encode("no", { max_length = 2.5 }) end,
    "[encode] option 'max_length': 2.5, expected a whole number from 2 on, because [CLS] and [SEP] count" },
  { "batch: a string", function() tokenizer:batch "no" end, "[batch] argument 'texts': the string \"no\", expected a table" },
  { "batch: an empty list", function() tokenizer:batch {} end,
    "[batch] argument 'texts': is empty, expected a list of at least one string" },
  { "batch: a number among the texts", function() tokenizer:batch { "no", 3 } end,
    "[batch] argument 'texts': item 2 is the number 3, expected a string" },
  { "batch: multiple of 0", function() tokenizer:batch({ "no" }, { multiple = 0 }) end,
    "[batch] option 'multiple': 0, expected 1 to 65536" },
  { "decode: a string", function() tokenizer:decode "no" end,
    "[decode] argument 'ids': the string \"no\" was given, expected a list of ids or an integer tensor" },
  { "decode: floats", function() tokenizer:decode(unic.ones(3)) end,
    "[decode] argument 'ids': the tensor f32 [3] on cpu was given, expected a list of ids or an i64 or i32 tensor of one dimension ..." },
  { "decode: a word among the ids", function() tokenizer:decode { 5, "no" } end,
    "[decode] argument 'ids': the string \"no\" at position 2, expected token ids" },
  { "decode: a negative id", function() tokenizer:decode { -1 } end,
    "[decode] argument 'ids': -1 at position 1 is no id of the vocabulary, expected 0 to 7" },
  { "token: a word", function() tokenizer:token "no" end, "[token] argument 'id': the string \"no\", expected an integer" },
  { "id: a number", function() tokenizer:id(3) end, "[id] argument 'token': the number 3, expected a string" },
  { "tokens: nil", function() tokenizer:tokens() end, "[tokens] argument 'text': nil, expected a string" },
  { "words: a table", function() tokenizer:words {} end, "[words] argument 'text': a table, expected a string" },
  { "save: a folder that is not there", function() tokenizer:save(at "nowhere/vocab.txt") end,
    "[output] 'DIR/nowhere/vocab.txt': cannot be written (No such file or directory)" },
  -- command lines and lists of options
  { "an unknown option", function() command { "--zzzzzzzz", "3" } end,
    "[options] unknown option '--zzzzzzzz'; --help lists what there is" },
  { "a misspelt option", function() command { "--visoin=vit" } end, "[options] unknown option '--visoin', did you mean '--vision'?" },
  { "a number that is a word", function() command { "--tau", "warm" } end, "[options] --tau: 'warm' was given, expected a number" },
  { "a whole number that is not", function() command { "--steps", "1.5" } end,
    "[options] --steps: '1.5' was given, expected a whole number of at least 0" },
  { "a number out of range", function() command { "--batch", "0" } end,
    "[options] --batch: '0' was given, expected a whole number of at least 1" },
  { "a choice there is not", function() command { "--vision", "vot" } end,
    "[options] --vision: 'vot' was given, expected one of resnet, vit (did you mean 'vit'?)" },
  { "an option without its value", function() command { "--tau" } end, "[options] '--tau' requires an argument" },
  { "a switch with a value", function() command { "--strict=3" } end,
    "[options] --strict: '3' was given, expected --strict or --no-strict" },
  { "no- before what is no switch", function() command { "--no-tau" } end, "[options] --no-tau: 'tau' is no switch, it takes a value" },
  { "a value without an option", function() command { "hello" } end,
    "[options] 'hello' was given where no value is expected; --help lists the options" },
  { "one dash", function() command { "-t" } end, "[options] unknown option '-t'; options have two dashes, --help lists them" },
  { "a preset there is not", function() command { "--preset", "big" } end, "[options] --preset: 'big' was given, there are: small" },
  { "options: no list", function() option(3) end, "[options] a number was given, expected a list of {name, default, words}" },
  { "options: an entry twice", function() option { { "tau", 1, "" }, { "tau", 2, "" } } end, "[options] 'tau' is listed twice" },
  { "options: a name of two words", function() option { { "two words", 1, "" } } end,
    "[options] entry 1: its name is two words, expected a word of letters, digits and underscores" },
  { "options: a field there is not", function() option { { "tau", 1, "", coices = {} } } end,
    "[options] 'tau': there is no field 'coices'" },
  { "options: an entry that is a string", function() option { "tau" } end,
    "[options] entry 1: the string \"tau\", expected {name, default, words}" },
  { "options: words that are a number", function() option { { "tau", 1, 3 } } end,
    "[options] 'tau': its words are the number 3, expected a string" },
  { "options: choices that are a string", function() option { { "tau", "a", "t", choices = "ab" } } end,
    "[options] 'tau': its field 'choices' is the string \"ab\", expected a table" },
  { "options: a bound that is a word", function() option { { "tau", 1, "t", least = "zero" } } end,
    "[options] 'tau': its field 'least' is the string \"zero\", expected a number" },
  { "options: presets that are no tables", function() option { { "tau", 1, "" }, presets = { small = 3 } } end,
    "[options] the preset 'small' is the number 3, expected {name = value}" },
  { "options: a preset for no option", function() option { { "tau", 1, "" }, presets = { small = { tua = 1 } } } end,
    "[options] the preset 'small' has a value for 'tua', which is no option" },
  { "options: a function for a default", function() option { { "tau", print, "" } } end,
    "[options] 'tau': a default of type function was given, expected a string, number, boolean or list" },
  { "options: a misspelt name when it is read", function() local _ = command({}).taw end,
    "[options] there is no option 'taw', did you mean 'tau'?" },
  -- pictures
  { "read_image: nothing", function() files.read_image() end, "[read_image] argument 'path': nil, expected a string" },
  { "read_image: no such file", function() files.read_image(at "nowhere.png") end,
    "[read_image] 'DIR/nowhere.png': cannot be read (No such file or directory)" },
  { "read_image: a folder", function() files.read_image(dir) end, "[read_image] 'DIR': is a folder, expected a file" },
  { "read_image: a cut PNG", function() files.read_image(at "cut.png") end,
    "[read_image] 'DIR/cut.png': the PNG picture is damaged (the file ends early)" },
  { "read_image: the start of a PNG", function() files.read_image(at "start.png") end,
    "[read_image] 'DIR/start.png': the PNG picture is damaged (the file ends early)" },
  { "read_image: damaged data", function() files.read_image(at "crc.png") end,
    "[read_image] 'DIR/crc.png': the PNG picture is damaged (IDAT: incorrect header check)" },
  { "read_image: another magic number", function() files.read_image(at "magic.png") end,
    "[read_image] 'DIR/magic.png': is not a picture that can be read (its first bytes are 4d 5a 89), expected PNG or JPEG" },
  { "read_image: an empty file", function() files.read_image(at "empty.png") end,
    "[read_image] 'DIR/empty.png': is empty, expected a PNG or JPEG picture" },
  { "read_image: no width", function() files.read_image(at "zero.png") end,
    "[read_image] 'DIR/zero.png': the PNG picture is damaged (Invalid IHDR data)" },
  { "read_image: absurdly large", function() files.read_image(at "absurd.png") end,
    "[read_image] 'DIR/absurd.png': a PNG file of 73 bytes cannot hold 1073741824 x 1073741824 pixels, it is cut or damaged" },
  { "read_image: a cut JPEG", function() files.read_image(at "cut.jpg") end,
    "[read_image] 'DIR/cut.jpg': the JPEG file ends early, after 100 bytes" },
  { "read_image: garbage after a JPEG's first bytes", function() files.read_image(at "garbage.jpg") end,
    "[read_image] 'DIR/garbage.jpg': the JPEG file ends early, after 84 bytes" },
  { "read_image: an option of another kind", function() files.read_image(at "a.png", { grey = 1 }) end,
    "[read_image] option 'grey': the number 1, expected a boolean" },
  { "read_image: a zero byte in the path", function() files.read_image "a\0b" end,
    "[read_image] argument 'path': holds a zero byte, expected the name of a file" },
  { "read_image: an empty path", function() files.read_image "" end,
    "[read_image] argument 'path': is empty, expected the name of a file" },
  { "decode_image: text", function() files.decode_image("no picture", { name = "mine" }) end,
    "[decode_image] 'mine': is not a picture that can be read (its first bytes are 6e 6f 20), expected PNG or JPEG" },
  { "decode_image: a table", function() files.decode_image {} end, "[decode_image] argument 'data': a table, expected a string" },
  { "write_png: floats", function() files.write_png(at "new.png", unic.ones(4, 4)) end,
    "[write_png] argument 'data': f32 [4, 4] on cpu was given, expected u8 (8 bits) or i32 (16 bits) of shape [H, W], [1, H, W] or ..." },
  { "write_png: four channels", function() files.write_png(at "new.png", unic.ones(4, 4, 4, { dtype = "u8" })) end,
    "[write_png] argument 'data': u8 [4, 4, 4] on cpu was given, expected u8 (8 bits) or i32 (16 bits) of shape [H, W], [1, H, W] or ..." },
  { "write_png: bytes without a size", function() files.write_png(at "new.png", "abc") end,
    "[write_png] option 'width': is missing, expected the size of the picture" },
  { "write_png: too few bytes", function() files.write_png(at "new.png", "abc", { width = 2, height = 2 }) end,
    "[write_png] argument 'data': a string of 3 bytes, expected 4 for 2 x 2 pixels, 1 channels, 8 bits" },
  { "write_png: half a pixel", function() files.write_png(at "new.png", "abc", { width = 1.5, height = 2 }) end,
    "[write_png] option 'width': 1.5, expected a whole number of at least 1" },
  { "write_png: a word for a size", function() files.write_png(at "new.png", "abc", { width = "wide", height = 2 }) end,
    "[write_png] option 'width': the string \"wide\", expected a number" },
  { "write_png: nothing to write", function() files.write_png(at "new.png", nil, { width = 1, height = 1 }) end,
    "[write_png] argument 'data': nil, expected a picture, a tensor, a string or a pointer" },
  { "a picture that was freed", function() local p = files.read_image(at "a.png") p:free() p:width() end,
    "[image] argument 'self': it was freed" },
  -- tables
  { "read_csv: no such file", function() files.read_csv(at "nowhere.csv") end,
    "[read_csv] 'DIR/nowhere.csv': cannot be read (No such file or directory)" },
  { "read_csv: an empty file", function() files.read_csv(at "empty.csv") end,
    "[read_csv] 'DIR/empty.csv': is empty, expected a header line and rows" },
  { "read_csv: a missing column", function() files.read_csv(at "column.csv", { columns = { "image", "report" } }) end,
    "[read_csv] 'DIR/column.csv': has no column 'report'; its header names 'image', 'text', 'language'" },
  { "read_csv: UTF-16", function() files.read_csv(at "utf16.csv") end,
    "[read_csv] 'DIR/utf16.csv': is UTF-16 text, expected CSV in UTF-8" },
  { "read_csv: an unclosed quote, strict", function() files.read_csv(at "quote.csv", { strict = true }) end,
    "[read_csv] 'DIR/quote.csv' row 2: field 2 opens a quote that is never closed" },
  { "read_csv: a cell too few, strict", function() files.read_csv(at "missing.csv", { strict = true }) end,
    "[read_csv] 'DIR/missing.csv' row 2: 2 fields, the header has 3" },
  { "read_csv: a column twice", function() files.read_csv(at "twice.csv", { columns = { "image" } }) end,
    "[read_csv] 'DIR/twice.csv': the header names column 'image' 2 times" },
  { "read_csv: a column's name that is a number", function() files.read_csv(at "good.csv", { columns = { image = 3 } }) end,
    "[read_csv] option 'columns': a column's name is a number, expected a string" },
  { "get: a column there is not", function() files.read_csv(at "good.csv"):get(1, "imag") end,
    "[csv] 'DIR/good.csv': no column 'imag' was read, did you mean 'image'?" },
  { "get: a row there is not", function() files.read_csv(at "good.csv"):get(2, "image") end,
    "[csv] argument 'row': 2, expected a whole number from 1 to 1" },
  { "get: a row that is a word", function() files.read_csv(at "good.csv"):get("first", "image") end,
    "[csv] argument 'row': the string \"first\", expected a whole number from 1 to 1" },
  { "row_number: nothing", function() files.read_csv(at "good.csv"):row_number() end,
    "[csv] argument 'row': nil, expected a whole number from 1 to 1" },
  { "write_csv: rows that are a number", function() files.write_csv(at "new.csv", { "a" }, 3) end,
    "[write_csv] argument 'rows': a number, expected a list or a function" },
  { "write_csv: no names", function() files.write_csv(at "new.csv") end,
    "[write_csv] argument 'names': nil, expected a list of column names" },
  { "write_csv: a row that is a number", function() files.write_csv(at "new.csv", { "a" }, { 3 }) end,
    "[write_csv] a row is a number, expected a table" },
  { "write_csv: a cell that is a table", function() files.write_csv(at "new.csv", { "a" }, { { {} } }) end,
    "[write_csv] a cell is a table, expected a string, number, boolean or nil" },
  { "write_csv: a column there is not", function() files.write_csv(at "new.csv", { "word" }, { { wrod = 1 } }) end,
    "[write_csv] a row has a value for 'wrod', the header has no such column, did you mean 'word'?" },
  { "append_csv: another header", function() files.append_csv(at "good.csv", { "image" }) end,
    "[append_csv] 'DIR/good.csv': its header is '\239\187\191image,report,language', expected 'image'" },
  { "append_csv: names that are a string", function() files.append_csv(at "new.csv", "image") end,
    "[append_csv] argument 'names': the string \"image\", expected a list of column names" },
  { "write_file: a table", function() files.write_file(at "new.txt", {}) end, "[write_file] argument 'text': a table, expected a string" },
  -- weights
  { "safetensors_open: no such file", function() files.safetensors_open(at "nowhere.safetensors") end,
    "[safetensors_open] 'DIR/nowhere.safetensors': cannot be read (No such file or directory)" },
  { "safetensors_open: cut data", function() files.safetensors_open(at "cut.safetensors") end,
    "[safetensors_open] 'DIR/cut.safetensors': tensor 'weight': its data are bytes 8 to 24, the file holds 21 (is it cut?)" },
  { "safetensors_open: too short for a header", function() files.safetensors_open(at "short.safetensors") end,
    "[safetensors_open] 'DIR/short.safetensors': is not a safetensors file (it has 4 bytes)" },
  { "safetensors_open: a header longer than the file", function() files.safetensors_open(at "length.safetensors") end,
    "[safetensors_open] 'DIR/length.safetensors': is not a safetensors file (its first bytes are no header's length and '{')" },
  { "safetensors_open: a header that is no JSON", function() files.safetensors_open(at "json.safetensors") end,
    "[safetensors_open] 'DIR/json.safetensors': byte 2: expected a key in quotes" },
  { "safetensors_open: a dtype there is not", function() files.safetensors_open(at "dtype.safetensors"):tensor "w" end,
    "[safetensors] 'DIR/dtype.safetensors': tensor 'w': has dtype F8, expected F32, BF16, F16, F64, I64, I32, I16, I8, U8, U16, U32 or BOOL" },
  { "safetensors_open: a shape beyond its data", function() files.safetensors_open(at "offsets.safetensors") end,
    "[safetensors_open] 'DIR/offsets.safetensors': tensor 'w': its shape and dtype F32 ask for 16 bytes, its data_offsets give 4" },
  { "safetensors_open: a picture", function() files.safetensors_open(at "a.png") end,
    "[safetensors_open] 'DIR/a.png': is not a safetensors file (its first bytes are no header's length and '{')" },
  { "safetensors: a tensor there is not", function() files.safetensors_open(at "good.safetensors"):tensor "wieght" end,
    "[safetensors] 'DIR/good.safetensors': has no tensor 'wieght', did you mean 'weight'?" },
  { "safetensors: into another shape", function() files.safetensors_open(at "good.safetensors"):read("weight", unic.ones(3)) end,
    "[safetensors] 'DIR/good.safetensors': tensor 'weight': its shape is [2, 2], expected [3]" },
  { "safetensors: into a number", function() files.safetensors_open(at "good.safetensors"):read("weight", 3) end,
    "[safetensors] argument 'tensor': the number 3 was given, expected a tensor" },
  { "safetensors: a name that is a number", function() files.safetensors_open(at "good.safetensors"):tensor(1) end,
    "[safetensors] argument 'name': the number 1, expected a string" },
  { "safetensors: after it was closed", function() local f = files.safetensors_open(at "good.safetensors") f:close() f:tensor "bias" end,
    "[safetensors] argument 'file': it was closed" },
  { "safetensors_save: no tensors", function() files.safetensors_save(at "new.safetensors", 3) end,
    "[safetensors_save] argument 'tensors': a number was given, expected {name = tensor}" },
  { "safetensors_save: a number", function() files.safetensors_save(at "new.safetensors", { a = 3 }) end,
    "[safetensors_save] tensor 'a': a number was given, expected a tensor" },
  { "safetensors_save: a list", function() files.safetensors_save(at "new.safetensors", { unic.ones(1) }) end,
    "[safetensors_save] argument 'tensors': a name is a number, expected a string" },
  -- unic.save and unic.load
  { "save: a number as the path", function() unic.save(1, {}) end, "[save] argument 'path': the number 1, expected a string" },
  { "save: no path", function() unic.save("", {}) end, "[safetensors_save] argument 'path': is empty, expected the name of a file" },
  { "save: nothing", function() unic.save(at "new.safetensors") end, "[save] argument 'value': nil, expected a tensor or a table" },
  { "save: a folder there is not", function() unic.save(at "elsewhere/new.safetensors", {}) end,
    "[safetensors_save] 'DIR/elsewhere/new.safetensors': cannot be written (No such file or directory)" },
  { "save: a function in it", function() unic.save(at "new.safetensors", { fns = { print } }) end,
    "[save] value.fns[1] is a function, expected tensors, plain tables, strings, numbers and booleans" },
  { "save: a module in it", function() unic.save(at "new.safetensors", { ["my net"] = nn.Linear(1, 1) }) end,
    '[save] value["my net"] is a table with a metatable (save its :state_dict()), expected tensors, plain tables, strings, numbers and booleans' },
  { "save: a table of a class", function() unic.save(at "new.safetensors", setmetatable({}, {})) end,
    "[save] value is a table with a metatable, expected tensors, plain tables, strings, numbers and booleans" },
  { "save: a tensor as a key", function() unic.save(at "new.safetensors", { x = { [unic.ones(1)] = 1 } }) end,
    "[save] value.x has a key that is a tensor, expected strings, numbers and booleans as keys" },
  { "load: a table as the path", function() unic.load {} end, "[load] argument 'path': a table, expected a string" },
  { "load: no such file", function() unic.load(at "none.safetensors") end,
    "[weights.open] 'DIR/none.safetensors': there is no such file or folder" },
  { "load: an option there is not", function() unic.load(at "good.safetensors", { devise = "cpu" }) end,
    "[load] there is no option 'devise', did you mean 'device'?" },
  { "load: a device there is not", function() unic.load(at "good.safetensors", { device = "vulkan" }) end,
    "[device] argument 'device': there is no device 'vulkan' in this build, expected one of: cpu, meta ..." },
  { "load: no JSON", function() unic.load(put_value "bad.safetensors" "{nope") end,
    "[load] 'DIR/bad.safetensors': its 'unic.value' in the metadata is not what unic.save writes" },
  { "load: a later format", function() unic.load(put_value "bad.safetensors" '{"format":2,"root":1,"tables":[]}') end,
    "[load] 'DIR/bad.safetensors': its 'unic.value' has the format 2, this version reads 1" },
  { "load: null", function() unic.load(put_value "bad.safetensors" '{"format":1,"root":null,"tables":[]}') end,
    "[load] 'DIR/bad.safetensors': its 'unic.value' holds null, where a value should be" },
  { "load: a table that is not there", function() unic.load(put_value "bad.safetensors" '{"format":1,"root":{"table":2},"tables":[{"list":[],"pairs":[]}]}') end,
    "[load] 'DIR/bad.safetensors': its 'unic.value' names table 2 of 1" },
  { "load: a tensor that is not there", function() unic.load(put_value "bad.safetensors" '{"format":1,"root":{"tensor":"x"},"tables":[]}') end,
    "[load] 'DIR/bad.safetensors': its 'unic.value' names a tensor 'x', which the file does not have" },
  { "load: a number that is none", function() unic.load(put_value "bad.safetensors" '{"format":1,"root":{"number":"one"},"tables":[]}') end,
    "[load] 'DIR/bad.safetensors': its 'unic.value' holds 'one' as a number" },
  { "load: an object of something else", function() unic.load(put_value "bad.safetensors" '{"format":1,"root":{"bytes":"f"},"tables":[]}') end,
    "[load] 'DIR/bad.safetensors': its 'unic.value' holds an object that says nothing this version knows" },
  { "load: a table of something else", function() unic.load(put_value "bad.safetensors" '{"format":1,"root":1,"tables":[{"list":[]}]}') end,
    "[load] 'DIR/bad.safetensors': its 'unic.value' has a table 1 without list and pairs" },
  { "load: nan as a key", function() unic.load(put_value "bad.safetensors" '{"format":1,"root":1,"tables":[{"list":[],"pairs":[[{"number":"nan"},1]]}]}') end,
    "[load] 'DIR/bad.safetensors': its 'unic.value' has a table 1 with a key that cannot be one" },
  { "safetensors_save: metadata that is a number", function() files.safetensors_save(at "new.safetensors", {}, { step = 1 }) end,
    "[safetensors_save] metadata 'step': a number, expected strings as keys and values" },
  { "safetensors_save: no such folder", function() files.safetensors_save(at "nowhere/new.safetensors", { a = unic.ones(1) }) end,
    "[safetensors_save] 'DIR/nowhere/new.safetensors': cannot be written (No such file or directory)" },
  -- data sets
  { "open: nothing", function() data.open() end,
    "[open] argument 'what': nil, expected \"phantom\", a CSV file, a folder with data.csv, a table of rows or a function" },
  { "open: no such file", function() data.open(at "nowhere.csv") end,
    "[open] 'DIR/nowhere.csv': there is no such file or folder, expected a CSV file, a folder with data.csv, or \"phantom\"" },
  { "open: a misspelt set", function() data.open "phantm" end,
    "[open] 'phantm': there is no such file or folder, did you mean 'phantom'?" },
  { "open: a folder without data.csv", function() data.open(at "plain") end, "[open] 'DIR/plain': is a folder without data.csv" },
  { "open: a header and no rows", function() data.open(at "header.csv") end, "[open] 'DIR/header.csv': has no rows" },
  { "open: a column is missing", function() data.open(at "good.csv", { columns = { report = "Report" } }) end,
    "[read_csv] 'DIR/good.csv': has no column 'Report'; its header names 'image', 'report', 'language'" },
  { "open: a quote that is not closed", function() data.open(at "quote.csv") end,
    "[open] 'DIR/quote.csv': no row can be used; the first of 1 that are wrong is row 2: field 2 opens a quote that is never closed" },
  { "open: a language that is no code", function() data.open(at "language.csv") end,
    "[open] 'DIR/language.csv': no row can be used; the first of 1 that are wrong is row 2: 'a.png': language 'english', expected ..." },
  { "open: a row without a picture", function() data.open(at "image.csv") end,
    "[open] 'DIR/image.csv': no row can be used; the first of 1 that are wrong is row 2: column 'image' is empty" },
  { "open: a report that is not UTF-8", function() data.open(at "latin1.csv") end,
    "[open] 'DIR/latin1.csv': no row can be used; the first of 1 that are wrong is row 2: column 'report' is not UTF-8 (byte 0xE9)" },
  { "open: strict, a language that is no code", function() data.open(at "language.csv", { strict = true }) end,
    "[open] 'DIR/language.csv' row 2 ('a.png'): language 'english', expected two letters such as en or es" },
  { "open: a split there is not", function() data.open(at "good.csv", { split = "exam" }) end,
    "[open] 'DIR/good.csv': has no column 'split'; by patient there are train, val and test, not 'exam'" },
  { "open: columns for nothing", function() data.open(at "good.csv", { columns = { picture = "image" } }) end,
    "[open] option 'columns': there is no 'picture'; there are image, report, language, patient, labels, split" },
  { "open: a misspelt option", function() data.open(at "good.csv", { spilt = "train" }) end,
    "[open] there is no option 'spilt', did you mean 'split'?" },
  { "open: a size that is a word", function() data.open(at "good.csv", { size = "big" }) end,
    "[open] option 'size': the string \"big\", expected an integer" },
  { "open: a size of 0", function() data.open(at "good.csv", { size = 0 }) end, "[open] option 'size': 0, expected 1 to 16384" },
  { "open: an option of another kind of set", function() data.open(at "good.csv", { studies = 3 }) end,
    "[open] option 'studies' means nothing for a CSV file" },
  { "open: shares above 1", function() data.open(at "good.csv", { val = 0.7, test = 0.7 }) end,
    "[open] options 'val' and 'test': together 1.4, expected at most 1" },
  { "open: a row that is a number", function() data.open { 3 } end,
    "[open] row 1: a number was given, expected a table such as {image = \"a.png\", report = \"...\"}" },
  { "open: a row with an unknown key", function() data.open { { imgae = "a.png" } } end,
    "[open] there is no option 'imgae', did you mean 'image'?" },
  { "open: no rows", function() data.open {} end, "[open] 'the table': has no rows" },
  { "open: a function without a number of items", function() data.open(print) end,
    "[open] option 'n': is missing, expected the number of items of the function" },
  { "open: a function without a size", function() data.open(print, { n = 3 }) end,
    "[open] option 'size': is missing, expected the width and height of the pictures" },
  { "open: phantom with a size of a word", function() data.open("phantom", { studies = "many" }) end,
    "[open] option 'studies': the string \"many\", expected an integer" },
  { "open: a generator there is not", function() data.open { module = "nowhere" } end, "[open] 'nowhere': there is no such module" },
  { "item: beyond the end", function() rows():report(2) end,
    "[report] argument 'i': the number 2 was given, expected an item from 1 to 1" },
  { "item: a word", function() rows():image "first" end,
    "[image] argument 'i': the string \"first\" was given, expected an item from 1 to 1" },
  { "item: nothing", function() rows():labels() end, "[labels] argument 'i': nil was given, expected an item from 1 to 1" },
  { "a function that gives a number", function() data.open(function() return 3 end, { n = 1, size = 8 }):image(1) end,
    "[open] item 1: the function gave a number, expected a tensor or a table such as {image =, report =}" },
  { "a function that gives a picture of another size",
    function() data.open(function() return unic.ones(4, 4) end, { n = 1, size = 8 }):image(1) end,
    "[open] item 1: its image is [4, 4], expected [1, 8, 8] (options 'channels' and 'size')" },
  { "batches: a list", function() data.batches { 1, 2 } end,
    "[batches] argument 'ds': a table was given, expected a data set that data.open gave" },
  { "batches: a batch of 0", function() batches { batch = 0 } end, "[batches] option 'batch': 0, expected 1 to 16777216" },
  { "batches: a misspelt option", function() batches { bacth = 2 } end, "[batches] there is no option 'bacth', did you mean 'batch'?" },
  { "batches: a word for the batch", function() batches { batch = "large" } end,
    "[batches] option 'batch': the string \"large\", expected an integer" },
  { "batches: two channels", function() batches { channels = 2 } end, "[batches] option 'channels': 2, expected 1 or 3" },
  { "batches: a view that is a string", function() batches { views = { image = "normalize" } } end,
    "[batches] view 'image': a string was given, expected a list of steps such as {\"random_crop\", 224}" },
  { "batches: a step there is not", function() batches { views = { image = { { "normalise", 0.5, 0.5 } } } } end,
    "[batches] view 'image', step 1: there is no step 'normalise', did you mean 'normalize'?" },
  { "batches: a step's value that is a word", function() batches { views = { image = { { "rotate", "left" } } } } end,
    "[batches] view 'image', step 1 (rotate): 'low' is a string, expected a number" },
  { "batches: a step with too many values", function() batches { views = { image = { { "normalize", 1, 2, 3, 4 } } } } end,
    "[batches] view 'image', step 1 (normalize): 3 values were given, it takes 2: mean, deviation" },
  { "batches: a view called like a field", function() batches { views = { tokens = {} } } end,
    "[batches] option 'views': a view cannot be called 'tokens', a batch has a field of that name" },
  { "batches: a tokenizer that is a path", function() batches { tokenizer = at "vocab.txt" } end,
    "[batches] option 'tokenizer': the string \"DIR/vocab.txt\", expected a table" },
  { "batches: a tokenizer that is a table", function() batches { tokenizer = {} } end,
    "[batches] option 'tokenizer': a table was given, expected what unic.text.wordpiece gave" },
  { "batches: text without a tokenizer", function() batches { text = "report" } end,
    "[batches] option 'text': is given without the option 'tokenizer'" },
  { "batches: a text there is not", function() batches { tokenizer = tokenizer, text = "raport" } end,
    "[batches] option 'text': 'raport', expected \"report\", \"sample\" or a function, did you mean 'report'?" },
  { "batches: start of another seed", function() batches { start = { epoch = 0, position = 0, seed = 9 } } end,
    "[batches] option 'start': it belongs to seed 9, the option 'seed' is 0" },
  { "batches: a start that is negative", function() batches { start = -1 } end,
    "[batches] option 'start': epoch 0, position -1, expected whole numbers from 0 on" },
  { "batches: a rank beyond the ranks", function() batches { rank = 2, ranks = 2 } end, "[batches] option 'rank': 2, expected 0 to 1" },
  { "batches: a device there is not", function() batches({ device = "fpga", drop_last = false }):next() end,
    "[device] argument 'device': there is no device 'fpga' in this build, expected one of: cpu, meta ..." },
  { "apply: a table", function() data.apply({}, { 1 }) end,
    "[apply] argument 'image': a table was given, expected a tensor [H, W] or [C, H, W]" },
  { "apply: a crop beyond the picture", function() data.apply({ { "random_crop", 99 } }, unic.ones(8, 8)) end,
    "[apply] view 'image', step 1 (random_crop): a piece of 99 x 99 pixels does not fit into a picture of 8 x 8" },
  { "apply: a lua step without a function", function() data.apply({ { "lua", "mine" } }, unic.ones(8, 8)) end,
    "[apply] view 'image', step 1 (lua): expected {\"lua\", \"module\", \"function\", args}" },
  { "prepare: floats", function() data.prepare(unic.ones(8, 8), 4) end,
    "[prepare] a picture is f32 [8, 8] on cpu, expected u8 or i32 (16 bits) of shape [H, W]" },
  { "prepare: no size", function() data.prepare(unic.ones(8, 8, { dtype = "u8" })) end,
    "[prepare] argument 'size': nil, expected an integer" },
  -- zero-shot
  { "prompts: no such file", function() zeroshot.prompts(at "nowhere_prompts.csv") end,
    "[read_csv] 'DIR/nowhere_prompts.csv': cannot be read (No such file or directory)" },
  { "prompts: a column is missing", function() zeroshot.prompts(at "prompts.csv") end,
    "[zeroshot.prompts] DIR/prompts.csv: it has no column 'polarity'" },
  { "prompts: a row is cut", function() zeroshot.prompts(at "prompt_row.csv") end,
    "[read_csv] 'DIR/prompt_row.csv' row 2: 2 fields, the header has 5" },
  { "prompts: nothing", function() zeroshot.prompts() end, "[read_csv] argument 'path': nil, expected a string" },
  { "zeroshot.texts: no model", function() zeroshot.texts(nil, tokenizer, { "no" }) end,
    "[zeroshot.texts] argument 'model': nil, expected a model" },
  { "zeroshot.texts: no texts", function() zeroshot.texts(nn.Identity(), tokenizer, {}) end,
    "[zeroshot.texts] argument 'texts': is empty, expected at least one string" },
  { "zeroshot.texts: a misspelt option", function() zeroshot.texts(nn.Identity(), tokenizer, { "no" }, { bacth = 1 }) end,
    "[zeroshot.texts] there is no option 'bacth', did you mean 'batch'?" },
  { "zeroshot.images: no data set", function() zeroshot.images(nn.Identity(), 3) end,
    "[batches] argument 'ds': a number was given, expected a data set that data.open gave" },
  { "zeroshot.scores: prompts that are a path", function() zeroshot.scores(unic.ones(1, 2), print, "prompts.csv", "rich", "en") end,
    "[zeroshot.scores] argument 'prompts': the string \"prompts.csv\", expected what zeroshot.prompts gave" },
  { "zeroshot.auc: no function", function() zeroshot.auc({ mass = { 1 } }) end, "[zeroshot.auc] argument 'has': nil, expected a function" },
  -- runs and checkpoints
  { "run: no name", function() unic.run(nil, {}) end, "[run] argument 'name': nil, expected a word" },
  { "run: a name of two words", function() unic.run("two words", {}) end,
    "[run] argument 'name': the string \"two words\", expected a word" },
  { "run: no options", function() unic.run "toy" end, "[run] argument 'options': nil, expected what unic.options returns" },
  { "run: a misspelt extra", function() unic.run("toy", {}, { modell = 3 }) end,
    "[run] there is no option 'modell', did you mean 'model'?" },
  { "run: resumed where nothing is", function() unic.run("toy", { resume = at "plain" }) end,
    "[run] --resume: 'DIR/plain' is no run folder (it has no run.lua)" },
  { "run: resumed from a broken record", function() unic.run("toy", { resume = at "broken" }) end,
    "[run] 'DIR/broken' is no run folder (DIR/broken/run.lua:1: unexpected symbol near '<eof>')" },
  { "run: resumed from a record of something else", function() unic.run("toy", { resume = at "strange" }) end,
    "[run] 'DIR/strange/run.lua' does not hold the options of a run" },
  { "run: a folder in use as a file", function() unic.run("toy", { run = at "a.png" }) end,
    "[run] 'DIR/a.png' is a file, expected a folder" },
  { "run: a device there is not", function() unic.run("toy", { run = at "new1", device = "npu" }) end,
    "[device] argument 'device': there is no device 'npu' in this build, expected one of: cpu, meta ..." },
  { "run: threads that are a word", function() unic.run("toy", { run = at "new2", threads = "all" }) end,
    "[run] argument 'threads': the string \"all\", expected an integer" },
  { "run: a seed that is a word", function() unic.run("toy", { run = at "new3", seed = "x" }) end,
    "[run] argument 'seed': the string \"x\", expected an integer" },
  { "run.open: nothing", function() unic.run.open() end, "[run] open: nil, expected a folder" },
  { "run.open: no such folder", function() unic.run.open(at "nowhere") end, "[run] open: there is no 'DIR/nowhere'" },
  { "run.open: a folder that is no run", function() unic.run.open(at "plain") end,
    "[run] open: 'DIR/plain' is no run folder (it has no run.lua)" },
  { "run.open: a file", function() unic.run.open(at "good.safetensors") end,
    "[run] open: 'DIR/good.safetensors' is a file outside a run folder, expected a run folder or RUN/checkpoints/FILE" },
  { "run.open: a file of a run that is no checkpoint", function() unic.run.open(at "strange/run.lua") end,
    "[run] open: 'DIR/strange/run.lua' is a file outside a run folder, expected a run folder or RUN/checkpoints/FILE" },
}

describe("a bad file", function()
  local words, quiet

  setup(function()
    words, quiet = rawget(_G, "arg"), testing.quiet
    testing.quiet = true
    write_files()
  end)

  after_each(function() rawset(_G, "arg", words) end)

  teardown(function()
    testing.quiet = quiet
    support.remove(dir)
  end)

  bad.specs(ROWS, function() return { DIR = dir } end)
end)
