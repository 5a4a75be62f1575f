--- Known names and misspelt ones, without the C runtime (worker threads load the phantom alone).
-- @module unic.datasets.phantom.names

local min = math.min

local names = {}

-- Edits that turn a into b.
local function distance(a, b)
  local row = {}
  for j = 0, #b do row[j] = j end
  for i = 1, #a do
    local diagonal
    diagonal, row[0] = row[0], i
    for j = 1, #b do
      local cost = a:byte(i) == b:byte(j) and 0 or 1
      diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, diagonal + cost)
    end
  end
  return row[#b]
end

--- What a misspelt name was perhaps meant to be, as the end of a sentence.
-- @param name what was given
-- @param known a table whose keys are the names there are
-- @param[opt] before text in front of each name
-- @return ", did you mean '...'?", or "" when none is near
function names.hint(name, known, before)
  local best, far = nil, 4
  for word in pairs(known) do
    local d = distance(tostring(name), word)
    if d < far or (d == far and best and word < best) then best, far = word, d end
  end
  return best and (", did you mean '%s%s'?"):format(before or "", best) or ""
end

return names
