--- Phantom: synthetic chest X-rays with reports in English and Spanish, drawn from a seed. The built-in data set.
--
--     local phantom = require "unic.datasets.phantom"
--     local train = phantom.open {split = "train", studies = 12000, size = 64, seed = 0}
--     train:image(1, pointer)   -- uint8_t[64 * 64]
--     train:report(1)           -- "Small left pleural effusion. No pneumothorax."
--     train:report(1, "es")     -- the same study, told in Spanish
--
-- A study is a patient (several studies each, sex, age, site), zero to six of twelve findings with side, zone and severity, a film and a
-- report. The film shows a body of its own build (habitus, lungs, heart, spine, ribs), in a pose of its own (turn, scale, shift,
-- inspiration), through exposure, haze and grain of its own; the patient's left is on the right of the picture, and `left` in a report
-- means the patient's. The report names the findings, sometimes hedged, two at times in one sentence, and denies or calls normal some of
-- the rest. There is a mask and a box for every finding.
--
-- Everything follows from integers (seed, split, index): any study can be made alone, by any thread, on any machine, with the same
-- bytes. The splits share no patient and no random stream, and phrasings marked in the grammars are kept for the held-out splits.
-- Prevalence of every finding is 10 to 25 % with quotas in blocks, so a held-out set of 500 has at least 40 of each.
--
-- What it is for: a first run without any data, specs, and timing. What it is not: realistic. A number measured on it says that the
-- training works, not how well a model reads radiographs.
--
-- The files: phantom/study.lua (what a study is), draw.lua (film and masks), report.lua with english.lua and spanish.lua (words),
-- rng.lua (numbers), write.lua (files), vocab.txt (WordPiece vocabulary of the reports); prompts/phantom.csv (prompts for zero-shot
-- classification). The module needs LuaJIT alone, not the C runtime, so that worker threads can load it.
--
-- As a script it writes a set as a user's own data looks like: `./unic data/phantom.lua --out DIR --studies N --seed S`.
-- @module unic.datasets.phantom

local MODULE = "unic.datasets.phantom"

-- As a script: `require` hands a file its module's name, the launcher hands it the options. The script loads the module by that name,
-- once the library has said where its files are, and leaves the rest to it.
if (...) ~= MODULE and arg and tostring(arg[0]):match("phantom%.lua$") then
  require "unic"
  return require("unic.datasets.phantom.write").main(require(MODULE), arg)
end

local ffi = require "ffi"
local study = require "unic.datasets.phantom.study"
local draw = require "unic.datasets.phantom.draw"
local report = require "unic.datasets.phantom.report"
local nearest = require("unic.datasets.phantom.names").hint

local folder = debug.getinfo(1, "S").source:match("^@(.*)phantom%.lua$") or "data/"

local phantom = {
  --- The findings, in the order of every table.
  findings = study.findings,
  --- The findings that have a side.
  lateralised = study.lateralised,
  --- Path of the WordPiece vocabulary.
  vocab = folder .. "phantom/vocab.txt",
  --- Path of the prompt file.
  prompt_file = folder .. "prompts/phantom.csv",
}

local DEFAULT_STUDIES = {train = 12000, val = 500, test = 500}
local LANGUAGES = {both = true, en = true, es = true}
local DEFAULTS = {split = "train", size = 64, seed = 0, languages = "both", studies = false}

-- Raise at the line that called the public function.
local function fail(format, ...)
  error(("[phantom] " .. format):format(...), 3)
end

local function whole(value, low)
  return type(value) == "number" and value == math.floor(value) and value >= low and value <= 2 ^ 31
end

local function check_index(set, i)
  if not whole(i, 1) or i > set.n then
    error(("[phantom] argument 'i': %s, expected a study from 1 to %d"):format(tostring(i), set.n), 3)
  end
end

local function check_finding(name)
  for _, known in ipairs(study.findings) do
    if known == name then return end
  end
  local set = {}
  for _, known in ipairs(study.findings) do set[known] = true end
  error(("[phantom] argument 'finding': '%s' is unknown%s"):format(tostring(name), nearest(name, set)), 3)
end

local function check_language(language)
  if language ~= nil and language ~= "en" and language ~= "es" then
    error(("[phantom] argument 'language': '%s', expected \"en\" or \"es\""):format(tostring(language)), 3)
  end
end

local Set = {}
Set.__index = Set
Set.__name = "phantom"

--- Open a set. Nothing is drawn or written until it is asked for.
-- @param options `split` "train" (default), "val" or "test"; `studies` how many (12000, 500, 500); `size` of the square picture in pixels
-- (64); `seed` (0); `languages` "both" (half and half), "en" or "es"
-- @return a set with the field n and the methods below; studies count from 1
function phantom.open(options)
  options = options or {}
  if type(options) ~= "table" then fail("argument 'options': a %s was given, expected a table", type(options)) end
  local set = {}
  for name, value in pairs(DEFAULTS) do set[name] = value end
  for name, value in pairs(options) do
    if DEFAULTS[name] == nil then fail("option '%s' is unknown%s", tostring(name), nearest(name, DEFAULTS)) end
    set[name] = value
  end
  if not DEFAULT_STUDIES[set.split] then
    fail("option 'split': '%s', expected \"train\", \"val\" or \"test\"%s", tostring(set.split), nearest(set.split, DEFAULT_STUDIES))
  end
  if not LANGUAGES[set.languages] then
    fail("option 'languages': '%s', expected \"both\", \"en\" or \"es\"", tostring(set.languages))
  end
  set.n = set.studies or DEFAULT_STUDIES[set.split]
  set.studies = nil
  if not whole(set.n, 1) then fail("option 'studies': %s, expected a whole number of at least 1", tostring(set.n)) end
  if not whole(set.size, 16) or set.size > 4096 then
    fail("option 'size': %s, expected a whole number of pixels from 16 to 4096", tostring(set.size))
  end
  if not whole(set.seed, 0) then fail("option 'seed': %s, expected a whole number of at least 0", tostring(set.seed)) end
  return setmetatable(set, Set)
end

function Set:__tostring()
  return ("phantom %s: %d studies of %dx%d, seed %d"):format(self.split, self.n, self.size, self.size, self.seed)
end

--- Plain options of the set, to hand to `phantom.render` in another Lua state.
-- @return {split=, size=, seed=, languages=}
function Set:args()
  return {split = self.split, size = self.size, seed = self.seed, languages = self.languages}
end

--- Draw a study without a set: the entry for worker threads.
-- @param args {split=, size=, seed=, languages=} as `set:args()` gives it; other fields are ignored
-- @param i study, from 1
-- @param ptr where the picture goes: uint8_t[size * size], rows from the top
function phantom.render(args, i, ptr)
  draw.film((study.scene(args, i)), ffi.cast("uint8_t *", ptr))
end

--- Draw study i.
-- @param i study, from 1
-- @param ptr uint8_t[size * size], rows from the top, 0 black
function Set:image(i, ptr)
  check_index(self, i)
  draw.film((study.scene(self, i)), ffi.cast("uint8_t *", ptr))
end

--- The report of study i.
-- @param i study, from 1
-- @param[opt] language "en" or "es"; the study's own by default. The two are translations of one another.
-- @return a text
function Set:report(i, language)
  check_index(self, i)
  check_language(language)
  return report.text(self, i, language or study.language(self, i))
end

--- The sentences of the report of study i, in order.
-- @param i study, from 1
-- @param[opt] language "en" or "es"; the study's own by default
-- @return a list of {text=, positive=, findings={names}}; positive: the sentence states findings
function Set:sentences(i, language)
  check_index(self, i)
  check_language(language)
  return report.sentences(self, i, language or study.language(self, i))
end

--- A text for training: the positive sentences and at most two others, shuffled. Short texts make a prompt of one
-- sentence nothing unusual.
-- @param i study, from 1
-- @param epoch a whole number; another epoch takes another part of the report
-- @param[opt] language "en" or "es"; the study's own by default
-- @return a text
function Set:sample_text(i, epoch, language)
  check_index(self, i)
  check_language(language)
  if not whole(epoch, 0) then fail("argument 'epoch': %s, expected a whole number of at least 0", tostring(epoch)) end
  return report.sample(self, i, language or study.language(self, i), epoch)
end

--- The language of the report of study i, "en" or "es"; of every two studies in a row there is one of each.
-- @param i study, from 1
function Set:language(i)
  check_index(self, i)
  return study.language(self, i)
end

--- The patient of study i: a name, in one split only.
-- @param i study, from 1
function Set:patient(i)
  check_index(self, i)
  return study.patient_name(self, i)
end

--- What study i is.
-- @param i study, from 1
-- @return {patient=, visit=, sex="f" or "m", age=, site=, language=, labels={names}, findings={{name=, side=, zone=, severity=1..3, and of a
-- foreign body object=, place=}, ...}}; a finding has only the fields that make sense for it
function Set:study(i)
  check_index(self, i)
  return (study.describe(self, i))
end

--- The names of the findings of study i, in the order of `phantom.findings`.
-- @param i study, from 1
function Set:labels(i)
  check_index(self, i)
  return study.describe(self, i).labels
end

--- Draw the mask of a finding.
-- @param i study, from 1
-- @param finding one of `phantom.findings`
-- @param ptr uint8_t[size * size]: 255 where the finding lies, else 0
-- @return how many pixels are set; 0 when the study has no such finding
function Set:masks(i, finding, ptr)
  check_index(self, i)
  check_finding(finding)
  return draw.mask((study.scene(self, i)), finding, ffi.cast("uint8_t *", ptr))
end

--- The boxes of the findings of study i; a finding on both sides has two.
-- @param i study, from 1
-- @return a list of {finding=, side=, x=, y=, width=, height=} in pixels, x and y of the upper left corner from 0
function Set:boxes(i)
  check_index(self, i)
  local scene, info = study.scene(self, i)
  local list = {}
  for _, f in ipairs(info.findings) do
    for _, box in ipairs(draw.boxes(scene, f.name)) do
      box.finding = f.name
      box.side = box.side or f.side
      list[#list + 1] = box
    end
  end
  return list
end

--- The texts of the whole set, as a data set's columns.
-- @return {report={}, language={}, patient={}, labels={}}; labels as in a CSV, names joined with "|"
function Set:columns()
  local columns = {report = {}, language = {}, patient = {}, labels = {}}
  for i = 1, self.n do
    local info = study.describe(self, i)
    columns.report[i] = report.text(self, i, info.language, info)
    columns.language[i], columns.patient[i] = info.language, info.patient
    columns.labels[i] = table.concat(info.labels, "|")
  end
  return columns
end

--- The prompts for zero-shot classification, as data/prompts/phantom.csv holds them.
--
-- Sets: `rich` (positive prompts with side, zone and severity; negated ones), `bare` (the noun alone; negated ones), both with polarity
-- "positive" or "negative"; `side` with polarity "left" or "right"; `swap`, two findings joined with "|", polarity "left|right" or
-- "right|left", the sides in their order. Several rows are an ensemble. No prompt is a sentence of the training split.
-- @return a list of {set=, finding=, language=, polarity=, text=}
function phantom.prompts()
  return report.prompts()
end

--- The WordPiece vocabulary of the reports, as data/phantom/vocab.txt holds it: special tokens, characters, then the words of both
-- grammars, the commonest first, then pieces for words it does not know. For text in lower case without accents.
-- @return a list of tokens
function phantom.vocabulary()
  return report.vocabulary()
end

return phantom
