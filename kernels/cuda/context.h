// One context: a card, a stream, workspaces, and the frame that a forward pass leaves for the backward ones.
#pragma once
#include <map>
#include <utility>

#include "kernels.h"
#include "memory.h"
#include "stages.h"

namespace splat {

class Context {
 public:
  explicit Context(const SplatContextOptions &options);
  ~Context();

  void forward(SplatForwardArgs &args);
  void loss(SplatLossArgs &args);
  void backward(const SplatBackwardArgs &args);
  void backward_adam(const SplatBackwardAdamArgs &args);
  void contribution(const SplatContributionArgs &args);
  void match(SplatMatchArgs &args);
  void knn(const SplatKnnArgs &args);
  void profile(SplatProfile &out) { stages_.report(out); }
  double calibrate() const;
  void info(SplatContextInfo &out) const;
  void set_stream(const SplatStreamArgs &args);

 private:
  void set_camera(const SplatForwardArgs &args);
  void reserve_gaussians(int64_t n);
  void reserve_tiles();
  void reserve_instances(int64_t listed);
  void sort_by_depth();
  void sort_by_tile();
  void clear_counters();
  void read_counters();
  void settle();
  void check_counters(const float *params, int64_t n);
  void check_finite(const char *name, const float *values, const Shape &shape);
  void check_pixels(const float *grad_image, const float *grad_transmittance);
  void check_state(const SplatBackwardAdamArgs &args);
  void finish(const char *doing);
  void use_card() const;
  void check_frame(int64_t n, const char *call) const;
  void check_unstepped(const char *call) const;
  void begin_backward(const float *params, const float *grad_image, const float *grad_transmittance, float *density);

  int device_;
  char name_[64];
  gpu::Queue queue_;
  bool waits_ = true;
  bool is_pending_ = false;   // counters of the last frame are on their way
  bool has_frame_ = false;
  bool is_stepped_ = false;   // parameters have changed since the forward
  gpu::Frame frame_{};
  gpu::Stages stages_;
  gpu::Pinned<gpu::Counters> seen_;
  gpu::Pinned<gpu::LossSums> sums_;
  cudaEvent_t arrived_ = nullptr, loss_arrived_ = nullptr, queued_ = nullptr;
  bool has_loss_ = false, has_queued_ = false;
  const float *checked_params_ = nullptr;
  struct Room {               // for instances, in pictures of one size with this many gaussians
    uint64_t needed = 0, listed = 0;  // by the last such frame; as large as its lists were
  };
  std::map<std::pair<int, int>, Room> rooms_;
  struct Sizes {              // of the sorts' temporary memory, in bytes, for what it was asked
    int64_t n = -1, listed = -1;
    int n_tiles = -1;
    size_t by_depth = 0, sum = 0, by_tile = 0;
  } sizes_;
  int64_t numbered_ = 0;      // places for instances that have been numbered
  struct Known {              // arrays looked at before
    int64_t n = -1;
    const void *moment1 = nullptr, *moment2 = nullptr, *density = nullptr;
  } known_;

  gpu::Buffer counters_, records_, keys_, keys_sorted_, ids_, order_, n_touched_, offsets_, first_, temp_, tile_temp_;
  gpu::Buffer owner_, numbers_, instances_, masks_, tile_keys_, tile_keys_sorted_, tiles_, checkpoints_, finals_, stops_, slots_;
  gpu::Buffer by_mean_, by_square_, by_product_, partial_, total_, bad_;
};

}  // namespace splat
