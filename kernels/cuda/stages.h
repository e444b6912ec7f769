// Where time goes, by events on the stream. Off until asked for: an event costs a microsecond or two.
#pragma once
#include <string.h>

#include <vector>

#include "check.h"
#include "splat/splat.h"

namespace splat::gpu {

class Stages {
 public:
  ~Stages() {
    for (const Span &span : spans_) cudaEventDestroy(span.from), cudaEventDestroy(span.to);
  }

  bool is_on() const { return is_on_; }

  template <class Work> void run(SplatStage stage, cudaStream_t stream, Work work) {
    if (!is_on_) {
      work();
      check(cudaGetLastError(), "starting a kernel");
      return;
    }
    if (used_ == spans_.size()) {
      spans_.push_back(Span{});
      check(cudaEventCreate(&spans_.back().from), "creating an event");
      check(cudaEventCreate(&spans_.back().to), "creating an event");
    }
    Span &span = spans_[used_++];
    span.stage = stage;
    check(cudaEventRecord(span.from, stream), "recording an event");
    work();
    check(cudaGetLastError(), "starting a kernel");
    check(cudaEventRecord(span.to, stream), "recording an event");
  }

  void report(SplatProfile &out) {
    for (size_t i = 0; i < used_; i++) {
      float ms = 0.0f;
      check(cudaEventSynchronize(spans_[i].to), "waiting for an event");
      check(cudaEventElapsedTime(&ms, spans_[i].from, spans_[i].to), "reading an event");
      seconds_[spans_[i].stage] += 1e-3 * static_cast<double>(ms);
      calls_[spans_[i].stage]++;
    }
    used_ = 0;
    memcpy(out.cpu_s, seconds_, sizeof seconds_);
    memcpy(out.wall_s, seconds_, sizeof seconds_);
    memcpy(out.calls, calls_, sizeof calls_);
    out.n_evaluated = out.n_blended = 0;
    is_on_ = out.enable != 0;
    if (!out.reset) return;
    memset(seconds_, 0, sizeof seconds_);
    memset(calls_, 0, sizeof calls_);
  }

 private:
  struct Span {
    SplatStage stage;
    cudaEvent_t from, to;
  };
  std::vector<Span> spans_;
  size_t used_ = 0;
  bool is_on_ = false;
  double seconds_[SPLAT_STAGES] = {};
  int64_t calls_[SPLAT_STAGES] = {};
};

}  // namespace splat::gpu
