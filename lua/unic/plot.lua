--- Small pictures of numbers: a sparkline for the terminal, a line chart as SVG, and a history that never grows.
-- @module unic.plot
local core = require "unic.core"
local tensor = require "unic.tensor"

local plot = {}

local BARS = { "▁", "▂", "▃", "▄", "▅", "▆", "▇", "█" }
local ASCII = { "_", ".", "-", "=", "+", "*", "#", "@" }

local function is_finite(x) return x == x and x ~= math.huge and x ~= -math.huge end

-- The range of the finite values; nil where there is none.
local function range(values, low, high)
  for i = 1, #values do
    local v = values[i]
    if is_finite(v) then
      if not low or v < low then low = v end
      if not high or v > high then high = v end
    end
  end
  return low, high
end

-- values in `width` parts of equal length, the mean of each; as they are when there are fewer.
local function condense(values, width)
  local n = #values
  if n <= width then return values end
  local out = {}
  for b = 1, width do
    local first, last = math.floor((b - 1) * n / width) + 1, math.floor(b * n / width)
    local sum, count = 0, 0
    for i = first, last do
      if is_finite(values[i]) then sum, count = sum + values[i], count + 1 end
    end
    out[b] = count > 0 and sum / count or 0 / 0
  end
  return out
end

--- A line of bars, one character wide each: "█▆▄▃▂▁".
-- @param values a list of numbers; NaN and Inf leave a blank
-- @param width most characters (default 16); longer lists are averaged into that many parts
-- @param options `ascii` = for terminals without UTF-8
-- @return a string
function plot.sparkline(values, width, options)
  options = tensor.options("plot.sparkline", options, { ascii = true })
  if type(values) ~= "table" then core.fail(("[plot.sparkline] argument 'values': a %s was given, expected a list of numbers"):format(type(values))) end
  local bars = options.ascii and ASCII or BARS
  values = condense(values, width or 16)
  local low, high = range(values)
  local out = {}
  for i = 1, #values do
    local v = values[i]
    if not is_finite(v) then
      out[i] = " "
    else
      local share = high > low and (v - low) / (high - low) or 0.5
      out[i] = bars[math.min(#bars, math.floor(share * #bars) + 1)]
    end
  end
  return table.concat(out)
end

local History = {}
History.__index = History

--- Add a number.
function History:add(value)
  self.sum, self.count = self.sum + value, self.count + 1
  if self.count < self.stride then return end
  self.values[#self.values + 1] = self.sum / self.count
  self.sum, self.count = 0, 0
  if #self.values < self.capacity then return end
  for i = 1, self.capacity / 2 do self.values[i] = (self.values[2 * i - 1] + self.values[2 * i]) / 2 end
  for i = self.capacity, self.capacity / 2 + 1, -1 do self.values[i] = nil end
  self.stride = 2 * self.stride
end

--- A list of numbers with bounded length: when it is full, neighbours are averaged and later numbers in groups as large.
-- @param capacity an even number (default 256)
-- @return an object: `add(x)`, the list `values`
function plot.history(capacity)
  return setmetatable({ values = {}, capacity = capacity or 256, stride = 1, sum = 0, count = 0 }, History)
end

-- ---------------------------------------------------------------- SVG

local COLOURS = { "#1f6f8b", "#c8553d", "#588157", "#8e6c8a", "#b8860b", "#4a4e69" }

--- Text with the characters that mean something in HTML and XML replaced.
function plot.escape(text)
  return (tostring(text):gsub("[&<>\"']", { ["&"] = "&amp;", ["<"] = "&lt;", [">"] = "&gt;", ['"'] = "&quot;", ["'"] = "&#39;" }))
end

-- Round positions for about n ticks within [low, high]: steps of 1, 2 or 5 times a power of ten.
local function ticks(low, high, n)
  local raw = (high - low) / n
  local power = 10 ^ math.floor(math.log10(raw))
  local step = power * 10
  for _, factor in ipairs { 1, 2, 5 } do
    if factor * power >= raw * 0.999 then
      step = factor * power
      break
    end
  end
  local list = {}
  local at = math.ceil(low / step - 1e-9) * step
  while at <= high + step * 1e-9 do
    list[#list + 1] = math.abs(at) < step * 1e-9 and 0 or at
    at = at + step
  end
  return list
end

local function number(x) return (("%.5g"):format(x):gsub("e%+?(-?)0*", "e%1")) end

--- A line chart as an SVG element, for a page of its own or inside HTML.
-- @param series a list of {name =, x =, y =} with two lists of numbers each; points that are NaN or Inf are left out
-- @param options `title`, `x` (name of the axis), `width` (640), `height` (260), `points` (most points of a line, 400: longer ones are averaged)
-- @return a string
function plot.lines(series, options)
  options = tensor.options("plot.lines", options, { title = true, x = true, width = true, height = true, points = true })
  local width, height = options.width or 640, options.height or 260
  local left, right, top, bottom = 58, 12, 30, 40
  local drawn, x_low, x_high, y_low, y_high = {}, nil, nil, nil, nil
  for _, one in ipairs(series) do
    if type(one.x) ~= "table" or type(one.y) ~= "table" or #one.x ~= #one.y then
      core.fail(("[plot.lines] argument 'series': '%s' needs two lists x and y of one length"):format(tostring(one.name)))
    end
    local xs, ys = condense(one.x, options.points or 400), condense(one.y, options.points or 400)
    x_low, x_high = range(xs, x_low, x_high)
    y_low, y_high = range(ys, y_low, y_high)
    drawn[#drawn + 1] = { name = one.name, x = xs, y = ys }
  end
  local out = {}
  local function put(format, ...) out[#out + 1] = select("#", ...) > 0 and format:format(...) or format end
  put('<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" width="%d" height="%d" font-family="sans-serif" font-size="11">', width, height, width, height)
  put('<rect width="%d" height="%d" fill="#ffffff"/>', width, height)
  if options.title then put('<text x="%d" y="18" font-size="13" font-weight="bold" fill="#222">%s</text>', left, plot.escape(options.title)) end
  if not (x_low and y_low) then
    put('<text x="%d" y="%d" fill="#666">nothing to show</text></svg>', left, height / 2)
    return table.concat(out, "\n")
  end
  if x_high == x_low then x_low, x_high = x_low - 0.5, x_high + 0.5 end
  if y_high == y_low then
    local room = y_low == 0 and 1 or math.abs(y_low) * 0.1
    y_low, y_high = y_low - room, y_high + room
  end
  local function px(x) return left + (x - x_low) / (x_high - x_low) * (width - left - right) end
  local function py(y) return height - bottom - (y - y_low) / (y_high - y_low) * (height - top - bottom) end
  for _, y in ipairs(ticks(y_low, y_high, 5)) do
    put('<line x1="%d" y1="%.1f" x2="%d" y2="%.1f" stroke="#e4e4e4"/><text x="%d" y="%.1f" text-anchor="end" fill="#555">%s</text>',
      left, py(y), width - right, py(y), left - 6, py(y) + 4, number(y))
  end
  for _, x in ipairs(ticks(x_low, x_high, 7)) do
    put('<line x1="%.1f" y1="%d" x2="%.1f" y2="%d" stroke="#999"/><text x="%.1f" y="%d" text-anchor="middle" fill="#555">%s</text>',
      px(x), height - bottom, px(x), height - bottom + 4, px(x), height - bottom + 16, number(x))
  end
  put('<line x1="%d" y1="%d" x2="%d" y2="%d" stroke="#999"/>', left, height - bottom, width - right, height - bottom)
  if options.x then put('<text x="%d" y="%d" text-anchor="middle" fill="#555">%s</text>', (left + width - right) / 2, height - 6, plot.escape(options.x)) end
  local legend = width - right
  for i = #drawn, 1, -1 do
    local one, colour = drawn[i], COLOURS[(i - 1) % #COLOURS + 1]
    local points, pen = {}, "M"
    for k = 1, #one.x do
      if is_finite(one.x[k]) and is_finite(one.y[k]) then
        points[#points + 1] = ("%s%.1f %.1f"):format(pen, px(one.x[k]), py(one.y[k]))
        pen = "L"
      else
        pen = "M"
      end
    end
    if #points == 1 then
      local x, y = points[1]:match "^M(%S+) (%S+)$"
      put('<circle cx="%s" cy="%s" r="2.5" fill="%s"/>', x, y, colour)
    else
      put('<path d="%s" fill="none" stroke="%s" stroke-width="1.6" stroke-linejoin="round"/>', table.concat(points), colour)
    end
    if #drawn > 1 or not options.title then
      -- Names stand in the top right corner, the first leftmost; 6.6 is the mean width of a letter at this size.
      local name = tostring(one.name)
      local room = #name * 6.6
      put('<text x="%.1f" y="18" text-anchor="end" fill="%s" font-weight="bold">%s</text>', legend, colour, plot.escape(name))
      legend = legend - room - 14
    end
  end
  put "</svg>"
  return table.concat(out, "\n")
end

return plot
