--- Networks whose convolutions a GPU is asked for beside those of spec/bench/workloads.lua: a U-Net and a YOLOv3 head on ResNet-50, layer by layer those of
-- the downstream tasks (segmentation_models_pytorch's Unet; the head's chains over strides 32, 16 and 8). Whole training steps with the encoder trained, too;
-- the losses are plain means, since which convolutions are asked for does not hang on them.
local unic = require "unic"
local nn = unic.nn
local resnet = require "unic.models.resnet"

local networks = {}

local function double() return nn.Upsample { scale_factor = 2 } end

--- [3x3 convolution, batch norm, ReLU] twice, over the doubled map and the encoder's map of that size.
local Block = nn.class "UnetBlock"
function Block:init(from, to)
  self.up, self.conv1, self.bn1 = double(), nn.Conv2d(from, to, 3, { padding = 1, bias = false }), nn.BatchNorm2d(to)
  self.conv2, self.bn2 = nn.Conv2d(to, to, 3, { padding = 1, bias = false }), nn.BatchNorm2d(to)
end
function Block:forward(x, skip)
  x = self.up(x)
  if skip then x = unic.cat({ x, skip }, 2) end
  return self.bn2(self.conv2(self.bn1(self.conv1(x)):relu())):relu()
end

local Unet = nn.class "Unet"
function Unet:init()
  self.encoder = resnet.resnet50()
  self.block1, self.block2, self.block3 = Block(2048 + 1024, 256), Block(256 + 512, 128), Block(128 + 256, 64)
  self.block4, self.block5, self.head = Block(64 + 64, 32), Block(32, 16), nn.Conv2d(16, 1, 3, { padding = 1 })
end
function Unet:forward(x)
  local maps, stem = self.encoder:maps(x)
  local h = self.block1(maps[4], maps[3])
  h = self.block3(self.block2(h, maps[2]), maps[1])
  return self.head(self.block5(self.block4(h, stem)))
end

--- Convolution without bias, batch norm, leaky ReLU.
local CBL = nn.class "CBL"
function CBL:init(from, to, kernel)
  self.conv, self.bn = nn.Conv2d(from, to, kernel, { padding = (kernel - 1) / 2, bias = false }), nn.BatchNorm2d(to)
end
function CBL:forward(x)
  local y = self.bn(self.conv(x))
  return y:maximum(y * 0.1)
end

--- A chain of YOLOv3: five CBL to the tap, and the output of this level.
local Chain = nn.class "YoloChain"
function Chain:init(from, narrow, wide)
  self.body = nn.Sequential(CBL(from, narrow, 1), CBL(narrow, wide, 3), CBL(wide, narrow, 1), CBL(narrow, wide, 3), CBL(wide, narrow, 1))
  self.last, self.out = CBL(narrow, wide, 3), nn.Conv2d(wide, 18, 1)
end
function Chain:forward(x)
  local tap = self.body(x)
  return tap, self.out(self.last(tap))
end

local Yolo = nn.class "Yolov3"
function Yolo:init()
  self.encoder, self.up = resnet.resnet50(), double()
  self.chain0, self.chain1, self.chain2 = Chain(2048, 512, 1024), Chain(256 + 1024, 256, 512), Chain(128 + 512, 128, 256)
  self.join1, self.join2 = CBL(512, 256, 1), CBL(256, 128, 1)
end
function Yolo:forward(x)
  local maps = self.encoder:maps(x)
  local tap, out0 = self.chain0(maps[4])
  local tap1, out1 = self.chain1(unic.cat({ self.up(self.join1(tap)), maps[3] }, 2))
  local _, out2 = self.chain2(unic.cat({ self.up(self.join2(tap1)), maps[2] }, 2))
  return out0, out1, out2
end

--- unet: [batch, 3, size, size] of 8 x 512; yolov3: 16 x 224.
-- @return as spec/bench/workloads.lua's make
function networks.make(name)
  local kind, sizes = name:match "^([%w_]+):?(.*)$"
  local o = {}
  for key, value in sizes:gmatch "(%w+)=(%d+)" do o[key] = tonumber(value) end
  if kind == "unet" then
    local model, x = Unet(), unic.randn(o.batch or 8, 3, o.size or 512, o.size or 512)
    return { model = model, loss = function() return model(x):to("f32"):square():mean() end }
  elseif kind == "yolov3" then
    local model, x = Yolo(), unic.randn(o.batch or 16, 3, o.size or 224, o.size or 224)
    return {
      model = model, loss = function()
        local a, b, c = model(x)
        return a:to("f32"):square():mean() + b:to("f32"):square():mean() + c:to("f32"):square():mean()
      end,
    }
  end
  return require("spec.bench.workloads").make(name)
end

return networks
