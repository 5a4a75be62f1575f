-- The profiler: what it counts, where it says that it happened, and what it writes.
local unic = require "unic"
local cjson = require "cjson"
local nn = require "unic.nn"
local ops = require("unic.core").ops.call
local support = require "spec.support.files"

local function rows_of(report)
  local rows = {}
  for _, row in ipairs(report.rows) do rows[row.name] = row end
  return rows
end

describe("unic.profile", function()
  it("counts calls, flops and bytes of forward and backward", function()
    local a, b = unic.randn(32, 48, { requires_grad = true }), unic.randn(48, 16)
    local report, result = unic.profile(function()
      for _ = 1, 3 do a:matmul(b):relu():sum():backward() end
      return "result"
    end)
    assert.equal("result", result)
    local rows = rows_of(report)
    assert.equal(3, rows.matmul.calls)
    assert.equal(3 * 2 * 32 * 48 * 16, rows.matmul.flops)
    assert.equal(3 * 4 * (32 * 48 + 48 * 16 + 32 * 16), rows.matmul.bytes)
    assert.equal(3, rows["matmul backward"].calls)
    assert.equal(3 * 2 * 4 * 32 * 16, rows.relu.bytes)
    -- b wants no gradient, so one product is done.
    assert.equal(rows.matmul.flops, rows["matmul backward"].flops)
    local inside = 0
    for _, row in ipairs(report.rows) do
      assert.is_true(row.seconds > 0)
      inside = inside + row.seconds
    end
    assert.is_true(inside <= report.seconds)
    local text = tostring(report)
    for _, words in ipairs { "op +calls", "\nmatmul backward +3 ", "\nops together +%d+ ", "\nLua, dispatch", "\npeak, measured on %d+ threads: %d+ GFLOP/s" } do
      assert.is_truthy(text:find(words), words .. " in\n" .. text)
    end
  end)

  it("counts the products of a backward that are done: one for each gradient that is wanted", function()
    local function ratio(op, fn)
      local rows = rows_of(unic.profile(function() fn():sum():backward() end))
      return rows[op .. " backward"].flops / rows[op].flops
    end
    local function new(wanted, ...) return unic.randn(...):requires_grad_(wanted) end
    for _, wanted in ipairs { { true, true, 2 }, { true, false, 1 }, { false, true, 1 } } do
      local first, second, products = unpack(wanted)
      assert.equal(products, ratio("matmul", function() return new(first, 4, 8):matmul(new(second, 8, 3)) end))
      assert.equal(products, ratio("linear", function() return ops.linear(new(first, 4, 8), new(second, 3, 8), new(true, 3)) end))
      assert.equal(products, ratio("conv2d", function() return ops.conv2d(new(first, 2, 3, 8, 8), new(second, 4, 3, 3, 3)) end))
      assert.equal(products, ratio("conv_transpose2d", function() return ops.conv_transpose2d(new(first, 2, 3, 8, 8), new(second, 3, 4, 3, 3)) end))
      assert.equal(products, ratio("info_nce", function() return ops.info_nce(new(first, 4, 8), new(second, 4, 8), unic.tensor(1)) end))
      assert.equal(products, ratio("cross_correlation", function() return ops.cross_correlation(new(first, 4, 8), new(second, 4, 8)) end))
    end
    -- Of q, k, v: a product each, and dy v' for q or k; the forward does two.
    local function attention(q, k, v) return ratio("attention", function() return ops.attention(new(q, 2, 4, 2, 8), new(k, 2, 4, 2, 8), new(v, 2, 4, 2, 8)) end) end
    assert.equal(2, attention(true, true, true))
    assert.equal(1, attention(true, false, false))
    assert.equal(.5, attention(false, false, true))
    assert.equal(2, ratio("self_attention", function() return new(true, 2, 4, 3, 2, 8):self_attention() end))
  end)

  it("counts what is written in place as read and written", function()
    local x, w = unic.ones(1000), unic.ones(1000)
    local rows = rows_of(unic.profile(function() x:add_(w):exp_() end))
    assert.equal(3 * 4000, rows.add_.bytes)
    assert.equal(2 * 4000, rows.exp_.bytes)
  end)

  it("knows modules and lines, of backwards too", function()
    local net = nn.Sequential(nn.Linear(4, 8), nn.Sequential(nn.ReLU(), nn.Linear(8, 2)))
    local x = unic.randn(3, 4)
    local line = debug.getinfo(1, "l").currentline + 1
    local report = unic.profile(function() net(x):sum():backward() end, { by = "module" })
    local rows = rows_of(report)
    assert.equal(2, rows["Sequential.0"].calls)
    assert.is_true(rows["Sequential.1.1"].calls >= 2)
    assert.is_true(rows["Sequential.1.0"].calls == 2)
    assert.is_true(rows["(outside modules)"].calls >= 1)
    for _, event in ipairs(report.events) do
      if event.op == "linear" then
        assert.equal(2, #event.shape)
        assert.equal("f32", event.dtype)
      end
      assert.equal(("spec/lua/profile_spec.lua:%d"):format(line), event.line)
    end
    assert.is_truthy(report:table("line"):find("spec/lua/profile_spec.lua:" .. line, 1, true))
    assert.is_truthy(report:table("shape"):find("linear f32 [3, 8]", 1, true))
  end)

  it("writes a trace that is JSON, with every launch in it", function()
    local dir = support.folder()
    local report = unic.profile(function() unic.randn(8, 8):softmax() end, { trace = dir .. "/trace.json" })
    local trace = cjson.decode(support.read(dir .. "/trace.json"))
    support.remove(dir)
    assert.equal(#report.events + 1, #trace.traceEvents)
    local last = trace.traceEvents[#trace.traceEvents]
    assert.equal("softmax", last.name)
    assert.equal("f32 [8, 8]", last.args.shape)
    assert.is_true(last.dur > 0 and last.ts >= 0)
  end)

  it("passes errors on and is off after them", function()
    assert.raises_at(nil, "on purpose", function() unic.profile(function() error "on purpose" end) end)
    local report = unic.profile(function() end)
    unic.ones(3):relu()
    assert.equal(0, #report.events)
    assert.is_truthy(tostring(report):find("ops together +0 "))
    assert.raises_at(nil, "%[profile%] argument 'fn'", function() unic.profile(3) end)
    assert.raises_at(nil, "%[profile%] option 'by'", function() unic.profile(print, { by = "day" }) end)
  end)

  it("changes no result", function()
    local function step()
      unic.manual_seed(4)
      local x = unic.randn(6, 6, { requires_grad = true })
      x:dropout(.3):matmul(x):sum():backward()
      return x.grad
    end
    local _, grad = unic.profile(step)
    assert.same_bits(step(), grad)
  end)

  it("counts on meta the bytes and flops that the launches would have", function()
    local function events(device)
      local was = unic.device()
      unic.device(device)
      local model = unic.nn.Sequential(unic.nn.Linear(6, 8), unic.nn.GELU(), unic.nn.LayerNorm(8), unic.nn.Linear(8, 3))
      local x, y = unic.zeros(4, 6), unic.zeros({ 4 }, { dtype = "i64" })
      local adamw = unic.optim.AdamW(model:parameters(), { lr = 1e-3 })
      local function step()
        adamw:zero_grad()
        unic.losses.cross_entropy(model(x), y):backward()
        adamw:step()
      end
      step()
      local list = unic.profile(step).events
      unic.device(was)
      local seen = {}   -- without the services, which have nothing to fill there
      for _, e in ipairs(list) do
        if e.kind ~= "form" and e.op ~= "fill" then seen[#seen + 1] = ("%s %s %d bytes %d flops"):format(e.op, e.kind, e.bytes, e.flops) end
      end
      return seen
    end
    local meta = events "meta"
    assert.is_true(#meta > 10)
    assert.same(events "cpu", meta)
  end)
end)
