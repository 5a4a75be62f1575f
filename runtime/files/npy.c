/* NumPy's files: headers, and elements out of the map or an archive. */
#include "npy.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "archive.h"

enum { HEADER_BYTES = 65536, DESCR_BYTES = 32 };

/* As in torch_file.c: what the tables may take, and what a packed array may ask for beyond the bytes that are there. */
static const int64_t ROOM = INT64_C(28) << 20, MOST_SHARE = INT64_C(20) << 20, PACKED_BYTES = INT64_C(16) << 20;

/* Where an entry's elements are: beside unic_weights.entries, in the same order. */
typedef struct npy_array {
  const char *why;     /* why it cannot be read; NULL: it can */
  int64_t size;        /* bytes of an element */
  bool swapped;        /* big-endian */
  bool columns;        /* column-major, with two dimensions or more */
  int64_t header;      /* bytes in front of the elements */
  int64_t member;      /* of the archive; -1: the file itself */
  bool checked;        /* its member's checksum was compared */
} npy_array;

typedef struct unic_npy {
  unic_weights base;
  unic_archive archive; /* of a .npz file */
  npy_array *arrays;
  int64_t array_count, array_room;
} unic_npy;

/* ---- the header ---- */

typedef struct header {
  char descr[DESCR_BYTES];
  bool is_text; /* descr was a string, and not a list of fields */
  bool fortran;
  int ndim;
  int64_t shape[UNIC_WEIGHTS_RANK];
} header;

typedef struct reader {
  const char *text;
  int64_t bytes, at;
} reader;

static unic_status fail_header(const reader *r, const char *what) { return unic_fail("header, byte %" PRId64 ": %s", r->at, what); }

static void skip_space(reader *r) {
  while (r->at < r->bytes && (r->text[r->at] == ' ' || r->text[r->at] == '\n' || r->text[r->at] == '\t')) r->at++;
}

static char peek(reader *r) {
  skip_space(r);
  return r->at < r->bytes ? r->text[r->at] : 0;
}

static unic_status expect(reader *r, char c, const char *what) {
  if (peek(r) != c) return fail_header(r, what);
  r->at++;
  return UNIC_OK;
}

static unic_status read_quoted(reader *r, char *out, int64_t room) {
  char quote = peek(r);
  if (quote != '\'' && quote != '"') return fail_header(r, "a text in quotes is expected");
  int64_t from = ++r->at;
  while (r->at < r->bytes && r->text[r->at] != quote) {
    char c = r->text[r->at++];
    if (c == '\\' || c < 0x20 || c > 0x7E) return fail_header(r, "a text with an escape or a character beyond ASCII");
  }
  if (r->at == r->bytes) return fail_header(r, "a text that does not end");
  if (r->at - from >= room) return fail_header(r, "a text that is too long");
  memcpy(out, r->text + from, (size_t)(r->at - from));
  out[r->at++ - from] = 0;
  return UNIC_OK;
}

static unic_status read_word(reader *r, const char *word, bool *found) {
  int64_t n = (int64_t)strlen(word);
  skip_space(r);
  *found = r->bytes - r->at >= n && memcmp(r->text + r->at, word, (size_t)n) == 0;
  if (*found) r->at += n;
  return UNIC_OK;
}

/* (3, 4), (3,), () */
static unic_status read_shape(reader *r, header *h) {
  UNIC_TRY(expect(r, '(', "the shape is no tuple"));
  h->ndim = 0;
  while (peek(r) != ')') {
    if (h->ndim == UNIC_WEIGHTS_RANK) return fail_header(r, "the shape has more than 8 numbers");
    int64_t size = 0, from = r->at;
    while (r->at < r->bytes && r->text[r->at] >= '0' && r->text[r->at] <= '9') {
      if (__builtin_mul_overflow(size, 10, &size) || __builtin_add_overflow(size, r->text[r->at] - '0', &size)) return fail_header(r, "a size beyond 63 bits");
      r->at++;
    }
    if (r->at == from) return fail_header(r, "the shape holds something that is not a size");
    if (r->at < r->bytes && r->text[r->at] == 'L') r->at++; /* Python 2 */
    h->shape[h->ndim++] = size;
    if (peek(r) == ',') {
      r->at++;
    } else if (peek(r) != ')' || h->ndim == 1) {
      return fail_header(r, "the shape is no tuple");
    }
  }
  r->at++;
  return UNIC_OK;
}

static unic_status parse_header(const char *text, int64_t bytes, header *h) {
  reader r = {text, bytes, 0};
  bool has_descr = false, has_order = false, has_shape = false;
  UNIC_TRY(expect(&r, '{', "is no dict"));
  while (peek(&r) != '}') {
    char key[32];
    UNIC_TRY(read_quoted(&r, key, sizeof key));
    UNIC_TRY(expect(&r, ':', "':' is expected"));
    if (strcmp(key, "descr") == 0 && !has_descr) {
      has_descr = true;
      h->is_text = peek(&r) != '[';
      if (!h->is_text) return unic_fail("is an array of records, expected one of numbers");
      UNIC_TRY(read_quoted(&r, h->descr, sizeof h->descr));
    } else if (strcmp(key, "fortran_order") == 0 && !has_order) {
      bool yes, no;
      has_order = true;
      UNIC_TRY(read_word(&r, "True", &yes));
      UNIC_TRY(read_word(&r, "False", &no));
      if (yes == no) return fail_header(&r, "True or False is expected");
      h->fortran = yes;
    } else if (strcmp(key, "shape") == 0 && !has_shape) {
      has_shape = true;
      UNIC_TRY(read_shape(&r, h));
    } else {
      return fail_header(&r, "a key that stands twice or is not one of descr, fortran_order and shape");
    }
    if (peek(&r) == ',') {
      r.at++;
    } else if (peek(&r) != '}') {
      return fail_header(&r, "',' or '}' is expected");
    }
  }
  r.at++;
  skip_space(&r);
  if (r.at != bytes) return fail_header(&r, "something follows the dict");
  if (!has_descr || !has_order || !has_shape) return unic_fail("header: has no %s", !has_descr ? "descr" : !has_order ? "fortran_order" : "shape");
  return UNIC_OK;
}

/* ---- types ---- */

static const struct { const char *descr, *dtype; } types[] = {
  {"b1", "BOOL"}, {"u1", "U8"}, {"i1", "I8"}, {"i2", "I16"}, {"u2", "U16"}, {"i4", "I32"}, {"u4", "U32"}, {"i8", "I64"}, {"u8", "U64"},
  {"f2", "F16"}, {"f4", "F32"}, {"f8", "F64"}, {"c8", "C64"}, {"c16", "C128"},
};

/* An order, a kind, the bytes of an element (of a character for U, which has four). */
static unic_status read_type(unic_npy *f, const header *h, npy_array *a, unic_weights_entry *e) {
  char order = h->descr[0], kind = order ? h->descr[1] : 0;
  const char *digits = kind ? h->descr + 2 : "";
  if (order != '<' && order != '>' && order != '|' && order != '=') return unic_fail("has dtype '%s', which is none of NumPy's", h->descr);
  if (kind == 'O') {
    a->why = "holds Python objects, which are never unpickled here";
    e->dtype = "O";
    a->size = 0;
    return UNIC_OK;
  }
  int64_t size = 0;
  for (const char *c = digits; *c >= '0' && *c <= '9' && size < 1000000; c++) size = size * 10 + (*c - '0');
  if (kind == 'M' || kind == 'm') size = 8; /* dates, with their unit in brackets */
  if (kind == 'U') size *= 4;
  if (!strchr("?biufcSUVMm", kind) || kind == 0 || size > 1000000) return unic_fail("has dtype '%s', which is none of NumPy's", h->descr);
  a->size = size;
  a->swapped = order == '>' && size > 1;
  for (size_t i = 0; i < sizeof types / sizeof types[0]; i++) {
    if (strcmp(types[i].descr, h->descr + 1) == 0) e->dtype = types[i].dtype;
  }
  if (!e->dtype) {
    UNIC_TRY(unic_weights_keep(&f->base, h->descr + 1, (int64_t)strlen(h->descr + 1), &e->dtype));
  }
  if (kind == 'c' || kind == 'S' || kind == 'U' || kind == 'V' || kind == 'M' || kind == 'm' || unic_weights_bits(e->dtype) == 0 || strcmp(e->dtype, "U64") == 0) {
    a->why = "is of a type that this runtime has none for";
    a->swapped = false;
  }
  return UNIC_OK;
}

/* The array whose file begins at `data`, of which `have` bytes are at hand and `bytes` there are in all. */
static unic_status read_head(unic_npy *f, const uint8_t *data, int64_t have, int64_t bytes, npy_array *a, unic_weights_entry *e) {
  if (have < 10 || memcmp(data, "\x93NUMPY", 6) != 0) return unic_fail("is not an .npy file (its first bytes are not \\x93NUMPY)");
  int version = data[6], wide = version == 1 ? 2 : 4;
  if (version < 1 || version > 3 || data[7] != 0) return unic_fail("has version %d.%d, expected 1.0, 2.0 or 3.0", data[6], data[7]);
  if (have < 8 + wide) return unic_fail("is cut in its header");
  int64_t count = 0;
  for (int i = wide - 1; i >= 0; i--) count = count << 8 | data[8 + i];
  if (count > HEADER_BYTES) return unic_fail("has a header of %" PRId64 " bytes, at most %d can be read", count, HEADER_BYTES);
  a->header = 8 + wide + count;
  if (a->header > have) return unic_fail("is cut in its header");
  header h = {0};
  UNIC_TRY(parse_header((const char *)data + 8 + wide, count, &h));
  UNIC_TRY(read_type(f, &h, a, e));
  e->ndim = h.ndim;
  memcpy(e->shape, h.shape, sizeof e->shape);
  a->columns = h.fortran && h.ndim > 1;
  if (strcmp(e->dtype, "O") == 0) return UNIC_OK; /* what follows is a pickle */
  e->bytes = a->size ? unic_weights_shape_bytes(e->shape, e->ndim, (int)a->size * 8) : 0;
  if (e->bytes < 0 || e->bytes != bytes - a->header) {
    return unic_fail("its shape and dtype ask for %" PRId64 " bytes, %" PRId64 " follow the header%s", e->bytes, bytes - a->header,
                     e->bytes > bytes - a->header ? " (is it cut?)" : "");
  }
  return UNIC_OK;
}

/* ---- elements ---- */

/* Unpack column-major elements, each to its row-major place. */
static unic_status scatter(unic_archive_reader *r, const unic_weights_entry *e, int64_t size, uint8_t *to) {
  uint8_t piece[16384];
  int64_t stride[UNIC_WEIGHTS_RANK], index[UNIC_WEIGHTS_RANK] = {0}, place = 0;
  stride[e->ndim - 1] = 1;
  for (int d = e->ndim - 2; d >= 0; d--) stride[d] = stride[d + 1] * e->shape[d + 1];
  for (int64_t left = e->bytes; left > 0;) {
    int64_t now = left < (int64_t)sizeof piece ? left : (int64_t)sizeof piece; /* sizes are powers of two, none above 16 */
    UNIC_TRY(unic_archive_reader_read(r, piece, now));
    for (int64_t i = 0; i < now; i += size) {
      memcpy(to + place * size, piece + i, (size_t)size);
      for (int d = 0; d < e->ndim; d++) {
        place += stride[d];
        if (++index[d] < e->shape[d]) break;
        place -= stride[d] * e->shape[d];
        index[d] = 0;
      }
    }
    left -= now;
  }
  return UNIC_OK;
}

static unic_status unpack(unic_npy *f, const npy_array *a, const unic_weights_entry *e, const unic_archive_member *m, uint8_t *to) {
  unic_archive_reader r;
  uint8_t skipped[1024];
  UNIC_TRY(unic_archive_reader_open(&r, &f->archive, m));
  unic_status status = UNIC_OK;
  for (int64_t left = a->header; left > 0 && status == UNIC_OK;) {
    int64_t now = left < (int64_t)sizeof skipped ? left : (int64_t)sizeof skipped;
    status = unic_archive_reader_read(&r, skipped, now);
    left -= now;
  }
  if (status == UNIC_OK) status = a->columns ? scatter(&r, e, a->size, to) : unic_archive_reader_read(&r, to, e->bytes);
  if (status == UNIC_OK) status = unic_archive_reader_end(&r);
  unic_archive_reader_close(&r);
  return status;
}

static unic_status read_elements(unic_weights *w, const unic_weights_entry *e, void *to) {
  unic_npy *f = (unic_npy *)w;
  npy_array *a = &f->arrays[e - f->base.entries];
  if (a->why) return unic_fail("%s", a->why);
  if (e->bytes == 0) return UNIC_OK;
  const uint8_t *data = f->base.map.data;
  if (a->member >= 0) {
    unic_archive_member m;
    UNIC_TRY(unic_archive_member_at(&f->archive, a->member, &m));
    data = m.data;
    if (!data) {
      if (e->bytes > f->base.file_bytes && e->bytes > PACKED_BYTES) {
        return unic_fail("asks for %" PRId64 " bytes, the whole file has %" PRId64 ": save it with numpy.savez, uncompressed", e->bytes, f->base.file_bytes);
      }
      UNIC_TRY(unpack(f, a, e, &m, to));
    } else if (!a->checked) {
      UNIC_TRY(unic_archive_check(&m));
      a->checked = true;
    }
  }
  if (data && a->columns) {
    int64_t stride[UNIC_WEIGHTS_RANK];
    stride[0] = 1;
    for (int d = 1; d < e->ndim; d++) stride[d] = stride[d - 1] * e->shape[d - 1];
    unic_weights_gather(to, data + a->header, e->ndim, e->shape, stride, a->size);
  } else if (data) {
    memcpy(to, data + a->header, (size_t)e->bytes);
  }
  if (a->swapped) unic_weights_swap(to, e->bytes / a->size, a->size);
  return UNIC_OK;
}

static void close_file(unic_weights *w) {
  unic_npy *f = (unic_npy *)w;
  free(f->arrays);
  unic_archive_close(&f->archive);
}

/* ---- opening ---- */

static unic_status add(unic_npy *f, const npy_array *a, const unic_weights_entry *e) {
  if (f->array_count == f->array_room) {
    int64_t room = f->array_room ? f->array_room * 2 : 16;
    UNIC_TRY(unic_weights_charge(&f->base, (room - f->array_room) * (int64_t)sizeof *a));
    npy_array *larger = realloc(f->arrays, (size_t)room * sizeof *a);
    if (!larger) return unic_fail_memory("no memory for its header");
    f->arrays = larger;
    f->array_room = room;
  }
  f->arrays[f->array_count++] = *a;
  return unic_weights_add(&f->base, e);
}

static unic_status add_member(unic_npy *f, int64_t index) {
  unic_archive_member m;
  UNIC_TRY(unic_archive_member_at(&f->archive, index, &m));
  size_t n = strlen(m.name);
  npy_array a = {.member = index};
  unic_weights_entry e = {0};
  if (n < 4 || strcmp(m.name + n - 4, ".npy") != 0) { /* NumPy gives the bytes of such a member; here it is only mentioned */
    char text[64];
    const char *key, *value;
    snprintf(text, sizeof text, "<%" PRId64 " bytes>", m.bytes);
    UNIC_TRY(unic_weights_keep(&f->base, m.name, (int64_t)n, &key));
    UNIC_TRY(unic_weights_keep(&f->base, text, (int64_t)strlen(text), &value));
    return unic_weights_add_pair(&f->base, key, value);
  }
  unic_status status;
  if (m.data) {
    status = read_head(f, m.data, m.bytes, m.bytes, &a, &e);
  } else {
    /* As much of it as a header may have; the end and the checksum are looked at when its elements are read. */
    int64_t have = m.bytes < HEADER_BYTES + 12 ? m.bytes : HEADER_BYTES + 12;
    unic_archive_reader r;
    uint8_t *head = malloc(have ? (size_t)have : 1);
    if (!head) return unic_fail_memory("no memory for a header");
    status = unic_archive_reader_open(&r, &f->archive, &m);
    if (status == UNIC_OK) {
      status = unic_archive_reader_read(&r, head, have);
      unic_archive_reader_close(&r);
    }
    if (status == UNIC_OK) status = read_head(f, head, have, m.bytes, &a, &e);
    free(head);
  }
  if (status != UNIC_OK) return unic_fail_prefix(status, "member '%.200s': ", m.name);
  UNIC_TRY(unic_weights_keep(&f->base, m.name, (int64_t)n - 4, &e.name));
  return add(f, &a, &e);
}

static unic_status open_file(unic_npy *f) {
  if (unic_archive_is(f->base.map.data, f->base.map.bytes)) {
    UNIC_TRY(unic_archive_open(&f->archive, &f->base.map));
    for (int64_t i = 0; i < f->archive.members; i++) UNIC_TRY(add_member(f, i));
    if (f->base.count == 0 && f->archive.members > 0) return unic_fail("is a zip archive without any .npy member");
  } else {
    npy_array a = {.member = -1};
    unic_weights_entry e = {.name = "(root)"};
    UNIC_TRY(read_head(f, f->base.map.data, f->base.map.bytes, f->base.map.bytes, &a, &e));
    if (a.why && strcmp(e.dtype, "O") == 0) return unic_fail("%s", a.why);
    UNIC_TRY(add(f, &a, &e));
  }
  return unic_weights_finish(&f->base);
}

static unic_status fill(unic_weights *w) {
  unic_npy *f = (unic_npy *)w;
  w->close = close_file;
  w->read = read_elements;
  w->room = ROOM + (w->file_bytes / 2 < MOST_SHARE ? w->file_bytes / 2 : MOST_SHARE);
  return open_file(f);
}

unic_status unic_npy_open(unic_weights **file, const char *path) { return unic_weights_open(file, sizeof(unic_npy), "npy", path, fill); }
