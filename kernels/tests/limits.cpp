// Sizes at and beyond the limits: refused by name, or refused as too much memory, before any array is touched. Arrays here are one float long, and
// the address space is limited first, so that a size that wraps round would crash and a size that does not fit is told.
#include <sys/resource.h>

#include "scene.h"

namespace {

int failures = 0;
float nothing = 0.0f;  // what every pointer leads to
uint8_t no_byte = 0;

void expect(int status, int wanted, const char *word, const char *what) {
  if (status == wanted && strstr(splat_last_error(), word)) return;
  failures++;
  fprintf(stderr, "%s: status %d (%s), expected %d with \"%s\"\n", what, status, splat_last_error(), wanted, word);
}

SplatForwardArgs frame(int width, int height, int64_t n) {
  auto args = sized<SplatForwardArgs>();
  args.n = n, args.params = &nothing, args.camera = camera(width, height), args.dilation = 0.3f, args.image = &nothing;
  return args;
}

void forward_sizes(SplatContext *context) {
  for (const int64_t n : {int64_t(-1), (int64_t(1) << 31) + 1, int64_t(1) << 40, INT64_MAX, INT64_MIN}) {
    auto args = frame(64, 48, n);
    expect(splat_forward(context, &args), SPLAT_INVALID_ARGUMENT, "n is", "forward, impossible n");
  }
  for (const int64_t n : {int64_t(1) << 31, (int64_t(1) << 31) - 1, int64_t(1) << 28}) {
    auto args = frame(64, 48, n);
    expect(splat_forward(context, &args), SPLAT_OUT_OF_MEMORY, "bytes", "forward, more gaussians than memory");
  }
  for (const int side : {0, -1, 16385, 65536, INT32_MAX, INT32_MIN}) {
    auto args = frame(side, 48, 0);
    expect(splat_forward(context, &args), SPLAT_INVALID_ARGUMENT, "width", "forward, impossible width");
    args = frame(64, side, 0);
    expect(splat_forward(context, &args), SPLAT_INVALID_ARGUMENT, "height", "forward, impossible height");
  }
  auto args = frame(16384, 16384, 0);  // the largest: four gigabytes of state
  expect(splat_forward(context, &args), SPLAT_OUT_OF_MEMORY, "bytes", "forward, more pixels than memory");
}

void loss_sizes(SplatContext *context) {
  auto args = sized<SplatLossArgs>();
  args.width = args.height = 16384, args.image = &nothing, args.target = &no_byte, args.grad_image = &nothing;
  for (const uint64_t key : {0, 9}) {
    args.target_key = key;
    expect(splat_loss(context, &args), SPLAT_OUT_OF_MEMORY, "bytes", "loss, more pixels than memory");
  }
  args.width = 16385;
  expect(splat_loss(context, &args), SPLAT_INVALID_ARGUMENT, "width", "loss, impossible width");
}

void other_sizes(SplatContext *context) {
  auto knn = sized<SplatKnnArgs>();
  knn.k = 3, knn.points = &nothing, knn.mean_sq_dist = &nothing;
  for (const int64_t n : {int64_t(-1), (int64_t(1) << 31) + 1, INT64_MAX}) {
    knn.n = n;
    expect(splat_knn(context, &knn), SPLAT_INVALID_ARGUMENT, "n is", "neighbours, impossible n");
  }
  knn.n = int64_t(1) << 31;
  expect(splat_knn(context, &knn), SPLAT_OUT_OF_MEMORY, "memory", "neighbours, more points than memory");
  auto match = sized<SplatMatchArgs>();
  int32_t none = 0;
  match.a = match.b = &no_byte, match.nearest_a = match.nearest_b = &none;
  for (const int64_t n : {int64_t(-1), (int64_t(1) << 24) + 1, INT64_MAX}) {
    match.n_a = n, match.n_b = 1;
    expect(splat_match(context, &match), SPLAT_INVALID_ARGUMENT, "n_a", "match, impossible n_a");
    match.n_a = 1, match.n_b = n;
    expect(splat_match(context, &match), SPLAT_INVALID_ARGUMENT, "n_b", "match, impossible n_b");
  }
  match.n_a = match.n_b = int64_t(1) << 24;
  expect(splat_match(context, &match), SPLAT_OUT_OF_MEMORY, "memory", "match, more descriptors than memory");
  // No frame of that many gaussians: told before a row is looked at.
  auto backward = sized<SplatBackwardArgs>();
  backward.n = int64_t(1) << 31, backward.params = backward.grad_image = &nothing, backward.grad_params = &nothing;
  expect(splat_backward(context, &backward), SPLAT_INVALID_ARGUMENT, "forward", "backward without a frame");
  auto adam = sized<SplatBackwardAdamArgs>();
  adam.n = int64_t(1) << 31, adam.step = 1, adam.beta1 = 0.9f, adam.beta2 = 0.99f, adam.eps = 1e-15f;
  adam.params = adam.moment1 = adam.moment2 = &nothing, adam.grad_image = &nothing;
  expect(splat_backward_adam(context, &adam), SPLAT_INVALID_ARGUMENT, "forward", "backward_adam without a frame");
  auto contribution = sized<SplatContributionArgs>();
  contribution.n = int64_t(1) << 31, contribution.sums = &nothing;
  expect(splat_contribution(context, &contribution), SPLAT_INVALID_ARGUMENT, "forward", "contribution without a frame");
}

}  // namespace

int main() {
  SplatContext *context = create(SPLAT_ISA_AUTO, 2);
  if (!context) return fprintf(stderr, "%s\n", splat_last_error()), 1;
  const rlimit limit = {rlim_t(1) << 30, rlim_t(1) << 30};
  if (setrlimit(RLIMIT_AS, &limit)) return perror("setrlimit"), 1;
  forward_sizes(context);
  loss_sizes(context);
  other_sizes(context);
  // After all that the context works as ever.
  const Results r = walk(context, scene(50, 1, -1.0f), {33, 31, 3, true, true, true});
  if (r.status != SPLAT_OK) failures++, fprintf(stderr, "after refusals: %s\n", splat_last_error());
  splat_context_destroy(context);
  puts(failures ? "limits: WRONG" : "limits: right");
  return failures ? 1 : 0;
}
