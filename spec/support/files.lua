--- What the specs of files share: a folder of their own, whole files in and out, the folder of real data.
local lfs = require "lfs"

local support = {}

--- A new empty folder; the caller removes it with support.remove.
function support.folder()
  local path = os.tmpname()
  os.remove(path)
  assert(lfs.mkdir(path))
  return path
end

--- Remove a folder and the files in it.
function support.remove(folder)
  for name in lfs.dir(folder) do
    local path = folder .. "/" .. name
    if name ~= "." and name ~= ".." then
      if lfs.symlinkattributes(path, "mode") == "directory" then support.remove(path) else os.remove(path) end
    end
  end
  lfs.rmdir(folder)
end

--- Names in a folder, sorted.
function support.list(folder)
  local names = {}
  for name in lfs.dir(folder) do
    if name ~= "." and name ~= ".." then names[#names + 1] = name end
  end
  table.sort(names)
  return names
end

function support.read(path)
  local file = assert(io.open(path, "rb"))
  local text = file:read("*a")
  file:close()
  return text
end

function support.write(path, text)
  local file = assert(io.open(path, "wb"))
  assert(file:write(text))
  file:close()
  return path
end

--- The sentence that a call raises, without the place in front of it; fails if it raises none.
function support.refusal(f, ...)
  local ok, why = pcall(f, ...)
  if ok then error("expected an error, there was none", 2) end
  return (why:gsub("^[^\n]-:%d+: %[", "[", 1))
end

--- Bytes of numbers, little-endian.
function support.little_endian(n, bytes)
  local list = {}
  for i = 1, bytes do
    list[i] = string.char(n % 256)
    n = math.floor(n / 256)
  end
  return table.concat(list)
end

--- The CRC-32 of PNG chunks.
local crc_table
function support.crc32(text)
  local bit = require "bit"
  if not crc_table then
    crc_table = {}
    for n = 0, 255 do
      local c = n
      for _ = 1, 8 do c = bit.band(c, 1) == 1 and bit.bxor(0xEDB88320, bit.rshift(c, 1)) or bit.rshift(c, 1) end
      crc_table[n] = c
    end
  end
  local c = -1
  for i = 1, #text do c = bit.bxor(crc_table[bit.band(bit.bxor(c, text:byte(i)), 255)], bit.rshift(c, 8)) end
  return bit.bnot(c) % 2^32
end

--- Two small progressive JPEG files, made with libjpeg-turbo: 16 x 16 grey, row y has the value 16 y; and 17 x 9 in colour with halved chroma,
-- (200, 40, 30) in the columns 0 to 7 and (30, 40, 200) right of them.
support.jpeg = {}
for name, hex in pairs { grey = [[
  ffd8ffe000104a46494600010100000100010000ffdb0043000302020302020303030304030304050805050404050a070706080c0a0c0c0b0a0b0b0d0e12100d0e110e0b
  0b1016101113141515150c0f171816141812141514ffc2000b080010001001011100ffc400160001010100000000000000000000000000000708ffda0008010100000001
  8fb553ffc4001510010100000000000000000000000000000016ffda00080101000105029b4da6d36fffc4001510010100000000000000000000000000000032ffda0008
  010100063f0294a52fffc4001610000300000000000000000000000000000011f0ffda0008010100013f21b45a2d168fffda00080101000000103fffc400141001000000
  00000000000000000000000020ffda0008010100013f101249ffd9]], colour = [[
  ffd8ffe000104a46494600010100000100010000ffdb0043000302020302020303030304030304050805050404050a070706080c0a0c0c0b0a0b0b0d0e12100d0e110e0b
  0b1016101113141515150c0f171816141812141514ffdb00430103040405040509050509140d0b0d14141414141414141414141414141414141414141414141414141414
  14141414141414141414141414141414141414141414ffc20011080009001103012200021101031101ffc4001500010100000000000000000000000000000006ffc40015
  01010100000000000000000000000000000607ffda000c030100021003100000018894ab9442a82993dfffc40014100100000000000000000000000000000020ffda0008
  0101000105025fffc40018110002030000000000000000000000000006104382c2ffda0008010301013f012d82d95fffc400181100020300000000000000000000000000
  06104482c2ffda0008010201013f010b915d2fffc40014100100000000000000000000000000000020ffda0008010100063f025fffc40014100100000000000000000000
  000000000020ffda0008010100013f215fffda000c03010002000300000010fbefffc40014110100000000000000000000000000000010ffda0008010301013f1003ffc4
  0014110100000000000000000000000000000010ffda0008010201013f100bffc40014100100000000000000000000000000000020ffda0008010100013f105fffd9]] } do
  support.jpeg[name] = hex:gsub("%s", ""):gsub("..", function(byte) return string.char(tonumber(byte, 16)) end)
end

return support
