/* Zip archives: libzip over the mapped file. */
#include "archive.h"

#include <string.h>
#include <zip.h>
#include <zlib.h>

/* libzip keeps about 250 bytes for each; a checkpoint has one for each storage. */
enum { MOST_MEMBERS = 50000 };

static unic_status fail_zip(const char *sentence) { return unic_fail("is a zip archive that cannot be read (%s)", sentence); }

bool unic_archive_is(const void *data, int64_t bytes) { return bytes >= 4 && (memcmp(data, "PK\3\4", 4) == 0 || memcmp(data, "PK\5\6", 4) == 0); }

/* ---- the map as libzip's file ---- */

static zip_int64_t seek_map(unic_archive *a, void *data, zip_uint64_t bytes, zip_error_t *error) {
  zip_int64_t to = zip_source_seek_compute_offset((zip_uint64_t)a->at, (zip_uint64_t)a->map.bytes, data, bytes, error);
  if (to < 0) return -1;
  a->at = to;
  return 0;
}

static zip_int64_t serve(void *context, void *data, zip_uint64_t bytes, zip_source_cmd_t command) {
  unic_archive *a = context;
  switch (command) {
    case ZIP_SOURCE_OPEN: a->at = 0; return 0;
    case ZIP_SOURCE_READ: {
      zip_uint64_t left = (zip_uint64_t)(a->map.bytes - a->at);
      if (bytes > left) bytes = left;
      if (bytes) memcpy(data, a->map.data + a->at, (size_t)bytes);
      a->at += (int64_t)bytes;
      return (zip_int64_t)bytes;
    }
    case ZIP_SOURCE_CLOSE: case ZIP_SOURCE_FREE: return 0;
    case ZIP_SOURCE_STAT: {
      zip_stat_t *info = data;
      zip_stat_init(info);
      info->size = (zip_uint64_t)a->map.bytes;
      info->valid |= ZIP_STAT_SIZE;
      return (zip_int64_t)sizeof *info;
    }
    case ZIP_SOURCE_ERROR: {
      int *codes = data; /* reading from memory does not fail; a seek outside of it does */
      codes[0] = ZIP_ER_INVAL;
      codes[1] = 0;
      return 2 * (zip_int64_t)sizeof *codes;
    }
    case ZIP_SOURCE_SEEK: {
      zip_error_t error;
      zip_error_init(&error);
      zip_int64_t result = seek_map(a, data, bytes, &error);
      zip_error_fini(&error);
      return result;
    }
    case ZIP_SOURCE_TELL: return a->at;
    case ZIP_SOURCE_SUPPORTS: return ZIP_SOURCE_SUPPORTS_SEEKABLE;
    default: return -1;
  }
}

/* ---- opening ---- */

static uint64_t number(const uint8_t *p, int bytes) {
  uint64_t n = 0;
  for (int i = bytes - 1; i >= 0; i--) n = n << 8 | p[i];
  return n;
}

/* How many members the file says there are, before libzip makes room for them: the largest number of all that could be meant. */
static uint64_t stated_members(const unic_file_map *map) {
  const int64_t end = map->bytes - 22, begin = end - 65535 > 0 ? end - 65535 : 0;
  uint64_t most = 0;
  for (int64_t i = end; i >= begin; i--) {
    const uint8_t *p = map->data + i;
    if (memcmp(p, "PK\5\6", 4) != 0) continue;
    uint64_t here = number(p + 10, 2);
    if (i >= 20 && memcmp(p - 20, "PK\6\7", 4) == 0) { /* it points to a larger one, of 64 bits */
      uint64_t at = number(p - 12, 8);
      if (at <= (uint64_t)map->bytes && (uint64_t)map->bytes - at >= 56 && memcmp(map->data + at, "PK\6\6", 4) == 0) {
        uint64_t large = number(map->data + at + 32, 8);
        if (large > here) here = large;
      }
    }
    if (here > most) most = here;
  }
  return most;
}

/* Does it lead out of the folder it is put into? */
static bool is_trick(const char *name) {
  if (name[0] == '/' || strchr(name, '\\') || (name[0] && name[1] == ':')) return true;
  for (const char *part = name; part; part = strchr(part, '/')) {
    if (*part == '/') part++;
    if (strncmp(part, "..", 2) == 0 && (part[2] == '/' || part[2] == 0)) return true;
  }
  return false;
}

static unic_status check_names(const unic_archive *a) {
  for (int64_t i = 0; i < a->members; i++) {
    const char *name = unic_archive_name(a, i);
    if (!name) return fail_zip("a member without a name");
    if (is_trick(name)) return unic_fail("has a member '%.200s', a name that leads out of the archive", name);
    if (zip_name_locate(a->zip, name, 0) != i) return unic_fail("has two members '%.200s'", name);
  }
  return UNIC_OK;
}

unic_status unic_archive_open(unic_archive *a, unic_file_map *map) {
  memset(a, 0, sizeof *a);
  a->map = *map;
  *map = (unic_file_map){0};
  zip_error_t error;
  zip_error_init(&error);
  unic_status status = UNIC_OK;
  uint64_t members = stated_members(&a->map);
  if (members > MOST_MEMBERS) {
    status = unic_fail("has %llu members, at most %d can be read", (unsigned long long)members, MOST_MEMBERS);
  } else {
    zip_source_t *source = zip_source_function_create(serve, a, &error);
    a->zip = source ? zip_open_from_source(source, ZIP_RDONLY, &error) : NULL;
    if (!a->zip) {
      zip_source_free(source);
      status = zip_error_code_zip(&error) == ZIP_ER_MEMORY ? unic_fail_memory("no memory for its directory")
               : zip_error_code_zip(&error) == ZIP_ER_NOZIP ? fail_zip("its directory is missing or wrong: is the file cut?")
                                                            : fail_zip(zip_error_strerror(&error));
    }
  }
  zip_error_fini(&error);
  if (status == UNIC_OK) {
    a->members = zip_get_num_entries(a->zip, 0);
    status = check_names(a);
  }
  if (status != UNIC_OK) unic_archive_close(a);
  return status;
}

void unic_archive_close(unic_archive *a) {
  if (a->zip) zip_discard(a->zip);
  unic_file_map_close(&a->map);
  memset(a, 0, sizeof *a);
}

const char *unic_archive_name(const unic_archive *a, int64_t index) { return zip_get_name(a->zip, (zip_uint64_t)index, 0); }

int64_t unic_archive_find(const unic_archive *a, const char *name) { return zip_name_locate(a->zip, name, 0); }

/* ---- members ---- */

/* Where a stored member lies. libzip does not say, but it reads through `serve`: after its first byte, `at` is one further. */
static unic_status find_data(unic_archive *a, unic_archive_member *m) {
  if (m->bytes == 0) {
    m->data = a->map.data;
    return UNIC_OK;
  }
  zip_file_t *file = zip_fopen_index(a->zip, (zip_uint64_t)m->index, ZIP_FL_COMPRESSED);
  if (!file) return unic_fail("member '%.200s': %s", m->name, zip_strerror(a->zip));
  uint8_t first;
  bool fine = zip_fread(file, &first, 1) == 1;
  int64_t place = a->at - 1;
  zip_fclose(file);
  if (!fine || place < 0 || place > a->map.bytes - m->bytes || a->map.data[place] != first) {
    return unic_fail("member '%.200s': its %lld bytes do not lie in the file (is it cut?)", m->name, (long long)m->bytes);
  }
  m->data = a->map.data + place;
  return UNIC_OK;
}

unic_status unic_archive_member_at(unic_archive *a, int64_t index, unic_archive_member *m) {
  zip_stat_t info;
  const zip_uint64_t wanted = ZIP_STAT_NAME | ZIP_STAT_SIZE | ZIP_STAT_COMP_SIZE | ZIP_STAT_COMP_METHOD | ZIP_STAT_ENCRYPTION_METHOD | ZIP_STAT_CRC;
  if (zip_stat_index(a->zip, (zip_uint64_t)index, 0, &info) != 0 || (info.valid & wanted) != wanted) return fail_zip("a member without a size");
  *m = (unic_archive_member){.name = info.name, .index = index, .bytes = (int64_t)info.size, .packed = (int64_t)info.comp_size, .crc = info.crc};
  if (info.encryption_method != ZIP_EM_NONE) return unic_fail("member '%.200s': is encrypted", m->name);
  if (info.comp_method != ZIP_CM_STORE && info.comp_method != ZIP_CM_DEFLATE) {
    return unic_fail("member '%.200s': is packed by method %d, expected stored or deflated", m->name, info.comp_method);
  }
  if (m->packed < 0 || m->bytes < 0 || m->packed > a->map.bytes) {
    return unic_fail("member '%.200s': has %llu bytes, the file only %lld", m->name, (unsigned long long)info.comp_size, (long long)a->map.bytes);
  }
  if (info.comp_method == ZIP_CM_STORE) {
    if (m->packed != m->bytes) return unic_fail("member '%.200s': is stored as it is, in two sizes", m->name);
    return find_data(a, m);
  }
  /* Deflate makes at most 1032 bytes out of one. */
  if (m->bytes / 1040 > m->packed) {
    return unic_fail("member '%.200s': %lld bytes cannot become %lld", m->name, (long long)m->packed, (long long)m->bytes);
  }
  return UNIC_OK;
}

static unic_status fail_checksum(const unic_archive_member *m) {
  return unic_fail("member '%.200s': its checksum does not fit, the file is damaged", m->name);
}

unic_status unic_archive_check(const unic_archive_member *m) {
  uint32_t crc = (uint32_t)crc32_z(crc32_z(0, NULL, 0), m->data, (size_t)m->bytes);
  return crc == m->crc ? UNIC_OK : fail_checksum(m);
}

unic_status unic_archive_reader_open(unic_archive_reader *r, const unic_archive *a, const unic_archive_member *m) {
  *r = (unic_archive_reader){m, zip_fopen_index(a->zip, (zip_uint64_t)m->index, 0)};
  if (!r->file) return unic_fail("member '%.200s': %s", m->name, zip_strerror(a->zip));
  return UNIC_OK;
}

static unic_status fail_unpack(const unic_archive_reader *r) {
  if (zip_error_code_zip(zip_file_get_error(r->file)) == ZIP_ER_CRC) return fail_checksum(r->member);
  return unic_fail("member '%.200s': cannot be unpacked (%s)", r->member->name, zip_file_strerror(r->file));
}

unic_status unic_archive_reader_read(unic_archive_reader *r, void *to, int64_t bytes) {
  uint8_t *next = to;
  while (bytes > 0) {
    if (unic_interrupted()) return unic_fail_interrupted();
    int64_t piece = bytes < (INT64_C(1) << 24) ? bytes : INT64_C(1) << 24;
    zip_int64_t got = zip_fread(r->file, next, (zip_uint64_t)piece);
    if (got < 0) return fail_unpack(r);
    if (got == 0) return unic_fail("member '%.200s': ends early, after unpacking", r->member->name);
    next += got;
    bytes -= got;
  }
  return UNIC_OK;
}

unic_status unic_archive_reader_end(unic_archive_reader *r) {
  uint8_t more;
  zip_int64_t got = zip_fread(r->file, &more, 1);
  if (got < 0) return fail_unpack(r);
  return got == 0 ? UNIC_OK : unic_fail("member '%.200s': is longer than the archive says", r->member->name);
}

void unic_archive_reader_close(unic_archive_reader *r) {
  if (r->file) zip_fclose(r->file);
  r->file = NULL;
}

unic_status unic_archive_read(unic_archive *a, const unic_archive_member *m, int64_t first, int64_t bytes, void *to) {
  bool whole = first == 0 && bytes == m->bytes;
  if (m->data) {
    if (whole) UNIC_TRY(unic_archive_check(m));
    if (bytes) memcpy(to, m->data + first, (size_t)bytes);
    return UNIC_OK;
  }
  unic_archive_reader r;
  UNIC_TRY(unic_archive_reader_open(&r, a, m));
  unic_status status = UNIC_OK;
  uint8_t skipped[4096];
  while (first > 0 && status == UNIC_OK) {
    int64_t piece = first < (int64_t)sizeof skipped ? first : (int64_t)sizeof skipped;
    status = unic_archive_reader_read(&r, skipped, piece);
    first -= piece;
  }
  if (status == UNIC_OK) status = unic_archive_reader_read(&r, to, bytes);
  if (status == UNIC_OK && whole) status = unic_archive_reader_end(&r);
  unic_archive_reader_close(&r);
  return status;
}
