// Half the time in vfork, where nothing can stop it; another thread and a process that shares the memory
// wait in calls that a stop interrupts for good, and none of those may tell.
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static char stacks[2][32 << 10] __attribute__((aligned(64)));

static int wait_for_ever(void *arg)
{
    struct epoll_event event;
    int set = *(int *)arg;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    for (;;) {
        long got = syscall(SYS_epoll_wait, set, &event, 1, 300);
        if (got) {
            printf("FAIL %ld %s\n", got, got < 0 ? strerror(errno) : "");
            fflush(stdout);
            _exit(1);
        }
    }
}

static void *wait_in_thread(void *arg)
{
    wait_for_ever(arg);
    return NULL;
}

static int a_while(void *arg)
{
    usleep(*(unsigned *)arg);
    _exit(0);
}

int main(int argc, char **argv)
{
    pthread_t thread;
    int set = epoll_create1(EPOLL_CLOEXEC);
    unsigned us = argc > 1 ? (unsigned)atoi(argv[1]) : 1500000;
    pthread_create(&thread, NULL, wait_in_thread, &set);
    if (argc > 2)
        clone(wait_for_ever, stacks[0] + sizeof stacks[0], CLONE_VM | CLONE_FILES | SIGCHLD, &set);
    printf("ready\n");
    fflush(stdout);
    for (;;) {
        pid_t pid = clone(a_while, stacks[1] + sizeof stacks[1], CLONE_VM | CLONE_VFORK | SIGCHLD, &us);
        while (waitpid(pid, NULL, 0) < 0 && errno == EINTR) {
        }
        usleep(us / 2);
    }
}
