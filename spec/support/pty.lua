--- A program on a terminal of its own, for specs that type at the prompt.
--
--   local screen = pty.open("./unic", {env = {NO_COLOR = "1"}})
--   screen:expect("> ")               wait for plain text; fails with what was seen instead
--   screen:type("1 + 1\r")
--   local code = screen:close()       waits for the program's end; 128 + n for signal n
local stdlib, unistd, fcntl = require "posix.stdlib", require "posix.unistd", require "posix.fcntl"
local poll, wait, signal = require "posix.poll", require "posix.sys.wait", require "posix.signal"
local posix_time = require "posix.time"

local pty = {}

local Screen = {}
Screen.__index = Screen

local function now()
  local t = posix_time.clock_gettime(posix_time.CLOCK_MONOTONIC)
  return t.tv_sec + t.tv_nsec * 1e-9
end

--- Are there pseudo-terminals? (A chroot without /dev/pts has none.)
-- @return true or false
function pty.available()
  local master = fcntl.open("/dev/ptmx", fcntl.O_RDWR)
  if not master then return false end
  local name = stdlib.grantpt(master) and stdlib.unlockpt(master) and stdlib.ptsname(master)
  local slave = name and fcntl.open(name, fcntl.O_RDWR + (fcntl.O_NOCTTY or 0))
  if slave then unistd.close(slave) end
  unistd.close(master)
  return slave ~= nil and slave ~= false
end

--- Start a shell command on a new terminal of 80 by 40.
-- @param command for sh
-- @param options `env` (name -> value, false to unset), `timeout` (seconds that `expect` waits, 20)
-- @return a screen
function pty.open(command, options)
  options = options or {}
  local master = assert(fcntl.open("/dev/ptmx", fcntl.O_RDWR))
  assert(stdlib.grantpt(master) and stdlib.unlockpt(master))
  local name = assert(stdlib.ptsname(master))
  local child = assert(unistd.fork())
  if child == 0 then
    collectgarbage "stop"   -- a pipeline left behind would be ended here, where its threads are not
    for key, value in pairs(options.env or {}) do stdlib.setenv(key, value or nil) end
    unistd.setpid("s")
    -- The first terminal that a session leader opens becomes its own, the one that Ctrl-C comes from.
    local slave = fcntl.open(name, fcntl.O_RDWR)
    for fd = 0, 2 do unistd.dup2(slave, fd) end
    for fd = 3, 255 do unistd.close(fd) end
    unistd.execp("sh", { "-c", "stty cols 80 rows 40; exec " .. command })
    unistd._exit(127)
  end
  return setmetatable({ fd = master, child = child, seen = "", all = "", bytes = "", rest = "", timeout = options.timeout or 20 }, Screen)
end

--- Type.
-- @param text as the keyboard sends it: "\r" for Enter, "\3" for Ctrl-C, "\t" for Tab
function Screen:type(text)
  while #text > 0 do
    local written = assert(unistd.write(self.fd, text))
    text = text:sub(written + 1)
  end
end

--- Let the program run on.
-- @param seconds how long
function Screen:pause(seconds)
  local whole = math.floor(seconds)
  posix_time.nanosleep({ tv_sec = whole, tv_nsec = math.floor((seconds - whole) * 1e9) })
end

-- Wait up to `seconds` for more output; false at its end.
function Screen:more(seconds)
  local ready = poll.rpoll(self.fd, math.floor(seconds * 1000))
  if ready == 0 then return true end
  local text = unistd.read(self.fd, 65536)   -- the other side's end gives an error here
  if not text or text == "" then return false end
  self.bytes = self.bytes .. text
  -- Colours and cursor movements are not what is compared; one that is cut off waits for its rest.
  text = self.rest .. text
  self.rest = text:match("\27%[?[%d;?]*$") or ""
  text = text:sub(1, #text - #self.rest):gsub("\27%[[%d;?]*%a", ""):gsub("\27%a", ""):gsub("\r", "")
  self.seen, self.all = self.seen .. text, self.all .. text
  return true
end

--- Wait until a text appears after the last one found.
-- @param text plain
-- @return what was printed before it
function Screen:expect(text)
  local limit = now() + self.timeout
  while true do
    local first, last = self.seen:find(text, 1, true)
    if first then
      local before = self.seen:sub(1, first - 1)
      self.seen = self.seen:sub(last + 1)
      return before
    end
    local left = limit - now()
    if left <= 0 or not self:more(left) then
      error(("expected %q on the screen, got %q; everything so far: %q"):format(text, self.seen, self.all), 2)
    end
  end
end

--- Wait for the end of the program.
-- @return its exit code, 128 + n when signal n ended it
function Screen:close()
  local limit = now() + self.timeout
  while now() < limit and self:more(math.max(0, limit - now())) do end
  unistd.close(self.fd)
  while true do
    local pid, how, code = wait.wait(self.child, wait.WNOHANG)
    if pid == self.child then return how == "killed" and 128 + code or code end
    if now() > limit then signal.kill(self.child, signal.SIGKILL) end
    self:pause(0.01)
  end
end

return pty
