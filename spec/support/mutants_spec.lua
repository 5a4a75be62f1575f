--- The fault planter itself: a suite's worth rests on it.
local mutants = require "spec.support.mutants"

local header = "file,original,replacement,what,specs\n"

describe("mutants", function()
  local folder

  before_each(function()
    folder = os.tmpname()
    os.remove(folder)
    assert(os.execute("mkdir " .. folder) == 0)
    local file = assert(io.open(folder .. "/scale.lua", "w"))
    file:write("return function(x, a)\n  return x * a + 0\nend\n")
    file:close()
  end)

  after_each(function() os.execute("rm -r " .. folder) end)

  local function source()
    local file = assert(io.open(folder .. "/scale.lua", "rb"))
    local text = file:read("*a")
    file:close()
    return text
  end

  -- A tree whose suite is one multiplication.
  local tree = {
    build = function() return loadfile(folder .. "/scale.lua") ~= nil end,
    test = function(patterns)
      local scale = dofile(folder .. "/scale.lua")
      if patterns == "zero" then return scale(0, 3) == 0, "zero" end
      return scale(2, 3) == 6 and scale(0, 3) == 0, "whole suite"
    end,
  }

  local function fault(original, replacement, specs)
    return { file = "scale.lua", original = original, replacement = replacement, what = "a fault", specs = specs or "zero" }
  end

  it("reads fields with commas, quotes and line ends", function()
    local rows = mutants.parse(header .. 'a.c,"x, ""y""",,drops y,kernels/a b\r\nb.c,"one\ntwo",three,"joins",kernels/b\n')
    assert.equal(2, #rows)
    assert.equal('x, "y"', rows[1].original)
    assert.equal("", rows[1].replacement)
    assert.equal("kernels/a b", rows[1].specs)
    assert.equal("one\ntwo", rows[2].original)
    assert.equal(3, rows[2].line)
  end)

  it("refuses a bad file with its line", function()
    local cases = {
      ["file,original\n"] = "line 1: the header is 'file,original', expected 'file,original,replacement,what,specs'",
      [header .. "a,b,c,d\n"] = "line 2: 4 fields, expected 5",
      [header .. "a,b,c,,e\n"] = "line 2: 'what' is empty",
      [header .. "a,b,b,d,e\n"] = "line 2: the replacement is the original",
      [header .. 'a,"b\n'] = "line 2: a quote without its end",
      [header .. 'a,"b"c,d,e,f\n'] = "line 2: text after the closing quote",
    }
    for text, sentence in pairs(cases) do
      local ok, why = pcall(mutants.parse, text)
      assert.is_false(ok)
      assert.equal(sentence, why)
    end
  end)

  it("tells caught from missed, and puts the source back", function()
    local before = source()
    assert.same({ "caught", "zero" }, { mutants.try(folder, fault("x * a", "x * a + 1"), tree) })
    assert.same({ "caught", "whole suite" }, { mutants.try(folder, fault("x * a", "x + x * a / 4"), tree) })
    assert.same({ "missed", "by the whole suite" }, { mutants.try(folder, fault("+ 0", "- 0"), tree) })
    assert.equal(before, source())
  end)

  it("does not count what cannot be planted or built", function()
    local before = source()
    assert.same({ "invalid", "the original text is not in the file" }, { mutants.try(folder, fault("y * a", "y"), tree) })
    assert.same({ "invalid", "the original text is in the file more than once" }, { mutants.try(folder, fault("return", ""), tree) })
    assert.same({ "invalid", "does not build" }, { mutants.try(folder, fault("x * a", "x *"), tree) })
    assert.equal(before, source())
  end)

  it("puts the source back when the suite itself breaks", function()
    local before = source()
    local broken = { build = tree.build, test = function() error("interrupted") end }
    assert.has_error(function() mutants.try(folder, fault("x * a", "x"), broken) end)
    assert.equal(before, source())
  end)

  for _, name in ipairs { "mutants.csv", "cuda_mutants.csv" } do
    it("has faults that can all be planted: " .. name, function()
      local file = assert(io.open("spec/check/" .. name, "rb"))
      local rows = mutants.parse(file:read("*a"))
      file:close()
      local seen = {}
      for _, row in ipairs(rows) do
        local text = assert(io.open(row.file, "rb"), row.file):read("*a")
        local first = text:find(row.original, 1, true)
        assert.is_truthy(first, ("%s line %d: the original text is not in %s"):format(name, row.line, row.file))
        assert.is_nil(text:find(row.original, first + 1, true), ("%s line %d: the original text is twice in %s"):format(name, row.line, row.file))
        local key = row.file .. "\0" .. row.original .. "\0" .. row.replacement
        assert.is_nil(seen[key], ("%s line %d: planted twice"):format(name, row.line))
        seen[key] = true
      end
    end)
  end
end)
