--- Are two sides alike, so that a ratio between them says something? Each check is a sentence when it fails, and then no ratio is printed.
local fair = {}

-- How far loss and gradient norm of the first step without dropout may be apart, relative to the larger. The two sides sum in other orders: a loss is a mean
-- over few samples, a norm a sum over millions of squares in which errors cancel. At random weights a deep ResNet with batch norm multiplies rounding
-- errors by 1e5 (its single gradients differ by 1-3 % between two correct f32 implementations, their norm by 1e-4); in bf16, with 8 bits, the same chain
-- leaves 1 % in the loss and a few in the norm. What the check is for, another function (a layer, a loss term, a scale of 1/sqrt(d) left out), is far above.
fair.tolerance = {
  f32 = { loss = 1e-4, norm = 1e-3 },
  bf16 = { loss = 2e-2, norm = 1e-1 },
}

local function apart(a, b) return math.abs(a - b) / math.max(math.abs(a), math.abs(b), 1e-30) end
local function words(list)
  local copy = {}
  for i, x in ipairs(list) do copy[i] = tostring(x) end
  table.sort(copy)
  return table.concat(copy, " ")
end

--- Is the first step the same? Losses, gradient norms and that no gradient is missing.
-- @param ours what `norm` answered here
-- @param theirs and there: { loss =, norm =, missing = }
-- @param dtype
-- @return nil, or why not
function fair.same_step(ours, theirs, dtype)
  local t = fair.tolerance[dtype]
  if ours.missing ~= 0 or theirs.missing ~= 0 then
    return ("gradients are missing: %d of ours, %d of theirs"):format(ours.missing, theirs.missing)
  end
  -- `not (x <= y)`: NaN is not alike.
  if not (apart(ours.loss, theirs.loss) <= t.loss) then return ("the losses differ: %.6g and %.6g"):format(ours.loss, theirs.loss) end
  if not (apart(ours.norm, theirs.norm) <= t.norm) then return ("the gradient norms differ: %.6g and %.6g"):format(ours.norm, theirs.norm) end
end

--- Is the result of a forward pass the same?
function fair.same_result(ours, theirs, dtype)
  if not (apart(ours, theirs) <= fair.tolerance[dtype].loss) then return ("the losses differ: %.6g and %.6g"):format(ours, theirs) end
end

--- Are threads, cores and environment the same? From the first object of each process.
function fair.same_machine(ours, theirs, threads)
  if ours.threads ~= threads or theirs.threads ~= threads then
    return ("threads: %s ours, %s theirs, %d asked for"):format(tostring(ours.threads), tostring(theirs.threads), threads)
  end
  if words(ours.cores) ~= words(theirs.cores) then return ("cores: %s ours, %s theirs"):format(words(ours.cores), words(theirs.cores)) end
  for _, side in ipairs { ours, theirs } do
    if #side.openblas > 0 then return "OPENBLAS variables are set: " .. words(side.openblas) end
  end
end

--- Is the training the same? From what `about` answered after the timed steps.
-- @param training false for inference: then there are no gradients and no state to look at
function fair.same_training(ours, theirs, training)
  if ours.parameters ~= theirs.parameters then return ("parameters: %d ours, %d theirs"):format(ours.parameters, theirs.parameters) end
  if ours.training ~= training or theirs.training ~= training then return "training mode is not the same on both sides" end
  if not training then return nil end
  if words(ours.dropout) ~= words(theirs.dropout) then return ("dropout: %s ours, %s theirs"):format(words(ours.dropout), words(theirs.dropout)) end
  if ours.state ~= theirs.state then return ("elements of optimiser state: %d ours, %d theirs"):format(ours.state, theirs.state) end
  for _, side in ipairs { ours, theirs } do
    if side.gradients_missing ~= 0 then return ("%d parameters have no gradient"):format(side.gradients_missing) end
    for _, dtype in ipairs(side.types) do
      if dtype ~= "f32" then return "weights or moments are not f32: " .. dtype end
    end
  end
end

return fair
