--- Draws the film of a phantom study: thickness and air add up in a float picture, then exposure, grain and a tone curve make bytes.
--
-- Every painter fills `cover` (0..1) inside a box of pixels and says which box; the film adds strength x cover, a mask is cover > 1/2.
-- So picture and mask can not disagree. Only + - * / and square roots of doubles are used (no sin, exp, pow): the bytes are the same
-- on every machine. Loops are flat and free of calls that the compiler can not inline: a 64x64 film takes about a millisecond.
--
-- Longer than 500 lines because the anatomy is one picture: the painters share its coordinates and buffers, and are few shapes (body,
-- lung, bones, ellipse, lobes, stroke, box) that all findings use.
-- @module unic.datasets.phantom.draw

local ffi = require "ffi"
local rng = require "unic.datasets.phantom.rng"

local abs, floor, max, min, sqrt = math.abs, math.floor, math.max, math.min, math.sqrt

local draw = {}

-- 0 below -1, 1 above 1, smooth between: the edge of everything.
local function edge(x)
  x = min(1, max(0, x * 0.5 + 0.5))
  return x * x * (3 - 2 * x)
end

-- Buffers of one picture size, kept: a worker draws thousands of films of one size.
local canvases = {}
local function canvas_of(size)
  local c = canvases[size]
  if not c then
    local n = size * size
    c = {
      size = size,
      film = ffi.new("float[?]", n), cover = ffi.new("float[?]", n), heart = ffi.new("float[?]", n),
      lungs = {[-1] = ffi.new("float[?]", n), [1] = ffi.new("float[?]", n)},
      grain = ffi.new("int32_t[?]", n),
      haze = ffi.new("double[?]", 36), texture = ffi.new("double[?]", 33 * 33),
    }
    canvases[size] = c
  end
  return c
end

-- sin and cos of a few degrees, by their series: the C library's differ in the last bit between machines.
local function turn(degrees)
  local x = degrees * (3.14159265358979 / 180)
  local y = x * x
  return x * (1 - y / 6 * (1 - y / 20 * (1 - y / 42))), 1 - y / 2 * (1 - y / 12 * (1 - y / 30))
end

-- The map from pixel (x, y), from 0, to body coordinates: u = uu*x + uv*y + u0, v = vu*x + vv*y + v0; `pixel` is a pixel's length.
local function pose_of(scene, size)
  local s, c = turn(scene.angle)
  local step = 2 / size / scene.scale
  local x0, y0 = (1 / size - 1) / scene.scale, (1 / size - 1) / scene.scale
  local pose = {size = size, pixel = step, uu = c * step, uv = s * step, vu = -s * step, vv = c * step}
  pose.u0 = c * x0 + s * y0 - scene.shift_u
  pose.v0 = -s * x0 + c * y0 - scene.shift_v
  return pose
end

-- The box of pixels that can show the body-coordinate box; empty when x1 < x0 or y1 < y0.
local function box_of(pose, u0, u1, v0, v1)
  local k = 1 / (pose.pixel * pose.pixel)
  local x0, x1, y0, y1 = 1e9, -1e9, 1e9, -1e9
  for corner = 0, 3 do
    local u = (corner % 2 == 0 and u0 or u1) - pose.u0
    local v = (corner < 2 and v0 or v1) - pose.v0
    local x, y = (u * pose.uu + v * pose.vu) * k, (u * pose.uv + v * pose.vv) * k
    x0, x1, y0, y1 = min(x0, x), max(x1, x), min(y0, y), max(y1, y)
  end
  local last = pose.size - 1
  return max(0, floor(x0) - 1), min(last, floor(x1) + 2), max(0, floor(y0) - 1), min(last, floor(y1) + 2)
end

-- Sideways course of the spine: an arc over the chest, straight where it ends.
local function spine_at(amount, v)
  local t = min(1, max(-1, (v + 0.08) / 0.62))
  local arc = 1 - t * t
  return amount * (arc * (1 + 0.3 * arc) / 1.3 - 0.35 * t * t)
end

local function clear(buffer, n)
  ffi.fill(buffer, n * 4)
end

-- film += strength * cover inside a box.
local function add(film, cover, size, strength, x0, x1, y0, y1)
  for y = y0, y1 do
    for k = y * size + x0, y * size + x1 do
      film[k] = film[k] + strength * cover[k]
    end
  end
end

-- The same for a lesion: all of it shows against air, less against what is dense itself.
local function add_lesion(film, canvas, strength)
  local cover, left, right, n = canvas.cover, canvas.lungs[1], canvas.lungs[-1], canvas.size * canvas.size
  for k = 0, n - 1 do
    film[k] = film[k] + strength * cover[k] * (0.4 + 0.6 * max(left[k], right[k]))
  end
end

-- Metal: the film tends to `level` whatever lies behind.
local function cover_over(film, cover, size, level, x0, x1, y0, y1)
  for y = y0, y1 do
    for k = y * size + x0, y * size + x1 do
      film[k] = film[k] + cover[k] * (level - film[k])
    end
  end
end

-- Soft tissue of neck, shoulders and trunk, mediastinum, and the brighter abdomen below the domes (the lungs are cut out later).
local function paint_body(film, pose, scene)
  local size, body = pose.size, scene.body
  local soft, trunk, medium = scene.soft, body.trunk, body.mediastinum
  local drift, curve = scene.shift, scene.curve * 0.6
  local shoulder = -0.9 + body.shoulder
  local e = 1 / max(0.03, pose.pixel)
  local em = 1 / max(0.025, pose.pixel)
  local floor_level = 0.5 * (scene.dome[1] + scene.dome[-1]) + 0.5 * scene.dome_height
  for y = 0, size - 1 do
    local u, v = pose.uv * y + pose.u0, pose.vv * y + pose.v0
    for k = y * size, y * size + size - 1 do
      local wide = edge((v - shoulder) * 6)
      local half = 0.3 + (trunk + 0.17 * (1 - edge((v + 0.25) * 4)) - 0.3) * wide
      local a = abs(u)
      local inside = edge((half - a) * e)
      -- a trunk is thick in the middle and thin at its edge
      local r = min(1, a / half)
      local tissue = soft * (1.12 - 0.5 * r * r * r * r) + 0.1 * edge((v - floor_level) * 5)
      local m = abs(u - drift - spine_at(curve, v))
      tissue = tissue + 0.17 * edge((medium + 0.02 - m) * em) * (1 - 0.25 * edge((-0.62 - v) * 6))
      -- the shoulder joints
      tissue = tissue + 0.12 * edge((a - 0.82) * 8) * edge((-0.4 - v) * 6)
      film[k] = inside * tissue
      u, v = u + pose.uu, v + pose.vu
    end
  end
end

-- Air space of one lung (side -1 or 1): between chest wall, mediastinum, apex and diaphragm. `dome` is the level of its dome.
local function paint_lung(cover, pose, scene, side, dome)
  local size, body = pose.size, scene.body
  local width, medium, apex, base = scene.lung_width, body.mediastinum, body.apex, dome + scene.dome_height
  local height = scene.dome_height
  local curve, drift = scene.curve * 0.6, scene.shift
  local e = 1 / max(0.02, pose.pixel * 0.9)
  local reach = 1 / (base - apex)
  for y = 0, size - 1 do
    local u, v = pose.uv * y + pose.u0, pose.vv * y + pose.v0
    for k = y * size, y * size + size - 1 do
      local w = side * (u - drift - spine_at(curve, v))
      local q = min(1, max(0, (base - v) * reach))
      local q3 = q * q * q
      local wall = 0.33 + (width - 0.33) * sqrt(1 - q3)
      local inner = medium + (0.33 - medium) * q3 * q3 * q3
      local d = (w - 0.40) / (width - 0.40)
      local low = dome + height * d * d * (d < 0 and 0.7 or 1)
      cover[k] = edge((wall - w) * e) * edge((w - inner) * e) * edge((low - v) * e) * edge((v - apex) * e)
      u, v = u + pose.uu, v + pose.vu
    end
  end
end

-- The heart stands out from the lungs; below the domes it is lost in the abdomen.
local function paint_heart(film, heart, pose, scene)
  local size = pose.size
  local level = 0.5 * (scene.dome[1] + scene.dome[-1]) + 0.12
  for y = 0, size - 1 do
    local v = pose.vv * y + pose.v0
    for k = y * size, y * size + size - 1 do
      film[k] = film[k] + 0.14 * heart[k] * (0.1 + 0.9 * edge((level - v) * 8))
      v = v + pose.vu
    end
  end
end

-- An ellipse with a soft edge; `c`, `s` turn its long axis.
local function paint_ellipse(cover, pose, u0, v0, half_u, half_v, c, s, soft)
  local size = pose.size
  local reach = max(half_u, half_v) + soft
  local x0, x1, y0, y1 = box_of(pose, u0 - reach, u0 + reach, v0 - reach, v0 + reach)
  local e = min(half_u, half_v) / max(soft, 0.8 * pose.pixel)
  local iu, iv = 1 / half_u, 1 / half_v
  for y = y0, y1 do
    local u, v = pose.uu * x0 + pose.uv * y + pose.u0 - u0, pose.vu * x0 + pose.vv * y + pose.v0 - v0
    for k = y * size + x0, y * size + x1 do
      local a, b = (c * u + s * v) * iu, (c * v - s * u) * iv
      cover[k] = max(cover[k], edge((1 - sqrt(a * a + b * b)) * e))
      u, v = u + pose.uu, v + pose.vu
    end
  end
  return x0, x1, y0, y1
end

-- A ring: between two circles.
local function paint_ring(cover, pose, u0, v0, radius, thick)
  local size = pose.size
  local reach = radius + thick
  local x0, x1, y0, y1 = box_of(pose, u0 - reach, u0 + reach, v0 - reach, v0 + reach)
  local half = max(thick * 0.5, 0.6 * pose.pixel)
  local e = 1 / (0.6 * pose.pixel)
  for y = y0, y1 do
    local u, v = pose.uu * x0 + pose.uv * y + pose.u0 - u0, pose.vu * x0 + pose.vv * y + pose.v0 - v0
    for k = y * size + x0, y * size + x1 do
      cover[k] = max(cover[k], edge((half - abs(sqrt(u * u + v * v) - radius)) * e))
      u, v = u + pose.uu, v + pose.vu
    end
  end
  return x0, x1, y0, y1
end

-- A stroke from a to b, `thick` wide at a and `last` at b, fading from 1 to `fade`.
local function paint_stroke(cover, pose, ua, va, ub, vb, thick, last, fade)
  local size = pose.size
  local reach = max(thick, last, pose.pixel)
  local x0, x1, y0, y1 = box_of(pose, min(ua, ub) - reach, max(ua, ub) + reach, min(va, vb) - reach, max(va, vb) + reach)
  local du, dv = ub - ua, vb - va
  local k2 = 1 / max(1e-9, du * du + dv * dv)
  local e = 1 / (0.7 * pose.pixel)
  for y = y0, y1 do
    local u, v = pose.uu * x0 + pose.uv * y + pose.u0 - ua, pose.vu * x0 + pose.vv * y + pose.v0 - va
    for k = y * size + x0, y * size + x1 do
      local t = min(1, max(0, (u * du + v * dv) * k2))
      local a, b = u - t * du, v - t * dv
      local half = 0.5 * (thick + (last - thick) * t)
      cover[k] = max(cover[k], edge((half - sqrt(a * a + b * b)) * e) * (1 + (fade - 1) * t))
      u, v = u + pose.uu, v + pose.vu
    end
  end
  return x0, x1, y0, y1
end

-- A rounded box.
local function paint_box(cover, pose, u0, v0, half_u, half_v, corner)
  local size = pose.size
  local x0, x1, y0, y1 = box_of(pose, u0 - half_u - 0.02, u0 + half_u + 0.02, v0 - half_v - 0.02, v0 + half_v + 0.02)
  local e = 1 / (0.6 * pose.pixel)
  for y = y0, y1 do
    local u, v = pose.uu * x0 + pose.uv * y + pose.u0 - u0, pose.vu * x0 + pose.vv * y + pose.v0 - v0
    for k = y * size + x0, y * size + x1 do
      local a, b = max(0, abs(u) - half_u + corner), max(0, abs(v) - half_v + corner)
      cover[k] = max(cover[k], edge((corner - sqrt(a * a + b * b)) * e))
      u, v = u + pose.uu, v + pose.vu
    end
  end
  return x0, x1, y0, y1
end

-- Lobes {u, v, radius, weight} that add up to an irregular opacity, roughened by `rough` times a texture.
local function paint_lobes(cover, pose, lobes, sharp, texture, rough)
  local size = pose.size
  local u0, u1, v0, v1 = 1e9, -1e9, 1e9, -1e9
  for _, l in ipairs(lobes) do
    u0, u1, v0, v1 = min(u0, l[1] - l[3]), max(u1, l[1] + l[3]), min(v0, l[2] - l[3]), max(v1, l[2] + l[3])
  end
  local x0, x1, y0, y1 = box_of(pose, u0, u1, v0, v1)
  for _, l in ipairs(lobes) do
    local lu, lv, inverse, weight = l[1], l[2], 1 / (l[3] * l[3]), l[4] * sharp
    local a0, a1, b0, b1 = box_of(pose, lu - l[3], lu + l[3], lv - l[3], lv + l[3])
    for y = b0, b1 do
      local u, v = pose.uu * a0 + pose.uv * y + pose.u0 - lu, pose.vu * a0 + pose.vv * y + pose.v0 - lv
      for k = y * size + a0, y * size + a1 do
        local d = max(0, 1 - (u * u + v * v) * inverse)
        cover[k] = cover[k] + weight * d
        u, v = u + pose.uu, v + pose.vu
      end
    end
  end
  for y = y0, y1 do
    local u, v = pose.uu * x0 + pose.uv * y + pose.u0, pose.vu * x0 + pose.vv * y + pose.v0
    for k = y * size + x0, y * size + x1 do
      local a, b = min(31.99, max(0, (u + 1) * 16)), min(31.99, max(0, (v + 1) * 16))
      local i, j = floor(a), floor(b)
      local fa, fb = a - i, b - j
      local at = j * 33 + i
      local t = (texture[at] * (1 - fa) + texture[at + 1] * fa) * (1 - fb) + (texture[at + 33] * (1 - fa) + texture[at + 34] * fa) * fb
      cover[k] = min(1, cover[k] * (1 - rough + 2 * rough * t))
      u, v = u + pose.uu, v + pose.vu
    end
  end
  return x0, x1, y0, y1
end

-- Values in [0, 1) on a coarse grid.
local function fill_grid(grid, n, seed)
  local r = rng.stream(seed)
  for k = 0, n - 1 do grid[k] = r:uniform() end
end

-- Fluid in one lung: what lies below a level that rises towards the chest wall.
local function paint_fluid(cover, lung, pose, scene, side, height, slope)
  local size = pose.size
  local level = scene.dome[side] + scene.dome_height - height
  local curve, drift, width = scene.curve * 0.6, scene.shift, scene.lung_width
  local e = 1 / max(0.03, pose.pixel)
  for y = 0, size - 1 do
    local u, v = pose.uv * y + pose.u0, pose.vv * y + pose.v0
    for k = y * size, y * size + size - 1 do
      local w = side * (u - drift - spine_at(curve, v)) / width
      cover[k] = max(cover[k], lung[k] * edge((v - level - slope * (1 - w * w)) * e))
      u, v = u + pose.uu, v + pose.vu
    end
  end
end

-- Free air between chest wall and collapsed lung: the lung keeps its shape, `crown` lower and `rim` narrower. `line` gets the visceral
-- pleura, if given.
local function paint_rim(cover, line, lung, pose, scene, side, rim, crown)
  local size, body = pose.size, scene.body
  local width, apex, base = scene.lung_width - rim, body.apex + crown, scene.dome[side] + scene.dome_height
  local curve, drift = scene.curve * 0.6, scene.shift
  local reach = 1 / (base - apex)
  local e = 1 / max(0.015, 0.8 * pose.pixel)
  local half = max(0.014, 0.6 * pose.pixel)
  for y = 0, size - 1 do
    local u, v = pose.uv * y + pose.u0, pose.vv * y + pose.v0
    for k = y * size, y * size + size - 1 do
      local w = side * (u - drift - spine_at(curve, v))
      local q = min(1, max(0, (base - v) * reach))
      local d = max(w - 0.3 - (width - 0.3) * sqrt(1 - q * q * q), apex - v)
      cover[k] = lung[k] * edge(d * e)
      if line then line[k] = lung[k] * edge((half - abs(d)) * e) end
      u, v = u + pose.uu, v + pose.vu
    end
  end
end

-- Haze of both lungs, densest around the hila, patchy.
local function paint_oedema(cover, lungs, pose, reach, texture)
  local size = pose.size
  local left, right = lungs[1], lungs[-1]
  local inverse = 1 / (reach * reach)
  for y = 0, size - 1 do
    local u, v = pose.uv * y + pose.u0, pose.vv * y + pose.v0
    for k = y * size, y * size + size - 1 do
      local a, b = min(31.99, max(0, (u + 1) * 16)), min(31.99, max(0, (v + 1) * 16))
      local i, j = floor(a), floor(b)
      local fa, fb = a - i, b - j
      local at = j * 33 + i
      local t = (texture[at] * (1 - fa) + texture[at + 1] * fa) * (1 - fb) + (texture[at + 33] * (1 - fa) + texture[at + 34] * fa) * fb
      local du, dv = abs(u) - 0.3, v - 0.04
      local d = max(0, 1 - (du * du + 0.7 * dv * dv) * inverse)
      cover[k] = min(1, max(left[k], right[k]) * d * (0.35 + 1.5 * t))
      u, v = u + pose.uu, v + pose.vu
    end
  end
end

-- Spine, ribs and collar bones; the windpipe, which is air, goes with them because it follows the spine.
local function paint_bones(film, lungs, pose, scene)
  local size, body = pose.size, scene.body
  local left, right = lungs[1], lungs[-1]
  local curve, drift, phase, spacing = scene.curve, scene.shift, body.rib_phase, 1 / body.rib_spacing
  local strength, width = body.rib_strength, scene.lung_width
  local lowest = 0.5 * (scene.dome[1] + scene.dome[-1]) + 0.25
  local e = 1 / max(0.012, 0.8 * pose.pixel)
  for y = 0, size - 1 do
    local u, v = pose.uv * y + pose.u0, pose.vv * y + pose.v0
    for k = y * size, y * size + size - 1 do
      local bend = spine_at(curve, v)
      local m = u - bend
      local a = abs(m)
      -- vertebrae: a band with dark discs
      local disc = v * 7.5 + phase
      disc = abs(disc - floor(disc) - 0.5)
      local bone = 0.10 * edge((0.085 - a) * e) * (0.65 + 0.35 * edge((disc - 0.14) * 14))
      -- ribs: behind, they leave the spine and fall towards the side; in front they come back down
      local chest = edge((width + 0.03 - a) * 30) * edge((a - 0.08) * 40) * edge((v + 0.80) * 20) * edge((lowest - v) * 10)
      local back = (v + 0.08 * a - 0.34 * a * a + 0.25 * bend * (m > 0 and 1 or -1)) * spacing + phase
      back = abs(back - floor(back) - 0.5)
      local front = (v + 0.55 * a) * spacing * 0.92 + phase * 1.7
      front = abs(front - floor(front) - 0.5)
      bone = bone + strength * chest * (edge((back - 0.30) * 12) + 0.5 * edge((front - 0.31) * 10) * edge((a - 0.33) * 12))
      -- windpipe and main bronchi
      local t = u - drift - 0.7 * bend
      local pipe = edge((0.04 - abs(t)) * e) * edge((-0.22 - v) * 12)
      local fork = v + 0.24
      pipe = max(pipe, edge((0.026 - abs(abs(t) - 0.75 * fork)) * e) * edge(fork * 30) * edge((0.17 - fork) * 20))
      film[k] = film[k] * (1 - 0.16 * pipe) + bone * (0.45 + 0.55 * max(left[k], right[k]))
      u, v = u + pose.uu, v + pose.vu
    end
  end
end

-- Haze, uneven exposure, grain, tone curve: film -> bytes.
local function develop(out, film, canvas, pose, scene)
  local size = pose.size
  local haze, grain = canvas.haze, canvas.grain
  fill_grid(haze, 36, scene.haze_seed)
  rng.fill_noise(scene.noise_key, grain, size * size)
  -- grain is finer than a pixel: it averages out in large ones
  local noise = scene.grain * (1.7320508075688772 / 65536) * sqrt(size / 64)
  local strength, contrast, brightness = 2 * scene.haze, scene.contrast, scene.brightness
  local tilt_u, tilt_v = 2 * scene.tilt_u / size, 2 * scene.tilt_v / size
  local bend = 1 / scene.bias - 2
  local cell = 4.999 / size
  for y = 0, size - 1 do
    local gy = y * cell
    local j = floor(gy)
    local fy = gy - j
    fy = fy * fy * (3 - 2 * fy)
    for x = 0, size - 1 do
      local gx = x * cell
      local i = floor(gx)
      local fx = gx - i
      fx = fx * fx * (3 - 2 * fx)
      local at = j * 6 + i
      local h = (haze[at] * (1 - fx) + haze[at + 1] * fx) * (1 - fy) + (haze[at + 6] * (1 - fx) + haze[at + 7] * fx) * fy
      local k = y * size + x
      local value = film[k]
      -- scatter reaches what the body covers; the bare film around it stays dark
      local lit = min(1, value * 4)
      value = value + lit * (strength * (h - 0.5) + tilt_u * (x - size * 0.5) + tilt_v * (y - size * 0.5) + brightness)
      value = (value - 0.5) * contrast + 0.5 + noise * grain[k]
      value = min(1, max(0, value))
      value = value / (bend * (1 - value) + 1)
      out[k] = floor(value * 255 + 0.5)
    end
  end
end

-- Vessels leave each hilum and fade; seen only where there is air around them.
local function paint_vessels(canvas, pose, scene)
  local cover, film, size = canvas.cover, canvas.film, pose.size
  local r = rng.stream(scene.vessel_seed)
  clear(cover, size * size)
  for side = -1, 1, 2 do
    local u0 = scene.shift + side * 0.2
    for k = 1, 6 do
      local dv = -1 + 2 * (k - 0.5) / 6 + r:range(-0.12, 0.12)
      local du = side * r:range(0.5, 1) * (1.15 - abs(dv))
      local length = r:range(0.28, 0.46) / sqrt(du * du + dv * dv)
      paint_stroke(cover, pose, u0, 0.0, u0 + du * length, dv * length, 0.05, 0.012, 0.25)
    end
  end
  local left, right = canvas.lungs[1], canvas.lungs[-1]
  for k = 0, size * size - 1 do
    film[k] = film[k] + scene.vessels * cover[k] * max(left[k], right[k])
  end
  clear(cover, size * size)
  local x0, x1, y0, y1 = paint_lobes(cover, pose, {
    {scene.shift - 0.19, 0.0, 0.16, 1}, {scene.shift + 0.19, -0.04, 0.16, 1}, {scene.shift - 0.22, 0.1, 0.12, 0.7},
    {scene.shift + 0.23, 0.07, 0.12, 0.7},
  }, 1, canvas.texture, 0)
  add(film, cover, size, scene.hilum, x0, x1, y0, y1)
end

local function paint_object(cover, pose, f)
  local u, v, radius = f.u, f.v, f.radius
  if f.object == "coin" then return paint_ellipse(cover, pose, u, v, radius, radius, 1, 0, 0.01) end
  if f.object == "ring" then return paint_ring(cover, pose, u, v, radius * 1.15, 0.05) end
  if f.object == "pin" then
    local a, b = 1.9 * radius * f.cos, 1.9 * radius * f.sin
    return paint_stroke(cover, pose, u - a, v - b, u + a, v + b, 0.06, 0.045, 1)
  end
  local r = rng.stream(f.seed)
  local x0, x1, y0, y1 = pose.size, 0, pose.size, 0
  for k = 1, 3 do
    local du, dv = (k - 2) * 1.3 * radius * f.cos + r:range(-0.03, 0.03), (k - 2) * 1.3 * radius * f.sin + r:range(-0.05, 0.05)
    local a0, a1, b0, b1 = paint_ellipse(cover, pose, u + du, v + dv, 0.045, 0.045, 1, 0, 0.01)
    x0, x1, y0, y1 = min(x0, a0), max(x1, a1), min(y0, b0), max(y1, b1)
  end
  return x0, x1, y0, y1
end

local function paint_pacemaker(cover, pose, f)
  local x0, x1, y0, y1 = 0, pose.size - 1, 0, pose.size - 1
  paint_box(cover, pose, f.u, f.v, f.half_u, f.half_v, 0.045)
  -- the lead: along the vein to the midline, then down into the heart
  local s = f.u > 0 and 1 or -1
  local ua, va, um, vm = f.u - s * f.half_u, f.v - 0.04, s * 0.16, f.v - 0.08
  paint_stroke(cover, pose, ua, va, um, vm, 0.03, 0.03, 1)
  paint_stroke(cover, pose, um, vm, -0.06, -0.12, 0.03, 0.03, 1)
  paint_stroke(cover, pose, -0.06, -0.12, f.tip_u, f.tip_v, 0.03, 0.035, 1)
  return x0, x1, y0, y1
end

local SIDES = {left = {1}, right = {-1}, bilateral = {-1, 1}}

-- The lungs and the heart that the findings lie in: called for the film and for the masks.
local function prepare(canvas, pose, scene)
  local size, lungs, heart = pose.size, canvas.lungs, canvas.heart
  clear(heart, size * size)
  local half = scene.heart * scene.lung_width
  local middle = scene.shift + 0.36 * half
  local low = 0.5 * (scene.dome[-1] + scene.dome[1])
  local tall = 0.24 + 0.28 * (half - 0.34)
  local s, c = scene.body.heart_tilt, 1 - 0.5 * scene.body.heart_tilt * scene.body.heart_tilt
  paint_ellipse(heart, pose, middle + spine_at(scene.curve * 0.4, 0.2), min(low, 0.45) - 0.7 * tall + 0.06, half, tall, c, s, 0.035)
  fill_grid(canvas.texture, 33 * 33, scene.texture_seed)
  for side = -1, 1, 2 do
    paint_lung(lungs[side], pose, scene, side, scene.dome[side])
    local lung = lungs[side]
    for k = 0, size * size - 1 do lung[k] = lung[k] * (1 - 0.85 * heart[k]) end
  end
end

-- cover of one finding that lies in the lungs or over them; nil for those that are a shape of the body itself.
local cover_of = {}

function cover_of.effusion(canvas, pose, scene, f)
  for _, side in ipairs(SIDES[f.side]) do
    paint_fluid(canvas.cover, canvas.lungs[side], pose, scene, side, f.height, f.slope)
  end
end

function cover_of.pneumothorax(canvas, pose, scene, f)
  local side = SIDES[f.side][1]
  paint_rim(canvas.cover, nil, canvas.lungs[side], pose, scene, side, f.rim, f.crown)
end

local function clip_to_lungs(canvas, size, x0, x1, y0, y1)
  local cover, left, right = canvas.cover, canvas.lungs[1], canvas.lungs[-1]
  for y = y0, y1 do
    for k = y * size + x0, y * size + x1 do cover[k] = cover[k] * max(left[k], right[k]) end
  end
end

function cover_of.consolidation(canvas, pose, _, f)
  local x0, x1, y0, y1 = paint_lobes(canvas.cover, pose, f.lobes, 0.85, canvas.texture, 0.45)
  clip_to_lungs(canvas, pose.size, x0, x1, y0, y1)
end

function cover_of.oedema(canvas, pose, _, f)
  paint_oedema(canvas.cover, canvas.lungs, pose, f.reach, canvas.texture)
end

function cover_of.nodule(canvas, pose, _, f)
  paint_ellipse(canvas.cover, pose, f.u, f.v, f.radius, f.radius, 1, 0, 0.02)
end

function cover_of.mass(canvas, pose, _, f)
  paint_lobes(canvas.cover, pose, f.lobes, 1.6, canvas.texture, 0)
end

function cover_of.pacemaker(canvas, pose, _, f) paint_pacemaker(canvas.cover, pose, f) end

function cover_of.foreign_body(canvas, pose, _, f) paint_object(canvas.cover, pose, f) end

function cover_of.cardiomegaly(canvas, pose)
  ffi.copy(canvas.cover, canvas.heart, pose.size * pose.size * 4)
end

function cover_of.hyperinflation(canvas, pose)
  local cover, left, right = canvas.cover, canvas.lungs[1], canvas.lungs[-1]
  for k = 0, pose.size * pose.size - 1 do cover[k] = max(left[k], right[k]) end
end

function cover_of.scoliosis(canvas, pose, scene)
  local size, cover, curve = pose.size, canvas.cover, scene.curve
  local e = 1 / max(0.012, pose.pixel)
  for y = 0, size - 1 do
    local u, v = pose.uv * y + pose.u0, pose.vv * y + pose.v0
    for k = y * size, y * size + size - 1 do
      cover[k] = edge((0.085 - abs(u - spine_at(curve, v))) * e) * edge((0.75 - abs(v)) * 20)
      u, v = u + pose.uu, v + pose.vu
    end
  end
end

-- What the raised dome takes from the lung: the lung with its dome where it was, less the lung as it is.
function cover_of.hemidiaphragm(canvas, pose, scene, f)
  local side, cover = SIDES[f.side][1], canvas.cover
  local lung, heart = canvas.lungs[side], canvas.heart
  paint_lung(cover, pose, scene, side, scene.dome[side] + f.rise)
  for k = 0, pose.size * pose.size - 1 do cover[k] = max(0, cover[k] * (1 - 0.85 * heart[k]) - lung[k]) end
end

--- Draw a scene (unic.datasets.phantom.study.scene) into uint8_t[size * size].
function draw.film(scene, out)
  local size = scene.size
  local canvas, pose = canvas_of(size), pose_of(scene, size)
  local n, body, found = size * size, scene.body, scene.findings
  local film, cover, heart, lungs = canvas.film, canvas.cover, canvas.heart, canvas.lungs
  prepare(canvas, pose, scene)
  paint_body(film, pose, scene)
  for side = -1, 1, 2 do
    local lung, air = lungs[side], scene.air
    for k = 0, n - 1 do film[k] = film[k] - air * lung[k] end
  end
  paint_heart(film, heart, pose, scene)
  clear(cover, n)
  add(film, cover, size, 0.09, paint_ellipse(cover, pose, scene.shift + 0.1, -0.33, body.knob, body.knob, 1, 0, 0.025))
  paint_vessels(canvas, pose, scene)

  local f = found.oedema
  if f then
    clear(cover, n)
    cover_of.oedema(canvas, pose, scene, f)
    add(film, cover, size, f.strength, 0, size - 1, 0, size - 1)
  end
  f = found.consolidation
  if f then
    clear(cover, n)
    cover_of.consolidation(canvas, pose, scene, f)
    add(film, cover, size, f.strength, 0, size - 1, 0, size - 1)
  end
  f = found.pneumothorax
  if f then -- free air: darker than lung, no vessel in it, a thin bright pleura, and the lung beside it denser
    local side = SIDES[f.side][1]
    local lung, line = lungs[side], canvas.line or ffi.new("float[?]", n)
    canvas.line = line
    paint_rim(cover, line, lung, pose, scene, side, f.rim, f.crown)
    local dense = 0.12 * f.rim / 0.3
    for k = 0, n - 1 do
      film[k] = film[k] - 0.10 * cover[k] + 0.11 * line[k] + dense * max(0, lung[k] - cover[k])
    end
  end
  f = found.effusion
  if f then
    clear(cover, n)
    cover_of.effusion(canvas, pose, scene, f)
    add(film, cover, size, scene.air * 0.92, 0, size - 1, 0, size - 1)
    for side = -1, 1, 2 do -- where fluid is there is no air, and ribs are as faint as in the abdomen
      local lung = lungs[side]
      for k = 0, n - 1 do lung[k] = lung[k] * (1 - cover[k]) end
    end
  end
  paint_bones(film, lungs, pose, scene)
  for side = -1, 1, 2 do -- collar bones
    clear(cover, n)
    local lift = 0.02 * side * scene.angle * 0.2
    add(film, cover, size, 0.10, paint_stroke(cover, pose, side * 0.09, -0.60, side * 0.4, -0.70 + lift, 0.055, 0.05, 1))
    clear(cover, n)
    add(film, cover, size, 0.10, paint_stroke(cover, pose, side * 0.4, -0.70 + lift, side * 0.78, -0.79 + lift, 0.05, 0.055, 1))
  end
  f = found.nodule
  if f then
    clear(cover, n)
    cover_of.nodule(canvas, pose, scene, f)
    add_lesion(film, canvas, f.strength)
  end
  f = found.mass
  if f then
    clear(cover, n)
    cover_of.mass(canvas, pose, scene, f)
    add_lesion(film, canvas, f.strength)
  end
  if body.breast > 0 then
    for side = -1, 1, 2 do
      clear(cover, n)
      add(film, cover, size, body.breast, paint_ellipse(cover, pose, side * 0.45, body.breast_drop, 0.3, 0.24, 1, 0, 0.06))
    end
  end
  clear(cover, n) -- air in the stomach
  if body.bubble > 0 then
    add(film, cover, size, -body.bubble,
      paint_ellipse(cover, pose, body.bubble_u, scene.dome[1] + 0.12, 0.14, 0.07, 1, 0, 0.03))
  end
  for _, name in ipairs {"pacemaker", "foreign_body"} do
    f = found[name]
    if f then
      clear(cover, n)
      cover_of[name](canvas, pose, scene, f)
      cover_over(film, cover, size, 1.05, 0, size - 1, 0, size - 1)
    end
  end
  develop(out, film, canvas, pose, scene)
end

-- Fills canvas.cover with one finding of a scene; false when the scene has none.
local function cover_finding(canvas, pose, scene, finding)
  local f = scene.findings[finding]
  if not f then return false end
  prepare(canvas, pose, scene)
  clear(canvas.cover, pose.size * pose.size)
  cover_of[finding](canvas, pose, scene, f)
  return true
end

--- Draw the mask of one finding of a scene into uint8_t[size * size]: 255 where it lies, else 0.
-- @return the count of pixels set
function draw.mask(scene, finding, out)
  local size = scene.size
  local canvas = canvas_of(size)
  if not cover_finding(canvas, pose_of(scene, size), scene, finding) then
    ffi.fill(out, size * size)
    return 0
  end
  local cover, count = canvas.cover, 0
  for k = 0, size * size - 1 do
    local inside = cover[k] > 0.5 and 1 or 0
    out[k] = 255 * inside
    count = count + inside
  end
  return count
end

--- The boxes of one finding of a scene: a list of {x=, y=, width=, height=}, and side= where a finding on both sides has two.
function draw.boxes(scene, finding)
  local size = scene.size
  local canvas, pose = canvas_of(size), pose_of(scene, size)
  if not cover_finding(canvas, pose, scene, finding) then return {} end
  local cover, list = canvas.cover, {}
  for _, side in ipairs(scene.findings[finding].side == "bilateral" and {1, -1} or {0}) do
    local x0, y0, x1, y1 = size, size, -1, -1
    for y = 0, size - 1 do
      for x = 0, size - 1 do
        local u = pose.uu * x + pose.uv * y + pose.u0 - scene.shift
        if cover[y * size + x] > 0.5 and side * u >= 0 then
          x0, y0, x1, y1 = min(x0, x), min(y0, y), max(x1, x), max(y1, y)
        end
      end
    end
    if x1 >= 0 then
      list[#list + 1] = {
        x = x0, y = y0, width = x1 - x0 + 1, height = y1 - y0 + 1, side = side == 1 and "left" or side == -1 and "right" or nil,
      }
    end
  end
  return list
end

return draw
