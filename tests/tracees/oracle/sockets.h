// Sockets, with and without timeouts of their own.
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/un.h>

static void make_pair(struct state *s, int type)
{
    must(socketpair(AF_UNIX, type | SOCK_CLOEXEC, 0, s->fd) == 0, "socketpair");
    struct timeval limit = {0, s->of->timeout_us};
    setsockopt(s->fd[0], SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    setsockopt(s->fd[0], SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
}

static void make_stream(struct state *s)
{
    make_pair(s, SOCK_STREAM);
}

static void make_stream_hour(struct state *s)
{
    struct timeval limit = {3600, 0};
    make_stream(s);
    setsockopt(s->fd[0], SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
}

static void make_datagram(struct state *s)
{
    make_pair(s, SOCK_DGRAM);
}

static void feed_socket(struct state *s)
{
    struct item item = next_item(s);
    if (!readable(s->fd[0]) && send(s->fd[1], &item, sizeof item, MSG_DONTWAIT) == sizeof item)
        item_sent(s);
}

static struct msghdr message(struct iovec *part, struct item *item)
{
    *part = (struct iovec){item, sizeof *item};
    return (struct msghdr){.msg_iov = part, .msg_iovlen = 1};
}

static long socket_read(struct state *s)
{
    struct item item;
    return got(s, read(s->fd[0], &item, sizeof item), &item);
}

static long socket_readv(struct state *s)
{
    struct item item;
    struct iovec part = {&item, sizeof item};
    return got(s, readv(s->fd[0], &part, 1), &item);
}

static long socket_recv(struct state *s)
{
    struct item item;
    return got(s, recv(s->fd[0], &item, sizeof item, 0), &item);
}

static long socket_recvmsg(struct state *s)
{
    struct item item;
    struct iovec part;
    struct msghdr m = message(&part, &item);
    return got(s, recvmsg(s->fd[0], &m, 0), &item);
}

static long socket_recvmmsg(struct state *s)
{
    struct item item;
    struct iovec part;
    struct mmsghdr m = {message(&part, &item), 0};
    long result = recvmmsg(s->fd[0], &m, 1, 0, NULL);
    return result == 1 ? got(s, m.msg_len, &item) : result;
}

// Two datagrams, one at a time: a stop after the first gives that one (docs/limits.md).
static long socket_recvmmsg_two(struct state *s)
{
    struct item items[2];
    struct iovec parts[2];
    struct mmsghdr m[2] = {{message(parts, items), 0}, {message(parts + 1, items + 1), 0}};
    long result = recvmmsg(s->fd[0], m, 2, 0, NULL);
    for (long i = 0; i < result; i++)
        item_came(s, items[i]);
    return result;
}

// Both halves of an item, sent one by one: a stop after the first gives that one (docs/limits.md).
static long socket_recv_all(struct state *s)
{
    struct item item;
    long result = recv(s->fd[0], &item, sizeof item, MSG_WAITALL);
    if (result == sizeof item.number) {
        s->row->shorts++;
        result += recv(s->fd[0], &item.rewinds, sizeof item.rewinds, MSG_WAITALL);
    }
    return got(s, result, &item);
}

static void feed_halves(struct state *s)
{
    struct item item = next_item(s);
    if (s->id++ % 2 == 0) {
        send(s->fd[1], &item.number, 8, MSG_DONTWAIT);
        return;
    }
    if (send(s->fd[1], &item.rewinds, 8, MSG_DONTWAIT) == 8)
        item_sent(s);
}

// Full but for what the feeder drains, a datagram at a time.
static void fill(struct state *s, const void *bytes, size_t size)
{
    while (send(s->fd[0], bytes, size, MSG_DONTWAIT) > 0)
        ;
}

static void make_full_stream(struct state *s)
{
    static char page[4096];
    make_stream(s);
    fill(s, page, sizeof page);
    fill(s, page, 1);
}

static void make_full_datagram(struct state *s)
{
    struct item item = {0, 0};
    int small = 1; // The least there is.
    make_datagram(s);
    setsockopt(s->fd[0], SOL_SOCKET, SO_SNDBUF, &small, sizeof small);
    fill(s, &item, sizeof item);
}

static void drain_socket(struct state *s)
{
    struct item item;
    if (recv(s->fd[1], &item, sizeof item, MSG_DONTWAIT) == sizeof item)
        item_came(s, item);
}

static long socket_write(struct state *s)
{
    struct item item = next_item(s);
    return sent(s, write(s->fd[0], &item, sizeof item));
}

static long socket_writev(struct state *s)
{
    struct item item = next_item(s);
    struct iovec part = {&item, sizeof item};
    return sent(s, writev(s->fd[0], &part, 1));
}

static long socket_send(struct state *s)
{
    struct item item = next_item(s);
    return sent(s, send(s->fd[0], &item, sizeof item, 0));
}

static long socket_sendmsg(struct state *s)
{
    struct item item = next_item(s);
    struct iovec part;
    struct msghdr m = message(&part, &item);
    return sent(s, sendmsg(s->fd[0], &m, 0));
}

static long socket_sendmmsg(struct state *s)
{
    struct item item = next_item(s);
    struct iovec part;
    struct mmsghdr m = {message(&part, &item), 0};
    long result = sendmmsg(s->fd[0], &m, 1, 0);
    return sent(s, result == 1 ? (long)m.msg_len : result);
}

// More than fits into a stream: what was moved before a stop is the result (docs/limits.md).
static long socket_send_large(struct state *s)
{
    static char bytes[1 << 20];
    return send(s->fd[0], bytes, sizeof bytes, 0);
}

static void drain_large(struct state *s)
{
    static char bytes[1 << 16];
    while (recv(s->fd[1], bytes, sizeof bytes, MSG_DONTWAIT) > 0)
        ;
}

static void set_limits(struct state *s, int fd)
{
    struct timeval limit = {0, s->of->timeout_us};
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
}

static struct sockaddr_un own_name(struct state *s)
{
    struct sockaddr_un name = {AF_UNIX, ""};
    snprintf(name.sun_path + 1, 90, "sls-oracle-%d-%s", getpid(), s->row->name);
    return name;
}

static void make_listener(struct state *s)
{
    struct sockaddr_un name = own_name(s);
    s->fd[0] = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    must(bind(s->fd[0], (void *)&name, sizeof name) == 0 && listen(s->fd[0], 0) == 0, "listen");
    set_limits(s, s->fd[0]);
}

static void make_inet_listener(struct state *s)
{
    struct sockaddr_in any = {AF_INET, 0, {htonl(INADDR_LOOPBACK)}, ""};
    s->fd[0] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    must(bind(s->fd[0], (void *)&any, sizeof any) == 0 && listen(s->fd[0], 0) == 0, "listen");
    set_limits(s, s->fd[0]);
}

static long closed(long fd)
{
    if (fd < 0)
        return fd;
    close(fd);
    return 0;
}

static long socket_accept(struct state *s)
{
    return closed(accept(s->fd[0], NULL, NULL));
}

static long socket_accept4(struct state *s)
{
    return closed(accept4(s->fd[0], NULL, NULL, SOCK_CLOEXEC));
}

static void feed_listener(struct state *s)
{
    struct sockaddr_un name = own_name(s);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    must(fd >= 0, "socket");
    if (!readable(s->fd[0]))
        connect(fd, (void *)&name, sizeof name);
    close(fd);
}

// One connection waits to be accepted: there is no room for another.
static void make_crowded(struct state *s)
{
    make_listener(s);
    struct sockaddr_un name = own_name(s);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    must(connect(fd, (void *)&name, sizeof name) == 0, "connect");
}

static long socket_connect(struct state *s)
{
    struct sockaddr_un name = own_name(s);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    set_limits(s, fd);
    long result = connect(fd, (void *)&name, sizeof name);
    int error = errno;
    close(fd);
    errno = error;
    return result;
}

static void drain_listener(struct state *s)
{
    if (readable(s->fd[0]))
        close(accept(s->fd[0], NULL, NULL));
}

static void make_inet_crowded(struct state *s)
{
    make_inet_listener(s);
    struct sockaddr_in name;
    socklen_t size = sizeof name;
    getsockname(s->fd[0], (void *)&name, &size);
    for (int i = 0; i < 2; i++) {
        int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
        connect(fd, (void *)&name, sizeof name);
    }
}

static long socket_connect_inet(struct state *s)
{
    struct sockaddr_in name;
    socklen_t size = sizeof name;
    getsockname(s->fd[0], (void *)&name, &size);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    set_limits(s, fd);
    long result = connect(fd, (void *)&name, size);
    int error = errno;
    // From a call that was made again and that the kernel ended (docs/limits.md).
    if (result < 0 && error == EALREADY)
        s->row->shorts++, error = EINPROGRESS;
    close(fd);
    errno = error;
    return result;
}
