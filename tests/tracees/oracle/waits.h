// Waits for descriptors, for time and for signals.
#include <sys/epoll.h>
#include <sys/select.h>

// A limit in memory that the kernel cannot write the rest of the time to.
static const void *fixed(const void *limit, size_t size)
{
    void *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    must(page != MAP_FAILED, "mmap");
    memcpy(page, limit, size);
    mprotect(page, 4096, PROT_READ);
    return page;
}

static void make_fixed(struct state *s)
{
    make_pipe(s);
    struct timespec limit = span(s->of->timeout_us);
    s->own = (void *)fixed(&limit, sizeof limit);
}

static void make_fixed_timeval(struct state *s)
{
    make_pipe(s);
    struct timeval limit = {s->of->timeout_us / 1000000, s->of->timeout_us % 1000000};
    s->own = (void *)fixed(&limit, sizeof limit);
}

static long then_read(struct state *s, long ready)
{
    return ready == 1 ? pipe_read(s) : ready;
}

static long wait_poll(struct state *s)
{
    struct pollfd p = {s->fd[0], POLLIN, 0};
    return then_read(s, poll(&p, 1, s->of->timeout_us ? (int)(s->of->timeout_us / 1000) : -1));
}

static long wait_ppoll(struct state *s)
{
    struct pollfd p = {s->fd[0], POLLIN, 0};
    struct timespec limit = span(s->of->timeout_us);
    return then_read(s, ppoll(&p, 1, s->of->timeout_us ? &limit : NULL, NULL));
}

static long wait_ppoll_fixed(struct state *s)
{
    struct pollfd p = {s->fd[0], POLLIN, 0};
    return syscall(SYS_ppoll, &p, 1, s->own, NULL, 8);
}

static fd_set only(int fd)
{
    fd_set set;
    FD_ZERO(&set);
    FD_SET(fd, &set);
    return set;
}

// The C library's select is pselect6; both are called as they are.
static long wait_select(struct state *s)
{
    fd_set set = only(s->fd[0]);
    struct timeval limit = {s->of->timeout_us / 1000000, s->of->timeout_us % 1000000};
    return then_read(s, syscall(SYS_select, s->fd[0] + 1, &set, NULL, NULL, s->of->timeout_us ? &limit : NULL));
}

static long wait_select_fixed(struct state *s)
{
    fd_set set = only(s->fd[0]);
    return syscall(SYS_select, s->fd[0] + 1, &set, NULL, NULL, s->own);
}

static long wait_pselect(struct state *s)
{
    fd_set set = only(s->fd[0]);
    struct timespec limit = span(s->of->timeout_us);
    return then_read(s, pselect(s->fd[0] + 1, &set, NULL, NULL, s->of->timeout_us ? &limit : NULL, NULL));
}

static long wait_pselect_fixed(struct state *s)
{
    fd_set set = only(s->fd[0]);
    return syscall(SYS_pselect6, s->fd[0] + 1, &set, NULL, NULL, s->own, NULL);
}

static void make_epoll(struct state *s)
{
    make_pipe(s);
    s->fd[2] = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event event = {EPOLLIN, {.fd = s->fd[0]}};
    must(epoll_ctl(s->fd[2], EPOLL_CTL_ADD, s->fd[0], &event) == 0, "epoll_ctl");
}

static int millis(struct state *s)
{
    return s->of->timeout_us ? (int)(s->of->timeout_us / 1000) : -1;
}

static long wait_epoll(struct state *s)
{
    struct epoll_event event;
    return then_read(s, syscall(SYS_epoll_wait, s->fd[2], &event, 1, millis(s)));
}

static long wait_epoll_pwait(struct state *s)
{
    struct epoll_event event;
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGRTMIN + 1);
    return then_read(s, epoll_pwait(s->fd[2], &event, 1, millis(s), &set));
}

static long wait_epoll_pwait2(struct state *s)
{
    struct epoll_event event;
    struct timespec limit = span(s->of->timeout_us);
    return then_read(s, syscall(SYS_epoll_pwait2, s->fd[2], &event, 1, s->of->timeout_us ? &limit : NULL, NULL, 8));
}

static long sleep_nano(struct state *s)
{
    struct timespec limit = span(s->of->timeout_us);
    return syscall(SYS_nanosleep, &limit, NULL);
}

static long sleep_hour(struct state *s)
{
    (void)s;
    struct timespec limit = {3600, 0};
    return syscall(SYS_nanosleep, &limit, NULL);
}

static long sleep_on(struct state *s, clockid_t clock, int flags)
{
    struct timespec limit = flags ? at(clock, s->of->timeout_us) : span(s->of->timeout_us);
    return syscall(SYS_clock_nanosleep, clock, flags, &limit, NULL);
}

#define SLEEP(name, clock, flags) \
    static long name(struct state *s) { return sleep_on(s, clock, flags); }
SLEEP(sleep_monotonic, CLOCK_MONOTONIC, 0)
SLEEP(sleep_realtime, CLOCK_REALTIME, 0)
SLEEP(sleep_boottime, CLOCK_BOOTTIME, 0)
SLEEP(sleep_until_monotonic, CLOCK_MONOTONIC, TIMER_ABSTIME)
SLEEP(sleep_until_realtime, CLOCK_REALTIME, TIMER_ABSTIME)
SLEEP(sleep_until_tai, CLOCK_TAI, TIMER_ABSTIME)

static long wait_signal(struct state *s)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGRTMIN + 1);
    struct timespec limit = span(s->of->timeout_us);
    long result = sigtimedwait(&set, NULL, s->of->timeout_us ? &limit : NULL);
    return result == SIGRTMIN + 1 ? 0 : result;
}

// A handler that restarts, between the items: the read must not end with it.
static void feed_and_restart(struct state *s)
{
    pthread_kill(s->thread, SIGUSR1);
    if (s->id++ % 4 == 0)
        feed_pipe(s);
}

// A handler without SA_RESTART: the call must end with EINTR, as it would without us.
static void interrupt(struct state *s)
{
    pthread_kill(s->thread, SIGUSR2);
}

static long wait_pause(struct state *s)
{
    (void)s;
    return pause();
}

static long wait_sigsuspend(struct state *s)
{
    (void)s;
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGRTMIN + 1);
    return sigsuspend(&set);
}
