// Takes one step for each SIGUSR1, and each step changes something by a known name: the answers that
// questions to its history must have. steps
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <fcntl.h>
#include <map>
#include <set>
#include <string>
#include <sys/mman.h>
#include <vector>

struct Node {
    char mark;
    long key;
    Node *next;
};

struct Account {
    char kind;
    long balance;
    short flags;
};

enum Phase { IDLE, BUSY };

std::map<std::string, int> table{{"k1", 1}, {"k7", 7}};
std::set<int> members{1, 5, 9};
std::vector<long> numbers{10, 20, 30};
Node *head;
Node *bag;
Account accounts[4] = {{'a', 100, 1}, {'b', 100, 2}, {'c', 100, 3}, {'d', 100, 4}};
Phase phase = IDLE;
double ratio = 0.0;
volatile long counter;
void *mapped;

static void push(Node **list, long key)
{
    *list = new Node{'n', key, *list};
}

static void step(long n)
{
    counter = n;
    switch (n) {
    case 1:
        table["k7"] = 8;
        break;
    case 2:
        push(&head, 22);
        break;
    case 3: {
        Node *gone = head->next;
        head->next = gone->next;
        delete gone;
        break;
    }
    case 4:
        table["new"] = 1;
        table.erase("k1");
        members.erase(5);
        break;
    case 5:
        numbers.push_back(40);
        phase = BUSY;
        break;
    case 6:
        if (open("/dev/null", O_RDONLY) < 0)
            abort();
        mapped = mmap(nullptr, 1 << 16, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        break;
    case 7:
        accounts[2].balance = -5;
        break;
    case 8:
        for (long i = 0; i < 100; i++)
            push(&bag, i);
        break;
    default:
        break;
    }
}

int main()
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGUSR1);
    sigprocmask(SIG_BLOCK, &set, nullptr);
    ratio = ratio / ratio; // Not a number, and equal to itself nowhere.
    push(&head, 11);
    push(&head, 12);
    push(&head, 13);
    long taken = 0;
    std::printf("ready\n");
    std::fflush(stdout);
    for (int sig; sigwait(&set, &sig) == 0;) {
        step(++taken);
        std::printf("step %ld\n", taken);
        std::fflush(stdout);
    }
}
