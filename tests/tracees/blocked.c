// Sits in one kind of blocking call for ever and checks each return: no EINTR, no timeout that is
// early or much too late. usage: blocked CALL
#define _GNU_SOURCE
#include <errno.h>
#include <linux/futex.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ipc.h>
#include <sys/sem.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define TIMEOUT_MS 60
// A machine under load is late by itself; what must not happen is a timeout that starts over.
#define LATE_MS (TIMEOUT_MS * 3 / 2 + 400)

volatile long calls;
volatile long early, late, interrupted, worst_ms;

static long now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

static void fail(const char *what, long result, int error, long ms)
{
    printf("FAIL %s: result %ld errno %d (%s) after %ld ms\n", what, result, error, strerror(error), ms);
    fflush(stdout);
    abort();
}

static const struct timespec timeout = {0, TIMEOUT_MS * 1000000L};
static int fds[2], epoll, sem, sock[2];
static int word;

static long one(const char *call)
{
    char buffer[16];
    struct epoll_event event;
    struct sembuf op = {0, -1, 0};
    sigset_t set;
    struct pollfd p = {fds[0], POLLIN, 0};
    if (!strcmp(call, "futex"))
        return syscall(SYS_futex, &word, FUTEX_WAIT, 0, &timeout, NULL, 0);
    if (!strcmp(call, "nanosleep"))
        return nanosleep(&timeout, NULL);
    if (!strcmp(call, "epoll_wait"))
        return epoll_wait(epoll, &event, 1, TIMEOUT_MS);
    if (!strcmp(call, "poll"))
        return poll(&p, 1, TIMEOUT_MS);
    if (!strcmp(call, "semop"))
        return semtimedop(sem, &op, 1, &timeout);
    if (!strcmp(call, "recv"))
        return recv(sock[0], buffer, sizeof buffer, 0);
    if (!strcmp(call, "sigtimedwait")) {
        sigemptyset(&set);
        sigaddset(&set, SIGUSR1);
        return sigtimedwait(&set, NULL, &timeout);
    }
    // Without a timeout: these must not return at all.
    if (!strcmp(call, "read"))
        return read(fds[0], buffer, sizeof buffer);
    if (!strcmp(call, "wait4"))
        return wait4(-1, NULL, 0, NULL);
    if (!strcmp(call, "sigsuspend")) {
        sigemptyset(&set);
        return sigsuspend(&set);
    }
    if (!strcmp(call, "semop_forever"))
        return semop(sem, &op, 1);
    if (!strcmp(call, "epoll_forever"))
        return epoll_wait(epoll, &event, 1, -1);
    fprintf(stderr, "no call %s\n", call);
    exit(2);
}

int main(int argc, char **argv)
{
    const char *call = argc > 1 ? argv[1] : "read";
    struct timeval tv = {0, TIMEOUT_MS * 1000};
    sigset_t set;
    if (pipe(fds))
        return 1;
    if (!strcmp(call, "recv")) {
        if (socketpair(AF_UNIX, SOCK_STREAM, 0, sock))
            return 1;
        setsockopt(sock[0], SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof tv);
    }
    epoll = epoll_create1(0);
    struct epoll_event event = {EPOLLIN, {.fd = fds[0]}};
    epoll_ctl(epoll, EPOLL_CTL_ADD, fds[0], &event);
    if (!strncmp(call, "semop", 5)) {
        sem = semget(IPC_PRIVATE, 1, 0600);
        semctl(sem, 0, SETVAL, 0);
        printf("sem %d\n", sem); // Whoever started us removes it.
    }
    sigemptyset(&set);
    sigaddset(&set, SIGUSR1);
    sigprocmask(SIG_BLOCK, &set, NULL);
    if (!strcmp(call, "wait4") && fork() == 0) {
        // Ends with its parent, whatever ends that.
        pid_t parent = getppid();
        while (getppid() == parent)
            usleep(20000);
        _exit(0);
    }
    printf("ready\n");
    fflush(stdout);
    for (;;) {
        long before = now_ms();
        errno = 0;
        long result = one(call);
        int error = errno;
        long ms = now_ms() - before;
        calls++;
        if (ms > worst_ms)
            worst_ms = ms;
        int timed_out = result == 0 || (result == -1 && (error == EAGAIN || error == ETIMEDOUT));
        if (!timed_out || ms < TIMEOUT_MS - 2)
            fail(call, result, error, ms);
        // A rewind takes the clock's reading back with the memory: only what began after it counts.
        if (ms > LATE_MS && getenv("CHECK_LATE"))
            fail(call, result, error, ms);
    }
}
