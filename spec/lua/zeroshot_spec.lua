-- What the scores of zero-shot classification are made of. Texts stand for their embeddings: "1,0" is the vector (1, 0).
local unic = require "unic"
local zeroshot = require "unic.zeroshot"

local function embed(texts)
  local rows = {}
  for i, text in ipairs(texts) do
    rows[i] = {}
    for word in text:gmatch "[^,]+" do rows[i][#rows[i] + 1] = tonumber(word) end
  end
  return unic.tensor(rows)
end

local function prompts(list)
  for i, p in ipairs(list) do list[i] = { set = p[1], finding = p[2], language = p[3], polarity = p[4], text = p[5] } end
  return list
end

describe("zero-shot", function()
  local images = unic.tensor { { 1, 0 }, { 0, 1 }, { 1, 1 } }

  it("scores: the mean of the positive prompts minus that of the negated ones, of one set and language", function()
    local list = prompts {
      { "rich", "mass", "en", "positive", "1,0" }, { "rich", "mass", "en", "positive", "3,0" }, { "rich", "mass", "en", "negative", "0,1" },
      { "rich", "mass", "es", "positive", "0,8" }, { "rich", "mass", "es", "negative", "0,2" }, { "bare", "mass", "en", "positive", "50,50" },
      { "rich", "nodule", "en", "positive", "1,1" }, { "rich", "fracture", "en", "negative", "0,0" }, { "rich", "fracture", "en", "positive", "2,1" },
    }
    local scores, order = zeroshot.scores(images, embed, list, "rich", "en")
    -- A finding with no negated prompt has no score.
    assert.same({ "mass", "fracture" }, order)
    assert.same({ mass = { 2, -1, 1 }, fracture = { 2, 1, 3 } }, scores)
    assert.same({ mass = { 0, 6, 6 } }, (zeroshot.scores(images, embed, list, "rich", "es")))
  end)

  it("AUC: of every finding, and their mean without those that have none", function()
    local scores = { mass = { 3, 2, 1 }, nodule = { 1, 2, 3 }, fracture = { 1, 2, 3 } }
    local mean, each = zeroshot.auc(scores, function(i, finding) return finding ~= "fracture" and i == 1 end)
    assert.same({ 1, 0, 0.5 }, { each.mass, each.nodule, mean })
    assert.is_true(each.fracture ~= each.fracture)
  end)

  it("sides: left against right on the items that have the finding on one side", function()
    local list = prompts {
      { "side", "mass", "en", "left", "2,0" }, { "side", "mass", "en", "right", "0,1" },
      { "side", "mass", "es", "left", "0,2" }, { "side", "mass", "es", "right", "1,0" },
    }
    local where = { "left", "right" }
    local function side(i) return where[i] end   -- the third has none
    assert.equal(1, (zeroshot.sides(images, embed, list, "en", side)))
    assert.equal(0, (zeroshot.sides(images, embed, list, "es", side)))
  end)

  it("swaps: left X and right Y against right X and left Y", function()
    local list = prompts { { "swap", "mass|nodule", "en", "left|right", "1,0" }, { "swap", "mass|nodule", "en", "right|left", "0,1" } }
    local where = { { mass = "left", nodule = "right" }, { mass = "right", nodule = "left" }, { mass = "left", nodule = "left" } }
    assert.equal(1, zeroshot.swaps(images, embed, list, "en", function(i, finding) return where[i][finding] end))
    where[1], where[2] = where[2], where[1]
    assert.equal(0, zeroshot.swaps(images, embed, list, "en", function(i, finding) return where[i][finding] end))
    local none = zeroshot.swaps(images, embed, list, "en", function() return "left" end)
    assert.is_true(none ~= none)
  end)
end)
