// Does one thing to its process when told by a line on the fifo named in argv[2]:
// exec, fork, crash, exit. usage: lives WHAT FIFO
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

volatile long before_it = 41;
volatile long generation;

int main(int argc, char **argv)
{
    char line[16];
    if (argc < 3)
        return 2;
    generation = getenv("GENERATION") ? atol(getenv("GENERATION")) : 0;
    int fifo = open(argv[2], O_RDONLY | O_CLOEXEC);
    printf("ready %ld\n", generation);
    fflush(stdout);
    if (fifo < 0 || read(fifo, line, sizeof line) <= 0)
        return 3;
    // Until the writer has closed it: after an exec, the next open is to wait for the next writer.
    while (read(fifo, line, sizeof line) > 0)
        ;
    before_it = 42;
    if (!strcmp(argv[1], "exec")) {
        setenv("GENERATION", "1", 1);
        char *args[] = {argv[0], "exit", argv[2], NULL};
        execve(argv[0], args, environ);
        return 4;
    }
    if (!strcmp(argv[1], "fork")) {
        pid_t child = fork();
        if (child == 0) {
            before_it = 100;
            for (int i = 0; i < 50; i++) {
                before_it++;
                usleep(2000);
            }
            _exit(before_it == 150 ? 0 : 1);
        }
        int status = 0;
        if (waitpid(child, &status, 0) != child || status != 0) {
            printf("FAIL child status %d\n", status);
            abort();
        }
        printf("child unharmed\n");
        fflush(stdout);
        for (;;)
            pause();
    }
    if (!strcmp(argv[1], "crash"))
        *(volatile int *)8 = 1;
    return 7;
}
