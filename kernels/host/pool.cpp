// pool.cpp: the blocks of a launch over threads that are kept between launches.
//
// A thread made at every launch costs 70 to 220 us. One launch runs at a time; a launch from another thread waits. A helper
// that wakes up after the last block was taken is not waited for. After a fork the child has none of the threads (and perhaps
// a locked lock), so it starts a pool of its own.
#include "jg_host.h"
#if defined(JG_SERIAL)
#include <pthread.h>

#include <atomic>
#include <condition_variable>
#include <mutex>
#include <thread>

namespace jg { namespace host {
dim3 grid_dim;
thread_local dim3 block_idx;

namespace {
struct Job {
    unsigned grid;
    void (*body)(void*);
    void* context;
    std::atomic<unsigned> next{0};

    void work() {
        for (unsigned b; (b = next.fetch_add(1, std::memory_order_relaxed)) < grid;) {
            block_idx = {b, 0, 0};
            body(context);
        }
    }
};

class Pool {
public:
    // Runs the job on up to `workers` threads, the caller's among them; returns when all blocks are done.
    void run(unsigned workers, Job& job) {
        std::lock_guard<std::mutex> one_launch(launch_);
        grid_dim = {job.grid, 1, 1};
        if (workers <= 1) { job.work(); return; }
        {
            std::lock_guard<std::mutex> hold(state_);
            for (; threads_ < workers - 1; ++threads_) std::thread([this, me = threads_] { serve(me); }).detach();
            job_ = &job;
            wanted_ = workers - 1;
            ++round_;
        }
        wake_.notify_all();
        job.work();
        std::unique_lock<std::mutex> hold(state_);
        job_ = nullptr;
        idle_.wait(hold, [&] { return active_ == 0; });
    }

private:
    void serve(unsigned me) {
        uint64_t seen = 0;
        std::unique_lock<std::mutex> hold(state_);
        for (;;) {
            wake_.wait(hold, [&] { return job_ && round_ != seen && me < wanted_; });
            seen = round_;
            ++active_;
            Job* const job = job_;
            hold.unlock();
            job->work();
            hold.lock();
            if (--active_ == 0) idle_.notify_one();
        }
    }
    std::mutex launch_, state_;
    std::condition_variable wake_, idle_;
    Job* job_ = nullptr;
    unsigned threads_ = 0, wanted_ = 0, active_ = 0;
    uint64_t round_ = 0;
};

Pool* pool;                                              // never destroyed: its threads outlive main
void start() { pool = new Pool; }
}  // namespace

void run_blocks(unsigned grid, unsigned workers, void (*body)(void*), void* context) {
    static std::once_flag once;
    std::call_once(once, [] { start(); pthread_atfork(nullptr, nullptr, start); });
    Job job{grid, body, context};
    pool->run(workers < grid ? workers : grid, job);
}
}}  // namespace jg::host
#endif
