// L1 + SSIM and its gradient in two passes: windowed means, SSIM and its derivatives by those means; then the derivatives' own windows. Values are taken
// minus 0.5, which leaves variances as they are and halves what rounding costs them; outside image and mask a pixel is zero, so -0.5 here.
#include "kernels.h"

namespace splat::gpu {

namespace {

constexpr int SIDE = 16;                          // pixels of a block, each way
constexpr int REACH = SPLAT_SSIM_TAPS / 2;
constexpr int WIDE = SIDE + 2 * REACH;            // with its surroundings
constexpr int THREADS = SIDE * SIDE;

SPLAT_DEVICE bool in_image(const LossFrame &f, int x, int y) { return x >= 0 && y >= 0 && x < f.width && y < f.height; }

SPLAT_DEVICE bool counts(const LossFrame &f, int x, int y) {
  return in_image(f, x, y) && (!f.mask || f.mask[static_cast<int64_t>(y) * f.width + x]);
}

SPLAT_DEVICE float image_at(const LossFrame &f, int channel, int x, int y) {
  return f.image[(static_cast<int64_t>(channel) * f.height + y) * f.width + x];
}

SPLAT_DEVICE float target_at(const LossFrame &f, int channel, int x, int y) {
  return static_cast<float>(f.target[(static_cast<int64_t>(y) * f.width + x) * 3 + channel]);
}

// Loads what `load(x, y)` gives over the block and its surroundings.
template <class Load> SPLAT_DEVICE void load_wide(int left, int top, float *to, Load load) {
  for (int i = static_cast<int>(threadIdx.x); i < WIDE * WIDE; i += THREADS) to[i] = load(left + i % WIDE - REACH, top + i / WIDE - REACH);
}

// The window along rows: from [WIDE][WIDE] to [WIDE][SIDE].
template <class Value> SPLAT_DEVICE void blur_rows(const float *w, float *to, Value value) {
  for (int i = static_cast<int>(threadIdx.x); i < WIDE * SIDE; i += THREADS) {
    const int at = i / SIDE * WIDE + i % SIDE;
    float sum = 0.0f;
    for (int k = 0; k < SPLAT_SSIM_TAPS; k++) sum = __fmaf_rn(w[k], value(at + k), sum);
    to[i] = sum;
  }
}

// The window down columns, at this thread's pixel.
SPLAT_DEVICE float blur_columns(const float *w, const float *rows) {
  float sum = 0.0f;
  for (int k = 0; k < SPLAT_SSIM_TAPS; k++) sum = __fmaf_rn(w[k], rows[static_cast<int>(threadIdx.x) + k * SIDE], sum);
  return sum;
}

struct Ssim {
  float value, by_mean, by_square, by_product;  // derivatives by the means of x, x^2 and x y
};

SPLAT_DEVICE Ssim ssim_of(float mx, float my, float xx, float yy, float xy) {
  const float x = mx + 0.5f, y = my + 0.5f;
  const float var_x = __fmaf_rn(-mx, mx, xx), var_y = __fmaf_rn(-my, my, yy), cov = __fmaf_rn(-mx, my, xy);
  const float a1 = 2.0f * x * y + SPLAT_SSIM_C1, a2 = 2.0f * cov + SPLAT_SSIM_C2;
  const float b1 = x * x + y * y + SPLAT_SSIM_C1, b2 = var_x + var_y + SPLAT_SSIM_C2;
  const float inverse = 1.0f / (b1 * b2), s = a1 * a2 * inverse;
  Ssim r;
  r.value = s;
  r.by_mean = 2.0f * inverse * (y * a2 - my * a1) - 2.0f * s * (x / b1 - mx / b2);
  r.by_square = -s / b2;
  r.by_product = 2.0f * a1 * inverse;
  return r;
}

// Sum over the block, in an order that never changes, for thread 0; zero for the others. Everybody takes part.
SPLAT_DEVICE double block_sum(double value, double *shared) {
  const int thread = static_cast<int>(threadIdx.x);
  __syncthreads();
  shared[thread] = value;
  for (int half = THREADS / 2; half > 0; half /= 2) {
    __syncthreads();
    if (thread < half) shared[thread] += shared[thread + half];
  }
  return thread == 0 ? shared[0] : 0.0;  // which thread 0 alone has written last, and no barrier follows
}

__global__ void __launch_bounds__(THREADS, 3) ssim_kernel(const LossFrame f) {
  SPLAT_SHARED(float, x_wide, WIDE *WIDE);
  SPLAT_SHARED(float, y_wide, WIDE *WIDE);
  SPLAT_SHARED(float, rows, 5 * WIDE *SIDE);
  SPLAT_SHARED(double, sums, THREADS);
  const int left = static_cast<int>(blockIdx.x) * SIDE, top = static_cast<int>(blockIdx.y) * SIDE;
  const int thread = static_cast<int>(threadIdx.x), x = left + thread % SIDE, y = top + thread / SIDE;
  const bool used = counts(f, x, y);
  double l1 = 0.0, ssim = 0.0, mse = 0.0;
  float error = 0.0f;
  SPLAT_ROLLED
  for (int c = 0; c < 3; c++) {  // without a barrier between turns: each array's readers have met one before it is written again
    load_wide(left, top, x_wide, [&](int i, int j) { return counts(f, i, j) ? image_at(f, c, i, j) - 0.5f : -0.5f; });
    load_wide(left, top, y_wide, [&](int i, int j) { return counts(f, i, j) ? __fmaf_rn(target_at(f, c, i, j), 1.0f / 255, -0.5f) : -0.5f; });
    __syncthreads();
    constexpr int plane = WIDE * SIDE;
    blur_rows(f.window, rows, [&](int i) { return x_wide[i]; });
    blur_rows(f.window, rows + plane, [&](int i) { return y_wide[i]; });
    blur_rows(f.window, rows + 2 * plane, [&](int i) { return x_wide[i] * x_wide[i]; });
    blur_rows(f.window, rows + 3 * plane, [&](int i) { return y_wide[i] * y_wide[i]; });
    blur_rows(f.window, rows + 4 * plane, [&](int i) { return x_wide[i] * y_wide[i]; });
    __syncthreads();
    float means[5];
    for (int k = 0; k < 5; k++) means[k] = blur_columns(f.window, rows + k * plane);
    const Ssim s = ssim_of(means[0], means[1], means[2], means[3], means[4]);
    if (!in_image(f, x, y)) continue;
    const int64_t at = (static_cast<int64_t>(c) * f.height + y) * f.width + x;
    if (f.grad_image) f.by_mean[at] = used ? s.by_mean : 0.0f, f.by_square[at] = used ? s.by_square : 0.0f, f.by_product[at] = used ? s.by_product : 0.0f;
    const float difference = fabsf(__fmaf_rn(image_at(f, c, x, y), 255.0f, -target_at(f, c, x, y))) * (1.0f / 255);
    if (!used) {
      l1 += static_cast<double>(difference * 0.0f);  // what is not finite shows in the sum, also where it does not count
      continue;
    }
    l1 += static_cast<double>(difference);
    mse += static_cast<double>(difference * difference);
    ssim += static_cast<double>(s.value);
    error += (1.0f - s.value) * (1.0f / 3);
  }
  if (f.error_map && in_image(f, x, y)) f.error_map[static_cast<int64_t>(y) * f.width + x] = error;
  const double total_l1 = block_sum(l1, sums), total_ssim = block_sum(ssim, sums), total_mse = block_sum(mse, sums);
  const double count = block_sum(used ? 3.0 : 0.0, sums);
  if (thread == 0) f.partial[blockIdx.y * gridDim.x + blockIdx.x] = LossSums{total_l1, total_ssim, total_mse, count};
}

// The blocks' sums, by one block in a fixed order.
__global__ void __launch_bounds__(THREADS) total_kernel(const LossFrame f, int64_t n_blocks) {
  SPLAT_SHARED(double, sums, THREADS);
  LossSums mine = {};
  for (int64_t i = threadIdx.x; i < n_blocks; i += THREADS) {
    const LossSums each = f.partial[i];
    mine.l1 += each.l1, mine.ssim += each.ssim, mine.mse += each.mse, mine.count += each.count;
  }
  const double l1 = block_sum(mine.l1, sums), ssim = block_sum(mine.ssim, sums), mse = block_sum(mine.mse, sums), count = block_sum(mine.count, sums);
  if (threadIdx.x == 0) *f.total = LossSums{l1, ssim, mse, count};
}

__global__ void __launch_bounds__(THREADS) loss_gradient_kernel(const LossFrame f) {
  SPLAT_SHARED(float, wide, WIDE *WIDE);
  SPLAT_SHARED(float, rows, WIDE *SIDE);
  const int left = static_cast<int>(blockIdx.x) * SIDE, top = static_cast<int>(blockIdx.y) * SIDE, c = static_cast<int>(blockIdx.z);
  const int thread = static_cast<int>(threadIdx.x), x = left + thread % SIDE, y = top + thread / SIDE;
  float means[3];
  for (int k = 0; k < 3; k++) {  // as in ssim_kernel, no barrier between turns
    const float *from = k == 0 ? f.by_mean : k == 1 ? f.by_square : f.by_product;
    load_wide(left, top, wide, [&](int i, int j) { return in_image(f, i, j) ? from[(static_cast<int64_t>(c) * f.height + j) * f.width + i] : 0.0f; });
    __syncthreads();
    blur_rows(f.window, rows, [&](int i) { return wide[i]; });
    __syncthreads();
    means[k] = blur_columns(f.window, rows);
  }
  if (!in_image(f, x, y)) return;
  float g = 0.0f;
  if (counts(f, x, y)) {
    const float inverse = static_cast<float>(1.0 / f.total->count), pixel = image_at(f, c, x, y), level = target_at(f, c, x, y);
    // Formed as 255 x - target, rounded once: its sign, which is L1's gradient, is then exact.
    const float difference = __fmaf_rn(pixel, 255.0f, -level);
    const float sign = difference > 0.0f ? 1.0f : difference < 0.0f ? -1.0f : 0.0f;
    const float by_ssim = means[0] + (2.0f * pixel - 1.0f) * means[1] + __fmaf_rn(level, 1.0f / 255, -0.5f) * means[2];
    g = ((1.0f - f.ssim_weight) * sign - f.ssim_weight * by_ssim) * inverse;
  }
  f.grad_image[(static_cast<int64_t>(c) * f.height + y) * f.width + x] = g;
}

}  // namespace

int64_t loss_blocks(int width, int height) { return static_cast<int64_t>(blocks_for(width, SIDE)) * blocks_for(height, SIDE); }

void loss(const LossFrame &f, Queue &queue) {
  const unsigned across = blocks_for(f.width, SIDE), down = blocks_for(f.height, SIDE);
  queue.launch(ssim_kernel, dim3(across, down), THREADS, f);
  queue.launch(total_kernel, 1, THREADS, f, loss_blocks(f.width, f.height));
  if (f.grad_image) queue.launch(loss_gradient_kernel, dim3(across, down, 3), THREADS, f);
}

}  // namespace splat::gpu
