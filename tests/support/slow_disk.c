/* A disk that takes its time: preloaded with LD_PRELOAD, it delays what makes data durable.
 *
 * SLOW_DISK names a file that holds milliseconds; it is read anew before each flush, and without
 * it, or with 0 in it, nothing is delayed.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

#define REAL(name, type) \
    static __typeof__(type) real; \
    if (!real) real = (__typeof__(type))dlsym(RTLD_NEXT, name)

static void take_time(void)
{
    const char *path = getenv("SLOW_DISK");
    char text[16] = {0};
    int fd = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (fd < 0) return;
    if (read(fd, text, sizeof text - 1) > 0) usleep(1000 * (useconds_t)atoi(text));
    close(fd);
}

static int is_durable(int fd) { return (fcntl(fd, F_GETFL) & O_DSYNC) != 0; }

int fdatasync(int fd)
{
    REAL("fdatasync", int (*)(int));
    take_time();
    return real(fd);
}

int fsync(int fd)
{
    REAL("fsync", int (*)(int));
    take_time();
    return real(fd);
}

#define PWRITE(name) \
    ssize_t name(int fd, const void *data, size_t size, off_t offset) \
    { \
        REAL(#name, ssize_t (*)(int, const void *, size_t, off_t)); \
        if (is_durable(fd)) take_time(); \
        return real(fd, data, size, offset); \
    }

#define PWRITEV(name) \
    ssize_t name(int fd, const struct iovec *parts, int count, off_t offset) \
    { \
        REAL(#name, ssize_t (*)(int, const struct iovec *, int, off_t)); \
        if (is_durable(fd)) take_time(); \
        return real(fd, parts, count, offset); \
    }

#define PWRITEV2(name) \
    ssize_t name(int fd, const struct iovec *parts, int count, off_t offset, int flags) \
    { \
        REAL(#name, ssize_t (*)(int, const struct iovec *, int, off_t, int)); \
        if (is_durable(fd) || (flags & RWF_DSYNC)) take_time(); \
        return real(fd, parts, count, offset, flags); \
    }

PWRITE(pwrite)
PWRITE(pwrite64)
PWRITEV(pwritev)
PWRITEV(pwritev64)
PWRITEV2(pwritev2)
PWRITEV2(pwritev64v2)
