--- What a run, or a finished one, writes down: evaluations, predictions, skipped rows, the result line, the report.
-- @module unic.run.outputs
local core = require "unic.core"
local files = require "unic.files"
local folder = require "unic.run.folder"
local report = require "unic.run.report"

local fail = folder.fail
local outputs = {}

local EVAL_COLUMNS = { "step", "split", "metric", "language", "finding", "value", "n" }

-- A line on stdout; a test reads it.
function outputs.print(text)
  local testing = package.loaded["unic.testing"]
  if testing and testing.print then return testing.print(text) end
  io.stdout:write(text, "\n")
  io.stdout:flush()
end

local function number_of(value) return core.tensor.is_tensor(value) and value:item() or value end

--- Add rows to eval.csv.
-- @param rows a list of {split =, metric =, language =, finding =, value =, n =}; `step` is the run's unless given
function outputs:eval(rows)
  if not self.dir then return end
  local csv = files.append_csv(self.dir .. "/eval.csv", EVAL_COLUMNS)
  for _, row in ipairs(rows[1] and rows or { rows }) do
    local cells = { step = self.step }
    for name, value in pairs(row) do cells[name] = number_of(value) end
    csv:row(cells)
  end
  csv:close()
end

--- Write predictions.csv.
-- @param rows a list of {column = value}
-- @param columns their names in order (default: those of the rows, sorted)
-- @return the path
function outputs:predictions(rows, columns)
  if not self.dir then return nil end
  if not columns then
    local seen = {}
    columns = {}
    for _, row in ipairs(rows) do
      for name in pairs(row) do
        if not seen[name] then
          seen[name] = true
          columns[#columns + 1] = name
        end
      end
    end
    table.sort(columns)
  end
  local path = self.dir .. "/predictions.csv"
  files.write_csv(path, columns, rows)
  return path
end

--- Rows of the data that were left out: listed in skipped.csv and counted in one line at the end; with --strict they stop the run.
-- @param list a list of {row =, path =, reason =}; calls add up, a row that two splits of one file both met counts once
function outputs:skipped(list)
  if #list == 0 then return end
  if self.options.strict then
    local first = list[1]
    fail("--strict: row %s%s: %s%s", tostring(first.row), first.path and " (" .. first.path .. ")" or "", first.reason,
      #list > 1 and (", and %d rows more"):format(#list - 1) or "")
  end
  self.skipped_rows, self.skipped_seen = self.skipped_rows or {}, self.skipped_seen or {}
  for _, row in ipairs(list) do
    local key = ("%s %s"):format(tostring(row.row), row.path or "")
    if not self.skipped_seen[key] then
      self.skipped_seen[key] = true
      self.skipped_rows[#self.skipped_rows + 1] = { row = row.row, path = row.path, reason = row.reason }
    end
  end
  if self.dir then files.write_csv(self.dir .. "/skipped.csv", { "row", "path", "reason" }, self.skipped_rows) end
end

-- Counts stand as whole numbers in the result line.
local function is_count(name)
  return name == "n" or name == "seed" or name == "step" or name == "steps" or name == "epochs" or name == "rows" or name:find "_steps$" or name:find "^n_"
end

local function result_text(name, value)
  value = number_of(value)
  if value == nil or value ~= value then return "nan" end
  if type(value) == "number" then return (is_count(name) and value % 1 == 0) and ("%d"):format(value) or ("%.4f"):format(value) end
  return (tostring(value):gsub("%s+", "_"))
end

-- The values of a result line as a list of {key, text}.
local function result_list(values)
  local list = {}
  if values[1] then
    for i, pair in ipairs(values) do list[i] = { pair[1], result_text(pair[1], pair[2]) } end
  else
    for name, value in pairs(values) do list[#list + 1] = { name, result_text(name, value) } end
    table.sort(list, function(a, b) return a[1] < b[1] end)
  end
  return list
end

--- The result line of a script that has no run: `result key=value ...`. A script prints it last, by outputs.print.
-- @param values as for run:result
-- @return the line
function outputs.line(values)
  local words = { "result" }
  for _, pair in ipairs(result_list(values)) do words[#words + 1] = pair[1] .. "=" .. pair[2] end
  return table.concat(words, " ")
end

--- End the run: prints `result key=value ...`, the last line of stdout, and writes it into the manifest and the report.
-- @param values a list of {key, value}, in that order (or a table key -> value, sorted); a missing value is nan
-- @return the line
function outputs:result(values)
  if self.finish then self:finish() end
  local line = outputs.line(values)
  if self.skipped_rows then
    local n = #self.skipped_rows
    self:say(("%d row%s left out, listed in %s/skipped.csv"):format(n, n == 1 and " was" or "s were", self.dir))
  end
  if self.progress then self.progress:write_log(line) end
  self.result_list = result_list(values)
  self:note_result(line)
  outputs.print(line)
  return line
end

-- Into the manifest and the report; a finished run, used again, keeps those of its training.
function outputs:note_result(line)
  if not self.manifest or self.read_only then return end
  self.manifest.result = line
  self.manifest.ended = os.date "!%Y-%m-%dT%H:%M:%SZ"
  folder.write_manifest(self.dir, self.manifest)
  self:write_report()
end

-- report.html, from what lies in the folder.
function outputs:write_report()
  local options = {}
  for name, value in pairs(self.options) do options[name] = value end
  report.write(self.dir, { name = ("%s, %s"):format(self.name, self.dir), options = options, manifest = self.manifest, result = self.result_list })
end

return outputs
