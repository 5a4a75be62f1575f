/* JPEG, read through the TurboJPEG API, after a walk over the file's own markers.
 *
 * The walk serves three ends: sizes are judged before the library allocates anything, what the library cannot do is refused in words
 * (its own speak of subsampling), and the Adobe marker tells whether CMYK is stored inverted. */
#include "jpeg.h"

#include <stdlib.h>
#include <string.h>
#include <turbojpeg.h>

typedef struct header {
  int frame;      /* the n of the SOFn marker: 0 baseline, 1 extended, 2 progressive, 3 lossless, 5..7 hierarchical, 9.. arithmetic */
  int precision;  /* bits per sample */
  int width, height, components;
  bool adobe;     /* an Adobe marker stands before the frame: CMYK is stored inverted */
} header;

static int read_u16(const uint8_t *p) { return p[0] << 8 | p[1]; }

/* Walk the segments up to the frame header. */
static unic_status read_header(header *h, const char *name, const uint8_t *data, int64_t bytes) {
  memset(h, 0, sizeof *h);
  int64_t at = 2;
  for (;;) {
    while (at < bytes && data[at] != 0xFF) at++; /* junk between segments: skipped by every decoder */
    while (at < bytes && data[at] == 0xFF) at++; /* any number of fill bytes */
    if (at >= bytes) break;
    int marker = data[at++];
    if (marker == 0x00 || marker == 0x01 || (marker >= 0xD0 && marker <= 0xD8)) continue; /* markers without a segment */
    if (marker == 0xD9 || marker == 0xDA) return unic_fail("'%s': the JPEG picture has no frame header", name);
    if (at + 2 > bytes) break;
    int length = read_u16(data + at);
    if (length < 2) return unic_fail("'%s': the JPEG picture is damaged (a segment of %d bytes at byte %lld)", name, length, (long long)at);
    if (at + length > bytes) break;
    const uint8_t *segment = data + at;
    if (marker == 0xEE && length >= 14 && memcmp(segment + 2, "Adobe", 5) == 0) h->adobe = true;
    if (marker >= 0xC0 && marker <= 0xCF && marker != 0xC4 && marker != 0xC8 && marker != 0xCC) {
      if (length < 8) return unic_fail("'%s': the JPEG picture is damaged (its frame header has %d bytes)", name, length);
      h->frame = marker - 0xC0;
      h->precision = segment[2];
      h->height = read_u16(segment + 3);
      h->width = read_u16(segment + 5);
      h->components = segment[7];
      return UNIC_OK;
    }
    at += length;
  }
  return unic_fail("'%s': the JPEG file ends early, after %lld bytes", name, (long long)bytes);
}

static unic_status check_header(const header *h, const char *name, int64_t bytes) {
  if (h->frame == 3 || h->frame == 11) return unic_fail("'%s': is a lossless JPEG picture, expected baseline or progressive", name);
  if (h->frame >= 5 && h->frame != 9 && h->frame != 10) {
    return unic_fail("'%s': is a hierarchical JPEG picture, expected baseline or progressive", name);
  }
  if (h->precision != 8) return unic_fail("'%s': is a JPEG picture of %d bits per sample, expected 8", name, h->precision);
  if (h->components != 1 && h->components != 3 && h->components != 4) {
    return unic_fail("'%s': is a JPEG picture of %d components, expected 1, 3 or 4", name, h->components);
  }
  /* A Huffman code takes at least one bit, so at least one bit per block of 64 pixels. Arithmetic coding has no such bound, but nothing
   * like a picture comes near this one; without it a few bytes could ask for a gigabyte. */
  int64_t pixels_per_byte = h->frame < 9 ? 1024 : 65536;
  if ((int64_t)h->width * h->height / pixels_per_byte > bytes) {
    return unic_fail("'%s': a JPEG file of %lld bytes cannot hold %d x %d pixels, it is cut or damaged", name, (long long)bytes, h->width,
                     h->height);
  }
  return UNIC_OK;
}

/* Is there an end-of-image marker after the last scan? Cameras and archives append junk after it, so all of the tail is searched. */
static bool has_end(const uint8_t *data, int64_t bytes) {
  for (int64_t i = bytes - 2; i >= 2; i--) {
    if (data[i] != 0xFF) continue;
    if (data[i + 1] == 0xD9) return true;
    if (data[i + 1] == 0xDA) return false;
  }
  return false;
}

/* [count][4] CMYK to [count][3] RGB, in place. Adobe stores 255 - ink. */
static void cmyk_to_rgb(uint8_t *p, size_t count, bool inverted) {
  const uint8_t flip = inverted ? 0 : 255;
  for (size_t i = 0; i < count; i++) {
    int black = p[4 * i + 3] ^ flip;
    for (size_t c = 0; c < 3; c++) p[3 * i + c] = (uint8_t)(((p[4 * i + c] ^ flip) * black + 127) / 255);
  }
}

unic_status unic_jpeg_decode(unic_image *image, const char *name, const void *data, int64_t bytes, bool grey) {
  memset(image, 0, sizeof *image);
  header h;
  UNIC_TRY(read_header(&h, name, data, bytes));
  UNIC_TRY(check_header(&h, name, bytes));

  tjhandle decoder = tjInitDecompress();
  if (!decoder) return unic_fail_memory("'%s': no memory to decode a JPEG picture", name);
  unic_status status;

  /* The colour space, as the library sees it. It answers -1 for an unusual subsampling that it decodes all the same: the sizes tell. */
  int width = 0, height = 0, subsampling = 0, colours = 0;
  if (tjDecompressHeader3(decoder, data, (unsigned long)bytes, &width, &height, &subsampling, &colours) != 0 &&
      (width != h.width || height != h.height)) {
    status = unic_fail("'%s': the JPEG picture is damaged (%s)", name, tjGetErrorStr2(decoder));
    goto done;
  }
  bool luminance = h.components == 1 || (grey && h.components == 3 && subsampling >= 0 && colours == TJCS_YCbCr);
  int format = luminance ? TJPF_GRAY : h.components == 3 ? TJPF_RGB : TJPF_CMYK;
  /* CMYK needs a fourth channel until it is converted; the struct says 3 from the start. */
  status = unic_image_allocate(image, name, "JPEG", h.width, h.height, luminance ? 1 : h.components, 8);
  if (status != UNIC_OK) goto done;

  /* LIMITSCANS: a progressive file of a few kilobytes can otherwise hold thousands of scans and take minutes. The accurate inverse DCT is
   * the default and stays. */
  if (tjDecompress2(decoder, data, (unsigned long)bytes, image->pixels, h.width, 0, h.height, format, TJFLAG_LIMITSCANS) != 0) {
    const char *reason = tjGetErrorStr2(decoder);
    bool harmless = tjGetErrorCode(decoder) == TJERR_WARNING && strstr(reason, "extraneous bytes before marker") && has_end(data, bytes);
    if (!harmless) {
      status = unic_fail("'%s': the JPEG picture is damaged or cut (%s)", name, reason);
      goto done;
    }
  }
  if (h.components == 4) {
    size_t count = (size_t)h.width * (size_t)h.height;
    cmyk_to_rgb(image->pixels, count, h.adobe);
    image->channels = 3;
    void *smaller = realloc(image->pixels, count * 3);
    if (smaller) image->pixels = smaller;
  }

done:
  tjDestroy(decoder);
  if (status != UNIC_OK) unic_image_free(image);
  return status;
}
