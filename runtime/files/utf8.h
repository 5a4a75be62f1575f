/* Is it UTF-8? Overlong forms, surrogates and numbers above U+10FFFF are not. */
#ifndef UNIC_FILES_UTF8_H
#define UNIC_FILES_UTF8_H

#include <stdint.h>

/* The position of the first byte that does not belong to a well-formed sequence, or -1 if all is well. */
int64_t unic_utf8_check(const char *text, int64_t bytes);

#endif
