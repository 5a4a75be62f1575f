-- Every Lua block of README.md runs.
local unic = require "unic"

describe("README.md", function()
  local file = assert(io.open(unic.root .. "README.md"))
  local text = file:read "*a"
  file:close()
  local n = 0
  for block in text:gmatch "```lua\n(.-)```" do
    n = n + 1
    it("block " .. n .. " runs", function()
      local chunk = assert(loadstring(block, "=README.md block " .. n))
      setfenv(chunk, setmetatable({ print = function() end }, { __index = _G }))
      chunk()
    end)
  end
  it("has blocks", function() assert.is_true(n >= 2) end)
  it("says that no GPU was used", function() assert.is_truthy(text:find "ever run on a GPU") end)
end)
