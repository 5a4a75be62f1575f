/* Random numbers for the data pipeline: one stream for each (seed, epoch, item, purpose), so that neither the number of workers nor the
 * point at which a run was resumed changes what is drawn. The numbers are Philox's (random.h); the names of a stream become its key. */
#ifndef UNIC_DATA_STREAM_H
#define UNIC_DATA_STREAM_H

#include <math.h>
#include <stdbool.h>
#include <stddef.h>

#include "../random.h"

typedef struct unic_stream {
  uint64_t key, block;
  uint32_t four[4];
  int left;   /* of the four */
} unic_stream;

/* The finaliser of SplitMix64 (Steele, Lea, Flood 2014): a bijection in which every bit reaches every other. */
static inline uint64_t unic_mix(uint64_t z) {
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
  return z ^ (z >> 31);
}

/* FNV-1a over bytes, for names and contents; begin with UNIC_FNV. */
#define UNIC_FNV UINT64_C(0xCBF29CE484222325)
static inline uint64_t unic_fnv(uint64_t hash, const void *data, size_t bytes) {
  const uint8_t *p = data;
  for (size_t i = 0; i < bytes; i++) hash = (hash ^ p[i]) * 0x100000001B3u;
  return hash;
}

static inline unic_stream unic_stream_open(uint64_t seed, uint64_t epoch, uint64_t item, uint64_t purpose) {
  uint64_t key = unic_mix(seed + 0x9E3779B97F4A7C15u);
  key = unic_mix((key ^ epoch) + 0x9E3779B97F4A7C15u);
  key = unic_mix((key ^ item) + 0x9E3779B97F4A7C15u);
  key = unic_mix((key ^ purpose) + 0x9E3779B97F4A7C15u);
  return (unic_stream){.key = key};
}

static inline uint32_t unic_stream_bits(unic_stream *s) {
  if (!s->left) {
    unic_philox(s->key, s->block++, s->four);
    s->left = 4;
  }
  return s->four[4 - s->left--];
}

/* (0, 1), never its ends. */
static inline double unic_stream_uniform(unic_stream *s) { return ((double)unic_stream_bits(s) + 0.5) * 0x1p-32; }

static inline double unic_stream_range(unic_stream *s, double low, double high) { return low + (high - low) * unic_stream_uniform(s); }

/* True with probability p: exact at 0 and at 1. */
static inline bool unic_stream_chance(unic_stream *s, double p) { return unic_stream_bits(s) < unic_random_threshold(p); }

/* 0 .. n - 1 for n of up to 2^31; the bias is below n / 2^64. */
static inline int64_t unic_stream_below(unic_stream *s, int64_t n) {
  uint64_t high = unic_stream_bits(s), bits = high << 32 | unic_stream_bits(s);
  /* The upper 64 bits of bits * n, n being short. */
  uint64_t low = (bits & 0xFFFFFFFFu) * (uint64_t)n;
  return (int64_t)(((bits >> 32) * (uint64_t)n + (low >> 32)) >> 32);
}

static inline double unic_stream_normal(unic_stream *s) {
  double u = unic_stream_uniform(s), v = unic_stream_uniform(s);
  return sqrt(-2 * log(u)) * cos(6.283185307179586 * v);
}

#endif
