/* Pictures from files: tell the format by its first bytes and hand over to the decoder; reduce colour to grey. */
#define _GNU_SOURCE /* memmem */
#include "image_file.h"

#include <stdlib.h>
#include <string.h>

#include "file.h"
#include "jpeg.h"
#include "png.h"

/* Formats that are told apart to be refused by name; a picture in one of them is not "damaged". */
static const struct {
  int offset, bytes;
  const char *magic, *name;
} strangers[] = {
  {128, 4, "DICM", "a DICOM file, which cannot be read yet: convert it to 16-bit PNG"},
  {0, 3, "GIF", "a GIF picture"},
  {0, 2, "BM", "a BMP picture"},
  {0, 4, "II*\0", "a TIFF picture"},
  {0, 4, "MM\0*", "a TIFF picture"},
  {8, 4, "WEBP", "a WebP picture"},
  {0, 8, "\0\0\0\fjP  ", "a JPEG 2000 picture"},
  {0, 4, "\xFFO\xFFQ", "a JPEG 2000 picture"},
  {0, 2, "P5", "a PGM picture"},
  {0, 2, "P6", "a PPM picture"},
  {0, 6, "\x93NUMPY", "a NumPy array"},
  {0, 4, "%PDF", "a PDF document"},
  {0, 2, "\x1F\x8B", "a gzip archive"},
  {0, 4, "PK\3\4", "a zip archive"},
};

unic_status unic_image_decode(unic_image *image, const char *name, const void *data, int64_t bytes, bool grey) {
  memset(image, 0, sizeof *image);
  if (bytes == 0) return unic_fail("'%s': is empty, expected a PNG or JPEG picture", name);
  const uint8_t *head = data;
  unic_status status;
  if (bytes >= 8 && memcmp(head, "\x89PNG\r\n\x1A\n", 8) == 0) {
    status = unic_png_decode(image, name, data, bytes);
  } else if (bytes >= 3 && memcmp(head, "\xFF\xD8\xFF", 3) == 0) {
    status = unic_jpeg_decode(image, name, data, bytes, grey);
  } else {
    /* A PNG whose signature was harmed by a text-mode transfer: the commonest damage, worth a sentence of its own. */
    if (bytes >= 16 && (memmem(head, 16, "IHDR", 4) || memcmp(head + 1, "PNG", 3) == 0)) {
      return unic_fail("'%s': its PNG signature is damaged (was the file copied as text?)", name);
    }
    for (size_t i = 0; i < sizeof strangers / sizeof strangers[0]; i++) {
      int64_t end = strangers[i].offset + strangers[i].bytes;
      if (bytes >= end && memcmp(head + strangers[i].offset, strangers[i].magic, (size_t)strangers[i].bytes) == 0) {
        return unic_fail("'%s': is %s, expected a PNG or JPEG picture", name, strangers[i].name);
      }
    }
    return unic_fail("'%s': is not a picture that can be read (its first bytes are %02x %02x %02x), expected PNG or JPEG", name, head[0],
                     bytes > 1 ? head[1] : 0, bytes > 2 ? head[2] : 0);
  }
  if (status != UNIC_OK) {
    unic_image_free(image);
    return status;
  }
  if (grey) unic_image_to_grey(image);
  return UNIC_OK;
}

unic_status unic_image_read(unic_image *image, const char *path, bool grey) {
  memset(image, 0, sizeof *image);
  /* No format stores a picture of the permitted size in more bytes than this (16-bit RGBA, uncompressed). */
  const int64_t limit = UNIC_IMAGE_PIXELS * 8 + (INT64_C(1) << 24);
  char *data;
  int64_t bytes;
  UNIC_TRY(unic_file_read(path, limit, &data, &bytes));
  unic_status status = unic_image_decode(image, path, data, bytes, grey);
  free(data);
  return status;
}

void unic_image_free(unic_image *image) {
  free(image->pixels);
  memset(image, 0, sizeof *image);
}

unic_status unic_image_allocate(unic_image *image, const char *name, const char *format, int64_t width, int64_t height, int channels, int bits) {
  memset(image, 0, sizeof *image);
  if (width < 1 || height < 1) {
    return unic_fail("'%s': a %s picture of %lld x %lld pixels holds nothing", name, format, (long long)width, (long long)height);
  }
  if (width > INT32_MAX || height > INT32_MAX || width > UNIC_IMAGE_PIXELS / height) {
    return unic_fail("'%s': a %s picture of %lld x %lld pixels is larger than the limit of %lld pixels", name, format, (long long)width,
                     (long long)height, (long long)UNIC_IMAGE_PIXELS);
  }
  size_t total = (size_t)width * (size_t)height * (size_t)channels * (size_t)(bits / 8);
  image->pixels = malloc(total);
  if (!image->pixels) return unic_fail_memory("'%s': no memory for %lld x %lld pixels", name, (long long)width, (long long)height);
  image->width = (int32_t)width;
  image->height = (int32_t)height;
  image->channels = channels;
  image->bits = bits;
  return UNIC_OK;
}

/* .2989, .5870, .1140 as 16-bit fractions, scaled from their sum .9999 to exactly 1: a grey picture stored as RGB keeps its values to the
 * bit at 8 and at 16 bits. */
enum { RED = 19591, GREEN = 38473, BLUE = 7472, HALF = 32768 };

void unic_image_to_grey(unic_image *image) {
  if (image->channels != 3) return;
  size_t count = (size_t)image->width * (size_t)image->height;
  if (image->bits == 8) {
    uint8_t *p = image->pixels;
    for (size_t i = 0; i < count; i++) p[i] = (uint8_t)((RED * p[3 * i] + GREEN * p[3 * i + 1] + BLUE * p[3 * i + 2] + HALF) >> 16);
  } else {
    uint16_t *p = image->pixels;
    for (size_t i = 0; i < count; i++) {
      p[i] = (uint16_t)(((uint32_t)RED * p[3 * i] + (uint32_t)GREEN * p[3 * i + 1] + (uint32_t)BLUE * p[3 * i + 2] + HALF) >> 16);
    }
  }
  image->channels = 1;
  void *smaller = realloc(image->pixels, count * (size_t)(image->bits / 8)); /* a refusal only leaves the block larger */
  if (smaller) image->pixels = smaller;
}
