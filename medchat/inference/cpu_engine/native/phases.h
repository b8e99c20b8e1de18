// The phases of a computation one after the other, each shared among threads, until somebody wants it stopped.
#pragma once

#include <atomic>
#include <chrono>
#include <cstddef>
#include <thread>

#include "thread_pool.h"

namespace medchat {

// Asked in the caller's thread alone, and not more often than `kBetweenQuestions`: it may have to wait for an interpreter.
using Cancelled = int (*)();

class Phases {
  public:
    explicit Phases(size_t threads, Cancelled cancelled = nullptr)
        : threads_(threads), cancelled_(cancelled), caller_(std::this_thread::get_id()) {}

    // Calls `part(i)` for every i below `parts` as `ThreadPool::run` does; for none of them once it was stopped, in the
    // middle of a phase too.
    template <typename Part>
    void run(size_t parts, const Part& part) {
        if (stopped()) return;
        ThreadPool::of_this_process().run(parts, threads_, [&](size_t index) {
            if (!stopped()) part(index);
        });
    }

    bool stopped() {
        if (cancelled_ != nullptr && std::this_thread::get_id() == caller_) ask();
        return stopped_.load(std::memory_order_relaxed);
    }

    size_t threads() const { return threads_; }

  private:
    static constexpr std::chrono::milliseconds kBetweenQuestions{5};

    void ask() {
        const auto now = std::chrono::steady_clock::now();
        if (now - asked_ < kBetweenQuestions) return;
        asked_ = now;
        if (cancelled_() != 0) stopped_.store(true, std::memory_order_relaxed);
    }

    size_t threads_;
    Cancelled cancelled_;
    std::thread::id caller_;
    std::chrono::steady_clock::time_point asked_{};
    std::atomic<bool> stopped_{false};
};

}  // namespace medchat
