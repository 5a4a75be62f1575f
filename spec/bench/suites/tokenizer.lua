--- Tokeniser: radiology reports in English and Spanish to WordPiece ids, MB a second
-- Cost: about 10 s; with --vs torch (Hugging Face's tokenizers) 20 s
local bars = require "spec.bench.bars"
local check = require "spec.support.check"

return function(bench)
  if not bench:wants "reports" then return end
  require "unic"
  local phantom = require "unic.datasets.phantom"
  local text = require "unic.text"
  local clock = require("unic.core").edit.clock
  local set = phantom.open { split = "train", studies = bench.options.quick and 200 or 10000, size = 16, seed = 0 }
  local lines, bytes = {}, 0
  for i = 1, set.n do
    lines[i] = set:report(i, i % 2 == 0 and "en" or "es"):gsub("\n", " ")
    bytes = bytes + #lines[i]
  end
  local tok = text.wordpiece(phantom.vocab)
  local mask
  local function ours()
    local begin = clock()
    local _
    _, mask = tok:batch(lines, { max_length = math.huge })
    return clock() - begin
  end

  local path = bench.options.folder .. "/reports.txt"
  local file = assert(io.open(path, "wb"))
  file:write(table.concat(lines, "\n"), "\n")
  file:close()
  local row = { name = "reports", unit = "ms", peers = {} }
  local least
  for _, peer in ipairs(bench:peers { "eager" }) do
    local output, code = check.shell(("'%s' -W ignore -c 'import tokenizers; print(tokenizers.__version__)'"):format(peer.python))
    if code == 0 then
      local theirs = bench:process({ peer.python, "-W", "ignore", "spec/bench/peer_data.py", "tokenizer", phantom.vocab, path }, bench:peer_env(peer))
      local times = bench:alternate({ ours, theirs }, { warm = 2 })
      local counted = theirs:ask("tokens").tokens
      theirs:close()
      row.times = row.times or times[1]
      local entry = { name = "tokenizers " .. output:match "%S+", key = peer.key .. "-tokenizers", shipped = true, times = times[2], ours = times[1] }
      -- The same ids, or at least as many, or there is nothing to compare.
      local made = mask:to("i64"):sum():item()
      if counted ~= made then
        entry.refused = ("%d tokens, ours are %d"):format(counted, made)
      else
        local ratio = bench.statistics.ratio(times[2], times[1]).median
        least = math.min(least or ratio, ratio)
      end
      row.peers[#row.peers + 1] = entry
    end
  end
  row.times = row.times or bench:alternate({ ours }, { warm = 2 })[1]
  row.note = ("%d reports of %.2f MB: %.1f MB/s"):format(#lines, bytes / 1e6, bytes / 1e6 / bench.statistics.median(row.times))
  if least and not bench.options.quick then
    row.bars = { { name = "tokenizer.ratio", value = least, at_least = bars.tokenizer.ratio, aim = bars.tokenizer.aim } }
  end
  bench:row(row)
end
