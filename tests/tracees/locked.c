// Memory that is locked: other parts of it after SIGUSR1.
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define PAGE 4096ul

static void tell(int signal)
{
    (void)signal;
}

int main(void)
{
    char *memory = mmap((void *)0x300000000000, 16 * PAGE, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
    if (memory == MAP_FAILED)
        return 1;
    memset(memory, 7, 16 * PAGE);
    signal(SIGUSR1, tell);
    if (mlock(memory, 8 * PAGE))
        return 1;
    puts("ready");
    fflush(stdout);
    pause();
    if (munlock(memory + 2 * PAGE, 4 * PAGE) || mlock(memory + 12 * PAGE, 2 * PAGE))
        return 1;
    for (;;)
        pause();
}
