--- Loaded once by busted before any spec: the assertions that the specs share.
local busted = require "busted"

-- busted gives its words to the spec files alone; the shared makers of specs in spec/support need them too.
for _, name in ipairs { "describe", "it", "pending", "before_each", "after_each", "setup", "teardown", "finally" } do
  rawset(_G, name, busted[name])
end

require("unic.testing").install()
