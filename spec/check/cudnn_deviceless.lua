-- The convolutions that ResNet-50, a U-Net, YOLOv3 and ViTs ask cuDNN for at full size, in bf16, f16 and f32, planned by the real library for six GPUs that are only described
-- Cost: about 10 min on two cores (kept per GPU and type); --write makes spec/cuda/cudnn.csv anew
--
-- A training step of each network runs dry through the whole CUDA backend on the emulated device; its cuDNN forwards every descriptor to the real library, so
-- that heuristics, support checks, compilation and workspace are NVIDIA's own answers. No kernel of cuDNN has run. Occupancy is invented (driver.c).
package.path = "./?.lua;" .. package.path
local files = require "unic.files"
local support = require "spec.support.check"
local check = support.open "cudnn_deviceless"

local TABLE, FOLDER, LOG = "spec/cuda/cudnn.csv", ".cache/check/cudnn", ".cache/check/cudnn/log"
local GPUS = { "a100", "rtx3090", "rtx4090", "h100", "b200", "rtx5090" }
local DTYPES = { "bf16", "f16", "f32" }
local NETWORKS = { "resnet50:batch=128", "unet:batch=8", "yolov3:batch=16", "vit_b16:batch=128", "vit_l32:batch=128", "bert_base:batch=32" }
local MOST = 512   -- MiB of workspace that kernels/conv2d.cu allows

os.execute("mkdir -p " .. FOLDER)
local function run(command, timeout) return support.shell(command, { log = LOG, timeout = timeout }) end

-- The emulated device with the real library behind it.
local text, code = run("./unic -e '' --device cuda-emu", 1800)
if code ~= 0 then
  check:skip("all", text:match "[^\n]*$")
  check:close()
end
local stub = support.shell "ls ${CUDA_HOME:-/usr/local/cuda}/lib64/stubs/libcuda.so 2>/dev/null"
local library = support.shell "ls ${CUDA_HOME:-/usr/local/cuda}/lib64/libcudnn.so.9 2>/dev/null"
if stub == "" or library == "" then
  check:skip("all", "no cuDNN, or no stub of libcuda, under CUDA_HOME or /usr/local/cuda")
  check:close()
end
text, code = run(([[set -e
  cp spec/cuda_emu/driver.c %s/driver.c
  mine=" $(sed -n 's/^int \([A-Za-z0-9]*\)(.*/\1/p' spec/cuda_emu/driver.c | tr '\n' ' ') "
  nm -D --defined-only %s | awk '$2 == "T" && $3 ~ /^cu/ {print $3}' | while read -r name; do
    case "$mine" in *" $name "*) ;; *) echo "int $name(void) __attribute__((alias(\"fail\")));" ;; esac
  done >>%s/driver.c
  cc -w -shared -fPIC -Wl,-soname,libcuda.so.1 %s/driver.c -o %s/libcuda.so.1]]):format(FOLDER, stub, FOLDER, FOLDER, FOLDER), 60)
if not check:holds("stand_in_driver_builds", code == 0) then
  io.stderr:write(text, "\n")
  check:close()
end

-- What a run recorded: graph -> { networks, engine, workspace, why }. A line "network NAME" stands before what a network asked for.
local function read(path)
  local graphs, network = {}, nil
  for line in io.lines(path) do
    local kind, rest = line:match "^(%w+) (.*)$"
    local graph, engine, last = rest:match "^(.-) | (.-) | (.*)$"
    if kind == "network" then
      network = rest:match "^[%w_]+"
    else
      local g = graphs[graph or rest] or { networks = {} }
      graphs[graph or rest], g.networks[network] = g, true
      if kind == "runs" then g.engine, g.workspace = engine, tonumber(last) / 2 ^ 20
      elseif kind == "refused" then g.why = ("%s: %s"):format(engine, last)
      elseif kind == "planned" and tonumber(last) / 2 ^ 20 > MOST then g.why = ("%s: %.0f MiB of workspace"):format(engine, tonumber(last) / 2 ^ 20) end
    end
  end
  return graphs
end

-- One process for a GPU and a type, as many at a time as there are cores; results of a tree are kept.
local COMMAND = 'EMU_DRY=1 EMU_PLANS="$1" EMU_GPU="$2" LD_LIBRARY_PATH=' .. FOLDER .. ' LUA_PATH="$PWD/lua/?.lua;$PWD/lua/?/init.lua;;" LUA_CPATH="$PWD/build/?.so;;"'
  .. ' luajit spec/cuda/asked.lua "$3" ' .. table.concat(NETWORKS, " ") .. ' >"$1.log" 2>&1; echo $? >"$1.status"'
local function record_of(dtype, gpu) return ("%s/%s_%s"):format(FOLDER, dtype, gpu) end
local todo = {}
for _, dtype in ipairs(DTYPES) do
  for _, gpu in ipairs(GPUS) do
    if not check.state[dtype .. gpu] then
      os.remove(record_of(dtype, gpu))
      todo[#todo + 1] = ("%s %s %s"):format(record_of(dtype, gpu), gpu, dtype)
    end
  end
end
if #todo > 0 then
  local list = assert(io.open(FOLDER .. "/todo", "w"))
  list:write(table.concat(todo, "\n"), "\n")
  list:close()
  local script = assert(io.open(FOLDER .. "/one.sh", "w"))
  script:write(COMMAND, "\n")
  script:close()
  run(("xargs -r -P $(nproc) -L 1 sh %s/one.sh <%s/todo"):format(FOLDER, FOLDER), 3600)
end

local rows, order = {}, {}   -- dtype .. graph -> { [gpu] = what came of it, networks = {} }
local failed = 0
for _, dtype in ipairs(DTYPES) do
  for _, gpu in ipairs(GPUS) do
    local record = record_of(dtype, gpu)
    local status = check:once(dtype .. gpu, function() return support.shell(("cat %s.status"):format(record)) end)
    if status ~= 0 then
      failed = failed + 1
      check:holds(("%s_%s_runs_dry"):format(dtype, gpu), false)
      io.stderr:write(support.shell(("tail -n 20 %s.log"):format(record)), "\n")
    end
    for graph, answer in pairs(read(record)) do
      local row = rows[dtype .. graph]
      if not row then
        row = { dtype = dtype, graph = graph, networks = {} }
        rows[dtype .. graph] = row
        order[#order + 1] = row
      end
      row[gpu] = answer
      for name in pairs(answer.networks) do row.networks[name] = true end
    end
  end
end
check:note("dry_training_steps", #DTYPES * #GPUS * #NETWORKS)
check:at_most("processes_failed", failed, 0)

table.sort(order, function(a, b)
  if a.dtype ~= b.dtype then return a.dtype < b.dtype end
  return a.graph < b.graph
end)

-- Where a graph is refused, what conv2d.cu does: a fused form goes on as the plain one (whose row is then there and runs), a plain one in the own kernels.
local function takes_over(graph)
  if graph:match ", %+ bias" then return "the plain graph, and a pass that adds the bias" end
  if graph:match ", %+ cast" then return "the plain graph in the half type, widened after" end
  return "own kernel (product_kernel)"
end

local planned, refused, plain_refused, most, differ = 0, 0, 0, 0, 0
local lines = { "type,networks,graph," .. table.concat(GPUS, ",") .. ",instead" }
for _, row in ipairs(order) do
  local names, cells, missing = {}, {}, false
  for name in pairs(row.networks) do names[#names + 1] = name end
  table.sort(names)
  for i, gpu in ipairs(GPUS) do
    local a = row[gpu]
    if not a then
      cells[i] = "not asked"   -- a form before it was taken there
    elseif a.engine then
      planned, most = planned + 1, math.max(most, a.workspace)
      cells[i] = ("%s %.1f MiB"):format(a.engine, a.workspace)
    else
      refused, missing = refused + 1, true
      if not row.graph:match ", %+" then plain_refused = plain_refused + 1 end
      cells[i] = "refused (" .. (a.why or "no engine that is allowed"):gsub(",", ";") .. ")"
    end
  end
  lines[#lines + 1] = ("%s,%s,%s,%s,%s"):format(row.dtype, table.concat(names, " "), row.graph:gsub(",", ";"), table.concat(cells, ","), missing and takes_over(row.graph) or "")
end
local made = table.concat(lines, "\n") .. "\n"

local write = false
for _, word in ipairs(arg) do write = write or word == "--write" end
if write then
  local output = files.output(TABLE)
  output:write(made)
  output:commit()
else
  local known = {}
  local file = io.open(TABLE)
  if file then
    for line in file:lines() do known[line] = true end
    file:close()
  end
  for _, line in ipairs(lines) do if not known[line] then differ = differ + 1 end end
  check:at_most("lines_unlike_the_table", differ, 0)
end
check:note("graphs", #order)
check:note("plans", planned)
check:note("refused_fused_or_plain", refused)
check:note("most_workspace_mib", most)
check:at_most("plain_graphs_refused", plain_refused, 0)
check:at_least("graphs_planned", planned, 1000)
check:close()
