/* safetensors: named tensors and a map of strings in one file.
 *
 * Layout: 8 bytes, little-endian: n; n bytes of JSON: {"__metadata__": {key: string}, name: {"dtype", "shape", "data_offsets"}}; the data.
 * Reading maps the file and trusts nothing in it: names, shapes, sizes and offsets are checked once, at opening. Writing is atomic and
 * durable. No tensor type is known here, so that any host can use it; big-endian hosts would have to swap and are refused. */
#ifndef UNIC_FILES_SAFETENSORS_H
#define UNIC_FILES_SAFETENSORS_H

#include "weights.h"

/* ---- reading ---- */

/* Open and check all of the header. Refused, in a sentence with the path: a cut file, a header that is not strict JSON, names given twice,
 * sizes that do not follow from shape and dtype, data that overlap, leave a hole, or do not end with the file. Entries are in the order of
 * their data, pairs (the metadata) sorted by key. */
unic_status unic_safetensors_open(unic_weights **file, const char *path);

/* ---- writing ---- */

/* Write all entries and metadata under `path`: to a temporary name, synced, renamed, the folder synced. Entries are laid out by element
 * size (largest first, so all are aligned), then by name: the same contents give the same bytes. A kill at any moment leaves the old
 * file. Ctrl-C is heard between pieces and leaves the old file too. */
unic_status unic_safetensors_write(const char *path, const unic_weights_entry *entries, int64_t count,
                                   const unic_weights_pair *pairs, int64_t pair_count);

#endif
