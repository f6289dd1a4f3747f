// A userfaultfd of the program's own: one region whose missing pages a thread brings, one that it protects.
#include <linux/userfaultfd.h>
#include <sys/ioctl.h>

struct faults {
    int fd;
    struct region *missing, *guarded;
    word version; // Of the page that is brought next.
    word faults;
};

static void *serve(void *arg)
{
    static uint64_t content[WORDS] __attribute__((aligned(4096)));
    struct faults *f = arg;
    for (;;) {
        struct uffd_msg msg;
        must(read(f->fd, &msg, sizeof msg) == sizeof msg && msg.event == UFFD_EVENT_PAGEFAULT, "a fault");
        uint64_t at = msg.arg.pagefault.address & -PAGE;
        f->faults++;
        if (msg.arg.pagefault.flags & UFFD_PAGEFAULT_FLAG_WP) {
            struct uffdio_writeprotect open = {.range = {at, PAGE}};
            must(ioctl(f->fd, UFFDIO_WRITEPROTECT, &open) == 0, "open a page");
            continue;
        }
        uint64_t i = (at - f->missing->at) / PAGE;
        fill(content, word_of(f->missing, i, f->version));
        struct uffdio_copy copy = {.dst = at, .src = (uint64_t)content, .len = PAGE};
        must(ioctl(f->fd, UFFDIO_COPY, &copy) == 0 || errno == EEXIST, "bring a page");
    }
    return NULL;
}

// Drops a page, then looks at it, which brings the next version of it.
static void *miss(void *arg)
{
    struct faults *f = arg;
    struct region *r = f->missing;
    for (uint64_t version = 1;; version++) {
        uint64_t i = below(r->pages);
        begin(r, i, 1, 0);
        madvise(page(r, i), PAGE, MADV_DONTNEED);
        done(r);
        rest();
        f->version = version;
        begin(r, i, 1, version);
        must(*(word *)page(r, i) == word_of(r, i, version), "a page that was brought");
        done(r);
        check(r, i);
        if (below(2))
            write_page(r, i, ++version);
        r->rounds++;
        rest();
    }
    return NULL;
}

static void *guard(void *arg)
{
    struct faults *f = arg;
    struct region *r = f->guarded;
    for (uint64_t version = 1;; version++) {
        uint64_t i = below(r->pages);
        struct uffdio_writeprotect shut = {.range = {(uint64_t)page(r, i), PAGE}, .mode = UFFDIO_WRITEPROTECT_MODE_WP};
        must(ioctl(f->fd, UFFDIO_WRITEPROTECT, &shut) == 0, "protect a page");
        write_page(r, i, version);
        check_all(r);
        r->rounds++;
        rest();
    }
    return NULL;
}

static void enlist(int fd, struct region *r, uint64_t mode)
{
    struct uffdio_register it = {.range = {r->at, r->pages * PAGE}, .mode = mode};
    must(ioctl(fd, UFFDIO_REGISTER, &it) == 0, "register");
}

static void start_faults(void)
{
    static struct faults f;
    f.fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC);
    if (f.fd < 0 && errno == EPERM) // All that a plain user may have.
        f.fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | UFFD_USER_MODE_ONLY);
    struct uffdio_api api = {.api = UFFD_API};
    if (f.fd < 0 || ioctl(f.fd, UFFDIO_API, &api) < 0) {
        printf("skipped faults: %s\n", strerror(errno));
        return;
    }
    f.missing = anonymous("missing", 16, LOOSE);
    f.guarded = anonymous("guarded", 16, 0);
    for (uint64_t i = 0; i < f.guarded->pages; i++)
        write_page(f.guarded, i, 0);
    enlist(f.fd, f.missing, UFFDIO_REGISTER_MODE_MISSING);
    enlist(f.fd, f.guarded, UFFDIO_REGISTER_MODE_WP);
    start(serve, &f);
    start(miss, &f);
    start(guard, &f);
}
