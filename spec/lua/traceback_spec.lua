-- Error reports: the sentence, then the user's lines.
local traceback = require "unic.traceback"

describe("unic.traceback", function()
  local path

  setup(function() path = os.tmpname() end)
  teardown(function() os.remove(path) end)

  -- Run a text as a file, below a boundary, so that the frames of the specs do not show.
  local function report(text)
    local file = assert(io.open(path, "w"))
    file:write(text)
    file:close()
    local chunk = assert(loadfile(path))
    local enter = traceback.boundary(function() local _ = chunk() end)
    local _, result = xpcall(enter, traceback.handler)
    return (result:gsub(path:gsub("%p", "%%%0"), "FILE"))
  end

  it("puts the sentence first and the source lines of the user's frames below it", function()
    assert.equal(table.concat({
      "[op] argument 'x': wrong",
      "  FILE:2: in inner: error(\"[op] argument 'x': wrong\")",
      "  FILE:4: in outer: local function outer() inner() end",
      "  FILE:5: outer()",
    }, "\n"), report([[
local function inner()
  error("[op] argument 'x': wrong")
end
local function outer() inner() end
outer()
]]))
  end)

  it("leaves out the frames of the library and of C", function()
    assert.equal(table.concat({
      "[tensor] argument 'options': the number 3, expected a table of named options",
      "  FILE:1: table.foreach({1}, function() require('unic').tensor({1}, 3) end)",
      "  FILE:1: table.foreach({1}, function() require('unic').tensor({1}, 3) end)",
    }, "\n"), report("table.foreach({1}, function() require('unic').tensor({1}, 3) end)\n"))
  end)

  it("says where in a model the error was raised, as one would type it", function()
    assert.equal(table.concat({
      "[linear] argument 'x': the number 3 was given, expected a tensor",
      "  in Sequential[2][1] (Linear)",
      "  FILE:3: model(3)",
    }, "\n"), report([[
local nn = require "unic.nn"
local model = nn.Sequential(nn.Identity(), nn.Sequential(nn.Linear(2, 2)))
model(3)
]]))
    assert.truthy(report([[
local nn = require "unic.nn"
local Block = nn.class "Block"
function Block:init() self.fc = nn.Linear(2, 2) end
function Block:forward(x)
  return self.fc(x)
end
local block = Block()
block(3)
]]):find("\n  in Block.fc (Linear)\n", 1, true))
  end)

  it("starts at the line that is blamed", function()
    assert.equal("bad\n  FILE:2: check()", report("local function check() error('bad', 2) end\ncheck()\n"))
  end)

  it("shows any value as text", function()
    assert.equal("as text\n  FILE:1: error(setmetatable({}, {__tostring = function() return 'as text' end}))",
      report("error(setmetatable({}, {__tostring = function() return 'as text' end}))"))
    assert.equal("(the error is a nil value)\n  FILE:1: error()", report("error()"))
    assert.equal("(the error is a table value)\n  FILE:1: error{}", report("error{}"))
    assert.equal("12\n  FILE:1: error(12, 0)", report("error(12, 0)"))
  end)

  it("shortens long stacks, and names the line of a stack overflow", function()
    local text = report("local function f(n) if n == 0 then error('deep', 0) end f(n - 1) return 1 end\nf(100)\n")
    local _, lines = text:gsub("\n", "")
    assert.equal(14, lines)
    assert.truthy(text:find("\n  ... 89 more\n", 1, true))
    assert.truthy(report("local function f(n) return 1 + f(n) end\nf(1)"):find("^stack overflow"))
  end)

  it("shows the text of chunks made from strings", function()
    local chunk = load("local a = 1\nlocal b = nil + a")
    local enter = traceback.boundary(function() chunk() end)
    local _, text = xpcall(enter, traceback.handler)
    assert.equal("attempt to perform arithmetic on a nil value\n  line 2: local b = nil + a", text)
    -- One line that was just typed is not repeated.
    chunk = load("local b = nil + 1")
    _, text = xpcall(enter, traceback.handler)
    assert.equal("attempt to perform arithmetic on a nil value", text)
  end)

  it("cleans messages of the compiler", function()
    local _, message = load("x = = 1")
    assert.equal("line 1: unexpected symbol near '='", traceback.clean(message))
    assert.equal("unexpected symbol near '='", traceback.clean(message, true))
    assert.equal("lua/x.lua:3: wrong", traceback.clean(require("lfs").currentdir() .. "/lua/x.lua:3: wrong"))
    assert.equal("no position", traceback.clean("no position"))
  end)

  it("knows an interrupt from an error that speaks of one", function()
    assert.is_true(traceback.is_interrupt("interrupted"))
    assert.is_true(traceback.is_interrupt("interrupted\n  x.lua:1: f()"))
    assert.is_false(traceback.is_interrupt("the download was interrupted"))
    assert.is_false(traceback.is_interrupt({}))
  end)
end)
