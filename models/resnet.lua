--- Residual networks (He et al., 2016) in torchvision's layout and with its parameter names, so that public weights load by name.
--
--   resnet.resnet50()                          [N,3,H,W] -> [N,2048] (features; the classifier comes with `classes = n`)
--   resnet.resnet_small{channels = 1}          16-32-64-128, one block a stage, for small pictures such as the built-in set's
-- @module unic.models.resnet
local arguments = require "unic.arguments"
local nn = require "unic.nn"
local module = require "unic.nn.module"
local core = require "unic.core"
local ops = core.ops.call

local resnet = {}

local pass, only_lent = module.pass, module.only_lent

local SIZE = { "integer", least = 1 }

-- torchvision: convolutions from N(0, 2 / fan_out), norms at 1 and 0.
local function conv(from, to, kernel, stride)
  local c = nn.Conv2d(from, to, kernel, { stride = stride or 1, padding = math.floor(kernel / 2), bias = false })
  ops.normal_(c.weight:detach(), 0, math.sqrt(2 / (to * kernel * kernel)))
  return c
end

-- A branch that fits the identity to the block's output.
local function shortcut(from, to, stride)
  if stride == 1 and from == to then return nil end
  return nn.Sequential(conv(from, to, 1, stride), nn.BatchNorm2d(to))
end

-- What is added to a block's output, and whether it is the block's own.
local function branch_of(block, x)
  if block.downsample then return pass(block.downsample, x, false) end
  return x, false
end

-- The end of a block: norm, sum and ReLU in one pass.
local function join(norm, h, own, branch, ours)
  local y, lent = pass(norm, h, own, { residual = branch, relu = true })
  if lent and ours then branch:free() end
  return y
end

--- Two 3x3 convolutions and a shortcut (ResNet-18, -34).
resnet.BasicBlock = nn.class "BasicBlock"
resnet.BasicBlock.expansion = 1
function resnet.BasicBlock:init(from, width, stride)
  self.conv1, self.bn1 = conv(from, width, 3, stride), nn.BatchNorm2d(width)
  self.conv2, self.bn2 = conv(width, width, 3), nn.BatchNorm2d(width)
  local branch = shortcut(from, width, stride)
  if branch then self.downsample = branch end
end
function resnet.BasicBlock:forward(x)
  local branch, ours = branch_of(self, x)
  local h, own = pass(self.conv1, x, false)
  h, own = pass(self.bn1, h, own, { relu = true })
  h, own = pass(self.conv2, h, own)
  return join(self.bn2, h, own, branch, ours)
end
module.lends(resnet.BasicBlock, function(self)
  return only_lent(self.conv1) and only_lent(self.bn1) and only_lent(self.conv2) and only_lent(self.bn2) and (not self.downsample or only_lent(self.downsample))
end)

--- 1x1, 3x3 (which carries the stride), 1x1 and a shortcut (ResNet-50 and deeper).
resnet.Bottleneck = nn.class "Bottleneck"
resnet.Bottleneck.expansion = 4
function resnet.Bottleneck:init(from, width, stride)
  local to = 4 * width
  self.conv1, self.bn1 = conv(from, width, 1), nn.BatchNorm2d(width)
  self.conv2, self.bn2 = conv(width, width, 3, stride), nn.BatchNorm2d(width)
  self.conv3, self.bn3 = conv(width, to, 1), nn.BatchNorm2d(to)
  local branch = shortcut(from, to, stride)
  if branch then self.downsample = branch end
end
function resnet.Bottleneck:forward(x)
  local branch, ours = branch_of(self, x)
  local h, own = pass(self.conv1, x, false)
  h, own = pass(self.bn1, h, own, { relu = true })
  h, own = pass(self.conv2, h, own)
  h, own = pass(self.bn2, h, own, { relu = true })
  h, own = pass(self.conv3, h, own)
  return join(self.bn3, h, own, branch, ours)
end
module.lends(resnet.Bottleneck, function(self)
  return only_lent(self.conv1) and only_lent(self.bn1) and only_lent(self.conv2) and only_lent(self.bn2) and only_lent(self.conv3) and only_lent(self.bn3)
    and (not self.downsample or only_lent(self.downsample))
end)

resnet.Resnet = nn.class "Resnet"

--- A network from a block class and the number of blocks per stage.
-- @param block resnet.BasicBlock or resnet.Bottleneck
-- @param depths blocks per stage, {3, 4, 6, 3}
-- @param options `channels` (3, of the picture), `width` (64, of the first stage), `classes` (none: features), `stem` (7: the 7x7 stem with its
-- max-pool; 5: a 5x5 convolution with stride 2 alone, for small pictures)
function resnet.Resnet:init(block, depths, options)
  options = arguments.options("resnet", options, { channels = SIZE, width = SIZE, classes = SIZE, stem = SIZE })
  local width = options.width or 64
  local stem = options.stem or 7
  self.conv1, self.bn1 = conv(options.channels or 3, width, stem, 2), nn.BatchNorm2d(width)
  if stem == 7 then self.maxpool = nn.MaxPool2d(3, { stride = 2, padding = 1 }) end
  local from = width
  self.stages = #depths
  for s, depth in ipairs(depths) do
    local stage, inner = nn.Sequential(), width * 2 ^ (s - 1)
    for b = 1, depth do
      stage:append(block(from, inner, (b == 1 and s > 1) and 2 or 1))
      from = inner * block.expansion
    end
    self["layer" .. s] = stage
  end
  self.features = from
  if options.classes then self.fc = nn.Linear(from, options.classes) end
end

--- The feature map of every stage.
-- @param x [N,C,H,W]
-- @return a list of [N,C_s,H_s,W_s]; then the stem's [N,width,H/2,W/2], after its norm and ReLU and before the max-pool
function resnet.Resnet:maps(x)
  local stem, own = pass(self.conv1, x, false)
  stem = pass(self.bn1, stem, own, { relu = true })
  local h = self.maxpool and self.maxpool(stem) or stem
  local maps = {}
  for s = 1, self.stages do
    h = self["layer" .. s](h)
    maps[s] = h
  end
  return maps, stem
end

--- Freeze the stem and the first stages. As in PyTorch, this alone leaves batch norm as it is: in training mode frozen stages still normalise by the batch
-- and their running statistics still move. With `norms = "fixed"` they keep to their running statistics, which then stay, in training mode too.
-- @param count how many stages (0 freezes nothing), "stem", or "all": everything but the classifier
-- @param options `norms` ("batch" or "fixed")
-- @return self
function resnet.Resnet:freeze(count, options)
  arguments.check("resnet:freeze", "count", count, { text = 'a number of stages of 0 or more, "stem" or "all"',
    test = function(n) return n == "all" or n == "stem" or type(n) == "number" and n >= 0 and n % 1 == 0 end })
  options = arguments.options("resnet:freeze", options, { norms = { "choice", "batch", "fixed" } })
  if count == 0 then return self end
  local frozen = { self.conv1, self.bn1 }
  for s = 1, count == "stem" and 0 or count == "all" and self.stages or math.min(count, self.stages) do frozen[#frozen + 1] = self["layer" .. s] end
  for _, part in ipairs(frozen) do
    part:requires_grad_(false)
    part:apply(function(m)
      if m.running_mean then m.fixed = options.norms == "fixed" end
    end)
  end
  return self
end

--- @param x [N,C,H,W]
-- @return [N,features], or [N,classes] with a classifier; then the last feature map
function resnet.Resnet:forward(x)
  local map, own = pass(self.conv1, x, false)   -- not by `maps`: only the last map is to be held
  map, own = pass(self.bn1, map, own, { relu = true })
  if self.maxpool then map, own = pass(self.maxpool, map, own) end
  for s = 1, self.stages do map, own = pass(self["layer" .. s], map, own) end
  local pooled = ops.global_avg_pool2d(map)
  if self.fc then pooled = self.fc(pooled) end
  return pooled, map
end

local DEPTHS = {
  [18] = { resnet.BasicBlock, { 2, 2, 2, 2 } }, [34] = { resnet.BasicBlock, { 3, 4, 6, 3 } }, [50] = { resnet.Bottleneck, { 3, 4, 6, 3 } },
  [101] = { resnet.Bottleneck, { 3, 4, 23, 3 } }, [152] = { resnet.Bottleneck, { 3, 8, 36, 3 } },
}
for depth, spec in pairs(DEPTHS) do
  resnet["resnet" .. depth] = function(options) return resnet.Resnet(spec[1], spec[2], options) end
end

--- The network of the built-in set: 16-32-64-128, one basic block a stage, 5x5 stem with stride 2; [N,128] and a map of 1/16 of the side.
function resnet.resnet_small(options)
  options = arguments.options("resnet_small", options, { channels = SIZE, classes = SIZE, width = SIZE })
  return resnet.Resnet(resnet.BasicBlock, { 1, 1, 1, 1 }, {
    channels = options.channels or 1, width = options.width or 16, classes = options.classes, stem = 5,
  })
end

return resnet
