// A program to look at: a counter, a struct, a list, a map of names, three threads, an open file.
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum colour { RED, GREEN, BLUE };

struct point {
    int x, y;
};

struct node {
    long key;
    const char *name;
    struct node *next;
};

struct state {
    long ticks;
    double mean;
    enum colour colour;
    struct point where;
    char label[32];
    unsigned flags : 3;
};

long counter;
static volatile long hidden = 7;
struct state state = {.label = "start", .flags = 5};
struct node *list;
int squares[8];
volatile long thread_ticks[3];

static void *work(void *arg)
{
    long mine = (long)arg;
    for (;;) {
        thread_ticks[mine]++;
        usleep(1000);
    }
    return NULL;
}

static void push(long key)
{
    struct node *node = malloc(sizeof *node);
    node->key = key;
    node->name = key % 2 ? "odd" : "even";
    node->next = list;
    list = node;
}

static void tick(int step)
{
    int local = step * 2;
    counter += step;
    hidden = counter * 7;
    state.ticks = counter;
    state.mean = counter / 2.0;
    state.colour = (enum colour)(counter % 3);
    state.where.x = local;
    state.where.y = -local;
    snprintf(state.label, sizeof state.label, "tick %ld", counter);
    squares[counter % 8] = (int)(counter * counter);
    if (counter % 10 == 0)
        push(counter);
    usleep(5000 + (local & 1)); // The local stays alive over the call.
}

int main(void)
{
    pthread_t thread;
    for (long i = 0; i < 3; i++)
        pthread_create(&thread, NULL, work, (void *)i);
    printf("ready\n");
    fflush(stdout);
    for (;;)
        tick(1);
}
