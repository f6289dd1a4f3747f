// Memory that is moved, given back, unmapped, written and inherited while its pages are still on their way. Each
// page of a block says where it belongs. Waits for the file that is its argument, then checks and changes everything,
// and says what is wrong. Once more for each further file.
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

enum { PAGE = 4096, BLOCKS = 8, PAGES = 4096, WORDS = PAGE / 8 };

static uint64_t *block[BLOCKS];
static int wrong;

static uint64_t word(uint64_t block, uint64_t page, uint64_t word) {
    uint64_t x = (block << 40 | page << 12 | word) * 0x9e3779b97f4a7c15;
    return (x ^ x >> 29) * 0xbf58476d1ce4e5b9;
}

static void say(const char *what, int b, int page) {
    printf("wrong: %s, block %d page %d\n", what, b, page);
    fflush(stdout);
    wrong = 1;
}

static void fill(int b) {
    for (int p = 0; p < PAGES; p++)
        for (int w = 0; w < WORDS; w++)
            block[b][p * WORDS + w] = word(b, p, w);
}

static void check(const char *what, int b, uint64_t *at, int first, int count) {
    for (int p = first; p < first + count; p++)
        for (int w = 0; w < WORDS; w += 37)
            if (at[(p - first) * WORDS + w] != word(b, p, w)) {
                say(what, b, p);
                return;
            }
}

static void check_zeros(const char *what, int b, uint64_t *at, int count) {
    for (int p = 0; p < count; p++)
        for (int w = 0; w < WORDS; w += 37)
            if (at[p * WORDS + w]) {
                say(what, b, p);
                return;
            }
}

static void await(const char *file) {
    while (access(file, F_OK))
        usleep(500);
}

static void *need(void *got) {
    if (got == MAP_FAILED)
        perror("mmap"), exit(2);
    return got;
}

// From the last page to the first, so that little of it is there by then.
static void all(const char *scratch) {
    const size_t bytes = (size_t)PAGES * PAGE, half = bytes / 2;
    const int anon = MAP_PRIVATE | MAP_ANONYMOUS;

    // Given back: zeros, on both sides of what stays.
    madvise((char *)block[7] + half, PAGE * 100, MADV_DONTNEED);
    check_zeros("given back", 7, block[7] + (PAGES / 2) * WORDS, 100);
    check("after what was given back", 7, block[7] + (PAGES / 2 + 100) * WORDS, PAGES / 2 + 100, 50);

    // Moved, the second half only, and grown.
    char *place = need(mmap(0, bytes, PROT_NONE, anon, -1, 0));
    char *moved = need(mremap((char *)block[6] + half, half, half + PAGE * 64, MREMAP_MAYMOVE | MREMAP_FIXED, place));
    check("moved", 6, (uint64_t *)moved, PAGES / 2, PAGES / 2);
    check_zeros("grown", 6, (uint64_t *)(moved + half), 64);
    need(mremap(moved, half + PAGE * 64, half, 0));
    need(mremap(moved, half, half, MREMAP_MAYMOVE | MREMAP_FIXED, (char *)block[6] + half));
    check("moved back", 6, block[6] + (PAGES / 2) * WORDS, PAGES / 2, PAGES / 2);

    // Unmapped, and something else in its place.
    munmap((char *)block[5] + half, half);
    need(mmap((char *)block[5] + half, half, PROT_READ | PROT_WRITE, anon | MAP_FIXED, -1, 0));
    check_zeros("mapped anew", 5, block[5] + (PAGES / 2) * WORDS, PAGES / 2);

    // The kernel reads and writes for it.
    int fd = open(scratch, O_RDWR | O_CREAT | O_TRUNC, 0600);
    if (pwrite(fd, block[4] + 3000 * WORDS, PAGE * 40, 0) != PAGE * 40)
        say("not written", 4, 3000);
    if (pread(fd, block[4] + 1000 * WORDS + 1, PAGE * 40 - 16, 8) != PAGE * 40 - 16)
        say("not read", 4, 1000);
    if (block[4][1000 * WORDS] != word(4, 1000, 0) || block[4][1000 * WORDS + 1] != word(4, 3000, 1))
        say("read", 4, 1000);
    close(fd);
    unlink(scratch);

    // A child has all of it, also what is given to the parent only after that.
    pid_t child = fork();
    if (!child) {
        madvise(block[3] + 64 * WORDS, PAGE * 64, MADV_DONTNEED);
        check_zeros("given back by the child", 3, block[3] + 64 * WORDS, 64);
        pid_t grandchild = fork();
        for (int b = 3; b >= 0; b--)
            check(grandchild ? "in the child" : "in the grandchild", b, block[b] + 128 * WORDS, 128, PAGES - 128);
        int status = 0;
        if (grandchild)
            waitpid(grandchild, &status, 0);
        _exit(wrong || status);
    }
    // Written before it comes: the rest of the page is there.
    block[2][2000 * WORDS + 5] = 1;
    if (block[2][2000 * WORDS + 6] != word(2, 2000, 6))
        say("beside what was written", 2, 2000);
    block[2][2000 * WORDS + 5] = word(2, 2000, 5);
    mprotect(block[1], bytes, PROT_NONE);
    mprotect(block[1], bytes, PROT_READ | PROT_WRITE);
    int status = 1;
    waitpid(child, &status, 0);
    if (status)
        say("a child", 3, status);
    for (int b = 0; b < BLOCKS; b++)
        if (b != 4 && b != 5 && b != 7)
            check("in the end", b, block[b], 0, PAGES);
    for (int b = 4; b < BLOCKS; b++)
        fill(b);
}

int main(int argc, char **argv) {
    for (int b = 0; b < BLOCKS; b++) {
        // Apart, so that each stays a mapping of its own.
        size_t bytes = (size_t)PAGES * PAGE;
        char *at = need(mmap(0, bytes + PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
        block[b] = need(mmap(at, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0));
        fill(b);
    }
    puts("ready");
    fflush(stdout);
    for (int round = 1; round < argc; round++) {
        char scratch[4096];
        snprintf(scratch, sizeof scratch, "%s.scratch", argv[round]);
        await(argv[round]);
        all(scratch);
        printf("round %d %s\n", round, wrong ? "failed" : "is right");
        fflush(stdout);
    }
    pause();
    return 0;
}
