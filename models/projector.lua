--- Med-UniC's projector: Linear, BatchNorm, ReLU, Linear, BatchNorm without weights.
-- @module unic.models.projector
local nn = require "unic.nn"
local core = require "unic.core"

local Projector = nn.class "Projector"

--- @param from width of the features
-- @param to width of the embedding
-- @param hidden width between (2048)
function Projector:init(from, to, hidden)
  hidden = hidden or 2048
  self.fc1, self.bn1 = nn.Linear(from, hidden), nn.BatchNorm1d(hidden)
  self.fc2, self.bn2 = nn.Linear(hidden, to), nn.BatchNorm1d(to, { affine = false })
end
function Projector:forward(x)
  if x.dtype ~= "f32" and x.dtype ~= "f64" then x = core.ops.call.cast(x, "f32") end   -- norms of few rows need the digits
  return self.bn2(self.fc2(self.bn1(self.fc1(x), { relu = true })))
end

return Projector
