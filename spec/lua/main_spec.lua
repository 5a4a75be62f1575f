--- The launcher and what it runs, as a user meets them: output, exit codes, traces.
local shell = require("spec.support.check").shell
local root = require("lfs").currentdir()

describe("./unic", function()
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

  local function unic(words) return shell(root .. "/unic " .. words) end

  it("runs a script with its arguments", function()
    local path = script("args.lua", "print(arg[0], arg[1], #arg, ...)\n")
    local output, code = unic(path .. " one '--two words'")
    assert.equal(path .. "\tone\t2\tone\t--two words", output)
    assert.equal(0, code)
  end)

  it("runs from any folder and through a symbolic link", function()
    os.execute(("ln -s %s/unic %s/u"):format(root, folder))
    local path = script("here.lua", "print(require('unic').version ~= nil)\n")
    assert.equal("true", (shell(("cd %s && ./u here.lua"):format(folder))))
    assert.equal("true", (shell("cd / && " .. folder .. "/u " .. path)))
  end)

  it("shows the sentence alone, then the calls from the user's line on", function()
    local path = script("fail.lua", [[
local function step()
  error("[add] argument 'x': wrong")
end
local function train() step() end
local ok = pcall(error, "caught")
train()
print("not reached")
]])
    local output, code = unic(path)
    assert.equal(1, code)
    assert.equal((([[
[add] argument 'x': wrong
  PATH:2: in step: error("[add] argument 'x': wrong")
  PATH:4: in train: local function train() step() end
  PATH:6: train()]]):gsub("PATH", path)), output)
  end)

  it("shows an error that is a table with __tostring", function()
    local output = unic(script("object.lua", "error(setmetatable({}, {__tostring = function() return 'as text' end}))\n"))
    assert.matches("^as text\n", output)
  end)

  it("shortens the trace of a deep recursion", function()
    local output, code = unic(script("deep.lua", "local function f(n) if n == 0 then error('deep') end f(n - 1) return n end f(200)\n"))
    assert.equal(1, code)
    assert.matches("\n  %.%.%. %d+ more\n", output)
    local _, lines = output:gsub("\n", "")
    assert.is_true(lines < 30)
  end)

  it("names file and line of a syntax error", function()
    local path = script("syntax.lua", "\nlocal x = = 3\n")
    local output, code = unic(path)
    assert.equal(path .. ":2: unexpected symbol near '='", output)
    assert.equal(1, code)
  end)

  it("exits with what os.exit was given", function()
    local _, code = unic(script("exit.lua", "os.exit(7)\n"))
    assert.equal(7, code)
  end)

  it("exits with 130 after Ctrl-C", function()
    local path = script("sleep.lua", [[
local ready = io.open(arg[1], "w"); ready:close()
jit.off(true)
local t = os.time() + 20
while os.time() < t do end
]])
    local output, code = shell(([[
%s/unic %s %s/ready & pid=$!
for i in $(seq 200); do [ ! -e %s/ready ] || break; sleep 0.05; done
kill -INT $pid; wait $pid]]):format(root, path, folder, folder))
    assert.equal(130, code)
    assert.equal("interrupted", output)
  end)

  it("tells what it is and what it runs on", function()
    local output, code = unic("info")
    assert.equal(0, code)
    for _, name in ipairs { "unic", "built with", "processor", "kernels", "threads", "memory", "libraries", "devices" } do
      assert.matches("\n" .. name .. " +%S", "\n" .. output)
    end
    assert.matches("oneDNN %d", output)
    assert.matches("never run on a GPU", output, 1, true)
  end)

  it("runs a line of Lua", function()
    local output, code = unic([[-e 'print(1 + 1, ...)' a b]])
    assert.equal("2\ta\tb", output)
    assert.equal(0, code)
    output, code = unic([[-e 'error("no")']])
    assert.matches("^no\n", output)
    assert.equal(1, code)
  end)

  it("answers wrong use with a sentence and 2", function()
    local cases = {
      ["tset"] = "unic: unknown command 'tset' (did you mean 'test'?); ./unic help lists what there is",
      ["frobnicate"] = "unic: unknown command 'frobnicate'; ./unic help lists what there is",
      ["bnech"] = "unic: unknown command 'bnech' (did you mean 'bench'?); ./unic help lists what there is",
      ["bench --fast"] = "unic: bench: unknown option '--fast'; ./unic bench lists them",
      ["--fast"] = "unic: unknown option '--fast'; ./unic help lists what there is",
      ["nowhere/x.lua"] = "unic: no such file: nowhere/x.lua",
      ["-e"] = "unic: -e needs a line of Lua: ./unic -e 'print(1)'",
      ["-i nowhere.lua"] = "unic: no such file: nowhere.lua",
      ["test --fast"] = "unic: test: unknown option '--fast', expected --device D, --slowest N, --stop or --list",
      ["test --slowest many"] = "unic: test: --slowest needs a whole number, not 'many'",
      [folder] = "unic: " .. folder .. " is a folder, expected a Lua file",
    }
    for words, sentence in pairs(cases) do
      local output, code = unic(words)
      assert.equal(sentence, output)
      assert.equal(2, code)
    end
    local output, code = unic("check no_such_check")
    assert.matches("^unic: no check 'no_such_check', expected one of: .*isa", output)
    assert.equal(2, code)
  end)

  it("lists every check with what it costs", function()
    local output = unic("check")
    local count = 0
    for name, title, cost in output:gmatch("\n\n  ([%w_]+) +([^\n]+)\n +cost: ([^\n]+)") do
      count = count + 1
      assert.is_true(#title > 10, name)
      assert.is_true(cost ~= "?" and #cost > 2, name)
    end
    local _, files = shell("ls spec/check/*.lua spec/check/*.sh"):gsub("[^\n]+", "")
    assert.equal(files, count)
  end)

  it("starts within 60 ms", function()
    -- The best of five: the machine may be busy with something else.
    local output = shell(([[for i in 1 2 3 4 5; do
a=$(date +%%s%%N); %s/unic -e 'print(1)' >%s/out; b=$(date +%%s%%N); echo $(( (b - a) / 1000 )); done]]):format(root, folder))
    local best = math.huge
    for us in output:gmatch("%d+") do best = math.min(best, tonumber(us)) end
    assert.is_true(best <= 60000, ("took %d us"):format(best))
  end)
end)

describe("./unic test", function()
  local folder

  -- A small tree of its own around the real launcher's Lua side.
  setup(function()
    folder = os.tmpname()
    os.remove(folder)
    os.execute(([[
      mkdir -p FOLDER/lua FOLDER/spec/support
      ln -s ROOT/lua/unic FOLDER/lua/unic
      cp ROOT/.busted FOLDER
      touch FOLDER/spec/helper.lua
      cp ROOT/spec/support/unic_output.lua FOLDER/spec/support]]):gsub("FOLDER", folder):gsub("ROOT", root))
    local function spec(name, source)
      local file = assert(io.open(("%s/spec/%s_spec.lua"):format(folder, name), "w"))
      file:write(source)
      file:close()
    end
    spec("good", [[
      describe("good", function()
        it("adds", function() assert.equal(2, 1 + 1) end)
        it("is dry", function() assert.is_true(true) end)
      end)]])
    spec("bad", [[
      describe("bad", function()
        it("is wrong", function() assert.equal(3, 1 + 1) end)
        it("breaks", function() error("broken") end)
      end)]])
    spec("absent", "it('needs a device', function() pending('no device here') end)")
    spec("setup", "describe('s', function() setup(function() error('no set-up') end) it('waits', function() end) end)")
  end)

  teardown(function() os.execute("rm -r " .. folder) end)

  local function test(words)
    local paths = ("LUA_PATH='%s/lua/?.lua;;' LUA_CPATH='%s/build/?.so;;'"):format(folder, folder)
    return shell(("cd / && %s luajit %s/lua/unic/main.lua test %s"):format(paths, folder, words))
  end

  local function last_line(output) return output:match("([^\n]*)$") end

  it("ends with the counts, alone on the last line, errors among the failures", function()
    local output, code = test("")
    assert.equal("2 passed, 3 failed, 1 skipped", last_line(output))
    assert.equal(1, code)
    assert.matches("skipped 1: no device here", output, 1, true)
    assert.matches("bad is wrong", output, 1, true)
    assert.matches("no set-up", output, 1, true)
    assert.matches("slowest:", output, 1, true)
  end)

  it("chooses files by a part of their path", function()
    local output, code = test("good")
    assert.equal("2 passed, 0 failed, 0 skipped", last_line(output))
    assert.equal(0, code)
  end)

  it("chooses tests by a part of their name when no file matches", function()
    local output, code = test("good 'is dry'")
    assert.equal("1 passed, 0 failed, 0 skipped", last_line(output))
    assert.equal(0, code)
  end)

  it("stops at the first failure when asked", function()
    local output, code = test("bad --stop")
    assert.equal("0 passed, 1 failed, 0 skipped", last_line(output))
    assert.equal(1, code)
  end)

  it("fails when no test ran", function()
    local output, code = test("good 'no such test'")
    assert.equal("0 passed, 1 failed, 0 skipped", last_line(output))
    assert.matches("no test ran", output, 1, true)
    assert.equal(1, code)
    output, code = test("absent")
    assert.matches("every test was skipped", output, 1, true)
    assert.equal(1, code)
  end)

  it("hands the device to the specs", function()
    local file = assert(io.open(folder .. "/spec/device_spec.lua", "w"))
    file:write("it('sees it', function() assert.equal('far', os.getenv('UNIC_DEVICE')) end)")
    file:close()
    local output, code = test("device_spec --device far")
    assert.equal("1 passed, 0 failed, 0 skipped", last_line(output))
    assert.equal(0, code)
  end)
end)

describe("the bootstrap", function()
  it("names the packages and installs nothing when UNIC_APT is 0", function()
    -- A path without compiler and LuaJIT, in a tree that was never built.
    local output, code = shell(([[
d=$(mktemp -d); mkdir $d/bin $d/tree; cp %s/unic $d/tree
for tool in sh readlink sed awk find flock mkdir cat tr tail grep mv id env; do ln -s "$(command -v $tool)" $d/bin/$tool; done
PATH=$d/bin UNIC_APT=0 $d/tree/unic -e 'print(1)'; code=$?
rm -r $d; exit $code]]):format(root))
    assert.equal(1, code)
    assert.matches("^unic: missing: cc cmake ninja pkg%-config luajit luacheck%. Debian has it in these packages: gcc .*libdnnl%-dev", output)
  end)
end)

describe("the build", function()
  it("is configured anew when its build.ninja is gone or cannot be read", function()
    -- A tree of a few lines: its module is an empty file, its program says that it runs.
    local output, code = shell(([[
d=$(mktemp -d); cd $d; mkdir -p runtime kernels lua/unic; cp %s/unic %s/CMakePresets.json .
echo 'print "it runs"' >lua/unic/main.lua
cat >CMakeLists.txt <<'END'
cmake_minimum_required(VERSION 3.24)
project(unic NONE)
add_custom_command(OUTPUT unic.so COMMAND ${CMAKE_COMMAND} -E touch unic.so)
add_custom_target(module ALL DEPENDS unic.so)
END
for harm in true 'rm build/build.ninja' 'echo "build unic.so: no_such_rule" >build/build.ninja'; do
  sh -c "$harm"; rm -f build/unic.so
  UNIC_DEVICE= ./unic -e '' 2>&1 || cat build/build.log
done
cd /; rm -r $d]]):format(root, root))
    assert.equal(0, code)
    assert.equal(("unic: building (log: build/build.log)\nit runs\n"):rep(3), output .. "\n")
  end)
end)
