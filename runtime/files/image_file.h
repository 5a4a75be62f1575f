/* Pictures from files: one struct for what every picture format decodes to, and one function that reads any of them.
 *
 * Stored values are kept as they are: no gamma, no colour profile, no EXIF rotation, no stretch to the full range (1, 2 and 4 bit samples
 * become 8 bit ones, 0..255). Alpha is dropped, not blended: the colours beneath stay as stored, which is also what OpenCV and Pillow's
 * convert() give. A damaged or truncated file is refused; no half picture ever comes back. Every function may be called from any thread. */
#ifndef UNIC_FILES_IMAGE_FILE_H
#define UNIC_FILES_IMAGE_FILE_H

#include <stdbool.h>
#include <stdint.h>

#include "../status.h"

typedef struct unic_image {
  int32_t width, height;
  int32_t channels; /* 1: grey; 3: red, green, blue beside one another */
  int32_t bits;     /* 8: uint8_t; 16: uint16_t in host order */
  void *pixels;     /* [height][width][channels], top row first, no padding; malloc'd, owned by the struct */
} unic_image;

/* Larger pictures are refused before memory is taken: 2^28 is 16384 x 16384, ten times the largest radiograph. */
#define UNIC_IMAGE_PIXELS (INT64_C(1) << 28)

/* Read and decode a PNG or JPEG file, told by its first bytes and never by its name. `grey` reduces colour to one channel with the
 * weights .2989 R + .5870 G + .1140 B. On failure `image` is zeroed and the sentence begins with the path. */
unic_status unic_image_read(unic_image *image, const char *path, bool grey);

/* The same from memory; `name` stands for the path in sentences. */
unic_status unic_image_decode(unic_image *image, const char *name, const void *data, int64_t bytes, bool grey);

/* Free the pixels and zero the struct; harmless on a zeroed one. */
void unic_image_free(unic_image *image);

/* For the decoders: check the size against the limit (the sentence names the format) and allocate the pixels. */
unic_status unic_image_allocate(unic_image *image, const char *name, const char *format, int64_t width, int64_t height, int channels, int bits);
/* Colour to grey, in place. */
void unic_image_to_grey(unic_image *image);

#endif
