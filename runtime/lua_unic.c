/* luaopen_unic_core: the module table, how errors are raised, recipe lines, garbage collection by bytes, devices, threads, memory, recordings. One long
 * file, because each of these is a few functions for the same table. */
#define _GNU_SOURCE
#include "lua_unic.h"
#include "plan.h"
#include "remake.h"
#include "replay.h"

#include <dlfcn.h>
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static lua_State *state;          /* the one that opened the module */
static pthread_t state_thread;
static unic_device *default_device;

lua_State *unic_door_state(void) { return state && pthread_equal(pthread_self(), state_thread) ? state : NULL; }

/* ---------------------------------------------------------------- recipe lines */

enum { LINES = 4096 };
static struct { const char *source; int line; uint32_t id; } line_cache[LINES];
static char **line_texts;
static uint32_t line_count, line_room;

/* Frames of the library itself are not the user's. */
static bool is_ours(const char *source) { return source[0] != '@' || strstr(source, "lua/unic/") != NULL; }

static size_t line_slot(const lua_Debug *ar) { return (((uintptr_t)ar->source >> 4) * 31u + (uint32_t)ar->currentline) & (LINES - 1); }
static bool line_known(size_t slot, const lua_Debug *ar) { return line_cache[slot].source == ar->source && line_cache[slot].line == ar->currentline; }

/* The innermost line of the user's. known: one that was found before will do, whose id stands in the cache. */
static bool find_user_frame(lua_State *L, lua_Debug *ar, bool known) {
  for (int level = 1; lua_getstack(L, level, ar); level++) {   /* 0 is the C function that asks */
    if (!lua_getinfo(L, "l", ar)) return false;
    if (ar->currentline <= 0) continue;   /* C: its source is not worth a look, and every node asks */
    if (!lua_getinfo(L, "S", ar)) return false;
    if (known && line_known(line_slot(ar), ar)) return true;
    if (ar->source[0] == '=' || (ar->source[0] == '@' && is_ours(ar->source))) continue;
    return true;
  }
  return false;
}

static uint32_t current_line(void) {
  lua_State *L = unic_door_state();
  lua_Debug ar;
  if (!L || !find_user_frame(L, &ar, true)) return 0;
  size_t slot = line_slot(&ar);
  if (line_known(slot, &ar)) return line_cache[slot].id;
  char text[512];
  snprintf(text, sizeof text, "%s:%d", ar.short_src, ar.currentline);
  uint32_t id = 0;
  for (uint32_t i = 0; i < line_count && !id; i++) if (strcmp(line_texts[i], text) == 0) id = i + 1;
  if (!id) {
    if (line_count == line_room) {
      uint32_t room = line_room ? 2 * line_room : 256;
      char **grown = realloc(line_texts, room * sizeof *grown);
      if (!grown) return 0;
      line_texts = grown;
      line_room = room;
    }
    char *copy = strdup(text);
    if (!copy) return 0;
    line_texts[line_count++] = copy;
    id = line_count;
  }
  line_cache[slot].source = ar.source;
  line_cache[slot].line = ar.currentline;
  line_cache[slot].id = id;
  return id;
}

static const char *line_text(uint32_t line) { return line >= 1 && line <= line_count ? line_texts[line - 1] : "an unknown line"; }

/* ---------------------------------------------------------------- raising */

typedef struct largest { struct { int64_t bytes; uint32_t line; } top[8]; } largest;

static void note_block(void *context, void *owner, int64_t bytes) {
  largest *l = context;
  const unic_storage *s = owner;
  for (int i = 0; i < 8; i++) {
    if (bytes <= l->top[i].bytes) continue;
    memmove(&l->top[i + 1], &l->top[i], (size_t)(7 - i) * sizeof l->top[0]);
    l->top[i].bytes = bytes;
    l->top[i].line = s->line;
    return;
  }
}

static void push_memory_report(lua_State *L, luaL_Buffer *b) {
  (void)L;
  for (int d = 0; d < unic_device_count(); d++) {
    unic_device *device = unic_device_at(d);
    unic_memory_stats stats = unic_memory_read(device->memory);
    if (stats.active == 0) continue;
    largest l = {0};
    unic_memory_each(device->memory, note_block, &l);
    char text[256];
    snprintf(text, sizeof text, "\n  %s: %.1f MB in %lld tensors; the largest:", device->name, (double)stats.active / 1e6, (long long)stats.blocks);
    luaL_addstring(b, text);
    for (int i = 0; i < 8 && l.top[i].bytes; i++) {
      snprintf(text, sizeof text, "\n    %10.1f MB  made at %s", (double)l.top[i].bytes / 1e6, l.top[i].line ? line_text(l.top[i].line) : "(not noted)");
      luaL_addstring(b, text);
    }
  }
}

int unic_door_raise(lua_State *L, unic_status status) {
  lua_Debug ar;
  char message[4096];
  snprintf(message, sizeof message, "%s", unic_message());
  if (status == UNIC_INTERRUPTED) {
    unic_interrupt_clear();
    lua_pushliteral(L, "interrupted");
    return lua_error(L);
  }
  luaL_Buffer b;
  luaL_buffinit(L, &b);
  /* A sentence that came up from a Lua callback has its place in front already. */
  if (message[0] == '[' && find_user_frame(L, &ar, false)) {
    char place[256];
    snprintf(place, sizeof place, "%s:%d: ", ar.short_src, ar.currentline);
    luaL_addstring(&b, place);
  }
  luaL_addstring(&b, message);
  if (status == UNIC_MEMORY) push_memory_report(L, &b);
  luaL_pushresult(&b);
  return lua_error(L);
}

/* fail(sentence): raise a sentence as the library does (for Lua parts of the library). */
static int door_fail(lua_State *L) {
  unic_fail("%s", luaL_checkstring(L, 1));
  return unic_door_raise(L, UNIC_ERROR);
}

/* ---------------------------------------------------------------- collection by bytes */

static double seconds(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static bool collecting;
/* share: how far the threshold is stretched to stay under 2 % of the time, and while collections give back less than a quarter of what called for them:
 * large values that are still at work, or that the tape holds. */
static double collect_last, collect_cost, collect_share = 1;
static int64_t collections;

/* One cycle of a collector that rests between two: what LUA_GCCOLLECT does after it has swept everything once for nothing. It rests as long as the
 * heap is well below twice what it was, where it would start a cycle by itself; in the middle of one it would miss what it has marked already. */
static void collect_garbage(lua_State *L) {
  static int before;
  if (before && lua_gc(L, LUA_GCCOUNT, 0) < before + before / 2) while (!lua_gc(L, LUA_GCSTEP, 1 << 20)) {}
  else lua_gc(L, LUA_GCCOLLECT, 0);
  before = lua_gc(L, LUA_GCCOUNT, 0);
}

static void collect(unic_device *device, bool must) {
  lua_State *L = unic_door_state();
  if (!L || collecting) return;
  unic_memory_stats stats = unic_memory_read(device->memory);
  int64_t limit = stats.settled / 64 > (INT64_C(32) << 20) ? stats.settled / 64 : INT64_C(32) << 20;
  /* What the tape holds, or C alone, is no debt; but a graph that nobody walks back through holds it for a handle that is garbage itself. */
  int64_t debt = stats.debt + (stats.fresh > stats.debt ? stats.fresh - stats.debt : 0) / 8;
  if (!must && (double)debt <= (double)limit * collect_share) return;
  collecting = true;
  double begin = seconds();
  if (must) {
    lua_gc(L, LUA_GCCOLLECT, 0);
    lua_gc(L, LUA_GCCOLLECT, 0);   /* what finalisers let go */
  } else {
    collect_garbage(L);
  }
  double end = seconds();
  collect_cost = end - begin;
  if (!must && collect_last > 0) {
    double share = collect_cost / (end - collect_last);
    const bool vain = stats.active - unic_memory_read(device->memory).active < debt / 4;
    if ((share > 0.02 || vain) && collect_share < 2) collect_share *= 1.5;   /* 72 MB at most while little is alive */
    else if (share < 0.01 && !vain && collect_share > 1) collect_share = collect_share / 1.5 < 1 ? 1 : collect_share / 1.5;
  }
  collect_last = end;
  collections++;
  for (int d = 0; d < unic_device_count(); d++) unic_memory_settle(unic_device_at(d)->memory);
  collecting = false;
}

/* ---------------------------------------------------------------- arguments */

const char *unic_door_kind(lua_State *L, int index) {
  unic_handle *h = unic_handle_at(L, index);
  static char text[300];
  if (h) {
    if (!h->t) return "a freed tensor";
    char inner[256];
    snprintf(text, sizeof text, "the tensor %s", unic_tensor_describe(h->t, inner, sizeof inner));
    return text;
  }
  switch (lua_type(L, index)) {
    case LUA_TNONE: return "nothing";
    case LUA_TNIL: return "nil";
    case LUA_TBOOLEAN: return lua_toboolean(L, index) ? "true" : "false";
    case LUA_TNUMBER: snprintf(text, sizeof text, "the number %.14g", lua_tonumber(L, index)); return text;
    case LUA_TSTRING: snprintf(text, sizeof text, "the string \"%.40s\"", lua_tostring(L, index)); return text;
    case LUA_TTABLE: return "a table";
    case LUA_TFUNCTION: return "a function";
    case LUA_TTHREAD: return "a coroutine";
    default: return "a value of another kind";
  }
}

unic_status unic_door_integer(lua_State *L, int index, const char *op, const char *name, int64_t *out) {
  if (lua_type(L, index) != LUA_TNUMBER) return unic_fail("[%s] argument '%s': %s was given, expected an integer", op, name, unic_door_kind(L, index));
  double x = lua_tonumber(L, index);
  if (x != floor(x) || fabs(x) > 9007199254740992.0) return unic_fail("[%s] argument '%s': %.14g was given, expected an integer", op, name, x);
  *out = (int64_t)x;
  return UNIC_OK;
}

unic_status unic_door_shape(lua_State *L, int index, const char *op, int *ndim, int64_t *shape) {
  if (lua_type(L, index) != LUA_TTABLE) return unic_fail("[%s] argument 'shape': %s was given, expected a table of sizes such as {2, 3}", op, unic_door_kind(L, index));
  size_t n = lua_objlen(L, index);
  if (n > UNIC_MAX_RANK) return unic_fail("[%s] argument 'shape': %zu dimensions were given, at most %d are possible", op, n, UNIC_MAX_RANK);
  *ndim = (int)n;
  for (size_t d = 0; d < n; d++) {
    lua_rawgeti(L, index, (int)d + 1);
    unic_status status = unic_door_integer(L, lua_gettop(L), op, "shape", &shape[d]);
    lua_pop(L, 1);
    UNIC_TRY(status);
    if (shape[d] < 0) return unic_fail("[%s] argument 'shape': dimension %zu is %lld, expected 0 or more", op, d + 1, (long long)shape[d]);
  }
  return UNIC_OK;
}

void unic_door_function(lua_State *L, int index, const char *op) {
  if (lua_type(L, index) == LUA_TFUNCTION) return;
  unic_fail("[%s] argument 'fn': %s was given, expected a function", op, unic_door_kind(L, index));
  unic_door_raise(L, UNIC_ERROR);
}

unic_status unic_door_dtype(lua_State *L, int index, const char *op, const char *name, unic_dtype *out) {
  if (lua_type(L, index) == LUA_TSTRING) {
    *out = unic_dtype_of_name(lua_tostring(L, index));
    if (*out != UNIC_DTYPES) return UNIC_OK;
  }
  return unic_fail("[%s] argument '%s': %s was given, expected a dtype: f32, bf16, f16, f64, i64, i32, u8 or bool", op, name, unic_door_kind(L, index));
}

unic_device *unic_door_default_device(void) { return default_device ? default_device : unic_device_cpu(); }

unic_status unic_door_device(lua_State *L, int index, unic_device **out) {
  if (lua_isnoneornil(L, index)) {
    *out = unic_door_default_device();
    return *out ? UNIC_OK : UNIC_ERROR;
  }
  if (lua_type(L, index) != LUA_TSTRING) return unic_fail("[device] argument 'device': %s was given, expected a device name such as \"cpu\" or \"cuda:0\"", unic_door_kind(L, index));
  return unic_device_open(lua_tostring(L, index), out);
}

const char *unic_door_nearest(const char *word, const char *const *candidates, int n) {
  const char *best = NULL;
  size_t length = strlen(word);
  int limit = length <= 3 ? 1 : length <= 6 ? 2 : 3, least = limit + 1;
  if (length > 60) return NULL;
  for (int c = 0; c < n; c++) {
    int row[64];
    size_t m = strlen(candidates[c]);
    if (m > 60) continue;
    for (size_t j = 0; j <= m; j++) row[j] = (int)j;
    for (size_t i = 1; i <= length; i++) {
      int diagonal = row[0];
      row[0] = (int)i;
      for (size_t j = 1; j <= m; j++) {
        int cost = diagonal + (word[i - 1] != candidates[c][j - 1]);
        diagonal = row[j];
        if (row[j] + 1 < cost) cost = row[j] + 1;
        if (row[j - 1] + 1 < cost) cost = row[j - 1] + 1;
        row[j] = cost;
      }
    }
    if (row[m] < least) { least = row[m]; best = candidates[c]; }
  }
  return best;
}

/* nearest(word, {candidates}) -> the nearest or nil */
static int door_nearest(lua_State *L) {
  const char *word = luaL_checkstring(L, 1);
  luaL_checktype(L, 2, LUA_TTABLE);
  int n = (int)lua_objlen(L, 2);
  const char **list = lua_newuserdata(L, (size_t)(n + 1) * sizeof *list);
  luaL_checkstack(L, n + 4, "candidates");
  for (int i = 0; i < n; i++) {
    lua_rawgeti(L, 2, i + 1);
    list[i] = luaL_checkstring(L, -1);
  }
  const char *best = unic_door_nearest(word, list, n);
  if (best) lua_pushstring(L, best); else lua_pushnil(L);
  return 1;
}

/* ---------------------------------------------------------------- devices, memory, threads */

/* device_default([name]) -> the name of the default device, after setting it when a name is given */
static int device_default(lua_State *L) {
  if (!lua_isnoneornil(L, 1)) {
    unic_device *d;
    UNIC_DOOR(L, unic_door_device(L, 1, &d));
    default_device = d;
  }
  lua_pushstring(L, unic_door_default_device()->name);
  return 1;
}

/* device_open(name) -> its full name, or nil and the sentence */
static int device_open(lua_State *L) {
  unic_device *d;
  if (unic_device_open(luaL_checkstring(L, 1), &d) != UNIC_OK) {
    lua_pushnil(L);
    lua_pushstring(L, unic_message());
    return 2;
  }
  lua_pushstring(L, d->name);
  return 1;
}

static int device_list(lua_State *L) {
  lua_newtable(L);
  for (int i = 0; i < unic_device_count(); i++) {
    lua_pushstring(L, unic_device_at(i)->name);
    lua_rawseti(L, -2, i + 1);
  }
  return 1;
}

static int device_synchronize(lua_State *L) {
  unic_device *d;
  UNIC_DOOR(L, unic_door_device(L, 1, &d));
  UNIC_DOOR(L, d->api->synchronize(d));
  return 0;
}

static void set_number(lua_State *L, const char *key, double value) {
  lua_pushnumber(L, value);
  lua_setfield(L, -2, key);
}

/* memory([device]) -> {active, peak, cached, budget, debt, blocks, allocations, collections} in bytes and counts */
static int memory_read(lua_State *L) {
  unic_device *d;
  UNIC_DOOR(L, unic_door_device(L, 1, &d));
  unic_memory_stats stats = unic_memory_read(d->memory);
  lua_newtable(L);
  set_number(L, "active", (double)stats.active);
  set_number(L, "peak", (double)stats.peak);
  set_number(L, "cached", (double)stats.cached);
  set_number(L, "budget", (double)stats.budget);
  set_number(L, "debt", (double)stats.debt);
  set_number(L, "blocks", (double)stats.blocks);
  set_number(L, "allocations", (double)stats.allocations);
  set_number(L, "collections", (double)collections);
  return 1;
}

static int memory_peak_reset(lua_State *L) {
  unic_device *d;
  UNIC_DOOR(L, unic_door_device(L, 1, &d));
  unic_memory_peak_reset(d->memory);
  return 0;
}

static int memory_budget_set(lua_State *L) {
  unic_device *d;
  UNIC_DOOR(L, unic_door_device(L, 2, &d));
  unic_memory_budget_set(d->memory, (int64_t)luaL_checknumber(L, 1));
  return 0;
}

/* memory_fail_after(n [, times]) -> allocations counted since the last call */
static int memory_fail_after(lua_State *L) {
  lua_pushnumber(L, (double)unic_memory_fail_after((int64_t)luaL_checknumber(L, 1), (int64_t)luaL_optnumber(L, 2, 1)));
  return 1;
}

static int drop_plans(lua_State *L) {
  (void)L;
  unic_plan_clear();
  return 0;
}

static int drop_derived(lua_State *L) {
  (void)L;
  unic_storage_drop_all_derived();
  return 0;
}

static int threads(lua_State *L) {
  if (!lua_isnoneornil(L, 1)) {
    int64_t n;
    UNIC_DOOR(L, unic_door_integer(L, 1, "threads", "n", &n));
    if (n < 1 || n > 4096) {
      unic_fail("[threads] argument 'n': %lld was given, expected 1 to 4096", (long long)n);
      return unic_door_raise(L, UNIC_ERROR);
    }
    unic_threads_set((int)n);
  }
  lua_pushinteger(L, unic_threads());
  return 1;
}

/* isa([name]) -> name of the table in use; setting is for specs */
static int isa(lua_State *L) {
  if (!lua_isnoneornil(L, 1)) {
    const char *want = luaL_checkstring(L, 1);
    int found = -1;
    for (int i = 0; i <= (int)unic_isa_best(); i++) if (strcmp(unic_isa_name((unic_isa)i), want) == 0) found = i;
    if (found < 0) {
      unic_fail("[isa] argument 'name': \"%.40s\" is not a table this processor runs, the best is %s", want, unic_isa_name(unic_isa_best()));
      return unic_door_raise(L, UNIC_ERROR);
    }
    unic_isa_set((unic_isa)found);
  }
  lua_pushstring(L, unic_isa_name(unic_isa_current()));
  lua_pushstring(L, unic_isa_name(unic_isa_best()));
  return 2;
}

/* grad_mode([on]) -> what it was */
static int grad_mode(lua_State *L) {
  bool was = unic_grad_mode();
  if (!lua_isnoneornil(L, 1)) unic_grad_mode_set(lua_toboolean(L, 1));
  lua_pushboolean(L, was);
  return 1;
}

/* low_memory([on]) -> what it was: whether products are made again too */
static int low_memory(lua_State *L) {
  bool was = unic_remake_is_costly();
  if (!lua_isnoneornil(L, 1)) unic_remake_costly(lua_toboolean(L, 1));
  lua_pushboolean(L, was);
  return 1;
}

/* lasting([on]) -> what it was: tensors made from here on are there for long */
static int lasting(lua_State *L) {
  bool was = unic_memory_lasting(false);
  unic_memory_lasting(lua_isnoneornil(L, 1) ? was : lua_toboolean(L, 1));
  lua_pushboolean(L, was);
  return 1;
}

/* autocast([dtype]) -> what it was; "f32" is off */
static int autocast(lua_State *L) {
  unic_dtype was = unic_autocast_get();
  if (!lua_isnoneornil(L, 1)) {
    unic_dtype d;
    UNIC_DOOR(L, unic_door_dtype(L, 1, "autocast", "dtype", &d));
    if (d != UNIC_F32 && !unic_dtype_is_half(d)) {
      unic_fail("[autocast] argument 'dtype': %s was given, expected bf16, f16 or f32 (off)", unic_dtype_name(d));
      return unic_door_raise(L, UNIC_ERROR);
    }
    unic_autocast_set(d);
  }
  lua_pushstring(L, unic_dtype_name(was));
  return 1;
}

/* generator([device]) -> the default generator's state, i64 [2] = {seed, counter}, shared with the device */
static int generator(lua_State *L) {
  unic_device *d;
  unic_tensor *t, *alias;
  UNIC_DOOR(L, unic_door_device(L, 1, &d));
  UNIC_DOOR(L, unic_device_rng(d, &t));
  UNIC_DOOR(L, unic_tensor_alias(t, &alias));
  alias->keep = 1;
  unic_handle_push(L, alias);
  return 1;
}

/* ---------------------------------------------------------------- recordings */

static int recording_gc(lua_State *L) {
  unic_recording **r = lua_touserdata(L, 1);
  unic_recording_free(*r);
  *r = NULL;
  return 0;
}

static unic_recording *recording_at(lua_State *L) {
  if (lua_type(L, 1) != LUA_TUSERDATA) {
    unic_fail("[replay] argument 'self': %s was given, expected a recording: step:replay()", unic_door_kind(L, 1));
    unic_door_raise(L, UNIC_ERROR);
  }
  unic_recording **r = luaL_checkudata(L, 1, "unic.recording");
  return *r;
}

static int recording_replay(lua_State *L) {
  UNIC_DOOR(L, unic_replay(recording_at(L)));
  return 0;
}

static int recording_launches(lua_State *L) {
  lua_pushnumber(L, (double)unic_recording_launches(recording_at(L)));
  return 1;
}

/* record(fn [, device]) -> recording, what fn returned; fn runs once, eagerly */
static int record(lua_State *L) {
  unic_door_function(L, 1, "record");
  unic_device *d;
  UNIC_DOOR(L, unic_door_device(L, 2, &d));
  lua_settop(L, 1);
  unic_recording **r = lua_newuserdata(L, sizeof *r);
  *r = NULL;
  luaL_getmetatable(L, "unic.recording");
  lua_setmetatable(L, -2);
  lua_insert(L, 1);
  lua_gc(L, LUA_GCCOLLECT, 0);   /* handles that die during the recording must be its own */
  UNIC_DOOR(L, unic_record_begin(d, r));
  int status = lua_pcall(L, 0, LUA_MULTRET, 0);
  unic_record_end(*r);
  if (status != 0) {
    unic_recording_free(*r);
    *r = NULL;
    return lua_error(L);
  }
  return lua_gettop(L);
}

/* ---------------------------------------------------------------- the module */

static int version(lua_State *L) {
  lua_pushliteral(L, UNIC_VERSION);
  return 1;
}

static void open_part(lua_State *L, const char *name, lua_CFunction open) {
  open(L);
  lua_setfield(L, -2, name);
}

__attribute__((visibility("default"))) int luaopen_unic_core(lua_State *L);

int luaopen_unic_core(lua_State *L) {
  static const luaL_Reg functions[] = {
    {"version", version}, {"fail", door_fail}, {"nearest", door_nearest}, {"device_default", device_default}, {"device_open", device_open},
    {"device_list", device_list}, {"synchronize", device_synchronize}, {"memory", memory_read}, {"memory_peak_reset", memory_peak_reset},
    {"memory_budget_set", memory_budget_set}, {"memory_fail_after", memory_fail_after}, {"drop_derived", drop_derived},
    {"drop_plans", drop_plans}, {"threads", threads}, {"isa", isa}, {"grad_mode", grad_mode}, {"autocast", autocast}, {"low_memory", low_memory}, {"lasting", lasting}, {"generator", generator}, {"record", record}, {NULL, NULL}};
  static const luaL_Reg recording_methods[] = {{"replay", recording_replay}, {"launches", recording_launches}, {NULL, NULL}};
  if (state) {   /* opened again (busted insulates specs): the same table */
    lua_getfield(L, LUA_REGISTRYINDEX, "unic.core");
    if (lua_istable(L, -1)) return 1;
    lua_pop(L, 1);
    return luaL_error(L, "unic.core: it is open in another Lua state of this process already");
  }
  state = L;
  state_thread = pthread_self();
  unic_call_up.collect = collect;
  unic_call_up.line = current_line;
  unic_call_up.line_text = line_text;
  Dl_info self;
  if (dladdr((void *)luaopen_unic_core, &self) && self.dli_fname) {
    char folder[1024];
    snprintf(folder, sizeof folder, "%s", self.dli_fname);
    char *slash = strrchr(folder, '/');
    if (slash) *slash = 0; else snprintf(folder, sizeof folder, ".");
    unic_device_plugin_folder(folder);
  }
  unic_threads();
  if (!unic_device_cpu()) return luaL_error(L, "%s", unic_message());

  luaL_newmetatable(L, "unic.recording");
  lua_newtable(L);
  luaL_register(L, NULL, recording_methods);
  lua_setfield(L, -2, "__index");
  lua_pushcfunction(L, recording_gc);
  lua_setfield(L, -2, "__gc");
  lua_pop(L, 1);

  lua_newtable(L);
  luaL_register(L, NULL, functions);
  open_part(L, "tensor", unic_lua_open_tensor);
  open_part(L, "ops", unic_lua_open_ops);
  open_part(L, "watch", unic_lua_open_watch);
  static const struct { const char *name; lua_CFunction open; } parts[] = {
    {"files", unic_lua_open_files}, {"text", unic_lua_open_text}, {"data", unic_lua_open_data}, {"edit", unic_lua_open_edit},
    {"info", unic_lua_open_info}};
  for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
    if (parts[i].open) open_part(L, parts[i].name, parts[i].open);
  lua_pushvalue(L, -1);
  lua_setfield(L, LUA_REGISTRYINDEX, "unic.core");
  return 1;
}
