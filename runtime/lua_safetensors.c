/* The Lua door of writing safetensors files: tensors and raw bytes (reading: lua_weights.c). lua/unic/files.lua is its public face. */
#include <string.h>

#include "files/safetensors.h"
#include "lua_files.h"

/* A string field of the table at `index`, which keeps it alive. */
static const char *check_field(lua_State *L, int index, const char *field, size_t *bytes) {
  lua_getfield(L, index, field);
  if (lua_type(L, -1) != LUA_TSTRING) {
    unic_fail("[safetensors_save] argument 'tensors': a tensor's field '%s' is %s, expected a string", field, unic_door_kind(L, -1));
    unic_door_raise(L, UNIC_ERROR);
  }
  const char *string = lua_tolstring(L, -1, bytes);
  lua_pop(L, 1);
  return string;
}

/* The tensor on top of the stack; a host copy, if one is needed, replaces it there. */
static void take_tensor(lua_State *L, unic_weights_entry *e) {
  unic_tensor *t = unic_handle_tensor(L, -1, "safetensors_save", e->name), *host;
  unic_status status = unic_files_host(t, &host);
  if (status != UNIC_OK) {
    unic_fail_prefix(status, "[safetensors_save] tensor '%s': ", e->name);
    unic_door_raise(L, status);
  }
  unic_handle_push(L, host);
  lua_replace(L, -2);
  e->dtype = unic_weights_dtype_names[host->dtype];
  e->ndim = host->ndim;
  memcpy(e->shape, host->shape, (size_t)host->ndim * sizeof *e->shape);
  e->data = unic_tensor_data(host);
  e->bytes = unic_tensor_bytes(host);
}

/* safetensors_save(path, list, metadata): list of {name =, tensor =} or {name =, dtype =, shape = {..}, data = string}; metadata: list of
 * key, value, key, ... */
static int safetensors_save(lua_State *L) {
  const char *path = luaL_checkstring(L, 1);
  luaL_checktype(L, 2, LUA_TTABLE);
  luaL_checktype(L, 3, LUA_TTABLE);
  int count = (int)lua_objlen(L, 2), pair_count = (int)lua_objlen(L, 3) / 2;
  unic_weights_entry *entries = lua_newuserdata(L, (size_t)(count + 1) * sizeof *entries);
  unic_weights_pair *pairs = lua_newuserdata(L, (size_t)(pair_count + 1) * sizeof *pairs);
  lua_createtable(L, count, 0); /* keeps host copies alive until all is written */
  int kept = lua_gettop(L);
  for (int i = 0; i < count; i++) {
    unic_weights_entry *e = &entries[i];
    memset(e, 0, sizeof *e);
    lua_rawgeti(L, 2, i + 1);
    int index = lua_gettop(L);
    size_t bytes;
    e->name = check_field(L, index, "name", &bytes);
    lua_getfield(L, index, "tensor");
    if (!lua_isnil(L, -1)) {
      take_tensor(L, e);
      lua_rawseti(L, kept, i + 1);
    } else {
      e->dtype = check_field(L, index, "dtype", &bytes);
      e->data = check_field(L, index, "data", &bytes);
      e->bytes = (int64_t)bytes;
      lua_getfield(L, index, "shape");
      UNIC_DOOR(L, unic_door_shape(L, lua_gettop(L), "safetensors_save", &e->ndim, e->shape));
    }
    lua_settop(L, kept);
  }
  for (int i = 0; i < pair_count; i++) {
    lua_rawgeti(L, 3, 2 * i + 1);
    lua_rawgeti(L, 3, 2 * i + 2);
    pairs[i] = (unic_weights_pair){luaL_checkstring(L, -2), luaL_checkstring(L, -1)};
    lua_pop(L, 2);
  }
  unic_status status = unic_safetensors_write(path, entries, count, pairs, pair_count);
  if (status != UNIC_OK) return unic_files_raise(L, status, "safetensors_save");
  return 0;
}

void unic_lua_add_safetensors(lua_State *L) {
  static const luaL_Reg functions[] = {{"safetensors_save", safetensors_save}, {NULL, NULL}};
  luaL_register(L, NULL, functions);
}
