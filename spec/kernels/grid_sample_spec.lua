local ops = require "spec.support.ops"
local unic = require "unic"
local blocked = require "spec.support.blocked"

local function values(t) return unic.reshape(unic.contiguous(t), { -1 }):totable() end
local function random(shape, seed) return unic.uniform_(unic.empty(shape), -1, 1, { rng = unic.new_generator(seed) }) end

local cases = {}
for _, mode in ipairs { "bilinear", "nearest", "bicubic" } do
  for _, padding in ipairs { "zeros", "border", "reflection" } do
    for _, align in ipairs { false, true } do
      cases[#cases + 1] = { x = { 2, 3, 4, 5 }, grid = { 2, 3, 4, 2 }, mode = mode, padding = padding, align_corners = align,
        note = ("%s %s %s"):format(mode, padding, tostring(align)) }
    end
  end
end
cases[#cases + 1] = { x = { 1, 140, 3, 3 }, grid = { 1, 2, 5, 2 }, note = "several pieces of channels" }
cases[#cases + 1] = { x = { 2, 1, 1, 1 }, grid = { 2, 3, 3, 2 }, padding = "reflection", align_corners = true, note = "one pixel" }
cases[#cases + 1] = { x = { 0, 3, 4, 4 }, grid = { 0, 2, 2, 2 }, note = "no images" }
cases[#cases + 1] = { x = { 2, 3, 4, 4 }, grid = { 2, 0, 2, 2 }, note = "no places" }

describe("grid_sample", function()
  ops.check("grid_sample", cases, {
    errors = {
      { { x = { 2, 3, 4, 4 }, grid = { 2, 3, 4, 3 } }, "argument 'grid'" },
      { { x = { 2, 3, 4, 4 }, grid = { 1, 3, 4, 2 } }, "argument 'grid'" },
      { { x = { 2, 3, 0, 4 }, grid = { 2, 3, 4, 2 } }, "argument 'x'.*at least one pixel" },
      { { x = { 2, 3, 4, 4 }, grid = { 2, 3, 4, 2 }, padding = "wrap" }, "argument 'padding'" },
    },
  })

  -- A row of four pixels, looked at across its middle line.
  local function row(places, options)
    local grid = {}
    for i, across in ipairs(places) do grid[i] = { across, 0 } end
    return values(unic.grid_sample(unic.reshape(unic.tensor { 10, 20, 30, 40 }, { 1, 1, 1, 4 }), unic.tensor { { grid } }, options or {}))
  end

  it("gives the values worked out by hand", function()
    assert.same({ 10, 25, 40 }, row({ -0.75, 0, 0.75 }))                       -- pixel centres at -3/4, -1/4, ..
    assert.same({ 5, 0, 20 }, row({ -1, -1.5, 1 }))                            -- half of it outside; all; half
    assert.same({ 10, 10, 40 }, row({ -1, -9, 1 }, { padding = "border" }))
    assert.same({ 10, 25, 40 }, row({ -1, 0, 1 }, { align_corners = true }))
    assert.same({ 20, 10 }, row({ -1.75, -1.25 }, { padding = "reflection" }))
    assert.same({ 20, 30 }, row({ -1 - 2 / 3, 1 + 2 / 3 }, { padding = "reflection", align_corners = true, mode = "nearest" }))
    assert.same({ 30, 10, 0 }, row({ 0.1, -0.9, 1.1 }, { mode = "nearest" }))
    assert.same({ 5 }, row({ 0 / 0 }))                                         -- NaN counts as -1
    assert.same({ 0, 0 }, row({ math.huge, -math.huge }))
    -- Keys' kernel half-way between 20 and 30: (-3 10 + 19 20 + 19 30 - 3 40) / 32.
    assert.same({ (-30 + 380 + 570 - 120) / 32 }, row({ 0 }, { mode = "bicubic", padding = "border" }))
  end)

  it("gives back the image on its own grid", function()
    local x = random({ 2, 5, 6, 7 }, 1)
    local identity = unic.expand(unic.tensor { { { 1, 0, 0 }, { 0, 1, 0 } } }, { 2, 2, 3 })
    for _, align in ipairs { false, true } do
      local grid = unic.affine_grid(identity, { 2, 5, 6, 7 }, { align_corners = align })
      assert.same({ 2, 6, 7, 2 }, grid.shape)
      for _, mode in ipairs { "bilinear", "nearest", "bicubic" } do assert.close(unic.grid_sample(x, grid, { mode = mode, align_corners = align }), x, 1e-5) end
    end
  end)

  it("turns an image by a quarter, and passes the gradient to the angle", function()
    local x = unic.reshape(unic.arange(9, { dtype = "f32" }), { 1, 1, 3, 3 })
    local theta = unic.tensor { { { 0, -1, 0 }, { 1, 0, 0 } } }
    theta.requires_grad = true
    local y = unic.grid_sample(x, unic.affine_grid(theta, { 1, 1, 3, 3 }))
    local v = values(y:detach())
    for i, expected in ipairs { 2, 5, 8, 1, 4, 7, 0, 3, 6 } do assert.is_true(math.abs(v[i] - expected) < 1e-5, ("pixel %d is %g, not %g"):format(i, v[i], expected)) end
    y:sum():backward()
    assert.same({ 1, 2, 3 }, theta.grad.shape)
  end)

  it("takes channels in blocks", function()
    if blocked.size() == 0 then return end
    local grid = random({ 2, 4, 3, 2 }, 4)
    blocked.check(function(t) return unic.grid_sample(t, grid) end, random({ 2, 32, 7, 5 }, 3), { grid })
  end)
end)

describe("affine_grid", function()
  it("gives the values worked out by hand", function()
    local theta = unic.tensor { { { 1, 0, 0.5 }, { 0, 2, 0 } } }
    assert.same({ -0.5 + .5, -1, .5 + .5, -1, -0.5 + .5, 1, .5 + .5, 1 }, values(unic.affine_grid(theta, { 1, 1, 2, 2 })))
    assert.same({ -1 + .5, -2, 1 + .5, -2, -1 + .5, 2, 1 + .5, 2 }, values(unic.affine_grid(theta, { 1, 1, 2, 2 }, { align_corners = true })))
  end)
  it("refuses what does not fit", function()
    for _, case in ipairs { { unic.zeros { 1, 3, 2 }, { 1, 1, 2, 2 }, "argument 'theta'" }, { unic.zeros { 2, 2, 3 }, { 1, 1, 2, 2 }, "argument 'size'" },
                            { unic.zeros { 1, 2, 3 }, { 1, 1, 2 }, "argument 'size'" }, { unic.zeros { 1, 2, 3 }, { 1, 1, 0, 2 }, "argument 'size'" } } do
      local ok, why = pcall(unic.affine_grid, case[1], case[2])
      assert.is_false(ok)
      assert.is_truthy(tostring(why):find("[affine_grid] " .. case[3], 1, true), tostring(why))
    end
  end)
end)
