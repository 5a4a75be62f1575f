/* From the values of a pickle to tensors: the only place that knows PyTorch's names. torch_file.c reads the bytes. */
#ifndef UNIC_FILES_TORCH_VALUES_H
#define UNIC_FILES_TORCH_VALUES_H

#include "pickle.h"
#include "weights.h"

/* A storage, as pickles name it; found in the file afterwards. */
typedef struct unic_torch_storage {
  const char *key; /* digits */
  int64_t size;    /* bytes of an element; 1: a storage without a type */
  int64_t bytes;   /* of all elements, as the pickle says */
  bool checked;    /* its checksum was compared */
  bool stored;     /* `data` is where it lies */
  const uint8_t *data;
  int64_t member;  /* of the archive */
} unic_torch_storage;

/* Where an entry's elements are: beside unic_weights.entries, in the same order. */
typedef struct unic_torch_place {
  const char *why;  /* why it cannot be read; NULL: it can */
  int64_t storage;  /* -1: none */
  int64_t offset;   /* elements from the storage's beginning */
  int64_t span;     /* elements from the first to the last one used, both included */
  int64_t stride[UNIC_WEIGHTS_RANK];
  bool contiguous;
} unic_torch_place;

typedef struct unic_torch_values {
  unic_weights *weights;
  unic_torch_storage *storages;
  unic_torch_place *places;
  int64_t storage_count, storage_room, place_count, place_room;
  int64_t *slots; /* storages by the hash of their key, plus one; 0: none */
  int64_t slot_count;
  int64_t steps; /* how many values a walk may still visit */
} unic_torch_values;

/* List the tensors of `root` in weights, with their places and storages. `values`: how many values the pickle has. */
unic_status unic_torch_list(unic_torch_values *t, const unic_pickle_value *root, int64_t values);
void unic_torch_values_close(unic_torch_values *t);

/* Note the storages that the pickle names anywhere, in what is not looked into too: the old form of files has them all. */
unic_status unic_torch_note_storages(unic_torch_values *t, const unic_pickle *pickle);

/* The storage of a key, if a tensor named it; or NULL. */
unic_torch_storage *unic_torch_storage_of(const unic_torch_values *t, const unic_pickle_value *key);

/* Does a value's text equal `text`? */
bool unic_torch_text_is(const unic_pickle_value *v, const char *text);
/* The value of a key in a dict, or NULL. */
const unic_pickle_value *unic_torch_get(const unic_pickle_value *dict, const char *key);

#endif
