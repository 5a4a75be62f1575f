-- ./unic test does not lint; .ci/run does: luacheck --no-color .
std = "luajit"
codes = true
max_line_length = 180
-- `not (x <= y)` is how a test is made to fail for NaN.
ignore = { "581" }
-- A recipe reads its options from arg.
globals = { "arg" }
exclude_files = { "build", ".build-asan", ".cache", "runs" }

-- Methods that share a signature need not use self.
self = false

files["spec"] = { std = "+busted" }
files[".busted"] = { std = "luajit" }
