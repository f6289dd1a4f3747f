// Who may never be ahead of whom: counters that follow each other, and numbers that are sent and received.
#include <linux/futex.h>
#include <limits.h>
#include <sys/socket.h>

struct counter {
    word value;
    char rest[PAGE - 8];
};

// Each on a page of its own, every other one in shared memory.
static struct counter own[LINKS] __attribute__((aligned(4096)));
static struct counter *common;

static struct counter *counter(long k)
{
    return k % 2 ? &common[k] : &own[k];
}

static void wake(word *at)
{
    syscall(SYS_futex, at, FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
}

// Takes over the value of the one before.
static void follow(long k)
{
    word *before = &counter(k - 1)->value, *mine = &counter(k)->value;
    uint64_t value = *before;
    must(value >= *mine, "a counter is ahead of its cause");
    if (value == *mine)
        return;
    *mine = value;
    wake(mine);
}

static void *follow_for_ever(void *arg)
{
    word *before = &counter((long)arg - 1)->value;
    struct timespec limit = {0, 3000000};
    for (;;) {
        follow((long)arg);
        syscall(SYS_futex, before, FUTEX_WAIT, (uint32_t)counter((long)arg)->value, &limit, NULL, 0);
    }
    return NULL;
}

static void *lead(void *arg)
{
    word *first = arg;
    for (;;) {
        (*first)++;
        wake(first);
        rest();
    }
    return NULL;
}

// Links 3 and 6 are left to the child that shares the memory, where there is one.
static void start_links(int child)
{
    common = mmap(NULL, sizeof own, PROT_READ | PROT_WRITE, MAP_SHARED, memory_file("links", LINKS), 0);
    must(common != MAP_FAILED, "mmap");
    for (long k = 0; k < LINKS; k++)
        directory.link[k] = (uint64_t)&counter(k)->value;
    start(lead, (void *)&own[0].value);
    for (long k = 1; k < LINKS; k++)
        if (!child || (k != 3 && k != 6))
            start(follow_for_ever, (void *)k);
}

struct ends {
    struct stream *stream;
    int fd[2]; // To read from, to write to.
};

static void *send_numbers(void *arg)
{
    struct ends *e = arg;
    for (;;) {
        uint64_t number = e->stream->sending = e->stream->sent + 1;
        must(write(e->fd[1], &number, 8) == 8, "write");
        e->stream->sent = number;
        if (number % 8 == 0)
            rest();
    }
    return NULL;
}

static void *receive_numbers(void *arg)
{
    struct ends *e = arg;
    for (;;) {
        uint64_t number;
        must(read(e->fd[0], &number, 8) == 8, "read");
        must(number == e->stream->got + 1, "a number was lost or came twice");
        e->stream->got = number;
        if (number % 5 == 0)
            rest();
    }
    return NULL;
}

// A ring in shared memory, by its two counters.
#define SLOTS 64
static struct slots {
    word head, tail;
    word slot[SLOTS];
} *slots;

static void *send_by_ring(void *arg)
{
    struct stream *s = arg;
    for (;;) {
        while (slots->head - slots->tail == SLOTS)
            rest();
        uint64_t number = s->sending = s->sent + 1;
        slots->slot[slots->head % SLOTS] = number;
        slots->head++;
        s->sent = number;
        if (number % 8 == 0)
            rest();
    }
    return NULL;
}

static void *receive_by_ring(void *arg)
{
    struct stream *s = arg;
    for (;;) {
        while (slots->head == slots->tail)
            rest();
        uint64_t number = slots->slot[slots->tail % SLOTS];
        must(number == s->got + 1, "a number was lost or came twice in the ring");
        slots->tail++;
        s->got = number;
    }
    return NULL;
}

static struct stream *stream(const char *name)
{
    static unsigned used;
    must(used < STREAMS, "a stream");
    return strcpy(directory.stream[used].name, name), &directory.stream[used++];
}

static void start_pipe(void)
{
    static struct ends ends;
    must(pipe2(ends.fd, O_CLOEXEC) == 0, "pipe");
    fcntl(ends.fd[1], F_SETPIPE_SZ, PAGE);
    ends.stream = stream("pipe");
    ends.stream->fd = (uint64_t)ends.fd[0];
    start(send_numbers, &ends);
    start(receive_numbers, &ends);
}

static void start_ring(void)
{
    slots = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, memory_file("ring", 1), 0);
    struct stream *s = stream("ring");
    start(send_by_ring, s);
    start(receive_by_ring, s);
}

static void start_socket(void)
{
    static struct ends ends;
    must(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends.fd) == 0, "socketpair");
    ends.stream = stream("socket");
    start(send_numbers, &ends);
    start(receive_numbers, &ends);
}
