/* The Lua door of runtime/files: pictures, tables, atomic output (weights: lua_weights.c and lua_safetensors.c). lua/unic/files.lua is its public face,
 * with the documentation.
 *
 * Userdata "unic.image" holds a unic_image, "unic.table" a unic_table *, "unic.output" a unic_output. */
#include <string.h>

#include "files/file.h"
#include "files/image_file.h"
#include "files/png.h"
#include "files/table.h"
#include "files/utf8.h"
#include "lua_files.h"

static const char IMAGE[] = "unic.image", TABLE[] = "unic.table", OUTPUT[] = "unic.output";

int unic_files_raise(lua_State *L, unic_status status, const char *op) {
  return unic_door_raise(L, unic_fail_prefix(status, "[%s] ", op));
}

void *unic_files_object(lua_State *L, const char *type, size_t bytes) {
  void *object = lua_newuserdata(L, bytes);
  memset(object, 0, bytes);
  luaL_getmetatable(L, type);
  lua_setmetatable(L, -2);
  return object;
}

void unic_files_push_int64(lua_State *L, int64_t n) { lua_pushnumber(L, (lua_Number)n); }

unic_status unic_files_host(unic_tensor *t, unic_tensor **out) {
  unic_device *device = unic_tensor_device(t);
  if (device->abstract) return unic_fail("a tensor on %s has a shape and no values", device->name);
  unic_tensor *dense = unic_tensor_is_contiguous(t) ? unic_tensor_ref(t) : NULL;
  if (!dense) UNIC_TRY(unic_tensor_convert(t, t->dtype, UNIC_CONTIGUOUS, &dense));
  if (device->host) {
    *out = dense;
    return UNIC_OK;
  }
  unic_status status = unic_tensor_to_device(dense, unic_device_cpu(), out);
  unic_tensor_unref(dense);
  return status;
}

static int fail_freed(lua_State *L, const char *op) {
  unic_fail("[%s] argument 'self': it was freed", op);
  return unic_door_raise(L, UNIC_ERROR);
}

/* ---- pictures ---- */

static unic_image *check_image(lua_State *L, int arg) {
  unic_image *image = luaL_checkudata(L, arg, IMAGE);
  if (!image->pixels) fail_freed(L, "image");
  return image;
}

/* read_image(path, grey) */
static int read_image(lua_State *L) {
  const char *path = luaL_checkstring(L, 1);
  unic_image *image = unic_files_object(L, IMAGE, sizeof *image);
  unic_status status = unic_image_read(image, path, lua_toboolean(L, 2));
  if (status != UNIC_OK) return unic_files_raise(L, status, "read_image");
  return 1;
}

/* decode_image(data, name, grey) */
static int decode_image(lua_State *L) {
  size_t bytes;
  const char *data = luaL_checklstring(L, 1, &bytes);
  const char *name = luaL_checkstring(L, 2);
  unic_image *image = unic_files_object(L, IMAGE, sizeof *image);
  unic_status status = unic_image_decode(image, name, data, (int64_t)bytes, lua_toboolean(L, 3));
  if (status != UNIC_OK) return unic_files_raise(L, status, "decode_image");
  return 1;
}

static int image_width(lua_State *L) { return lua_pushinteger(L, check_image(L, 1)->width), 1; }
static int image_height(lua_State *L) { return lua_pushinteger(L, check_image(L, 1)->height), 1; }
static int image_channels(lua_State *L) { return lua_pushinteger(L, check_image(L, 1)->channels), 1; }
static int image_bits(lua_State *L) { return lua_pushinteger(L, check_image(L, 1)->bits), 1; }
static int image_pointer(lua_State *L) { return lua_pushlightuserdata(L, check_image(L, 1)->pixels), 1; }

static size_t image_size(const unic_image *image) {
  return (size_t)image->width * (size_t)image->height * (size_t)image->channels * (size_t)(image->bits / 8);
}

static int image_bytes(lua_State *L) {
  const unic_image *image = check_image(L, 1);
  lua_pushlstring(L, image->pixels, image_size(image));
  return 1;
}

/* tensor(device): u8, or i32 for 16 bits; [H, W] grey, [3, H, W] colour. */
static int image_tensor(lua_State *L) {
  const unic_image *image = check_image(L, 1);
  unic_device *device;
  UNIC_DOOR(L, unic_door_device(L, 2, &device));
  const int64_t shape[3] = {3, image->height, image->width}, count = shape[1] * shape[2];
  const int channels = image->channels;
  unic_tensor *t, *moved;
  unic_status status = unic_tensor_new(unic_device_cpu(), image->bits == 8 ? UNIC_U8 : UNIC_I32, channels == 3 ? 3 : 2,
                                       channels == 3 ? shape : shape + 1, UNIC_CONTIGUOUS, 0, &t);
  if (status != UNIC_OK) return unic_files_raise(L, status, "image");
  for (int c = 0; c < channels; c++) {
    if (image->bits == 8) {
      const uint8_t *from = (const uint8_t *)image->pixels + c;
      uint8_t *to = (uint8_t *)unic_tensor_data(t) + c * count;
      for (int64_t i = 0; i < count; i++) to[i] = from[i * channels];
    } else {
      const uint16_t *from = (const uint16_t *)image->pixels + c;
      int32_t *to = (int32_t *)unic_tensor_data(t) + c * count;
      for (int64_t i = 0; i < count; i++) to[i] = from[i * channels];
    }
  }
  if (device != unic_device_cpu()) {
    status = unic_tensor_to_device(t, device, &moved);
    unic_tensor_unref(t);
    if (status != UNIC_OK) return unic_files_raise(L, status, "image");
    t = moved;
  }
  unic_handle_push(L, t);
  return 1;
}

static int image_free(lua_State *L) {
  unic_image_free(luaL_checkudata(L, 1, IMAGE));
  return 0;
}

static int image_tostring(lua_State *L) {
  const unic_image *image = luaL_checkudata(L, 1, IMAGE);
  lua_pushfstring(L, "image %dx%d, %s, %d bits", (int)image->width, (int)image->height, image->channels == 3 ? "RGB" : "grey", (int)image->bits);
  return 1;
}

/* A picture of a u8 tensor (8 bits) or an i32 tensor of 0..65535 (16 bits), [H, W], [1, H, W] or [3, H, W]. */
static unic_status image_of_tensor(unic_image *image, unic_tensor *t, const char *path) {
  char text[256];
  memset(image, 0, sizeof *image);
  if ((t->dtype != UNIC_U8 && t->dtype != UNIC_I32) || t->ndim < 2 || t->ndim > 3 || (t->ndim == 3 && t->shape[0] != 1 && t->shape[0] != 3)) {
    return unic_fail("argument 'data': %s was given, expected u8 (8 bits) or i32 (16 bits) of shape [H, W], [1, H, W] or [3, H, W]",
                     unic_tensor_describe(t, text, sizeof text));
  }
  const int channels = t->ndim == 3 && t->shape[0] == 3 ? 3 : 1;
  const int64_t height = t->shape[t->ndim - 2], width = t->shape[t->ndim - 1], count = height * width;
  unic_tensor *host;
  UNIC_TRY(unic_files_host(t, &host));
  unic_status status = unic_image_allocate(image, path, "PNG", width, height, channels, t->dtype == UNIC_U8 ? 8 : 16);
  for (int c = 0; c < channels && status == UNIC_OK; c++) {
    if (t->dtype == UNIC_U8) {
      const uint8_t *from = (const uint8_t *)unic_tensor_data(host) + c * count;
      uint8_t *to = (uint8_t *)image->pixels + c;
      for (int64_t i = 0; i < count; i++) to[i * channels] = from[i];
      continue;
    }
    const int32_t *from = (const int32_t *)unic_tensor_data(host) + c * count;
    uint16_t *to = (uint16_t *)image->pixels + c;
    for (int64_t i = 0; i < count; i++) {
      if (from[i] < 0 || from[i] > 65535) {
        status = unic_fail("argument 'data': holds the value %d, expected 0 to 65535", (int)from[i]);
        break;
      }
      to[i * channels] = (uint16_t)from[i];
    }
  }
  unic_tensor_unref(host);
  if (status != UNIC_OK) unic_image_free(image);
  return status;
}

/* write_png(path, pixels, width, height, channels, bits): pixels is a picture or a tensor (the rest is its own), a string, or a light
 * userdata. */
static int write_png(lua_State *L) {
  const char *path = luaL_checkstring(L, 1);
  unic_image image;
  if (unic_handle_at(L, 2)) {
    unic_status made = image_of_tensor(&image, unic_handle_tensor(L, 2, "write_png", "data"), path);
    if (made == UNIC_OK) made = unic_png_write(&image, path);
    unic_image_free(&image);
    if (made != UNIC_OK) return unic_files_raise(L, made, "write_png");
    return 0;
  }
  if (lua_type(L, 2) == LUA_TUSERDATA) {
    image = *check_image(L, 2);
  } else {
    image = (unic_image){.width = luaL_checkint(L, 3), .height = luaL_checkint(L, 4), .channels = luaL_checkint(L, 5), .bits = luaL_checkint(L, 6)};
    if (lua_islightuserdata(L, 2)) {
      image.pixels = lua_touserdata(L, 2);
    } else {
      size_t bytes;
      image.pixels = (void *)(uintptr_t)luaL_checklstring(L, 2, &bytes); /* only read from */
      if (image.width > 0 && image.height > 0 && bytes != image_size(&image)) {
        unic_fail("argument 'data': a string of %lld bytes, expected %lld for %d x %d pixels, %d channels, %d bits", (long long)bytes,
                  (long long)image_size(&image), (int)image.width, (int)image.height, (int)image.channels, (int)image.bits);
        return unic_files_raise(L, UNIC_ERROR, "write_png");
      }
    }
  }
  unic_status status = unic_png_write(&image, path);
  if (status != UNIC_OK) return unic_files_raise(L, status, "write_png");
  return 0;
}

/* ---- tables ---- */

static unic_table *check_table(lua_State *L, int arg) {
  unic_table *table = *(unic_table **)luaL_checkudata(L, arg, TABLE);
  if (!table) fail_freed(L, "csv");
  return table;
}

/* read_csv(path, text or nil, names or nil, required or nil): names of columns to keep (nil: all) and, beside them, whether each must be
 * there. With text, path only names it in sentences. */
static int read_csv(lua_State *L) {
  const char *path = luaL_checkstring(L, 1);
  size_t bytes = 0;
  const char *text = lua_isnoneornil(L, 2) ? NULL : luaL_checklstring(L, 2, &bytes);
  unic_table_column *columns = NULL;
  int count = 0;
  lua_settop(L, 4);
  if (!lua_isnil(L, 3)) {
    count = (int)lua_objlen(L, 3);
    columns = lua_newuserdata(L, (size_t)(count + 1) * sizeof *columns);
    for (int i = 0; i < count; i++) {
      lua_rawgeti(L, 3, i + 1);
      lua_rawgeti(L, 4, i + 1);
      columns[i] = (unic_table_column){.name = luaL_checkstring(L, -2), .required = lua_toboolean(L, -1)};
      lua_pop(L, 2); /* the list still holds the string */
    }
  }
  unic_table **table = unic_files_object(L, TABLE, sizeof *table);
  unic_status status = text ? unic_table_parse(table, path, text, (int64_t)bytes, columns, count) : unic_table_read(table, path, columns, count);
  if (status != UNIC_OK) return unic_files_raise(L, status, "read_csv");
  return 1;
}

static int table_free(lua_State *L) {
  unic_table **table = luaL_checkudata(L, 1, TABLE);
  unic_table_free(*table);
  *table = NULL;
  return 0;
}

static int table_rows(lua_State *L) { return unic_files_push_int64(L, unic_table_rows(check_table(L, 1))), 1; }
static int table_ignored(lua_State *L) { return lua_pushinteger(L, unic_table_ignored(check_table(L, 1))), 1; }
static int table_path(lua_State *L) { return lua_pushstring(L, unic_table_path(check_table(L, 1))), 1; }

static int table_columns(lua_State *L) {
  const unic_table *table = check_table(L, 1);
  int n = unic_table_columns(table);
  lua_createtable(L, n, 0);
  for (int i = 0; i < n; i++) {
    lua_pushstring(L, unic_table_name(table, i));
    lua_rawseti(L, -2, i + 1);
  }
  return 1;
}

static int64_t check_row(lua_State *L, const unic_table *table) {
  if (lua_type(L, 2) != LUA_TNUMBER) {
    unic_fail("argument 'row': %s, expected a whole number from 1 to %lld", unic_door_kind(L, 2), (long long)unic_table_rows(table));
    unic_files_raise(L, UNIC_ERROR, "csv");
  }
  lua_Number row = lua_tonumber(L, 2);
  if (!(row >= 1 && row <= (lua_Number)unic_table_rows(table)) || row != (lua_Number)(int64_t)row) {
    unic_fail("argument 'row': %.17g, expected a whole number from 1 to %lld", row, (long long)unic_table_rows(table));
    unic_files_raise(L, UNIC_ERROR, "csv");
  }
  return (int64_t)row - 1;
}

/* find(name): the position of a column, from 1; nil: there is none. */
static int table_find(lua_State *L) {
  int column = unic_table_find(check_table(L, 1), luaL_checkstring(L, 2));
  if (column < 0) return 0;
  lua_pushinteger(L, column + 1);
  return 1;
}

/* cell(row, column): both from 1. */
static int table_cell(lua_State *L) {
  const unic_table *table = check_table(L, 1);
  int64_t row = check_row(L, table);
  int column = luaL_checkint(L, 3) - 1;
  luaL_argcheck(L, column >= 0 && column < unic_table_columns(table), 3, "no such column");
  lua_pushstring(L, unic_table_get(table, row, column));
  return 1;
}

static int table_row_number(lua_State *L) {
  const unic_table *table = check_table(L, 1);
  return unic_files_push_int64(L, unic_table_row_number(table, check_row(L, table))), 1;
}

static int table_error_count(lua_State *L) { return unic_files_push_int64(L, unic_table_errors(check_table(L, 1))), 1; }

/* error(i): row number and sentence of the i-th bad row. */
static int table_error(lua_State *L) {
  const unic_table *table = check_table(L, 1);
  lua_Number i = luaL_checknumber(L, 2);
  luaL_argcheck(L, i >= 1 && i <= (lua_Number)unic_table_errors(table), 2, "no such error");
  char sentence[512];
  unic_files_push_int64(L, unic_table_error(table, (int64_t)i - 1, sentence, sizeof sentence));
  lua_pushstring(L, sentence);
  return 2;
}

/* ---- atomic output ---- */

static int output_open(lua_State *L) {
  const char *path = luaL_checkstring(L, 1);
  unic_output *output = unic_files_object(L, OUTPUT, sizeof *output);
  unic_status status = unic_output_open(output, path);
  if (status != UNIC_OK) return unic_files_raise(L, status, "output");
  return 1;
}

/* output:write(string, ...) */
static int output_write(lua_State *L) {
  unic_output *output = luaL_checkudata(L, 1, OUTPUT);
  for (int i = 2; i <= lua_gettop(L); i++) {
    size_t bytes;
    const char *data = luaL_checklstring(L, i, &bytes);
    unic_status status = unic_output_write(output, data, (int64_t)bytes);
  if (status != UNIC_OK) return unic_files_raise(L, status, "output");
  }
  lua_settop(L, 1);
  return 1;
}

static int output_commit(lua_State *L) {
  unic_status status = unic_output_commit(luaL_checkudata(L, 1, OUTPUT), lua_toboolean(L, 2));
  if (status != UNIC_OK) return unic_files_raise(L, status, "output");
  return 0;
}

static int output_abandon(lua_State *L) {
  unic_output_abandon(luaL_checkudata(L, 1, OUTPUT));
  return 0;
}

/* is_utf8(string): true, or false and the position (from 1) of the first byte that is wrong. */
static int is_utf8(lua_State *L) {
  size_t bytes;
  const char *text = luaL_checklstring(L, 1, &bytes);
  int64_t bad = unic_utf8_check(text, (int64_t)bytes);
  lua_pushboolean(L, bad < 0);
  if (bad < 0) return 1;
  unic_files_push_int64(L, bad + 1);
  return 2;
}

/* ---- opening ---- */

void unic_files_type(lua_State *L, const char *type, const luaL_Reg *methods, lua_CFunction collect) {
  luaL_newmetatable(L, type);
  lua_newtable(L);
  luaL_register(L, NULL, methods);
  lua_setfield(L, -2, "__index");
  lua_pushcfunction(L, collect);
  lua_setfield(L, -2, "__gc");
  lua_pushstring(L, type);
  lua_setfield(L, -2, "__name");
  lua_pop(L, 1);
}

int unic_lua_open_files(lua_State *L) {
  static const luaL_Reg image_methods[] = {
    {"width", image_width}, {"height", image_height}, {"channels", image_channels}, {"bits", image_bits},
    {"pointer", image_pointer}, {"bytes", image_bytes}, {"tensor", image_tensor}, {"free", image_free}, {NULL, NULL}};
  static const luaL_Reg table_methods[] = {
    {"rows", table_rows}, {"columns", table_columns}, {"ignored", table_ignored}, {"path", table_path}, {"find", table_find},
    {"cell", table_cell}, {"row_number", table_row_number}, {"error_count", table_error_count}, {"error", table_error},
    {"free", table_free}, {NULL, NULL}};
  static const luaL_Reg output_methods[] = {
    {"write", output_write}, {"commit", output_commit}, {"abandon", output_abandon}, {NULL, NULL}};
  static const luaL_Reg functions[] = {
    {"read_image", read_image}, {"decode_image", decode_image}, {"write_png", write_png}, {"read_csv", read_csv},
    {"output", output_open}, {"is_utf8", is_utf8}, {NULL, NULL}};
  unic_files_type(L, IMAGE, image_methods, image_free);
  luaL_getmetatable(L, IMAGE);
  lua_pushcfunction(L, image_tostring);
  lua_setfield(L, -2, "__tostring");
  lua_pop(L, 1);
  unic_files_type(L, TABLE, table_methods, table_free);
  unic_files_type(L, OUTPUT, output_methods, output_abandon);
  lua_newtable(L);
  luaL_register(L, NULL, functions);
  unic_lua_add_safetensors(L);
  unic_lua_add_weights(L);
  return 1;
}
