--- Writes the report of a phantom study, in English or in Spanish, from the grammars of phantom.english and phantom.spanish.
--
-- What is said (which findings are hedged, which two share a sentence, what is denied, the order) is planned once per study and is the
-- same in both languages, so that the two reports of a study are translations of one another; how it is said is drawn per language.
-- @module unic.datasets.phantom.report

local study = require "unic.datasets.phantom.study"

local concat, floor = table.concat, math.floor

local report = {}

local languages = {
  en = require "unic.datasets.phantom.english",
  es = require "unic.datasets.phantom.spanish",
}

-- A template as a list of parts: a string, {slot = name}, or {choice = {parts, ...}, common = how many training may take}.
local function compile(text)
  local parts, at = {}, 1
  while at <= #text do
    local open = text:find("[%[{]", at)
    if not open then
      parts[#parts + 1] = text:sub(at)
      break
    end
    if open > at then parts[#parts + 1] = text:sub(at, open - 1) end
    if text:sub(open, open) == "{" then
      local close = text:find("}", open, true)
      parts[#parts + 1] = {slot = text:sub(open + 1, close - 1)}
      at = close + 1
    else
      local close = text:find("]", open, true)
      local choice = {}
      for option in (text:sub(open + 1, close - 1) .. "|"):gmatch("(.-)|") do choice[#choice + 1] = compile(option) end
      parts[#parts + 1] = {choice = choice}
      at = close + 1
    end
  end
  return parts
end

-- A list of templates: each {parts =, bare = no article}; the first `common` of them are training's, the others held out.
local function compile_list(list)
  local common, held = {}, {}
  for _, text in ipairs(list) do
    local reserved = text:sub(1, 1) == "*"
    if reserved then text = text:sub(2) end
    local bare = text:sub(1, 1) == "~"
    if bare then text = text:sub(2) end
    local entry = {parts = compile(text), bare = bare}
    if reserved then held[#held + 1] = entry else common[#common + 1] = entry end
  end
  local n = #common
  for k, entry in ipairs(held) do common[n + k] = entry end
  common.common = n
  return common
end

-- Both grammars with their templates compiled; plain word lists (sev, side, nouns, object, ...) stay as they are.
local TEMPLATES = {
  frames = true, hedges = true, pairs = true, negations = true, denials = true, np = true, np_both = true, plain = true,
  sentences = true, rich = true, neutral = true,
}
local function compile_tree(node, key)
  if type(node) ~= "table" then return node end
  if TEMPLATES[key] or node.compiled then return compile_list(node) end
  local copy = {}
  for k, v in pairs(node) do
    if key == "loc" or key == "loc_both" or key == "place" or key == "normal" or key == "prompt" then
      copy[k] = compile_list(v)
    else
      copy[k] = compile_tree(v, k)
    end
  end
  return copy
end

local grammars = {}
for code, grammar in pairs(languages) do grammars[code] = compile_tree(grammar) end

-- One entry of a list. Early ones are likelier, as words are: position = count x u cubed. Held-out studies take a reserved phrasing half the time
-- where there is one.
local function pick(list, r, held_out)
  local n = list.common or #list
  if held_out and #list > n and r:chance(0.5) then return list[n + r:integer(#list - n)] end
  local u = r:uniform()
  return list[floor(n * u * u * u) + 1]
end

local function article(text)
  return (text:gsub("a%(n%) ([%w])", function(letter) return (letter:find("[aeiouAEIOU]") and "an " or "a ") .. letter end))
end

local UPPER = {["á"] = "Á", ["é"] = "É", ["í"] = "Í", ["ó"] = "Ó", ["ú"] = "Ú", ["ñ"] = "Ñ"}
local function capital(text)
  if text:byte(1) >= 0xc2 then return (UPPER[text:sub(1, 2)] or text:sub(1, 2)) .. text:sub(3) end
  return text:sub(1, 1):upper() .. text:sub(2)
end

local write

-- The text of a slot: from the frame's own values first, else from the finding and the grammar.
local function slot_text(name, c)
  local value = c.values and c.values[name]
  if value then return value end
  local f, g, r = c.finding, c.grammar, c.random
  local words = g.findings[f.name]
  if name == "sev" then return pick(words.sev[f.severity], r) end
  if name == "sev_m" or name == "sev_f" then return pick(g[name][f.severity], r) end
  if name == "adverb" or name == "grade" then return g[name][f.severity] end
  if name == "side" or name == "side_m" or name == "side_f" then return g[name][f.side] end
  if name == "bend" then return g.bend[f.side] end
  if name == "loc" then return write(pick((f.side == "bilateral" and g.loc_both or g.loc)[f.zone], r, c.held_out).parts, c) end
  if name == "place" then return write(pick(g.place[f.place], r, c.held_out).parts, c) end
  if name == "object" then return pick(words.object[f.object], r) end
  error("[phantom] a template has the unknown slot {" .. name .. "}")
end

function write(parts, c)
  local out = {}
  for k = 1, #parts do
    local part = parts[k]
    if type(part) == "string" then
      out[k] = part
    elseif part.slot then
      out[k] = slot_text(part.slot, c)
    else
      out[k] = write(part.choice[c.random:integer(#part.choice)], c)
    end
  end
  return concat(out)
end

-- A noun phrase of a finding, and the same with its article.
local function noun_phrase(f, c, plain)
  c.finding, c.values = f, nil
  local words = c.grammar.findings[f.name]
  local entry = pick(plain and words.plain or f.side == "bilateral" and words.np_both or words.np, c.random, c.held_out)
  local text = write(entry.parts, c)
  return text, (c.grammar.article and not entry.bare) and "a(n) " .. text or text
end

local function sentence(entry, c, values)
  c.values = values
  return capital(article(write(entry.parts, c)))
end

-- Things that may be called normal, with the findings that forbid it.
local NORMAL = {
  {"heart", "cardiomegaly"}, {"lungs", "effusion", "pneumothorax", "consolidation", "oedema", "nodule", "mass", "hyperinflation"},
  {"angles", "effusion", "pneumothorax"}, {"mediastinum", "cardiomegaly", "scoliosis", "mass"},
  {"diaphragm", "hemidiaphragm", "hyperinflation", "effusion"}, {"vessels", "oedema"}, {"bones", "scoliosis"},
  {"volume", "hyperinflation", "hemidiaphragm", "pneumothorax"},
}

local function shuffle(list, r)
  for k = #list, 2, -1 do
    local other = r:integer(k)
    list[k], list[other] = list[other], list[k]
  end
  return list
end

-- What the report of a study says, without words: a list of {kind, ...} in the order of the report.
local function plan_of(args, i, info)
  local r = study.stream(args, study.purpose.text, i)
  local has = {}
  for _, f in ipairs(info.findings) do has[f.name] = true end
  local positives, others = {}, {}
  local order = {}
  for k, f in ipairs(info.findings) do order[k] = f end
  shuffle(order, r)
  local first = 1
  if #order >= 2 and r:chance(0.4) then
    positives[1] = {kind = "pair", positive = true, findings = {order[1], order[2]}}
    first = 3
  end
  for k = first, #order do
    positives[#positives + 1] = {
      kind = r:chance(0.1) and "hedge" or r:chance(0.25) and "sentence" or "frame", plain = r:chance(0.16), positive = true,
      findings = {order[k]},
    }
  end
  local absent = {}
  for _, name in ipairs(study.findings) do
    if not has[name] then absent[#absent + 1] = name end
  end
  shuffle(absent, r)
  if #order == 0 and r:chance(0.75) then others[1] = {kind = "normal", topic = "all"} end
  local next_absent = 1
  for _ = 1, r:chance(0.55) and 1 or 2 do
    local count = r:chance(0.6) and 1 or r:chance(0.7) and 2 or 3
    local names = {}
    while #names < count and absent[next_absent] do
      names[#names + 1] = absent[next_absent]
      next_absent = next_absent + 1
    end
    if #names > 0 then others[#others + 1] = {kind = "negation", names = names} end
  end
  for _ = 1, r:integer(3) - 1 do
    local topic = NORMAL[r:integer(#NORMAL)]
    local allowed = true
    for k = 2, #topic do
      if has[topic[k]] then allowed = false end
    end
    for _, item in ipairs(others) do
      if item.topic == topic[1] then allowed = false end
    end
    if allowed then others[#others + 1] = {kind = "normal", topic = topic[1]} end
  end
  if r:chance(0.15) then others[#others + 1] = {kind = "neutral"} end
  local plan = {}
  for _, item in ipairs(positives) do plan[#plan + 1] = item end
  for _, item in ipairs(others) do plan[#plan + 1] = item end
  if r:chance(0.35) then shuffle(plan, r) end
  return plan
end

local LANGUAGE_NUMBER = {en = 1, es = 2}

local function say(item, c)
  local g, r, held = c.grammar, c.random, c.held_out
  if item.kind == "normal" then return sentence(pick(g.normal[item.topic], r, held), c) end
  if item.kind == "neutral" then return sentence(pick(g.neutral, r, held), c) end
  if item.kind == "negation" then
    local nouns = {}
    for k, name in ipairs(item.names) do nouns[k] = pick(g.findings[name].nouns, r) end
    local list = nouns[1]
    for k = 2, #nouns do list = list .. (k == #nouns and g.join[2] or g.join[1]) .. nouns[k] end
    local frames = (g.denials and #nouns == 1 and r:chance(0.12)) and g.denials or g.negations
    return sentence(pick(frames, r, held), c, {np = list, a = list})
  end
  local f = item.findings[1]
  if item.kind == "pair" then
    local np, a = noun_phrase(f, c)
    local np2, a2 = noun_phrase(item.findings[2], c)
    return sentence(pick(g.pairs, r, held), c, {np = np, a = a, np2 = np2, a2 = a2})
  end
  local words = g.findings[f.name]
  if item.kind == "sentence" and words.sentences and f.side ~= "bilateral" then
    c.finding = f
    return sentence(pick(words.sentences, r, held), c)
  end
  local np, a = noun_phrase(f, c, item.plain)
  return sentence(pick(item.kind == "hedge" and g.hedges or g.frames, r, held), c, {np = np, a = a})
end

--- The sentences of the report of study i, in their order.
-- @param args plain options of the set (unic.datasets.phantom)
-- @param i study, from 1
-- @param language "en" or "es"
-- @param info study.describe(args, i), if at hand
-- @return a list of {text=, positive= does it state a finding, findings={names it states}}
function report.sentences(args, i, language, info)
  info = info or study.describe(args, i)
  local c = {
    grammar = grammars[language], held_out = args.split ~= "train",
    random = study.stream(args, study.purpose.text, i, LANGUAGE_NUMBER[language]),
  }
  local list = {}
  for k, item in ipairs(plan_of(args, i, info)) do
    local names = {}
    for j, f in ipairs(item.findings or {}) do names[j] = f.name end
    list[k] = {text = say(item, c), positive = item.positive or false, findings = names}
  end
  return list
end

--- The report of study i as one text.
function report.text(args, i, language, info)
  local list = report.sentences(args, i, language, info)
  for k = 1, #list do list[k] = list[k].text end
  return concat(list, " ")
end

--- A part of the report, as training shows it: all the positive sentences and at most two others, shuffled.
-- So a text of one sentence, as a prompt is, is nothing new to the text encoder. Another epoch takes another part.
function report.sample(args, i, language, epoch)
  local list = report.sentences(args, i, language)
  local r = study.stream(args, study.purpose.sample, i, epoch)
  local positive, other = {}, {}
  for _, s in ipairs(list) do
    if s.positive then positive[#positive + 1] = s.text else other[#other + 1] = s.text end
  end
  shuffle(other, r)
  local extra = r:integer(3) - 1
  if #positive == 0 and extra == 0 then extra = 1 end
  local text = positive
  for k = 1, extra do text[#text + 1] = other[k] end
  return concat(shuffle(text, r), " ")
end

-- ---------------------------------------------------------------------------------------------------------------- prompts

-- Takes always the first entry, so that a prompt file never depends on a seed.
local plainest = {uniform = function() return 0 end, integer = function() return 1 end, chance = function() return false end}

local SIDES = {"left", "right"}
local ZONES = {"upper", "middle", "lower"}
local OBJECTS = {{"coin", "neck"}, {"ring", "hemithorax"}, {"pin", "hemithorax"}, {"pellets", "abdomen"}, {"coin", "abdomen"}, {"pin", "neck"}}

-- Every state of a finding that a rich prompt names.
local function states_of(name)
  local states = {}
  local words = languages.en.findings[name]
  local lateral, zoned = name == "scoliosis", false
  for _, other in ipairs(study.lateralised) do lateral = lateral or other == name end
  for _, template in ipairs(words.rich) do zoned = zoned or template:find("{loc}", 1, true) ~= nil end
  if name == "foreign_body" then
    for k, object in ipairs(OBJECTS) do
      states[k] = {name = name, object = object[1], place = object[2], side = SIDES[k % 2 + 1]}
    end
    return states
  end
  local grades = words.sev and (zoned and {2} or {1, 2, 3}) or {false}
  for _, side in ipairs(lateral and SIDES or {false}) do
    for _, zone in ipairs(zoned and ZONES or {false}) do
      for _, grade in ipairs(grades) do
        states[#states + 1] = {name = name, side = side or nil, zone = zone or nil, severity = grade or nil}
      end
    end
  end
  return states
end

-- The rows of the prompt file: {set=, finding=, language=, polarity=, text=}.
function report.prompts()
  local rows, seen = {}, {}
  local function row(set, finding, language, polarity, text)
    local key = concat({set, finding, language, polarity, text}, "\0")
    if not seen[key] then
      seen[key] = true
      rows[#rows + 1] = {set = set, finding = finding, language = language, polarity = polarity, text = text}
    end
  end
  local function phrases(c, state)
    local list = {}
    for k, entry in ipairs(c.grammar.findings[state.name].rich) do
      c.finding, c.values = state, nil
      list[k] = write(entry.parts, c)
    end
    return list
  end
  for _, language in ipairs {"en", "es"} do
    local g = grammars[language]
    local c = {grammar = g, held_out = false, random = plainest}
    local function ask(entry, np, np2) return sentence(entry, c, {np = np, np2 = np2}) end
    for _, name in ipairs(study.findings) do
      local words, states = g.findings[name], states_of(name)
      local count = 0
      for k, state in ipairs(states) do -- frames take turns: every state is named, no more than 16 prompts a finding
        local list = phrases(c, state)
        for j, np in ipairs(list) do
          for m, frame in ipairs(g.prompt.positive) do
            if #states * #list * #g.prompt.positive <= 16 or (k + j + m) % 2 == 0 then
              count = count + 1
              row("rich", name, language, "positive", ask(frame, np))
            end
          end
        end
      end
      for _, noun in ipairs(words.nouns) do
        for _, frame in ipairs(g.prompt.positive) do row("bare", name, language, "positive", ask(frame, noun)) end
        for _, frame in ipairs(g.prompt.negative) do
          row("rich", name, language, "negative", ask(frame, noun))
          row("bare", name, language, "negative", ask(frame, noun))
        end
      end
    end
    for _, name in ipairs(study.lateralised) do
      for _, state in ipairs(states_of(name)) do
        for _, np in ipairs(phrases(c, state)) do row("side", name, language, state.side, ask(g.prompt.positive[1], np)) end
      end
    end
    for a = 1, #study.lateralised do
      for b = a + 1, #study.lateralised do
        for k = 1, 2 do
          local x = phrases(c, {name = study.lateralised[a], side = SIDES[k], zone = "middle", severity = 2})[1]
          local y = phrases(c, {name = study.lateralised[b], side = SIDES[3 - k], zone = "middle", severity = 2})[1]
          for _, frame in ipairs(g.prompt.pair) do
            row("swap", study.lateralised[a] .. "|" .. study.lateralised[b], language, SIDES[k] .. "|" .. SIDES[3 - k], ask(frame, x, y))
            row("swap", study.lateralised[a] .. "|" .. study.lateralised[b], language, SIDES[k] .. "|" .. SIDES[3 - k], ask(frame, y, x))
          end
        end
      end
    end
  end
  return rows
end

-- ------------------------------------------------------------------------------------------------------------- vocabulary

local PLAIN = {
  ["á"] = "a", ["é"] = "e", ["í"] = "i", ["ó"] = "o", ["ú"] = "u", ["ü"] = "u", ["ñ"] = "n",
  ["Á"] = "a", ["É"] = "e", ["Í"] = "i", ["Ó"] = "o", ["Ú"] = "u", ["Ü"] = "u", ["Ñ"] = "n",
}

--- Lower-cased and without accents, as an uncased tokeniser sees the text.
function report.plain(text)
  return (text:gsub("[\195][\128-\191]", PLAIN):lower())
end

--- Every word that the grammars can write, plain, with how many templates use it.
function report.words()
  local count = {}
  local function take(text)
    text = report.plain(text):gsub("{[%w_]*}", " ")
    for word in text:gmatch("%w+") do count[word] = (count[word] or 0) + 1 end
  end
  local function walk(node)
    if type(node) == "string" then
      take(node)
    elseif type(node) == "table" then
      for _, value in pairs(node) do walk(value) end
    end
  end
  for _, grammar in pairs(languages) do walk(grammar) end
  take("a an")
  return count
end

-- The keys of a count that reach `least`, the most frequent first.
local function by_frequency(count, least)
  local list = {}
  for word, n in pairs(count) do
    if n >= least then list[#list + 1] = word end
  end
  table.sort(list, function(a, b)
    if count[a] ~= count[b] then return count[a] > count[b] end
    return a < b
  end)
  return list
end

--- The vocabulary: special tokens; every printable ASCII character but capitals, alone and, for letters and digits, as a piece; words; and
-- beginnings and endings that many words share, for the words that it does not know.
function report.vocabulary()
  local list, seen = {"[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"}, {}
  local function add(token)
    if not seen[token] then
      seen[token] = true
      list[#list + 1] = token
    end
  end
  for code = 33, 126 do
    local char = string.char(code)
    if not char:find("%u") then add(char) end
  end
  for code = 48, 122 do
    local char = string.char(code)
    if char:find("[%l%d]") then add("##" .. char) end
  end
  local words, heads, tails = report.words(), {}, {}
  for _, word in ipairs(by_frequency(words, 1)) do
    add(word)
    for length = 2, 6 do
      if #word > length + 1 and word:find("^%a+$") then
        local head, tail = word:sub(1, length), "##" .. word:sub(-length)
        heads[head], tails[tail] = (heads[head] or 0) + 1, (tails[tail] or 0) + 1
      end
    end
  end
  for _, tail in ipairs(by_frequency(tails, 5)) do add(tail) end
  for _, head in ipairs(by_frequency(heads, 4)) do add(head) end
  return list
end

return report
