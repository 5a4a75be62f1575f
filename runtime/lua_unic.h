/* The Lua door: what its files share. Only runtime/lua_*.c include lua.h. */
#ifndef UNIC_LUA_UNIC_H
#define UNIC_LUA_UNIC_H

#include "dispatch.h"
#include "tape.h"

#include <lauxlib.h>
#include <lua.h>

/* What Lua holds: one reference to a C tensor. Small, because how often Lua's collector runs goes by the bytes of what it makes. */
typedef struct unic_handle {
  const void *mark;                      /* &unic_handle_mark: tells a handle from other userdata without a look at its metatable */
  unic_tensor *t;                        /* NULL: freed, or its scope ended */
  struct unic_handle *next, **here;      /* in the list of its scope; what points at it there, NULL: it is in none */
  uint32_t dead_scope;                   /* line of the scope that freed it; 0: freed by hand */
  bool env;                              /* has a graph environment (closures that the collector must see) */
} unic_handle;

/* Raise the stored sentence at the first frame outside lua/unic. Never returns. */
int unic_door_raise(lua_State *L, unic_status status);
#define UNIC_DOOR(L, call) do { unic_status status_ = (call); if (status_ != UNIC_OK) return unic_door_raise((L), status_); } while (0)

/* Push a handle for t; takes over the reference. */
void unic_handle_push(lua_State *L, unic_tensor *t);
extern const char unic_handle_mark;
/* The handle at an index, or NULL when there is something else. */
static inline unic_handle *unic_handle_at(lua_State *L, int index) {
  unic_handle *h = lua_touserdata(L, index);
  return h && lua_objlen(L, index) == sizeof *h && h->mark == &unic_handle_mark ? h : NULL;
}
/* The tensor at an index (borrowed); raises "[op] argument 'name': ..." when there is none. */
unic_tensor *unic_handle_tensor(lua_State *L, int index, const char *op, const char *name);
/* Why a handle has no tensor, as a status. */
unic_status unic_handle_dead(const unic_handle *h, const char *op, const char *name);
/* A short name of what is at an index, for sentences: "a string", "a f32 tensor". */
const char *unic_door_kind(lua_State *L, int index);
/* An integer, a shape table {2, 3} or numbers from `index` on. */
unic_status unic_door_integer(lua_State *L, int index, const char *op, const char *name, int64_t *out);
unic_status unic_door_shape(lua_State *L, int index, const char *op, int *ndim, int64_t *shape);
/* Raises unless there is a function at the index, called 'fn' in the sentence. */
void unic_door_function(lua_State *L, int index, const char *op);
unic_status unic_door_dtype(lua_State *L, int index, const char *op, const char *name, unic_dtype *out);
/* A device by name at an index; nil = the default device. */
unic_status unic_door_device(lua_State *L, int index, unic_device **out);
unic_device *unic_door_default_device(void);
/* The candidate nearest to a misspelt word by edit distance, or NULL when none is near. */
const char *unic_door_nearest(const char *word, const char *const *candidates, int n);

/* Graph environments: closures that a tensor's tape needs live as long as its handle does. */
void unic_handle_inherit(lua_State *L, int result, int first_arg, int last_arg);
int64_t unic_closure_keep(lua_State *L, int handle, int function);
bool unic_closure_push(lua_State *L, int64_t key);

/* scope(fn, ...) -> what fn returns; every other tensor that fn made is freed. */
int unic_door_scope(lua_State *L);

/* Adds to the tables of functions and of methods that are on the stack. */
void unic_lua_open_tape(lua_State *L, int module, int methods);
/* Each pushes one table of functions. */
int unic_lua_open_tensor(lua_State *L);
int unic_lua_open_ops(lua_State *L);
int unic_lua_open_watch(lua_State *L);
int unic_lua_open_files(lua_State *L) __attribute__((weak));
int unic_lua_open_text(lua_State *L) __attribute__((weak));
int unic_lua_open_data(lua_State *L) __attribute__((weak));
int unic_lua_open_edit(lua_State *L) __attribute__((weak));
int unic_lua_open_info(lua_State *L) __attribute__((weak));

/* The state that opened the module, for upward calls; NULL on other threads. */
lua_State *unic_door_state(void);

#endif
