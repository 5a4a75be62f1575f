-- The encoders of the paper's sizes in the main recipe: three steps of eight pairs, memory of the whole process
-- Cost: about 15 min
package.path = "./?.lua;" .. package.path
local support = require "spec.support.check"
local check = support.open "full_size"

-- The process's own high-water mark, read while it lives.
local RUN = [[
dir=$(mktemp -d)
./unic recipes/pretrain_medunic.lua --vision %s --text bert_base --batch 8 --steps 3 --studies 64 --log-every 1 --run $dir/run >$dir/out 2>$dir/err &
pid=$!
while kill -0 $pid 2>/dev/null; do
  grep VmHWM /proc/$pid/status >$dir/now 2>/dev/null && mv $dir/now $dir/peak
  sleep 0.5
done
wait $pid
code=$?
[ $code = 0 ] || cat $dir/err >&2
awk -F, 'NR == 1 { for (i = 1; i <= NF; i++) if ($i == "seconds") c = i } NR == 3 { a = $c } NR == 4 { b = $c } END { print "step " b - a }' $dir/run/metrics.csv
awk '{ print "peak " $2 / 1048576 }' $dir/peak
tail -n 1 $dir/out
rm -rf $dir
exit $code
]]

for _, vision in ipairs { "resnet50", "vit_b16", "vit_l32" } do
  local line = check:once(vision, function()
    local output, code = support.shell(RUN:format(vision), { log = ".cache/check/full_size.log", timeout = 3600 })
    if code ~= 0 then error(("%s failed\n%s"):format(vision, output:sub(-2000)), 0) end
    return ("%s %s %s"):format(output:match "step (%S+)", output:match "peak (%S+)", output:match "result (.*)$")
  end)
  local step, peak = line:match "^(%S+) (%S+)"
  check:note(vision .. "_seconds_per_step", tonumber(step))
  check:at_most(vision .. "_peak_gib", tonumber(peak), 24)
end
check:close()
