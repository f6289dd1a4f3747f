// Locks of each kind on files in a folder: given up at SIGUSR1, taken again at SIGUSR2.
// Usage: locks FOLDER
#define _GNU_SOURCE
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <sys/file.h>
#include <unistd.h>

static volatile sig_atomic_t told;

static void tell(int signal)
{
    told = signal;
}

static int lock(int fd, int command, short type, off_t start, off_t len)
{
    struct flock range = {.l_type = type, .l_whence = SEEK_SET, .l_start = start, .l_len = len};
    return fcntl(fd, command, &range);
}

static int take(const int *files)
{
    return flock(files[0], LOCK_EX) || lock(files[1], F_SETLK, F_WRLCK, 10, 10) ||
           lock(files[1], F_SETLK, F_RDLCK, 100, 0) || lock(files[2], F_OFD_SETLK, F_RDLCK, 0, 0);
}

static int give_up(const int *files)
{
    return flock(files[0], LOCK_UN) || lock(files[1], F_SETLK, F_UNLCK, 0, 0) ||
           lock(files[2], F_OFD_SETLK, F_UNLCK, 0, 0);
}

int main(int argc, char **argv)
{
    int files[3];
    if (argc < 2 || chdir(argv[1]))
        return 2;
    for (int i = 0; i < 3; i++) {
        char name[] = "lock0";
        name[4] += i;
        files[i] = open(name, O_RDWR | O_CREAT, 0600);
        if (files[i] < 0)
            return 1;
    }
    sigset_t both, before;
    sigemptyset(&both);
    sigaddset(&both, SIGUSR1);
    sigaddset(&both, SIGUSR2);
    sigprocmask(SIG_BLOCK, &both, &before);
    signal(SIGUSR1, tell);
    signal(SIGUSR2, tell);
    if (take(files))
        return 1;
    puts("ready");
    for (;;) {
        fflush(stdout);
        sigsuspend(&before);
        if (told == SIGUSR1 ? give_up(files) : take(files))
            return 1;
        puts(told == SIGUSR1 ? "given up" : "taken");
    }
}
