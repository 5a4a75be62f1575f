--- The history file: one line per entry, appended to as lines are typed, so that nothing is lost when the process dies.
-- @module unic.repl.history
local history = {}

local LIMIT = 2000   -- lines kept

--- Where the history is: `$XDG_STATE_HOME/unic/history`, else `~/.local/state/unic/history`.
-- @return a path, or nil when there is no home
function history.path()
  local state, home = os.getenv("XDG_STATE_HOME"), os.getenv("HOME")
  if state and state:sub(1, 1) == "/" then return state .. "/unic/history" end
  if home and home ~= "" then return home .. "/.local/state/unic/history" end
  return nil
end

local function make_folders(path)
  local ok, lfs = pcall(require, "lfs")
  if not ok then return end
  for at in path:gmatch("()/") do
    if at > 1 then lfs.mkdir(path:sub(1, at - 1)) end
  end
end

--- The lines of the file, oldest first; a file that has grown to twice the limit is shortened.
-- @param path the file, or nil
-- @return list of strings
function history.load(path)
  local file = path and io.open(path, "r")
  if not file then return {} end
  local lines = {}
  for line in file:lines() do
    if line ~= "" then lines[#lines + 1] = line end
  end
  file:close()
  if #lines <= LIMIT then return lines end
  local kept = {}
  for i = #lines - LIMIT + 1, #lines do kept[#kept + 1] = lines[i] end
  if #lines >= 2 * LIMIT then
    local temporary = path .. ".new"
    local out = io.open(temporary, "w")
    if out then
      local written = out:write(table.concat(kept, "\n"), "\n")
      out:close()
      if written then os.rename(temporary, path) else os.remove(temporary) end
    end
  end
  return kept
end

--- Append a line. Nothing is said when that is not possible (no home, a read-only disk): a session must not fail over its history.
-- @param path the file, or nil
-- @param line the text
function history.append(path, line)
  if not path or line:find("[\n\r]") then return end
  local file = io.open(path, "a")
  if not file then
    make_folders(path)
    file = io.open(path, "a")
  end
  if not file then return end
  file:write(line, "\n")
  file:close()
end

return history
