/* UTF-8 validation: eight ASCII bytes at a time, then one sequence at a time (Unicode 15, table 3-7). */
#include "utf8.h"

#include <string.h>

int64_t unic_utf8_check(const char *text, int64_t bytes) {
  const uint8_t *s = (const uint8_t *)text;
  int64_t i = 0;
  while (i < bytes) {
    if (s[i] < 0x80) {
      uint64_t word;
      if (i + 8 <= bytes && (memcpy(&word, s + i, 8), (word & UINT64_C(0x8080808080808080)) == 0)) {
        i += 8;
      } else {
        i++;
      }
      continue;
    }
    /* The lead byte gives the length and, in four cases, a narrower range for the second byte. */
    int length;
    uint8_t low = 0x80, high = 0xBF;
    if (s[i] >= 0xC2 && s[i] <= 0xDF) {
      length = 2;
    } else if (s[i] >= 0xE0 && s[i] <= 0xEF) {
      length = 3;
      if (s[i] == 0xE0) low = 0xA0;
      if (s[i] == 0xED) high = 0x9F;
    } else if (s[i] >= 0xF0 && s[i] <= 0xF4) {
      length = 4;
      if (s[i] == 0xF0) low = 0x90;
      if (s[i] == 0xF4) high = 0x8F;
    } else {
      return i;
    }
    if (i + length > bytes || s[i + 1] < low || s[i + 1] > high) return i;
    for (int k = 2; k < length; k++) {
      if (s[i + k] < 0x80 || s[i + k] > 0xBF) return i;
    }
    i += length;
  }
  return -1;
}
