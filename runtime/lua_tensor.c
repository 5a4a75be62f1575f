/* The door to tensors: handles, their life (collector, scopes, free), construction, single elements, devices. Gradients: lua_tape.c.
 * A little over 500 lines: every method reaches into handles and scopes, which stand nowhere else. */
#include "lua_unic.h"
#include "recompute.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct unic_scope {
  struct unic_scope *parent;
  unic_handle *first;
  uint32_t line;
} unic_scope;

static unic_scope *scope;              /* innermost open scope */
static int metatable_ref = LUA_NOREF;  /* in the registry */
const char unic_handle_mark;

/* ---------------------------------------------------------------- handles */

static void scope_unlink(unic_handle *h) {
  if (!h->here) return;
  *h->here = h->next;
  if (h->next) h->next->here = h->here;
  h->next = NULL;
  h->here = NULL;
}

static void scope_link(unic_handle *h, unic_scope *s) {
  if (!s) return;
  h->next = s->first;
  h->here = &s->first;
  if (h->next) h->next->here = &h->next;
  s->first = h;
}

void unic_handle_push(lua_State *L, unic_tensor *t) {
  unic_handle *h = lua_newuserdata(L, sizeof *h);
  *h = (unic_handle){.mark = &unic_handle_mark, .t = t};
  if (!t->keep) unic_storage_show(t->storage);
  scope_link(h, scope);
  lua_rawgeti(L, LUA_REGISTRYINDEX, metatable_ref);
  lua_setmetatable(L, -2);
}

unic_status unic_handle_dead(const unic_handle *h, const char *op, const char *name) {
  if (h->dead_scope) {
    const char *line = unic_call_up.line_text ? unic_call_up.line_text(h->dead_scope) : "";
    return unic_fail("[%s] argument '%s': the tensor went with the scope opened at %s; return it from the scope or :keep() it", op, name, line);
  }
  return unic_fail("[%s] argument '%s': the tensor was freed with t:free()", op, name);
}

unic_tensor *unic_handle_tensor(lua_State *L, int index, const char *op, const char *name) {
  unic_handle *h = unic_handle_at(L, index);
  if (!h) unic_fail("[%s] argument '%s': %s was given, expected a tensor", op, name, unic_door_kind(L, index));
  else if (!h->t) unic_handle_dead(h, op, name);
  else if (!unic_frame_current || unic_frame_read(h->t) == UNIC_OK) return h->t;
  unic_door_raise(L, UNIC_ERROR);
  return NULL;
}

static unic_tensor *self(lua_State *L, const char *op) { return unic_handle_tensor(L, 1, op, "x"); }

static int handle_gc(lua_State *L) {
  unic_handle *h = lua_touserdata(L, 1);
  scope_unlink(h);
  unic_tensor *t = h->t;
  h->t = NULL;
  unic_tensor_unref(t);
  return 0;
}

/* x:free(): give the memory back now; using x afterwards is an error that says so. */
static int tensor_free(lua_State *L) {
  unic_handle *h = unic_handle_at(L, 1);
  if (!h) self(L, "free");
  unic_tensor *t = h->t;
  h->t = NULL;
  h->dead_scope = 0;
  scope_unlink(h);
  unic_tensor_unref(t);
  return 0;
}

/* x:keep(): x survives the scopes it was made in. */
static int tensor_keep(lua_State *L) {
  self(L, "keep");
  scope_unlink(unic_handle_at(L, 1));
  lua_settop(L, 1);
  return 1;
}

/* ---------------------------------------------------------------- scopes */

static void keep_returned(lua_State *L, int index, unic_scope *to, int depth) {
  unic_handle *h = unic_handle_at(L, index);
  if (h) {
    scope_unlink(h);
    scope_link(h, to);
  } else if (lua_type(L, index) == LUA_TTABLE && depth < 16) {
    lua_pushnil(L);
    while (lua_next(L, index)) {
      keep_returned(L, lua_gettop(L), to, depth + 1);
      lua_pop(L, 1);
    }
  }
}

/* scope(fn, ...) -> what fn returns; every other tensor that fn made is freed, parameters, buffers and gradients excepted. */
int unic_door_scope(lua_State *L) {
  unic_door_function(L, 1, "scope");
  unic_scope own = {.parent = scope, .line = unic_call_up.line ? unic_call_up.line() : 0};
  scope = &own;
  int status = lua_pcall(L, lua_gettop(L) - 1, LUA_MULTRET, 0);
  scope = own.parent;
  if (status == 0)
    for (int i = 1; i <= lua_gettop(L); i++) keep_returned(L, i, own.parent, 0);
  while (own.first) {
    unic_handle *h = own.first;
    scope_unlink(h);
    if (h->t && h->t->keep) {
      scope_link(h, own.parent);
      continue;
    }
    unic_tensor *t = h->t;
    h->t = NULL;
    h->dead_scope = own.line ? own.line : 1;
    unic_tensor_unref(t);
  }
  if (status != 0) return lua_error(L);
  return lua_gettop(L);
}

/* ---------------------------------------------------------------- construction */

/* empty(shape, dtype, device, layout): undefined contents. layout "contiguous" (default) or "channels_last". */
static int tensor_empty(lua_State *L) {
  int ndim;
  int64_t shape[UNIC_MAX_RANK];
  unic_dtype dtype = UNIC_F32;
  unic_device *device;
  unic_tensor *t;
  UNIC_DOOR(L, unic_door_shape(L, 1, "empty", &ndim, shape));
  if (!lua_isnoneornil(L, 2)) UNIC_DOOR(L, unic_door_dtype(L, 2, "empty", "dtype", &dtype));
  UNIC_DOOR(L, unic_door_device(L, 3, &device));
  const char *layout = lua_type(L, 4) == LUA_TSTRING ? lua_tostring(L, 4) : NULL;
  const bool last = layout && strcmp(layout, "channels_last") == 0;
  if ((!lua_isnoneornil(L, 4) && !last && !(layout && strcmp(layout, "contiguous") == 0)) || (last && ndim != 4)) {
    if (last) unic_fail("[empty] option 'layout': channels_last was given for %d dimensions, it takes 4: {N, C, H, W}", ndim);
    else unic_fail("[empty] option 'layout': %s was given, expected \"contiguous\" or \"channels_last\"", unic_door_kind(L, 4));
    return unic_door_raise(L, UNIC_ERROR);
  }
  UNIC_DOOR(L, unic_tensor_new(device, dtype, ndim, shape, last ? UNIC_CHANNELS_LAST : UNIC_CONTIGUOUS, 0, &t));
  unic_handle_push(L, t);
  return 1;
}

static double check_value(lua_State *L, int index, const char *op) {
  if (lua_type(L, index) != LUA_TNUMBER) {
    unic_fail("[%s] argument 'value': %s was given, expected a number", op, unic_door_kind(L, index));
    unic_door_raise(L, UNIC_ERROR);
  }
  return lua_tonumber(L, index);
}

/* full(shape, value, dtype, device) */
static int tensor_full(lua_State *L) {
  int ndim;
  int64_t shape[UNIC_MAX_RANK];
  unic_dtype dtype = UNIC_F32;
  unic_device *device;
  unic_tensor *t;
  UNIC_DOOR(L, unic_door_shape(L, 1, "full", &ndim, shape));
  double value = lua_isboolean(L, 2) ? lua_toboolean(L, 2) : check_value(L, 2, "full");
  if (!lua_isnoneornil(L, 3)) UNIC_DOOR(L, unic_door_dtype(L, 3, "full", "dtype", &dtype));
  UNIC_DOOR(L, unic_door_device(L, 4, &device));
  UNIC_DOOR(L, unic_tensor_new(device, dtype, ndim, shape, UNIC_CONTIGUOUS, 0, &t));
  unic_status status = device->abstract ? UNIC_OK : unic_service_fill(t, value);
  if (status != UNIC_OK) {
    unic_tensor_unref(t);
    return unic_door_raise(L, status);
  }
  unic_handle_push(L, t);
  return 1;
}

static unic_status nested_shape(lua_State *L, int index, int *ndim, int64_t *shape) {
  *ndim = 0;
  lua_pushvalue(L, index);
  while (lua_type(L, -1) == LUA_TTABLE) {
    if (*ndim == UNIC_MAX_RANK) return unic_fail("[tensor] argument 'values': nested deeper than %d tables", UNIC_MAX_RANK);
    shape[(*ndim)++] = (int64_t)lua_objlen(L, -1);
    lua_rawgeti(L, -1, 1);
    lua_remove(L, -2);
  }
  lua_pop(L, 1);
  return UNIC_OK;
}

static unic_status nested_fill(lua_State *L, int index, int depth, int ndim, const int64_t *shape, unic_dtype dtype, void *data, int64_t *at) {
  if (depth == ndim) {
    double x;
    if (lua_type(L, index) == LUA_TNUMBER) x = lua_tonumber(L, index);
    else if (lua_type(L, index) == LUA_TBOOLEAN) x = lua_toboolean(L, index);
    else return unic_fail("[tensor] argument 'values': %s was found, expected a number", unic_door_kind(L, index));
    unic_element_set(data, dtype, (*at)++, x);
    return UNIC_OK;
  }
  if (lua_type(L, index) != LUA_TTABLE || (int64_t)lua_objlen(L, index) != shape[depth])
    return unic_fail("[tensor] argument 'values': rows of different lengths, expected %lld at depth %d", (long long)shape[depth], depth + 1);
  luaL_checkstack(L, 4, "nested table");
  for (int64_t i = 1; i <= shape[depth]; i++) {
    lua_rawgeti(L, index, (int)i);
    unic_status status = nested_fill(L, lua_gettop(L), depth + 1, ndim, shape, dtype, data, at);
    lua_pop(L, 1);
    UNIC_TRY(status);
  }
  return UNIC_OK;
}

/* from_table(values, dtype, device) */
static int tensor_from_table(lua_State *L) {
  int ndim;
  int64_t shape[UNIC_MAX_RANK], at = 0;
  unic_dtype dtype = UNIC_F32;
  unic_device *device;
  unic_tensor *t, *moved;
  if (!lua_isnoneornil(L, 2)) UNIC_DOOR(L, unic_door_dtype(L, 2, "tensor", "dtype", &dtype));
  UNIC_DOOR(L, unic_door_device(L, 3, &device));
  UNIC_DOOR(L, nested_shape(L, 1, &ndim, shape));
  UNIC_DOOR(L, unic_tensor_new(unic_device_cpu(), dtype, ndim, shape, UNIC_CONTIGUOUS, 0, &t));
  unic_status status = nested_fill(L, 1, 0, ndim, shape, dtype, unic_tensor_data(t), &at);
  if (status == UNIC_OK && device != unic_device_cpu()) {
    status = unic_tensor_to_device(t, device, &moved);
    unic_tensor_unref(t);
    t = moved;
    if (status != UNIC_OK) return unic_door_raise(L, status);
  } else if (status != UNIC_OK) {
    unic_tensor_unref(t);
    return unic_door_raise(L, status);
  }
  unic_handle_push(L, t);
  return 1;
}

/* A host copy, row-major, of any tensor (a new reference; the tensor itself when it is that already). */
static unic_status host_copy(unic_tensor *t, unic_tensor **out) {
  unic_device *d = unic_tensor_device(t);
  if (d->abstract) return unic_fail("[tensor] a tensor on %s has a shape and no values", d->name);
  if (d->host && unic_tensor_is_contiguous(t)) { *out = unic_tensor_ref(t); return UNIC_OK; }
  unic_tensor *dense;
  UNIC_TRY(unic_tensor_convert(t, t->dtype, UNIC_CONTIGUOUS, &dense));
  if (d->host) { *out = dense; return UNIC_OK; }
  unic_status status = unic_tensor_to_device(dense, unic_device_cpu(), out);
  unic_tensor_unref(dense);
  return status;
}

static void push_element(lua_State *L, const unic_tensor *host, int64_t i) {
  const void *data = unic_tensor_data(host);
  if (host->dtype == UNIC_BOOL) lua_pushboolean(L, ((const uint8_t *)data)[i]);
  else lua_pushnumber(L, unic_element_get(data, host->dtype, i));
}

/* x:item(): the value of a tensor of one element. */
static int tensor_item(lua_State *L) {
  unic_tensor *t = self(L, "item"), *host;
  char text[256];
  if (unic_tensor_numel(t) != 1) {
    unic_fail("[item] argument 'x': %s was given, expected one element", unic_tensor_describe(t, text, sizeof text));
    return unic_door_raise(L, UNIC_ERROR);
  }
  UNIC_DOOR(L, host_copy(t, &host));
  push_element(L, host, 0);
  unic_tensor_unref(host);
  return 1;
}

static void push_nested(lua_State *L, const unic_tensor *host, int depth, int64_t *at) {
  if (depth == host->ndim) { push_element(L, host, (*at)++); return; }
  luaL_checkstack(L, 4, "nested table");
  lua_createtable(L, (int)host->shape[depth], 0);
  for (int64_t i = 1; i <= host->shape[depth]; i++) {
    push_nested(L, host, depth + 1, at);
    lua_rawseti(L, -2, (int)i);
  }
}

/* x:totable(): nested Lua tables (a number for a tensor without dimensions). */
static int tensor_totable(lua_State *L) {
  unic_tensor *host;
  int64_t at = 0;
  UNIC_DOOR(L, host_copy(self(L, "totable"), &host));
  push_nested(L, host, 0, &at);
  unic_tensor_unref(host);
  return 1;
}

/* x:tostring_bytes(): the elements' bytes, row-major, as a Lua string. */
static int tensor_bytes(lua_State *L) {
  unic_tensor *host;
  UNIC_DOOR(L, host_copy(self(L, "bytes"), &host));
  lua_pushlstring(L, unic_tensor_data(host), (size_t)unic_tensor_bytes(host));
  unic_tensor_unref(host);
  return 1;
}

/* peek(x, i): element i (0-based, row-major); for printing. */
static int tensor_peek(lua_State *L) {
  unic_tensor *t = self(L, "peek"), *host;
  int64_t i = (int64_t)luaL_checknumber(L, 2), at = 0;
  if (i < 0 || i >= unic_tensor_numel(t)) { lua_pushnil(L); return 1; }
  if (unic_tensor_device(t)->host && !t->block) {   /* no copy for the usual case */
    for (int d = t->ndim - 1; d >= 0; d--) { at += i % t->shape[d] * t->stride[d]; i /= t->shape[d]; }
    push_element(L, t, at);
    return 1;
  }
  UNIC_DOOR(L, host_copy(t, &host));
  push_element(L, host, i);
  unic_tensor_unref(host);
  return 1;
}

/* ---------------------------------------------------------------- properties */

static int push_shape(lua_State *L, int ndim, const int64_t *shape) {
  lua_createtable(L, ndim, 0);
  for (int d = 0; d < ndim; d++) {
    lua_pushnumber(L, (double)shape[d]);
    lua_rawseti(L, -2, d + 1);
  }
  return 1;
}

/* x:size() -> table; x:size(d) -> number */
static int tensor_size(lua_State *L) {
  unic_tensor *t = self(L, "size");
  if (lua_isnoneornil(L, 2)) return push_shape(L, t->ndim, t->shape);
  int64_t d;
  UNIC_DOOR(L, unic_door_integer(L, 2, "size", "dim", &d));
  if (d == 0 || d > t->ndim || d < -t->ndim) {
    unic_fail("[size] argument 'dim': %lld was given, the tensor has %d dimensions (counted from 1, or from the end: -1)", (long long)d, t->ndim);
    return unic_door_raise(L, UNIC_ERROR);
  }
  lua_pushnumber(L, (double)t->shape[d > 0 ? d - 1 : d + t->ndim]);
  return 1;
}

static int tensor_stride(lua_State *L) {
  unic_tensor *t = self(L, "stride");
  if (t->block) lua_pushnil(L); else push_shape(L, t->ndim, t->stride);
  return 1;
}

static int tensor_dim(lua_State *L) { lua_pushinteger(L, self(L, "dim")->ndim); return 1; }
static int tensor_numel(lua_State *L) { lua_pushnumber(L, (double)unic_tensor_numel(self(L, "numel"))); return 1; }
static int tensor_is_contiguous(lua_State *L) { lua_pushboolean(L, unic_tensor_is_contiguous(self(L, "is_contiguous"))); return 1; }
static int tensor_is_channels_last(lua_State *L) { lua_pushboolean(L, unic_tensor_is_channels_last(self(L, "is_channels_last"))); return 1; }
static int tensor_version(lua_State *L) { lua_pushnumber(L, (double)self(L, "version")->storage->version); return 1; }
static int tensor_is_tensor(lua_State *L) { lua_pushboolean(L, unic_handle_at(L, 1) != NULL); return 1; }
/* same_storage(a, b): do two tensors look at the same memory? */
static int tensor_same_storage(lua_State *L) {
  lua_pushboolean(L, self(L, "same_storage")->storage == unic_handle_tensor(L, 2, "same_storage", "y")->storage);
  return 1;
}

static int handle_index(lua_State *L) {
  if (lua_type(L, 2) == LUA_TSTRING) {
    lua_pushvalue(L, 2);
    lua_rawget(L, lua_upvalueindex(1));
    if (!lua_isnil(L, -1)) return 1;
    const char *key = lua_tostring(L, 2);
    unic_tensor *t = self(L, key);
    if (strcmp(key, "shape") == 0) return push_shape(L, t->ndim, t->shape);
    if (strcmp(key, "dtype") == 0) { lua_pushstring(L, unic_dtype_name(t->dtype)); return 1; }
    if (strcmp(key, "device") == 0) { lua_pushstring(L, unic_tensor_device(t)->name); return 1; }
    if (strcmp(key, "ndim") == 0) { lua_pushinteger(L, t->ndim); return 1; }
    if (strcmp(key, "requires_grad") == 0) { lua_pushboolean(L, t->requires_grad || t->node); return 1; }
    if (strcmp(key, "is_leaf") == 0) { lua_pushboolean(L, !t->node); return 1; }
    if (strcmp(key, "grad") == 0) {
      if (!t->grad) { lua_pushnil(L); return 1; }
      unic_handle_push(L, unic_tensor_ref(t->grad));
      return 1;
    }
    lua_pushnil(L);
    return 1;
  }
  lua_getfield(L, lua_upvalueindex(1), "__at");   /* x[i] and x[{...}]: written in Lua over select and narrow */
  lua_pushvalue(L, 1);
  lua_pushvalue(L, 2);
  lua_call(L, 2, 1);
  return 1;
}

static int handle_newindex(lua_State *L) {
  unic_tensor *t = self(L, "assignment");
  const char *key = lua_type(L, 2) == LUA_TSTRING ? lua_tostring(L, 2) : NULL;
  if (key && strcmp(key, "grad") == 0) {
    unic_tensor *grad = lua_isnil(L, 3) ? NULL : unic_handle_tensor(L, 3, "grad", "value");
    char a[256], b[256];
    if (grad && (grad->ndim != t->ndim || memcmp(grad->shape, t->shape, t->ndim * sizeof *t->shape) != 0)) {
      unic_fail("[grad] argument 'value': %s was given, expected the shape of %s", unic_tensor_describe(grad, a, sizeof a), unic_tensor_describe(t, b, sizeof b));
      return unic_door_raise(L, UNIC_ERROR);
    }
    unic_tensor *made = NULL;
    if (grad) UNIC_DOOR(L, unic_tensor_alias(grad, &made));
    if (made) made->keep = 1;
    unic_tensor_unref(t->grad);
    t->grad = made;
    return 0;
  }
  if (key && strcmp(key, "requires_grad") == 0) {
    bool on = lua_toboolean(L, 3);
    if (t->node) unic_fail("[requires_grad] argument 'x': it was computed from others and needs a gradient because they do; x:detach() gives one that does not");
    else if (on && !unic_dtype_is_float(t->dtype)) unic_fail("[requires_grad] argument 'x': %s has no gradient, expected a floating type", unic_dtype_name(t->dtype));
    else { t->requires_grad = on; return 0; }
    return unic_door_raise(L, UNIC_ERROR);
  }
  if (key) {
    unic_fail("[tensor] a tensor has no field '%.40s' that could be set, only grad and requires_grad", key);
    return unic_door_raise(L, UNIC_ERROR);
  }
  lua_getfield(L, lua_upvalueindex(1), "__set");   /* x[i] = value */
  lua_pushvalue(L, 1);
  lua_pushvalue(L, 2);
  lua_pushvalue(L, 3);
  lua_call(L, 3, 0);
  return 0;
}

/* ---------------------------------------------------------------- values, devices */

/* to_device(x, device): a copy there, x itself when it is there already. */
static int tensor_to_device(lua_State *L) {
  unic_tensor *t = self(L, "to"), *made;
  unic_device *d;
  UNIC_DOOR(L, unic_door_device(L, 2, &d));
  if (unic_tensor_device(t) == d) { lua_settop(L, 1); return 1; }
  UNIC_DOOR(L, unic_tensor_to_device(t, d, &made));
  unic_handle_push(L, made);
  return 1;
}

/* A checkpointed piece that runs again leaves alone what its first run changed outside of it. */
static bool changed_before(const unic_tensor *t) { return unic_frame_current && unic_frame_keeps(t); }

/* x:copy_(y): y's values into x (any device, any dtype; y broadcasts no further than equal shapes). */
static int tensor_copy(lua_State *L) {
  unic_tensor *t = self(L, "copy_"), *from = unic_handle_tensor(L, 2, "copy_", "from"), *moved = NULL;
  char a[256], b[256];
  unic_status status = UNIC_OK;
  if (t->ndim != from->ndim || memcmp(t->shape, from->shape, t->ndim * sizeof *t->shape) != 0)
    status = unic_fail("[copy_] argument 'from': %s was given, expected the shape of %s", unic_tensor_describe(from, a, sizeof a), unic_tensor_describe(t, b, sizeof b));
  else if (unic_grad_mode() && (t->node || t->requires_grad))
    status = unic_fail("[copy_] argument 'x': it needs a gradient and would be overwritten; unic.no_grad(fn) allows it");
  else if (unic_grad_mode() && (from->node || from->requires_grad))
    status = unic_fail("[copy_] argument 'from': it needs a gradient, which what is written in place would lose; t:detach() or unic.no_grad(fn) says that none is wanted");
  else status = unic_refuse_expanded("copy_", "x", t);
  if (status == UNIC_OK && unic_tensor_device(t) != unic_tensor_device(from)) status = unic_tensor_to_device(from, unic_tensor_device(t), &moved);
  else if (status == UNIC_OK && unic_tensors_cross(t, from)) status = unic_tensor_convert(from, from->dtype, UNIC_LAYOUT_KEEP, &moved);
  if (status == UNIC_OK && !changed_before(t)) status = unic_service_copy(t, moved ? moved : from);
  unic_tensor_unref(moved);
  UNIC_DOOR(L, status);
  if (!changed_before(t)) unic_storage_touch(t->storage, unic_call_up.line ? unic_call_up.line() : 0);
  lua_settop(L, 1);
  return 1;
}

/* x:fill_(value) */
static int tensor_fill(lua_State *L) {
  unic_tensor *t = self(L, "fill_");
  double value = check_value(L, 2, "fill_");
  if (unic_grad_mode() && (t->node || t->requires_grad)) {
    unic_fail("[fill_] argument 'x': it needs a gradient and would be overwritten; unic.no_grad(fn) allows it");
    return unic_door_raise(L, UNIC_ERROR);
  }
  UNIC_DOOR(L, unic_refuse_expanded("fill_", "x", t));
  if (!changed_before(t)) {
    UNIC_DOOR(L, unic_service_fill(t, value));
    unic_storage_touch(t->storage, unic_call_up.line ? unic_call_up.line() : 0);
  }
  lua_settop(L, 1);
  return 1;
}

/* x:clone_raw(layout): the same values in new memory, no gradient link. */
static int tensor_duplicate(lua_State *L) {
  unic_tensor *t = self(L, "duplicate"), *made;
  UNIC_DOOR(L, unic_tensor_convert(t, t->dtype, UNIC_LAYOUT_KEEP, &made));
  unic_handle_push(L, made);
  return 1;
}

/* x:detach(): the same memory without a gradient link. */
static int tensor_detach(lua_State *L) {
  unic_tensor *made;
  UNIC_DOOR(L, unic_tensor_alias(self(L, "detach"), &made));
  unic_handle_push(L, made);
  return 1;
}

/* x:data_ptr() -> lightuserdata (cast it with ffi); derived forms are barred until x:touched(). */
static int tensor_data_ptr(lua_State *L) {
  unic_tensor *t = self(L, "data_ptr");
  if (!unic_tensor_device(t)->host) {
    unic_fail("[data_ptr] argument 'x': it is on %s, whose memory Lua cannot reach; x:to(\"cpu\") copies it", unic_tensor_device(t)->name);
    return unic_door_raise(L, UNIC_ERROR);
  }
  t->storage->pinned = true;
  unic_storage_drop_derived(t->storage);
  lua_pushlightuserdata(L, unic_tensor_data(t));
  return 1;
}

static int tensor_touched(lua_State *L) {
  unic_tensor *t = self(L, "touched");
  t->storage->pinned = false;
  unic_storage_touch(t->storage, unic_call_up.line ? unic_call_up.line() : 0);
  lua_settop(L, 1);
  return 1;
}

/* x:set_keep(bool): parameters, buffers, optimiser state: not freed by scopes. */
static int tensor_set_keep(lua_State *L) {
  unic_tensor *t = self(L, "set_keep");
  t->keep = (uint8_t)lua_toboolean(L, 2);
  if (t->keep) unic_storage_last(t->storage);
  lua_settop(L, 1);
  return 1;
}

int unic_lua_open_tensor(lua_State *L) {
  static const luaL_Reg functions[] = {
    {"empty", tensor_empty}, {"full", tensor_full}, {"from_table", tensor_from_table}, {"is_tensor", tensor_is_tensor}, {"scope", unic_door_scope},
    {"to_device", tensor_to_device}, {"peek", tensor_peek},
    {"same_storage", tensor_same_storage}, {NULL, NULL}};
  static const luaL_Reg methods[] = {
    {"free", tensor_free}, {"keep", tensor_keep}, {"item", tensor_item}, {"totable", tensor_totable}, {"bytes", tensor_bytes}, {"size", tensor_size},
    {"stride", tensor_stride}, {"dim", tensor_dim}, {"numel", tensor_numel}, {"is_contiguous", tensor_is_contiguous},
    {"is_channels_last", tensor_is_channels_last}, {"version", tensor_version}, {"copy_", tensor_copy}, {"fill_", tensor_fill},
    {"duplicate", tensor_duplicate}, {"detach", tensor_detach}, {"data_ptr", tensor_data_ptr}, {"touched", tensor_touched},
    {"set_keep", tensor_set_keep}, {NULL, NULL}};

  lua_newtable(L);                         /* the module's table */
  luaL_register(L, NULL, functions);
  lua_newtable(L);                         /* methods */
  luaL_register(L, NULL, methods);
  lua_newtable(L);                         /* metatable */
  lua_pushliteral(L, "unic.tensor");
  lua_setfield(L, -2, "__name");
  lua_pushcfunction(L, handle_gc);
  lua_setfield(L, -2, "__gc");
  lua_pushvalue(L, -2);
  lua_pushcclosure(L, handle_index, 1);
  lua_setfield(L, -2, "__index");
  lua_pushvalue(L, -2);
  lua_pushcclosure(L, handle_newindex, 1);
  lua_setfield(L, -2, "__newindex");
  lua_pushvalue(L, -1);
  metatable_ref = luaL_ref(L, LUA_REGISTRYINDEX);
  lua_setfield(L, -3, "metatable");
  unic_lua_open_tape(L, lua_gettop(L) - 1, lua_gettop(L));
  lua_setfield(L, -2, "methods");
  return 1;
}
