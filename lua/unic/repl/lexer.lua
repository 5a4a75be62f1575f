--- Lua source as a list of tokens with their positions.
-- Enough of the language to tell code from strings and comments; a text that ends in the middle of one is taken as far as it goes, because
-- that is what a line looks like while it is typed.
-- @module unic.repl.lexer
local lexer = {}

local KEYWORDS = {}
for word in ([[and break do else elseif end false for function goto if in local nil not or repeat return then true until while]]):gmatch("%a+") do
  KEYWORDS[word] = true
end
lexer.KEYWORDS = KEYWORDS

-- Operators of more than one character, longest first.
local LONG_OPERATORS = {"...", "..", "==", "~=", "<=", ">=", "::"}

-- The end of a string in quotes that begins at `start`, and whether its closing quote is there.
local function quoted(text, start)
  local quote = text:sub(start, start)
  local at = start + 1
  while at <= #text do
    local c = text:sub(at, at)
    if c == "\\" then at = at + 2
    elseif c == quote then return at, true
    elseif c == "\n" then return at - 1, false
    else at = at + 1 end
  end
  return #text, false
end

-- The end of a long bracket that opens at `start`, and whether it is closed; nil when there is none.
local function bracketed(text, start)
  local level = text:match("^%[(=*)%[", start)
  if not level then return nil end
  local _, stop = text:find("]" .. level .. "]", start + #level + 2, true)
  return stop or #text, stop ~= nil
end

--- The tokens of a text.
-- Each is a table: `kind` ("name", "keyword", "number", "string", "comment", "op"), `text`, `first` and `last` (positions in the text),
-- `closed` (false for a string or long comment that does not end).
-- @param text Lua source
-- @return list of tokens
function lexer.tokens(text)
  local tokens, at = {}, 1
  local function add(kind, last, closed)
    tokens[#tokens + 1] = { kind = kind, text = text:sub(at, last), first = at, last = last, closed = closed ~= false }
    at = last + 1
  end
  while true do
    at = text:find("%S", at)
    if not at then return tokens end
    local c = text:sub(at, at)
    if c:find("[%a_\128-\255]") then
      local _, last = text:find("^[%w_\128-\255]+", at)
      add(KEYWORDS[text:sub(at, last)] and "keyword" or "name", last)
    elseif c:find("%d") or text:find("^%.%d", at) then
      -- A number runs on over letters (hexadecimal, LL, exponent) and over the sign after an exponent.
      local last = at
      while true do
        local next_char = text:sub(last + 1, last + 1)
        local here = text:sub(last, last)
        local hex = text:find("^0[xX]", at)
        if next_char:find("[%w_.]") and not text:find("^%.%.", last + 1) then last = last + 1
        elseif next_char:find("[+-]") and here:find(hex and "[pP]" or "[eE]") then last = last + 1
        else break end
      end
      add("number", last)
    elseif c == "'" or c == '"' then
      add("string", quoted(text, at))
    elseif text:find("^%[=*%[", at) then
      add("string", bracketed(text, at))
    elseif text:find("^%-%-", at) then
      local last, closed = bracketed(text, at + 2)
      if not last then
        last = (text:find("\n", at, true) or #text + 1) - 1
        closed = true
      end
      add("comment", last, closed)
    else
      local long
      for i = 1, #LONG_OPERATORS do
        local operator = LONG_OPERATORS[i]
        if text:sub(at, at + #operator - 1) == operator then long = operator break end
      end
      add("op", at + (long and #long or 1) - 1)
    end
  end
end

return lexer
