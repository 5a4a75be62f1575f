-- The CUDA plug-in's own side, on the emulated device (spec/cuda_emu): late launches, poisoned memory, errors; and where there is no GPU, a sentence.
local ffi = require "ffi"
local unic = require "unic"

local root = (debug.getinfo(1, "S").source:match("^@(.*)spec/runtime/[^/]*$") or "./"):gsub("^$", "./")

local function shell(command)
  local pipe = io.popen(("cd '%s' && { %s ; } 2>&1"):format(root, command))
  local text = pipe:read("*a")
  pipe:close()
  return text
end

describe("cuda where it cannot be used", function()
  local name, why = unic.core.device_open "cuda"
  if name then pending("there is a GPU here: " .. name) return end

  it("says why in one sentence, and the CPU goes on", function()
    assert.matches("^%[device%] argument 'device': ", why)
    if not why:find("there is no device 'cuda' in this build", 1, true) then
      assert.matches("there is no cuda here: .*NVIDIA driver", why)
    end
    assert.raises_at(nil, "argument 'device': there is no", function() return unic.ones(1, { device = "cuda" }) end)
    assert.equal(3, unic.ones(3, { device = "cpu" }):sum():item())
  end)
end)

describe("the emulated GPU", function()
  local opened, why = unic.core.device_open "cuda-emu"
  if not opened then pending("cuda-emu is not built (./unic test --device cuda-emu builds it): " .. why) return end

  it("computes and differentiates as the CPU does", function()
    local function work(device)
      local g = unic.new_generator(3, device)
      local x = unic.randn(5, 7, { device = device, rng = g, requires_grad = true })
      local w = unic.randn(4, 7, { device = device, rng = g, requires_grad = true })
      local loss = unic.linear(x, w, nil, "gelu"):square():mean()
      loss:backward()
      return loss, x.grad, w.grad
    end
    local a, b = { work "cpu" }, { work "cuda-emu" }
    for i = 1, 3 do assert.close(a[i]:detach(), b[i]:detach():to "cpu", 1e-6) end
  end)
  it("has equal bits from run to run", function()
    local function run()
      local g = unic.new_generator(5, "cuda-emu")
      local x = unic.randn(300, 70, { device = "cuda-emu", rng = g })
      return unic.softmax(x, 1):to "cpu"
    end
    assert.same_bits(run(), run())
  end)
  it("hands out memory that holds NaN", function()
    local x = unic.empty(100, { device = "cuda-emu" }):to "cpu"
    for i = 1, 100 do assert.is_true(x[i]:item() ~= x[i]:item()) end
  end)
  it("raises what a late kernel found at the next synchronisation, once", function()
    local y = unic.embedding(unic.tensor({ 9 }, { dtype = "i64", device = "cuda-emu" }), unic.zeros(3, 2, { device = "cuda-emu" }))
    assert.raises_at(nil, "%[embedding%] argument 'ids': value 9", function() unic.synchronize "cuda-emu" end)
    assert.same({ 1, 2 }, y.shape)
    unic.synchronize "cuda-emu"
  end)
  it("has a second one, and does not mix them", function()
    local a, b = unic.ones(2, { device = "cuda-emu:0" }), unic.ones(2, { device = "cuda-emu:1" })
    assert.raises_at(nil, "it is on cuda%-emu:1 and the tensors before it are on cuda%-emu:0; t:to%(\"cuda%-emu:0\"%) moves it", function() return a + b end)
    assert.same({ 2, 2 }, (a + b:to "cuda-emu:0"):totable())
    assert.raises_at(nil, "cuda%-emu:7.*there are 2", function() return unic.ones(1, { device = "cuda-emu:7" }) end)
  end)
  it("lends no pointer", function()
    assert.raises_at(nil, "memory Lua cannot reach", function() return unic.ones(1, { device = "cuda-emu" }):data_ptr() end)
  end)
  it("says so when there is no memory", function()
    local line = "print(select(2, pcall(unic.ones, 3, { device = [[cuda-emu]] })))"
    assert.matches("%[cuda%-emu%] cudaMalloc: out of memory", shell("EMU_FAIL_MALLOC=1 ./unic -e '" .. line .. "'"))
    assert.matches("%[memory%] cuda%-emu:0: 2048 bytes asked for, the device has no room for them", shell("EMU_FAIL_MALLOC=2 ./unic -e '" .. line .. "'"))
  end)

  it("stands by its name among the devices of this build", function()
    assert.raises_at(nil, "there is no device 'tpu' in this build, expected one of: cpu, meta, .*cuda%-emu", function() return unic.ones(1, { device = "tpu" }) end)
  end)

  it("times launches by its own clock", function()
    local report = unic.profile(function() unic.randn(64, 64, { device = "cuda-emu" }):relu():sum() end)
    assert.is_true(#report.events >= 3)
    local sum = 0
    for _, e in ipairs(report.events) do
      assert.is_true(e.seconds > 0)
      sum = sum + e.seconds
    end
    assert.is_true(sum < report.seconds)
  end)
end)

-- What the emulated device is for: faults that a GPU would let pass, or answer with wrong numbers.
describe("the emulated GPU finds", function()
  local path = package.searchpath("unic_cuda_emu", package.cpath)
  if not path or not unic.core.device_open "cuda-emu" then pending "cuda-emu is not built" return end
  ffi.cdef "const char *unic_emu_planted(const char *name);"
  local emulator = ffi.load(path)
  local function planted(name) return ffi.string(emulator.unic_emu_planted(name)) end

  it("nothing where nothing is wrong", function() assert.equal("", planted "correct") end)
  for name, sentence in pairs {
    ["no wait"] = "kernel without_wait, block %(0, 0, 0%), thread %(%d, 0, 0%): it ends with copies that unic_copy_wait never waited for",
    ["absent lane"] = "lanes",
    ["own mask"] = "its own lane %d+ is not in the mask 0000ffff",
    ["two operations"] = "lanes of one warp meet in different operations",
    ["half at the barrier"] = "names lanes that are at their end|is not in the mask|wait for ever",
    ["far away"] = "an access to 0x%x+, where there is no memory",
    ["odd address"] = "an atomic's address is not a multiple of 4 bytes",
    ["much static"] = "static shared memory is 52000 bytes, more than 49152",
    ["much dynamic"] = "50000 bytes of dynamic shared memory, 49152 are allowed",
    ["no blocks"] = "invalid configuration argument: kernel nothing: a grid of 0 x 1 x 1 blocks",
    ["large block"] = "a block of 1025 x 1 x 1 threads",
    ["no stream"] = "invalid resource handle: the default stream",
    ["host pointer"] = "kernel nothing: argument 1 %(0x%x+%) is no pointer to the device's memory",
    ["copy up from the device"] = "the source 0x%x+ is memory of the device",
    ["copy down to the device"] = "the target 0x%x+ is memory of the device",
    ["clear the host"] = "and the 16 bytes from there are not the device's",
    ["wait in a capture"] = "cudaStreamSynchronize while a stream captures",
  } do
    it(name, function()
      local said, found = planted(name), false
      for pattern in sentence:gmatch("[^|]+") do found = found or said:find(pattern) ~= nil end
      if not found then error(("said '%s', expected '%s'"):format(said, sentence)) end
    end)
  end
end)
