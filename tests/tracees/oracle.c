// Makes every call that can block, over and over, and judges each return: its result, what came
// through, and when. One thread a case; another lets the calls go on. What it saw is on a board.
// usage: oracle GROUP BOARD
#define _GNU_SOURCE
#include <pthread.h>
#include "oracle/board.h"
#include "oracle/files.h"
#include "oracle/waits.h"
#include "oracle/locks.h"
#include "oracle/ipc.h"
#include "oracle/sockets.h"
#include "oracle/rings.h"
#include "oracle/children.h"
#include "oracle/table.h"

// Calls that may give less than asked for, by name in docs/limits.md.
static const char *const may_be_short[] = {"pipe_write_large", "send_large", "recvmmsg_two", "sendfile", NULL};

static __thread struct state *mine;

static void handled(int signal)
{
    (void)signal;
    if (mine)
        mine->hits++;
}

static int short_allowed(const char *name)
{
    for (const char *const *n = may_be_short; *n; n++)
        if (!strcmp(*n, name))
            return 1;
    return 0;
}

// Their objects do not go back with the process (docs/limits.md): a call that a rewind put back
// must end, whatever it gives then.
static int outside(const char *group)
{
    return !strcmp(group, "sockets") || !strcmp(group, "limits") || !strcmp(group, "ipc") || !strcmp(group, "children");
}

static void judge(struct state *s, long result, int error, long us, long hits, int spanned)
{
    const struct cases *c = s->of;
    struct row *row = s->row;
    errno = error;
    if (spanned && outside(c->group) && (result >= 0 || (error != EINTR && error < 512)))
        return;
    int fine = result == c->want || (result == -1 && error == -c->want);
    // Of signals that came while the call was made one was enough.
    if (fine && c->want == -EINTR && hits > 1 && !spanned)
        row->lost += hits - 1;
    if (!fine) {
        if (result == -1 && error == EINTR)
            row->interrupted++;
        else if (result > 0 && result < c->want && short_allowed(c->name))
            row->shorts++;
        else
            row->wrong++;
        note(row, result, us);
    }
    if (!c->timeout_us)
        return;
    long late = us - c->timeout_us;
    // Sockets and terminals wait for so many ticks, and a tick may come late: seen uncaptured too.
    long tick = !strcmp(c->group, "limits") || c->call == pty_read ? 4000 : 0;
    if (late < 0 && late >= -tick)
        late = 0;
    if (late < 0) {
        row->early++;
        note(row, result, us);
        return;
    }
    int bucket = 0;
    while (bucket < BUCKETS - 1 && late >> (bucket + 1))
        bucket++;
    row->late[bucket]++;
}

static void *run(void *arg)
{
    struct state *s = mine = arg;
    for (;;) {
        long was = board->rewinds, hits = s->hits, before = now_ns();
        errno = 0;
        long result = s->of->call(s);
        int error = errno;
        long us = (now_ns() - before) / 1000;
        s->row->calls++;
        s->row->last_ns = now_ns();
        // Its beginning was taken back with it: the clock tells nothing about such a call.
        int spanned = was != board->rewinds;
        if (spanned) {
            s->row->spanned++;
            us = s->of->timeout_us;
        }
        judge(s, result, error, us, s->hits - hits, spanned);
    }
    return NULL;
}

static void start(struct state *s, const struct cases *c, struct row *row)
{
    *s = (struct state){.of = c, .row = row};
    strcpy(row->name, c->name);
    if (c->setup)
        c->setup(s);
    pthread_attr_t small; // Less to be compared where a kernel does not track writes.
    pthread_attr_init(&small);
    pthread_attr_setstacksize(&small, 128 << 10);
    must(pthread_create(&s->thread, &small, run, s) == 0, "a thread");
}

static void prepare_signals(void)
{
    struct sigaction with = {.sa_handler = handled, .sa_flags = SA_RESTART}, without = {.sa_handler = handled};
    sigaction(SIGUSR1, &with, NULL);
    sigaction(SIGUSR2, &without, NULL);
    signal(SIGPIPE, SIG_IGN);
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGRTMIN + 1);
    sigprocmask(SIG_BLOCK, &set, NULL);
}

int main(int argc, char **argv)
{
    static struct state states[ROWS];
    must(argc == 3, "usage: oracle GROUP BOARD");
    prepare_signals();
    make_board(argv[2]);
    int n = 0;
    for (const struct cases *c = table; c->name; c++)
        if (!strcmp(c->group, argv[1]))
            start(&states[n], c, &board->row[n]), n++;
    must(n > 0, argv[1]);
    board->rows = n;
    printf("ready\n");
    fflush(stdout);
    unsigned dice = 1;
    for (;;) {
        usleep(500 + rand_r(&dice) % 2000);
        struct state *s = &states[rand_r(&dice) % n];
        if (s->of->feed)
            s->of->feed(s);
    }
}
