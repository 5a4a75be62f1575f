--- Tables of calls that must fail: each with its sentence, at the user's line, and with a process that goes on.
local assert = require "luassert"
local core = require("unic").core
local unic = require "unic"

local bad = {}

local sentences = {}   -- of all tables: sentence -> where it stands

local function plain(text) return (text:gsub("%p", "%%%0")) end

-- What any call may have left behind: gradients off, autocast on, a tape in disorder.
local function still_usable()
  local x = unic.tensor({ 1, 2, 3 }, { requires_grad = true })
  local loss = (x * x):sum()
  loss:backward()
  assert.equal(14, loss:item())
  assert.same({ 2, 4, 6 }, x.grad:totable())
  assert.equal("f32", core.autocast())
end

--- Make a spec of every row: { name, function() ... end on one line, sentence, file }. A sentence is the whole one, or ends in " ..." and
-- is its beginning; SPEC in it stands for the row's own line, other words for what `words` says. It is raised at that line, or with `file`,
-- a file of the tree that people edit (a model), at some line of that.
-- @param rows the list
-- @param words a function that gives word -> text
function bad.specs(rows, words)
  for _, row in ipairs(rows) do
    local name, call, sentence, file = unpack(row, 1, 4)
    local info = debug.getinfo(call, "S")
    local place = ("%s:%d"):format(info.short_src, info.linedefined)
    it(name, function()
      assert.equal(info.linedefined, info.lastlinedefined)
      assert.is_nil(sentences[sentence], "the sentence stands elsewhere, too")
      sentences[sentence] = place
      local text, cut = sentence:gsub(" %.%.%.$", "")
      -- The same sentence on every device, which it names. What only a kernel sees is raised at the next synchronisation there: the op's own spec has it.
      if unic.device() ~= "cpu" then
        if sentence:find(" at position %d+ is outside") then return end
        for _, part in ipairs { "] on cpu", "before it are on cpu", 't:to("cpu") moves', "[memory] cpu: " } do
          text = text:gsub(plain(part), (part:gsub("cpu", unic.device()):gsub("%%", "%%%%")))
        end
      end
      text = plain(text:gsub("SPEC", place))
      for word, value in pairs(words and words() or {}) do text = text:gsub(word, (plain(value):gsub("%%", "%%%%"))) end
      local where = file and ("[^\n]-" .. plain(file) .. ":%d+: ") or (plain(place) .. ": ")
      assert.raises_at(not file and info.linedefined or nil, "^" .. where .. text .. (cut == 0 and "$" or ""), call)
      still_usable()
    end)
  end
  it("leaves no recording open", function()   -- once: a recording begins with a full collection, which takes its time in a large process
    local y
    local step = unic.record(function() y = unic.ones(3) * 2 end)
    step:replay()
    assert.same({ 2, 2, 2 }, y:totable())
  end)
end

return bad
