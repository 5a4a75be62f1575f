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

  it("of a few elements is counted, aligned and given back like any other", function()
    collectgarbage() collectgarbage()
    local before = unic.memory()
    local scalar, row = unic.ones(1), unic.ones(16)   -- 64 bytes lie beside the structure, more in a block
    local ffi = require "ffi"
    for _, x in ipairs { scalar, row } do
      assert.equal(0, tonumber(ffi.cast("intptr_t", x:data_ptr()) % 64))
      x:touched()
    end
    local now = unic.memory()
    assert.same({ 2, 128, 2 }, { now.blocks - before.blocks, now.active - before.active, now.allocations - before.allocations })
    scalar:free() row:free()
    now = unic.memory()
    assert.same({ 0, 0 }, { now.blocks - before.blocks, now.active - before.active })
  end)
  it("of a few elements outlives the recording that reads it", function()
    local y
    local step = unic.record(function() y = unic.ones(4) * 3 + unic.ones(1) end, "cpu")
    collectgarbage() collectgarbage()
    for _ = 1, 100 do unic.ones(1):mul(7) end
    step:replay()
    assert.same({ 4, 4, 4, 4 }, y:totable())
  end)

  -- What paces collections: bytes that only handles hold, so that giving those up gives them back.
  describe("that a collection could give back", function()
    local size = 1024 * 1024   -- bytes
    local function fresh(options) return unic.ones({ size / 4 }, options) end
    local function change(fn)
      local before = unic.memory().debt
      fn()
      return unic.memory().debt - before
    end
    local x, p, y
    before_each(function()
      collectgarbage() collectgarbage()
      x, p = fresh(), unic.ones(1, { requires_grad = true })
    end)
    after_each(function() x, y = nil, nil end)

    it("is what was made and is in a handle", function()
      assert.equal(size, change(function() y = x + 1 end))
      assert.equal(-size, change(function() y:free() end))
      assert.equal(0, change(function() y = x:reshape(1, size / 4) end))
      assert.equal(0, change(function() y = unic.ones(16) end))
    end)
    it("is not what is there for good", function()
      assert.equal(-size, change(function() unic.nn.Parameter(x) end))
    end)
    it("is not what the tape holds, until it lets go", function()
      assert.equal(0, change(function() y = p:mul(x) end))   -- y came, x went
      assert.equal(size, change(function() y:sum():backward() end))
      assert.equal(-2 * size, change(function() x:free() y:free() end))
    end)
    it("is not what C makes and drops on its way back", function()
      local q = fresh { requires_grad = true }
      y = q:mul(x)
      assert.equal(2 * size, change(function() y:sum():backward() end))   -- x and q, but not the gradient of q
    end)
    it("does not pile up: neither results nor graphs that are dropped", function()
      local function most(fn)
        core.memory_peak_reset()
        local before = unic.memory().active
        for _ = 1, 60 do fn() end
        return (unic.memory().peak - before) / size
      end
      local big, scale = unic.ones { 4 * size / 4 }, unic.ones({ 4 * size / 4 }, { requires_grad = true })
      assert.is_true(most(function() return big + 1 end) < 80)
      assert.is_true(most(function()
        local z = big
        for _ = 1, 4 do z = z:mul(scale) end   -- every z is saved
      end) < 640)
    end)
    it("is not looked for again and again while large values are at work", function()
      -- In a process of its own: the heap of the tests takes so long to go over that time alone makes collections rarer.
      local shell = require("spec.support.check").shell
      local looked = shell([[luajit -e '
        local unic = require "unic"
        local big = unic.ones(60 * 2 ^ 18)
        local at = big + 1
        local before = unic.memory().collections
        for _ = 1, 8 do
          local following = at + 1   -- 60 MB in a handle, each time, and none of it garbage
          for _ = 1, 8 do following:mul_(1) end
          at:free()
          at = following
        end
        print(unic.memory().collections - before)']])
      assert.is_true(assert(tonumber(looked), looked) <= 4, looked .. " collections")
    end)
  end)
end)
