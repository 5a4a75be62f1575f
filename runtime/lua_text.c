/* The Lua door of runtime/text: WordPiece vocabularies. lua/unic/text.lua is its public face, with the documentation.
 *
 * Userdata "unic.wordpiece" holds a unic_wordpiece *. Scratch memory is userdata too: an error raised in between leaks nothing. */
#include <inttypes.h>
#include <stdio.h>

#include "device.h"
#include "lua_unic.h"
#include "text/unicode.h"
#include "text/wordpiece.h"
#include "text/words.h"
#include "threads.h"

static const char WORDPIECE[] = "unic.wordpiece";

static unic_wordpiece **handle_new(lua_State *L) {
  unic_wordpiece **handle = lua_newuserdata(L, sizeof *handle);
  *handle = NULL;
  luaL_getmetatable(L, WORDPIECE);
  lua_setmetatable(L, -2);
  return handle;
}

static unic_wordpiece *check(lua_State *L) {
  unic_wordpiece *v = *(unic_wordpiece **)luaL_checkudata(L, 1, WORDPIECE);
  if (!v) luaL_error(L, "[wordpiece] this vocabulary was freed");
  return v;
}

/* Options from `arg` on: lowercase, strip_accents, cjk. */
static unic_wordpiece_options options_at(lua_State *L, int arg) {
  return (unic_wordpiece_options){lua_toboolean(L, arg), lua_toboolean(L, arg + 1), lua_toboolean(L, arg + 2)};
}

/* load(path, lowercase, strip_accents, cjk) -> vocabulary */
static int load(lua_State *L) {
  const char *path = luaL_checkstring(L, 1);
  const unic_wordpiece_options options = options_at(L, 2);
  unic_wordpiece **handle = handle_new(L);
  UNIC_DOOR(L, unic_wordpiece_load(path, &options, handle));
  return 1;
}

/* parse(bytes, name, lowercase, strip_accents, cjk) -> vocabulary */
static int parse(lua_State *L) {
  size_t size;
  const char *bytes = luaL_checklstring(L, 1, &size), *name = luaL_checkstring(L, 2);
  const unic_wordpiece_options options = options_at(L, 3);
  unic_wordpiece **handle = handle_new(L);
  UNIC_DOOR(L, unic_wordpiece_parse(bytes, size, name, &options, handle));
  return 1;
}

static int release(lua_State *L) {
  unic_wordpiece **handle = luaL_checkudata(L, 1, WORDPIECE);
  unic_wordpiece_release(*handle);
  *handle = NULL;
  return 0;
}

/* size(vocabulary) */
static int size_of(lua_State *L) {
  lua_pushinteger(L, unic_wordpiece_size(check(L)));
  return 1;
}

/* specials(vocabulary) -> ids of [PAD], [UNK], [CLS], [SEP], [MASK]; the last is nil where there is none */
static int specials(lua_State *L) {
  for (int i = 0; i < UNIC_SPECIALS; i++) {
    const int32_t id = unic_wordpiece_special(check(L), (unic_special)i);
    if (id >= 0) lua_pushinteger(L, id);
    else lua_pushnil(L);
  }
  return UNIC_SPECIALS;
}

/* id(vocabulary, token) -> number or nil */
static int id_of(lua_State *L) {
  size_t size;
  const char *token = luaL_checklstring(L, 2, &size);
  const int32_t id = unic_wordpiece_find(check(L), token, size);
  if (id >= 0) lua_pushinteger(L, id);
  else lua_pushnil(L);
  return 1;
}

/* token(vocabulary, id) -> string or nil */
static int token_of(lua_State *L) {
  const unic_wordpiece *v = check(L);
  const lua_Number id = luaL_checknumber(L, 2);
  size_t size;
  if (!(id >= 0 && id < unic_wordpiece_size(v))) {
    lua_pushnil(L);
  } else {
    const char *token = unic_wordpiece_token(v, (int32_t)id, &size);
    lua_pushlstring(L, token, size);
  }
  return 1;
}

/* hash(vocabulary) -> 16 hexadecimal digits */
static int hash_of(lua_State *L) {
  char digits[17];
  snprintf(digits, sizeof digits, "%016" PRIx64, unic_wordpiece_hash(check(L)));
  lua_pushstring(L, digits);
  return 1;
}

/* Most ids for a text: `max`, or what the text can give. */
static int64_t room_for(size_t size, lua_Number max) {
  const int64_t most = (int64_t)size + 2;
  return max < (lua_Number)most ? (int64_t)max : most;
}

static int flags_at(lua_State *L, int arg) {
  return (lua_toboolean(L, arg) ? UNIC_ENCODE_BARE : 0) | (lua_toboolean(L, arg + 1) ? UNIC_ENCODE_SPECIALS : 0);
}

/* How a caller wants to know where tokens stand. */
typedef enum spans_kind { SPANS_NONE, SPANS_BYTES, SPANS_CHARACTERS } spans_kind;

static spans_kind spans_at(lua_State *L, int arg) {
  const char *kind = lua_tostring(L, arg);
  return !kind ? SPANS_NONE : kind[0] == 'c' ? SPANS_CHARACTERS : SPANS_BYTES;
}

/* Spans of bytes become spans of characters; they begin and end where characters do. `places` has room for the text's bytes and one more; an
 * ill-formed byte sequence counts as the one U+FFFD that would stand for it. */
static void spans_count(const char *text, size_t size, uint32_t *places, uint32_t (*spans)[2], int64_t count) {
  const uint8_t *const bytes = (const uint8_t *)text;
  uint32_t characters = 0, code;
  for (size_t i = 0; i < size; characters++) {
    places[i] = characters;
    i += (size_t)unic_utf8_decode(bytes + i, bytes + size, &code);
  }
  places[size] = characters;
  for (int64_t i = 0; i < count; i++) {
    spans[i][0] = places[spans[i][0]];
    spans[i][1] = places[spans[i][1]];
  }
}

/* encode(vocabulary, text, max, bare, specials_in_text, spans, pair) -> ids [, types] [, firsts, lasts]: types where there is a pair; positions in
 * the texts, counted from 1, both included, where spans is "bytes" or "characters" */
static int encode(lua_State *L) {
  const unic_wordpiece *v = check(L);
  size_t size, other_size = 0;
  const char *text = luaL_checklstring(L, 2, &size), *other = lua_isnoneornil(L, 7) ? NULL : luaL_checklstring(L, 7, &other_size);
  const lua_Number limit = luaL_checknumber(L, 3);
  const spans_kind kind = spans_at(L, 6);
  const int flags = flags_at(L, 4);  /* before anything is pushed where an argument may be absent */
  const int64_t max = room_for(size + other_size + 1, limit), room = other ? (int64_t)(size + other_size) + 3 : max;
  int32_t *ids = lua_newuserdata(L, (size_t)room * sizeof *ids);
  uint32_t (*spans)[2] = kind != SPANS_NONE ? lua_newuserdata(L, (size_t)room * sizeof *spans) : NULL;
  int64_t count, first;
  if (other) count = unic_wordpiece_encode_pair(v, text, size, other, other_size, flags, ids, max, spans, &first);
  else first = count = unic_wordpiece_encode(v, text, size, flags, ids, max, spans);
  if (kind == SPANS_CHARACTERS) {
    uint32_t *places = lua_newuserdata(L, ((size > other_size ? size : other_size) + 1) * sizeof *places);
    spans_count(text, size, places, spans, first);
    if (other) spans_count(other, other_size, places, spans + first, count - first);
  }
  lua_createtable(L, (int)count, 0);
  for (int i = 0; i < count; i++) {
    lua_pushinteger(L, ids[i]);
    lua_rawseti(L, -2, i + 1);
  }
  if (other) {
    lua_createtable(L, (int)count, 0);
    for (int i = 0; i < count; i++) {
      lua_pushinteger(L, i >= first);
      lua_rawseti(L, -2, i + 1);
    }
  }
  for (int which = 0; which < (spans ? 2 : 0); which++) {
    lua_createtable(L, (int)count, 0);
    for (int i = 0; i < count; i++) {
      lua_pushnumber(L, (lua_Number)spans[i][which] + (which == 0));
      lua_rawseti(L, -2, i + 1);
    }
  }
  return 1 + (other != NULL) + (spans ? 2 : 0);
}

/* words(vocabulary, text) -> the words before they are cut into pieces */
static int words_of(lua_State *L) {
  const unic_wordpiece *v = check(L);
  size_t size, unknown_size;
  const char *text = luaL_checklstring(L, 2, &size);
  const char *unknown = unic_wordpiece_token(v, unic_wordpiece_special(v, UNIC_UNK), &unknown_size);
  unic_words words;
  unic_words_begin(&words, unic_wordpiece_words(v), text, size, false);
  lua_newtable(L);
  for (int n = 1; unic_words_next(&words); n++) {
    if (words.chars > UNIC_WORD_CHARS) lua_pushlstring(L, unknown, unknown_size);
    else lua_pushlstring(L, (const char *)words.bytes, (size_t)words.size);
    lua_rawseti(L, -2, n);
  }
  return 1;
}

/* The text at place i + 1 of the list at index `list`, which keeps it alive. */
static const char *text_at(lua_State *L, int list, const char *name, int i, size_t *size) {
  lua_rawgeti(L, list, i + 1);
  if (lua_type(L, -1) != LUA_TSTRING) {
    unic_fail("[batch] %s: item %d is %s, expected a string", name, i + 1, unic_door_kind(L, lua_gettop(L)));
    unic_door_raise(L, UNIC_ERROR);
  }
  const char *text = lua_tolstring(L, -1, size);
  lua_pop(L, 1);
  return text;
}

/* Texts and where their rows go; each text is a job of its own, so any number of threads gives the same. Row i has the room from starts[i] to
 * starts[i + 1] in ids and spans. */
typedef struct jobs {
  const unic_wordpiece *v;
  const char **texts, **others;  /* others: the second texts of pairs, or NULL */
  size_t *sizes, *other_sizes;
  int32_t *ids;
  uint32_t (*spans)[2], *places; /* where spans are wished; places: room to count characters, for row i from place_starts[i] on */
  int64_t *starts, *place_starts;
  int64_t *counts, *firsts;      /* ids in row i; of them of the first text */
  spans_kind kind;
  int flags;
  lua_Number max;
  int64_t width;
  int64_t *rows, *types, *bounds;
  uint8_t *mask;
} jobs;

static int64_t jobs_max(const jobs *j, int64_t i) {
  return room_for(j->sizes[i] + (j->others ? j->other_sizes[i] + 1 : 0), j->max);
}

static void jobs_encode(void *context, int64_t begin, int64_t end) {
  const jobs *j = context;
  for (int64_t i = begin; i < end; i++) {
    int32_t *ids = j->ids + j->starts[i];
    uint32_t (*spans)[2] = j->kind != SPANS_NONE ? j->spans + j->starts[i] : NULL;
    if (j->others)
      j->counts[i] = unic_wordpiece_encode_pair(j->v, j->texts[i], j->sizes[i], j->others[i], j->other_sizes[i], j->flags, ids, jobs_max(j, i), spans,
                                                &j->firsts[i]);
    else
      j->firsts[i] = j->counts[i] = unic_wordpiece_encode(j->v, j->texts[i], j->sizes[i], j->flags, ids, jobs_max(j, i), spans);
    if (j->kind == SPANS_CHARACTERS) {
      uint32_t *places = j->places + j->place_starts[i];
      spans_count(j->texts[i], j->sizes[i], places, spans, j->firsts[i]);
      if (j->others) spans_count(j->others[i], j->other_sizes[i], places, spans + j->firsts[i], j->counts[i] - j->firsts[i]);
    }
  }
}

static void jobs_pad(void *context, int64_t begin, int64_t end) {
  const jobs *j = context;
  for (int64_t i = begin; i < end; i++) {
    const int64_t at = i * j->width;
    unic_wordpiece_row(j->v, j->ids + j->starts[i], j->counts[i], j->width, j->rows + at, j->mask + at);
    for (int64_t k = 0; j->types && k < j->width; k++) j->types[at + k] = k >= j->firsts[i] && k < j->counts[i];
    for (int64_t k = 0; j->bounds && k < 2 * j->width; k++)
      j->bounds[2 * at + k] = k < 2 * j->counts[i] ? j->spans[j->starts[i] + k / 2][k % 2] : 0;
  }
}

/* A new tensor on the CPU, pushed. */
static void *tensor_push(lua_State *L, unic_dtype dtype, int ndim, const int64_t *shape) {
  unic_tensor *t;
  const unic_status status = unic_tensor_new(unic_device_cpu(), dtype, ndim, shape, UNIC_CONTIGUOUS, 0, &t);
  if (status != UNIC_OK) unic_door_raise(L, status);
  unic_handle_push(L, t);
  return unic_tensor_data(t);
}

/* batch(vocabulary, texts, max, multiple, bare, specials_in_text, spans, pairs) -> ids i64 [B, L], mask bool [B, L] [, types i64 [B, L]]
 * [, spans i64 [B, L, 2]] on the CPU; spans are half open and count from 0, as all positions in tensors do */
static int batch(lua_State *L) {
  enum { CHUNK = 8 };  /* texts a thread takes at once: some 100 us of work */
  const unic_wordpiece *v = check(L);
  luaL_checktype(L, 2, LUA_TTABLE);
  const int64_t multiple = (int64_t)luaL_checknumber(L, 4);
  const size_t count = lua_objlen(L, 2);
  jobs j = {.v = v, .flags = flags_at(L, 5), .max = luaL_checknumber(L, 3), .kind = spans_at(L, 7)};
  const bool pairs = lua_istable(L, 8);
  j.texts = lua_newuserdata(L, count * sizeof *j.texts + 1);
  j.sizes = lua_newuserdata(L, count * sizeof *j.sizes + 1);
  j.others = pairs ? lua_newuserdata(L, count * sizeof *j.others + 1) : NULL;
  j.other_sizes = pairs ? lua_newuserdata(L, count * sizeof *j.other_sizes + 1) : NULL;
  j.counts = lua_newuserdata(L, count * sizeof *j.counts + 1);
  j.firsts = lua_newuserdata(L, count * sizeof *j.firsts + 1);
  j.starts = lua_newuserdata(L, (count + 1) * sizeof *j.starts);
  j.place_starts = lua_newuserdata(L, (count + 1) * sizeof *j.place_starts);
  j.starts[0] = j.place_starts[0] = 0;
  for (size_t i = 0; i < count; i++) {
    j.texts[i] = text_at(L, 2, "argument 'texts'", (int)i, &j.sizes[i]);
    if (pairs) j.others[i] = text_at(L, 8, "option 'pairs'", (int)i, &j.other_sizes[i]);
    const size_t longer = pairs && j.other_sizes[i] > j.sizes[i] ? j.other_sizes[i] : j.sizes[i];
    j.starts[i + 1] = j.starts[i] + (pairs ? (int64_t)(j.sizes[i] + j.other_sizes[i]) + 3 : jobs_max(&j, (int64_t)i));
    j.place_starts[i + 1] = j.place_starts[i] + (int64_t)longer + 1;
  }
  j.ids = lua_newuserdata(L, (size_t)j.starts[count] * sizeof *j.ids + 1);
  if (j.kind != SPANS_NONE) j.spans = lua_newuserdata(L, (size_t)j.starts[count] * sizeof *j.spans + 1);
  if (j.kind == SPANS_CHARACTERS) j.places = lua_newuserdata(L, (size_t)j.place_starts[count] * sizeof *j.places + 1);
  unic_parallel_for((int64_t)count, CHUNK, jobs_encode, &j);
  for (size_t i = 0; i < count; i++)
    if (j.counts[i] > j.width) j.width = j.counts[i];
  j.width = (j.width + multiple - 1) / multiple * multiple;
  const int64_t shape[3] = {(int64_t)count, j.width, 2};
  j.rows = tensor_push(L, UNIC_I64, 2, shape);
  j.mask = tensor_push(L, UNIC_BOOL, 2, shape);
  if (pairs) j.types = tensor_push(L, UNIC_I64, 2, shape);
  if (j.kind != SPANS_NONE) j.bounds = tensor_push(L, UNIC_I64, 3, shape);
  unic_parallel_for((int64_t)count, CHUNK, jobs_pad, &j);
  return 2 + pairs + (j.kind != SPANS_NONE);
}

/* The ids at index 2, a list of numbers or an integer tensor of one dimension, as scratch memory. */
static int32_t *ids_at(lua_State *L, int64_t *count) {
  unic_handle *handle = unic_handle_at(L, 2);
  if (handle) {
    const unic_tensor *t = unic_handle_tensor(L, 2, "decode", "ids");
    if (t->ndim != 1 || (t->dtype != UNIC_I64 && t->dtype != UNIC_I32) || unic_tensor_device(t) != unic_device_cpu()) {
      unic_fail("[decode] argument 'ids': %s was given, expected a list of ids or an i64 or i32 tensor of one dimension on cpu",
                unic_door_kind(L, 2));
      unic_door_raise(L, UNIC_ERROR);
    }
    *count = t->shape[0];
    int32_t *ids = lua_newuserdata(L, (size_t)*count * sizeof *ids + 1);
    const void *data = unic_tensor_data(t);
    for (int64_t i = 0; i < *count; i++) {
      const int64_t id = t->dtype == UNIC_I64 ? ((const int64_t *)data)[i * t->stride[0]] : ((const int32_t *)data)[i * t->stride[0]];
      ids[i] = id >= 0 && id <= INT32_MAX ? (int32_t)id : -1;
    }
    return ids;
  }
  if (lua_type(L, 2) != LUA_TTABLE) {
    unic_fail("[decode] argument 'ids': %s was given, expected a list of ids or an integer tensor", unic_door_kind(L, 2));
    unic_door_raise(L, UNIC_ERROR);
  }
  *count = (int64_t)lua_objlen(L, 2);
  int32_t *ids = lua_newuserdata(L, (size_t)*count * sizeof *ids + 1);
  for (int i = 0; i < *count; i++) {
    lua_rawgeti(L, 2, i + 1);
    const lua_Number id = lua_tonumber(L, -1);
    if (lua_type(L, -1) != LUA_TNUMBER || !(id >= INT32_MIN && id <= INT32_MAX) || id != (lua_Number)(int32_t)id) {
      unic_fail("[decode] argument 'ids': %s at position %d, expected token ids", unic_door_kind(L, lua_gettop(L)), i + 1);
      unic_door_raise(L, UNIC_ERROR);
    }
    ids[i] = (int32_t)id;
    lua_pop(L, 1);
  }
  return ids;
}

/* decode(vocabulary, ids, skip_specials, cleanup) -> string */
static int decode(lua_State *L) {
  const unic_wordpiece *v = check(L);
  const bool skip = lua_toboolean(L, 3), cleanup = lua_toboolean(L, 4);
  int64_t count;
  size_t size;
  const int32_t *ids = ids_at(L, &count);
  UNIC_DOOR(L, unic_wordpiece_decode(v, ids, count, skip, cleanup, NULL, &size));
  char *text = lua_newuserdata(L, size + 1);
  UNIC_DOOR(L, unic_wordpiece_decode(v, ids, count, skip, cleanup, text, &size));
  lua_pushlstring(L, text, size);
  return 1;
}

int unic_lua_open_text(lua_State *L) {
  static const luaL_Reg functions[] = {
    {"load", load}, {"parse", parse}, {"size", size_of}, {"specials", specials}, {"id", id_of}, {"token", token_of}, {"hash", hash_of},
    {"encode", encode}, {"batch", batch}, {"words", words_of}, {"decode", decode}, {NULL, NULL}
  };
  luaL_newmetatable(L, WORDPIECE);
  lua_pushcfunction(L, release);
  lua_setfield(L, -2, "__gc");
  lua_pushstring(L, WORDPIECE);
  lua_setfield(L, -2, "__name");
  lua_pop(L, 1);
  lua_newtable(L);
  luaL_register(L, NULL, functions);
  return 1;
}
