--- Source changes that let a chunk's own locals outlive it.
-- Both keep every line where it was, so that errors name the right one.
-- @module unic.repl.rewrite
local lexer = require "unic.repl.lexer"

local rewrite = {}

--- The name through which a rewritten chunk declares and sets the prompt's locals.
rewrite.LOCALS = "_LOCAL_"

--- The name of the function that a recipe calls where its main chunk ends.
rewrite.KEEP = "_KEEP_LOCALS_"

local OPENS = { ["function"] = true, ["do"] = true, ["if"] = true, ["repeat"] = true }
local CLOSES = { ["end"] = true, ["until"] = true }

-- The text with edits applied; each edit replaces [first, last] (an insertion when last < first).
local function apply(text, edits)
  local parts, at = {}, 1
  for i = 1, #edits do
    local edit = edits[i]
    parts[#parts + 1] = text:sub(at, edit.first - 1)
    parts[#parts + 1] = edit.text
    at = edit.last + 1
  end
  parts[#parts + 1] = text:sub(at)
  return table.concat(parts)
end

local function without_comments(tokens)
  local list = {}
  for i = 1, #tokens do
    if tokens[i].kind ~= "comment" then list[#list + 1] = tokens[i] end
  end
  return list
end

--- Turn the locals declared at the top level of a chunk into fields of `_LOCAL_`, whose setting declares them.
-- `local a, b = f()` becomes `_LOCAL_.a, _LOCAL_.b = f()`, `local a` becomes `_LOCAL_.a = nil`, `local function f` becomes
-- `function _LOCAL_.f`. Locals inside blocks and functions stay as they are. The text must be a valid chunk.
-- @param text Lua source
-- @return the new source, and the list of names declared
function rewrite.locals(text)
  local tokens = without_comments(lexer.tokens(text))
  local edits, names = {}, {}
  local depth, i = 0, 1
  local function declare(token)
    names[#names + 1] = token.text
    edits[#edits + 1] = { first = token.first, last = token.last, text = rewrite.LOCALS .. "." .. token.text }
  end
  while i <= #tokens do
    local token = tokens[i]
    if token.kind == "keyword" then
      if token.text == "local" and depth == 0 then
        edits[#edits + 1] = { first = token.first, last = token.last, text = "" }
        if tokens[i + 1].text == "function" then
          declare(tokens[i + 2])
          depth = depth + 1
          i = i + 2
        else
          i = i + 1
          declare(tokens[i])
          while tokens[i + 1] and tokens[i + 1].text == "," do
            i = i + 2
            declare(tokens[i])
          end
          if not tokens[i + 1] or tokens[i + 1].text ~= "=" then
            edits[#edits + 1] = { first = tokens[i].last + 1, last = tokens[i].last, text = " = nil" }
          end
        end
      elseif OPENS[token.text] then depth = depth + 1
      elseif CLOSES[token.text] then depth = depth - 1 end
    end
    i = i + 1
  end
  return apply(text, edits), names
end

--- Put a call of `_KEEP_LOCALS_` before every way out of the main chunk: before each `return` that belongs to it, and at its end.
-- The text must be a valid chunk.
-- @param text Lua source
-- @return the new source
function rewrite.keep(text)
  local call = rewrite.KEEP .. "()"
  local body = text
  if body:sub(1, 1) == "#" then body = "--" .. body:sub(2) end   -- a "#!" line, as loadfile takes it
  local tokens = without_comments(lexer.tokens(body))
  local edits, blocks, functions = {}, {}, 0
  local returns_at_end = false
  for i = 1, #tokens do
    local token = tokens[i]
    if token.kind == "keyword" then
      if OPENS[token.text] then
        blocks[#blocks + 1] = token.text
        if token.text == "function" then functions = functions + 1 end
      elseif CLOSES[token.text] then
        if table.remove(blocks) == "function" then functions = functions - 1 end
      elseif token.text == "return" and functions == 0 then
        edits[#edits + 1] = { first = token.first, last = token.first - 1, text = call .. " " }
        if #blocks == 0 then returns_at_end = true end
      end
    end
  end
  if not returns_at_end then
    local last = tokens[#tokens]
    local at = last and last.last or 0
    edits[#edits + 1] = { first = at + 1, last = at, text = " " .. call }
  end
  return apply(body, edits)
end

return rewrite
