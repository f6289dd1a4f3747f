// Waits for children.
#include <sys/wait.h>

static pid_t child(void)
{
    long us = 5000 + now_ns() / 1000 % 20000;
    pid_t pid = fork();
    if (pid == 0) {
        usleep(us);
        _exit(7);
    }
    must(pid > 0, "fork");
    return pid;
}

// A rewind takes a wait back to a child that has been waited for since.
static long ended(struct state *s, long result, int code, long was)
{
    if (result < 0 && errno == ECHILD && board->rewinds != was)
        return 0;
    (void)s;
    return result < 0 ? result : code == 7 ? 0 : -1000;
}

static long wait_four(struct state *s)
{
    int status = 0;
    long was = board->rewinds;
    long result = wait4(child(), &status, 0, NULL);
    return ended(s, result, WEXITSTATUS(status), was);
}

static long wait_id(struct state *s)
{
    siginfo_t info = {0};
    long was = board->rewinds;
    long result = waitid(P_PID, child(), &info, WEXITED);
    return ended(s, result, info.si_status, was);
}

static long wait_pidfd(struct state *s)
{
    siginfo_t info = {0};
    long was = board->rewinds;
    int fd = syscall(SYS_pidfd_open, child(), 0);
    long result = waitid(P_PIDFD, fd, &info, WEXITED);
    int error = errno;
    close(fd);
    errno = error;
    return ended(s, result, info.si_status, was);
}

// The parent of a vfork cannot be stopped: a checkpoint waits, or is given up.
static long wait_vfork(struct state *s)
{
    int status = 0;
    long was = board->rewinds;
    usleep(50000);
    pid_t pid = vfork();
    if (pid == 0) {
        struct timespec limit = {0, 2000000};
        syscall(SYS_nanosleep, &limit, NULL);
        _exit(7);
    }
    long result = waitpid(pid, &status, 0);
    return ended(s, result, WEXITSTATUS(status), was);
}
