-- The tape, scopes, versions, recordings: what holds for every op.
local unic = require "unic"

local function leaf(values) return unic.tensor(values, { dtype = "f64", requires_grad = true }) end

describe("backward", function()
  it("adds up over uses and over calls", function()
    local x = leaf { 1, 2 }
    local y = x * x + x
    y:sum():backward()
    assert.same({ 3, 5 }, x.grad:totable())
    ;(x * 2):sum():backward()
    assert.same({ 5, 7 }, x.grad:totable())
  end)

  it("sums what comes from both branches of a fork, through views too", function()
    local x = leaf { { 1, 2 }, { 3, 4 } }
    local t = x:transpose(1, 2)
    local loss = (t * t):sum() + x[1]:sum() + x:reshape({ 4 }):narrow(1, 2, 2):sum()
    loss:backward()
    assert.same({ { 3, 6 }, { 7, 8 } }, x.grad:totable())
  end)

  it("gives the same leaf used twice by one op both gradients", function()
    local x = leaf { 3 }
    unic.mul(x, x):sum():backward()
    assert.same({ 6 }, x.grad:totable())
    unic.mul(x, x):sum():backward()
    assert.same({ 12 }, x.grad:totable())
  end)

  it("refuses a second walk unless it was asked to keep", function()
    local x = leaf { 2 }
    local loss = (x * x):sum()
    loss:backward { keep = true }
    loss:backward()
    assert.same({ 8 }, x.grad:totable())
    assert.raises_at(nil, "was walked already", function() loss:backward() end)
  end)

  it("needs one element, or a gradient of the same shape", function()
    local x = leaf { 1, 2 }
    assert.raises_at(nil, "expected one element", function() (x * 2):backward() end)
    assert.raises_at(nil, "argument 'gradient'", function() (x * 2):backward { gradient = unic.ones(3, { dtype = "f64" }) } end)
    assert.raises_at(nil, "needs no gradient", function() unic.zeros(1):sum():backward() end)
  end)

  it("walks a chain of 100,000 ops and frees it", function()
    local x = leaf { 1 }
    local y = x
    for _ = 1, 100000 do y = y + 1 end
    y:sum():backward()
    assert.same({ 1 }, x.grad:totable())
  end)

  it("keeps two graphs apart, and a loss that is never walked is just freed", function()
    local x = leaf { 1 }
    local a, b = (x * 2):sum(), (x * 3):sum()
    b:backward()
    assert.same({ 3 }, x.grad:totable())
    a:free()
    x.grad = nil
    assert.is_nil(x.grad)
  end)

  it("refuses a saved value that was changed in place, and names both lines", function()
    local x = leaf { 1, 2 }
    local w = unic.tensor({ 3, 4 }, { dtype = "f64" })
    local y = x * w
    w:fill_(0)
    assert.raises_at(nil, "argument 'b': its value was saved for backward at .*tape_spec.lua:%d+ and changed in place at .*tape_spec.lua:%d+", function() y:sum():backward() end)
  end)

  it("refuses a saved gradient that a later walk added to", function()
    local x, w = leaf { 1, 2 }, leaf { 1, 1 }
    ;(x * 3):sum():backward()
    local y = w * x.grad
    ;(x * 3):sum():backward()
    assert.raises_at(nil, "argument 'b': its value was saved", function() y:sum():backward() end)
  end)

  it("refuses to overwrite what needs a gradient", function()
    local x = leaf { 1 }
    assert.raises_at(nil, "would be overwritten", function() x:uniform_() end)
    assert.raises_at(nil, "would be overwritten", function() x:fill_(0) end)
    unic.no_grad(function() x:fill_(5) end)
    assert.same({ 5 }, x:totable())
  end)

  it("gives gradients of chosen tensors without touching anyone's grad", function()
    local x, w = leaf { 2 }, leaf { 5 }
    local h = x * w
    local g = unic.grad((h * h):sum(), { h, x })
    assert.same({ 20 }, g[1]:totable())
    assert.same({ 100 }, g[2]:totable())
    assert.is_nil(x.grad)
    assert.is_nil(w.grad)
    assert.is_false(unic.grad((x * 2):sum(), { w })[1])
    local inner = x * w   -- asked for alone, with nothing behind it
    assert.same({ 20 }, unic.grad((inner * inner):sum(), { inner })[1]:totable())
  end)

  it("keeps gradients of inner tensors that ask for it", function()
    local x = leaf { 2 }
    local h = (x * 3):retain_grad()
    ;(h * h):sum():backward()
    assert.same({ 12 }, h.grad:totable())
    -- Through a view, the leaf's gradient has the same values, but is not the same memory.
    x = leaf { { 1, 2 } }
    h = x:reshape({ 2 }):retain_grad()
    ;(h * 3):sum():backward()
    ;(x * 1):sum():backward()
    assert.same({ 3, 3 }, h.grad:totable())
    assert.same({ { 4, 4 } }, x.grad:totable())
  end)

  it("stops at detach and no_grad", function()
    local x = leaf { 2 }
    local y = x * x:detach()
    y:sum():backward()
    assert.same({ 2 }, x.grad:totable())
    assert.is_false(unic.no_grad(function() return (x * 2).requires_grad end))
    assert.is_true(unic.no_grad(function() return unic.with_grad(function() return (x * 2).requires_grad end) end))
    assert.is_true(unic.grad_enabled())
  end)
end)

describe("autocast", function()
  local function half(fn, ...) return unic.autocast("bf16", fn, ...) end
  it("casts each slice of a parameter for itself", function()
    local whole = unic.tensor { { 1, 2 }, { 3, 4 } }
    local first, second = whole:narrow(1, 1, 1):detach(), whole:narrow(1, 2, 1):detach()
    first.requires_grad, second.requires_grad = true, true
    local x = unic.tensor { { 1, 1 } }
    assert.same({ 3, 7 }, { half(unic.linear, x, first):item(), half(unic.linear, x, second):item() })
  end)
  it("brings the members of a list to the widest type", function()
    local a, b = unic.tensor({ { 1, 2 } }, { requires_grad = true }), unic.tensor({ { 3, 4 } }, { requires_grad = true })
    local y = half(function() return unic.cat({ a:cast("bf16"), b, a:cast("bf16") }, 2) end)
    assert.equal("f32", y.dtype)
    assert.same({ { 1, 2, 3, 4, 1, 2 } }, y:totable());
    (y * unic.tensor { { 1, 2, 3, 4, 5, 6 } }):sum():backward()
    assert.same({ { { 6, 8 } }, { { 3, 4 } } }, { a.grad:totable(), b.grad:totable() })
    assert.raises_at(nil, "converts it", function() unic.cat({ a:cast "bf16", b }, 2) end)
  end)
  it("does what its table says", function()
    local lists = unic.autocast_table()
    local function has(list, name)
      for _, each in ipairs(list) do if each == name then return true end end
      return false
    end
    for _, name in ipairs { "matmul", "linear", "conv2d", "attention", "self_attention" } do assert.is_true(has(lists.low, name), name) end
    for _, name in ipairs { "softmax", "log_softmax", "sum", "mean", "var", "cross_entropy", "info_nce", "exp", "log" } do assert.is_false(has(lists.low, name), name) end
    for _, name in ipairs { "softmax", "log_softmax", "sum", "mean", "var", "std", "norm", "prod", "logsumexp", "cumsum", "l2_normalize" } do
      assert.is_true(has(lists.f32, name), name)
    end
    local checked = 0
    for rule, list in pairs(lists) do
      for _, name in ipairs(list) do
        local info = unic.core.ops.describe(name)
        -- Ops of one tensor of the op's type, and of two: what comes out in f32 and in bf16.
        local one = info.args[1].kind == "tensor" and info.args[1].class == "T" and info.args[1].rank <= 0
        local two = one and info.args[2] and info.args[2].kind == "tensor" and info.args[2].class == "T"
        for _, dtype in ipairs { "f32", "bf16" } do
          local x = unic.ones(4, 4):to(dtype)
          local ok, y = pcall(half, unic[name], x, two and x or nil)
          if one and ok and unic.is_tensor(y) and not info.inplace and y.dtype ~= "bool" and y.dtype ~= "i64" then
            local wide = #y.shape == 0 and info.outs[1] and y.dtype == "f32"   -- losses and totals are wide whatever came in
            local wanted = rule == "low" and "bf16" or rule == "f32" and "f32" or dtype
            assert.is_true(y.dtype == wanted or wide, ("%s of %s gives %s, the table says %s"):format(name, dtype, y.dtype, rule))
            checked = checked + 1
          end
        end
      end
    end
    assert.is_true(checked > 40, checked)
    assert.is_truthy(tostring(lists):find("in the 16%-bit type:\n  [^\n]*matmul"))
  end)
  it("walks back through the cast that was, when the parameter has moved on", function()
    local x, w = unic.ones(1, 2), unic.tensor { { 1 }, { 2 } }
    x.requires_grad, w.requires_grad = true, true
    local y = half(unic.matmul, x, w)
    unic.no_grad(function() w:fill_(8) end)
    assert.equal(16, half(unic.matmul, x, w):item())
    y:sum():backward()
    assert.same({ { 1, 2 } }, x.grad:totable())
  end)
  it("has no copy of a linear layer's weight, and says so when that has moved on", function()
    local x, w = unic.ones(1, 2), unic.tensor { { 1, 2 } }
    x.requires_grad, w.requires_grad = true, true
    local y = half(unic.linear, x, w)
    assert.equal("bf16", y.dtype)
    unic.no_grad(function() w:fill_(8) end)
    assert.equal(16, half(unic.linear, x, w):item())
    assert.raises_at(nil, "saved for backward", function() y:sum():backward() end)
  end)
end)

describe("hooks and Lua ops", function()
  it("see and replace a gradient", function()
    local x = leaf { 1, 2 }
    local seen
    local h = (x * 2):hook(function(g) seen = g:totable() return g * 10 end)
    x:hook(function(g) return g + 1 end)
    h:sum():backward()
    assert.same({ 1, 1 }, seen)
    assert.same({ 21, 21 }, x.grad:totable())
  end)

  it("run a backward written in Lua, in the middle of a graph", function()
    local cube = unic.fn {
      forward = function(x) return x * x * x end,
      backward = function(ctx, dy) return dy * ctx.inputs[1]:detach() ^ 2 * 3 end,
    }
    local x = leaf { 2, -1 }
    cube(x * 1):sum():backward()
    assert.same({ 12, 3 }, x.grad:totable())
    assert.gradcheck(cube, { unic.randn(3, { dtype = "f64" }) })
  end)

  it("report errors of a Lua backward, and the process goes on", function()
    local bad = unic.fn { forward = function(a) return a * 1 end, backward = function() error "no such thing" end }
    local x = leaf { 1 }
    assert.raises_at(nil, "no such thing", function() bad(x):sum():backward() end)
    local short = unic.fn { forward = function(a) return a * 1 end, backward = function() return unic.zeros(7, { dtype = "f64" }) end }
    assert.raises_at(nil, "has shape %[7%], its input has %[1%]", function() short(x):sum():backward() end)
    ;(x * 2):sum():backward()
    assert.same({ 2 }, x.grad:totable())
  end)

  it("do not keep the tensors they capture alive for ever", function()
    collectgarbage() collectgarbage()
    local before = unic.memory("cpu").blocks
    for _ = 1, 200 do
      local x = unic.ones(1000, { requires_grad = true, device = "cpu" })
      x:hook(function() return x end)
      local y = x * 2
      y:hook(function() return y end)
    end
    collectgarbage() collectgarbage() collectgarbage()
    assert.is_true(unic.memory("cpu").blocks - before < 20)
  end)
end)

describe("scope", function()
  it("frees what was made inside, except what is returned or kept", function()
    local lost, kept
    local back = unic.scope(function()
      lost = unic.ones(3)
      kept = unic.ones(2):keep()
      return { deep = { unic.full({ 2 }, 7) } }
    end)
    assert.same({ 7, 7 }, back.deep[1]:totable())
    assert.same({ 1, 1 }, kept:totable())
    assert.raises_at(nil, "the tensor went with the scope opened at .*tape_spec.lua:%d+; return it from the scope or :keep%(%) it", function() return lost:sum() end)
  end)
  it("lets gradients and parameters out", function()
    local x = leaf { 1, 2 }
    local p
    unic.scope(function()
      (x * 3):sum():backward()
      p = unic.nn.Parameter(unic.ones(2))
    end)
    assert.same({ 3, 3 }, x.grad:totable())
    assert.same({ 1, 1 }, p:totable())
  end)
  it("cleans up after an error", function()
    local lost
    assert.raises_at(nil, "inside", function() unic.scope(function() lost = unic.ones(1) error "inside" end) end)
    assert.raises_at(nil, "went with the scope", function() return lost:sum() end)
  end)
  it("free() is told apart", function()
    local x = unic.ones(1)
    x:free()
    assert.raises_at(nil, "was freed with t:free%(%)", function() return x:sum() end)
    assert.equal("[freed tensor]", tostring(x))
  end)
end)

describe("a recorded step", function()
  -- Linear multiplies by the weights as they are, Conv2d by a packed form of them.
  for name, case in pairs {
    Linear = { make = function() return unic.nn.Linear(6, 4) end, x = { 8, 6 } },
    Conv2d = { make = function() return unic.nn.Conv2d(16, 16, 3) end, x = { 2, 16, 6, 6 } },
  } do it("replays three steps with the bits of eager ones, masks and all: " .. name, function()
    local function start()
      unic.manual_seed(5)
      local net = case.make()
      local opt = unic.optim.AdamW(net:parameters(), { lr = 1e-2 })
      local x = unic.randn(case.x)
      local function step()
        local y = unic.dropout(net(x), 0.5)
        local loss = (y * y):mean()
        loss:backward()
        unic.optim.clip_grad_norm(net:parameters(), 0.1)
        opt:step()
        opt:zero_grad()
        return loss
      end
      return net, step, x
    end
    local net, step = start()
    for _ = 1, 5 do step() end
    local eager = net.weight:bytes()
    local again, other, x = start()
    other()                                   -- optimiser state is made in the first step
    again(x)                                  -- packs the weights as they are now; a replay must not read that
    local recording = unic.record(other)
    for _ = 1, 3 do recording:replay() end
    assert.equal(eager, again.weight:bytes())
    assert.is_true(recording:launches() > 5)
  end) end

  it("replays into memory of its own", function()
    local x, y = unic.ones(1000), nil
    local recording = unic.record(function()
      local unused = x * 5
      y = unic.cross_correlation(unic.reshape(x, { 50, 20 }), unic.reshape(unused, { 50, 20 }))   -- takes scratch
      unused = x * 7   -- luacheck: ignore
    end)
    collectgarbage() collectgarbage()
    local others = {}
    for i = 1, 64 do others[i] = unic.full({ 1000 }, i) end
    recording:replay()
    for i = 1, 64 do assert.same({ i, i }, { others[i]:min():item(), others[i]:max():item() }) end
    assert.is_true(y:item() == y:item())
  end)
end)

describe("memory", function()
  it("stays flat while tensors are dropped", function()
    unic.memory_peak_reset("cpu")
    local before = unic.memory("cpu").active
    for _ = 1, 3000 do unic.empty(256 * 1024, { device = "cpu" }) end      -- 3 GB in all
    assert.is_true(unic.memory("cpu").peak - before < 300e6)
  end)
  it("of saved values goes as backward walks", function()
    local x = unic.ones(1000, 1000, { requires_grad = true, device = "cpu" })
    local y = x
    for _ = 1, 10 do y = y * y end
    local loss = y:sum()
    y = nil   -- luacheck: ignore
    collectgarbage() collectgarbage()
    local before = unic.memory("cpu").active
    loss:backward()
    assert.is_true(before - unic.memory("cpu").active > 7 * 4e6)   -- nine of 4 MB went, one gradient came
    assert.is_true(loss.requires_grad)
  end)
  it("holds nothing of a step when it is over", function()
    local x = unic.ones(1000, { requires_grad = true, device = "cpu" })
    local function step()
      local y = x * 2
      ;(y * 3 + y * y + y):sum():backward()
    end
    step()
    collectgarbage() collectgarbage()
    local before = unic.memory("cpu").blocks
    for _ = 1, 20 do step() end
    collectgarbage() collectgarbage()
    assert.is_true(unic.memory("cpu").blocks <= before)
  end)
  it("given back in pieces serves as one block again", function()
    local function high()
      local m = unic.memory("cpu")
      return m.active + m.cached
    end
    collectgarbage() collectgarbage()
    for _, order in ipairs { { 1, 64, 1 }, { 64, 1, -1 } } do
      -- More than all that is free so far, so that no other hole takes it.
      local piece = 16 * (math.ceil(unic.memory("cpu").cached / 64 / 64) + 1e4)
      unic.empty(64 * piece, { device = "cpu" }):free()
      local before, pieces = high(), {}
      for i = 1, 64 do pieces[i] = unic.empty(piece, { device = "cpu" }) end
      for i = order[1], order[2], order[3] do pieces[i]:free() end
      unic.empty(64 * piece, { device = "cpu" }):free()
      assert.equal(before, high())
    end
  end)
  it("out of budget is a sentence with the largest tensors, and the process goes on", function()
    local budget = unic.memory("cpu").budget
    collectgarbage() collectgarbage()
    unic.core.drop_derived()
    unic.core.memory_budget_set(unic.memory("cpu").active + 64e6, "cpu")
    local holder = unic.empty(4e6, { device = "cpu" })
    local ok, why = pcall(unic.empty, 40e6, { device = "cpu" })
    local beside = pcall(unic.empty, 15e6, { device = "cpu" })   -- would fit alone, not beside the holder
    unic.core.memory_budget_set(budget, "cpu")
    assert.is_false(ok)
    assert.is_false(beside)
    assert.is_truthy(why:find "asked for" and why:find "the largest:" and why:find "tape_spec.lua")
    assert.equal(4e6, holder:numel())
    assert.equal(2, unic.ones(2):sum():item())
  end)
end)
