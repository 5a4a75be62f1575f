--- Counter-based random numbers for the phantom: a stream is named by integers, never by what was drawn before it.
--
-- A stream's key is a hash of its name (seed, split, study, purpose); number n of a stream is a hash of key + n. So a study can be
-- drawn alone, in any order, by any worker, with the same result; and only integer arithmetic is used, so it is the same on every
-- machine. The mixing function is the finaliser of SplitMix64 (Steele, Lea, Flood 2014), which passes BigCrush on such counters.
-- @module unic.datasets.phantom.rng

local ffi = require "ffi"
local bit = require "bit"

local bxor, rshift, band = bit.bxor, bit.rshift, bit.band
local floor = math.floor

local GOLDEN = 0x9E3779B97F4A7C15ULL

local function mix(z)
  z = bxor(z, rshift(z, 30)) * 0xBF58476D1CE4E5B9ULL
  z = bxor(z, rshift(z, 27)) * 0x94D049BB133111EBULL
  return bxor(z, rshift(z, 31))
end

--- A stream of numbers; the fields are its key and how many numbers were taken.
local stream = {}

--- A number in [0, 1), 53 random bits.
function stream:uniform()
  self.taken = self.taken + 1
  return tonumber(rshift(mix(self.key + self.taken * GOLDEN), 11)) * 0x1p-53
end

--- A number in [low, high).
function stream:range(low, high)
  return low + (high - low) * self:uniform()
end

--- An integer in 1..n.
function stream:integer(n)
  return floor(self:uniform() * n) + 1
end

--- True with probability p.
function stream:chance(p)
  return self:uniform() < p
end

--- Nearly normal (the sum of four 16-bit uniforms, so bounded by 3.46), mean 0 and deviation 1: no logarithm, no cosine.
function stream:normal()
  self.taken = self.taken + 1
  local z = mix(self.key + self.taken * GOLDEN)
  local sum = tonumber(band(z, 0xffffULL)) + tonumber(band(rshift(z, 16), 0xffffULL))
    + tonumber(band(rshift(z, 32), 0xffffULL)) + tonumber(rshift(z, 48))
  return (sum - 131070) * (1.7320508075688772 / 65536)
end

local stream_type = ffi.metatype(ffi.typeof("struct { uint64_t key, taken; }"), {__index = stream})

local rng = {}

--- The 64-bit key of a name of up to four integers (any that a double holds exactly).
function rng.key(a, b, c, d)
  local z = mix(ffi.cast("uint64_t", ffi.cast("int64_t", a)) + GOLDEN)
  z = mix(bxor(z, ffi.cast("uint64_t", ffi.cast("int64_t", b or 0))) + GOLDEN)
  z = mix(bxor(z, ffi.cast("uint64_t", ffi.cast("int64_t", c or 0))) + GOLDEN)
  return mix(bxor(z, ffi.cast("uint64_t", ffi.cast("int64_t", d or 0))) + GOLDEN)
end

--- The stream of that name.
function rng.stream(a, b, c, d)
  return stream_type(rng.key(a, b, c, d), 0)
end

--- Is item `position` (0-based) among the `quota` chosen ones of a block of `size`? Exactly `quota` positions of the block are.
-- It is chosen when fewer than `quota` items have a smaller hash: no state, and the same answer for whoever asks.
function rng.chosen(key, position, size, quota)
  local mine, smaller = mix(key + (position + 1) * GOLDEN), 0
  for other = 0, size - 1 do
    if mix(key + (other + 1) * GOLDEN) < mine then smaller = smaller + 1 end
  end
  return smaller < quota
end

--- Fill noise[0..n-1] (int32_t) with nearly normal integers of deviation 37837 = 65536 / sqrt(3) and mean 0: the film grain of one study.
function rng.fill_noise(key, noise, n)
  for k = 0, n - 1 do
    local z = mix(key + (k + 1) * GOLDEN)
    noise[k] = tonumber(band(z, 0xffffULL)) + tonumber(band(rshift(z, 16), 0xffffULL))
      + tonumber(band(rshift(z, 32), 0xffffULL)) + tonumber(rshift(z, 48)) - 131070
  end
end

return rng
