// Counts with every descriptor it may have in use.
#include <fcntl.h>
#include <stdio.h>
#include <sys/resource.h>
#include <unistd.h>

volatile long counter;

int main(void)
{
    struct rlimit few = {24, 24};
    printf("ready\n");
    fflush(stdout);
    if (setrlimit(RLIMIT_NOFILE, &few))
        return 2;
    while (open("/dev/null", O_RDONLY) >= 0)
        ;
    for (;; counter++)
        usleep(2000);
}
