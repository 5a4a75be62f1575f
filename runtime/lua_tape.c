/* The door to the tape: closures that graphs hold, backward, hooks, ops written in Lua, pieces that are computed again. */
#include "lua_unic.h"
#include "recompute.h"
#include "watch.h"

#include <string.h>

static int64_t last_key;
static const char closures_key = 0;    /* registry: weak table key -> closure */

static unic_tensor *own(lua_State *L, const char *op) { return unic_handle_tensor(L, 1, op, "x"); }

/* ---------------------------------------------------------------- graph environments */

/* Weak by value: a closure lives as long as a handle's environment holds it. */
static void push_closures(lua_State *L) {
  lua_pushlightuserdata(L, (void *)&closures_key);
  lua_rawget(L, LUA_REGISTRYINDEX);
}

bool unic_closure_push(lua_State *L, int64_t key) {
  push_closures(L);
  lua_pushnumber(L, (double)key);
  lua_rawget(L, -2);
  lua_remove(L, -2);
  if (lua_isfunction(L, -1)) return true;
  lua_pop(L, 1);
  return false;
}

/* Make `function` live as long as the handle and whatever is computed from it; its key. Indices must be absolute. */
int64_t unic_closure_keep(lua_State *L, int handle, int function) {
  unic_handle *h = unic_handle_at(L, handle);
  int64_t key = ++last_key;
  push_closures(L);
  lua_pushnumber(L, (double)key);
  lua_pushvalue(L, function);
  lua_rawset(L, -3);
  lua_pop(L, 1);
  lua_newtable(L);                 /* a new environment, so that tensors computed earlier do not hold what came later */
  if (h->env) {
    lua_getfenv(L, handle);
    lua_rawseti(L, -2, 1);
  }
  lua_pushvalue(L, function);
  lua_rawseti(L, -2, 2);
  lua_setfenv(L, handle);
  h->env = true;
  return key;
}

/* The result's environment refers to those of all arguments that have one (lists included). */
static void inherit_from(lua_State *L, int result, int index, int *found) {
  unic_handle *h = unic_handle_at(L, index);
  if (h) {
    if (!h->env) return;
    lua_getfenv(L, index);
    if (*found == 0) {
      lua_setfenv(L, result);
    } else {
      lua_getfenv(L, result);
      if (lua_rawequal(L, -1, -2)) { lua_pop(L, 2); return; }
      lua_newtable(L);
      lua_insert(L, -3);
      lua_rawseti(L, -3, 2);
      lua_rawseti(L, -2, 1);
      lua_setfenv(L, result);
    }
    (*found)++;
  } else if (lua_type(L, index) == LUA_TTABLE) {
    int n = (int)lua_objlen(L, index);
    for (int m = 1; m <= n; m++) {
      lua_rawgeti(L, index, m);
      if (unic_handle_at(L, -1)) inherit_from(L, result, lua_gettop(L), found);
      lua_pop(L, 1);
    }
  }
}

void unic_handle_inherit(lua_State *L, int result, int first_arg, int last_arg) {
  unic_handle *h = unic_handle_at(L, result);
  if (!h || !h->t || !h->t->node) return;
  int found = 0;
  for (int i = first_arg; i <= last_arg; i++) {
    int type = lua_type(L, i);
    if (type == LUA_TUSERDATA || type == LUA_TTABLE) inherit_from(L, result, i, &found);
  }
  h->env = found > 0;
}

static unic_status lua_failure(lua_State *L) {
  const char *text = lua_tostring(L, -1);
  unic_fail("%s", text ? text : "an error that is no string");
  lua_pop(L, 1);
  return UNIC_ERROR;
}

static unic_status call_backward(int64_t key, int nouts, unic_tensor *const *douts, int ninputs, unic_tensor **dins) {
  lua_State *L = unic_door_state();
  if (!L) return unic_fail("[fn] backward was called from another thread");
  int top = lua_gettop(L);
  luaL_checkstack(L, nouts + ninputs + 8, "unic.fn");
  if (!unic_closure_push(L, key)) return unic_fail("[fn] its backward was collected: keep the tensors that unic.fn returned");
  for (int j = 0; j < nouts; j++) {
    if (douts[j]) unic_handle_push(L, unic_tensor_ref(douts[j]));
    else lua_pushnil(L);
  }
  unic_status status = UNIC_OK;
  if (lua_pcall(L, nouts, ninputs, 0) != 0) status = lua_failure(L);
  for (int i = 0; status == UNIC_OK && i < ninputs; i++) {
    unic_handle *h = unic_handle_at(L, top + 1 + i);
    if (h && h->t) {
      status = unic_tensor_alias(h->t, &dins[i]);
    } else if (!lua_isnil(L, top + 1 + i)) {
      status = unic_fail("[fn] backward returned %s as gradient %d, expected a tensor or nil", unic_door_kind(L, top + 1 + i), i + 1);
    }
  }
  lua_settop(L, top);
  return status;
}

static unic_status call_hook(int64_t key, unic_tensor *grad, unic_tensor **replacement) {
  lua_State *L = unic_door_state();
  if (!L) return unic_fail("[hook] called from another thread");
  int top = lua_gettop(L);
  luaL_checkstack(L, 8, "hook");
  if (!unic_closure_push(L, key)) return UNIC_OK;   /* its tensor is gone, and with it who asked */
  unic_handle_push(L, unic_tensor_ref(grad));
  unic_status status = UNIC_OK;
  if (lua_pcall(L, 1, 1, 0) != 0) status = lua_failure(L);
  else {
    unic_handle *h = unic_handle_at(L, -1);
    if (h && h->t) {
      if (h->t->ndim != grad->ndim || memcmp(h->t->shape, grad->shape, grad->ndim * sizeof *grad->shape) != 0)
        status = unic_fail("[hook] it returned a gradient of another shape");
      else status = unic_tensor_alias(h->t, replacement);
    } else if (!lua_isnil(L, -1)) {
      status = unic_fail("[hook] it returned %s, expected a tensor or nothing", unic_door_kind(L, -1));
    }
  }
  lua_settop(L, top);
  return status;
}
/* ---------------------------------------------------------------- gradients */

static int tensor_retain_grad(lua_State *L) {
  own(L, "retain_grad")->retain_grad = 1;
  lua_settop(L, 1);
  return 1;
}

/* x:hook(fn): fn(gradient) runs when x's gradient is complete; what it returns (if a tensor) replaces it. */
static int tensor_hook(lua_State *L) {
  unic_tensor *t = own(L, "hook");
  if (lua_type(L, 2) != LUA_TFUNCTION) {
    unic_fail("[hook] argument 'fn': %s was given, expected a function", unic_door_kind(L, 2));
    return unic_door_raise(L, UNIC_ERROR);
  }
  if (!t->node && !t->requires_grad) {
    unic_fail("[hook] argument 'x': it needs no gradient, so its hook would never run");
    return unic_door_raise(L, UNIC_ERROR);
  }
  int64_t key = unic_closure_keep(L, 1, 2);
  if (t->node) t->node->outs[t->output].hook = key; else t->hook = key;
  lua_settop(L, 1);
  return 1;
}

/* The function at index 5 is told of a leaf by its place in the list at index 4, counted from 1. */
static unic_status call_ready(void *context, int leaf) {
  lua_State *L = context;
  luaL_checkstack(L, 4, "backward");
  lua_pushvalue(L, 5);
  lua_pushinteger(L, leaf + 1);
  return lua_pcall(L, 1, 0, 0) == 0 ? UNIC_OK : lua_failure(L);
}

/* backward(loss, gradient or nil, keep[, {leaves}, ready]): ready(i) is called when the walk is through with leaf i and it has a gradient */
static int tensor_backward(lua_State *L) {
  unic_tensor *t = own(L, "backward");
  unic_tensor *dy = lua_isnoneornil(L, 2) ? NULL : unic_handle_tensor(L, 2, "backward", "gradient");
  if (lua_isnoneornil(L, 4)) {
    UNIC_DOOR(L, unic_backward(t, dy, lua_toboolean(L, 3), 0, NULL, NULL, NULL));
    return 0;
  }
  luaL_checktype(L, 4, LUA_TTABLE);
  luaL_checktype(L, 5, LUA_TFUNCTION);
  lua_settop(L, 5);
  int n = (int)lua_objlen(L, 4);
  unic_tensor **leaves = lua_newuserdata(L, (size_t)(n + 1) * sizeof *leaves);
  for (int i = 0; i < n; i++) {
    lua_rawgeti(L, 4, i + 1);
    leaves[i] = unic_handle_tensor(L, lua_gettop(L), "backward", "leaves");
    lua_pop(L, 1);
    if (!leaves[i]->node && leaves[i]->requires_grad) continue;
    unic_fail("[backward] option 'leaves': member %d %s, expected tensors with requires_grad that nothing was computed for", i + 1,
              leaves[i]->node ? "was computed from others" : "needs no gradient");
    return unic_door_raise(L, UNIC_ERROR);
  }
  const unic_ready ready = {.n = n, .leaves = leaves, .call = call_ready, .context = L};
  UNIC_DOOR(L, unic_backward(t, dy, lua_toboolean(L, 3), 0, NULL, NULL, &ready));
  return 0;
}

/* gradients(loss, {inputs}, gradient or nil, keep) -> table of tensors (false where no gradient flows) */
static int tensor_gradients(lua_State *L) {
  unic_tensor *t = own(L, "grad");
  if (lua_type(L, 2) != LUA_TTABLE) {
    unic_fail("[grad] argument 'inputs': %s was given, expected a table of tensors", unic_door_kind(L, 2));
    return unic_door_raise(L, UNIC_ERROR);
  }
  int n = (int)lua_objlen(L, 2);
  unic_tensor *dy = lua_isnoneornil(L, 3) ? NULL : unic_handle_tensor(L, 3, "grad", "gradient");
  unic_tensor **targets = lua_newuserdata(L, (size_t)(2 * n + 1) * sizeof *targets), **results = targets + n;
  for (int i = 0; i < n; i++) {
    lua_rawgeti(L, 2, i + 1);
    targets[i] = unic_handle_tensor(L, lua_gettop(L), "grad", "inputs");
    results[i] = NULL;
    lua_pop(L, 1);
    if (!targets[i]->requires_grad && !targets[i]->node) {
      unic_fail("[grad] argument 'inputs': member %d needs no gradient", i + 1);
      return unic_door_raise(L, UNIC_ERROR);
    }
  }
  unic_status status = unic_backward(t, dy, lua_toboolean(L, 4), n, targets, results, NULL);
  if (status != UNIC_OK) {
    for (int i = 0; i < n; i++) unic_tensor_unref(results[i]);
    return unic_door_raise(L, status);
  }
  lua_createtable(L, n, 0);
  for (int i = 0; i < n; i++) {
    if (results[i]) {
      results[i]->keep = 0;
      unic_handle_push(L, results[i]);
    } else lua_pushboolean(L, 0);
    lua_rawseti(L, -2, i + 1);
  }
  return 1;
}

/* record({inputs}, {outputs}, backward) -> {outputs with a gradient link}: what unic.fn stands on. */
static int tensor_record(lua_State *L) {
  luaL_checktype(L, 1, LUA_TTABLE);
  luaL_checktype(L, 2, LUA_TTABLE);
  luaL_checktype(L, 3, LUA_TFUNCTION);
  int nin = (int)lua_objlen(L, 1), nout = (int)lua_objlen(L, 2);
  unic_tensor **inputs = lua_newuserdata(L, (size_t)(nin + nout + 1) * sizeof *inputs), **outs = inputs + nin;
  bool any = false;
  for (int i = 0; i < nin; i++) {
    lua_rawgeti(L, 1, i + 1);
    inputs[i] = unic_handle_tensor(L, lua_gettop(L), "fn", "input");
    any = any || inputs[i]->requires_grad || inputs[i]->node;
    lua_pop(L, 1);
  }
  lua_createtable(L, nout, 0);
  int result = lua_gettop(L);
  for (int j = 0; j < nout; j++) {
    lua_rawgeti(L, 2, j + 1);
    unic_tensor *t = unic_handle_tensor(L, lua_gettop(L), "fn", "output");
    UNIC_DOOR(L, unic_tensor_alias(t, &outs[j]));
    lua_pop(L, 1);
    unic_handle_push(L, outs[j]);
    lua_rawseti(L, result, j + 1);
  }
  if (!any || !unic_grad_mode() || nout == 0) return 1;
  /* One key for the node: the closure is kept by the first output's handle and, through it, shared with the others. */
  lua_rawgeti(L, result, 1);
  int first = lua_gettop(L);
  int64_t key = unic_closure_keep(L, first, 3);
  UNIC_DOOR(L, unic_node_record_lua(key, nin, inputs, nout, outs));
  lua_newtable(L);                     /* {closure's environment, inputs' environments ...} */
  int merged = lua_gettop(L), at = 0;
  lua_getfenv(L, first);
  lua_rawseti(L, merged, ++at);
  for (int i = 0; i < nin; i++) {
    lua_rawgeti(L, 1, i + 1);
    if (unic_handle_at(L, -1)->env) { lua_getfenv(L, -1); lua_rawseti(L, merged, ++at); }
    lua_pop(L, 1);
  }
  for (int j = 0; j < nout; j++) {
    lua_rawgeti(L, result, j + 1);
    lua_pushvalue(L, merged);
    lua_setfenv(L, -2);
    unic_handle_at(L, -1)->env = true;
    lua_pop(L, 1);
  }
  lua_settop(L, result);
  return 1;
}

/* ---------------------------------------------------------------- pieces that are computed again */

/* The second run of a piece: upvalues fn and {n = count, its arguments}; nothing is returned, so that its scope frees everything. */
static int run_again(lua_State *L) {
  lua_pushvalue(L, lua_upvalueindex(1));
  lua_getfield(L, lua_upvalueindex(2), "n");
  int n = (int)lua_tointeger(L, -1);
  lua_pop(L, 1);
  luaL_checkstack(L, n + 2, "checkpoint");
  for (int i = 1; i <= n; i++) lua_rawgeti(L, lua_upvalueindex(2), i);
  lua_call(L, n, 0);
  return 0;
}

static unic_status call_recompute(int64_t key) {
  lua_State *L = unic_door_state();
  if (!L) return unic_fail("[checkpoint] backward was called from another thread");
  int top = lua_gettop(L);
  luaL_checkstack(L, 4, "checkpoint");
  lua_pushcfunction(L, unic_door_scope);
  if (!unic_closure_push(L, key)) {
    lua_settop(L, top);
    return unic_fail("[checkpoint] its function was collected: let it return the tensors that go on from it");
  }
  unic_status status = lua_pcall(L, 1, 0, 0) == 0 ? UNIC_OK : lua_failure(L);
  lua_settop(L, top);
  return status;
}

/* Every returned tensor with a gradient holds the closure; the last key counts, as all stand for the same function. */
static void keep_closure(lua_State *L, int index, int closure, int depth, int64_t *key) {
  unic_handle *h = unic_handle_at(L, index);
  if (h) {
    if (h->t && h->t->node) *key = unic_closure_keep(L, index, closure);
  } else if (lua_type(L, index) == LUA_TTABLE && depth < 16) {
    luaL_checkstack(L, 4, "checkpoint");
    lua_pushnil(L);
    while (lua_next(L, index)) {
      keep_closure(L, lua_gettop(L), closure, depth + 1, key);
      lua_pop(L, 1);
    }
  }
}

/* The closure keeps the arguments until the backward: for the profile they are saved. */
static void note_arguments(lua_State *L, int closure) {
  lua_getupvalue(L, closure, 2);
  lua_getfield(L, -1, "n");
  int n = (int)lua_tointeger(L, -1);
  lua_pop(L, 1);
  for (int i = 1; i <= n; i++) {
    lua_rawgeti(L, -1, i);
    unic_handle *h = unic_handle_at(L, lua_gettop(L));
    if (h && h->t) unic_profile_saved(h->t);
    lua_pop(L, 1);
  }
  lua_pop(L, 1);
}

/* checkpoint(fn, ...) -> what fn returns */
static int tensor_checkpoint(lua_State *L) {
  unic_door_function(L, 1, "checkpoint");
  int n = lua_gettop(L) - 1;
  unic_frame *frame = NULL;
  if (unic_grad_mode()) UNIC_DOOR(L, unic_frame_begin(&frame));
  if (!frame) {
    lua_call(L, n, LUA_MULTRET);
    return lua_gettop(L);
  }
  lua_pushvalue(L, 1);
  lua_createtable(L, n, 1);
  for (int i = 1; i <= n; i++) {
    lua_pushvalue(L, i + 1);
    lua_rawseti(L, -2, i);
  }
  lua_pushinteger(L, n);
  lua_setfield(L, -2, "n");
  lua_pushcclosure(L, run_again, 2);
  lua_insert(L, 1);
  lua_pushcfunction(L, unic_door_scope);   /* what fn does not return is garbage: it goes now, not at a collection */
  lua_insert(L, 2);                        /* closure, scope, fn, ... */
  int status = lua_pcall(L, n + 1, LUA_MULTRET, 0);
  int64_t key = 0;
  if (status == 0)
    for (int i = 2, last = lua_gettop(L); i <= last; i++) keep_closure(L, i, 1, 0, &key);
  unic_frame_end(frame, key);
  if (status != 0) return lua_error(L);
  if (unic_profiling && key) note_arguments(L, 1);
  return lua_gettop(L) - 1;
}

void unic_lua_open_tape(lua_State *L, int module, int methods) {
  static const luaL_Reg functions[] = {
    {"backward", tensor_backward}, {"gradients", tensor_gradients}, {"record", tensor_record}, {"checkpoint", tensor_checkpoint}, {NULL, NULL}};
  static const luaL_Reg own_methods[] = {{"retain_grad", tensor_retain_grad}, {"hook", tensor_hook}, {NULL, NULL}};
  for (const luaL_Reg *f = functions; f->name; f++) {
    lua_pushcfunction(L, f->func);
    lua_setfield(L, module, f->name);
  }
  for (const luaL_Reg *f = own_methods; f->name; f++) {
    lua_pushcfunction(L, f->func);
    lua_setfield(L, methods, f->name);
  }
  unic_tape_lua.recompute = call_recompute;
  unic_tape_lua.backward = call_backward;
  unic_tape_lua.hook = call_hook;
  lua_pushlightuserdata(L, (void *)&closures_key);
  lua_newtable(L);
  lua_newtable(L);
  lua_pushliteral(L, "v");
  lua_setfield(L, -2, "__mode");
  lua_setmetatable(L, -2);
  lua_rawset(L, LUA_REGISTRYINDEX);
}
