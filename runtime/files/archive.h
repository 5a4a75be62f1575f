/* Zip archives for reading, mapped: libzip reads the directory and inflates; members that are stored as they are (all those of PyTorch's
 * files) are found in the map, so that they need no copy in between.
 *
 * Nothing is ever extracted to a file, and names are only compared; all the same an archive is refused whose names lead out of a folder
 * ("../", "/"), or stand twice. Sentences are without the path: the caller puts it in front. */
#ifndef UNIC_FILES_ARCHIVE_H
#define UNIC_FILES_ARCHIVE_H

#include <stdbool.h>
#include <stdint.h>

#include "file.h"

typedef struct unic_archive {
  unic_file_map map;
  struct zip *zip;
  int64_t at; /* where libzip reads next */
  int64_t members;
} unic_archive;

typedef struct unic_archive_member {
  const char *name;
  int64_t index, bytes, packed; /* bytes when unpacked, bytes in the file */
  uint32_t crc;
  const uint8_t *data; /* in the map, where it is stored as it is; NULL: it must be unpacked */
} unic_archive_member;

/* Is it one? By its first bytes. */
bool unic_archive_is(const void *data, int64_t bytes);

/* Open the archive in a map, which it takes over (and closes, on failure too). The struct must stay where it is. */
unic_status unic_archive_open(unic_archive *a, unic_file_map *map);
void unic_archive_close(unic_archive *a); /* harmless on a zeroed or closed one */

const char *unic_archive_name(const unic_archive *a, int64_t index);
/* The place of the member of a name; -1: there is none. */
int64_t unic_archive_find(const unic_archive *a, const char *name);
/* What the directory says of it, and where it lies. Refused: encrypted ones, methods other than stored and deflated, places outside the file. */
unic_status unic_archive_member_at(unic_archive *a, int64_t index, unic_archive_member *m);

/* Does the checksum of a stored member fit? */
unic_status unic_archive_check(const unic_archive_member *m);

/* Unpack a member piece by piece, from its beginning; libzip compares the checksum at its end. */
typedef struct unic_archive_reader {
  const unic_archive_member *member;
  struct zip_file *file;
} unic_archive_reader;
unic_status unic_archive_reader_open(unic_archive_reader *r, const unic_archive *a, const unic_archive_member *m);
unic_status unic_archive_reader_read(unic_archive_reader *r, void *to, int64_t bytes); /* exactly `bytes`, or a sentence */
unic_status unic_archive_reader_end(unic_archive_reader *r);                          /* nothing may follow */
void unic_archive_reader_close(unic_archive_reader *r);

/* `bytes` bytes of a member from `first` on, stored or not; a whole member's checksum is compared. */
unic_status unic_archive_read(unic_archive *a, const unic_archive_member *m, int64_t first, int64_t bytes, void *to);

#endif
