-- CSV tables: what RFC 4180 says, what real files do besides, and rows that are wrong.
local files = require "unic.files"
local support = require "spec.support.files"

local function read(text, options)
  options = options or {}
  options.text = text
  return files.read_csv("x.csv", options)
end

-- All cells as a list of lists.
local function cells(t)
  local list = {}
  for row = 1, t:rows() do
    list[row] = {}
    for i, name in ipairs(t:columns()) do list[row][i] = t:get(row, name) end
  end
  return list
end

local function reasons(t)
  local list = {}
  for i, e in ipairs(t:errors()) do list[i] = e.reason end
  return list
end

local function message(...) return support.refusal(files.read_csv, ...) end

describe("CSV tables", function()
  local folder
  setup(function() folder = support.folder() end)
  teardown(function() support.remove(folder) end)

  it("give cells by row and name", function()
    local t = read("image,report,language\na.png,Normal.,en\nb.png,Derrame pleural.,es\n")
    assert.equal(2, t:rows())
    assert.same({ "image", "report", "language" }, t:columns())
    assert.equal("Derrame pleural.", t:get(2, "report"))
    assert.equal(0, t:ignored())
    assert.same({}, t:errors())
    assert.is_true(t:has("image"))
    assert.is_false(t:has("labels"))
  end)

  for name, case in pairs {
    ["a last line without its end"] = { "a,b\n1,2", { { "1", "2" } } },
    ["CRLF"] = { "a,b\r\n1,2\r\n3,4\r\n", { { "1", "2" }, { "3", "4" } } },
    ["CR alone"] = { "a,b\r1,2\r3,4", { { "1", "2" }, { "3", "4" } } },
    ["a byte order mark"] = { "\239\187\191a,b\n1,2\n", { { "1", "2" } } },
    ["quotes"] = { 'a,b\n"1","2"\n"x, y","z"\n', { { "1", "2" }, { "x, y", "z" } } },
    ["doubled quotes"] = { 'a,b\n"say ""hi""",""""\n"""",x\n', { { 'say "hi"', '"' }, { '"', "x" } } },
    ["line ends inside quotes"] = { 'a,b\n"1\n2\r\n3","4"\n5,6\n', { { "1\n2\r\n3", "4" }, { "5", "6" } } },
    ["empty cells"] = { 'a,b\n,\n"",x\ny,\n', { { "", "" }, { "", "x" }, { "y", "" } } },
    ["blank lines"] = { "\n\na,b\n\n1,2\n\n\n3,4\n\n", { { "1", "2" }, { "3", "4" } } },
    ["a quote inside a bare field"] = { 'a,b\n5" tube,x"y"\n', { { '5" tube', 'x"y"' } } },
    ["blanks around names, kept in cells"] = { " a , b\t\n 1 , 2\n", { { " 1 ", " 2" } } },
    ["UTF-8"] = { "a,b\nCorazón,北京 😀\n", { { "Corazón", "北京 😀" } } },
    ["one column, one of its cells empty"] = { 'a\n1\n""\n3\n', { { "1" }, { "" }, { "3" } } },
    ["a quoted header"] = { '"a ""x""","b, c"\n1,2\n', { { "1", "2" } } },
    ["a header and no row"] = { "a,b\n", {} },
    ["a header without its line end"] = { "a,b", {} },
  } do
    it("read " .. name, function()
      local t = read(case[1])
      assert.same(case[2], cells(t))
      assert.same({}, t:errors())
    end)
  end

  it("keep only the columns asked for, under the names asked for", function()
    local text = "Path,sex,Report,age\na.png,F,ok,40\nb.png,M,bad,50\n"
    local t = read(text, { columns = { image = "Path", report = "Report" }, optional = { "labels", years = "age" } })
    assert.same({ "image", "report", "years" }, t:columns())
    assert.equal(1, t:ignored())
    assert.same({ { "a.png", "ok", "40" }, { "b.png", "bad", "50" } }, cells(t))
    assert.is_false(t:has("labels"))
    -- Two names for one column.
    t = read(text, { columns = { one = "sex", two = "sex" } })
    assert.equal("F", t:get(1, "one"))
    assert.equal("M", t:get(2, "two"))
  end)

  it("leave wrong rows out and list them with row and reason", function()
    local t = read('a,b,c\n1,2,3\n4,5\n6,7,8,9\n10,\255,12\n"x"y,1,2\n13,14,15\nq\n\n16,\0,18\n"open,1,2\n19,20,21\n')
    assert.same({ { "1", "2", "3" }, { "13", "14", "15" }, { "19", "20", "21" } }, cells(t))
    assert.same({
      "row 3: 2 fields, the header has 3",
      "row 4: 4 fields, the header has 3",
      "row 5: column 'b' is not UTF-8 (byte 0xFF)",
      "row 6: field 1 goes on after its closing quote",
      "row 8: 1 field, the header has 3",
      "row 10: column 'b' holds a zero byte",
      "row 11: field 1 opens a quote that is never closed",
    }, reasons(t))
    assert.equal(8, t:errors()[5].row)
    assert.same({ 2, 7, 12 }, { t:row_number(1), t:row_number(2), t:row_number(3) })
  end)

  it("name the line too where it differs from the row", function()
    local t = read('a,b\n"1\n2",3\nx\n')
    assert.same({ "row 3 (line 4): 1 field, the header has 2" }, reasons(t))
  end)

  it("lose one row to a forgotten quote, not the rows after it", function()
    local t = read('a,b\n1,"two\n"3",4\n5,"6"\n7,8\n')
    assert.same({ { "3", "4" }, { "5", "6" }, { "7", "8" } }, cells(t))
    assert.equal(1, #t:errors())
    -- UTF-8 is asked of the columns that are kept only.
    t = read("a,b\n1,\255\n", { columns = { "a" } })
    assert.same({ { "1" } }, cells(t))
  end)

  it("stop at the first wrong row when strict", function()
    assert.equal("[read_csv] 'x.csv' row 17: 5 fields, the header has 4 (and 1 more)",
      message("x.csv", { text = "a,b,c,d\n" .. ("1,2,3,4\n"):rep(15) .. "1,2,3,4,5\n1\n", strict = true }))
    assert.equal("[read_csv] 'x.csv' row 2: 1 field, the header has 2", message("x.csv", { text = "a,b\n1\n", strict = true }))
    assert.equal(1, read("a,b\n1,2\n", { strict = true }):rows())
  end)

  it("refuse in words what is no such table", function()
    local function of(text, options)
      options = options or {}
      options.text = text
      return (message("x.csv", options):gsub("^%[read_csv%] 'x.csv': ", ""))
    end
    assert.equal("is empty, expected a header line and rows", of(""))
    assert.equal("is empty, expected a header line and rows", of("\n\r\n"))
    assert.equal("is UTF-16 text, expected CSV in UTF-8", of("\255\254a\0"))
    assert.equal("the header is not UTF-8 (byte 0xE9 at position 6)", of("a,sal\233,b\n"))
    assert.equal("is not a text file (its header holds a zero byte), expected CSV in UTF-8", of("a,\0b\n1,2\n"))
    assert.equal("the header is a single column, 'a;b;c'; only the comma separates columns", of("a;b;c\n1;2;3\n"))
    assert.equal("has no column 'report'; its header names 'image', 'text'", of("image,text\n", { columns = { "image", "report" } }))
    assert.equal("the header names column 'a' 2 times", of("a,b,a\n", { columns = { "a" } }))
    assert.equal("the header's quotes are wrong (field 2)", of('a,"b\n1,2\n'))
    assert.equal("the header has 65537 fields, the limit is 65536", of((","):rep(65536) .. "\n"))
    assert.equal("[read_csv] '/none/x.csv': cannot be read (No such file or directory)", message("/none/x.csv"))
    assert.equal("[read_csv] there is no option 'colums', did you mean 'columns'?", message("x.csv", { colums = {} }))
    assert.equal("[read_csv] option 'strict': the string \"yes\", expected a boolean", message("x.csv", { strict = "yes" }))
    assert.equal("[read_csv] argument 'path': nil, expected a string", message())
  end)

  it("refuse cells that are not there", function()
    local t = read("image,report\na,b\n")
    local function of(...) return support.refusal(t.get, t, ...) end
    assert.equal("[csv] 'x.csv': no column 'reprot' was read, did you mean 'report'?", of(1, "reprot"))
    assert.equal("[csv] argument 'row': 2, expected a whole number from 1 to 1", of(2, "image"))
    assert.equal("[csv] argument 'row': 0, expected a whole number from 1 to 1", of(0, "image"))
    assert.equal("[csv] argument 'row': 1.5, expected a whole number from 1 to 1", of(1.5, "image"))
    t:free()
    assert.equal("[csv] argument 'self': it was freed", of(1, "image"))
  end)

  it("of 200,000 rows are read in a moment", function()
    local path = support.write(folder .. "/many.csv", "image,report,language\n"
      .. ('images/p10/s5/a.png,"No focal consolidation, effusion or ""pneumothorax"".",en\n'):rep(200000))
    local begin = os.clock()
    local t = files.read_csv(path)
    local seconds = os.clock() - begin
    assert.equal(200000, t:rows())
    assert.equal('No focal consolidation, effusion or "pneumothorax".', t:get(200000, "report"))
    assert.is_true(seconds < 2, ("took %.2f s"):format(seconds))
  end)

  it("made to be slow are read in time proportional to their size", function()
    -- From whatever line the reading begins, one record of quoted line ends goes on to the same fault at the end.
    local begin = os.clock()
    local t = read('a,b\n"' .. ('x","\n'):rep(200000) .. '"b"c\n1,2\n')
    local seconds = os.clock() - begin
    assert.is_true(seconds < 2, ("took %.2f s"):format(seconds))
    assert.is_true(#t:errors() > 1)
    assert.same({ { "1", "2" } }, cells(t))
  end)

  describe("written", function()
    it("come back equal, whatever the text", function()
      local rows = { { "plain", "with, comma" }, { 'with "quote"', "two\nlines" }, { "", "CR\rLF\r\n" }, { " blank ", "ñ 北" } }
      local path = folder .. "/out.csv"
      assert.equal(4, files.write_csv(path, { "one", "two, three" }, rows))
      local t = files.read_csv(path)
      assert.same({ "one", "two, three" }, t:columns())
      assert.same(rows, cells(t))
    end)

    it("hold numbers with 9 digits, whole ones in full, nil as nothing", function()
      local path = folder .. "/numbers.csv"
      local rows = { { 1, 1 / 3, true }, { a = 1e15, c = "x" }, { -0.5, 0 / 0, math.huge } }
      local i = 0
      files.write_csv(path, { "a", "b", "c" }, function()
        i = i + 1
        return rows[i]
      end)
      assert.equal("a,b,c\n1,0.333333333,true\n1000000000000000,,x\n-0.5,nan,inf\n", support.read(path))
      assert.equal('""\n', files.csv_line({ nil }, 1))
    end)

    it("stay as they were when a row is wrong", function()
      local path = support.write(folder .. "/old.csv", "a\n1\n")
      local before = #support.list(folder)
      local why = support.refusal(files.write_csv, path, { "a" }, { { "2" }, { b = "3" } })
      assert.equal("[write_csv] a row has a value for 'b', the header has no such column, did you mean 'a'?", why)
      why = support.refusal(files.write_csv, path, { "a" }, { { "2", "3" } })
      assert.equal("[write_csv] a row has a value at position 2, the header has 1 columns", why)
      assert.equal("a\n1\n", support.read(path))
      assert.equal(before, #support.list(folder))
    end)

    it("grow row by row under one header", function()
      local path = folder .. "/log.csv"
      local log = files.append_csv(path, { "step", "loss" })
      log:row { step = 1, loss = 0.5 }
      assert.equal("step,loss\n1,0.5\n", support.read(path))   -- there before the file is closed
      log:close()
      log = files.append_csv(path, { "step", "loss" })
      log:row { 2, 0.25 }
      log:close()
      assert.equal("step,loss\n1,0.5\n2,0.25\n", support.read(path))
      local why = support.refusal(files.append_csv, path, { "step", "accuracy" })
      assert.equal("[append_csv] '" .. path .. "': its header is 'step,loss', expected 'step,accuracy'", why)
      why = support.refusal(log.row, log, { 3, 0.1 })
      assert.equal("[append_csv] '" .. path .. "': is closed already", why)
    end)
  end)
end)
