/* A square matrix of products that is never whole in memory: rows first .. first + rows of it at a time, of which losses are made and whose gradients go
 * into further products. What info_nce.cu and cross_correlation.cu share. */
#ifndef UNIC_PANELS_CUH
#define UNIC_PANELS_CUH

#include "cuda/blas.h"
#include "rows.cuh"

#include <stdlib.h>

enum { UNIC_PANEL_ELEMENTS = 1 << 24, UNIC_PANEL_PRODUCTS = 3 };   /* 64 MB of f32: enough rows to fill the device */

/* The products of a panel, and of the last one, which may be shorter. */
typedef struct unic_panels {
  int64_t n, rows, scratch;        /* of the matrix; of a panel; bytes for the products */
  bool made[UNIC_PANEL_PRODUCTS];
  unic_cuda_product product[2][UNIC_PANEL_PRODUCTS];
} unic_panels;

/* Fills in product `which` of a panel of so many rows; false: there is none. */
typedef bool unic_panels_fn(const unic_kernel *k, int which, int64_t rows, bool more, unic_cuda_product *p);

static inline int64_t unic_panel_rows(int64_t n) {
  int64_t rows = UNIC_PANEL_ELEMENTS / (n > 0 ? n : 1);
  if (rows < 128) rows = 128;
  return rows < n ? rows : n;
}

/* Bytes in whole pieces of 256, as products want their scratch. */
static inline int64_t unic_panel_bytes(int64_t elements, int64_t size) { return (elements * size + 255) & ~(int64_t)255; }

static void unic_panels_free(void *data) {
  unic_panels *s = (unic_panels *)data;
  for (int last = 0; last < 2; last++)
    for (int i = 0; i < UNIC_PANEL_PRODUCTS; i++)
      if (s->made[i]) unic_cuda_product_free(&s->product[last][i]);
  free(s);
}

/* Plans the products of a matrix of n rows into p->data. */
static inline unic_status unic_panels_plan(const unic_kernel *k, int64_t n, unic_panels_fn *make, unic_plan *p, unic_panels **out) {
  unic_panels *s = (unic_panels *)calloc(1, sizeof *s);
  if (!s) return unic_fail("[%s] no host memory", unic_cuda_host->op_name(k->op));
  s->n = n;
  s->rows = unic_panel_rows(n);
  p->data = s;
  p->free = unic_panels_free;
  *out = s;
  if (n == 0) return UNIC_OK;
  const int64_t last = (n - 1) % s->rows + 1;
  for (int i = 0; i < UNIC_PANEL_PRODUCTS; i++) {
    s->made[i] = make(k, i, s->rows, n > s->rows, &s->product[0][i]);
    if (!s->made[i]) continue;
    make(k, i, last, n > s->rows, &s->product[1][i]);
    for (int j = 0; j < 2; j++) {
      UNIC_TRY(unic_cuda_product_plan(k, &s->product[j][i]));
      if (s->product[j][i].scratch > s->scratch) s->scratch = s->product[j][i].scratch;
    }
  }
  return UNIC_OK;
}

static inline unic_status unic_panels_run(const unic_kernel *k, const unic_panels *s, int which, int64_t first, const void *a, const void *b, void *d, void *scratch) {
  return unic_cuda_product_run(k, &s->product[first + s->rows >= s->n][which], a, b, d, nullptr, scratch);
}

/* The sum of n f64 values by one block, times `by`, as a scalar; with `add`, onto what is there. */
template <class W> static __global__ void __launch_bounds__(1024) unic_panels_total(const double *values, int64_t n, double by, W *to, bool add) {
  UNIC_SHARED(double, room, [32]);
  double sum = 0;
  for (int64_t i = threadIdx.x; i < n; i += 1024) sum += values[i];
  sum = unic_block_sum(sum, room);
  if (threadIdx.x == 0) *to = (W)((double)(W)(sum * by) + (add ? (double)*to : 0.0));
}

#endif
