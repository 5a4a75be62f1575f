--- busted's output for Unic: one line per spec file as it ends, then what failed, then the slowest specs, and as the very last line
-- `N passed, N failed, N skipped` (an error outside a test counts as a failure). Also usable as: busted -o spec/support/unic_output.lua
local busted = require "busted"

-- busted cuts its own calls from a trace only at their outer end; these are the inner ones.
local function is_noise(line)
  return line == "" or line:match("^stack traceback:") or line:match("/busted/") or line:match("/luassert/") or line:match("^%s*%[C%]")
end

local function text_of(message)
  if message == nil then return "error without a message" end
  if type(message) == "string" then return message end
  local mt = getmetatable(message)
  if mt and mt.__tostring then return tostring(message) end
  return require("pl.pretty").write(message)
end

return function(options)
  local handler = require "busted.outputHandlers.base"()
  local slowest = 10
  for _, option in ipairs(options.arguments or {}) do
    slowest = tonumber(option:match("^slowest=(%d+)$")) or slowest
  end

  local file         -- the spec file that runs, with its counts and the number of errors before it
  local tests = {}   -- every test with its duration

  local function line(...)
    io.stdout:write(...)
    io.stdout:write("\n")
    io.stdout:flush()
  end

  function handler.fileStart(element)
    file = { passed = 0, failed = 0, skipped = 0, errors = handler.errorsCount, name = element.name, start = busted.monotime() }
    return nil, true
  end

  function handler.fileEnd()
    -- The errors of a file are those of its tests, of its set-ups and of its loading.
    local failed = file.failed + handler.errorsCount - file.errors
    if file.passed + failed + file.skipped == 0 then return nil, true end   -- a name filter left nothing of it
    local skipped = file.skipped > 0 and (", %d skipped"):format(file.skipped) or ""
    line(("%s %4d passed%s%s  %6.2f s  %s"):format(failed > 0 and "FAIL" or "ok  ", file.passed,
      failed > 0 and (", %d failed"):format(failed) or "", skipped, busted.monotime() - file.start, file.name))
    file = nil
    return nil, true
  end

  function handler.testEnd(element, _, status)
    tests[#tests + 1] = { name = handler.getFullName(element), seconds = element.duration or 0, trace = element.trace, file = file and file.name }
    if file then
      if status == "success" then
        file.passed = file.passed + 1
      elseif status == "pending" then
        file.skipped = file.skipped + 1
      elseif status == "failure" then
        file.failed = file.failed + 1
      end
    end
    return nil, true
  end

  local function place(trace)
    return trace and trace.short_src and ("%s:%d"):format(trace.short_src, trace.currentline) or "?"
  end

  -- One broken function can fail hundreds of specs with one sentence: the first three are shown whole, the others by name.
  local shown = {}

  local function show_failure(number, failure, kind)
    local message = text_of(failure.message)
    shown[message] = (shown[message] or 0) + 1
    if shown[message] <= 4 then line("") end
    line(("%d) %s %s: %s"):format(number, kind, place(failure.element.trace), failure.name or ""))
    if shown[message] > 3 then return end
    if failure.randomseed then line("  random seed ", tostring(failure.randomseed)) end
    for text in (message .. "\n"):gmatch("(.-)\n") do line("  ", text) end
    local trace = failure.trace and failure.trace.traceback or ""
    for text in (trace .. "\n"):gmatch("(.-)\n") do
      if not is_noise(text) then line("    ", (text:gsub("^%s+", ""))) end
    end
  end

  local function show_skipped()
    -- Skipped tests of one reason are one line: a missing device can skip hundreds.
    local order, count = {}, {}
    for _, pending in ipairs(handler.pendings) do
      local reason = pending.message and text_of(pending.message):gsub("^[^\n:]+:%d+: ", "") or pending.name
      if not count[reason] then order[#order + 1] = reason end
      count[reason] = (count[reason] or 0) + 1
    end
    if #order > 0 then line("") end
    for _, reason in ipairs(order) do line(("skipped %d: %s"):format(count[reason], reason)) end
  end

  local function show_slowest()
    table.sort(tests, function(a, b) return a.seconds > b.seconds end)
    if slowest == 0 or #tests == 0 then return end
    line("")
    line("slowest:")
    for i = 1, math.min(slowest, #tests) do
      -- Specs that a shared maker wrote have its place; then the file says more.
      local at = place(tests[i].trace)
      if tests[i].file and at:sub(1, #tests[i].file) ~= tests[i].file then at = tests[i].file end
      line(("  %6.2f s  %s  %s"):format(tests[i].seconds, at, tests[i].name))
    end
  end

  function handler.suiteReset()
    tests = {}
    return nil, true
  end

  function handler.suiteEnd()
    if handler.successesCount + handler.failuresCount + handler.errorsCount == 0 then
      -- An empty run must not look like a green one: busted exits with 1 after this event.
      busted.publish({ "error", "suite" }, { descriptor = "suite", name = "suite" }, nil,
        handler.pendingsCount > 0 and "every test was skipped" or "no test ran: nothing matches", nil)
    end
    show_skipped()
    local number = 0
    for _, failure in ipairs(handler.failures) do
      number = number + 1
      show_failure(number, failure, "failed")
    end
    for _, failure in ipairs(handler.errors) do
      number = number + 1
      show_failure(number, failure, "error")
    end
    show_slowest()
    line("")
    line(("took %.1f s"):format(handler.getDuration()))
    line(("%d passed, %d failed, %d skipped"):format(handler.successesCount, handler.failuresCount + handler.errorsCount,
      handler.pendingsCount))
    return nil, true
  end

  busted.subscribe({ "suite", "reset" }, handler.suiteReset)
  busted.subscribe({ "file", "start" }, handler.fileStart)
  busted.subscribe({ "file", "end" }, handler.fileEnd)
  busted.subscribe({ "test", "end" }, handler.testEnd, { predicate = handler.cancelOnPending })
  busted.subscribe({ "suite", "end" }, handler.suiteEnd)
  return handler
end
