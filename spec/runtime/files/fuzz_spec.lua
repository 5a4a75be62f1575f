-- Broken files of every kind: refused with a sentence or read, never a crash, in bounded time and memory. `./unic check fuzz_files` and
-- `./unic check fuzz_checkpoints` go on for longer and under AddressSanitizer.
local fuzz = require "spec.support.fuzz_files"

local function peak_mb()
  local file = io.open("/proc/self/status")
  local kb = file:read("*a"):match("VmHWM:%s*(%d+)")
  file:close()
  return tonumber(kb) / 1024
end

describe("mutated files", function()
  for _, name in ipairs { "png", "jpeg", "csv", "safetensors", "torch_zip", "torch_legacy", "npy", "npz" } do
    it("are refused or read: " .. name, function()
      local before = peak_mb()
      local result = fuzz.run(name, 200, 1)
      assert.equal(200, result.accepted + result.refused)
      assert.is_true(result.refused >= 20, result.refused .. " refused")
      assert.is_true(result.slowest < 2, ("slowest %.2f s"):format(result.slowest))
      assert.is_true(peak_mb() - before < 100, ("%.0f MB more"):format(peak_mb() - before))
    end)
  end
end)
