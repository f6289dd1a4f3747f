// Pages that the kernel fills: registered buffers of io_uring, AIO.
#include <linux/aio_abi.h>
#include <linux/io_uring.h>

struct filled {
    struct region *region;
    int file, ring;
    struct io_uring_params p;
    unsigned *sq_tail, *sq_array, *cq_head, *cq_tail;
    struct io_uring_sqe *sqes;
    aio_context_t context;
};

// The page's next content, in the file from which the kernel reads it.
static void prepare(struct filled *f, uint64_t i, uint64_t version)
{
    static __thread uint64_t content[WORDS] __attribute__((aligned(4096)));
    fill(content, word_of(f->region, i, version));
    must(pwrite(f->file, content, PAGE, (long)(i * PAGE)) == PAGE, "pwrite");
}

static int made_ring(struct filled *f)
{
    f->ring = (int)syscall(SYS_io_uring_setup, 4, &f->p);
    if (f->ring < 0)
        return 0;
    int how = PROT_READ | PROT_WRITE;
    char *sq = mmap(NULL, f->p.sq_off.array + 64, how, MAP_SHARED, f->ring, IORING_OFF_SQ_RING);
    char *cq = mmap(NULL, f->p.cq_off.cqes + 256, how, MAP_SHARED, f->ring, IORING_OFF_CQ_RING);
    f->sqes = mmap(NULL, 4 * sizeof *f->sqes, how, MAP_SHARED, f->ring, IORING_OFF_SQES);
    must(sq != MAP_FAILED && cq != MAP_FAILED && f->sqes != MAP_FAILED, "mmap of a ring");
    f->sq_tail = (unsigned *)(sq + f->p.sq_off.tail);
    f->sq_array = (unsigned *)(sq + f->p.sq_off.array);
    f->cq_head = (unsigned *)(cq + f->p.cq_off.head);
    f->cq_tail = (unsigned *)(cq + f->p.cq_off.tail);
    struct iovec buffer = {(void *)f->region->at, f->region->pages * PAGE};
    return syscall(SYS_io_uring_register, f->ring, IORING_REGISTER_BUFFERS, &buffer, 1) == 0;
}

// Every other time by a worker thread of the kernel's.
static void *read_fixed(void *arg)
{
    struct filled *f = arg;
    struct region *r = f->region;
    for (uint64_t version = 1;; version++) {
        uint64_t i = below(r->pages);
        prepare(f, i, version);
        unsigned tail = *f->sq_tail;
        f->sqes[tail % 4] = (struct io_uring_sqe){
            .opcode = IORING_OP_READ_FIXED, .fd = f->file, .off = i * PAGE, .addr = (uint64_t)page(r, i), .len = PAGE,
            .flags = version % 2 ? IOSQE_ASYNC : 0};
        f->sq_array[tail % 4] = tail % 4;
        begin(r, i, 1, version);
        __atomic_store_n(f->sq_tail, tail + 1, __ATOMIC_RELEASE);
        must(syscall(SYS_io_uring_enter, f->ring, 1, 0, 0, NULL, 0) == 1, "submit");
        while (__atomic_load_n(f->cq_tail, __ATOMIC_ACQUIRE) == *f->cq_head)
            syscall(SYS_io_uring_enter, f->ring, 0, 1, IORING_ENTER_GETEVENTS, NULL, 0);
        __atomic_store_n(f->cq_head, *f->cq_head + 1, __ATOMIC_RELEASE);
        done(r);
        check_all(r);
        r->rounds++;
        rest();
    }
    return NULL;
}

static void *read_by_aio(void *arg)
{
    struct filled *f = arg;
    struct region *r = f->region;
    for (uint64_t version = 1;; version++) {
        uint64_t i = below(r->pages);
        prepare(f, i, version);
        struct iocb read = {.aio_lio_opcode = IOCB_CMD_PREAD, .aio_fildes = (unsigned)f->file, .aio_buf = (uint64_t)page(r, i),
                            .aio_nbytes = PAGE, .aio_offset = (long)(i * PAGE)};
        struct iocb *list[] = {&read};
        struct io_event event;
        begin(r, i, 1, version);
        must(syscall(SYS_io_submit, f->context, 1, list) == 1, "io_submit");
        while (syscall(SYS_io_getevents, f->context, 1, 1, &event, NULL) != 1)
            must(errno == EINTR, "io_getevents");
        must(event.res == (long)PAGE, "AIO");
        done(r);
        check_all(r);
        r->rounds++;
        rest();
    }
    return NULL;
}

static struct filled *filled(const char *name, int flags)
{
    struct filled *f = calloc(1, sizeof *f);
    f->region = anonymous(name, 8, LOOSE);
    f->file = open(name, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC | flags, 0600);
    must(f->file >= 0, name);
    return f;
}

static void start_ring_of_kernel(void)
{
    struct filled *f = filled("uring", 0);
    if (made_ring(f))
        start(read_fixed, f);
    else
        printf("skipped uring: %s\n", strerror(errno));
}

static void start_aio(const char *name, int flags)
{
    struct filled *f = filled(name, flags);
    if (syscall(SYS_io_setup, 4, &f->context) == 0)
        start(read_by_aio, f);
    else
        printf("skipped %s: %s\n", name, strerror(errno));
}
