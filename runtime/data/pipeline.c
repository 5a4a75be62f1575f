/* Windows, slots, workers.
 *
 * A slot is a batch in the making. A window is the run of batches whose items are fixed together: with bucketing its texts are tokenised
 * first, then its items are sorted by length and cut into batches, which are then shuffled; without, a window is one batch. Jobs are a few
 * texts of a window or one picture of a slot, taken in order of slots, texts first, so the batch that is needed next is made first. One lock
 * guards all bookkeeping; jobs run without it, each writing to its own row.
 *
 * The tensors of a slot come from the CPU's arena and are allocated by the owner when the slot is scheduled, so that batches count like any
 * other tensors: in the memory budget, and in the debt that paces the garbage collector (which alone would not see their size). One long file, because
 * windows, slots and workers share the lock and what it guards. */
#define _GNU_SOURCE
#include "pipeline.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "../device.h"
#include "slot.h"

enum { TEXTS_PER_JOB = 8, JOIN_SECONDS = 3, GRACE_SECONDS = 1, EXIT_SECONDS = 2 };

typedef struct worker {
  unic_pipeline *pipeline;
  pthread_t thread;
  bool started, joined;
  void *lua;                  /* what calls.open made */
  float *scratch, *floats;
  uint8_t *bytes;
  char *text;
  size_t text_room;
} worker;

struct unic_pipeline {
  unic_dataset *set;
  unic_pipeline_options how;
  int64_t per_epoch, total;          /* batches of this process: in an epoch, in all */
  int64_t scheduled, delivered;      /* of total */
  int64_t *order, order_epoch;       /* items of an epoch; NULL: as they are */
  unic_window *latest;                    /* the one being cut into slots */
  unic_slot *first, *last;
  worker *workers;
  bool started, ended, stopping;
  pthread_mutex_t lock;
  pthread_cond_t work, done;
  unic_pipeline *next_live;
};

/* ---------------------------------------------------------------- small things */

static unic_status no_memory(void) { return unic_fail_memory("[batches] no memory for the pipeline"); }

uint64_t unic_pipeline_text_epoch(uint64_t seed, uint64_t epoch) { return unic_mix(seed * 0x9E3779B97F4A7C15u + epoch) >> 34; }

/* ---------------------------------------------------------------- which items */

static unic_status order_for(unic_pipeline *p, uint64_t epoch) {
  if (!p->how.shuffle || (p->order && p->order_epoch == (int64_t)epoch)) return UNIC_OK;
  static const char purpose[] = "order";
  const int64_t n = unic_dataset_count(p->set);
  if (!p->order) p->order = malloc((size_t)n * sizeof *p->order);
  if (!p->order) return no_memory();
  unic_stream random = unic_stream_open(p->how.seed, epoch, 0, unic_fnv(UNIC_FNV, purpose, sizeof purpose - 1));
  for (int64_t i = 0; i < n; i++) {
    const int64_t j = unic_stream_below(&random, i + 1);
    p->order[i] = p->order[j];
    p->order[j] = i;
  }
  p->order_epoch = (int64_t)epoch;
  return UNIC_OK;
}

/* Items of this process's batch k of an epoch: from `from` on, how many. */
static int64_t batch_items(const unic_pipeline *p, int64_t k, int64_t *from) {
  const int64_t n = unic_dataset_count(p->set);
  *from = (k * p->how.ranks + p->how.rank) * p->how.batch;
  return n - *from < p->how.batch ? n - *from : p->how.batch;
}

static int compare_keyed(const void *a, const void *b) {
  const unic_keyed *x = a, *y = b;
  return x->key != y->key ? (x->key < y->key ? -1 : 1) : (x->at > y->at) - (x->at < y->at);
}

/* Sort by length, cut into batches, shuffle the full ones (a short one stays at the end, where it was). */
static void order_window(const unic_pipeline *p, unic_window *w) {
  w->ordered = true;
  if (w->batches < 2 || !w->counts) return;
  const int64_t size = p->how.batch, full = w->count / size;
  unic_keyed *list = w->sorting;
  for (int64_t i = 0; i < w->count; i++) list[i] = (unic_keyed){w->counts[i], i};
  qsort(list, (size_t)w->count, sizeof *list, compare_keyed);
  static const char purpose[] = "bucket";
  unic_stream random = unic_stream_open(p->how.seed, (uint64_t)w->epoch, (uint64_t)w->index, unic_fnv(UNIC_FNV, purpose, sizeof purpose - 1));
  for (int64_t i = 0; i < w->count; i++) w->rows[i] = list[i].at;
  if (p->how.shuffle) {
    for (int64_t b = full - 1; b > 0; b--) {
      const int64_t other = unic_stream_below(&random, b + 1);
      for (int64_t i = 0; i < size && other != b; i++) {
        const int64_t row = w->rows[b * size + i];
        w->rows[b * size + i] = w->rows[other * size + i];
        w->rows[other * size + i] = row;
      }
    }
  }
}

static unic_status window_new(unic_pipeline *p, uint64_t epoch, int64_t index, unic_window **out) {
  UNIC_TRY(order_for(p, epoch));
  unic_window *w = calloc(1, sizeof *w);
  if (!w) return no_memory();
  w->refs = 1;
  w->epoch = (int64_t)epoch;
  w->index = index;
  w->failed.at = -1;
  const int64_t first = index * p->how.bucket, left = p->per_epoch - first;
  w->batches = left < p->how.bucket ? left : p->how.bucket;
  const int64_t room = w->batches * p->how.batch;
  const bool text = p->how.text != UNIC_TEXT_NONE;
  w->items = malloc((size_t)room * sizeof *w->items);
  w->rows = malloc((size_t)room * sizeof *w->rows);
  if (text) {
    w->ids = malloc((size_t)(room * p->how.max_length) * sizeof *w->ids);
    w->counts = calloc((size_t)room, sizeof *w->counts);
    w->sorting = malloc((size_t)room * sizeof *w->sorting);
  }
  if (p->how.text == UNIC_TEXT_CALL) w->texts = calloc((size_t)room, sizeof *w->texts);
  if (!w->items || !w->rows || (text && (!w->ids || !w->counts || !w->sorting)) || (p->how.text == UNIC_TEXT_CALL && !w->texts)) {
    unic_window_unref(w);
    return no_memory();
  }
  for (int64_t b = 0; b < w->batches; b++) {
    int64_t from, count = batch_items(p, first + b, &from);
    for (int64_t i = 0; i < count; i++) {
      w->rows[w->count] = w->count;
      w->items[w->count++] = p->order ? p->order[from + i] : from + i;
    }
  }
  if (w->texts) {
    for (int64_t i = 0; i < w->count; i++) {
      const char *words;
      size_t bytes;
      unic_status status = p->how.calls.text(p->how.calls.context, w->items[i], epoch, &words, &bytes);
      if (status == UNIC_OK && !(w->texts[i] = strndup(words, bytes))) status = no_memory();
      if (status != UNIC_OK) {
        unic_window_unref(w);
        return status;
      }
    }
  }
  if (!text) w->next_text = w->texts_done = w->count;
  if (!text || p->how.bucket == 1) w->ordered = true;
  *out = w;
  return UNIC_OK;
}

/* Make slots until enough batches are on their way. */
static unic_status schedule(unic_pipeline *p) {
  while (p->scheduled < p->total && p->scheduled - p->delivered < p->how.prefetch) {
    const int64_t number = p->how.start + p->scheduled, k = number % p->per_epoch, index = k / p->how.bucket;
    const uint64_t epoch = p->how.epoch + (uint64_t)(number / p->per_epoch);
    if (!p->latest || p->latest->epoch != (int64_t)epoch || p->latest->index != index) {
      unic_window *w = NULL;
      UNIC_TRY(window_new(p, epoch, index, &w));
      pthread_mutex_lock(&p->lock);
      unic_window_unref(p->latest);
      pthread_mutex_unlock(&p->lock);
      p->latest = w;
    }
    unic_slot *s = calloc(1, sizeof *s);
    if (!s) return no_memory();
    int64_t from;
    s->count = batch_items(p, k, &from);
    s->offset = (k - index * p->how.bucket) * p->how.batch;
    s->epoch = (int64_t)epoch;
    s->position = k + 1;
    s->failed.at = -1;
    s->actual = malloc((size_t)s->count * sizeof *s->actual);
    unic_status status = s->actual ? UNIC_OK : no_memory();
    for (int v = 0; v < p->how.view_count && status == UNIC_OK; v++) {
      const unic_augment *view = &p->how.views[v];
      const int64_t shape[4] = {s->count, view->out_channels, view->out_height, view->out_width};
      status = unic_tensor_new(unic_device_cpu(), UNIC_F32, 4, shape, UNIC_CONTIGUOUS, 0, &s->views[v]);
      if (status == UNIC_OK) s->data[v] = unic_tensor_data(s->views[v]);
    }
    if (status != UNIC_OK) {
      unic_slot_free(s);
      return status;
    }
    if (p->how.view_count == 0) {   /* texts alone */
      s->next_row = s->rows_done = s->count;
    }
    pthread_mutex_lock(&p->lock);
    s->window = p->latest;
    p->latest->refs++;
    if (p->last) p->last->next = s;
    else p->first = s;
    p->last = s;
    pthread_cond_broadcast(&p->work);
    pthread_mutex_unlock(&p->lock);
    p->scheduled++;
  }
  return UNIC_OK;
}

/* ---------------------------------------------------------------- jobs */

static unic_status text_room(worker *me, size_t bytes) {
  if (bytes <= me->text_room) return UNIC_OK;
  char *larger = realloc(me->text, 2 * bytes);
  if (!larger) return no_memory();
  me->text = larger;
  me->text_room = 2 * bytes;
  return UNIC_OK;
}

/* Tokens of an item's text into place `at` of the window. given: UNIC_TEXT_CALL's text. */
static unic_status encode(worker *me, unic_window *w, int64_t at, int64_t item, const char *given) {
  const unic_pipeline *p = me->pipeline;
  const char *text = "";
  size_t bytes = 0;
  const uint64_t epoch = unic_pipeline_text_epoch(p->how.seed, (uint64_t)w->epoch);
  switch (p->how.text) {
  case UNIC_TEXT_REPORT:
    text = unic_dataset_text(p->set, item, UNIC_COLUMN_REPORT);
    bytes = strlen(text);
    break;
  case UNIC_TEXT_SAMPLE:
    UNIC_TRY(text_room(me, unic_dataset_sample_room(p->set, item)));
    bytes = unic_dataset_sample_text(p->set, item, epoch, me->text);
    text = me->text;
    break;
  case UNIC_TEXT_CALL:
    text = given;
    bytes = strlen(given);
    break;
  default: return UNIC_OK;
  }
  const int64_t max = p->how.max_length;
  w->counts[at] = (int32_t)unic_wordpiece_encode(p->how.vocabulary, text, bytes, 0, w->ids + at * max, max, NULL);
  return UNIC_OK;
}

static unic_status fill_row(worker *me, unic_slot *s, int64_t row) {
  unic_pipeline *p = me->pipeline;
  unic_window *w = s->window;
  const int64_t n = unic_dataset_count(p->set), place = w->rows[s->offset + row], wanted = w->items[place];
  const uint8_t *bytes = NULL;
  int64_t item = wanted;
  if (unic_dataset_how(p->set)->source == UNIC_SOURCE_CALLS) {
    UNIC_TRY(p->how.calls.picture(p->how.calls.context, item, me->floats));
  } else {
    for (int64_t tries = 0;; tries++) {
      bool bad;
      UNIC_TRY(unic_dataset_picture(p->set, item, me->bytes, p->how.calls.draw, me->lua, &bytes, &bad));
      if (!bad) break;
      if (!p->how.drop_last) {   /* every item once: a bad one is left out */
        s->actual[row] = -1;
        return UNIC_OK;
      }
      /* Training: the next good one stands in, a rule that depends on the pictures alone. */
      if (tries == n) return unic_fail("[batches] no picture of the data set can be used; the first that failed: %s", unic_dataset_fault(p->set, 0).reason);
      item = (item + 1) % n;
    }
  }
  s->actual[row] = item;
  for (int v = 0; v < p->how.view_count; v++) {
    const unic_augment *view = &p->how.views[v];
    const int64_t size = (int64_t)view->out_channels * view->out_height * view->out_width;
    UNIC_TRY(unic_augment_run(view, bytes, me->floats, p->how.seed, (uint64_t)s->epoch, (uint64_t)item, me->scratch, s->data[v] + row * size,
                           p->how.calls.step, me->lua));
  }
  /* The text of the one that stands in; a function of the owner's is called when the batch is handed out. */
  if (item != wanted && p->how.text != UNIC_TEXT_CALL) UNIC_TRY(encode(me, w, place, item, NULL));
  return UNIC_OK;
}

typedef struct job {
  unic_slot *slot;       /* a picture: row `at` */
  unic_window *window;   /* texts [at, end) */
  int64_t at, end;
} job;

/* With the lock held. */
static bool pick(unic_pipeline *p, job *j) {
  for (unic_slot *s = p->first; s; s = s->next) {
    unic_window *w = s->window;
    if (w->next_text < w->count) {
      const int64_t left = w->count - w->next_text;
      *j = (job){.window = w, .at = w->next_text, .end = w->next_text + (left < TEXTS_PER_JOB ? left : TEXTS_PER_JOB)};
      w->next_text = j->end;
      return true;
    }
    /* A row may be given another item and with it another text: only when the window's texts are all there. */
    if (w->ordered && w->texts_done == w->count && s->next_row < s->count) {
      *j = (job){.slot = s, .at = s->next_row++};
      return true;
    }
  }
  return false;
}

/* Without the lock; takes it to report. */
static void run(worker *me, const job *j) {
  unic_pipeline *p = me->pipeline;
  if (j->slot) {
    unic_status status = fill_row(me, j->slot, j->at);
    pthread_mutex_lock(&p->lock);
    if (status != UNIC_OK) unic_failure_note(&j->slot->failed, j->at, status);
    if (++j->slot->rows_done == j->slot->count) pthread_cond_broadcast(&p->done);
    pthread_mutex_unlock(&p->lock);
    return;
  }
  unic_window *w = j->window;
  unic_status status = UNIC_OK;
  int64_t at = j->at;
  for (; at < j->end && status == UNIC_OK; at++) status = encode(me, w, at, w->items[at], w->texts ? w->texts[at] : NULL);
  pthread_mutex_lock(&p->lock);
  if (status != UNIC_OK) unic_failure_note(&w->failed, at - 1, status);
  w->texts_done += j->end - j->at;
  if (w->texts_done == w->count) {
    if (!w->ordered) order_window(p, w);
    pthread_cond_broadcast(&p->work);
    pthread_cond_broadcast(&p->done);
  }
  pthread_mutex_unlock(&p->lock);
}

/* ---------------------------------------------------------------- workers */

static unic_status worker_open(worker *me) {
  unic_pipeline *p = me->pipeline;
  const unic_dataset_options *how = unic_dataset_how(p->set);
  const size_t plane = (size_t)how->prepare.size * (size_t)how->prepare.size;
  int64_t room = 0;
  for (int v = 0; v < p->how.view_count; v++) if (p->how.views[v].room > room) room = p->how.views[v].room;
  me->scratch = malloc(2 * (size_t)room * sizeof *me->scratch + 1);
  me->bytes = malloc(plane);
  if (how->source == UNIC_SOURCE_CALLS) me->floats = malloc((size_t)how->channels * plane * sizeof *me->floats);
  if (!me->scratch || !me->bytes || (how->source == UNIC_SOURCE_CALLS && !me->floats)) return no_memory();
  if (!p->how.calls.open) return UNIC_OK;
  void *lua = NULL;
  unic_status status = p->how.calls.open(p->how.calls.context, &lua);
  pthread_mutex_lock(&p->lock);
  me->lua = lua;
  pthread_mutex_unlock(&p->lock);
  return status;
}

/* With the lock held on entry and on return; `stop` may look at `lua` at any other time. */
static void worker_close(worker *me) {
  unic_pipeline *p = me->pipeline;
  void *lua = me->lua;
  me->lua = NULL;
  pthread_mutex_unlock(&p->lock);
  if (lua) p->how.calls.close(p->how.calls.context, lua);
  free(me->scratch);
  free(me->floats);
  free(me->bytes);
  free(me->text);
  pthread_mutex_lock(&p->lock);
  me->scratch = me->floats = NULL;
  me->bytes = NULL;
  me->text = NULL;
  me->text_room = 0;
}

static void *worker_main(void *context) {
  worker *me = context;
  unic_pipeline *p = me->pipeline;
  unic_status status = worker_open(me);
  unic_failure failed = {.at = -1};
  if (status != UNIC_OK) unic_failure_note(&failed, 0, status);
  pthread_mutex_lock(&p->lock);
  while (!p->stopping) {
    job j;
    if (!pick(p, &j)) {
      pthread_cond_wait(&p->work, &p->lock);
      continue;
    }
    if (failed.at >= 0) {   /* it could not start: its jobs fail with that sentence */
      unic_failure *to = j.slot ? &j.slot->failed : &j.window->failed;
      if (to->at < 0 || to->at > j.at) {
        free(to->sentence);
        *to = (unic_failure){j.at, failed.status, failed.sentence ? strdup(failed.sentence) : NULL};
      }
      if (j.slot) j.slot->rows_done++;
      else {
        j.window->texts_done += j.end - j.at;
        if (j.window->texts_done == j.window->count) j.window->ordered = true;
      }
      pthread_cond_broadcast(&p->done);
      continue;
    }
    pthread_mutex_unlock(&p->lock);
    run(me, &j);
    pthread_mutex_lock(&p->lock);
  }
  worker_close(me);
  pthread_mutex_unlock(&p->lock);
  free(failed.sentence);
  return NULL;
}

/* Pipelines with threads, for the end of the process. */
static pthread_mutex_t live_lock = PTHREAD_MUTEX_INITIALIZER;
static unic_pipeline *live;
static int live_count;

int unic_pipeline_live(void) {
  pthread_mutex_lock(&live_lock);
  int n = live_count;
  pthread_mutex_unlock(&live_lock);
  return n;
}

static struct timespec from_now(double seconds) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  t.tv_sec += (time_t)seconds;
  t.tv_nsec += (long)((seconds - (double)(time_t)seconds) * 1e9);
  if (t.tv_nsec >= 1000000000) {
    t.tv_sec++;
    t.tv_nsec -= 1000000000;
  }
  return t;
}

/* Wait for all workers, together no longer than that: by a clock that nobody sets, or a step of the system's time would leave threads behind. */
static bool join_all(unic_pipeline *p, double seconds) {
  const struct timespec until = from_now(seconds);
  bool all = true;
  for (int i = 0; i < p->how.workers; i++) {
    worker *w = &p->workers[i];
    if (w->started && !w->joined) w->joined = pthread_clockjoin_np(w->thread, NULL, CLOCK_MONOTONIC, &until) == 0;
    all &= !w->started || w->joined;
  }
  return all;
}

/* Stop the threads; false if one did not come. */
static bool stop(unic_pipeline *p, double seconds) {
  if (!p->started) return true;
  pthread_mutex_lock(&p->lock);
  p->stopping = true;
  pthread_cond_broadcast(&p->work);
  pthread_mutex_unlock(&p->lock);
  if (!join_all(p, GRACE_SECONDS)) {
    /* A user's function that runs for long: interrupt its Lua state, wait once more. */
    pthread_mutex_lock(&p->lock);
    for (int i = 0; i < p->how.workers; i++)
      if (!p->workers[i].joined && p->workers[i].lua && p->how.calls.stop) p->how.calls.stop(p->workers[i].lua);
    pthread_mutex_unlock(&p->lock);
    if (!join_all(p, seconds)) return false;
  }
  p->started = false;
  pthread_mutex_lock(&live_lock);
  for (unic_pipeline **at = &live; *at; at = &(*at)->next_live) {
    if (*at == p) {
      *at = p->next_live;
      live_count--;
      break;
    }
  }
  pthread_mutex_unlock(&live_lock);
  return true;
}

/* At exit the libraries that workers use are taken down: none may run then. */
static void stop_all(void) {
  for (;;) {
    pthread_mutex_lock(&live_lock);
    unic_pipeline *p = live;
    if (p) {
      live = p->next_live;
      live_count--;
    }
    pthread_mutex_unlock(&live_lock);
    if (!p) return;
    stop(p, EXIT_SECONDS);
  }
}

static unic_status start(unic_pipeline *p) {
  static bool registered;
  sigset_t all, before;
  pthread_mutex_lock(&live_lock);
  if (!registered) {
    atexit(stop_all);
    registered = true;
  }
  p->next_live = live;
  live = p;
  live_count++;
  pthread_mutex_unlock(&live_lock);
  p->started = true;
  sigfillset(&all);   /* Ctrl-C is the owner's */
  pthread_sigmask(SIG_SETMASK, &all, &before);
  int problem = 0;
  for (int i = 0; i < p->how.workers && !problem; i++) {
    p->workers[i].pipeline = p;
    problem = pthread_create(&p->workers[i].thread, NULL, worker_main, &p->workers[i]);
    p->workers[i].started = !problem;
  }
  pthread_sigmask(SIG_SETMASK, &before, NULL);
  return problem ? unic_fail("[batches] a worker thread could not be started (%s); fewer workers may help", strerror(problem)) : UNIC_OK;
}

/* ---------------------------------------------------------------- the owner's side */

unic_status unic_pipeline_new(unic_dataset *set, const unic_pipeline_options *options, unic_pipeline **out) {
  *out = NULL;
  const int64_t n = unic_dataset_count(set);
  unic_pipeline *p = calloc(1, sizeof *p);
  worker *workers = calloc((size_t)(options->workers > 0 ? options->workers : 1), sizeof *workers);
  if (!p || !workers) {
    unic_masking_free(options->mlm);
    free(workers);
    free(p);
    return no_memory();
  }
  p->how = *options;
  p->workers = workers;
  if (p->how.workers == 0) p->how.prefetch = 1;
  const int64_t size = p->how.batch, ranks = p->how.ranks;
  if (p->how.drop_last) p->per_epoch = n / size / ranks;
  else {
    const int64_t all = (n + size - 1) / size;
    p->per_epoch = all / ranks + (all % ranks > p->how.rank);
  }
  if (p->per_epoch == 0) {
    unic_masking_free(p->how.mlm);
    free(p->workers);
    free(p);
    if (ranks > 1) return unic_fail("[batches] option 'batch': %lld on each of %lld processes is more than the %lld items of the data set", (long long)size, (long long)ranks, (long long)n);
    return unic_fail("[batches] option 'batch': %lld is more than the %lld item%s of the data set, and drop_last leaves out what does not fill a batch", (long long)size, (long long)n, n == 1 ? "" : "s");
  }
  if (p->how.epochs > INT64_MAX / 2 / p->per_epoch) p->how.epochs = INT64_MAX / 2 / p->per_epoch;
  p->total = p->how.epochs * p->per_epoch - p->how.start;
  if (p->total < 0) p->total = 0;
  p->set = unic_dataset_retain(set);
  if (p->how.vocabulary) unic_wordpiece_retain(p->how.vocabulary);
  pthread_mutex_init(&p->lock, NULL);
  pthread_cond_init(&p->work, NULL);
  pthread_condattr_t monotonic;
  pthread_condattr_init(&monotonic);
  pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
  pthread_cond_init(&p->done, &monotonic);
  pthread_condattr_destroy(&monotonic);
  *out = p;
  return UNIC_OK;
}

/* Stop, and let go of what is on its way. False: a thread was left behind, and with it everything it may use. */
static bool end(unic_pipeline *p) {
  p->ended = true;
  if (!stop(p, JOIN_SECONDS)) return false;
  if (p->how.workers == 0 && p->workers[0].pipeline) {
    pthread_mutex_lock(&p->lock);
    worker_close(&p->workers[0]);
    pthread_mutex_unlock(&p->lock);
    p->workers[0].pipeline = NULL;
  }
  while (p->first) {
    unic_slot *next = p->first->next;
    unic_slot_free(p->first);
    p->first = next;
  }
  p->last = NULL;
  unic_window_unref(p->latest);
  p->latest = NULL;
  return true;
}

bool unic_pipeline_free(unic_pipeline *p) {
  if (!p) return true;
  if (!end(p)) return false;
  pthread_mutex_destroy(&p->lock);
  pthread_cond_destroy(&p->work);
  pthread_cond_destroy(&p->done);
  unic_dataset_release(p->set);
  unic_wordpiece_release(p->how.vocabulary);
  unic_masking_free(p->how.mlm);
  free(p->order);
  free(p->workers);
  free(p);
  return true;
}

int64_t unic_pipeline_per_epoch(const unic_pipeline *p) { return p->per_epoch; }

void unic_pipeline_state(const unic_pipeline *p, int64_t *epoch, int64_t *position) {
  const int64_t number = p->how.start + p->delivered;
  *epoch = (int64_t)p->how.epoch + number / p->per_epoch;
  *position = number % p->per_epoch;
}

static bool is_complete(const unic_slot *s) { return s->rows_done == s->count && s->window->texts_done == s->window->count; }

/* Wait until the first slot is complete. */
static unic_status await_slot(unic_pipeline *p) {
  unic_status status = UNIC_OK;
  if (p->how.workers == 0) {
    worker *me = &p->workers[0];
    if (!me->pipeline) {
      me->pipeline = p;
      UNIC_TRY(worker_open(me));
    }
    while (!is_complete(p->first)) {
      job j;
      if (unic_interrupted()) return unic_fail_interrupted();
      pthread_mutex_lock(&p->lock);
      const bool some = pick(p, &j);
      pthread_mutex_unlock(&p->lock);
      if (!some) return unic_fail("[batches] the pipeline has nothing to do and is not done");
      run(me, &j);
    }
    return UNIC_OK;
  }
  pthread_mutex_lock(&p->lock);
  while (!is_complete(p->first) && status == UNIC_OK) {
    if (unic_interrupted()) {
      status = unic_fail_interrupted();
      break;
    }
    const struct timespec soon = from_now(0.05);   /* to look for Ctrl-C */
    pthread_cond_timedwait(&p->done, &p->lock, &soon);
  }
  pthread_mutex_unlock(&p->lock);
  return status;
}

unic_status unic_pipeline_next(unic_pipeline *p, unic_batch *batch, bool *more) {
  unic_status status = UNIC_OK;
  *batch = (unic_batch){0};
  *more = false;
  while (!p->ended && p->delivered < p->total) {
    status = schedule(p);
    if (status == UNIC_OK && !p->started && p->how.workers > 0) status = start(p);
    if (status == UNIC_OK) status = await_slot(p);
    if (status != UNIC_OK) break;
    pthread_mutex_lock(&p->lock);
    unic_slot *s = p->first;
    p->first = s->next;
    if (!p->first) p->last = NULL;
    pthread_mutex_unlock(&p->lock);
    status = unic_slot_hand_out(s, p->set, &p->how, batch);
    pthread_mutex_lock(&p->lock);
    unic_slot_free(s);
    pthread_mutex_unlock(&p->lock);
    if (status != UNIC_OK) break;
    p->delivered++;
    if (batch->count == 0) continue;   /* nothing in it could be read */
    /* Workers go on with what comes after it while the owner computes. */
    if (p->how.workers > 0) status = schedule(p);
    if (status != UNIC_OK) break;
    *more = true;
    return UNIC_OK;
  }
  if (status != UNIC_OK) unic_batch_drop(batch);
  char sentence[4096];
  snprintf(sentence, sizeof sentence, "%s", status != UNIC_OK ? unic_message() : "");   /* ending may leave another */
  end(p);
  if (status == UNIC_ERROR) return unic_fail("%s", sentence);
  if (status == UNIC_MEMORY) return unic_fail_memory("%s", sentence);
  return status;
}
