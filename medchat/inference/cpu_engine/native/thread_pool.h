// Threads that wait between calls and share the work of one call.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstddef>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

namespace medchat {

// Parts of a job are claimed one by one, so that a thread which the machine takes away holds up nobody. What a part
// computes must not depend on who claims it: then no result depends on the number of threads.
class ThreadPool {
  public:
    // The pool of this process; a forked child gets one of its own.
    static ThreadPool& of_this_process();

    // Calls `part(i)` for every i below `parts`, on up to `threads` threads, the caller's among them. Returns when
    // all have returned. One job at a time: a second caller waits. `part` must not throw.
    void run(size_t parts, size_t threads, const std::function<void(size_t)>& part);

  private:
    struct Job {
        const std::function<void(size_t)>* part = nullptr;
        size_t parts = 0;
        size_t helpers = 0;
    };

    void grow(size_t helpers);
    void help(size_t number);
    bool await_job(size_t number, size_t& seen);
    void claim_parts(const Job& job);

    std::mutex one_job_;
    std::mutex state_;
    std::condition_variable started_;
    std::vector<std::thread> helpers_;
    Job job_;
    std::atomic<size_t> generation_{0};
    std::atomic<size_t> next_part_{0};
    std::atomic<size_t> working_{0};
};

}  // namespace medchat
