/* What is done to pixels before they are tensors: radiographs made square bytes (pretraining's step 1.4), and the arithmetic of the
 * augmentations. Pictures here are planes of floats, [height][width], top row first; several channels are several calls.
 *
 * Coordinates: pixel (x, y) covers [x, x + 1) x [y, y + 1), its centre is at the half. Every function is single-threaded and may run on
 * any thread; none allocates. Input and output never overlap unless a function says so. */
#ifndef UNIC_DATA_IMAGE_H
#define UNIC_DATA_IMAGE_H

#include <stdbool.h>
#include <stdint.h>

#include "stream.h"

/* How a decoded picture becomes a stored one. */
typedef struct unic_prepare {
  int32_t size;   /* the stored picture is size x size */
  bool crop;      /* to the bounding box of the pixels that are not zero; a picture of zeros is left whole */
  bool stretch;   /* least value -> 0, greatest -> 255; a constant picture becomes zeros. Without it 16 bits are divided by 257 */
} unic_prepare;

/* in: uint8_t or uint16_t [height][width], by `bits`; out: [size][size]. The resize is bilinear between pixel centres without
 * anti-aliasing, and mirrors at the edges without repeating the edge pixel (what skimage calls "reflect"). Cropping, stretching and
 * resizing are done in one go and rounded once. */
void unic_image_prepare(const void *in, int bits, int32_t height, int32_t width, const unic_prepare *how, uint8_t *out);

/* The same resize on a plane. */
void unic_image_resize(const float *in, int32_t height, int32_t width, float *out, int32_t out_height, int32_t out_width);

/* A piece of out_height x out_width from (top, left) on. */
void unic_image_crop(const float *in, int32_t width, int32_t top, int32_t left, float *out, int32_t out_height, int32_t out_width);

/* m maps a point of the output to the point of the input it shows: x' = m[0] x + m[1] y + m[2], y' = m[3] x + m[4] y + m[5]. */
void unic_image_warp_nearest(const float *in, int32_t height, int32_t width, const double m[6], float *out);   /* 0 outside */
/* Bilinear; outside: 0 that the edge blends into, or (`edge`) the nearest edge pixel. */
void unic_image_warp_linear(const float *in, int32_t height, int32_t width, const double m[6], bool edge, float *out);

/* The map for turning counter-clockwise by `degrees` about the centre, shearing, scaling, and shifting (in pixels), as seen in the
 * picture: p' = scale * shear * turn * p + shift, with shear = [1, -tan(phi); 0, 1], p measured from the centre. Gives the inverse. */
void unic_image_map(int32_t height, int32_t width, double degrees, double shear_degrees, double scale, double dx, double dy, double m[6]);

void unic_image_flip(float *pixels, int32_t height, int32_t width);               /* left to right, in place */
void unic_image_contrast(float *pixels, int64_t count);                           /* (x - min) / (max - min); a constant plane stays, in place */
void unic_image_gamma(float *pixels, int64_t count, float gamma);                 /* max(x, 0)^gamma, in place */
/* x + amount * noise, clamped to 0..1, in place. The noise is the sum of four bytes, scaled: mean 0, deviation 1, bounded by 3.45. */
void unic_image_noise(float *pixels, int64_t count, float amount, unic_stream *random);
void unic_image_normalize(float *pixels, int64_t count, float mean, float deviation);   /* (x - mean) / deviation, in place */

#endif
