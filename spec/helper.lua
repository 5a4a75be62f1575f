--- Loaded once by busted before any spec: the assertions that the specs share.
local busted = require "busted"

-- busted gives its words to the spec files alone; the shared makers of specs in spec/support need them too.
for _, name in ipairs { "describe", "it", "pending", "before_each", "after_each", "setup", "teardown", "finally" } do
  rawset(_G, name, busted[name])
end

require("unic.testing").install()

-- oneDNN settles on an instruction set at its first use, for the whole process. Specs of ops force narrower tables; what comes after them
-- would then differ in its last bits from the programs that it is compared with.
local unic = require "unic"
unic.matmul(unic.ones({ 2, 2 }, { device = "cpu" }), unic.ones({ 2, 2 }, { device = "cpu" }))
