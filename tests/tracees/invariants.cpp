// Threads that move money between accounts under locks: the sum never changes. Containers of the
// standard library hold the same state twice and are compared. invariants [THREADS]
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

constexpr long kAccounts = 50, kEach = 1000;

std::mutex lock;
std::condition_variable turn;
std::vector<long> accounts(kAccounts, kEach);
std::map<std::string, long> by_name;
std::atomic<long> transfers{0};

static void fail(const char *what, long value)
{
    std::printf("FAIL %s %ld\n", what, value);
    std::fflush(stdout);
    std::abort();
}

static void work(unsigned seed)
{
    for (;;) {
        long from = rand_r(&seed) % kAccounts, to = rand_r(&seed) % kAccounts;
        long amount = rand_r(&seed) % 10;
        {
            std::unique_lock<std::mutex> hold(lock);
            turn.wait_for(hold, std::chrono::microseconds(50));
            accounts[from] -= amount;
            accounts[to] += amount;
            by_name[std::to_string(from)] = accounts[from];
            by_name[std::to_string(to)] = accounts[to];
            transfers++;
        }
        turn.notify_one();
    }
}

int main(int argc, char **argv)
{
    unsigned threads = argc > 1 ? unsigned(std::atoi(argv[1])) : 4;
    for (long i = 0; i < kAccounts; i++)
        by_name[std::to_string(i)] = kEach;
    for (unsigned i = 1; i <= threads; i++)
        std::thread(work, i).detach();
    std::printf("ready\n");
    std::fflush(stdout);
    for (;;) {
        std::this_thread::sleep_for(std::chrono::milliseconds(2));
        std::lock_guard<std::mutex> hold(lock);
        long sum = 0, named = 0;
        for (long a : accounts)
            sum += a;
        for (auto &[name, value] : by_name)
            named += value;
        if (sum != kAccounts * kEach)
            fail("sum", sum);
        if (named != sum)
            fail("names", named);
    }
}
