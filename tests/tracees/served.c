// Counts on a page that a userfaultfd brings, again and again.
// usage: served elsewhere|events
//   elsewhere: a child process has the userfaultfd and brings the pages; this one has closed it
//   events: a thread brings them, and is told of every page that is dropped
#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#define PAGE 4096
#define PAGES 16

volatile long counter;
static int uffd;

static void *serve(void *arg)
{
    static char content[PAGE] __attribute__((aligned(PAGE))) = {7};
    for (;;) {
        struct uffd_msg msg;
        if (read(uffd, &msg, sizeof msg) != sizeof msg)
            return arg;
        if (msg.event != UFFD_EVENT_PAGEFAULT)
            continue;
        struct uffdio_copy copy = {.dst = msg.arg.pagefault.address & -PAGE, .src = (uint64_t)content, .len = PAGE};
        ioctl(uffd, UFFDIO_COPY, &copy);
    }
}

int main(int argc, char **argv)
{
    int elsewhere = argc > 1 && !strcmp(argv[1], "elsewhere");
    uffd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | UFFD_USER_MODE_ONLY);
    struct uffdio_api api = {.api = UFFD_API, .features = elsewhere ? 0 : UFFD_FEATURE_EVENT_REMOVE};
    char *pages = mmap(NULL, PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    struct uffdio_register it = {.range = {(uint64_t)pages, PAGES * PAGE}, .mode = UFFDIO_REGISTER_MODE_MISSING};
    if (ioctl(uffd, UFFDIO_API, &api) || ioctl(uffd, UFFDIO_REGISTER, &it))
        return 2;
    if (elsewhere) {
        if (fork() == 0) {
            prctl(PR_SET_PDEATHSIG, 9);
            serve(NULL);
            _exit(1);
        }
        close(uffd);
    } else {
        pthread_t thread;
        pthread_create(&thread, NULL, serve, NULL);
    }
    printf("ready\n");
    fflush(stdout);
    for (;;) {
        char *page = pages + counter % PAGES * PAGE;
        madvise(page, PAGE, MADV_DONTNEED);
        if (*(volatile char *)page != 7) {
            printf("FAIL a page holds %d\n", *page);
            fflush(stdout);
        }
        counter++;
        usleep(2000);
    }
}
