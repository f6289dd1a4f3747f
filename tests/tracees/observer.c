// Feels how long it is stopped: one thread does nothing but look at the clock and notes every gap, another
// dirties so many bytes every 100 ms. SIGUSR1 has it fork once and note how long that took.
// usage: observer MiB BYTES; prints "ready RING FORK ADDRESS", where the ring and the rest can be read.
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { SLOTS = 4096, PAGE = 4096, WORTH_NS = 5000 };

struct gap {
    uint64_t end_ns, length_ns;
};

struct ring {
    volatile uint64_t count;
    struct gap gaps[SLOTS];
};

static struct ring ring;
static volatile uint64_t fork_ns;
static volatile sig_atomic_t forks_wanted;

// The clock that checkpoints are dated with.
static uint64_t now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    return t.tv_sec * 1000000000ull + t.tv_nsec;
}

static void *watch(void *unused)
{
    uint64_t last = now();
    for (;;) {
        uint64_t at = now();
        if (at - last > WORTH_NS) {
            ring.gaps[ring.count % SLOTS] = (struct gap){at, at - last};
            ring.count++;
        }
        last = at;
    }
    return unused;
}

static void want_fork(int signal)
{
    (void)signal;
    forks_wanted++;
}

static void fork_once(void)
{
    uint64_t start = now();
    pid_t child = fork();
    if (child == 0)
        _exit(0);
    fork_ns = now() - start;
    waitpid(child, NULL, 0);
}

static void dirty(char *memory, size_t size, size_t bytes, uint64_t round)
{
    static size_t at;
    for (size_t done = 0; done < bytes; done += PAGE) {
        for (size_t word = 0; word < PAGE; word += 512)
            *(volatile uint64_t *)(memory + at + word) = round * 0x9E3779B97F4A7C15ull + at + word;
        at = (at + PAGE) % size;
    }
}

int main(int argc, char **argv)
{
    if (argc != 3)
        return 2;
    size_t size = strtoull(argv[1], NULL, 10) << 20;
    size_t bytes = strtoull(argv[2], NULL, 10);
    char *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    // Small pages: a huge one would be taken whole for each word.
    madvise(memory, size, MADV_NOHUGEPAGE);
    for (size_t at = 0; at < size; at += 8)
        *(uint64_t *)(memory + at) = at * 0x9E3779B97F4A7C15ull;
    signal(SIGUSR1, want_fork);
    pthread_t thread;
    pthread_create(&thread, NULL, watch, NULL);
    printf("ready %p %p %p\n", (void *)&ring, (void *)&fork_ns, (void *)memory);
    fflush(stdout);
    struct timespec next;
    clock_gettime(CLOCK_MONOTONIC, &next);
    for (uint64_t round = 1;; round++) {
        for (; forks_wanted > 0; forks_wanted--)
            fork_once();
        dirty(memory, size, bytes, round);
        next.tv_nsec += 100000000;
        if (next.tv_nsec >= 1000000000) {
            next.tv_nsec -= 1000000000;
            next.tv_sec++;
        }
        while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &next, NULL) != 0)
            ;
    }
}
