--- Plants faults one at a time in a copy of the tree and counts those that the specs catch: what `./unic check mutants` and `cuda_mutants` share.
--   plant.run(check, { faults = "spec/check/mutants.csv", least = 40, arguments = "" })
-- faults: a CSV (spec/support/mutants.lua); least: so many must be possible to plant; arguments: of every `./unic test` (--device ...); whole: the suite that
-- a fault is tried on when its own specs miss it ("": all); environment: of the tests; cuda: UNIC_CUDA of the build (OFF).
local lfs = require "lfs"
local mutants = require "spec.support.mutants"
local support = require "spec.support.check"

local plant = {}

function plant.run(check, options)
  local arguments = options.arguments or ""
  local only
  for i, word in ipairs(arg) do
    if word == "--only" then
      only = {}
      for number in (arg[i + 1] or ""):gmatch("%d+") do only[tonumber(number)] = true end
    end
  end

  local file = assert(io.open(options.faults, "rb"))
  local rows = mutants.parse(file:read("*a"))
  file:close()

  -- A copy of the tree, so that a stopped run leaves no fault in this one. It keeps its build folder for the next time.
  local root, copy = lfs.currentdir(), lfs.currentdir() .. "/.cache/mutants"
  local log = ("%s/.cache/check/%s.log"):format(root, check.name)
  os.remove(log)

  local function must(command)
    local output, code = support.shell(command, { log = log })
    if code ~= 0 then error(("failed: %s\n%s"):format(command, output), 0) end
  end

  -- Files that stayed the same are not written again: they keep their times, and so their objects.
  must(("mkdir -p %q && git ls-files -co --exclude-standard -z >.cache/check/files"):format(copy))
  must(([[
  cd %q
  list=%q/.cache/check/files
  # What the tree no longer has must go, a planted fault of a stopped run must too.
  find . -path ./build -prune -o -type f -print | sed 's|^\./||' | while IFS= read -r path; do
    cmp -s "$path" "%s/$path" || rm -f "$path"
  done
  tr '\0' '\n' <"$list" | while IFS= read -r path; do
    [ -e "$path" ] || [ ! -e "%s/$path" ] || { mkdir -p "$(dirname "$path")" && cp -P "%s/$path" "$path"; }
  done
  # The spec that says that every fault can be planted would catch them all.
  for table in spec/check/*mutants.csv; do printf 'file,original,replacement,what,specs\n' >$table; done]]):format(copy, root, root, root, root))
  -- A fault may leave a variable unused; that is not what shall catch it.
  must(("cd %q && mkdir -p build && cmake --preset release -DUNIC_WERROR=OFF -DUNIC_CUDA=%s"):format(copy, options.cuda or "OFF"))

  local data = root .. "/../shared/data/real"
  local environment = "UNIC_APT=0 " .. (options.environment or "")
  if not os.getenv("UNIC_DATA") and lfs.attributes(data) then environment = environment .. ("UNIC_DATA=%q "):format(data) end

  local limit = 3600   -- seconds for a suite; from the clean suite's time once that is known
  local tree = {}

  function tree.build()
    local _, code = support.shell(("cd %q && UNIC_APT=0 %s ./unic -e 'print(1)'"):format(copy, options.environment or ""), { log = log })
    return code == 0
  end

  function tree.test(patterns)
    local command = ("cd %q && %s ./unic test %s %s --stop --slowest 0"):format(copy, environment, patterns == "" and options.whole or patterns, arguments)
    local output, code = support.shell(command, { log = log, timeout = limit })
    if code == 0 then return true end
    if code == 124 or code == 137 then return false, "a hang" end
    return false, output:match("\n1%) %S+ ([^\n]*)") or ("the end of the process, exit code " .. code)
  end

  -- What fails without a fault would catch all of them.
  local seconds = check:once("clean suite", function()
    if not tree.build() then error("the tree does not build; see " .. log, 0) end
    local start = os.time()
    local passed, failure = tree.test("")
    if not passed then error("the suite fails without any fault: " .. failure, 0) end
    return os.time() - start
  end)
  limit = 3 * seconds + 60

  local caught, tried, missed, invalid = 0, 0, {}, {}
  for i, row in ipairs(rows) do
    if not only or only[i] then
      -- The key names the fault, not its number: rows may be added.
      local key = table.concat({ row.file, row.original, row.replacement }, " | "):gsub("[\t\n]", " ")
      local result = check:once(key, function()
        local verdict, word = mutants.try(copy, row, tree)
        return verdict .. " " .. word
      end)
      local verdict, word = result:match("^(%l+) (.*)$")
      tried = tried + 1
      print(("%3d %-7s %s: %s [%s]"):format(i, verdict, row.file, row.what, word))
      io.stdout:flush()
      if verdict == "caught" then
        caught = caught + 1
      else
        local list = verdict == "missed" and missed or invalid
        list[#list + 1] = ("%d (%s: %s)"):format(i, row.file, row.what)
      end
    end
  end

  if #missed > 0 then print("missed: " .. table.concat(missed, ", ")) end
  if #invalid > 0 then print("invalid: " .. table.concat(invalid, ", ")) end
  if not only then check:at_least("planted", tried - #invalid, options.least) end
  -- 38 of 40; of another number in the same proportion.
  check:at_least("caught", caught, only and tried or math.ceil(0.95 * tried))
end

return plant
