/* PNG, read and written through libpng; what png_usual.c can read does not come here.
 *
 * libpng reports an error by a long jump. The jump ends in the same small function that set it up, and everything that must be freed is in
 * a struct of the caller, so that nothing leaks and no local is left undefined. Its own printing is switched off. */
#include "png.h"

#include <png.h>
#include <setjmp.h>
#include <stdio.h>
#include <string.h>

#include "file.h"

typedef struct decode_job {
  png_structp png;
  png_infop info;
  const uint8_t *data;
  size_t bytes, at;
  const char *name;
  unic_image *image;
  unic_status status; /* set where a sentence is stored already */
  char reason[200];   /* libpng's, otherwise */
} decode_job;

static void keep_reason(char *reason, size_t room, const char *message) { snprintf(reason, room, "%s", message); }

static void decode_error(png_structp png, png_const_charp message) {
  decode_job *job = png_get_error_ptr(png);
  keep_reason(job->reason, sizeof job->reason, message);
  png_longjmp(png, 1);
}

/* libpng warns of oddities in optional chunks (profiles, dates, texts); none of them touches a pixel. */
static void ignore_warning(png_structp png, png_const_charp message) {
  (void)png;
  (void)message;
}

static void decode_read(png_structp png, png_bytep out, size_t bytes) {
  decode_job *job = png_get_io_ptr(png);
  if (bytes > job->bytes - job->at) png_error(png, "the file ends early");
  memcpy(out, job->data + job->at, bytes);
  job->at += bytes;
}

static bool host_is_little_endian(void) {
  const uint16_t one = 1;
  uint8_t first;
  memcpy(&first, &one, 1);
  return first == 1;
}

/* The part that libpng may leave by a jump. Returns false if it did, or if job->status says why. */
static bool decode_guarded(decode_job *job) {
  if (setjmp(png_jmpbuf(job->png))) return false;
  png_structp png = job->png;
  png_set_read_fn(png, job, decode_read);
  png_set_user_limits(png, 0x7FFFFFFF, 0x7FFFFFFF); /* the limit is on width x height, below */
  /* Texts, profiles and the like are skipped unread: nothing of them is used, and they are where small files ask for much memory. And no
   * chunk is larger than its file: libpng would clear two gigabytes before it finds out. */
  png_set_keep_unknown_chunks(png, PNG_HANDLE_CHUNK_NEVER, NULL, -1);
  png_set_chunk_malloc_max(png, job->bytes);
  png_read_info(png, job->info);

  png_uint_32 width, height;
  int depth, colour, interlace;
  png_get_IHDR(png, job->info, &width, &height, &depth, &colour, &interlace, NULL, NULL);
  /* deflate cannot shrink by more than 1032:1, so a small file that promises a huge picture is cut or forged: no memory for it. */
  uint64_t raw = (uint64_t)png_get_rowbytes(png, job->info) * height;
  if (raw / 1040 > job->bytes) {
    job->status = unic_fail("'%s': a PNG file of %llu bytes cannot hold %lu x %lu pixels, it is cut or damaged", job->name,
                            (unsigned long long)job->bytes, (unsigned long)width, (unsigned long)height);
    return false;
  }

  if (colour == PNG_COLOR_TYPE_PALETTE) png_set_palette_to_rgb(png);
  if (colour == PNG_COLOR_TYPE_GRAY && depth < 8) png_set_expand_gray_1_2_4_to_8(png);
  if (depth == 16 && host_is_little_endian()) png_set_swap(png);
  png_set_strip_alpha(png);
  int passes = png_set_interlace_handling(png);
  png_read_update_info(png, job->info);

  int channels = (colour & PNG_COLOR_MASK_COLOR) ? 3 : 1;
  int bits = depth == 16 ? 16 : 8;
  job->status = unic_image_allocate(job->image, job->name, "PNG", width, height, channels, bits);
  if (job->status != UNIC_OK) return false;
  size_t row = (size_t)width * (size_t)channels * (size_t)(bits / 8);
  if (png_get_rowbytes(png, job->info) != row) png_error(png, "rows of an unexpected length");
  for (int pass = 0; pass < passes; pass++) {
    for (png_uint_32 y = 0; y < height; y++) png_read_row(png, (png_bytep)job->image->pixels + y * row, NULL);
  }
  png_read_end(png, NULL);
  return true;
}

unic_status unic_png_decode(unic_image *image, const char *name, const void *data, int64_t bytes) {
  if (unic_png_decode_usual(image, name, data, bytes)) return UNIC_OK;
  memset(image, 0, sizeof *image);
  decode_job job = {.data = data, .bytes = (size_t)bytes, .name = name, .image = image, .status = UNIC_OK};
  bool done = false;
  job.png = png_create_read_struct(PNG_LIBPNG_VER_STRING, &job, decode_error, ignore_warning);
  if (job.png) job.info = png_create_info_struct(job.png);
  if (!job.info) {
    job.status = unic_fail_memory("'%s': no memory to decode a PNG picture", name);
  } else {
    done = decode_guarded(&job);
  }
  png_destroy_read_struct(&job.png, &job.info, NULL);
  if (done) return UNIC_OK;
  unic_image_free(image);
  if (job.status != UNIC_OK) return job.status;
  return unic_fail("'%s': the PNG picture is damaged (%s)", name, job.reason);
}

/* ---- writing ---- */

typedef struct encode_job {
  png_structp png;
  png_infop info;
  const unic_image *image;
  unic_output output;
  unic_status status;
  char reason[200];
} encode_job;

static void encode_error(png_structp png, png_const_charp message) {
  encode_job *job = png_get_error_ptr(png);
  keep_reason(job->reason, sizeof job->reason, message);
  png_longjmp(png, 1);
}

static void encode_write(png_structp png, png_bytep data, size_t bytes) {
  encode_job *job = png_get_io_ptr(png);
  job->status = unic_output_write(&job->output, data, (int64_t)bytes);
  if (job->status != UNIC_OK) png_error(png, "write");
}

static void encode_flush(png_structp png) { (void)png; }

static bool encode_guarded(encode_job *job) {
  if (setjmp(png_jmpbuf(job->png))) return false;
  png_structp png = job->png;
  const unic_image *image = job->image;
  png_set_write_fn(png, job, encode_write, encode_flush);
  png_set_user_limits(png, 0x7FFFFFFF, 0x7FFFFFFF);
  png_set_IHDR(png, job->info, (png_uint_32)image->width, (png_uint_32)image->height, image->bits,
               image->channels == 3 ? PNG_COLOR_TYPE_RGB : PNG_COLOR_TYPE_GRAY, PNG_INTERLACE_NONE, PNG_COMPRESSION_TYPE_DEFAULT,
               PNG_FILTER_TYPE_DEFAULT);
  png_write_info(png, job->info);
  if (image->bits == 16 && host_is_little_endian()) png_set_swap(png);
  size_t row = (size_t)image->width * (size_t)image->channels * (size_t)(image->bits / 8);
  for (int32_t y = 0; y < image->height; y++) png_write_row(png, (png_const_bytep)image->pixels + (size_t)y * row);
  png_write_end(png, NULL);
  return true;
}

unic_status unic_png_write(const unic_image *image, const char *path) {
  if (image->width < 1 || image->height < 1 || (image->channels != 1 && image->channels != 3) || (image->bits != 8 && image->bits != 16)) {
    return unic_fail("'%s': cannot write a PNG picture of %d x %d pixels, %d channels, %d bits, expected at least 1 x 1, 1 or 3, 8 or 16",
                     path, (int)image->width, (int)image->height, (int)image->channels, (int)image->bits);
  }
  encode_job job = {.image = image, .status = UNIC_OK};
  UNIC_TRY(unic_output_open(&job.output, path));
  bool done = false;
  job.png = png_create_write_struct(PNG_LIBPNG_VER_STRING, &job, encode_error, ignore_warning);
  if (job.png) job.info = png_create_info_struct(job.png);
  if (!job.info) {
    job.status = unic_fail_memory("'%s': no memory to encode a PNG picture", path);
  } else {
    done = encode_guarded(&job);
  }
  png_destroy_write_struct(&job.png, &job.info);
  if (done) return unic_output_commit(&job.output, false);
  unic_output_abandon(&job.output);
  if (job.status != UNIC_OK) return job.status;
  return unic_fail("'%s': cannot be written as PNG (%s)", path, job.reason);
}
