--- Rows as text: lines for the terminal, tables for RESULTS.md.
local limit = require "spec.bench.limit"

local report = {}

local SCALE = { s = 1, ms = 1e3, us = 1e6, ns = 1e9 }
local MIB = 2 ^ 20

-- Four digits that count, no exponent.
local function digits(x)
  local size = math.abs(x)
  return (size >= 1000 and "%.0f" or size >= 100 and "%.1f" or size >= 10 and "%.2f" or "%.3f"):format(x)
end

local function seconds(x, unit) return digits(x * (SCALE[unit] or 1e3)) end
local function percent(x) return ("%.0f %%"):format(100 * x) end
local function named(row) return row.name .. (row.dtype and " " .. row.dtype or "") end
local function sides(ratio) return ("%.2fx (pairs %.2f to %.2f, minima %.2f)"):format(ratio.median, ratio.low, ratio.high, ratio.min) end

--- A row for the terminal.
-- @return lines, each with its end
function report.row(row)
  local lines = {}
  local function add(name, format, ...) lines[#lines + 1] = ("%-38s "):format(name) .. format:format(...) end
  local unit = row.unit or "ms"
  if row.seconds then
    local s = row.seconds
    add(named(row), "%s %s (min %s, max %s)%s", seconds(s.median, unit), unit, seconds(s.min, unit), seconds(s.max, unit),
      row.share and (", %s of what can be had (%s %s)"):format(percent(row.share), seconds(row.limit, unit), unit) or "")
  elseif row.value then
    add(named(row), "%s %s", digits(row.value), unit)
  end
  for _, peer in ipairs(row.peers or {}) do
    if peer.refused then
      add("  " .. peer.name, "no ratio: %s", peer.refused)
    elseif peer.seconds then
      local s = peer.seconds
      add("  " .. peer.name, "%s %s (min %s, max %s)%s", seconds(s.median, unit), unit, seconds(s.min, unit), seconds(s.max, unit),
        (peer.ratio and ": " .. sides(peer.ratio) or "") .. ((peer.disturbed or 0) > 0 and (", %d rounds taken again"):format(peer.disturbed) or ""))
    end
  end
  local m = row.memory
  if m then
    local function mib(name, bytes) if bytes then add("  memory: " .. name, "%.0f MiB", bytes / MIB) end end
    mib("ours", m.full)
    mib("ours, low", m.low)
    mib("lower bound", m.bound)
    for _, peer in ipairs(row.peers or {}) do mib(peer.name, peer.memory) end
  end
  if row.note then add("  note", "%s", row.note) end
  return table.concat(lines, "\n") .. "\n"
end

------------------------------------------------------------------------------------------------------------------------- RESULTS.md

-- Columns of words, from the left; numbers stand to the right.
local WORDS = { what = true, type = true, peer = true, who = true, bar = true, ["made of"] = true }

local function markdown(head, rows)
  if #rows == 0 then return "" end
  local rule = {}
  for i, name in ipairs(head) do rule[i] = WORDS[name] and "---" or "---:" end
  local lines = { "| " .. table.concat(head, " | ") .. " |", "|" .. table.concat(rule, "|") .. "|" }
  for _, cells in ipairs(rows) do
    for i, cell in ipairs(cells) do cells[i] = tostring(cell):gsub("|", "\\|") end
    lines[#lines + 1] = "| " .. table.concat(cells, " | ") .. " |"
  end
  return table.concat(lines, "\n") .. "\n"
end

local function ours_table(rows)
  local list = {}
  for _, row in ipairs(rows) do
    local unit = row.unit or "ms"
    if row.seconds then
      local s = row.seconds
      list[#list + 1] = { row.name, row.dtype or "", seconds(s.median, unit) .. " " .. unit, seconds(s.min, unit), seconds(s.max, unit), s.n,
        row.limit and seconds(row.limit, unit) or "", row.limit and limit.text(row.work, row.dtype, row.peaks) or "", row.share and percent(row.share) or "" }
    elseif row.value then
      list[#list + 1] = { row.name, row.dtype or "", digits(row.value) .. " " .. unit, "", "", "", "", "", "" }
    end
  end
  return markdown({ "what", "type", "median", "min", "max", "n", "limit", "made of", "share of the limit" }, list)
end

local function peers_table(rows)
  local list = {}
  for _, row in ipairs(rows) do
    local unit = row.unit or "ms"
    for _, peer in ipairs(row.peers or {}) do
      if peer.refused then
        list[#list + 1] = { row.name, row.dtype or "", peer.name, "no ratio: " .. peer.refused, "", "", "", "", "", "" }
      elseif peer.seconds then
        local s, r = peer.seconds, peer.ratio
        list[#list + 1] = { row.name, row.dtype or "", peer.name, seconds(s.median, unit) .. " " .. unit, seconds(s.min, unit), seconds(s.max, unit),
          r and ("%.2f"):format(r.median) or "", r and ("%.2f"):format(r.min) or "", r and ("%.2f to %.2f"):format(r.low, r.high) or "",
          peer.disturbed or "" }
      end
    end
  end
  return markdown({ "what", "type", "peer", "median", "min", "max", "ratio of medians", "of minima", "of pairs", "rounds again" }, list)
end

local function memory_table(rows)
  local list = {}
  local function mib(bytes) return bytes and ("%.0f"):format(bytes / MIB) or "" end
  local function add(row, who, bytes, leanest)
    if bytes then list[#list + 1] = { row.name, row.dtype or "", who, mib(bytes), leanest and ("%.2f"):format(bytes / leanest) or "" } end
  end
  for _, row in ipairs(rows) do
    local m = row.memory
    if m then
      add(row, "Unic", m.full, m.leanest)
      add(row, "Unic, low", m.low, m.leanest)
      add(row, "lower bound without making a product again", m.bound)
      for _, peer in ipairs(row.peers or {}) do add(row, peer.name, not peer.refused and peer.memory, m.leanest) end
    end
  end
  return markdown({ "what", "type", "who", "MiB", "of the leanest peer" }, list)
end

local function bars_table(rows)
  local list = {}
  for _, row in ipairs(rows) do
    for _, bar in ipairs(row.bars or {}) do
      local number = type(bar.value) == "number"
      local met = number and (bar.at_least and bar.value >= bar.at_least or bar.at_most and bar.value <= bar.at_most)
      list[#list + 1] = { bar.name, number and digits(bar.value) or "not measured", bar.at_least and "at least " .. digits(bar.at_least) or
        "at most " .. digits(bar.at_most), bar.aim and digits(bar.aim) or "", met and "met" or "**short**" }
    end
  end
  return markdown({ "bar", "value", "must", "aim", "" }, list)
end

local function notes(rows)
  local list = {}
  for _, row in ipairs(rows) do
    if row.note then list[#list + 1] = ("- %s: %s"):format(named(row), row.note) end
  end
  return #list > 0 and table.concat(list, "\n") .. "\n" or ""
end

local function span(rows)
  local first, last
  for _, row in ipairs(rows) do
    if not first or row.date < first then first = row.date end
    if not last or row.date > last then last = row.date end
  end
  return first == last and first or ("%s to %s"):format(first, last)
end

local function trees(rows)
  local seen, list = {}, {}
  for _, row in ipairs(rows) do
    local tree = row.tree:sub(1, 10)
    if not seen[tree] then
      seen[tree] = true
      list[#list + 1] = tree
    end
  end
  return table.concat(list, ", ")
end

local HEAD = [[
# Results of `./unic bench`

Made by `./unic bench --write`; do not edit. What the numbers mean, and how they are taken: [README.md](README.md).

A ratio is the peer's time over ours: above 1, Unic is faster. It is taken between medians of steps in turn; "of pairs" are the smallest and the largest ratio of
two neighbouring steps. A round in which a side took three times its median is taken again, for both, and counted. Memory is the highest resident memory of steps
3 to 10, less that after import and 4 bytes for each parameter and each element of optimiser state. The limit adds the time of the products at the best rate known
(the larger of the FMA probe and the best rate that any kernel reached in the run) to that of the bytes that all other launches must move, each argument once,
at the measured bandwidth.

]]

--- The whole of RESULTS.md.
-- @param suites list of { name =, title =, rows = }
-- @param facts of this machine: unic.info.facts(), with `kernel` and `memory` (bytes)
function report.markdown(suites, facts)
  local out = { HEAD }
  local function add(format, ...) out[#out + 1] = select("#", ...) > 0 and format:format(...) or format end
  add("- Machine: %s, %d cores, %.0f GiB of memory; %s, Linux %s\n", facts.processor, facts.cores, facts.memory / 2 ^ 30, facts.system or "unknown system", facts.kernel)
  local libraries = {}
  for name, version in pairs(facts.libraries) do libraries[#libraries + 1] = name .. " " .. version end
  table.sort(libraries)
  add("- Unic %s, kernels %s, built with %s, %s; %s\n", facts.version, facts.isa, facts.compiler, facts.luajit, table.concat(libraries, ", "))
  local peers, seen = {}, {}
  for _, suite in ipairs(suites) do
    for _, row in ipairs(suite.rows) do
      for _, peer in ipairs(row.peers or {}) do
        local text = peer.about or peer.name
        if not seen[text] then
          seen[text] = true
          peers[#peers + 1] = text
        end
      end
    end
  end
  if #peers > 0 then add("- Peers: %s\n", table.concat(peers, "; ")) end
  local met, short = 0, {}
  for _, suite in ipairs(suites) do
    for _, row in ipairs(suite.rows) do
      for _, bar in ipairs(row.bars or {}) do
        local ok = type(bar.value) == "number" and (bar.at_least and bar.value >= bar.at_least or bar.at_most and bar.value <= bar.at_most)
        if ok then met = met + 1 else short[#short + 1] = bar.name end
      end
    end
  end
  add("- Bars: %d met, %d short%s\n", met, #short, #short > 0 and ": " .. table.concat(short, ", ") or "")
  for _, suite in ipairs(suites) do
    if #suite.rows > 0 then
      add("\n## %s\n\n", suite.title)
      add("Suite `%s`, measured %s (UTC), tree %s, threads: %d.\n\n", suite.name, span(suite.rows), trees(suite.rows), suite.rows[1].threads)
      local tables = {}
      for _, make in ipairs { bars_table, ours_table, peers_table, memory_table, notes } do
        local text = make(suite.rows)
        if text ~= "" then tables[#tables + 1] = text end
      end
      add(table.concat(tables, "\n"))
    end
  end
  return table.concat(out)
end

return report
