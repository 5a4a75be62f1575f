--- What a training says while it goes: one line that renews itself on a terminal, a line every ten seconds elsewhere; all of it in log.txt.
-- @module unic.run.progress
local core = require "unic.core"
local plot = require "unic.plot"

local edit = core.edit
local PERIOD = 10        -- seconds between lines where there is no terminal

local Progress = {}
Progress.__index = Progress
local progress = {}

local function is_utf8()
  local words = os.getenv "LC_ALL" or ""
  if words == "" then words = os.getenv "LC_CTYPE" or "" end
  if words == "" then words = os.getenv "LANG" or "" end
  return words:lower():find "utf%-?8" ~= nil
end

--- Seconds as a person writes them: 42 s, 3:05, 2:10:00.
function progress.duration(seconds)
  if seconds ~= seconds or seconds >= 360000 then return "?" end
  seconds = math.floor(seconds + 0.5)
  if seconds < 60 then return seconds .. " s" end
  if seconds < 3600 then return ("%d:%02d"):format(math.floor(seconds / 60), seconds % 60) end
  return ("%d:%02d:%02d"):format(math.floor(seconds / 3600), math.floor(seconds / 60) % 60, seconds % 60)
end

-- A string cut to n characters; all bytes of a UTF-8 character count as one.
local function cut(text, n)
  local count = 0
  for at in text:gmatch "()[%z\1-\127\194-\244][\128-\191]*" do
    count = count + 1
    if count > n then return text:sub(1, at - 1) end
  end
  return text
end

--- Begin.
-- @param log_path log.txt, or nil for none
-- @param quiet true: nothing on stderr
function progress.new(log_path, quiet)
  local log = log_path and assert(io.open(log_path, "a"))
  return setmetatable({
    log = log, quiet = quiet, tty = not quiet and edit.isatty(2), ascii = not is_utf8(), history = plot.history(256), shown = false, at = -math.huge,
  }, Progress)
end

function Progress:write_log(text)
  if not self.log then return end
  self.log:write(os.date "%Y-%m-%d %H:%M:%S ", text, "\n")
  self.log:flush()
end

-- Take the renewing line away, so that something else can be written.
function Progress:clear()
  if self.shown then io.stderr:write "\r\27[K" end
  self.shown = false
end

--- Say something in a line of its own, on stderr and in the log.
function Progress:say(text)
  self:write_log(text)
  if self.quiet then return end
  self:clear()
  io.stdout:flush()
  io.stderr:write(text, "\n")
end

--- Show where the training is.
-- @param state `step`, `total`, `rate` (rows a second), `rows_are` ("images", "texts"), `left` (seconds), `loss`, `mean` (of the losses since the last call, for
-- the sparkline), `parts` (a list of {name, value})
function Progress:update(state)
  self.history:add(state.mean)
  local now = edit.clock()
  local last = state.step == state.total
  if not self.tty and now - self.at < PERIOD and not last then return end
  local words = { state.total and ("step %d/%d"):format(state.step, state.total) or ("step %d"):format(state.step) }
  if state.rate then words[#words + 1] = ("%.3g %s/s"):format(state.rate, state.rows_are) end
  if state.left and not last then words[#words + 1] = "left " .. progress.duration(state.left) end
  words[#words + 1] = ("loss %.4g"):format(state.loss)
  for _, part in ipairs(state.parts or {}) do words[#words + 1] = ("%s %.4g"):format(part[1], part[2]) end
  local line = table.concat(words, "  ")
  if now - self.at >= PERIOD or last then
    self:write_log(line)
    self.at = now
    if not self.tty and not self.quiet then io.stderr:write(line, "  ", plot.sparkline(self.history.values, 16, { ascii = self.ascii }), "\n") end
  end
  if self.tty then
    local width = edit.width() - 1
    local spark = plot.sparkline(self.history.values, 16, { ascii = self.ascii })
    line = cut(line, math.max(20, width - 18)) .. "  " .. spark
    io.stderr:write("\r", cut(line, width), "\27[K")
    io.stderr:flush()
    self.shown = true
  end
end

--- The renewing line stays as it is, what follows begins below it.
function Progress:done()
  if self.shown then io.stderr:write "\n" end
  self.shown = false
end

return progress
