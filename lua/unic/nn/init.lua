--- Neural-network modules: `nn.class`, `nn.Parameter`, and the layers of unic.nn.layers.
-- @module unic.nn
local module = require "unic.nn.module"
local layers = require "unic.nn.layers"

local nn = {
  class = module.class,
  Module = module.Module,
  Parameter = module.Parameter,
  is_module = module.is_module,
}
for name, value in pairs(layers) do nn[name] = value end
return nn
