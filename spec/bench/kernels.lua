--- Single kernels for the suite `kernels`, by name: what ours runs, its flops and the bytes it must move. peer_kernels.py reads the same names.
--
-- A kernel runs through the ops, as in a model; backwards by unic.grad on a graph that is kept, so that nothing is accumulated and the forward is not timed.
local unic = require "unic"
local optim = require "unic.optim"

local kernels = {}

-- The convolutions of ResNet-50 on 224 x 224: in, out, size of the kernel, stride, side of the input, how many of them.
kernels.resnet50 = {
  { 3, 64, 7, 2, 224, 1 },
  { 64, 64, 1, 1, 56, 1 }, { 64, 64, 3, 1, 56, 3 }, { 64, 256, 1, 1, 56, 4 }, { 256, 64, 1, 1, 56, 2 },
  { 256, 128, 1, 1, 56, 1 }, { 128, 128, 3, 2, 56, 1 }, { 256, 512, 1, 2, 56, 1 }, { 128, 512, 1, 1, 28, 4 }, { 512, 128, 1, 1, 28, 3 }, { 128, 128, 3, 1, 28, 3 },
  { 512, 256, 1, 1, 28, 1 }, { 256, 256, 3, 2, 28, 1 }, { 512, 1024, 1, 2, 28, 1 }, { 256, 1024, 1, 1, 14, 6 }, { 1024, 256, 1, 1, 14, 5 }, { 256, 256, 3, 1, 14, 5 },
  { 1024, 512, 1, 1, 14, 1 }, { 512, 512, 3, 2, 14, 1 }, { 1024, 2048, 1, 2, 14, 1 }, { 512, 2048, 1, 1, 7, 3 }, { 2048, 512, 1, 1, 7, 2 }, { 512, 512, 3, 1, 7, 2 },
}

--- The others. Products: rows, inputs, outputs (of a linear layer on that many rows).
kernels.names = {
  "linear 1024 768 3072", "linear 1024 3072 768", "linear 1024 768 768", "linear 1576 768 2304", "linear 1576 768 3072", "linear 400 1024 4096",
  "batch_norm_relu 16 64 112", "batch_norm_relu 16 256 56", "batch_norm_relu 16 1024 14", "batch_norm_add_relu 16 256 56", "batch_norm_add_relu 16 1024 14",
  "attention 8 12 197 64", "attention 8 12 128 64",
  "layer_norm 1576 768", "add_layer_norm 1024 768", "gelu 1576 3072", "softmax 18912 197", "cross_entropy 1024 30522", "dropout 1576 3072",
  "embedding 1024 30522 768", "adamw 30000000", "interpolate 8 64 56", "group_norm 8 256 56",
}

local function numbers(words)
  local list = {}
  for i = 2, #words do list[i - 1] = tonumber(words[i]) end
  return unpack(list)
end

local function draw(dtype, ...) return unic.randn(...):to(dtype) end
local function wanting(t) t.requires_grad = true return t end
local function channels_last(t) return t:channels_last() end

-- One forward, kept, and its gradient into `inputs`. bytes of the two passes.
local function passes(forward, inputs, flops, bytes_forward, bytes_backward)
  local y, dy
  return {
    forward = { run = function() unic.no_grad(forward) end, flops = flops, bytes = bytes_forward },
    backward = {
      prepare = function()
        y = forward()
        dy = unic.randn(unpack(y.shape)):to(y.dtype)
        -- In the layout of what it is the gradient of.
        if y:dim() == 4 then dy = channels_last(dy) end
      end,
      run = function() unic.grad(y, inputs, { gradient = dy, keep = true }) end,
      flops = flops and #inputs * flops, bytes = bytes_backward,
    },
  }
end

local MAKE = {}

function MAKE.conv(dtype, n, i, o, k, stride, side)
  local x, w = wanting(channels_last(draw(dtype, n, i, side, side))), wanting(draw(dtype, o, i, k, k))
  local out = math.floor((side + 2 * math.floor(k / 2) - k) / stride) + 1
  local flops = 2 * n * out * out * i * o * k * k
  local function forward() return unic.conv2d(x, w, { stride = stride, padding = math.floor(k / 2) }) end
  local both = passes(forward, { x }, flops)
  return { forward = both.forward, data = both.backward, weights = passes(forward, { w }, flops).backward }
end

function MAKE.linear(dtype, rows, i, o)
  local x, w = wanting(draw(dtype, rows, i)), wanting(draw(dtype, o, i))
  local function forward() return unic.linear(x, w) end
  local both = passes(forward, { x }, 2 * rows * i * o)
  return { forward = both.forward, data = both.backward, weights = passes(forward, { w }, 2 * rows * i * o).backward }
end

local function batch_norm(dtype, n, c, side, added)
  local x, w, b = wanting(channels_last(draw(dtype, n, c, side, side))), wanting(unic.ones(c)), wanting(unic.zeros(c))
  local mean, var = unic.zeros(c), unic.ones(c)
  local residual = added and wanting(channels_last(draw(dtype, n, c, side, side))) or nil
  local bytes = x:numel() * (dtype == "f32" and 4 or 2)
  local function forward() return unic.batch_norm(x, w, b, { running_mean = mean, running_var = var, residual = residual, relu = true }) end
  -- Forward: x twice, y once, residual once; backward: x and dy twice, a mask, dx (and the residual's gradient) once.
  return passes(forward, added and { x, w, b, residual } or { x, w, b }, nil, (added and 4 or 3) * bytes, (added and 6 or 5) * bytes)
end
function MAKE.batch_norm_relu(dtype, n, c, side) return batch_norm(dtype, n, c, side, false) end
function MAKE.batch_norm_add_relu(dtype, n, c, side) return batch_norm(dtype, n, c, side, true) end

function MAKE.attention(dtype, n, heads, s, d)
  local q, k, v = wanting(draw(dtype, n, s, heads, d)), wanting(draw(dtype, n, s, heads, d)), wanting(draw(dtype, n, s, heads, d))
  local list = passes(function() return (unic.attention(q, k, v)) end, { q, k, v }, 4 * n * heads * s * s * d)
  list.backward.flops = 2 * list.forward.flops   -- four products; the scores that are made again are not asked for
  return list
end

local function flat(forward, inputs, bytes, reads_forward, reads_backward) return passes(forward, inputs, nil, reads_forward * bytes, reads_backward * bytes) end
local function bytes_of(x) return x:numel() * (x.dtype == "f32" and 4 or 2) end

function MAKE.layer_norm(dtype, rows, c)
  local x, w, b = wanting(draw(dtype, rows, c)), wanting(unic.ones(c)), wanting(unic.zeros(c))
  return flat(function() return unic.layer_norm(x, w, b) end, { x, w, b }, bytes_of(x), 2, 3)
end

function MAKE.add_layer_norm(dtype, rows, c)
  local x, r, w, b = wanting(draw(dtype, rows, c)), wanting(draw(dtype, rows, c)), wanting(unic.ones(c)), wanting(unic.zeros(c))
  return flat(function() return (unic.add_layer_norm(x, r, w, b, { dropout = 0.1 })) end, { x, r, w, b }, bytes_of(x), 4, 4)
end

function MAKE.gelu(dtype, rows, c)
  local x = wanting(draw(dtype, rows, c))
  return flat(function() return x:gelu() end, { x }, bytes_of(x), 2, 3)
end

function MAKE.softmax(dtype, rows, c)
  local x = wanting(draw(dtype, rows, c))
  return flat(function() return x:softmax() end, { x }, bytes_of(x), 2, 3)
end

function MAKE.cross_entropy(dtype, rows, c)
  local x, target = wanting(draw(dtype, rows, c)), unic.randint(0, c, { rows })
  return flat(function() return unic.cross_entropy(x, target) end, { x }, bytes_of(x), 1, 2)
end

function MAKE.dropout(dtype, rows, c)
  local x = wanting(draw(dtype, rows, c))
  return flat(function() return unic.dropout(x, 0.1) end, { x }, bytes_of(x), 2, 2)
end

function MAKE.embedding(dtype, n, words, c)
  local ids, t = unic.randint(0, words, { n }), wanting(draw(dtype, words, c))
  -- The gradient of the table is a dense tensor here, as in the peer: unic.grad hands it out.
  return passes(function() return unic.embedding(ids, t) end, { t }, nil, 2 * n * c * (dtype == "f32" and 4 or 2), bytes_of(t))
end

function MAKE.adamw(dtype, n)
  if dtype ~= "f32" then return {} end
  local p = wanting(unic.randn(n))
  p.grad = unic.randn(n)
  local adamw = optim.AdamW({ p }, { lr = 1e-4 })
  return { step = { run = function() adamw:step() end, bytes = 28 * n } }
end

function MAKE.interpolate(dtype, n, c, side)
  local x = wanting(channels_last(draw(dtype, n, c, side, side)))
  return flat(function() return unic.interpolate(x, { size = { 2 * side, 2 * side }, mode = "bilinear" }) end, { x }, bytes_of(x), 5, 5)
end

function MAKE.group_norm(dtype, n, c, side)
  local x, w, b = wanting(channels_last(draw(dtype, n, c, side, side))), wanting(unic.ones(c)), wanting(unic.zeros(c))
  return flat(function() return unic.group_norm(x, 32, w, b) end, { x, w, b }, bytes_of(x), 2, 3)
end

--- Make a kernel.
-- @param name "linear 1024 768 3072"
-- @param dtype "f32" or "bf16"
-- @return table of its passes: name -> { run =, prepare = (once, before the first run), flops =, bytes = }
function kernels.make(name, dtype)
  local words = {}
  for word in name:gmatch "%S+" do words[#words + 1] = word end
  unic.manual_seed(0)
  return MAKE[words[1]](dtype, numbers(words))
end

--- The passes of a kernel in the order they are shown.
kernels.passes = { "forward", "backward", "data", "weights", "step" }

return kernels
