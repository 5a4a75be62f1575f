/* LD_PRELOADed by spec/check/fuzz_checkpoints.lua: between guard_begin and guard_end, counts what a reader of files has no business to do (start
 * programs, load libraries, open anything but the one file it was given, open sockets), and, when compiled with GUARD_MALLOC, the largest number
 * of bytes that malloc had given out above what it had at the beginning. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <malloc.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <unistd.h>

static bool watching;
static char allowed[4096];
static int64_t programs, opens, elsewhere;
static int64_t live, peak;

void guard_begin(const char *path);
int guard_end(int64_t *counts);

void guard_begin(const char *path) {
  snprintf(allowed, sizeof allowed, "%s", path);
  programs = opens = elsewhere = 0;
  live = peak = 0;
  watching = true;
}

/* counts: programs started or libraries loaded, opens of the file itself, opens of anything else (or of it for writing), bytes of malloc at the peak. */
int guard_end(int64_t *counts) {
  watching = false;
  counts[0] = programs;
  counts[1] = opens;
  counts[2] = elsewhere;
  counts[3] = peak;
  return 0;
}

static void note_open(const char *path, int flags) {
  if (!watching) return;
  if ((flags & O_ACCMODE) == O_RDONLY && !(flags & (O_CREAT | O_TRUNC)) && strcmp(path, allowed) == 0) {
    opens++;
  } else {
    elsewhere++;
  }
}

static void note_program(void) {
  if (watching) programs++;
}

/* The real function behind the one of this file. */
#define NEXT(name) __typeof__(name) *next; do { void *found = dlsym(RTLD_NEXT, #name); memcpy(&next, &found, sizeof next); } while (0)

int open(const char *path, int flags, ...) {
  va_list rest;
  va_start(rest, flags);
  mode_t mode = flags & (O_CREAT | O_TMPFILE) ? (mode_t)va_arg(rest, int) : 0;
  va_end(rest);
  note_open(path, flags);
  NEXT(open);
  return next(path, flags, mode);
}

int open64(const char *path, int flags, ...) {
  va_list rest;
  va_start(rest, flags);
  mode_t mode = flags & (O_CREAT | O_TMPFILE) ? (mode_t)va_arg(rest, int) : 0;
  va_end(rest);
  note_open(path, flags);
  NEXT(open64);
  return next(path, flags, mode);
}

int openat(int at, const char *path, int flags, ...) {
  va_list rest;
  va_start(rest, flags);
  mode_t mode = flags & (O_CREAT | O_TMPFILE) ? (mode_t)va_arg(rest, int) : 0;
  va_end(rest);
  note_open(path, flags);
  NEXT(openat);
  return next(at, path, flags, mode);
}

FILE *fopen(const char *path, const char *mode) {
  note_open(path, mode[0] == 'r' && !strchr(mode, '+') ? O_RDONLY : O_WRONLY | O_CREAT);
  NEXT(fopen);
  return next(path, mode);
}

FILE *fopen64(const char *path, const char *mode) {
  note_open(path, mode[0] == 'r' && !strchr(mode, '+') ? O_RDONLY : O_WRONLY | O_CREAT);
  NEXT(fopen64);
  return next(path, mode);
}

int system(const char *command) {
  note_program();
  NEXT(system);
  return next(command);
}

FILE *popen(const char *command, const char *mode) {
  note_program();
  NEXT(popen);
  return next(command, mode);
}

int execve(const char *path, char *const arguments[], char *const environment[]) {
  note_program();
  NEXT(execve);
  return next(path, arguments, environment);
}

int execv(const char *path, char *const arguments[]) {
  note_program();
  NEXT(execv);
  return next(path, arguments);
}

int execvp(const char *path, char *const arguments[]) {
  note_program();
  NEXT(execvp);
  return next(path, arguments);
}

int posix_spawn(pid_t *pid, const char *path, const posix_spawn_file_actions_t *actions, const posix_spawnattr_t *attributes, char *const arguments[],
                char *const environment[]) {
  note_program();
  NEXT(posix_spawn);
  return next(pid, path, actions, attributes, arguments, environment);
}

int posix_spawnp(pid_t *pid, const char *path, const posix_spawn_file_actions_t *actions, const posix_spawnattr_t *attributes, char *const arguments[],
                 char *const environment[]) {
  note_program();
  NEXT(posix_spawnp);
  return next(pid, path, actions, attributes, arguments, environment);
}

pid_t fork(void) {
  note_program();
  NEXT(fork);
  return next();
}

void *dlopen(const char *path, int flags) {
  note_program();
  NEXT(dlopen);
  return next(path, flags);
}

int socket(int domain, int type, int protocol) {
  note_program();
  NEXT(socket);
  return next(domain, type, protocol);
}

#ifdef GUARD_MALLOC
void *__libc_malloc(size_t bytes);
void *__libc_calloc(size_t n, size_t bytes);
void *__libc_realloc(void *p, size_t bytes);
void *__libc_memalign(size_t alignment, size_t bytes);
void __libc_free(void *p);

static void *given(void *p) {
  if (watching && p) {
    live += (int64_t)malloc_usable_size(p);
    if (live > peak) peak = live;
  }
  return p;
}

static void returned(void *p) {
  if (watching && p) live -= (int64_t)malloc_usable_size(p);
}

void *malloc(size_t bytes) { return given(__libc_malloc(bytes)); }
void *calloc(size_t n, size_t bytes) { return given(__libc_calloc(n, bytes)); }
void free(void *p) {
  returned(p);
  __libc_free(p);
}
void *realloc(void *p, size_t bytes) {
  int64_t was = watching && p ? (int64_t)malloc_usable_size(p) : 0;
  void *moved = __libc_realloc(p, bytes);
  if (!moved && bytes) return NULL;
  if (watching) live -= was;
  return given(moved);
}
void *memalign(size_t alignment, size_t bytes) { return given(__libc_memalign(alignment, bytes)); }
void *aligned_alloc(size_t alignment, size_t bytes) { return given(__libc_memalign(alignment, bytes)); }
int posix_memalign(void **out, size_t alignment, size_t bytes) {
  *out = given(__libc_memalign(alignment, bytes));
  return *out ? 0 : 12;
}
#endif
