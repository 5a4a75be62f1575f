/* Counter-based random numbers: Philox 4x32-10 (Salmon et al., SC 2011), the same bits on every device.
 *
 * A generator is an i64 [2] tensor {seed, counter} on its device. An op that needs n numbers reads it, uses blocks counter, counter+1, ...
 * (four 32-bit numbers each), and adds ceil(n/4) to the counter; its backward gets the state it started from as a hidden output. */
#ifndef UNIC_RANDOM_H
#define UNIC_RANDOM_H

#include <stdint.h>

/* What stands before a function that GPU code calls too. */
#ifdef __CUDACC__
#define UNIC_BOTH static __host__ __device__ __forceinline__
#else
#define UNIC_BOTH static inline
#endif

/* Four numbers of block `block` under `seed`. */
UNIC_BOTH void unic_philox(uint64_t seed, uint64_t block, uint32_t out[4]) {
  uint32_t k0 = (uint32_t)seed, k1 = (uint32_t)(seed >> 32);
  uint32_t c0 = (uint32_t)block, c1 = (uint32_t)(block >> 32), c2 = 0, c3 = 0;
  for (int round = 0; round < 10; round++) {
    uint64_t p0 = (uint64_t)0xD2511F53u * c0, p1 = (uint64_t)0xCD9E8D57u * c2;
    uint32_t n0 = (uint32_t)(p1 >> 32) ^ c1 ^ k0, n2 = (uint32_t)(p0 >> 32) ^ c3 ^ k1;
    c1 = (uint32_t)p1; c3 = (uint32_t)p0; c0 = n0; c2 = n2;
    k0 += 0x9E3779B9u; k1 += 0xBB67AE85u;
  }
  out[0] = c0; out[1] = c1; out[2] = c2; out[3] = c3;
}

/* The bits of number i of a stream that starts at block `counter`. */
UNIC_BOTH uint32_t unic_random_bits(uint64_t seed, uint64_t counter, int64_t i) {
  uint32_t four[4];
  unic_philox(seed, counter + (uint64_t)(i >> 2), four);
  /* Not four[i & 3]: a GPU has no registers that are found by a number. */
  uint32_t even = i & 2 ? four[2] : four[0], odd = i & 2 ? four[3] : four[1];
  return i & 1 ? odd : even;
}

/* [0, 1) with 24 bits, from the top of the word. */
UNIC_BOTH float unic_random_uniform(uint32_t bits) { return (float)(bits >> 8) * 0x1p-24f; }

/* The threshold for "drop with probability p": an element is dropped when bits < threshold; p in [0, 1]. Exact to 2^-32. */
UNIC_BOTH uint64_t unic_random_threshold(double p) { return p <= 0 ? 0 : p >= 1 ? 0x100000000ull : (uint64_t)(p * 4294967296.0); }

/* Blocks used by n numbers. */
UNIC_BOTH int64_t unic_random_blocks(int64_t n) { return (n + 3) / 4; }

#endif
