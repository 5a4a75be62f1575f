--- Rows that were measured, kept in .cache/bench/SUITE.json until they are measured again.
local cjson = require "cjson"
local files = require "unic.files"

local store = {}

--- What makes a row the same row.
function store.key(row) return row.name .. "\t" .. (row.dtype or "") end

local function path_of(folder, suite) return ("%s/%s.json"):format(folder, suite) end

--- What is there of a suite.
-- @return { rows = list, in the order in which they were first measured }
function store.read(folder, suite)
  local file = io.open(path_of(folder, suite))
  if not file then return { rows = {} } end
  local text = file:read "*a"
  file:close()
  return cjson.decode(text)
end

--- Keep a row, in the place of an older one.
function store.keep(folder, suite, row)
  local all = store.read(folder, suite)
  local place = #all.rows + 1
  for i, old in ipairs(all.rows) do
    if store.key(old) == store.key(row) then place = i end
  end
  all.rows[place] = row
  -- Under another name and renamed: a run that is cut off leaves the old file.
  local output = files.output(path_of(folder, suite))
  output:write(cjson.encode(all))
  output:commit()
end

return store
