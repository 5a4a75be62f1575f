--- Losses. Those of Med-UniC (CVL, SSV, CTR) follow the paper's formulas (medunic pre-training, arXiv 2305.19894, section 3).
-- @module unic.losses
local arguments = require "unic.arguments"
local core = require "unic.core"

local ops = core.ops.call
local losses = {}

local function temperature(op, tau)
  if tau == nil then return 1 / 0.07 end
  if core.tensor.is_tensor(tau) then return ops.reciprocal(tau) end
  return 1 / arguments.check(op, "tau", tau, { "number", above = 0 })
end

--- Cross-entropy of logits against class numbers (which count from 0), mean over the rows that are not ignored.
-- @param logits [N,K]
-- @param target i64 [N]
-- @param options `weight` [K], `ignore_index` (-100), `smoothing` (0)
-- @return a tensor without dimensions
function losses.cross_entropy(logits, target, options) return ops.cross_entropy(logits, target, options or {}) end

--- Binary cross-entropy of logits, mean over all elements.
-- @param logits any shape
-- @param target the same shape, 0 to 1
-- @param options `pos_weight`
-- @return a tensor without dimensions
function losses.bce_with_logits(logits, target, options) return ops.bce_with_logits(logits, target, options or {}) end

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

--- Mean of the squared differences.
function losses.mse(x, y) return ops.mean(ops.square(ops.sub(x, y))) end

return losses
