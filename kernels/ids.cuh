/* Positions that stand in tensors (i32 or i64, counted from 0), on the GPU: reading them, and telling which is the first one out of range. */
#ifndef UNIC_IDS_CUH
#define UNIC_IDS_CUH

#include "cuda.cuh"

/* ids of either type. */
struct unic_ids {
  const void *data;
  bool wide;               /* i64 */
};
static inline unic_ids unic_ids_of(const unic_view *v) { return {v->data, v->dtype == UNIC_I64}; }
static __device__ __forceinline__ int64_t unic_id(const unic_ids &ids, int64_t at) { return ids.wide ? ((const long long *)ids.data)[at] : ((const int *)ids.data)[at]; }

/* Note id number i, which is out of range, if none before it is: place(j) says where number j lies. Slow, and only where something is wrong: so the
 * sentence does not depend on which thread came first. */
template <class Place>
static __device__ __forceinline__ void unic_note_first(unic_cuda_flag *flag, int site, const unic_ids &ids, int64_t i, int64_t length, long long extra, Place place) {
  for (int64_t j = 0; j < i; j++) {
    int64_t id = unic_id(ids, place(j));
    if (id < 0 || id >= length) return;
  }
  unic_note(flag, site, unic_id(ids, place(i)), i, length - 1, extra);
}

#endif
