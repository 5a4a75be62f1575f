--- Losses: PyTorch's names, options and conventions, but that the mean of nothing is 0.
-- Those of Med-UniC (CVL, SSV, CTR) follow the paper's formulas (medunic pre-training, arXiv 2305.19894, section 3).
-- @module unic.losses
local arguments = require "unic.arguments"
local core = require "unic.core"
local make = require("unic.tensor").exports

local ops = core.ops.call
local losses = {}

local function temperature(op, tau)
  if tau == nil then return 1 / 0.07 end
  if core.tensor.is_tensor(tau) then return ops.reciprocal(tau) end
  return 1 / arguments.check(op, "tau", tau, { "number", above = 0 })
end

--- Cross-entropy of logits against class numbers (which count from 0); the mean is over the rows that are not ignored, by the weights of their labels.
-- @param logits [N,K] or [N,K,d1,d2,...]
-- @param target i64 or i32 [N] or [N,d1,d2,...]
-- @param options `weight` [K], `ignore_index` (-100), `smoothing` (0), `reduction` ("mean", "sum" or "none")
-- @return a tensor without dimensions; of the target's shape for "none"
function losses.cross_entropy(logits, target, options)
  options = options or {}
  local is_tensor = core.tensor.is_tensor
  if not (is_tensor(logits) and is_tensor(target) and logits:dim() > 2) then return ops.cross_entropy(logits, target, options) end
  -- Classes last, everything else a row.
  local shape, order = logits.shape, { 1 }
  if target:dim() ~= #shape - 1 then
    arguments.fail("losses.cross_entropy", "argument 'target': %d dimensions, expected those of the logits without the classes, %d", target:dim(), #shape - 1)
  end
  for d = 1, #shape - 1 do
    local size = shape[d == 1 and 1 or d + 1]
    if target:size(d) ~= size then
      arguments.fail("losses.cross_entropy", "argument 'target': dimension %d has %d elements, expected %d as in the logits", d, target:size(d), size)
    end
    if d > 1 then order[d] = d + 1 end
  end
  order[#shape] = 2
  local loss = ops.cross_entropy(ops.reshape(ops.permute(logits, order), { target:numel(), shape[2] }), ops.reshape(target, { target:numel() }), options)
  if loss:dim() == 1 then return ops.reshape(loss, target.shape) end
  return loss
end

--- Binary cross-entropy of logits.
-- @param logits any shape
-- @param target the same shape, 0 to 1
-- @param options `pos_weight` (of the last dimension's columns, or one), `reduction` ("mean", "sum" or "none")
-- @return a tensor without dimensions; of the logits' shape for "none"
function losses.bce_with_logits(logits, target, options) return ops.bce_with_logits(logits, target, options or {}) end

--- Squared differences.
-- @param x a tensor
-- @param target a tensor of the same shape
-- @param options `reduction` ("mean", "sum" or "none")
-- @return a tensor without dimensions; of x's shape for "none"
function losses.mse(x, target, options) return ops.mse(x, target, options or {}) end

--- Absolute differences, rounded to a parabola where they are below beta.
-- @param x a tensor
-- @param target a tensor of the same shape
-- @param options `beta` (1; 0 is the plain absolute difference), `reduction` ("mean", "sum" or "none")
-- @return a tensor without dimensions; of x's shape for "none"
function losses.smooth_l1(x, target, options) return ops.smooth_l1(x, target, options or {}) end

--- Kullback-Leibler divergence from log-probabilities to a target distribution.
-- @param x logarithms of probabilities
-- @param target probabilities of the same shape (their logarithms with log_target)
-- @param options `log_target` (false), `reduction` ("mean" over all elements, "batchmean": per sample, "sum" or "none")
-- @return a tensor without dimensions; of x's shape for "none"
function losses.kl_div(x, target, options) return ops.kl_div(x, target, options or {}) end

--- Focal loss (Lin et al., 2017): binary cross-entropy on logits that counts easy examples less.
-- @param logits any shape
-- @param target the same shape, 0 to 1
-- @param options `alpha` (0.25, weight of the positives; negative: no weights), `gamma` (2), `reduction` ("mean", "sum" or "none")
-- @return a tensor without dimensions; of the logits' shape for "none"
function losses.focal(logits, target, options) return ops.focal(logits, target, options or {}) end

local DICE = {
  activation = { "choice", "sigmoid", "softmax", "none" }, smooth = { "number", least = 0 }, batch = "boolean", squared = "boolean",
  reduction = { "choice", "mean", "sum", "none" },
}

--- Soft Dice loss of a segmentation, per class: 1 - (2 sum p t + smooth) / (sum p + sum t + smooth), sums over the positions of an image.
-- Computed in f32 (f64 for f64) whatever the storage: sums over an image leave the range of f16.
-- @param x logits [N,C,d1,...]; probabilities with activation "none"
-- @param target the same shape (0 to 1), or class numbers from 0 [N,d1,...] (i64, i32 or u8; numbers that are no class count for none)
-- @param options `activation` ("sigmoid", "softmax" over the classes, or "none"), `smooth` (1; with 0 a class that is nowhere gives NaN),
-- `batch` (false; true: sums go over the batch too), `squared` (false; true: p^2 and t^2 below the line), `reduction` ("mean", "sum" or "none")
-- @return a tensor without dimensions; for "none" [N,C], or [C] with `batch`
function losses.dice(x, target, options)
  arguments.check("losses.dice", "x", x, "tensor")
  arguments.check("losses.dice", "target", target, "tensor")
  options = arguments.options("losses.dice", options, DICE)
  local n, smooth = x:dim(), options.smooth or 1
  if n < 3 and not (options.batch and n == 2) then
    arguments.fail("losses.dice", "argument 'x': %d dimensions, expected [N, C] and one or more for the positions%s", n,
      n == 2 and " (or batch = true: samples are the positions)" or "")
  end
  if x.dtype == "bf16" or x.dtype == "f16" then x = ops.cast(x, "f32") end
  local activation = options.activation or "sigmoid"
  local p = activation == "sigmoid" and ops.sigmoid(x) or activation == "softmax" and ops.softmax(x, 2) or x
  if target:dim() == n - 1 and (target.dtype == "i64" or target.dtype == "i32" or target.dtype == "u8") then
    local classes = { 1, x:size(2) }
    for d = 3, n do classes[d] = 1 end
    target = ops.eq(ops.unsqueeze(ops.cast(target, "i64"), 2), ops.reshape(make.arange(x:size(2), { device = x.device }), classes))
  end
  if target.dtype ~= p.dtype then target = ops.cast(target, p.dtype) end
  for d = 1, math.max(n, target:dim()) do
    if target:dim() ~= n or target:size(d) ~= x:size(d) then
      arguments.fail("losses.dice", "argument 'target': shape {%s}, expected the shape of x, {%s}, or class numbers without the second dimension",
        table.concat(target.shape, ", "), table.concat(x.shape, ", "))
    end
  end
  local dims = options.batch and { 1 } or {}
  for d = 3, n do dims[#dims + 1] = d end
  local both = ops.sum(ops.mul(p, target), dims)
  if options.squared then p, target = ops.square(p), ops.square(target) end
  local all = ops.add(ops.sum(p, dims), ops.sum(target, dims))
  local loss = ops.sub(1, ops.div(ops.add(ops.mul(both, 2), smooth), ops.add(all, smooth)))
  local reduction = options.reduction or "mean"
  return reduction == "none" and loss or ops[reduction](loss)
end

--- Cross-lingual vision-language alignment: InfoNCE in both directions between images and reports; row i of one belongs to row i of the other.
-- @param v image embeddings [K,D] (normalised inside)
-- @param l text embeddings [K,D]
-- @param options `tau` (0.07; a number or a tensor without dimensions), `symmetric` (true)
-- @return a tensor without dimensions
function losses.cvl(v, l, options)
  options = arguments.options("losses.cvl", options, { tau = true, symmetric = "boolean" })
  return ops.info_nce(v, l, temperature("losses.cvl", options.tau), { symmetric = options.symmetric ~= false })
end

--- Self-supervised vision: InfoNCE from view 1 to view 2 of the same images (one direction in the paper, both in the official code).
-- @param v1 embeddings of view 1 [K,D]
-- @param v2 embeddings of view 2 [K,D]
-- @param options `tau` (0.07), `symmetric` (false)
-- @return a tensor without dimensions
function losses.ssv(v1, v2, options)
  options = arguments.options("losses.ssv", options, { tau = true, symmetric = "boolean" })
  return ops.info_nce(v1, v2, temperature("losses.ssv", options.tau), { symmetric = options.symmetric == true })
end

--- Cross-lingual text alignment regularisation: the cross-correlation of two views of the reports is drawn to the identity, between features
-- (TF) and between samples (TT).
-- @param a view 1 [K,D]
-- @param b view 2 [K,D]
-- @param options `lambda` (5.1e-3, weight of what is off the diagonal), `terms` ("tf+tt", "tf" or "tt")
-- @return the loss, then TF and TT (nil when left out), tensors without dimensions
function losses.ctr(a, b, options)
  options = arguments.options("losses.ctr", options, { lambda = { "number", least = 0 }, terms = true })
  local terms = arguments.default("losses.ctr", "terms", options.terms, { "choice", "tf+tt", "tf", "tt" }, "tf+tt")
  local lambda = options.lambda or 5.1e-3
  local tf = terms ~= "tt" and ops.cross_correlation(a, b, { along = "features", lambda = lambda }) or nil
  local tt = terms ~= "tf" and ops.cross_correlation(a, b, { along = "samples", lambda = lambda }) or nil
  if tf and tt then return ops.add(tf, tt), tf, tt end
  return tf or tt, tf, tt
end

return losses
