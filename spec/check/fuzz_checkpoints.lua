-- Broken and hostile checkpoints: 20,000 mutants for each reader (PyTorch zip and legacy, .npy, .npz, safetensors), half of them under sanitizers
-- Cost: about 15 min, 2 of them for the build
--
-- Two passes with other seeds. asan: AddressSanitizer, LeakSanitizer and UBSan. plain: spec/support/guard.c counts every malloc of the process from
-- the opening of a mutant to its closing, and the arena its tensors: their peak above the mutant's own size is the memory it took. In both passes
-- guard.c counts programs started, libraries loaded, sockets, and files opened other than the mutant; and the file that each harmful pickle
-- would create is looked for after each mutant.
package.path = "./?.lua;" .. package.path
local support = require "spec.support.check"
local check = support.open "fuzz_checkpoints"

local MUTANTS, EXTRA_MB = 10000, 64
local root = assert(os.getenv("PWD"))
local folder = root .. "/.cache/check"
local output, code = support.shell(([[cmake --preset asan && cmake --build --preset asan && ./unic -e 'return' &&
  cc -shared -fPIC -O2 -Wall -Wextra -o %s/guard.so spec/support/guard.c -ldl &&
  cc -shared -fPIC -O2 -Wall -Wextra -DGUARD_MALLOC -o %s/guard_malloc.so spec/support/guard.c -ldl]]):format(folder, folder), { timeout = 1800 })
if not check:holds("builds", code == 0) then
  io.stderr:write(output, "\n")
  check:close()
end

local asan = support.shell("cc -print-file-name=libasan.so")
-- luajit itself is not instrumented, so the sanitizer's runtime has to be there before the module is. A mutant may ask for more memory than there
-- is: the readers answer with a sentence, so malloc has to return NULL here too.
local passes = {
  { name = "asan", seed = 1, preload = asan .. ":" .. folder .. "/guard.so", build = ".build-asan" },
  { name = "plain", seed = 2, preload = folder .. "/guard_malloc.so", build = "build" },
}
-- That the guard sees what it is there for: a program started, a file opened, memory taken.
for _, pass in ipairs(passes) do
  output = support.shell(([[LUA_CPATH="%s/%s/?.so;;" ASAN_OPTIONS="detect_leaks=0" LD_PRELOAD=%s luajit -e '
    local ffi = require "ffi"
    ffi.cdef "void guard_begin(const char *path); int guard_end(int64_t *counts); void *malloc(size_t); void free(void *); int system(const char *);"
    local counts = ffi.new "int64_t[4]"
    ffi.C.guard_begin "%s/spec/check/fuzz_checkpoints.lua"
    ffi.C.system "true"
    io.open("%s/spec/check/fuzz_checkpoints.lua"):close()
    io.open("/dev/null", "w"):close()
    ffi.C.free(ffi.C.malloc(2^23))
    ffi.C.guard_end(counts)
    print(("\nresult %%d %%d %%d %%d"):format(tonumber(counts[0]), tonumber(counts[1]), tonumber(counts[2]), tonumber(counts[3])))']])
    :format(root, pass.build, pass.preload, root, root))
  local programs, own, others, bytes = output:match "result (%d+) (%d+) (%d+) (%d+)"
  local seen = programs == "1" and own == "1" and others == "1" and (pass.name ~= "plain" or tonumber(bytes) >= 2 ^ 23)
  if not check:holds(pass.name .. "_guard_sees", seen) then io.stderr:write(output, "\n") end
end

local KEYS = { "accepted", "refused", "slowest", "programs", "elsewhere", "executed", "over", "opened" }
for _, name in ipairs { "torch_zip", "torch_legacy", "npy", "npz", "safetensors" } do
  for _, pass in ipairs(passes) do
    local line = check:once(pass.name .. " " .. name, function()
      output, code = support.shell(([[LUA_PATH="%s/lua/?.lua;%s/lua/?/init.lua;%s/?.lua;;" LUA_CPATH="%s/%s/?.so;;" \
        ASAN_OPTIONS="detect_leaks=1:halt_on_error=1:allocator_may_return_null=1" \
        LSAN_OPTIONS="suppressions=%s/spec/support/lsan.supp:print_suppressions=0" UBSAN_OPTIONS="halt_on_error=1:print_stacktrace=1" \
        LD_PRELOAD=%s luajit -e 'local r = require("spec.support.fuzz_files").run("%s", %d, %d)
        print(("\nresult %%d %%d %%.2f %%d %%d %%d %%d %%d"):format(r.accepted, r.refused, r.slowest, r.programs, r.elsewhere, r.executed, r.over, r.opened))']])
        :format(root, root, root, root, pass.build, root, pass.preload, name, MUTANTS, pass.seed), { timeout = 1800 })
      local values = output:match("\nresult ([%d. -]+)")
      if code ~= 0 or not values then io.stderr:write(output, "\n") end
      return ("%d %s"):format(code, values or "")
    end)
    local exit, rest = tostring(line):match("^(%d+) ?(.*)$")
    local result, i = {}, 0
    for word in rest:gmatch "%S+" do
      i = i + 1
      result[KEYS[i]] = tonumber(word)
    end
    local function called(what) return ("%s_%s_%s"):format(name, pass.name, what) end
    check:at_most(called "exit", tonumber(exit), 0)
    check:note(called "accepted", result.accepted or 0)
    check:at_least(called "mutants", (result.accepted or 0) + (result.refused or 0), MUTANTS)
    check:at_most(called "slowest_s", result.slowest, 2)
    check:at_most(called "programs", result.programs, 0)
    check:within(called "opened", result.opened, MUTANTS, MUTANTS)   -- each once
    check:at_most(called "other_files", result.elsewhere, 0)
    check:at_most(called "executed", result.executed, 0)
    if pass.name == "plain" then check:at_most(called "mb_above_size", (result.over or math.huge) / 2 ^ 20, EXTRA_MB) end
  end
end
check:close()
