/* Shifts the wall clock of one process by the seconds that a file holds; the steady clock stays true.
 *
 * For tests/test_clocks.py: LD_PRELOAD=clock.so SELFTUNE_TEST_OFFSET=FILE python -m selftune loop
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static long long offset_s(void) {
    const char *path = getenv("SELFTUNE_TEST_OFFSET");
    char text[32] = {0};
    int fd = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (fd < 0) return 0;
    ssize_t n = read(fd, text, sizeof text - 1);
    close(fd);
    return n > 0 ? atoll(text) : 0;
}

/* The kernel's own call, so that the shim never calls itself. */
static int true_clock(clockid_t id, struct timespec *at) { return (int)syscall(SYS_clock_gettime, id, at); }

int clock_gettime(clockid_t id, struct timespec *at) {
    int failed = true_clock(id, at);
    if (!failed && (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE)) at->tv_sec += offset_s();
    return failed;
}

int gettimeofday(struct timeval *restrict at, void *restrict zone) {
    struct timespec now;
    (void)zone;
    if (true_clock(CLOCK_REALTIME, &now)) return -1;
    at->tv_sec = now.tv_sec + offset_s();
    at->tv_usec = now.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *out) {
    struct timespec now;
    if (true_clock(CLOCK_REALTIME, &now)) return (time_t)-1;
    now.tv_sec += offset_s();
    if (out) *out = now.tv_sec;
    return now.tv_sec;
}
