// Threads that write, map, unmap, move, protect, drop and fork as fast as they can. Every page that
// is filled holds its own number and a sum, so that a torn or stale page shows.
// usage: mutator [PAUSE_US]
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define PAGE 4096
#define PAGES 64
#define MOVED 16
#define FILED 4
#define TABLE (2u << 20) // What one page table maps.
#define TABLES 1
#define DEPTH 300
#define WORKERS 3

volatile long rounds[WORKERS];
static unsigned pause_us;

struct page {
    uint64_t number, version, fill[(PAGE - 24) / 8], sum;
};

static void fill(struct page *p, uint64_t number, uint64_t version)
{
    p->number = number;
    p->version = version;
    uint64_t sum = number * 31 + version;
    for (size_t i = 0; i < sizeof p->fill / 8; i++) {
        p->fill[i] = version * 6364136223846793005u + i;
        sum += p->fill[i];
    }
    p->sum = sum;
}

static void check(const struct page *p, uint64_t number, const char *what)
{
    uint64_t sum = p->number * 31 + p->version;
    int zero = p->number == 0 && p->version == 0 && p->sum == 0;
    for (size_t i = 0; i < sizeof p->fill / 8; i++) {
        sum += p->fill[i];
        zero &= p->fill[i] == 0;
    }
    if (!zero && (sum != p->sum || p->number != number)) {
        printf("FAIL %s: page %lu holds %lu version %lu\n", what, number, p->number, p->version);
        fflush(stdout);
        abort();
    }
}

static void *map(size_t pages, int flags)
{
    void *p = mmap(NULL, pages * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | flags, -1, 0);
    if (p == MAP_FAILED)
        abort();
    return p;
}

// Pages of a private mapping of this very program: the file's content, or the process's own since it was written.
struct filed {
    struct page *pages;
    uint8_t own[FILED];
};

static struct page original[FILED];

static void make_filed(struct filed *filed)
{
    int file = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
    if (pread(file, original, sizeof original, 0) != sizeof original)
        abort();
    filed->pages = mmap(NULL, FILED * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, file, 0);
    memset(filed->own, 0, sizeof filed->own);
    close(file);
}

static void check_filed(const struct filed *filed, uint64_t base)
{
    for (unsigned i = 0; i < FILED; i++)
        if (filed->own[i])
            check(&filed->pages[i], base + i, "private file page");
        else if (memcmp(&filed->pages[i], &original[i], PAGE)) {
            printf("FAIL private file page %u is not the file's\n", i);
            fflush(stdout);
            abort();
        }
}

// Whole page tables: one that is dropped is given back by the kernel, table and all.
static void *map_tables(void)
{
    uintptr_t at = (uintptr_t)map((TABLES + 1) * TABLE / PAGE, MAP_NORESERVE);
    return (void *)((at + TABLE - 1) / TABLE * TABLE);
}

static void *work(void *arg)
{
    long me = (long)arg;
    unsigned seed = (unsigned)me * 7919;
    struct page *area = map(PAGES, 0), *moved = map(MOVED, 0);
    uint64_t base = (uint64_t)(me + 1) << 32;
    int file = memfd_create("mutator", MFD_CLOEXEC);
    if (ftruncate(file, 4 * PAGE))
        abort();
    struct page *shared = mmap(NULL, 4 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    struct filed filed;
    make_filed(&filed);
    uint8_t *tables = map_tables();
    if (me == 1) // Huge pages, where the machine has any to give.
        madvise(tables, TABLES * TABLE, MADV_HUGEPAGE);
    uint8_t full[TABLES] = {0};
    for (uint64_t version = 1;; version++) {
        unsigned n = (unsigned)rand_r(&seed) % PAGES;
        switch (rand_r(&seed) % 12) {
        case 0: // Plain writes.
        case 1:
            for (unsigned i = n; i < PAGES; i++)
                fill(&area[i], base + i, version);
            break;
        case 2: // Dropped: zero from now on.
            madvise(&area[n], (PAGES - n) * PAGE, MADV_DONTNEED);
            break;
        case 3: { // Unmapped and mapped again at the same address.
            // In one step: another thread would take the hole between two.
            void *again = mmap(&area[n], PAGE, PROT_READ | PROT_WRITE,
                               MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
            if (again != &area[n])
                abort();
            fill(&area[n], base + n, version);
            break;
        }
        case 4: { // Moved as a whole. (One that was cut and joined again is EFAULT under tracking.)
            struct page *to = map(MOVED, 0);
            for (unsigned i = 0; i < MOVED; i += 1 + n % 3)
                fill(&moved[i], base + i, version);
            if (mremap(moved, MOVED * PAGE, MOVED * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, to) != to)
                abort();
            moved = to;
            for (unsigned i = 0; i < MOVED; i++)
                check(&moved[i], base + i, "moved");
            break;
        }
        case 5: // Read-only and back.
            mprotect(&area[n], PAGE, PROT_READ);
            check(&area[n], base + n, "read-only");
            mprotect(&area[n], PAGE, PROT_READ | PROT_WRITE);
            fill(&area[n], base + n, version);
            break;
        case 6: // Filled, then out of reach, then back.
            fill(&area[n], base + n, version);
            mprotect(&area[n], PAGE, PROT_NONE);
            usleep(pause_us);
            mprotect(&area[n], PAGE, PROT_READ | PROT_WRITE);
            break;
        case 7: // Written by the kernel.
            fill(&shared[n % 4], base + n % 4, version);
            if (pread(file, &area[n % 4], PAGE, (n % 4) * PAGE) != PAGE)
                abort();
            break;
        case 9: // A private file's page of its own, dropped, and read again at once.
            fill(&filed.pages[n % FILED], base + n % FILED, version);
            filed.own[n % FILED] = 1;
            check_filed(&filed, base);
            break;
        case 10:
            madvise(&filed.pages[n % FILED], PAGE, MADV_DONTNEED);
            filed.own[n % FILED] = 0;
            check_filed(&filed, base);
            break;
        case 11: { // A table filled to its last page, or dropped.
            unsigned t = n % TABLES;
            full[t] ^= rand_r(&seed) % 8 == 0;
            if (full[t])
                for (unsigned i = 0; i < TABLE; i += PAGE)
                    tables[t * TABLE + i] = 1 + i / PAGE % 200;
            else
                madvise(tables + t * TABLE, TABLE, MADV_DONTNEED);
            break;
        }
        case 8: // The heap's end moves.
            if (me == 0) {
                sbrk(4 * PAGE);
                sbrk(-4 * PAGE);
            }
            break;
        }
        for (unsigned i = 0; i < PAGES; i += 1 + n % 5)
            check(&area[i], base + i, "area");
        check_filed(&filed, base);
        // Reading what was dropped brings its table back: seldom, so that stops meet it gone.
        unsigned until = version % 16 ? 0 : TABLES * TABLE;
        for (unsigned i = 0; i < until; i += (1 + n) * PAGE) {
            unsigned is = full[i / TABLE] ? 1 + i % TABLE / PAGE % 200 : 0;
            if (tables[i] != is) {
                printf("FAIL table: %u at %x instead of %u\n", tables[i], i, is);
                fflush(stdout);
                abort();
            }
        }
        rounds[me]++;
        if (pause_us)
            usleep(pause_us);
    }
    return arg;
}

// So many pages of stack, each checked on the way back.
static void deep(unsigned left)
{
    struct page page;
    fill(&page, left, left + 1);
    if (left)
        deep(left - 1);
    check(&page, left, "stack");
}

int main(int argc, char **argv)
{
    pthread_t thread;
    pause_us = argc > 1 ? (unsigned)atoi(argv[1]) : 0;
    for (long i = 0; i < WORKERS; i++)
        pthread_create(&thread, NULL, work, (void *)i);
    printf("ready\n");
    fflush(stdout);
    // Deeper each time, so that the stack grows.
    for (unsigned depth = 1;; depth = depth % DEPTH + 1) {
        deep(depth);
        usleep(100 + pause_us);
    }
}
