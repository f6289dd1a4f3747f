// A ring of processes: a number goes round in pipes, each process takes what is one more than what
// its neighbour had, notes it in memory of its own and in memory that all share, and passes it on.
// Any one state of all is told from a mixture of several: what they noted last are neighbours too.
// Usage: ring [PROCESSES [US]]. The root prints each round that ends with 00.
#define _GNU_SOURCE
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <unistd.h>

#define MOST 128

static volatile uint64_t mine;    // What this process has taken last.
static volatile int me, all;
static volatile uint64_t *shared; // The same of each, noted before `mine` is.

static void fail(const char *what, uint64_t is, uint64_t should)
{
    printf("WRONG in %d: %s is %lu, should be %lu\n", me, what, is, should);
    fflush(stdout);
    kill(0, SIGTERM);
    _exit(1);
}

static void go_round(int from, int to, useconds_t pause)
{
    for (;;) {
        uint64_t token;
        ssize_t got = read(from, &token, sizeof token);
        if (got == 0)
            _exit(0);
        if (got != sizeof token)
            fail("length", got, sizeof token);
        uint64_t should = mine ? mine + all : (uint64_t)me + 1;
        if (token != should)
            fail("token", token, should);
        if (shared[me] != mine)
            fail("the shared note", shared[me], mine);
        // Who has not had its turn yet in this round is a round behind.
        for (int i = 0; i < all; i++) {
            uint64_t note = i == me ? token - all : shared[i];
            uint64_t other = i < me ? token - (me - i) : token - all + (i - me);
            if (token > (uint64_t)all && note != other)
                fail("another's note", note, other);
        }
        if (me == 0 && token == (uint64_t)all + 1) {
            printf("ready\n"); // Everybody is there.
            fflush(stdout);
        }
        shared[me] = token;
        mine = token;
        if (pause)
            usleep(pause);
        token++;
        if (write(to, &token, sizeof token) != sizeof token)
            _exit(0);
        if (me == 0 && token / all % 100 == 0) {
            printf("round %lu\n", token / all);
            fflush(stdout);
        }
    }
}

int main(int argc, char **argv)
{
    all = argc > 1 ? atoi(argv[1]) : 4;
    useconds_t pause = argc > 2 ? atoi(argv[2]) : 0;
    int pipes[MOST][2];
    if (all < 2 || all > MOST)
        return 2;
    setpgid(0, 0);
    shared = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    for (int i = 0; i < all; i++)
        if (pipe(pipes[i]))
            return 1;
    pid_t root = getpid();
    // Each but the root is a child of the one before it.
    while (me + 1 < all) {
        pid_t child = fork();
        if (child < 0)
            return 1;
        if (child > 0)
            break;
        me = me + 1;
        prctl(PR_SET_PDEATHSIG, SIGKILL);
    }
    for (int i = 0; i < all; i++) {
        if (i != me)
            close(pipes[i][0]);
        if (i != (me + 1) % all)
            close(pipes[i][1]);
    }
    if (getpid() == root) {
        uint64_t first = 1;
        // The first turn is the root's, without a token.
        shared[0] = mine = first++;
        if (write(pipes[1][1], &first, sizeof first) != sizeof first)
            return 1;
    }
    go_round(pipes[me][0], pipes[(me + 1) % all][1], pause);
}
