--- Vision transformers (Dosovitskiy et al., 2021) with timm's parameter names (which MAE shares).
--
--   vit.vit_b16()     12 x 768, 12 heads, patches of 16: [N,3,224,224] -> [N,768] (the final norm's class token)
--   vit.vit_l32()     24 x 1024, 16 heads, patches of 32
--   vit.vit_b16 { classes = 5 }                      with timm's `head`: [N,5]
--   vit.vit_b16 { size = { 448, 224 } }              other pictures; files with positions of another grid are adapted when they are loaded
-- @module unic.models.vit
local arguments = require "unic.arguments"
local nn = require "unic.nn"
local tensor = require "unic.tensor"
local core = require "unic.core"
local ops = core.ops.call
local make = tensor.exports

local vit = {}

local SIZE, SIDES, SHARE = { "integer", least = 1 }, { "pair", least = 1 }, { "number", least = 0, most = 1 }

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
-- Patches do not overlap, so the convolution is a product: rows of pixels with filters. (As a convolution the weight gradient of 32 x 32 patches took 160 MiB
-- of scratch at the moment when all gradients are there.)
function PatchEmbed:forward(x)
  local weight = self.proj.weight
  local n, c, height, width, p = x:size(1), x:size(2), x:size(3), x:size(4), weight:size(3)
  local rows, columns = height / p, width / p
  local patches = ops.contiguous(ops.permute(ops.reshape(x, { n, c, rows, p, columns, p }), { 1, 3, 5, 2, 4, 6 }))
  return ops.linear(ops.reshape(patches, { n, rows * columns, c * p * p }), ops.reshape(weight, { weight:size(1), -1 }), self.proj.bias)   -- [N,tokens,W]
end

-- Rows and columns of patches.
local function grid_of(size, patch)
  local sides = type(size) == "table" and size or { size, size }
  for _, side in ipairs(sides) do
    if side % patch ~= 0 then core.fail(("[vit] argument 'size': %d is no multiple of the patch size %d"):format(side, patch)) end
  end
  return { sides[1] / patch, sides[2] / patch }
end

--- Position embeddings for another grid of patches: bicubic, corners not aligned, the class token's row as it is; computed in f32. This is what MAE's
-- fine-tuning does (interpolate_pos_embed), and timm up to 0.8. Later timm resamples with `antialias = True`: a bicubic kernel with a = -0.5 where this one has
-- -0.75, and widened where the grid shrinks; its values differ for growing grids as well as for shrinking ones.
-- @param t [1, 1 + rows * columns, width]
-- @param to the new grid, {rows, columns}
-- @param from the grid of t (nil: a square one)
-- @return [1, 1 + to[1] * to[2], width] in t's dtype; nil where t's grid is not square and `from` is not given
function vit.resize_positions(t, to, from)
  arguments.check("vit.resize_positions", "t", t, "tensor")
  local count, width = t:size(2) - 1, t:size(3)
  if not from then
    local side = math.floor(math.sqrt(count) + 0.5)
    if side * side ~= count then return nil end
    from = { side, side }
  elseif from[1] * from[2] ~= count then
    core.fail(("[vit.resize_positions] argument 'from': a grid of %dx%d was given, the tensor has %d places"):format(from[1], from[2], count))
  end
  local old = t:detach()
  local map = ops.reshape(ops.cast(ops.narrow(old, 2, 2, count), "f32"), { 1, from[1], from[2], width })
  local new = ops.interpolate(ops.contiguous(ops.permute(map, { 1, 4, 2, 3 })), to, "bicubic", false)
  new = ops.reshape(ops.contiguous(ops.permute(new, { 1, 3, 4, 2 })), { 1, to[1] * to[2], width })
  return ops.cat({ ops.narrow(old, 2, 1, 1), ops.cast(new, t.dtype) }, 2)
end

vit.Vit = nn.class "Vit"

--- @param options `size` (224; a number or {rows, columns}), `patch` (16), `channels` (3), `width` (768), `depth` (12), `heads` (12), `mlp` (4, the hidden
-- layer is that much wider), `classes` (none: features), `dropout` (0), `drop_path` (0; rises linearly over depth to this)
function vit.Vit:init(options)
  options = arguments.options("vit", options, {
    size = SIDES, patch = SIZE, channels = SIZE, width = SIZE, depth = SIZE, heads = SIZE, mlp = "number", classes = SIZE, dropout = SHARE,
    drop_path = SHARE,
  })
  local size, patch, width, depth = options.size or 224, options.patch or 16, options.width or 768, options.depth or 12
  self.features, self.size, self.patch, self.grid = width, size, patch, grid_of(size, patch)
  self.cls_token = nn.Parameter(ops.normal_(make.empty(1, 1, width), 0, 0.02))
  self.pos_embed = nn.Parameter(ops.normal_(make.empty(1, self.grid[1] * self.grid[2] + 1, width), 0, 0.02))
  self.patch_embed = PatchEmbed(options.channels or 3, width, patch)
  local blocks = nn.List()
  for i = 1, depth do
    local rate = depth > 1 and (options.drop_path or 0) * (i - 1) / (depth - 1) or 0
    blocks:append(Block(width, options.heads or 12, width * (options.mlp or 4), options.dropout or 0, rate))
  end
  self.blocks = blocks
  self.norm = nn.LayerNorm(width, { eps = 1e-6 })
  if options.classes then self.head = small_init(nn.Linear(width, options.classes)) end
end

-- What goes into the first block: [N,tokens + 1,width].
local function embed(self, x)
  local rows, columns = self.grid[1] * self.patch, self.grid[2] * self.patch
  if x:size(3) ~= rows or x:size(4) ~= columns then
    core.fail(("[vit] argument 'x': a picture of %dx%d was given, expected %dx%d"):format(x:size(3), x:size(4), rows, columns))
  end
  local patches = self.patch_embed(x)
  local cls = ops.expand(self.cls_token, { x:size(1), 1, self.features })
  return ops.add(ops.cat({ ops.cast(cls, patches.dtype), patches }, 2), self.pos_embed)
end

--- All tokens after the final norm.
-- @param x [N,C,rows,columns], pictures of the size that was asked for
-- @return [N,tokens + 1,width]; the class token comes first
function vit.Vit:tokens(x)
  local sum, branch = embed(self, x), nil
  for i = 1, #self.blocks do sum, branch = self.blocks[i](sum, branch) end
  return (self.norm:add(branch, sum, self.blocks[#self.blocks].dropout))
end

--- All tokens after blocks: timm's get_intermediate_layers.
-- @param x [N,C,rows,columns]
-- @param options `blocks` (all; a list of their numbers, counted from 1), `norm` (false; the final norm on each), `map` (false; without the class token, as
-- feature maps [N,width,grid rows,grid columns])
-- @return a list of [N,tokens + 1,width], in the order of the blocks
function vit.Vit:states(x, options)
  options = arguments.options("vit:states", options, { blocks = "table", norm = "boolean", map = "boolean" })
  local wanted, last = {}, 0
  for _, i in ipairs(options.blocks or {}) do
    wanted[arguments.check("vit:states", "blocks", i, { "integer", least = 1, most = #self.blocks })] = true
    last = math.max(last, i)
  end
  local sum, branch, states = embed(self, x), nil, {}
  for i = 1, options.blocks and last or #self.blocks do
    local block = self.blocks[i]
    sum, branch = block(sum, branch)
    if not options.blocks or wanted[i] then
      if self.training and block.dropout > 0 then branch = ops.dropout(branch, block.dropout) end
      sum, branch = ops.add(sum, branch), nil   -- the next block goes on from here: its branch is in
      local state = options.norm and self.norm(sum) or sum
      if options.map then
        local places = ops.narrow(state, 2, 2, state:size(2) - 1)
        state = ops.permute(ops.reshape(places, { x:size(1), self.grid[1], self.grid[2], self.features }), { 1, 4, 2, 3 })
      end
      states[#states + 1] = state
    end
  end
  return states
end

--- @param x [N,C,rows,columns]
-- @return the class token [N,width], or [N,classes] with a classifier
function vit.Vit:forward(x)
  local token = ops.select(self:tokens(x), 2, 1)
  return self.head and self.head(token) or token
end

--- Freeze the patch embedding, class token, positions and the first blocks. Dropout and drop path stay: they go with training mode, not with gradients.
-- @param count how many blocks (0 freezes nothing, the depth or more all of them), or "all": the final norm too, everything but the classifier
-- @return self
function vit.Vit:freeze(count)
  arguments.check("vit:freeze", "count", count, { text = 'a number of blocks of 0 or more, or "all"',
    test = function(n) return n == "all" or type(n) == "number" and n >= 0 and n % 1 == 0 end })
  if count == 0 then return self end
  if count == "all" then self.norm:requires_grad_(false) end
  self:requires_grad_(false, "^cls_token$"):requires_grad_(false, "^pos_embed$")
  self.patch_embed:requires_grad_(false)
  for i = 1, count == "all" and #self.blocks or math.min(count, #self.blocks) do self.blocks[i]:requires_grad_(false) end
  return self
end

--- Take pictures of another size from now on: the positions are resized. They are a new parameter: make optimisers after this.
-- @param size a number or {rows, columns}
-- @return self
function vit.Vit:resize(size)
  arguments.check("vit:resize", "size", size, SIDES)
  local to = grid_of(size, self.patch)
  if to[1] ~= self.grid[1] or to[2] ~= self.grid[2] then
    local new = nn.Parameter(vit.resize_positions(self.pos_embed, to, self.grid))
    new.requires_grad = self.pos_embed.requires_grad
    rawset(self, "pos_embed", new)
  end
  self.size, self.grid = size, to
  return self
end

--- Help for loaders: a tensor that fits, made from a file's that does not.
-- @param name of ours
-- @param t the file's tensor
-- @return a tensor of our shape, or nil: only positions of another, square grid can be adapted
function vit.Vit:adapt(name, t)
  if name ~= "pos_embed" or t:dim() ~= 3 or t:size(1) ~= 1 or t:size(3) ~= self.features or t:size(2) < 2 then return nil end
  return vit.resize_positions(t, self.grid)
end

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
