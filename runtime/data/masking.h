/* Masked language modelling (Devlin et al., 2019): which tokens of a text are hidden, and behind what.
 *
 * Of n tokens, [CLS] and [SEP] among them, m = min(most, max(1, round(share n))) are chosen, halves rounded to the even number: uniformly and
 * without replacement from all between the two. A chosen one becomes [MASK] with probability `mask`, another token of the vocabulary with
 * probability `random`, and else stays as it is; the model is asked for the token that was there in all three cases.
 *
 * What is drawn follows from (seed, epoch, item) alone: neither the number of workers nor a resume changes it, and every epoch draws anew. */
#ifndef UNIC_DATA_MASKING_H
#define UNIC_DATA_MASKING_H

#include <stdint.h>

#include "../status.h"
#include "../text/wordpiece.h"

typedef struct unic_masking_options {
  double share;           /* of the tokens of a text, 0 to 1 */
  int64_t most;           /* tokens of a text, at least 1 */
  double mask, random;    /* of the chosen; together at most 1 */
} unic_masking_options;

/* Never changes once made. */
typedef struct unic_masking {
  unic_masking_options how;
  int32_t mask_id;
  int32_t *others;        /* what a token is replaced by: every token but those written [so], the special and the unused ones */
  int32_t other_count;
} unic_masking;

/* The options are in their ranges. Fails for a vocabulary without [MASK], or without an ordinary token while some are to be put in. */
unic_status unic_masking_new(const unic_masking_options *options, const unic_wordpiece *vocabulary, unic_masking **out);
void unic_masking_free(unic_masking *masking);   /* NULL is harmless */

/* How many tokens of a text of n are chosen; 0: it has none between [CLS] and [SEP], so there is nothing to ask. */
int64_t unic_masking_count(const unic_masking *masking, int64_t n);

/* Hide tokens of row[0, n): places[k] (ascending) were row[places[k]] = targets[k] before. Room for unic_masking_count of both. */
void unic_masking_run(const unic_masking *masking, uint64_t seed, uint64_t epoch, uint64_t item, int64_t *row, int64_t n, int64_t *places,
                      int64_t *targets);

#endif
