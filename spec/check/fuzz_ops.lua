-- 100,000 random calls of the ops through the door, under AddressSanitizer, LeakSanitizer and UBSan, with their backward and the f64 form beside them
-- Cost: about 10 min, 2 of them for the build
package.path = "./?.lua;" .. package.path
local support = require "spec.support.check"
local check = support.open "fuzz_ops"

local CALLS = 100000
local root = assert(os.getenv "PWD")
local output, code = support.shell("cmake --preset asan && cmake --build --preset asan", { timeout = 1800 })
if not check:holds("builds", code == 0) then
  io.stderr:write(output, "\n")
  check:close()
end
local asan = support.shell "cc -print-file-name=libasan.so"

-- One process: after the last op nothing may be left but what was there before the first. A call may ask for more memory than there is, so malloc has
-- to return NULL here too.
local SCRIPT = [[
  local unic, fuzz = require "unic", require "spec.support.fuzz_ops"
  unic.threads(2)
  local names = fuzz.names()
  -- A few calls never leave the generator (the arguments drawn contradict each other) and are not counted.
  local each = math.ceil(1.05 * %d / #names)
  collectgarbage() collectgarbage()
  local before = unic.memory().blocks
  for _, name in ipairs(names) do
    local calls, valid, compared, reports, seed = 0, 0, 0, {}, 1
    -- an op whose sensible calls are refused more often than not gets more of them: the bar is 300 that work
    repeat
      local f = fuzz.op(name, each, seed)
      calls, valid, compared, seed = calls + f.calls, valid + f.valid, compared + f.compared, seed + 1
      for _, why in ipairs(f.wrong) do reports[#reports + 1] = why end
    until valid >= 300 or seed > 4
    print(("op %%s %%d %%d %%d %%d"):format(name, calls, valid, compared, #reports))
    for i = 1, math.min(5, #reports) do print("report " .. reports[i]) end
  end
  collectgarbage() collectgarbage()
  print(("left %%d"):format(unic.memory().blocks - before))
]]

-- [op] = "calls valid compared reports", and left = blocks
local found = {}
local lines = check:once("calls", function()
  local file = os.tmpname()
  local f = assert(io.open(file, "w"))
  f:write((SCRIPT):format(CALLS))
  f:close()
  output, code = support.shell(([[LUA_PATH="%s/lua/?.lua;%s/lua/?/init.lua;%s/?.lua;;" LUA_CPATH="%s/.build-asan/?.so;;" \
    ASAN_OPTIONS="detect_leaks=1:halt_on_error=1:allocator_may_return_null=1" \
    LSAN_OPTIONS="suppressions=%s/spec/support/lsan.supp:print_suppressions=0" UBSAN_OPTIONS="halt_on_error=1:print_stacktrace=1" \
    LD_PRELOAD=%s luajit %s]]):format(root, root, root, root, root, asan, file), { timeout = 7200 })
  os.remove(file)
  if code ~= 0 then io.stderr:write(output:sub(-6000), "\n") end
  local kept = { "exit " .. code }
  for line in output:gmatch "[^\n]+" do
    if line:find "^op " or line:find "^left " or line:find "^report " then kept[#kept + 1] = line end
  end
  return table.concat(kept, "\r")   -- a cached value is one line without tabs
end)

local exit, left = 999, 999
local total, valid_total, compared_total, wrong, ops, least_valid, least_name = 0, 0, 0, 0, 0, math.huge, "none"
for line in lines:gmatch "[^\r]+" do
  local name, calls, valid, compared, reports = line:match "^op (%S+) (%d+) (%d+) (%d+) (%d+)$"
  if name then
    calls, valid = tonumber(calls), tonumber(valid)
    ops, total, valid_total, compared_total, wrong = ops + 1, total + calls, valid_total + valid, compared_total + tonumber(compared), wrong + tonumber(reports)
    if valid < least_valid then least_valid, least_name = valid, name end
    found[#found + 1] = ("%-20s %6d calls %5.1f %% accepted %6d valid %6d compared"):format(name, calls, 100 * valid / math.max(calls, 1), valid, tonumber(compared))
  elseif line:find "^report " then found[#found + 1] = line
  else
    exit = tonumber(line:match "^exit (%d+)$") or exit
    left = tonumber(line:match "^left (%-?%d+)$") or left
  end
end
print(table.concat(found, "\n"))
check:note("ops", ops)
check:at_least("calls", total, CALLS)
check:at_least("valid_share", valid_total / math.max(total, 1), .4)
check:at_least("valid_of_" .. least_name, least_valid, 300)
check:note("compared", compared_total)
check:at_most("reports", wrong, 0)
check:at_most("blocks_left", left, 0)
check:at_most("exit", exit, 0)
check:close()
