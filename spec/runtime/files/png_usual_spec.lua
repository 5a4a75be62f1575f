-- PNG pictures in the usual form, built here byte by byte: any filter, any kind of block, any cut into chunks; and none that is not in order.
local ffi = require "ffi"
local files = require "unic.files"

ffi.cdef [[
  unsigned long compressBound(unsigned long);
  int compress2(unsigned char *, unsigned long *, const unsigned char *, unsigned long, int);
  unsigned long crc32(unsigned long, const unsigned char *, unsigned int);]]
local z = ffi.load "z"

local function be32(x) return string.char(math.floor(x / 2^24) % 256, math.floor(x / 2^16) % 256, math.floor(x / 256) % 256, x % 256) end

local function chunk(kind, data)
  local body = kind .. data
  return be32(#data) .. body .. be32(tonumber(z.crc32(0, body, #body)))
end

local function packed(raw, level)
  local size = ffi.new("unsigned long[1]", z.compressBound(#raw))
  local out = ffi.new("unsigned char[?]", size[0])
  assert(z.compress2(out, size, raw, #raw, level) == 0)
  return ffi.string(out, size[0])
end

-- Rows of bytes and a filter for each, as a file. `pieces`: bytes of an IDAT chunk.
local function png(rows, filters, width, channels, bits, level, pieces)
  local step, raw = channels * bits / 8, {}
  for y, row in ipairs(rows) do
    local above, out = rows[y - 1], { string.char(filters[y]) }
    for i = 1, #row do
      local x = row:byte(i)
      local a, b = i > step and row:byte(i - step) or 0, above and above:byte(i) or 0
      local c = i > step and above and above:byte(i - step) or 0
      local guess = 0
      if filters[y] == 1 then guess = a
      elseif filters[y] == 2 then guess = b
      elseif filters[y] == 3 then guess = math.floor((a + b) / 2)
      elseif filters[y] == 4 then
        local p = a + b - c
        local pa, pb, pc = math.abs(p - a), math.abs(p - b), math.abs(p - c)
        guess = pa <= pb and pa <= pc and a or pb <= pc and b or c
      end
      out[i + 1] = string.char((x - guess) % 256)
    end
    raw[y] = table.concat(out)
  end
  local data, parts = packed(table.concat(raw), level), {}
  for at = 1, #data, pieces do parts[#parts + 1] = chunk("IDAT", data:sub(at, at + pieces - 1)) end
  return "\137PNG\r\n\26\n" .. chunk("IHDR", be32(width) .. be32(#rows) .. string.char(bits, channels == 1 and 0 or 2, 0, 0, 0)) .. chunk("tEXt", "Comment\0x") ..
    table.concat(parts) .. chunk("IEND", "")
end

local state = 1
local function random(n)
  state = (state * 1103515245 + 12345) % 2^31
  return math.floor(state / 65536) % n
end

-- What rows can hold: grain, slopes with a little grain, long runs, a pattern that repeats from far back.
local CONTENT = {
  grain = function() return random(256) end,
  slope = function(y, i) return (y + math.floor(i / 3) + random(4)) % 256 end,
  runs = function(y, i) return math.floor(i / 300 + y / 7) % 5 end,
  pattern = function(y, i) return (i * i + y % 3) % 97 end,
}

local function rows_of(content, width, height, step)
  local rows = {}
  for y = 1, height do
    local bytes = {}
    for i = 1, width * step do bytes[i] = string.char(CONTENT[content](y, i)) end
    rows[y] = table.concat(bytes)
  end
  return rows
end

local function decoded(image, bits)
  local text = image:bytes()
  if bits == 8 then return text end
  local swapped = text:gsub("(.)(.)", "%2%1")
  return swapped
end

describe("PNG pictures in the usual form", function()
  for content in pairs(CONTENT) do
    for _, bits in ipairs { 8, 16 } do
      for _, channels in ipairs { 1, 3 } do
        it(("hold what was put in: %s, %d bits, %d channels"):format(content, bits, channels), function()
          for _, size in ipairs { { 1, 1 }, { 3, 2 }, { 16, 5 }, { 211, 60 } } do
            local width, height = unpack(size)
            local rows, filters = rows_of(content, width, height, channels * bits / 8), {}
            for y = 1, height do filters[y] = (y + 2) % 5 end   -- the first row by `average`, then all of them
            for _, level in ipairs { 0, 1, 9 } do
              local file = png(rows, filters, width, channels, bits, level, level == 1 and 100 or 8192)
              local image = files.decode_image(file)
              assert.are.equal(width, image:width())
              assert.are.equal(channels, image:channels())
              assert.is_true(decoded(image, bits) == table.concat(rows))
            end
          end
          for filter = 0, 4 do   -- each of them as the first row's, which has nothing above it
            local rows = rows_of(content, 9, 1, channels * bits / 8)
            assert.is_true(decoded(files.decode_image(png(rows, { filter }, 9, channels, bits, 6, 8192)), bits) == rows[1])
          end
        end)
      end
    end
  end

  it("are refused with any byte of the picture changed, and when cut anywhere", function()
    local rows, filters = rows_of("slope", 40, 12, 1), {}
    for y = 1, 12 do filters[y] = y % 5 end
    local file = png(rows, filters, 40, 1, 8, 9, 64)
    assert.are.equal(40, files.decode_image(file):width())
    local first = file:find("IDAT", 1, true)
    for at = first, #file do
      local broken = file:sub(1, at - 1) .. string.char((file:byte(at) + 1 + random(255)) % 256) .. file:sub(at + 1)
      assert.is_false(pcall(files.decode_image, broken), "byte " .. at)
      assert.is_false(pcall(files.decode_image, file:sub(1, at - 1)), "cut before byte " .. at)
    end
  end)

  it("are refused when what was packed is broken under right checksums of the chunks", function()
    local rows, filters = rows_of("pattern", 64, 40, 1), {}
    for y = 1, 40 do filters[y] = y % 5 end
    local whole = png(rows, filters, 64, 1, 8, 9, 1e6)
    local at = whole:find("IDAT", 1, true)
    local length = ((whole:byte(at - 4) * 256 + whole:byte(at - 3)) * 256 + whole:byte(at - 2)) * 256 + whole:byte(at - 1)
    local data = whole:sub(at + 4, at + 3 + length)
    local function with(changed) return whole:sub(1, at - 5) .. chunk("IDAT", changed) .. chunk("IEND", "") end
    assert.is_true(files.decode_image(with(data)):bytes() == table.concat(rows))
    for i = 1, #data do   -- the sum at the stream's end finds what the code itself does not
      local broken = data:sub(1, i - 1) .. string.char((data:byte(i) + 1 + random(255)) % 256) .. data:sub(i + 1)
      local ok, image = pcall(files.decode_image, with(broken))
      assert.is_true(not ok or image:bytes() == table.concat(rows), "byte " .. i)
      assert.is_false(pcall(files.decode_image, with(data:sub(1, i - 1))), "cut before byte " .. i)
    end
  end)
end)
