--- Neural-network modules: `nn.class`, `nn.Parameter`, and the layers of unic.nn.layers and unic.nn.spatial.
-- @module unic.nn
local module = require "unic.nn.module"
local layers = require "unic.nn.layers"
local spatial = require "unic.nn.spatial"

local nn = {
  class = module.class,
  Module = module.Module,
  Parameter = module.Parameter,
  is_module = module.is_module,
}
for name, value in pairs(layers) do nn[name] = value end
for name, value in pairs(spatial) do nn[name] = value end
return nn
