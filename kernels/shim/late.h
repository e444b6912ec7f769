// A card that is as late as it may be: with SPLAT_SHIM_LATE=1, what is asked of it is done when the host waits for it, and no sooner. Who reads a result, or
// gives memory back to others, without having waited, then finds what was there before. Else everything is done at once. Included by cuda_shim.h.
#pragma once
#include <deque>
#include <functional>

namespace splat::shim {

using Job = std::function<void()>;

class Late {
 public:
  static Late &all() {
    static Late late;
    return late;
  }

  void put(Job job) {
    if (!is_late_) return job();
    jobs_.push_back(std::move(job));
  }
  uint64_t end() const { return done_ + jobs_.size(); }

  // Does what was put in before that place.
  void wait(uint64_t place) {
    while (done_ < place) {
      const Job job = std::move(jobs_.front());
      jobs_.pop_front();
      done_++;
      job();
    }
  }
  void wait() { wait(end()); }

 private:
  const bool is_late_ = getenv("SPLAT_SHIM_LATE") && !strcmp(getenv("SPLAT_SHIM_LATE"), "1");
  std::deque<Job> jobs_;
  uint64_t done_ = 0;
};

}  // namespace splat::shim
