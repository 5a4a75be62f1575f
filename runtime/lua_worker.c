/* A worker's Lua state, and the calls that the pipeline makes into it. Errors become sentences; nothing is raised across threads. */
#include "lua_worker.h"

#include <lauxlib.h>
#include <lualib.h>
#include <stdlib.h>
#include <string.h>

#include "data/stream.h"

enum { DRAW, STEP, FUNCTIONS };
static const char *const function_names[FUNCTIONS] = {"draw", "step"};

struct unic_lua_worker {
  lua_State *L;
  bool own;
  int functions[FUNCTIONS];   /* in the registry */
  unic_stream *random;        /* of the step that runs now */
};

/* random() -> a number between 0 and 1, from the stream of the step that runs */
static int next_random(lua_State *L) {
  unic_lua_worker *w = lua_touserdata(L, lua_upvalueindex(1));
  if (!w->random) return luaL_error(L, "random() belongs to a step and cannot be called after it");
  lua_pushnumber(L, unic_stream_uniform(w->random));
  return 1;
}

/* The error on top of the stack as a sentence. */
static unic_status fail_with_error(lua_State *L) {
  const char *text = lua_tostring(L, -1);
  unic_fail("%s", text ? text : "an error that is no text was raised");
  lua_pop(L, 1);
  return UNIC_ERROR;
}

static unic_status call(lua_State *L, int arguments, int results) {
  return lua_pcall(L, arguments, results, 0) == 0 ? UNIC_OK : fail_with_error(L);
}

unic_status unic_lua_worker_open(const unic_lua_setup *setup, lua_State *shared, unic_lua_worker **out) {
  unic_lua_worker *w = calloc(1, sizeof *w);
  *out = NULL;
  if (!w) return unic_fail_memory("no memory for a worker");
  for (int i = 0; i < FUNCTIONS; i++) w->functions[i] = LUA_NOREF;
  w->own = !shared;
  w->L = shared ? shared : luaL_newstate();
  if (!w->L) {
    free(w);
    return unic_fail_memory("no memory for a worker's Lua state");
  }
  if (w->own) luaL_openlibs(w->L);
  unic_status status = luaL_loadfile(w->L, setup->script) == 0 ? UNIC_OK : fail_with_error(w->L);
  if (status == UNIC_OK) {
    lua_State *L = w->L;
    lua_pushboolean(L, w->own);
    lua_pushstring(L, setup->path);
    lua_pushstring(L, setup->cpath);
    lua_pushstring(L, setup->tree);
    lua_pushstring(L, setup->plan);
    lua_pushlightuserdata(L, w);
    lua_pushcclosure(L, next_random, 1);
    status = call(L, 6, 1);
  }
  if (status != UNIC_OK) {
    unic_lua_worker_close(w);
    return status;
  }
  for (int i = 0; i < FUNCTIONS; i++) {
    lua_getfield(w->L, -1, function_names[i]);
    w->functions[i] = luaL_ref(w->L, LUA_REGISTRYINDEX);
  }
  lua_pop(w->L, 1);
  *out = w;
  return UNIC_OK;
}

void unic_lua_worker_close(unic_lua_worker *w) {
  if (!w) return;
  if (w->own) {
    lua_close(w->L);
  } else {
    for (int i = 0; i < FUNCTIONS; i++) luaL_unref(w->L, LUA_REGISTRYINDEX, w->functions[i]);
  }
  free(w);
}

static void stop_hook(lua_State *L, lua_Debug *ar) {
  (void)ar;
  luaL_error(L, "the pipeline was closed");
}

void unic_lua_worker_stop(unic_lua_worker *w) {
  if (w->own) lua_sethook(w->L, stop_hook, LUA_MASKCALL | LUA_MASKRET | LUA_MASKCOUNT, 1);
}

void unic_lua_worker_enter(unic_lua_worker *w, lua_State *L) { w->L = L; }

unic_status unic_lua_worker_draw(void *worker, int64_t item, uint8_t *out) {
  unic_lua_worker *w = worker;
  lua_rawgeti(w->L, LUA_REGISTRYINDEX, w->functions[DRAW]);
  lua_pushnumber(w->L, (lua_Number)(item + 1));
  lua_pushlightuserdata(w->L, out);
  unic_status status = call(w->L, 2, 0);
  return status == UNIC_OK ? UNIC_OK : unic_fail_prefix(status, "item %lld: ", (long long)(item + 1));
}

unic_status unic_lua_worker_step(void *worker, int user, const unic_picture *picture, unic_stream *random) {
  unic_lua_worker *w = worker;
  w->random = random;
  lua_rawgeti(w->L, LUA_REGISTRYINDEX, w->functions[STEP]);
  lua_pushinteger(w->L, user + 1);
  lua_pushlightuserdata(w->L, picture->pixels);
  lua_pushinteger(w->L, picture->channels);
  lua_pushinteger(w->L, picture->height);
  lua_pushinteger(w->L, picture->width);
  unic_status status = call(w->L, 5, 0);
  w->random = NULL;
  return status;
}
