/* What the formats of named tensors share: the table of entries, strings, limits, and moving elements. */
#include "weights.h"

#include <stdlib.h>
#include <string.h>

/* Strings lie in pieces, so that pointers to them stay good. */
typedef struct unic_weights_text {
  struct unic_weights_text *next;
  int64_t used, bytes;
  char text[];
} unic_weights_text;

static const int64_t PIECE = 16384;

/* Those that this runtime has no type for can still be listed, and their sizes are checked. */
static const struct {
  const char *name;
  int bits;
} dtypes[] = {
  {"F64", 64}, {"F32", 32}, {"F16", 16}, {"BF16", 16}, {"I64", 64}, {"I32", 32}, {"U8", 8}, {"BOOL", 8},
  {"I16", 16}, {"I8", 8}, {"U16", 16}, {"U32", 32}, {"U64", 64}, {"C64", 64},
  {"F8_E4M3", 8}, {"F8_E5M2", 8}, {"F8_E8M0", 8}, {"F6_E2M3", 6}, {"F6_E3M2", 6}, {"F4", 4},
};

int unic_weights_bits(const char *dtype) {
  for (size_t i = 0; i < sizeof dtypes / sizeof dtypes[0]; i++) {
    if (strcmp(dtypes[i].name, dtype) == 0) return dtypes[i].bits;
  }
  return 0;
}

int64_t unic_weights_shape_bytes(const int64_t *shape, int ndim, int bits) {
  for (int d = 0; d < ndim; d++) {
    if (shape[d] == 0) return 0; /* before the product, which other dimensions may overflow */
  }
  int64_t total = bits;
  for (int d = 0; d < ndim; d++) {
    if (__builtin_mul_overflow(total, shape[d], &total)) return -1;
  }
  return total % 8 == 0 ? total / 8 : -1;
}

bool unic_host_is_little_endian(void) {
  const uint16_t one = 1;
  uint8_t first;
  memcpy(&first, &one, 1);
  return first == 1;
}

/* ---- the table ---- */

unic_status unic_weights_open(unic_weights **out, size_t size, const char *kind, const char *path, unic_status (*fill)(unic_weights *w)) {
  *out = NULL;
  if (!unic_host_is_little_endian()) return unic_fail("'%s': %s files cannot be read on a big-endian machine", path, kind);
  unic_weights *w = calloc(1, size);
  if (w) w->path = strdup(path);
  if (!w || !w->path) {
    free(w);
    return unic_fail_memory("'%s': no memory for its header", path);
  }
  w->kind = kind;
  unic_status status = unic_file_map_open(&w->map, path);
  if (status == UNIC_OK) {
    w->file_bytes = w->map.bytes;
    status = fill(w);
    if (status != UNIC_OK) unic_fail_prefix(status, "'%s': ", path);
  }
  if (status != UNIC_OK) {
    unic_weights_close(w);
    return status;
  }
  *out = w;
  return UNIC_OK;
}

void unic_weights_close(unic_weights *w) {
  if (!w) return;
  if (w->close) w->close(w);
  unic_file_map_close(&w->map);
  while (w->texts) {
    unic_weights_text *next = w->texts->next;
    free(w->texts);
    w->texts = next;
  }
  free(w->path);
  free(w->entries);
  free(w->sorted);
  free(w->pairs);
  free(w);
}

unic_status unic_weights_charge(unic_weights *w, int64_t bytes) {
  if (bytes > w->room) return unic_fail("what it lists would take more memory than a file of its size may ask for");
  w->room -= bytes;
  return UNIC_OK;
}

static unic_status fail_room(void) { return unic_fail_memory("no memory for its header"); }

/* Room for one more element of `size` bytes. */
static unic_status grow(unic_weights *w, void **list, int64_t count, int64_t *capacity, int64_t size) {
  if (count < *capacity) return UNIC_OK;
  int64_t larger = *capacity ? *capacity * 2 : 16;
  UNIC_TRY(unic_weights_charge(w, (larger - *capacity) * size));
  void *moved = realloc(*list, (size_t)(larger * size));
  if (!moved) return fail_room();
  *list = moved;
  *capacity = larger;
  return UNIC_OK;
}

unic_status unic_weights_add(unic_weights *w, const unic_weights_entry *e) {
  void *list = w->entries;
  unic_status status = grow(w, &list, w->count, &w->capacity, (int64_t)sizeof *w->entries);
  w->entries = list;
  if (status == UNIC_OK) w->entries[w->count++] = *e;
  return status;
}

unic_status unic_weights_add_pair(unic_weights *w, const char *key, const char *value) {
  void *list = w->pairs;
  unic_status status = grow(w, &list, w->pair_count, &w->pair_capacity, (int64_t)sizeof *w->pairs);
  w->pairs = list;
  if (status == UNIC_OK) w->pairs[w->pair_count++] = (unic_weights_pair){key, value};
  return status;
}

unic_status unic_weights_keep(unic_weights *w, const char *text, int64_t bytes, const char **kept) {
  unic_weights_text *piece = w->texts;
  if (!piece || piece->bytes - piece->used < bytes + 1) {
    int64_t room = bytes + 1 > PIECE ? bytes + 1 : PIECE;
    UNIC_TRY(unic_weights_charge(w, room + (int64_t)sizeof *piece));
    piece = malloc(sizeof *piece + (size_t)room);
    if (!piece) return fail_room();
    *piece = (unic_weights_text){.next = w->texts, .bytes = room};
    w->texts = piece;
  }
  char *copy = piece->text + piece->used;
  if (bytes) memcpy(copy, text, (size_t)bytes);
  copy[bytes] = 0;
  piece->used += bytes + 1;
  *kept = copy;
  return UNIC_OK;
}

static int by_name(const void *a, const void *b) {
  const unic_weights_entry *const *x = a, *const *y = b;
  return strcmp((*x)->name, (*y)->name);
}

unic_status unic_weights_finish(unic_weights *w) {
  UNIC_TRY(unic_weights_charge(w, w->count * (int64_t)sizeof *w->sorted));
  w->sorted = malloc((size_t)(w->count ? w->count : 1) * sizeof *w->sorted);
  if (!w->sorted) return fail_room();
  for (int64_t i = 0; i < w->count; i++) w->sorted[i] = &w->entries[i];
  if (w->count) qsort(w->sorted, (size_t)w->count, sizeof *w->sorted, by_name);
  for (int64_t i = 1; i < w->count; i++) {
    if (strcmp(w->sorted[i - 1]->name, w->sorted[i]->name) == 0) return unic_fail("tensor '%s': stands twice", w->sorted[i]->name);
  }
  return UNIC_OK;
}

const unic_weights_entry *unic_weights_find(const unic_weights *w, const char *name) {
  int64_t low = 0, high = w->count;
  while (low < high) {
    int64_t middle = low + (high - low) / 2;
    int order = strcmp(w->sorted[middle]->name, name);
    if (order == 0) return w->sorted[middle];
    if (order < 0) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  return NULL;
}

unic_status unic_weights_read(unic_weights *w, const unic_weights_entry *e, void *to) {
  if (!w->read) {
    if (e->bytes) memcpy(to, e->data, (size_t)e->bytes);
    return UNIC_OK;
  }
  unic_status status = w->read(w, e, to);
  if (status == UNIC_OK && strcmp(e->dtype, "BOOL") == 0) {
    int64_t at = unic_weights_not_bool(to, e->bytes);
    if (at >= 0) status = unic_fail("a BOOL of value %d, expected 0 or 1", ((const uint8_t *)to)[at]);
  }
  return status == UNIC_OK ? status : unic_fail_prefix(status, "'%s': tensor '%s': ", w->path, e->name);
}

/* ---- moving bytes ---- */

static void copy_strided(uint8_t *to, const uint8_t *from, int64_t count, int64_t stride, int64_t size) {
  /* The size as a constant, so that each memcpy is one load and one store. */
  switch (size) {
    case 1: for (int64_t i = 0; i < count; i++) to[i] = from[i * stride]; break;
    case 2: for (int64_t i = 0; i < count; i++) memcpy(to + i * 2, from + i * stride * 2, 2); break;
    case 4: for (int64_t i = 0; i < count; i++) memcpy(to + i * 4, from + i * stride * 4, 4); break;
    case 8: for (int64_t i = 0; i < count; i++) memcpy(to + i * 8, from + i * stride * 8, 8); break;
    default: for (int64_t i = 0; i < count; i++) memcpy(to + i * size, from + i * stride * size, (size_t)size); break;
  }
}

void unic_weights_gather(void *to, const void *from, int ndim, const int64_t *shape, const int64_t *stride, int64_t size) {
  uint8_t *out = to;
  const uint8_t *in = from;
  for (int d = 0; d < ndim; d++) {
    if (shape[d] == 0) return;
  }
  /* Trailing dimensions that lie one after another are one run. */
  int64_t run = 1;
  int outer = ndim;
  while (outer > 0 && (stride[outer - 1] == run || shape[outer - 1] == 1)) run *= shape[--outer];
  int64_t count = 1, step = 0; /* the innermost dimension that does not */
  if (run == 1 && outer > 0) {
    count = shape[outer - 1];
    step = stride[outer - 1];
    outer--;
  }
  int64_t index[UNIC_WEIGHTS_RANK] = {0};
  for (;;) {
    int64_t offset = 0;
    for (int d = 0; d < outer; d++) offset += index[d] * stride[d];
    if (run > 1) {
      memcpy(out, in + offset * size, (size_t)(run * size));
      out += run * size;
    } else {
      copy_strided(out, in + offset * size, count, step, size);
      out += count * size;
    }
    int d = outer;
    while (d > 0 && ++index[d - 1] == shape[d - 1]) index[--d] = 0;
    if (d == 0) return;
  }
}

void unic_weights_swap(void *data, int64_t count, int64_t size) {
  uint8_t *p = data;
  for (int64_t i = 0; i < count; i++, p += size) {
    for (int64_t a = 0, b = size - 1; a < b; a++, b--) {
      uint8_t byte = p[a];
      p[a] = p[b];
      p[b] = byte;
    }
  }
}

int64_t unic_weights_not_bool(const void *data, int64_t bytes) {
  const uint8_t *p = data;
  for (int64_t i = 0; i < bytes; i++) {
    if (p[i] > 1) return i;
  }
  return -1;
}
