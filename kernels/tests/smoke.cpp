// Every entry point on every instruction set over odd sizes, for the sanitizer build: arrays are exactly as long as the header says, so an
// access past an end is caught; results must be finite and the same bits for any number of threads.
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <memory>
#include <random>
#include <vector>

#include "splat/splat.h"

namespace {

using Floats = std::vector<float>;

int failures = 0;

void expect(bool fine, const char *what, const char *where) {
  if (fine) return;
  failures++;
  fprintf(stderr, "%s: %s (%s)\n", where, what, splat_last_error());
}

struct Run {
  Floats image, grad_image, error_map, grads, sums, peaks, params, density;
  double losses[3];
};

Floats scene(int64_t n, unsigned seed, float size) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  Floats rows(static_cast<size_t>(n) * SPLAT_ROW);
  for (int64_t i = 0; i < n; i++) {
    float *row = rows.data() + i * SPLAT_ROW;
    for (int k = 0; k < SPLAT_ROW; k++) row[k] = 0.1f * normal(random);
    for (int k = 0; k < 3; k++) row[k] = 2.0f * normal(random), row[3 + k] = size + normal(random);
    for (int k = 6; k < 10; k++) row[k] = normal(random);
    row[10] = 3.0f * normal(random);
  }
  return rows;
}

template <class Args> Args sized() {
  Args args;
  memset(&args, 0, sizeof args);
  args.struct_size = sizeof args;
  return args;
}

Run run(SplatContext *context, const char *where, const Floats &rows, int width, int height, int degree, const std::vector<uint8_t> *mask) {
  const int64_t n = static_cast<int64_t>(rows.size()) / SPLAT_ROW;
  const size_t pixels = static_cast<size_t>(width) * static_cast<size_t>(height), count = static_cast<size_t>(n);
  Run r{Floats(3 * pixels), Floats(3 * pixels), Floats(pixels), Floats(rows.size(), NAN), Floats(count), Floats(count), rows, Floats(4 * count), {}};
  Floats transmittance(pixels);
  auto forward = sized<SplatForwardArgs>();
  forward.sh_degree = degree, forward.n = n, forward.params = r.params.data();
  const float pose[12] = {1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 4};
  memcpy(forward.camera.cam_from_world, pose, sizeof pose);
  forward.camera.fx = forward.camera.fy = 0.8f * static_cast<float>(width > height ? width : height);
  forward.camera.cx = 0.5f * static_cast<float>(width), forward.camera.cy = 0.5f * static_cast<float>(height);
  forward.camera.width = width, forward.camera.height = height, forward.camera.near_plane = 0.01f, forward.camera.far_plane = 1e6f;
  forward.dilation = 0.3f;
  forward.background[0] = 0.5f;
  forward.image = r.image.data(), forward.transmittance = transmittance.data();
  expect(splat_forward(context, &forward) == SPLAT_OK, "forward", where);

  std::vector<uint8_t> target(3 * pixels);
  for (size_t i = 0; i < target.size(); i++) target[i] = static_cast<uint8_t>(i * 37);
  auto loss = sized<SplatLossArgs>();
  loss.width = width, loss.height = height, loss.ssim_weight = 0.2f, loss.image = r.image.data(), loss.target = target.data();
  loss.mask = mask ? mask->data() : nullptr;
  loss.grad_image = r.grad_image.data(), loss.error_map = r.error_map.data();
  loss.target_key = static_cast<uint64_t>(width * 100 + height * 2 + (mask ? 1 : 0));
  for (int i = 0; i < 2; i++) expect(splat_loss(context, &loss) == SPLAT_OK, "loss", where);
  r.losses[0] = loss.l1, r.losses[1] = loss.ssim, r.losses[2] = loss.mse;

  auto backward = sized<SplatBackwardArgs>();
  backward.n = n, backward.params = r.params.data(), backward.grad_image = r.grad_image.data(), backward.grad_params = r.grads.data();
  backward.grad_transmittance = transmittance.data();
  expect(splat_backward(context, &backward) == SPLAT_OK, "backward", where);
  auto contribution = sized<SplatContributionArgs>();
  contribution.n = n, contribution.sums = r.sums.data(), contribution.peaks = r.peaks.data();
  expect(splat_contribution(context, &contribution) == SPLAT_OK, "contribution", where);

  Floats moment1(rows.size()), moment2(rows.size());
  std::vector<int32_t> last_step(count);
  auto adam = sized<SplatBackwardAdamArgs>();
  adam.step = 3, adam.n = n, adam.params = r.params.data(), adam.moment1 = moment1.data(), adam.moment2 = moment2.data();
  adam.last_step = last_step.data(), adam.grad_image = r.grad_image.data(), adam.density = r.density.data();
  adam.lr_means = adam.lr_log_scales = adam.lr_quats = adam.lr_opacity = adam.lr_sh_dc = adam.lr_sh_rest = 1e-3f;
  adam.beta1 = 0.9f, adam.beta2 = 0.999f, adam.eps = 1e-15f, adam.step_sh_rest = 1;
  expect(splat_backward_adam(context, &adam) == SPLAT_OK, "backward_adam", where);

  Floats points(3 * count), distances(count);
  for (size_t i = 0; i < points.size(); i++) points[i] = rows[i / 3 * SPLAT_ROW + i % 3];
  auto knn = sized<SplatKnnArgs>();
  knn.k = 3, knn.n = n, knn.points = points.data(), knn.mean_sq_dist = distances.data();
  expect(splat_knn(context, &knn) == SPLAT_OK, "knn", where);
  for (const Floats *floats : {&r.image, &r.grad_image, &r.error_map, &r.grads, &r.sums, &r.peaks, &r.params, &r.density, &distances})
    for (float value : *floats)
      if (!isfinite(value)) {
        expect(false, "a result is not finite", where);
        break;
      }
  return r;
}

SplatContext *create(int isa, int n_threads) {
  auto options = sized<SplatContextOptions>();
  options.isa = isa, options.n_threads = n_threads;
  SplatContext *context = nullptr;
  return splat_context_create(&options, &context) == SPLAT_OK ? context : nullptr;
}

void refuses_what_is_wrong(SplatContext *context) {
  auto forward = sized<SplatForwardArgs>();
  expect(splat_forward(context, &forward) == SPLAT_INVALID_ARGUMENT, "an empty camera passed", "refusals");
  expect(splat_forward(context, nullptr) == SPLAT_INVALID_ARGUMENT, "NULL passed", "refusals");
  expect(splat_forward(nullptr, &forward) == SPLAT_INVALID_ARGUMENT, "no context passed", "refusals");
  forward.struct_size = 8;
  expect(splat_forward(context, &forward) == SPLAT_INVALID_ARGUMENT, "a short struct passed", "refusals");
}

}  // namespace

// An argument chooses one SplatIsa: under an emulator, which proves that a set holds no instruction of a later one, all of them take minutes.
int main(int count, char **words) {
  const int sizes[][2] = {{1, 1}, {1, 40}, {70, 1}, {33, 17}, {32, 32}, {270, 130}, {483, 61}};
  const int only = count > 1 ? atoi(words[1]) : SPLAT_ISA_AUTO;
  for (int isa = SPLAT_ISA_GENERIC; isa <= SPLAT_ISA_AVX512; isa++) {
    if (only != SPLAT_ISA_AUTO && isa != only) continue;
    SplatContext *alone = create(isa, 1), *three = create(isa, 3);
    if (!alone) {
      printf("isa %d: not on this machine\n", isa);
      continue;
    }
    refuses_what_is_wrong(alone);
    for (const auto &size : sizes)
      for (int64_t n : {0, 1, 15, 700})
        for (float scale : {-4.0f, 0.0f, 4.0f}) {
          char where[96];
          snprintf(where, sizeof where, "isa %d, %d x %d, %d gaussians of e^%g", isa, size[0], size[1], static_cast<int>(n), static_cast<double>(scale));
          std::vector<uint8_t> mask(static_cast<size_t>(size[0]) * static_cast<size_t>(size[1]));
          for (size_t i = 0; i < mask.size(); i++) mask[i] = i % 5 != 2;
          const Floats rows = scene(n, static_cast<unsigned>(n), scale);
          const int degree = static_cast<int>(n % 4);
          const Run a = run(alone, where, rows, size[0], size[1], degree, n == 15 ? &mask : nullptr);
          const Run b = run(three, where, rows, size[0], size[1], degree, n == 15 ? &mask : nullptr);
          const bool same = a.image == b.image && a.grads == b.grads && a.params == b.params && a.grad_image == b.grad_image &&
                            !memcmp(a.losses, b.losses, sizeof a.losses);
          expect(same, "three threads give other bits than one", where);
        }
    splat_context_destroy(alone);
    splat_context_destroy(three);
    printf("isa %d: done\n", isa);
  }
  return failures ? 1 : 0;
}
