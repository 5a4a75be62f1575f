-- The tensor printer: what is written is compared letter by letter, because that is what users read.
local format = require "unic.format"

local function show(shape, values, dtype, options)
  return format.tensor({
    shape = shape, dtype = dtype or "f32", device = "cpu",
    get = type(values) == "function" and values or function(i) return values[i + 1] end,
  }, options or {width = 80})
end

local function text(...) return table.concat({...}, "\n") end

describe("unic.format", function()
  it("prints a matrix in columns of four decimals with a footer", function()
    assert.equal(text(
      "  0.3367   0.1288   0.2345",
      "  0.2303  -1.1229  -0.1863",
      "[f32 2x3 cpu]"), show({2, 3}, {0.3367, 0.1288, 0.2345, 0.2303, -1.1229, -0.1863}))
  end)

  it("prints a scalar on one line, with six significant digits", function()
    assert.equal("1.2e-05 [f32 scalar cpu]", show({}, {1.2e-5}))
    assert.equal("2.30259 [f32 scalar cpu]", show({}, {2.302585}))
    assert.equal("7 [i64 scalar cpu]", show({}, {7}, "i64"))
    assert.equal("nan [f32 scalar cpu]", show({}, {0 / 0}))
  end)

  it("puts a common factor in front of very small and very large values", function()
    assert.equal(text("1e-06 *", " 1.2500  2.5000", "[f32 2 cpu]"), show({2}, {1.25e-6, 2.5e-6}))
    assert.equal(text("1e+06 *", " 1.2500  2.5000", "[f32 2 cpu]"), show({2}, {1.25e6 + 0.25, 2.5e6 + 0.25}))
  end)

  it("prints whole numbers without decimals and an exact zero as 0", function()
    assert.equal(text(" 0  1  2", "[f32 3 cpu]"), show({3}, {0, 1, 2}))
    assert.equal(text("      0  0.5000  0.0000", "[f32 3 cpu]"), show({3}, {0, 0.5, 1e-6}))
  end)

  it("prints nan and inf in their column", function()
    assert.equal(text("  0.5000      nan", "    -inf  -1.5000", "[f64 2x2 cpu]"), show({2, 2}, {0.5, 0 / 0, -1 / 0, -1.5}, "f64"))
  end)

  it("prints integers, 64-bit ones included, and booleans", function()
    assert.equal(text(" -1  20", "[i32 2 cpu]"), show({2}, {-1, 20}, "i32"))
    assert.equal(text(" 9007199254740993", "[i64 1 cpu]"), show({1}, {9007199254740993LL}, "i64"))
    assert.equal(text("  true  false", "[bool 2 cpu]"), show({2}, {1, 0}, "bool"))
    assert.equal(text("  true  false", "[bool 2 cpu]"), show({2}, {true, false}, "bool"))
  end)

  it("says that a tensor is empty", function()
    assert.equal(text("(empty)", "[f32 0x3 cpu]"), show({0, 3}, {}))
  end)

  it("prints the footer alone where there is no data, and the note in it", function()
    assert.equal("[f32 2x3 meta]", format.tensor{shape = {2, 3}, dtype = "f32", device = "meta"})
    assert.equal("0.5 [f32 scalar cpu requires_grad]",
      format.tensor{shape = {}, dtype = "f32", device = "cpu", note = "requires_grad", get = function() return 0.5 end})
  end)

  it("heads the matrices of a higher rank with their index, counted from 1", function()
    assert.equal(text(
      "(1,.,.) =", " 0  1", " 2  3",
      "(2,.,.) =", " 4  5", " 6  7",
      "[f32 2x2x2 cpu]"), show({2, 2, 2}, function(i) return i end))
  end)

  it("breaks wide matrices into blocks of columns, and long vectors into lines", function()
    assert.equal(text(
      " columns 1 to 3:", " 100  101  102", " 106  107  108",
      " columns 4 to 6:", " 103  104  105", " 109  110  111",
      "[f32 2x6 cpu]"), show({2, 6}, function(i) return 100 + i end, "f32", {width = 15}))
    assert.equal(text(" 100  101  102", " 103  104", "[f32 5 cpu]"), show({5}, function(i) return 100 + i end, "f32", {width = 15}))
  end)

  it("never writes a line wider than the screen", function()
    for width = 20, 90, 7 do
      for line in show({3, 17}, function(i) return i / 7 end, "f32", {width = width}):gmatch("[^\n]+") do
        assert.is_true(#line <= width, line)
      end
    end
  end)

  it("leaves out the middle of a long tensor and reads only what it shows", function()
    local reads = 0
    local out = show({100, 100}, function(i) reads = reads + 1 return i end)
    assert.equal(text(
      "    0     1     2     3  ...    96    97    98    99",
      "  100   101   102   103  ...   196   197   198   199",
      "  200   201   202   203  ...   296   297   298   299",
      " ...",
      " 9700  9701  9702  9703  ...  9796  9797  9798  9799",
      " 9800  9801  9802  9803  ...  9896  9897  9898  9899",
      " 9900  9901  9902  9903  ...  9996  9997  9998  9999",
      "[f32 100x100 cpu]"), out)
    assert.equal(48, reads)
  end)

  it("cuts long rows, columns and vectors of few elements too", function()
    assert.equal(text("   0    1    2    3  ...  508  509  510  511", "[f32 1x512 cpu]"), show({1, 512}, function(i) return i end))
    assert.equal(text(" 0", " 1", " 2", " ...", " 7", " 8", " 9", "[f32 100x1 cpu]"), show({100, 1}, function(i) return i % 10 end))
    assert.equal(text("   0    1    2    3  ...  316  317  318  319", "[f32 320 cpu]"), show({320}, function(i) return i end))
  end)

  it("keeps a batch of images to a screen", function()
    local _, lines = show({64, 3, 224, 224}, function(i) return i end):gsub("\n", "")
    assert.is_true(lines < 45, lines .. " lines")
    _, lines = show({2, 2, 2, 2, 2, 2, 2, 2}, function(i) return i end):gsub("\n", "")
    assert.is_true(lines < 250, lines .. " lines")
  end)
end)
