--- Stems of words, by the Snowball algorithms of libstemmer (Debian package libstemmer0d).
--
-- PadChest publishes its Spanish reports in lower case, stemmed and without accents ("derram pleural cronic"). A report in full words must be
-- stemmed in the same way before a model or a vocabulary made of such text knows it.
-- @module unic.text.stem
local ffi = require "ffi"
local arguments = require "unic.arguments"
local core = require "unic.core"

ffi.cdef [[
struct sb_stemmer;
const char **sb_stemmer_list(void);
struct sb_stemmer *sb_stemmer_new(const char *algorithm, const char *encoding);
void sb_stemmer_delete(struct sb_stemmer *stemmer);
const unsigned char *sb_stemmer_stem(struct sb_stemmer *stemmer, const unsigned char *word, int size);
int sb_stemmer_length(struct sb_stemmer *stemmer);
]]

local stem = {}

-- The names of the shared object: Debian's, that of a build from source, and what a -dev package links to them.
stem.libraries = { "libstemmer.so.0d", "libstemmer.so.0", "libstemmer.so" }

local library

local function open()
  if library then return library end
  for _, name in ipairs(stem.libraries) do
    local ok, found = pcall(ffi.load, name)
    if ok then
      library = found
      return found
    end
  end
  arguments.fail("stem", "the library %s is not installed; it is in Debian's package libstemmer0d (apt-get install libstemmer0d)", stem.libraries[1])
end

--- Is libstemmer there?
-- @return true or false
function stem.available() return (pcall(open)) end

--- The languages that can be stemmed, by their English names; their ISO 639 codes ("es", "spa") are taken, too.
-- @return a list of names
function stem.languages()
  local names, list = open().sb_stemmer_list(), {}
  while names[#list] ~= nil do list[#list + 1] = ffi.string(names[#list]) end
  return list
end

local MOST_WORDS = 2 ^ 18   -- words that a stemmer remembers; a language has fewer, text that never repeats itself must not fill the heap

local stemmers = {}

-- Tokenisers without a vocabulary, for their words: as written but in lower case; and without accents.
local splitters
local function splitter(strip)
  if not splitters then
    local text = require "unic.text"
    local specials = { "[PAD]", "[UNK]", "[CLS]", "[SEP]" }
    splitters = { [true] = text.wordpiece(specials), [false] = text.wordpiece(specials, { strip_accents = false }) }
  end
  return splitters[strip]
end

--- A function that stems words of a language.
-- @param language its name or code, such as "es" or "spanish"
-- @param[opt] options `strip_accents` (default true, as PadChest's stems): take the accents off the stem
-- @return a function: a word in lower case, with its accents, composed (NFC) -> its stem
function stem.stemmer(language, options)
  options = arguments.options("stem", options, { strip_accents = "boolean" })
  arguments.check("stem", "language", language, "string")
  local strip = options.strip_accents ~= false
  local key = language .. (strip and "" or " accents")
  if stemmers[key] then return stemmers[key] end
  local handle = not language:find "%z" and open().sb_stemmer_new(language, "UTF_8") or nil
  if handle == nil then
    local names = stem.languages()
    local near = core.nearest(language, names)
    arguments.fail("stem", "argument 'language': \"%s\" is none that libstemmer has%s; there are: %s, and their ISO 639 codes", language,
      near and (", did you mean '%s'?"):format(near) or "", table.concat(names, ", "))
  end
  ffi.gc(handle, library.sb_stemmer_delete)
  local known, count = {}, 0
  local function stem_word(word)
    local found = known[word]
    if found then return found end
    local bytes = library.sb_stemmer_stem(handle, word, #word)
    if bytes == nil then arguments.fail("stem", "no memory to stem a word of %d bytes", #word) end
    found = ffi.string(bytes, library.sb_stemmer_length(handle))
    if strip and found:find "[\128-\255]" then found = table.concat(splitter(true):words(found)) end
    if count == MOST_WORDS then known, count = {}, 0 end
    known[word], count = found, count + 1
    return found
  end
  stemmers[key] = stem_word
  return stem_word
end

--- Stem a text: in lower case, punctuation parted, every word replaced by its stem, one blank between them.
-- @param str the text; accents as single characters (NFC), as text is nearly always written
-- @param language a name or code, such as "es"
-- @param[opt] options as for `stemmer`
-- @return a text
function stem.text(str, language, options)
  arguments.check("stem", "text", str, "string")
  local stem_word = stem.stemmer(language, options)
  local words = splitter(false):words(str)
  for i = 1, #words do
    -- a word of more than 100 characters is told as [UNK], which must stay as it is written
    if words[i] ~= "[UNK]" then words[i] = stem_word(words[i]) end
  end
  return table.concat(words, " ")
end

return stem
