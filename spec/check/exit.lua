-- Leaving: 200 plain luajit processes that load the library, and 50 that have computed, all end with exit code 0
-- Cost: half a minute
package.path = "./?.lua;" .. package.path
local support = require "spec.support.check"
local check = support.open "exit"

-- Before unic.so was linked with -z nodelete, a plain luajit with an OpenMP module inside crashed at its end in most runs.
local function failures(times, code)
  local loop = [[n=0; i=0; while [ $i -lt %d ]; do luajit -e '%s' >/dev/null || n=$((n + 1)); i=$((i + 1)); done; echo $n]]
  local output = support.shell(loop:format(times, code), { timeout = 600 })
  return tonumber(output:match "(%d+)$")
end
check:at_most("loaded_failed", failures(200, [[require "unic"]]), 0)
check:at_most("computed_failed", failures(50, [[local unic = require "unic"
  local layer = unic.nn.Linear(64, 64)
  layer(unic.randn(512, 64)):sum():backward()
  kept = layer.weight.grad]]), 0)
check:close()
