-- The specs of the ops under every instruction-set table that this processor runs
-- Cost: as many times the op specs as there are tables, about 2 min each
package.path = "./?.lua;" .. package.path
local support = require "spec.support.check"
local check = support.open "isa"

-- The library lowers a table that the processor lacks to what it has; then the name that comes back is another one.
for _, isa in ipairs { "base", "avx2", "avx512", "avx512_bf16" } do
  local used = support.shell("UNIC_ISA=" .. isa .. [[ ./unic -e 'io.write((require("unic.core").isa()))']]):match("[^\n]*$")
  if used ~= isa then
    check:skip(isa, ("this processor runs at most %s"):format(used))
  else
    local line = check:once(isa, function()
      local output = support.shell("UNIC_ISA=" .. isa .. " ./unic test spec/kernels/ --slowest 0", { timeout = 1800 })
      local passed, failed = support.counts(output)
      if failed ~= 0 then io.stderr:write(output, "\n") end
      return ("%s %s"):format(passed, failed)
    end)
    local passed, failed = line:match("^(%d+) (%d+)$")
    check:note(isa .. "_passed", tonumber(passed) or 0)
    check:at_most(isa .. "_failed", tonumber(failed), 0)
  end
end
check:close()
