-- unic.checkpoint on ViT-B/16 with batches of 8: activation memory at most half, the same gradients to the bit
-- Cost: a minute
package.path = "./?.lua;" .. package.path
local unic = require "unic"
local support = require "spec.support.check"
local check = support.open "checkpoint"
local vit = require "unic.models.vit"

-- Gradients are there from the first of two steps on and accumulate in the second; what that takes beyond them is activations.
local function step(checkpoint)
  unic.manual_seed(1)
  local model = vit.vit_b16 { drop_path = 0.1, dropout = 0.1, checkpoint = checkpoint }
  local x, peak = unic.randn(8, 3, 224, 224)
  for _ = 1, 2 do
    unic.manual_seed(2)
    collectgarbage()
    collectgarbage()
    local before = unic.memory().active
    unic.memory_peak_reset()
    model(x):square():sum():backward()
    peak = unic.memory().peak - before
  end
  return peak, model
end

local plain, a = step(false)
local less, b = step(true)
check:note("activations_mb", plain / 2 ^ 20)
check:note("activations_checkpointed_mb", less / 2 ^ 20)
check:at_most("activations_share", less / plain, 0.5)
local differ, theirs = {}, b:named_parameters()
for i, p in ipairs(a:named_parameters()) do
  if not unic.testing.same_bits(p.value.grad, theirs[i].value.grad) then differ[#differ + 1] = p.name end
end
check:note("parameters", #theirs)
check:at_most("gradients_that_differ", #differ, 0)
check:close()
