// Counts under a seccomp filter that kills the process for any call but a handful.
// usage: strict [MS]; the filter is set after so long
#include <errno.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

volatile long counter;

#define ALLOW(nr) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (nr), 0, 1), BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)

int main(int argc, char **argv)
{
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        ALLOW(SYS_write),
        ALLOW(SYS_clock_nanosleep),
        ALLOW(SYS_restart_syscall),
        ALLOW(SYS_exit_group),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
    };
    struct sock_fprog program = {sizeof code / sizeof code[0], code};
    printf("ready\n");
    fflush(stdout);
    usleep(argc > 1 ? 1000 * (unsigned)atoi(argv[1]) : 0);
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program))
        return 2;
    for (;;) {
        struct timespec pause = {0, 2000000};
        if (clock_nanosleep(CLOCK_MONOTONIC, 0, &pause, NULL)) {
            static const char said[] = "FAIL interrupted\n";
            ssize_t done = write(1, said, sizeof said - 1);
            _exit(done < 0);
        }
        counter++;
    }
}
