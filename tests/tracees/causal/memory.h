// One thread a region, each with its own ways to change what a page holds or where it is.

static void *write_area(void *arg)
{
    struct region *r = arg;
    for (uint64_t version = 1;; version++) {
        uint64_t i = below(r->pages), many = 1 + below(r->pages - i);
        switch (below(8)) {
        case 0: // Dropped.
            begin(r, i, many, 0);
            madvise(page(r, i), many * PAGE, MADV_DONTNEED);
            done(r);
            break;
        case 1: // Free to be taken, then gone for sure.
            begin(r, i, many, 0);
            madvise(page(r, i), many * PAGE, MADV_FREE);
            rest();
            madvise(page(r, i), many * PAGE, MADV_DONTNEED);
            done(r);
            break;
        case 2: // Mapped anew in its place, which is out of reach in between.
            begin(r, i, many, 0);
            must(mmap(page(r, i), many * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == page(r, i), "mmap");
            map_at(page(r, i), many, MAP_PRIVATE | MAP_ANONYMOUS);
            done(r);
            break;
        case 3: // Read-only for a while.
            mprotect(page(r, i), many * PAGE, PROT_READ);
            check(r, i);
            mprotect(page(r, i), many * PAGE, PROT_READ | PROT_WRITE);
            break;
        case 4: // Out of reach for a while, and still there.
            mprotect(page(r, i), many * PAGE, PROT_NONE);
            rest();
            mprotect(page(r, i), many * PAGE, PROT_READ | PROT_WRITE);
            check(r, i);
            break;
        default:
            for (uint64_t n = i; n < i + many; n++)
                write_page(r, n, version);
        }
        check_all(r);
        r->rounds++;
        rest();
    }
    return NULL;
}

// Moved as a whole, longer or shorter than before. EFAULT: over a seam of what is tracked (docs/limits.md), and then
// nothing has happened, since the length was to change.
static void *write_moved(void *arg)
{
    struct region *r = arg;
    uint64_t now = r->pages;
    for (uint64_t version = 1;; version++) {
        uint64_t then = 1 + below(r->pages - 1);
        then += then >= now;
        uint64_t common = now < then ? now : then;
        char *to = mmap(NULL, then * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        must(to != MAP_FAILED, "mmap");
        r->to = (uint64_t)to;
        begin(r, common, now + then - 2 * common, then > now ? 0 : GONE);
        if (mremap((void *)r->at, now * PAGE, then * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, to) == to) {
            r->at = r->to;
            r->to = 0;
            done(r);
            now = then;
        } else {
            must(errno == EFAULT, "mremap");
            r->to = 0;
            r->count = 0;
            munmap(to, then * PAGE);
        }
        check_all(r);
        for (uint64_t i = below(now); i < now; i += 1 + below(4))
            write_page(r, i, version);
        r->rounds++;
        rest();
    }
    return NULL;
}

// The heap's end, which nobody else here moves.
static void *write_heap(void *arg)
{
    struct region *r = arg;
    uint64_t now = 0;
    for (uint64_t version = 1;; version++) {
        uint64_t then = below(r->pages + 1), common = now < then ? now : then;
        begin(r, common, now + then - 2 * common, then > now ? 0 : GONE);
        must(sbrk((long)((then - now) * PAGE)) == (void *)(r->at + now * PAGE), "sbrk");
        done(r);
        now = then;
        check_all(r);
        for (uint64_t i = 0; i < now; i += 1 + below(3))
            write_page(r, i, version);
        r->rounds++;
        rest();
    }
    return NULL;
}

static struct region *heap(void)
{
    struct region *r = region("heap", 32, 0);
    for (uint64_t i = 0; i < r->pages; i++)
        r->version[i] = GONE;
    sbrk(-(uintptr_t)sbrk(0) & (PAGE - 1));
    r->at = (uint64_t)sbrk(0);
    return r;
}

// Pages far from each other in what may be one huge page.
static void *write_huge(void *arg)
{
    struct region *r = arg;
    for (uint64_t version = 1;; version++) {
        if (below(12) == 0) {
            begin(r, 0, r->pages, 0);
            madvise((void *)r->where[0], 2 << 20, MADV_DONTNEED);
            done(r);
        }
        for (uint64_t i = below(r->pages); i < r->pages; i += 1 + below(9))
            write_page(r, i, version);
        check_all(r);
        r->rounds++;
        rest();
    }
    return NULL;
}

static struct region *huge(void)
{
    struct region *r = region("huge", MOST_PAGES, 0);
    uint64_t at = (uint64_t)map_at(NULL, (4 << 20) / PAGE, MAP_PRIVATE | MAP_ANONYMOUS);
    at = (at + (2 << 20) - 1) & -(2ul << 20);
    madvise((void *)at, 2 << 20, MADV_HUGEPAGE);
    for (uint64_t i = 0; i < r->pages; i++)
        r->where[i] = at + i * ((2 << 20) / MOST_PAGES);
    return r;
}

static int memory_file(const char *name, uint64_t pages)
{
    int file = memfd_create(name, MFD_CLOEXEC);
    must(file >= 0 && ftruncate(file, (long)(pages * PAGE)) == 0, "a memory file");
    return file;
}

static int shared_file;

// Through the mapping, through the file, and holes.
static void *write_shared(void *arg)
{
    struct region *r = arg;
    uint64_t content[WORDS];
    for (uint64_t version = 1;; version++) {
        uint64_t i = below(r->pages);
        switch (below(3)) {
        case 0:
            begin(r, i, 1, version);
            fill(content, word_of(r, i, version));
            must(pwrite(shared_file, content, PAGE, (long)(i * PAGE)) == PAGE, "pwrite");
            done(r);
            break;
        case 1:
            begin(r, i, 1, 0);
            must(fallocate(shared_file, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (long)(i * PAGE), PAGE) == 0, "a hole");
            done(r);
            break;
        default:
            write_page(r, i, version);
        }
        check_all(r);
        r->rounds++;
        rest();
    }
    return NULL;
}

static struct region *shared(void)
{
    struct region *r = region("shared", 16, 0);
    shared_file = memory_file("causal", r->pages);
    r->at = (uint64_t)mmap(NULL, r->pages * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, shared_file, 0);
    must(r->at != (uint64_t)MAP_FAILED, "mmap");
    return r;
}

// Pages of a file's private mapping: the file holds version 1, and so do they when they are dropped.
static void *write_filed(void *arg)
{
    struct region *r = arg;
    for (uint64_t version = 2;; version++) {
        uint64_t i = below(r->pages);
        if (below(3) == 0) {
            begin(r, i, 1, 1);
            madvise(page(r, i), PAGE, MADV_DONTNEED);
            done(r);
        } else {
            write_page(r, i, version);
        }
        check_all(r);
        r->rounds++;
        rest();
    }
    return NULL;
}

static struct region *filed(void)
{
    struct region *r = region("filed", 8, 0);
    int file = open("filed", O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    for (uint64_t i = 0; i < r->pages; i++) {
        uint64_t content[WORDS];
        fill(content, word_of(r, i, 1));
        must(write(file, content, PAGE) == PAGE, "write");
        r->version[i] = 1;
    }
    r->at = (uint64_t)mmap(NULL, r->pages * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, file, 0);
    must(r->at != (uint64_t)MAP_FAILED, "mmap");
    close(file);
    return r;
}

// A page in each frame, deeper each time: the stack grows.
static __attribute__((noinline)) void deep(struct region *r, uint64_t left, uint64_t version)
{
    uint64_t content[WORDS] __attribute__((aligned(4096)));
    r->where[left] = (uint64_t)content;
    begin(r, left, 1, version);
    fill(content, word_of(r, left, version));
    done(r);
    if (left)
        deep(r, left - 1, version);
    else
        rest();
    check(r, left);
    r->version[left] = GONE;
}

static void write_stack(struct region *r)
{
    for (uint64_t i = 0; i < r->pages; i++)
        r->version[i] = GONE;
    for (uint64_t version = 1;; version++) {
        deep(r, version % r->pages, version);
        r->rounds++;
        rest();
    }
}

static void start_memory(void)
{
    start(write_area, anonymous("area", MOST_PAGES, 0));
    start(write_moved, anonymous("moved", 24, 0));
    start(write_heap, heap());
    start(write_huge, huge());
    start(write_shared, shared());
    start(write_filed, filed());
}
