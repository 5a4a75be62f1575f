/* PyTorch's files: the bytes around the pickles (torch_values.c: what is in them). */
#include "torch_file.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "archive.h"
#include "torch_values.h"

/* What opening may take beside the file itself: this much and half of the file, at most MOST_SHARE (names, places and the pickle's values: about
 * a kilobyte for each tensor). With libzip's directory and what reading may take, it stays below the file's size and 64 MB. */
static const int64_t ROOM = INT64_C(28) << 20, MOST_SHARE = INT64_C(20) << 20;

/* A tensor whose elements overlap in its storage (an expanded one) may be larger than the file: by no more than this. */
static const int64_t OVERLAP_BYTES = INT64_C(4) << 20;

/* All tensors together may ask for so many times the file's bytes, and so many bytes more: shared storages are honest, a bomb of them is not. */
static const int64_t SUM_TIMES = 16, SUM_BYTES = INT64_C(32) << 20;

/* Elements of a packed storage that must be spread: through memory of this size. */
static const int64_t PACKED_BYTES = INT64_C(8) << 20;

typedef struct unic_torch_file {
  unic_weights base;
  unic_archive archive;  /* of a zip file */
  unic_torch_values values;
} unic_torch_file;

/* ---- reading a tensor ---- */

static unic_status read_packed(unic_torch_file *f, const unic_weights_entry *e, const unic_torch_place *p, const unic_archive_member *m, void *to) {
  const int64_t size = unic_weights_bits(e->dtype) / 8;
  if (p->contiguous) return unic_archive_read(&f->archive, m, p->offset * size, e->bytes, to);
  if (p->span * size > PACKED_BYTES) {
    return unic_fail("is no dense row-major tensor, and its archive is compressed: save it as torch.save does, uncompressed");
  }
  void *memory = malloc((size_t)(p->span * size));
  if (!memory) return unic_fail_memory("no memory for %" PRId64 " bytes to unpack", p->span * size);
  unic_status status = unic_archive_read(&f->archive, m, p->offset * size, p->span * size, memory);
  if (status == UNIC_OK) unic_weights_gather(to, memory, e->ndim, e->shape, p->stride, size);
  free(memory);
  return status;
}

static unic_status read_elements(unic_weights *w, const unic_weights_entry *e, void *to) {
  unic_torch_file *f = (unic_torch_file *)w;
  const unic_torch_place *p = &f->values.places[e - f->base.entries];
  if (p->why) return unic_fail("%s", p->why);
  if (e->bytes == 0) return UNIC_OK;
  if (e->bytes > f->base.file_bytes && e->bytes > OVERLAP_BYTES) {
    return unic_fail("asks for %" PRId64 " bytes, the whole file has %" PRId64, e->bytes, f->base.file_bytes);
  }
  unic_torch_storage *s = &f->values.storages[p->storage];
  unic_archive_member m = {0};
  if (s->member >= 0 && !(s->stored && s->checked)) UNIC_TRY(unic_archive_member_at(&f->archive, s->member, &m));
  if (!s->stored) {
    UNIC_TRY(read_packed(f, e, p, &m, to));
  } else {
    if (s->member >= 0 && !s->checked) {
      UNIC_TRY(unic_archive_check(&m));
      s->checked = true;
    }
    int64_t size = unic_weights_bits(e->dtype) / 8;
    unic_weights_gather(to, s->data + p->offset * size, e->ndim, e->shape, p->stride, size);
  }
  return UNIC_OK;
}

static void close_file(unic_weights *w) {
  unic_torch_file *f = (unic_torch_file *)w;
  unic_torch_values_close(&f->values);
  unic_archive_close(&f->archive);
}

/* ---- zip ---- */

/* The pickle's bytes, and, once its storages are known, where they lie. */
static unic_status list_archive(unic_torch_file *f, const char *folder, int folder_bytes, const unic_archive_member *pickle_member, const uint8_t *data) {
  unic_pickle pickle;
  const unic_pickle_value *root;
  int64_t used;
  char name[512];
  unic_pickle_open(&pickle, &f->base.room);
  unic_status status = unic_pickle_load(&pickle, data, pickle_member->bytes, &used, &root);
  if (status == UNIC_OK) status = unic_torch_list(&f->values, root, pickle.values);
  if (status != UNIC_OK) {
    snprintf(name, sizeof name, "%.*s/constants.pkl", folder_bytes, folder);
    unic_fail_prefix(status, unic_archive_find(&f->archive, name) >= 0 ? "is a TorchScript archive, of which only plain tensors can be read: data.pkl: " : "data.pkl: ");
  }
  unic_pickle_close(&pickle);
  for (int64_t i = 0; i < f->values.storage_count && status == UNIC_OK; i++) {
    unic_torch_storage *s = &f->values.storages[i];
    unic_archive_member m;
    snprintf(name, sizeof name, "%.*s/data/%s", folder_bytes, folder, s->key);
    s->member = unic_archive_find(&f->archive, name);
    if (s->member < 0) return unic_fail("has no member '%s', which data.pkl names", name);
    UNIC_TRY(unic_archive_member_at(&f->archive, s->member, &m));
    if (m.bytes != s->bytes) return unic_fail("member '%s': has %" PRId64 " bytes, data.pkl says %" PRId64, name, m.bytes, s->bytes);
    s->stored = m.data != NULL;
    s->data = m.data;
  }
  return status;
}

static unic_status open_archive(unic_torch_file *f) {
  UNIC_TRY(unic_archive_open(&f->archive, &f->base.map));
  unic_archive *a = &f->archive;
  /* <folder>/data.pkl: the folder is named after the file that was saved, so any name will do, but there is one. */
  int64_t found = -1, arrays = 0;
  for (int64_t i = 0; i < a->members; i++) {
    const char *name = unic_archive_name(a, i), *slash = strchr(name, '/');
    size_t n = strlen(name);
    if (n > 4 && strcmp(name + n - 4, ".npy") == 0) arrays++;
    if (!slash || strcmp(slash, "/data.pkl") != 0) continue;
    if (found >= 0) return unic_fail("has two members <folder>/data.pkl, expected one");
    found = i;
  }
  if (found < 0) {
    return unic_fail("is a zip archive and not a PyTorch file: it has no member <folder>/data.pkl%s", arrays ? " (an .npz archive of NumPy arrays?)" : "");
  }
  unic_archive_member m;
  UNIC_TRY(unic_archive_member_at(a, found, &m));
  const char *folder = m.name;
  int folder_bytes = (int)(strchr(folder, '/') - folder);
  char name[512], order[8];
  if (folder_bytes > 256) return unic_fail("has a folder whose name has %d bytes, at most 256 can be read", folder_bytes);
  snprintf(name, sizeof name, "%.*s/byteorder", folder_bytes, folder);
  int64_t byteorder = unic_archive_find(a, name);
  if (byteorder >= 0) { /* older files have none, and were written by little-endian machines */
    unic_archive_member o;
    UNIC_TRY(unic_archive_member_at(a, byteorder, &o));
    if (o.bytes < (int64_t)sizeof order) UNIC_TRY(unic_archive_read(a, &o, 0, o.bytes, order));
    if (o.bytes != 6 || memcmp(order, "little", 6) != 0) return unic_fail("was written by a big-endian machine");
  }
  if (m.data) {
    UNIC_TRY(unic_archive_check(&m));
    return list_archive(f, folder, folder_bytes, &m, m.data);
  }
  UNIC_TRY(unic_weights_charge(&f->base, m.bytes));
  uint8_t *data = malloc(m.bytes ? (size_t)m.bytes : 1);
  if (!data) return unic_fail_memory("no memory for its data.pkl");
  unic_status status = unic_archive_read(a, &m, 0, m.bytes, data);
  if (status == UNIC_OK) status = list_archive(f, folder, folder_bytes, &m, data);
  free(data);
  f->base.room += m.bytes;
  return status;
}

/* ---- legacy ---- */

static const uint8_t MAGIC[] = {0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19};

static bool is_magic(const unic_pickle_value *v) {
  static const char digits[] = "119547037146038801333356"; /* the same, in protocols 0 and 1 */
  if (v->kind == UNIC_PICKLE_DIGITS) return v->count == (int64_t)sizeof digits - 1 && memcmp(v->text, digits, sizeof digits - 1) == 0;
  return v->kind == UNIC_PICKLE_LONG && v->count == (int64_t)sizeof MAGIC && memcmp(v->text, MAGIC, sizeof MAGIC) == 0;
}

static unic_status read_legacy(unic_torch_file *f, unic_pickle *pickle) {
  static const char *const parts[] = {"its magic number", "its protocol number", "its facts about the machine", "the object", "its list of storages"};
  const uint8_t *data = f->base.map.data;
  int64_t bytes = f->base.map.bytes, at = 0;
  const unic_pickle_value *part[5];
  for (int i = 0; i < 5; i++) {
    int64_t used;
    unic_status status = unic_pickle_load(pickle, data + at, bytes - at, &used, &part[i]);
    if (i == 0 && (status == UNIC_ERROR || (status == UNIC_OK && !is_magic(part[0])))) {
      return unic_fail(status == UNIC_OK ? "is a pickle that torch.save did not write; nothing in it is read" : "is not a PyTorch file (its first bytes begin no zip archive and no magic number)");
    }
    if (status != UNIC_OK) return unic_fail_prefix(status, "%s, from byte %" PRId64 " on: ", parts[i], at);
    at += used;
    if (i == 1 && (part[1]->kind != UNIC_PICKLE_INT || part[1]->integer != 1001)) return unic_fail("has a protocol number that is not 1001");
  }
  const unic_pickle_value *little = unic_torch_get(part[2], "little_endian");
  if (little && little->kind == UNIC_PICKLE_BOOL && !little->integer) return unic_fail("was written by a big-endian machine");
  UNIC_TRY(unic_torch_list(&f->values, part[3], pickle->values));
  UNIC_TRY(unic_torch_note_storages(&f->values, pickle));
  if (part[4]->kind != UNIC_PICKLE_LIST) return unic_fail("its list of storages is no list");
  for (int64_t i = 0; i < part[4]->count; i++) {
    const unic_pickle_value *key = part[4]->items[i];
    unic_torch_storage *s = unic_torch_storage_of(&f->values, key);
    if (!s) return unic_fail("its list of storages has one that its object does not name");
    if (s->stored) return unic_fail("storage '%s': stands twice in its list of storages", s->key);
    if (bytes - at < 8) return unic_fail("storage '%s': does not lie in the file (is it cut?)", s->key);
    uint64_t count = 0;
    for (int b = 7; b >= 0; b--) count = count << 8 | data[at + b];
    at += 8;
    if (count != (uint64_t)(s->bytes / s->size)) {
      return unic_fail("storage '%s': has %" PRIu64 " elements in the file, its tensors say %" PRId64, s->key, count, s->bytes / s->size);
    }
    if (s->bytes > bytes - at) return unic_fail("storage '%s': its %" PRId64 " bytes do not lie in the file (is it cut?)", s->key, s->bytes);
    s->stored = true;
    s->data = data + at;
    at += s->bytes;
  }
  for (int64_t i = 0; i < f->values.storage_count; i++) {
    if (!f->values.storages[i].stored) return unic_fail("storage '%s': is not in its list of storages", f->values.storages[i].key);
  }
  if (at != bytes) return unic_fail("%" PRId64 " bytes follow its last storage", bytes - at);
  return UNIC_OK;
}

static unic_status open_legacy(unic_torch_file *f) {
  unic_pickle pickle;
  unic_pickle_open(&pickle, &f->base.room);
  unic_status status = read_legacy(f, &pickle);
  unic_pickle_close(&pickle);
  return status;
}

/* ---- either ---- */

static bool begins(const unic_torch_file *f, const char *text) {
  return f->base.map.bytes >= (int64_t)strlen(text) && memcmp(f->base.map.data, text, strlen(text)) == 0;
}

static unic_status check_sum(const unic_torch_file *f) {
  int64_t sum = 0, most;
  if (__builtin_mul_overflow(f->base.file_bytes, SUM_TIMES, &most) || __builtin_add_overflow(most, SUM_BYTES, &most)) most = INT64_MAX;
  for (int64_t i = 0; i < f->base.count; i++) {
    if (__builtin_add_overflow(sum, f->base.entries[i].bytes, &sum) || sum > most) {
      return unic_fail("its tensors ask for more than %" PRId64 " bytes in all, the file has %" PRId64 " (expanded or shared without end?)", most, f->base.file_bytes);
    }
  }
  return UNIC_OK;
}

static unic_status open_file(unic_torch_file *f) {
  if (f->base.map.bytes == 0) return unic_fail("is not a PyTorch file (it is empty)");
  if (begins(f, "version https://git-lfs")) return unic_fail("is a pointer of Git LFS and not the file itself");
  if (f->base.map.bytes > 262 && memcmp(f->base.map.data + 257, "ustar", 5) == 0) {
    return unic_fail("is a tar archive, the form of PyTorch before 0.1.10; open it with a PyTorch of today and save it again");
  }
  if (unic_archive_is(f->base.map.data, f->base.map.bytes)) {
    UNIC_TRY(open_archive(f));
  } else if (f->base.map.data[0] == 0x80 || f->base.map.data[0] == 'L') {
    UNIC_TRY(open_legacy(f));
  } else {
    return unic_fail("is not a PyTorch file (its first bytes begin no zip archive and no magic number)");
  }
  return check_sum(f);
}

static unic_status fill(unic_weights *w) {
  unic_torch_file *f = (unic_torch_file *)w;
  w->close = close_file;
  w->read = read_elements;
  f->values.weights = w;
  w->room = ROOM + (w->file_bytes / 2 < MOST_SHARE ? w->file_bytes / 2 : MOST_SHARE);
  return open_file(f);
}

unic_status unic_torch_open(unic_weights **file, const char *path) { return unic_weights_open(file, sizeof(unic_torch_file), "torch", path, fill); }
