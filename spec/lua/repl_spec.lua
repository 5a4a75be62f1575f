-- The prompt as a person meets it: at a terminal (a pseudo-terminal of the spec's own) and behind a pipe.
local pty = require "spec.support.pty"
local shell = require("spec.support.check").shell
local root = require("lfs").currentdir()

-- What needs a terminal is pending, with a sentence, where there is none to be had.
local function at_terminal(name, test)
  if pty.available() then it(name, test) else pending(name .. ": this machine has no pseudo-terminals (/dev/ptmx, /dev/pts)") end
end

describe("the prompt", function()
  local folder

  setup(function()
    folder = os.tmpname()
    os.remove(folder)
    assert(os.execute("mkdir " .. folder) == 0)
  end)
  teardown(function() os.execute("rm -r " .. folder) end)

  local function script(name, source)
    local path = folder .. "/" .. name
    local file = assert(io.open(path, "w"))
    file:write(source)
    file:close()
    return path
  end

  describe("at a terminal", function()
    local screen

    local function open(words, env)
      local all = { TERM = "xterm", XDG_STATE_HOME = folder .. "/state", NO_COLOR = false, UNIC_DEVICE = false, LANG = "C", LC_ALL = false, LC_CTYPE = false }
      for key, value in pairs(env or {}) do all[key] = value end
      screen = pty.open(root .. "/unic " .. (words or ""), { env = all })
      screen:expect("> ")
      return screen
    end

    -- Type a line, and give what is printed until the next prompt, without the echo.
    local function enter(line)
      screen:type(line .. "\r")
      local text = screen:expect("\n> ")
      return (text:gsub("^[^\n]*\n?", "", 1))
    end

    local function leave()
      screen:type("\4")
      return screen:close()
    end

    at_terminal("greets, prints values, keeps locals, and leaves at Ctrl-D", function()
      open()
      assert.truthy(screen.all:find("^Unic %S+, cpu, .*%? for help.*\nReady: unic"))
      assert.equal("2", enter("1 + 1"))
      assert.equal("", enter("local x = unic.zeros(2, 2)"))
      assert.equal(" 0  0\n 0  0\n[f32 2x2 cpu]", enter("x"))
      assert.equal("{1, 2, a = \"b\"}", enter("{1, 2, a = 'b'}"))
      assert.equal("2", enter("#_"))
      assert.equal("", enter("1 + 2;"))
      assert.equal("3", enter("_"))
      assert.equal("", enter("print()"):gsub("\n", ""))
      assert.equal("nil", enter("nothing"))
      assert.equal(0, leave())
    end)

    at_terminal("leaves at exit and quit, unless the word is a variable", function()
      open()
      assert.equal("", enter("local quit = 1"))
      assert.equal("1", enter("quit"))
      screen:type("exit\r")
      assert.equal(0, screen:close())
    end)

    at_terminal("goes on at a second prompt until an entry is finished", function()
      open()
      screen:type("for i = 1, 2 do\r")
      screen:expect("\n.. ")
      screen:type("  print(i * 10)\r")
      screen:expect("\n.. ")
      assert.equal("10\n20", enter("end"))
      -- ... and comes back in one piece.
      screen:type("\27[A")
      screen:expect("for i = 1, 2 do print(i * 10) end")
      assert.equal("10\n20", enter(""))
      leave()
    end)

    at_terminal("completes at the Tab key", function()
      open()
      screen:type("string.re\t")
      screen:expect("rep      reverse\n")
      screen:expect("> string.re")
      screen:type("v\t")
      screen:expect("verse")
      assert.equal('"cba"', enter("('abc')"))
      assert.equal("", enter("local object = {method = function() return 7 end, number = 1}"))
      screen:type("object:\t")
      screen:expect("method")
      assert.equal("7", enter("()"))
      -- In the lines of an unfinished entry too, where an empty line is indented.
      screen:type("do local long_name = 1\r")
      screen:expect("\n.. ")
      screen:type("\tprint(obj\t.num\t)\r")
      screen:expect("\n.. ")
      assert.equal("1", enter("end"))
      leave()
    end)

    at_terminal("explains with a question mark", function()
      open()
      assert.truthy(enter("? unic.zeros"):find("^unic%.zeros%(%.%.%.%)\n  Zeros%."))
      assert.truthy(enter("?"):find("\n  prompt +Keys"))
      assert.equal("there is no 'unic.zeross'; is it 'unic.zeros'?", enter("? unic.zeross"))
      leave()
    end)

    at_terminal("shows errors from the user's line on, in red, and goes on", function()
      open()
      assert.equal("attempt to index global 'nothing' (a nil value)", enter("nothing.x"))
      assert.equal("'=' expected near 'y'", enter("x y"))
      assert.equal("", enter("function inner() error('boo') end"))
      assert.equal("boo\n  line 1: in inner: function inner() error('boo') end\n  line 1: inner()", enter("inner()"))
      assert.equal("[unic] there is no 'unic.zeross', did you mean 'unic.zeros'?", enter("unic.zeross(2)"))
      assert.truthy(enter("(function f() return f() + 1 end)()"):find("expected near", 1, true))
      assert.equal("", enter("function deep() return deep() + 1 end"))
      assert.equal("stack overflow (runaway recursion)\n  line 1: function deep() return deep() + 1 end", enter("deep()"))
      assert.equal("2", enter("1 + 1"))
      leave()
    end)

    at_terminal("gives a line up at Ctrl-C, and a half-typed entry", function()
      open()
      screen:type("unfinished")
      screen:expect("unfinished")
      screen:type("\3")
      screen:expect("^C\n> ")
      screen:type("for i = 1, 2 do\r")
      screen:expect("\n.. ")
      screen:type("\3")
      screen:expect("^C\n> ")
      assert.equal("2", enter("1 + 1"))
      leave()
    end)

    at_terminal("stops a running loop at Ctrl-C and comes back", function()
      open()
      for _, loop in ipairs{"while true do end", "local n = 0 while true do n = n + 1 end", "while true do local x = unic.zeros(4, 4) end",
        "local a = unic.zeros(256, 256) while true do a = a:matmul(a) end",
        "(function() while true do end end)()"} do
        screen:type("print('begun') " .. (loop:find("^%(") and "local f = " .. loop or loop) .. "\r")
        screen:expect("\nbegun\n")
        screen:type("\3")
        screen:expect("interrupted")
        screen:expect("\n> ")
      end
      assert.equal("2", enter("1 + 1"))
      leave()
    end)

    at_terminal("stops a huge value's printing at Ctrl-C", function()
      open()
      screen:type("setmetatable({}, {__tostring = function() print('begun') while true do end end})\r")
      screen:expect("\nbegun\n")
      screen:type("\3")
      screen:expect("interrupted")
      screen:expect("\n> ")
      assert.equal("2", enter("1 + 1"))
      leave()
    end)

    at_terminal("leaves with 130 at a second Ctrl-C within two seconds when nothing answers", function()
      open()
      screen:type("print('begun') while true do pcall(function() while true do end end) end\r")
      screen:expect("\nbegun\n")
      screen:pause(0.3)   -- until it is inside the inner function: one that comes before it is answered
      screen:type("\3")
      screen:expect("^C")
      for _ = 1, 3 do   -- two signals at once are one: on a busy machine the second may have come too early
        screen:pause(0.3)
        screen:type("\3")
      end
      assert.equal(130, screen:close())
    end)

    at_terminal("is stopped by Ctrl-Z and comes back with the line as it was", function()
      -- The prompt under a shell with job control, which is what makes Ctrl-Z stop it.
      screen = pty.open("bash --norc --noprofile -i", { env = { TERM = "xterm", PS1 = "shell: ", XDG_STATE_HOME = folder .. "/state", HISTFILE = false } })
      screen:expect("shell: ")
      screen:type(root .. "/unic\r")
      screen:expect("\n> ")
      screen:type("1 + 41")
      screen:expect("1 + 41")
      screen:type("\26")
      screen:expect("Stopped")
      screen:expect("shell: ")
      screen:type("fg\r")
      screen:expect("1 + 41")
      screen:type("\r")
      screen:expect("\n42\n> ")
      screen:type("\4")
      screen:expect("shell: ")
      screen:type("exit 3\r")
      assert.equal(3, screen:close())
    end)

    at_terminal("takes accented letters in any locale", function()
      open()
      assert.equal('"corazón 北京"', enter("'corazón 北京'"))
      leave()
    end)

    at_terminal("shows the time of what takes longer than a second", function()
      open()
      assert.truthy(enter("os.execute('sleep 1.05')"):find("^0\n%(1%.%d%d s%)$"))
      leave()
    end)

    at_terminal("keeps its history from one session to the next", function()
      os.execute("rm -rf " .. folder .. "/state")
      open()
      assert.equal("12345", enter("12300 + 45"))
      leave()
      open()
      screen:type("\27[A")
      screen:expect("12300 + 45")
      screen:type("\r")
      screen:expect("\n12345\n> ")
      -- Ctrl-R finds it too.
      screen:type("\18" .. "300")
      screen:expect("12300 + 45")
      screen:type("\r")
      screen:expect("\n12345\n> ")
      leave()
    end)

    at_terminal("works without a home, on a poor terminal, and without colours", function()
      open("", { HOME = false, XDG_STATE_HOME = false })
      assert.equal("2", enter("1 + 1"))
      assert.equal(0, leave())
      open("", { TERM = "dumb" })
      assert.equal("2", enter("1 + 1"))
      screen:type("abc\3")
      screen:expect("> ")
      assert.equal("3", enter("1 + 2"))
      assert.equal(0, leave())
    end)

    at_terminal("colours errors on a terminal, and not with NO_COLOR", function()
      local function raw(env)
        local s = pty.open(root .. "/unic", { env = env })
        s:expect("> ")
        s:type("error('boo')\r")
        s:expect("\nboo")
        s:type("\4")
        s:close()
        return s.bytes
      end
      assert.truthy(raw({ TERM = "xterm", NO_COLOR = false }):find("\27[31mboo\27[0m", 1, true))
      local plain = raw({ TERM = "xterm", NO_COLOR = "1" })
      assert.falsy(plain:find("\27[31m", 1, true) or plain:find("\27[32m", 1, true))
    end)

    at_terminal("follows a script with -i: its locals are there after its end and after its error", function()
      local path = script("recipe.lua", [[
local rate = 0.1
local function train(n)
  if n == 0 then error("[train] argument 'n': 0 was given") end
  return n * rate
end
local result = train(tonumber(arg[1]))
]])
      open("-i " .. path .. " 3")
      assert.truthy(screen.all:find("rate, result, train", 1, true))
      assert.equal("0.3", enter("result"))
      assert.equal("0.5", enter("train(5)"))
      assert.equal(0, leave())
      open("-i " .. path .. " 0")
      assert.truthy(screen.all:find("[train] argument 'n': 0 was given\n  " .. path .. ":3: in train: if n == 0", 1, true))
      assert.equal("0.1", enter("rate"))
      assert.equal(0, leave())
    end)

    at_terminal("stops a script at Ctrl-C and offers its locals", function()
      local path = script("endless.lua", "local steps = 0\njit.off(true, true)\nprint('begun')\nwhile true do steps = steps + 1 end\n")
      screen = pty.open(root .. "/unic -i " .. path, { env = { TERM = "xterm" } })
      screen:expect("begun\n")
      screen:pause(0.1)
      screen:type("\3")
      screen:expect("interrupted\n  " .. path .. ":4: while true do")
      screen:expect("\n> ")
      assert.equal("true", enter("steps > 0"))
      leave()
    end)
  end)

  describe("behind a pipe", function()
    local function feed(text)
      local path = script("input", text)
      local output, code = shell(("XDG_STATE_HOME=%s/piped %s/unic < %s"):format(folder, root, path))
      return output, code
    end

    it("reads lines, prints values, and has no prompt, banner, colours or history", function()
      local output, code = feed("local x = 20\nx + 1\nfor i = 1, 2 do\n  print(i)\nend\n'last line without an end'")
      assert.equal('21\n1\n2\n"last line without an end"', output)
      assert.equal(0, code)
      assert.is_nil(io.open(folder .. "/piped/unic/history"))
    end)

    it("goes on after an error and exits with 1", function()
      local output, code = feed("error('boo')\nx y\n1 + 1\n")
      assert.equal("boo\n'=' expected near 'y'\n2", output)
      assert.equal(1, code)
    end)

    it("complains about an entry that does not end", function()
      local output, code = feed("for i = 1, 2 do\n")
      assert.equal("the input ends in the middle of an entry: for i = 1, 2 do", output)
      assert.equal(1, code)
    end)
  end)

  at_terminal("ends a script at Ctrl-C with 130, also in a loop that LuaJIT compiled", function()
    local path = script("compiled.lua", "print('begun')\nlocal n = 0\nwhile true do n = n + 1 end\n")
    local screen = pty.open(root .. "/unic " .. path, { env = { TERM = "xterm" } })
    screen:expect("begun\n")
    screen:pause(0.2)   -- the loop is compiled by now
    screen:type("\3")
    assert.equal(130, screen:close())
    assert.truthy(screen.all:find("interrupted\n", 1, true))
  end)
end)
