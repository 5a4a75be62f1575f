/* Parts of the pipeline: a slot is a batch in the making, a window the run of batches whose items are fixed together. pipeline.c, which makes
 * and fills them, says how they go together; here they are laid out, and a full slot is made the batch that is handed out. */
#ifndef UNIC_DATA_SLOT_H
#define UNIC_DATA_SLOT_H

#include "pipeline.h"

/* The first failure by position, so that the sentence does not depend on who was faster. */
typedef struct unic_failure {
  int64_t at;         /* -1: none */
  unic_status status;
  char *sentence;
} unic_failure;

typedef struct unic_keyed { int64_t key, at; } unic_keyed;

typedef struct unic_window {
  struct unic_window *next;
  int64_t epoch, index;       /* window `index` of the epoch */
  int64_t batches, count;     /* batches in it, items in all */
  int64_t *items;             /* [count] */
  int64_t *rows;              /* [count] order in which they go into the batches: places in items */
  int32_t *ids, *counts;      /* [count][max_length], [count] */
  unic_keyed *sorting;        /* [count] room for the ordering, which must not fail: the order is part of what a seed stands for */
  char **texts;               /* [count] UNIC_TEXT_CALL: made by the owner */
  int64_t next_text, texts_done;
  bool ordered;               /* rows are final */
  unic_failure failed;
  int refs;                   /* slots, and the pipeline while it may schedule more of it */
} unic_window;

typedef struct unic_slot {
  struct unic_slot *next;
  unic_window *window;
  int64_t offset, count;      /* its part of window->rows */
  int64_t epoch, position;
  unic_tensor *views[UNIC_VIEWS];
  float *data[UNIC_VIEWS];
  int64_t *actual;            /* [count] the item that is in the row: another one if its picture is bad; -1: left out */
  int64_t next_row, rows_done;
  unic_failure failed;
} unic_slot;

/* Keep the calling thread's sentence, if nothing before `at` failed. */
void unic_failure_note(unic_failure *failure, int64_t at, unic_status status);

void unic_window_unref(unic_window *window);   /* NULL is harmless */
void unic_slot_free(unic_slot *slot);

/* The batch of a slot that is full. Of a failure, what is in *batch already is the caller's to drop. */
unic_status unic_slot_hand_out(unic_slot *slot, unic_dataset *set, const unic_pipeline_options *how, unic_batch *batch);
void unic_batch_drop(unic_batch *batch);

#endif
