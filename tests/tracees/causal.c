// Everything that changes memory, at once, with every page and every cause accounted for: whoever reads a checkpoint
// can tell a torn page, a stale one, and an effect without its cause. It also looks at itself.
// usage: causal PART... (memory order socket sharing vfork forked uring aio direct faults), in a folder of its own
#define _GNU_SOURCE
#include "causal/region.h"
#include "causal/memory.h"
#include "causal/order.h"
#include "causal/children.h"
#include "causal/kernel.h"
#include "causal/faults.h"

static int wants(char **argv, const char *part)
{
    while (*argv && strcmp(*argv, part))
        argv++;
    return *argv != NULL;
}

int main(int argc, char **argv)
{
    must(argc > 1, "usage: causal PART...");
    struct region *stack = region("stack", 24, 0);
    if (wants(argv, "forked")) {
        struct region *written = anonymous("forked", 8, LOOSE);
        make_forked();
        start(give_orders, written);
    }
    if (wants(argv, "order")) {
        start_links(wants(argv, "sharing"));
        start_pipe();
        start_ring();
    }
    if (wants(argv, "socket"))
        start_socket();
    if (wants(argv, "uring"))
        start_ring_of_kernel();
    if (wants(argv, "aio"))
        start_aio("aio", 0);
    if (wants(argv, "direct"))
        start_aio("direct", O_DIRECT);
    if (wants(argv, "faults"))
        start_faults();
    if (wants(argv, "vfork"))
        start(make_by_vfork, anonymous("vfork", 8, 0));
    if (wants(argv, "memory"))
        start_memory();
    if (wants(argv, "sharing"))
        start_sharing();
    printf("ready %p\n", (void *)&directory);
    fflush(stdout);
    write_stack(stack);
}
