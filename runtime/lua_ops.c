/* The door to the ops: one C function per op, its arguments read by the op's signature. */
#include "lua_unic.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---------------------------------------------------------------- reading arguments */

static unic_status wrong(lua_State *L, const unic_op_info *info, int i, int index, const char *expected) {
  return unic_fail("[%s] argument '%s': %s was given, expected %s", info->op->name, info->args[i].name, unic_door_kind(L, index), expected);
}

static bool closures;   /* an argument of the call has a graph environment, which its results inherit */

static unic_status read_tensor(lua_State *L, const unic_op_info *info, int i, int index, unic_handle *h, unic_tensor **out) {
  if (!h) return wrong(L, info, i, index, "a tensor");
  if (!h->t) return unic_handle_dead(h, info->op->name, info->args[i].name);
  closures |= h->env;
  *out = h->t;
  return UNIC_OK;
}

static unic_status read_int(lua_State *L, const unic_op_info *info, int i, int index, int64_t *out) {
  if (lua_type(L, index) != LUA_TNUMBER) return wrong(L, info, i, index, "an integer");
  double x = lua_tonumber(L, index);
  if (x != floor(x) || fabs(x) > 9007199254740992.0)
    return unic_fail("[%s] argument '%s': %.14g was given, expected an integer", info->op->name, info->args[i].name, x);
  *out = (int64_t)x;
  return UNIC_OK;
}

static unic_status read_ints(lua_State *L, const unic_op_info *info, int i, int index, unic_value *v) {
  const unic_arg_info *a = &info->args[i];
  if (lua_type(L, index) == LUA_TNUMBER) {
    int64_t x;
    UNIC_TRY(read_int(L, info, i, index, &x));
    v->integer = a->fixed ? a->fixed : 1;
    for (int n = 0; n < v->integer; n++) v->ints[n] = x;
    return UNIC_OK;
  }
  if (lua_type(L, index) != LUA_TTABLE) return wrong(L, info, i, index, a->fixed ? "an integer or a table of integers" : "a table of integers");
  int64_t n = (int64_t)lua_objlen(L, index);
  if (a->fixed && n != a->fixed) return unic_fail("[%s] argument '%s': a table of %lld was given, expected %d integers", info->op->name, a->name, (long long)n, a->fixed);
  if (n > UNIC_MAX_INTS) return unic_fail("[%s] argument '%s': a table of %lld was given, expected at most %d integers", info->op->name, a->name, (long long)n, UNIC_MAX_INTS);
  v->integer = n;
  for (int64_t m = 0; m < n; m++) {
    lua_rawgeti(L, index, (int)m + 1);
    unic_status status = read_int(L, info, i, lua_gettop(L), &v->ints[m]);
    lua_pop(L, 1);
    UNIC_TRY(status);
  }
  return UNIC_OK;
}

static unic_status read_list(lua_State *L, const unic_op_info *info, int i, int index, unic_call *c) {
  const unic_arg_info *a = &info->args[i];
  if (lua_type(L, index) != LUA_TTABLE) return wrong(L, info, i, index, "a table of tensors");
  int n = (int)lua_objlen(L, index);
  unic_tensor **list = lua_newuserdata(L, (size_t)(n + 1) * sizeof *list);   /* lives on the stack until the call is over */
  for (int m = 0; m < n; m++) {
    lua_rawgeti(L, index, m + 1);
    unic_handle *h = unic_handle_at(L, -1);
    if (!h) {
      const char *kind = unic_door_kind(L, -1);
      return unic_fail("[%s] argument '%s': member %d is %s, expected a tensor", info->op->name, a->name, m + 1, kind);
    }
    if (!h->t) return unic_handle_dead(h, info->op->name, a->name);
    list[m] = h->t;
    closures |= h->env;
    lua_pop(L, 1);
  }
  c->list[i] = list;
  c->arg[i].integer = n;
  return UNIC_OK;
}

static unic_status read_value(lua_State *L, const unic_op_info *info, int i, int index, unic_call *c) {
  const unic_arg_info *a = &info->args[i];
  unic_value *v = &c->arg[i];
  v->given = true;
  switch (a->kind) {
    case UNIC_KIND_TENSOR:
    case UNIC_KIND_RNG:
      return read_tensor(L, info, i, index, unic_handle_at(L, index), &c->in[i]);
    case UNIC_KIND_OPERAND:
    case UNIC_KIND_SCALAR:
      if (lua_type(L, index) == LUA_TNUMBER) { v->number = lua_tonumber(L, index); return UNIC_OK; }
      if (!unic_handle_at(L, index)) return wrong(L, info, i, index, "a tensor or a number");
      return read_tensor(L, info, i, index, unic_handle_at(L, index), &c->in[i]);
    case UNIC_KIND_TENSORS:
      return read_list(L, info, i, index, c);
    case UNIC_KIND_NUMBER:
      if (lua_type(L, index) != LUA_TNUMBER) return wrong(L, info, i, index, "a number");
      v->number = lua_tonumber(L, index);
      return UNIC_OK;
    case UNIC_KIND_INT:
      return read_int(L, info, i, index, &v->integer);
    case UNIC_KIND_BOOL:
      if (lua_type(L, index) != LUA_TBOOLEAN) return wrong(L, info, i, index, "true or false");
      v->integer = lua_toboolean(L, index);
      return UNIC_OK;
    case UNIC_KIND_INTS:
      return read_ints(L, info, i, index, v);
    case UNIC_KIND_DTYPE: {
      unic_dtype d;
      UNIC_TRY(unic_door_dtype(L, index, info->op->name, a->name, &d));
      v->integer = d;
      return UNIC_OK;
    }
    default: {   /* choice */
      char list[256] = "";
      for (int n = 0; n < a->nchoices; n++) {
        if (lua_type(L, index) == LUA_TSTRING && strcmp(lua_tostring(L, index), a->choices[n]) == 0) { v->integer = n; return UNIC_OK; }
        snprintf(list + strlen(list), sizeof list - strlen(list), "%s\"%s\"", n ? " or " : "", a->choices[n]);
      }
      if (lua_type(L, index) == LUA_TSTRING) return unic_fail("[%s] argument '%s': \"%.40s\" was given, expected %s", info->op->name, a->name, lua_tostring(L, index), list);
      return wrong(L, info, i, index, list);
    }
  }
}

static unic_status unknown_option(const unic_op_info *info, const char *key) {
  const char *names[UNIC_MAX_ARGS];
  for (int i = 0; i < info->nargs; i++) names[i] = info->args[i].name;
  const char *near = unic_door_nearest(key, names, info->nargs);
  if (near) return unic_fail("[%s] there is no argument '%.40s', did you mean '%s'?", info->op->name, key, near);
  return unic_fail("[%s] there is no argument '%.40s'", info->op->name, key);
}

static unic_status read_options(lua_State *L, const unic_op_info *info, int index, unic_call *c) {
  lua_pushnil(L);
  while (lua_next(L, index)) {
    if (lua_type(L, -2) != LUA_TSTRING)
      return unic_fail("[%s] its options are given by name, {name = value}; %s was given as a name", info->op->name, unic_door_kind(L, -2));
    const char *key = lua_tostring(L, -2);
    int i = 0;
    while (i < info->nargs && strcmp(info->args[i].name, key) != 0) i++;
    if (i == info->nargs) return unknown_option(info, key);
    if (c->arg[i].given) return unic_fail("[%s] argument '%s': it was given twice, by position and by name", info->op->name, key);
    int value = lua_gettop(L);
    UNIC_TRY(read_value(L, info, i, value, c));
    if (lua_gettop(L) > value) {   /* a list stays on the stack under the key that lua_next needs */
      lua_insert(L, index + 1);
      lua_settop(L, value + 1);
    }
    lua_pop(L, 1);
  }
  return UNIC_OK;
}

/* A table is a value where the signature wants a list, and options everywhere else; one with numbered members, or in the place of an argument
   that must be there, is a mistake that the argument's own sentence tells best. */
static bool is_options(lua_State *L, const unic_op_info *info, int i, int index) {
  if (lua_type(L, index) != LUA_TTABLE) return false;
  if (i >= info->nargs) return true;
  unic_kind kind = info->args[i].kind;
  if (lua_objlen(L, index) > 0) return false;
  if (kind != UNIC_KIND_TENSORS && kind != UNIC_KIND_INTS) {
    const unic_arg_info *a = &info->args[i];
    lua_pushnil(L);
    const bool empty = !lua_next(L, index);
    if (!empty) lua_pop(L, 2);
    return !empty || a->optional || a->has_default;
  }
  lua_pushnil(L);
  if (!lua_next(L, index)) return false;   /* {}: an empty list */
  lua_pop(L, 2);
  return true;
}

/* The integers of a final list given one by one, x:reshape(2, 3), from stack position s on; *next is where they end. */
static unic_status read_row(lua_State *L, const unic_op_info *info, int i, int s, int top, unic_value *v, int *next) {
  const unic_arg_info *a = &info->args[i];
  int n = 0;
  v->given = true;
  for (; s <= top; s++) {
    if (n > 0 && s == top && is_options(L, info, info->nargs, s) && lua_objlen(L, s) == 0) break;
    if (n > 0 && lua_type(L, s) == LUA_TTABLE)
      return unic_fail("[%s] argument '%s': a table follows an integer; the integers are given one by one, or all in one table", info->op->name, a->name);
    if (n == UNIC_MAX_INTS) return unic_fail("[%s] argument '%s': %d integers were given, expected at most %d", info->op->name, a->name, top - s + 1 + n, UNIC_MAX_INTS);
    UNIC_TRY(read_int(L, info, i, s, &v->ints[n]));
    v->integer = ++n;
  }
  *next = s;
  return UNIC_OK;
}

static unic_status read_arguments(lua_State *L, const unic_op_info *info, unic_call *c, int top) {
  int i = 0;
  for (int s = 1; s <= top; s++) {
    unic_handle *h = i < info->nargs && info->args[i].is_tensor ? unic_handle_at(L, s) : NULL;
    if (h) {   /* most arguments; no other reading of a tensor is possible */
      UNIC_TRY(read_tensor(L, info, i, s, h, &c->in[i]));
      c->arg[i++].given = true;
      continue;
    }
    if (is_options(L, info, i, s)) {
      if (s != top) return unic_fail("[%s] its options table must be the last argument", info->op->name);
      UNIC_TRY(read_options(L, info, s, c));
      break;
    }
    if (i >= info->nargs) {
      const unic_arg_info *last = i > 0 ? &info->args[i - 1] : NULL;
      if (last && last->kind == UNIC_KIND_INTS && !last->fixed && c->arg[i - 1].given && lua_type(L, s) == LUA_TNUMBER)
        return unic_fail("[%s] argument '%s': an integer follows a table; the integers are given one by one, or all in one table", info->op->name, last->name);
      return unic_fail("[%s] %d arguments were given, expected at most %d", info->op->name, top, info->nargs);
    }
    if (i == info->nargs - 1 && info->args[i].kind == UNIC_KIND_INTS && !info->args[i].fixed && lua_type(L, s) == LUA_TNUMBER) {
      UNIC_TRY(read_row(L, info, i, s, top, &c->arg[i], &s));
      i++;
      s--;
      continue;
    }
    if (!lua_isnil(L, s)) UNIC_TRY(read_value(L, info, i, s, c));
    i++;
  }
  for (i = 0; i < info->nargs; i++) {
    const unic_arg_info *a = &info->args[i];
    if (c->arg[i].given || a->optional || a->has_default) continue;
    return unic_fail("[%s] argument '%s': it is missing", info->op->name, a->name);
  }
  return UNIC_OK;
}

static int call_op(lua_State *L) {
  unic_op_info *info = lua_touserdata(L, lua_upvalueindex(1));
  int top = lua_gettop(L);
  unic_call c;
  unic_tensor *outs[UNIC_MAX_OUTS];
  UNIC_DOOR(L, unic_op_info_parse(info));
  unic_call_begin(&c, info);
  closures = false;
  UNIC_DOOR(L, read_arguments(L, info, &c, top));
  const bool inherits = closures;
  bool any = false;
  for (int i = 0; i < info->nargs && !any; i++) any = c.in[i] || (c.list[i] && c.arg[i].integer > 0);
  if (!any) c.device = unic_door_default_device();
  bool inplace = info->op->flags & UNIC_OP_INPLACE;
  outs[0] = NULL;
  UNIC_DOOR(L, unic_dispatch(&c, info, outs));
  int n = inplace ? (outs[0] != NULL) : info->visible;
  if (inplace && n) {   /* the very handle that was given, so that x:uniform_() == x */
    for (int i = 0, s = 1; i < info->nargs && s <= top; i++, s++)
      if (info->args[i].mutated && info->args[i].is_tensor) {
        unic_tensor_unref(outs[0]);
        lua_pushvalue(L, s);
        return 1;
      }
  }
  if (info->lists) luaL_checkstack(L, n + 4, "outputs");   /* otherwise what every C function has is enough */
  for (int j = 0; j < n; j++) {
    const bool recorded = outs[j]->node != NULL;
    unic_handle_push(L, outs[j]);
    if (recorded && inherits) unic_handle_inherit(L, top + 1 + j, 1, top);
  }
  return n;
}

/* ---------------------------------------------------------------- descriptors for Lua: help, specs, completion */

static const char *const kind_names[] = {"tensor", "tensors", "operand", "scalar", "rng", "number", "int", "bool", "ints", "choice", "dtype"};
static const char *const class_names[] = {"T", "wide", "float", "int", "any"};

static void set_string(lua_State *L, const char *key, const char *value) {
  lua_pushstring(L, value);
  lua_setfield(L, -2, key);
}

static void set_bool(lua_State *L, const char *key, bool value) {
  lua_pushboolean(L, value);
  lua_setfield(L, -2, key);
}

/* describe(name) -> {name, signature, doc, args = {{name, kind, class, ...}}, outs = {{name, hidden}}, ...} or nil */
static int describe_op(lua_State *L) {
  unic_op_info *info;
  if (unic_op_info_find(luaL_checkstring(L, 1), &info) != UNIC_OK) { lua_pushnil(L); return 1; }
  const unic_op *op = info->op;
  lua_newtable(L);
  set_string(L, "name", op->name);
  set_string(L, "signature", op->signature);
  set_string(L, "doc", op->doc ? op->doc : "");
  set_bool(L, "differentiable", info->differentiable);
  set_bool(L, "no_grad", op->flags & UNIC_OP_NO_GRAD);
  set_bool(L, "view", op->flags & UNIC_OP_VIEW);
  set_bool(L, "inplace", op->flags & UNIC_OP_INPLACE);
  set_bool(L, "service", op->flags & UNIC_OP_SERVICE);
  set_bool(L, "same_threads", op->flags & UNIC_OP_SAME_THREADS);
  set_bool(L, "remakes", op->remakes && !info->outs[0].saved);   /* one that is saved by its own op is there anyway */
  set_bool(L, "reference", op->cpu.reference != NULL);
  static const char *const casts[] = {[UNIC_CAST_NONE] = "as given", [UNIC_CAST_LOW] = "low", [UNIC_CAST_FULL] = "f32"};
  set_string(L, "autocast", casts[op->autocast]);
  lua_newtable(L);
  for (int i = 0; i < info->nargs; i++) {
    const unic_arg_info *a = &info->args[i];
    lua_newtable(L);
    set_string(L, "name", a->name);
    set_string(L, "kind", kind_names[a->kind]);
    set_string(L, "class", a->type_class < UNIC_CLASS_EXACT ? class_names[a->type_class] : unic_dtype_name((unic_dtype)(a->type_class - UNIC_CLASS_EXACT)));
    set_bool(L, "optional", a->optional);
    set_bool(L, "mutated", a->mutated);
    set_bool(L, "has_default", a->has_default);
    set_bool(L, "grad", a->grad);
    set_bool(L, "grad_wide", a->grad_wide);
    lua_pushinteger(L, a->dims_given ? a->ndims : -1);
    lua_setfield(L, -2, "rank");
    lua_rawseti(L, -2, i + 1);
  }
  lua_setfield(L, -2, "args");
  lua_newtable(L);
  for (int j = 0; j < info->nouts; j++) {
    lua_newtable(L);
    set_string(L, "name", info->outs[j].name);
    set_bool(L, "hidden", info->outs[j].hidden);
    lua_rawseti(L, -2, j + 1);
  }
  lua_setfield(L, -2, "outs");
  return 1;
}

/* help(name) -> text or nil */
static int help(lua_State *L) {
  unic_op_info *info;
  if (unic_op_info_find(luaL_checkstring(L, 1), &info) != UNIC_OK || (info->op->flags & UNIC_OP_SERVICE)) { lua_pushnil(L); return 1; }
  lua_pushfstring(L, "%s(%s)\n\n%s", info->op->name, info->op->signature, info->op->doc ? info->op->doc : "");
  return 1;
}

/* names() -> every op's name in the order of the files */
static int names(lua_State *L) {
  lua_newtable(L);
  int n = 0;
  for (int i = 0; i < unic_op_count(); i++) {
    lua_pushstring(L, unic_op_info_at(i)->op->name);
    lua_rawseti(L, -2, ++n);
  }
  return 1;
}

/* counters(name) -> calls, plans found, plans made */
static int counters(lua_State *L) {
  unic_op_info *info;
  UNIC_DOOR(L, unic_op_info_find(luaL_checkstring(L, 1), &info));
  lua_pushnumber(L, (double)info->calls);
  lua_pushnumber(L, (double)info->plans_hit);
  lua_pushnumber(L, (double)info->plans_made);
  return 3;
}

int unic_lua_open_ops(lua_State *L) {
  unic_status status = unic_ops_load();
  if (status != UNIC_OK) return unic_door_raise(L, status);
  static const luaL_Reg functions[] = {{"describe", describe_op}, {"help", help}, {"names", names}, {"counters", counters}, {NULL, NULL}};
  lua_newtable(L);
  luaL_register(L, NULL, functions);
  lua_newtable(L);   /* call: name -> function */
  lua_newtable(L);   /* methods: those whose first argument is a tensor */
  for (int i = 0; i < unic_op_count(); i++) {
    unic_op_info *info = unic_op_info_at(i);
    if (info->op->flags & UNIC_OP_SERVICE) continue;
    lua_pushlightuserdata(L, info);
    lua_pushcclosure(L, call_op, 1);
    lua_pushvalue(L, -1);
    lua_setfield(L, -4, info->op->name);
    /* Without parsing all signatures at start: the first argument's kind stands right after its name. */
    const char *colon = strchr(info->op->signature, ':');
    bool first = colon && (strncmp(colon + 1 + strspn(colon + 1, " "), "tensor", 6) == 0 || strncmp(colon + 1 + strspn(colon + 1, " "), "operand", 7) == 0);
    if (first && strncmp(colon + 1 + strspn(colon + 1, " "), "tensors", 7) != 0) lua_setfield(L, -2, info->op->name);
    else lua_pop(L, 1);
  }
  lua_setfield(L, -3, "methods");
  lua_setfield(L, -2, "call");
  return 1;
}
