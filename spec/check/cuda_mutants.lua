-- Plants faults in the CUDA code (spec/check/cuda_mutants.csv) and counts those that the specs catch on the emulated device
-- Cost: a build and the kernel specs, then about 1 min for each fault (two dozen: half an hour on two cores)
-- Options: --only N,M (rows by number), --fresh (forget what was found before); a stopped run goes on where it stopped
package.path = "./?.lua;" .. package.path
local check = require("spec.support.check").open "cuda_mutants"

-- In random order of threads: what the usual one hides by luck this one shows.
require("spec.support.plant").run(check, {
  faults = "spec/check/cuda_mutants.csv", least = 20, arguments = "--device cuda-emu", environment = "UNIC_DEVICE=cuda-emu EMU_ORDER=random ", cuda = "EMU",
  whole = "spec/kernels spec/runtime/cuda_spec.lua",
})
check:close()
