-- Every Lua block of README.md runs.
local unic = require "unic"
local support = require "spec.support.files"
local testing = require "unic.testing"

describe("README.md", function()
  local folder, print_was
  setup(function()
    folder = support.folder()
    print_was, testing.print = testing.print, function() end
  end)
  teardown(function()
    testing.print = print_was
    support.remove(folder)
  end)
  local file = assert(io.open(unic.root .. "README.md"))
  local text = file:read "*a"
  file:close()
  local n = 0
  for block in text:gmatch "```lua\n(.-)```" do
    n = n + 1
    it("block " .. n .. " runs", function()
      local chunk = assert(loadstring(block, "=README.md block " .. n))
      local here = setmetatable({ tmpname = function() return folder .. "/block" end }, { __index = os })
      setfenv(chunk, setmetatable({ print = function() end, os = here }, { __index = _G }))
      chunk()
    end)
  end
  it("has blocks", function() assert.is_true(n >= 2) end)
  it("says that no GPU was used", function() assert.is_truthy(text:find "ever run on a GPU") end)
end)
