--- Where the batches of a training come from: a data set through `unic.data`, a list of batches, or a function.
-- @module unic.run.source
local core = require "unic.core"
local folder = require "unic.run.folder"

local is_tensor = core.tensor.is_tensor
local fail = folder.fail
local source = {}

local function is_dataset(ds)
  local kind = type(ds)
  return (kind == "table" or kind == "userdata") and kind ~= "function" and (kind == "userdata" or ds.hash ~= nil)
end

--- What the manifest says of a data set.
-- @return its hash, number of rows, split
function source.describe(ds)
  if not is_dataset(ds) then fail("data: a %s was given, expected a data set (with a method hash)", type(ds)) end
  local count = ds.size
  if type(count) == "function" then count = ds:size() end
  return ds:hash(), count, ds.split
end

--- Batches in an epoch; nil when the source does not tell.
function source.batches_per_epoch(ds, options)
  if type(ds) == "function" then return nil end
  if is_dataset(ds) then return require("unic.data").batches(ds, options):per_epoch() end
  return #ds
end

--- Rows of a batch: its own count, else the longest first dimension of its tensors, else what is usual.
function source.rows(batch, usual)
  if type(batch) == "table" then
    if type(batch.count) == "number" then return batch.count end
    local rows
    for _, t in pairs(batch) do
      if is_tensor(t) and t:dim() > 0 then rows = math.max(rows or 0, t:size(1)) end
    end
    if rows then return rows end
  elseif is_tensor(batch) and batch:dim() > 0 then
    return batch:size(1)
  end
  return usual or 1
end

local Stream = {}
Stream.__index = Stream

-- The next batch of a list or a function: the next epoch is opened when one is over.
function Stream:next()
  for _ = 1, 2 do
    local batch = self.iterate()
    if batch ~= nil then
      self.position = self.position + 1
      return batch, self.epoch, self.position
    end
    if self.position == 0 then return nil end   -- an epoch without a batch: the source is empty
    self.epoch, self.position = self.epoch + 1, 0
    self.iterate = self.open(self.epoch)
  end
  return nil
end

local DataStream = {}
DataStream.__index = DataStream

-- The next batch of the pipeline, which goes on from epoch to epoch by itself.
function DataStream:next()
  local batch = self.iterator()
  if not batch then return nil end
  return batch, batch.epoch, batch.position
end

--- Open a source at a place.
-- @param ds a data set, a list of batches, or a function (epoch) -> iterator
-- @param options for unic.data.batches
-- @param epoch from 1
-- @param position batches of that epoch that were used already
-- @return an object whose next() gives batch, epoch, and the number of batches of that epoch used with it
function source.open(ds, options, epoch, position)
  if is_dataset(ds) then
    local merged = {}
    for key, value in pairs(options) do merged[key] = value end
    merged.epoch, merged.start, merged.epochs = epoch, position, math.huge
    return setmetatable({ iterator = require("unic.data").batches(ds, merged) }, DataStream)
  end
  local open = ds
  if type(ds) == "table" then
    open = function()
      local i = 0
      return function()
        i = i + 1
        return ds[i]
      end
    end
  elseif type(ds) ~= "function" then
    fail("batches: a %s was given, expected a data set, a list of batches or a function", type(ds))
  end
  local stream = setmetatable({ open = open, epoch = epoch, position = 0, iterate = open(epoch) }, Stream)
  for _ = 1, position do
    if stream.iterate() == nil then fail("batches: epoch %d has fewer than the %d batches that were used of it", epoch, position) end
  end
  stream.position = position
  return stream
end

return source
