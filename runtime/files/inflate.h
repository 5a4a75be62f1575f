/* Deflate streams (RFC 1950, 1951) whose size is known, unpacked in one go: what pictures are packed in. */
#ifndef UNIC_FILES_INFLATE_H
#define UNIC_FILES_INFLATE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Bytes that must be readable behind the input and writable behind the output; what they hold means nothing. */
enum { UNIC_INFLATE_BEFORE = 32, UNIC_INFLATE_BEHIND = 320 };

/* Unpack a whole zlib stream of `bytes` bytes into exactly `size` bytes. False unless it is in order from its header to its Adler-32 and neither
 * shorter nor longer than both say. Any input is safe; on false the output is undefined. */
bool unic_inflate(const uint8_t *in, size_t bytes, uint8_t *out, size_t size);

#endif
