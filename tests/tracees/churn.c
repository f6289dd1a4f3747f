// 64 threads that start and end all the time; each checks that its stack and its TLS are its own.
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define THREADS 64

atomic_long started, finished;
static __thread long own;

static void *brief(void *arg)
{
    char stack[4096];
    long mine = atomic_fetch_add(&started, 1);
    own = mine;
    memset(stack, (int)mine, sizeof stack);
    usleep(500 + (unsigned)(mine % 7) * 300);
    for (size_t i = 0; i < sizeof stack; i++)
        if (stack[i] != (char)mine || own != mine) {
            printf("FAIL thread %ld\n", mine);
            fflush(stdout);
            abort();
        }
    atomic_fetch_add(&finished, 1);
    return arg;
}

int main(void)
{
    pthread_t threads[THREADS];
    int ready = 0;
    for (int i = 0; i < THREADS; i++)
        pthread_create(&threads[i], NULL, brief, NULL);
    for (;;) {
        for (int i = 0; i < THREADS; i++) {
            pthread_join(threads[i], NULL);
            if (pthread_create(&threads[i], NULL, brief, NULL)) {
                printf("FAIL pthread_create\n");
                fflush(stdout);
                abort();
            }
        }
        if (!ready++) {
            printf("ready\n");
            fflush(stdout);
        }
    }
}
