/* Values of a pickle as short texts. */
#include "torch_text.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../dtype.h"
#include "utf8.h"

typedef unic_pickle_value value;

/* The shortest of the usual forms that reads back as the same number. */
static void put_real(double real, char *text, size_t bytes) {
  for (int digits = 6; digits <= 17; digits++) {
    snprintf(text, bytes, "%.*g", digits, real);
    if (strtod(text, NULL) == real) return;
  }
}

/* The bytes of a value that holds bytes: as they are, or as Latin-1 text in the form of UTF-8, which is how protocol 2 writes them. At most
 * `room` of them; returns how many, -1: it holds none. */
static int bytes_of(const value *v, uint8_t *out, int room) {
  if (v->kind == UNIC_PICKLE_BYTES || v->kind == UNIC_PICKLE_TEXT) {
    if (v->count > room) return -1;
    if (v->count) memcpy(out, v->text, (size_t)v->count);
    return (int)v->count;
  }
  if (v->kind != UNIC_PICKLE_CALL || !unic_pickle_is(v->items[0], "_codecs.encode") || v->items[1]->count < 1) return -1;
  const value *from = v->items[1]->items[0];
  if (from->kind != UNIC_PICKLE_TEXT) return -1;
  int count = 0;
  for (int64_t i = 0; i < from->count; i++) {
    uint8_t c = (uint8_t)from->text[i];
    if (count == room) return -1;
    if (c >= 0x80) {
      if ((c & 0xFC) != 0xC0 || ++i == from->count) return -1;
      c = (uint8_t)(c << 6 | ((uint8_t)from->text[i] & 0x3F));
    }
    out[count++] = c;
  }
  return count;
}

/* numpy.dtype('f8', ...), then its state: (3, '<', ...): kind and size; '>' is not read. */
static bool numpy_dtype(const value *v, char *kind, int *size) {
  if (v->kind != UNIC_PICKLE_CALL || !unic_pickle_is(v->items[0], "numpy.dtype") || v->items[1]->count < 1) return false;
  const value *name = v->items[1]->items[0], *state = v->items[2];
  if (name->kind != UNIC_PICKLE_TEXT || name->count != 2 || name->text[1] < '1' || name->text[1] > '8') return false;
  if (state && state->kind == UNIC_PICKLE_TUPLE && state->count > 1 && state->items[1]->kind == UNIC_PICKLE_TEXT && state->items[1]->count == 1 &&
      state->items[1]->text[0] == '>') {
    return false;
  }
  *kind = name->text[0];
  *size = name->text[1] - '0';
  return true;
}

static bool put_numpy_scalar(const value *v, char *text, size_t bytes) {
  const value *arguments = v->items[1];
  char kind;
  int size;
  uint8_t raw[8] = {0};
  if (arguments->count < 2 || !numpy_dtype(arguments->items[0], &kind, &size) || bytes_of(arguments->items[1], raw, 8) != size) return false;
  uint64_t bits;
  memcpy(&bits, raw, 8); /* little-endian: see unic_weights_open */
  double f64;
  float f32;
  memcpy(&f64, raw, 8);
  memcpy(&f32, raw, 4);
  if (kind == 'f' && (size == 8 || size == 4 || size == 2)) {
    put_real(size == 8 ? f64 : size == 4 ? (double)f32 : (double)unic_float_of_f16((uint16_t)bits), text, bytes);
  } else if (kind == 'i') {
    uint64_t up = bits << (64 - 8 * size);
    int64_t integer;
    memcpy(&integer, &up, 8);
    snprintf(text, bytes, "%" PRId64, integer >> (64 - 8 * size));
  } else if (kind == 'u') {
    snprintf(text, bytes, "%" PRIu64, bits);
  } else if (kind == 'b') {
    snprintf(text, bytes, "%s", bits ? "True" : "False");
  } else {
    return false;
  }
  return true;
}

static void describe_call(const value *v, char *text, size_t bytes) {
  const value *of = v->items[0], *arguments = v->items[1];
  const char *name = of->kind == UNIC_PICKLE_GLOBAL ? of->text : "?";
  if ((strcmp(name, "numpy.core.multiarray.scalar") == 0 || strcmp(name, "numpy._core.multiarray.scalar") == 0) && put_numpy_scalar(v, text, bytes)) return;
  uint8_t raw[64];
  int count = bytes_of(v, raw, (int)sizeof raw);
  if (count >= 0) {
    snprintf(text, bytes, "<%d bytes>", count);
  } else if (strcmp(name, "numpy.core.multiarray._reconstruct") == 0 || strcmp(name, "numpy._core.multiarray._reconstruct") == 0 ||
             strcmp(name, "numpy._core.numeric._frombuffer") == 0 || strcmp(name, "numpy.core.numeric._frombuffer") == 0) {
    snprintf(text, bytes, "<array of numpy>");
  } else if (strcmp(name, "torch.device") == 0 && arguments->count > 0 && arguments->items[0]->kind == UNIC_PICKLE_TEXT && arguments->items[0]->count < 16) {
    const value *index = arguments->count > 1 ? arguments->items[1] : NULL;
    int used = snprintf(text, bytes, "%.*s", (int)arguments->items[0]->count, arguments->items[0]->text);
    if (index && index->kind == UNIC_PICKLE_INT) snprintf(text + used, bytes - (size_t)used, ":%" PRId64, index->integer);
  } else if (strcmp(name, "torch.Size") == 0 && arguments->count == 1 && arguments->items[0]->kind == UNIC_PICKLE_TUPLE) {
    unic_torch_describe(arguments->items[0], text, bytes);
  } else {
    snprintf(text, bytes, "<object of %s>", name);
  }
}

static bool is_scalar(const value *v) { return v->kind <= UNIC_PICKLE_BYTES || v->kind == UNIC_PICKLE_GLOBAL; }

void unic_torch_describe(const unic_pickle_value *v, char *text, size_t bytes) {
  switch (v->kind) {
    case UNIC_PICKLE_NONE: snprintf(text, bytes, "None"); break;
    case UNIC_PICKLE_BOOL: snprintf(text, bytes, "%s", v->integer ? "True" : "False"); break;
    case UNIC_PICKLE_INT: snprintf(text, bytes, "%" PRId64, v->integer); break;
    case UNIC_PICKLE_LONG: snprintf(text, bytes, "<whole number of %" PRId64 " bytes>", v->count); break;
    case UNIC_PICKLE_FLOAT: put_real(v->real, text, bytes); break;
    case UNIC_PICKLE_DIGITS: case UNIC_PICKLE_TEXT:
      if (v->count < (int64_t)bytes && !memchr(v->text, 0, (size_t)v->count) && unic_utf8_check(v->text, v->count) < 0) {
        snprintf(text, bytes, "%.*s", (int)v->count, v->text);
      } else {
        snprintf(text, bytes, "<text of %" PRId64 " bytes>", v->count);
      }
      break;
    case UNIC_PICKLE_BYTES: snprintf(text, bytes, "<%" PRId64 " bytes>", v->count); break;
    case UNIC_PICKLE_TUPLE: case UNIC_PICKLE_LIST: {
      size_t used = 1;
      bool fits = bytes > 2;
      if (fits) text[0] = '[';
      for (int64_t i = 0; i < v->count && fits; i++) {
        char item[UNIC_TORCH_TEXT_BYTES];
        fits = is_scalar(v->items[i]);
        if (!fits) break;
        unic_torch_describe(v->items[i], item, sizeof item);
        size_t n = strlen(item);
        fits = used + n + 4 <= bytes;
        if (fits) used += (size_t)snprintf(text + used, bytes - used, "%s%s", i ? ", " : "", item);
      }
      if (fits) {
        snprintf(text + used, bytes - used, "]");
      } else {
        snprintf(text, bytes, "<list of %" PRId64 ">", v->count);
      }
      break;
    }
    case UNIC_PICKLE_DICT: snprintf(text, bytes, "<dict of %" PRId64 ">", v->count / 2); break;
    case UNIC_PICKLE_GLOBAL: snprintf(text, bytes, strncmp(v->text, "torch.", 6) == 0 ? "%s" : "<class %s>", v->text); break;
    case UNIC_PICKLE_CALL: describe_call(v, text, bytes); break;
    case UNIC_PICKLE_PERSISTENT: snprintf(text, bytes, "<storage>"); break;
  }
}
