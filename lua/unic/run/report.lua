--- report.html: what a run was and how it went, in one file without links to others.
-- @module unic.run.report
local lfs = require "lfs"
local files = require "unic.files"
local plot = require "unic.plot"

local report = {}
local escape = plot.escape

-- Columns of a CSV of numbers as lists; empty lists for what is not there.
local function columns(path)
  local data = { names = {} }
  if not lfs.attributes(path, "mode") then return data, 0 end
  local csv = files.read_csv(path)
  data.names = csv:columns()
  local rows = csv:rows()
  for _, name in ipairs(data.names) do
    local list = {}
    for row = 1, rows do list[row] = csv:get(row, name) end
    data[name] = list
  end
  csv:free()
  return data, rows
end

-- x and y of a series, without the rows that are empty.
local function series(name, data)
  local x, y = {}, {}
  for i, text in ipairs(data[name] or {}) do
    local value = text ~= "" and (text == "nan" and 0 / 0 or tonumber(text))
    if value then x[#x + 1], y[#y + 1] = tonumber(data.step[i]), value end
  end
  return #x > 0 and { name = name, x = x, y = y } or nil
end

-- A table with a header; cells are text already. Columns of numbers stand to the right.
local function html_table(header, rows)
  local out = { "<table>" }
  if header then
    local cells = {}
    for i, name in ipairs(header) do cells[i] = "<th>" .. escape(name) .. "</th>" end
    out[#out + 1] = "<tr>" .. table.concat(cells) .. "</tr>"
  end
  for _, row in ipairs(rows) do
    local cells = {}
    for i, cell in ipairs(row) do cells[i] = (tonumber(cell) and '<td class="n">' or "<td>") .. escape(cell) .. "</td>" end
    out[#out + 1] = "<tr>" .. table.concat(cells) .. "</tr>"
  end
  out[#out + 1] = "</table>"
  return table.concat(out, "\n")
end

local function text_of(value)
  if type(value) == "table" then
    local words = {}
    if #value > 0 then
      for i, member in ipairs(value) do words[i] = text_of(member) end
    else
      for key, member in pairs(value) do words[#words + 1] = tostring(key) .. " " .. text_of(member) end
      table.sort(words)
    end
    return table.concat(words, ", ")
  end
  if type(value) == "number" then return ("%.10g"):format(value) end
  return tostring(value)
end

local function sorted_rows(map)
  local keys, rows = {}, {}
  for key in pairs(map) do keys[#keys + 1] = key end
  table.sort(keys)
  for i, key in ipairs(keys) do rows[i] = { key, text_of(map[key]) } end
  return rows
end

local STYLE = [[
body { font: 15px/1.5 sans-serif; color: #222; background: #fafafa; max-width: 1000px; margin: 2em auto; padding: 0 1em; }
h1 { font-size: 1.5em; margin-bottom: 0; } h2 { font-size: 1.1em; margin: 1.6em 0 .4em; } p.sub { color: #666; margin-top: .2em; }
table { border-collapse: collapse; background: #fff; font-size: 13px; } td, th { border: 1px solid #ddd; padding: 2px 9px; text-align: left; }
th { background: #f0f0f0; } td.n { text-align: right; font-variant-numeric: tabular-nums; }
.charts { display: flex; flex-wrap: wrap; gap: 10px; } .charts svg { border: 1px solid #ddd; max-width: 100%; height: auto; }
details { margin-top: 1.2em; } summary { cursor: pointer; font-weight: bold; }]]

-- Columns of metrics.csv that are no losses.
local NO_LOSS = { step = true, epoch = true, seconds = true, images_per_s = true, lr = true, loss = true, grad_norm = true, loss_scale = true,
  mem_active_mb = true, mem_peak_mb = true }

local EVAL_ROWS = 400   -- a page with more is no longer read; eval.csv has them all

--- Write report.html into a run folder, from the files in it.
-- @param path the folder
-- @param facts `name`, `options`, `manifest`, `result` (a list of {key, text} or nil)
function report.write(path, facts)
  local data, rows = columns(path .. "/metrics.csv")
  local out = {}
  local function put(text) out[#out + 1] = text end
  local function h2(text) put("<h2>" .. escape(text) .. "</h2>") end
  put('<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>' .. escape(facts.name) .. "</title><style>" .. STYLE .. "</style></head><body>")
  put("<h1>" .. escape(facts.name) .. "</h1>")
  local last = rows > 0 and ("%s steps in %.0f s, last loss %.4g"):format(data.step[rows], tonumber(data.seconds[rows]) or 0, tonumber(data.loss[rows]) or 0 / 0)
  put('<p class="sub">' .. escape(("%s%s"):format(facts.manifest.started or "", last and "; " .. last or "")) .. "</p>")
  if facts.result then
    h2 "Result"
    put(html_table(nil, facts.result))
  end
  if rows > 0 then
    h2 "Training"
    put '<div class="charts">'
    local terms = {}
    for _, name in ipairs(data.names) do
      local one = not NO_LOSS[name] and series(name, data)
      if one then terms[#terms + 1] = one end
    end
    local function chart(title, list)
      if #list > 0 then put(plot.lines(list, { title = #list == 1 and title or nil, x = "step", width = 480, height = 250 })) end
    end
    chart("loss", { series("loss", data) })
    if #terms > 0 then chart(terms[1].name, terms) end
    for _, name in ipairs { "lr", "grad_norm", "images_per_s", "mem_active_mb" } do chart(name, { series(name, data) }) end
    put "</div>"
  end
  local eval, eval_rows = columns(path .. "/eval.csv")
  if eval_rows > 0 then
    h2 "Evaluation"
    local list = {}
    for i = math.max(1, eval_rows - EVAL_ROWS + 1), eval_rows do
      local row = {}
      for c, name in ipairs(eval.names) do
        local cell = eval[name][i]
        row[c] = name == "value" and tonumber(cell) and ("%.4f"):format(tonumber(cell)) or cell
      end
      list[#list + 1] = row
    end
    put(html_table(eval.names, list))
  end
  put "<details open><summary>Options</summary>"
  put(html_table(nil, sorted_rows(facts.options)))
  put "</details><details><summary>Where and with what</summary>"
  local manifest = {}
  for key, value in pairs(facts.manifest) do
    if key ~= "result" then manifest[key] = value end
  end
  put(html_table(nil, sorted_rows(manifest)))
  put "</details></body></html>\n"
  files.write_file(path .. "/report.html", table.concat(out, "\n"))
end

return report
