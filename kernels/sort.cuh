/* Lines of keys in ascending order, stable, on the GPU (sort.cu): for sort and topk, and for sums over equal positions (index.cu, embedding.cu), which are
 * made in the order of the positions so, without atomics. */
#ifndef UNIC_SORT_CUH
#define UNIC_SORT_CUH

#include "cuda.cuh"

/* Where sorted keys lie, and where each of them stood in its line (counted from 0): both [lines, length], in the scratch. */
struct unic_sorted {
  const void *keys;
  const uint32_t *ids;
};

/* Bytes of scratch for keys of 4 or 8 bytes; length below 2^32. */
int64_t unic_cuda_sort_bytes(int64_t lines, int64_t length, int key_size);
/* Sort lines of unsigned keys of which the lowest `bits` count (the others are 0); they stand at the beginning of the scratch, [lines, length], and are
 * overwritten. */
unic_sorted unic_cuda_sort(const unic_kernel *k, void *scratch, int64_t lines, int64_t length, int key_size, int bits);

/* Bits of the numbers 0 .. most. */
static inline int unic_bits_of(int64_t most) {
  int bits = 0;
  while (most >> bits) bits++;
  return bits;
}

#endif
