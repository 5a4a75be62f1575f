-- Pixels before they are tensors: preparing, and each step of augmentation, against values worked out by hand and against slow references.
local unic = require "unic"
local data = require "unic.data"
local support = require "spec.support.data"
local files_support = require "spec.support.files"

local function u8(h, w, values) return unic.reshape(unic.tensor(values, { dtype = "u8" }), { h, w }) end
local function f32(h, w, values) return unic.reshape(unic.tensor(values), { h, w }) end
local function values(t) return t:reshape({ -1 }):totable() end

-- Smooth, so that interpolation errors show, with no symmetry that could hide a wrong direction.
local function ramp(h, w)
  return support.picture(h, w, function(x, y) return 0.1 + 0.5 * x / w + 0.3 * (y / h) ^ 2 + 0.1 * math.sin(x * y) end)
end

describe("preparing a picture", function()
  it("crops to what is not zero, stretches, rounds", function()
    -- The box is the middle 2 x 2: 10..60, so (v - 10) * 255 / 50.
    local t = data.prepare(u8(4, 4, { 0, 0, 0, 0, 0, 10, 20, 0, 0, 35, 60, 0, 0, 0, 0, 0 }), 2)
    assert.same({ 0, 51, 128, 255 }, values(t))
    assert.equal("u8", t.dtype)
  end)

  it("keeps what is asked to be kept", function()
    local t = u8(2, 2, { 0, 0, 0, 100 })
    assert.same({ 0, 0, 0, 255 }, values(data.prepare(t, 2, { crop = false })))
    assert.same({ 0, 0, 0, 100 }, values(data.prepare(t, 2, { crop = false, stretch = false })))
    assert.same({ 100, 100, 100, 100 }, values(data.prepare(t, 2, { stretch = false })))
  end)

  it("makes zeros of constant and of black pictures", function()
    assert.same({ 0, 0, 0, 0 }, values(data.prepare(u8(2, 2, { 7, 7, 7, 7 }), 2)))
    assert.same({ 0, 0, 0, 0 }, values(data.prepare(u8(3, 3, { 0, 0, 0, 0, 0, 0, 0, 0, 0 }), 2)))
    assert.same({ 0 }, values(data.prepare(u8(1, 1, { 255 }), 1)))
  end)

  it("interpolates between pixel centres and mirrors at the edges", function()
    -- 2 -> 4: positions -0.25, 0.25, 0.75, 1.25; position -1 shows pixel 1, so the ends are 63.75 and 191.25 as their neighbours.
    assert.same({ 64, 64, 191, 191 }, values(data.prepare(u8(1, 2, { 0, 255 }), 4, { crop = false, stretch = false })[1]))
    -- 4 -> 2: positions 0.5 and 2.5, without any smoothing beyond two pixels.
    assert.same({ 5, 45 }, values(data.prepare(u8(1, 4, { 0, 10, 30, 60 }), 2, { crop = false, stretch = false })[1]))
    -- 5 -> 2: positions 0.75 and 3.25.
    assert.same({ 75, 160 }, values(data.prepare(u8(1, 5, { 0, 100, 0, 200, 40 }), 2, { crop = false, stretch = false })[1]))
  end)

  it("takes 16 bits", function()
    local t = unic.reshape(unic.tensor({ 1000, 1300, 4000, 61000 }, { dtype = "i32" }), { 2, 2 })
    assert.same({ 0, 1, 13, 255 }, values(data.prepare(t, 2)))
    assert.same({ 4, 5, 16, 237 }, values(data.prepare(t, 2, { stretch = false })))
  end)

  for _, case in ipairs { { 37, 23, 16 }, { 5, 9, 16 }, { 64, 64, 64 }, { 70, 130, 65 }, { 1, 1, 5 }, { 1, 40, 7 } } do
    local h, w, size = unpack(case)
    it(("equals the slow reference: %d x %d to %d"):format(h, w, size), function()
      local r = support.stream(h, w, size, 0ULL)
      -- A black frame, unequal on each side, and holes inside.
      local p = support.picture(h, w, function(x, y)
        local inside = h * w < 50 or (x >= 2 and y >= 1 and x < w - 1 and y < h - 3)
        return inside and r:chance(0.9) and math.floor(20 + 200 * r:uniform()) or 0
      end)
      assert.equal(0, support.difference(data.prepare(support.to_tensor(p, "u8"), size), support.prepare(p, size)))
      for i = 1, h * w do p[i] = p[i] * 250 end
      assert.equal(0, support.difference(data.prepare(support.to_tensor(p, "i32"), size), support.prepare(p, size)))
    end)
  end

  it("refuses in words what is no picture", function()
    local function message(...) return files_support.refusal(data.prepare, ...) end
    assert.equal("[prepare] a picture is f32 [2, 2] on cpu, expected u8 or i32 (16 bits) of shape [H, W]", message(f32(2, 2, { 1, 2, 3, 4 }), 2))
    assert.equal("[prepare] a picture holds the value 65536, expected 0 to 65535", message(unic.reshape(unic.tensor({ 65536 }, { dtype = "i32" }), { 1, 1 }), 2))
    assert.equal("[prepare] argument 'size': 0, expected 1 to 16384", message(u8(1, 1, { 1 }), 0))
    assert.equal("[prepare] argument 'image': the number 3, expected a tensor", (message(3, 2):gsub(" was given", "")))
  end)
end)

describe("a step", function()
  local function one(step, t, options) return data.apply({ step }, t, options) end

  it("before any: bytes become 0..1, floats stay", function()
    assert.same_bits(unic.reshape(unic.tensor({ 0, 1, 0.2 }), { 1, 1, 3 }), data.apply({}, u8(1, 3, { 0, 255, 51 })))
    assert.same_bits(unic.reshape(unic.tensor({ -3, 1.5 }), { 1, 1, 2 }), data.apply({}, f32(1, 2, { -3, 1.5 })))
  end)

  it("center_crop takes the middle", function()
    local p = support.picture(5, 6, function(x, y) return 10 * y + x end)
    assert.same({ 11, 12, 13, 21, 22, 23, 31, 32, 33 }, values(one({ "center_crop", 3 }, support.to_tensor(p, "f32"))))
    assert.same({ 22, 23, 32, 33 }, values(data.apply({ { "center_crop", 4 }, { "center_crop", 2 } }, support.to_tensor(support.picture(6, 6, function(x, y)
      return 10 * y + x end), "f32"))))
  end)

  it("resize is the prepared picture's, unrounded", function()
    local p = ramp(13, 9)
    for _, size in ipairs { 4, 9, 13, 31 } do
      assert.is_true(support.difference(one({ "resize", size }, support.to_tensor(p, "f32")), support.resize(p, size, size)) < 1e-6)
    end
  end)

  it("rotate turns counter-clockwise", function()
    local t = f32(2, 2, { 1, 2, 3, 4 })
    assert.same({ 2, 4, 1, 3 }, values(one({ "rotate", 90, 90 }, t)))
    assert.same({ 4, 3, 2, 1 }, values(one({ "rotate", 180, 180 }, t)))
    assert.same({ 3, 1, 4, 2 }, values(one({ "rotate", -90, -90 }, t)))
    assert.same({ 1, 2, 3, 4 }, values(one({ "rotate", 0, 0 }, t)))
    -- What comes from outside is 0: by 45 degrees the corners of a full square are empty and its middle is not.
    local full = one({ "rotate", 45, 45 }, f32(9, 9, (function() local l = {} for i = 1, 81 do l[i] = 1 end return l end)()))
    local p = support.of_tensor(full)
    assert.same({ 0, 0, 0, 0, 1, 1, 1, 1 }, { p[1], p[9], p[73], p[81], p[41], p[5], p[37], p[45] })
  end)

  it("affine without room to move changes nothing", function()
    local t = support.to_tensor(ramp(7, 9), "f32")
    assert.same_bits(t:reshape { 1, 7, 9 }, one({ "affine", 0, 0, 0 }, t))
  end)

  it("jitter without room to move changes nothing, at the edges as well", function()
    local t = support.to_tensor(ramp(7, 9), "f32")
    assert.same_bits(t:reshape { 1, 7, 9 }, one({ "jitter", 0, 0, 0 }, t))
    assert.same_bits(t:reshape { 1, 7, 9 }, one({ "jitter", 0, 0, 0, edge = true }, t))
  end)

  it("horizontal_flip exchanges left and right", function()
    assert.same({ 3, 2, 1, 6, 5, 4 }, values(one({ "horizontal_flip", 1 }, f32(2, 3, { 1, 2, 3, 4, 5, 6 }))))
    assert.same({ 2, 1, 4, 3 }, values(one({ "horizontal_flip", 1 }, f32(2, 2, { 1, 2, 3, 4 }))))
    assert.same({ 1, 2, 3, 4 }, values(one({ "horizontal_flip", 0 }, f32(2, 2, { 1, 2, 3, 4 }))))
  end)

  it("auto_contrast stretches each channel by itself", function()
    assert.same({ 0, 0.5, 1, 0.25 }, values(one({ "auto_contrast", 1 }, f32(2, 2, { 0.25, 0.5, 0.75, 0.375 }))))
    assert.same({ 0.3, 0.3 }, (function(t) return { math.floor(t[1] * 1e6 + 0.5) / 1e6, math.floor(t[2] * 1e6 + 0.5) / 1e6 } end)(
      values(one({ "auto_contrast", 1 }, f32(1, 2, { 0.3, 0.3 })))))
    local colour = unic.reshape(unic.tensor { 0, 0.5, 0.5, 0.75, 0.1, 0.1 }, { 3, 1, 2 })
    local t = values(one({ "auto_contrast", 1 }, colour))
    assert.same({ 0, 1, 0, 1 }, { t[1], t[2], t[3], t[4] })
    assert.equal(t[5], t[6])
    assert.is_true(math.abs(t[5] - 0.1) < 1e-7)
  end)

  it("grey weighs the channels, and leaves one channel alone", function()
    local colour = unic.reshape(unic.tensor { 1, 0, 0, 0, 1, 0, 0, 0, 1 }, { 3, 1, 3 })
    local t = values(one({ "grey", 1 }, colour))
    for c = 0, 2 do
      assert.is_true(math.abs(t[3 * c + 1] - 0.2989) < 1e-7 and math.abs(t[3 * c + 2] - 0.587) < 1e-7 and math.abs(t[3 * c + 3] - 0.114) < 1e-7)
    end
    assert.same_bits(colour, one({ "grey", 0 }, colour))
    assert.same({ 0.25 }, values(one({ "grey", 1 }, f32(1, 1, { 0.25 }))))
  end)

  it("gamma is a power", function()
    local t = values(one({ "gamma", 2, 2 }, f32(1, 4, { 0, 0.5, 1, -0.5 })))
    assert.same({ 0, 0.25, 1, 0 }, t)
    assert.same({ 0.5, 0.75 }, values(one({ "gamma", 1, 1 }, f32(1, 2, { 0.5, 0.75 }))))
  end)

  it("normalize subtracts and divides", function()
    assert.same({ -1, 0, 1 }, values(one({ "normalize", 0.5, 0.5 }, f32(1, 3, { 0, 0.5, 1 }))))
    assert.same({ -8, 4 }, values(one({ "normalize", mean = 2, deviation = 0.25 }, f32(1, 2, { 0, 3 }))))
  end)
end)

-- Random steps: their numbers are drawn again by the slow stream, so that every pixel is known.
describe("a random step", function()
  local h, w = 21, 17
  local p = ramp(h, w)
  local t = support.to_tensor(p, "f32")
  local seed, epoch = 11, 3

  local function each(step, check)
    for item = 0, 19 do
      local r = support.stream(seed, epoch, item, support.purpose("a view", 1))
      check(data.apply({ step }, t, { seed = seed, epoch = epoch, item = item, name = "a view" }), r)
    end
  end

  it("random_crop: a place of its own, every place possible", function()
    local seen = {}
    each({ "random_crop", 16 }, function(got, r)
      local top = r:below(h - 16 + 1)
      local left = r:below(w - 16 + 1)
      seen[top], seen["x" .. left] = true, true
      assert.is_true(support.difference(got, support.crop(p, top, left, 16, 16)) < 1e-6)
    end)
    for top = 0, h - 16 do assert.is_true(seen[top]) end
    assert.is_true(seen.x0 and seen.x1)
  end)

  it("rotate: an angle of the range, nearest pixel", function()
    each({ "rotate", 0, 90 }, function(got, r)
      local expected, unsure = support.warp_nearest(p, support.forward(r:range(0, 90), 0, 1, 0, 0))
      assert.is_true(support.difference(got, expected, unsure) < 1e-6)
    end)
  end)

  it("affine: whole pixels, scale, shear, about the centre", function()
    each({ "affine" }, function(got, r)
      local function round(x) return math.floor(x + 0.5) end   -- never exactly at a half
      local dx, dy = round(r:range(-0.1 * w, 0.1 * w)), round(r:range(-0.1 * h, 0.1 * h))
      local scale = r:range(0.9, 1.1)
      local expected, unsure = support.warp_nearest(p, support.forward(0, r:range(-10, 10), scale, dx, dy))
      assert.is_true(support.difference(got, expected, unsure) < 1e-6)
    end)
    each({ "affine", shear = 40, scale = 0.5, translate = 0 }, function(got, r)
      r:bits()
      r:bits()
      local scale = r:range(0.5, 1.5)
      local expected, unsure = support.warp_nearest(p, support.forward(0, r:range(-40, 40), scale, 0, 0))
      assert.is_true(support.difference(got, expected, unsure) < 1e-6)
    end)
  end)

  for _, edge in ipairs { false, true } do
    it("jitter: a small turn, scale and shift, bilinear" .. (edge and ", the edge carried on" or ""), function()
      each({ "jitter", rotate = 10, scale = 0.3, shift = 0.2, edge = edge }, function(got, r)
        local degrees, scale = 10 * r:normal(), r:range(0.7, 1.3)
        local dx = r:range(-0.2 * w, 0.2 * w)
        local m = support.forward(degrees, 0, scale, dx, r:range(-0.2 * h, 0.2 * h))
        assert.is_true(support.difference(got, support.warp_linear(p, m, edge)) < 1e-5)
      end)
    end)
  end

  it("gamma: between its ends, evenly in the logarithm", function()
    each({ "gamma", 0.5, 2 }, function(got, r)
      local g = math.exp(r:range(math.log(0.5), math.log(2)))
      assert.is_true(support.difference(got, support.picture(h, w, function(x, y) return p[y * w + x + 1] ^ g end)) < 1e-6)
    end)
  end)

  it("noise: four bytes a pixel, clamped", function()
    each({ "noise", 0.5 }, function(got, r)
      local amount = 0.5 * r:uniform()
      assert.is_true(support.difference(got, support.picture(h, w, function(x, y)
        local bits = r:bits()
        local sum = bits % 256 + math.floor(bits / 256) % 256 + math.floor(bits / 65536) % 256 + math.floor(bits / 16777216)
        return math.max(0, math.min(1, p[y * w + x + 1] + (sum - 510) / 147.8 * amount))
      end)) < 1e-6)
    end)
  end)

  it("chances: as often as they say", function()
    local flipped = 0
    for item = 0, 399 do
      local got = data.apply({ { "horizontal_flip", 0.25 } }, f32(1, 2, { 0, 1 }), { item = item })
      flipped = flipped + values(got)[1]
    end
    assert.is_true(flipped > 70 and flipped < 130)   -- 100 expected, deviation 8.7
  end)

  it("draws by seed, epoch, item, view and place alone", function()
    local steps = { { "rotate", 0, 90 }, { "noise", 0.1 } }
    local function bytes(options, list) return data.apply(list or steps, t, options):bytes() end
    local base = { seed = 1, epoch = 2, item = 3, name = "v" }
    assert.equal(bytes(base), bytes { seed = 1, epoch = 2, item = 3, name = "v" })
    for _, other in ipairs { { seed = 2, epoch = 2, item = 3, name = "v" }, { seed = 1, epoch = 3, item = 3, name = "v" },
                             { seed = 1, epoch = 2, item = 4, name = "v" }, { seed = 1, epoch = 2, item = 3, name = "w" } } do
      assert.is_true(bytes(base) ~= bytes(other))
    end
    -- The second step draws the same whatever the first one drew.
    local flat = f32(1, 2, { 0.5, 0.5 })
    assert.same_bits(data.apply({ { "noise", 0.1 }, { "noise", 0.1 } }, flat, base), data.apply({ { "noise", 0.1 }, { "noise", 0.1 } }, flat, base))
    local first = data.apply({ { "horizontal_flip" }, { "noise", 0.1 } }, flat, base)
    local second = data.apply({ { "gamma", 1, 1 }, { "noise", 0.1 } }, flat, base)
    assert.same_bits(first, second)
  end)
end)

describe("steps", function()
  local function message(view, t) return files_support.refusal(data.apply, view, t or u8(8, 8, (function() local l = {} for i = 1, 64 do l[i] = i end return l end)())) end

  it("run in order, and colour stays colour", function()
    local colour = unic.reshape(unic.tensor { 0, 1, 0.5, 0.25, 1, 0, 0.5, 0.75, 0, 0, 1, 1 }, { 3, 2, 2 })
    local t = data.apply({ { "horizontal_flip", 1 }, { "normalize", 0.5, 0.5 } }, colour)
    assert.same({ 1, -1, -0.5, 0, -1, 1, 0.5, 0, -1, -1, 1, 1 }, values(t))
    assert.same({ 3, 2, 2 }, t.shape)
  end)

  it("that are wrong are refused with the nearest right one", function()
    assert.equal("[apply] view 'image', step 1: there is no step 'random_corp', did you mean 'random_crop'?", message { { "random_corp", 4 } })
    assert.truthy(message({ { "x" } }):find("[apply] view 'image', step 1: there is no step 'x'; there are: random_crop, center_crop", 1, true))
    assert.equal("[apply] view 'image', step 2 (random_crop): 'size' is missing", message { { "grey" }, { "random_crop" } })
    assert.equal("[apply] view 'image', step 1 (random_crop): a piece of 9 x 9 pixels does not fit into a picture of 8 x 8", message { { "random_crop", 9 } })
    assert.equal("[apply] view 'image', step 2 (center_crop): a piece of 6 x 6 pixels does not fit into a picture of 5 x 5",
      message { { "random_crop", 5 }, { "center_crop", 6 } })
    assert.equal("[apply] view 'image', step 1 (resize): 'size' is 2.5, expected a whole number from 1 to 16384", message { { "resize", 2.5 } })
    assert.equal("[apply] view 'image', step 1 (rotate): 'low' is 20 and 'high' is 10, expected low <= high", message { { "rotate", 20, 10 } })
    assert.equal("[apply] view 'image', step 1 (grey): 'p' is 1.5, expected a number from 0 to 1", message { { "grey", 1.5 } })
    assert.equal("[apply] view 'image', step 1 (gamma): 'low' is nan, expected a number from 0.01 to 100",
      (message({ { "gamma", 0 / 0, 1 } }):gsub("%-nan", "nan")))
    assert.equal("[apply] view 'image', step 1 (normalize): 'deviation' is 0, expected a number from 1e-06 to 1000000", message { { "normalize", 0, 0 } })
    assert.equal("[apply] view 'image', step 1 (rotate): 3 values were given, it takes 2: low, high", message { { "rotate", 1, 2, 3 } })
    assert.equal("[apply] view 'image', step 1 (affine): there is no 'shaer', did you mean 'shear'?", message { { "affine", shaer = 3 } })
    assert.equal("[apply] view 'image', step 1 (grey): 'p' is a string, expected a number", message { { "grey", "often" } })
    assert.equal("[apply] view 'image': a string was given, expected a list of steps such as {\"random_crop\", 224}", message "grey")
    assert.equal("[apply] view 'image': there is something called 'resize' among the steps, expected a list", message { resize = 5 })
    assert.equal("[apply] view 'image', step 1: a string was given, expected a table that begins with a step's name, such as {\"random_crop\", 224}",
      message { "grey" })
    assert.equal("[apply] view 'image': 33 steps, at most 32 are possible", message((function() local l = {} for i = 1, 33 do l[i] = { "grey" } end return l end)()))
    assert.equal("[apply] argument 'image': i64 [2] was given, expected u8 or f32 of shape [H, W], [1, H, W] or [3, H, W]",
      message({}, unic.tensor({ 1, 2 }, { dtype = "i64" })))
  end)

  it("are listed with what they take", function()
    local names = {}
    for _, form in ipairs(data.steps()) do
      names[#names + 1] = form.name
      assert.is_true(#form.help > 10)
    end
    assert.equal("random_crop center_crop resize rotate affine jitter horizontal_flip grey auto_contrast gamma noise normalize lua", table.concat(names, " "))
    assert.same({ name = "p", required = false, fallback = 0.5 }, data.steps()[8].parameters[1])
  end)
end)
