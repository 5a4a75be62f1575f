/* PNG in the form that radiographs have: unpacked in one go (inflate.h), rows restored in place.
 *
 * Only a file that is in order is taken: every checksum of its picture, its length, its end. Source: the PNG specification (ISO/IEC 15948). */
#include "png.h"

#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#include "inflate.h"

typedef struct chunk {
  uint32_t type, length;
  const uint8_t *data;
} chunk;

#define TYPE(a, b, c, d) ((uint32_t)(a) << 24 | (uint32_t)(b) << 16 | (uint32_t)(c) << 8 | (uint32_t)(d))

static uint32_t read_u32(const uint8_t *p) { return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3]; }

/* The chunk at `at`, which moves behind it. Checksums of what is not looked at do not count, as with libpng. */
static bool next_chunk(const uint8_t *data, int64_t bytes, int64_t *at, chunk *c) {
  if (bytes - *at < 12) return false;
  c->length = read_u32(data + *at);
  c->type = read_u32(data + *at + 4);
  c->data = data + *at + 8;
  if (c->length > 0x7FFFFFFF || c->length > bytes - *at - 12) return false;
  *at += 12 + (int64_t)c->length;
  const bool used = c->type == TYPE('I', 'H', 'D', 'R') || c->type == TYPE('I', 'D', 'A', 'T') || c->type == TYPE('I', 'E', 'N', 'D');
  return !used || crc32(crc32(0, NULL, 0), c->data - 4, c->length + 4) == read_u32(c->data + c->length);
}

/* Head and packed bytes, which are put one behind the other. */
static bool read_chunks(const uint8_t *data, int64_t bytes, uint8_t head[13], uint8_t *packed, size_t *used) {
  int64_t at = 8;
  chunk c;
  enum { BEFORE, INSIDE, BEHIND } place = BEFORE;
  if (!next_chunk(data, bytes, &at, &c) || c.type != TYPE('I', 'H', 'D', 'R') || c.length != 13) return false;
  memcpy(head, c.data, 13);
  *used = 0;
  while (next_chunk(data, bytes, &at, &c)) {
    if (c.type == TYPE('I', 'D', 'A', 'T')) {
      if (place == BEHIND) return false;
      place = INSIDE;
      memcpy(packed + *used, c.data, c.length);
      *used += c.length;
    } else if (c.type == TYPE('I', 'E', 'N', 'D')) {
      return place != BEFORE && c.length == 0;
    } else {
      if (!(c.type >> 24 & 0x20)) return false;   /* one that a reader must know */
      if (place == INSIDE) place = BEHIND;
    }
  }
  return false;
}

/* ---------------------------------------------------------------- rows */

/* Each byte of a plus that of b. */
static inline uint64_t add_bytes(uint64_t a, uint64_t b) {
  const uint64_t low = 0x7F7F7F7F7F7F7F7Full;
  return ((a & low) + (b & low)) ^ ((a ^ b) & ~low);
}

static inline int nearest(int a, int b, int c) {
  const int p = b - c, q = a - c, from_a = abs(p), from_b = abs(q), from_c = abs(p + q);
  const int ab = from_a <= from_b ? a : b, least = from_a <= from_b ? from_a : from_b;
  return least <= from_c ? ab : c;
}

/* Row `from` with its filter undone into `to`, which begins before it (and may reach into what was read); `above` is the row before, NULL for zeros.
 * STEP is the bytes of a pixel, known to the compiler: as many chains run side by side. */
static inline __attribute__((always_inline)) bool restore(int filter, const uint8_t *from, uint8_t *to, const uint8_t *above, size_t n, const size_t step) {
  uint8_t left[8] = {0}, corner[8] = {0};
  if (!above) {
    if (filter == 2) filter = 0;
    if (filter == 4) filter = 1;   /* of a, 0, 0 the nearest is a */
  }
  switch (filter) {
    case 0:
      memmove(to, from, n);
      return true;
    case 1:
      for (size_t i = 0; i + step <= n; i += step)
        for (size_t k = 0; k < step; k++) to[i + k] = left[k] = (uint8_t)(left[k] + from[i + k]);
      return true;
    case 2: {
      size_t i = 0;
      for (; i + 8 <= n; i += 8) {
        uint64_t x, y;
        memcpy(&x, from + i, 8);
        memcpy(&y, above + i, 8);
        x = add_bytes(x, y);
        memcpy(to + i, &x, 8);
      }
      for (; i < n; i++) to[i] = (uint8_t)(from[i] + above[i]);
      return true;
    }
    case 3:
      for (size_t i = 0; i + step <= n; i += step)
        for (size_t k = 0; k < step; k++) to[i + k] = left[k] = (uint8_t)(from[i + k] + (left[k] + (above ? above[i + k] : 0)) / 2);
      return true;
    case 4:
      for (size_t i = 0; i + step <= n; i += step)
        for (size_t k = 0; k < step; k++) {
          const uint8_t b = above[i + k];
          to[i + k] = left[k] = (uint8_t)(from[i + k] + nearest(left[k], b, corner[k]));
          corner[k] = b;
        }
      return true;
    default:
      return false;
  }
}

static void swap_row(uint8_t *row, size_t n) {
  for (size_t i = 0; i + 2 <= n; i += 2) {
    uint16_t x;
    memcpy(&x, row + i, 2);
    x = (uint16_t)(x << 8 | x >> 8);
    memcpy(row + i, &x, 2);
  }
}

/* Rows with their filter bytes become rows without, in the same memory. 16-bit rows are swapped once the row below no longer needs them. */
static bool restore_rows(uint8_t *pixels, size_t row, int32_t height, size_t step, bool swap) {
  for (int32_t y = 0; y < height; y++) {
    const uint8_t *from = pixels + (size_t)y * (row + 1);
    uint8_t *to = pixels + (size_t)y * row, *above = y ? to - row : NULL;
    const int filter = *from++;
    const bool done = step == 1 ? restore(filter, from, to, above, row, 1) : step == 2 ? restore(filter, from, to, above, row, 2)
                    : step == 3 ? restore(filter, from, to, above, row, 3) : restore(filter, from, to, above, row, 6);
    if (!done) return false;
    if (swap && above) swap_row(above, row);
  }
  if (swap) swap_row(pixels + (size_t)(height - 1) * row, row);
  return true;
}

bool unic_png_decode_usual(unic_image *image, const char *name, const void *data, int64_t bytes) {
  const uint16_t one = 1;
  uint8_t head[13], *packed = malloc((size_t)bytes + UNIC_INFLATE_BEFORE);
  size_t used = 0;
  memset(image, 0, sizeof *image);
  bool done = packed && read_chunks(data, bytes, head, packed, &used);
  if (done) {
    const uint32_t width = read_u32(head), height = read_u32(head + 4);
    const int depth = head[8], channels = head[9] == 0 ? 1 : 3;
    const size_t step = (size_t)channels * (size_t)(depth / 8), row = width * step;
    done = (depth == 8 || depth == 16) && (head[9] == 0 || head[9] == 2) && head[10] == 0 && head[11] == 0 && head[12] == 0 &&
           width >= 1 && height >= 1 && width <= UNIC_IMAGE_PIXELS / height && (uint64_t)row * height / 1040 <= (uint64_t)bytes &&
           unic_image_allocate(image, name, "PNG", width, height, channels, depth) == UNIC_OK;
    if (done) {
      /* The filter bytes lie among the pixels until the rows are restored. */
      memset(packed + used, 0, UNIC_INFLATE_BEFORE);
      void *larger = realloc(image->pixels, (row + 1) * height + UNIC_INFLATE_BEHIND);
      if (larger) image->pixels = larger;
      done = larger && unic_inflate(packed, used, image->pixels, (row + 1) * height) &&
             restore_rows(image->pixels, row, (int32_t)height, step, depth == 16 && *(const uint8_t *)&one == 1);
    }
  }
  free(packed);
  if (!done) unic_image_free(image);
  return done;
}
