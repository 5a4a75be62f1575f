--- What a phantom study is: the patient, the findings with side, zone and severity, and every number that the drawing needs.
--
-- Everything here is decided by integers (seed, split, index) through unic.datasets.phantom.rng; nothing is drawn and no word is
-- chosen. Lengths are in body units: the chest spans -1..1 across and down, +u is the patient's left, which a frontal film shows on
-- the right of the picture.
-- @module unic.datasets.phantom.study

local rng = require "unic.datasets.phantom.rng"

local floor, min, max = math.floor, math.min, math.max

local study = {}

--- The findings, in the order of every table and prompt file.
study.findings = {
  "cardiomegaly", "effusion", "pneumothorax", "consolidation", "oedema", "nodule", "mass", "hyperinflation", "pacemaker",
  "foreign_body", "scoliosis", "hemidiaphragm",
}

--- Those that lie on one side (effusion and consolidation sometimes on both).
study.lateralised = {"effusion", "pneumothorax", "consolidation", "nodule", "mass", "pacemaker", "hemidiaphragm"}

-- Chosen per 100 studies (or, for what stays with a patient, per 100 patients). Blocks have exact quotas, so that a held-out set of 500
-- never runs short of a finding; the share seen is a little lower, because a study marked normal, or a pair that cannot be told apart
-- on a film, loses some.
local BLOCK = 100
local NORMAL_QUOTA = 12
local QUOTA = 15
-- A pacemaker and a curved spine are there on every film of a patient.
local CHRONIC = {pacemaker = true, scoliosis = true}

local SPLIT = {train = 1, val = 2, test = 3}
local PURPOSE = {layout = 1, patient = 2, normal = 3, findings = 4, scene = 5, noise = 6, text = 7, sample = 8, language = 9, choice = 16}
study.purpose = PURPOSE

--- A random stream for a purpose of one study or patient.
function study.stream(args, purpose, index, extra)
  return rng.stream(args.seed, SPLIT[args.split] * 64 + purpose, index, extra or 0)
end

--- The key of such a stream.
function study.key(args, purpose, index, extra)
  return rng.key(args.seed, SPLIT[args.split] * 64 + purpose, index, extra or 0)
end

-- Ten studies in a row belong to four patients with one, two, three and four studies, in an order of their own.
local function patient_of(args, i)
  local block, position = floor((i - 1) / 10), (i - 1) % 10
  local r = study.stream(args, PURPOSE.layout, block)
  local sizes = {1, 2, 3, 4}
  for k = 4, 2, -1 do
    local other = r:integer(k)
    sizes[k], sizes[other] = sizes[other], sizes[k]
  end
  local slot = 1
  while position >= sizes[slot] do
    position = position - sizes[slot]
    slot = slot + 1
  end
  return block * 4 + slot, position + 1
end

--- Who study i shows: number (from 1 in each split), visit, sex, age, site.
function study.patient(args, i)
  local number, visit = patient_of(args, i)
  local r = study.stream(args, PURPOSE.patient, number)
  return {
    number = number, visit = visit,
    sex = r:chance(0.5) and "f" or "m",
    age = min(97, max(18, floor(58 + 17 * r:normal()))) + floor((visit - 1) / 2),
    site = ("ABCD"):sub(r:integer(4)):sub(1, 1),
  }
end

--- The name of the patient of study i; the splits share none.
function study.patient_name(args, i)
  return string.format("P%d%05d", SPLIT[args.split], (patient_of(args, i)))
end

--- The language of study i: of every two studies in a row one is English and one Spanish.
function study.language(args, i)
  if args.languages ~= "both" then return args.languages end
  local first = study.stream(args, PURPOSE.language, floor((i - 1) / 2)):chance(0.5)
  return ((i % 2 == 1) == first) and "en" or "es"
end

-- Severity 1, 2 or 3, the middle one a little more often.
local function severity_of(r)
  local x = r:uniform()
  return x < 0.3 and 1 or x < 0.7 and 2 or 3
end

local ZONES = {"upper", "middle", "lower"}

local function opposite(side) return side == "left" and "right" or "left" end

-- The lowest zone (1 upper .. 3 lower) of a side that fluid or a raised dome leaves free.
local function lowest_zone(by_name, side)
  local effusion, dome = by_name.effusion, by_name.hemidiaphragm
  local lowest = (dome and (dome.side == side or side == "bilateral")) and 2 or 3
  if effusion and (effusion.side == side or effusion.side == "bilateral" or side == "bilateral") then
    lowest = min(lowest, 4 - effusion.severity)
  end
  return lowest
end

-- Findings that would hide or mimic one another on a film are moved to the other side or to another zone.
local function keep_apart(by_name)
  local effusion, air, dense, dome = by_name.effusion, by_name.pneumothorax, by_name.consolidation, by_name.hemidiaphragm
  if effusion and effusion.both < 0.2 and not air and not dome then effusion.side = "bilateral" end
  if dense and dense.both < 0.1 and not effusion and not air then dense.side = "bilateral" end
  if effusion and effusion.side ~= "bilateral" then
    if air then air.side = opposite(effusion.side) end
    if dome then dome.side = opposite(effusion.side) end
  end
  if air and dense then dense.side = opposite(air.side) end
  if air and air.severity == 3 then
    if by_name.oedema then air.severity = 2 end -- oedema shows in an expanded lung only
    for _, lesion in ipairs {by_name.nodule or false, by_name.mass or false} do
      if lesion then lesion.side = opposite(air.side) end
    end
  end
  local taken = {}
  for _, lesion in ipairs {dense or false, by_name.mass or false, by_name.nodule or false} do
    if lesion then
      local lowest = lowest_zone(by_name, lesion.side)
      local zone = min(lesion.zone, lowest)
      for _ = 2, lowest do
        if taken[lesion.side .. zone] then zone = zone % lowest + 1 end
      end
      for _, side in ipairs(lesion.side == "bilateral" and {"left", "right"} or {lesion.side}) do taken[side .. zone] = true end
      lesion.zone = zone
    end
  end
end

-- The findings of a study by name, each {name, side, zone, severity}; pairs that would hide one another are moved apart.
local function draw_findings(args, i, patient)
  local by_name = {}
  local normal = rng.chosen(study.key(args, PURPOSE.normal, floor((i - 1) / BLOCK)), (i - 1) % BLOCK, BLOCK, NORMAL_QUOTA)
  local r = study.stream(args, PURPOSE.findings, i)
  for f, name in ipairs(study.findings) do
    local item, owner = i - 1, r
    if CHRONIC[name] then
      item, owner = patient.number - 1, study.stream(args, PURPOSE.findings, -patient.number, f)
    end
    local chosen = rng.chosen(study.key(args, PURPOSE.choice + f, floor(item / BLOCK)), item % BLOCK, BLOCK, QUOTA)
    -- every finding takes the same count of numbers, drawn or not, so that one finding's odds never move another's side
    local severity, zone, side, both = severity_of(owner), owner:integer(3), owner:chance(0.5) and "left" or "right", owner:uniform()
    if chosen and (CHRONIC[name] or not normal) then
      by_name[name] = {name = name, severity = severity, zone = zone, side = side, both = both}
    end
  end
  keep_apart(by_name)
  local list = {}
  for _, name in ipairs(study.findings) do
    if by_name[name] then
      by_name[name].both = nil
      list[#list + 1] = by_name[name]
    end
  end
  return list, by_name
end

-- What a finding says about place: only these carry a zone, only these a side.
local HAS_ZONE = {consolidation = true, nodule = true, mass = true}
local HAS_SIDE = {scoliosis = true, foreign_body = true}
for _, name in ipairs(study.lateralised) do HAS_SIDE[name] = true end
local HAS_SEVERITY = {
  cardiomegaly = true, effusion = true, pneumothorax = true, consolidation = true, oedema = true, hyperinflation = true,
  scoliosis = true, hemidiaphragm = true,
}
local OBJECTS = {"coin", "ring", "pin", "pellets"}
local PLACES = {"hemithorax", "hemithorax", "neck", "abdomen"}

--- Patient and findings of study i, without the numbers of its picture.
-- @return {patient=, visit=, sex=, age=, site=, language=, findings={{name=, side=, zone=, severity=}, ...}, labels={name, ...}} and the
-- findings by name
function study.describe(args, i)
  local patient = study.patient(args, i)
  local list, by_name = draw_findings(args, i, patient)
  local labels = {}
  for k, f in ipairs(list) do
    labels[k] = f.name
    if f.name == "foreign_body" then
      local r = study.stream(args, PURPOSE.findings, i, 1)
      f.object, f.place = OBJECTS[r:integer(4)], PLACES[r:integer(4)]
    end
    f.zone = HAS_ZONE[f.name] and ZONES[f.zone] or nil
    if not HAS_SIDE[f.name] or (f.place and f.place ~= "hemithorax") then f.side = nil end
    if not HAS_SEVERITY[f.name] then f.severity = nil end
  end
  return {
    patient = study.patient_name(args, i), visit = patient.visit, sex = patient.sex, age = patient.age, site = patient.site,
    language = study.language(args, i), findings = list, labels = labels,
  }, by_name, patient
end

local SIDE_SIGN = {left = 1, right = -1}

-- Height of a lesion by its zone, in body units (0 is the level of the hila).
local ZONE_LEVEL = {upper = -0.42, middle = -0.08, lower = 0.2}

-- Lobes of an irregular opacity: {u, v, radius, weight} each, around a centre.
local function lobes(r, count, u, v, radius, spread, low, high)
  local list = {}
  for k = 1, count do
    local du, dv = r:range(-spread, spread), r:range(-spread, spread)
    list[k] = {u + du * radius, v + dv * radius, radius * r:range(low, high), r:range(0.7, 1.1)}
  end
  return list
end

--- Every number that the drawing of study i needs: {anatomy, pose, film, findings}, all plain numbers.
function study.scene(args, i)
  local info, by_name, patient = study.describe(args, i)
  -- the patient: the same on every film
  local p = study.stream(args, PURPOSE.patient, patient.number, 1)
  local female, age = patient.sex == "f", patient.age
  local habitus = p:range(-1, 1)
  local body = {
    habitus = habitus,
    lung_width = p:range(0.74, 0.84) - (female and 0.03 or 0),
    apex = p:range(-0.77, -0.70),
    base = 0,
    mediastinum = p:range(0.11, 0.145) + 0.012 * habitus,
    dome_height = p:range(0.15, 0.21),
    dome_gap = p:range(0.02, 0.07),
    heart = 0.425 + 0.024 * p:normal() + 0.008 * habitus + 0.0002 * (age - 58),
    heart_tilt = p:range(0.25, 0.55) - 0.1 * habitus,
    knob = p:range(0.065, 0.085) + 0.0004 * max(0, age - 50),
    curve = 0.012 * p:normal(),
    rib_phase = p:range(0, 1), rib_spacing = p:range(0.135, 0.155), rib_strength = p:range(0.06, 0.1),
    breast = (female and p:chance(0.85)) and p:range(0.03, 0.09) or 0,
    breast_drop = p:range(0.2, 0.34),
    bubble = p:range(-0.1, 0.14), bubble_u = p:range(0.3, 0.45),
    trunk = p:range(0.93, 1.0) + 0.07 * habitus,
    shoulder = p:range(-0.06, 0.06),
  }
  -- the film: new every time
  local r = study.stream(args, PURPOSE.scene, i)
  local site = patient.site:byte() - 64
  local scene = {
    body = body, size = args.size, noise_key = study.key(args, PURPOSE.noise, i),
    angle = 5 * r:normal(), scale = r:range(0.80, 1.15), shift_u = 0.095 * r:normal(), shift_v = 0.09 * r:normal(),
    inspiration = 0.05 * r:normal(),
    air = r:range(0.27, 0.37) - 0.03 * habitus,
    soft = 0.43 + 0.05 * habitus + 0.02 * r:normal(),
    bias = r:range(0.38, 0.62), -- tone curve: 0.5 is straight
    contrast = r:range(0.8, 1.1) + (site == 2 and 0.08 or 0), brightness = 0.045 * r:normal() + (site == 3 and 0.03 or 0),
    grain = r:range(0.012, 0.032) + (site == 4 and 0.008 or 0),
    haze = r:range(0.04, 0.13), tilt_u = 0.05 * r:normal(), tilt_v = 0.05 * r:normal(),
    haze_seed = r:integer(2 ^ 31), texture_seed = r:integer(2 ^ 31), vessel_seed = r:integer(2 ^ 31),
    vessels = r:range(0.05, 0.09), hilum = r:range(0.05, 0.10),
    shift = 0.015 * r:normal(), -- mediastinum, by a slightly turned patient
    findings = by_name, labels = info.labels,
  }
  body.base = 0.55 + scene.inspiration
  scene.dome = {[-1] = scene.inspiration + 0.37 - body.dome_gap / 2, [1] = scene.inspiration + 0.37 + body.dome_gap / 2}
  scene.dome_height = body.dome_height
  scene.curve, scene.heart, scene.lung_width = body.curve, body.heart, body.lung_width

  -- Findings take their numbers from a stream of their own: one more never moves the film of another.
  for f, name in ipairs(study.findings) do
    local found = by_name[name]
    if found then
      local q = CHRONIC[name] and study.stream(args, PURPOSE.findings, -patient.number, 100 + f) or study.stream(args, PURPOSE.scene, i, f)
      local grade, sign = found.severity, SIDE_SIGN[found.side]
      if name == "cardiomegaly" then
        scene.heart = ({0.545, 0.60, 0.66})[grade] + q:range(-0.02, 0.02)
      elseif name == "hyperinflation" then
        local x = ({0.7, 1, 1.3})[grade]
        for side = -1, 1, 2 do scene.dome[side] = scene.dome[side] + 0.13 * x end
        scene.dome_height = body.dome_height * (1 - 0.6 * x)
        body.base = scene.dome[1] + scene.dome_height
        scene.air = scene.air + 0.035 * x
        if not by_name.cardiomegaly then scene.heart = scene.heart - 0.05 * x end
        body.rib_spacing = body.rib_spacing * (1 + 0.07 * x)
        body.apex = body.apex - 0.02 * x
      elseif name == "scoliosis" then
        scene.curve = (found.side == "left" and 1 or -1) * (({0.09, 0.135, 0.185})[grade] + q:range(-0.015, 0.015))
      elseif name == "hemidiaphragm" then
        found.rise = ({0.19, 0.25, 0.32})[grade] + q:range(-0.02, 0.02)
      elseif name == "effusion" then
        found.height = ({0.20, 0.36, 0.62})[grade] + q:range(-0.035, 0.035)
        found.slope = q:range(0.1, 0.18)
      elseif name == "pneumothorax" then
        found.rim = ({0.05, 0.13, 0.30})[grade] + q:range(-0.015, 0.015)
        found.crown = ({0.24, 0.34, 0.42})[grade] + q:range(-0.03, 0.03)
      elseif name == "consolidation" then
        found.radius = q:range(0.17, 0.25)
        found.strength = ({0.24, 0.31, 0.38})[grade] + q:range(-0.015, 0.015)
        found.lobes = {}
        for _, s in ipairs(sign and {sign} or {-1, 1}) do
          local u = s * (q:range(0.36, 0.56) - (found.zone == "upper" and 0.03 or 0))
          local v = ZONE_LEVEL[found.zone] + q:range(-0.05, 0.05)
          for _, lobe in ipairs(lobes(q, 7, u, v, found.radius, 0.6, 0.5, 0.8)) do found.lobes[#found.lobes + 1] = lobe end
        end
      elseif name == "oedema" then
        found.strength = ({0.09, 0.14, 0.20})[grade] + q:range(-0.01, 0.01)
        found.reach = q:range(0.46, 0.58)
      elseif name == "nodule" then
        found.radius, found.strength = q:range(0.06, 0.088), q:range(0.38, 0.46)
        found.u, found.v = sign * q:range(0.28, 0.62), ZONE_LEVEL[found.zone] + q:range(-0.1, 0.08)
      elseif name == "mass" then
        found.radius, found.strength = q:range(0.14, 0.2), q:range(0.3, 0.4)
        local u, v = sign * q:range(0.34, 0.54), ZONE_LEVEL[found.zone] + q:range(-0.06, 0.05)
        found.lobes = lobes(q, 4, u, v, found.radius, 0.3, 0.75, 0.95)
      elseif name == "pacemaker" then
        found.u, found.v = sign * q:range(0.40, 0.64), q:range(-0.60, -0.36)
        found.half_u, found.half_v = q:range(0.085, 0.115), q:range(0.07, 0.095)
        found.tip_u, found.tip_v = q:range(-0.02, 0.2), q:range(0.18, 0.36)
      elseif name == "foreign_body" then
        local place = found.place
        if place == "hemithorax" then
          found.u, found.v = sign * q:range(0.22, 0.68), q:range(-0.5, 0.3)
        elseif place == "neck" then
          found.u, found.v = q:range(-0.06, 0.06), q:range(-0.95, -0.62)
        else
          found.u, found.v = q:range(-0.05, 0.5), q:range(0.6, 0.8)
        end
        found.radius = q:range(0.075, 0.11)
        -- whatever is reported is on the film
        local half = 0.86 / scene.scale
        found.u = min(half - scene.shift_u, max(-half - scene.shift_u, found.u))
        found.v = min(half - scene.shift_v, max(-half - scene.shift_v, found.v))
        found.cos, found.sin = 1 - 2 * q:uniform(), 0
        found.sin = math.sqrt(max(0, 1 - found.cos * found.cos))
        found.seed = q:integer(2 ^ 31)
      end
    end
  end
  local dome = by_name.hemidiaphragm
  if dome then scene.dome[SIDE_SIGN[dome.side]] = scene.dome[SIDE_SIGN[dome.side]] - dome.rise end
  return scene, info
end

return study
