/* A data set: columns of text in C memory, and pictures that are decoded (or drawn) once and kept as square bytes.
 *
 * It is filled by one thread, then never changes but for its picture cache and its list of faults; those may be used from any thread.
 * Items count from 0. It is counted by references. */
#ifndef UNIC_DATA_DATASET_H
#define UNIC_DATA_DATASET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "../files/table.h"
#include "../status.h"
#include "image.h"

typedef struct unic_dataset unic_dataset;

typedef enum unic_column {
  UNIC_COLUMN_IMAGE, UNIC_COLUMN_REPORT, UNIC_COLUMN_LANGUAGE, UNIC_COLUMN_PATIENT, UNIC_COLUMN_LABELS,
  UNIC_COLUMN_SENTENCES,   /* the report's sentences, one a line, each behind a '+' (it states a finding) or a '-'; "" where they are not told apart */
  UNIC_COLUMN_SPLIT,       /* not kept */
  UNIC_COLUMNS
} unic_column;

typedef enum unic_source {
  UNIC_SOURCE_FILES,     /* pictures are files */
  UNIC_SOURCE_DRAWN,     /* pictures are drawn by a generator (in Lua) */
  UNIC_SOURCE_CALLS,     /* pictures come as floats from a function of the caller, at every use; nothing is kept */
  UNIC_SOURCE_NONE       /* there are texts alone; a column of pictures is not looked at */
} unic_source;

typedef struct unic_dataset_options {
  unic_source source;
  const char *root;         /* folder that relative paths start from, with a slash at its end; "" is the current one */
  unic_prepare prepare;
  int32_t channels;         /* 1; UNIC_SOURCE_CALLS: or 3 */
  int64_t cache_bytes;      /* the first pictures that fit are kept */
  int64_t min_words;        /* shorter reports are faults */
  bool report_required;     /* an empty report is a fault */
  bool strict;              /* the first fault is an error */
  const char *language;     /* of rows that name none; NULL: nobody knows (a column's empty cell is a fault then) */
  /* Which rows: those of this split (NULL: all). With a split column that decides; without one, the hash of the patient does. */
  const char *split;
  bool has_split_column;
  double validation, test;  /* shares of patients */
} unic_dataset_options;

unic_status unic_dataset_new(const unic_dataset_options *options, unic_dataset **out);
unic_dataset *unic_dataset_retain(unic_dataset *set);
void unic_dataset_release(unic_dataset *set);   /* NULL is harmless */

/* Add a row; cells[c] may be NULL for a column that is not there. A row of another split is passed over; a faulty one goes on the list of
 * faults (strict: the sentence). `copy`: the cells are copied, otherwise they must live as long as the set. number: the row's in its file.
 * added: whether it became an item. */
unic_status unic_dataset_add(unic_dataset *set, const char *const cells[UNIC_COLUMNS], int64_t number, bool copy, bool *added);

/* Add all rows of a table; positions[c] is the table's column for c, -1 if there is none. The set keeps the table, also on failure. */
unic_status unic_dataset_add_table(unic_dataset *set, unic_table *table, const int positions[UNIC_COLUMNS]);

/* Put the picture of an item into the cache, from memory: 8 or 16 bits, prepared like a file's. */
unic_status unic_dataset_put(unic_dataset *set, int64_t item, const void *pixels, int bits, int32_t height, int32_t width);

/* No row is added after this: fixes order of languages, makes room for the cache, hashes. Fails on a set without items. */
unic_status unic_dataset_finish(unic_dataset *set);

int64_t unic_dataset_count(const unic_dataset *set);
const unic_dataset_options *unic_dataset_how(const unic_dataset *set);
int64_t unic_dataset_other_splits(const unic_dataset *set);           /* rows passed over */
const char *unic_dataset_text(const unic_dataset *set, int64_t item, unic_column column);   /* "" where there is none */
int64_t unic_dataset_number(const unic_dataset *set, int64_t item);
/* Languages: "en" is 0 and "es" is 1, others follow in alphabetical order; an item without one has -1. */
int unic_dataset_languages(const unic_dataset *set);
const char *unic_dataset_language_name(const unic_dataset *set, int language);
int unic_dataset_language(const unic_dataset *set, int64_t item);
/* Hash of the contents: names and sizes of the pictures and every column, in order; not where the files lie, nor how they are prepared. */
uint64_t unic_dataset_hash(const unic_dataset *set);
void unic_dataset_hash_more(unic_dataset *set, const void *data, size_t bytes);

/* What was left out: row in its file, path (may be ""), reason. The list may grow while pictures are loaded; entries stay. */
typedef struct unic_fault { int64_t row; const char *path, *reason; } unic_fault;
int64_t unic_dataset_faults(unic_dataset *set);
unic_fault unic_dataset_fault(unic_dataset *set, int64_t index);
unic_status unic_dataset_note(unic_dataset *set, int64_t row, const char *path, const char *reason);
/* A fault of an item that only its use shows: noted the first time; strict: an error. */
unic_status unic_dataset_leave_out(unic_dataset *set, int64_t item, const char *reason);

/* Draws item's picture into out[size * size]; registered by whoever has a Lua state. */
typedef unic_status unic_dataset_draw(void *context, int64_t item, uint8_t *out);

/* The stored picture of an item, [size][size] bytes: from the cache, or decoded or drawn into scratch[size * size] and then cached if there is
 * room. UNIC_SOURCE_CALLS has none. *bad: the picture cannot be used (it is on the list of faults then, once); never with strict, where that
 * is an error. */
unic_status unic_dataset_picture(unic_dataset *set, int64_t item, uint8_t *scratch, unic_dataset_draw *draw, void *context,
                                 const uint8_t **pixels, bool *bad);

/* A random part of an item's report, the same for the same epoch. Where the sentences that state findings are known: all of these
 * and at most two others; else one sentence up to all of them. In random order. Short texts make a prompt of one sentence nothing new to a text
 * encoder; a finding left out would make its picture a false negative of the text. Written to `out`, which has room for unic_dataset_sample_room bytes; returns its length. */
size_t unic_dataset_sample_room(const unic_dataset *set, int64_t item);
size_t unic_dataset_sample_text(const unic_dataset *set, int64_t item, uint64_t epoch, char *out);

#endif
