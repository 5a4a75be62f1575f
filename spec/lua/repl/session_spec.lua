-- Entries of the prompt: what is an expression, which locals last, what an error says.
local Session = require "unic.repl.session"

describe("unic.repl.session", function()
  local session, globals

  before_each(function()
    globals = setmetatable({}, { __index = _G })
    session = Session.new{ globals = globals }
  end)

  local function enter(text)
    local entry, message, unfinished = session:compile(text)
    if not entry then return nil, message, unfinished end
    return session:call(entry)
  end

  local function value(text)
    local ok, results = enter(text)
    assert.is_true(ok, tostring(results))
    return unpack(results, 1, results.n)
  end

  it("gives the values of expressions", function()
    assert.same({ 2 }, { value("1 + 1") })
    assert.same({ 1, nil, 3 }, { value("1, nil, 3") })
    assert.same({ 5 }, { value("= 5") })
    assert.same({ 5 }, { value("return 5") })
    assert.same({ "abc" }, { value("'abc' -- a remark") })
    assert.same({}, { value("-- only a remark") })
    assert.same({}, { value("x = 1") })
  end)

  it("knows calls and final semicolons", function()
    assert.is_true(session:compile("f()").call)
    assert.is_false(session:compile("f").call)
    assert.is_true(session:compile("f(); -- quiet").quiet)
    assert.is_true(session:compile("x;").quiet)
    assert.is_false(session:compile("';'").quiet)
  end)

  it("keeps locals from line to line", function()
    value("local x = 3")
    assert.equal(3, value("x"))
    value("x = x + 1")
    assert.equal(4, value("x"))
    assert.is_nil(rawget(globals, "x"))
    value("local a, b = 1")
    value("b = 2")
    assert.equal(2, value("b"))
    assert.is_nil(rawget(globals, "b"))
    value("local function fact(n) return n < 2 and 1 or n * fact(n - 1) end")
    assert.equal(120, value("fact(5)"))
    value("local first = 1 local second = first + 1")
    assert.equal(2, value("second"))
  end)

  it("lets a local hide a global, and its own value begin as the global's", function()
    value("local tostring = tostring")
    assert.equal("1", value("tostring(1)"))
    value("local print = nil")
    assert.is_nil(value("print"))
    assert.is_function(print)
  end)

  it("keeps the locals of blocks inside them", function()
    value("do local hidden = 1 end")
    assert.is_nil(value("hidden"))
    value("for i = 1, 2 do local hidden = i end")
    assert.is_nil(value("hidden"))
  end)

  it("keeps what was declared before an error", function()
    local ok = enter("local x = 1\nerror('stop')")
    assert.is_false(ok)
    assert.equal(1, value("x"))
  end)

  it("sets globals as globals, also from functions", function()
    value("y = 1")
    assert.equal(1, rawget(globals, "y"))
    value("function set(v) z = v end")
    value("set(7)")
    assert.equal(7, rawget(globals, "z"))
  end)

  it("asks for more while an entry is unfinished, and only then", function()
    for _, text in ipairs{"for i = 1, 2 do", "{", "f(", "x =", "local function f()", "1 +", "[[ab", "if x then\n  y()", "x = {\n 1,"} do
      local entry, _, unfinished = session:compile(text)
      assert.is_nil(entry)
      assert.is_true(unfinished, text)
    end
    for _, text in ipairs{"x y", "1 + * 2", "'abc", "end", ")", "x = = 1"} do
      local entry, message, unfinished = session:compile(text)
      assert.is_nil(entry)
      assert.is_falsy(unfinished, text)
      assert.is_string(message)
    end
  end)

  it("says what is wrong in the reading that was meant", function()
    local _, message = session:compile("1 + * 2")
    assert.truthy(message:find("near '*'", 1, true))
    _, message = session:compile("foo bar")
    assert.truthy(message:find("near 'bar'", 1, true))
  end)

  it("reports an error without the frames below the entry", function()
    local _, report = enter("error('boo')")
    assert.equal("boo", report)
    value("function inner(t) return t.a.b end")
    _, report = enter("inner({})")
    assert.equal("attempt to index field 'a' (a nil value)\n  line 1: in inner: function inner(t) return t.a.b end\n  line 1: inner({})", report)
    _, report = enter("local x = 1\nx = x +\n  nil")
    assert.equal("attempt to perform arithmetic on a nil value\n  line 3: nil", report)
  end)

  it("calls its locals locals", function()
    value("local t")
    local _, report = enter("t.x")
    assert.equal("attempt to index local 't' (a nil value)", report)
    _, report = enter("nothing.x")
    assert.equal("attempt to index global 'nothing' (a nil value)", report)
  end)

  it("survives a runaway recursion", function()
    value("local function deep(n) return 1 + deep(n) end")
    local ok, report = enter("deep(1)")
    assert.is_false(ok)
    assert.truthy(report:find("stack overflow", 1, true))
    assert.equal(2, value("1 + 1"))
  end)

  it("loads a module anew after its loading has failed", function()
    local tries = 0
    package.preload["spec.broken"] = function()
      tries = tries + 1
      if tries == 1 then error("broken") end
      return { fine = true }
    end
    local ok, report = enter("require 'spec.broken'")
    assert.is_false(ok)
    assert.truthy(report:find("broken", 1, true))
    assert.is_true(value("require('spec.broken').fine"))
    package.preload["spec.broken"], package.loaded["spec.broken"] = nil, nil
  end)

  it("offers the modules of the library by short names, loaded when they are used", function()
    assert.equal(require "unic", value("unic"))
    value("shared = 1")
    local found = {}
    for _, name in ipairs(session:names()) do found[name] = true end
    assert.is_true(found.unic and found.shared)
    assert.is_nil(found._LOCAL_)
    value("local mine = 1")
    found = {}
    for _, name in ipairs(session:names()) do found[name] = true end
    assert.is_true(found.mine)
  end)
end)
