// Memory that is more than its content. At each SIGUSR1 it says whether all is as it was made: a guard and what is beside
// it, a mapping that grows down and grows on, memory with a protection key that lets it be read only. 2: not here.
#define _GNU_SOURCE
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef MADV_GUARD_INSTALL
#define MADV_GUARD_INSTALL 102
#endif

enum { PAGE = 4096, READ_ONLY = 2 };

static int key = -1;
static sigjmp_buf out;
static volatile sig_atomic_t asked;

static void fault(int signal) {
    (void)signal;
    siglongjmp(out, 1);
}

static void ask(int signal) {
    (void)signal;
    asked = 1;
}

// A handler runs with other rights to keys, and a jump out of it leaves them so.
static unsigned rights(void) {
    unsigned a, d;
    __asm__ volatile(".byte 0x0f,0x01,0xee" : "=a"(a), "=d"(d) : "c"(0));
    return a;
}

static void set_rights(unsigned a) {
    __asm__ volatile(".byte 0x0f,0x01,0xef" : : "a"(a), "c"(0), "d"(0) : "memory");
}

static int faults(volatile char *at, int write) {
    unsigned had = key >= 0 ? rights() : 0;
    if (sigsetjmp(out, 1)) {
        if (key >= 0)
            set_rights(had);
        return 1;
    }
    char was = *at;
    if (write)
        *at = was + 1;
    return 0;
}

static char *area(void *at, int pages, int flags) {
    flags |= MAP_PRIVATE | MAP_ANONYMOUS | (at ? MAP_FIXED_NOREPLACE : 0);
    return mmap(at, pages * PAGE, PROT_READ | PROT_WRITE, flags, -1, 0);
}

int main(void) {
    struct sigaction on_fault = {.sa_handler = fault, .sa_flags = SA_NODEFER};
    sigaction(SIGSEGV, &on_fault, 0);
    signal(SIGUSR1, ask);
    char *guarded = area(0, 8, 0);
    memset(guarded, 1, 8 * PAGE);
    int has_guard = !madvise(guarded + 2 * PAGE, PAGE, MADV_GUARD_INSTALL);
    char *grows = area((void *)0x200000400000, 1, MAP_GROWSDOWN);
    grows[0] = 5;
    char *keyed = area(0, 1, 0);
    keyed[0] = 6;
    key = syscall(SYS_pkey_alloc, 0, READ_ONLY);
    if (key >= 0 && syscall(SYS_pkey_mprotect, keyed, PAGE, PROT_READ | PROT_WRITE, key))
        return 1;
    puts("ready");
    fflush(stdout);
    for (int time = 1;; time++) {
        while (!asked)
            pause();
        asked = 0;
        int guard = has_guard ? faults(guarded + 2 * PAGE, 0) && guarded[3 * PAGE] == 1 : 2;
        int grown = grows[0] == 5 && !faults(grows - time * PAGE, 1);
        int locked = key >= 0 ? faults(keyed, 1) && !faults(keyed, 0) && keyed[0] == 6 : 2;
        // Not there before: the mapping has grown.
        printf("guard %d grows %d key %d\n", guard, grown, locked);
        fflush(stdout);
    }
}
