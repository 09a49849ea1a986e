// pool.cpp: the blocks of a launch over threads that are kept between launches.
//
// A thread made at every launch costs 70 to 220 us. Launches from several threads run at the same time, each with helpers of
// its own among the kept ones; a launch on one worker takes no lock at all. A helper that wakes up after the last block was
// taken is not waited for. After a fork the child has none of the threads (and perhaps a locked lock), so it starts a pool of
// its own.
#include "jg_host.h"
#if defined(JG_SERIAL)
#include <pthread.h>

#include <atomic>
#include <condition_variable>
#include <mutex>
#include <thread>

namespace jg { namespace host {
thread_local dim3 grid_dim, block_idx;

namespace {
struct Job {
    unsigned grid;
    void (*body)(void*);
    void* context;
    std::atomic<unsigned> next{0};
    unsigned wanted = 0, active = 0;                     // helpers still to come, and at work; under the pool's lock
    Job* after = nullptr;                                // the list of jobs that want helpers

    void work() {
        grid_dim = {grid, 1, 1};
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
        job.wanted = workers - 1;
        {
            std::lock_guard<std::mutex> hold(state_);
            wanted_ += job.wanted;
            for (; threads_ < wanted_; ++threads_) std::thread([this] { serve(); }).detach();
            job.after = first_;
            first_ = &job;
        }
        wake_.notify_all();
        job.work();
        std::unique_lock<std::mutex> hold(state_);
        Job** at = &first_;
        while (*at != &job) at = &(*at)->after;
        *at = job.after;
        wanted_ -= workers - 1;
        idle_.wait(hold, [&] { return job.active == 0; });
    }

private:
    Job* open() {                                        // a job that wants a helper
        Job* job = first_;
        while (job && job->wanted == 0) job = job->after;
        return job;
    }
    void serve() {
        std::unique_lock<std::mutex> hold(state_);
        for (Job* job;;) {
            wake_.wait(hold, [&] { return (job = open()) != nullptr; });
            --job->wanted;
            ++job->active;
            hold.unlock();
            job->work();
            hold.lock();
            if (--job->active == 0) idle_.notify_all();
        }
    }
    std::mutex state_;
    std::condition_variable wake_, idle_;
    Job* first_ = nullptr;
    unsigned threads_ = 0, wanted_ = 0;                  // helpers there are, and those that running jobs have asked for
};

Pool* pool;                                              // never destroyed: its threads outlive main
void start() { pool = new Pool; }
}  // namespace

void run_blocks(unsigned grid, unsigned workers, void (*body)(void*), void* context) {
    Job job{grid, body, context};
    if (workers > grid) workers = grid;
    if (workers <= 1) { job.work(); return; }
    static std::once_flag once;
    std::call_once(once, [] { start(); pthread_atfork(nullptr, nullptr, start); });
    pool->run(workers, job);
}
}}  // namespace jg::host
#endif
