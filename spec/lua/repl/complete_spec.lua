-- Tab.
local complete = require "unic.repl.complete"
local Session = require "unic.repl.session"

describe("unic.repl.complete", function()
  local session

  setup(function()
    session = Session.new()
    session:define("object", setmetatable({ field = 1, run = print, _hidden = 2 }, { __index = { method = function() end, number = 3 } }))
    session:define("list", { { deep = { value = 1 } } })
    session:define("x", require("unic").zeros(2))
    session:define("file", io.stdout)
  end)

  local function list(text)
    local _, found = complete.candidates(text, session)
    return table.concat(found, " ")
  end

  local function has(text, word)
    return (" " .. list(text) .. " "):find(" " .. word .. " ", 1, true) ~= nil
  end

  it("completes names: locals, globals, modules, keywords", function()
    assert.equal("object", list("obj"))
    assert.equal("print", list("1 + pri"))
    assert.is_true(has("uni", "unic"))
    assert.equal("function", list("x = func"))
  end)

  it("completes fields after a dot", function()
    assert.equal("field method number run", list("object."))
    assert.equal("_hidden", list("object._"))
    assert.equal("deep", list("list[1].de"))
    assert.equal("value", list("f(list[1].deep."))
    assert.equal("rep reverse", list("string.re"))
    assert.is_true(has("unic.ze", "zeros"))
  end)

  it("completes functions alone after a colon, through metatables of tables, userdata and strings", function()
    assert.equal("method run", list("object:"))
    assert.equal("method", list("y = object:me"))
    assert.is_true(has("file:", "close"))
    assert.equal("upper", list("'x':up"))
    assert.is_true(has("x:re", "requires_grad_"))
    assert.is_true(has("x.", "shape"))
    assert.is_false(has("x:", "shape"))
  end)

  it("completes modules in require and files in other strings", function()
    assert.equal("unic.repl.pretty", list("require 'unic.repl.pre"))
    assert.equal("unic.repl.pretty", list("local p = require(\"unic.repl.pre"))
    assert.is_true(has("require 'unic.datasets.", "unic.datasets.phantom"))
    assert.equal("lua/unic/repl/pretty.lua", list("dofile('lua/unic/repl/pre"))
    assert.is_true(has("io.open 'lua/un", "lua/unic/"))
  end)

  it("completes behind a question mark", function()
    assert.equal("format", list("? string.form"))
  end)

  it("says nothing in comments, for what it cannot evaluate, and calls no function to find out", function()
    local called = false
    session:define("call", function() called = true return {} end)
    assert.equal("", list("-- obj"))
    assert.equal("", list("call()."))
    assert.equal("", list("object:method()."))
    assert.equal("", list("nothing.at.all"))
    assert.equal("", list("x = "))
    assert.is_false(called)
  end)

  it("inserts what is common, then shows the list, and indents an empty line", function()
    assert.same({ "nt" }, { complete.answer("pri", "", session, 80) })
    assert.same({ nil, "rep      reverse" }, { complete.answer("string.re", "", session, 80) })
    assert.same({ "  " }, { complete.answer("if x then\n", "", session, 80) })
    assert.same({ "y.lua'" }, { complete.answer("dofile('lua/unic/repl/prett", "", session, 80) })
    assert.same({ "y.lua" }, { complete.answer("dofile('lua/unic/repl/prett", "')", session, 80) })
    assert.same({}, { complete.answer("nothing.", "", session, 80) })
  end)

  it("puts long lists into columns of the screen's width", function()
    local names = {}
    for i = 1, 500 do names[i] = ("name%03d"):format(i) end
    local text = complete.columns(names, 40)
    for line in text:gmatch("[^\n]+") do assert.is_true(#line <= 40) end
    assert.truthy(text:find("... and 200 more", 1, true))
    assert.truthy(text:find("^name001  name076"))
  end)
end)
