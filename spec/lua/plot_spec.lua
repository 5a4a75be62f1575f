-- Sparklines, bounded histories, charts.
local plot = require "unic.plot"

describe("plot", function()
  it("draws a line of bars between the least and the largest value", function()
    assert.equal("▁▃▅█", plot.sparkline { 0, 2, 4, 7 })
    assert.equal("█▁", plot.sparkline { 1e9, -1e9 })
    assert.equal("▅▅", plot.sparkline { 3, 3 })
    assert.equal("", plot.sparkline {})
    assert.equal("▁ █ ", plot.sparkline { 0, 0 / 0, 1, math.huge })
    assert.equal("_@", plot.sparkline({ 0, 1 }, 8, { ascii = true }))
  end)

  it("averages what is longer than the line", function()
    local values = {}
    for i = 1, 100 do values[i] = i <= 50 and 0 or 1 end
    assert.equal("▁▁██", plot.sparkline(values, 4))
  end)

  it("keeps a history of bounded length with the right means", function()
    local history = plot.history(8)
    for i = 1, 1000 do history:add(i) end
    assert.is_true(#history.values < 8 and #history.values >= 4)
    local stride = history.stride
    for i, value in ipairs(history.values) do assert.equal((i - 1) * stride + (stride + 1) / 2, value) end
  end)

  it("draws lines as SVG that lie where the numbers say", function()
    local svg = plot.lines({ { name = "a<b", x = { 0, 10 }, y = { 1, 3 } }, { name = "c", x = { 5 }, y = { 2 } } }, { x = "step", width = 200, height = 100 })
    -- The plotting area is x 58..188, y 30..60.
    assert.truthy(svg:find("M58.0 60.0L188.0 30.0", 1, true))
    assert.truthy(svg:find('cx="123.0" cy="45.0"', 1, true))
    assert.truthy(svg:find("a&lt;b", 1, true))
    assert.truthy(svg:find("</svg>%s*$"))
    local open, close = select(2, svg:gsub("<text", "")), select(2, svg:gsub("</text>", ""))
    assert.equal(open, close)
  end)

  it("leaves out what is not finite, and says so when nothing is left", function()
    local svg = plot.lines { { name = "a", x = { 1, 2, 3, 4, 5 }, y = { 1, 2, 0 / 0, 4, 5 } } }
    assert.equal(2, select(2, svg:gsub("M%d", "")), "the line should be broken once")
    assert.truthy(plot.lines({ { name = "a", x = { 1 }, y = { 0 / 0 } } }):find "nothing to show")
    assert.is_nil(svg:find "nan")
    assert.raises_at(nil, "'a' needs two lists", function() plot.lines { { name = "a", x = { 1 }, y = {} } } end)
  end)
end)
