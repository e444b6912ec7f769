// The threads of one context: tasks are numbers, handed out by a counter; results must not depend on who takes which.
#pragma once
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <thread>
#include <vector>

namespace splat {

// Cores this process may run on.
int usable_cores();

class Pool {
 public:
  using Task = void (*)(void *shared, int64_t index, int thread);

  explicit Pool(int n_threads);
  ~Pool();
  Pool(const Pool &) = delete;
  Pool &operator=(const Pool &) = delete;

  int n_threads() const { return static_cast<int>(workers_.size()) + 1; }

  // Runs task(shared, i, thread) for every i in [0, n), on this thread (number 0) and the workers; returns when all are done.
  void run(int64_t n, Task task, void *shared);

  // While measuring, run() adds every thread's CPU seconds here.
  std::atomic<bool> measuring{false};
  double cpu_seconds = 0.0;

  // While simulating, this thread runs every task, and run() adds what the schedule would take if each thread had a core of its own.
  bool simulating = false;
  double simulated_seconds = 0.0;

 private:
  void work(int thread);
  void take_tasks(int thread);
  void simulate(int64_t n, Task task, void *shared);

  std::vector<std::thread> workers_;
  std::mutex mutex_;
  std::condition_variable wake_;
  std::atomic<uint64_t> round_{0};
  std::atomic<int64_t> left_{0};
  std::atomic<int64_t> done_{0};
  std::atomic<int64_t> cpu_ns_{0};
  std::atomic<bool> stop_{false};
  int64_t count_ = 0;
  Task task_ = nullptr;
  void *shared_ = nullptr;
};

}  // namespace splat
