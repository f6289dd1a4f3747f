// Locks of files, and futexes.
#include <linux/futex.h>

static void make_lock(struct state *s)
{
    make_fifo(s);
    char *path = s->own;
    strcpy(strrchr(path, '.'), ".lock");
    s->fd[0] = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    s->fd[1] = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    must(s->fd[0] >= 0 && s->fd[1] >= 0, "lock file");
}

static void make_held(struct state *s)
{
    make_lock(s);
    flock(s->fd[1], LOCK_EX);
}

// The feeder's turn: taken again at once, a lock would never be had by anybody else.
static void let_others(void)
{
    usleep(500);
}

static long lock_flock(struct state *s)
{
    long result = flock(s->fd[0], LOCK_EX);
    flock(s->fd[0], LOCK_UN);
    let_others();
    return result;
}

// Held for one turn in two, on the other descriptor. Nothing is remembered: a rewind leaves locks.
static void feed_flock(struct state *s)
{
    if (s->sent++ % 2)
        flock(s->fd[1], LOCK_UN);
    else
        flock(s->fd[1], LOCK_EX | LOCK_NB);
}

static long whole_file(int fd, int how, short type)
{
    struct flock all = {.l_type = type, .l_whence = SEEK_SET};
    return fcntl(fd, how, &all);
}

static long lock_process(struct state *s)
{
    long result = whole_file(s->fd[0], F_SETLKW, F_WRLCK);
    whole_file(s->fd[0], F_SETLK, F_UNLCK);
    let_others();
    return result;
}

static long lock_open_file(struct state *s)
{
    long result = whole_file(s->fd[0], F_OFD_SETLKW, F_WRLCK);
    whole_file(s->fd[0], F_OFD_SETLK, F_UNLCK);
    let_others();
    return result;
}

static void feed_lock(struct state *s)
{
    whole_file(s->fd[1], F_OFD_SETLK, s->sent++ % 2 ? F_UNLCK : F_WRLCK);
}

static long futex(volatile int *word, int op, int value, struct timespec *limit, volatile int *other, int bits)
{
    return syscall(SYS_futex, word, op, value, limit, other, bits);
}

static void wake(struct state *s)
{
    s->word++;
    futex(&s->word, FUTEX_WAKE, 1, NULL, NULL, 0);
}

// The word has changed before the call, or while a stop had it interrupted: both are an answer.
static long woken(long result)
{
    return result < 0 && errno == EAGAIN ? 0 : result;
}

static long futex_wait(struct state *s)
{
    return woken(futex(&s->word, FUTEX_WAIT, s->word, NULL, NULL, 0));
}

static long futex_wait_timed(struct state *s)
{
    struct timespec limit = span(s->of->timeout_us);
    return futex(&s->word, FUTEX_WAIT, s->word, &limit, NULL, 0);
}

static long futex_bitset(struct state *s)
{
    return woken(futex(&s->word, FUTEX_WAIT_BITSET, s->word, NULL, NULL, 1));
}

static long futex_bitset_timed(struct state *s)
{
    struct timespec limit = at(CLOCK_MONOTONIC, s->of->timeout_us);
    return futex(&s->word, FUTEX_WAIT_BITSET, s->word, &limit, NULL, 1);
}

static long futex_requeue_timed(struct state *s)
{
    struct timespec limit = at(CLOCK_MONOTONIC, s->of->timeout_us);
    return futex(&s->word, FUTEX_WAIT_REQUEUE_PI, s->word, &limit, &s->pi, 0);
}

// Moved over to a lock that the feeder holds, and let go on with it. EAGAIN: whoever was moved
// already cannot be put back (docs/limits.md).
static long futex_requeued(struct state *s)
{
    long result = futex(&s->word, FUTEX_WAIT_REQUEUE_PI, s->word, NULL, &s->pi, 0);
    if (result == 0)
        futex(&s->pi, FUTEX_UNLOCK_PI, 0, NULL, NULL, 0);
    else if (errno == EAGAIN)
        s->row->shorts++, result = 0;
    return result;
}

static void feed_requeue(struct state *s)
{
    if (s->id)
        futex(&s->pi, FUTEX_UNLOCK_PI, 0, NULL, NULL, 0);
    s->id = !s->id && futex(&s->pi, FUTEX_TRYLOCK_PI, 0, NULL, NULL, 0) == 0;
    // One to be woken at most, none to be moved further: the kernel's count of both.
    if (s->id)
        syscall(SYS_futex, &s->word, FUTEX_CMP_REQUEUE_PI, 1, 0, &s->pi, s->word);
}

static struct futex_waitv one_word(struct state *s)
{
    return (struct futex_waitv){s->word, (unsigned long)&s->word, FUTEX_32, 0};
}

static long futex_waitv(struct state *s)
{
    struct futex_waitv w = one_word(s);
    return woken(syscall(SYS_futex_waitv, &w, 1, 0, NULL, CLOCK_MONOTONIC));
}

static long futex_waitv_timed(struct state *s)
{
    struct futex_waitv w = one_word(s);
    struct timespec limit = at(CLOCK_MONOTONIC, s->of->timeout_us);
    return syscall(SYS_futex_waitv, &w, 1, 0, &limit, CLOCK_MONOTONIC);
}

static void make_mutex(struct state *s)
{
    pthread_mutexattr_t attr;
    pthread_mutexattr_init(&attr);
    pthread_mutexattr_setprotocol(&attr, PTHREAD_PRIO_INHERIT);
    s->own = malloc(sizeof(pthread_mutex_t));
    pthread_mutex_init(s->own, &attr);
}

static long lock_pi(struct state *s)
{
    int error = pthread_mutex_lock(s->own);
    if (!error)
        pthread_mutex_unlock(s->own);
    let_others();
    errno = error;
    return error ? -1 : 0;
}

static void feed_lock_pi(struct state *s)
{
    if (s->id)
        pthread_mutex_unlock(s->own);
    s->id = !s->id && pthread_mutex_trylock(s->own) == 0;
}

static void make_locked(struct state *s)
{
    make_mutex(s);
    pthread_mutex_lock(s->own); // By the main thread, for ever.
}

static long lock_pi_timed(struct state *s)
{
    struct timespec limit = at(CLOCK_REALTIME, s->of->timeout_us);
    errno = pthread_mutex_timedlock(s->own, &limit);
    return errno ? -1 : 0;
}
