// Code that steppers get lost in, and threads that meet breakpoints and watchpoints at once: controlled walk|hot|fork
#define _GNU_SOURCE
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#pragma GCC optimize("O0")

volatile long rounds;
volatile long watched;
volatile int enough;
static char from[5000], to[5000];
static jmp_buf back;
static volatile sig_atomic_t caught;

static void on_signal(int signal)
{
    caught += signal == SIGUSR1;
}

int leaf(int n)
{
    int twice = n * 2;
    return twice + 1;
}

int deep(int n)
{
    if (n == 0)
        return 1;
    int below = deep(n - 1);
    return n * below;
}

static void far_away(int n)
{
    if (n > 0)
        longjmp(back, n);
}

int table(int n)
{
    switch (n) {
    case 0: return leaf(3);
    case 1: return 11;
    case 2: return 22;
    case 3: return 33;
    case 4: return 44;
    case 5: return 55;
    }
    return -1;
}

long walk(int n)
{
    long sum = 0;
    for (int i = 0; i < 3; i++)
        sum += leaf(i);
    sum += deep(4);
    memcpy(to, from, sizeof to);
    for (int i = 0; i < 300; i++) sum ^= i;
    sum += table(n % 6);
    raise(SIGUSR1);
    sum += leaf(leaf(1));
    usleep(100);
    if (setjmp(back) == 0)
        far_away(1);
    sum += caught;
    return sum;
}

long hot(long n)
{
    return n + 1;
}

atomic_long strikes;

static void *strike(void *arg)
{
    long mine = 0;
    for (long i = 0; i < (long)arg; i++) {
        mine = hot(mine);
        if (mine != i + 1)
            abort();
        atomic_fetch_add(&strikes, 1);
    }
    return NULL;
}

static void *change(void *arg)
{
    for (;;) {
        usleep(20000);
        __atomic_fetch_add(&watched, 1, __ATOMIC_SEQ_CST);
    }
    return arg;
}

static void threads(int n, void *(*run)(void *), long arg)
{
    pthread_t all[16];
    for (int i = 0; i < n; i++)
        pthread_create(&all[i], NULL, run, (void *)arg);
    for (int i = 0; i < n; i++)
        pthread_join(all[i], NULL);
}

static void children(void)
{
    pid_t child = fork();
    if (child == 0)
        _exit(hot(6));
    int status;
    waitpid(child, &status, 0);
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 7)
        abort();
    if (system("true") != 0)
        abort();
}

int main(int argc, char **argv)
{
    const char *what = argc > 1 ? argv[1] : "walk";
    signal(SIGUSR1, on_signal);
    setvbuf(stdout, NULL, _IOLBF, 0);
    puts("ready");
    while (!enough) {
        rounds++;
        if (!strcmp(what, "walk"))
            walk((int)rounds);
        else if (!strcmp(what, "hot"))
            threads(8, strike, 100);
        else if (!strcmp(what, "watch"))
            threads(4, change, 0);
        else
            children();
        usleep(2000);
    }
    puts("done");
    return 3;
}
