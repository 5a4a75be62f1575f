--- Are two sides alike, so that a ratio between them says something? Each check is a sentence when it fails, and then no ratio is printed.
local fair = {}

-- How far loss and gradient norm of the first step without dropout may be apart, relative to the larger: a mean over a few samples, and the root of a sum over
-- millions of squares in which errors cancel. Measured against PyTorch, largest of the five workloads: f32 3e-6 and 3e-5 (Med-UniC, whose losses stand on
-- batch norm over eight samples; the others 1e-7 and 5e-6), bf16 5e-3 and 4e-3 (Med-UniC again; the others 6e-4 and 2e-4). What the check is for is far
-- above: a stochastic depth that one side had and the other had not was 4e-2.
fair.tolerance = {
  f32 = { loss = 2e-5, norm = 2e-4 },
  bf16 = { loss = 1e-2, norm = 2e-2 },
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
  -- Debian's PyTorch takes its products from whatever libblas is installed; the reference one, in plain Fortran, does 4 GFLOP/s.
  if (theirs.blas or ""):find "/blas/libblas" then return "its products run on the reference BLAS (Debian: install libopenblas0-openmp)" end
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
