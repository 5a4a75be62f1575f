--- Where `./unic` arrives: runs a recipe, a line of code, the prompt, the tests or a check.
local root = table.remove(arg, 1)
local first = arg[1]
if first == "-e" then
  assert(loadstring(arg[2], "=-e"))()
elseif first == "test" then
  require("lfs").chdir(root)
  local pattern = arg[2]
  arg = { [0] = "busted" }
  if pattern then arg[1] = "--filter=" .. pattern end
  require "busted.runner" { standalone = false }
elseif first then
  table.remove(arg, 1)
  arg[0] = first
  dofile(first)
end
