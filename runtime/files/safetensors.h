/* safetensors: named tensors and a map of strings in one file.
 *
 * Layout: 8 bytes, little-endian: n; n bytes of JSON: {"__metadata__": {key: string}, name: {"dtype", "shape", "data_offsets"}}; the data.
 * Reading maps the file and trusts nothing in it: names, shapes, sizes and offsets are checked once, at opening. Writing is atomic and
 * durable. No tensor type is known here, so that any host can use it; big-endian hosts would have to swap and are refused. */
#ifndef UNIC_FILES_SAFETENSORS_H
#define UNIC_FILES_SAFETENSORS_H

#include <stdbool.h>
#include <stdint.h>

#include "../status.h"

enum { UNIC_SAFETENSORS_RANK = 8 };

typedef struct unic_safetensors_entry {
  const char *name;
  const char *dtype; /* "F64", "F32", "F16", "BF16", "I64", "I32", "U8", "BOOL"; when reading also names this runtime has no type for */
  int ndim;
  int64_t shape[UNIC_SAFETENSORS_RANK];
  const void *data; /* row-major elements; when reading, inside the map and perhaps not aligned to the element: memcpy it */
  int64_t bytes;
} unic_safetensors_entry;

typedef struct unic_safetensors_pair {
  const char *key, *value;
} unic_safetensors_pair;

/* ---- reading ---- */

typedef struct unic_safetensors unic_safetensors;

/* Open and check all of the header. Refused, in a sentence with the path: a cut file, a header that is not strict JSON, names given twice,
 * sizes that do not follow from shape and dtype, data that overlap, leave a hole, or do not end with the file. */
unic_status unic_safetensors_open(unic_safetensors **file, const char *path);
void unic_safetensors_close(unic_safetensors *file); /* NULL is harmless; entries and their data die with it */

const char *unic_safetensors_path(const unic_safetensors *file);
int64_t unic_safetensors_count(const unic_safetensors *file);
const unic_safetensors_entry *unic_safetensors_at(const unic_safetensors *file, int64_t index); /* in the order of the data */
const unic_safetensors_entry *unic_safetensors_find(const unic_safetensors *file, const char *name); /* NULL: none */
int64_t unic_safetensors_pairs(const unic_safetensors *file);
const unic_safetensors_pair *unic_safetensors_pair_at(const unic_safetensors *file, int64_t index); /* sorted by key */

/* ---- writing ---- */

/* Write all entries and metadata under `path`: to a temporary name, synced, renamed, the folder synced. Entries are laid out by element
 * size (largest first, so all are aligned), then by name: the same contents give the same bytes. A kill at any moment leaves the old
 * file. Ctrl-C is heard between pieces and leaves the old file too. */
unic_status unic_safetensors_write(const char *path, const unic_safetensors_entry *entries, int64_t count,
                                   const unic_safetensors_pair *pairs, int64_t pair_count);

/* Bits per element of a dtype name; 0: a name that is not known. */
int unic_safetensors_bits(const char *dtype);

#endif
