--- One training step of each network on the emulated device, dry (EMU_DRY=1: nothing is computed), for what it asks the libraries:
-- EMU_DRY=1 EMU_PLANS=FILE EMU_GPU=h100 luajit spec/cuda/asked.lua DTYPE NETWORK...
package.path = "./?.lua;" .. package.path
local unic = require "unic"
local networks = require "spec.cuda.networks"

unic.device "cuda-emu"
local dtype = arg[1]
local record = assert(io.open(os.getenv "EMU_PLANS", "a"))
for i = 2, #arg do
  record:write("network ", arg[i], "\n")
  record:flush()
  do
    local work = networks.make(arg[i])
    local loss = dtype == "f32" and work:loss() or unic.autocast(dtype, function() return work:loss() end)
    loss:backward()
    unic.synchronize "cuda-emu"
  end
  collectgarbage()
  collectgarbage()
end
