// What the test programs share: small scenes that are the same on every machine, and one walk through every entry point with arrays that are
// exactly as long as the header says, so that an access past an end is caught. Knows nothing but the C ABI.
#pragma once
#include <math.h>
#include <stdio.h>
#include <string.h>

#include <vector>

#include "splat/splat.h"

using Floats = std::vector<float>;

// A struct of the ABI, zero but for its size.
template <class Args> Args sized() {
  Args args;
  memset(&args, 0, sizeof args);
  args.struct_size = sizeof args;
  return args;
}

inline SplatContext *create(int isa, int n_threads) {
  auto options = sized<SplatContextOptions>();
  options.isa = isa, options.n_threads = n_threads;
  SplatContext *context = nullptr;
  return splat_context_create(&options, &context) == SPLAT_OK ? context : nullptr;
}

// Numbers from a 64-bit congruence: what std:: draws is another on every platform.
class Draws {
 public:
  explicit Draws(uint64_t seed) : state_(seed * 2 + 1) {}
  float in(float low, float high) {
    state_ = state_ * 6364136223846793005u + 1442695040888963407u;
    return low + (high - low) * static_cast<float>(state_ >> 40) * (1.0f / 16777216.0f);
  }

 private:
  uint64_t state_;
};

// Rows of n gaussians around the origin with log-scales around `size`; the camera of every walk looks at them from four units away.
inline Floats scene(int64_t n, uint64_t seed, float size) {
  Draws draws(seed);
  Floats rows(static_cast<size_t>(n) * SPLAT_ROW);
  for (int64_t i = 0; i < n; i++) {
    float *row = rows.data() + i * SPLAT_ROW;
    for (int k = 0; k < SPLAT_ROW; k++) row[k] = draws.in(-0.2f, 0.2f);
    for (int k = 0; k < 3; k++) row[k] = draws.in(-2.5f, 2.5f), row[3 + k] = size + draws.in(-1.5f, 1.5f), row[11 + k] = draws.in(-1.5f, 2.0f);
    for (int k = 6; k < 10; k++) row[k] = draws.in(-1.0f, 1.0f);
    row[10] = draws.in(-6.0f, 6.0f);
  }
  return rows;
}

inline SplatCamera camera(int width, int height) {
  SplatCamera c{{1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 4}, 0, 0, 0, 0, width, height, 0.01f, 1e6f};
  c.fx = c.fy = 0.8f * static_cast<float>(width > height ? width : height);
  c.cx = 0.5f * static_cast<float>(width), c.cy = 0.5f * static_cast<float>(height);
  return c;
}

struct Walk {
  int width, height, degree;
  bool masked, with_maps, lazy;
};

// Everything that a walk writes. `status` is the first that is not SPLAT_OK.
struct Results {
  int status = SPLAT_OK;
  double losses[6] = {};
  Floats image, transmittance, grad_image, error_map, grads, sums, peaks, params, moment1, moment2, density, distances, matches;

  std::vector<const Floats *> arrays() const {
    return {&image, &transmittance, &grad_image, &error_map, &grads, &sums, &peaks, &params, &moment1, &moment2, &density, &distances, &matches};
  }
  static const char *name(size_t array) {
    static const char *const names[] = {"image",  "transmittance", "grad_image", "error_map", "grads",     "sums",   "peaks",
                                        "params", "moment1",       "moment2",    "density",   "distances", "matches"};
    return names[array];
  }
};

// Waits for a card that is not waited for: an array that is looked at for values that are not finite is.
inline int wait_for_all(SplatContext *context) {
  static float points[6], distances[2];  // which outlive what is asked for here
  auto knn = sized<SplatKnnArgs>();
  knn.k = 1, knn.n = 2, knn.points = points, knn.mean_sq_dist = distances;
  return splat_knn(context, &knn);
}

// Forward, loss twice (the second with the target kept), backward, contribution, two steps of Adam (the second without the SH rest), neighbours,
// and as many descriptors matched with half as many others.
inline Results walk(SplatContext *context, const Floats &rows, const Walk &w) {
  const size_t pixels = static_cast<size_t>(w.width) * static_cast<size_t>(w.height), count = rows.size() / SPLAT_ROW;
  const int64_t n = static_cast<int64_t>(count);
  Results r;
  r.image.resize(3 * pixels), r.grad_image.resize(3 * pixels), r.transmittance.resize(pixels), r.params = rows, r.grads.assign(rows.size(), NAN);
  r.sums.resize(count), r.peaks.resize(count), r.density.resize(SPLAT_DENSITY * count), r.distances.resize(count);
  r.moment1.resize(rows.size()), r.moment2.resize(rows.size());
  const auto done = [&r](int status) {
    if (r.status == SPLAT_OK) r.status = status;
    return status == SPLAT_OK;
  };
  auto forward = sized<SplatForwardArgs>();
  forward.sh_degree = w.degree, forward.n = n, forward.params = r.params.data(), forward.camera = camera(w.width, w.height);
  forward.dilation = 0.3f, forward.background[0] = 0.5f, forward.background[2] = 1.0f;
  forward.image = r.image.data(), forward.transmittance = w.with_maps ? r.transmittance.data() : nullptr;
  if (!done(splat_forward(context, &forward))) return r;

  std::vector<uint8_t> target(3 * pixels), mask(pixels);
  for (size_t i = 0; i < target.size(); i++) target[i] = static_cast<uint8_t>(i * 37 % 251);
  for (size_t i = 0; i < mask.size(); i++) mask[i] = i % 5 != 2;
  auto loss = sized<SplatLossArgs>();
  loss.width = w.width, loss.height = w.height, loss.ssim_weight = 0.2f, loss.image = r.image.data(), loss.target = target.data();
  loss.mask = w.masked ? mask.data() : nullptr;
  loss.error_map = w.with_maps ? (r.error_map.resize(pixels), r.error_map.data()) : nullptr;
  loss.target_key = static_cast<uint64_t>(w.width) << 32 | static_cast<uint64_t>(w.height) << 2 | w.masked;
  for (int again = 0; again < 2; again++) {
    loss.grad_image = again ? r.grad_image.data() : nullptr;
    if (!done(splat_loss(context, &loss))) return r;
    r.losses[3 * again] = loss.l1, r.losses[3 * again + 1] = loss.ssim, r.losses[3 * again + 2] = loss.mse;
  }

  auto backward = sized<SplatBackwardArgs>();
  backward.n = n, backward.params = r.params.data(), backward.grad_image = r.grad_image.data(), backward.grad_params = r.grads.data();
  backward.grad_transmittance = w.with_maps ? r.transmittance.data() : nullptr;
  if (!done(splat_backward(context, &backward))) return r;
  auto contribution = sized<SplatContributionArgs>();
  contribution.n = n, contribution.sums = r.sums.data(), contribution.peaks = r.peaks.data();
  contribution.weight_map = w.with_maps ? r.error_map.data() : nullptr;
  if (!done(splat_contribution(context, &contribution))) return r;

  std::vector<int32_t> last_step(count);
  auto adam = sized<SplatBackwardAdamArgs>();
  adam.n = n, adam.params = r.params.data(), adam.moment1 = r.moment1.data(), adam.moment2 = r.moment2.data();
  adam.last_step = w.lazy ? last_step.data() : nullptr;
  adam.grad_image = r.grad_image.data(), adam.density = w.with_maps ? r.density.data() : nullptr;
  adam.lr_means = adam.lr_log_scales = adam.lr_quats = adam.lr_opacity = adam.lr_sh_dc = adam.lr_sh_rest = 1e-3f;
  // Moments that do not grow with the gradient's sign alone: an eps near the gradients keeps what rounding makes of tiny ones out of the rows.
  adam.beta1 = 0.9f, adam.beta2 = 0.999f, adam.eps = 1e-3f, adam.opacity_reg = 0.01f, adam.scale_reg = 0.01f;
  for (const int step : {1, 7}) {
    adam.step = step, adam.step_sh_rest = step == 1;
    if (step > 1 && !done(splat_forward(context, &forward))) return r;
    if (!done(splat_backward_adam(context, &adam))) return r;
  }

  Floats points(3 * count);
  for (size_t i = 0; i < points.size(); i++) points[i] = rows[i / 3 * SPLAT_ROW + i % 3];
  auto knn = sized<SplatKnnArgs>();
  knn.k = 3, knn.n = n, knn.points = points.data(), knn.mean_sq_dist = r.distances.data();
  if (!done(splat_knn(context, &knn)) || !done(wait_for_all(context))) return r;

  Draws draws(count);
  std::vector<uint8_t> a(128 * count), b(128 * (count / 2));
  for (auto *bytes : {&a, &b})
    for (uint8_t &byte : *bytes) byte = static_cast<uint8_t>(draws.in(0.0f, 255.9f));
  std::vector<int32_t> nearest_a(3 * count), nearest_b(3 * (count / 2));
  auto match = sized<SplatMatchArgs>();
  match.n_a = n, match.n_b = n / 2, match.a = a.data(), match.b = b.data(), match.nearest_a = nearest_a.data(), match.nearest_b = nearest_b.data();
  const int matched = splat_match(context, &match);
  if (matched != SPLAT_UNSUPPORTED) done(matched);  // a card leaves that to the CPU
  r.matches.assign(nearest_a.begin(), nearest_a.end());  // below 2^24: floats hold them exactly
  r.matches.insert(r.matches.end(), nearest_b.begin(), nearest_b.end());
  return r;
}
