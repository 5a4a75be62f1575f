/* Lua on the data pipeline's threads: a state of its own for each worker, set up by lua/unic/data/worker.lua. */
#ifndef UNIC_LUA_WORKER_H
#define UNIC_LUA_WORKER_H

#include <lua.h>

#include "data/pipeline.h"

/* What a worker's state is made from; strings are malloc'd. */
typedef struct unic_lua_setup {
  char *script;          /* path of worker.lua */
  char *path, *cpath;    /* the package.path and package.cpath of the opening state */
  char *tree;            /* the folder of models/, data/, recipes/, with a slash at its end */
  char *plan;            /* a Lua chunk that returns {source = ..., steps = ...} */
} unic_lua_setup;

typedef struct unic_lua_worker unic_lua_worker;

/* A new state (shared = NULL), or functions made in the state that is given, for work on the owner's thread. */
unic_status unic_lua_worker_open(const unic_lua_setup *setup, lua_State *shared, unic_lua_worker **out);
void unic_lua_worker_close(unic_lua_worker *w);
void unic_lua_worker_stop(unic_lua_worker *w);
/* The coroutine to run in from now on, of a shared state. */
void unic_lua_worker_enter(unic_lua_worker *w, lua_State *L);

/* For unic_pipeline_calls; `worker` is a unic_lua_worker. */
unic_status unic_lua_worker_draw(void *worker, int64_t item, uint8_t *out);
unic_status unic_lua_worker_step(void *worker, int user, const unic_picture *picture, unic_stream *random);

#endif
