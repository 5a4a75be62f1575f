--- Writes a data set of real chest X-rays as a CSV that any recipe reads: image, report, language, patient, labels.
--   ./unic spec/support/real_csv.lua FOLDER OUT.csv
-- FOLDER holds cxr-nih, cxr-nih-64px (pictures with text-mined labels: their reports are written here from the labels, with the nouns of the
-- built-in set's grammars, every other one in Spanish), cxr-vqa-rad (clinicians' questions and answers in English) and cxr-notes (clinical
-- notes in English). What it prints is the number of rows per source.
require "unic"
local files = require "unic.files"
local cjson = require "cjson"
local lfs = require "lfs"

local folder, out = arg[1], arg[2]
if not folder or not out then error("usage: ./unic spec/support/real_csv.lua FOLDER OUT.csv", 0) end

-- Findings of the labels: the name in the built-in set, or words of its own where that set has none.
local FINDING = {
  Cardiomegaly = "cardiomegaly", Effusion = "effusion", Pneumothorax = "pneumothorax", Consolidation = "consolidation", Edema = "oedema", Nodule = "nodule",
  Mass = "mass", Emphysema = "hyperinflation", Atelectasis = { en = "atelectasis", es = "atelectasia" }, Infiltration = { en = "infiltrates", es = "infiltrados" },
  Fibrosis = { en = "fibrosis", es = "fibrosis" }, Hernia = { en = "hiatal hernia", es = "hernia de hiato" }, Pneumonia = { en = "pneumonia", es = "neumonía" },
  Pleural_Thickening = { en = "pleural thickening", es = "engrosamiento pleural" },
}
local GRAMMAR = { en = require "unic.datasets.phantom.english", es = require "unic.datasets.phantom.spanish" }
local SENTENCE = {
  en = { has = { "There is %s.", "%s." }, lacks = { "No %s.", "There is no %s." }, normal = "No acute cardiopulmonary abnormality." },
  es = { has = { "Se observa %s.", "%s." }, lacks = { "Sin %s.", "No hay %s." }, normal = "Sin alteraciones cardiopulmonares agudas." },
}
local ABSENT = { "Pneumothorax", "Effusion", "Cardiomegaly", "Consolidation", "Mass" }

local function noun(label, language, turn)
  local finding = FINDING[label]
  if type(finding) == "table" then return finding[language] end
  local nouns = GRAMMAR[language].findings[finding].nouns
  return nouns[turn % #nouns + 1]
end

local function capital(text) return text:sub(1, 1):upper() .. text:sub(2) end

-- Row k's report: what is there, then one finding that is not.
local function report_of(labels, language, k)
  local words, parts, has = SENTENCE[language], {}, {}
  for i, label in ipairs(labels) do
    has[label] = true
    parts[i] = capital(words.has[(k + i) % 2 + 1]:format(noun(label, language, k + i)))
  end
  if #parts == 0 then parts[1] = words.normal end
  for i = 1, #ABSENT do
    local label = ABSENT[(k + i) % #ABSENT + 1]
    if not has[label] then
      parts[#parts + 1] = words.lacks[k % 2 + 1]:format(noun(label, language, k))
      break
    end
  end
  return table.concat(parts, " ")
end

local rows, count = {}, {}
local function add(source, path, report, language, patient, labels)
  if not lfs.attributes(path) then return end
  rows[#rows + 1] = { path, report, language, source .. "-" .. patient, table.concat(labels, "|") }
  count[source] = (count[source] or 0) + 1
end

local function labelled(source, csv_name, path_of, columns)
  local csv = files.read_csv(("%s/%s/%s"):format(folder, source, csv_name), {})
  for k = 1, csv:rows() do
    local labels = {}
    for label in csv:get(k, columns.labels):gmatch "[^|]+" do
      if FINDING[label] then labels[#labels + 1] = label end
    end
    local language = k % 2 == 0 and "es" or "en"
    local name = csv:get(k, columns.file)
    add(source, path_of(name), report_of(labels, language, k), language, name:match "(%d+)_%d+%.png$" or name, labels)
  end
end
labelled("cxr-nih", "labels.csv", function(name) return folder .. "/cxr-nih/images/" .. name end, { file = "Image Index", labels = "Finding Labels" })
labelled("cxr-nih-64px", "index.csv", function(name) return folder .. "/cxr-nih-64px/" .. name end, { file = "file", labels = "finding_labels" })

local file = assert(io.open(folder .. "/cxr-vqa-rad/qa.json"))
local by_image, order = {}, {}
for _, qa in ipairs(cjson.decode(file:read "*a")) do
  if qa.image_organ == "CHEST" then
    if not by_image[qa.image_name] then
      by_image[qa.image_name] = {}
      order[#order + 1] = qa.image_name
    end
    local parts = by_image[qa.image_name]
    if #parts < 4 then parts[#parts + 1] = ("%s %s."):format(qa.question, tostring(qa.answer)) end
  end
end
file:close()
for _, name in ipairs(order) do
  add("cxr-vqa-rad", folder .. "/cxr-vqa-rad/images/" .. name, table.concat(by_image[name], " "), "en", name, {})
end

local notes = files.read_csv(folder .. "/cxr-notes/metadata.csv", {})
for k = 1, notes:rows() do
  local text = notes:get(k, "clinical_notes")
  if text ~= "" then add("cxr-notes", folder .. "/cxr-notes/images/" .. notes:get(k, "filename"), text, "en", notes:get(k, "patientid"), {}) end
end

local function quoted(field) return '"' .. field:gsub('"', '""') .. '"' end
local csv = assert(io.open(out, "wb"))
csv:write("image,report,language,patient,labels\n")
for _, row in ipairs(rows) do
  for k, field in ipairs(row) do row[k] = quoted(field) end
  csv:write(table.concat(row, ","), "\n")
end
assert(csv:close())
local words = {}
for source, n in pairs(count) do words[#words + 1] = ("%s=%d"):format(source, n) end
table.sort(words)
print(("rows=%d %s"):format(#rows, table.concat(words, " ")))
