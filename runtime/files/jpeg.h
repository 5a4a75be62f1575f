/* JPEG, read through the TurboJPEG API. */
#ifndef UNIC_FILES_JPEG_H
#define UNIC_FILES_JPEG_H

#include "image_file.h"

/* Decode a whole JPEG file held in memory: baseline, extended and progressive, Huffman or arithmetic, 8 bits; CMYK and YCCK become RGB.
 * 12-bit and lossless files are refused by the library, and so are files whose picture is cut or damaged: libjpeg would fill the missing
 * part with grey and only warn. Junk between markers, which costs no pixel, is accepted.
 * `grey` takes the luminance of a YCbCr picture as it is stored (its definition is the same weighting), which is twice as fast; other
 * colour pictures come back as RGB and are left to unic_image_to_grey. */
unic_status unic_jpeg_decode(unic_image *image, const char *name, const void *data, int64_t bytes, bool grey);

#endif
