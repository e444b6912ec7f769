#include "context.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include <algorithm>

#include "../common/setup.h"
#include "finite.h"
#include "knn.h"
#include "match.h"

namespace splat {
namespace {

constexpr int PARTS_PER_THREAD = 4;

double seconds(clockid_t clock) {
  timespec t;
  clock_gettime(clock, &t);
  return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_nsec) * 1e-9;
}

// Adds what a scope took to one stage of a profile, if profiling is on.
class Meter {
 public:
  Meter(SplatProfile &profile, Pool &pool, SplatStage stage, bool is_serial = false)
      : profile_(profile), pool_(pool), stage_(stage), is_serial_(is_serial) {
    if (!profile_.enable) return;
    wall_ = seconds(CLOCK_MONOTONIC);
    pool_.cpu_seconds = pool_.simulated_seconds = 0.0;
    pool_.measuring = true;
    pool_.simulating = profile_.enable == SPLAT_PROFILE_SIMULATE;
    own_ = seconds(CLOCK_THREAD_CPUTIME_ID);
  }
  ~Meter() {
    if (!profile_.enable) return;
    const double own = seconds(CLOCK_THREAD_CPUTIME_ID) - own_;
    profile_.cpu_s[stage_] += is_serial_ || pool_.n_threads() == 1 ? own : pool_.cpu_seconds;
    if (pool_.simulating)
      profile_.wall_s[stage_] += is_serial_ ? own : pool_.simulated_seconds;
    else
      profile_.wall_s[stage_] += seconds(CLOCK_MONOTONIC) - wall_;
    profile_.calls[stage_] += !is_serial_;
    pool_.measuring = false;
    pool_.simulating = false;
  }

 private:
  SplatProfile &profile_;
  Pool &pool_;
  SplatStage stage_;
  bool is_serial_;  // the scope runs on this thread alone
  double wall_ = 0.0, own_ = 0.0;
};

int64_t quotient_up(int64_t a, int64_t b) { return (a + b - 1) / b; }

}  // namespace

Context::Context(const SplatContextOptions &options)
    : pool_(options.n_threads ? options.n_threads : usable_cores()), table_(find_isa(options.isa, &isa_)) {
  if (!table_)
    refuse(SPLAT_UNSUPPORTED, "this machine or this build has no %s", options.isa == SPLAT_ISA_AVX512 ? "AVX-512 (Ice Lake level)" : "AVX2");
  frame_.grow = grow;
  frame_.owner = this;
  scratch_.reserve(SCRATCH_BYTES * static_cast<size_t>(pool_.n_threads()));
}

void Context::run(SplatStage stage, FramePass pass, int64_t n) {
  struct Shared {
    FramePass pass;
    Frame *frame;
    char *scratch;
  } shared{pass, &frame_, static_cast<char *>(scratch_.reserve(1))};
  const Meter meter(profile_, pool_, stage);
  pool_.run(
      n,
      [](void *p, int64_t i, int thread) {
        const Shared &s = *static_cast<Shared *>(p);
        s.pass(s.frame, i, s.scratch + SCRATCH_BYTES * static_cast<size_t>(thread));
      },
      &shared);
}

void Context::run(SplatStage stage, LossPass pass, int64_t n, LossJob *job) {
  struct Shared {
    LossPass pass;
    LossJob *job;
    char *scratch;
  } shared{pass, job, static_cast<char *>(scratch_.reserve(1))};
  const Meter meter(profile_, pool_, stage);
  pool_.run(
      n,
      [](void *p, int64_t i, int thread) {
        const Shared &s = *static_cast<Shared *>(p);
        s.pass(s.job, i, s.scratch + SCRATCH_BYTES * static_cast<size_t>(thread));
      },
      &shared);
}

// Called by a projecting task when its part is full. Only that task touches the part; memory is asked for without locks of ours.
bool Context::grow(Frame *frame, int part, int64_t capacity) {
  Context &self = *static_cast<Context *>(frame->owner);
  Part &p = self.parts_[static_cast<size_t>(part)];
  Buffer &buffer = *self.part_items_[static_cast<size_t>(part)];
  try {
    const size_t kept = sizeof(Instance) * static_cast<size_t>(p.capacity);
    p.items = static_cast<Instance *>(buffer.extend(sizeof(Instance) * static_cast<size_t>(capacity + capacity / 2 + 1024), kept));
  } catch (const OutOfMemory &e) {
    self.failed_bytes_ = e.bytes;  // any part's number will do
    return false;
  }
  p.capacity = static_cast<int64_t>(buffer.size() / sizeof(Instance));
  return true;
}

void Context::check_rows_finite(int64_t n) const {
  int64_t row = n;
  for (int64_t c = 0; c < frame_.n_chunks; c++) {
    if (frame_.chunk_bad[c] < 0) continue;
    row = frame_.chunk_bad[c];
    break;
  }
  if (row == n) return;
  refuse_row(row, frame_.params + SPLAT_ROW * row);
}

// Shares the chunks out, each part with its own instances and its own count of every tile's.
void Context::make_parts() {
  Frame &f = frame_;
  const int n_threads = pool_.n_threads();
  f.n_parts = n_threads == 1 ? 1 : static_cast<int>(std::clamp<int64_t>(f.n_chunks / 2, 1, PARTS_PER_THREAD * n_threads));
  while (part_items_.size() < static_cast<size_t>(f.n_parts)) {
    part_items_.push_back(std::make_unique<Buffer>());
    parts_.push_back(Part{});
  }
  f.parts = parts_.data();
  for (int i = 0; i < f.n_parts; i++) {
    f.parts[i].used = 0;
    f.parts[i].begin = f.n_chunks * i / f.n_parts;
    f.parts[i].end = f.n_chunks * (i + 1) / f.n_parts;
  }
  f.part_counts = part_counts_.of<uint32_t>(int64_t(f.n_parts) * f.n_tiles);
  f.tile_begin = tile_begin_.of<uint32_t>(f.n_tiles + 1);
  failed_bytes_ = 0;
}

// From the parts' counts, where each tile's list begins and where in it each part's instances go; then puts them there, sorted by depth.
void Context::list_tiles() {
  count_tiles();
  run(SPLAT_STAGE_BIN, table_->place, frame_.n_parts);
  run(SPLAT_STAGE_SORT, table_->sort, frame_.n_tiles);
}

void Context::count_tiles() {
  const Meter meter(profile_, pool_, SPLAT_STAGE_BIN, true);
  Frame &f = frame_;
  uint64_t slots = 0;
  for (int part = 0; part < f.n_parts; part++) {
    f.parts[part].first_slot = static_cast<int64_t>(slots);
    slots += static_cast<uint64_t>(f.parts[part].used);
  }
  if (slots >= UINT32_MAX) throw OutOfMemory{static_cast<size_t>(slots) * 64};
  uint32_t sum = 0, longest = 0;
  for (int tile = 0; tile < f.n_tiles; tile++) {
    f.tile_begin[tile] = sum;
    for (int part = 0; part < f.n_parts; part++) {
      uint32_t &count = f.part_counts[int64_t(part) * f.n_tiles + tile];
      const uint32_t here = count;
      count = sum;
      sum += here;
    }
    longest = std::max(longest, sum - f.tile_begin[tile]);
  }
  f.tile_begin[f.n_tiles] = sum;
  f.n_instances = sum;
  f.unsorted = unsorted_.of<Unsorted>(f.n_instances + 1);
  f.words = longest > SORT_IN_SCRATCH ? words_.of<DepthWord>(2 * f.n_instances) : nullptr;
  f.list = list_.of<uint32_t>(f.n_instances + 1);
  f.list_slot = list_slot_.of<uint32_t>(f.n_instances + 1);
  f.list_blocks = list_blocks_.of<uint64_t>(f.n_instances + 1);
}

void Context::forward(SplatForwardArgs &args) {
  has_frame_ = false;
  Frame &f = frame_;
  f.n = args.n;
  f.params = args.params;
  f.camera = args.camera;
  set_camera_position(args.camera, f.camera_position);
  for (int i = 0; i < 3; i++) f.background[i] = args.background[i];
  f.dilation = args.dilation;
  f.degree = args.sh_degree;
  f.image = args.image;
  f.transmittance = args.transmittance;
  f.n_chunks = quotient_up(f.n, CHUNK);
  const int64_t places = f.n_chunks * CHUNK;
  f.records = records_.of<Record>(places + 1);
  f.tails = tails_.of<Tail>(places + 1);
  f.keys = keys_.of<uint32_t>(places + 1);
  f.chunk_count = chunk_count_.of<int32_t>(f.n_chunks + 1);
  f.chunk_slot = chunk_slot_.of<uint32_t>(f.n_chunks + 1);
  f.chunk_bad = chunk_bad_.of<int64_t>(f.n_chunks + 1);
  f.tiles_x = (args.camera.width + TILE - 1) / TILE;
  f.tiles_y = (args.camera.height + TILE - 1) / TILE;
  f.n_tiles = f.tiles_x * f.tiles_y;
  f.state = state_.of<float>(int64_t(f.n_tiles) * STATE);
  f.stops = stops_.of<uint32_t>(int64_t(f.n_tiles) * BLOCKS * 4);

  make_parts();
  run(SPLAT_STAGE_PROJECT, table_->project, f.n_parts);
  if (failed_bytes_) throw OutOfMemory{failed_bytes_};
  check_rows_finite(f.n);
  int64_t n_visible = 0;
  for (int64_t c = 0; c < f.n_chunks; c++) n_visible += f.chunk_count[c];
  list_tiles();
  run(SPLAT_STAGE_FORWARD, table_->forward, f.n_tiles);
  args.n_visible = n_visible;
  args.n_instances = f.n_instances;
  has_frame_ = true;
  is_stepped_ = false;
}

void Context::check_frame(int64_t n, const char *call) const {
  require_frame(has_frame_, n, frame_.n, call);
}

void Context::check_unstepped(const char *call) const {
  require_unstepped(is_stepped_, call);
}

void Context::check_pixels(const float *grad_image, const float *grad_transmittance) {
  const int64_t width = frame_.camera.width, height = frame_.camera.height;
  check_finite(pool_, "grad_image", grad_image, {3, height, width});
  check_finite(pool_, "grad_transmittance", grad_transmittance, {0, height, width});
}

// What the optimiser keeps is as large as the model, and after the first step it is our own: looked at when its place or size is new. Should it
// ever overflow here, then so do the rows, which every forward looks at.
void Context::check_state(const SplatBackwardAdamArgs &args) {
  if (args.n == known_.n && args.moment1 == known_.moment1 && args.moment2 == known_.moment2 && args.density == known_.density) return;
  check_finite(pool_, "moment1", args.moment1, {0, args.n, SPLAT_ROW});
  check_finite(pool_, "moment2", args.moment2, {0, args.n, SPLAT_ROW});
  check_finite(pool_, "density", args.density, {0, args.n, SPLAT_DENSITY});
  known_ = {args.n, args.moment1, args.moment2, args.density};
}

// The tiles' sums by instance.
void Context::spread() {
  frame_.slots = slots_.of<float>(16 * frame_.n_instances + 32);
  run(SPLAT_STAGE_BACKWARD, table_->backward, frame_.n_tiles);
}

void Context::backward(const SplatBackwardArgs &args) {
  check_frame(args.n, "splat_backward");
  check_unstepped("splat_backward");
  check_pixels(args.grad_image, args.grad_transmittance);
  check_finite(pool_, "density", args.density, {0, args.n, SPLAT_DENSITY});
  Frame &f = frame_;
  f.params = args.params;
  f.grad_image = args.grad_image;
  f.grad_transmittance = args.grad_transmittance;
  f.grad_params = args.grad_params;
  f.out_params = nullptr;
  f.density = args.density;
  f.adam = Adam{};
  spread();
  run(SPLAT_STAGE_GRADIENT, table_->gradient, f.n_chunks);
}

void Context::backward_adam(const SplatBackwardAdamArgs &args) {
  check_frame(args.n, "splat_backward_adam");
  check_unstepped("splat_backward_adam");
  check_pixels(args.grad_image, args.grad_transmittance);
  check_state(args);
  Frame &f = frame_;
  f.params = args.params;
  f.grad_image = args.grad_image;
  f.grad_transmittance = args.grad_transmittance;
  f.grad_params = nullptr;
  f.out_params = args.params;
  f.density = args.density;
  Adam &a = f.adam;
  a = Adam{};
  a.moment1 = args.moment1, a.moment2 = args.moment2, a.last_step = args.last_step;
  set_rates(args, a);
  spread();
  is_stepped_ = true;
  run(SPLAT_STAGE_GRADIENT, table_->gradient, f.n_chunks);
}

void Context::contribution(const SplatContributionArgs &args) {
  check_frame(args.n, "splat_contribution");
  Frame &f = frame_;
  check_finite(pool_, "weight_map", args.weight_map, {0, f.camera.height, f.camera.width});
  check_finite(pool_, "sums", args.sums, {0, args.n, 1});
  check_finite(pool_, "peaks", args.peaks, {0, args.n, 1});
  f.weight_map = args.weight_map;
  f.sums = args.sums;
  f.peaks = args.peaks;
  f.slots = slots_.of<float>(2 * f.n_instances + 16);
  f.evaluated = counters_.of<uint64_t>(2 * int64_t(f.n_tiles));
  f.blended = f.evaluated + f.n_tiles;
  run(SPLAT_STAGE_CONTRIBUTION, table_->contribution, f.n_tiles);
  run(SPLAT_STAGE_CONTRIBUTION, table_->gather_contribution, f.n_chunks);
  profile_.n_evaluated = profile_.n_blended = 0;
  for (int tile = 0; tile < f.n_tiles; tile++) profile_.n_evaluated += f.evaluated[tile], profile_.n_blended += f.blended[tile];
}

void Context::loss(SplatLossArgs &args) {
  LossJob job{};
  job.width = args.width, job.height = args.height;
  job.ssim_weight = args.ssim_weight;
  job.image = args.image;
  job.target = args.target, job.mask = args.mask;
  job.grad_image = args.grad_image, job.error_map = args.error_map;
  // Sizes of tasks depend on the image alone: the order of sums, so the result's bits, must not change with the number of threads.
  const int64_t strips = quotient_up(args.width, 240), bands = std::max(1, args.height / 120);
  job.strip = static_cast<int32_t>(quotient_up(quotient_up(args.width, strips), 16) * 16);
  job.band = static_cast<int32_t>(quotient_up(args.height, bands));
  job.n_strips = static_cast<int32_t>(quotient_up(args.width, job.strip));
  job.n_bands = static_cast<int32_t>(quotient_up(args.height, job.band));
  job.channels_per_task = args.error_map ? 3 : 1;
  job.stride = quotient_up(args.width, 16) * 16 + 64;
  set_ssim_window(job.window);

  Targets::Planes &planes = targets_.find(args.target_key, args.width, args.height, args.mask != nullptr);
  const int64_t cells = 3 * int64_t(args.height) * job.stride + 64;
  job.y = planes.y.of<uint8_t>(cells);
  job.mean_y = planes.mean_y.of<float>(cells);
  job.square_y = planes.square_y.of<float>(cells);
  if (!planes.ready) {
    const int64_t pixels = int64_t(args.width) * args.height;
    planes.width = args.width, planes.height = args.height, planes.masked = args.mask != nullptr;
    planes.n_masked = args.mask ? pixels - std::count(args.mask, args.mask + pixels, uint8_t(0)) : pixels;
    memset(job.mean_y, 0, sizeof(float) * static_cast<size_t>(cells));
    memset(job.square_y, 0, sizeof(float) * static_cast<size_t>(cells));
    run(SPLAT_STAGE_TARGET, table_->target, int64_t(3) * job.n_strips * job.n_bands, &job);
    planes.ready = args.target_key != 0;
    targets_.trim();
  }
  const double count = 3.0 * static_cast<double>(planes.n_masked);
  job.inverse_count = count > 0 ? static_cast<float>(1.0 / count) : 0.0f;
  const int64_t tasks = int64_t(3 / job.channels_per_task) * job.n_strips * job.n_bands;
  job.sums = static_cast<double(*)[3]>(loss_sums_.reserve(sizeof(double[3]) * static_cast<size_t>(tasks)));
  run(SPLAT_STAGE_LOSS, table_->loss, tasks, &job);
  double sums[3] = {0, 0, 0};
  for (int64_t i = 0; i < tasks; i++)
    for (int k = 0; k < 3; k++) sums[k] += job.sums[i][k];
  if (!isfinite(sums[0] + sums[2])) {  // every pixel is in these, also where the mask is 0
    check_finite(pool_, "image", args.image, {3, args.height, args.width});
    refuse(SPLAT_NON_FINITE, "image: its finite values overflow when they are squared");
  }
  args.l1 = count > 0 ? sums[0] / count : 0.0;
  args.ssim = count > 0 ? sums[1] / count : 1.0;
  args.mse = count > 0 ? sums[2] / count : 0.0;
}

void Context::knn(const SplatKnnArgs &args) { nearest_neighbours(pool_, args); }

void Context::match(const SplatMatchArgs &args) { match_descriptors(pool_, *table_, args); }

void Context::profile(SplatProfile &out) {
  const uint32_t size = out.struct_size;
  const int32_t enable = out.enable, reset = out.reset;
  out = profile_;
  out.struct_size = size;
  out.enable = enable, out.reset = reset;
  if (reset) profile_ = SplatProfile{};
  profile_.enable = enable;
}

void Context::set_stream(const SplatStreamArgs &args) {
  if (args.stream || !args.waits) refuse(SPLAT_UNSUPPORTED, "the CPU has no streams: every call returns when its work is done");
}

double Context::calibrate() const {
  double best = 0.0;
  for (int i = 0; i < 5; i++) {
    const double begin = seconds(CLOCK_THREAD_CPUTIME_ID);
    const double done = table_->spin(1000000);
    best = std::max(best, done / (seconds(CLOCK_THREAD_CPUTIME_ID) - begin));
  }
  return best;
}

void Context::info(SplatContextInfo &out) const {
  out.abi_version = SPLAT_ABI_VERSION;
  out.n_threads = pool_.n_threads();
  out.isa = isa_;
  size_t bytes = targets_.bytes();
  for (const Buffer *b : {&records_, &tails_, &keys_, &chunk_count_, &chunk_slot_, &chunk_bad_, &part_counts_, &tile_begin_, &unsorted_, &words_, &list_,
                          &list_slot_, &list_blocks_, &state_, &stops_, &slots_, &counters_, &loss_sums_, &scratch_})
    bytes += b->size();
  for (const auto &b : part_items_) bytes += b->size();
  out.workspace_bytes = bytes;
  out.on_card = 0;
  snprintf(out.name, sizeof out.name, "%s", table_->name);
}

}  // namespace splat
