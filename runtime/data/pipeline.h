/* The pipeline: batches of augmented pictures and tokenised texts, made ahead of their use by worker threads.
 *
 * What a batch holds depends on the seed, the epoch and the items alone, never on the number of workers or on time. Workers are plain threads
 * that never enter an OpenMP region. Everything declared here is called by one thread, the owner's (the Lua thread); the callbacks
 * marked so run on workers. */
#ifndef UNIC_DATA_PIPELINE_H
#define UNIC_DATA_PIPELINE_H

#include "../tensor.h"
#include "../text/wordpiece.h"
#include "dataset.h"
#include "masking.h"
#include "steps.h"

enum { UNIC_VIEWS = 8 };

typedef enum unic_text_source {
  UNIC_TEXT_NONE,
  UNIC_TEXT_REPORT,      /* the report as it is */
  UNIC_TEXT_SAMPLE,      /* unic_dataset_sample_text */
  UNIC_TEXT_CALL         /* a function of the owner (calls.text) */
} unic_text_source;

/* Upward calls, registered by the door. `worker` is what `open` made. Sentences are left in the calling thread's message. */
typedef struct unic_pipeline_calls {
  /* On the worker's thread (workers = 0: on the owner's). NULL when nothing below is needed. */
  unic_status (*open)(void *context, void **worker);
  void (*close)(void *context, void *worker);
  void (*stop)(void *worker);   /* from the owner's thread: leave what you are doing, soon */
  unic_dataset_draw *draw;      /* (worker, item, out) */
  unic_step_call *step;         /* (worker, user, picture, random) */
  /* On the owner's thread. */
  unic_status (*text)(void *context, int64_t item, uint64_t epoch, const char **text, size_t *bytes);   /* valid until the next call */
  /* One picture as floats, [channels][size][size], for UNIC_SOURCE_CALLS. */
  unic_status (*picture)(void *context, int64_t item, float *out);
  void *context;
} unic_pipeline_calls;

typedef struct unic_pipeline_options {
  int64_t batch;
  int view_count;
  unic_augment views[UNIC_VIEWS];          /* checked */
  bool shuffle, drop_last;
  uint64_t seed, epoch;                 /* of the first epoch */
  int64_t epochs, start;                /* epochs to run through; batches of the first epoch to leave out */
  int64_t rank, ranks;                  /* this process's share: every ranks-th batch */
  int workers;
  int64_t prefetch;                     /* batches made ahead */
  int64_t bucket;                       /* batches in a window that is sorted by length; 1: no sorting */
  unic_text_source text;
  unic_wordpiece *vocabulary;           /* retained */
  int64_t max_length, multiple;         /* tokens of a text; widths are multiples of this */
  unic_masking *mlm;                    /* hides tokens; taken over by the pipeline; NULL: none are */
  unic_pipeline_calls calls;
} unic_pipeline_options;

typedef struct unic_pipeline unic_pipeline;

/* What `next` hands out; every tensor is a new reference on the CPU, NULL where there is none. */
typedef struct unic_batch {
  int64_t count, epoch, position;              /* position: 1 for the first batch of an epoch */
  unic_tensor *views[UNIC_VIEWS];              /* f32 [count, C, H, W] */
  unic_tensor *tokens, *mask;                  /* i64, bool [count, L] */
  unic_tensor *language, *index;               /* i64 [count]: language -1 where it is unknown; items from 0 */
  /* Masked language modelling: what stood at every place of tokens that was chosen, -100 elsewhere (i64 [count, L]); the chosen places among the
   * count L (ascending), and what stood there (i64 [chosen]). Texts of no token but [CLS] and [SEP] are left out, and are faults of the set. */
  unic_tensor *labels, *places, *targets;
} unic_batch;

/* The set is retained; options->mlm is taken over, also on failure. No thread is started before the first `next`. */
unic_status unic_pipeline_new(unic_dataset *set, const unic_pipeline_options *options, unic_pipeline **out);

/* Stop the workers, wait for them, free. NULL is harmless. Not forever: a thread that does not come (a Lua function in an endless loop) is left
 * behind with all that it may use; false says so, and `context` must then live on. */
bool unic_pipeline_free(unic_pipeline *p);

/* The next batch; *more is false after the last. With an error the pipeline is at its end. */
unic_status unic_pipeline_next(unic_pipeline *p, unic_batch *batch, bool *more);

int64_t unic_pipeline_per_epoch(const unic_pipeline *p);   /* batches */
/* Where it stands: the epoch of the next batch and how many of that epoch were handed out. */
void unic_pipeline_state(const unic_pipeline *p, int64_t *epoch, int64_t *position);
/* Pipelines that exist in this process and have threads. */
int unic_pipeline_live(void);

/* The epoch number that text sampling is called with: a number below 2^30 that differs between seeds and epochs. */
uint64_t unic_pipeline_text_epoch(uint64_t seed, uint64_t epoch);

#endif
