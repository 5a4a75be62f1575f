--- Vision transformers (Dosovitskiy et al., 2021) with timm's parameter names (which MAE shares).
--
--   vit.vit_b16()     12 x 768, 12 heads, patches of 16: [N,3,224,224] -> [N,768] (the final norm's class token)
--   vit.vit_l32()     24 x 1024, 16 heads, patches of 32
-- @module unic.models.vit
local arguments = require "unic.arguments"
local nn = require "unic.nn"
local tensor = require "unic.tensor"
local core = require "unic.core"
local recompute = require "unic.recompute"
local ops = core.ops.call
local make = tensor.exports

local vit = {}

local SIZE, SHARE = { "integer", least = 1 }, { "number", least = 0, most = 1 }

local function small_init(linear)
  ops.normal_(linear.weight:detach(), 0, 0.02)
  linear.bias:detach():fill_(0)
  return linear
end

-- timm: blocks.N.{norm1, attn.qkv, attn.proj, norm2, mlp.fc1, mlp.fc2}
local Mlp = nn.class "Mlp"
function Mlp:init(width, hidden)
  self.fc1 = small_init(nn.Linear(width, hidden, { activation = "gelu" }))
  self.fc2 = small_init(nn.Linear(hidden, width))
end
function Mlp:forward(x) return self.fc2(self.fc1(x)) end

local Block = nn.class "Block"
function Block:init(width, heads, hidden, dropout, drop_path)
  self.norm1 = nn.LayerNorm(width, { eps = 1e-6 })
  self.attn = nn.MultiheadAttention(width, heads)
  small_init(self.attn.qkv)
  small_init(self.attn.proj)
  self.norm2 = nn.LayerNorm(width, { eps = 1e-6 })
  self.mlp = Mlp(width, hidden)
  self.dropout, self.drop_path = dropout, nn.DropPath(drop_path)
end

-- Pre-norm. A block takes the running sum and the branch still to be added, so that sum, dropout and the next norm are one pass.
function Block:forward(sum, branch)
  local y
  if branch then y, sum = self.norm1:add(branch, sum, self.dropout) else y = self.norm1(sum) end
  branch = self.drop_path(self.attn(y))
  y, sum = self.norm2:add(branch, sum, self.dropout)
  return sum, self.drop_path(self.mlp(y))
end

local PatchEmbed = nn.class "PatchEmbed"
function PatchEmbed:init(channels, width, patch) self.proj = nn.Conv2d(channels, width, patch, { stride = patch }) end
function PatchEmbed:forward(x)
  local y = self.proj(x)                                             -- [N,W,H/P,W/P], channels innermost in memory
  local n, w = y:size(1), y:size(2)
  return ops.reshape(ops.permute(y, { 1, 3, 4, 2 }), { n, -1, w })   -- [N,tokens,W] without copying
end

vit.Vit = nn.class "Vit"

--- @param options `size` (224), `patch` (16), `channels` (3), `width` (768), `depth` (12), `heads` (12), `mlp` (4, the hidden layer is that much
-- wider), `dropout` (0), `drop_path` (0; rises linearly over depth to this), `checkpoint` (blocks are computed again in the backward: `unic.checkpoint`)
function vit.Vit:init(options)
  options = arguments.options("vit", options, {
    size = SIZE, patch = SIZE, channels = SIZE, width = SIZE, depth = SIZE, heads = SIZE, mlp = "number", dropout = SHARE, drop_path = SHARE,
    checkpoint = "boolean",
  })
  local size, patch, width, depth = options.size or 224, options.patch or 16, options.width or 768, options.depth or 12
  if size % patch ~= 0 then core.fail(("[vit] argument 'size': %d is no multiple of the patch size %d"):format(size, patch)) end
  local tokens = (size / patch) ^ 2
  self.features, self.size, self.patch, self.checkpoint = width, size, patch, options.checkpoint
  self.cls_token = nn.Parameter(ops.normal_(make.empty(1, 1, width), 0, 0.02))
  self.pos_embed = nn.Parameter(ops.normal_(make.empty(1, tokens + 1, width), 0, 0.02))
  self.patch_embed = PatchEmbed(options.channels or 3, width, patch)
  local blocks = nn.List()
  for i = 1, depth do
    local rate = depth > 1 and (options.drop_path or 0) * (i - 1) / (depth - 1) or 0
    blocks:append(Block(width, options.heads or 12, width * (options.mlp or 4), options.dropout or 0, rate))
  end
  self.blocks = blocks
  self.norm = nn.LayerNorm(width, { eps = 1e-6 })
end

--- All tokens after the final norm.
-- @param x [N,C,size,size]
-- @return [N,tokens + 1,width]; the class token comes first
function vit.Vit:tokens(x)
  if x:size(3) ~= self.size or x:size(4) ~= self.size then
    core.fail(("[vit] argument 'x': a picture of %dx%d was given, expected %dx%d"):format(x:size(3), x:size(4), self.size, self.size))
  end
  local patches = self.patch_embed(x)
  local cls = ops.expand(self.cls_token, { x:size(1), 1, self.features })
  local sum, branch = ops.add(ops.cat({ ops.cast(cls, patches.dtype), patches }, 2), self.pos_embed), nil
  for i = 1, #self.blocks do sum, branch = recompute.call(self.checkpoint, self.blocks[i], sum, branch) end
  return (self.norm:add(branch, sum, self.blocks[#self.blocks].dropout))
end

--- @param x [N,C,size,size]
-- @return the class token [N,width]
function vit.Vit:forward(x) return ops.select(self:tokens(x), 2, 1) end

local function named(defaults)
  return function(options)
    local all = {}
    for key, value in pairs(defaults) do all[key] = value end
    for key, value in pairs(arguments.default("vit", "options", options, "table", {})) do all[key] = value end
    return vit.Vit(all)
  end
end
vit.vit_b16 = named { patch = 16, width = 768, depth = 12, heads = 12 }
vit.vit_l32 = named { patch = 32, width = 1024, depth = 24, heads = 16, drop_path = 0.1 }
--- For small pictures: 4 x 128, 4 heads, patches of 8, one channel, 64x64.
vit.vit_small = named { size = 64, patch = 8, channels = 1, width = 128, depth = 4, heads = 4 }

return vit
