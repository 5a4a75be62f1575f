-- Allocations that fail on purpose (unic.core.memory_fail_after); ./unic check alloc does it for every one of a training step.
local unic = require "unic"
local core = unic.core

describe("a failed allocation", function()
  after_each(function() core.memory_fail_after(0) end)

  -- fn with the n-th allocation failing (and the next, so that a block is refused), for every n that it makes.
  local function every(fn, after)
    local n, failed = 0, 0
    repeat
      n = n + 1
      core.memory_fail_after(n, 2)
      local ok, why = pcall(fn)
      local counted = core.memory_fail_after(0)
      if not ok then
        failed = failed + 1
        assert.is_truthy(why:find "^[^\n]*%[memory%] %S")
      end
      after(n)
    until counted < n
    return failed
  end

  it("is a sentence, and the next call is right", function()
    local x = unic.ones(300)
    assert.is_true(every(function() return (x * 2 + 1):sum() end, function() assert.equal(900, (x * 2 + 1):sum():item()) end) >= 3)
  end)
  it("leaves no half-made copy of a weight in another type", function()
    local w = unic.nn.Parameter(unic.randn(6, 6))
    local x = unic.randn(2, 6)
    local function ask() return unic.autocast("bf16", unic.linear, x, w) end
    local expected = ask():bytes()
    every(function()
      core.drop_derived()
      ask()
    end, function() assert.equal(expected, ask():bytes()) end)
  end)
  it("loses no memory of a recording's pool", function()
    local x = unic.ones(300)
    local function taken()
      collectgarbage() collectgarbage()
      local memory = unic.memory "cpu"
      return memory.active + memory.cached
    end
    local function record() unic.record(function() return x * 2 end, "cpu") end
    record()
    local before = taken()
    every(record, function() end)
    assert.is_true(taken() - before < 32e6)   -- a pool's first piece has 32 MiB
  end)
end)

describe("memory", function()
  it("of a model that was run goes with the model", function()
    local function blocks()
      for _ = 1, 3 do collectgarbage() end
      return unic.memory().blocks
    end
    local function run()
      local model = unic.nn.Sequential(unic.nn.Linear(4, 4), unic.nn.Linear(4, 4))
      model(unic.ones(2, 4))
    end
    local before = blocks()
    run()
    assert.is_true(blocks() <= before)
  end)
end)
