/* embedding on the GPU (kernels/embedding.c): rows of a table, and the sparse gradient of the table.
 *
 * Forward: a thread moves 16 bytes (or one element, where rows are not aligned) of a row; reads and writes y's bytes once. An id outside the table gives
 * zeros and a note.
 * Backward: the ids are sorted (sort.cuh), equal ones in their order, those that get nothing last. A warp takes an id's first place in that order and 32
 * groups of columns, and adds the rows of dy with this id to the table's row, in order; ids that occur more than LONG times (padding, types of segments) are
 * shared by the eight warps of a block, whose sums are joined in order. Only rows that occur are touched: dy is read once, their gradients read and written
 * once. */
#include "convert.cuh"
#include "ids.cuh"
#include "reduce.cuh"
#include "sort.cuh"

namespace {

enum { IDS, TABLE, PADDING };
enum { Y };
enum { THREADS = 256, WARPS = THREADS / 32, LONG = 64 };

struct alignas(16) chunk { unsigned long long a, b; };

template <class R>
__global__ void take_rows(unic_ids ids, const R *table, R *y, unic_split columns, int64_t n, int64_t rows, unic_cuda_flag *flag, int site) {
  for (int64_t i = blockIdx.x * (int64_t)THREADS + threadIdx.x; i < n; i += (int64_t)gridDim.x * THREADS) {
    const int64_t at = unic_outer(columns, i), column = i - at * columns.by, id = unic_id(ids, at);
    const bool inside = id >= 0 && id < rows;
    y[i] = inside ? table[id * columns.by + column] : R{};
    if (!inside && column == 0) unic_note_first(flag, site, ids, at, rows, 0, [](int64_t j) { return j; });
  }
}

/* The key of an id: its row, or `rows` for one that gets no gradient. */
__global__ void make_keys(unic_ids ids, int64_t n, int64_t rows, int64_t padding, uint32_t *keys) {
  for (int64_t i = blockIdx.x * (int64_t)blockDim.x + threadIdx.x; i < n; i += (int64_t)gridDim.x * blockDim.x) {
    int64_t id = unic_id(ids, i);
    keys[i] = (uint32_t)(id < 0 || id >= rows || id == padding ? rows : id);
  }
}

/* acc += rows s, s + step, ... of the sorted order, as long as they belong to `id`; V columns from `column` on. */
template <class T, class G, int V>
__device__ __forceinline__ void add_rows(const T *dy, const uint32_t *keys, const uint32_t *places, int64_t s, int64_t step, int64_t n, uint32_t id, int64_t columns, int64_t column, bool mine, G (&acc)[V]) {
  constexpr int AHEAD = 4;
  for (; s < n && keys[s] == id; s += AHEAD * step) {
    unic_wide<T> row[AHEAD][V];
    bool there[AHEAD];
#pragma unroll
    for (int a = 0; a < AHEAD; a++) {
      there[a] = s + a * step < n && keys[s + a * step] == id;
#pragma unroll
      for (int j = 0; j < V; j++) row[a][j] = 0;
      if (there[a] && mine) unic_load<V>(dy + places[s + a * step] * columns + column, row[a]);
    }
#pragma unroll
    for (int a = 0; a < AHEAD; a++)
#pragma unroll
      for (int j = 0; j < V; j++) acc[j] += row[a][j];
  }
}

/* Block (x, y): sorted places 8 x .. 8 x + 7, one for each warp; columns 32 V y and on. */
template <class T, class G, int V>
__global__ void add_gradients(const T *dy, const uint32_t *keys, const uint32_t *places, G *dtable, int64_t n, int64_t rows, int64_t columns) {
  UNIC_SHARED(G, room, [WARPS][32 * V]);
  const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
  const int64_t column = (blockIdx.y * (int64_t)32 + lane) * V;
  const bool mine = column < columns;
  for (int64_t first = (int64_t)blockIdx.x * WARPS; first < n; first += (int64_t)gridDim.x * WARPS) {
    for (int w = 0; w < WARPS; w++) {
      /* The same for all threads of the block: is this the first place of an id, and how many has it? */
      const int64_t s = first + w;
      if (s >= n) break;
      const uint32_t id = keys[s];
      if (id >= rows || (s > 0 && keys[s - 1] == id)) continue;
      const bool shared = s + LONG < n && keys[s + LONG] == id;
      G acc[V];
#pragma unroll
      for (int j = 0; j < V; j++) acc[j] = 0;
      if (!shared) {
        if (warp != w) continue;
        if (mine) unic_load<V>(dtable + id * columns + column, acc);
        add_rows<T, G, V>(dy, keys, places, s, 1, n, id, columns, column, mine, acc);
        if (mine) unic_store<V>(dtable + id * columns + column, acc);
        continue;
      }
      add_rows<T, G, V>(dy, keys, places, s + warp, WARPS, n, id, columns, column, mine, acc);
#pragma unroll
      for (int j = 0; j < V; j++) room[warp][lane * V + j] = acc[j];
      __syncthreads();
      if (warp == w && mine) {
        unic_load<V>(dtable + id * columns + column, acc);
        for (int other = 0; other < WARPS; other++) {
#pragma unroll
          for (int j = 0; j < V; j++) acc[j] += room[other][lane * V + j];
        }
        unic_store<V>(dtable + id * columns + column, acc);
      }
      __syncthreads();
    }
  }
}

unic_status forward(const unic_kernel *k) {
  const unic_view *ids = &k->in[IDS], *table = &k->in[TABLE];
  const int64_t rows = table->shape[0], bytes = table->shape[1] * unic_size_of(table->dtype);
  if (ids->numel == 0 || bytes == 0) return UNIC_OK;
  const int site = unic_cuda_site("[embedding] argument 'ids': value %lld at position %lld is outside 0..%lld, the rows of the table");
  auto launch = [&](auto r) {
    using R = decltype(r);
    const int64_t columns = bytes / (int64_t)sizeof(R), n = ids->numel * columns;
    UNIC_LAUNCH((take_rows<R>), unic_blocks(k, n, THREADS), THREADS, 0, unic_cuda_stream(k), unic_ids_of(ids), (const R *)table->data, (R *)k->out[Y].data, unic_split_of(columns), n, rows,
                unic_cuda_of(k)->flag, site);
  };
  if (bytes % 16 == 0 && unic_aligned16((char *)table->data, (char *)k->out[Y].data)) launch(chunk());
  else unic_raw(unic_size_of(table->dtype), launch);
  return UNIC_OK;
}

unic_status plan(const unic_kernel *k, unic_plan *p) {
  if (k->backward && k->in[IDS].numel) p->scratch = unic_cuda_sort_bytes(1, k->in[IDS].numel, 4);
  return UNIC_OK;
}

unic_status backward(const unic_kernel *k) {
  const unic_view *ids = &k->in[IDS], *table = &k->in[TABLE];
  const int64_t n = ids->numel, rows = table->shape[0], columns = table->shape[1];
  if (!k->dout[Y].data || !k->din[TABLE].data || n == 0 || columns == 0) return UNIC_OK;
  cudaStream_t stream = unic_cuda_stream(k);
  UNIC_LAUNCH(make_keys, unic_blocks(k, n, THREADS), THREADS, 0, stream, unic_ids_of(ids), n, rows, k->arg[PADDING].integer, (uint32_t *)k->scratch);
  const unic_sorted sorted = unic_cuda_sort(k, k->scratch, 1, n, 4, unic_bits_of(rows));
  unic_floats(table->dtype, [&](auto t) {
    using T = decltype(t);
    using G = unic_wide<T>;
    auto launch = [&](auto width) {
      constexpr int V = decltype(width)::value;
      dim3 grid(unic_blocks(k, n * 32, THREADS), (unsigned)((columns + 32 * V - 1) / (32 * V)));
      UNIC_LAUNCH((add_gradients<T, G, V>), grid, THREADS, 0, stream, (const T *)k->dout[Y].data, (const uint32_t *)sorted.keys, sorted.ids, (G *)k->din[TABLE].data, n, rows, columns);
    };
    constexpr int V = sizeof(T) < 8 ? 4 : 2;
    if (columns % V == 0 && unic_aligned16((char *)k->dout[Y].data, (char *)k->din[TABLE].data)) launch(std::integral_constant<int, V>());
    else launch(std::integral_constant<int, 1>());
  });
  return UNIC_OK;
}

}

UNIC_CUDA_OPS(embedding, {"embedding", {.forward = forward, .backward = backward, .plan = plan}});
