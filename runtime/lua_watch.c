/* The door to what looks on: the profiler's events, anomaly mode's calls. */
#include "lua_unic.h"
#include "watch.h"

static int forward_ref = LUA_NOREF, backward_ref = LUA_NOREF;

static void push_shape(lua_State *L, int ndim, const int64_t *shape) {
  lua_createtable(L, ndim, 0);
  for (int d = 0; d < ndim; d++) {
    lua_pushnumber(L, (double)shape[d]);
    lua_rawseti(L, -2, d + 1);
  }
}

static void set_number(lua_State *L, const char *key, double value) {
  lua_pushnumber(L, value);
  lua_setfield(L, -2, key);
}

static int profile_start(lua_State *L) {
  (void)L;
  unic_profile_start();
  return 0;
}

/* profile_stop() -> list of {op, kind, begin, seconds, flops, bytes, made, saved, line, module, dtype, shape} */
static int profile_stop(lua_State *L) {
  static const char *const kinds[] = {"forward", "backward", "form", "again"};
  int64_t n;
  const unic_event *events = unic_profile_stop(&n);
  lua_createtable(L, (int)n, 0);
  for (int64_t i = 0; i < n; i++) {
    const unic_event *e = &events[i];
    lua_createtable(L, 0, 12);
    lua_pushstring(L, e->op->name);
    lua_setfield(L, -2, "op");
    lua_pushstring(L, kinds[e->kind]);
    lua_setfield(L, -2, "kind");
    set_number(L, "begin", e->begin);
    set_number(L, "seconds", e->seconds);
    set_number(L, "flops", e->flops);
    set_number(L, "bytes", e->bytes);
    set_number(L, "made", e->made);
    set_number(L, "saved", e->saved);
    set_number(L, "module", e->module);
    if (e->line && unic_call_up.line_text) {
      lua_pushstring(L, unic_call_up.line_text(e->line));
      lua_setfield(L, -2, "line");
    }
    lua_pushstring(L, unic_dtype_name((unic_dtype)e->dtype));
    lua_setfield(L, -2, "dtype");
    push_shape(L, e->ndim, e->shape);
    lua_setfield(L, -2, "shape");
    lua_rawseti(L, -2, (int)i + 1);
  }
  return 1;
}

/* module(number) -> the one before: which module runs now */
static int watch_module(lua_State *L) {
  uint32_t was = unic_watch_module;
  unic_watch_module = (uint32_t)luaL_checknumber(L, 1);
  lua_pushnumber(L, was);
  return 1;
}

/* {name =, tensor =, parameter =} at the end of the list on the top. */
static void add(lua_State *L, const char *name, unic_tensor *t) {
  unic_tensor *look;
  if (!t || !unic_dtype_is_float(t->dtype) || unic_tensor_alias(t, &look) != UNIC_OK) return;
  lua_createtable(L, 0, 3);
  lua_pushstring(L, name);
  lua_setfield(L, -2, "name");
  lua_pushboolean(L, t->requires_grad && !t->node);
  lua_setfield(L, -2, "parameter");
  unic_handle_push(L, look);
  lua_setfield(L, -2, "tensor");
  lua_rawseti(L, -2, (int)lua_objlen(L, -2) + 1);
}

/* Calls without the calls that they make themselves being looked at. */
static unic_status call(lua_State *L, int top, int arguments) {
  const unic_watch_calls *was = unic_watch;
  unic_watch = NULL;
  unic_status status = UNIC_OK;
  if (lua_pcall(L, arguments, 0, 0) != 0) {
    const char *text = lua_tostring(L, -1);
    status = unic_fail("%s", text ? text : "an error that is no string");
  }
  unic_watch = was;
  lua_settop(L, top);
  return status;
}

static void push_line(lua_State *L, uint32_t line) {
  if (line && unic_call_up.line_text) lua_pushstring(L, unic_call_up.line_text(line));
  else lua_pushnil(L);
}

/* forward(op, module, {outputs}, {inputs}, infinite): infinite: an attribute is so, as asked for. */
static unic_status on_forward(const unic_call *c, const unic_op_info *info, unic_tensor *const *outs) {
  lua_State *L = unic_door_state();
  if (!L || c->device->abstract || info->op->flags & UNIC_OP_VIEW) return UNIC_OK;
  int top = lua_gettop(L);
  luaL_checkstack(L, 12, "anomaly");
  lua_rawgeti(L, LUA_REGISTRYINDEX, forward_ref);
  lua_pushstring(L, info->op->name);
  lua_pushnumber(L, unic_watch_module);
  bool infinite = false;
  lua_newtable(L);
  for (int j = 0; j < info->visible; j++) add(L, info->outs[j].name, outs[j]);
  for (int i = 0; i < info->nargs; i++) {
    const unic_arg_info *a = &info->args[i];
    if (!a->mutated || a->kind == UNIC_KIND_RNG) continue;
    if (a->kind == UNIC_KIND_TENSORS) for (int64_t m = 0; m < c->arg[i].integer; m++) add(L, a->name, c->list[i][m]);
    else add(L, a->name, c->in[i]);
  }
  lua_newtable(L);
  for (int i = 0; i < info->nargs; i++) {
    const unic_arg_info *a = &info->args[i];
    if (a->kind == UNIC_KIND_TENSORS) {
      if (!a->mutated) for (int64_t m = 0; m < c->arg[i].integer; m++) add(L, a->name, c->list[i][m]);
    } else if (a->is_tensor && c->in[i]) {
      if (!a->mutated) add(L, a->name, c->in[i]);
    } else if ((a->kind == UNIC_KIND_NUMBER || a->kind == UNIC_KIND_OPERAND) && c->arg[i].number - c->arg[i].number != 0) {
      infinite = true;
    }
  }
  lua_pushboolean(L, infinite);
  return call(L, top, 5);
}

/* backward(op, module, argument, gradient, line of the forward) */
static unic_status on_backward(const unic_node *n, const unic_edge *e, unic_tensor *grad) {
  lua_State *L = unic_door_state();
  unic_tensor *look;
  if (!L || n->device->abstract) return UNIC_OK;
  int top = lua_gettop(L);
  luaL_checkstack(L, 8, "anomaly");
  UNIC_TRY(unic_tensor_alias(grad, &look));
  lua_rawgeti(L, LUA_REGISTRYINDEX, backward_ref);
  lua_pushstring(L, n->info ? n->info->op->name : "fn");
  lua_pushnumber(L, n->module);
  if (n->info) lua_pushstring(L, n->info->args[e->arg].name);
  else lua_pushfstring(L, "%d", e->arg + 1);
  unic_handle_push(L, look);
  push_line(L, n->line);
  return call(L, top, 5);
}

static const unic_watch_calls calls = {on_forward, on_backward};

/* watch(forward, backward) switches on, watch() off; -> whether it was on */
static int watch(lua_State *L) {
  lua_settop(L, 2);
  lua_pushboolean(L, unic_watch != NULL);
  unic_watch = NULL;
  luaL_unref(L, LUA_REGISTRYINDEX, forward_ref);
  luaL_unref(L, LUA_REGISTRYINDEX, backward_ref);
  forward_ref = backward_ref = LUA_NOREF;
  if (lua_isnil(L, 1)) return 1;
  luaL_checktype(L, 1, LUA_TFUNCTION);
  luaL_checktype(L, 2, LUA_TFUNCTION);
  lua_pushvalue(L, 1);
  forward_ref = luaL_ref(L, LUA_REGISTRYINDEX);
  lua_pushvalue(L, 2);
  backward_ref = luaL_ref(L, LUA_REGISTRYINDEX);
  unic_watch = &calls;
  return 1;
}

int unic_lua_open_watch(lua_State *L) {
  static const luaL_Reg functions[] = {
    {"profile_start", profile_start}, {"profile_stop", profile_stop}, {"module", watch_module}, {"watch", watch}, {NULL, NULL}};
  lua_newtable(L);
  luaL_register(L, NULL, functions);
  return 1;
}
