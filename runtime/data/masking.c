#include "masking.h"

#include <math.h>
#include <stdlib.h>

#include "stream.h"

unic_status unic_masking_new(const unic_masking_options *options, const unic_wordpiece *vocabulary, unic_masking **out) {
  *out = NULL;
  const int32_t size = unic_wordpiece_size(vocabulary), mask_id = unic_wordpiece_special(vocabulary, UNIC_MASK);
  if (mask_id < 0) return unic_fail("option 'mlm': the vocabulary has no [MASK], which stands for the tokens that are hidden");
  unic_masking *m = calloc(1, sizeof *m);
  if (!m) return unic_fail_memory("no memory for the masking");
  *m = (unic_masking){.how = *options, .mask_id = mask_id, .others = malloc((size_t)size * sizeof *m->others)};
  if (!m->others) {
    free(m);
    return unic_fail_memory("no memory for the masking");
  }
  for (int32_t id = 0; id < size; id++) {
    size_t bytes;
    const char *token = unic_wordpiece_token(vocabulary, id, &bytes);
    /* A bracket on its own is a token like others. */
    if (bytes > 2 && token[0] == '[' && token[bytes - 1] == ']') continue;
    m->others[m->other_count++] = id;
  }
  if (m->other_count == 0 && options->random > 0) {
    unic_masking_free(m);
    return unic_fail("option 'mlm': the vocabulary has special tokens alone, so that there is none to put in at random");
  }
  *out = m;
  return UNIC_OK;
}

void unic_masking_free(unic_masking *m) {
  if (!m) return;
  free(m->others);
  free(m);
}

int64_t unic_masking_count(const unic_masking *m, int64_t n) {
  if (n <= 2) return 0;
  int64_t count = (int64_t)nearbyint(m->how.share * (double)n);
  if (count < 1) count = 1;
  if (count > m->how.most) count = m->how.most;
  return count < n - 2 ? count : n - 2;
}

void unic_masking_run(const unic_masking *m, uint64_t seed, uint64_t epoch, uint64_t item, int64_t *row, int64_t n, int64_t *places, int64_t *targets) {
  static const char purpose[] = "mlm";
  unic_stream random = unic_stream_open(seed, epoch, item, unic_fnv(UNIC_FNV, purpose, sizeof purpose - 1));
  const int64_t count = unic_masking_count(m, n);
  /* Every place in turn, with the probability that what is still wanted leaves to it (Knuth, algorithm S): uniform over all choices, in
   * order, without room for a permutation. */
  for (int64_t at = 1, k = 0; k < count; at++) {
    if (unic_stream_below(&random, n - 1 - at) >= count - k) continue;
    places[k] = at;
    targets[k++] = row[at];
    const double u = unic_stream_uniform(&random);
    if (u < m->how.mask) row[at] = m->mask_id;
    else if (u < m->how.mask + m->how.random) row[at] = m->others[unic_stream_below(&random, m->other_count)];
  }
}
