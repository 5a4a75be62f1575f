-- Files get their name when they are whole, by one rename.
local lfs = require "lfs"
local files = require "unic.files"
local support = require "spec.support.files"

describe("output", function()
  local folder
  before_each(function() folder = support.folder() end)
  after_each(function() support.remove(folder) end)

  it("has its name only after commit", function()
    local path = folder .. "/a.txt"
    local output = files.output(path)
    output:write("one ", "two"):write(" three")
    assert.is_nil(lfs.attributes(path))
    assert.equal(1, #support.list(folder))
    assert.truthy(support.list(folder)[1]:find("^a%.txt%.tmp%-%d+%-%d+$"))
    output:commit()
    assert.equal("one two three", support.read(path))
    assert.same({ "a.txt" }, support.list(folder))
  end)

  it("leaves the old file when it is abandoned, by hand or by the collector", function()
    local path = support.write(folder .. "/a.txt", "old")
    local output = files.output(path)
    output:write("new")
    output:abandon()
    assert.same({ "a.txt" }, support.list(folder))
    output = files.output(path)
    output:write("new")
    output = nil   -- luacheck: ignore 311
    collectgarbage()
    collectgarbage()
    assert.same({ "a.txt" }, support.list(folder))
    assert.equal("old", support.read(path))
  end)

  it("is durable on demand, any number of bytes", function()
    local text = ("0123456789"):rep(100000) .. "\0end"
    files.write_file(folder .. "/a.bin", text, { durable = true })
    assert.equal(text, support.read(folder .. "/a.bin"))
    files.write_file(folder .. "/a.bin", "")
    assert.equal("", support.read(folder .. "/a.bin"))
  end)

  it("replaces the file behind a link, not the link", function()
    support.write(folder .. "/target", "old")
    assert(lfs.link("target", folder .. "/link", true))
    files.write_file(folder .. "/link", "new")
    assert.equal("new", support.read(folder .. "/target"))
    assert.equal("link", lfs.symlinkattributes(folder .. "/link", "mode"))
  end)

  -- Run a Lua chunk in a process of its own; `before` is shell code that runs first. Returns what it prints.
  local function elsewhere(before, chunk)
    support.write(folder .. "/chunk", ("package.path, package.cpath = %q, %q\nlocal folder = %q\n"):format(package.path, package.cpath, folder) .. chunk)
    local pipe = io.popen(before .. " luajit '" .. folder .. "/chunk' 2>&1")
    local text = pipe:read("*a")
    pipe:close()
    os.remove(folder .. "/chunk")
    return text
  end

  it("leaves the old file when the disk is full", function()
    support.write(folder .. "/a", "old")
    support.write(folder .. "/b", "old")
    -- A limit on the size of files gives the same error path (EFBIG instead of ENOSPC), and needs no disk.
    local text = elsewhere("trap '' XFSZ; ulimit -f 8;", [[
      local files = require "unic.files"
      local long = ("x"):rep(1e6)
      print(select(2, pcall(files.write_file, folder .. "/a", long)))
      print(select(2, pcall(files.safetensors_save, folder .. "/b", { t = { dtype = "U8", shape = { #long }, data = long } })))]])
    assert.truthy(text:find("[output] '" .. folder .. "/a': cannot be written (File too large)", 1, true), text)
    assert.truthy(text:find("[safetensors_save] '" .. folder .. "/b': cannot be written (File too large)", 1, true), text)
    assert.same({ "a", "b" }, support.list(folder))
    assert.equal("old", support.read(folder .. "/a"))
    assert.equal("old", support.read(folder .. "/b"))
  end)

  it("is whole after a kill at any moment", function()
    local path = folder .. "/x.safetensors"
    for round = 1, 6 do
      -- The process writes one file after another until it is killed; each holds a single letter.
      elsewhere(("timeout -s KILL 0.%d"):format(2 + round % 3), [[
        local files = require "unic.files"
        for i = 0, math.huge do
          files.safetensors_save(folder .. "/x.safetensors",
            { t = { dtype = "U8", shape = { 3000000 }, data = string.char(97 + i % 26):rep(3000000) } })
        end]])
      if lfs.attributes(path) then
        local data = files.safetensors_open(path):data("t")
        assert.equal(3000000, #data)
        assert.equal(data:sub(1, 1):rep(3000000), data)
      end
    end
    assert.is_not_nil(lfs.attributes(path))
    files.safetensors_save(path, {})
    assert.same({}, files.safetensors_open(path):names())
  end)

  it("respects the caller's umask", function()
    files.write_file(folder .. "/a", "x")
    support.write(folder .. "/b", "x")
    assert.equal(lfs.attributes(folder .. "/b", "permissions"), lfs.attributes(folder .. "/a", "permissions"))
  end)

  it("says what is wrong", function()
    local message = support.refusal
    assert.equal("[output] '" .. folder .. "': is a folder, expected the name of a file to write", message(files.output, folder))
    assert.equal("[output] '/dev/null': is not a regular file and cannot be replaced", message(files.write_file, "/dev/null", "x"))
    assert.equal("[output] '" .. folder .. "/x/y': cannot be written (No such file or directory)", message(files.output, folder .. "/x/y"))
    assert.equal("[output] argument 'path': is empty, expected the name of a file", message(files.output, ""))
    local output = files.output(folder .. "/a")
    output:commit()
    assert.truthy(message(output.commit, output):find("is closed already", 1, true))
    assert.truthy(message(output.write, output, "x"):find("is closed already", 1, true))
  end)
end)
