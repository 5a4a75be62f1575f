--- The options of a recipe: one list that is the command line, the help text and the defaults.
--
--   local opt = unic.options {
--     usage = "Train encoders on pairs of X-rays and reports.",
--     presets = { small = { batch = 64 }, paper = { vision = "resnet50", batch = 192 } },
--     { "vision", "resnet_small", "vision encoder: resnet_small, resnet50" },
--     { "tau", 0.07, "temperature of the contrastive loss" },
--     { "shuffle", true, "draw the rows in a new order each epoch" },     -- also gives --no-shuffle
--   }
--   print(opt.tau, opt:given "tau")
--
-- The type of an option is that of its default; a list is written with commas. Every recipe also has the common options (`--help` shows them);
-- an entry of the same name gives its default and its words. A value comes from the command line, else from the preset, else from the default.
-- @module unic.options
local argparse = require "argparse"
local arguments = require "unic.arguments"
local core = require "unic.core"

local options = {}

-- What all recipes share: name, default, words, kind (where the default does not tell), least value.
local COMMON = {
  { "data", nil, "data set: a CSV file, a folder with data.csv, or a name the recipe knows", kind = "string" },
  { "vocab", nil, "vocabulary file, one token a line", kind = "string" },
  { "init", nil, "start from the weights of this file", kind = "string" },
  { "freeze", nil, "leave parameters as they are whose name matches this Lua pattern", kind = "string" },
  { "steps", 0, "optimiser steps; 0 = by --epochs", kind = "integer", least = 0 },
  { "epochs", 0, "times through the data, when --steps is 0", kind = "integer", least = 0 },
  { "batch", 32, "rows in a batch", kind = "integer", least = 1 },
  { "accumulate", 1, "batches whose gradients make one step", kind = "integer", least = 1 },
  { "lr", 1e-3, "learning rate", kind = "number", least = 0 },
  { "seed", 1, "of all random numbers", kind = "integer", least = 0 },
  { "device", nil, "cpu, cuda, cuda:1, ... (default: UNIC_DEVICE, else cpu)", kind = "string" },
  { "dtype", "f32", "type of matrix products and convolutions", choices = { "f32", "bf16", "f16" } },
  { "memory", "full", "what is kept for the backward: what is not cheap to make again (full), or little, in more time (low)", choices = { "full", "low" } },
  { "threads", 0, "threads that compute; 0 = UNIC_THREADS, else all cores", kind = "integer", least = 0 },
  { "workers", nil, "threads that read the data (default: the data set's choice)", kind = "integer", least = 0 },
  { "anomaly", false, "stop at the first NaN or infinity and name the op, the module and the line (slow)" },
  { "strict", false, "stop at the first bad row instead of leaving it out" },
  { "eval_every", 0, "steps between evaluations; 0 = only at the end", kind = "integer", least = 0 },
  { "save_every", 0, "steps between checkpoints; 0 = only at the end and at Ctrl-C", kind = "integer", least = 0 },
  { "log_every", 10, "steps between looks at the losses", kind = "integer", least = 1 },
  { "run", nil, "run folder (default: runs/RECIPE/NUMBER)", kind = "string", shown = "DIR" },
  { "resume", nil, "continue a run: the given folder, else --run, else the recipe's last", kind = "optional", shown = "DIR" },
  { "preset", nil, "a named set of values, see below", kind = "string", shown = "NAME" },
  { "dry", false, "say how large the model is and stop before training" },
}

local KINDS = { string = "string", number = "number", boolean = "boolean", list = "list", integer = "integer", optional = "optional" }
local ENTRY_FIELDS = { kind = "string", least = "number", most = "number", choices = "table", shown = "string" }

local function fail(sentence, ...) core.fail(("[options] " .. sentence):format(...)) end

local function dashed(name) return (name:gsub("_", "-")) end

local function kind_of(entry)
  if entry.kind then return entry.kind end
  local kind = type(entry[2])
  if kind == "table" then return "list" end
  if kind == "nil" then return "string" end
  return kind
end

-- The entries in order, the recipe's first, each {name =, default =, help =, kind =, ...}; and by name. A recipe's entry takes what it leaves
-- open (kind, least value, choices, words) from the common one.
local function read_entries(list)
  local entries, by_name, common = {}, {}, {}
  for _, entry in ipairs(COMMON) do common[entry[1]] = entry end
  local function add(entry, group)
    if type(entry) ~= "table" then fail("entry %d: %s, expected {name, default, words}", #entries + 1, arguments.describe(entry)) end
    local name = entry[1]
    if type(name) ~= "string" or not name:find "^%a[%w_]*$" then
      fail("entry %d: its name is %s, expected a word of letters, digits and underscores", #entries + 1, tostring(name))
    end
    if by_name[name] then fail("'%s' is listed twice", name) end
    if name == "given" or name == "adopt" or name == "help" then fail("'%s': the name is taken", name) end
    local base = common[name] or {}
    local default = entry[2]
    local read = { name = name, default = default, help = entry[3] or base[3] or "", group = group, shown = entry.shown or base.shown,
      least = entry.least or base.least, most = entry.most or base.most, choices = entry.choices or base.choices }
    for field in pairs(entry) do
      if type(field) == "string" and not ENTRY_FIELDS[field] then fail("'%s': there is no field '%s'", name, field) end
    end
    for field, kind in pairs(ENTRY_FIELDS) do
      if entry[field] ~= nil and type(entry[field]) ~= kind then
        fail("'%s': its field '%s' is %s, expected a %s", name, field, arguments.describe(entry[field]), kind)
      end
    end
    if type(read.help) ~= "string" then fail("'%s': its words are %s, expected a string", name, arguments.describe(read.help)) end
    read.kind = entry.kind or (base[1] and kind_of(base)) or kind_of(entry)
    if not KINDS[read.kind] then fail("'%s': a default of type %s was given, expected a string, number, boolean or list", name, read.kind) end
    local given = kind_of(entry)
    if default ~= nil and (read.kind == "number" or read.kind == "integer") ~= (given == "number" or given == "integer") then
      fail("'%s': a default of type %s was given, expected %s", name, type(default), read.kind)
    end
    entries[#entries + 1] = read
    by_name[name] = read
  end
  for _, entry in ipairs(list) do add(entry, "recipe") end
  for _, entry in ipairs(COMMON) do
    if not by_name[entry[1]] then add(entry, "common") end
  end
  return entries, by_name
end

-- ---------------------------------------------------------------- values

local function describe_number(entry)
  local words = entry.kind == "integer" and "a whole number" or "a number"
  if entry.least and entry.most then return ("%s from %g to %g"):format(words, entry.least, entry.most) end
  if entry.least then return ("%s of at least %g"):format(words, entry.least) end
  if entry.most then return ("%s of at most %g"):format(words, entry.most) end
  return words
end

-- The value of a word for an entry; nil and what was expected when it does not fit.
local function read_value(entry, word)
  local kind = entry.kind
  if kind == "number" or kind == "integer" then
    local value = tonumber(word)
    if not value or value ~= value or (kind == "integer" and value % 1 ~= 0) or (entry.least and value < entry.least)
      or (entry.most and value > entry.most) then
      return nil, describe_number(entry)
    end
    return value
  elseif kind == "list" then
    local numbers = type((entry.default or {})[1]) == "number"
    local value = {}
    for item in (word .. ","):gmatch "%s*([^,]-)%s*," do
      if item ~= "" then
        local member = numbers and tonumber(item) or item
        if numbers and type(member) ~= "number" then return nil, "numbers with commas between them" end
        value[#value + 1] = member
      end
    end
    return value
  end
  if entry.choices then
    for _, choice in ipairs(entry.choices) do
      if choice == word then return word end
    end
    local near = core.nearest(word, entry.choices)
    return nil, "one of " .. table.concat(entry.choices, ", ") .. (near and (" (did you mean '%s'?)"):format(near) or "")
  end
  return word
end

local function show_value(value)
  if value == nil then return nil end
  if type(value) == "table" then
    local words = {}
    for i, member in ipairs(value) do words[i] = show_value(member) end
    return table.concat(words, ",")
  end
  if type(value) == "number" then return ("%.14g"):format(value) end
  return tostring(value)
end

-- ---------------------------------------------------------------- the parser

local function make_parser(list, program, entries)
  local parser = argparse(program, list.usage):add_help(false):help_max_width(110):help_description_margin(30)
  local groups = { recipe = {}, common = {} }
  for _, entry in ipairs(entries) do
    local flag = "--" .. dashed(entry.name)
    local shown = show_value(entry.default)
    local words = entry.help
    if entry.choices and not entry.help:find(entry.choices[1], 1, true) then words = words .. ": " .. table.concat(entry.choices, ", ") end
    if shown and shown ~= "" and entry.kind ~= "boolean" then words = ("%s (default: %s)"):format(words, shown) end
    local element
    if entry.kind == "boolean" then
      element = parser:flag(flag):target(entry.name)
      local off = parser:flag("--no-" .. dashed(entry.name)):target(entry.name):action "store_false"
      if entry.default then
        off:description("switch off: " .. words)
        element:hidden(true)
        groups[entry.group][#groups[entry.group] + 1] = off
        element = nil
      else
        off:hidden(true)
      end
    elseif entry.kind == "optional" then
      element = parser:option(flag):target(entry.name):args "?":action(function(result, target, value)
        if type(value) == "table" then value = value[1] end
        result[target] = value == nil or value
      end)
    else
      element = parser:option(flag):target(entry.name):convert(function(word)
        local value, expected = read_value(entry, word)
        if value == nil then return nil, ("%s: '%s' was given, expected %s"):format(flag, word, expected) end
        return value
      end)
    end
    if element then
      element:description(words)
      if entry.kind ~= "boolean" then
        local kind = entry.kind
        element:argname(entry.shown or (kind == "number" and "X") or (kind == "integer" and "N") or (kind == "list" and "A,B,..") or "S")
      end
      groups[entry.group][#groups[entry.group] + 1] = element
    end
  end
  groups.common[#groups.common + 1] = parser:flag("-h --help"):target "help":description "this text"
  if #groups.recipe > 0 then parser:group("Options of this recipe", unpack(groups.recipe)) end
  parser:group("Options of every recipe", unpack(groups.common))
  parser:usage(("Usage: %s [options]"):format(program))
  local lines = {}
  if list.presets then
    local names = {}
    for name in pairs(list.presets) do names[#names + 1] = name end
    table.sort(names)
    lines[#lines + 1] = "Presets (what is given on the command line goes before them):"
    for _, name in ipairs(names) do
      local words, keys = {}, {}
      for key in pairs(list.presets[name]) do keys[#keys + 1] = key end
      table.sort(keys)
      for i, key in ipairs(keys) do
        local value = list.presets[name][key]
        if type(value) == "boolean" then
          words[i] = (value and "--" or "--no-") .. dashed(key)
        else
          words[i] = ("--%s %s"):format(dashed(key), show_value(value))
        end
      end
      lines[#lines + 1] = ("   %s: %s"):format(name, #words > 0 and table.concat(words, " ") or "the defaults")
    end
    lines[#lines + 1] = ""
  end
  lines[#lines + 1] = "Written --name value or --name=value; switches --name and --no-name."
  parser:epilog(table.concat(lines, "\n"))
  return parser
end

-- The words with dashes in names, `--lr -1` joined to `--lr=-1`; or nil and a sentence for a name there is not.
local function normalise(words, by_name)
  local out, names = {}, { "--help" }
  for name, entry in pairs(by_name) do
    names[#names + 1] = "--" .. dashed(name)
    if entry.kind == "boolean" then names[#names + 1] = "--no-" .. dashed(name) end
  end
  table.sort(names)
  local i, last = 1, #words
  while i <= last do
    local word = words[i]
    local name, value = word:match "^%-%-([^=]+)(=?.*)$"
    if word == "--" then
      return nil, "'--' was given, expected options only"
    elseif name then
      local flag = dashed(name)
      local entry = by_name[(flag:gsub("%-", "_"))]
      local off = not entry and flag:match "^no%-(.+)$"
      local switched = off and by_name[(off:gsub("%-", "_"))]
      if not entry and flag ~= "help" and not (switched and switched.kind == "boolean") then
        if switched then return nil, ("--%s: '%s' is no switch, it takes a value"):format(flag, off) end
        local near = core.nearest("--" .. flag, names)
        return nil, ("unknown option '--%s'%s"):format(flag, near and (", did you mean '%s'?"):format(near) or "; --help lists what there is")
      end
      if entry and entry.kind == "boolean" and value ~= "" then
        -- --strict=true and --strict=false, as a script may write them
        local said = value:sub(2)
        if said ~= "true" and said ~= "false" then
          return nil, ("--%s: '%s' was given, expected --%s or --no-%s"):format(flag, said, flag, flag)
        end
        out[#out + 1] = said == "true" and "--" .. flag or "--no-" .. flag
      elseif entry and entry.kind ~= "boolean" and value == "" and words[i + 1] and words[i + 1]:find "^%-[%d.]" then
        out[#out + 1] = "--" .. flag .. "=" .. words[i + 1]
        i = i + 1
      else
        out[#out + 1] = "--" .. flag .. value
        -- The next word is this option's value, whatever it looks like, unless it is an option itself.
        if entry and entry.kind ~= "boolean" and value == "" and words[i + 1] and words[i + 1]:sub(1, 1) ~= "-" then
          out[#out + 1] = words[i + 1]
          i = i + 1
        end
      end
    elseif word == "-h" then
      out[#out + 1] = word
    elseif word:sub(1, 1) == "-" and #word > 1 then
      return nil, ("unknown option '%s'; options have two dashes, --help lists them"):format(word)
    else
      return nil, ("'%s' was given where no value is expected; --help lists the options"):format(word)
    end
    i = i + 1
  end
  return out
end

-- ---------------------------------------------------------------- the result

local function copy(value)
  if type(value) ~= "table" then return value end
  local t = {}
  for i, member in ipairs(value) do t[i] = member end
  return t
end

-- Methods and bookkeeping lie behind the values, so that pairs(opt) gives the values alone.
local function make_result(values, given, by_name)
  local methods = {}

  --- Was the option given on the command line (and not taken from a preset or the default)?
  function methods.given(_, name)
    if not by_name[name] then fail("there is no option '%s'", tostring(name)) end
    return given[name] == true
  end

  -- The value of a run that is being resumed, for an option that was not given.
  function methods.adopt(self, name, value)
    if by_name[name] and not given[name] then rawset(self, name, value) end
  end

  local names = {}
  for name in pairs(by_name) do names[#names + 1] = name end
  table.sort(names)
  return setmetatable(values, {
    __name = "unic.options",
    __index = function(_, name)
      if methods[name] then return methods[name] end
      if by_name[name] or type(name) ~= "string" then return nil end
      local near = core.nearest(name, names)
      core.fail(("[options] there is no option '%s'%s"):format(name, near and (", did you mean '%s'?"):format(near) or ""))
    end,
  })
end

--- Read words as the options of a list.
-- @param list as for `unic.options`
-- @param words a list of strings
-- @param program what stands before them, for the help text
-- @return the options; or nil, a sentence that says what is wrong, and the help text where that was asked for
function options.parse(list, words, program)
  if type(list) ~= "table" then fail("a %s was given, expected a list of {name, default, words}", type(list)) end
  for key in pairs(list) do
    if type(key) == "string" and key ~= "presets" and key ~= "usage" then fail("there is no field '%s', expected entries, presets or usage", key) end
  end
  local entries, by_name = read_entries(list)
  for preset, values in pairs(arguments.default("options", "presets", list.presets, "table", {})) do
    if type(values) ~= "table" then fail("the preset '%s' is %s, expected {name = value}", tostring(preset), arguments.describe(values)) end
    for name, value in pairs(values) do
      if not by_name[name] then fail("the preset '%s' has a value for '%s', which is no option", preset, tostring(name)) end
      if type(value) == "string" or type(value) == "number" then
        local kind = by_name[name].kind
        if (type(value) == "number") ~= (kind == "number" or kind == "integer") then
          fail("the preset '%s' has a %s for '%s', expected %s", preset, type(value), name, kind)
        end
      end
    end
  end
  local parser = make_parser(list, program or "./unic", entries)
  local normal, problem = normalise(words, by_name)
  if not normal then return nil, problem end
  -- argparse reports by calling this, and its own words are as good as ours once the names are checked.
  local ok, parsed = parser:pparse(normal)
  if not ok then return nil, (tostring(parsed):gsub("^option ", "")) end
  if parsed.help then return nil, nil, parser:get_help() end

  local values, given = {}, {}
  for _, entry in ipairs(entries) do
    local value = parsed[entry.name]
    if value ~= nil then given[entry.name] = true else value = copy(entry.default) end
    values[entry.name] = value
  end
  if values.device == nil then values.device = core.device_default() end
  local name = values.preset
  if name then
    local preset = (list.presets or {})[name]
    if not preset then
      local names = {}
      for each in pairs(list.presets or {}) do names[#names + 1] = each end
      table.sort(names)
      if #names == 0 then return nil, ("--preset: '%s' was given, this recipe has no presets"):format(name) end
      local near = core.nearest(name, names)
      return nil, ("--preset: '%s' was given, %sthere are: %s"):format(name, near and ("did you mean '%s'? "):format(near) or "", table.concat(names, ", "))
    end
    for key, value in pairs(preset) do
      if not given[key] then values[key] = copy(value) end
    end
  end
  return make_result(values, given, by_name)
end

-- Inside a test or at the prompt the process must go on: wrong use is an error there, elsewhere it leaves with 2.
local function must_go_on()
  local testing = package.loaded["unic.testing"]
  return testing and testing.quiet or package.loaded["unic.repl"] ~= nil
end

--- The options of a recipe, read from `arg`: the values by name (dashes as underscores), and `opt:given(name)`.
-- `--help` prints them and leaves; a wrong one is a sentence on stderr and exit code 2.
-- @param list entries {name, default, words}, each with `choices` (a list of strings), `least`, `most`, `kind` ("integer") where wanted;
-- `usage` (one sentence), `presets` (name -> values)
-- @return a table of the values
function options.read(list)
  local words = rawget(_G, "arg") or {}
  local script = words[0] or "recipe.lua"
  local result, problem, help = options.parse(list, words, "./unic " .. script:gsub("^%./", ""))
  if result then return result end
  if must_go_on() then core.fail(help and "[options] --help was given" or "[options] " .. problem) end
  if help then
    io.stdout:write(help, "\n")
    io.stdout:flush()
    os.exit(0, true)
  end
  io.stdout:flush()
  io.stderr:write(script, ": ", problem, "\n")
  os.exit(2, true)
end

return setmetatable(options, { __call = function(_, list) return options.read(list) end })
