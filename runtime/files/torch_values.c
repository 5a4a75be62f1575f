/* From the values of a pickle to tensors. A name that is not in the tables below means nothing here: what is called by it is not looked into. */
#include "torch_values.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "torch_text.h"
#include "utf8.h"

typedef unic_pickle_value value;

enum { MOST_DEPTH = 64, NAME_BYTES = 1024, MOST_PAIRS = 4096, KEY_BYTES = 64 };

/* ---- names ---- */

typedef struct dtype_info {
  const char *name;  /* in PyTorch: of a storage class or a dtype */
  const char *dtype; /* here; NULL: bytes without a type */
  int size;
  const char *why; /* why it cannot be read */
} dtype_info;

static const char COMPLEX[] = "holds complex numbers, which this runtime has no type for", QUANTISED[] = "is quantised; save its dequantize() instead",
                  FLOAT8[] = "holds floats of 8 bits, which this runtime has no type for", WIDE[] = "holds unsigned numbers of 64 bits, which this runtime has no type for";

static const dtype_info storage_types[] = {
  {"FloatStorage", "F32", 4, NULL}, {"DoubleStorage", "F64", 8, NULL}, {"HalfStorage", "F16", 2, NULL}, {"BFloat16Storage", "BF16", 2, NULL},
  {"LongStorage", "I64", 8, NULL}, {"IntStorage", "I32", 4, NULL}, {"ShortStorage", "I16", 2, NULL}, {"CharStorage", "I8", 1, NULL},
  {"ByteStorage", "U8", 1, NULL}, {"BoolStorage", "BOOL", 1, NULL}, {"UntypedStorage", NULL, 1, NULL}, {"_UntypedStorage", NULL, 1, NULL},
  {"ComplexFloatStorage", "C64", 8, COMPLEX}, {"ComplexDoubleStorage", "C128", 16, COMPLEX},
  {"QInt8Storage", "QINT8", 1, QUANTISED}, {"QUInt8Storage", "QUINT8", 1, QUANTISED}, {"QInt32Storage", "QINT32", 4, QUANTISED},
  {"QUInt4x2Storage", "QUINT4X2", 1, QUANTISED}, {"QUInt2x4Storage", "QUINT2X4", 1, QUANTISED},
};

static const dtype_info dtypes[] = {
  {"torch.float32", "F32", 4, NULL}, {"torch.float64", "F64", 8, NULL}, {"torch.float16", "F16", 2, NULL}, {"torch.bfloat16", "BF16", 2, NULL},
  {"torch.int64", "I64", 8, NULL}, {"torch.int32", "I32", 4, NULL}, {"torch.int16", "I16", 2, NULL}, {"torch.int8", "I8", 1, NULL},
  {"torch.uint8", "U8", 1, NULL}, {"torch.bool", "BOOL", 1, NULL}, {"torch.uint16", "U16", 2, NULL}, {"torch.uint32", "U32", 4, NULL},
  {"torch.uint64", "U64", 8, WIDE}, {"torch.float8_e4m3fn", "F8_E4M3", 1, FLOAT8}, {"torch.float8_e5m2", "F8_E5M2", 1, FLOAT8},
  {"torch.float8_e8m0fnu", "F8_E8M0", 1, FLOAT8}, {"torch.float8_e4m3fnuz", "F8_E4M3FNUZ", 1, FLOAT8}, {"torch.float8_e5m2fnuz", "F8_E5M2FNUZ", 1, FLOAT8},
  {"torch.complex64", "C64", 8, COMPLEX}, {"torch.complex128", "C128", 16, COMPLEX},
};

/* What a call makes. */
typedef enum call_kind {
  UNKNOWN, TENSOR, TENSOR_OF_DTYPE, QUANTISED_TENSOR, SPARSE_TENSOR, NESTED_TENSOR, META_TENSOR,
  WRAPPED,    /* the tensor of its first argument: a Parameter */
  OF_TYPE,    /* a subclass: (function, type, arguments, state) */
  TAGGED      /* TorchScript's type tags: the first argument */
} call_kind;

static const struct { const char *name; call_kind kind; } calls[] = {
  {"torch._utils._rebuild_tensor", TENSOR}, {"torch._utils._rebuild_tensor_v2", TENSOR}, {"torch._utils._rebuild_tensor_v3", TENSOR_OF_DTYPE},
  {"torch._utils._rebuild_parameter", WRAPPED}, {"torch._utils._rebuild_parameter_with_state", WRAPPED},
  {"torch._utils._rebuild_qtensor", QUANTISED_TENSOR}, {"torch._utils._rebuild_sparse_tensor", SPARSE_TENSOR},
  {"torch._utils._rebuild_sparse_csr_tensor", SPARSE_TENSOR}, {"torch._utils._rebuild_nested_tensor", NESTED_TENSOR},
  {"torch._utils._rebuild_meta_tensor_no_storage", META_TENSOR}, {"torch._tensor._rebuild_from_type_v2", OF_TYPE},
  {"torch._tensor._rebuild_from_type", OF_TYPE}, {"torch.jit._pickle.restore_type_tag", TAGGED}, {"torch.jit._pickle.build_tensorlist", TAGGED},
};

static call_kind call_of(const value *function) {
  for (size_t i = 0; i < sizeof calls / sizeof calls[0]; i++) {
    if (unic_pickle_is(function, calls[i].name)) return calls[i].kind;
  }
  return UNKNOWN;
}

static const dtype_info *storage_type(const value *class_) {
  if (class_->kind != UNIC_PICKLE_GLOBAL || strncmp(class_->text, "torch.", 6) != 0) return NULL;
  const char *name = strrchr(class_->text, '.') + 1; /* torch.X, torch.cuda.X, torch.storage.X */
  for (size_t i = 0; i < sizeof storage_types / sizeof storage_types[0]; i++) {
    if (strcmp(name, storage_types[i].name) == 0) return &storage_types[i];
  }
  return NULL;
}

static const dtype_info *dtype_of(const value *v) {
  for (size_t i = 0; i < sizeof dtypes / sizeof dtypes[0]; i++) {
    if (unic_pickle_is(v, dtypes[i].name)) return &dtypes[i];
  }
  return NULL;
}

bool unic_torch_text_is(const unic_pickle_value *v, const char *text) {
  return v->kind == UNIC_PICKLE_TEXT && v->count == (int64_t)strlen(text) && memcmp(v->text, text, (size_t)v->count) == 0;
}

const unic_pickle_value *unic_torch_get(const unic_pickle_value *dict, const char *key) {
  if (dict->kind != UNIC_PICKLE_DICT) return NULL;
  for (int64_t i = 0; i < dict->count; i += 2) {
    if (unic_torch_text_is(dict->items[i], key)) return dict->items[i + 1];
  }
  return NULL;
}

/* ---- storages ---- */

static unic_status fail_room(void) { return unic_fail_memory("no memory for its header"); }

static uint64_t hash(const char *text, int64_t bytes) {
  uint64_t h = 14695981039346656037u;
  for (int64_t i = 0; i < bytes; i++) h = (h ^ (uint8_t)text[i]) * 1099511628211u;
  return h;
}

/* Twice as many slots, filled anew. */
static unic_status more_slots(unic_torch_values *t) {
  int64_t count = t->slot_count ? t->slot_count * 2 : 64;
  UNIC_TRY(unic_weights_charge(t->weights, count * (int64_t)sizeof *t->slots));
  int64_t *slots = calloc((size_t)count, sizeof *slots);
  if (!slots) return fail_room();
  for (int64_t i = 0; i < t->storage_count; i++) {
    const char *key = t->storages[i].key;
    uint64_t at = hash(key, (int64_t)strlen(key)) % (uint64_t)count;
    while (slots[at]) at = (at + 1) % (uint64_t)count;
    slots[at] = i + 1;
  }
  free(t->slots);
  t->slots = slots;
  t->slot_count = count;
  return UNIC_OK;
}

/* Where the key is, or would be; there is always a free slot. */
static uint64_t slot_of(const unic_torch_values *t, const value *key) {
  uint64_t at = hash(key->text, key->count) % (uint64_t)t->slot_count;
  while (t->slots[at] && !unic_torch_text_is(key, t->storages[t->slots[at] - 1].key)) at = (at + 1) % (uint64_t)t->slot_count;
  return at;
}

unic_torch_storage *unic_torch_storage_of(const unic_torch_values *t, const unic_pickle_value *key) {
  if (key->kind != UNIC_PICKLE_TEXT || t->slot_count == 0) return NULL;
  int64_t found = t->slots[slot_of(t, key)];
  return found ? &t->storages[found - 1] : NULL;
}

/* The storage of a key, noted at its first use. */
static unic_status note_storage(unic_torch_values *t, const value *key, int64_t size, int64_t bytes, int64_t *index) {
  if (key->kind != UNIC_PICKLE_TEXT || key->count == 0 || key->count > KEY_BYTES) return unic_fail("a storage whose key is no short text");
  for (int64_t i = 0; i < key->count; i++) {
    char c = key->text[i];
    bool plain = (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' || c == '-';
    if (!plain) return unic_fail("a storage whose key is not made of letters and digits (a path trick?)");
  }
  if (t->storage_count * 2 >= t->slot_count) UNIC_TRY(more_slots(t));
  uint64_t at = slot_of(t, key);
  if (t->slots[at]) {
    const unic_torch_storage *s = &t->storages[t->slots[at] - 1];
    if (s->bytes != bytes) return unic_fail("storage '%s': has %" PRId64 " bytes in one place and %" PRId64 " in another", s->key, s->bytes, bytes);
    *index = t->slots[at] - 1;
    return UNIC_OK;
  }
  if (t->storage_count == t->storage_room) {
    int64_t room = t->storage_room ? t->storage_room * 2 : 32;
    UNIC_TRY(unic_weights_charge(t->weights, (room - t->storage_room) * (int64_t)sizeof *t->storages));
    unic_torch_storage *larger = realloc(t->storages, (size_t)room * sizeof *larger);
    if (!larger) return fail_room();
    t->storages = larger;
    t->storage_room = room;
  }
  unic_torch_storage *s = &t->storages[t->storage_count];
  *s = (unic_torch_storage){.size = size, .bytes = bytes, .member = -1};
  UNIC_TRY(unic_weights_keep(t->weights, key->text, key->count, &s->key));
  *index = t->storage_count++;
  t->slots[at] = *index + 1;
  return UNIC_OK;
}

/* ('storage', class, key, place, number of elements[, view of it: (key, first element, number of elements)]) */
static unic_status read_storage(unic_torch_values *t, const value *v, const dtype_info **type, int64_t *index, int64_t *first, int64_t *count) {
  const value *id = v->kind == UNIC_PICKLE_PERSISTENT ? v->items[0] : NULL;
  if (!id || id->kind != UNIC_PICKLE_TUPLE || id->count < 5 || !unic_torch_text_is(id->items[0], "storage")) return unic_fail("its storage is not named as PyTorch does it");
  *type = storage_type(id->items[1]);
  if (!*type) return unic_fail("its storage is of the unknown class '%.200s'", id->items[1]->kind == UNIC_PICKLE_GLOBAL ? id->items[1]->text : "?");
  const value *elements = id->items[4];
  int64_t bytes;
  if (elements->kind != UNIC_PICKLE_INT || elements->integer < 0 || __builtin_mul_overflow(elements->integer, (int64_t)(*type)->size, &bytes)) {
    return unic_fail("its storage has a number of elements that is none");
  }
  *first = 0;
  *count = elements->integer;
  if (id->count > 5 && id->items[5]->kind != UNIC_PICKLE_NONE) {
    const value *view = id->items[5];
    if (view->kind != UNIC_PICKLE_TUPLE || view->count != 3 || view->items[1]->kind != UNIC_PICKLE_INT || view->items[2]->kind != UNIC_PICKLE_INT) {
      return unic_fail("its storage is a view that is not described as PyTorch does it");
    }
    *first = view->items[1]->integer;
    *count = view->items[2]->integer;
    if (*first < 0 || *count < 0 || *count > elements->integer - *first) {
      return unic_fail("its storage is a view of %" PRId64 " elements from %" PRId64 " on, there are %" PRId64, *count, *first, elements->integer);
    }
  }
  return note_storage(t, id->items[2], (*type)->size, bytes, index);
}

unic_status unic_torch_note_storages(unic_torch_values *t, const unic_pickle *pickle) {
  for (int64_t i = 0; i < pickle->outside_count; i++) {
    const value *id = pickle->outside[i]->items[0];
    const dtype_info *type;
    int64_t index, first, count;
    /* Old files of whole models name modules in the same way. */
    if (id->kind != UNIC_PICKLE_TUPLE || id->count < 5 || !unic_torch_text_is(id->items[0], "storage")) continue;
    unic_status status = read_storage(t, pickle->outside[i], &type, &index, &first, &count);
    if (status != UNIC_OK) return unic_fail_prefix(status, "a storage: ");
  }
  return UNIC_OK;
}

/* ---- tensors ---- */

typedef struct tensor {
  unic_weights_entry entry;
  unic_torch_place place;
} tensor;

/* Sizes or strides: a tuple, a list, a torch.Size of one. */
static unic_status read_sizes(const value *v, const char *what, int64_t *sizes, int *count) {
  if (v->kind == UNIC_PICKLE_CALL && unic_pickle_is(v->items[0], "torch.Size") && v->items[1]->count == 1) v = v->items[1]->items[0];
  if (v->kind != UNIC_PICKLE_TUPLE && v->kind != UNIC_PICKLE_LIST) return unic_fail("its %s is no tuple", what);
  if (v->count > UNIC_WEIGHTS_RANK) return unic_fail("its %s has %" PRId64 " numbers, at most %d can be read", what, v->count, UNIC_WEIGHTS_RANK);
  for (int64_t i = 0; i < v->count; i++) {
    if (v->items[i]->kind != UNIC_PICKLE_INT) return unic_fail("its %s holds something that is not a size", what);
    if (v->items[i]->integer < 0) return unic_fail("its %s holds %" PRId64 ", expected 0 or more", what, v->items[i]->integer);
    sizes[i] = v->items[i]->integer;
  }
  *count = (int)v->count;
  return UNIC_OK;
}

/* The elements that shape and strides reach must lie in the storage's `count` from `first` on. */
static unic_status check_reach(tensor *out, int64_t offset, int64_t first, int64_t count) {
  const unic_weights_entry *e = &out->entry;
  unic_torch_place *p = &out->place;
  int64_t last = 0, dense = 1;
  bool empty = false;
  p->contiguous = true;
  for (int d = e->ndim - 1; d >= 0; d--) {
    if (e->shape[d] == 0) empty = true;
    if (e->shape[d] > 1) {
      int64_t reach;
      if (__builtin_mul_overflow(e->shape[d] - 1, p->stride[d], &reach) || __builtin_add_overflow(last, reach, &last)) return unic_fail("its strides reach too far");
      if (p->stride[d] != dense) p->contiguous = false;
    }
    if (!empty && __builtin_mul_overflow(dense, e->shape[d], &dense)) return unic_fail("its shape is too large");
  }
  if (empty) {
    p->contiguous = true;
    return UNIC_OK;
  }
  if (offset < 0 || offset >= count || last >= count - offset) {
    return unic_fail("it reaches from element %" PRId64 " to %" PRId64 " of its storage, which has %" PRId64, offset, offset <= INT64_MAX - last ? offset + last : INT64_MAX, count);
  }
  p->offset = first + offset;
  p->span = last + 1;
  return UNIC_OK;
}

static unic_status fail_arguments(void) { return unic_fail("it is not described as PyTorch does it"); }

/* (storage, offset, size, stride, ...) */
static unic_status read_strided(unic_torch_values *t, const value *arguments, const dtype_info *dtype, tensor *out) {
  if (arguments->count < 4 || arguments->items[1]->kind != UNIC_PICKLE_INT) return fail_arguments();
  const dtype_info *type = NULL;
  int64_t first = 0, count = 0;
  int strides = 0;
  UNIC_TRY(read_storage(t, arguments->items[0], &type, &out->place.storage, &first, &count));
  if (!dtype && !type->dtype) return unic_fail("its storage has no type");
  if (!dtype) dtype = type;
  out->entry.dtype = dtype->dtype;
  out->place.why = dtype->why;
  if (dtype->size != type->size) { /* elements counted in another size than the storage's, which is bytes then */
    if (type->size != 1) return unic_fail("its storage is of another type than it is");
    count /= dtype->size;
    if (first) return fail_arguments();
  }
  UNIC_TRY(read_sizes(arguments->items[2], "size", out->entry.shape, &out->entry.ndim));
  UNIC_TRY(read_sizes(arguments->items[3], "stride", out->place.stride, &strides));
  if (strides != out->entry.ndim) return unic_fail("it has %d sizes and %d strides", out->entry.ndim, strides);
  UNIC_TRY(check_reach(out, arguments->items[1]->integer, first, count));
  out->entry.bytes = unic_weights_shape_bytes(out->entry.shape, out->entry.ndim, dtype->size * 8);
  return out->entry.bytes >= 0 ? UNIC_OK : unic_fail("its shape is too large");
}

static void list_only(tensor *out, const char *dtype, const char *why) {
  out->entry.dtype = dtype;
  out->entry.bytes = 0;
  out->place.storage = -1;
  out->place.why = why;
}

/* (layout, (indices, values, size, ...)), or (layout, (offsets, indices, values, size)) */
static unic_status read_sparse(const value *arguments, tensor *out) {
  list_only(out, "SPARSE", "is sparse; save its to_dense() instead");
  const value *parts = arguments->count > 1 ? arguments->items[1] : NULL;
  if (!parts || parts->kind != UNIC_PICKLE_TUPLE) return fail_arguments();
  for (int64_t i = 2; i < parts->count; i++) {
    const value *v = parts->items[i];
    if (v->kind == UNIC_PICKLE_TUPLE || v->kind == UNIC_PICKLE_LIST || (v->kind == UNIC_PICKLE_CALL && unic_pickle_is(v->items[0], "torch.Size"))) {
      return read_sizes(v, "size", out->entry.shape, &out->entry.ndim);
    }
  }
  return fail_arguments();
}

static unic_status read_tensor(unic_torch_values *t, call_kind kind, const value *arguments, int depth, tensor *out) {
  if (depth > MOST_DEPTH) return unic_fail("it is wrapped in itself");
  const dtype_info *dtype;
  int strides;
  switch (kind) {
    case TENSOR:
      UNIC_TRY(read_strided(t, arguments, NULL, out));
      /* The last argument says what was to be done with the values lazily: {'conj': True}, {'neg': True}. */
      if (arguments->count > 6 && arguments->items[6]->kind == UNIC_PICKLE_DICT && arguments->items[6]->count > 0 && !out->place.why) {
        out->place.why = "is a lazily negated view; save its resolve_neg() instead";
      }
      return UNIC_OK;
    case TENSOR_OF_DTYPE:
      dtype = arguments->count > 6 ? dtype_of(arguments->items[6]) : NULL;
      if (!dtype) return unic_fail("it has an unknown dtype");
      return read_strided(t, arguments, dtype, out);
    case QUANTISED_TENSOR: return read_strided(t, arguments, NULL, out);
    case SPARSE_TENSOR: return read_sparse(arguments, out);
    case NESTED_TENSOR: list_only(out, "NESTED", "is nested; save its tensors one by one instead"); return UNIC_OK;
    case META_TENSOR:
      dtype = arguments->count > 2 ? dtype_of(arguments->items[0]) : NULL;
      if (!dtype) return unic_fail("it has an unknown dtype");
      list_only(out, dtype->dtype, "was saved from the device meta: it has a shape and no values");
      UNIC_TRY(read_sizes(arguments->items[2 - 1], "size", out->entry.shape, &out->entry.ndim));
      return read_sizes(arguments->items[2], "stride", out->place.stride, &strides);
    case WRAPPED: case TAGGED: case OF_TYPE: {
      const value *function = NULL, *of = NULL;
      if (kind == OF_TYPE && arguments->count > 2) {
        function = arguments->items[0];
        of = arguments->items[2];
      } else if (kind != OF_TYPE && arguments->count > 0 && arguments->items[0]->kind == UNIC_PICKLE_CALL) {
        function = arguments->items[0]->items[0];
        of = arguments->items[0]->items[1];
      }
      if (!function || of->kind != UNIC_PICKLE_TUPLE) return fail_arguments();
      kind = call_of(function);
      if (kind == UNKNOWN) return unic_fail("it is made by the unknown function '%.200s'", function->kind == UNIC_PICKLE_GLOBAL ? function->text : "?");
      return read_tensor(t, kind, of, depth + 1, out);
    }
    default: return fail_arguments();
  }
}

/* ---- the walk ---- */

typedef struct walk {
  unic_torch_values *t;
  char name[NAME_BYTES]; /* of the value at hand */
  int64_t used;
} walk;

static const char *shown(const walk *w) { return w->used ? w->name : "(root)"; }

static unic_status keep_name(const walk *w, const char **kept) {
  const char *name = shown(w);
  int64_t bytes = w->used ? w->used : (int64_t)strlen(name);
  if (memchr(name, 0, (size_t)bytes)) return unic_fail("a name that holds a zero byte");
  if (unic_utf8_check(name, bytes) >= 0) return unic_fail("a name that is not UTF-8");
  return unic_weights_keep(w->t->weights, name, bytes, kept);
}

static unic_status add_tensor(walk *w, call_kind kind, const value *arguments) {
  unic_torch_values *t = w->t;
  tensor found = {.place = {.storage = -1}};
  unic_status status = read_tensor(t, kind, arguments, 0, &found);
  if (status != UNIC_OK) return unic_fail_prefix(status, "tensor '%s': ", shown(w));
  UNIC_TRY(keep_name(w, &found.entry.name));
  if (t->place_count == t->place_room) {
    int64_t room = t->place_room ? t->place_room * 2 : 32;
    UNIC_TRY(unic_weights_charge(t->weights, (room - t->place_room) * (int64_t)sizeof *t->places));
    unic_torch_place *larger = realloc(t->places, (size_t)room * sizeof *larger);
    if (!larger) return fail_room();
    t->places = larger;
    t->place_room = room;
  }
  t->places[t->place_count++] = found.place;
  return unic_weights_add(t->weights, &found.entry);
}

static unic_status add_text(const walk *w, const value *v) {
  char text[UNIC_TORCH_TEXT_BYTES];
  const char *key, *kept;
  if (w->t->weights->pair_count >= MOST_PAIRS) return UNIC_OK; /* they are for people to look at */
  unic_torch_describe(v, text, sizeof text);
  UNIC_TRY(keep_name(w, &key));
  UNIC_TRY(unic_weights_keep(w->t->weights, text, (int64_t)strlen(text), &kept));
  return unic_weights_add_pair(w->t->weights, key, kept);
}

/* Names are joined with "."; the caller puts `used` back. */
static unic_status enter(walk *w, bool is_root, const char *text, int64_t bytes) {
  int64_t dot = is_root ? 0 : 1;
  if (w->used + dot + bytes >= NAME_BYTES) return unic_fail("a name of more than %d bytes: its values lie too deep in one another", NAME_BYTES - 1);
  if (dot) w->name[w->used++] = '.';
  if (bytes) memcpy(w->name + w->used, text, (size_t)bytes);
  w->used += bytes;
  w->name[w->used] = 0;
  return UNIC_OK;
}

static unic_status enter_key(walk *w, bool is_root, const value *key) {
  if (key->kind == UNIC_PICKLE_TEXT || key->kind == UNIC_PICKLE_BYTES) return enter(w, is_root, key->text, key->count);
  char text[UNIC_TORCH_TEXT_BYTES];
  unic_torch_describe(key, text, sizeof text);
  return enter(w, is_root, text, (int64_t)strlen(text));
}

static bool is_plain(const value *v) { return v->kind <= UNIC_PICKLE_BYTES || v->kind == UNIC_PICKLE_GLOBAL; }

static unic_status visit(walk *w, value *v, int depth);

static unic_status visit_items(walk *w, value *v, int depth) {
  const bool is_dict = v->kind == UNIC_PICKLE_DICT;
  const int64_t used = w->used, step = is_dict ? 2 : 1;
  for (int64_t i = 0; i < v->count; i += step) {
    if (is_dict) {
      UNIC_TRY(enter_key(w, depth == 0, v->items[i]));
    } else {
      char digits[24];
      UNIC_TRY(enter(w, depth == 0, digits, snprintf(digits, sizeof digits, "%" PRId64, i)));
    }
    UNIC_TRY(visit(w, v->items[i + step - 1], depth + 1));
    w->used = used;
    w->name[used] = 0;
  }
  return UNIC_OK;
}

static unic_status visit(walk *w, value *v, int depth) {
  if (depth > MOST_DEPTH) return unic_fail("its values lie more than %d deep in one another", MOST_DEPTH);
  if (w->t->steps-- <= 0) return unic_fail("its values hold one another too often (a bomb?)");
  if (v->open) return UNIC_OK; /* it holds itself: everything in it has its name already */
  v->open = true;
  unic_status status = UNIC_OK;
  switch (v->kind) {
    case UNIC_PICKLE_DICT: status = visit_items(w, v, depth); break;
    case UNIC_PICKLE_TUPLE: case UNIC_PICKLE_LIST: {
      bool plain = true;
      for (int64_t i = 0; i < v->count && plain && w->t->steps >= 0; i++, w->t->steps--) plain = is_plain(v->items[i]);
      status = plain ? add_text(w, v) : visit_items(w, v, depth);
      break;
    }
    case UNIC_PICKLE_CALL: {
      const value *of = v->items[0];
      call_kind kind = call_of(of);
      if (kind == TAGGED) {
        if (v->items[1]->count > 0) status = visit(w, v->items[1]->items[0], depth);
      } else if (kind != UNKNOWN) {
        status = add_tensor(w, kind, v->items[1]);
      } else if (of->kind == UNIC_PICKLE_GLOBAL && strncmp(of->text, "__torch__.", 10) == 0 && v->items[2]) {
        status = visit(w, v->items[2], depth); /* a module of TorchScript: its attributes by name */
      } else {
        status = add_text(w, v);
      }
      break;
    }
    default: status = add_text(w, v); break;
  }
  v->open = false;
  return status;
}

unic_status unic_torch_list(unic_torch_values *t, const unic_pickle_value *root, int64_t values) {
  walk w = {.t = t};
  /* An honest file visits each of its values once or twice; one that is nested by the memo would do so without end. */
  t->steps = 4 * values + 10000;
  UNIC_TRY(visit(&w, (value *)(uintptr_t)root, 0));
  if (t->weights->count == 0 && root->kind == UNIC_PICKLE_CALL) {
    const value *of = root->items[0];
    return unic_fail("holds an object of class '%.200s' and no dict of tensors: nothing of it is run here; save its state_dict() instead",
                     of->kind == UNIC_PICKLE_GLOBAL ? of->text : "?");
  }
  return unic_weights_finish(t->weights);
}

void unic_torch_values_close(unic_torch_values *t) {
  free(t->storages);
  free(t->places);
  free(t->slots);
  t->storages = NULL;
  t->places = NULL;
  t->slots = NULL;
}
