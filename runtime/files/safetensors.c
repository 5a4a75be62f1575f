/* safetensors: reading by a checked map, writing by a temporary name. */
#include "safetensors.h"

#include <stdlib.h>
#include <string.h>

#include "file.h"
#include "json.h"
#include "utf8.h"

/* The limit of the reference implementation: a header of this size names about a million tensors. */
static const int64_t HEADER_BYTES = 100000000;

static const char METADATA[] = "__metadata__";

typedef struct unic_safetensors {
  unic_weights base;
  char *names; /* all names, keys, values and dtypes, one after another, each with its NUL */
  int64_t used;
} unic_safetensors;

/* ---- reading ---- */

static unic_status fail_room(void) { return unic_fail_memory("no memory for its header"); }

/* Keep the reader's last string. All of them fit: decoded text and its NUL are shorter than the same text and its two quotes. */
static unic_status keep_string(unic_safetensors *f, const unic_json *j, const char **out) {
  if (memchr(j->string, 0, (size_t)j->length)) return unic_fail("byte %lld: a string that holds a zero byte", (long long)j->at);
  char *kept = f->names + f->used;
  memcpy(kept, j->string, (size_t)j->length + 1);
  f->used += j->length + 1;
  *out = kept;
  return UNIC_OK;
}

static unic_status expect(unic_json *j, unic_json_kind wanted, const char *what) {
  unic_json_kind kind;
  UNIC_TRY(unic_json_next(j, &kind));
  if (kind == wanted) return UNIC_OK;
  return unic_fail("byte %lld: %s is %s, expected %s", (long long)j->at, what, unic_json_kind_name(kind), unic_json_kind_name(wanted));
}

/* [n, n, ...] of sizes, at most `most`. */
static unic_status read_sizes(unic_json *j, const char *what, int64_t *sizes, int most, int *count) {
  UNIC_TRY(expect(j, UNIC_JSON_ARRAY, what));
  *count = 0;
  for (;;) {
    unic_json_kind kind;
    UNIC_TRY(unic_json_next(j, &kind));
    if (kind == UNIC_JSON_ARRAY_END) return UNIC_OK;
    if (kind != UNIC_JSON_NUMBER || !j->is_integer || j->integer < 0) {
      return unic_fail("byte %lld: %s holds something that is not a size", (long long)j->at, what);
    }
    if (*count == most) return unic_fail("byte %lld: %s has more than %d numbers", (long long)j->at, what, most);
    sizes[(*count)++] = j->integer;
  }
}

static unic_status read_metadata(unic_safetensors *f, unic_json *j) {
  UNIC_TRY(expect(j, UNIC_JSON_OBJECT, METADATA));
  for (;;) {
    unic_json_kind kind;
    UNIC_TRY(unic_json_next(j, &kind));
    if (kind == UNIC_JSON_OBJECT_END) return UNIC_OK;
    unic_weights_pair pair;
    UNIC_TRY(keep_string(f, j, &pair.key));
    UNIC_TRY(expect(j, UNIC_JSON_STRING, "a value in __metadata__"));
    UNIC_TRY(keep_string(f, j, &pair.value));
    UNIC_TRY(unic_weights_add_pair(&f->base, pair.key, pair.value));
  }
}

/* {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}: each once, in any order; further keys are skipped. */
static unic_status read_entry(unic_safetensors *f, unic_json *j, const char *name, const uint8_t *data, int64_t data_bytes) {
  unic_weights_entry e = {.name = name};
  int64_t offsets[2] = {0, 0};
  bool has_shape = false, has_offsets = false;
  int count;
  UNIC_TRY(expect(j, UNIC_JSON_OBJECT, "a tensor's description"));
  for (;;) {
    unic_json_kind kind;
    UNIC_TRY(unic_json_next(j, &kind));
    if (kind == UNIC_JSON_OBJECT_END) break;
    if (strcmp(j->string, "dtype") == 0) {
      if (e.dtype) return unic_fail("tensor '%s': its dtype stands twice", name);
      UNIC_TRY(expect(j, UNIC_JSON_STRING, "dtype"));
      UNIC_TRY(keep_string(f, j, &e.dtype));
    } else if (strcmp(j->string, "shape") == 0) {
      if (has_shape) return unic_fail("tensor '%s': its shape stands twice", name);
      UNIC_TRY(read_sizes(j, "shape", e.shape, UNIC_WEIGHTS_RANK, &e.ndim));
      has_shape = true;
    } else if (strcmp(j->string, "data_offsets") == 0) {
      if (has_offsets) return unic_fail("tensor '%s': its data_offsets stand twice", name);
      UNIC_TRY(read_sizes(j, "data_offsets", offsets, 2, &count));
      if (count != 2) return unic_fail("tensor '%s': its data_offsets are %d numbers, expected 2", name, count);
      has_offsets = true;
    } else {
      UNIC_TRY(unic_json_next(j, &kind));
      UNIC_TRY(unic_json_skip(j, kind));
    }
  }
  if (!e.dtype || !has_shape || !has_offsets) {
    return unic_fail("tensor '%s': has no %s", name, !e.dtype ? "dtype" : !has_shape ? "shape" : "data_offsets");
  }
  if (offsets[0] > offsets[1] || offsets[1] > data_bytes) {
    return unic_fail("tensor '%s': its data are bytes %lld to %lld, the file holds %lld (is it cut?)", name, (long long)offsets[0],
                     (long long)offsets[1], (long long)data_bytes);
  }
  e.bytes = offsets[1] - offsets[0];
  e.data = data + offsets[0];
  int bits = unic_weights_bits(e.dtype);
  if (bits && unic_weights_shape_bytes(e.shape, e.ndim, bits) != e.bytes) {
    return unic_fail("tensor '%s': its shape and dtype %s ask for %lld bytes, its data_offsets give %lld", name, e.dtype,
                     (long long)unic_weights_shape_bytes(e.shape, e.ndim, bits), (long long)e.bytes);
  }
  return unic_weights_add(&f->base, &e);
}

static int by_offset(const void *a, const void *b) {
  const unic_weights_entry *x = a, *y = b;
  uintptr_t p = (uintptr_t)x->data, q = (uintptr_t)y->data;
  if (p != q) return p < q ? -1 : 1;
  if (x->bytes != y->bytes) return x->bytes < y->bytes ? -1 : 1; /* an empty tensor lies before the one that begins where it does */
  return strcmp(x->name, y->name);
}

static int by_name(const void *a, const void *b) {
  const unic_weights_entry *const *x = a, *const *y = b;
  return strcmp((*x)->name, (*y)->name);
}

static int by_key(const void *a, const void *b) {
  const unic_weights_pair *x = a, *y = b;
  return strcmp(x->key, y->key);
}

/* The data of all tensors, one after another, are the file: no hole, no overlap; and no name twice. */
static unic_status check_whole(unic_safetensors *f, const uint8_t *data, int64_t data_bytes) {
  unic_weights *w = &f->base;
  if (w->count) qsort(w->entries, (size_t)w->count, sizeof *w->entries, by_offset);
  const uint8_t *end = data;
  for (int64_t i = 0; i < w->count; i++) {
    const unic_weights_entry *e = &w->entries[i];
    if (e->data != end) {
      return unic_fail("tensor '%s': its data begin at byte %lld, expected %lld (%s)", e->name, (long long)((const uint8_t *)e->data - data),
                       (long long)(end - data), (const uint8_t *)e->data < end ? "they overlap others" : "there is a hole");
    }
    end += e->bytes;
  }
  if (end - data != data_bytes) {
    return unic_fail("%lld bytes of data follow the last tensor", (long long)(data_bytes - (end - data)));
  }
  UNIC_TRY(unic_weights_finish(w));
  if (w->pair_count) qsort(w->pairs, (size_t)w->pair_count, sizeof *w->pairs, by_key);
  for (int64_t i = 1; i < w->pair_count; i++) {
    if (strcmp(w->pairs[i - 1].key, w->pairs[i].key) == 0) return unic_fail("__metadata__: key '%s' stands twice", w->pairs[i].key);
  }
  return UNIC_OK;
}

static unic_status read_header(unic_safetensors *f, unic_json *j, const uint8_t *data, int64_t data_bytes) {
  bool has_metadata = false;
  UNIC_TRY(expect(j, UNIC_JSON_OBJECT, "the header"));
  for (;;) {
    unic_json_kind kind;
    UNIC_TRY(unic_json_next(j, &kind));
    if (kind == UNIC_JSON_OBJECT_END) break;
    const char *name;
    UNIC_TRY(keep_string(f, j, &name));
    if (strcmp(name, METADATA) == 0) {
      if (has_metadata) return unic_fail("__metadata__ stands twice");
      has_metadata = true;
      UNIC_TRY(read_metadata(f, j));
    } else {
      UNIC_TRY(read_entry(f, j, name, data, data_bytes));
    }
    if ((f->base.count & 0xFFFF) == 0xFFFF && unic_interrupted()) return unic_fail_interrupted();
  }
  UNIC_TRY(expect(j, UNIC_JSON_END, "what follows the header"));
  return check_whole(f, data, data_bytes);
}

static unic_status read_file(unic_safetensors *f) {
  const uint8_t *file = f->base.map.data;
  int64_t bytes = f->base.map.bytes;
  if (bytes < 8) return unic_fail("is not a safetensors file (it has %lld bytes)", (long long)bytes);
  uint64_t size = 0;
  for (int i = 7; i >= 0; i--) size = size << 8 | file[i];
  if (size > (uint64_t)HEADER_BYTES || (bytes > 8 && file[8] != '{')) {
    return unic_fail("is not a safetensors file (its first bytes are no header's length and '{')");
  }
  if ((int64_t)size > bytes - 8) {
    return unic_fail("is cut: its header has %llu bytes, the file only %lld", (unsigned long long)size, (long long)bytes);
  }
  if (size == 0) return unic_fail("is not a safetensors file (its header is empty)");
  UNIC_TRY(unic_weights_charge(&f->base, (int64_t)size));
  f->names = malloc((size_t)size);
  if (!f->names) return fail_room();
  unic_json j;
  unic_json_open(&j, (const char *)file + 8, (int64_t)size);
  unic_status status = read_header(f, &j, file + 8 + size, bytes - 8 - (int64_t)size);
  unic_json_close(&j);
  return status;
}

static void close_file(unic_weights *w) {
  free(((unic_safetensors *)w)->names);
}

static unic_status fill(unic_weights *w) {
  w->close = close_file;
  w->room = w->file_bytes + (INT64_C(32) << 20);
  return read_file((unic_safetensors *)w);
}

unic_status unic_safetensors_open(unic_weights **file, const char *path) {
  return unic_weights_open(file, sizeof(unic_safetensors), "safetensors", path, fill);
}

/* ---- writing ---- */

static int by_size_and_name(const void *a, const void *b) {
  const unic_weights_entry *const *x = a, *const *y = b;
  int p = unic_weights_bits((*x)->dtype), q = unic_weights_bits((*y)->dtype);
  return p != q ? q - p : by_name(a, b);
}

static unic_status check_text(const char *what, const char *text) {
  if (unic_utf8_check(text, (int64_t)strlen(text)) >= 0) return unic_fail("%s '%s': is not UTF-8", what, text);
  return UNIC_OK;
}

static unic_status check_entry(const unic_weights_entry *e) {
  UNIC_TRY(check_text("tensor", e->name));
  if (strcmp(e->name, METADATA) == 0) return unic_fail("tensor '%s': the name is taken by the format", e->name);
  int bits = unic_weights_bits(e->dtype);
  if (!bits) return unic_fail("tensor '%s': dtype '%s' is not one of the format", e->name, e->dtype);
  if (e->ndim < 0 || e->ndim > UNIC_WEIGHTS_RANK) return unic_fail("tensor '%s': %d dimensions, at most 8 can be written", e->name, e->ndim);
  for (int d = 0; d < e->ndim; d++) {
    if (e->shape[d] < 0) return unic_fail("tensor '%s': a dimension of %lld", e->name, (long long)e->shape[d]);
  }
  int64_t bytes = unic_weights_shape_bytes(e->shape, e->ndim, bits);
  if (bytes != e->bytes) {
    return unic_fail("tensor '%s': its shape and dtype %s ask for %lld bytes, %lld were given", e->name, e->dtype, (long long)bytes,
                     (long long)e->bytes);
  }
  return UNIC_OK;
}

/* The header, built twice: once to measure (out == NULL), once to fill. */
typedef struct text {
  char *out;
  int64_t used;
} text;

static void put(text *t, const char *bytes) {
  size_t n = strlen(bytes);
  if (t->out) memcpy(t->out + t->used, bytes, n);
  t->used += (int64_t)n;
}

static void put_string(text *t, const char *string) {
  t->used += unic_json_quote(t->out ? t->out + t->used : NULL, string, (int64_t)strlen(string));
}

static void put_number(text *t, int64_t number) {
  char digits[24];
  snprintf(digits, sizeof digits, "%lld", (long long)number);
  put(t, digits);
}

static void put_header(text *t, const unic_weights_entry *const *entries, int64_t count, const unic_weights_pair *pairs,
                       int64_t pair_count) {
  put(t, "{");
  if (pair_count) {
    put(t, "\"__metadata__\":{");
    for (int64_t i = 0; i < pair_count; i++) {
      if (i) put(t, ",");
      put_string(t, pairs[i].key);
      put(t, ":");
      put_string(t, pairs[i].value);
    }
    put(t, "}");
  }
  int64_t offset = 0;
  for (int64_t i = 0; i < count; i++) {
    const unic_weights_entry *e = entries[i];
    if (i || pair_count) put(t, ",");
    put_string(t, e->name);
    put(t, ":{\"dtype\":");
    put_string(t, e->dtype);
    put(t, ",\"shape\":[");
    for (int d = 0; d < e->ndim; d++) {
      if (d) put(t, ",");
      put_number(t, e->shape[d]);
    }
    put(t, "],\"data_offsets\":[");
    put_number(t, offset);
    offset += e->bytes;
    put(t, ",");
    put_number(t, offset);
    put(t, "]}");
  }
  put(t, "}");
  while (t->used % 8) put(t, " "); /* so that the data begin aligned */
}

static unic_status write_file(unic_output *output, const unic_weights_entry *const *entries, int64_t count,
                              const unic_weights_pair *pairs, int64_t pair_count) {
  text header = {NULL, 0};
  put_header(&header, entries, count, pairs, pair_count);
  if (header.used > HEADER_BYTES) {
    return unic_fail("'%s': its header would have %lld bytes, the limit of the format is %lld", output->path, (long long)header.used,
                     (long long)HEADER_BYTES);
  }
  header.out = malloc((size_t)header.used);
  if (!header.out) return unic_fail_memory("'%s': no memory for its header", output->path);
  header.used = 0;
  put_header(&header, entries, count, pairs, pair_count);
  uint8_t size[8];
  for (int i = 0; i < 8; i++) size[i] = (uint8_t)((uint64_t)header.used >> (8 * i));
  unic_status status = unic_output_write(output, size, 8);
  if (status == UNIC_OK) status = unic_output_write(output, header.out, header.used);
  free(header.out);
  for (int64_t i = 0; i < count && status == UNIC_OK; i++) {
    status = unic_interrupted() ? unic_fail_interrupted() : unic_output_write(output, entries[i]->data, entries[i]->bytes);
  }
  return status;
}

unic_status unic_safetensors_write(const char *path, const unic_weights_entry *entries, int64_t count,
                                   const unic_weights_pair *pairs, int64_t pair_count) {
  if (!unic_host_is_little_endian()) return unic_fail("'%s': safetensors files cannot be written on a big-endian machine", path);
  const unic_weights_entry **sorted = malloc((size_t)(count ? count : 1) * sizeof *sorted);
  unic_weights_pair *keys = malloc((size_t)(pair_count ? pair_count : 1) * sizeof *keys);
  unic_status status = UNIC_OK;
  unic_output output = {0};
  if (!sorted || !keys) {
    status = unic_fail_memory("no memory for its header");
    goto done;
  }
  for (int64_t i = 0; i < count; i++) {
    sorted[i] = &entries[i];
    status = check_entry(&entries[i]);
    if (status != UNIC_OK) goto done;
  }
  for (int64_t i = 0; i < pair_count; i++) {
    keys[i] = pairs[i];
    status = check_text("metadata key", pairs[i].key);
    if (status == UNIC_OK) status = check_text("metadata value", pairs[i].value);
    if (status != UNIC_OK) goto done;
  }
  if (count) qsort(sorted, (size_t)count, sizeof *sorted, by_name);
  for (int64_t i = 1; i < count; i++) {
    if (strcmp(sorted[i - 1]->name, sorted[i]->name) == 0) {
      status = unic_fail("tensor '%s': is given twice", sorted[i]->name);
      goto done;
    }
  }
  if (count) qsort(sorted, (size_t)count, sizeof *sorted, by_size_and_name);
  if (pair_count) qsort(keys, (size_t)pair_count, sizeof *keys, by_key);
  for (int64_t i = 1; i < pair_count; i++) {
    if (strcmp(keys[i - 1].key, keys[i].key) == 0) {
      status = unic_fail("metadata key '%s': is given twice", keys[i].key);
      goto done;
    }
  }

done:
  if (status != UNIC_OK) {
    unic_fail_prefix(status, "'%s': ", path);
  } else {
    status = unic_output_open(&output, path);
    if (status == UNIC_OK) status = write_file(&output, sorted, count, keys, pair_count);
    if (status == UNIC_OK) status = unic_output_commit(&output, true);
    unic_output_abandon(&output);
  }
  free(sorted);
  free(keys);
  return status;
}
