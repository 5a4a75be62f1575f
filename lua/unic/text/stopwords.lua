--- Stop words: the words that hold the sentences of a language together and say little about what a report is about.
-- The lists are full forms in lower case with their accents, data/stopwords/LANGUAGE.txt; negations are not in them.
-- @module unic.text.stopwords
local arguments = require "unic.arguments"
local core = require "unic.core"
local lfs = require "lfs"

local stopwords = {}

-- In the tree they lie in data/, in an installed copy in unic/datasets/.
local function folder()
  local root = require("unic").root
  local tree = root .. "data/stopwords"
  return lfs.attributes(tree, "mode") and tree or root .. "datasets/stopwords"
end

--- The languages there is a list for.
-- @return a sorted list of two-letter codes
function stopwords.languages()
  local list = {}
  for name in lfs.dir(folder()) do
    local code = name:match "^(%a+)%.txt$"
    if code then list[#list + 1] = code end
  end
  table.sort(list)
  return list
end

--- Read a list.
-- @param which a language's two-letter code, or the path of a file of one's own: words parted by white space, lines that begin with # are remarks
-- @return {word = true}
-- @return how many there are
function stopwords.read(which)
  arguments.check("stopwords", "which", which, "string")
  local path = which
  if which:find "^%a%a%a?$" then
    path = ("%s/%s.txt"):format(folder(), which)
    if not lfs.attributes(path, "mode") then
      local languages = stopwords.languages()
      local near = core.nearest(which, languages)
      arguments.fail("stopwords", "there is no list for the language '%s'%s; there are: %s; a file of one's own is given by its path", which,
        near and (", did you mean '%s'?"):format(near) or "", table.concat(languages, ", "))
    end
  end
  local file, why = io.open(path, "r")
  if not file then arguments.fail("stopwords", "cannot open %s, expected a text file of stop words", why) end
  local bytes, unread = file:read "*a"
  file:close()
  if not bytes then arguments.fail("stopwords", "cannot read %s: %s, expected a text file of stop words", path, tostring(unread)) end
  local words, count = {}, 0
  for line in bytes:gmatch "[^\r\n]+" do
    if not line:find "^%s*#" then
      for word in line:gmatch "%S+" do
        if not words[word] then count = count + 1 end
        words[word] = true
      end
    end
  end
  if count == 0 then arguments.fail("stopwords", "%s holds no word, expected words parted by white space", path) end
  return words, count
end

return stopwords
