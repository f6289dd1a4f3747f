// What the oracle's cases write down. The board is a file that is mapped shared: a rewind takes
// the memory of a process back, never the content of a file, so nothing that was seen is forgotten.
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define ROWS 40
#define BUCKETS 24

// One case. tests/cases/trust/oracle.rs reads it: words of 8 bytes after the name.
struct row {
    char name[32];
    volatile long calls, interrupted, shorts, early, wrong, lost, spanned, last_ns;
    long result, error, us; // Of the last call that was not right.
    volatile long late[BUCKETS]; // Timeouts that came 2^n to 2^(n+1) us late.
};

struct board {
    volatile long rewinds; // The test counts it up before and after each rewind: odd within one.
    volatile long rows;
    struct row row[ROWS];
};

static struct board *board;

struct cases;
struct state {
    const struct cases *of;
    struct row *row;
    pthread_t thread;
    int fd[4];
    int id;
    volatile long sent, got; // Numbers of the items that went through.
    long sent_in, got_in; // The board's rewinds when they did.
    volatile int word, pi; // Futexes.
    volatile long hits; // Signals handled.
    void *own;
};

// An item on its way from the feeder to a case, or back.
struct item {
    long number, rewinds;
};

struct cases {
    const char *group, *name;
    void (*setup)(struct state *);
    long (*call)(struct state *); // Blocks.
    void (*feed)(struct state *); // Lets it go on; never blocks. NULL: a timeout does.
    long want; // Its result; of calls that fail the negative errno.
    long timeout_us;
};

static long now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000L + t.tv_nsec;
}

static struct timespec span(long us)
{
    return (struct timespec){us / 1000000, us % 1000000 * 1000};
}

static struct timespec at(clockid_t clock, long us)
{
    struct timespec t;
    clock_gettime(clock, &t);
    long ns = t.tv_nsec + us * 1000;
    return (struct timespec){t.tv_sec + ns / 1000000000, ns % 1000000000};
}

static void must(int fine, const char *what)
{
    if (fine)
        return;
    printf("FAIL %s: %s\n", what, strerror(errno));
    exit(1);
}

static void note(struct row *row, long result, long us)
{
    row->result = result;
    row->error = errno;
    row->us = us;
}

static void make_board(const char *path)
{
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    must(fd >= 0 && ftruncate(fd, sizeof *board) == 0, "the board");
    board = mmap(NULL, sizeof *board, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    must(board != MAP_FAILED, "mmap");
    close(fd);
}

static struct item next_item(struct state *s)
{
    return (struct item){s->sent + 1, board->rewinds};
}

static void item_sent(struct state *s)
{
    s->sent++;
}

// Numbers come one after the other. What went through an object that a rewind leaves as it is may
// be older or newer than both ends after one, so the first item of each time only starts the count.
static void item_came(struct state *s, struct item item)
{
    if (item.number == 0)
        return; // Only there to fill.
    if (item.rewinds == s->got_in && item.rewinds == board->rewinds && item.rewinds % 2 == 0
        && item.number != s->got + 1) {
        s->row->wrong++;
        note(s->row, item.number, s->got);
    }
    s->got = item.number;
    s->got_in = item.rewinds;
}
