-- Values as the prompt shows them.
local pretty = require "unic.repl.pretty"

describe("unic.repl.pretty", function()
  it("quotes strings of one line and shows longer texts as they are", function()
    assert.equal('"a\\tb \\"c\\" \\001"', pretty.text('a\tb "c" \1'))
    assert.equal("a\nb", pretty.text("a\nb"))
    assert.equal('"' .. ("x"):rep(200) .. '"... (300 bytes)', pretty.text(("x"):rep(300)))
    assert.equal('"año"', pretty.text("año"))
  end)

  it("writes tables with sorted keys, the list part first", function()
    assert.equal('{1, 2, [10] = 5, ["a b"] = 2, ["end"] = 3, x = "y"}', pretty.text{1, 2, x = "y", [10] = 5, ["a b"] = 2, ["end"] = 3})
    assert.equal("{}", pretty.text{})
    assert.equal("{[true] = 1}", pretty.text{[true] = 1})
  end)

  it("marks cycles and bounds depth and length", function()
    local t = { name = "t" }
    t.self = t
    assert.equal('{name = "t", self = <cycle>}', pretty.text(t))
    local shared = {1}
    assert.equal("{{1}, {1}}", pretty.text{shared, shared})
    assert.equal("{{{{{...}}}}}", pretty.text{{{{{{1}}}}}})
    local list = {}
    for i = 1, 1000 do list[i] = i end
    assert.truthy(pretty.text(list):find("... 950 more", 1, true))
  end)

  it("breaks what is wider than the screen", function()
    assert.equal('{\n  a = "' .. ("x"):rep(30) .. '",\n  b = {1, 2}\n}', pretty.text({ a = ("x"):rep(30), b = {1, 2} }, 40))
    for line in pretty.text({1.5, 2.25, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14}, 30):gmatch("[^\n]+") do assert.is_true(#line <= 30) end
  end)

  it("shows objects by their __tostring, inside a table by one line", function()
    local tensor = require("unic").tensor({ 1, 2 }, { device = "cpu" })
    local layer = setmetatable({}, { __tostring = function() return "Linear(3, 4)\n[16 parameters]" end })
    local module = setmetatable({}, { __tostring = function() return "Linear(\n  3\n)" end })
    assert.equal(" 1  2\n[f32 2 cpu]", pretty.text(tensor))
    assert.equal("{Linear(3, 4) [16 parameters]}", pretty.text{ layer })
    assert.equal("{m = Linear( ..., x = [f32 2 cpu]}", pretty.text{ x = tensor, m = module })
  end)
end)
