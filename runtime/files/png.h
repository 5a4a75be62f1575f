/* PNG, read and written through libpng. */
#ifndef UNIC_FILES_PNG_H
#define UNIC_FILES_PNG_H

#include "image_file.h"

/* Decode a whole PNG file held in memory: any colour type, depth and interlacing. Palettes become RGB, alpha and transparency are
 * dropped (image_file.h), 16-bit samples come in host order. A checksum error in the picture, a missing end or a cut is refused. */
unic_status unic_png_decode(unic_image *image, const char *name, const void *data, int64_t bytes);

/* The same for pictures in the usual form that are in order in every byte: grey or colour of 8 or 16 bits, with neither alpha nor interlacing. False
 * for any other, with the image zeroed: libpng then decodes it, or says what is wrong with it. Takes half of libpng's time. */
bool unic_png_decode_usual(unic_image *image, const char *name, const void *data, int64_t bytes);

/* Write a picture of 1 or 3 channels with 8 or 16 bits under `path`, by a temporary name and a rename. */
unic_status unic_png_write(const unic_image *image, const char *path);

#endif
