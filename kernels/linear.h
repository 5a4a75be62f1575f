/* Weights in f32 beside operands in a half type, in linear.c: rounded where the product wants them, right before it.
 *
 * The product reads B [K, N], which is the weight (its data gradient) or the weight turned round (the forward). Either the weight is rounded as it lies,
 * or straight into the blocks that oneDNN would make of it at every product: [N / columns][K / 32][16][columns][2], pairs of rows side by side, zeros
 * beyond the edges. The bits are those of a cast. A header of its own because the op's file would be too long. */
#ifndef UNIC_LINEAR_H
#define UNIC_LINEAR_H

#include "loops.h"

enum { PACK_ROWS = 32, PACK_COLUMNS = 64 };   /* of a block; columns are at most that */

struct pack {
  const float *from;
  void *to;
  int64_t k, n, k_step, n_step;   /* B's sizes, and `from`'s steps along them, of which one is 1 */
  int64_t k_blocks;
  int dtype, columns;             /* columns 0: as it lies */
};

#if UNIC_LOOPS

UNIC_LOOP(linear_round) {
  const struct pack *p = context;
  for (int64_t i = begin; i < end; i += UNIC_ROW) unic_row_store(p->to, p->dtype, i, end - i < UNIC_ROW ? end - i : UNIC_ROW, p->from + i);
}

/* A block whose columns lie as rows in memory. `count`: its columns that there are, `rows` likewise. */
static inline void pack_turned(const struct pack *p, const float *from, int64_t rows, int64_t count, uint32_t *restrict to) {
  uint32_t pairs[16][PACK_ROWS / 2];
  for (int64_t j = 0; j < p->columns; j += 16) {
    for (int64_t i = 0; i < 16; i++) {
      uint16_t half[PACK_ROWS] = {0};
      const float *row = from + (j + i) * p->n_step;
      if (rows == PACK_ROWS && j + i < count) unic_row_store(half, p->dtype, 0, PACK_ROWS, row);
      else if (j + i < count) unic_row_store(half, p->dtype, 0, rows, row);
      memcpy(pairs[i], half, sizeof half);
    }
    for (int64_t r = 0; r < PACK_ROWS / 2; r += 4)
      for (int64_t i = 0; i < 16; i += 4) unic_transpose4(&pairs[i][r], PACK_ROWS / 2, to + r * p->columns + j + i, p->columns);
  }
}

/* A block whose rows lie as rows. */
static inline void pack_straight(const struct pack *p, const float *from, int64_t rows, int64_t count, uint32_t *restrict to) {
  uint16_t even[PACK_COLUMNS] = {0}, odd[PACK_COLUMNS] = {0};
  for (int64_t r = 0; r < PACK_ROWS; r += 2) {
    for (int64_t s = r; s < r + 2; s++) {
      uint16_t *half = s == r ? even : odd;
      if (s < rows && count == PACK_COLUMNS) unic_row_store(half, p->dtype, 0, PACK_COLUMNS, from + s * p->k_step);
      else if (s < rows) unic_row_store(half, p->dtype, 0, count, from + s * p->k_step);
      else memset(half, 0, sizeof even);
    }
    uint32_t *restrict row = to + r / 2 * p->columns;
    for (int64_t j = 0; j < p->columns; j++) row[j] = even[j] | (uint32_t)odd[j] << 16;
  }
}

UNIC_LOOP(linear_pack) {
  const struct pack *p = context;
  for (int64_t b = begin; b < end; b++) {
    int64_t k = b % p->k_blocks * PACK_ROWS, n = b / p->k_blocks * p->columns;
    int64_t rows = p->k - k < PACK_ROWS ? p->k - k : PACK_ROWS, count = p->n - n < p->columns ? p->n - n : p->columns;
    const float *from = p->from + k * p->k_step + n * p->n_step;
    uint32_t *to = (uint32_t *)p->to + b * (PACK_ROWS / 2) * p->columns;
    if (p->k_step == 1) pack_turned(p, from, rows, count, to);
    else pack_straight(p, from, rows, count, to);
  }
}

#else

UNIC_LOOP_TABLE(linear_round);
UNIC_LOOP_TABLE(linear_pack);

static inline void linear_weight(struct pack *p) {
  if (!p->columns) {
    UNIC_RUN(linear_round, p->k * p->n, 16 * UNIC_ROW, p);
    return;
  }
  p->k_blocks = (p->k + PACK_ROWS - 1) / PACK_ROWS;
  UNIC_RUN(linear_pack, (p->n + p->columns - 1) / p->columns * p->k_blocks, 8, p);
}

#endif

#endif
