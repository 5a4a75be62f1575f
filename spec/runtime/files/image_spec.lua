-- Pictures: PNG written and read back, the conformance files, JPEG, and everything that is no picture.
local ffi = require "ffi"
local unic = require "unic"
local files = require "unic.files"
local testing = require "unic.testing"
local support = require "spec.support.files"

local real = testing.real_data()

-- Samples of a 16-bit picture as a Lua list.
local function samples16(image)
  local text = image:bytes()
  local p = ffi.cast("const uint16_t *", text)
  local list = {}
  for i = 1, #text / 2 do list[i] = p[i - 1] end
  return list
end

local function noise(n, seed)
  local state, list = seed, {}
  for i = 1, n do
    state = (state * 1103515245 + 12345) % 2^31
    list[i] = string.char(math.floor(state / 65536) % 256)
  end
  return table.concat(list)
end

describe("pictures", function()
  local folder
  setup(function() folder = support.folder() end)
  teardown(function() support.remove(folder) end)

  describe("written as PNG", function()
    for _, channels in ipairs { 1, 3 } do
      for _, bits in ipairs { 8, 16 } do
        it(("come back equal: %d channels, %d bits"):format(channels, bits), function()
          local path = folder .. "/round.png"
          local width, height = 37, 11
          local data = noise(width * height * channels * bits / 8, channels * bits)
          files.write_png(path, data, { width = width, height = height, channels = channels, bits = bits })
          local image = files.read_image(path)
          assert.same({ width, height, channels, bits }, { image:width(), image:height(), image:channels(), image:bits() })
          assert.equal(data, image:bytes())
          -- The picture itself and a pointer are written alike.
          files.write_png(folder .. "/again.png", image)
          files.write_png(folder .. "/pointer.png", ffi.cast("const char *", data),
            { width = width, height = height, channels = channels, bits = bits })
          assert.equal(support.read(path), support.read(folder .. "/again.png"))
          assert.equal(support.read(path), support.read(folder .. "/pointer.png"))
          assert.equal(data, files.decode_image(support.read(path)):bytes())
        end)
      end
    end

    it("replace the old file and leave no other behind", function()
      local path = folder .. "/replace.png"
      files.write_png(path, "\1", { width = 1, height = 1 })
      local before = #support.list(folder)
      files.write_png(path, "\2", { width = 1, height = 1 })
      assert.equal("\2", files.read_image(path):bytes())
      assert.equal(before, #support.list(folder))
    end)

    it("are refused in words when sizes and data disagree", function()
      local function message(...) return support.refusal(files.write_png, ...) end
      local path = folder .. "/wrong.png"
      assert.equal("[write_png] argument 'data': a string of 3 bytes, expected 4 for 2 x 2 pixels, 1 channels, 8 bits",
        message(path, "abc", { width = 2, height = 2 }))
      assert.equal("[write_png] option 'height': is missing, expected the size of the picture", message(path, "abc", { width = 3 }))
      assert.equal("[write_png] option 'width': 0, expected a whole number of at least 1", message(path, "", { width = 0, height = 1 }))
      assert.equal("[write_png] there is no option 'hight', did you mean 'height'?", message(path, "abc", { width = 3, hight = 1 }))
      assert.equal("[write_png] '" .. path .. "': cannot write a PNG picture of 1 x 1 pixels, 2 channels, 8 bits, expected at least 1 x 1, "
        .. "1 or 3, 8 or 16", message(path, "ab", { width = 1, height = 1, channels = 2 }))
      assert.truthy(message(folder .. "/none/x.png", "a", { width = 1, height = 1 }):find("cannot be written (No such file or directory)", 1, true))
      assert.truthy(message(folder, "a", { width = 1, height = 1 }):find("is a folder", 1, true))
      assert.is_nil(io.open(path))
    end)
  end)

  describe("as tensors", function()
    for _, case in ipairs { { 1, 8, "u8" }, { 3, 8, "u8" }, { 1, 16, "i32" }, { 3, 16, "i32" } } do
      it(("are planar and come back equal: %d channels, %d bits"):format(case[1], case[2]), function()
        local channels, bits = case[1], case[2]
        local path, width, height = folder .. "/t.png", 5, 3
        files.write_png(path, noise(width * height * channels * bits / 8, 3), { width = width, height = height, channels = channels, bits = bits })
        local image = files.read_image(path)
        local t = image:tensor()
        assert.equal(case[3], t.dtype)
        assert.same(channels == 3 and { 3, height, width } or { height, width }, t.shape)
        local text = image:bytes()
        local p = ffi.cast(bits == 8 and "const uint8_t *" or "const uint16_t *", text)
        local values = channels == 3 and t:totable() or { t:totable() }
        for c = 1, channels do
          for y = 1, height do
            for x = 1, width do assert.equal(p[((y - 1) * width + x - 1) * channels + c - 1], values[c][y][x]) end
          end
        end
        files.write_png(folder .. "/u.png", t)
        assert.equal(support.read(path), support.read(folder .. "/u.png"))
      end)
    end

    it("need not be contiguous to be written", function()
      local t = unic.tensor({ { 1, 2, 3 }, { 4, 5, 6 } }, { dtype = "u8" })
      files.write_png(folder .. "/t.png", t:transpose(1, 2))
      assert.same({ { 1, 4 }, { 2, 5 }, { 3, 6 } }, files.read_image(folder .. "/t.png"):tensor():totable())
    end)

    it("are refused when they hold no picture", function()
      local path = folder .. "/no.png"
      local expected = ", expected u8 (8 bits) or i32 (16 bits) of shape [H, W], [1, H, W] or [3, H, W]"
      assert.equal("[write_png] argument 'data': f32 [2, 2] on cpu was given" .. expected, support.refusal(files.write_png, path, unic.zeros(2, 2)))
      assert.equal("[write_png] argument 'data': u8 [2, 2, 2] on cpu was given" .. expected,
        support.refusal(files.write_png, path, unic.zeros(2, 2, 2, { dtype = "u8" })))
      assert.equal("[write_png] argument 'data': holds the value 65536, expected 0 to 65535",
        support.refusal(files.write_png, path, unic.full({ 1, 1 }, 65536, { dtype = "i32" })))
      assert.equal("[write_png] '" .. path .. "': a PNG picture of 3 x 0 pixels holds nothing",
        support.refusal(files.write_png, path, unic.zeros(0, 3, { dtype = "u8" })))
    end)
  end)

  describe("read as grey", function()
    local function grey(data, bits)
      local path = folder .. "/grey.png"
      files.write_png(path, data, { width = #data / 3 / (bits / 8), height = 1, channels = 3, bits = bits })
      return files.read_image(path, { grey = true })
    end

    it("are weighted by .2989, .5870, .1140", function()
      local data = noise(3 * 500, 7)
      local text = grey(data, 8):bytes()
      for i = 1, 500 do
        local r, g, b = data:byte(3 * i - 2, 3 * i)
        assert.is_true(math.abs((.2989 * r + .5870 * g + .1140 * b) / .9999 - text:byte(i)) <= .503)
      end
    end)

    it("keep grey that was stored as colour, to the bit, at 8 and 16 bits", function()
      local eight, sixteen = {}, {}
      for v = 0, 255 do eight[#eight + 1] = string.char(v, v, v) end
      for v = 0, 65535, 7 do sixteen[#sixteen + 1] = support.little_endian(v, 2):rep(3) end
      local text = grey(table.concat(eight), 8):bytes()
      for v = 0, 255 do assert.equal(v, text:byte(v + 1)) end
      for i, v in ipairs(samples16(grey(table.concat(sixteen), 16))) do assert.equal((i - 1) * 7, v) end
    end)
  end)

  describe("of the PNG conformance suite", function()
    if not real then
      pending("needs the folder of real data (UNIC_DATA)")
      return
    end
    local suite = real .. "/pngsuite/"

    it("are refused when broken on purpose, read otherwise", function()
      local read, refused = 0, 0
      for _, name in ipairs(support.list(suite .. "png")) do
        if name:sub(1, 1) == "x" then
          local why = support.refusal(files.read_image, suite .. "png/" .. name)
          assert.truthy(why:find("^%[read_image%] '.*" .. name:gsub("%p", "%%%0") .. "': .*PNG"), why)
          refused = refused + 1
        else
          assert.is_true(files.read_image(suite .. "png/" .. name):width() > 0)
          read = read + 1
        end
      end
      assert.equal(14, refused)
      assert.is_true(read >= 160)
    end)

    -- The renderings are 32-bit bitmaps, bottom row first. What alpha lets through differs by taste, so only opaque pixels are compared, and
    -- 16 bits against 8 within one step: the rendering cuts where others round.
    it("equal their reference renderings", function()
      local compared = 0
      for _, name in ipairs(support.list(suite .. "bmp")) do
        local bmp = support.read(suite .. "bmp/" .. name)
        local image = files.read_image(suite .. "png/" .. name:gsub("bmp$", "png"))
        local b = ffi.cast("const uint8_t *", bmp)
        local offset = b[10] + 256 * b[11]
        local width, height, channels = image:width(), image:height(), image:channels()
        local wide = image:bits() == 16
        local text = image:bytes()
        local p = ffi.cast(wide and "const uint16_t *" or "const uint8_t *", text)
        local worst = 0
        for y = 0, height - 1 do
          for x = 0, width - 1 do
            local at = offset + ((height - 1 - y) * width + x) * 4
            if b[at + 3] == 255 then
              for c = 0, 2 do
                local v = p[(y * width + x) * channels + (channels == 3 and c or 0)]
                worst = math.max(worst, math.abs((wide and v / 257 or v) - b[at + 2 - c]))
              end
              compared = compared + 1
            end
          end
        end
        assert.is_true(worst < (wide and 1 or 1e-9), name .. " differs by " .. worst)
      end
      assert.is_true(compared > 100000)
    end)

    it("equal their reference values at 16 bits", function()
      for _, name in ipairs { "basi0g16", "basi2c16", "basn0g16", "basn2c16", "oi9n0g16" } do
        local image = files.read_image(suite .. "png/" .. name .. ".png")
        local values, channels, i = samples16(image), image:channels(), 0
        for v in support.read(suite .. "json/" .. name .. ".json"):gmatch("%d+") do
          local pixel, c = math.floor(i / 4), i % 4
          if c < 3 then assert.equal(tonumber(v), values[pixel * channels + (channels == 3 and c or 0) + 1]) end
          i = i + 1
        end
        assert.equal(4096, i)
      end
    end)

    it("are the same interlaced and not", function()
      local pairs_seen = 0
      for _, name in ipairs(support.list(suite .. "png")) do
        if name:find("^basi") then
          local a, b = files.read_image(suite .. "png/" .. name), files.read_image(suite .. "png/" .. name:gsub("^basi", "basn"))
          assert.equal(b:bytes(), a:bytes())
          pairs_seen = pairs_seen + 1
        end
      end
      assert.equal(15, pairs_seen)
    end)

    it("are refused when cut anywhere", function()
      local whole = support.read(suite .. "png/basi6a16.png")
      for length = 0, #whole - 1, 13 do assert.is_false(pcall(files.decode_image, whole:sub(1, length)), length) end
      assert.is_false(pcall(files.decode_image, whole:sub(1, -2)))
      assert.is_true(pcall(files.decode_image, whole .. "trailing bytes"))
    end)
  end)

  it("of 16 bits keep a radiograph's stored values", function()
    if not real then return pending("needs the folder of real data (UNIC_DATA)") end
    local image = files.read_image(real .. "/png16-radiographs/cr-mono1-10-chest.png")
    assert.same({ 440, 440, 1, 16 }, { image:width(), image:height(), image:channels(), image:bits() })
    local most = 0
    for _, v in ipairs(samples16(image)) do most = math.max(most, v) end
    assert.is_true(most <= 1023 and most > 900)   -- ten bits are used
  end)

  describe("of JPEG", function()
    it("decode within what the compression lost", function()
      local image = files.decode_image(support.jpeg.grey)
      assert.same({ 16, 16, 1, 8 }, { image:width(), image:height(), image:channels(), image:bits() })
      local text = image:bytes()
      for i = 1, 256 do assert.is_true(math.abs(text:byte(i) - math.floor((i - 1) / 16) * 16) <= 4) end

      image = files.decode_image(support.jpeg.colour)
      assert.same({ 17, 9, 3, 8 }, { image:width(), image:height(), image:channels(), image:bits() })
      local r, _, b = image:bytes():byte(1, 3)
      assert.is_true(math.abs(r - 200) < 8 and math.abs(b - 30) < 8)
      r, _, b = image:bytes():byte(-3, -1)
      assert.is_true(math.abs(r - 30) < 8 and math.abs(b - 200) < 8)
      image = files.decode_image(support.jpeg.colour, { grey = true })
      assert.equal(1, image:channels())
      assert.is_true(math.abs(image:bytes():byte(1) - (.2989 * 200 + .587 * 40 + .114 * 30)) < 4)
    end)

    it("are refused when cut, and accepted with junk behind", function()
      for _, whole in pairs(support.jpeg) do
        for length = 0, #whole - 3 do
          local why = support.refusal(files.decode_image, whole:sub(1, length), { name = "cut.jpg" })
          assert.truthy(why:find("^%[decode_image%] 'cut.jpg': "), why)
        end
        assert.is_true(pcall(files.decode_image, whole .. "junk after the end"))
      end
    end)
  end)

  describe("of the JPEG folder", function()
    if not real then
      pending("needs the folder of real data (UNIC_DATA)")
      return
    end
    local expected = files.read_csv(real .. "/jpeg/expected.csv")

    local function sha256(text)
      support.write(folder .. "/pixels", text)
      local pipe = io.popen("sha256sum < '" .. folder .. "/pixels'")
      local line = pipe:read("*a")
      pipe:close()
      return line:match("^%x+")
    end

    it("decode to the values of the reference decoder, or are refused where it refuses", function()
      local equal, refused, converted = 0, 0, 0
      for row = 1, expected:rows() do
        local path = real .. "/jpeg/" .. expected:get(row, "file")
        local mode = expected:get(row, "mode")
        local ok, image = pcall(files.read_image, path)
        if mode == "" then
          assert.is_false(ok, path)
          assert.truthy(image:find(path, 1, true))
          refused = refused + 1
        else
          assert.is_true(ok, image)
          assert.equal(expected:get(row, "width") .. "x" .. expected:get(row, "height"), image:width() .. "x" .. image:height())
          assert.equal(mode == "L" and 1 or 3, image:channels())
          if mode == "CMYK" then
            converted = converted + 1
          else
            assert.equal(expected:get(row, "sha256_decoded"), sha256(image:bytes()), path)
            equal = equal + 1
          end
        end
      end
      assert.same({ 11, 4, 4 }, { equal, refused, converted })
    end)

    it("turn Adobe's inverted CMYK into RGB: a red corner, black opposite", function()
      local text = files.read_image(real .. "/jpeg/pillow/pil_sample_cmyk.jpg"):bytes()
      local r, g, b = text:byte(1, 3)
      assert.is_true(r > 200 and g < 60 and b < 60, ("%d %d %d"):format(r, g, b))
      r, g, b = text:byte(-3, -1)
      assert.is_true(r < 30 and g < 30 and b < 30, ("%d %d %d"):format(r, g, b))
    end)

    it("give their luminance as grey, close to the weighted colour", function()
      local path = real .. "/jpeg/pillow/flower.jpg"
      local grey, colour = files.read_image(path, { grey = true }), files.read_image(path)
      assert.equal(1, grey:channels())
      local a, b = grey:bytes(), colour:bytes()
      local sum = 0
      for i = 1, #a do
        local red, green, blue = b:byte(3 * i - 2, 3 * i)
        sum = sum + math.abs(a:byte(i) - (.2989 * red + .5870 * green + .1140 * blue))
      end
      assert.is_true(sum / #a < .6)   -- rounding, and clipping where colours are saturated
    end)
  end)

  it("of other formats are refused by name", function()
    local cases = {
      { "", "is empty, expected a PNG or JPEG picture" },
      { ("\0"):rep(128) .. "DICM" .. ("\0"):rep(50), "is a DICOM file, which cannot be read yet: convert it to 16-bit PNG" },
      { "GIF89a......................", "is a GIF picture" },
      { "II*\0........................", "is a TIFF picture" },
      { "RIFF....WEBPVP8 ............", "is a WebP picture" },
      { "hello, I am a text", "is not a picture that can be read (its first bytes are 68 65 6c), expected PNG or JPEG" },
      { "\255\216\255", "the JPEG file ends early, after 3 bytes" },
      { "\137PNG\r\n\26\n", "the PNG picture is damaged (the file ends early)" },
    }
    for _, case in ipairs(cases) do
      local why = support.refusal(files.decode_image, case[1], { name = "x" })
      assert.truthy(why:find("[decode_image] 'x': " .. case[2], 1, true), why)
    end
    local why = support.refusal(files.read_image, folder .. "/absent.png")
    assert.equal("[read_image] '" .. folder .. "/absent.png': cannot be read (No such file or directory)", why)
    why = support.refusal(files.read_image, folder)
    assert.equal("[read_image] '" .. folder .. "': is a folder, expected a file", why)
  end)

  it("that promise more than their bytes can hold are refused before memory is taken", function()
    local function chunk(kind, data)
      local crc = support.crc32(kind .. data)
      return support.little_endian(#data, 4):reverse() .. kind .. data .. support.little_endian(crc, 4):reverse()
    end
    local function header(width, height)
      return "\137PNG\r\n\26\n" .. chunk("IHDR", support.little_endian(width, 4):reverse() .. support.little_endian(height, 4):reverse()
        .. "\16\2\0\0\0") .. chunk("IDAT", "\120\156\1") .. chunk("IEND", "")
    end
    local why = support.refusal(files.decode_image, header(16384, 16384), { name = "x" })
    assert.equal("[decode_image] 'x': a PNG file of 60 bytes cannot hold 16384 x 16384 pixels, it is cut or damaged", why)
    -- Enough bytes, but over the limit: 20000 x 20000 grey pixels of one bit would fit into 60 kB.
    local big = "\137PNG\r\n\26\n" .. chunk("IHDR", support.little_endian(20000, 4):reverse():rep(2) .. "\1\0\0\0\0")
      .. chunk("IDAT", ("\0"):rep(60000)) .. chunk("IEND", "")
    why = support.refusal(files.decode_image, big, { name = "x" })
    assert.equal("[decode_image] 'x': a PNG picture of 20000 x 20000 pixels is larger than the limit of 268435456 pixels", why)
    -- A text of two gigabytes, of which none is there.
    local text = "\137PNG\r\n\26\n" .. chunk("IHDR", support.little_endian(1, 4):reverse():rep(2) .. "\8\0\0\0\0")
      .. "\127\255\255\255tEXtTitle\0x"
    local begin = os.clock()
    why = support.refusal(files.decode_image, text, { name = "x" })
    assert.equal("[decode_image] 'x': the PNG picture is damaged (the file ends early)", why)
    assert.is_true(os.clock() - begin < 0.2)
    -- A JPEG frame header of 65535 x 65535 pixels in 30 bytes.
    why = support.refusal(files.decode_image, "\255\216\255\192\0\11\8\255\255\255\255\1\1\17\0" .. ("\0"):rep(15), { name = "x" })
    assert.equal("[decode_image] 'x': a JPEG file of 30 bytes cannot hold 65535 x 65535 pixels, it is cut or damaged", why)
  end)
end)
