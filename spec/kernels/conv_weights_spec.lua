-- The weight gradients that kernels/conv_weights.c makes: bf16 channels-last of any geometry, f32 1x1 on blocks of 16, from 64 channels on. Operands are exact in f64 too (bf16
-- numbers are), so what is left is the error of f32 sums. On other instruction sets the same must come out of oneDNN.
local unic = require "unic"
local blocked = require "spec.support.blocked"

-- A file of the CPU's alone. (A GPU's library may sum in f32 and round to bf16 before the gradient is widened: conv2d_spec has its tolerance.)
if unic.device() ~= "cpu" then return end

local function random(shape, seed) return unic.uniform_(unic.empty(shape), -1, 1, { rng = unic.new_generator(seed) }) end

-- The gradient of op's weight at x for dy, all of one dtype, the weight f32 beside bf16; twice: added onto the first.
local function gradient(op, x, dy, shape, how, twice)
  local w = unic.zeros(shape, { dtype = x.dtype == "f64" and "f64" or "f32" })
  w.requires_grad = true
  local y = unic[op](x, w, nil, how)
  y:backward { gradient = dy, keep = twice }
  if twice then y:backward { gradient = dy } end
  return w.grad
end

local function result_shape(op, x, shape, how) return unic[op](x, unic.zeros(shape, { dtype = x.dtype }), nil, how).shape end

-- error over largest value + rms, at most the contract's 1e-6.
local function check(exact, got)
  got = got:to "f64"
  local rms = math.sqrt(exact:square():mean():item())
  assert.is_true(rms > 0)
  local worst = (got - exact):abs():max():item() / (exact:abs():max():item() + rms)
  assert.is_true(worst <= 1e-6, ("error %.2g"):format(worst))
end

local function describe_case(c)
  local how = {}
  for _, name in ipairs { "stride", "padding", "dilation", "output_padding" } do
    local v = c.how and c.how[name]
    if v then how[#how + 1] = name .. " " .. (type(v) == "table" and v[1] .. "," .. v[2] or v) end
  end
  return ("%s x %s, weight %s %s"):format(c.op or "conv2d", table.concat(c.x, " "), table.concat(c.w, " "), table.concat(how, " "))
end

describe("the weight gradient of convolutions", function()
  local threads = unic.threads()
  after_each(function() unic.threads(threads) end)

  describe("in bf16", function()
    for _, c in ipairs {
      { x = { 1, 64, 1, 1 }, w = { 64, 64, 1, 1 } },
      { x = { 1, 64, 3, 3 }, w = { 65, 64, 1, 1 } },
      { x = { 3, 65, 5, 7 }, w = { 70, 65, 1, 1 } },
      { x = { 2, 79, 5, 4 }, w = { 75, 79, 3, 3 }, how = { padding = 1 } },
      { x = { 2, 97, 5, 6 }, w = { 76, 97, 2, 3 } },
      { x = { 1, 64, 5, 5 }, w = { 80, 64, 3, 2 }, how = { padding = { 2, 1 } } },
      { x = { 1, 66, 7, 9 }, w = { 64, 66, 3, 3 }, how = { padding = 1, stride = 2 } },
      { x = { 2, 64, 10, 9 }, w = { 64, 64, 1, 1 }, how = { stride = 2 } },
      { x = { 2, 81, 10, 9 }, w = { 66, 81, 1, 1 }, how = { stride = { 3, 2 }, padding = { 0, 1 } } },
      { x = { 1, 64, 6, 7 }, w = { 72, 64, 3, 3 }, how = { padding = 2, dilation = 2 } },
      { x = { 2, 64, 6, 7 }, w = { 67, 64, 2, 3 }, how = { padding = { 1, 4 }, stride = { 2, 1 }, dilation = { 3, 4 } } },
      { x = { 1, 64, 2, 3 }, w = { 64, 64, 5, 5 }, how = { padding = 4 } },                -- most taps fall outside
      { x = { 3, 64, 23, 19 }, w = { 68, 64, 1, 1 } },                                     -- several blocks, of which the last is short and odd
      { x = { 2, 270, 6, 5 }, w = { 69, 270, 1, 1 } },                                     -- more input channels than are gathered at a time
      { x = { 1, 64, 4, 5 }, w = { 1100, 64, 1, 1 } },                                     -- more output channels than a slice has
      { x = { 1, 272, 3, 2 }, w = { 530, 272, 2, 1 } },
      { x = { 1, 512, 2, 3 }, w = { 530, 512, 1, 1 } },                                    -- a large gradient: deep blocks of few channels, several slices a thread
      { x = { 2, 266, 5, 4 }, w = { 130, 266, 3, 3 }, how = { padding = 1 } },
      { x = { 1, 512, 33, 35 }, w = { 513, 512, 1, 1 } },                                  -- two deep blocks
      { op = "conv_transpose2d", x = { 2, 71, 4, 3 }, w = { 71, 66, 3, 3 }, how = { stride = 2, padding = 1, output_padding = 1 } },
      { op = "conv_transpose2d", x = { 1, 64, 5, 4 }, w = { 64, 93, 2, 2 }, how = { stride = 2 } },
    } do
      it(describe_case(c), function()
        local op = c.op or "conv2d"
        local x = random(c.x, 1):to "bf16"
        local dy = random(result_shape(op, x, c.w, c.how), 2):to "bf16"
        local exact = gradient(op, x:to "f64", dy:to "f64", c.w, c.how)
        for _, n in ipairs { 1, 2, 3, 5 } do
          unic.threads(n)
          local got = gradient(op, x, dy, c.w, c.how)
          check(exact, got)
          check(exact * 2, gradient(op, x, dy, c.w, c.how, true))
          assert.same_bits(got, gradient(op, x, dy, c.w, c.how))
        end
      end)
    end

    it("over a network's many pixels", function()
      local x, dy = unic.relu(random({ 4, 64, 56, 56 }, 1)):to "bf16", random({ 4, 64, 56, 56 }, 2):to "bf16"
      check(gradient("conv2d", x:to "f64", dy:to "f64", { 64, 64, 1, 1 }), gradient("conv2d", x, dy, { 64, 64, 1, 1 }))
    end)

    it("where a NaN meets only what it touches", function()
      local x, dy = random({ 1, 64, 5, 5 }, 1), random({ 1, 64, 5, 5 }, 2)
      x[{ 1, 3, 1, 1 }] = 0 / 0   -- a corner: the taps below and right of the middle never see it
      local g = gradient("conv2d", x:to "bf16", dy:to "bf16", { 64, 64, 3, 3 }, { padding = 1 }):contiguous()
      for c = 1, 8 do
        for u = 1, 3 do
          for v = 1, 3 do
            local value = g[{ 2, c, u, v }]
            value = type(value) == "number" and value or value:item()
            assert.equal(c == 3 and u < 3 and v < 3, value ~= value)
          end
        end
      end
    end)
  end)

  describe("in f32 on channels in blocks", function()
    for _, c in ipairs {
      { x = { 1, 64, 1, 2 }, w = { 64, 64, 1, 1 } },
      { x = { 3, 64, 7, 7 }, w = { 80, 64, 1, 1 } },                      -- two images a block, and one
      { x = { 2, 80, 9, 13 }, w = { 64, 80, 1, 1 } },
      { x = { 2, 96, 17, 19 }, w = { 64, 96, 1, 1 } },                    -- several blocks per image
      { x = { 3, 64, 9, 8 }, w = { 112, 64, 1, 1 }, how = { stride = 2 } },
      { x = { 2, 64, 31, 30 }, w = { 64, 64, 1, 1 }, how = { stride = { 1, 2 } } },
      { x = { 2, 64, 9, 8 }, w = { 64, 64, 1, 1 }, how = { padding = { 1, 2 } } },
      { x = { 1, 288, 5, 4 }, w = { 528, 288, 1, 1 } },
      { x = { 1, 288, 5, 4 }, w = { 64, 288, 1, 1 }, how = { stride = { 2, 1 } } },
    } do
      it(describe_case(c), function()
        if blocked.size() == 0 then return end
        local x = random(c.x, 1)
        local dy = random(result_shape("conv2d", x, c.w, c.how), 2)
        local exact = gradient("conv2d", x:to "f64", dy:to "f64", c.w, c.how)
        for _, n in ipairs { 1, 2, 3 } do
          unic.threads(n)
          local own = blocked.enter(x)
          local got = gradient("conv2d", own, dy, c.w, c.how)
          check(exact, got)
          check(exact * 2, gradient("conv2d", own, dy, c.w, c.how, true))
          assert.same_bits(got, gradient("conv2d", own, dy, c.w, c.how))
        end
      end)
    end

    it("over a network's many pixels", function()
      if blocked.size() == 0 then return end
      local x, dy = unic.relu(random({ 4, 64, 56, 56 }, 1)), random({ 4, 64, 56, 56 }, 2)
      check(gradient("conv2d", x:to "f64", dy:to "f64", { 64, 64, 1, 1 }), gradient("conv2d", blocked.enter(x), dy, { 64, 64, 1, 1 }))
    end)
  end)
end)
