// Processes that share the memory: one that stays and makes others that do not, one that a thread makes anew
// each time, children of vfork; and one that does not share it, but writes to it.
#include <sys/prctl.h>
#include <sys/uio.h>

#define SHARES (CLONE_VM | CLONE_FILES | CLONE_FS)
#define STACK (32 << 10)

static long born(int (*run)(void *), void *stack, int flags, void *arg)
{
    long pid = clone(run, (char *)stack + STACK, flags, arg);
    must(pid > 0, "clone");
    return pid;
}

static void ended(long pid)
{
    while (waitpid((int)pid, NULL, __WALL) < 0)
        must(errno == EINTR, "waitpid");
}

// Writes all pages a few times. No thread-local state: it is the maker's.
static int write_rounds(void *arg)
{
    struct region *r = arg;
    for (uint64_t n = 0; n < 20; n++) {
        for (uint64_t i = 0; i < r->pages; i++)
            write_page(r, i, r->rounds + 1);
        r->rounds++;
        syscall(SYS_sched_yield);
    }
    _exit(0);
}

static struct region *of_grandchild;

static int stay(void *arg)
{
    static char stack[STACK] __attribute__((aligned(64)));
    struct region *r = arg;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    for (uint64_t version = 1;; version++) {
        for (uint64_t i = 0; i < r->pages; i++)
            write_page(r, i, version);
        if (common) {
            follow(3);
            follow(6);
        }
        check_all(r);
        r->rounds++;
        if (version % 16 == 0)
            ended(born(write_rounds, stack, SHARES | (version % 32 ? SIGCHLD : 0), of_grandchild));
        struct timespec little = {0, 200000};
        syscall(SYS_nanosleep, &little, NULL);
    }
    return 0;
}

static void *wait_for_staying(void *arg)
{
    static char stack[STACK] __attribute__((aligned(64)));
    long pid = born(stay, stack, SHARES | SIGCHLD, arg);
    ended(pid);
    must(0, "the child ended");
    return NULL;
}

static void *make_again(void *arg)
{
    static char stack[STACK] __attribute__((aligned(64)));
    for (;;) {
        ended(born(write_rounds, stack, SHARES | SIGCHLD, arg));
        check_all(arg);
        rest();
    }
    return NULL;
}

static void start_sharing(void)
{
    of_grandchild = anonymous("grandchild", 8, 0);
    start(wait_for_staying, anonymous("sharing", 8, 0));
    start(make_again, anonymous("again", 8, 0));
}

static int write_once(void *arg)
{
    struct region *r = arg;
    for (uint64_t i = 0; i < r->pages; i++)
        write_page(r, i, r->rounds + 1);
    r->rounds++;
    if (r->rounds % 16 == 0)
        execl("/bin/true", "true", NULL);
    _exit(0);
}

static void *make_by_vfork(void *arg)
{
    static char stack[STACK] __attribute__((aligned(64)));
    for (;;) {
        ended(born(write_once, stack, CLONE_VM | CLONE_VFORK | SIGCHLD, arg));
        check_all(arg);
        rest();
    }
    return NULL;
}

// What the forked child is asked to do.
struct order {
    uint64_t region, page, version, number;
};

static int orders[2];
static word *told; // The last number the child was told, in memory that both have.

static void obey(void)
{
    struct order order;
    while (read(orders[1], &order, sizeof order) == sizeof order) {
        *told = order.number;
        struct region *r = &directory.region[order.region];
        uint64_t content[WORDS];
        fill(content, word_of(r, order.page, order.version));
        struct iovec from = {content, PAGE}, to = {page(r, order.page), PAGE};
        if (process_vm_writev(getppid(), &from, 1, &to, 1, 0) != PAGE)
            _exit(1);
        if (write(orders[1], &order, sizeof order) != sizeof order)
            _exit(1);
    }
    _exit(0);
}

static void *give_orders(void *arg)
{
    struct region *r = arg;
    struct stream *s = stream("told");
    for (uint64_t version = 1;; version++) {
        struct order order = {owner(r) - 1, below(r->pages), version, s->sent + 1};
        begin(r, order.page, 1, version);
        s->sending = order.number;
        must(write(orders[0], &order, sizeof order) == sizeof order, "write");
        s->sent = order.number;
        must(read(orders[0], &order, sizeof order) == sizeof order, "read");
        s->got = *told;
        done(r);
        check_all(r);
        r->rounds++;
        rest();
    }
    return NULL;
}

// Before there are threads: it is to have one only.
static void make_forked(void)
{
    told = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    must(told != MAP_FAILED && socketpair(AF_UNIX, SOCK_SEQPACKET, 0, orders) == 0, "socketpair");
    directory.told = (uint64_t)told;
    pid_t pid = fork();
    must(pid >= 0, "fork");
    if (pid == 0) {
        close(orders[0]);
        obey();
    }
    close(orders[1]);
}
