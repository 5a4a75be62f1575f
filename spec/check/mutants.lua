-- Plants faults one at a time (spec/check/mutants.csv) and counts those that the suite catches
-- Cost: a build and one suite, then about 3 s for each fault (120 of them: 6 min on two quiet cores), a whole suite for a missed one
-- Options: --only N,M (rows by number), --fresh (forget what was found before); a stopped run goes on where it stopped
package.path = "./?.lua;" .. package.path
local check = require("spec.support.check").open "mutants"
require("spec.support.plant").run(check, { faults = "spec/check/mutants.csv", least = 40, whole = "" })
check:close()
