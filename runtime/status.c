/* The per-thread error sentence and the interrupt flag. */
#include "status.h"

#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

enum { MESSAGE_BYTES = 4096 };

static _Thread_local char message[MESSAGE_BYTES];
static volatile sig_atomic_t interrupted;

unic_status unic_fail(const char *format, ...) {
  va_list args;
  va_start(args, format);
  vsnprintf(message, sizeof message, format, args);
  va_end(args);
  return UNIC_ERROR;
}

unic_status unic_fail_memory(const char *format, ...) {
  va_list args;
  va_start(args, format);
  vsnprintf(message, sizeof message, format, args);
  va_end(args);
  return UNIC_MEMORY;
}

unic_status unic_fail_prefix(unic_status status, const char *format, ...) {
  char whole[MESSAGE_BYTES];
  va_list args;
  va_start(args, format);
  int used = vsnprintf(whole, sizeof whole, format, args);
  va_end(args);
  if (used < 0) used = 0;
  if (used >= MESSAGE_BYTES) used = MESSAGE_BYTES - 1;
  snprintf(whole + used, sizeof whole - (size_t)used, "%s", message);
  memcpy(message, whole, sizeof message);
  return status;
}

const char *unic_message(void) { return message; }

void unic_interrupt(void) { interrupted = 1; }
bool unic_interrupted(void) { return interrupted != 0; }
void unic_interrupt_clear(void) { interrupted = 0; }

unic_status unic_fail_interrupted(void) {
  unic_fail("interrupted");
  return UNIC_INTERRUPTED;
}
