-- unic.debug: the prompt in the middle of a program.
local support = require "spec.support.files"

describe("unic.debug", function()
  -- A script with its own lines typed at each stop.
  local function run(script, typed)
    local dir = support.folder()
    support.write(dir .. "/script.lua", script)
    support.write(dir .. "/typed", typed)
    local pipe = io.popen(("./unic %s/script.lua <%s/typed 2>&1"):format(dir, dir))
    local output = pipe:read "*a"
    pipe:close()
    support.remove(dir)
    return (output:gsub("%S+/script%.lua", "script.lua"))
  end

  it("shows locals and what is used from around, and sets them", function()
    local output = run([[
local unic = require "unic"
local total = 0
local function step(i)
  local x = i * 10
  if i == 2 then unic.debug() end
  total = total + x
  return x
end
for i = 1, 3 do step(i) end
print("total", total)
]], "x + 1\ntotal\nx = 1000\ntotal = total + 5\n")
    assert.equal("stopped at script.lua:5; Ctrl-D goes on\nvariables: i, total, unic, x\n21\n10\ntotal\t1045\n", output)
  end)

  it("goes on after an error at the prompt, and stops again", function()
    local output = run([[
local unic = require "unic"
for i = 1, 2 do
  unic.debug()
  print("after", i)
end
]], "nothing.x\ni\nexit\ni\n")
    assert.equal([[
stopped at script.lua:3; Ctrl-D goes on
variables: i, unic
attempt to index global 'nothing' (a nil value)
1
after	1
stopped at script.lua:3; Ctrl-D goes on
variables: i, unic
2
after	2
]], output)
  end)
end)
