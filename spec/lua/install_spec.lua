--- What `cmake --install` puts under a prefix is found by a plain luajit: nothing of the tree is needed.
local shell = require("spec.support.check").shell

describe("an installed copy", function()
  local prefix

  setup(function()
    prefix = os.tmpname()
    os.remove(prefix)
    local output, code = shell(("cmake --install build --prefix %s"):format(prefix))
    assert(code == 0, output)
  end)

  teardown(function() os.execute("rm -r " .. prefix) end)

  -- Below /usr/local these are LuaJIT's own search paths.
  local function lua(code)
    return shell(("cd / && unset UNIC_DEVICE && LUA_PATH='%s/share/lua/5.1/?.lua;%s/share/lua/5.1/?/init.lua;;' LUA_CPATH='%s/lib/lua/5.1/?.so;;' luajit -e %s")
      :format(prefix, prefix, prefix, "'" .. code:gsub("'", "'\\''") .. "'"))
  end

  it("computes", function()
    local output, code = lua [[
      local unic = require "unic"
      print(unic.tensor({1, 2, 3}):totable()[2], package.loaded["unic.core"] ~= nil)]]
    assert.equal("2\ttrue", output)
    assert.equal(0, code)
  end)

  it("has models, data readers and recipes under the names of the tree", function()
    local lfs = require "lfs"
    for folder, name in pairs { models = "models", data = "datasets", recipes = "recipes" } do
      if lfs.attributes(folder, "mode") == "directory" then
        for file in lfs.dir(folder) do
          local stem = file:match("^([%w_]+)%.lua$")
          if stem then
            assert.equal("file", lfs.attributes(("%s/share/lua/5.1/unic/%s/%s.lua"):format(prefix, name, stem), "mode"))
          end
        end
      end
    end
    assert.equal("true", (lua [[print((require "unic.text").stopwords("es")["porque"])]]))
    if lfs.attributes("models/resnet.lua") then
      local output = lua [[require "unic" print(type(require "unic.models.resnet"))]]
      assert.is_true(output == "table" or output == "function", output)
    end
  end)
end)
