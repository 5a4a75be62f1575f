--- Checkpointing as an option of models: blocks that are computed again in the backward.
-- @module unic.recompute
local core = require "unic.core"

local recompute = {}

--- Call a block, through `unic.checkpoint` where that is wanted.
-- @param wanted true or false
-- @param block a module
-- @param ... its arguments
-- @return what the block returns
function recompute.call(wanted, block, ...)
  if not wanted then return block(...) end
  return core.tensor.checkpoint(function(...) return block(...) end, ...)
end

return recompute
