--- Reads cubins (nvcc -cubin) without NVIDIA's tools: per kernel the counts of instructions that say whether it was compiled as meant.
--
-- SASS since Volta: an instruction is 128 bits, the opcode in bits 0 to 11, the width of a memory access in bits 73 to 75. The opcodes were calibrated by
-- small kernels on sm_80; the width of LDGSTS on sm_120 and atomics were not. Registers come from ptxas (-v), which prints them for every architecture.
local bit = require "bit"
local ffi = require "ffi"

local sass = {}

local NAMES = {
  [0x23c] = "HMMA", [0x237] = "IMMA", [0x7f0] = "HGMMA", [0x381] = "LDG", [0x981] = "LDG", [0x386] = "STG", [0x986] = "STG", [0x984] = "LDS", [0x388] = "STS",
  [0x988] = "STS", [0x983] = "LDL", [0x387] = "STL", [0x987] = "STL", [0x83b] = "LDSM", [0xfae] = "LDGSTS",
}
local WIDTH = { [4] = 32, [5] = 64, [6] = 128 }
local MEMORY = { LDG = true, STG = true, LDS = true, STS = true }

ffi.cdef [[
typedef struct { uint32_t name, type; uint64_t flags, address, offset, size; uint32_t link, info; uint64_t align, entry; } unic_elf_section;
]]

-- The section headers of an ELF file of 64 bits, and their names.
local function sections(data)
  local bytes = ffi.cast("const uint8_t *", data)
  local at = tonumber(ffi.cast("const uint64_t *", bytes + 40)[0])
  local counts = ffi.cast("const uint16_t *", bytes + 58)
  local n, names = counts[1], counts[2]
  local list = ffi.cast("const unic_elf_section *", bytes + at)
  local out = {}
  for i = 0, n - 1 do
    local name = ffi.string(bytes + tonumber(list[names].offset) + list[i].name)
    out[#out + 1] = { name = name, offset = tonumber(list[i].offset), size = tonumber(list[i].size), type = list[i].type }
  end
  return out, bytes
end

-- .nv.info.KERNEL is a list of (format, attribute, ...); attribute 5 is the largest block that __launch_bounds__ allows.
local function most_threads(bytes, section)
  local at, last = section.offset, section.offset + section.size
  while at + 4 <= last do
    local format, attribute = bytes[at], bytes[at + 1]
    local size = ffi.cast("const uint16_t *", bytes + at + 2)[0]
    if format == 4 then
      if attribute == 5 then
        local sizes = ffi.cast("const uint32_t *", bytes + at + 4)
        return sizes[0] * sizes[1] * sizes[2]
      end
      at = at + 4 + size
    else
      at = at + 4   -- the value, if any, is in the two bytes
    end
  end
end

--- Scan a cubin.
-- @param data the file's bytes
-- @return { [mangled name] = { instructions =, HMMA = count, LDG = ..., LDG128 = ..., threads = of __launch_bounds__ or nil } }
function sass.scan(data)
  assert(data:sub(1, 4) == "\127ELF", "sass: not an ELF file")
  local list, bytes = sections(data)
  local kernels = {}
  for _, s in ipairs(list) do
    local name = s.name:match "^%.text%.(.+)$"
    if name then
      local k = { instructions = s.size / 16 }
      for at = s.offset, s.offset + s.size - 16, 16 do
        local words = ffi.cast("const uint32_t *", bytes + at)
        local op = NAMES[bit.band(words[0], 0xfff)]
        if op then
          k[op] = (k[op] or 0) + 1
          if MEMORY[op] and WIDTH[bit.band(bit.rshift(words[2], 9), 7)] == 128 then k[op .. "128"] = (k[op .. "128"] or 0) + 1 end
        end
      end
      kernels[name] = k
    end
  end
  for _, s in ipairs(list) do
    local name = s.name:match "^%.nv%.info%.(.+)$"
    if name and kernels[name] then kernels[name].threads = most_threads(bytes, s) end
  end
  return kernels
end

--- What ptxas -v prints, by kernel.
-- @param text its output
-- @return { [mangled name] = { registers =, shared = bytes, stack = bytes, spills = bytes } }
function sass.ptxas(text)
  local kernels, now = {}, nil
  for line in text:gmatch "[^\n]+" do
    local name = line:match "Compiling entry function '([^']+)'"
    if name then
      now = { registers = 0, shared = 0, stack = 0, spills = 0 }
      kernels[name] = now
    elseif now then
      local stack, stores, loads = line:match "(%d+) bytes stack frame, (%d+) bytes spill stores, (%d+) bytes spill loads"
      if stack then now.stack, now.spills = tonumber(stack), stores + loads end
      local registers = line:match "Used (%d+) registers"
      if registers then now.registers, now.shared = tonumber(registers), tonumber(line:match "(%d+) bytes smem" or 0) end
    end
  end
  return kernels
end

--- Published limits of a multiprocessor, by architecture: warps, blocks, shared memory (bytes; a block takes 1 KB more than it asks for).
sass.limits = {
  [80] = { warps = 64, blocks = 32, shared = 167936 }, [86] = { warps = 48, blocks = 16, shared = 102400 }, [89] = { warps = 48, blocks = 24, shared = 102400 },
  [90] = { warps = 64, blocks = 32, shared = 233472 }, [100] = { warps = 64, blocks = 32, shared = 233472 }, [120] = { warps = 48, blocks = 24, shared = 102400 },
}

--- Blocks of a kernel that fit on a multiprocessor at once.
-- @param arch 80, 86, 89, 90, 100 or 120
-- @param registers of a thread
-- @param shared bytes of a block
-- @param threads of a block
function sass.blocks(arch, registers, shared, threads)
  local m = sass.limits[arch]
  local warps = math.ceil(threads / 32)
  -- Registers come in pieces of 256 for a warp; a quarter of the file belongs to each of the four schedulers.
  local of_warp = math.ceil(math.max(registers, 1) * 32 / 256) * 256
  local by_registers = math.floor(math.floor(16384 / of_warp) * 4 / warps)
  local by_shared = math.floor(m.shared / (math.ceil(shared / 128) * 128 + 1024))
  return math.min(m.blocks, math.floor(m.warps / warps), by_registers, by_shared)
end

return sass
