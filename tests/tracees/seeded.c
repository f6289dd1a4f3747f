// A computation that is the same each time: a generator of numbers, a sorted heap of blocks, sums of
// floating point, two threads that take turns. It writes what it comes to into the file it is given.
#include <fcntl.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define BLOCKS 4096

struct block {
    uint64_t key, length;
    unsigned char bytes[];
};

static struct block *blocks[BLOCKS];
static uint64_t state = 88172645463325252ul, digest;
static double sum;
static pthread_barrier_t turn;
static long rounds;
static int out;

static uint64_t next(void)
{
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return state;
}

static void replace(unsigned at)
{
    uint64_t length = 16 + next() % 600;
    free(blocks[at]);
    blocks[at] = malloc(sizeof(struct block) + length);
    blocks[at]->key = next();
    blocks[at]->length = length;
    for (uint64_t i = 0; i < length; i++)
        blocks[at]->bytes[i] = (unsigned char)(blocks[at]->key >> i % 56);
}

static int by_key(const void *a, const void *b)
{
    uint64_t x = (*(struct block **)a)->key, y = (*(struct block **)b)->key;
    return (x > y) - (x < y);
}

static void take_up(long round)
{
    for (unsigned i = 0; i < BLOCKS; i += 1 + next() % 16) {
        struct block *block = blocks[i];
        for (uint64_t at = 0; at < block->length; at++)
            digest = (digest ^ block->bytes[at]) * 0x100000001b3ul;
    }
    sum = sum / 1.0000001 + (double)(digest % 1000003) / (double)(round + 3);
}

// The other thread's half of each round.
static void *other(void *arg)
{
    for (;;) {
        pthread_barrier_wait(&turn);
        for (unsigned i = 0; i < 64; i++)
            replace((unsigned)(next() % BLOCKS));
        pthread_barrier_wait(&turn);
    }
    return arg;
}

int main(int argc, char **argv)
{
    char line[128];
    pthread_t thread;
    if (argc < 3 || (out = open(argv[1], O_CREAT | O_WRONLY, 0600)) < 0)
        return 1;
    rounds = atol(argv[2]);
    for (unsigned i = 0; i < BLOCKS; i++)
        replace(i);
    pthread_barrier_init(&turn, NULL, 2);
    pthread_create(&thread, NULL, other, NULL);
    printf("ready\n");
    fflush(stdout);
    for (long round = 0; round < rounds; round++) {
        pthread_barrier_wait(&turn);
        pthread_barrier_wait(&turn);
        if (round % 8 == 0)
            qsort(blocks, BLOCKS, sizeof *blocks, by_key);
        take_up(round);
        int length = snprintf(line, sizeof line, "%ld %016lx %016lx %.17g\n", round, state, digest, sum);
        if (write(out, line, (size_t)length) != length)
            return 1;
    }
    if (write(out, "end\n", 4) != 4)
        return 1;
    for (;;)
        pause();
}
