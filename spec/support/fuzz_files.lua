--- Mutation fuzzing of the file readers: good files with bytes changed, cut out, doubled or moved.
-- A reader may accept a mutant or refuse it with a sentence; crashing, hanging, or raising anything else is a fault.
local ffi = require "ffi"
local lfs = require "lfs"
local unic = require "unic"
local files = require "unic.files"
local checkpoints = require "spec.support.fuzz_checkpoints"
local support = require "spec.support.files"

local fuzz = {}

-- A small generator of its own, so that a seed means the same everywhere.
local function generator(seed)
  local state = seed % 2147483646 + 1
  return function(n)   -- 1..n
    state = state * 16807 % 2147483647
    return state % n + 1
  end
end

local INTERESTING = { "\0", "\255", "\127", "\128", '"', ",", "\n", "\r", "{", "}", "[", "]", ":", "\\", "0", "9", "-", "\255\216", "\255\217",
  "\255\218", "\255\194", "\0\0\0\0", "\255\255\255\255", "\127\255\255\255", "99999999999999999999" }

local function mutate(text, random)
  for _ = 1, random(2) == 1 and 1 or random(4) do   -- half of them keep close to a good file
    local n = #text
    local kind, at = random(7), random(n + 1)
    if kind == 1 then
      text = text:sub(1, at - 1) .. string.char(random(256) - 1) .. text:sub(at + 1)
    elseif kind == 2 then
      local byte = text:byte(at) or 0
      local flip = 2 ^ (random(8) - 1)
      text = text:sub(1, at - 1) .. string.char(byte % (2 * flip) >= flip and byte - flip or byte + flip) .. text:sub(at + 1)
    elseif kind == 3 then
      local word = INTERESTING[random(#INTERESTING)]
      text = text:sub(1, at - 1) .. word .. text:sub(at + (random(2) == 1 and #word or 0))
    elseif kind == 4 then
      text = text:sub(1, at - 1) .. text:sub(at + random(16))
    elseif kind == 5 then
      local from = random(n + 1)
      text = text:sub(1, at - 1) .. text:sub(from, from + random(64)) .. text:sub(at)
    elseif kind == 6 then
      text = text:sub(1, at)
    else
      local other = random(n + 1)
      local a, b = math.min(at, other), math.max(at, other)
      text = text:sub(1, a - 1) .. text:sub(b) .. text:sub(a, b - 1)
    end
  end
  return text
end

-- Put right the checksums of all chunks, so that mutants get past them.
local function repair_png(text)
  local parts, at = { text:sub(1, 8) }, 9
  while at + 11 <= #text do
    local a, b, c, d = text:byte(at, at + 3)
    local length = ((a * 256 + b) * 256 + c) * 256 + d
    local last = at + 7 + length
    if last + 4 > #text then break end
    local body = text:sub(at + 4, last)
    parts[#parts + 1] = text:sub(at, at + 3) .. body .. support.little_endian(support.crc32(body), 4):reverse()
    at = last + 5
  end
  parts[#parts + 1] = text:sub(at)
  return table.concat(parts)
end

local function png_seeds(folder)
  local path = folder .. "/seed.png"
  local seeds = {}
  for _, case in ipairs { { 1, 8 }, { 3, 16 } } do
    local data = {}
    for i = 1, 13 * 7 * case[1] * case[2] / 8 do data[i] = string.char(i * i % 251) end
    files.write_png(path, table.concat(data), { width = 13, height = 7, channels = case[1], bits = case[2] })
    seeds[#seeds + 1] = support.read(path)
  end
  local real = require("unic.testing").real_data()
  if real then
    for _, name in ipairs { "basi0g01", "basi3p04", "basi6a16", "tbbn3p08", "ch2n3p08", "ctzn0g04", "cs3n2c16", "oi9n2c16", "exif2c08" } do
      seeds[#seeds + 1] = support.read(real .. "/pngsuite/png/" .. name .. ".png")
    end
  end
  return seeds
end

local function jpeg_seeds()
  local seeds = { support.jpeg.grey, support.jpeg.colour }
  local real = require("unic.testing").real_data()
  if real then
    for _, name in ipairs { "libjpeg-turbo/testimgari.jpg", "pillow/hopper_gray.jpg", "pillow/rgb.jpg", "itu-t83/p1_A1.JPG" } do
      seeds[#seeds + 1] = support.read(real .. "/jpeg/" .. name)
    end
  end
  return seeds
end

local function safetensors_seeds(folder)
  local path = folder .. "/seed.safetensors"
  files.safetensors_save(path, {
    weight = { dtype = "F32", shape = { 2, 3 }, data = ("w"):rep(24) }, bias = { dtype = "F16", shape = { 3 }, data = "bbbbbb" },
    steps = { dtype = "I64", shape = {}, data = "12345678" }, none = { dtype = "U8", shape = { 0, 4 }, data = "" },
  }, { format = "pt", text = "ñ\n\"x\"" })
  return { support.read(path) }
end

local CSV = 'image,report,"lang, uage"\r\n"a ""b"".png","two\nlines, one comma",en\nb.png,Corazón normal,es\n\n,,\n"","x",y\nlast,row,here'

--- The readers: seeds(folder) gives good files, read(text, path) reads one, or writes it and returns what reads it; `repair` makes mutants pass
-- checksums, `mutate` makes some that keep close to the format.
fuzz.readers = {
  png = { seeds = png_seeds, repair = repair_png, read = function(text)
    local image = files.decode_image(text, { grey = #text % 2 == 0 })
    return #image:bytes()
  end },
  jpeg = { seeds = jpeg_seeds, read = function(text)
    local image = files.decode_image(text, { grey = #text % 2 == 0 })
    return #image:bytes()
  end },
  csv = { seeds = function() return { CSV, "\239\187\191" .. CSV } end, read = function(text)
    local t = files.read_csv("mutant.csv", { text = text, columns = #text % 2 == 0 and { "image", "report" } or nil })
    for row = 1, t:rows() do
      for _, name in ipairs(t:columns()) do assert(not t:get(row, name):find("\0", 1, true)) end
      t:row_number(row)
    end
    return #t:errors()
  end },
  safetensors = { seeds = safetensors_seeds, read = function(text, path)
    support.write(path, text)
    return function()
      local file = files.safetensors_open(path)
      for _, name in ipairs(file:names()) do assert(#file:data(name) == file:info(name).bytes) end
      file:metadata()
      file:close()
    end
  end },
}
for name, reader in pairs(checkpoints.readers) do fuzz.readers[name] = reader end

-- spec/support/guard.c, where it is preloaded: what a reader does beside reading, and how much memory it takes.
ffi.cdef [[
  void guard_begin(const char *path);
  int guard_end(int64_t *counts);
]]
local guarded = pcall(function() return ffi.C.guard_begin end)

--- Read `count` mutants.
-- @param name of the reader
-- @param count how many
-- @param seed of the mutations
-- @return {accepted = n, refused = n, slowest = seconds}; raises at the first fault, naming the mutation. With spec/support/guard.c preloaded also
-- programs (started, or libraries loaded), opened (of mutants), elsewhere (opens of other files), over (bytes of malloc and of tensors at the peak, above the file's size)
function fuzz.run(name, count, seed)
  local reader = assert(fuzz.readers[name], name)
  local folder = support.folder()
  local path = folder .. "/mutant"
  checkpoints.victim = folder .. "/victim"
  local seeds = reader.seeds(folder)
  local random = generator(seed)
  local result = { accepted = 0, refused = 0, slowest = 0, programs = 0, opened = 0, elsewhere = 0, over = 0, executed = 0 }
  local counts = ffi.new "int64_t[4]"
  for i = 1, count do
    local text = seeds[random(#seeds)]
    if reader.mutate and random(3) > 1 then
      text = reader.mutate(text, random)
    else
      text = mutate(text, random)
      if reader.repair and random(4) > 1 then text = reader.repair(text) end
    end
    local begin = os.clock()
    local ok, why = pcall(reader.read, text, path)
    if ok and type(why) == "function" then                 -- the mutant is written; from here on nothing but reading
      local work = why
      if guarded then
        unic.memory_peak_reset()
        local active = unic.memory().active
        ffi.C.guard_begin(path)
        ok, why = pcall(work)
        ffi.C.guard_end(counts)
        result.programs = result.programs + tonumber(counts[0])
        result.opened = result.opened + tonumber(counts[1])
        result.elsewhere = result.elsewhere + tonumber(counts[2])
        result.over = math.max(result.over, tonumber(counts[3]) + unic.memory().peak - active - #text)
      else
        ok, why = pcall(work)
      end
      if lfs.attributes(checkpoints.victim) then result.executed = result.executed + 1 end
    end
    result.slowest = math.max(result.slowest, os.clock() - begin)
    if ok then
      result.accepted = result.accepted + 1
    else
      if type(why) ~= "string" or not why:find("%[[%w_]+%] '") then
        if os.getenv "UNIC_FUZZ_KEEP" then support.write(os.getenv "UNIC_FUZZ_KEEP", text) end
        support.remove(folder)
        error(("%s, seed %d, mutant %d: %s"):format(name, seed, i, tostring(why)), 0)
      end
      result.refused = result.refused + 1
    end
  end
  support.remove(folder)
  return result
end

return fuzz
