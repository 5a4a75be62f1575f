/* The Lua door of reading named tensors: safetensors, PyTorch and NumPy files behind the same methods. lua/unic/files.lua and
 * lua/unic/weights.lua are its public faces.
 *
 * Userdata "unic.weights" holds a handle. Integers of 8 and 16 bits and unsigned ones of 32 have no type in this runtime: they arrive as the
 * next type that holds all their values (I8, I16, U16 as i32, U32 as i64). data(name) gives the bytes of the file all the same. */
#include <stdlib.h>
#include <string.h>

#include "files/npy.h"
#include "files/safetensors.h"
#include "files/torch_file.h"
#include "lua_files.h"

static const char WEIGHTS[] = "unic.weights";

typedef struct weights_handle {
  unic_weights *file; /* NULL once closed */
  const char *kind;   /* stays known */
} weights_handle;

const char *const unic_weights_dtype_names[UNIC_DTYPES] = {
  [UNIC_F32] = "F32", [UNIC_BF16] = "BF16", [UNIC_F16] = "F16", [UNIC_F64] = "F64",
  [UNIC_I64] = "I64", [UNIC_I32] = "I32", [UNIC_U8] = "U8", [UNIC_BOOL] = "BOOL"};

/* Types of files that arrive as wider ones. */
static const struct { const char *name; int size; bool is_signed; unic_dtype dtype; } narrow[] = {
  {"I8", 1, true, UNIC_I32}, {"I16", 2, true, UNIC_I32}, {"U16", 2, false, UNIC_I32}, {"U32", 4, false, UNIC_I64},
};
enum { NARROW = sizeof narrow / sizeof narrow[0] };

static weights_handle *check_handle(lua_State *L) {
  weights_handle *handle = luaL_checkudata(L, 1, WEIGHTS);
  if (!handle->file) {
    unic_fail("[%s] argument 'file': it was closed", handle->kind ? handle->kind : "weights");
    unic_door_raise(L, UNIC_ERROR);
  }
  return handle;
}

static unic_weights *check_file(lua_State *L) { return check_handle(L)->file; }

static int open_with(lua_State *L, unic_status (*open)(unic_weights **, const char *), const char *kind, const char *op) {
  const char *path = luaL_checkstring(L, 1);
  weights_handle *handle = unic_files_object(L, WEIGHTS, sizeof *handle);
  handle->kind = kind;
  unic_status status = open(&handle->file, path);
  if (status != UNIC_OK) {
    handle->file = NULL;
    return unic_files_raise(L, status, op);
  }
  return 1;
}

static int safetensors_open(lua_State *L) { return open_with(L, unic_safetensors_open, "safetensors", "safetensors_open"); }
static int torch_open(lua_State *L) { return open_with(L, unic_torch_open, "torch", "torch_open"); }
static int npy_open(lua_State *L) { return open_with(L, unic_npy_open, "npy", "npy_open"); }

static int weights_close(lua_State *L) {
  weights_handle *handle = luaL_checkudata(L, 1, WEIGHTS);
  unic_weights_close(handle->file);
  handle->file = NULL;
  return 0;
}

static int weights_path(lua_State *L) {
  lua_pushstring(L, check_file(L)->path);
  return 1;
}

static int weights_names(lua_State *L) {
  const unic_weights *file = check_file(L);
  lua_createtable(L, (int)file->count, 0);
  for (int64_t i = 0; i < file->count; i++) {
    lua_pushstring(L, file->entries[i].name);
    lua_rawseti(L, -2, (int)i + 1);
  }
  return 1;
}

static int weights_metadata(lua_State *L) {
  const unic_weights *file = check_file(L);
  lua_newtable(L);
  for (int64_t i = 0; i < file->pair_count; i++) {
    lua_pushstring(L, file->pairs[i].key);
    lua_pushstring(L, file->pairs[i].value);
    lua_rawset(L, -3);
  }
  return 1;
}

static const unic_weights_entry *find_entry(lua_State *L) { return unic_weights_find(check_file(L), luaL_checkstring(L, 2)); }

/* entry(name): dtype, shape, bytes, pointer (nil where the bytes do not lie in the map as they should be); nothing if there is no such tensor. */
static int weights_entry(lua_State *L) {
  const unic_weights_entry *e = find_entry(L);
  if (!e) return 0;
  lua_pushstring(L, e->dtype);
  lua_createtable(L, e->ndim, 0);
  for (int d = 0; d < e->ndim; d++) {
    unic_files_push_int64(L, e->shape[d]);
    lua_rawseti(L, -2, d + 1);
  }
  unic_files_push_int64(L, e->bytes);
  if (e->data) {
    lua_pushlightuserdata(L, (void *)(uintptr_t)e->data);
  } else {
    lua_pushnil(L);
  }
  return 4;
}

/* data(name): the bytes as a string: row-major, little-endian, in the file's dtype. */
static int weights_data(lua_State *L) {
  weights_handle *handle = check_handle(L);
  const unic_weights_entry *e = find_entry(L);
  if (!e) return 0;
  if (e->data) {
    lua_pushlstring(L, e->data, (size_t)e->bytes);
    return 1;
  }
  void *bytes = malloc(e->bytes ? (size_t)e->bytes : 1);
  unic_status status = bytes ? unic_weights_read(handle->file, e, bytes)
                             : unic_fail_memory("'%s': tensor '%s': no memory for its %lld bytes", handle->file->path, e->name, (long long)e->bytes);
  if (status == UNIC_OK) lua_pushlstring(L, bytes, (size_t)e->bytes);
  free(bytes);
  if (status != UNIC_OK) return unic_files_raise(L, status, handle->kind);
  return 1;
}

/* The runtime's type for an entry; *from: its place in `narrow`, or -1. */
static unic_status entry_dtype(const unic_weights *file, const unic_weights_entry *e, unic_dtype *dtype, int *from) {
  *from = -1;
  for (int i = 0; i < NARROW; i++) {
    if (strcmp(narrow[i].name, e->dtype) != 0) continue;
    *from = i;
    *dtype = narrow[i].dtype;
    return UNIC_OK;
  }
  for (int i = 0; i < UNIC_DTYPES; i++) {
    if (strcmp(unic_weights_dtype_names[i], e->dtype) != 0) continue;
    *dtype = (unic_dtype)i;
    if (i == UNIC_BOOL && e->data) {
      int64_t at = unic_weights_not_bool(e->data, e->bytes);
      if (at >= 0) {
        return unic_fail("'%s': tensor '%s': a BOOL of value %d, expected 0 or 1", file->path, e->name, ((const uint8_t *)e->data)[at]);
      }
    }
    return UNIC_OK;
  }
  return unic_fail("'%s': tensor '%s': has dtype %s, expected F32, BF16, F16, F64, I64, I32, I16, I8, U8, U16, U32 or BOOL", file->path, e->name,
                   e->dtype);
}

/* Narrow elements at the end of their memory, widened from its beginning on: a wide element ends where the next narrow one begins, or before. */
static void widen(void *memory, int64_t count, int from) {
  const int size = narrow[from].size;
  const bool is_signed = narrow[from].is_signed;
  const int64_t wide = unic_dtype_size(narrow[from].dtype);
  const uint8_t *in = (const uint8_t *)memory + count * (wide - size);
  for (int64_t i = 0; i < count; i++, in += size) {
    uint32_t bits = 0;
    memcpy(&bits, in, (size_t)size); /* little-endian: see unic_weights_open */
    int64_t value = bits;
    if (is_signed) value = size == 1 ? (int8_t)bits : (int16_t)bits;
    if (wide == 4) {
      const int32_t element = (int32_t)value;
      memcpy((uint8_t *)memory + i * 4, &element, 4);
    } else {
      memcpy((uint8_t *)memory + i * 8, &value, 8);
    }
  }
}

/* From the file straight into a dense row-major tensor; other devices than the host get it by way of host memory where it does not lie in the
 * map ready for them. */
static unic_status fill_from(unic_tensor *t, unic_weights *file, const unic_weights_entry *e, int from) {
  unic_device *device = unic_tensor_device(t);
  if (e->bytes == 0 || device->abstract) return UNIC_OK;
  if (e->data && from < 0) return device->api->upload(device, unic_tensor_data(t), e->data, e->bytes);
  int64_t bytes = unic_tensor_bytes(t);
  uint8_t *memory = device->host ? unic_tensor_data(t) : malloc((size_t)bytes);
  if (!memory) return unic_fail_memory("'%s': tensor '%s': no memory for its %lld bytes", file->path, e->name, (long long)bytes);
  unic_status status = unic_weights_read(file, e, memory + (bytes - e->bytes));
  if (status == UNIC_OK && from >= 0) widen(memory, unic_tensor_numel(t), from);
  if (!device->host) {
    if (status == UNIC_OK) status = device->api->upload(device, unic_tensor_data(t), memory, bytes);
    free(memory);
  }
  return status;
}

static unic_status new_from(unic_device *device, unic_weights *file, const unic_weights_entry *e, unic_dtype dtype, int from, unic_tensor **out) {
  UNIC_TRY(unic_tensor_new(device, dtype, e->ndim, e->shape, UNIC_CONTIGUOUS, 0, out));
  unic_status status = fill_from(*out, file, e, from);
  if (status != UNIC_OK) unic_tensor_unref(*out);
  return status;
}

/* tensor(name, device): the entry as a new tensor; nothing if there is none of that name. */
static int weights_tensor(lua_State *L) {
  weights_handle *handle = check_handle(L);
  const unic_weights_entry *e = find_entry(L);
  if (!e) return 0;
  unic_device *device;
  unic_dtype dtype;
  unic_tensor *t;
  int from;
  UNIC_DOOR(L, unic_door_device(L, 3, &device));
  unic_status status = entry_dtype(handle->file, e, &dtype, &from);
  if (status == UNIC_OK) status = new_from(device, handle->file, e, dtype, from, &t);
  if (status != UNIC_OK) return unic_files_raise(L, status, handle->kind);
  unic_handle_push(L, t);
  return 1;
}

/* read(name, tensor): the entry's values into a tensor that is there, converted if dtype or layout differ; true, or nothing if there is no
 * entry of that name. Where the file turns out to be damaged half way, the tensor holds what was read so far. */
static int weights_read(lua_State *L) {
  weights_handle *handle = check_handle(L);
  unic_weights *file = handle->file;
  const unic_weights_entry *e = find_entry(L);
  unic_tensor *t = unic_handle_tensor(L, 3, handle->kind, "tensor");
  if (!e) return 0;
  char have[128], want[128];
  unic_dtype dtype;
  int from;
  unic_status status = entry_dtype(file, e, &dtype, &from);
  if (status == UNIC_OK && (t->ndim != e->ndim || memcmp(t->shape, e->shape, (size_t)e->ndim * sizeof *e->shape) != 0)) {
    status = unic_fail("'%s': tensor '%s': its shape is %s, expected %s", file->path, e->name,
                       unic_shape_describe(e->ndim, e->shape, have, sizeof have), unic_shape_describe(t->ndim, t->shape, want, sizeof want));
  }
  if (status == UNIC_OK) {
    if (t->dtype == dtype && unic_tensor_is_contiguous(t)) {
      status = fill_from(t, file, e, from);
    } else if (!unic_tensor_device(t)->abstract) {
      unic_tensor *loaded;
      status = new_from(unic_tensor_device(t), file, e, dtype, from, &loaded);
      if (status == UNIC_OK) {
        status = unic_service_copy(t, loaded);
        unic_tensor_unref(loaded);
      }
    }
    unic_storage_touch(t->storage, unic_call_up.line ? unic_call_up.line() : 0);
  }
  if (status != UNIC_OK) return unic_files_raise(L, status, handle->kind);
  lua_pushboolean(L, 1);
  return 1;
}

void unic_lua_add_weights(lua_State *L) {
  static const luaL_Reg methods[] = {
    {"path", weights_path}, {"names", weights_names}, {"metadata", weights_metadata}, {"entry", weights_entry},
    {"data", weights_data}, {"tensor", weights_tensor}, {"read", weights_read}, {"close", weights_close}, {NULL, NULL}};
  static const luaL_Reg functions[] = {
    {"safetensors_open", safetensors_open}, {"torch_open", torch_open}, {"npy_open", npy_open}, {NULL, NULL}};
  unic_files_type(L, WEIGHTS, methods, weights_close);
  luaL_register(L, NULL, functions);
}
