--- Data pipeline: pictures decoded, cropped, stretched, resized and augmented by worker threads: 1024 x 1024 PNG, 2000 x 2000 JPEG, 3000 x 3000 16-bit PNG
-- Cost: about 1 min; with --vs torch 6 min
--
-- Nothing is kept between epochs (cache_mb = 0): every picture is decoded every time. Both sides read the same files, and each has the number of workers
-- that suits it best. A step is an epoch, begun and ended in it, so nothing is made ahead while the other side works.
local bars = require "spec.bench.bars"
local check = require "spec.support.check"

local STEPS = { { "random_crop", 224 }, { "horizontal_flip" }, { "rotate", 0, 90 }, { "affine" }, { "normalize", 0.5, 0.5 } }
local WORKERS = { 1, 2, 4 }

-- Something like a radiograph, in 0..1: a body that fades to black, lungs, ribs, and the grain that makes real files as large as they are.
local function picture(unic, size, item)
  unic.manual_seed(item)
  local y = unic.arange(size, { dtype = "f32" }):mul(2 / size):sub(1):reshape(size, 1)
  local x = unic.arange(size, { dtype = "f32" }):mul(2 / size):sub(1):reshape(1, size)
  local function blob(cx, cy, rx, ry) return (((x - cx) / rx):square() + ((y - cy) / ry):square()):neg():exp() end
  local body = (((x / 0.95):square() + (y / 1.1):square()) - 1):mul(-12):sigmoid()
  local ribs = ((y + x:square() * 0.4) * (34 + item)):sin():mul(0.05)
  local film = (blob(0, 0.2, 0.5, 0.9) * 0.5 + 0.45 - blob(-0.42, -0.1, 0.28, 0.5) * 0.35 - blob(0.42, -0.1, 0.28, 0.5) * 0.35 + ribs) * body
  return (film + unic.randn(size, size) * 0.006 * body):clamp(0, 1) * body:gt(0.02):to "f32"
end

local function write_jpeg(path, bytes, size)
  local ffi = require "ffi"
  ffi.cdef [[
    void *tjInitCompress(void);
    int tjCompress2(void *, const unsigned char *, int, int, int, int, unsigned char **, unsigned long *, int, int, int);
    void tjFree(unsigned char *);
    int tjDestroy(void *);]]
  local jpeg = ffi.load "turbojpeg"
  local GREY, GREY_SAMPLING = 6, 3
  local handle, out, length = jpeg.tjInitCompress(), ffi.new "unsigned char *[1]", ffi.new "unsigned long[1]"
  if jpeg.tjCompress2(handle, bytes, size, 0, size, GREY, out, length, GREY_SAMPLING, 92, 0) ~= 0 then error("bench: the JPEG library wrote nothing", 0) end
  local file = assert(io.open(path, "wb"))
  file:write(ffi.string(out[0], length[0]))
  file:close()
  jpeg.tjFree(out[0])
  jpeg.tjDestroy(handle)
end

local KINDS = {
  { name = "png 1024 8 bit", size = 1024, count = 24, ending = "png", write = function(unic, path, film) unic.files.write_png(path, (film * 255):round():to "u8") end },
  { name = "jpeg 2000", size = 2000, count = 16, ending = "jpg",
    write = function(_, path, film, size) write_jpeg(path, (film * 255):round():to("u8"):data_ptr(), size) end },
  { name = "png 3000 16 bit", size = 3000, count = 8, ending = "png", write = function(unic, path, film) unic.files.write_png(path, (film * 65535):round():to "i32") end },
}

-- The files of a kind, made once.
local function make_files(bench, kind)
  local unic = require "unic"
  local folder = ("%s/pictures-%s-%d"):format(bench.options.folder, kind.name:gsub("%W", "_"), bench.options.quick and 2 or kind.count)
  local count, bytes = bench.options.quick and 2 or kind.count, 0
  check.shell("mkdir -p '" .. folder .. "'")
  local paths = {}
  for item = 1, count do
    local path = ("%s/%03d.%s"):format(folder, item, kind.ending)
    local file = io.open(path, "rb")
    if not file then
      kind.write(unic, path, picture(unic, kind.size, item), kind.size)
      file = assert(io.open(path, "rb"))
    end
    bytes = bytes + file:seek "end"
    file:close()
    paths[item] = path
  end
  return folder, paths, bytes
end

-- One epoch of ours, in seconds.
local function epoch_of(paths, workers)
  local unic = require "unic"
  local data = require "unic.data"
  local clock = require("unic.core").edit.clock
  local rows = {}
  for i, path in ipairs(paths) do rows[i] = { image = path, report = "none", language = "en" } end
  local set = data.open(rows, { size = 256, cache_mb = 0 })
  local epoch = 0
  return function()
    local begin, seen = clock(), 0
    unic.scope(function()
      for batch in data.batches(set, { batch = 8, views = { x = STEPS }, workers = workers, seed = 1, epoch = epoch, epochs = 1, shuffle = true, drop_last = false }) do
        seen = seen + batch.x:size(1)
      end
    end)
    epoch = epoch + 1
    if seen ~= #paths then error(("bench: %d of %d pictures came through"):format(seen, #paths), 0) end
    return clock() - begin
  end
end

-- The quickest of several numbers of workers, by a few epochs each.
local function best(bench, make)
  local quickest, side, workers
  for _, n in ipairs(WORKERS) do
    local candidate = make(n)
    local times = bench:alternate({ candidate }, { rounds = 3, warm = 1 })[1]
    local seconds = bench.statistics.summary(times).min
    if not quickest or seconds < quickest then
      if type(side) == "table" then side:close() end
      quickest, side, workers = seconds, candidate, n
    elseif type(candidate) == "table" then
      candidate:close()
    end
  end
  return side, workers
end

return function(bench)
  for _, kind in ipairs(KINDS) do
    if bench:wants(kind.name) then
      local folder, paths, bytes = make_files(bench, kind)
      local ours, workers = best(bench, function(n) return epoch_of(paths, n) end)
      local row = { name = kind.name, unit = "ms", peers = {}, note = ("%d pictures of %.1f MB a step, %d workers"):format(#paths, bytes / #paths / 1e6, workers) }
      local least
      for _, peer in ipairs(bench:peers { "eager" }) do
        local _, code = check.shell(("'%s' -W ignore -c 'import torchvision.transforms.v2, PIL, numpy'"):format(peer.python))
        for _, style in ipairs(code == 0 and { "pil", "tensor" } or {}) do
          local theirs, their_workers = best(bench, function(n)
            return bench:process({ peer.python, "-W", "ignore", "spec/bench/peer_data.py", "data", folder, style, tostring(n) }, bench:peer_env(peer))
          end)
          local times = bench:alternate({ ours, theirs }, { warm = 1 })
          theirs:close()
          row.times = row.times or times[1]
          row.peers[#row.peers + 1] = { name = ("%s, torchvision %s, %d workers"):format(peer.name, style, their_workers), key = peer.key .. "-" .. style, shipped = true,
            times = times[2], ours = times[1] }
          local ratio = bench.statistics.ratio(times[2], times[1]).median
          least = math.min(least or ratio, ratio)
        end
      end
      row.times = row.times or bench:alternate({ ours }, { warm = 1 })[1]
      if least and not bench.options.quick then
        row.bars = { { name = "data." .. kind.name:gsub("%W+", "_"), value = least, at_least = bars.data.ratio } }
      end
      bench:row(row)
    end
  end
end
