/* Status codes and the sentence that goes with a failure.
 *
 * The library never exits, aborts, prints or jumps: a function that can fail returns a unic_status, and the sentence for the user waits
 * in a buffer of the calling thread until the Lua door raises it. Form of a sentence:
 *   [op] argument 'name': what is wrong, what was given, what was expected
 */
#ifndef UNIC_STATUS_H
#define UNIC_STATUS_H

#include <stdbool.h>
#include <stdint.h>

typedef enum unic_status {
  UNIC_OK = 0,
  UNIC_ERROR,       /* the sentence says what; nothing else to do */
  UNIC_MEMORY,      /* the budget is exhausted; the door collects garbage and tries once more */
  UNIC_INTERRUPTED  /* Ctrl-C was seen by a long loop */
} unic_status;

/* Store the sentence (printf form, cut at 4 KB) for this thread; always returns UNIC_ERROR, so that `return unic_fail(...)` reads well. */
unic_status unic_fail(const char *format, ...) __attribute__((format(printf, 1, 2), cold));

/* The same for an exhausted memory budget; returns UNIC_MEMORY. */
unic_status unic_fail_memory(const char *format, ...) __attribute__((format(printf, 1, 2), cold));

/* The sentence of the last failure on this thread; "" if there was none. Valid until the thread fails again. */
const char *unic_message(void);

/* Put text in front of the stored sentence (a path, a row number), for layers that know more than the one that failed. */
unic_status unic_fail_prefix(unic_status status, const char *format, ...) __attribute__((format(printf, 2, 3), cold));

/* Ctrl-C: the signal handler calls unic_interrupt (async-signal-safe); long C loops poll unic_interrupted(), and return
 * unic_fail_interrupted() once they have left their data in order. The door clears the flag when it has raised it. */
void unic_interrupt(void);
bool unic_interrupted(void);
void unic_interrupt_clear(void);
unic_status unic_fail_interrupted(void);

#define UNIC_TRY(call) do { unic_status status_ = (call); if (status_ != UNIC_OK) return status_; } while (0)

#endif
