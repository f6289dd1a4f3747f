// A child that counts, and its parent, which waits for it to be seen stopped or continued: nothing of that may happen. Prints
// "ready PID" with the child's.
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

volatile long counter;
static volatile sig_atomic_t continued;

static void note(int signal)
{
    (void)signal;
    continued = 1;
}

int main(void)
{
    pid_t child = fork();
    if (child == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        signal(SIGCONT, note);
        for (;; counter++) {
            if (continued) {
                printf("FAIL the handler of SIGCONT ran\n");
                fflush(stdout);
                abort();
            }
            usleep(1000);
        }
    }
    printf("ready %d\n", child);
    fflush(stdout);
    for (;;) {
        int status = 0;
        pid_t got = waitpid(child, &status, WUNTRACED | WCONTINUED);
        printf("FAIL waitpid gave %d, status %#x\n", got, status);
        fflush(stdout);
        abort();
    }
}
