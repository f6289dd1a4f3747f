// Regions of pages, each of whose content is known: who owns it and which version it holds. The directory says where
// they are, what every page holds, and what is being changed: tests/src/causal.rs reads it in each checkpoint.
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define PAGE 4096ul
#define WORDS (PAGE / 8)
#define MOST_PAGES 64
#define REGIONS 24
#define LINKS 8
#define STREAMS 4
#define GONE (~0ul) // In place of a version: not mapped.

#define LOOSE 1 // The kernel or another process writes it, in any order, also while this one stands still.

typedef volatile uint64_t word;

struct region {
    char name[16];
    word flags, pages;
    word at, to; // Of its first page; while it moves, where to. 0: each page's own place.
    word first, count, next; // So many pages are about to hold `next`; 0: none is.
    word rounds;
    word version[MOST_PAGES];
    word where[MOST_PAGES];
};

// Numbers on their way from one end to the other.
struct stream {
    char name[16];
    word fd; // To read from, of a pipe all of whose bytes are in the checkpoint; else 0.
    word sending, sent, getting, got;
};

struct directory {
    char magic[16];
    struct region region[REGIONS];
    word link[LINKS]; // Addresses of counters; none is ever beyond the one before it.
    struct stream stream[STREAMS];
    word told; // Address of the last number that another process has taken from the stream "told".
};

static struct directory directory __attribute__((aligned(4096))) = {.magic = "causal 1"};

static void must(int fine, const char *what)
{
    if (fine)
        return;
    printf("FAIL %s: %s\n", what, strerror(errno));
    fflush(stdout);
    abort();
}

static struct region *region(const char *name, uint64_t pages, uint64_t flags)
{
    static unsigned used;
    must(used < REGIONS, "a region");
    struct region *r = &directory.region[used++];
    r->flags = flags;
    r->pages = pages;
    strcpy(r->name, name);
    return r;
}

static uint64_t owner(const struct region *r)
{
    return (uint64_t)(r - directory.region) + 1;
}

static uint64_t *page(const struct region *r, uint64_t i)
{
    return (uint64_t *)(r->at ? r->at + i * PAGE : r->where[i]);
}

// What each word of a page holds, the last one apart: a sum that no other version has. Version 0 is zero.
static uint64_t word_of(const struct region *r, uint64_t i, uint64_t version)
{
    return version ? version << 16 | owner(r) << 8 | i : 0;
}

static uint64_t sum_of(uint64_t content)
{
    return content * 0x9e3779b97f4a7c15u;
}

static void fill(uint64_t *to, uint64_t content)
{
    volatile uint64_t *at = to;
    for (unsigned k = 0; k < WORDS - 1; k++)
        at[k] = content;
    at[WORDS - 1] = sum_of(content);
}

// x86 lets nobody see two stores in another order; the compiler must not either.
static void begin(struct region *r, uint64_t first, uint64_t count, uint64_t next)
{
    r->first = first;
    r->next = next;
    r->count = count;
}

static void done(struct region *r)
{
    for (uint64_t i = 0; i < r->count; i++)
        r->version[r->first + i] = r->next;
    r->count = 0;
}

static void write_page(struct region *r, uint64_t i, uint64_t version)
{
    begin(r, i, 1, version);
    fill(page(r, i), word_of(r, i, version));
    done(r);
}

// The owner's own look: nothing but itself, and a rewind, may have changed its pages.
static void check(const struct region *r, uint64_t i)
{
    if (r->version[i] == GONE)
        return;
    uint64_t content = word_of(r, i, r->version[i]);
    const volatile uint64_t *at = page(r, i);
    for (unsigned k = 0; k < WORDS; k++) {
        uint64_t want = k < WORDS - 1 ? content : sum_of(content);
        if (at[k] == want)
            continue;
        printf("FAIL %s: page %lu has %lx at %u instead of %lx (version %lu)\n", r->name, i, at[k], k, want, r->version[i]);
        fflush(stdout);
        abort();
    }
}

static void check_all(const struct region *r)
{
    for (uint64_t i = 0; i < r->pages; i++)
        check(r, i);
}

static void *map_at(void *at, uint64_t pages, int flags)
{
    void *p = mmap(at, pages * PAGE, PROT_READ | PROT_WRITE, flags | (at ? MAP_FIXED : 0), -1, 0);
    must(p != MAP_FAILED, "mmap");
    return p;
}

static struct region *anonymous(const char *name, uint64_t pages, uint64_t flags)
{
    struct region *r = region(name, pages, flags);
    r->at = (uint64_t)map_at(NULL, pages, MAP_PRIVATE | MAP_ANONYMOUS);
    return r;
}

static void start(void *(*run)(void *), void *arg)
{
    pthread_t thread;
    pthread_attr_t small;
    pthread_attr_init(&small);
    pthread_attr_setstacksize(&small, 64 << 10);
    must(pthread_create(&thread, &small, run, arg) == 0, "a thread");
}

static __thread unsigned dice;

static unsigned below(unsigned n)
{
    if (!dice)
        dice = (unsigned)syscall(SYS_gettid) * 7919 + 1;
    return (unsigned)rand_r(&dice) % n;
}

static void rest(void)
{
    usleep(200 + below(800));
}
