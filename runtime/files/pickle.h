/* Python pickles, read as data.
 *
 * A pickle is a program for a stack machine that, in Python, may call anything. Here it calls nothing: "call f with these arguments" becomes a
 * value that says so (UNIC_PICKLE_CALL), and whoever asks looks at the name of f and knows it or does not (torch_values.c knows those of
 * PyTorch). Only plain containers (collections.OrderedDict, dict, set, ...) turn into what they are. Nothing is imported, opened or run.
 *
 * Opcodes of protocols 0 to 5, but for those that need something from outside (extension codes, out-of-band buffers): they are refused.
 * Values live until unic_pickle_close in memory of which there is never more than `room`; texts point into the pickle's own bytes. A value
 * may be held by several others and even by itself: whoever walks must count its steps and mark its path. */
#ifndef UNIC_FILES_PICKLE_H
#define UNIC_FILES_PICKLE_H

#include <stdbool.h>
#include <stdint.h>

#include "../status.h"

typedef enum unic_pickle_kind {
  UNIC_PICKLE_NONE,
  UNIC_PICKLE_BOOL,       /* integer: 0 or 1 */
  UNIC_PICKLE_INT,        /* integer */
  UNIC_PICKLE_LONG,       /* text, count: a whole number beyond 64 bits, its bytes (little-endian, two's complement) */
  UNIC_PICKLE_DIGITS,     /* text, count: the same in decimal digits (protocol 0) */
  UNIC_PICKLE_FLOAT,      /* real */
  UNIC_PICKLE_TEXT,       /* text, count: bytes of UTF-8, as the file claims */
  UNIC_PICKLE_BYTES,      /* text, count */
  UNIC_PICKLE_TUPLE,      /* items, count */
  UNIC_PICKLE_LIST,       /* items, count; sets too */
  UNIC_PICKLE_DICT,       /* items, count: key, value, key, value, ... */
  UNIC_PICKLE_GLOBAL,     /* text, count: "module.name" of a class or function; bytes that do not print are '?' */
  UNIC_PICKLE_CALL,       /* items[0]: what is called; items[1]: a tuple of arguments; items[2]: the state set afterwards, or NULL */
  UNIC_PICKLE_PERSISTENT  /* items[0]: the identity of something outside the pickle */
} unic_pickle_kind;

typedef struct unic_pickle_value unic_pickle_value;
struct unic_pickle_value {
  unic_pickle_kind kind;
  bool open;            /* for walkers: it is on the path from the root to here */
  int64_t count, room;  /* room: of a list's or dict's items */
  union {
    int64_t integer;
    double real;
    const char *text; /* no NUL at its end, except for GLOBAL */
    unic_pickle_value **items;
  };
};

typedef struct unic_pickle {
  int64_t *room;  /* bytes that may still be taken; shared with whoever else counts */
  int64_t values; /* how many were made */
  struct unic_pickle_chunk *chunks;
  const uint8_t *data; /* the pickle being loaded */
  int64_t bytes, at;
  unic_pickle_value **stack, **memo;
  int64_t *marks;
  int64_t depth, stack_room, memo_room, mark_count, mark_room;
  unic_pickle_value **outside; /* every PERSISTENT that was made, held by something or not */
  int64_t outside_count, outside_room;
  unic_pickle_value none, no, yes, empty, small[64]; /* one of each is enough; small: the numbers 0 to 63, which most are */
} unic_pickle;

void unic_pickle_open(unic_pickle *p, int64_t *room);
/* Load the pickle at the beginning of `data`, which must stay where it is until close. *used: bytes up to its end. May be called again. */
unic_status unic_pickle_load(unic_pickle *p, const void *data, int64_t bytes, int64_t *used, const unic_pickle_value **root);
void unic_pickle_close(unic_pickle *p); /* harmless on a zeroed or closed one */

/* Is it the class or function `name` ("module.name")? */
bool unic_pickle_is(const unic_pickle_value *v, const char *name);

#endif
