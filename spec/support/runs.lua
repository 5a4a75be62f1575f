--- Runs as programs of their own, to be killed and compared: for spec/lua/run_spec.lua and spec/check/resume.lua.
local lfs = require "lfs"
local cjson = require "cjson"
local fcntl = require "posix.fcntl"
local signal = require "posix.signal"
local stdlib = require "posix.stdlib"
local unistd = require "posix.unistd"
local wait = require "posix.sys.wait"
local nanosleep = require("posix.time").nanosleep
local unic = require "unic"

local runs = { SIGKILL = signal.SIGKILL, SIGINT = signal.SIGINT }

-- What is started here works in another folder, so paths are whole.
runs.root = stdlib.realpath(unic.root)
local MODULE = stdlib.realpath((package.searchpath("unic", package.cpath)))

local function sleep(seconds) nanosleep { tv_sec = math.floor(seconds), tv_nsec = (seconds % 1) * 1e9 } end

--- The text of a file.
function runs.read(path)
  local file = assert(io.open(path, "rb"))
  local text = file:read "*a"
  file:close()
  return text
end

--- Remove a file or a folder with all that is in it; links are removed, not followed.
function runs.remove(path)
  if lfs.symlinkattributes(path, "mode") ~= "directory" then return os.remove(path) end
  for name in lfs.dir(path) do
    if name ~= "." and name ~= ".." then runs.remove(path .. "/" .. name) end
  end
  lfs.rmdir(path)
end

--- Start `./unic SCRIPT WORDS` without its launcher.
-- @param script path from the root of the tree
-- @param words its options
-- @param options `folder` to work in, `log` a file that gets both outputs
-- @return its process number
function runs.spawn(script, words, options)
  local pid = unistd.fork()
  if pid ~= 0 then return pid end
  collectgarbage "stop"   -- a pipeline left behind would be ended here, where its threads are not
  unistd.dup2(fcntl.open("/dev/null", fcntl.O_RDONLY), 0)
  local log = fcntl.open(options.log, fcntl.O_WRONLY + fcntl.O_CREAT + fcntl.O_APPEND, 420)
  unistd.dup2(log, 1)
  unistd.dup2(log, 2)
  stdlib.setenv("LUA_PATH", runs.root .. "/lua/?.lua;" .. runs.root .. "/lua/?/init.lua;;")
  stdlib.setenv("LUA_CPATH", MODULE:gsub("[^/]*$", "") .. "?.so;;")
  stdlib.setenv("UNIC_THREADS", tostring(unic.threads()))
  unistd.chdir(options.folder)
  unistd.execp("luajit", { runs.root .. "/lua/unic/main.lua", runs.root .. "/" .. script, unpack(words) })
  unistd._exit(127)
end

--- Wait for the end of a program.
-- @return "exited" or "killed", and the exit code or the signal
function runs.finish(pid)
  local _, how, code = wait.wait(pid)
  return how, code
end

--- The last step in metrics.csv; 0 where there is none.
function runs.steps_done(dir)
  local file = io.open(dir .. "/metrics.csv")
  if not file then return 0 end
  local last
  for line in file:lines() do last = line end
  file:close()
  return tonumber(last and last:match "^(%d+),") or 0
end

--- Send a signal as soon as something is so, and wait for the end.
-- @param is_time a function; looked at a thousand times a second
-- @param limit seconds after which it is sent all the same
-- @return as `finish`, and whether the signal was sent
function runs.signal_when(pid, number, is_time, limit)
  for _ = 1, (limit or 60) * 1000 do
    if is_time() then break end
    local ended, how, code = wait.wait(pid, wait.WNOHANG)
    if ended == pid then return how, code, false end
    sleep(0.001)
  end
  signal.kill(pid, number)
  local how, code = runs.finish(pid)
  return how, code, true
end

--- Is a checkpoint being written right now?
function runs.is_writing(dir)
  local folder = dir .. "/checkpoints"
  if lfs.attributes(folder, "mode") ~= "directory" then return false end
  for name in lfs.dir(folder) do
    if name:find "%.safetensors%.tmp" and (lfs.attributes(folder .. "/" .. name, "size") or 0) > 0 and lfs.symlinkattributes(folder .. "/" .. name, "mode") == "file" then
      return true
    end
  end
  return false
end

--- All tensors of a checkpoint as bytes by name, and as `place` where in the training it stands.
function runs.contents(path)
  local file = unic.files.safetensors_open(path)
  local all = {}
  for _, name in ipairs(file:names()) do all[name] = file:info(name).dtype .. " " .. table.concat(file:info(name).shape, "x") .. " " .. file:data(name) end
  local meta = cjson.decode(file:metadata().unic)
  local schedules = {}
  for name, at in pairs(meta.schedules) do schedules[#schedules + 1] = name .. " " .. at end
  table.sort(schedules)
  all.place = ("step %d epoch %d position %d %s"):format(meta.step, meta.epoch, meta.position, table.concat(schedules, " "))
  file:close()
  return all
end

--- Rows of metrics.csv as text, without what depends on the clock or on the memory of the process.
function runs.rows(path)
  local csv = unic.files.read_csv(path)
  local rows = {}
  for i = 1, csv:rows() do
    local cells = {}
    for _, name in ipairs(csv:columns()) do
      if name ~= "seconds" and name ~= "images_per_s" and not name:find "^mem_" then cells[#cells + 1] = name .. "=" .. csv:get(i, name) end
    end
    rows[i] = table.concat(cells, " ")
  end
  csv:free()
  return rows
end

--- Do two runs stand at the same place with the same bits: weights, optimiser, averages, generator, losses of all steps?
-- @param a a run folder
-- @param b another
-- @param ignored name of a tensor that only one has
-- @return true, or false and what differs
function runs.same(a, b, ignored)
  local x, y = runs.contents(a .. "/checkpoints/last.safetensors"), runs.contents(b .. "/checkpoints/last.safetensors")
  for _, pair in ipairs { { x, y }, { y, x } } do
    for name, bytes in pairs(pair[1]) do
      if name ~= ignored and pair[2][name] ~= bytes then
        return false, name .. (pair[2][name] and " differs" .. (name == "place" and (": " .. x.place .. " and " .. y.place) or "") or " is in one only")
      end
    end
  end
  local p, q = runs.rows(a .. "/metrics.csv"), runs.rows(b .. "/metrics.csv")
  if #p ~= #q then return false, ("metrics.csv has %d and %d rows"):format(#p, #q) end
  for i = 1, #p do
    if p[i] ~= q[i] then return false, "metrics.csv differs: " .. p[i] .. " and " .. q[i] end
  end
  return true
end

return runs
