// Memory that is a function of how far it has come: whoever has one moment of it, and nothing else,
// can tell whether every byte is as it was then. tests/src/counted.rs knows the same function.
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#define BASE 0x200000000000ul
#define APART (64ul << 20)
#define PAGE 4096ul
#define STRIDE 0x9e5ul // Odd, and the counts are powers of two: each cell has its turn.

// Cells of so many bytes, and steps between two pauses.
struct shape {
    uint64_t size, count, pace;
    int drops;
};

static const struct shape shapes[] = {
    {4096, 512, 2, 0}, {64, 4096, 4, 0}, {8, 32768, 8, 0}, {4096, 128, 1, 1}};

// Begun is set before the cell of a step is written, done after.
struct head {
    volatile uint64_t begun, done;
};

static uint64_t value(uint64_t step, uint64_t word)
{
    uint64_t x = (step * 0x9e3779b97f4a7c15ul) ^ (word * 0xd1b54a32d192ed03ul);
    if (step % 8 == 0)
        return 0;
    if (word % 4 == 3)
        return step;
    x ^= x >> 29;
    x *= 0xbf58476d1ce4e5b9ul;
    return x ^ (x >> 32);
}

static void *work(void *arg)
{
    const struct shape *shape = arg;
    char *start = (char *)BASE + APART * (uint64_t)(shape - shapes);
    struct head *head = (struct head *)start;
    for (uint64_t step = 1;; step++) {
        uint64_t cell = step * STRIDE % shape->count;
        volatile uint64_t *at = (uint64_t *)(start + PAGE + cell * shape->size);
        head->begun = step;
        if (shape->drops && step % 8 == 0)
            madvise((void *)at, PAGE, MADV_DONTNEED);
        else
            for (uint64_t word = 0; word < shape->size / 8; word++)
                at[word] = value(step, word);
        head->done = step;
        if (step % shape->pace == 0)
            usleep(1000);
    }
    return NULL;
}

int main(void)
{
    for (unsigned i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        size_t length = PAGE + shapes[i].size * shapes[i].count;
        void *want = (char *)BASE + APART * i;
        void *got = mmap(want, length, PROT_READ | PROT_WRITE,
                         MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
        pthread_t thread;
        if (got != want || pthread_create(&thread, NULL, work, (void *)&shapes[i])) {
            perror("FAIL start");
            return 1;
        }
    }
    printf("ready\n");
    fflush(stdout);
    for (;;)
        pause();
}
