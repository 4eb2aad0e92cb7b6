/* A disk on which a call in so many fails or is slow, for tests: a library that is loaded before the C library.
 *
 * Calls about files below FAULTY_FOLDER count, in the order in which they come. Of FAULTY_EVERY of them one fails with
 * EIO, drawn from FAULTY_SEED; it lasts FAULTY_SECONDS and succeeds where that is set.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

#define FILES 65536

static atomic_bool is_watched[FILES];
static atomic_ulong calls;

static unsigned long mix(unsigned long x) { /* SplitMix64 */
  x += 0x9e3779b97f4a7c15UL;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9UL;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebUL;
  return x ^ (x >> 31);
}

static int is_below(const char *path) {
  const char *folder = getenv("FAULTY_FOLDER");
  char here[PATH_MAX];
  if (!folder || !path) return 0;
  if (path[0] != '/' && getcwd(here, sizeof here)) return !strncmp(here, folder, strlen(folder));
  return !strncmp(path, folder, strlen(folder));
}

/* Whether the call fails; a slow one returns later. */
static int fails(int counts) {
  const char *every = getenv("FAULTY_EVERY"), *seed = getenv("FAULTY_SEED"), *seconds = getenv("FAULTY_SECONDS");
  if (!counts || !every) return 0;
  if (mix(atomic_fetch_add(&calls, 1) + 1000003UL * (seed ? atol(seed) : 0)) % atol(every)) return 0;
  if (seconds) {
    usleep(atof(seconds) * 1e6);
    return 0;
  }
  errno = EIO;
  return 1;
}

static int watch(int file, const char *path) {
  if (file >= 0 && file < FILES) is_watched[file] = is_below(path);
  return file;
}

static int watched(int file) { return file >= 0 && file < FILES && is_watched[file]; }

#define NEXT(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))
#define OPENS(name)                                     \
  int name(const char *path, int flags, ...) {          \
    va_list rest;                                       \
    va_start(rest, flags);                              \
    mode_t mode = va_arg(rest, mode_t);                 \
    va_end(rest);                                       \
    if (fails(is_below(path))) return -1;               \
    return watch(NEXT(name)(path, flags, mode), path);  \
  }
#define OPENS_AT(name)                                          \
  int name(int folder, const char *path, int flags, ...) {      \
    va_list rest;                                               \
    va_start(rest, flags);                                      \
    mode_t mode = va_arg(rest, mode_t);                         \
    va_end(rest);                                               \
    if (fails(is_below(path))) return -1;                       \
    return watch(NEXT(name)(folder, path, flags, mode), path);  \
  }
#define ON_FILE(result, name, declared, given)  \
  result name declared {                        \
    if (fails(watched(file))) return -1;        \
    return NEXT(name) given;                    \
  }
#define ON_PATH(name, declared, given)     \
  int name declared {                      \
    if (fails(is_below(path))) return -1;  \
    return NEXT(name) given;               \
  }

OPENS(open)
OPENS(open64)
OPENS_AT(openat)
OPENS_AT(openat64)
ON_FILE(ssize_t, read, (int file, void *data, size_t size), (file, data, size))
ON_FILE(ssize_t, pread, (int file, void *data, size_t size, off_t at), (file, data, size, at))
ON_FILE(ssize_t, pread64, (int file, void *data, size_t size, off64_t at), (file, data, size, at))
ON_FILE(ssize_t, write, (int file, const void *data, size_t size), (file, data, size))
ON_FILE(ssize_t, pwrite, (int file, const void *data, size_t size, off_t at), (file, data, size, at))
ON_FILE(ssize_t, pwrite64, (int file, const void *data, size_t size, off64_t at), (file, data, size, at))
ON_FILE(ssize_t, writev, (int file, const struct iovec *parts, int count), (file, parts, count))
ON_FILE(ssize_t, pwritev, (int file, const struct iovec *parts, int count, off_t at), (file, parts, count, at))
ON_FILE(ssize_t, pwritev64, (int file, const struct iovec *parts, int count, off64_t at), (file, parts, count, at))
ON_FILE(int, fsync, (int file), (file))
ON_FILE(int, fdatasync, (int file), (file))
ON_FILE(int, ftruncate, (int file, off_t size), (file, size))
ON_FILE(int, ftruncate64, (int file, off64_t size), (file, size))
ON_PATH(rename, (const char *path, const char *target), (path, target))
ON_PATH(mkdir, (const char *path, mode_t mode), (path, mode))
ON_PATH(unlink, (const char *path), (path))
ON_PATH(rmdir, (const char *path), (path))

int close(int file) {
  if (file >= 0 && file < FILES) is_watched[file] = 0;
  return NEXT(close)(file);
}
