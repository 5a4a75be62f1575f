/* The Lua door of runtime/files: pictures, tables, safetensors, atomic output. lua/unic/files.lua is its public face, with the documentation.
 *
 * Userdata "unic.image" holds a unic_image, "unic.table" a unic_table *, "unic.safetensors" a unic_safetensors *, "unic.output" a
 * unic_output. Each is made, empty, before the C call that fills it: an error raised in between then leaks nothing. */
#include <lauxlib.h>
#include <lua.h>
#include <string.h>

#include "files/file.h"
#include "files/image_file.h"
#include "files/png.h"
#include "files/safetensors.h"
#include "files/table.h"
#include "files/utf8.h"

int unic_lua_open_files(lua_State *L);

static const char IMAGE[] = "unic.image", TABLE[] = "unic.table", SAFETENSORS[] = "unic.safetensors", OUTPUT[] = "unic.output";

/* Raise the stored sentence behind "[op] ". */
static int raise(lua_State *L, const char *op) {
  lua_pushfstring(L, "[%s] %s", op, unic_message());
  return lua_error(L);
}

static void *new_object(lua_State *L, const char *type, size_t bytes) {
  void *object = lua_newuserdata(L, bytes);
  memset(object, 0, bytes);
  luaL_getmetatable(L, type);
  lua_setmetatable(L, -2);
  return object;
}

static void push_int64(lua_State *L, int64_t n) { lua_pushnumber(L, (lua_Number)n); }

/* ---- pictures ---- */

static unic_image *check_image(lua_State *L, int arg) {
  unic_image *image = luaL_checkudata(L, arg, IMAGE);
  if (!image->pixels) luaL_error(L, "[image] this picture was freed");
  return image;
}

/* read_image(path, grey) */
static int read_image(lua_State *L) {
  const char *path = luaL_checkstring(L, 1);
  unic_image *image = new_object(L, IMAGE, sizeof *image);
  if (unic_image_read(image, path, lua_toboolean(L, 2)) != UNIC_OK) return raise(L, "read_image");
  return 1;
}

/* decode_image(data, name, grey) */
static int decode_image(lua_State *L) {
  size_t bytes;
  const char *data = luaL_checklstring(L, 1, &bytes);
  const char *name = luaL_checkstring(L, 2);
  unic_image *image = new_object(L, IMAGE, sizeof *image);
  if (unic_image_decode(image, name, data, (int64_t)bytes, lua_toboolean(L, 3)) != UNIC_OK) return raise(L, "decode_image");
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

static int image_free(lua_State *L) {
  unic_image_free(luaL_checkudata(L, 1, IMAGE));
  return 0;
}

static int image_tostring(lua_State *L) {
  const unic_image *image = luaL_checkudata(L, 1, IMAGE);
  lua_pushfstring(L, "image %dx%d, %s, %d bits", (int)image->width, (int)image->height, image->channels == 3 ? "RGB" : "grey", (int)image->bits);
  return 1;
}

/* write_png(path, pixels, width, height, channels, bits): pixels is a picture (the rest is its own), a string, or a light userdata. */
static int write_png(lua_State *L) {
  const char *path = luaL_checkstring(L, 1);
  unic_image image;
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
        return raise(L, "write_png");
      }
    }
  }
  if (unic_png_write(&image, path) != UNIC_OK) return raise(L, "write_png");
  return 0;
}

/* ---- tables ---- */

static unic_table *check_table(lua_State *L, int arg) {
  unic_table *table = *(unic_table **)luaL_checkudata(L, arg, TABLE);
  if (!table) luaL_error(L, "[csv] this table was freed");
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
  unic_table **table = new_object(L, TABLE, sizeof *table);
  unic_status status = text ? unic_table_parse(table, path, text, (int64_t)bytes, columns, count) : unic_table_read(table, path, columns, count);
  if (status != UNIC_OK) return raise(L, "read_csv");
  return 1;
}

static int table_free(lua_State *L) {
  unic_table **table = luaL_checkudata(L, 1, TABLE);
  unic_table_free(*table);
  *table = NULL;
  return 0;
}

static int table_rows(lua_State *L) { return push_int64(L, unic_table_rows(check_table(L, 1))), 1; }
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
  lua_Number row = luaL_checknumber(L, 2);
  if (!(row >= 1 && row <= (lua_Number)unic_table_rows(table)) || row != (lua_Number)(int64_t)row) {
    unic_fail("argument 'row': %.17g, expected a whole number from 1 to %lld", row, (long long)unic_table_rows(table));
    raise(L, "csv");
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
  return push_int64(L, unic_table_row_number(table, check_row(L, table))), 1;
}

static int table_error_count(lua_State *L) { return push_int64(L, unic_table_errors(check_table(L, 1))), 1; }

/* error(i): row number and sentence of the i-th bad row. */
static int table_error(lua_State *L) {
  const unic_table *table = check_table(L, 1);
  lua_Number i = luaL_checknumber(L, 2);
  luaL_argcheck(L, i >= 1 && i <= (lua_Number)unic_table_errors(table), 2, "no such error");
  char sentence[512];
  push_int64(L, unic_table_error(table, (int64_t)i - 1, sentence, sizeof sentence));
  lua_pushstring(L, sentence);
  return 2;
}

/* ---- safetensors ---- */

static unic_safetensors *check_safetensors(lua_State *L, int arg) {
  unic_safetensors *file = *(unic_safetensors **)luaL_checkudata(L, arg, SAFETENSORS);
  if (!file) luaL_error(L, "[safetensors] this file was closed");
  return file;
}

static int safetensors_open(lua_State *L) {
  const char *path = luaL_checkstring(L, 1);
  unic_safetensors **file = new_object(L, SAFETENSORS, sizeof *file);
  if (unic_safetensors_open(file, path) != UNIC_OK) return raise(L, "safetensors_open");
  return 1;
}

static int safetensors_close(lua_State *L) {
  unic_safetensors **file = luaL_checkudata(L, 1, SAFETENSORS);
  unic_safetensors_close(*file);
  *file = NULL;
  return 0;
}

static int safetensors_path(lua_State *L) { return lua_pushstring(L, unic_safetensors_path(check_safetensors(L, 1))), 1; }

static int safetensors_names(lua_State *L) {
  const unic_safetensors *file = check_safetensors(L, 1);
  int64_t n = unic_safetensors_count(file);
  lua_createtable(L, (int)n, 0);
  for (int64_t i = 0; i < n; i++) {
    lua_pushstring(L, unic_safetensors_at(file, i)->name);
    lua_rawseti(L, -2, (int)i + 1);
  }
  return 1;
}

static int safetensors_metadata(lua_State *L) {
  const unic_safetensors *file = check_safetensors(L, 1);
  lua_newtable(L);
  for (int64_t i = 0; i < unic_safetensors_pairs(file); i++) {
    const unic_safetensors_pair *pair = unic_safetensors_pair_at(file, i);
    lua_pushstring(L, pair->value);
    lua_setfield(L, -2, pair->key);
  }
  return 1;
}

static const unic_safetensors_entry *find_entry(lua_State *L) {
  return unic_safetensors_find(check_safetensors(L, 1), luaL_checkstring(L, 2));
}

/* entry(name): dtype, shape, bytes, pointer; nothing if there is no such tensor. */
static int safetensors_entry(lua_State *L) {
  const unic_safetensors_entry *e = find_entry(L);
  if (!e) return 0;
  lua_pushstring(L, e->dtype);
  lua_createtable(L, e->ndim, 0);
  for (int d = 0; d < e->ndim; d++) {
    push_int64(L, e->shape[d]);
    lua_rawseti(L, -2, d + 1);
  }
  push_int64(L, e->bytes);
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

/* A string field of the table at `index`, which keeps it alive. */
static const char *check_field(lua_State *L, int index, const char *field, size_t *bytes) {
  lua_getfield(L, index, field);
  if (lua_type(L, -1) != LUA_TSTRING) luaL_error(L, "[safetensors_save] a tensor's field '%s' is not a string", field);
  const char *string = lua_tolstring(L, -1, bytes);
  lua_pop(L, 1);
  return string;
}

/* safetensors_save(path, list, metadata): list of {name =, dtype =, shape = {..}, data = string}; metadata: list of key, value, key, ... */
static int safetensors_save(lua_State *L) {
  const char *path = luaL_checkstring(L, 1);
  luaL_checktype(L, 2, LUA_TTABLE);
  luaL_checktype(L, 3, LUA_TTABLE);
  int count = (int)lua_objlen(L, 2), pair_count = (int)lua_objlen(L, 3) / 2;
  unic_safetensors_entry *entries = lua_newuserdata(L, (size_t)(count + 1) * sizeof *entries);
  unic_safetensors_pair *pairs = lua_newuserdata(L, (size_t)(pair_count + 1) * sizeof *pairs);
  for (int i = 0; i < count; i++) {
    unic_safetensors_entry *e = &entries[i];
    memset(e, 0, sizeof *e);
    lua_rawgeti(L, 2, i + 1);
    int index = lua_gettop(L);
    size_t bytes;
    e->name = check_field(L, index, "name", &bytes);
    e->dtype = check_field(L, index, "dtype", &bytes);
    e->data = check_field(L, index, "data", &bytes);
    e->bytes = (int64_t)bytes;
    lua_getfield(L, index, "shape");
    size_t ndim = lua_objlen(L, -1);
    e->ndim = ndim > UNIC_SAFETENSORS_RANK ? UNIC_SAFETENSORS_RANK + 1 : (int)ndim; /* too many: refused by name below */
    for (int d = 0; d < e->ndim && d < UNIC_SAFETENSORS_RANK; d++) {
      lua_rawgeti(L, -1, d + 1);
      e->shape[d] = (int64_t)lua_tonumber(L, -1);
      lua_pop(L, 1);
    }
    lua_pop(L, 2);
  }
  for (int i = 0; i < pair_count; i++) {
    lua_rawgeti(L, 3, 2 * i + 1);
    lua_rawgeti(L, 3, 2 * i + 2);
    pairs[i] = (unic_safetensors_pair){luaL_checkstring(L, -2), luaL_checkstring(L, -1)};
    lua_pop(L, 2);
  }
  if (unic_safetensors_write(path, entries, count, pairs, pair_count) != UNIC_OK) return raise(L, "safetensors_save");
  return 0;
}

/* ---- atomic output ---- */

static int output_open(lua_State *L) {
  const char *path = luaL_checkstring(L, 1);
  unic_output *output = new_object(L, OUTPUT, sizeof *output);
  if (unic_output_open(output, path) != UNIC_OK) return raise(L, "output");
  return 1;
}

/* output:write(string, ...) */
static int output_write(lua_State *L) {
  unic_output *output = luaL_checkudata(L, 1, OUTPUT);
  for (int i = 2; i <= lua_gettop(L); i++) {
    size_t bytes;
    const char *data = luaL_checklstring(L, i, &bytes);
    if (unic_output_write(output, data, (int64_t)bytes) != UNIC_OK) return raise(L, "output");
  }
  lua_settop(L, 1);
  return 1;
}

static int output_commit(lua_State *L) {
  if (unic_output_commit(luaL_checkudata(L, 1, OUTPUT), lua_toboolean(L, 2)) != UNIC_OK) return raise(L, "output");
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
  push_int64(L, bad + 1);
  return 2;
}

/* ---- opening ---- */

static void make_type(lua_State *L, const char *type, const luaL_Reg *methods, lua_CFunction collect) {
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
    {"pointer", image_pointer}, {"bytes", image_bytes}, {"free", image_free}, {NULL, NULL}};
  static const luaL_Reg table_methods[] = {
    {"rows", table_rows}, {"columns", table_columns}, {"ignored", table_ignored}, {"path", table_path}, {"find", table_find},
    {"cell", table_cell}, {"row_number", table_row_number}, {"error_count", table_error_count}, {"error", table_error},
    {"free", table_free}, {NULL, NULL}};
  static const luaL_Reg safetensors_methods[] = {
    {"path", safetensors_path}, {"names", safetensors_names}, {"metadata", safetensors_metadata}, {"entry", safetensors_entry},
    {"data", safetensors_data}, {"close", safetensors_close}, {NULL, NULL}};
  static const luaL_Reg output_methods[] = {
    {"write", output_write}, {"commit", output_commit}, {"abandon", output_abandon}, {NULL, NULL}};
  static const luaL_Reg functions[] = {
    {"read_image", read_image}, {"decode_image", decode_image}, {"write_png", write_png}, {"read_csv", read_csv},
    {"safetensors_open", safetensors_open}, {"safetensors_save", safetensors_save}, {"output", output_open}, {"is_utf8", is_utf8},
    {NULL, NULL}};
  make_type(L, IMAGE, image_methods, image_free);
  luaL_getmetatable(L, IMAGE);
  lua_pushcfunction(L, image_tostring);
  lua_setfield(L, -2, "__tostring");
  lua_pop(L, 1);
  make_type(L, TABLE, table_methods, table_free);
  make_type(L, SAFETENSORS, safetensors_methods, safetensors_close);
  make_type(L, OUTPUT, output_methods, output_abandon);
  lua_newtable(L);
  luaL_register(L, NULL, functions);
  return 1;
}
