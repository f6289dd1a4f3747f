// AIO and io_uring, by their calls alone.
#include <linux/aio_abi.h>
#include <linux/io_uring.h>

#ifndef SYS_io_pgetevents
#define SYS_io_pgetevents 333
#endif

static void make_aio(struct state *s)
{
    aio_context_t *context = calloc(1, sizeof *context);
    make_pipe(s);
    must(syscall(SYS_io_setup, 4, context) == 0, "io_setup");
    s->own = context;
}

static aio_context_t context(struct state *s)
{
    return *(aio_context_t *)s->own;
}

static long aio_timed(struct state *s)
{
    struct io_event event;
    struct timespec limit = span(s->of->timeout_us);
    return syscall(SYS_io_getevents, context(s), 1, 1, &event, &limit);
}

static long aio_pgetevents_timed(struct state *s)
{
    struct io_event event;
    struct timespec limit = span(s->of->timeout_us);
    return syscall(SYS_io_pgetevents, context(s), 1, 1, &event, &limit, NULL);
}

// Waits for the pipe through AIO, whose wait is the only thing that blocks.
static void aio_submit(struct state *s)
{
    struct iocb poll = {.aio_lio_opcode = IOCB_CMD_POLL, .aio_fildes = s->fd[0], .aio_buf = POLLIN};
    struct iocb *list[] = {&poll};
    must(syscall(SYS_io_submit, context(s), 1, list) == 1, "io_submit");
}

static long aio_wait(struct state *s)
{
    struct io_event event;
    aio_submit(s);
    return then_read(s, syscall(SYS_io_getevents, context(s), 1, 1, &event, NULL));
}

static long aio_pwait(struct state *s)
{
    struct io_event event;
    aio_submit(s);
    return then_read(s, syscall(SYS_io_pgetevents, context(s), 1, 1, &event, NULL, NULL));
}

struct ring {
    struct io_uring_params p;
    unsigned *sq_tail, *sq_array, *cq_head, *cq_tail;
    struct io_uring_sqe *sqes;
};

static void make_ring(struct state *s)
{
    struct ring *r = calloc(1, sizeof *r);
    make_pipe(s);
    s->fd[2] = syscall(SYS_io_uring_setup, 4, &r->p);
    must(s->fd[2] >= 0, "io_uring_setup");
    int how = PROT_READ | PROT_WRITE;
    char *sq = mmap(NULL, r->p.sq_off.array + 64, how, MAP_SHARED, s->fd[2], IORING_OFF_SQ_RING);
    char *cq = mmap(NULL, r->p.cq_off.cqes + 256, how, MAP_SHARED, s->fd[2], IORING_OFF_CQ_RING);
    r->sqes = mmap(NULL, 4 * sizeof *r->sqes, how, MAP_SHARED, s->fd[2], IORING_OFF_SQES);
    must(sq != MAP_FAILED && cq != MAP_FAILED && r->sqes != MAP_FAILED, "mmap of a ring");
    r->sq_tail = (unsigned *)(sq + r->p.sq_off.tail);
    r->sq_array = (unsigned *)(sq + r->p.sq_off.array);
    r->cq_head = (unsigned *)(cq + r->p.cq_off.head);
    r->cq_tail = (unsigned *)(cq + r->p.cq_off.tail);
    s->own = r;
}

static long ring_enter(struct state *s, int submit, int flags, const void *arg, size_t size)
{
    return syscall(SYS_io_uring_enter, s->fd[2], submit, 1, IORING_ENTER_GETEVENTS | flags, arg, size);
}

static long ring_timed(struct state *s)
{
    struct timespec limit = span(s->of->timeout_us);
    struct io_uring_getevents_arg arg = {.ts = (unsigned long)&limit};
    return ring_enter(s, 0, IORING_ENTER_EXT_ARG, &arg, sizeof arg);
}

static void queue_poll(struct state *s)
{
    struct ring *r = s->own;
    unsigned tail = *r->sq_tail;
    r->sqes[tail % 4] = (struct io_uring_sqe){.opcode = IORING_OP_POLL_ADD, .fd = s->fd[0], .poll32_events = POLLIN};
    r->sq_array[tail % 4] = tail % 4;
    __atomic_store_n(r->sq_tail, tail + 1, __ATOMIC_RELEASE);
}

static long ring_done(struct state *s, long result)
{
    struct ring *r = s->own;
    if (result < 0)
        return result;
    if (__atomic_load_n(r->cq_tail, __ATOMIC_ACQUIRE) == *r->cq_head)
        return -2000; // It came back without a completion.
    __atomic_store_n(r->cq_head, *r->cq_head + 1, __ATOMIC_RELEASE);
    return pipe_read(s);
}

static long ring_wait(struct state *s)
{
    queue_poll(s);
    must(syscall(SYS_io_uring_enter, s->fd[2], 1, 0, 0, NULL, 0) == 1, "submit");
    return ring_done(s, ring_enter(s, 0, 0, NULL, 0));
}

// Submits and waits in one: what was submitted is the result of a stop (docs/limits.md).
static long ring_submit_and_wait(struct state *s)
{
    queue_poll(s);
    long result = ring_enter(s, 1, 0, NULL, 0);
    struct ring *r = s->own;
    if (result == 1 && __atomic_load_n(r->cq_tail, __ATOMIC_ACQUIRE) == *r->cq_head) {
        s->row->shorts++;
        result = ring_enter(s, 0, 0, NULL, 0);
    }
    return ring_done(s, result);
}

// Nothing was submitted: these end by a signal alone.
static long aio_wait_again(struct state *s)
{
    struct io_event event;
    return syscall(SYS_io_getevents, context(s), 1, 1, &event, NULL);
}

static long ring_wait_again(struct state *s)
{
    return ring_enter(s, 0, 0, NULL, 0);
}
