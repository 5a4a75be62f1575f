--- What the specs of the data pipeline share: its random numbers and its picture arithmetic again, slow and written otherwise, and small data
-- sets on disk.
local bit = require "bit"
local ffi = require "ffi"
local unic = require "unic"
local files = require "unic.files"

local support = {}

---------------------------------------------------------------------------------------------------------------------- random numbers

local ull = ffi.typeof "uint64_t"

local function mix(z)
  z = bit.bxor(z, bit.rshift(z, 30)) * 0xBF58476D1CE4E5B9ULL
  z = bit.bxor(z, bit.rshift(z, 27)) * 0x94D049BB133111EBULL
  return bit.bxor(z, bit.rshift(z, 31))
end

local function fnv(text)
  local hash = 0xCBF29CE484222325ULL
  for i = 1, #text do hash = bit.bxor(hash, ull(text:byte(i))) * 0x100000001B3ULL end
  return hash
end

local LOW = 0xFFFFFFFFULL

-- Philox 4x32-10 as in Salmon et al., with 64-bit integers.
local function philox(key, block)
  local k0, k1 = bit.band(key, LOW), bit.rshift(key, 32)
  local c = { bit.band(block, LOW), bit.rshift(block, 32), 0ULL, 0ULL }
  for _ = 1, 10 do
    local p0, p1 = 0xD2511F53ULL * c[1], 0xCD9E8D57ULL * c[3]
    c = { bit.bxor(bit.rshift(p1, 32), c[2], k0), bit.band(p1, LOW), bit.bxor(bit.rshift(p0, 32), c[4], k1), bit.band(p0, LOW) }
    k0, k1 = bit.band(k0 + 0x9E3779B9ULL, LOW), bit.band(k1 + 0xBB67AE85ULL, LOW)
  end
  return { tonumber(c[1]), tonumber(c[2]), tonumber(c[3]), tonumber(c[4]) }
end

local Stream = {}
Stream.__index = Stream

--- The stream of (seed, epoch, item) and a purpose, a number that is hashed from a view's name plus the step's place.
function support.stream(seed, epoch, item, purpose)
  local key = mix(ull(seed) + 0x9E3779B97F4A7C15ULL)
  for _, part in ipairs { ull(epoch), ull(item), purpose } do key = mix(bit.bxor(key, part) + 0x9E3779B97F4A7C15ULL) end
  return setmetatable({ key = key, block = 0ULL, four = {}, at = 5 }, Stream)
end

--- The purpose of step k (from 1) of a view.
function support.purpose(view, k) return fnv(view) + ull(k - 1) end

function Stream:bits()
  if self.at > 4 then
    self.four, self.at = philox(self.key, self.block), 1
    self.block = self.block + 1
  end
  self.at = self.at + 1
  return self.four[self.at - 1]
end

function Stream:uniform() return (self:bits() + 0.5) * 2 ^ -32 end
function Stream:range(low, high) return low + (high - low) * self:uniform() end
function Stream:chance(p) return self:bits() < math.floor(p * 2 ^ 32) end

function Stream:below(n)
  local high, low = self:bits(), self:bits()
  return math.floor((high + low * 2 ^ -32) * n * 2 ^ -32)   -- exact: n is small
end

function Stream:normal()
  local u, v = self:uniform(), self:uniform()
  return math.sqrt(-2 * math.log(u)) * math.cos(2 * math.pi * v)
end

---------------------------------------------------------------------------------------------------------------------------- pictures

-- Pictures are {h =, w =, [y * w + x + 1] = value}.

function support.picture(h, w, value)
  local p = { h = h, w = w }
  for y = 0, h - 1 do
    for x = 0, w - 1 do p[y * w + x + 1] = value(x, y) end
  end
  return p
end

--- A picture out of a tensor [H, W] or [1, H, W].
function support.of_tensor(t)
  local shape = t.shape
  local p = unic.cast(t, "f64"):reshape({ -1 }):totable()
  p.h, p.w = shape[#shape - 1], shape[#shape]
  return p
end

function support.to_tensor(p, dtype)
  local values = {}
  for i = 1, p.h * p.w do values[i] = p[i] end
  return unic.reshape(unic.tensor(values, { dtype = dtype }), { p.h, p.w })
end

-- Position i of n with mirrored ends: ... c b | a b c d | c b ...
local function mirrored(i, n)
  if n == 1 then return 0 end
  local period = 2 * (n - 1)
  i = i % period
  return i < n and i or period - i
end

--- Bilinear between pixel centres, mirrored at the edges.
function support.resize(p, h, w)
  return support.picture(h, w, function(x, y)
    local sx, sy = (x + 0.5) * p.w / w - 0.5, (y + 0.5) * p.h / h - 0.5
    local total = 0
    for dy = 0, 1 do
      for dx = 0, 1 do
        local ix, iy = math.floor(sx) + dx, math.floor(sy) + dy
        total = total + p[mirrored(iy, p.h) * p.w + mirrored(ix, p.w) + 1] * (1 - math.abs(sx - ix)) * (1 - math.abs(sy - iy))
      end
    end
    return total
  end)
end

function support.crop(p, top, left, h, w)
  return support.picture(h, w, function(x, y) return p[(top + y) * p.w + left + x + 1] end)
end

--- The box of what is not zero: top, left, height, width.
function support.box(p)
  local top, bottom, left, right
  for y = 0, p.h - 1 do
    for x = 0, p.w - 1 do
      if p[y * p.w + x + 1] ~= 0 then
        top, bottom = top or y, y
        left, right = math.min(left or x, x), math.max(right or x, x)
      end
    end
  end
  if not top then return 0, 0, p.h, p.w end
  return top, left, bottom - top + 1, right - left + 1
end

--- Step 1.4 as it is written down: crop, min-max, resize, round, clamp.
function support.prepare(p, size)
  p = support.crop(p, support.box(p))
  local low, high = math.huge, -math.huge
  for i = 1, p.h * p.w do low, high = math.min(low, p[i]), math.max(high, p[i]) end
  local stretched = support.picture(p.h, p.w, function(x, y)
    return high > low and (p[y * p.w + x + 1] - low) * 255 / (high - low) or 0
  end)
  local out = support.resize(stretched, size, size)
  for i = 1, size * size do out[i] = math.max(0, math.min(255, math.floor(out[i] + 0.5))) end
  return out
end

--- The forward map p' = A p + t about the centre, as {a, b, c, d, tx, ty}; y grows downwards.
function support.forward(degrees, shear, scale, tx, ty)
  local r, s = math.rad(degrees), math.tan(math.rad(shear))
  local turn = { math.cos(r), math.sin(r), -math.sin(r), math.cos(r) }
  -- [1, -s; 0, 1] * turn
  return { scale * (turn[1] - s * turn[3]), scale * (turn[2] - s * turn[4]), scale * turn[3], scale * turn[4], tx, ty }
end

-- Where in the input output point (x, y) comes from; m is inverted by Cramer's rule.
local function source_of(p, m, x, y)
  local cx, cy = p.w / 2, p.h / 2
  local dx, dy = x - cx - m[5], y - cy - m[6]
  local det = m[1] * m[4] - m[2] * m[3]
  return (m[4] * dx - m[2] * dy) / det + cx, (m[1] * dy - m[3] * dx) / det + cy
end

--- Nearest pixel, 0 outside. The second result marks pixels whose source lies on the border between two, where rounding may decide either way.
function support.warp_nearest(p, m)
  local unsure = {}
  local out = support.picture(p.h, p.w, function(x, y)
    local sx, sy = source_of(p, m, x + 0.5, y + 0.5)
    if math.abs(sx - math.floor(sx + 0.5)) < 1e-6 or math.abs(sy - math.floor(sy + 0.5)) < 1e-6 then unsure[y * p.w + x + 1] = true end
    local ix, iy = math.floor(sx), math.floor(sy)
    if ix < 0 or iy < 0 or ix >= p.w or iy >= p.h then return 0 end
    return p[iy * p.w + ix + 1]
  end)
  return out, unsure
end

function support.warp_linear(p, m, edge)
  local function at(x, y)
    if edge then
      x, y = math.max(0, math.min(p.w - 1, x)), math.max(0, math.min(p.h - 1, y))
    elseif x < 0 or y < 0 or x >= p.w or y >= p.h then
      return 0
    end
    return p[y * p.w + x + 1]
  end
  return support.picture(p.h, p.w, function(x, y)
    local sx, sy = source_of(p, m, x + 0.5, y + 0.5)
    sx, sy = sx - 0.5, sy - 0.5
    local ix, iy = math.floor(sx), math.floor(sy)
    local fx, fy = sx - ix, sy - iy
    return (at(ix, iy) * (1 - fx) + at(ix + 1, iy) * fx) * (1 - fy) + (at(ix, iy + 1) * (1 - fx) + at(ix + 1, iy + 1) * fx) * fy
  end)
end

--- The largest difference between a tensor and a picture, leaving out what is unsure; infinite when their shapes differ.
function support.difference(t, p, unsure)
  local q = support.of_tensor(t)
  if q.h ~= p.h or q.w ~= p.w then return math.huge end
  local worst = 0
  for i = 1, p.h * p.w do
    if not (unsure and unsure[i]) then
      local d = math.abs(q[i] - p[i])
      if d ~= d then return math.huge end
      worst = math.max(worst, d)
    end
  end
  return worst
end

------------------------------------------------------------------------------------------------------------------- data sets on disk

--- A picture whose pixels depend on its number, as a string of bytes.
function support.noise(w, h, number)
  local r, list = support.stream(number, 0, 0, 0ULL), {}
  for i = 1, w * h do list[i] = string.char(r:bits() % 256) end
  return table.concat(list)
end

--- A folder with n PNG pictures of 16 x 16 and a data.csv.
-- @param folder that exists
-- @param n rows
-- @param change a function of (row number from 1, row) that may change a row, or return false to leave it out
function support.write_set(folder, n, change)
  local rows = {}
  for i = 1, n do
    local name = ("image-%02d.png"):format(i)
    files.write_png(folder .. "/" .. name, support.noise(16, 16, i), { width = 16, height = 16 })
    local row = {
      image = name, report = ("Report %d. It has sentences. Three of them."):format(i), language = i % 2 == 0 and "es" or "en",
      patient = ("p%d"):format(math.floor((i + 1) / 2)), labels = i % 3 == 0 and "mass|nodule" or i % 3 == 1 and "effusion" or "",
    }
    if not change or change(i, row) ~= false then rows[#rows + 1] = row end
  end
  local names, seen = {}, {}
  for _, row in ipairs(rows) do
    for key in pairs(row) do
      if not seen[key] then
        seen[key] = true
        names[#names + 1] = key
      end
    end
  end
  table.sort(names)
  files.write_csv(folder .. "/data.csv", names, rows)
  return folder
end

return support
