#include "slot.h"

#include <stdlib.h>
#include <string.h>

#include "../device.h"

enum { NOT_ASKED = -100 };   /* the label of tokens that the loss leaves out: cross_entropy's, as PyTorch's */

void unic_failure_note(unic_failure *f, int64_t at, unic_status status) {
  if (f->at >= 0 && f->at <= at) return;
  free(f->sentence);
  *f = (unic_failure){at, status, strdup(unic_message())};
}

static unic_status raise_failure(const unic_failure *f) {
  if (f->status == UNIC_INTERRUPTED) return unic_fail_interrupted();
  const char *sentence = f->sentence ? f->sentence : "no memory";
  /* A sentence of a function that has its place in front, or one of ours. */
  unic_fail("%s%s", sentence[0] == '[' ? "" : "[batches] ", sentence);
  return f->status;
}

void unic_window_unref(unic_window *w) {
  if (!w || --w->refs > 0) return;
  if (w->texts) for (int64_t i = 0; i < w->count; i++) free(w->texts[i]);
  free(w->texts);
  free(w->items);
  free(w->rows);
  free(w->ids);
  free(w->counts);
  free(w->sorting);
  free(w->failed.sentence);
  free(w);
}

void unic_slot_free(unic_slot *s) {
  for (int v = 0; v < UNIC_VIEWS; v++) unic_tensor_unref(s->views[v]);
  unic_window_unref(s->window);
  free(s->actual);
  free(s->failed.sentence);
  free(s);
}

/* Rows that were left out are closed up. Returns how many stay. */
static int64_t close_up(unic_slot *s, const unic_pipeline_options *how) {
  int64_t kept = 0;
  for (int64_t row = 0; row < s->count; row++) {
    if (s->actual[row] < 0) continue;
    if (kept != row) {
      for (int v = 0; v < how->view_count; v++) {
        const unic_augment *view = &how->views[v];
        const int64_t size = (int64_t)view->out_channels * view->out_height * view->out_width;
        memcpy(s->data[v] + kept * size, s->data[v] + row * size, (size_t)size * sizeof(float));
      }
      s->actual[kept] = s->actual[row];
      s->window->rows[s->offset + kept] = s->window->rows[s->offset + row];
    }
    kept++;
  }
  return kept;
}

static unic_status new_i64(int64_t count, unic_tensor **out) {
  return unic_tensor_new(unic_device_cpu(), UNIC_I64, 1, &count, UNIC_CONTIGUOUS, 0, out);
}

/* Texts that the owner makes are its own to make again for an item that stands in for another. */
static unic_status replace_texts(unic_slot *s, const unic_pipeline_options *how) {
  unic_window *w = s->window;
  for (int64_t row = 0; row < s->count; row++) {
    const int64_t place = w->rows[s->offset + row], item = s->actual[row];
    if (item < 0 || item == w->items[place]) continue;
    const char *text;
    size_t bytes;
    UNIC_TRY(how->calls.text(how->calls.context, item, (uint64_t)s->epoch, &text, &bytes));
    w->counts[place] = (int32_t)unic_wordpiece_encode(how->vocabulary, text, bytes, 0, w->ids + place * how->max_length, how->max_length, NULL);
  }
  return UNIC_OK;
}

/* Texts without a token that could be asked for leave their rows. */
static unic_status leave_out_short(unic_slot *s, unic_dataset *set, const unic_pipeline_options *how) {
  for (int64_t row = 0; row < s->count; row++) {
    if (s->actual[row] < 0 || unic_masking_count(how->mlm, s->window->counts[s->window->rows[s->offset + row]]) > 0) continue;
    UNIC_TRY(unic_dataset_leave_out(set, s->actual[row], "the text has no token to mask"));
    s->actual[row] = -1;
  }
  return UNIC_OK;
}

/* Hide tokens of a batch that has its tokens, and say which they were. */
static unic_status mask_tokens(const unic_slot *s, const unic_pipeline_options *how, unic_batch *batch, int64_t width) {
  const unic_window *w = s->window;
  const int64_t shape[2] = {batch->count, width};
  int64_t total = 0;
  for (int64_t row = 0; row < batch->count; row++) total += unic_masking_count(how->mlm, w->counts[w->rows[s->offset + row]]);
  UNIC_TRY(unic_tensor_new(unic_device_cpu(), UNIC_I64, 2, shape, UNIC_CONTIGUOUS, 0, &batch->labels));
  UNIC_TRY(new_i64(total, &batch->places));
  UNIC_TRY(new_i64(total, &batch->targets));
  int64_t *tokens = unic_tensor_data(batch->tokens), *labels = unic_tensor_data(batch->labels);
  int64_t *places = unic_tensor_data(batch->places), *targets = unic_tensor_data(batch->targets);
  for (int64_t i = 0; i < batch->count * width; i++) labels[i] = NOT_ASKED;
  for (int64_t row = 0; row < batch->count; row++) {
    const int64_t n = w->counts[w->rows[s->offset + row]], count = unic_masking_count(how->mlm, n);
    unic_masking_run(how->mlm, how->seed, (uint64_t)s->epoch, (uint64_t)s->actual[row], tokens + row * width, n, places, targets);
    for (int64_t k = 0; k < count; k++) {
      places[k] += row * width;
      labels[places[k]] = targets[k];
    }
    places += count;
    targets += count;
  }
  return UNIC_OK;
}

unic_status unic_slot_hand_out(unic_slot *s, unic_dataset *set, const unic_pipeline_options *how, unic_batch *batch) {
  unic_window *w = s->window;
  if (how->view_count == 0) for (int64_t row = 0; row < s->count; row++) s->actual[row] = w->items[w->rows[s->offset + row]];
  if (w->failed.at >= 0) return raise_failure(&w->failed);
  if (s->failed.at >= 0) return raise_failure(&s->failed);
  if (how->text == UNIC_TEXT_CALL) UNIC_TRY(replace_texts(s, how));
  if (how->mlm) UNIC_TRY(leave_out_short(s, set, how));
  const int64_t count = close_up(s, how);
  *batch = (unic_batch){.count = count, .epoch = s->epoch, .position = s->position};
  if (count == 0) return UNIC_OK;
  for (int v = 0; v < how->view_count; v++) {
    if (count == s->count) {
      batch->views[v] = unic_tensor_ref(s->views[v]);
      continue;
    }
    int64_t shape[4];
    memcpy(shape, s->views[v]->shape, sizeof shape);
    shape[0] = count;
    UNIC_TRY(unic_tensor_view(s->views[v], 4, shape, s->views[v]->stride, 0, &batch->views[v]));
  }
  UNIC_TRY(new_i64(count, &batch->index));
  UNIC_TRY(new_i64(count, &batch->language));
  int64_t *index = unic_tensor_data(batch->index), *language = unic_tensor_data(batch->language);
  for (int64_t row = 0; row < count; row++) {
    index[row] = s->actual[row];
    language[row] = unic_dataset_language(set, s->actual[row]);
  }
  if (how->text == UNIC_TEXT_NONE) return UNIC_OK;
  const int64_t max = how->max_length, multiple = how->multiple;
  int64_t width = 1;
  for (int64_t row = 0; row < count; row++) {
    const int64_t place = w->rows[s->offset + row];
    if (w->counts[place] > width) width = w->counts[place];
  }
  width = (width + multiple - 1) / multiple * multiple;
  if (width > max) width = max;
  const int64_t shape[2] = {count, width};
  UNIC_TRY(unic_tensor_new(unic_device_cpu(), UNIC_I64, 2, shape, UNIC_CONTIGUOUS, 0, &batch->tokens));
  UNIC_TRY(unic_tensor_new(unic_device_cpu(), UNIC_BOOL, 2, shape, UNIC_CONTIGUOUS, 0, &batch->mask));
  int64_t *tokens = unic_tensor_data(batch->tokens);
  uint8_t *mask = unic_tensor_data(batch->mask);
  for (int64_t row = 0; row < count; row++) {
    const int64_t place = w->rows[s->offset + row];
    unic_wordpiece_row(how->vocabulary, w->ids + place * max, w->counts[place], width, tokens + row * width, mask + row * width);
  }
  return how->mlm ? mask_tokens(s, how, batch, width) : UNIC_OK;
}

void unic_batch_drop(unic_batch *batch) {
  for (int v = 0; v < UNIC_VIEWS; v++) unic_tensor_unref(batch->views[v]);
  unic_tensor_unref(batch->tokens);
  unic_tensor_unref(batch->mask);
  unic_tensor_unref(batch->language);
  unic_tensor_unref(batch->index);
  unic_tensor_unref(batch->labels);
  unic_tensor_unref(batch->places);
  unic_tensor_unref(batch->targets);
  *batch = (unic_batch){0};
}
