/* The Lua door of safetensors files: mapped reading into tensors, saving of tensors and raw bytes. lua/unic/files.lua is its public face.
 * Userdata "unic.safetensors" holds a unic_safetensors *. */
#include <string.h>

#include "files/safetensors.h"
#include "lua_files.h"

static const char SAFETENSORS[] = "unic.safetensors";

static const char *const dtype_names[UNIC_DTYPES] = {
  [UNIC_F32] = "F32", [UNIC_BF16] = "BF16", [UNIC_F16] = "F16", [UNIC_F64] = "F64",
  [UNIC_I64] = "I64", [UNIC_I32] = "I32", [UNIC_U8] = "U8", [UNIC_BOOL] = "BOOL"};

/* ---- reading ---- */

static unic_safetensors *check_file(lua_State *L) {
  unic_safetensors *file = *(unic_safetensors **)luaL_checkudata(L, 1, SAFETENSORS);
  if (!file) {
    unic_fail("[safetensors] argument 'file': it was closed");
    unic_door_raise(L, UNIC_ERROR);
  }
  return file;
}

static int safetensors_open(lua_State *L) {
  const char *path = luaL_checkstring(L, 1);
  unic_safetensors **file = unic_files_object(L, SAFETENSORS, sizeof *file);
  unic_status status = unic_safetensors_open(file, path);
  if (status != UNIC_OK) return unic_files_raise(L, status, "safetensors_open");
  return 1;
}

static int safetensors_close(lua_State *L) {
  unic_safetensors **file = luaL_checkudata(L, 1, SAFETENSORS);
  unic_safetensors_close(*file);
  *file = NULL;
  return 0;
}

static int safetensors_path(lua_State *L) {
  lua_pushstring(L, unic_safetensors_path(check_file(L)));
  return 1;
}

static int safetensors_names(lua_State *L) {
  const unic_safetensors *file = check_file(L);
  int64_t n = unic_safetensors_count(file);
  lua_createtable(L, (int)n, 0);
  for (int64_t i = 0; i < n; i++) {
    lua_pushstring(L, unic_safetensors_at(file, i)->name);
    lua_rawseti(L, -2, (int)i + 1);
  }
  return 1;
}

static int safetensors_metadata(lua_State *L) {
  const unic_safetensors *file = check_file(L);
  lua_newtable(L);
  for (int64_t i = 0; i < unic_safetensors_pairs(file); i++) {
    const unic_safetensors_pair *pair = unic_safetensors_pair_at(file, i);
    lua_pushstring(L, pair->value);
    lua_setfield(L, -2, pair->key);
  }
  return 1;
}

static const unic_safetensors_entry *find_entry(lua_State *L) { return unic_safetensors_find(check_file(L), luaL_checkstring(L, 2)); }

/* entry(name): dtype, shape, bytes, pointer; nothing if there is no such tensor. */
static int safetensors_entry(lua_State *L) {
  const unic_safetensors_entry *e = find_entry(L);
  if (!e) return 0;
  lua_pushstring(L, e->dtype);
  lua_createtable(L, e->ndim, 0);
  for (int d = 0; d < e->ndim; d++) {
    unic_files_push_int64(L, e->shape[d]);
    lua_rawseti(L, -2, d + 1);
  }
  unic_files_push_int64(L, e->bytes);
  lua_pushlightuserdata(L, (void *)(uintptr_t)e->data);
  return 4;
}

/* data(name): the bytes as a string. */
static int safetensors_data(lua_State *L) {
  const unic_safetensors_entry *e = find_entry(L);
  if (!e) return 0;
  lua_pushlstring(L, e->data, (size_t)e->bytes);
  return 1;
}

static unic_status entry_dtype(const unic_safetensors *file, const unic_safetensors_entry *e, unic_dtype *dtype) {
  for (int i = 0; i < UNIC_DTYPES; i++) {
    if (strcmp(dtype_names[i], e->dtype) != 0) continue;
    *dtype = (unic_dtype)i;
    if (i == UNIC_BOOL) {
      const uint8_t *p = e->data;
      for (int64_t k = 0; k < e->bytes; k++) {
        if (p[k] > 1) {
          return unic_fail("'%s': tensor '%s': a BOOL of value %d, expected 0 or 1", unic_safetensors_path(file), e->name, p[k]);
        }
      }
    }
    return UNIC_OK;
  }
  return unic_fail("'%s': tensor '%s': has dtype %s, expected F32, BF16, F16, F64, I64, I32, U8 or BOOL", unic_safetensors_path(file), e->name,
                   e->dtype);
}

/* From the map straight into a dense row-major tensor, on whatever device. */
static unic_status fill_from(unic_tensor *t, const unic_safetensors_entry *e) {
  unic_device *device = unic_tensor_device(t);
  if (e->bytes == 0 || device->abstract) return UNIC_OK;
  return device->api->upload(device, unic_tensor_data(t), e->data, e->bytes);
}

/* tensor(name, device): the entry as a new tensor; nothing if there is none of that name. */
static int safetensors_tensor(lua_State *L) {
  const unic_safetensors *file = check_file(L);
  const unic_safetensors_entry *e = find_entry(L);
  if (!e) return 0;
  unic_device *device;
  unic_dtype dtype;
  unic_tensor *t;
  UNIC_DOOR(L, unic_door_device(L, 3, &device));
  unic_status status = entry_dtype(file, e, &dtype);
  if (status == UNIC_OK) status = unic_tensor_new(device, dtype, e->ndim, e->shape, UNIC_CONTIGUOUS, 0, &t);
  if (status != UNIC_OK) return unic_files_raise(L, status, "safetensors");
  status = fill_from(t, e);
  if (status != UNIC_OK) {
    unic_tensor_unref(t);
    return unic_files_raise(L, status, "safetensors");
  }
  unic_handle_push(L, t);
  return 1;
}

/* read(name, tensor): the entry's values into a tensor that is there, converted if dtype or layout differ; true, or nothing if there is no
 * entry of that name. */
static int safetensors_read(lua_State *L) {
  const unic_safetensors *file = check_file(L);
  const unic_safetensors_entry *e = find_entry(L);
  unic_tensor *t = unic_handle_tensor(L, 3, "safetensors", "tensor");
  if (!e) return 0;
  char have[128], want[128];
  unic_dtype dtype;
  unic_status status = entry_dtype(file, e, &dtype);
  if (status == UNIC_OK && (t->ndim != e->ndim || memcmp(t->shape, e->shape, (size_t)e->ndim * sizeof *e->shape) != 0)) {
    status = unic_fail("'%s': tensor '%s': its shape is %s, expected %s", unic_safetensors_path(file), e->name,
                       unic_shape_describe(e->ndim, e->shape, have, sizeof have), unic_shape_describe(t->ndim, t->shape, want, sizeof want));
  }
  if (status == UNIC_OK) {
    if (t->dtype == dtype && unic_tensor_is_contiguous(t)) {
      status = fill_from(t, e);
    } else if (!unic_tensor_device(t)->abstract) {
      unic_tensor *loaded;
      status = unic_tensor_new(unic_tensor_device(t), dtype, e->ndim, e->shape, UNIC_CONTIGUOUS, 0, &loaded);
      if (status == UNIC_OK) {
        status = fill_from(loaded, e);
        if (status == UNIC_OK) status = unic_service_copy(t, loaded);
        unic_tensor_unref(loaded);
      }
    }
    unic_storage_touch(t->storage, unic_call_up.line ? unic_call_up.line() : 0);
  }
  if (status != UNIC_OK) return unic_files_raise(L, status, "safetensors");
  lua_pushboolean(L, 1);
  return 1;
}

/* ---- writing ---- */

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
static void take_tensor(lua_State *L, unic_safetensors_entry *e) {
  unic_tensor *t = unic_handle_tensor(L, -1, "safetensors_save", e->name), *host;
  unic_status status = unic_files_host(t, &host);
  if (status != UNIC_OK) {
    unic_fail_prefix(status, "[safetensors_save] tensor '%s': ", e->name);
    unic_door_raise(L, status);
  }
  unic_handle_push(L, host);
  lua_replace(L, -2);
  e->dtype = dtype_names[host->dtype];
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
  unic_safetensors_entry *entries = lua_newuserdata(L, (size_t)(count + 1) * sizeof *entries);
  unic_safetensors_pair *pairs = lua_newuserdata(L, (size_t)(pair_count + 1) * sizeof *pairs);
  lua_createtable(L, count, 0); /* keeps host copies alive until all is written */
  int kept = lua_gettop(L);
  for (int i = 0; i < count; i++) {
    unic_safetensors_entry *e = &entries[i];
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
    pairs[i] = (unic_safetensors_pair){luaL_checkstring(L, -2), luaL_checkstring(L, -1)};
    lua_pop(L, 2);
  }
  unic_status status = unic_safetensors_write(path, entries, count, pairs, pair_count);
  if (status != UNIC_OK) return unic_files_raise(L, status, "safetensors_save");
  return 0;
}

void unic_lua_add_safetensors(lua_State *L) {
  static const luaL_Reg methods[] = {
    {"path", safetensors_path}, {"names", safetensors_names}, {"metadata", safetensors_metadata}, {"entry", safetensors_entry},
    {"data", safetensors_data}, {"tensor", safetensors_tensor}, {"read", safetensors_read}, {"close", safetensors_close}, {NULL, NULL}};
  static const luaL_Reg functions[] = {{"safetensors_open", safetensors_open}, {"safetensors_save", safetensors_save}, {NULL, NULL}};
  unic_files_type(L, SAFETENSORS, methods, safetensors_close);
  luaL_register(L, NULL, functions);
}
