// System V and POSIX queues and semaphores. They live outside the process: whoever started us
// removes what we name, and no rewind takes them back.
#include <mqueue.h>
#include <sys/ipc.h>
#include <sys/msg.h>
#include <sys/sem.h>

struct message {
    long type;
    struct item item;
};

static void make_sem(struct state *s)
{
    s->id = semget(IPC_PRIVATE, 1, 0600);
    must(s->id >= 0, "semget");
    printf("sem %d\n", s->id);
}

static long sem_wait_one(struct state *s)
{
    struct sembuf op = {0, -1, 0};
    return semop(s->id, &op, 1);
}

static void feed_sem(struct state *s)
{
    struct sembuf op = {0, 1, 0};
    if (semctl(s->id, 0, GETVAL) == 0)
        semop(s->id, &op, 1);
}

static long sem_timed(struct state *s)
{
    struct sembuf op = {0, -1, 0};
    struct timespec limit = span(s->of->timeout_us);
    return semtimedop(s->id, &op, 1, &limit);
}

static void make_queue(struct state *s)
{
    s->id = msgget(IPC_PRIVATE, 0600);
    must(s->id >= 0, "msgget");
    printf("msg %d\n", s->id);
}

static void make_full_queue(struct state *s)
{
    make_queue(s);
    struct msqid_ds limits;
    msgctl(s->id, IPC_STAT, &limits);
    limits.msg_qbytes = 4 * sizeof(struct item);
    msgctl(s->id, IPC_SET, &limits);
}

static void feed_queue(struct state *s)
{
    struct message m = {1, next_item(s)};
    struct msqid_ds now;
    if (msgctl(s->id, IPC_STAT, &now) == 0 && now.msg_qnum == 0
        && msgsnd(s->id, &m, sizeof m.item, IPC_NOWAIT) == 0)
        item_sent(s);
}

static long queue_receive(struct state *s)
{
    struct message m;
    return got(s, msgrcv(s->id, &m, sizeof m.item, 0, 0), &m.item);
}

static long queue_send(struct state *s)
{
    struct message m = {1, next_item(s)};
    long result = msgsnd(s->id, &m, sizeof m.item, 0);
    if (result == 0)
        item_sent(s);
    return result;
}

static void drain_queue(struct state *s)
{
    struct message m;
    if (msgrcv(s->id, &m, sizeof m.item, 0, IPC_NOWAIT) == sizeof m.item)
        item_came(s, m.item);
}

static void make_mq(struct state *s)
{
    char name[64];
    struct mq_attr attr = {.mq_maxmsg = 2, .mq_msgsize = sizeof(struct item)};
    snprintf(name, sizeof name, "/sls-oracle-%d-%s", getpid(), s->row->name);
    s->fd[0] = mq_open(name, O_RDWR | O_CREAT | O_CLOEXEC, 0600, &attr);
    s->fd[1] = mq_open(name, O_RDWR | O_NONBLOCK | O_CLOEXEC);
    must(s->fd[0] >= 0 && s->fd[1] >= 0, "mq_open");
    mq_unlink(name);
}

static void make_full_mq(struct state *s)
{
    make_mq(s);
    struct item item = {0, 0};
    while (mq_send(s->fd[1], (char *)&item, sizeof item, 0) == 0)
        ;
}

static void feed_mq(struct state *s)
{
    struct item item = next_item(s);
    if (!readable(s->fd[1]) && mq_send(s->fd[1], (char *)&item, sizeof item, 0) == 0)
        item_sent(s);
}

static long mq_get(struct state *s)
{
    struct item item;
    return got(s, mq_receive(s->fd[0], (char *)&item, sizeof item, NULL), &item);
}

static long mq_get_timed(struct state *s)
{
    struct item item;
    struct timespec limit = at(CLOCK_REALTIME, s->of->timeout_us);
    return mq_timedreceive(s->fd[0], (char *)&item, sizeof item, NULL, &limit);
}

static long mq_put(struct state *s)
{
    struct item item = next_item(s);
    long result = mq_send(s->fd[0], (char *)&item, sizeof item, 0);
    if (result == 0)
        item_sent(s);
    return result;
}

static void drain_mq(struct state *s)
{
    struct item item;
    if (mq_receive(s->fd[1], (char *)&item, sizeof item, NULL) == sizeof item)
        item_came(s, item);
}

static long mq_put_timed(struct state *s)
{
    struct item item = {0, 0};
    struct timespec limit = at(CLOCK_REALTIME, s->of->timeout_us);
    return mq_timedsend(s->fd[0], (char *)&item, sizeof item, 0, &limit);
}
