// Reads, writes and opens of what is a file but no socket.
#include <poll.h>
#include <pty.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/inotify.h>
#include <sys/sendfile.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/timerfd.h>
#include <sys/uio.h>

static void make_pipe(struct state *s)
{
    must(pipe2(s->fd, O_CLOEXEC) == 0, "pipe");
}

static int readable(int fd)
{
    struct pollfd p = {fd, POLLIN, 0};
    return poll(&p, 1, 0) == 1;
}

// Puts one item in, where the case has taken the last one.
static void feed_pipe(struct state *s)
{
    struct item item = next_item(s);
    if (!readable(s->fd[0]) && write(s->fd[1], &item, sizeof item) == sizeof item)
        item_sent(s);
}

static long got(struct state *s, long result, const struct item *item)
{
    if (result == sizeof *item)
        item_came(s, *item);
    return result;
}

static long pipe_read(struct state *s)
{
    struct item item;
    return got(s, read(s->fd[0], &item, sizeof item), &item);
}

static long pipe_readv(struct state *s)
{
    struct item item;
    struct iovec parts[2] = {{&item.number, 8}, {&item.rewinds, 8}};
    return got(s, readv(s->fd[0], parts, 2), &item);
}

// Two pages, full but for one: each drain lets a page of items through.
static void make_full_pipe(struct state *s)
{
    make_pipe(s);
    fcntl(s->fd[1], F_SETPIPE_SZ, 8192);
}

static void drain_pipe(struct state *s)
{
    struct item items[256];
    if (!readable(s->fd[0]))
        return;
    long n = read(s->fd[0], items, sizeof items) / (long)sizeof *items;
    for (long i = 0; i < n; i++)
        item_came(s, items[i]);
}

static long sent(struct state *s, long result)
{
    if (result > 0)
        item_sent(s);
    return result;
}

static long pipe_write(struct state *s)
{
    struct item item = next_item(s);
    return sent(s, write(s->fd[1], &item, sizeof item));
}

static long pipe_writev(struct state *s)
{
    struct item item = next_item(s);
    struct iovec parts[2] = {{&item.number, 8}, {&item.rewinds, 8}};
    return sent(s, writev(s->fd[1], parts, 2));
}

static long pipe_vmsplice(struct state *s)
{
    // The pipe keeps the page, not its content: each item lies in a page that stays.
    static struct item pages[64][256];
    struct item *item = pages[s->sent % 64];
    *item = next_item(s);
    struct iovec part = {item, sizeof *item};
    return sent(s, vmsplice(s->fd[1], &part, 1, 0));
}

// More than fits: what was moved before a stop is the result (docs/limits.md).
static long pipe_write_large(struct state *s)
{
    struct item items[1024];
    for (long i = 0; i < 1024; i++)
        items[i] = (struct item){s->sent + 1 + i, board->rewinds};
    long result = write(s->fd[1], items, sizeof items);
    if (result > 0)
        s->sent += result / (long)sizeof *items;
    return result;
}

static void make_sendfile(struct state *s)
{
    make_full_pipe(s);
    s->fd[2] = memfd_create("zeros", MFD_CLOEXEC);
    must(ftruncate(s->fd[2], 65536) == 0, "ftruncate");
}

// The same.
static long pipe_sendfile(struct state *s)
{
    off_t from = 0;
    return sendfile(s->fd[1], s->fd[2], &from, 1024 * sizeof(struct item));
}

static void make_two_pipes(struct state *s)
{
    make_pipe(s);
    must(pipe2(s->fd + 2, O_CLOEXEC) == 0, "pipe");
}

static long taken_over(struct state *s, long result)
{
    struct item item;
    if (result != sizeof item)
        return result;
    return got(s, read(s->fd[2], &item, sizeof item), &item);
}

static long pipe_splice(struct state *s)
{
    return taken_over(s, splice(s->fd[0], NULL, s->fd[3], NULL, sizeof(struct item), 0));
}

static long pipe_tee(struct state *s)
{
    struct item item;
    long result = tee(s->fd[0], s->fd[3], sizeof item, 0);
    if (result == sizeof item)
        must(read(s->fd[0], &item, sizeof item) == sizeof item, "read after tee");
    return taken_over(s, result);
}

static void make_fifo(struct state *s)
{
    char *path = malloc(64);
    snprintf(path, 64, "%s.fifo", s->row->name);
    s->own = path;
    must(mkfifo(path, 0600) == 0 || errno == EEXIST, "mkfifo");
}

static long fifo_open(struct state *s)
{
    int fd = open(s->own, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return fd;
    close(fd);
    return 0;
}

static void feed_fifo(struct state *s)
{
    int fd = open(s->own, O_WRONLY | O_NONBLOCK | O_CLOEXEC); // ENXIO until the case waits.
    if (fd >= 0)
        close(fd);
}

static void make_pty(struct state *s)
{
    struct termios raw;
    must(openpty(s->fd, s->fd + 1, NULL, NULL, NULL) == 0, "openpty");
    tcgetattr(s->fd[1], &raw);
    cfmakeraw(&raw);
    if (s->of->timeout_us) {
        raw.c_cc[VMIN] = 0;
        raw.c_cc[VTIME] = s->of->timeout_us / 100000;
    }
    tcsetattr(s->fd[1], TCSANOW, &raw);
}

static void feed_pty(struct state *s)
{
    if (!readable(s->fd[1]))
        must(write(s->fd[0], "x", 1) == 1, "pty write");
}

static long pty_read(struct state *s)
{
    char c;
    return read(s->fd[1], &c, 1);
}

static void make_eventfd(struct state *s)
{
    s->fd[0] = eventfd(0, EFD_CLOEXEC);
}

static void feed_eventfd(struct state *s)
{
    unsigned long one = 1;
    if (!readable(s->fd[0]))
        must(write(s->fd[0], &one, 8) == 8, "eventfd write");
}

static long eventfd_read_one(struct state *s)
{
    unsigned long n = 0;
    long result = read(s->fd[0], &n, 8);
    return result == 8 && n != 1 ? -1000 : result;
}

static long eventfd_write_full(struct state *s)
{
    unsigned long most = -2;
    return write(s->fd[0], &most, 8);
}

static void drain_eventfd(struct state *s)
{
    unsigned long n;
    if (readable(s->fd[0]))
        must(read(s->fd[0], &n, 8) == 8, "eventfd read");
}

static void make_timerfd(struct state *s)
{
    s->fd[0] = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC);
}

static long timerfd_read(struct state *s)
{
    unsigned long n = 0;
    struct itimerspec once = {{0, 0}, span(s->of->timeout_us)};
    timerfd_settime(s->fd[0], 0, &once, NULL);
    return read(s->fd[0], &n, 8);
}

static void make_signalfd(struct state *s)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGRTMIN + 1);
    s->fd[0] = signalfd(-1, &set, SFD_CLOEXEC);
}

static void feed_signal(struct state *s)
{
    pthread_kill(s->thread, SIGRTMIN + 1);
}

static long signalfd_read(struct state *s)
{
    struct signalfd_siginfo info;
    return read(s->fd[0], &info, sizeof info);
}

static void make_inotify(struct state *s)
{
    s->fd[0] = inotify_init1(IN_CLOEXEC);
    make_fifo(s);
    must(inotify_add_watch(s->fd[0], s->own, IN_ATTRIB) >= 0, "inotify");
}

static void feed_inotify(struct state *s)
{
    if (!readable(s->fd[0]))
        chmod(s->own, 0600);
}

static long inotify_read(struct state *s)
{
    char event[256];
    return read(s->fd[0], event, sizeof event);
}
