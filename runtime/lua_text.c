/* The Lua door of runtime/text: WordPiece vocabularies. lua/unic/text.lua is its public face, with the documentation.
 *
 * Userdata "unic.wordpiece" holds a unic_wordpiece *. Scratch memory is userdata too: an error raised in between leaks nothing. */
#include <inttypes.h>
#include <stdio.h>

#include "device.h"
#include "lua_unic.h"
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

/* encode(vocabulary, text, max, bare, specials_in_text, spans) -> ids [, firsts, lasts]: positions in the text, counted from 1, both included */
static int encode(lua_State *L) {
  const unic_wordpiece *v = check(L);
  size_t size;
  const char *text = luaL_checklstring(L, 2, &size);
  const int64_t room = room_for(size, luaL_checknumber(L, 3));
  const bool spans = lua_toboolean(L, 6);
  const int flags = flags_at(L, 4);  /* before anything is pushed where an argument may be absent */
  int32_t *ids = lua_newuserdata(L, (size_t)room * sizeof *ids);
  uint32_t (*ends)[2] = spans ? lua_newuserdata(L, (size_t)room * sizeof *ends) : NULL;
  const int64_t count = unic_wordpiece_encode(v, text, size, flags, ids, room, ends);
  lua_createtable(L, (int)count, 0);
  for (int i = 0; i < count; i++) {
    lua_pushinteger(L, ids[i]);
    lua_rawseti(L, -2, i + 1);
  }
  if (!spans) return 1;
  for (int which = 0; which < 2; which++) {
    lua_createtable(L, (int)count, 0);
    for (int i = 0; i < count; i++) {
      lua_pushnumber(L, (lua_Number)ends[i][which] + (which == 0));
      lua_rawseti(L, -2, i + 1);
    }
  }
  return 3;
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

/* The text at place i + 1 of the list at index 2, which keeps it alive. */
static const char *text_at(lua_State *L, int i, size_t *size) {
  lua_rawgeti(L, 2, i + 1);
  if (lua_type(L, -1) != LUA_TSTRING) {
    unic_fail("[batch] argument 'texts': item %d is %s, expected a string", i + 1, unic_door_kind(L, lua_gettop(L)));
    unic_door_raise(L, UNIC_ERROR);
  }
  const char *text = lua_tolstring(L, -1, size);
  lua_pop(L, 1);
  return text;
}

/* Texts and where their rows go; each text is a job of its own, so any number of threads gives the same. */
typedef struct jobs {
  const unic_wordpiece *v;
  const char **texts;
  size_t *sizes;
  int32_t *ids;     /* rows of different lengths */
  int64_t *starts;  /* [count + 1] room for row i: from starts[i] to starts[i + 1] */
  int64_t *counts;  /* ids in row i */
  int flags;
  int64_t width;
  int64_t *rows;
  uint8_t *mask;
} jobs;

static void jobs_encode(void *context, int64_t begin, int64_t end) {
  const jobs *j = context;
  for (int64_t i = begin; i < end; i++)
    j->counts[i] = unic_wordpiece_encode(j->v, j->texts[i], j->sizes[i], j->flags, j->ids + j->starts[i], j->starts[i + 1] - j->starts[i], NULL);
}

static void jobs_pad(void *context, int64_t begin, int64_t end) {
  const jobs *j = context;
  for (int64_t i = begin; i < end; i++)
    unic_wordpiece_row(j->v, j->ids + j->starts[i], j->counts[i], j->width, j->rows + i * j->width, j->mask + i * j->width);
}

/* batch(vocabulary, texts, max, multiple, bare, specials_in_text) -> ids i64 [B, L], mask bool [B, L] on the CPU */
static int batch(lua_State *L) {
  enum { CHUNK = 8 };  /* texts a thread takes at once: some 100 us of work */
  const unic_wordpiece *v = check(L);
  luaL_checktype(L, 2, LUA_TTABLE);
  const lua_Number max = luaL_checknumber(L, 3);
  const int64_t multiple = (int64_t)luaL_checknumber(L, 4);
  const size_t count = lua_objlen(L, 2);
  jobs j = {.v = v, .flags = flags_at(L, 5)};
  j.texts = lua_newuserdata(L, count * sizeof *j.texts + 1);
  j.sizes = lua_newuserdata(L, count * sizeof *j.sizes + 1);
  j.counts = lua_newuserdata(L, count * sizeof *j.counts + 1);
  j.starts = lua_newuserdata(L, (count + 1) * sizeof *j.starts);
  j.starts[0] = 0;
  for (size_t i = 0; i < count; i++) {
    j.texts[i] = text_at(L, (int)i, &j.sizes[i]);
    j.starts[i + 1] = j.starts[i] + room_for(j.sizes[i], max);
  }
  j.ids = lua_newuserdata(L, (size_t)j.starts[count] * sizeof *j.ids + 1);
  unic_parallel_for((int64_t)count, CHUNK, jobs_encode, &j);
  for (size_t i = 0; i < count; i++)
    if (j.counts[i] > j.width) j.width = j.counts[i];
  j.width = (j.width + multiple - 1) / multiple * multiple;
  const int64_t shape[2] = {(int64_t)count, j.width};
  unic_tensor *rows, *mask;
  UNIC_DOOR(L, unic_tensor_new(unic_device_cpu(), UNIC_I64, 2, shape, UNIC_CONTIGUOUS, 0, &rows));
  unic_handle_push(L, rows);
  UNIC_DOOR(L, unic_tensor_new(unic_device_cpu(), UNIC_BOOL, 2, shape, UNIC_CONTIGUOUS, 0, &mask));
  unic_handle_push(L, mask);
  j.rows = unic_tensor_data(rows);
  j.mask = unic_tensor_data(mask);
  unic_parallel_for((int64_t)count, CHUNK, jobs_pad, &j);
  return 2;
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
