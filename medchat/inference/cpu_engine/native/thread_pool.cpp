#include "thread_pool.h"

#include <system_error>

#if defined(__unix__) || defined(__APPLE__)
#include <unistd.h>
#endif

namespace medchat {
namespace {

// How often a waiting thread looks again before it sleeps, giving its core away each time: the products of a token
// follow each other within microseconds, and waking a sleeper takes longer than that.
constexpr int kLooks = 200;

long process_number() {
#if defined(__unix__) || defined(__APPLE__)
    return static_cast<long>(getpid());
#else
    return 0;
#endif
}

}  // namespace

ThreadPool& ThreadPool::of_this_process() {
    static std::mutex guard;
    static ThreadPool* pool = nullptr;
    static long owner = 0;
    const std::lock_guard<std::mutex> lock(guard);
    if (pool == nullptr || owner != process_number()) {
        // Threads do not survive a fork, nor does the state of their locks: the old pool is left alone, never freed.
        pool = new ThreadPool;
        owner = process_number();
    }
    return *pool;
}

void ThreadPool::run(size_t parts, size_t threads, const std::function<void(size_t)>& part) {
    const std::lock_guard<std::mutex> only(one_job_);
    const size_t wanted = threads < parts ? threads : parts;
    if (wanted > 1) grow(wanted - 1);
    size_t helpers = wanted > 1 ? wanted - 1 : 0;
    if (helpers > helpers_.size()) helpers = helpers_.size();
    const Job job{&part, parts, helpers};
    {
        const std::lock_guard<std::mutex> lock(state_);
        job_ = job;
        next_part_.store(0, std::memory_order_relaxed);
        working_.store(helpers, std::memory_order_relaxed);
        if (helpers > 0) generation_.fetch_add(1, std::memory_order_release);
    }
    if (helpers > 0) started_.notify_all();
    claim_parts(job);
    while (working_.load(std::memory_order_acquire) != 0) std::this_thread::yield();
}

void ThreadPool::grow(size_t helpers) {
    while (helpers_.size() < helpers) {
        try {
            const size_t number = helpers_.size();
            helpers_.emplace_back([this, number] { help(number); });
            helpers_.back().detach();
        } catch (const std::system_error&) {
            return;  // The system allows no more threads: those that are there do all the work.
        }
    }
}

void ThreadPool::help(size_t number) {
    size_t seen = 0;
    for (;;) {
        if (!await_job(number, seen)) continue;
        const Job job = job_;
        claim_parts(job);
        working_.fetch_sub(1, std::memory_order_release);
    }
}

// Returns whether the next job, whose generation becomes `seen`, is one that this helper takes part in.
bool ThreadPool::await_job(size_t number, size_t& seen) {
    for (int look = 0; look < kLooks; ++look) {
        if (generation_.load(std::memory_order_acquire) != seen) break;
        std::this_thread::yield();
    }
    std::unique_lock<std::mutex> lock(state_);
    started_.wait(lock, [&] { return generation_.load(std::memory_order_relaxed) != seen; });
    seen = generation_.load(std::memory_order_relaxed);
    return number < job_.helpers;
}

void ThreadPool::claim_parts(const Job& job) {
    for (;;) {
        const size_t part = next_part_.fetch_add(1, std::memory_order_relaxed);
        if (part >= job.parts) return;
        (*job.part)(part);
    }
}

}  // namespace medchat
