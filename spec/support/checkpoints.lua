--- PyTorch's and NumPy's files built byte by byte, good ones and bad ones, for the specs and the fuzzing of their readers.
local ffi = require "ffi"
local support = require "spec.support.files"

local checkpoints = {}
local le = support.little_endian

-- ---------------------------------------------------------------- pickles, protocol 2

local pickle = {}
checkpoints.pickle = pickle

function pickle.text(s) return "X" .. le(#s, 4) .. s end
function pickle.int(n)
  if n >= 0 and n < 256 then return "K" .. string.char(n) end
  if n >= 0 and n < 65536 then return "M" .. le(n, 2) end
  if n >= -2 ^ 31 and n < 2 ^ 31 then return "J" .. le(n % 2 ^ 32, 4) end
  -- Multiples of 2^32 and such: exact as doubles, low and high half.
  return "\138\8" .. le(n % 2 ^ 32, 4) .. le(math.floor(n / 2 ^ 32) % 2 ^ 32, 4)
end
function pickle.global(module, name) return "c" .. module .. "\n" .. name .. "\n" end
function pickle.tuple(...) return "(" .. table.concat { ... } .. "t" end
function pickle.list(...) return "](" .. table.concat { ... } .. "e" end
function pickle.ints(list)
  local parts = {}
  for i, n in ipairs(list) do parts[i] = pickle.int(n) end
  return pickle.tuple(unpack(parts))
end
--- dict(key, value, key, value, ...): keys are Lua strings, values pickled.
function pickle.dict(...)
  local parts = {}
  for i = 1, select("#", ...), 2 do
    parts[#parts + 1] = pickle.text((select(i, ...)))
    parts[#parts + 1] = (select(i + 1, ...))
  end
  return "}(" .. table.concat(parts) .. "u"
end
function pickle.call(module, name, ...) return pickle.global(module, name) .. pickle.tuple(...) .. "R" end
function pickle.whole(body) return "\128\2" .. body .. "." end

pickle.none, pickle.yes, pickle.no = "N", "\136", "\137"

--- A tensor. `t`: class ("FloatStorage"), key ("0"), count (of the storage), offset, size, stride.
function pickle.tensor(t)
  local id = { pickle.text "storage", pickle.global("torch", t.class or "FloatStorage"), pickle.text(t.key or "0"), pickle.text "cpu", pickle.int(t.count) }
  if t.legacy then id[#id + 1] = t.view and pickle.tuple(pickle.text "v", pickle.int(t.view[1]), pickle.int(t.view[2])) or "N" end
  return pickle.call("torch._utils", t.rebuild or "_rebuild_tensor_v2", pickle.tuple(unpack(id)) .. "Q", pickle.int(t.offset or 0),
    t.size_bytes or pickle.ints(t.size), t.stride_bytes or pickle.ints(t.stride), pickle.no, pickle.call("collections", "OrderedDict"),
    unpack(t.more or {}))
end

-- ---------------------------------------------------------------- zip archives

ffi.cdef [[
  int compress2(uint8_t *to, unsigned long *to_bytes, const char *from, unsigned long bytes, int level);
  unsigned long compressBound(unsigned long bytes);
]]

--- Raw deflate.
function checkpoints.deflate(data)
  local z = ffi.load "libz.so.1"
  local bytes = ffi.new("unsigned long[1]", z.compressBound(#data))
  local out = ffi.new("uint8_t[?]", bytes[0])
  assert(z.compress2(out, bytes, data, #data, 9) == 0)
  return ffi.string(out + 2, bytes[0] - 6)   -- without the two bytes in front and the checksum behind
end

--- A zip archive.
-- @param members list of {name =, data =}; also deflated = true, and lies: crc, size, packed, method, flags, offset
function checkpoints.zip(members)
  local parts, directory, at = {}, {}, 0
  for _, m in ipairs(members) do
    local body = m.deflated and checkpoints.deflate(m.data) or m.data
    local crc = m.crc or support.crc32(m.data)
    local packed, size = m.packed or #body, m.size or #m.data
    local middle = le(m.flags or 0, 2) .. le(m.method or (m.deflated and 8 or 0), 2) .. le(0, 4) .. le(crc, 4) .. le(packed, 4) .. le(size, 4) .. le(#m.name, 2)
    local header = "PK\3\4" .. le(20, 2) .. middle .. le(0, 2) .. m.name
    directory[#directory + 1] = "PK\1\2" .. le(20, 2) .. le(20, 2) .. middle .. le(0, 2) .. le(0, 2) .. le(0, 2) .. le(0, 2) .. le(0, 4) .. le(m.offset or at, 4) .. m.name
    parts[#parts + 1] = header .. body
    at = at + #header + #body
  end
  local list = table.concat(directory)
  return table.concat(parts) .. list .. "PK\5\6" .. le(0, 4) .. le(#members, 2):rep(2) .. le(#list, 4) .. le(at, 4) .. le(0, 2)
end

--- A PyTorch file in its zip form.
-- @param object the pickled object
-- @param storages {key = bytes}
-- @param options table: `more` (further members), `byteorder`, `deflated`, `folder`
function checkpoints.torch(object, storages, options)
  options = options or {}
  local folder = options.folder or "archive"
  local members = { { name = folder .. "/data.pkl", data = pickle.whole(object), deflated = options.deflated },
    { name = folder .. "/byteorder", data = options.byteorder or "little" } }
  local keys = {}
  for key in pairs(storages or {}) do keys[#keys + 1] = key end
  table.sort(keys)
  for _, key in ipairs(keys) do members[#members + 1] = { name = folder .. "/data/" .. key, data = storages[key], deflated = options.deflated } end
  members[#members + 1] = { name = folder .. "/version", data = "3\n" }
  for _, m in ipairs(options.more or {}) do members[#members + 1] = m end
  return checkpoints.zip(members)
end

--- The same in the form of before 1.6.
-- @param storages list of {key, number of elements, bytes}
function checkpoints.legacy(object, storages, options)
  options = options or {}
  local keys, data = {}, {}
  for i, s in ipairs(storages) do
    keys[i] = pickle.text(s[1])
    data[i] = le(s[2], 8) .. s[3]
  end
  return pickle.whole("\138\10\108\252\156\70\249\32\106\168\80\25") .. pickle.whole(pickle.int(options.protocol or 1001))
    .. pickle.whole(pickle.dict("little_endian", options.big and pickle.no or pickle.yes)) .. pickle.whole(object) .. pickle.whole(pickle.list(unpack(keys)))
    .. table.concat(data)
end

--- A .npy file.
function checkpoints.npy(header, data, version)
  local head = header .. "\n"
  return "\147NUMPY" .. string.char(version or 1, 0) .. le(#head, version and version > 1 and 4 or 2) .. head .. (data or "")
end

--- Bytes of floats.
function checkpoints.floats(list) return ffi.string(ffi.new("float[?]", #list, list), 4 * #list) end

return checkpoints
