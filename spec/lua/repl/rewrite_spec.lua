-- Tokens and the two source changes of the prompt.
local lexer = require "unic.repl.lexer"
local rewrite = require "unic.repl.rewrite"

local function kinds(text)
  local list = {}
  for i, token in ipairs(lexer.tokens(text)) do list[i] = token.kind .. ":" .. token.text end
  return table.concat(list, " ")
end

describe("unic.repl.lexer", function()
  it("tells names, keywords, numbers, strings, comments and operators apart", function()
    assert.equal("keyword:local name:x op:= number:0x1p-3 op:.. string:'a' comment:-- b", kinds("local x = 0x1p-3 .. 'a' -- b"))
    assert.equal("name:a op:. name:b op:: name:c op:( op:... op:) op:~= number:1e-5", kinds("a.b:c(...) ~= 1e-5"))
    assert.equal("number:1 op:.. number:2", kinds("1 .. 2"))
    assert.equal("number:10LL op::: name:l op:::", kinds("10LL ::l::"))
  end)

  it("keeps long strings and comments whole", function()
    assert.equal("name:x op:= string:[==[ end ]] \n]==] name:y", kinds("x = [==[ end ]] \n]==] y"))
    assert.equal("comment:--[[ local\n a ]] name:y", kinds("--[[ local\n a ]] y"))
    assert.equal([[string:"a\" b" string:'\\']], kinds([["a\" b" '\\']]))
  end)

  it("marks what does not end", function()
    for _, text in ipairs{"'abc", '"abc\\"', "[[abc", "--[[abc"} do
      local tokens = lexer.tokens(text)
      assert.equal(1, #tokens)
      assert.is_false(tokens[1].closed)
      assert.equal(#text, tokens[1].last)
    end
  end)

  it("takes every byte of a text into account", function()
    -- Tokens and the space between them are the text.
    for _, path in ipairs{"lua/unic/repl/lexer.lua", "lua/unic/repl/complete.lua", "lua/unic/tensor.lua"} do
      local file = assert(io.open(path))
      local text = file:read("*a")
      file:close()
      local at = 1
      for _, token in ipairs(lexer.tokens(text)) do
        assert.is_nil(text:sub(at, token.first - 1):find("%S"))
        assert.equal(text:sub(token.first, token.last), token.text)
        at = token.last + 1
      end
      assert.is_nil(text:sub(at):find("%S"))
    end
  end)
end)

describe("unic.repl.rewrite.locals", function()
  local function check(expected, text)
    local changed = rewrite.locals(text)
    assert.equal(expected, (changed:gsub("^%s+", "")))
    assert.is_function(load(changed))
  end

  it("turns declarations at the top level into fields", function()
    check("_LOCAL_.x = 1", "local x = 1")
    check("_LOCAL_.x = nil", "local x")
    check("_LOCAL_.a, _LOCAL_.b = f()", "local a, b = f()")
    check("function _LOCAL_.f(n) local k = n return k end", "local function f(n) local k = n return k end")
    check("_LOCAL_.x = nil  _LOCAL_.y = 2", "local x local y = 2")
  end)

  it("leaves blocks, strings and comments alone", function()
    for _, text in ipairs{
      "do local z = 1 end", "if x then local y = 1 else local w end", "for i = 1, 2 do local k end", "while x do local q end",
      "repeat local q = 1 until q", "f(function() local u end)", "x = [[local p]] -- local f", "x = 'local y'", "for k in pairs(t) do local a end",
    } do check(text, text) end
  end)

  it("goes on after blocks", function()
    check("while f(function() end) do local p end  _LOCAL_.v = 1", "while f(function() end) do local p end local v = 1")
    check("if a then b() elseif c then d() end  _LOCAL_.v = 1", "if a then b() elseif c then d() end local v = 1")
    check("repeat local q = 1 until q  _LOCAL_.v = 1", "repeat local q = 1 until q local v = 1")
  end)

  it("keeps comments and lines where they are", function()
    local text = "local a, -- first\n  b --[[ second ]] = 1,\n  2\nlocal c\n"
    local changed = rewrite.locals(text)
    assert.equal(" _LOCAL_.a, -- first\n  _LOCAL_.b --[[ second ]] = 1,\n  2\n _LOCAL_.c = nil\n", changed)
  end)
end)

describe("unic.repl.rewrite.keep", function()
  local function ends(text)
    local kept = 0
    local chunk = assert(load(rewrite.keep(text), "=keep"))
    setfenv(chunk, setmetatable({ _KEEP_LOCALS_ = function() kept = kept + 1 end }, { __index = _G }))
    local result = chunk()
    return kept, result
  end

  it("calls once, whichever way the chunk ends", function()
    assert.equal(1, (ends("local x = 1")))
    assert.equal(1, (ends("local x = 1;")))
    assert.equal(1, (ends("")))
    assert.equal(1, (ends("#!/usr/bin/env luajit\nlocal x = 1 -- the end")))
    assert.equal(1, (ends("local x = 1 if x then return x end local y = 2")))
    assert.equal(1, (ends("do return 3 end local y = 2")))
    assert.equal(1, (ends("local f = tostring")))
  end)

  it("returns what the chunk returns, and leaves the returns of functions alone", function()
    local kept, result = ends("local function f() return 4 end f() f() return f()")
    assert.equal(1, kept)
    assert.equal(4, result)
  end)
end)
