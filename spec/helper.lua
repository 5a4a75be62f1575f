--- Loaded once by busted before any spec: the assertions that the specs share.
require("unic.testing").install()
