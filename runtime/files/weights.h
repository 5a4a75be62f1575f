/* An opened file of named tensors, whatever its format: safetensors.c, torch_file.c and npy.c each fill one of these, and lua_weights.c is
 * the one door to all of them.
 *
 * Opening checks a file in full and reads none of its tensors; `read` then moves one tensor's elements, row-major, to where they are wanted.
 * No tensor type is known here, so that any host can use it; big-endian hosts would have to swap and are refused. */
#ifndef UNIC_FILES_WEIGHTS_H
#define UNIC_FILES_WEIGHTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "../status.h"
#include "file.h"

enum { UNIC_WEIGHTS_RANK = 8 };

typedef struct unic_weights_entry {
  const char *name;
  const char *dtype; /* "F64", "F32", "F16", "BF16", "I64", "I32", "I16", "I8", "U8", "BOOL", ...; also names that nothing here can read */
  int ndim;
  int64_t shape[UNIC_WEIGHTS_RANK];
  const void *data; /* row-major elements inside the mapped file, perhaps not aligned to the element (memcpy it); NULL: only `read` has them */
  int64_t bytes;    /* of the row-major elements, in the file's dtype */
} unic_weights_entry;

typedef struct unic_weights_pair {
  const char *key, *value;
} unic_weights_pair;

typedef struct unic_weights unic_weights;
struct unic_weights {
  const char *kind; /* "safetensors", "torch", "npy": in front of sentences */
  char *path;
  unic_file_map map;           /* the file itself; closed after `close`, unless an archive took it over */
  int64_t file_bytes;          /* its size, also then */
  unic_weights_entry *entries; /* in the order of the file */
  int64_t count, capacity;
  const unic_weights_entry **sorted; /* by name */
  unic_weights_pair *pairs;          /* what else the file says, as strings */
  int64_t pair_count, pair_capacity;
  struct unic_weights_text *texts; /* strings of the file's own, see unic_weights_keep */
  int64_t room;                    /* bytes that opening may still take: see unic_weights_charge */
  /* The elements of one entry, row-major, little-endian, to `to` (entry->bytes of memory). NULL: all of them are at entry->data. Its sentence
   * says what is wrong; unic_weights_read puts the path and the name in front. */
  unic_status (*read)(unic_weights *w, const unic_weights_entry *e, void *to);
  /* Free what the format holds; the struct itself and what is above are freed by unic_weights_close. */
  void (*close)(unic_weights *w);
};

/* Map the file and let a format read its head: `fill` gets a zeroed struct of `size` bytes that begins with a unic_weights, sets `close`, `read` and
 * `room`, and adds what there is; what it says of a failure gets the path in front. */
unic_status unic_weights_open(unic_weights **w, size_t size, const char *kind, const char *path, unic_status (*fill)(unic_weights *w));
void unic_weights_close(unic_weights *w); /* NULL is harmless; entries and their data die with it */

/* Memory that opening takes is counted, so that a small file cannot ask for much: `fill` sets `room` at first. */
unic_status unic_weights_charge(unic_weights *w, int64_t bytes);

unic_status unic_weights_add(unic_weights *w, const unic_weights_entry *e);
unic_status unic_weights_add_pair(unic_weights *w, const char *key, const char *value);
/* A copy of `bytes` of text and a NUL that lives as long as the file. */
unic_status unic_weights_keep(unic_weights *w, const char *text, int64_t bytes, const char **kept);
/* Sort by name once all are there; a name given twice is refused. No entry may be added afterwards. */
unic_status unic_weights_finish(unic_weights *w);

const unic_weights_entry *unic_weights_find(const unic_weights *w, const char *name); /* NULL: none */
/* Elements to `to`, by whichever way the format has; those of a BOOL that `read` fetched are looked at. */
unic_status unic_weights_read(unic_weights *w, const unic_weights_entry *e, void *to);

/* Bits per element of a dtype name; 0: a name that is not known. */
int unic_weights_bits(const char *dtype);
/* Bytes of a shape; -1: they do not fit 63 bits, or the bits do not fill bytes. */
int64_t unic_weights_shape_bytes(const int64_t *shape, int ndim, int bits);
bool unic_host_is_little_endian(void);

/* ---- moving bytes ---- */

/* Row-major elements of `size` bytes out of strided ones. shape, stride: [ndim], strides in elements, any of them may be 0. */
void unic_weights_gather(void *to, const void *from, int ndim, const int64_t *shape, const int64_t *stride, int64_t size);
/* Turn `count` elements of `size` bytes end for end. */
void unic_weights_swap(void *data, int64_t count, int64_t size);
/* The place of the first byte that is neither 0 nor 1; -1: there is none. */
int64_t unic_weights_not_bool(const void *data, int64_t bytes);

#endif
