/* Whole files in and out.
 *
 * In: a file is read into memory, or mapped read-only. Out: bytes go to a temporary name in the same folder and get the real name by one
 * rename, so a reader sees the old file or the new one, never half of one. Every sentence begins with the path in quotes; the caller puts
 * its own name in front (unic_fail_prefix). All functions may be called from any thread. */
#ifndef UNIC_FILES_FILE_H
#define UNIC_FILES_FILE_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "../status.h"

/* Read all of `path` (a regular file, a pipe) into malloc'd memory, followed by a NUL that `bytes` does not count. Files of more than
 * `limit` bytes are refused before they are read. */
unic_status unic_file_read(const char *path, int64_t limit, char **data, int64_t *bytes);

/* A regular file mapped read-only; an empty file maps to data == NULL. Replacing the file by rename leaves the mapping whole; truncating
 * it in place does not (the kernel then raises SIGBUS): nothing here ever does so. */
typedef struct unic_file_map {
  const uint8_t *data;
  int64_t bytes;
} unic_file_map;

unic_status unic_file_map_open(unic_file_map *map, const char *path);
void unic_file_map_close(unic_file_map *map); /* harmless on a zeroed or closed map */

/* A file being written. The temporary name is "<path>.tmp-<pid>-<count>"; a killed process can leave one behind, never a broken <path>. */
typedef struct unic_output {
  FILE *file;      /* NULL once committed or abandoned */
  char *path;      /* where it will go, symbolic links followed */
  char *temporary; /* where the bytes go meanwhile */
} unic_output;

unic_status unic_output_open(unic_output *output, const char *path);
unic_status unic_output_write(unic_output *output, const void *data, int64_t bytes);

/* Give the file its name. `durable` also syncs the file before and the folder after the rename, so that it survives a power cut (for
 * checkpoints; pictures and tables do without). On failure the temporary file is removed and the old file stays. */
unic_status unic_output_commit(unic_output *output, bool durable);

/* Remove the temporary file. Harmless after commit, after abandon, and on a zeroed struct. */
void unic_output_abandon(unic_output *output);

#endif
