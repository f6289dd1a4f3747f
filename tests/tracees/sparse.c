// Reserves 64 GiB and writes a page of it now and then, as garbage collectors do.
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

int main(void)
{
    size_t size = 64ul << 30;
    char *area = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (area == MAP_FAILED)
        return 1;
    printf("ready\n");
    fflush(stdout);
    for (size_t i = 0;; i++) {
        area[size / 2 + (i % 16) * 65536] = (char)i;
        usleep(1000);
    }
}
