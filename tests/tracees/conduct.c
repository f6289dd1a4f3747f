// What prctl(2) sets, of the main thread and another: changed at SIGUSR1, told at SIGUSR2.
#define _GNU_SOURCE
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <unistd.h>

static volatile sig_atomic_t told, turn;
static pthread_barrier_t both;

static void tell(int signal)
{
    told = signal;
}

static void set_own(int which)
{
    prctl(PR_SET_TIMERSLACK, 100000ul + which);
    prctl(PR_SET_PDEATHSIG, which % 2 ? SIGCONT : SIGURG);
}

static void print_own(const char *name)
{
    int signal = -1;
    prctl(PR_GET_PDEATHSIG, &signal);
    printf(" %s %d %d", name, prctl(PR_GET_TIMERSLACK), signal);
}

static void *other(void *unused)
{
    set_own(11);
    for (;;) {
        pthread_barrier_wait(&both);
        if (told == SIGUSR1)
            set_own(13 + turn);
        else
            print_own("other");
        pthread_barrier_wait(&both);
    }
    return unused;
}

int main(void)
{
    sigset_t signals, before;
    sigemptyset(&signals);
    sigaddset(&signals, SIGUSR1);
    sigaddset(&signals, SIGUSR2);
    pthread_sigmask(SIG_BLOCK, &signals, &before);
    signal(SIGUSR1, tell);
    signal(SIGUSR2, tell);
    pthread_barrier_init(&both, NULL, 2);
    pthread_t thread;
    pthread_create(&thread, NULL, other, NULL);
    set_own(10);
    prctl(PR_SET_CHILD_SUBREAPER, 1);
    prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0);
    puts("ready");
    for (;;) {
        fflush(stdout);
        sigsuspend(&before);
        if (told == SIGUSR1) {
            turn++;
            set_own(20 + turn);
            prctl(PR_SET_CHILD_SUBREAPER, 0);
            prctl(PR_SET_THP_DISABLE, 0, 0, 0, 0);
            prctl(PR_SET_DUMPABLE, 0);
        } else {
            int subreaper = -1;
            prctl(PR_GET_CHILD_SUBREAPER, &subreaper);
            printf("has %d %d %d", prctl(PR_GET_DUMPABLE), subreaper,
                   prctl(PR_GET_THP_DISABLE, 0, 0, 0, 0));
            print_own("main");
        }
        pthread_barrier_wait(&both);
        pthread_barrier_wait(&both);
        puts(told == SIGUSR1 ? "changed" : "");
    }
}
