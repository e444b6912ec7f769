#include "pool.h"

#include <sched.h>
#include <time.h>

#include <algorithm>

#if defined(__SSE2__)
#include <immintrin.h>
#endif

namespace splat {
namespace {

constexpr int SPIN_NS = 30000;  // about two fork-joins: between the passes of a step workers never sleep, between steps they may

void pause_core() {
#if defined(__SSE2__)
  _mm_pause();
#elif defined(__aarch64__)
  __asm__ volatile("yield");
#endif
}

int64_t now_ns(clockid_t clock) {
  timespec t;
  clock_gettime(clock, &t);
  return int64_t(t.tv_sec) * 1000000000 + t.tv_nsec;
}

// Numbers too small to be normal cost a hundred cycles each and mean nothing here: they count as zero while a pass runs.
class FlushDenormals {
 public:
#if defined(__SSE2__)
  FlushDenormals() : saved_(_mm_getcsr()) { _mm_setcsr(saved_ | 0x8040); }
  ~FlushDenormals() { _mm_setcsr(saved_); }

 private:
  unsigned saved_;
#elif defined(__aarch64__)
  FlushDenormals() {
    __asm__ volatile("mrs %0, fpcr" : "=r"(saved_));
    __asm__ volatile("msr fpcr, %0" ::"r"(saved_ | 1u << 24));
  }
  ~FlushDenormals() { __asm__ volatile("msr fpcr, %0" ::"r"(saved_)); }

 private:
  uint64_t saved_;
#else
  FlushDenormals() {}
#endif
};

}  // namespace

int usable_cores() {
#if defined(__linux__)
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof set, &set) == 0) return CPU_COUNT(&set);
#endif
  const unsigned all = std::thread::hardware_concurrency();
  return all ? static_cast<int>(all) : 1;
}

Pool::Pool(int n_threads) {
  for (int i = 1; i < n_threads; i++) workers_.emplace_back([this, i] { work(i); });
}

Pool::~Pool() {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    stop_ = true;
    round_++;
  }
  wake_.notify_all();
  for (auto &worker : workers_) worker.join();
}

// A task is taken by counting down, so one number says both whether any is left and which it is. Who got one may read count_, task_ and
// shared_: run() cannot leave, and change them, before that task is reported done.
void Pool::take_tasks(int thread) {
  const FlushDenormals flush;
  const int64_t begin = measuring ? now_ns(CLOCK_THREAD_CPUTIME_ID) : 0;
  int64_t finished = 0;
  for (int64_t left; (left = left_.fetch_sub(1, std::memory_order_acq_rel)) > 0; finished++) task_(shared_, count_ - left, thread);
  if (!finished) return;
  if (measuring) cpu_ns_ += now_ns(CLOCK_THREAD_CPUTIME_ID) - begin;
  done_.fetch_add(finished, std::memory_order_release);
}

// As take_tasks() hands them out: in their order, each to the thread that is free first.
void Pool::simulate(int64_t n, Task task, void *shared) {
  const FlushDenormals flush;
  std::vector<int64_t> busy_until(static_cast<size_t>(n_threads()), 0);
  const int64_t begin = now_ns(CLOCK_THREAD_CPUTIME_ID);
  int64_t before = begin;
  for (int64_t i = 0; i < n; i++) {
    task(shared, i, 0);
    const int64_t after = now_ns(CLOCK_THREAD_CPUTIME_ID);
    *std::min_element(busy_until.begin(), busy_until.end()) += after - before;
    before = after;
  }
  cpu_seconds += static_cast<double>(before - begin) * 1e-9;
  simulated_seconds += static_cast<double>(*std::max_element(busy_until.begin(), busy_until.end())) * 1e-9;
}

void Pool::run(int64_t n, Task task, void *shared) {
  if (n <= 0) return;
  if (simulating) {
    simulate(n, task, shared);
    return;
  }
  count_ = n;
  task_ = task;
  shared_ = shared;
  cpu_ns_ = 0;
  done_.store(0, std::memory_order_relaxed);
  left_.store(n, std::memory_order_release);
  if (!workers_.empty() && n > 1) {
    {
      std::lock_guard<std::mutex> lock(mutex_);  // so that no worker goes to sleep between its look and the bell
      round_.fetch_add(1, std::memory_order_release);
    }
    wake_.notify_all();
  }
  take_tasks(0);
  const int64_t until = now_ns(CLOCK_MONOTONIC) + SPIN_NS;
  while (done_.load(std::memory_order_acquire) != n) {
    if (now_ns(CLOCK_MONOTONIC) > until)
      sched_yield();
    else
      pause_core();
  }
  if (measuring) cpu_seconds += static_cast<double>(cpu_ns_) * 1e-9;
}

void Pool::work(int thread) {
  uint64_t seen = 0;
  while (true) {
    const int64_t until = now_ns(CLOCK_MONOTONIC) + SPIN_NS;
    while (round_.load(std::memory_order_acquire) == seen && now_ns(CLOCK_MONOTONIC) < until) pause_core();
    if (round_.load(std::memory_order_acquire) == seen) {
      std::unique_lock<std::mutex> lock(mutex_);
      wake_.wait(lock, [&] { return round_.load() != seen; });
    }
    seen = round_.load(std::memory_order_acquire);
    if (stop_) return;
    take_tasks(thread);
  }
}

}  // namespace splat
