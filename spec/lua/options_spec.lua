-- Options: types, spelling, presets, sentences.
local options = require "unic.options"

local LIST = {
  usage = "Train a toy.",
  presets = { small = { batch = 64, tau = 0.5 }, paper = { vision = "vit", shuffle = false } },
  { "vision", "resnet", "vision encoder", choices = { "resnet", "vit" } },
  { "tau", 0.07, "temperature" },
  { "shuffle", true, "new order each epoch" },
  { "flip", false, "mirror" },
  { "sizes", { 1, 2 }, "sizes" },
  { "names", {}, "names" },
  { "steps", 100, "steps" },
}

local function parse(line, list)
  local words = {}
  for word in line:gmatch "%S+" do words[#words + 1] = word end
  return options.parse(list or LIST, words, "./unic toy.lua")
end

local function refused(line, list)
  local opt, problem = parse(line, list)
  assert.is_nil(opt)
  return problem
end

describe("options", function()
  it("have the defaults of the recipe, then those all recipes share", function()
    local opt = parse ""
    assert.same({ "resnet", 0.07, true, false, { 1, 2 }, 100, 32, require("unic").device() },
      { opt.vision, opt.tau, opt.shuffle, opt.flip, opt.sizes, opt.steps, opt.batch, opt.device })
    assert.is_nil(opt.run)
    assert.is_false(opt:given "tau")
  end)

  it("are written with a blank or =, with dashes or underscores, and the last one counts", function()
    local opt = parse "--eval-every 5 --save_every=7 --tau -1 --tau=-2.5e-1 --sizes 3,4.5 --names a,b --vision vit"
    assert.same({ 5, 7, -0.25, { 3, 4.5 }, { "a", "b" }, "vit" }, { opt.eval_every, opt.save_every, opt.tau, opt.sizes, opt.names, opt.vision })
    assert.is_true(opt:given "eval_every")
    assert.is_true(opt:given "tau")
    assert.is_false(opt:given "batch")
  end)

  it("switch on and off", function()
    local opt = parse "--no-shuffle --flip --strict"
    assert.same({ false, true, true }, { opt.shuffle, opt.flip, opt.strict })
    opt = parse "--shuffle=false --flip=true --no-strict"
    assert.same({ false, true, false }, { opt.shuffle, opt.flip, opt.strict })
  end)

  it("take a folder for --resume, or none", function()
    assert.is_true(parse("--resume").resume)
    assert.equal("runs/x", parse("--resume runs/x").resume)
    assert.equal("runs/x", parse("--resume=runs/x").resume)
    assert.is_true(parse("--resume --steps 3").resume)
    assert.is_nil(parse("--steps 3").resume)
  end)

  it("of a preset lie between those given and the defaults", function()
    local opt = parse "--preset small --tau 0.2"
    assert.same({ 64, 0.2, "resnet" }, { opt.batch, opt.tau, opt.vision })
    assert.is_false(opt:given "batch")
    opt = parse "--preset=paper"
    assert.same({ "vit", false, 32 }, { opt.vision, opt.shuffle, opt.batch })
    local list = { presets = LIST.presets, { "preset", "small", "preset" }, { "tau", 1, "t" }, { "vision", "x", "v" }, { "shuffle", true, "s" } }
    assert.equal(64, parse("", list).batch)
  end)

  it("are a fresh copy each time", function()
    local opt = parse ""
    opt.sizes[1] = 99
    assert.same({ 1, 2 }, parse("").sizes)
  end)

  it("name what is near when one is unknown, on the command line and in the recipe", function()
    assert.equal("unknown option '--vison', did you mean '--vision'?", refused "--vison vit")
    assert.equal("unknown option '--no-shufle', did you mean '--no-shuffle'?", refused "--no-shufle")
    assert.equal("unknown option '--zzzzzzzzz'; --help lists what there is", refused "--zzzzzzzzz=3")
    assert.equal("unknown option '-x'; options have two dashes, --help lists them", refused "-x")
    assert.equal("'hello' was given where no value is expected; --help lists the options", refused "--flip hello")
    assert.equal("--no-tau: 'tau' is no switch, it takes a value", refused "--no-tau")
    local opt = parse ""
    assert.raises_at(nil, "there is no option 'taw', did you mean 'tau'%?", function() return opt.taw end)
    assert.raises_at(nil, "there is no option 'taw'", function() return opt:given "taw" end)
  end)

  it("say what was expected of a value", function()
    assert.equal("--tau: 'x' was given, expected a number", refused "--tau x")
    assert.equal("--steps: '1.5' was given, expected a whole number of at least 0", refused "--steps 1.5")
    assert.equal("--batch: '0' was given, expected a whole number of at least 1", refused "--batch 0")
    assert.equal("--tau: 'nan' was given, expected a number", refused "--tau nan")
    assert.equal("--sizes: '1,b' was given, expected numbers with commas between them", refused "--sizes 1,b")
    assert.equal("--vision: 'resnt' was given, expected one of resnet, vit (did you mean 'resnet'?)", refused "--vision resnt")
    assert.equal("--dtype: 'f64' was given, expected one of f32, bf16, f16", refused("--dtype f64"):gsub(" %(did.*", ""))
    assert.equal("--flip: '3' was given, expected --flip or --no-flip", refused "--flip=3")
    assert.truthy(refused("--tau"):find "'%-%-tau' requires an argument")
    assert.equal("--preset: 'smal' was given, did you mean 'small'? there are: paper, small", refused "--preset smal")
    assert.equal("--preset: 'x' was given, this recipe has no presets", refused("--preset x", { { "tau", 1, "" } }))
  end)

  it("show everything in the help", function()
    local opt, problem, help = parse "--help --flip"
    assert.is_nil(opt)
    assert.is_nil(problem)
    for _, words in ipairs { "Train a toy.", "--vision S", "vision encoder: resnet, vit", "default: 0.07", "--no-shuffle", "--eval-every N", "--resume [DIR]",
      "small: --batch 64 --tau 0.5", "paper: --no-shuffle --vision vit" } do
      assert.truthy(help:gsub("%s+", " "):find(words, 1, true), words .. " is not in the help")
    end
  end)

  it("tell a recipe's author what is wrong with the list", function()
    assert.raises_at(nil, "'tau' is listed twice", function() parse("", { { "tau", 1, "" }, { "tau", 2, "" } }) end)
    assert.raises_at(nil, "its name is x y, expected a word", function() parse("", { { "x y", 1, "" } }) end)
    assert.raises_at(nil, "preset 'a' has a value for 'tua', which is no option", function() parse("", { presets = { a = { tua = 1 } }, { "tau", 1, "" } }) end)
    assert.raises_at(nil, "preset 'a' has a string for 'tau', expected number", function() parse("", { presets = { a = { tau = "1" } }, { "tau", 1, "" } }) end)
    assert.raises_at(nil, "'batch': a default of type string was given, expected integer", function() parse("", { { "batch", "8", "" } }) end)
    assert.raises_at(nil, "there is no field 'pressets'", function() parse("", { pressets = {} }) end)
    assert.raises_at(nil, "'tau': there is no field 'coices'", function() parse("", { { "tau", 1, "", coices = {} } }) end)
  end)

  it("inside a test raise instead of leaving", function()
    local testing = require "unic.testing"
    local path = os.tmpname()
    local file = io.open(path, "w")
    file:write "opt = require('unic.options') { { 'tau', 1, 'words' } }\nprint(opt.tau)"
    file:close()
    assert.equal("3", testing.recipe(path, { tau = 3 }).output)
    assert.raises_at(nil, "unknown option '%-%-taau', did you mean '%-%-tau'%?", function() testing.recipe(path, { taau = 3 }) end)
    os.remove(path)
  end)
end)
