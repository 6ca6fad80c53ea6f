/* Records what a process does to files named data.mdb, journal.0 and journal.1, and fails syncs on
 * demand.
 *
 * Preloaded with LD_PRELOAD.  CRASHLAB_LOG names the file that records go to; writers in several
 * processes append to it, one write(2) a record.  CRASHLAB_EIO="w5" makes the fifth fdatasync of
 * the log ("w": a path with /wal/) or the state ("s") fail with EIO; "j5" the fifth durable write
 * to the journal's first file ("j") or its second ("k").
 *
 *     record := kind:u8 tag:u8 offset:u64 size:u32 data      (little-endian)
 *     kind: W write, D write that was durable when it returned, S sync done, M mark
 *
 * The mark "E" of a failure has the monotonic clock, in ns, for its offset.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#define FDS_MAX 4096

static char tags[FDS_MAX];
static char is_dsync[FDS_MAX];
static int log_fd = -1;
static int syncs[256];
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

#define REAL(name, type) \
    static __typeof__(type) real; \
    if (!real) real = (__typeof__(type))dlsym(RTLD_NEXT, name)

__attribute__((constructor)) static void begin(void)
{
    const char *path = getenv("CRASHLAB_LOG");
    if (path) log_fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
}

static void put(char kind, char tag, uint64_t offset, const void *data, uint32_t size)
{
    char head[14];
    struct iovec parts[2] = {{head, sizeof head}, {(void *)data, size}};
    REAL("writev", ssize_t (*)(int, const struct iovec *, int));
    if (log_fd < 0) return;
    head[0] = kind;
    head[1] = tag;
    memcpy(head + 2, &offset, 8);
    memcpy(head + 10, &size, 4);
    if (real(log_fd, parts, size ? 2 : 1) < 0) abort();
}

void crashlab_mark(const char *text) { put('M', 0, 0, text, strlen(text)); }

static char tag_of(int fd) { return fd >= 0 && fd < FDS_MAX ? tags[fd] : 0; }

static void opened(int fd, const char *path, int flags)
{
    size_t size = strlen(path);
    if (fd < 0 || fd >= FDS_MAX) return;
    tags[fd] = 0;
    if (size > 9 && !strcmp(path + size - 9, "journal.0")) tags[fd] = 'j';
    else if (size > 9 && !strcmp(path + size - 9, "journal.1")) tags[fd] = 'k';
    else if (size < 8 || strcmp(path + size - 8, "data.mdb")) return;
    else tags[fd] = strstr(path, "/wal/") ? 'w' : 's';
    is_dsync[fd] = (flags & (O_DSYNC | O_SYNC)) != 0;
}

#define OPEN(name) \
    int name(const char *path, int flags, ...) \
    { \
        va_list rest; \
        mode_t mode; \
        int fd; \
        REAL(#name, int (*)(const char *, int, ...)); \
        va_start(rest, flags); \
        mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(rest, int) : 0; \
        va_end(rest); \
        fd = real(path, flags, mode); \
        opened(fd, path, flags); \
        return fd; \
    }
OPEN(open)
OPEN(open64)

#define OPENAT(name) \
    int name(int at, const char *path, int flags, ...) \
    { \
        va_list rest; \
        mode_t mode; \
        int fd; \
        REAL(#name, int (*)(int, const char *, int, ...)); \
        va_start(rest, flags); \
        mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(rest, int) : 0; \
        va_end(rest); \
        fd = real(at, path, flags, mode); \
        opened(fd, path, flags); \
        return fd; \
    }
OPENAT(openat)
OPENAT(openat64)

int close(int fd)
{
    REAL("close", int (*)(int));
    if (fd >= 0 && fd < FDS_MAX) tags[fd] = 0;
    return real(fd);
}

/* The record of a write comes before the write, its durability after it. */
static void wrote(char tag, int fd, off_t offset, const void *data, size_t size, int done)
{
    put(done ? 'D' : 'W', tag, (uint64_t)offset, done ? NULL : data, done ? 0 : (uint32_t)size);
    (void)fd;
}

static int must_fail(char tag)
{
    const char *wanted = getenv("CRASHLAB_EIO");
    int number = ++syncs[(unsigned char)tag];
    return wanted && wanted[0] == tag && number == atoi(wanted + 1);
}

static void mark_failure(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    put('M', 0, (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec, "E", 1);
}

#define PWRITE(name, offset_type) \
    ssize_t name(int fd, const void *data, size_t size, offset_type offset) \
    { \
        char tag = tag_of(fd); \
        ssize_t result; \
        REAL(#name, ssize_t (*)(int, const void *, size_t, offset_type)); \
        if (!tag) return real(fd, data, size, offset); \
        pthread_mutex_lock(&lock); \
        wrote(tag, fd, offset, data, size, 0); \
        if (is_dsync[fd] && (tag == 'j' || tag == 'k') && must_fail(tag)) { \
            mark_failure(); \
            errno = EIO; \
            result = -1; \
        } else { \
            result = real(fd, data, size, offset); \
            if (is_dsync[fd]) wrote(tag, fd, offset, data, size, 1); \
        } \
        pthread_mutex_unlock(&lock); \
        return result; \
    }
PWRITE(pwrite, off_t)
PWRITE(pwrite64, off64_t)

ssize_t write(int fd, const void *data, size_t size)
{
    char tag = tag_of(fd);
    ssize_t result;
    REAL("write", ssize_t (*)(int, const void *, size_t));
    if (!tag) return real(fd, data, size);
    pthread_mutex_lock(&lock);
    wrote(tag, fd, lseek(fd, 0, SEEK_CUR), data, size, 0);
    result = real(fd, data, size);
    pthread_mutex_unlock(&lock);
    return result;
}

static void vector(char tag, int fd, const struct iovec *parts, int count, off_t offset)
{
    int i;
    for (i = 0; i < count; i++) {
        wrote(tag, fd, offset, parts[i].iov_base, parts[i].iov_len, 0);
        offset += parts[i].iov_len;
    }
}

ssize_t writev(int fd, const struct iovec *parts, int count)
{
    char tag = tag_of(fd);
    ssize_t result;
    REAL("writev", ssize_t (*)(int, const struct iovec *, int));
    if (!tag) return real(fd, parts, count);
    pthread_mutex_lock(&lock);
    vector(tag, fd, parts, count, lseek(fd, 0, SEEK_CUR));
    result = real(fd, parts, count);
    pthread_mutex_unlock(&lock);
    return result;
}

#define PWRITEV(name, offset_type) \
    ssize_t name(int fd, const struct iovec *parts, int count, offset_type offset) \
    { \
        char tag = tag_of(fd); \
        ssize_t result; \
        REAL(#name, ssize_t (*)(int, const struct iovec *, int, offset_type)); \
        if (!tag) return real(fd, parts, count, offset); \
        pthread_mutex_lock(&lock); \
        vector(tag, fd, parts, count, offset); \
        result = real(fd, parts, count, offset); \
        pthread_mutex_unlock(&lock); \
        return result; \
    }
PWRITEV(pwritev, off_t)
PWRITEV(pwritev64, off64_t)

#define SYNC(name) \
    int name(int fd) \
    { \
        char tag = tag_of(fd); \
        int result; \
        REAL(#name, int (*)(int)); \
        if (!tag) return real(fd); \
        pthread_mutex_lock(&lock); \
        if (must_fail(tag)) { \
            mark_failure(); \
            errno = EIO; \
            result = -1; \
        } else { \
            result = real(fd); \
            if (!result) put('S', tag, 0, NULL, 0); \
        } \
        pthread_mutex_unlock(&lock); \
        return result; \
    }
SYNC(fdatasync)
SYNC(fsync)

/* Nothing may reach the files through a mapping, and nothing may cut them: say so loudly. */
int msync(void *address, size_t size, int flags)
{
    REAL("msync", int (*)(void *, size_t, int));
    put('M', 0, 0, "msync", 5);
    return real(address, size, flags);
}

#define TRUNCATE(name, size_type) \
    int name(int fd, size_type size) \
    { \
        REAL(#name, int (*)(int, size_type)); \
        if (tag_of(fd)) put('M', 0, 0, "truncate", 8); \
        return real(fd, size); \
    }
TRUNCATE(ftruncate, off_t)
TRUNCATE(ftruncate64, off64_t)
