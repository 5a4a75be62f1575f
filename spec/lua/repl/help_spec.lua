-- ? name
local help = require "unic.repl.help"
local Session = require "unic.repl.session"

describe("unic.repl.help", function()
  local session, path

  setup(function()
    session = Session.new()
    path = os.tmpname()
    local file = assert(io.open(path, "w"))
    file:write([==[
--- A module for the spec. It does nothing.
-- More of it.
-- @module documented
local M = {}

--- Add two things. They may be numbers.
--
-- A second paragraph that is long enough to be broken over more than one line of a screen that has forty columns.
-- @param a the first
-- @tparam number b the second, of which
--   there is more to say
-- @return the sum
-- @usage M.add(1, 2)
function M.add(a, b) return a + b end

-- A remark, and no doc comment.
function M.plain(a) return a end

local function factory() return function(...) return ... end end

--- Made by a factory.
-- @param what anything
M.made = factory()

--- A method.
-- @param times how often
function M:method(times) return self, times end

local Class = setmetatable({}, { __call = function(class, ...) return class.new(...) end })
--- A layer.
-- @param size of it
function Class.new(size) return size end
M.Class = Class

return M
]==])
    file:close()
    session:define("M", dofile(path))
  end)

  teardown(function() os.remove(path) end)

  local function about(text, width) return help.about(text, session, width or 80) end

  it("prints signature, text, parameters and example of a function", function()
    assert.equal([[
M.add(a, b)
  Add two things. They may be numbers.

  A second paragraph that is long enough to be broken over more than one line of
  a screen that has forty columns.
  a  the first
  b  the second, of which there is more to say
  -> the sum
    M.add(1, 2)]], about("M.add"))
  end)

  it("breaks lines at the width", function()
    for line in about("M.add", 40):gmatch("[^\n]+") do assert.is_true(#line <= 40, line) end
  end)

  it("finds the comment above the line that names a function made elsewhere", function()
    assert.truthy(about("M.made"):find("^M%.made%(.*\n  Made by a factory%."))
    assert.truthy(about("unic.zeros"):find("Zeros.", 1, true))
    assert.truthy(about("unic.memory"):find("^unic%.memory%(device%)\n  Memory of a device"))
  end)

  it("writes a method as it is called", function()
    assert.truthy(about("M:method"):find("^M:method%(times%)"))
    assert.truthy(about("M.method"):find("^M%.method%(self, times%)"))
    session:define("t", require("unic").zeros(2))
    assert.truthy(about("t:to"):find("^t:to%(%.%.%.%)\n  Convert and move"))
  end)

  it("explains a class by its constructor", function()
    assert.equal("M.Class(size)\n  A layer.\n  size  of it", about("M.Class"))
  end)

  it("says when there is no comment, and where the function is", function()
    assert.equal("M.plain(a)\n  (no doc comment; " .. path .. ":17)", about("M.plain"))
  end)

  it("lists a module with a sentence for each name, and a tensor's methods", function()
    local text = about("unic")
    assert.truthy(text:find("^unic\n  Unic: tensors"))
    assert.truthy(text:find("\n  full +A tensor filled with one value%."))
    assert.truthy(about("t"):find("^t: %[f32 2 %S+%]\nmethods"))
    assert.truthy(about("unic.format.tensor"):find("^unic%.format%.tensor%(t, options%)"))
  end)

  it("prints the text of an op by its name alone or as a method", function()
    local core = require "unic.core"
    local name
    for _, op in ipairs(core.ops.names()) do
      if core.ops.help(op) then name = op break end
    end
    if not name then return pending("no op is built in that has a text") end
    assert.equal(core.ops.help(name), about("t:" .. name))
  end)

  it("lists the topics for a bare question mark", function()
    local text = about("")
    assert.truthy(text:find("\n  unic +Unic: tensors"))
    assert.truthy(text:find("\n  prompt +"))
    assert.truthy(about("prompt"):find("Ctrl%-C"))
  end)

  it("knows what it does not know, and proposes the nearest name", function()
    assert.equal("there is no 'unic.zeross'; is it 'unic.zeros'?", about("unic.zeross"))
    assert.equal("there is no 'qqqqqqqq'", about("qqqqqqqq"))
    assert.truthy(about("1 + 1"):find("takes a name", 1, true))
    assert.equal("'while' is a keyword of Lua", about("while"))
    assert.equal('M2: a table\n{1}', (function() session:define("M2", {1}) return about("M2") end)())
    assert.truthy(about("print"):find("^print\n"))
  end)

  it("has something to say about every function of the library that is offered", function()
    -- Public functions carry a doc comment, or the text of an op.
    local silent = {}
    local core = require "unic.core"
    for _, place in ipairs(session.lazy_names) do
      local module = session.env[place]
      for name, value in pairs(module) do
        if type(value) == "function" and not name:find("^_") and place ~= "models" and place ~= "datasets" then
          local text = about(place .. "." .. name)
          if not text:find("\n") or text:find("no doc comment", 1, true) or text:find("there is no text", 1, true) then
            if not core.ops.call[name] then silent[#silent + 1] = place .. "." .. name end
          end
        end
      end
    end
    table.sort(silent)
    assert.equal("", table.concat(silent, " "))
  end)
end)
