--- A process that is driven by lines: a line of text goes in, a line of JSON comes out.
local cjson = require "cjson"
local fcntl = require "posix.fcntl"
local signal = require "posix.signal"
local stdlib = require "posix.stdlib"
local unistd = require "posix.unistd"
local wait = require "posix.sys.wait"

local process = {}

-- A line written to a process that has died is an error of `write`, not our end.
signal.signal(signal.SIGPIPE, signal.SIG_IGN)

local Process = {}
Process.__index = Process
Process.__name = "spec.bench.process"

-- A pipe whose ends a later child does not inherit: it would hold the other's standard input open.
local function pipe()
  local from, to = assert(unistd.pipe())
  for _, fd in ipairs { from, to } do assert(fcntl.fcntl(fd, fcntl.F_SETFD, fcntl.FD_CLOEXEC)) end
  return from, to
end

-- In the child: become the program. Whatever goes wrong ends the child alone.
local function become(words, env, stdin, stdout, log)
  unistd.dup2(stdin, 0)
  unistd.dup2(stdout, 1)
  local stderr = fcntl.open(log, fcntl.O_WRONLY + fcntl.O_CREAT + fcntl.O_TRUNC, 384)   -- 0600
  if stderr then unistd.dup2(stderr, 2) end
  signal.signal(signal.SIGPIPE, signal.SIG_DFL)
  for name, value in pairs(env) do stdlib.setenv(name, value or nil) end
  local arguments = { [0] = words[1] }
  for i = 2, #words do arguments[i - 1] = words[i] end
  local _, why = unistd.execp(words[1], arguments)
  io.stderr:write(tostring(why), "\n")
  unistd._exit(127)
end

--- Start a program; it says hello with a first object.
-- @param words the program and its arguments
-- @param env variables to set (a string) or to take away (false)
-- @param log a file for its standard error
-- @return a process: `hello` (its first object), `ask`, `close`
function process.start(words, env, log)
  local their_in, our_out = pipe()
  local our_in, their_out = pipe()
  io.stdout:flush()
  local pid = assert(unistd.fork())
  if pid == 0 then become(words, env or {}, their_in, their_out, log) end
  unistd.close(their_in)
  unistd.close(their_out)
  local self = setmetatable({ pid = pid, input = our_out, output = our_in, rest = "", name = table.concat(words, " "), log = log }, Process)
  self.hello = self:read()
  return self
end

local function finish(self)
  unistd.close(self.input)
  unistd.close(self.output)
  wait.wait(self.pid)
  self.pid = nil
end

-- Why it ended: the last lines that it wrote to its standard error.
local function died(self)
  finish(self)
  local lines = {}
  local file = io.open(self.log)
  if file then
    for line in file:lines() do lines[#lines + 1] = line end
    file:close()
    os.remove(self.log)
  end
  local last = table.concat(lines, "\n", math.max(1, #lines - 5))
  error(("bench: a process ended before it answered: %s%s"):format(self.name, last ~= "" and "\n" .. last or ""), 0)
end

--- The next object that it writes; an error when there is none.
function Process:read()
  while true do
    local line, rest = self.rest:match "^([^\n]*)\n(.*)$"
    if line then
      self.rest = rest
      local ok, object = pcall(cjson.decode, line)
      if ok and type(object) == "table" then return object end
      -- Libraries write remarks to standard output; an answer is an object.
    else
      local text = unistd.read(self.output, 65536)
      if not text or text == "" then died(self) end
      self.rest = self.rest .. text
    end
  end
end

--- Send a line, return the object that answers it.
function Process:ask(line)
  if not self.pid then error("bench: the process has ended: " .. self.name, 0) end
  if not unistd.write(self.input, line .. "\n") then died(self) end
  return self:read()
end

--- End it and wait until it has given its memory back.
function Process:close()
  if not self.pid then return end
  finish(self)
  os.remove(self.log)
end

return process
