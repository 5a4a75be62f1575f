-- unic.data as a person meets it: the options of batches, their sentences, and programs that end while workers are at work.
local unic = require "unic"
local data = require "unic.data"
local text = require "unic.text"
local files_support = require "spec.support.files"
local shell = require("spec.support.check").shell
local root = require("lfs").currentdir()

describe("data.batches", function()
  local ds, tok
  setup(function()
    local rows = {}
    for i = 1, 10 do rows[i] = { image = unic.full({ 8, 8 }, i, { dtype = "u8" }), report = "a report" } end
    ds = data.open(rows, { size = 8 })
    tok = text.wordpiece { "[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "report" }
  end)

  it("refuses wrong options in words, at the recipe's line", function()
    local function message(options) return files_support.refusal(data.batches, ds, options) end
    for sentence, options in pairs {
      ["there is no option 'bacth', did you mean 'batch'?"] = { bacth = 3 },
      ["option 'batch': the number 2.5, expected an integer"] = { batch = 2.5 },
      ["option 'batch': 0, expected 1 to 16777216"] = { batch = 0 },
      ["option 'batch': 11 is more than the 10 items of the data set, and drop_last leaves out what does not fill a batch"] = { batch = 11 },
      ["option 'batch': 4 on each of 3 processes is more than the 10 items of the data set"] = { batch = 4, ranks = 3 },
      ["option 'workers': -1, expected 0 to 256"] = { workers = -1 },
      ["option 'rank': 2, expected 0 to 1"] = { rank = 2, ranks = 2 },
      ["option 'channels': 2, expected 1 or 3"] = { channels = 2 },
      ["option 'text': 'reprot', expected \"report\", \"sample\" or a function, did you mean 'report'?"] = { text = "reprot", tokenizer = tok },
      ["option 'text': a number, expected \"report\", \"sample\" or a function"] = { text = 3, tokenizer = tok },
      ["option 'text': is given without the option 'tokenizer'"] = { text = "sample" },
      ["option 'tokenizer': a table was given, expected what unic.text.wordpiece gave"] = { tokenizer = {} },
      ["option 'start': a boolean, expected what state() gave, or a number of batches"] = { start = true },
      ["option 'start': there is no 'pos', expected what state() gave"] = { start = { pos = 3 } },
      ["option 'start': it belongs to seed 3, the option 'seed' is 0"] = { start = { epoch = 0, position = 1, seed = 3 } },
      ["option 'start': epoch 0, position -1, expected whole numbers from 0 on"] = { start = -1 },
      ["option 'views': a view cannot be called 'tokens', a batch has a field of that name"] = { views = { tokens = {} } },
      ["option 'views': a view's name is a number, expected {name = steps}"] = { views = { { "grey" } } },
      ["view 'v', step 2 (random_crop): a piece of 9 x 9 pixels does not fit into a picture of 8 x 8"] = { views = { v = { { "grey" }, { "random_crop", 9 } } } },
      ["view 'v', step 1: there is no step 'rotat', did you mean 'rotate'?"] = { views = { v = { { "rotat" } } } },
    } do
      assert.equal("[batches] " .. sentence, message(options))
    end
    local many = {}
    for i = 1, 9 do many["v" .. i] = {} end
    assert.equal("[batches] option 'views': 9 views, at most 8 are possible", message { views = many })
    assert.equal("[batches] argument 'ds': a string was given, expected a data set that data.open gave", files_support.refusal(data.batches, "phantom", {}))
    assert.truthy(files_support.refusal(data.batches, ds, 3):find("expected a table of named options", 1, true))
    local line
    local ok, why = pcall(function()
      line = debug.getinfo(1, "l").currentline + 1
      data.batches(ds, { batch = 11 })
    end)
    assert.is_false(ok)
    assert.truthy(why:find((":%d: [batches] option 'batch'"):format(line), 1, true))
    -- And nothing is left that would keep the next from working.
    assert.equal(10, data.batches(ds, { batch = 10 }):next().n)
  end)

  it("goes past the end without anything", function()
    local it = data.batches(ds, { batch = 5, start = 7 })
    assert.is_nil(it:next())
    assert.is_nil(it:next())
    assert.same({ epoch = 3, position = 1, seed = 0 }, it:state())   -- 7 batches of 2 an epoch
  end)

  it("tells what it is", function()
    local it = data.batches(ds, { batch = 3, seed = 4 })
    it:next()
    assert.equal("batches: 3 of 3 items an epoch, at epoch 0, position 1", (tostring(it):gsub(" of %d+ items", " of 3 items")))
    it:close()
  end)

  it("can be looked at in a batch that is a plain table", function()
    local batch = data.batches(ds, { batch = 2, shuffle = false, tokenizer = tok }):next()
    assert.same({ "a report", "a report" }, batch.reports)
    assert.equal(batch.reports, batch.reports)   -- made once
    assert.is_nil(batch.nothing)
    assert.same({ 2, 3, 4, 5, 3 }, { batch.tokens:totable()[1][1], 3, batch.tokens:totable()[1][2], batch.tokens:totable()[1][3], batch.tokens:totable()[1][4] })
  end)
end)

-- The same ends as in spec/runtime/data/pipeline_spec.lua, of whole programs: exit code and time.
describe("a program with workers at work", function()
  local folder
  setup(function() folder = files_support.folder() end)
  teardown(function() files_support.remove(folder) end)

  local function run(ending, environment)
    local path = files_support.write(folder .. "/ending.lua", [[
local data = require "unic.data"
local ds = data.open("phantom", { studies = 64, size = 64 })
local it = data.batches(ds, { batch = 8, workers = 3, prefetch = 8, views = { view1 = { { "jitter" } }, view2 = { { "noise" } } } })
it:next()
]] .. ending)
    local _, code = shell((environment or "") .. root .. "/unic " .. path, { timeout = 20 })
    return code
  end

  it("ends by reaching its end", function() assert.equal(0, run "") end)
  -- Leaving this way frees nothing, by the language's rule: no leak for a sanitizer to report (./unic check asan).
  it("ends by os.exit", function() assert.equal(3, run("os.exit(3)", "ASAN_OPTIONS=$ASAN_OPTIONS:detect_leaks=0 ")) end)
  it("ends by os.exit with a closed state", function() assert.equal(4, run "os.exit(4, true)") end)
  it("ends by an error", function() assert.equal(1, run "error 'enough'") end)

  it("ends by Ctrl-C while it waits for a batch", function()
    files_support.write(folder .. "/slow_steps.lua", "return { slow = function() local t = os.clock() while os.clock() - t < 0.5 do end end }")
    local path = files_support.write(folder .. "/waiting.lua", ([[
package.path = %q .. package.path
local data = require "unic.data"
local ds = data.open("phantom", { studies = 64, size = 64 })
local it = data.batches(ds, { batch = 64, views = { image = { { "lua", "slow_steps", "slow" } } } })
local ready = io.open(arg[1], "w") ready:close()
it:next()
print "not reached"
]]):format(folder .. "/?.lua;"))
    local before = os.time()
    local output, code = shell(([[
%s/unic %s %s/ready & pid=$!
for i in $(seq 200); do [ ! -e %s/ready ] || break; sleep 0.05; done
sleep 0.3
kill -INT $pid; wait $pid]]):format(root, path, folder, folder), { timeout = 30 })
    assert.equal(130, code)
    assert.equal("interrupted", output)
    assert.is_true(os.time() - before < 12)   -- all of it would take 16 seconds
  end)
end)
