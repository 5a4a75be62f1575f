/* cat, stack on the GPU (cat.c): members one after the other along a dimension, or side by side along a new one; the gradient of each member is its window
 * of dy. Moves only: each byte is read once and written once.
 *
 * Members that lie in memory as their windows do (row-major into row-major, channels-last into channels-last) go together, MOST to a launch: y is then
 * rows of a fixed pitch, each holding a piece of every member. Anything else is moved member by member (copy.cu). */
#include "move.cuh"
#include "walk.cuh"

namespace {

enum { XS, DIM };
enum { MOST = 128 };

/* Members of one launch; lengths in units of 1 to 16 bytes. */
struct members {
  int32_t count;
  uint32_t units;                     /* of all members in all rows */
  unic_divider row;                   /* units of all members in one row */
  int64_t pitch;                      /* from one row of y to the next */
  void *data[MOST];
  int64_t offset[MOST];               /* of the member's piece in a row of y */
  uint32_t first[MOST + 1];           /* units of the members before, in a row */
};

template <class U> __global__ void __launch_bounds__(UNIC_MAP_THREADS) cat_kernel(UNIC_ARGUMENT members s, U *y, int into_members) {
  for (uint32_t i = blockIdx.x * blockDim.x + threadIdx.x; i < s.units; i += gridDim.x * blockDim.x) {
    const uint32_t row = unic_divide(i, s.row), column = i - row * s.row.by;
    int low = 0, high = s.count - 1;
    while (low < high) {
      const int middle = (low + high + 1) / 2;
      if (s.first[middle] <= column) low = middle;
      else high = middle - 1;
    }
    const uint32_t length = s.first[low + 1] - s.first[low], within = column - s.first[low];
    U *here = y + row * s.pitch + s.offset[low] + within, *there = (U *)s.data[low] + (int64_t)row * length + within;
    if (into_members) *there = *here;
    else *here = *there;
  }
}

/* What is known of a batch while it gathers, in bytes. */
struct batch {
  int count;
  int64_t rows, pitch;
  void *data[MOST];
  int64_t offset[MOST], length[MOST];
};

void launch(const unic_kernel *k, batch *b, void *y, int into_members) {
  if (b->count == 0) return;
  uintptr_t odd = (uintptr_t)y | (uintptr_t)(b->rows > 1 ? b->pitch : 0);
  int64_t row = 0;
  for (int m = 0; m < b->count; m++) {
    odd |= (uintptr_t)b->data[m] | (uintptr_t)b->offset[m] | (uintptr_t)b->length[m];
    row += b->length[m];
  }
  int unit = 16;
  while (odd & (uintptr_t)(unit - 1)) unit /= 2;
  members s = {};
  s.count = b->count;
  s.units = (uint32_t)(row / unit * b->rows);
  s.row = unic_divider_of((uint32_t)(row / unit));
  s.pitch = b->pitch / unit;
  for (int m = 0; m < b->count; m++) {
    s.data[m] = b->data[m];
    s.offset[m] = b->offset[m] / unit;
    s.first[m + 1] = s.first[m] + (uint32_t)(b->length[m] / unit);
  }
  auto go = [&](auto u) {
    using U = decltype(u);
    UNIC_LAUNCH((cat_kernel<U>), unic_blocks(k, s.units, UNIC_MAP_THREADS), UNIC_MAP_THREADS, 0, unic_cuda_stream(k), s, (U *)y, into_members);
  };
  switch (unit) {
    case 16: go(uint4()); break;
    case 8: go((unsigned long long)0); break;
    case 4: go((unsigned int)0); break;
    case 2: go((unsigned short)0); break;
    default: go((unsigned char)0);
  }
  b->count = 0;
}

/* Rows of `length` bytes, as x lies and as its window does? */
bool lies_alike(const unic_view *window, const unic_view *x, int64_t *rows, int64_t *length, int64_t *pitch) {
  unic_walk w;
  const int size = unic_size_of(x->dtype);
  const unic_view *const views[2] = {window, x};
  unic_walk_init(&w, 2, views);
  const int inner = w.ndim - 1;
  if (w.ndim > 2 || (w.shape[inner] > 1 && (w.stride[0][inner] != 1 || w.stride[1][inner] != 1)) || w.numel * size >= INT64_C(1) << 30) return false;
  if (w.ndim == 2 && w.stride[1][0] != w.shape[1]) return false;
  *rows = w.ndim == 2 ? w.shape[0] : 1;
  *length = w.shape[inner] * size;
  *pitch = w.ndim == 2 ? w.stride[0][0] * size : 0;
  return *pitch >= 0;
}

template <bool stack> unic_status each(const unic_kernel *k) {
  const unic_view *y = k->backward ? &k->dout[0] : &k->out[0];
  int dim = unic_dim_of(k->arg[DIM].integer, y->ndim);
  int64_t at = 0, bytes = 0;
  batch b;
  b.count = 0;
  for (int64_t m = 0; m < k->arg[XS].integer; m++) {
    const unic_view *x = k->backward ? &k->dlist[XS][m] : &k->list[XS][m];
    int64_t length = stack ? 1 : k->list[XS][m].shape[dim];
    unic_view window = stack ? unic_view_select(y, dim, at) : unic_view_narrow(y, dim, at, length);
    at += length;
    if (x->numel == 0 || (k->backward && !x->present)) continue;
    int64_t rows, piece, pitch;
    if (!lies_alike(&window, x, &rows, &piece, &pitch)) {
      if (k->backward) unic_cuda_move(k, x, &window);
      else unic_cuda_move(k, &window, x);
      continue;
    }
    if (b.count == MOST || (b.count && (b.rows != rows || b.pitch != pitch || bytes + rows * piece >= INT64_C(1) << 30))) launch(k, &b, y->data, k->backward);
    if (b.count == 0) {
      b.rows = rows;
      b.pitch = pitch;
      bytes = 0;
    }
    b.data[b.count] = x->data;
    b.offset[b.count] = (char *)window.data - (char *)y->data;
    b.length[b.count++] = piece;
    bytes += rows * piece;
  }
  launch(k, &b, y->data, k->backward);
  return UNIC_OK;
}

}

UNIC_CUDA_OPS(cat, {"cat", {.forward = each<false>, .backward = each<false>}}, {"stack", {.forward = each<true>, .backward = each<true>}});
