--- Channels in blocks, for the specs of what works on them: batch_norm is where a tensor enters that layout, and with the running statistics of
-- a standard normal and no eps it is the identity.
local unic = require "unic"
local core = require "unic.core"

local blocked = {}

--- Channels per block on this processor's table; 0: it has no blocked layout. No other device has one.
function blocked.size()
  if unic.device() ~= "cpu" then return 0 end
  local isa = core.isa()
  return isa == "avx2" and 8 or isa:find "^avx512" and 16 or 0
end

--- x with its channels in blocks (an op, so that gradients reach x); asserts that it is so.
function blocked.enter(x)
  local c = x.shape[2]
  local y = unic.batch_norm(x, nil, nil, unic.zeros { c }, unic.ones { c }, { training = false, eps = 0 })
  assert(y:stride() == nil, "batch_norm's result is not blocked")
  return y
end

-- Elements in order of their indices.
function blocked.values(t) return unic.reshape(unic.contiguous(t:detach()), { -1 }):totable() end

--- fn(x, ...) must give the same values and gradients for a blocked x as for a plain one. `leaves` are the other tensors with a gradient.
-- Returns the result of the blocked call.
function blocked.check(fn, x, leaves, tolerance)
  local testing = require "unic.testing"
  leaves = leaves or {}
  local function run(enter)
    local own = x:detach()
    own.requires_grad = true
    for _, t in ipairs(leaves) do t.requires_grad, t.grad = true, nil end
    local y = fn(enter and blocked.enter(own) or own)
    local w = unic.uniform_(unic.empty(y.shape), -1, 1, { rng = unic.new_generator(7) })
    y:backward { gradient = w, keep = true }
    y:backward { gradient = w }   -- a second time, onto what is there
    local grads = { own.grad }
    for i, t in ipairs(leaves) do grads[i + 1] = t.grad end
    return y, grads
  end
  local y1, g1 = run(false)
  local y2, g2 = run(true)
  local function same(what, a, b)
    local ok, why = testing.close(unic.cast(unic.contiguous(b:detach()), "f64"), unic.cast(unic.contiguous(a:detach()), "f64"), tolerance or 2e-6)
    if not ok then error(what .. ": " .. why, 3) end
  end
  same("result", y1, y2)
  for i = 1, #g1 do same("gradient " .. i, g1[i], g2[i]) end
  return y2
end

return blocked
