/* Wraps functions of the C library for one program: counts the calls on some files, and makes them
 * fail on request. Environment variables configure it:
 *
 * CALLS_UNDER   the watched paths: those that begin with one of these, separated by ':'
 * CALLS_BUT     paths with this end are not watched
 * CALLS_HOME    a directory that is watched itself
 * CALLS_OF      the kinds of calls, as letters: r read, w write, t truncate, s sync, o open for
 *               writing, c create (files, names, directories), u unlink, m change a mode or an
 *               owner
 * CALLS_NTH     the number of the call that fails, from 1; 0: the third number in CALLS_SEEN, or
 *               none
 * CALLS_ERRNO   the error
 * CALLS_ON      if present, all later calls fail, too
 * CALLS_LIFTED  while a file with this name exists, no call fails
 * CALLS_SEEN    a file of 24 bytes: the number of calls, the number of failed calls, and (written
 *               by the test) the number of the call that fails
 * CALLS_TRACE   a file to which the kind and path of each call are appended
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

#define REAL(name, ...) ((__typeof__(&name))real(#name))(__VA_ARGS__)

static const char *under, *but, *home, *kinds, *lifted;
static long nth, number;
static int on, trace = -1;
static _Atomic unsigned long *seen; /* calls, failures, number of the call that fails */

static void *real(const char *name) { return dlsym(RTLD_NEXT, name); }

__attribute__((constructor)) static void begin(void) {
    under = getenv("CALLS_UNDER");
    but = getenv("CALLS_BUT");
    home = getenv("CALLS_HOME");
    kinds = getenv("CALLS_OF");
    lifted = getenv("CALLS_LIFTED");
    on = getenv("CALLS_ON") != NULL;
    nth = getenv("CALLS_NTH") ? atol(getenv("CALLS_NTH")) : 0;
    number = getenv("CALLS_ERRNO") ? atol(getenv("CALLS_ERRNO")) : EIO;
    if (getenv("CALLS_TRACE"))
        trace = REAL(open, getenv("CALLS_TRACE"), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    int file = getenv("CALLS_SEEN") ? REAL(open, getenv("CALLS_SEEN"), O_RDWR | O_CLOEXEC) : -1;
    if (file < 0)
        return;
    void *shared = mmap(NULL, 24, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    if (shared != MAP_FAILED)
        seen = shared;
    close(file);
}

static int is_watched(const char *path) {
    if (!seen || !under || !path)
        return 0;
    if (home && strcmp(path, home) == 0)
        return 1;
    size_t end = but ? strlen(but) : 0, all = strlen(path);
    if (end && all >= end && strcmp(path + all - end, but) == 0)
        return 0;
    for (const char *from = under; *from;) {
        size_t length = strcspn(from, ":");
        if (strncmp(path, from, length) == 0)
            return 1;
        from += length + (from[length] == ':');
    }
    return 0;
}

/* Whether this call fails. If so, errno is set. */
static int fails(char kind, const char *path) {
    if (!is_watched(path))
        return 0;
    if (trace >= 0) {
        char line[4200];
        int length = snprintf(line, sizeof line, "%c %s\n", kind, path);
        if (REAL(write, trace, line, length) != length)
            abort();
    }
    if (!kinds || !strchr(kinds, kind))
        return 0;
    long call = (long)atomic_fetch_add(&seen[0], 1) + 1;
    long from = nth ? nth : (long)atomic_load(&seen[2]);
    if (from == 0 || call < from || (call > from && !on))
        return 0;
    if (lifted && access(lifted, F_OK) == 0)
        return 0;
    atomic_fetch_add(&seen[1], 1);
    errno = (int)number;
    return 1;
}

static int fails_on(char kind, int file) {
    char link[64], path[4096];
    if (!seen)
        return 0;
    int kept = errno;
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    ssize_t length = readlink(link, path, sizeof path - 1);
    errno = kept;
    if (length < 0)
        return 0;
    path[length] = 0;
    return fails(kind, path);
}

#define WHOLE 8192

/* Returns the path of a name below an open directory. All other watched paths are absolute. */
static const char *from(int at, const char *path, char whole[WHOLE]) {
    char link[64];
    if (!seen || !path || path[0] == '/' || at == AT_FDCWD)
        return path;
    int kept = errno;
    snprintf(link, sizeof link, "/proc/self/fd/%d", at);
    ssize_t length = readlink(link, whole, WHOLE / 2);
    errno = kept;
    if (length < 0)
        return path;
    snprintf(whole + length, WHOLE - length, "/%s", path);
    return whole;
}

/* Whether an open fails: as the creation of a file, or as an open for writing. */
static int open_fails(const char *path, int flags) {
    struct stat found;
    if ((flags & O_ACCMODE) == O_RDONLY && !(flags & O_CREAT))
        return 0;
    int kept = errno;
    int is_new = (flags & O_CREAT) && path && stat(path, &found) != 0;
    errno = kept;
    return fails(is_new ? 'c' : 'o', path);
}

#define MODE(flags)                                                                                          \
    mode_t mode = 0;                                                                                         \
    if ((flags) & O_CREAT) {                                                                                 \
        va_list list;                                                                                        \
        va_start(list, flags);                                                                               \
        mode = va_arg(list, mode_t);                                                                         \
        va_end(list);                                                                                        \
    }

int open(const char *path, int flags, ...) {
    MODE(flags)
    return open_fails(path, flags) ? -1 : REAL(open, path, flags, mode);
}

int open64(const char *path, int flags, ...) {
    MODE(flags)
    return open_fails(path, flags) ? -1 : REAL(open64, path, flags, mode);
}

int openat(int at, const char *path, int flags, ...) {
    MODE(flags)
    char whole[WHOLE];
    return open_fails(from(at, path, whole), flags) ? -1 : REAL(openat, at, path, flags, mode);
}

int openat64(int at, const char *path, int flags, ...) {
    MODE(flags)
    char whole[WHOLE];
    return open_fails(from(at, path, whole), flags) ? -1 : REAL(openat64, at, path, flags, mode);
}

ssize_t read(int file, void *to, size_t size) {
    return fails_on('r', file) ? -1 : REAL(read, file, to, size);
}

ssize_t readv(int file, const struct iovec *to, int count) {
    return fails_on('r', file) ? -1 : REAL(readv, file, to, count);
}

ssize_t pread(int file, void *to, size_t size, off_t at) {
    return fails_on('r', file) ? -1 : REAL(pread, file, to, size, at);
}

ssize_t pread64(int file, void *to, size_t size, off64_t at) {
    return fails_on('r', file) ? -1 : REAL(pread64, file, to, size, at);
}

ssize_t write(int file, const void *from, size_t size) {
    return fails_on('w', file) ? -1 : REAL(write, file, from, size);
}

ssize_t writev(int file, const struct iovec *from, int count) {
    return fails_on('w', file) ? -1 : REAL(writev, file, from, count);
}

ssize_t pwrite(int file, const void *from, size_t size, off_t at) {
    return fails_on('w', file) ? -1 : REAL(pwrite, file, from, size, at);
}

ssize_t pwrite64(int file, const void *from, size_t size, off64_t at) {
    return fails_on('w', file) ? -1 : REAL(pwrite64, file, from, size, at);
}

ssize_t pwritev(int file, const struct iovec *from, int count, off_t at) {
    return fails_on('w', file) ? -1 : REAL(pwritev, file, from, count, at);
}

int ftruncate(int file, off_t size) { return fails_on('t', file) ? -1 : REAL(ftruncate, file, size); }

int ftruncate64(int file, off64_t size) { return fails_on('t', file) ? -1 : REAL(ftruncate64, file, size); }

int fsync(int file) { return fails_on('s', file) ? -1 : REAL(fsync, file); }

int fdatasync(int file) { return fails_on('s', file) ? -1 : REAL(fdatasync, file); }

int rename(const char *from, const char *to) { return fails('c', to) ? -1 : REAL(rename, from, to); }

int link(const char *from, const char *to) { return fails('c', to) ? -1 : REAL(link, from, to); }

int renameat(int at, const char *old, int there, const char *to) {
    char whole[WHOLE];
    return fails('c', from(there, to, whole)) ? -1 : REAL(renameat, at, old, there, to);
}

int renameat2(int at, const char *old, int there, const char *to, unsigned flags) {
    char whole[WHOLE];
    return fails('c', from(there, to, whole)) ? -1 : REAL(renameat2, at, old, there, to, flags);
}

int linkat(int at, const char *old, int there, const char *to, int flags) {
    char whole[WHOLE];
    return fails('c', from(there, to, whole)) ? -1 : REAL(linkat, at, old, there, to, flags);
}

int mkdir(const char *path, mode_t mode) { return fails('c', path) ? -1 : REAL(mkdir, path, mode); }

int mkdirat(int at, const char *path, mode_t mode) {
    char whole[WHOLE];
    return fails('c', from(at, path, whole)) ? -1 : REAL(mkdirat, at, path, mode);
}

int unlink(const char *path) { return fails('u', path) ? -1 : REAL(unlink, path); }

int unlinkat(int at, const char *path, int flags) {
    char whole[WHOLE];
    return fails('u', from(at, path, whole)) ? -1 : REAL(unlinkat, at, path, flags);
}

int chmod(const char *path, mode_t mode) { return fails('m', path) ? -1 : REAL(chmod, path, mode); }

int fchmod(int file, mode_t mode) { return fails_on('m', file) ? -1 : REAL(fchmod, file, mode); }

int fchown(int file, uid_t owner, gid_t group) {
    return fails_on('m', file) ? -1 : REAL(fchown, file, owner, group);
}
