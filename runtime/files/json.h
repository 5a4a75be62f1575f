/* A strict JSON reader (RFC 8259) for the headers of files: one token at a time, no tree, no recursion.
 *
 * Nesting is limited to 64 levels, text must be UTF-8, escapes are decoded, nothing may follow the value. The reader keeps a single buffer
 * for the last string. Larger documents that a recipe reads go through Lua's cjson instead. */
#ifndef UNIC_FILES_JSON_H
#define UNIC_FILES_JSON_H

#include <stdbool.h>
#include <stdint.h>

#include "../status.h"

typedef enum unic_json_kind {
  UNIC_JSON_END, /* the document is over */
  UNIC_JSON_OBJECT,
  UNIC_JSON_OBJECT_END,
  UNIC_JSON_ARRAY,
  UNIC_JSON_ARRAY_END,
  UNIC_JSON_KEY,
  UNIC_JSON_STRING,
  UNIC_JSON_NUMBER,
  UNIC_JSON_TRUE,
  UNIC_JSON_FALSE,
  UNIC_JSON_NULL
} unic_json_kind;

typedef struct unic_json {
  const char *text;
  int64_t bytes, at;
  int depth;
  uint64_t objects; /* bit d: level d is an object, not an array */
  int expects;      /* what may come next; private */
  char *string;     /* the last KEY or STRING, decoded, NUL-terminated */
  int64_t length;   /* its bytes; more than strlen(string) if it holds a \u0000 */
  int64_t capacity;
  bool is_integer;  /* the last NUMBER has neither fraction nor exponent and fits 64 bits: its value is `integer` */
  int64_t integer;
} unic_json;

void unic_json_open(unic_json *json, const char *text, int64_t bytes);
void unic_json_close(unic_json *json);

/* The next token. Sentences read "byte 17: ..."; the caller puts the path in front. */
unic_status unic_json_next(unic_json *json, unic_json_kind *kind);

/* Skip one value, whose first token `kind` has been read. */
unic_status unic_json_skip(unic_json *json, unic_json_kind kind);

/* The name of a token for sentences: "an object", "a string". */
const char *unic_json_kind_name(unic_json_kind kind);

/* Write text as a JSON string with its quotes. Returns the bytes it takes (text is valid UTF-8); writes only if `out` is not NULL. */
int64_t unic_json_quote(char *out, const char *text, int64_t bytes);

#endif
