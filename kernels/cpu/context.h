// One context: threads, workspaces, and the frame that a forward pass leaves for the backward ones.
#pragma once
#include <memory>
#include <vector>

#include "../common/refusal.h"
#include "dispatch.h"
#include "memory.h"
#include "pool.h"
#include "targets.h"
#include "types.h"

namespace splat {

class Context {
 public:
  explicit Context(const SplatContextOptions &options);

  void forward(SplatForwardArgs &args);
  void loss(SplatLossArgs &args);
  void backward(const SplatBackwardArgs &args);
  void backward_adam(const SplatBackwardAdamArgs &args);
  void contribution(const SplatContributionArgs &args);
  void knn(const SplatKnnArgs &args);
  void match(const SplatMatchArgs &args);
  void profile(SplatProfile &out);
  void set_stream(const SplatStreamArgs &args);
  double calibrate() const;
  void info(SplatContextInfo &out) const;

 private:
  using FramePass = void (*)(Frame *, int64_t, void *);
  using LossPass = void (*)(LossJob *, int64_t, void *);

  void run(SplatStage stage, FramePass pass, int64_t n);
  void run(SplatStage stage, LossPass pass, int64_t n, LossJob *job);
  void make_parts();
  void list_tiles();
  void count_tiles();
  void check_frame(int64_t n, const char *call) const;
  void check_unstepped(const char *call) const;
  void check_rows_finite(int64_t n) const;
  void check_pixels(const float *grad_image, const float *grad_transmittance);
  void check_state(const SplatBackwardAdamArgs &args);
  void spread();
  static bool grow(Frame *frame, int part, int64_t capacity);

  Pool pool_;
  const IsaTable *table_;
  int isa_;
  Frame frame_{};
  bool has_frame_ = false;
  bool is_stepped_ = false;  // parameters have changed since the forward
  struct {
    int64_t n;
    const float *moment1, *moment2, *density;
  } known_{};                // arrays that have been looked at
  size_t failed_bytes_ = 0;  // what a part could not grow to
  Targets targets_;
  std::vector<Part> parts_;
  std::vector<std::unique_ptr<Buffer>> part_items_;
  Buffer records_, tails_, keys_, chunk_count_, chunk_slot_, chunk_bad_, part_counts_, tile_begin_, unsorted_, words_, list_, list_slot_,
      list_blocks_, state_, stops_, slots_, counters_, loss_sums_, scratch_;
  SplatProfile profile_{};
};

}  // namespace splat
