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

// The card's number, if there is such a card: asked before anything of ours touches it, and chosen before anything is allocated, which would else
// begin a context on the first card.
int chosen(int device) {
  int count = 0;
  const cudaError_t error = cudaGetDeviceCount(&count);
  if (error != cudaSuccess || device < 0 || device >= count) {
    cudaGetLastError();
    refuse(SPLAT_UNSUPPORTED, "there is no CUDA card %d here: %d were found%s%s", device, error == cudaSuccess ? count : 0,
           error == cudaSuccess ? "" : ", because: ", error == cudaSuccess ? "" : cudaGetErrorString(error));
  }
  gpu::check(cudaSetDevice(device), "choosing the card");
  return device;
}

// sixteen bytes at a time are read of rows: elsewhere the card would end the process's every further call.
void check_place(const char *name, const void *rows) {
  if (reinterpret_cast<uintptr_t>(rows) % 16) refuse(SPLAT_INVALID_ARGUMENT, "%s does not begin at a multiple of 16 bytes", name);
}

// What a call of a library is known by in a graph: which it is, where it works, on how much.
const char BY_DEPTH = 0, SUM = 0, BY_TILE = 0, BY_TILE_SHORT = 0;

Key key_of(const char &which, std::initializer_list<const void *> where, int64_t n, int bits = 0) {
  Key key{&which, {static_cast<uint64_t>(n), static_cast<uint64_t>(bits)}};
  std::transform(where.begin(), where.end(), key.values + 2, [](const void *each) { return static_cast<uint64_t>(reinterpret_cast<uintptr_t>(each)); });
  return key;
}

}  // namespace

void gpu::check(cudaError_t error, const char *doing) {
  if (error != cudaSuccess) refuse(SPLAT_INTERNAL, "%s failed on the card: %s", doing, cudaGetErrorString(error));
}

Context::Context(const SplatContextOptions &options) : device_(chosen(options.device)) {
  cudaDeviceProp properties;
  check(cudaGetDeviceProperties(&properties, device_), "asking for the card's properties");
  snprintf(name_, sizeof name_, "%.63s", properties.name);
  check(cudaEventCreate(&arrived_), "creating an event");
  check(cudaEventCreate(&loss_arrived_), "creating an event");
  check(cudaEventCreate(&queued_), "creating an event");
  *seen_ = Counters{0, 0, NONE, NONE};
  *sums_ = LossSums{};
}

Context::~Context() {
  cudaEventDestroy(arrived_);
  cudaEventDestroy(loss_arrived_);
  cudaEventDestroy(queued_);
}

// Workspaces go with the context from stream to stream: what is queued on the new one begins when all that is queued on the old one is done.
void Context::set_stream(const SplatStreamArgs &args) {
  use_card();
  settle();
  queue_.stream = static_cast<cudaStream_t>(args.stream);
  waits_ = args.waits != 0;
  if (has_queued_) check(cudaStreamWaitEvent(queue_.stream, queued_, 0), "waiting for the stream before");
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
  f.counters = counters_.fresh<Counters>(1);
  f.records = records_.fresh<Record>(n);
  f.keys = keys_.fresh<uint32_t>(n), f.keys_sorted = keys_sorted_.fresh<uint32_t>(n);
  f.ids = ids_.fresh<uint32_t>(n), f.order = order_.fresh<uint32_t>(n);
  f.n_touched = n_touched_.fresh<uint32_t>(n);
  f.offsets = offsets_.fresh<uint64_t>(n + 1), f.first = first_.fresh<uint64_t>(n);
}

void Context::reserve_tiles() {
  Frame &f = frame_;
  f.finals = finals_.fresh<float4>(int64_t(f.n_tiles) * TILE_PIXELS);
  f.stops = stops_.fresh<uint32_t>(int64_t(f.n_tiles) * REGIONS);
}

// Room for `listed` instances and what goes with them.
void Context::reserve_instances(int64_t listed) {
  Frame &f = frame_;
  f.listed = listed;
  uint32_t *numbers = numbers_.of<uint32_t>(listed);
  if (listed > numbered_) {
    numbered_ = static_cast<int64_t>(numbers_.size() / sizeof(uint32_t));
    count_up(numbers, numbered_, queue_);
  }
  f.owner = owner_.fresh<uint32_t>(listed);
  f.instances = instances_.fresh<uint32_t>(listed);
  f.masks = masks_.fresh<uint8_t>(listed);
  tile_keys_.fresh<uint32_t>(listed), tile_keys_sorted_.fresh<uint32_t>(listed);
  f.n_buckets = listed / BUCKET + f.n_tiles;
  f.tile_begin = tiles_.fresh<uint32_t>(2 * int64_t(f.n_tiles) + f.n_buckets);
  f.tile_end = f.tile_begin + f.n_tiles, f.bucket_tile = f.tile_end + f.n_tiles;
  f.checkpoints = checkpoints_.fresh<float4>(f.n_buckets * TILE_PIXELS);
  f.slots = slots_.fresh<float4>(listed * SLOT);
}

void Context::sort_by_depth() {
  Frame &f = frame_;
  const DepthSort depths{f.keys, f.keys_sorted, f.ids, f.order, f.n};
  if (f.n != sizes_.n) {
    SortTemp sort{nullptr, 0}, sum{nullptr, 0};
    sort_depths(sort, depths, queue_.stream);
    sum_before(sum, f.offsets, f.n + 1, queue_.stream);
    sizes_.n = f.n, sizes_.by_depth = sort.bytes, sizes_.sum = sum.bytes;
  }
  void *memory = temp_.of<char>(static_cast<int64_t>(std::max(sizes_.by_depth, sizes_.sum)));
  const SortTemp sort{memory, sizes_.by_depth}, sum{memory, sizes_.sum};
  queue_.call(key_of(BY_DEPTH, {memory, f.keys, f.keys_sorted, f.ids, f.order}, f.n), [=](cudaStream_t stream) {
    SortTemp temp = sort;
    sort_depths(temp, depths, stream);
  });
  counts_by_depth(f, queue_);
  queue_.call(key_of(SUM, {memory, f.offsets}, f.n), [sum, offsets = f.offsets, n = f.n + 1](cudaStream_t stream) {
    SortTemp temp = sum;
    sum_before(temp, offsets, n, stream);
  });
}

// Instances of all tiles in order. The unused end of the list has keys that no tile has.
void Context::sort_by_tile() {
  Frame &f = frame_;
  const bool is_short = has_short_keys(f.n_tiles);
  const TileSort tiles{is_short, tile_keys_.of<char>(1), tile_keys_sorted_.of<char>(1), numbers_.of<uint32_t>(1), instances_.of<uint32_t>(1),
                       f.listed, bits_for(f.n_tiles)};
  if (f.listed != sizes_.listed || f.n_tiles != sizes_.n_tiles) {
    SortTemp temp{nullptr, 0};
    sort_tiles(temp, tiles, queue_.stream);
    sizes_.listed = f.listed, sizes_.n_tiles = f.n_tiles, sizes_.by_tile = temp.bytes;
  }
  void *memory = tile_temp_.of<char>(static_cast<int64_t>(sizes_.by_tile));  // its own: the sort before may only be gathered yet
  emit(f, tile_keys_.of<char>(1), queue_);
  const SortTemp sort{memory, sizes_.by_tile};
  const Key key = key_of(is_short ? BY_TILE_SHORT : BY_TILE, {memory, tiles.keys, tiles.keys_out, tiles.values, tiles.values_out}, f.listed, tiles.bits);
  queue_.call(key, [=](cudaStream_t stream) {
    SortTemp temp = sort;
    sort_tiles(temp, tiles, stream);
  });
  queue_.fill(f.tile_begin, 0xff, sizeof(uint32_t) * static_cast<size_t>(2 * int64_t(f.n_tiles) + f.n_buckets));  // all three: types.h
  find_ranges(f, tiles.keys_out, queue_);
}

// By filling, not by copying: a copy from the stack may wait for the stream.
void Context::clear_counters() {
  queue_.fill(frame_.counters, 0xff, sizeof(Counters));
}

void Context::read_counters() {
  queue_.copy_to_host(seen_.get(), frame_.counters, sizeof(Counters));
  queue_.submit();
  check(cudaEventRecord(arrived_, queue_.stream), "recording an event");
  is_pending_ = true;
}

// Waits for the counts of the last frame, if they are still on their way.
void Context::settle() {
  if (!is_pending_) return;
  check(cudaEventSynchronize(arrived_), "a kernel");
  is_pending_ = false;
}

// `params` of `n` gaussians: what is given now, which need not be what the counters tell of.
void Context::check_counters(const float *params, int64_t n) {
  const Counters &c = *seen_;
  if (c.bad_row != NONE) {
    const long long row = static_cast<long long>(c.bad_row);
    has_frame_ = false;
    if (params != checked_params_ || n != frame_.n)
      refuse(SPLAT_NON_FINITE, "params of the frame before, row %lld, holds a value that is not finite", row);
    float values[SPLAT_ROW];
    const float *from = params + SPLAT_ROW * row;
    check(cudaMemcpyAsync(values, from, sizeof values, cudaMemcpyDeviceToHost, queue_.stream), "reading a row");
    check(cudaStreamSynchronize(queue_.stream), "reading a row");
    refuse_row(row, values);
  }
  if (c.bad_value != NONE) {
    has_frame_ = false;
    refuse(SPLAT_NON_FINITE, "grad_image of the step before holds a value that is not finite, at place %llu; that step was not taken", c.bad_value);
  }
  if (c.n_instances > MOST_INSTANCES) {
    has_frame_ = false;
    frame_.n = -1;  // so that the next frame is counted before room is made for it
    throw OutOfMemory{static_cast<size_t>(c.n_instances) * SLOT * sizeof(float4)};
  }
}

// Without waiting there is room for an eighth more instances than the last frame of this size had, and when it has to grow, for a quarter more: so it
// soon stays what it is, and the pass can be one graph. A frame that has still more changes nothing. The first picture of a size, and the first after
// gaussians have become others in number, is counted and waited for: room for it would be a guess.
void Context::forward(SplatForwardArgs &args) {
  use_card();
  check_place("params", args.params);
  if (is_pending_) {
    settle();
    check_counters(args.params, args.n);
  }
  Frame &f = frame_;
  if (args.n != f.n)
    rooms_.clear();
  else if (has_frame_)
    rooms_[{f.width, f.height}].needed = seen_->n_instances;
  has_frame_ = false;
  Room &room = rooms_[{args.camera.width, args.camera.height}];
  const bool must_wait = waits_ || room.needed == 0;
  const Counters before = *seen_;  // the card may write others while this pass is queued
  set_camera(args);
  f.params = checked_params_ = args.params;
  f.image = args.image, f.transmittance = args.transmittance;
  reserve_gaussians(args.n);
  reserve_tiles();
  const Gathering gathering(queue_, !must_wait && !stages_.is_on());
  clear_counters();
  stages_.run(SPLAT_STAGE_PROJECT, queue_.stream, [&] { project(f, queue_); });
  stages_.run(SPLAT_STAGE_SORT, queue_.stream, [&] { sort_by_depth(); });
  if (must_wait) {
    count_instances(f, queue_);
    read_counters();
    settle();
    check_counters(args.params, args.n);
    room.listed = seen_->n_instances;
  } else if (room.needed + room.needed / 8 > room.listed) {
    room.listed = room.needed + room.needed / 4;
  }
  reserve_instances(static_cast<int64_t>(std::clamp<uint64_t>(room.listed, 1, MOST_INSTANCES)));
  stages_.run(SPLAT_STAGE_BIN, queue_.stream, [&] { sort_by_tile(); });
  stages_.run(SPLAT_STAGE_FORWARD, queue_.stream, [&] { blend(f, queue_); });
  if (!must_wait) read_counters();
  finish("the forward pass");
  const Counters &told = must_wait ? *seen_ : before;
  args.n_visible = static_cast<int64_t>(told.n_visible);
  args.n_instances = static_cast<int64_t>(told.n_instances);
  has_frame_ = true;
  is_stepped_ = false;
}

// Waits for what was queued, if this context waits.
void Context::finish(const char *doing) {
  if (waits_) return check(cudaStreamSynchronize(queue_.stream), doing);
  check(cudaEventRecord(queued_, queue_.stream), "recording an event");
  has_queued_ = true;
}

void Context::check_finite(const char *name, const float *values, const Shape &shape) {
  if (!values || !shape.size()) return;
  unsigned long long bad = NONE, *on_card = bad_.of<unsigned long long>(1);
  check(cudaMemcpyAsync(on_card, &bad, sizeof bad, cudaMemcpyHostToDevice, queue_.stream), "clearing counts");
  find_bad_value(values, shape.size(), on_card, queue_);
  check(cudaMemcpyAsync(&bad, on_card, sizeof bad, cudaMemcpyDeviceToHost, queue_.stream), "reading counts");
  check(cudaStreamSynchronize(queue_.stream), "looking at an array");
  if (bad == NONE) return;
  float value;
  check(cudaMemcpyAsync(&value, values + bad, sizeof value, cudaMemcpyDeviceToHost, queue_.stream), "reading a value");
  check(cudaStreamSynchronize(queue_.stream), "reading a value");
  refuse_value(name, shape, static_cast<int64_t>(bad), value);
}

void Context::check_pixels(const float *grad_image, const float *grad_transmittance) {
  if (waits_) check_finite("grad_image", grad_image, {3, frame_.height, frame_.width});
  if (waits_) check_finite("grad_transmittance", grad_transmittance, {0, frame_.height, frame_.width});
  if (!waits_) find_bad_value(grad_image, 3 * int64_t(frame_.height) * frame_.width, &frame_.counters->bad_value, queue_);
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
  frame_.slots = slots_.fresh<float4>(frame_.listed * SLOT);
  stages_.run(SPLAT_STAGE_BACKWARD, queue_.stream, [&] { spread(frame_, queue_); });
}

void Context::backward(const SplatBackwardArgs &args) {
  check_place("params", args.params);
  check_place("grad_params", args.grad_params);
  check_frame(args.n, "splat_backward");
  check_unstepped("splat_backward");
  check_pixels(args.grad_image, args.grad_transmittance);
  check_finite("density", args.density, {0, args.n, SPLAT_DENSITY});
  frame_.grad_params = args.grad_params;
  frame_.out_params = nullptr;
  begin_backward(args.params, args.grad_image, args.grad_transmittance, args.density);
  stages_.run(SPLAT_STAGE_GRADIENT, queue_.stream, [&] { gradient(frame_, queue_); });
  finish("the backward pass");
}

void Context::backward_adam(const SplatBackwardAdamArgs &args) {
  check_place("params", args.params);
  check_place("moment1", args.moment1);
  check_place("moment2", args.moment2);
  check_frame(args.n, "splat_backward_adam");
  check_unstepped("splat_backward_adam");
  check_pixels(args.grad_image, args.grad_transmittance);
  check_state(args);
  Frame &f = frame_;
  f.grad_params = nullptr;
  f.out_params = args.params;
  f.moment1 = args.moment1, f.moment2 = args.moment2, f.last_step = args.last_step;
  if (!waits_) read_counters();  // now: the host goes on to the next step while this one's gradients are worked out
  begin_backward(args.params, args.grad_image, args.grad_transmittance, args.density);
  set_rates(args, f.adam);
  is_stepped_ = true;
  stages_.run(SPLAT_STAGE_GRADIENT, queue_.stream, [&] { gradient(f, queue_); });
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
  frame_.slots = slots_.fresh<float4>(frame_.listed * SLOT);
  stages_.run(SPLAT_STAGE_CONTRIBUTION, queue_.stream, [&] {
    gpu::contribution(frame_, queue_);
    gather_contribution(frame_, queue_);
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
  f.by_mean = by_mean_.fresh<float>(values), f.by_square = by_square_.fresh<float>(values), f.by_product = by_product_.fresh<float>(values);
  f.partial = partial_.fresh<LossSums>(loss_blocks(args.width, args.height));
  f.total = total_.fresh<LossSums>(1);
  set_ssim_window(f.window);
  if (!waits_ && has_loss_) check(cudaEventSynchronize(loss_arrived_), "the loss before");
  const LossSums before = *sums_;
  stages_.run(SPLAT_STAGE_LOSS, queue_.stream, [&] { gpu::loss(f, queue_); });
  check(cudaMemcpyAsync(sums_.get(), f.total, sizeof(LossSums), cudaMemcpyDeviceToHost, queue_.stream), "reading the loss");
  check(cudaEventRecord(loss_arrived_, queue_.stream), "recording an event");
  finish("the loss");
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
  nearest(args.points, args.n, args.k, args.mean_sq_dist, queue_);
  finish("the search for neighbours");
}

void Context::match(SplatMatchArgs &) { refuse(SPLAT_UNSUPPORTED, "descriptors are matched by the CPU's library"); }

double Context::calibrate() const { refuse(SPLAT_UNSUPPORTED, "there is no calibration loop for a card; its data sheet says what it can do"); }

void Context::info(SplatContextInfo &out) const {
  out.abi_version = SPLAT_ABI_VERSION;
  out.n_threads = 0;
  out.isa = SPLAT_ISA_AUTO;
  size_t bytes = 0;
  for (const Buffer *b : {&counters_, &records_, &keys_, &keys_sorted_, &ids_, &order_, &n_touched_, &offsets_, &first_, &temp_, &tile_temp_, &owner_, &numbers_,
                          &instances_, &masks_, &tile_keys_, &tile_keys_sorted_, &tiles_, &checkpoints_, &finals_, &stops_,
                          &slots_, &by_mean_, &by_square_, &by_product_, &partial_, &total_, &bad_})
    bytes += b->size();
  out.workspace_bytes = bytes;
  out.on_card = SPLAT_ON_CARD;
  out.n_replays = static_cast<int32_t>(std::min<int64_t>(queue_.n_replays(), INT32_MAX));
  snprintf(out.name, sizeof out.name, "%s", name_);
}

}  // namespace splat
