/* Whole files in and out: reading, mapping, and writing by a temporary name and a rename. */
#include "file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

static unic_status fail_read(const char *path) { return unic_fail("'%s': cannot be read (%s)", path, strerror(errno)); }

static unic_status fail_write(const char *path) { return unic_fail("'%s': cannot be written (%s)", path, strerror(errno)); }

static unic_status open_for_reading(const char *path, int *descriptor, struct stat *info) {
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) return fail_read(path);
  if (fstat(fd, info) != 0) {
    int error = errno;
    close(fd);
    errno = error;
    return fail_read(path);
  }
  if (S_ISDIR(info->st_mode)) {
    close(fd);
    return unic_fail("'%s': is a folder, expected a file", path);
  }
  *descriptor = fd;
  return UNIC_OK;
}

static unic_status fail_limit(const char *path, int64_t limit) {
  return unic_fail("'%s': is larger than %lld bytes, the limit for this kind of file", path, (long long)limit);
}

unic_status unic_file_read(const char *path, int64_t limit, char **data, int64_t *bytes) {
  int fd;
  struct stat info;
  UNIC_TRY(open_for_reading(path, &fd, &info));

  unic_status status = UNIC_OK;
  char *buffer = NULL;
  size_t used = 0;
  if (S_ISREG(info.st_mode) && info.st_size > limit) {
    status = fail_limit(path, limit);
    goto done;
  }
  /* Two bytes more than the file: one for the NUL, one so that the read which finds the end of the file needs no larger buffer. */
  size_t capacity = S_ISREG(info.st_mode) ? (size_t)info.st_size + 2 : 65536;
  buffer = malloc(capacity);
  while (buffer) {
    if (capacity - used < 2) { /* a pipe, or a file that grew meanwhile */
      capacity *= 2;
      char *larger = realloc(buffer, capacity);
      if (!larger) free(buffer);
      buffer = larger;
      continue;
    }
    ssize_t got = read(fd, buffer + used, capacity - used - 1);
    if (got == 0) break;
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) {
      status = fail_read(path);
      goto done;
    }
    used += (size_t)got;
    if ((int64_t)used > limit) {
      status = fail_limit(path, limit);
      goto done;
    }
  }
  if (!buffer) {
    status = unic_fail_memory("'%s': no memory for a file of %lld bytes", path, (long long)capacity);
    goto done;
  }
  buffer[used] = 0;
  *data = buffer;
  *bytes = (int64_t)used;
  buffer = NULL;

done:
  free(buffer);
  close(fd);
  return status;
}

unic_status unic_file_map_open(unic_file_map *map, const char *path) {
  map->data = NULL;
  map->bytes = 0;
  int fd;
  struct stat info;
  UNIC_TRY(open_for_reading(path, &fd, &info));
  unic_status status = UNIC_OK;
  if (!S_ISREG(info.st_mode)) {
    status = unic_fail("'%s': is not a regular file and cannot be mapped", path);
  } else if (info.st_size > 0) {
    void *data = mmap(NULL, (size_t)info.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
    if (data == MAP_FAILED) {
      status = fail_read(path);
    } else {
      map->data = data;
      map->bytes = info.st_size;
    }
  }
  close(fd);
  return status;
}

void unic_file_map_close(unic_file_map *map) {
  if (map->data) munmap((void *)(uintptr_t)map->data, (size_t)map->bytes);
  map->data = NULL;
  map->bytes = 0;
}

/* ---- writing ---- */

unic_status unic_output_open(unic_output *output, const char *path) {
  static atomic_uint count;
  memset(output, 0, sizeof *output);

  struct stat info;
  if (stat(path, &info) == 0) {
    if (S_ISDIR(info.st_mode)) return unic_fail("'%s': is a folder, expected the name of a file to write", path);
    if (!S_ISREG(info.st_mode)) return unic_fail("'%s': is not a regular file and cannot be replaced", path);
    /* The file behind a symbolic link is replaced, not the link: a link was put there for a reason. */
    output->path = realpath(path, NULL);
    if (!output->path) return fail_write(path);
  } else {
    output->path = strdup(path);
  }
  size_t room = output->path ? strlen(output->path) + 32 : 0;
  output->temporary = room ? malloc(room) : NULL;
  if (!output->temporary) {
    unic_output_abandon(output);
    return unic_fail_memory("'%s': no memory for its name", path);
  }
  for (;;) {
    snprintf(output->temporary, room, "%s.tmp-%ld-%u", output->path, (long)getpid(), atomic_fetch_add(&count, 1u));
    int fd = open(output->temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (fd < 0 && errno == EEXIST) continue; /* left behind by an earlier process with this number */
    if (fd >= 0) {
      output->file = fdopen(fd, "wb");
      if (!output->file) {
        int error = errno;
        close(fd);
        unlink(output->temporary);
        errno = error;
      }
    }
    break;
  }
  if (!output->file) {
    unic_status status = fail_write(path);
    unic_output_abandon(output);
    return status;
  }
  return UNIC_OK;
}

unic_status unic_output_write(unic_output *output, const void *data, int64_t bytes) {
  if (!output->file) return unic_fail("'%s': is closed already", output->path ? output->path : "");
  /* In pieces, so that Ctrl-C is heard while gigabytes go to a slow disk. */
  const int64_t piece = INT64_C(64) << 20;
  const char *next = data;
  while (bytes > 0) {
    size_t now = (size_t)(bytes < piece ? bytes : piece);
    if (fwrite(next, 1, now, output->file) != now) return fail_write(output->path);
    next += now;
    bytes -= (int64_t)now;
    if (bytes > 0 && unic_interrupted()) return unic_fail_interrupted();
  }
  return UNIC_OK;
}

static unic_status sync_folder(const char *path) {
  char *folder = strdup(path);
  if (!folder) return unic_fail_memory("'%s': no memory for its name", path);
  char *slash = strrchr(folder, '/');
  if (slash == folder) {
    slash[1] = 0;
  } else if (slash) {
    *slash = 0;
  }
  unic_status status = UNIC_OK;
  int fd = open(slash ? folder : ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  /* EINVAL: a file system that has no such thing as syncing a folder. */
  if (fd < 0 || (fsync(fd) != 0 && errno != EINVAL)) status = unic_fail("'%s': its folder cannot be synced (%s)", path, strerror(errno));
  if (fd >= 0) close(fd);
  free(folder);
  return status;
}

unic_status unic_output_commit(unic_output *output, bool durable) {
  if (!output->file) return unic_fail("'%s': is closed already", output->path ? output->path : "");
  unic_status status = UNIC_OK;
  if (fflush(output->file) != 0 || (durable && fsync(fileno(output->file)) != 0)) status = fail_write(output->path);
  if (fclose(output->file) != 0 && status == UNIC_OK) status = fail_write(output->path);
  output->file = NULL;
  if (status == UNIC_OK && rename(output->temporary, output->path) != 0) status = fail_write(output->path);
  if (status != UNIC_OK) {
    unlink(output->temporary);
  } else if (durable) {
    status = sync_folder(output->path);
  }
  unic_output_abandon(output);
  return status;
}

void unic_output_abandon(unic_output *output) {
  if (output->file) {
    fclose(output->file);
    unlink(output->temporary);
  }
  free(output->path);
  free(output->temporary);
  memset(output, 0, sizeof *output);
}
