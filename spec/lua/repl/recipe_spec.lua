-- Scripts whose locals are looked at afterwards, and the history file.
local history = require "unic.repl.history"
local lfs = require "lfs"
local recipe = require "unic.repl.recipe"

describe("unic.repl.recipe", function()
  local path

  setup(function() path = os.tmpname() end)
  teardown(function() os.remove(path) end)

  local function run(text, ...)
    local file = assert(io.open(path, "w"))
    file:write(text)
    file:close()
    return recipe.run(path, nil, ...)
  end

  it("gives the locals of the main chunk at its end", function()
    local ok, found = run("local a, b = ..., {2}\ndo local hidden = 1 end\nlocal function f() return a end\nlocal a = 5 -- again\n", 3)
    assert.is_true(ok)
    assert.equal(5, found.a)
    assert.same({2}, found.b)
    assert.equal(3, found.f())
    assert.is_nil(found.hidden)
    assert.is_nil(rawget(_G, "_KEEP_LOCALS_"))
  end)

  it("gives them at a return, wherever it stands", function()
    local ok, found = run("#!/usr/bin/env luajit\nlocal a = 1\nif a then return end\nlocal b = 2")
    assert.is_true(ok)
    assert.equal(1, found.a)
    assert.is_nil(found.b)
    ok, found = run("local a = 1\nreturn tostring(a)")
    assert.is_true(ok)
    assert.equal(1, found.a)
  end)

  it("gives them at an error, with the report", function()
    local ok, found, report = run("local a = 1\nlocal function f() local inner = 2 error('boo') end\nf()\nlocal late = 3")
    assert.is_false(ok)
    assert.equal(1, found.a)
    assert.is_nil(found.inner)
    assert.is_nil(found.late)
    assert.equal("boo\n  P:2: in f: local function f() local inner = 2 error('boo') end\n  P:3: f()", (report:gsub(path:gsub("%p", "%%%0"), "P")))
  end)

  it("reports a file that does not compile or is not there", function()
    local ok, found, report = run("local x = = 1\n")
    assert.is_false(ok)
    assert.same({}, found)
    assert.equal(path .. ":1: unexpected symbol near '='", report)
    ok, found, report = recipe.run("no/such/file.lua")
    assert.is_false(ok)
    assert.same({}, found)
    assert.truthy(report:find("no/such/file.lua", 1, true))
  end)
end)

describe("unic.repl.history", function()
  local folder

  before_each(function()
    folder = os.tmpname()
    os.remove(folder)
  end)
  after_each(function() os.execute("rm -rf " .. folder) end)

  it("makes its folder, appends and reads back", function()
    local path = folder .. "/deep/er/history"
    history.append(path, "x = 1")
    history.append(path, "y = 'ñ'")
    assert.same({ "x = 1", "y = 'ñ'" }, history.load(path))
  end)

  it("keeps the last 2000 lines and shortens a file that has grown to twice that", function()
    assert(lfs.mkdir(folder))
    local path = folder .. "/history"
    local file = assert(io.open(path, "w"))
    for i = 1, 4000 do file:write("line ", i, "\n") end
    file:close()
    local lines = history.load(path)
    assert.equal(2000, #lines)
    assert.equal("line 4000", lines[2000])
    local count = 0
    for _ in io.lines(path) do count = count + 1 end
    assert.equal(2000, count)
  end)

  it("says nothing when it cannot be written or there is none", function()
    history.append("/proc/no/such/place/history", "x")
    history.append(nil, "x")
    assert.same({}, history.load(nil))
    assert.same({}, history.load(folder .. "/none"))
  end)
end)
