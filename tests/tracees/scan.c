// Prints how many ns the cheapest walk for written pages takes: PAGEMAP_SCAN that asks for nothing else, since
// asking which pages are a file's makes the kernel look every page up. Nothing is protected.
// usage: scan PID START END (hexadecimal); the range must be under write tracking.
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

enum { WRITTEN = 2, CHECK_WPASYNC = 2, REGIONS = 4096, ROUNDS = 5 };

struct scan_arg {
    uint64_t size, flags, start, end, walk_end, vec, vec_len, max_pages;
    uint64_t category_inverted, category_mask, category_anyof_mask, return_mask;
};

struct region {
    uint64_t start, end, categories;
};

static struct region regions[REGIONS];

static uint64_t now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000ull + t.tv_nsec;
}

static int ascending(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

static int walk(int pagemap, uint64_t start, uint64_t end)
{
    while (start < end) {
        struct scan_arg arg = {.size = sizeof arg,
                               .flags = CHECK_WPASYNC,
                               .start = start,
                               .end = end,
                               .vec = (uintptr_t)regions,
                               .vec_len = REGIONS,
                               .category_mask = WRITTEN,
                               .return_mask = WRITTEN};
        if (ioctl(pagemap, _IOWR('f', 16, struct scan_arg), &arg) < 0 || arg.walk_end <= start)
            return -1;
        start = arg.walk_end;
    }
    return 0;
}

int main(int argc, char **argv)
{
    char path[64];
    if (argc != 4)
        return 2;
    snprintf(path, sizeof path, "/proc/%s/pagemap", argv[1]);
    int pagemap = open(path, O_RDONLY);
    uint64_t start = strtoull(argv[2], NULL, 16), end = strtoull(argv[3], NULL, 16);
    uint64_t took[ROUNDS];
    for (int i = 0; i < ROUNDS; i++) {
        uint64_t clock = now();
        if (walk(pagemap, start, end) != 0) {
            perror("PAGEMAP_SCAN");
            return 1;
        }
        took[i] = now() - clock;
    }
    qsort(took, ROUNDS, sizeof *took, ascending);
    printf("%llu\n", (unsigned long long)took[ROUNDS / 2]);
    return 0;
}
