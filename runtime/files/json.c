/* A strict JSON reader: a state per nesting level, kept in one bit, and what may come next. */
#include "json.h"

#include <stdlib.h>
#include <string.h>

#include "utf8.h"

enum { MOST_DEPTH = 64 };

enum { EXPECT_VALUE, EXPECT_VALUE_OR_END, EXPECT_KEY, EXPECT_KEY_OR_END, EXPECT_SEPARATOR, EXPECT_NOTHING };

void unic_json_open(unic_json *j, const char *text, int64_t bytes) {
  memset(j, 0, sizeof *j);
  j->text = text;
  j->bytes = bytes;
  j->expects = EXPECT_VALUE;
}

void unic_json_close(unic_json *j) {
  free(j->string);
  memset(j, 0, sizeof *j);
}

const char *unic_json_kind_name(unic_json_kind kind) {
  static const char *const names[] = {"the end", "an object", "the end of an object", "an array", "the end of an array", "a key",
                                      "a string", "a number", "true", "false", "null"};
  return names[kind];
}

static unic_status fail_at(const unic_json *j, const char *what) {
  return unic_fail("byte %lld: %s", (long long)j->at + 1, j->at >= j->bytes ? "the JSON text ends early" : what);
}

static void skip_space(unic_json *j) {
  while (j->at < j->bytes) {
    char c = j->text[j->at];
    if (c != ' ' && c != '\n' && c != '\t' && c != '\r') break;
    j->at++;
  }
}

/* The byte at hand, 0 at the end (a real zero byte is refused wherever it stands, as no token begins with it). */
static char peek(const unic_json *j) { return j->at < j->bytes ? j->text[j->at] : 0; }

static int hex4(const unic_json *j, int64_t at) {
  if (at + 4 > j->bytes) return -1;
  int value = 0;
  for (int64_t i = at; i < at + 4; i++) {
    char c = j->text[i];
    int digit = c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
    if (digit < 0) return -1;
    value = value * 16 + digit;
  }
  return value;
}

static char *put_utf8(char *out, uint32_t c) {
  if (c < 0x80) {
    *out++ = (char)c;
  } else if (c < 0x800) {
    *out++ = (char)(0xC0 | c >> 6);
    *out++ = (char)(0x80 | (c & 0x3F));
  } else if (c < 0x10000) {
    *out++ = (char)(0xE0 | c >> 12);
    *out++ = (char)(0x80 | (c >> 6 & 0x3F));
    *out++ = (char)(0x80 | (c & 0x3F));
  } else {
    *out++ = (char)(0xF0 | c >> 18);
    *out++ = (char)(0x80 | (c >> 12 & 0x3F));
    *out++ = (char)(0x80 | (c >> 6 & 0x3F));
    *out++ = (char)(0x80 | (c & 0x3F));
  }
  return out;
}

/* Decode the \u escape whose digits begin at j->at; surrogates come in pairs. */
static unic_status read_unicode(unic_json *j, char **out) {
  int high = hex4(j, j->at);
  if (high < 0) return fail_at(j, "a \\u without four hexadecimal digits");
  uint32_t c = (uint32_t)high;
  if (high >= 0xDC00 && high <= 0xDFFF) return fail_at(j, "a low surrogate without its high one");
  if (high >= 0xD800 && high <= 0xDBFF) {
    int low = j->at + 6 <= j->bytes && j->text[j->at + 4] == '\\' && j->text[j->at + 5] == 'u' ? hex4(j, j->at + 6) : -1;
    if (low < 0xDC00 || low > 0xDFFF) return fail_at(j, "a high surrogate without its low one");
    c = 0x10000 + ((uint32_t)(high - 0xD800) << 10) + (uint32_t)(low - 0xDC00);
    j->at += 6;
  }
  j->at += 4;
  *out = put_utf8(*out, c);
  return UNIC_OK;
}

/* j->at stands on the opening quote. */
static unic_status read_string(unic_json *j) {
  j->at++;
  int64_t begin = j->at, end = begin;
  while (end < j->bytes && j->text[end] != '"') {
    if ((unsigned char)j->text[end] < 0x20) {
      j->at = end;
      return fail_at(j, "a control character inside a string");
    }
    end += j->text[end] == '\\' ? 2 : 1;
  }
  if (end >= j->bytes) {
    j->at = j->bytes;
    return fail_at(j, "");
  }
  int64_t bad = unic_utf8_check(j->text + begin, end - begin);
  if (bad >= 0) {
    j->at = begin + bad;
    return fail_at(j, "a string that is not UTF-8");
  }
  if (j->capacity < end - begin + 1) { /* decoding never makes a string longer */
    int64_t capacity = (end - begin + 1) * 2 + 62;
    char *larger = realloc(j->string, (size_t)capacity);
    if (!larger) return unic_fail_memory("byte %lld: no memory for a string", (long long)begin);
    j->string = larger;
    j->capacity = capacity;
  }
  char *out = j->string;
  while (j->at < end) {
    const char *escape = memchr(j->text + j->at, '\\', (size_t)(end - j->at));
    int64_t plain = (escape ? escape - j->text : end) - j->at;
    memcpy(out, j->text + j->at, (size_t)plain);
    out += plain;
    j->at += plain;
    if (!escape) break;
    char c = j->text[j->at + 1];
    j->at += 2;
    switch (c) {
    case '"': case '\\': case '/': *out++ = c; break;
    case 'b': *out++ = '\b'; break;
    case 'f': *out++ = '\f'; break;
    case 'n': *out++ = '\n'; break;
    case 'r': *out++ = '\r'; break;
    case 't': *out++ = '\t'; break;
    case 'u': UNIC_TRY(read_unicode(j, &out)); break;
    default:
      j->at--;
      return fail_at(j, "an unknown escape inside a string");
    }
  }
  *out = 0;
  j->length = out - j->string;
  j->at = end + 1;
  return UNIC_OK;
}

static bool is_digit(char c) { return c >= '0' && c <= '9'; }

static unic_status read_number(unic_json *j) {
  bool negative = peek(j) == '-', fits = true;
  if (negative) j->at++;
  if (!is_digit(peek(j))) return fail_at(j, "a number without digits");
  int64_t value = 0;
  if (peek(j) == '0') {
    j->at++;
    if (is_digit(peek(j))) return fail_at(j, "a number that begins with 0");
  } else {
    for (; is_digit(peek(j)); j->at++) { /* counted downwards: INT64_MIN has no positive */
      fits = fits && !__builtin_mul_overflow(value, 10, &value) && !__builtin_sub_overflow(value, peek(j) - '0', &value);
    }
    if (!negative) fits = fits && !__builtin_sub_overflow(0, value, &value);
  }
  j->is_integer = fits;
  j->integer = fits ? value : 0;
  if (peek(j) == '.') {
    j->is_integer = false;
    j->at++;
    if (!is_digit(peek(j))) return fail_at(j, "a number that ends with its point");
    while (is_digit(peek(j))) j->at++;
  }
  if (peek(j) == 'e' || peek(j) == 'E') {
    j->is_integer = false;
    j->at++;
    if (peek(j) == '+' || peek(j) == '-') j->at++;
    if (!is_digit(peek(j))) return fail_at(j, "a number without an exponent after its e");
    while (is_digit(peek(j))) j->at++;
  }
  return UNIC_OK;
}

static unic_status read_word(unic_json *j, const char *word, unic_json_kind value, unic_json_kind *kind) {
  int64_t n = (int64_t)strlen(word);
  if (j->bytes - j->at < n || memcmp(j->text + j->at, word, (size_t)n) != 0) return fail_at(j, "an unknown word");
  j->at += n;
  *kind = value;
  return UNIC_OK;
}

static bool in_object(const unic_json *j) { return j->depth > 0 && (j->objects >> (j->depth - 1) & 1); }

static void after_value(unic_json *j) { j->expects = j->depth ? EXPECT_SEPARATOR : EXPECT_NOTHING; }

static unic_status begin_level(unic_json *j, bool object, unic_json_kind *kind) {
  if (j->depth == MOST_DEPTH) return fail_at(j, "more than 64 nested levels");
  uint64_t bit = UINT64_C(1) << j->depth;
  j->objects = object ? j->objects | bit : j->objects & ~bit;
  j->depth++;
  j->at++;
  j->expects = object ? EXPECT_KEY_OR_END : EXPECT_VALUE_OR_END;
  *kind = object ? UNIC_JSON_OBJECT : UNIC_JSON_ARRAY;
  return UNIC_OK;
}

static unic_status end_level(unic_json *j, unic_json_kind *kind) {
  *kind = in_object(j) ? UNIC_JSON_OBJECT_END : UNIC_JSON_ARRAY_END;
  j->depth--;
  j->at++;
  after_value(j);
  return UNIC_OK;
}

static unic_status read_value(unic_json *j, unic_json_kind *kind) {
  switch (peek(j)) {
  case '{': return begin_level(j, true, kind);
  case '[': return begin_level(j, false, kind);
  case '"':
    UNIC_TRY(read_string(j));
    *kind = UNIC_JSON_STRING;
    break;
  case 't': UNIC_TRY(read_word(j, "true", UNIC_JSON_TRUE, kind)); break;
  case 'f': UNIC_TRY(read_word(j, "false", UNIC_JSON_FALSE, kind)); break;
  case 'n': UNIC_TRY(read_word(j, "null", UNIC_JSON_NULL, kind)); break;
  case '-': case '0': case '1': case '2': case '3': case '4': case '5': case '6': case '7': case '8': case '9':
    UNIC_TRY(read_number(j));
    *kind = UNIC_JSON_NUMBER;
    break;
  default: return fail_at(j, "a character that begins no JSON value");
  }
  after_value(j);
  return UNIC_OK;
}

unic_status unic_json_next(unic_json *j, unic_json_kind *kind) {
  skip_space(j);
  if (j->expects == EXPECT_NOTHING) {
    if (j->at < j->bytes) return fail_at(j, "text after the end of the JSON value");
    *kind = UNIC_JSON_END;
    return UNIC_OK;
  }
  if (j->expects == EXPECT_SEPARATOR) {
    if (peek(j) == (in_object(j) ? '}' : ']')) return end_level(j, kind);
    if (peek(j) != ',') return fail_at(j, in_object(j) ? "expected ',' or '}'" : "expected ',' or ']'");
    j->at++;
    skip_space(j);
    j->expects = in_object(j) ? EXPECT_KEY : EXPECT_VALUE;
  }
  if (j->expects == EXPECT_KEY || j->expects == EXPECT_KEY_OR_END) {
    if (j->expects == EXPECT_KEY_OR_END && peek(j) == '}') return end_level(j, kind);
    if (peek(j) != '"') return fail_at(j, "expected a key in quotes");
    UNIC_TRY(read_string(j));
    skip_space(j);
    if (peek(j) != ':') return fail_at(j, "expected ':' after a key");
    j->at++;
    j->expects = EXPECT_VALUE;
    *kind = UNIC_JSON_KEY;
    return UNIC_OK;
  }
  if (j->expects == EXPECT_VALUE_OR_END && peek(j) == ']') return end_level(j, kind);
  return read_value(j, kind);
}

unic_status unic_json_skip(unic_json *j, unic_json_kind kind) {
  if (kind != UNIC_JSON_OBJECT && kind != UNIC_JSON_ARRAY) return UNIC_OK;
  int outside = j->depth - 1;
  while (j->depth > outside) UNIC_TRY(unic_json_next(j, &kind));
  return UNIC_OK;
}

int64_t unic_json_quote(char *out, const char *text, int64_t bytes) {
  static const char hex[] = "0123456789abcdef";
  int64_t n = 0;
  if (out) out[n] = '"';
  n++;
  for (int64_t i = 0; i < bytes; i++) {
    unsigned char c = (unsigned char)text[i];
    char escape[6];
    int length;
    if (c == '"' || c == '\\') {
      escape[0] = '\\';
      escape[1] = (char)c;
      length = 2;
    } else if (c < 0x20) {
      memcpy(escape, "\\u00", 4);
      escape[4] = hex[c >> 4];
      escape[5] = hex[c & 15];
      length = 6;
    } else {
      escape[0] = (char)c;
      length = 1;
    }
    if (out) memcpy(out + n, escape, (size_t)length);
    n += length;
  }
  if (out) out[n] = '"';
  return n + 1;
}
