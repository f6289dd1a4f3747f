// `often` has another value at each look, `seldom` one more every so many milliseconds: each on a page of its own.
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

struct page { volatile long value; char rest[4088]; } __attribute__((aligned(4096)));
static struct page often, seldom;

static long now(void) {
    struct timespec at;
    clock_gettime(CLOCK_MONOTONIC, &at);
    return at.tv_sec * 1000 + at.tv_nsec / 1000000;
}

int main(int argc, char **argv) {
    long every = argc > 1 ? atol(argv[1]) : 1000, began = now();
    printf("ready\n");
    fflush(stdout);
    for (;;) {
        often.value++;
        if (seldom.value != (now() - began) / every) seldom.value = (now() - began) / every;
        nanosleep(&(struct timespec){0, 200000}, NULL);
    }
}
