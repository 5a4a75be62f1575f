/* The Lua door of runtime/data: data sets, steps, pipelines. lua/unic/data.lua is its public face, with the documentation.
 *
 * Userdata "unic.dataset" holds a unic_dataset *, "unic.pipeline" a feed *. Items count from 1 here, from 0 below. One long file, because pipelines are
 * described by what the other two are read from: the same checks and sentences. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "data/pipeline.h"
#include "device.h"
#include "dispatch.h"
#include "lua_files.h"
#include "lua_worker.h"

static const char DATASET[] = "unic.dataset", PIPELINE[] = "unic.pipeline";

static int raise_as(lua_State *L, unic_status status, const char *op) {
  return unic_message()[0] == '[' ? unic_door_raise(L, status) : unic_files_raise(L, status, op);
}

/* ---------------------------------------------------------------- tables of arguments */

static lua_Number number_field(lua_State *L, int index, const char *key, lua_Number fallback) {
  lua_getfield(L, index, key);
  lua_Number x = lua_isnil(L, -1) ? fallback : luaL_checknumber(L, -1);
  lua_pop(L, 1);
  return x;
}

static bool flag_field(lua_State *L, int index, const char *key) {
  lua_getfield(L, index, key);
  bool on = lua_toboolean(L, -1);
  lua_pop(L, 1);
  return on;
}

/* The table keeps the string alive. */
static const char *string_field(lua_State *L, int index, const char *key) {
  lua_getfield(L, index, key);
  const char *text = lua_isnil(L, -1) ? NULL : luaL_checkstring(L, -1);
  lua_pop(L, 1);
  return text;
}

/* ---------------------------------------------------------------- data sets */

static unic_dataset *check_set(lua_State *L, int arg) { return *(unic_dataset **)luaL_checkudata(L, arg, DATASET); }

/* dataset{source, root, size, crop, stretch, channels, cache_bytes, min_words, report_required, strict, language, split, has_split_column, validation,
 * test} */
static int dataset_new(lua_State *L) {
  luaL_checktype(L, 1, LUA_TTABLE);
  const char *source = string_field(L, 1, "source");
  unic_dataset_options how = {
    .source = strcmp(source, "drawn") == 0 ? UNIC_SOURCE_DRAWN : strcmp(source, "calls") == 0 ? UNIC_SOURCE_CALLS : strcmp(source, "none") == 0 ? UNIC_SOURCE_NONE : UNIC_SOURCE_FILES,
    .root = string_field(L, 1, "root"),
    .prepare = {.size = (int32_t)number_field(L, 1, "size", 0), .crop = flag_field(L, 1, "crop"), .stretch = flag_field(L, 1, "stretch")},
    .channels = (int32_t)number_field(L, 1, "channels", 1),
    .cache_bytes = (int64_t)number_field(L, 1, "cache_bytes", 0),
    .min_words = (int64_t)number_field(L, 1, "min_words", 0),
    .report_required = flag_field(L, 1, "report_required"),
    .strict = flag_field(L, 1, "strict"),
    .language = string_field(L, 1, "language"),
    .split = string_field(L, 1, "split"),
    .has_split_column = flag_field(L, 1, "has_split_column"),
    .validation = number_field(L, 1, "validation", 0),
    .test = number_field(L, 1, "test", 0),
  };
  unic_dataset **set = unic_files_object(L, DATASET, sizeof *set);
  unic_status status = unic_dataset_new(&how, set);
  if (status != UNIC_OK) return raise_as(L, status, "open");
  return 1;
}

static int dataset_free(lua_State *L) {
  unic_dataset **set = luaL_checkudata(L, 1, DATASET);
  unic_dataset_release(*set);
  *set = NULL;
  return 0;
}

/* set:add(image, report, language, patient, labels, sentences, split, number) -> did it become an item */
static int dataset_add(lua_State *L) {
  unic_dataset *set = check_set(L, 1);
  const char *cells[UNIC_COLUMNS];
  for (int c = 0; c < UNIC_COLUMNS; c++) cells[c] = lua_isnoneornil(L, 2 + c) ? NULL : luaL_checkstring(L, 2 + c);
  bool added;
  unic_status status = unic_dataset_add(set, cells, (int64_t)luaL_checknumber(L, 2 + UNIC_COLUMNS), true, &added);
  if (status != UNIC_OK) return raise_as(L, status, "open");
  lua_pushboolean(L, added);
  return 1;
}

/* set:add_table(table, {positions of the columns, from 1, false: none}): takes the table over */
static int dataset_add_table(lua_State *L) {
  unic_dataset *set = check_set(L, 1);
  unic_table **table = luaL_checkudata(L, 2, "unic.table");
  luaL_checktype(L, 3, LUA_TTABLE);
  int positions[UNIC_COLUMNS];
  for (int c = 0; c < UNIC_COLUMNS; c++) {
    lua_rawgeti(L, 3, c + 1);
    positions[c] = lua_isnumber(L, -1) ? (int)lua_tointeger(L, -1) - 1 : -1;
    lua_pop(L, 1);
  }
  unic_table *taken = *table;
  char path[512];
  snprintf(path, sizeof path, "%s", unic_table_path(taken));
  *table = NULL;
  unic_status status = unic_dataset_add_table(set, taken, positions);
  if (status != UNIC_OK) return raise_as(L, unic_fail_prefix(status, "[open] '%s' ", path), "open");
  return 0;
}

static int dataset_finish(lua_State *L) {
  unic_status status = unic_dataset_finish(check_set(L, 1));
  if (status != UNIC_OK) return raise_as(L, status, "open");
  return 0;
}

static int64_t check_item(lua_State *L, const unic_dataset *set, const char *op) {
  const lua_Number i = lua_type(L, 2) == LUA_TNUMBER ? lua_tonumber(L, 2) : 0;
  const int64_t n = unic_dataset_count(set);
  if (!(i >= 1 && i <= (lua_Number)n) || i != (lua_Number)(int64_t)i) {
    unic_fail("[%s] argument 'i': %s was given, expected an item from 1 to %lld", op, unic_door_kind(L, 2), (long long)n);
    unic_door_raise(L, UNIC_ERROR);
  }
  return (int64_t)i - 1;
}

static int dataset_count(lua_State *L) { return lua_pushnumber(L, (lua_Number)unic_dataset_count(check_set(L, 1))), 1; }
static int dataset_other_splits(lua_State *L) { return lua_pushnumber(L, (lua_Number)unic_dataset_other_splits(check_set(L, 1))), 1; }

static int push_text(lua_State *L, const char *op, unic_column column) {
  const unic_dataset *set = check_set(L, 1);
  lua_pushstring(L, unic_dataset_text(set, check_item(L, set, op), column));
  return 1;
}

static int dataset_image(lua_State *L) { return push_text(L, "image_path", UNIC_COLUMN_IMAGE); }
static int dataset_report(lua_State *L) { return push_text(L, "report", UNIC_COLUMN_REPORT); }
static int dataset_patient(lua_State *L) { return push_text(L, "patient", UNIC_COLUMN_PATIENT); }
static int dataset_labels(lua_State *L) { return push_text(L, "labels", UNIC_COLUMN_LABELS); }

static int dataset_number(lua_State *L) {
  const unic_dataset *set = check_set(L, 1);
  lua_pushnumber(L, (lua_Number)unic_dataset_number(set, check_item(L, set, "row_number")));
  return 1;
}

/* set:language(i) -> code, place in the list of languages (from 0); nil where there is none */
static int dataset_language(lua_State *L) {
  const unic_dataset *set = check_set(L, 1);
  const int language = unic_dataset_language(set, check_item(L, set, "language"));
  if (language < 0) return 0;
  lua_pushstring(L, unic_dataset_language_name(set, language));
  lua_pushinteger(L, language);
  return 2;
}

static int dataset_languages(lua_State *L) {
  const unic_dataset *set = check_set(L, 1);
  lua_newtable(L);
  for (int i = 0; i < unic_dataset_languages(set); i++) {
    lua_pushstring(L, unic_dataset_language_name(set, i));
    lua_rawseti(L, -2, i + 1);
  }
  return 1;
}

static int dataset_sample_text(lua_State *L) {
  const unic_dataset *set = check_set(L, 1);
  const int64_t i = check_item(L, set, "sample_text");
  char *text = lua_newuserdata(L, unic_dataset_sample_room(set, i));
  const size_t bytes = unic_dataset_sample_text(set, i, (uint64_t)luaL_checknumber(L, 3), text);
  lua_pushlstring(L, text, bytes);
  return 1;
}

static int dataset_fault_count(lua_State *L) { return lua_pushnumber(L, (lua_Number)unic_dataset_faults(check_set(L, 1))), 1; }

/* set:fault(k) -> row, path, reason */
static int dataset_fault(lua_State *L) {
  unic_dataset *set = check_set(L, 1);
  const lua_Number k = luaL_checknumber(L, 2);
  luaL_argcheck(L, k >= 1 && k <= (lua_Number)unic_dataset_faults(set), 2, "no such fault");
  const unic_fault f = unic_dataset_fault(set, (int64_t)k - 1);
  lua_pushnumber(L, (lua_Number)f.row);
  lua_pushstring(L, f.path);
  lua_pushstring(L, f.reason);
  return 3;
}

/* set:note(row, path, reason): one more fault */
static int dataset_note(lua_State *L) {
  unic_status status = unic_dataset_note(check_set(L, 1), (int64_t)luaL_checknumber(L, 2), luaL_checkstring(L, 3), luaL_checkstring(L, 4));
  if (status != UNIC_OK) return raise_as(L, status, "open");
  return 0;
}

static int dataset_hash(lua_State *L) {
  char digits[17];
  snprintf(digits, sizeof digits, "%016llx", (unsigned long long)unic_dataset_hash(check_set(L, 1)));
  lua_pushstring(L, digits);
  return 1;
}

/* set:identify(text): one more thing that the hash covers */
static int dataset_identify(lua_State *L) {
  size_t bytes;
  const char *text = luaL_checklstring(L, 2, &bytes);
  unic_dataset_hash_more(check_set(L, 1), text, bytes);
  return 0;
}

/* Pixels of a tensor for unic_image_prepare: u8, or i32 of 0..65535 (as pictures of 16 bits come), [H, W] or [1, H, W]. Made anew: a userdata
 * left on the stack. */
static unic_status gather_pixels(lua_State *L, unic_tensor *t, void **pixels, int *bits, int32_t *height, int32_t *width) {
  char text[256];
  if ((t->dtype != UNIC_U8 && t->dtype != UNIC_I32) || t->ndim < 2 || t->ndim > 3 || (t->ndim == 3 && t->shape[0] != 1) || unic_tensor_numel(t) == 0)
    return unic_fail("a picture is %s, expected u8 or i32 (16 bits) of shape [H, W]", unic_tensor_describe(t, text, sizeof text));
  *height = (int32_t)t->shape[t->ndim - 2];
  *width = (int32_t)t->shape[t->ndim - 1];
  *bits = t->dtype == UNIC_U8 ? 8 : 16;
  const int64_t count = unic_tensor_numel(t);
  *pixels = lua_newuserdata(L, (size_t)count * (size_t)(*bits / 8));
  unic_tensor *host;
  UNIC_TRY(unic_files_host(t, &host));
  unic_status status = UNIC_OK;
  if (*bits == 8) memcpy(*pixels, unic_tensor_data(host), (size_t)count);
  else {
    const int32_t *from = unic_tensor_data(host);
    for (int64_t i = 0; i < count && status == UNIC_OK; i++) {
      if (from[i] < 0 || from[i] > 65535) status = unic_fail("a picture holds the value %d, expected 0 to 65535", (int)from[i]);
      else ((uint16_t *)*pixels)[i] = (uint16_t)from[i];
    }
  }
  unic_tensor_unref(host);
  return status;
}

/* set:put(i, tensor): the picture of item i, from memory */
static int dataset_put(lua_State *L) {
  unic_dataset *set = check_set(L, 1);
  const int64_t i = check_item(L, set, "open");
  void *pixels;
  int bits;
  int32_t height, width;
  unic_status status = gather_pixels(L, unic_handle_tensor(L, 3, "open", "image"), &pixels, &bits, &height, &width);
  if (status == UNIC_OK) status = unic_dataset_put(set, i, pixels, bits, height, width);
  if (status != UNIC_OK) return raise_as(L, unic_fail_prefix(status, "[open] row %lld: ", (long long)unic_dataset_number(set, i)), "open");
  return 0;
}

/* prepare(tensor, size, crop, stretch) -> u8 [size, size] */
static int prepare(lua_State *L) {
  void *pixels;
  int bits;
  int32_t height, width;
  const unic_prepare how = {(int32_t)luaL_checkinteger(L, 2), lua_toboolean(L, 3), lua_toboolean(L, 4)};
  lua_settop(L, 4);
  unic_status status = gather_pixels(L, unic_handle_tensor(L, 1, "prepare", "image"), &pixels, &bits, &height, &width);
  if (status != UNIC_OK) return raise_as(L, status, "prepare");
  const int64_t shape[2] = {how.size, how.size};
  unic_tensor *out;
  UNIC_DOOR(L, unic_tensor_new(unic_device_cpu(), UNIC_U8, 2, shape, UNIC_CONTIGUOUS, 0, &out));
  unic_image_prepare(pixels, bits, height, width, &how, unic_tensor_data(out));
  unic_handle_push(L, out);
  return 1;
}

/* ---------------------------------------------------------------- setups and steps */

static void setup_free(unic_lua_setup *s) {
  free(s->script);
  free(s->path);
  free(s->cpath);
  free(s->tree);
  free(s->plan);
  *s = (unic_lua_setup){0};
}

/* {script, path, cpath, tree, plan} at an index; freed with setup_free. */
static unic_status setup_read(lua_State *L, int index, unic_lua_setup *s) {
  static const char *const keys[] = {"script", "path", "cpath", "tree", "plan"};
  char **const fields[] = {&s->script, &s->path, &s->cpath, &s->tree, &s->plan};
  for (int i = 0; i < 5; i++) {
    const char *text = string_field(L, index, keys[i]);
    *fields[i] = strdup(text ? text : "");
    if (!*fields[i]) return unic_fail_memory("no memory for a worker");
  }
  return UNIC_OK;
}

/* steps() -> a list of {name, help, parameters = {{name, required, whole, fallback, low, high}, ...}}; the place in the list is the kind + 1 */
static int step_list(lua_State *L) {
  lua_newtable(L);
  for (int k = 0; k < UNIC_STEP_KINDS; k++) {
    const unic_step_form *form = &unic_step_forms[k];
    lua_newtable(L);
    lua_pushstring(L, form->name);
    lua_setfield(L, -2, "name");
    lua_pushstring(L, form->help);
    lua_setfield(L, -2, "help");
    lua_newtable(L);
    for (int p = 0; p < UNIC_STEP_PARAMETERS && form->parameters[p].name; p++) {
      const unic_step_parameter *q = &form->parameters[p];
      lua_newtable(L);
      lua_pushstring(L, q->name);
      lua_setfield(L, -2, "name");
      lua_pushboolean(L, q->required);
      lua_setfield(L, -2, "required");
      lua_pushnumber(L, q->fallback);
      lua_setfield(L, -2, "fallback");
      lua_rawseti(L, -2, p + 1);
    }
    lua_setfield(L, -2, "parameters");
    lua_rawseti(L, -2, k + 1);
  }
  return 1;
}

/* A view at the top of the stack: {name = , {kind, user or values...}, ...}. */
static unic_status read_view(lua_State *L, unic_augment *view, int32_t channels, int32_t height, int32_t width, int32_t replicate) {
  const int top = lua_gettop(L), count = (int)lua_objlen(L, top);
  const char *name = string_field(L, top, "name");
  if (count > UNIC_STEPS) return unic_fail("view '%s': %d steps, at most %d are possible", name, count, UNIC_STEPS);
  view->count = count;
  for (int i = 0; i < count; i++) {
    lua_rawgeti(L, top, i + 1);
    unic_step *s = &view->steps[i];
    lua_rawgeti(L, -1, 1);
    s->kind = (unic_step_kind)(lua_tointeger(L, -1) - 1);
    lua_pop(L, 1);
    for (int p = 0; p < UNIC_STEP_PARAMETERS; p++) {
      lua_rawgeti(L, -1, p + 2);
      s->values[p] = lua_tonumber(L, -1);
      lua_pop(L, 1);
    }
    if (s->kind == UNIC_STEP_LUA) s->user = (int)s->values[0] - 1;
    lua_pop(L, 1);
  }
  return unic_augment_check(view, name, channels, height, width, replicate);
}

/* apply(view, tensor u8 or f32 [C, H, W], seed, epoch, item, setup or nil) -> f32 [C, H, W] */
static int apply(lua_State *L) {
  unic_tensor *t = unic_handle_tensor(L, 2, "apply", "image"), *host = NULL, *out = NULL;
  unic_augment view = {0};
  lua_settop(L, 6);
  lua_pushvalue(L, 1);
  unic_status status = read_view(L, &view, (int32_t)t->shape[0], (int32_t)t->shape[1], (int32_t)t->shape[2], 0);
  if (status != UNIC_OK) return raise_as(L, status, "apply");
  unic_lua_setup setup = {0};
  unic_lua_worker *w = NULL;
  const bool lua = lua_istable(L, 6);
  float *scratch = lua_newuserdata(L, 2 * (size_t)view.room * sizeof *scratch);
  if (lua) status = setup_read(L, 6, &setup);
  if (status == UNIC_OK && lua) status = unic_lua_worker_open(&setup, L, &w);
  setup_free(&setup);
  if (status == UNIC_OK) status = unic_files_host(t, &host);
  const int64_t shape[3] = {view.out_channels, view.out_height, view.out_width};
  if (status == UNIC_OK) status = unic_tensor_new(unic_device_cpu(), UNIC_F32, 3, shape, UNIC_CONTIGUOUS, 0, &out);
  if (status == UNIC_OK) {
    const void *data = unic_tensor_data(host);
    status = unic_augment_run(&view, t->dtype == UNIC_U8 ? data : NULL, t->dtype == UNIC_U8 ? NULL : data, (uint64_t)lua_tonumber(L, 3),
                           (uint64_t)lua_tonumber(L, 4), (uint64_t)lua_tonumber(L, 5), scratch, unic_tensor_data(out), unic_lua_worker_step, w);
  }
  unic_tensor_unref(host);
  unic_lua_worker_close(w);
  if (status != UNIC_OK) {
    unic_tensor_unref(out);
    return raise_as(L, status, "apply");
  }
  unic_handle_push(L, out);
  return 1;
}

/* set:picture(i, setup or nil) -> u8 [size, size], or nil and the reason when the picture cannot be used */
static int dataset_picture(lua_State *L) {
  unic_dataset *set = check_set(L, 1);
  const int64_t i = check_item(L, set, "image"), size = unic_dataset_how(set)->prepare.size, shape[2] = {size, size};
  unic_lua_setup setup = {0};
  unic_lua_worker *w = NULL;
  unic_tensor *out;
  lua_settop(L, 3);
  UNIC_DOOR(L, unic_tensor_new(unic_device_cpu(), UNIC_U8, 2, shape, UNIC_CONTIGUOUS, 0, &out));
  unic_handle_push(L, out);
  unic_status status = UNIC_OK;
  if (lua_istable(L, 3)) status = setup_read(L, 3, &setup);
  if (status == UNIC_OK && lua_istable(L, 3)) status = unic_lua_worker_open(&setup, L, &w);
  setup_free(&setup);
  const uint8_t *pixels;
  bool bad = false;
  if (status == UNIC_OK) status = unic_dataset_picture(set, i, unic_tensor_data(out), unic_lua_worker_draw, w, &pixels, &bad);
  unic_lua_worker_close(w);
  if (status != UNIC_OK) return raise_as(L, status, "image");
  if (bad) return 0;
  if (pixels != unic_tensor_data(out)) memcpy(unic_tensor_data(out), pixels, (size_t)(size * size));
  return 1;
}

/* ---------------------------------------------------------------- pipelines */

/* A pipeline and what its calls need. The userdata's environment holds the Lua functions and the data set. Shared with threads, so it is
 * freed only when all of them have come back. */
typedef struct feed {
  unic_pipeline *pipeline;
  lua_State *L;               /* of the call that runs; the feed's userdata is at index 1 */
  unic_lua_setup setup;
  bool inline_worker;         /* workers = 0: its functions live in the owner's state */
  unic_lua_worker *worker;
  int view_count;
  char names[UNIC_VIEWS][64];
} feed;

static feed *check_feed(lua_State *L) {
  feed *f = *(feed **)luaL_checkudata(L, 1, PIPELINE);
  if (!f) {
    unic_fail("[batches] the iterator was closed");
    unic_door_raise(L, UNIC_ERROR);
  }
  return f;
}

static unic_status feed_open(void *context, void **worker) {
  feed *f = context;
  unic_lua_worker *w;
  UNIC_TRY(unic_lua_worker_open(&f->setup, f->inline_worker ? f->L : NULL, &w));
  if (f->inline_worker) f->worker = w;
  *worker = w;
  return UNIC_OK;
}

static void feed_close(void *context, void *worker) {
  feed *f = context;
  if (f->inline_worker) f->worker = NULL;
  unic_lua_worker_close(worker);
}

static void feed_stop(void *worker) { unic_lua_worker_stop(worker); }

/* Call a function of the feed's environment with an item (from 1) and an epoch; one result stays on the stack. */
static unic_status call_owner(feed *f, const char *name, int64_t item, uint64_t epoch) {
  lua_State *L = f->L;
  lua_getfenv(L, 1);
  lua_getfield(L, -1, name);
  lua_remove(L, -2);
  lua_pushnumber(L, (lua_Number)(item + 1));
  lua_pushnumber(L, (lua_Number)epoch);
  if (lua_pcall(L, 2, 1, 0) == 0) return UNIC_OK;
  const char *text = lua_tostring(L, -1);
  unic_fail("item %lld: %s", (long long)(item + 1), text ? text : "an error that is no text was raised");
  lua_pop(L, 1);
  return UNIC_ERROR;
}

/* The text stays in the environment until the next one. */
static unic_status feed_text(void *context, int64_t item, uint64_t epoch, const char **text, size_t *bytes) {
  feed *f = context;
  lua_State *L = f->L;
  UNIC_TRY(call_owner(f, "text", item, epoch));
  if (lua_type(L, -1) != LUA_TSTRING) {
    unic_fail("item %lld: the text is %s, expected a string", (long long)(item + 1), unic_door_kind(L, lua_gettop(L)));
    lua_pop(L, 1);
    return UNIC_ERROR;
  }
  *text = lua_tolstring(L, -1, bytes);
  lua_getfenv(L, 1);
  lua_insert(L, -2);
  lua_setfield(L, -2, "last_text");
  lua_pop(L, 1);
  return UNIC_OK;
}

static unic_status feed_picture(void *context, int64_t item, float *out) {
  feed *f = context;
  lua_State *L = f->L;
  UNIC_TRY(call_owner(f, "picture", item, 0));
  unic_handle *h = unic_handle_at(L, lua_gettop(L));
  unic_status status = UNIC_OK;
  if (!h || !h->t) {
    status = unic_fail("item %lld: the picture is %s, expected a tensor", (long long)(item + 1), unic_door_kind(L, lua_gettop(L)));
  } else {   /* f32 [C, size, size], contiguous: data.lua sees to it */
    memcpy(out, unic_tensor_data(h->t), (size_t)unic_tensor_bytes(h->t));
  }
  lua_pop(L, 1);
  return status;
}

static int pipeline_gc(lua_State *L) {
  feed **place = luaL_checkudata(L, 1, PIPELINE), *f = *place;
  *place = NULL;
  if (!f) return 0;
  f->L = L;
  if (f->worker) unic_lua_worker_enter(f->worker, L);
  if (unic_pipeline_free(f->pipeline)) {
    setup_free(&f->setup);
    free(f);
  }
  return 0;
}

static unic_status read_options(lua_State *L, const unic_dataset *set, feed *f, unic_pipeline_options *how) {
  const unic_dataset_options *data = unic_dataset_how(set);
  *how = (unic_pipeline_options){
    .batch = (int64_t)number_field(L, 2, "batch", 1),
    .shuffle = flag_field(L, 2, "shuffle"), .drop_last = flag_field(L, 2, "drop_last"),
    .seed = (uint64_t)(int64_t)number_field(L, 2, "seed", 0), .epoch = (uint64_t)number_field(L, 2, "epoch", 0),
    .epochs = (int64_t)number_field(L, 2, "epochs", 1), .start = (int64_t)number_field(L, 2, "start", 0),
    .rank = (int64_t)number_field(L, 2, "rank", 0), .ranks = (int64_t)number_field(L, 2, "ranks", 1),
    .workers = (int)number_field(L, 2, "workers", 0), .prefetch = (int64_t)number_field(L, 2, "prefetch", 1),
    .bucket = (int64_t)number_field(L, 2, "bucket", 1),
    .max_length = (int64_t)number_field(L, 2, "max_length", 0), .multiple = (int64_t)number_field(L, 2, "multiple", 1),
    .calls = {.draw = unic_lua_worker_draw, .step = unic_lua_worker_step, .text = feed_text, .picture = feed_picture, .context = f},
  };
  static const char *const sources[] = {"none", "report", "sample", "call"};
  const char *text = string_field(L, 2, "text");
  for (int i = 0; i < 4; i++) if (strcmp(text, sources[i]) == 0) how->text = (unic_text_source)i;
  lua_getfield(L, 2, "vocabulary");
  if (!lua_isnil(L, -1)) how->vocabulary = *(unic_wordpiece **)luaL_checkudata(L, -1, "unic.wordpiece");
  lua_pop(L, 1);
  lua_getfield(L, 2, "views");
  const int count = (int)lua_objlen(L, -1);
  if (count > UNIC_VIEWS) return unic_fail("option 'views': %d views, at most %d are possible", count, UNIC_VIEWS);
  for (int v = 0; v < count; v++) {
    lua_rawgeti(L, -1, v + 1);
    UNIC_TRY(read_view(L, &how->views[v], data->channels, data->prepare.size, data->prepare.size, (int32_t)number_field(L, 2, "channels", 0)));
    snprintf(f->names[v], sizeof f->names[v], "%s", how->views[v].name);
    lua_pop(L, 1);
  }
  how->view_count = f->view_count = count;
  lua_pop(L, 1);
  lua_getfield(L, 2, "setup");
  const bool lua = lua_istable(L, -1);
  unic_status status = lua ? setup_read(L, lua_gettop(L), &f->setup) : UNIC_OK;
  lua_pop(L, 1);
  if (lua) {
    how->calls.open = feed_open;
    how->calls.close = feed_close;
    how->calls.stop = feed_stop;
  }
  f->inline_worker = how->workers == 0;
  lua_getfield(L, 2, "mlm");   /* last: nothing fails behind it, and the pipeline takes it over */
  if (lua_istable(L, -1) && status == UNIC_OK) {
    const int at = lua_gettop(L);
    const unic_masking_options mlm = {.share = number_field(L, at, "share", 0), .most = (int64_t)number_field(L, at, "most", 1),
                                      .mask = number_field(L, at, "mask", 0), .random = number_field(L, at, "random", 0)};
    status = unic_masking_new(&mlm, how->vocabulary, &how->mlm);
  }
  lua_pop(L, 1);
  return status;
}

/* pipeline(set, options, {text =, picture =, ...} or nil) */
static int pipeline_new(lua_State *L) {
  enum { MANY = 8 };
  unic_dataset *set = check_set(L, 1);
  luaL_checktype(L, 2, LUA_TTABLE);
  lua_settop(L, 3);
  /* Iterators that were left by `break` keep threads until they are collected, and the collector does not know what they cost. */
  if (unic_pipeline_live() >= MANY) lua_gc(L, LUA_GCCOLLECT, 0);
  feed **place = unic_files_object(L, PIPELINE, sizeof *place);
  lua_newtable(L);
  lua_pushvalue(L, 1);
  lua_setfield(L, -2, "set");
  if (lua_istable(L, 3)) {
    for (int i = 0; i < 2; i++) {
      static const char *const keys[] = {"text", "picture"};
      lua_getfield(L, 3, keys[i]);
      lua_setfield(L, -2, keys[i]);
    }
  }
  lua_setfenv(L, -2);
  feed *f = *place = calloc(1, sizeof *f);
  if (!f) return raise_as(L, unic_fail_memory("no memory for the pipeline"), "batches");
  f->L = L;
  unic_pipeline_options how;
  unic_status status = read_options(L, set, f, &how);
  if (status == UNIC_OK) status = unic_pipeline_new(set, &how, &f->pipeline);
  if (status != UNIC_OK) return raise_as(L, status, "batches");
  return 1;
}

static void push_tensor(lua_State *L, const char *key, unic_tensor **t) {
  if (!*t) return;
  unic_handle_push(L, *t);
  *t = NULL;
  lua_setfield(L, -2, key);
}

static void push_number(lua_State *L, const char *key, int64_t n) {
  lua_pushnumber(L, (lua_Number)n);
  lua_setfield(L, -2, key);
}

/* pipeline:next(device or nil) -> {n =, epoch =, position =, index =, language =, tokens =, mask =, labels =, places =, targets =, <views>}, or
 * nothing at the end */
static int pipeline_next(lua_State *L) {
  feed *f = check_feed(L);
  unic_device *device;
  lua_settop(L, 2);
  UNIC_DOOR(L, unic_door_device(L, 2, &device));
  f->L = L;
  if (f->worker) unic_lua_worker_enter(f->worker, L);
  unic_batch batch;
  bool more;
  unic_status status = unic_pipeline_next(f->pipeline, &batch, &more);
  if (status != UNIC_OK) return raise_as(L, status, "batches");
  if (!more) return 0;
  /* index stays: it is for looking things up here */
  unic_tensor **const all[] = {&batch.tokens, &batch.mask, &batch.language, &batch.labels, &batch.places, &batch.targets};
  for (int i = 0; i < UNIC_VIEWS + 6 && !device->host; i++) {
    unic_tensor **t = i < UNIC_VIEWS ? &batch.views[i] : all[i - UNIC_VIEWS], *moved;
    if (!*t || status != UNIC_OK) continue;
    status = unic_tensor_to_device(*t, device, &moved);
    if (status != UNIC_OK) continue;
    unic_tensor_unref(*t);
    *t = moved;
  }
  lua_newtable(L);
  push_number(L, "n", batch.count);
  push_number(L, "epoch", batch.epoch);
  push_number(L, "position", batch.position);
  push_tensor(L, "index", &batch.index);
  push_tensor(L, "language", &batch.language);
  push_tensor(L, "tokens", &batch.tokens);
  push_tensor(L, "mask", &batch.mask);
  push_tensor(L, "labels", &batch.labels);
  push_tensor(L, "places", &batch.places);
  push_tensor(L, "targets", &batch.targets);
  for (int v = 0; v < f->view_count; v++) push_tensor(L, f->names[v], &batch.views[v]);
  if (status != UNIC_OK) return raise_as(L, status, "batches");
  return 1;
}

/* pipeline:state() -> epoch, batches of it handed out */
static int pipeline_state(lua_State *L) {
  int64_t epoch, position;
  unic_pipeline_state(check_feed(L)->pipeline, &epoch, &position);
  lua_pushnumber(L, (lua_Number)epoch);
  lua_pushnumber(L, (lua_Number)position);
  return 2;
}

static int pipeline_per_epoch(lua_State *L) { return lua_pushnumber(L, (lua_Number)unic_pipeline_per_epoch(check_feed(L)->pipeline)), 1; }

/* text_epoch(seed, epoch): what the pipeline samples texts with */
static int text_epoch(lua_State *L) {
  const uint64_t seed = (uint64_t)(int64_t)luaL_checknumber(L, 1), epoch = (uint64_t)luaL_checknumber(L, 2);
  lua_pushnumber(L, (lua_Number)unic_pipeline_text_epoch(seed, epoch));
  return 1;
}

static int live(lua_State *L) { return lua_pushinteger(L, unic_pipeline_live()), 1; }

/* ---------------------------------------------------------------- opening */

int unic_lua_open_data(lua_State *L) {
  static const luaL_Reg set_methods[] = {
    {"add", dataset_add}, {"add_table", dataset_add_table}, {"finish", dataset_finish}, {"count", dataset_count}, {"image", dataset_image},
    {"report", dataset_report}, {"patient", dataset_patient}, {"labels", dataset_labels}, {"language", dataset_language},
    {"languages", dataset_languages}, {"row_number", dataset_number}, {"other_splits", dataset_other_splits}, {"sample_text", dataset_sample_text},
    {"fault_count", dataset_fault_count}, {"fault", dataset_fault}, {"note", dataset_note}, {"hash", dataset_hash}, {"identify", dataset_identify},
    {"put", dataset_put}, {"picture", dataset_picture}, {NULL, NULL}};
  static const luaL_Reg pipeline_methods[] = {{"next", pipeline_next}, {"state", pipeline_state}, {"per_epoch", pipeline_per_epoch}, {"close", pipeline_gc}, {NULL, NULL}};
  static const luaL_Reg functions[] = {
    {"dataset", dataset_new}, {"pipeline", pipeline_new}, {"steps", step_list}, {"apply", apply}, {"prepare", prepare},
    {"text_epoch", text_epoch}, {"live", live}, {NULL, NULL}};
  unic_files_type(L, DATASET, set_methods, dataset_free);
  unic_files_type(L, PIPELINE, pipeline_methods, pipeline_gc);
  lua_newtable(L);
  luaL_register(L, NULL, functions);
  return 1;
}
