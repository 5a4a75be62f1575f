--- Where the batches of a training come from: a data set through `unic.data`, a list of batches, or a function.
-- @module unic.run.source
local core = require "unic.core"
local folder = require "unic.run.folder"

local is_tensor = core.tensor.is_tensor
local fail = folder.fail
local source = {}

-- A data set has a hash; a plain list of batches has none.
local function is_dataset(ds) return type(ds) == "table" and ds.hash ~= nil end

--- What the manifest says of a data set.
-- @return its hash, number of rows, split
function source.describe(ds)
  if not is_dataset(ds) then fail("data: a %s was given, expected a data set (with a method hash)", type(ds)) end
  return ds:hash(), ds.n, ds.split
end

--- Batches in an epoch; nil when the source does not tell.
function source.batches_per_epoch(ds, options)
  if type(ds) == "function" then return nil end
  if not is_dataset(ds) then return #ds end
  local iterator = require("unic.data").batches(ds, options)
  local count = iterator.per_epoch
  iterator:close()
  return count
end

--- Rows of a batch: its own count, else the longest first dimension of its tensors, else what is usual.
function source.rows(batch, usual)
  if type(batch) == "table" then
    if type(batch.n) == "number" then return batch.n end
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

-- The next batch of the pipeline, which goes on from epoch to epoch by itself and counts them from 0.
function DataStream:next()
  local batch = self.iterator:next()
  if not batch then return nil end
  return batch, batch.epoch + 1, batch.position
end

-- Stop the pipeline's workers.
function DataStream:close() self.iterator:close() end

function Stream.close() end

--- Open a source at a place.
-- @param ds a data set, a list of batches, or a function (epoch) -> iterator
-- @param options for unic.data.batches
-- @param epoch from 1
-- @param position batches of that epoch that were used already
-- @return an object whose next() gives batch, epoch, and the number of batches of that epoch used with it; and close()
function source.open(ds, options, epoch, position)
  if is_dataset(ds) then
    local merged = {}
    for key, value in pairs(options) do merged[key] = value end
    merged.epoch, merged.start, merged.epochs = epoch - 1, position, math.huge
    local iterator = require("unic.data").batches(ds, merged)
    if iterator.per_epoch == 0 then fail("batches: the data set has %d rows, too few for one batch of %d", ds.n, iterator.batch) end
    return setmetatable({ iterator = iterator }, DataStream)
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
