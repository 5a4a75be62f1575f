/* The pickle machine: opcodes to values, in counted memory. One file, if a long one: every opcode is here, and no part of it serves anyone else. */
#include "pickle.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

typedef unic_pickle_value value;

enum { NAME_BYTES = 256 }; /* of a class or function, with its module: a longer one is no honest one, and each use copies it */

/* ---- memory ---- */

typedef struct unic_pickle_chunk {
  struct unic_pickle_chunk *next;
  int64_t used, bytes;
  _Alignas(16) char memory[];
} unic_pickle_chunk;

static const int64_t CHUNK = 32768;

static unic_status charge(unic_pickle *p, int64_t bytes) {
  if (bytes > *p->room) {
    return unic_fail("byte %lld: its values take more memory than a pickle in a file of this size may ask for", (long long)p->at);
  }
  *p->room -= bytes;
  return UNIC_OK;
}

static unic_status fail_memory(void) { return unic_fail_memory("no memory for its values"); }

static unic_status take(unic_pickle *p, int64_t bytes, void *out) {
  bytes = (bytes + 7) & ~INT64_C(7);
  unic_pickle_chunk *c = p->chunks;
  if (!c || c->bytes - c->used < bytes) {
    int64_t room = bytes > CHUNK ? bytes : CHUNK;
    UNIC_TRY(charge(p, room + (int64_t)sizeof *c));
    c = malloc(sizeof *c + (size_t)room);
    if (!c) return fail_memory();
    c->next = p->chunks;
    c->used = 0;
    c->bytes = room;
    p->chunks = c;
  }
  void *memory = c->memory + c->used;
  c->used += bytes;
  memcpy(out, &memory, sizeof memory);
  return UNIC_OK;
}

/* Room for at least `count` elements of `size` bytes in malloc'd memory. */
static unic_status reserve(unic_pickle *p, void *list, int64_t *room, int64_t count, int64_t size) {
  if (count <= *room) return UNIC_OK;
  int64_t larger = *room ? *room : 64;
  while (larger < count) larger *= 2;
  UNIC_TRY(charge(p, (larger - *room) * size));
  void *was;
  memcpy(&was, list, sizeof was);
  void *moved = realloc(was, (size_t)(larger * size));
  if (!moved) return fail_memory();
  memcpy(list, &moved, sizeof moved);
  *room = larger;
  return UNIC_OK;
}

static unic_status make(unic_pickle *p, unic_pickle_kind kind, value **out) {
  UNIC_TRY(take(p, (int64_t)sizeof(value), out));
  **out = (value){.kind = kind};
  p->values++;
  return UNIC_OK;
}

static unic_status push(unic_pickle *p, value *v) {
  UNIC_TRY(reserve(p, &p->stack, &p->stack_room, p->depth + 1, (int64_t)sizeof *p->stack));
  p->stack[p->depth++] = v;
  return UNIC_OK;
}

/* ---- the bytes ---- */

static unic_status fail_at(const unic_pickle *p, const char *what) { return unic_fail("byte %lld: %s", (long long)p->at, what); }

static unic_status next_bytes(unic_pickle *p, uint64_t count, const uint8_t **out) {
  if (count > (uint64_t)(p->bytes - p->at)) {
    return unic_fail("byte %lld: an opcode has %llu bytes to it, %lld are left (is it cut?)", (long long)p->at, (unsigned long long)count,
                     (long long)(p->bytes - p->at));
  }
  *out = p->data + p->at;
  p->at += (int64_t)count;
  return UNIC_OK;
}

/* An unsigned little-endian number of 1, 2, 4 or 8 bytes. */
static unic_status next_number(unic_pickle *p, int bytes, uint64_t *out) {
  const uint8_t *data = NULL;
  UNIC_TRY(next_bytes(p, (uint64_t)bytes, &data));
  *out = 0;
  for (int i = bytes - 1; i >= 0; i--) *out = *out << 8 | data[i];
  return UNIC_OK;
}

/* The text up to the end of the line, which is passed. */
static unic_status next_line(unic_pickle *p, const char **text, int64_t *count) {
  const uint8_t *from = p->data + p->at, *end = p->at < p->bytes ? memchr(from, '\n', (size_t)(p->bytes - p->at)) : NULL;
  if (!end) return fail_at(p, "a line that does not end (is it cut?)");
  *text = (const char *)from;
  *count = end - from;
  p->at += *count + 1;
  return UNIC_OK;
}

/* ---- the stack ---- */

/* The values above the last mark lie at stack[*first..depth). */
static unic_status last_mark(const unic_pickle *p, int64_t *first) {
  if (p->mark_count == 0) return fail_at(p, "an opcode takes what lies above a mark, and there is no mark");
  *first = p->marks[p->mark_count - 1];
  return UNIC_OK;
}

static void drop_mark(unic_pickle *p) { p->depth = p->marks[--p->mark_count]; }

/* At least `count` values above the last mark. */
static unic_status need(const unic_pickle *p, int64_t count) {
  int64_t bottom = p->mark_count ? p->marks[p->mark_count - 1] : 0;
  if (p->depth - bottom < count) return fail_at(p, "an opcode takes more values than there are");
  return UNIC_OK;
}

static value *top(const unic_pickle *p) { return p->stack[p->depth - 1]; }

/* ---- values ---- */

static unic_status push_integer(unic_pickle *p, int64_t integer) {
  value *v = NULL;
  UNIC_TRY(make(p, UNIC_PICKLE_INT, &v));
  v->integer = integer;
  return push(p, v);
}

static unic_status push_real(unic_pickle *p, double real) {
  value *v = NULL;
  UNIC_TRY(make(p, UNIC_PICKLE_FLOAT, &v));
  v->real = real;
  return push(p, v);
}

static unic_status push_text(unic_pickle *p, unic_pickle_kind kind, const void *text, int64_t count) {
  value *v = NULL;
  UNIC_TRY(make(p, kind, &v));
  v->text = text;
  v->count = count;
  return push(p, v);
}

/* A text, bytes or long whose length stands in front of it in `bytes` bytes. */
static unic_status push_counted(unic_pickle *p, unic_pickle_kind kind, int bytes) {
  uint64_t count = 0;
  const uint8_t *text = NULL;
  UNIC_TRY(next_number(p, bytes, &count));
  UNIC_TRY(next_bytes(p, count, &text));
  return push_text(p, kind, text, (int64_t)count);
}

/* A whole number of `bytes` bytes of two's complement. */
static unic_status push_long(unic_pickle *p, int length_bytes) {
  uint64_t count = 0;
  const uint8_t *data = NULL;
  UNIC_TRY(next_number(p, length_bytes, &count));
  UNIC_TRY(next_bytes(p, count, &data)); /* a negative length of LONG4 is one of more than 2 GB here */
  if (count > 8) return push_text(p, UNIC_PICKLE_LONG, data, (int64_t)count);
  uint64_t bits = count && data[count - 1] & 0x80 ? UINT64_MAX : 0;
  for (int i = (int)count - 1; i >= 0; i--) bits = bits << 8 | data[i];
  int64_t integer;
  memcpy(&integer, &bits, sizeof integer);
  return push_integer(p, integer);
}

static unic_status push_items(unic_pickle *p, unic_pickle_kind kind, value *const *items, int64_t count) {
  value *v = NULL;
  UNIC_TRY(make(p, kind, &v));
  if (count) {
    UNIC_TRY(take(p, count * (int64_t)sizeof *items, &v->items));
    memcpy(v->items, items, (size_t)count * sizeof *items);
  }
  v->count = v->room = count;
  return push(p, v);
}

/* What lies above the mark as one value in its place. */
static unic_status push_marked(unic_pickle *p, unic_pickle_kind kind) {
  int64_t first = 0;
  UNIC_TRY(last_mark(p, &first));
  int64_t count = p->depth - first;
  if (kind == UNIC_PICKLE_DICT && count % 2) return fail_at(p, "a dict of an odd number of keys and values");
  drop_mark(p);
  return push_items(p, kind, p->stack + first, count);
}

/* Put items at the end of a list or dict. */
static unic_status append(unic_pickle *p, value *to, value *const *items, int64_t count) {
  if (to->room - to->count < count) {
    int64_t room = to->room ? to->room * 2 : 4;
    while (room < to->count + count) room *= 2;
    value **larger = NULL;
    UNIC_TRY(take(p, room * (int64_t)sizeof *larger, &larger));
    if (to->count) memcpy(larger, to->items, (size_t)to->count * sizeof *larger);
    to->items = larger;
    to->room = room;
  }
  if (count) memcpy(to->items + to->count, items, (size_t)count * sizeof *items);
  to->count += count;
  return UNIC_OK;
}

/* Items for the value below them. Something of an unknown class takes them and keeps none. */
static unic_status append_to(unic_pickle *p, unic_pickle_kind kind, value *to, value *const *items, int64_t count) {
  if (to->kind == UNIC_PICKLE_CALL) return UNIC_OK;
  if (to->kind != kind) return fail_at(p, kind == UNIC_PICKLE_DICT ? "keys and values for something that is no dict" : "items for something that is no list");
  if (kind == UNIC_PICKLE_DICT && count % 2) return fail_at(p, "a dict of an odd number of keys and values");
  return append(p, to, items, count);
}

static unic_status append_marked(unic_pickle *p, unic_pickle_kind kind) {
  int64_t first = 0;
  UNIC_TRY(last_mark(p, &first));
  if (first == 0) return fail_at(p, "an opcode takes more values than there are");
  UNIC_TRY(append_to(p, kind, p->stack[first - 1], p->stack + first, p->depth - first));
  drop_mark(p);
  return UNIC_OK;
}

/* ---- names and calls ---- */

bool unic_pickle_is(const unic_pickle_value *v, const char *name) { return v->kind == UNIC_PICKLE_GLOBAL && strcmp(v->text, name) == 0; }

static unic_status push_global(unic_pickle *p, const char *module, int64_t module_bytes, const char *name, int64_t name_bytes) {
  int64_t count = module_bytes + 1 + name_bytes;
  if (module_bytes >= NAME_BYTES || name_bytes >= NAME_BYTES || count >= NAME_BYTES) return fail_at(p, "the name of a class or function has more than 255 bytes");
  value *v = NULL;
  char *text = NULL;
  UNIC_TRY(make(p, UNIC_PICKLE_GLOBAL, &v));
  UNIC_TRY(take(p, count + 1, &text));
  if (module_bytes) memcpy(text, module, (size_t)module_bytes);
  text[module_bytes] = '.';
  if (name_bytes) memcpy(text + module_bytes + 1, name, (size_t)name_bytes);
  text[count] = 0;
  for (int64_t i = 0; i < count; i++) {
    if (text[i] < 0x21 || text[i] > 0x7E) text[i] = '?';
  }
  v->text = text;
  v->count = count;
  return push(p, v);
}

/* module '\n' name '\n' */
static unic_status push_named(unic_pickle *p) {
  const char *module = NULL, *name = NULL;
  int64_t module_bytes = 0, name_bytes = 0;
  UNIC_TRY(next_line(p, &module, &module_bytes));
  UNIC_TRY(next_line(p, &name, &name_bytes));
  return push_global(p, module, module_bytes, name, name_bytes);
}

/* Python 2 and 3 have different names for the module of what is built in. */
static bool is_builtin(const value *of, const char *name) {
  if (of->kind != UNIC_PICKLE_GLOBAL) return false;
  const char *modules[] = {"builtins.", "__builtin__."};
  for (int i = 0; i < 2; i++) {
    size_t n = strlen(modules[i]);
    if (strncmp(of->text, modules[i], n) == 0 && strcmp(of->text + n, name) == 0) return true;
  }
  return false;
}

/* A dict out of a dict or a list of pairs, or an empty one. */
static unic_status push_dict(unic_pickle *p, const value *from) {
  value *v = NULL;
  UNIC_TRY(make(p, UNIC_PICKLE_DICT, &v));
  if (from && from->kind == UNIC_PICKLE_DICT) {
    UNIC_TRY(append(p, v, from->items, from->count));
  } else if (from && (from->kind == UNIC_PICKLE_LIST || from->kind == UNIC_PICKLE_TUPLE)) {
    for (int64_t i = 0; i < from->count; i++) {
      const value *pair = from->items[i];
      if ((pair->kind != UNIC_PICKLE_LIST && pair->kind != UNIC_PICKLE_TUPLE) || pair->count != 2) return fail_at(p, "a dict of something that is no pair");
      UNIC_TRY(append(p, v, pair->items, 2));
    }
  }
  return push(p, v);
}

/* Plain containers become what they are; everything else becomes a note of what would be called. */
static unic_status push_call(unic_pickle *p, value *of, value *arguments) {
  if (arguments->kind != UNIC_PICKLE_TUPLE) return fail_at(p, "a call whose arguments are no tuple");
  const value *first = arguments->count ? arguments->items[0] : NULL;
  if (unic_pickle_is(of, "collections.OrderedDict") || unic_pickle_is(of, "collections.Counter") || is_builtin(of, "dict")) return push_dict(p, first);
  if (unic_pickle_is(of, "collections.defaultdict")) return push_dict(p, arguments->count > 1 ? arguments->items[1] : NULL);
  if (is_builtin(of, "set") || is_builtin(of, "frozenset") || is_builtin(of, "list") || is_builtin(of, "tuple")) {
    if (first && (first->kind == UNIC_PICKLE_LIST || first->kind == UNIC_PICKLE_TUPLE)) return push_items(p, UNIC_PICKLE_LIST, first->items, first->count);
    if (!first) return push_items(p, UNIC_PICKLE_LIST, NULL, 0);
  }
  value *call[3] = {of, arguments, NULL};
  return push_items(p, UNIC_PICKLE_CALL, call, 3);
}

/* What an object is told to hold. Of containers it is attributes only (OrderedDict's _metadata), which nobody asks for. */
static void build(value *object, value *state) {
  if (object->kind == UNIC_PICKLE_CALL) object->items[2] = state;
}

/* ---- the text opcodes of protocol 0 ---- */

static unic_status push_digits(unic_pickle *p, bool is_long) {
  const char *text = NULL;
  int64_t count = 0;
  UNIC_TRY(next_line(p, &text, &count));
  if (!is_long && count == 2 && text[0] == '0' && (text[1] == '0' || text[1] == '1')) return push(p, text[1] == '1' ? &p->yes : &p->no);
  if (is_long && count && text[count - 1] == 'L') count--;
  int64_t at = count && (text[0] == '-' || text[0] == '+'), integer = 0;
  bool fits = true;
  if (at == count) return fail_at(p, "a whole number without digits");
  for (; at < count; at++) {
    if (text[at] < '0' || text[at] > '9') return fail_at(p, "a whole number that is not one");
    int digit = text[0] == '-' ? '0' - text[at] : text[at] - '0';
    fits = fits && !__builtin_mul_overflow(integer, 10, &integer) && !__builtin_add_overflow(integer, digit, &integer);
  }
  return fits ? push_integer(p, integer) : push_text(p, UNIC_PICKLE_DIGITS, text, count);
}

static unic_status push_float_line(unic_pickle *p) {
  const char *text = NULL;
  int64_t count = 0;
  char copy[64], *end;
  UNIC_TRY(next_line(p, &text, &count));
  if (count == 0 || count >= (int64_t)sizeof copy) return fail_at(p, "a number that is not one");
  memcpy(copy, text, (size_t)count);
  copy[count] = 0;
  double real = strtod(copy, &end);
  if (end != copy + count) return fail_at(p, "a number that is not one");
  return push_real(p, real);
}

static int hex_digit(char c) { return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1; }

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

/* \xhh, \uhhhh or \Uhhhhhhhh at text[at]; 0 digits: it is none. */
static int escaped(const char *text, int64_t count, int64_t at, uint32_t *c) {
  if (at + 1 >= count || text[at] != '\\') return 0;
  int digits = text[at + 1] == 'x' ? 2 : text[at + 1] == 'u' ? 4 : text[at + 1] == 'U' ? 8 : 0;
  if (digits == 0 || at + 2 + digits > count) return 0;
  uint32_t number = 0;
  for (int i = 0; i < digits; i++) {
    int digit = hex_digit(text[at + 2 + i]);
    if (digit < 0) return 0;
    number = number << 4 | (uint32_t)digit;
  }
  *c = number;
  return digits;
}

/* A line of Latin-1 in which further characters are escaped. */
static unic_status push_unicode_line(unic_pickle *p) {
  const char *text = NULL;
  int64_t count = 0;
  UNIC_TRY(next_line(p, &text, &count));
  char *copy = NULL, *out;
  UNIC_TRY(take(p, 2 * count + 1, &copy)); /* a byte from 0x80 on becomes two; an escape becomes shorter */
  out = copy;
  for (int64_t i = 0; i < count;) {
    uint32_t c;
    int digits = text[i] == '\\' && i + 1 < count && text[i + 1] != 'x' ? escaped(text, count, i, &c) : 0;
    if (digits && c > 0x10FFFF) return fail_at(p, "a character beyond the last one");
    out = put_utf8(out, digits ? c : (uint8_t)text[i]);
    i += digits ? 2 + digits : 1;
  }
  return push_text(p, UNIC_PICKLE_TEXT, copy, out - copy);
}

/* A quoted Python string of bytes. */
static unic_status push_quoted_line(unic_pickle *p) {
  const char *text = NULL;
  int64_t count = 0;
  UNIC_TRY(next_line(p, &text, &count));
  if (count < 2 || (text[0] != '\'' && text[0] != '"') || text[count - 1] != text[0]) return fail_at(p, "a string without its quotes");
  text++;
  count -= 2;
  if (count == 0 || !memchr(text, '\\', (size_t)count)) return push_text(p, UNIC_PICKLE_TEXT, text, count);
  char *copy = NULL, *out;
  UNIC_TRY(take(p, count + 1, &copy));
  out = copy;
  for (int64_t i = 0; i < count;) {
    uint32_t c;
    if (text[i] != '\\' || i + 1 == count) {
      *out++ = text[i++];
    } else if (text[i + 1] == 'x' && escaped(text, count, i, &c)) {
      *out++ = (char)c;
      i += 4;
    } else {
      char next = text[i + 1];
      *out++ = next == 'n' ? '\n' : next == 't' ? '\t' : next == 'r' ? '\r' : next;
      i += 2;
    }
  }
  return push_text(p, UNIC_PICKLE_TEXT, copy, out - copy);
}

/* The number at the end of GET and PUT. */
static unic_status next_index(unic_pickle *p, uint64_t *index) {
  const char *text = NULL;
  int64_t count = 0;
  UNIC_TRY(next_line(p, &text, &count));
  *index = 0;
  if (count == 0 || count > 12) return fail_at(p, "a place in the memo that is no number");
  for (int64_t i = 0; i < count; i++) {
    if (text[i] < '0' || text[i] > '9') return fail_at(p, "a place in the memo that is no number");
    *index = *index * 10 + (uint64_t)(text[i] - '0');
  }
  return UNIC_OK;
}

/* ---- the memo ---- */

static unic_status get(unic_pickle *p, uint64_t index) {
  if (index >= (uint64_t)p->memo_room || !p->memo[index]) return unic_fail("byte %lld: place %llu of the memo is empty", (long long)p->at, (unsigned long long)index);
  return push(p, p->memo[index]);
}

static unic_status put(unic_pickle *p, uint64_t index) {
  UNIC_TRY(need(p, 1));
  /* Places are given out in order, and what is put there took a byte or more. */
  if (index > (uint64_t)p->at) return unic_fail("byte %lld: place %llu of the memo, before which there is nothing", (long long)p->at, (unsigned long long)index);
  int64_t room = p->memo_room;
  UNIC_TRY(reserve(p, &p->memo, &p->memo_room, (int64_t)index + 1, (int64_t)sizeof *p->memo));
  for (; room < p->memo_room; room++) p->memo[room] = NULL;
  p->memo[index] = top(p);
  return UNIC_OK;
}

/* ---- the machine ---- */

static unic_status mark(unic_pickle *p) {
  UNIC_TRY(reserve(p, &p->marks, &p->mark_room, p->mark_count + 1, (int64_t)sizeof *p->marks));
  p->marks[p->mark_count++] = p->depth;
  return UNIC_OK;
}

static unic_status tuple_of(unic_pickle *p, int64_t count) {
  UNIC_TRY(need(p, count));
  p->depth -= count;
  return push_items(p, UNIC_PICKLE_TUPLE, p->stack + p->depth, count);
}

/* Class and arguments from the stack, the class below. */
static unic_status call_top(unic_pickle *p, int64_t count) {
  UNIC_TRY(need(p, count));
  p->depth -= count;
  return push_call(p, p->stack[p->depth], p->stack[p->depth + 1]);
}

/* A class and, above it up to the mark, its arguments. */
static unic_status call_marked(unic_pickle *p, bool has_class) {
  int64_t first = 0;
  UNIC_TRY(last_mark(p, &first));
  if (has_class) UNIC_TRY(need(p, 1));
  int64_t skip = has_class ? 1 : 0, count = p->depth - first - skip;
  value *class_ = has_class ? p->stack[first] : NULL;
  drop_mark(p);
  if (!has_class) {
    /* The class stands in the bytes: its value goes on top of the arguments and is taken from there. */
    int64_t depth = first + count;
    p->depth = depth;
    UNIC_TRY(push_named(p));
    class_ = p->stack[--p->depth];
    p->depth = first;
  }
  UNIC_TRY(push_items(p, UNIC_PICKLE_TUPLE, p->stack + first + skip, count));
  return push_call(p, class_, p->stack[--p->depth]);
}

static unic_status persistent(unic_pickle *p) {
  UNIC_TRY(need(p, 1));
  value *id = p->stack[--p->depth];
  UNIC_TRY(push_items(p, UNIC_PICKLE_PERSISTENT, &id, 1));
  UNIC_TRY(reserve(p, &p->outside, &p->outside_room, p->outside_count + 1, (int64_t)sizeof *p->outside));
  p->outside[p->outside_count++] = top(p);
  return UNIC_OK;
}

static unic_status step(unic_pickle *p, uint8_t opcode) {
  uint64_t n = 0;
  const uint8_t *data = NULL;
  const char *text = NULL;
  int64_t count = 0;
  value *v = NULL;
  switch (opcode) {
    case 0x80: /* PROTO */
      UNIC_TRY(next_number(p, 1, &n));
      return n <= 5 ? UNIC_OK : unic_fail("byte %lld: protocol %llu, the last one known is 5", (long long)p->at, (unsigned long long)n);
    case 0x95: /* FRAME */
      UNIC_TRY(next_number(p, 8, &n));
      return n <= (uint64_t)(p->bytes - p->at) ? UNIC_OK : fail_at(p, "a frame that is longer than the file (is it cut?)");

    case '(': return mark(p);
    case '0': /* POP, of a mark too */
      if (p->mark_count && p->marks[p->mark_count - 1] == p->depth) { p->mark_count--; return UNIC_OK; }
      UNIC_TRY(need(p, 1));
      p->depth--;
      return UNIC_OK;
    case '1': UNIC_TRY(last_mark(p, &count)); drop_mark(p); return UNIC_OK;
    case '2': UNIC_TRY(need(p, 1)); return push(p, top(p));

    case 'N': return push(p, &p->none);
    case 0x88: return push(p, &p->yes);
    case 0x89: return push(p, &p->no);
    case 'I': return push_digits(p, false);
    case 'L': return push_digits(p, true);
    case 'J': UNIC_TRY(next_number(p, 4, &n)); return push_integer(p, (int32_t)(uint32_t)n);
    case 'K': UNIC_TRY(next_number(p, 1, &n)); return push_integer(p, (int64_t)n);
    case 'M': UNIC_TRY(next_number(p, 2, &n)); return push_integer(p, (int64_t)n);
    case 0x8a: return push_long(p, 1);
    case 0x8b: return push_long(p, 4);
    case 'F': return push_float_line(p);
    case 'G': { /* big-endian */
      UNIC_TRY(next_bytes(p, 8, &data));
      uint64_t bits = 0;
      double real;
      for (int i = 0; i < 8; i++) bits = bits << 8 | data[i];
      memcpy(&real, &bits, sizeof real);
      return push_real(p, real);
    }

    case 'S': return push_quoted_line(p);
    case 'T': return push_counted(p, UNIC_PICKLE_TEXT, 4); /* strings of Python 2: keys of old files */
    case 'U': return push_counted(p, UNIC_PICKLE_TEXT, 1);
    case 'V': return push_unicode_line(p);
    case 'X': return push_counted(p, UNIC_PICKLE_TEXT, 4);
    case 0x8c: return push_counted(p, UNIC_PICKLE_TEXT, 1);
    case 0x8d: return push_counted(p, UNIC_PICKLE_TEXT, 8);
    case 'B': return push_counted(p, UNIC_PICKLE_BYTES, 4);
    case 'C': return push_counted(p, UNIC_PICKLE_BYTES, 1);
    case 0x8e: return push_counted(p, UNIC_PICKLE_BYTES, 8);
    case 0x96: return push_counted(p, UNIC_PICKLE_BYTES, 8); /* bytearray */

    case ')': return push(p, &p->empty);
    case 't': return push_marked(p, UNIC_PICKLE_TUPLE);
    case 0x85: return tuple_of(p, 1);
    case 0x86: return tuple_of(p, 2);
    case 0x87: return tuple_of(p, 3);
    case ']': case 0x8f: UNIC_TRY(make(p, UNIC_PICKLE_LIST, &v)); return push(p, v);
    case 'l': case 0x91: return push_marked(p, UNIC_PICKLE_LIST);
    case 'a':
      UNIC_TRY(need(p, 2));
      p->depth--;
      return append_to(p, UNIC_PICKLE_LIST, top(p), p->stack + p->depth, 1);
    case 'e': case 0x90: return append_marked(p, UNIC_PICKLE_LIST);
    case '}': UNIC_TRY(make(p, UNIC_PICKLE_DICT, &v)); return push(p, v);
    case 'd': return push_marked(p, UNIC_PICKLE_DICT);
    case 's':
      UNIC_TRY(need(p, 3));
      p->depth -= 2;
      return append_to(p, UNIC_PICKLE_DICT, top(p), p->stack + p->depth, 2);
    case 'u': return append_marked(p, UNIC_PICKLE_DICT);

    case 'p': UNIC_TRY(next_index(p, &n)); return put(p, n);
    case 'q': UNIC_TRY(next_number(p, 1, &n)); return put(p, n);
    case 'r': UNIC_TRY(next_number(p, 4, &n)); return put(p, n);
    case 0x94: /* MEMOIZE: the next free place */
      return fail_at(p, "an opcode that cannot come here");
    case 'g': UNIC_TRY(next_index(p, &n)); return get(p, n);
    case 'h': UNIC_TRY(next_number(p, 1, &n)); return get(p, n);
    case 'j': UNIC_TRY(next_number(p, 4, &n)); return get(p, n);

    case 'c': return push_named(p);
    case 0x93: { /* STACK_GLOBAL */
      UNIC_TRY(need(p, 2));
      p->depth -= 2;
      const value *module = p->stack[p->depth], *name = p->stack[p->depth + 1];
      if (module->kind != UNIC_PICKLE_TEXT || name->kind != UNIC_PICKLE_TEXT) return fail_at(p, "a class whose name is no text");
      return push_global(p, module->text, module->count, name->text, name->count);
    }
    case 'R': case 0x81: return call_top(p, 2);
    case 0x92: /* NEWOBJ_EX: with named arguments, which nobody asks for */
      UNIC_TRY(need(p, 3));
      p->depth--;
      return call_top(p, 2);
    case 'o': return call_marked(p, true);
    case 'i': return call_marked(p, false);
    case 'b':
      UNIC_TRY(need(p, 2));
      p->depth--;
      build(top(p), p->stack[p->depth]);
      return UNIC_OK;
    case 'P':
      UNIC_TRY(next_line(p, &text, &count));
      UNIC_TRY(push_text(p, UNIC_PICKLE_TEXT, text, count));
      return persistent(p);
    case 'Q': return persistent(p);

    case 0x82: case 0x83: case 0x84: return fail_at(p, "an extension code, whose meaning is not in the file");
    case 0x97: case 0x98: return fail_at(p, "a buffer outside the pickle, which is not in the file");
    default: return unic_fail("byte %lld: %d is no opcode of a pickle", (long long)p->at, opcode);
  }
}

void unic_pickle_open(unic_pickle *p, int64_t *room) {
  memset(p, 0, sizeof *p);
  p->room = room;
  p->none.kind = UNIC_PICKLE_NONE;
  p->no.kind = p->yes.kind = UNIC_PICKLE_BOOL;
  p->yes.integer = 1;
  p->empty.kind = UNIC_PICKLE_TUPLE;
  for (size_t i = 0; i < sizeof p->small / sizeof p->small[0]; i++) p->small[i] = (value){.kind = UNIC_PICKLE_INT, .integer = (int64_t)i};
}

unic_status unic_pickle_load(unic_pickle *p, const void *data, int64_t bytes, int64_t *used, const unic_pickle_value **root) {
  p->data = data;
  p->bytes = bytes;
  p->at = p->depth = p->mark_count = 0;
  for (int64_t i = 0; i < p->memo_room; i++) p->memo[i] = NULL;
  int64_t memoized = 0;
  for (int64_t steps = 1;; steps++) {
    if (p->at == bytes) return fail_at(p, "it ends without its last opcode (is it cut?)");
    uint8_t opcode = p->data[p->at++];
    if (opcode == '.') break;
    if (opcode == 0x94) {
      UNIC_TRY(put(p, (uint64_t)memoized++));
    } else {
      UNIC_TRY(step(p, opcode));
      if (opcode == 'p' || opcode == 'q' || opcode == 'r') memoized++;
    }
    if ((steps & 0xFFFF) == 0 && unic_interrupted()) return unic_fail_interrupted();
  }
  if (p->mark_count || p->depth != 1) return unic_fail("byte %lld: it ends with %lld values, expected 1", (long long)p->at, (long long)p->depth);
  *used = p->at;
  *root = p->stack[0];
  return UNIC_OK;
}

void unic_pickle_close(unic_pickle *p) {
  while (p->chunks) {
    unic_pickle_chunk *next = p->chunks->next;
    free(p->chunks);
    p->chunks = next;
  }
  free(p->stack);
  free(p->memo);
  free(p->marks);
  free(p->outside);
  p->stack = p->memo = p->outside = NULL;
  p->marks = NULL;
}
