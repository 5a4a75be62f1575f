-- Broken files: 10,000 mutants for each reader (PNG, JPEG, CSV, safetensors), under AddressSanitizer, LeakSanitizer and UBSan
-- Cost: about 3 min, 2 of them for the build
package.path = "./?.lua;" .. package.path
local support = require "spec.support.check"
local check = support.open "fuzz_files"

local root = assert(os.getenv("PWD"))
local output, code = support.shell("cmake --preset asan && cmake --build --preset asan", { timeout = 1800 })
if not check:holds("builds", code == 0) then
  io.stderr:write(output, "\n")
  check:close()
end

local asan = support.shell("cc -print-file-name=libasan.so")
for _, name in ipairs { "png", "jpeg", "csv", "safetensors" } do
  local line = check:once(name, function()
    -- luajit itself is not instrumented, so the sanitizer's runtime has to be there before the module is. A mutant may ask for more memory
    -- than there is: the readers answer with a sentence, so malloc has to return NULL here too.
    output, code = support.shell(([[LUA_PATH="%s/lua/?.lua;%s/lua/?/init.lua;%s/?.lua;;" LUA_CPATH="%s/.build-asan/?.so;;" \
      ASAN_OPTIONS="detect_leaks=1:halt_on_error=1:allocator_may_return_null=1" \
      LSAN_OPTIONS="suppressions=%s/spec/support/lsan.supp:print_suppressions=0" UBSAN_OPTIONS="halt_on_error=1:print_stacktrace=1" \
      LD_PRELOAD=%s luajit -e 'local r = require("spec.support.fuzz_files").run("%s", 10000, 1)
      print(("\nresult %%d %%d %%.2f"):format(r.accepted, r.refused, r.slowest))']]):format(root, root, root, root, root, asan, name),
      { timeout = 1200 })
    local accepted, refused, slowest = output:match("\nresult (%d+) (%d+) ([%d.]+)")
    if code ~= 0 or not accepted then io.stderr:write(output, "\n") end
    return ("%s %s %s %d"):format(accepted or 0, refused or 0, slowest or 999, code)
  end)
  local accepted, refused, slowest, exit = line:match("^(%S+) (%S+) (%S+) (%S+)$")
  check:note(name .. "_accepted", tonumber(accepted))
  check:at_least(name .. "_mutants", tonumber(accepted) + tonumber(refused), 10000)
  check:at_most(name .. "_slowest_s", tonumber(slowest), 2)
  check:at_most(name .. "_exit", tonumber(exit), 0)
end
check:close()
