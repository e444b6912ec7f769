#include "context.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include <algorithm>

#include "../common/setup.h"

namespace splat {

using namespace gpu;

namespace {

constexpr uint64_t MOST_INSTANCES = 0xfffffff0u;  // list positions have 32 bits

int bits_for(int n) {  // so that no tile's number is all ones, which marks the unused end of the list
  int bits = 1;
  while ((int64_t(1) << bits) <= n) bits++;
  return bits;
}

// The card's number, if there is such a card: asked before anything of ours touches it.
int existing(int device) {
  int count = 0;
  if (cudaGetDeviceCount(&count) != cudaSuccess || device < 0 || device >= count) {
    cudaGetLastError();
    refuse(SPLAT_UNSUPPORTED, "there is no CUDA card %d here: %d were found", device, count);
  }
  return device;
}

}  // namespace

void gpu::check(cudaError_t error, const char *doing) {
  if (error != cudaSuccess) refuse(SPLAT_INTERNAL, "%s failed on the card: %s", doing, cudaGetErrorString(error));
}

Context::Context(const SplatContextOptions &options) : device_(existing(options.device)) {
  check(cudaSetDevice(device_), "choosing the card");
  cudaDeviceProp properties;
  check(cudaGetDeviceProperties(&properties, device_), "asking for the card's properties");
  snprintf(name_, sizeof name_, "%s", properties.name);
  check(cudaEventCreate(&arrived_), "creating an event");
  check(cudaEventCreate(&loss_arrived_), "creating an event");
  *seen_ = Counters{0, 0, NONE, NONE};
  *sums_ = LossSums{};
}

Context::~Context() {
  cudaEventDestroy(arrived_);
  cudaEventDestroy(loss_arrived_);
}

void Context::set_stream(const SplatStreamArgs &args) {
  settle();
  stream_ = static_cast<cudaStream_t>(args.stream);
  waits_ = args.waits != 0;
}

void Context::set_camera(const SplatForwardArgs &args) {
  Frame &f = frame_;
  f.lens = make_lens(args.camera, args.dilation);
  f.near_plane = args.camera.near_plane, f.far_plane = args.camera.far_plane;
  set_camera_position(args.camera, f.camera_position);
  memcpy(f.background, args.background, sizeof f.background);
  f.degree = args.sh_degree;
  f.width = args.camera.width, f.height = args.camera.height;
  f.tiles_x = (f.width + TILE - 1) / TILE, f.tiles_y = (f.height + TILE - 1) / TILE;
  f.n_tiles = f.tiles_x * f.tiles_y;
}

void Context::reserve_gaussians(int64_t n) {
  Frame &f = frame_;
  f.n = n;
  f.counters = counters_.of<Counters>(1);
  f.records = records_.of<Record>(n);
  f.keys = keys_.of<uint32_t>(n), f.keys_sorted = keys_sorted_.of<uint32_t>(n);
  f.ids = ids_.of<uint32_t>(n), f.order = order_.of<uint32_t>(n);
  f.n_touched = n_touched_.of<uint32_t>(n);
  f.offsets = offsets_.of<uint64_t>(n + 1), f.first = first_.of<uint64_t>(n);
}

void Context::reserve_tiles() {
  Frame &f = frame_;
  f.tile_begin = tile_begin_.of<uint32_t>(f.n_tiles), f.tile_end = tile_end_.of<uint32_t>(f.n_tiles);
  f.finals = finals_.of<float4>(int64_t(f.n_tiles) * TILE_PIXELS);
  f.stops = stops_.of<uint32_t>(int64_t(f.n_tiles) * REGIONS);
}

// Room for `listed` instances and what goes with them.
void Context::reserve_instances(int64_t listed) {
  Frame &f = frame_;
  f.listed = listed;
  uint32_t *numbers = numbers_.of<uint32_t>(listed);
  if (listed > numbered_) {
    numbered_ = static_cast<int64_t>(numbers_.size() / sizeof(uint32_t));
    count_up(numbers, numbered_, stream_);
  }
  f.owner = owner_.of<uint32_t>(listed);
  f.instances = instances_.of<uint32_t>(listed);
  f.masks = masks_.of<uint8_t>(listed);
  tile_keys_.of<uint32_t>(listed), tile_keys_sorted_.of<uint32_t>(listed);
  f.n_buckets = listed / BUCKET + f.n_tiles;
  f.bucket_tile = bucket_tile_.of<uint32_t>(f.n_buckets);
  f.checkpoints = checkpoints_.of<float4>(f.n_buckets * TILE_PIXELS);
  f.slots = slots_.of<float4>(listed * SLOT);
}

void Context::sort_by_depth() {
  Frame &f = frame_;
  SortTemp sort{nullptr, 0}, sum{nullptr, 0};
  sort_depths(sort, f.keys, f.keys_sorted, f.ids, f.order, f.n, stream_);
  sum_before(sum, f.offsets, f.n + 1, stream_);
  sort.memory = sum.memory = temp_.of<char>(static_cast<int64_t>(std::max(sort.bytes, sum.bytes)));
  sort_depths(sort, f.keys, f.keys_sorted, f.ids, f.order, f.n, stream_);
  counts_by_depth(f, stream_);
  sum_before(sum, f.offsets, f.n + 1, stream_);
  count_instances(f, stream_);
}

// Instances of all tiles in order. The unused end of the list has keys that no tile has.
void Context::sort_by_tile() {
  Frame &f = frame_;
  const bool is_short = has_short_keys(f.n_tiles);
  const size_t key_bytes = is_short ? sizeof(uint16_t) : sizeof(uint32_t);
  void *keys = tile_keys_.of<char>(1), *sorted = tile_keys_sorted_.of<char>(1);
  const uint32_t *numbers = numbers_.of<uint32_t>(1);
  uint32_t *instances = instances_.of<uint32_t>(1);
  check(cudaMemsetAsync(keys, 0xff, key_bytes * static_cast<size_t>(f.listed), stream_), "clearing keys");
  emit(f, keys, stream_);
  SortTemp temp{nullptr, 0};
  const int bits = bits_for(f.n_tiles);
  sort_tiles(temp, is_short, keys, sorted, numbers, instances, f.listed, bits, stream_);
  temp.memory = temp_.of<char>(static_cast<int64_t>(temp.bytes));
  sort_tiles(temp, is_short, keys, sorted, numbers, instances, f.listed, bits, stream_);
  check(cudaMemsetAsync(f.tile_begin, 0, sizeof(uint32_t) * static_cast<size_t>(f.n_tiles), stream_), "clearing tiles");
  check(cudaMemsetAsync(f.tile_end, 0, sizeof(uint32_t) * static_cast<size_t>(f.n_tiles), stream_), "clearing tiles");
  check(cudaMemsetAsync(f.bucket_tile, 0xff, sizeof(uint32_t) * static_cast<size_t>(f.n_buckets), stream_), "clearing buckets");
  find_ranges(f, sorted, stream_);
}

// By filling, not by copying: a copy from the stack may wait for the stream.
void Context::clear_counters() {
  check(cudaMemsetAsync(&frame_.counters->n_instances, 0, 2 * sizeof(unsigned long long), stream_), "clearing counts");
  check(cudaMemsetAsync(&frame_.counters->bad_row, 0xff, 2 * sizeof(unsigned long long), stream_), "clearing counts");
}

void Context::read_counters() {
  check(cudaMemcpyAsync(seen_.get(), frame_.counters, sizeof(Counters), cudaMemcpyDeviceToHost, stream_), "reading counts");
  check(cudaEventRecord(arrived_, stream_), "recording an event");
  is_pending_ = true;
}

// Waits for the counts of the last frame, if they are still on their way.
void Context::settle() {
  if (!is_pending_) return;
  check(cudaEventSynchronize(arrived_), "a kernel");
  is_pending_ = false;
}

void Context::check_counters() {
  const Counters &c = *seen_;
  if (c.bad_row != NONE) {
    const long long row = static_cast<long long>(c.bad_row);
    has_frame_ = false;
    float values[SPLAT_ROW];
    const float *from = checked_params_ + SPLAT_ROW * row;
    check(cudaMemcpyAsync(values, from, sizeof values, cudaMemcpyDeviceToHost, stream_), "reading a row");
    check(cudaStreamSynchronize(stream_), "reading a row");
    refuse_row(row, values);
  }
  if (c.bad_value != NONE) {
    has_frame_ = false;
    refuse(SPLAT_NON_FINITE, "grad_image of the step before holds a value that is not finite, at place %llu; that step was not taken", c.bad_value);
  }
  if (c.n_instances > MOST_INSTANCES) {
    has_frame_ = false;
    throw OutOfMemory{static_cast<size_t>(c.n_instances) * SLOT * sizeof(float4)};
  }
}

// Without waiting, room is made for a quarter more instances than the last frame had, and for as many as any frame of this size had; a frame that has
// still more changes nothing. Where pictures or gaussians have become others in number, the count is waited for: it would be a guess.
void Context::forward(SplatForwardArgs &args) {
  use_card();
  if (is_pending_) {
    settle();
    check_counters();
  }
  has_frame_ = false;
  Frame &f = frame_;
  const bool is_like_the_last = args.n == f.n && args.camera.width == f.width && args.camera.height == f.height;
  most_instances_ = is_like_the_last ? std::max<uint64_t>(most_instances_, seen_->n_instances) : 0;
  set_camera(args);
  f.params = checked_params_ = args.params;
  f.image = args.image, f.transmittance = args.transmittance;
  reserve_gaussians(args.n);
  reserve_tiles();
  clear_counters();
  stages_.run(SPLAT_STAGE_PROJECT, stream_, [&] { project(f, stream_); });
  stages_.run(SPLAT_STAGE_SORT, stream_, [&] { sort_by_depth(); });
  const bool must_wait = waits_ || !is_like_the_last || most_instances_ == 0;
  uint64_t expected = std::max<uint64_t>(seen_->n_instances + seen_->n_instances / 4, most_instances_);
  if (must_wait) {
    read_counters();
    settle();
    check_counters();
    expected = seen_->n_instances;
  }
  reserve_instances(static_cast<int64_t>(std::clamp<uint64_t>(expected, 1, MOST_INSTANCES)));
  stages_.run(SPLAT_STAGE_BIN, stream_, [&] { sort_by_tile(); });
  stages_.run(SPLAT_STAGE_FORWARD, stream_, [&] { blend(f, stream_); });
  if (!must_wait) read_counters();
  finish("the forward pass");
  args.n_visible = static_cast<int64_t>(seen_->n_visible);
  args.n_instances = static_cast<int64_t>(seen_->n_instances);
  has_frame_ = true;
  is_stepped_ = false;
}

// Waits for what was queued, if this context waits.
void Context::finish(const char *doing) {
  if (waits_) check(cudaStreamSynchronize(stream_), doing);
}

void Context::check_finite(const char *name, const float *values, const Shape &shape) {
  if (!values || !shape.size()) return;
  unsigned long long bad = NONE, *on_card = bad_.of<unsigned long long>(1);
  check(cudaMemcpyAsync(on_card, &bad, sizeof bad, cudaMemcpyHostToDevice, stream_), "clearing counts");
  find_bad_value(values, shape.size(), on_card, stream_);
  check(cudaMemcpyAsync(&bad, on_card, sizeof bad, cudaMemcpyDeviceToHost, stream_), "reading counts");
  check(cudaStreamSynchronize(stream_), "looking at an array");
  if (bad == NONE) return;
  float value;
  check(cudaMemcpyAsync(&value, values + bad, sizeof value, cudaMemcpyDeviceToHost, stream_), "reading a value");
  check(cudaStreamSynchronize(stream_), "reading a value");
  refuse_value(name, shape, static_cast<int64_t>(bad), value);
}

void Context::check_pixels(const float *grad_image, const float *grad_transmittance) {
  if (waits_) check_finite("grad_image", grad_image, {3, frame_.height, frame_.width});
  if (waits_) check_finite("grad_transmittance", grad_transmittance, {0, frame_.height, frame_.width});
  if (!waits_) find_bad_value(grad_image, 3 * int64_t(frame_.height) * frame_.width, &frame_.counters->bad_value, stream_);
}

// What the optimiser keeps is as large as the model, and after the first step it is our own: looked at when its place or size is new.
void Context::check_state(const SplatBackwardAdamArgs &args) {
  if (args.n == known_.n && args.moment1 == known_.moment1 && args.moment2 == known_.moment2 && args.density == known_.density) return;
  check_finite("moment1", args.moment1, {0, args.n, SPLAT_ROW});
  check_finite("moment2", args.moment2, {0, args.n, SPLAT_ROW});
  check_finite("density", args.density, {0, args.n, SPLAT_DENSITY});
  known_ = {args.n, args.moment1, args.moment2, args.density};
}

// Another context, or torch, may have worked on another card since.
void Context::use_card() const { check(cudaSetDevice(device_), "choosing the card"); }

void Context::check_frame(int64_t n, const char *call) const {
  use_card();
  require_frame(has_frame_, n, frame_.n, call);
}

void Context::check_unstepped(const char *call) const {
  require_unstepped(is_stepped_, call);
}

void Context::begin_backward(const float *params, const float *grad_image, const float *grad_transmittance, float *density) {
  frame_.params = params;
  frame_.grad_image = grad_image;
  frame_.grad_transmittance = grad_transmittance;
  frame_.density = density;
  frame_.adam = AdamRates{};
  stages_.run(SPLAT_STAGE_BACKWARD, stream_, [&] { spread(frame_, stream_); });
}

void Context::backward(const SplatBackwardArgs &args) {
  check_frame(args.n, "splat_backward");
  check_unstepped("splat_backward");
  check_pixels(args.grad_image, args.grad_transmittance);
  check_finite("density", args.density, {0, args.n, SPLAT_DENSITY});
  frame_.grad_params = args.grad_params;
  frame_.out_params = nullptr;
  begin_backward(args.params, args.grad_image, args.grad_transmittance, args.density);
  stages_.run(SPLAT_STAGE_GRADIENT, stream_, [&] { gradient(frame_, stream_); });
  finish("the backward pass");
}

void Context::backward_adam(const SplatBackwardAdamArgs &args) {
  check_frame(args.n, "splat_backward_adam");
  check_unstepped("splat_backward_adam");
  check_pixels(args.grad_image, args.grad_transmittance);
  check_state(args);
  Frame &f = frame_;
  f.grad_params = nullptr;
  f.out_params = args.params;
  f.moment1 = args.moment1, f.moment2 = args.moment2, f.last_step = args.last_step;
  begin_backward(args.params, args.grad_image, args.grad_transmittance, args.density);
  set_rates(args, f.adam);
  is_stepped_ = true;
  stages_.run(SPLAT_STAGE_GRADIENT, stream_, [&] { gradient(f, stream_); });
  if (!waits_) read_counters();
  finish("the backward pass");
}

void Context::contribution(const SplatContributionArgs &args) {
  check_frame(args.n, "splat_contribution");
  if (waits_) {
    check_finite("weight_map", args.weight_map, {0, frame_.height, frame_.width});
    check_finite("sums", args.sums, {0, args.n, 1});
    check_finite("peaks", args.peaks, {0, args.n, 1});
  }
  frame_.weight_map = args.weight_map;
  frame_.sums = args.sums;
  frame_.peaks = args.peaks;
  stages_.run(SPLAT_STAGE_CONTRIBUTION, stream_, [&] {
    gpu::contribution(frame_, stream_);
    gather_contribution(frame_, stream_);
  });
  finish("the contribution pass");
}

void Context::loss(SplatLossArgs &args) {
  use_card();
  LossFrame f{};
  f.width = args.width, f.height = args.height;
  f.ssim_weight = args.ssim_weight;
  f.image = args.image, f.target = args.target, f.mask = args.mask;
  f.grad_image = args.grad_image, f.error_map = args.error_map;
  const int64_t values = 3 * int64_t(args.width) * args.height;
  f.by_mean = by_mean_.of<float>(values), f.by_square = by_square_.of<float>(values), f.by_product = by_product_.of<float>(values);
  f.partial = partial_.of<LossSums>(loss_blocks(args.width, args.height));
  f.total = total_.of<LossSums>(1);
  set_ssim_window(f.window);
  if (!waits_ && has_loss_) check(cudaEventSynchronize(loss_arrived_), "the loss before");
  const LossSums before = *sums_;
  stages_.run(SPLAT_STAGE_LOSS, stream_, [&] { gpu::loss(f, stream_); });
  check(cudaMemcpyAsync(sums_.get(), f.total, sizeof(LossSums), cudaMemcpyDeviceToHost, stream_), "reading the loss");
  check(cudaEventRecord(loss_arrived_, stream_), "recording an event");
  if (waits_) check(cudaStreamSynchronize(stream_), "the loss");
  const LossSums &sums = waits_ || !has_loss_ ? *sums_ : before;
  const bool known = waits_ || has_loss_;
  has_loss_ = true;
  if (!isfinite(sums.l1 + sums.mse)) {
    check_finite("image", args.image, {3, args.height, args.width});
    refuse(SPLAT_NON_FINITE, "image: its finite values overflow when they are squared");
  }
  const bool some = known && sums.count > 0;
  args.l1 = some ? sums.l1 / sums.count : 0.0;
  args.ssim = some ? sums.ssim / sums.count : 1.0;
  args.mse = some ? sums.mse / sums.count : 0.0;
}

void Context::knn(const SplatKnnArgs &args) {
  use_card();
  check_finite("points", args.points, {0, args.n, 3});
  nearest(args.points, args.n, args.k, args.mean_sq_dist, stream_);
  finish("the search for neighbours");
}

void Context::match(SplatMatchArgs &) { refuse(SPLAT_UNSUPPORTED, "descriptors are matched by the CPU's library"); }

double Context::calibrate() const { refuse(SPLAT_UNSUPPORTED, "there is no calibration loop for a card; its data sheet says what it can do"); }

void Context::info(SplatContextInfo &out) const {
  out.abi_version = SPLAT_ABI_VERSION;
  out.n_threads = 0;
  out.isa = SPLAT_ISA_AUTO;
  size_t bytes = 0;
  for (const Buffer *b : {&counters_, &records_, &keys_, &keys_sorted_, &ids_, &order_, &n_touched_, &offsets_, &first_, &temp_, &owner_, &numbers_,
                          &instances_, &masks_, &tile_keys_, &tile_keys_sorted_, &tile_begin_, &tile_end_, &bucket_tile_, &checkpoints_, &finals_, &stops_,
                          &slots_, &by_mean_, &by_square_, &by_product_, &partial_, &total_, &bad_})
    bytes += b->size();
  out.workspace_bytes = bytes;
  out.on_card = SPLAT_ON_CARD;
  snprintf(out.name, sizeof out.name, "%s", name_);
}

}  // namespace splat
