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
