/* Pixels before they are tensors: from a decoded picture to square bytes, and what augmentation does to planes. */
#include "image.h"

#include <math.h>
#include <string.h>

/* ---------------------------------------------------------------- preparing */

static inline double sample(const void *in, int bits, int64_t at) {
  return bits == 8 ? (double)((const uint8_t *)in)[at] : (double)((const uint16_t *)in)[at];
}

typedef struct box { int32_t top, left, bottom, right; } box;   /* bottom and right lie outside */

static bool row_is_zero(const uint8_t *row, int64_t bytes) {
  uint64_t eight;
  while (bytes >= 8) {
    memcpy(&eight, row, 8);
    if (eight) return false;
    row += 8;
    bytes -= 8;
  }
  while (bytes-- > 0) if (*row++) return false;
  return true;
}

static box box_of_nonzero(const void *in, int bits, int32_t height, int32_t width) {
  const int64_t pitch = (int64_t)width * (bits / 8);
  const uint8_t *rows = in;
  box b = {0, 0, height, width};
  while (b.top < height && row_is_zero(rows + b.top * pitch, pitch)) b.top++;
  if (b.top == height) return (box){0, 0, height, width};
  while (row_is_zero(rows + (b.bottom - 1) * pitch, pitch)) b.bottom--;
  b.left = width;
  b.right = 0;
  for (int32_t y = b.top; y < b.bottom; y++) {
    const int64_t row = (int64_t)y * width;
    /* Only outside of what is known to lie in the box. */
    for (int32_t x = 0; x < b.left; x++) if (sample(in, bits, row + x) != 0) { b.left = x; break; }
    for (int32_t x = width - 1; x >= b.right; x--) if (sample(in, bits, row + x) != 0) { b.right = x + 1; break; }
  }
  return b;
}

static void range8(const uint8_t *p, int64_t n, int *low, int *high) {
  uint8_t least = 255, most = 0;
#pragma omp simd reduction(min : least) reduction(max : most)
  for (int64_t i = 0; i < n; i++) {
    least = p[i] < least ? p[i] : least;
    most = p[i] > most ? p[i] : most;
  }
  if (least < *low) *low = least;
  if (most > *high) *high = most;
}

static void range16(const uint16_t *p, int64_t n, int *low, int *high) {
  uint16_t least = 65535, most = 0;
#pragma omp simd reduction(min : least) reduction(max : most)
  for (int64_t i = 0; i < n; i++) {
    least = p[i] < least ? p[i] : least;
    most = p[i] > most ? p[i] : most;
  }
  if (least < *low) *low = least;
  if (most > *high) *high = most;
}

/* Where output pixel `at` of `out` lies among `in` pixels: between first and second, `share` of the way. Mirrored at the ends without
 * repeating the end pixel. */
typedef struct tap { int32_t first, second; double share; } tap;

static int32_t mirror(int32_t i, int32_t n) {
  if (i < 0) i = -i;
  if (i >= n) i = 2 * (n - 1) - i;
  return i < 0 ? 0 : i;   /* n == 1 */
}

static tap tap_at(int32_t at, int32_t in, int32_t out) {
  const double position = ((double)at + 0.5) * in / out - 0.5;
  const double below = floor(position);
  const int32_t i = (int32_t)below;
  return (tap){mirror(i, in), mirror(i + 1, in), position - below};
}

void unic_image_prepare(const void *in, int bits, int32_t height, int32_t width, const unic_prepare *how, uint8_t *out) {
  const int32_t size = how->size;
  const box b = how->crop ? box_of_nonzero(in, bits, height, width) : (box){0, 0, height, width};
  const int32_t rows = b.bottom - b.top, columns = b.right - b.left;
  double offset = 0, range = bits == 8 ? 255 : 65535;   /* what becomes 0, and how much above it 255 */
  if (how->stretch) {
    int low = 65535, high = 0;
    for (int32_t y = b.top; y < b.bottom; y++) {
      const int64_t from = (int64_t)y * width + b.left;
      if (bits == 8) range8((const uint8_t *)in + from, columns, &low, &high);
      else range16((const uint16_t *)in + from, columns, &low, &high);
    }
    offset = low;
    range = high > low ? high - low : INFINITY;
  }
  enum { STRIP = 64 };   /* taps of the columns are worked out once per strip and row of strips, so that none are allocated */
  for (int32_t x0 = 0; x0 < size; x0 += STRIP) {
    tap across[STRIP];
    const int32_t n = size - x0 < STRIP ? size - x0 : STRIP;
    for (int32_t x = 0; x < n; x++) across[x] = tap_at(x0 + x, columns, size);
    for (int32_t y = 0; y < size; y++) {
      const tap down = tap_at(y, rows, size);
      const int64_t upper = (int64_t)(b.top + down.first) * width + b.left, lower = (int64_t)(b.top + down.second) * width + b.left;
      uint8_t *to = out + (int64_t)y * size + x0;
      for (int32_t x = 0; x < n; x++) {
        const tap t = across[x];
        const double top = sample(in, bits, upper + t.first) * (1 - t.share) + sample(in, bits, upper + t.second) * t.share;
        const double bottom = sample(in, bits, lower + t.first) * (1 - t.share) + sample(in, bits, lower + t.second) * t.share;
        const double value = (top * (1 - down.share) + bottom * down.share - offset) * 255 / range + 0.5;
        to[x] = value >= 255 ? 255 : value <= 0 ? 0 : (uint8_t)value;
      }
    }
  }
}

/* ---------------------------------------------------------------- geometry */

void unic_image_resize(const float *in, int32_t height, int32_t width, float *out, int32_t out_height, int32_t out_width) {
  enum { STRIP = 64 };
  for (int32_t x0 = 0; x0 < out_width; x0 += STRIP) {
    tap across[STRIP];
    const int32_t n = out_width - x0 < STRIP ? out_width - x0 : STRIP;
    for (int32_t x = 0; x < n; x++) across[x] = tap_at(x0 + x, width, out_width);
    for (int32_t y = 0; y < out_height; y++) {
      const tap down = tap_at(y, height, out_height);
      const float *upper = in + (int64_t)down.first * width, *lower = in + (int64_t)down.second * width;
      float *to = out + (int64_t)y * out_width + x0;
      for (int32_t x = 0; x < n; x++) {
        const tap t = across[x];
        const double top = upper[t.first] * (1 - t.share) + upper[t.second] * t.share;
        const double bottom = lower[t.first] * (1 - t.share) + lower[t.second] * t.share;
        to[x] = (float)(top * (1 - down.share) + bottom * down.share);
      }
    }
  }
}

void unic_image_crop(const float *in, int32_t width, int32_t top, int32_t left, float *out, int32_t out_height, int32_t out_width) {
  for (int32_t y = 0; y < out_height; y++)
    memcpy(out + (int64_t)y * out_width, in + (int64_t)(top + y) * width + left, (size_t)out_width * sizeof *out);
}

void unic_image_map(int32_t height, int32_t width, double degrees, double shear_degrees, double scale, double dx, double dy, double m[6]) {
  const double radians = degrees * 0.017453292519943295, slope = tan(shear_degrees * 0.017453292519943295);
  const double c = cos(radians), s = sin(radians), cx = width / 2.0, cy = height / 2.0;
  /* Rows grow downwards, so counter-clockwise on the screen is turn = [c, s; -s, c]; its inverse is [c, -s; s, c], that of the shear
   * [1, tan; 0, 1]: input = turn^-1 shear^-1 (output - centre - shift) / scale + centre. */
  m[0] = c / scale;
  m[1] = (c * slope - s) / scale;
  m[3] = s / scale;
  m[4] = (s * slope + c) / scale;
  m[2] = cx - m[0] * (cx + dx) - m[1] * (cy + dy);
  m[5] = cy - m[3] * (cx + dx) - m[4] * (cy + dy);
}

/* Positions in the input as integers with 32 bits behind the point: steps along a row add up without error, and no rounding mode or fused
 * multiply decides which pixel is taken. */
static inline int64_t fixed(double x) {
  const double limit = 1 << 29;   /* far outside of any picture, far inside of 64 bits; NaN becomes the lower limit */
  return (int64_t)rint((x > -limit ? x < limit ? x : limit : -limit) * 0x1p32);
}

void unic_image_warp_nearest(const float *in, int32_t height, int32_t width, const double m[6], float *out) {
  const int64_t step_x = fixed(m[0]), step_y = fixed(m[3]);
  for (int32_t y = 0; y < height; y++) {
    int64_t sx = fixed(m[0] * 0.5 + m[1] * (y + 0.5) + m[2]), sy = fixed(m[3] * 0.5 + m[4] * (y + 0.5) + m[5]);
    float *to = out + (int64_t)y * width;
    for (int32_t x = 0; x < width; x++, sx += step_x, sy += step_y) {
      const uint64_t px = (uint64_t)(sx >> 32), py = (uint64_t)(sy >> 32);   /* negative ones become huge */
      to[x] = px < (uint64_t)width && py < (uint64_t)height ? in[(int64_t)py * width + (int64_t)px] : 0;
    }
  }
}

static inline int32_t clamp_index(int64_t i, int32_t n) { return i < 0 ? 0 : i >= n ? n - 1 : (int32_t)i; }

static inline float zero_outside(const float *in, int32_t height, int32_t width, int64_t x, int64_t y) {
  return (uint64_t)x < (uint64_t)width && (uint64_t)y < (uint64_t)height ? in[y * width + x] : 0;
}

void unic_image_warp_linear(const float *in, int32_t height, int32_t width, const double m[6], bool edge, float *out) {
  const int64_t step_x = fixed(m[0]), step_y = fixed(m[3]), half = INT64_C(1) << 31;
  for (int32_t y = 0; y < height; y++) {
    int64_t sx = fixed(m[0] * 0.5 + m[1] * (y + 0.5) + m[2]) - half, sy = fixed(m[3] * 0.5 + m[4] * (y + 0.5) + m[5]) - half;
    float *to = out + (int64_t)y * width;
    for (int32_t x = 0; x < width; x++, sx += step_x, sy += step_y) {
      const int64_t px = sx >> 32, py = sy >> 32;
      const float across = (float)((uint32_t)sx >> 8) * 0x1p-24f, down = (float)((uint32_t)sy >> 8) * 0x1p-24f;
      float a, b, c, d;
      if ((uint64_t)px < (uint64_t)(width - 1) && (uint64_t)py < (uint64_t)(height - 1)) {
        const float *from = in + py * width + px;
        a = from[0];
        b = from[1];
        c = from[width];
        d = from[width + 1];
      } else if (edge) {
        const int32_t x0 = clamp_index(px, width), x1 = clamp_index(px + 1, width);
        const int64_t y0 = (int64_t)clamp_index(py, height) * width, y1 = (int64_t)clamp_index(py + 1, height) * width;
        a = in[y0 + x0];
        b = in[y0 + x1];
        c = in[y1 + x0];
        d = in[y1 + x1];
      } else {
        a = zero_outside(in, height, width, px, py);
        b = zero_outside(in, height, width, px + 1, py);
        c = zero_outside(in, height, width, px, py + 1);
        d = zero_outside(in, height, width, px + 1, py + 1);
      }
      const float top = a + (b - a) * across, bottom = c + (d - c) * across;
      to[x] = top + (bottom - top) * down;
    }
  }
}

void unic_image_flip(float *pixels, int32_t height, int32_t width) {
  for (int32_t y = 0; y < height; y++) {
    float *row = pixels + (int64_t)y * width;
    for (int32_t a = 0, b = width - 1; a < b; a++, b--) {
      const float x = row[a];
      row[a] = row[b];
      row[b] = x;
    }
  }
}

/* ---------------------------------------------------------------- values */

void unic_image_contrast(float *pixels, int64_t count) {
  float low = INFINITY, high = -INFINITY;
#pragma omp simd reduction(min : low) reduction(max : high)
  for (int64_t i = 0; i < count; i++) {
    low = pixels[i] < low ? pixels[i] : low;
    high = pixels[i] > high ? pixels[i] : high;
  }
  if (!(high > low)) return;
  const float range = high - low;
#pragma omp simd
  for (int64_t i = 0; i < count; i++) pixels[i] = (pixels[i] - low) / range;   /* in 0..1: both ends are values of the plane */
}

void unic_image_gamma(float *pixels, int64_t count, float gamma) {
  if (gamma == 1) return;
  for (int64_t i = 0; i < count; i++) pixels[i] = pixels[i] > 0 ? powf(pixels[i], gamma) : 0;
}

void unic_image_noise(float *pixels, int64_t count, float amount, unic_stream *random) {
  /* One byte has the variance (256^2 - 1) / 12; four of them sum to 510 on average. */
  const float scale = amount / 147.8f;
  for (int64_t i = 0; i < count; i++) {
    const uint32_t bits = unic_stream_bits(random);
    const uint32_t pairs = (bits & 0x00FF00FFu) + ((bits >> 8) & 0x00FF00FFu);
    const float x = pixels[i] + ((float)((pairs & 0xFFFF) + (pairs >> 16)) - 510.0f) * scale;
    pixels[i] = x < 0 ? 0 : x > 1 ? 1 : x;
  }
}

void unic_image_normalize(float *pixels, int64_t count, float mean, float deviation) {
#pragma omp simd
  for (int64_t i = 0; i < count; i++) pixels[i] = (pixels[i] - mean) / deviation;
}
