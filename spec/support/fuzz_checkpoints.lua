--- Mutants of checkpoints that keep close to the format: pickles edited opcode by opcode, archives packed again with their checksums right, names
-- that lead elsewhere, sizes that lie. spec/support/fuzz_files.lua takes its readers of PyTorch's and NumPy's files from here.
local core = require "unic.core".files
local testing = require "unic.testing"
local support = require "spec.support.files"
local build = require "spec.support.checkpoints"

local p = build.pickle
local le = support.little_endian

local fuzz = {}

--- Where every harmful pickle would leave a file, if one were run.
fuzz.victim = "/tmp/unic-fuzz-victim"

-- ---------------------------------------------------------------- pickles

local FIXED = { B = "4", C = "1", T = "4", U = "1", X = "4", G = 8, J = 4, K = 1, M = 2, h = 1, q = 1, j = 4, r = 4, ["\128"] = 1, ["\130"] = 1, ["\131"] = 2, ["\132"] = 4,
  ["\138"] = "1", ["\139"] = "4", ["\140"] = "1", ["\141"] = "8", ["\142"] = "8", ["\149"] = 8, ["\150"] = "8" }
local LINES = { F = 1, I = 1, L = 1, S = 1, V = 1, P = 1, g = 1, p = 1, c = 2, i = 2 }

local function number(text)
  local n = 0
  for i = #text, 1, -1 do n = n * 256 + text:byte(i) end
  return n
end

--- The opcodes of one or more pickles, each with its bytes, and what follows them.
-- @return list of strings, the rest
function fuzz.opcodes(text, pickles)
  local list, at = {}, 1
  while at <= #text and pickles > 0 do
    local opcode = text:sub(at, at)
    local fixed, n = FIXED[opcode], 1
    if type(fixed) == "number" then n = 1 + fixed
    elseif fixed then n = 1 + tonumber(fixed) + number(text:sub(at + 1, at + tonumber(fixed)))
    elseif LINES[opcode] then
      local stop = at
      for _ = 1, LINES[opcode] do stop = (text:find("\n", stop + 1, true) or #text) end
      n = stop - at + 1
    end
    list[#list + 1] = text:sub(at, at + n - 1)
    at = at + n
    if opcode == "." then pickles = pickles - 1 end
  end
  return list, text:sub(at)
end

local function fragments()
  local command = p.text("touch " .. fuzz.victim)
  return {
    p.call("os", "system", command), p.call("posix", "system", command), "(" .. command .. "ios\nsystem\n", p.global("os", "system"), command,
    p.text "os" .. p.text "system" .. "\147",
    p.call("builtins", "eval", p.text(("__import__('os').system('touch %s')"):format(fuzz.victim))), p.call("builtins", "open", p.text(fuzz.victim), p.text "w"),
    p.dict("__setstate__", p.call("os", "system", command)), p.global("torch._utils", "_rebuild_tensor_v2"), p.global("collections", "OrderedDict"), p.text "storage",
    p.global("torch", "FloatStorage"), p.global("torch", "BoolStorage"), p.global("torch", "UntypedStorage"), p.text "../../../../etc/passwd", p.text "/etc/passwd", p.text "0",
    p.tensor { count = 4, size = { 2, 2 }, stride = { 2, 1 } }, p.tensor { class = "LongStorage", count = 2 ^ 40, size = { 2 ^ 40 }, stride = { 1 } },
    p.tensor { count = 1, size = { 2 ^ 30 }, stride = { 0 } }, p.call("torch._utils", "_rebuild_qtensor"), p.call("torch._utils", "_rebuild_sparse_tensor"),
    p.call("torch", "Size", p.ints { 2, 2 }), p.call("numpy.core.multiarray", "scalar", p.call("numpy", "dtype", p.text "f8"), "C\8........"),
    p.int(-1), p.int(2 ^ 31), p.int(2 ^ 62), "\138\9" .. ("\127"):rep(9), "\138\255", "\139\255\255\255\255", "X\255\255\255\127",
    "\141\255\255\255\255\255\255\255\127", "B\255\255\255\255",
    "(", "t", ")", "]", "}", "l", "d", "e", "a", "u", "s", "b", "R", "o", "Q", "0", "1", "2", ".", "N", "\136", "\129", "\146", "\147", "\148", "\143", "\144",
    "\145", "\133", "\134", "\135",
    "h\0", "h\1", "h\2", "h\5", "q\0", "q\1", "q\255", "r\255\255\255\255", "j\255\255\255\255", "\149\255\255\255\255\0\0\0\0", "\128\5", "\128\9", "\151", "\152",
    "\130\1", "I1\n", "L9L\n",
    "F1e999\n", "S'x'\n", "V\\ud800\n", "P0\n", "p0\n", "g0\n", ("h\0"):rep(50), ("("):rep(200), ("]"):rep(200), ("\133"):rep(300), ("}"):rep(3000), "2" .. ("2"):rep(500),
    ("}"):rep(100000), ("]h\0a"):rep(20000), p.tensor { count = 1, size = { 1024, 1024 }, stride = { 0, 0 } }, p.tensor { count = 4, size = { 3000, 700 }, stride = { 0, 0 } },
  }
end

--- Pickles with a few opcodes left out, doubled, swapped, put in or changed.
function fuzz.mutate_pickle(text, random, pickles)
  local list, rest = fuzz.opcodes(text, pickles or 1)
  local some = fragments()
  for _ = 1, random(4) do
    local kind, at = random(6), random(#list)
    if kind == 1 then table.remove(list, at)
    elseif kind == 2 then table.insert(list, random(#list + 1), list[at])
    elseif kind == 3 then
      local other = random(#list)
      list[at], list[other] = list[other], list[at]
    elseif kind == 4 then table.insert(list, at, some[random(#some)])
    elseif kind == 5 then list[at] = some[random(#some)]
    else
      local piece = list[at]   -- the argument of the opcode
      if #piece > 1 then
        local byte = 1 + random(#piece - 1)
        list[at] = piece:sub(1, byte - 1) .. string.char(random(256) - 1) .. piece:sub(byte + 1)
      end
    end
    if #list == 0 then list[1] = "N" end
  end
  return table.concat(list) .. rest
end

-- ---------------------------------------------------------------- archives

--- The members of an archive, as checkpoints.zip takes them; nil where the directory makes no sense.
function fuzz.unzip(text)
  local stop = nil
  for at = #text - 21, math.max(1, #text - 70000), -1 do
    if text:sub(at, at + 3) == "PK\5\6" then
      stop = at
      break
    end
  end
  if not stop then return nil end
  local members, at = {}, number(text:sub(stop + 16, stop + 19)) + 1
  for _ = 1, number(text:sub(stop + 10, stop + 11)) do
    if text:sub(at, at + 3) ~= "PK\1\2" then return nil end
    local packed, name_bytes = number(text:sub(at + 20, at + 23)), number(text:sub(at + 28, at + 29))
    local place = number(text:sub(at + 42, at + 45)) + 1
    local body = place + 30 + number(text:sub(place + 26, place + 27)) + number(text:sub(place + 28, place + 29))
    if text:sub(place, place + 3) ~= "PK\3\4" or body + packed - 1 > #text then return nil end
    members[#members + 1] = { name = text:sub(at + 46, at + 45 + name_bytes), data = text:sub(body, body + packed - 1), method = number(text:sub(at + 10, at + 11)),
      size = number(text:sub(at + 24, at + 27)), crc = number(text:sub(at + 16, at + 19)), at = at, place = place }
    at = at + 46 + name_bytes + number(text:sub(at + 30, at + 31)) + number(text:sub(at + 32, at + 33))
  end
  return members
end

local function patch(text, at, bytes) return text:sub(1, at - 1) .. bytes .. text:sub(at + #bytes) end

--- Put right the checksums of what is stored, so that mutants get past them.
function fuzz.repair_zip(text)
  for _, m in ipairs(fuzz.unzip(text) or {}) do
    if m.method == 0 then
      local crc = le(support.crc32(m.data), 4)
      text = patch(patch(text, m.at + 16, crc), m.place + 14, crc)
    end
  end
  return text
end

local TRICKS = { "../../etc/passwd", "/etc/passwd", "archive/../../x", "a\\b", "C:x", "archive/data.pkl", "x/data.pkl", "archive/data/0", "", "archive/", "archive/byteorder",
  "archive/data/../data/0", ("x"):rep(5000), "a\0b", "x.npy", ".npy", "archive/constants.pkl" }
local SIZES = { 0, 1, 7, 255, 65535, 65536, 2 ^ 20, 2 ^ 31 - 1, 2 ^ 31, 2 ^ 32 - 1 }

--- An archive packed again after one or two changes; `change(member, random)` gives other contents.
function fuzz.mutate_zip(text, random, change)
  local members = fuzz.unzip(text)
  if not members or #members == 0 then return text end
  for _, m in ipairs(members) do
    m.deflated_body = m.method == 8
    if not m.deflated_body then m.size, m.crc, m.method = nil, nil, nil end
  end
  for _ = 1, random(2) do
    local m = members[random(#members)]
    local kind = random(12)
    if kind <= 6 then
      -- The pickle, or else the headers, are where things can go wrong.
      for _, other in ipairs(members) do
        if other.name:find "data%.pkl$" and random(4) > 1 then m = other end
      end
      if not m.deflated_body then m.data = change(m, random) end
    elseif kind == 7 then m.name = TRICKS[random(#TRICKS)]
    elseif kind == 8 then m[({ "size", "packed", "crc", "method", "flags", "offset" })[random(6)]] = SIZES[random(#SIZES)]
    elseif kind == 9 then
      if not m.deflated_body and not m.method then m.deflated = true end
    elseif kind == 10 then table.insert(members, random(#members + 1), { name = m.name, data = m.data })
    elseif kind == 11 then
      if #members > 1 then table.remove(members, random(#members)) end
    else
      m.size, m.packed = SIZES[random(#SIZES)], random(2) == 1 and SIZES[random(#SIZES)] or nil
    end
  end
  for _, m in ipairs(members) do
    for _, key in ipairs { "method", "flags" } do
      if m[key] then m[key] = m[key] % 65536 end
    end
  end
  return build.zip(members)
end

-- ---------------------------------------------------------------- the readers

--- What is done with a mutant: everything the door can do. A tensor that is refused is refused with a sentence.
local function read_all(open, path)
  local file = open(path)
  local why
  for _, name in ipairs(file:names()) do
    local _, _, bytes = file:entry(name)
    local ok, data = pcall(file.data, file, name)
    if ok then
      assert(#data == bytes)
      data = nil                                         -- luacheck: ignore 311
      local made, problem = pcall(file.tensor, file, name)
      if not made then why = problem else problem:free() end
    else
      why = data
    end
  end
  file:metadata()
  file:close()
  if why then error(why, 0) end
end

local function real_files(kind)
  local seeds, real = {}, testing.real_data()
  for _, name in ipairs(real and kind or {}) do seeds[#seeds + 1] = support.read(real .. "/checkpoints/" .. name) end
  return seeds
end

local function object(legacy)
  local function tensor(t)
    t.legacy = legacy
    return p.tensor(t)
  end
  return p.dict("w", tensor { count = 4, size = { 2, 2 }, stride = { 2, 1 } }, "t", tensor { count = 4, size = { 2, 2 }, stride = { 1, 2 } },
    "deep", p.dict("list", p.list(tensor { key = "1", class = "LongStorage", count = 2, size = { 2 }, stride = { 1 } }, p.int(1))),
    "b", tensor { key = "2", class = "BoolStorage", count = 3, size = { 3 }, stride = { 1 } }, "i", tensor { key = "3", class = "CharStorage", count = 2,
    size = { 2 }, stride = { 1 } },
    "p", p.call("torch._utils", "_rebuild_parameter", tensor { count = 4, size = { 4 }, stride = { 1 } }, p.yes, p.call("collections", "OrderedDict")),
    "args", p.call("argparse", "Namespace") .. p.dict("lr", p.int(1)) .. "b", "epoch", p.int(3), "evil", p.call("os", "system", p.text("touch " .. fuzz.victim)))
end

local STORAGES = { ["0"] = build.floats { 1, 2, 3, 4 }, ["1"] = le(1, 8) .. le(2, 8), ["2"] = "\0\1\1", ["3"] = "\127\128" }

local function numpy_header(descr, shape, fortran)
  return ("{'descr': '%s', 'fortran_order': %s, 'shape': %s, }"):format(descr, fortran and "True" or "False", shape)
end

local function arrays()
  local evil = p.whole(p.call("os", "system", p.text("touch " .. fuzz.victim)))
  return {
    build.npy(numpy_header("<f4", "(2, 2)"), STORAGES["0"]), build.npy(numpy_header(">i8", "(2,)", true), STORAGES["1"]),
    build.npy(numpy_header("<f4", "(2, 2)", true), STORAGES["0"], 2), build.npy(numpy_header("|b1", "(3,)"), STORAGES["2"], 3),
    build.npy(numpy_header("|O", "(1,)"), evil),
  }
end

local NPY_WORDS = { "'|O'", "'>f8'", "'<c16'", "'|S9'", "(", ")", "()", "True", "False", "-1", ",", "99999999999999999999", "4294967296, 4294967296",
  "9223372036854775807", "'descr'", "{", "}", "__import__('os')", "\147NUMPY", "\2\0", "\3\0", "\1\0", "\255\255\255\255" }

-- Words put into the text, or over it.
local function words_into(text, random)
  for _ = 1, random(3) do
    local word, at = NPY_WORDS[random(#NPY_WORDS)], random(#text + 1)
    text = text:sub(1, at - 1) .. word .. text:sub(at + (random(2) == 1 and #word or 0))
  end
  return text
end

local function change_torch(m, random)
  if m.name:find "data%.pkl$" then return fuzz.mutate_pickle(m.data, random) end
  local at = random(#m.data + 1)
  return m.data:sub(1, at - 1) .. string.char(random(256) - 1) .. m.data:sub(at + random(3) - 1)
end

fuzz.readers = {
  torch_zip = { seeds = function()
    local seeds = real_files { "burn/complex_structure.pt", "burn/parameter.pt", "burn/mixed_types.pt", "burn/boolean.pt", "burn/weights_with_config.pt", "candle/test.pt" }
    for _, deflated in ipairs { false, true } do seeds[#seeds + 1] = build.torch(object(), STORAGES, { deflated = deflated }) end
    return seeds
  end, repair = fuzz.repair_zip, mutate = function(text, random) return fuzz.mutate_zip(text, random, change_torch) end,
    read = function(text, path)
      support.write(path, text)
      return function() read_all(core.torch_open, path) end
    end },
  torch_legacy = { seeds = function()
    local seeds = real_files { "burn/simple_legacy.pt", "burn/legacy_shared_storage.pt" }
    seeds[#seeds + 1] = build.legacy(object(true), { { "0", 4, STORAGES["0"] }, { "1", 2, STORAGES["1"] }, { "2", 3, STORAGES["2"] }, { "3", 2, STORAGES["3"] } })
    return seeds
  end, mutate = function(text, random) return fuzz.mutate_pickle(text, random, 5) end,
    read = function(text, path)
      support.write(path, text)
      return function() read_all(core.torch_open, path) end
    end },
  npy = { seeds = function()
    local seeds = real_files { "candle/test.npy" }
    for _, array in ipairs(arrays()) do seeds[#seeds + 1] = array end
    return seeds
  end, mutate = words_into, read = function(text, path)
    support.write(path, text)
    return function() read_all(core.npy_open, path) end
  end },
  npz = { seeds = function()
    local seeds = real_files { "candle/test.npz" }
    for _, deflated in ipairs { false, true } do
      local members = { { name = "note.txt", data = "hello" } }
      for i, array in ipairs(arrays()) do members[#members + 1] = { name = "a" .. i .. ".npy", data = array, deflated = deflated } end
      seeds[#seeds + 1] = build.zip(members)
    end
    -- Four megabytes out of four kilobytes.
    local zeros = build.npy(numpy_header("|u1", "(2048, 2048)", true), ("\0"):rep(2 ^ 22))
    seeds[#seeds + 1] = build.zip { { name = "zeros.npy", data = zeros, deflated = true }, { name = "a.npy", data = arrays()[1] } }
    return seeds
  end, repair = fuzz.repair_zip, mutate = function(text, random) return fuzz.mutate_zip(text, random, function(m) return words_into(m.data, random) end) end,
    read = function(text, path)
      support.write(path, text)
      return function() read_all(core.npy_open, path) end
    end },
}

return fuzz
