// L1 + SSIM and its gradient in two passes: windowed means, SSIM and its derivatives by those means; then the derivatives' own windows. Values are taken
// minus 0.5, which leaves variances as they are and halves what rounding costs them; outside image and mask a pixel is zero, so -0.5 here.
#include "kernels.h"

namespace splat::gpu {

namespace {

constexpr int SIDE = 32;                          // pixels of a block, each way
constexpr int EACH = 4;                           // pixels of a thread, side by side in a row or a column: they share what their windows share
constexpr int REACH = SPLAT_SSIM_TAPS / 2;
constexpr int WIDE = SIDE + 2 * REACH;            // with its surroundings
constexpr int PITCH = (WIDE + 3) / 4 * 4;         // from row to row of the surroundings: 16 bytes at a time are read
constexpr int PLANE = WIDE * SIDE;                // of what is blurred along rows
constexpr int THREADS = SIDE * SIDE / EACH;

SPLAT_DEVICE bool in_image(const LossFrame &f, int x, int y) { return x >= 0 && y >= 0 && x < f.width && y < f.height; }

SPLAT_DEVICE bool counts(const LossFrame &f, int x, int y) { return in_image(f, x, y) && (!f.mask || f.mask[y * f.width + x]); }

// Places in pictures have 32 bits, and no sign, which would take two instructions more to reach memory: the largest has 3 x 16384 x 16384 values.
SPLAT_DEVICE uint32_t place_in(const LossFrame &f, int channel, int x, int y) { return static_cast<uint32_t>((channel * f.height + y) * f.width + x); }

// Where in the block this thread's pixels lie: one below the other.
SPLAT_DEVICE int column_of_thread() { return static_cast<int>(threadIdx.x) % SIDE; }
SPLAT_DEVICE int row_of_thread() { return static_cast<int>(threadIdx.x) / SIDE * EACH; }

// Calls `load(inside, place)` for each pixel of the block and its surroundings (whether the picture has it, where in a plane: 0 where not), then `store(to,
// value)`, to where in [WIDE][PITCH]. A few loads at a time and without a branch, so that they are on their way together.
template <class Load, class Store> SPLAT_DEVICE void load_wide(const LossFrame &f, int left, int top, Load load, Store store) {
  constexpr int STEP = THREADS / SIDE, MARGIN = WIDE - SIDE;  // rows that all threads take together; columns that are left over
  constexpr int NEAR = (WIDE + STEP - 1) / STEP, ALL = NEAR + (WIDE * MARGIN + THREADS - 1) / THREADS, TOGETHER = 4;
  static_assert(ALL % TOGETHER == 0);
  for (int from = 0; from < ALL; from += TOGETHER) {
    decltype(load(true, 0u)) values[TOGETHER];
    int to[TOGETHER];
    for (int i = 0; i < TOGETHER; i++) {
      const int k = from + i, rest = static_cast<int>(threadIdx.x) + (k - NEAR) * THREADS;
      const int row = k < NEAR ? static_cast<int>(threadIdx.x) / SIDE + k * STEP : rest / MARGIN;
      const int column = k < NEAR ? column_of_thread() : SIDE + rest % MARGIN;
      const int x = left + column - REACH, y = top + row - REACH;
      const bool inside = in_image(f, x, y);
      values[i] = load(inside, inside ? place_in(f, 0, x, y) : 0);
      to[i] = row < WIDE ? row * PITCH + column : -1;
    }
    for (int i = 0; i < TOGETHER; i++)
      if (to[i] >= 0) store(to[i], values[i]);
  }
}

// The window over values that lie side by side, from place 0, 1, 2, 3 on.
template <class Value> SPLAT_DEVICE float4 blur_four(const float *w, Value value) {
  float sums[EACH] = {};
  for (int k = 0; k < SPLAT_SSIM_TAPS; k++)
    for (int j = 0; j < EACH; j++) sums[j] = __fmaf_rn(w[k], value(j + k), sums[j]);
  return make_float4(sums[0], sums[1], sums[2], sums[3]);
}

struct Stretch {  // of a row, as far as four windows reach
  float v[EACH + SPLAT_SSIM_TAPS - 1];
};
static_assert(sizeof(Stretch) == 14 * sizeof(float), "three times four values, and two");

SPLAT_DEVICE Stretch stretch_of(const float *from) {
  Stretch s;
  for (int i = 0; i < 12; i += 4) {
    const float4 four = *reinterpret_cast<const float4 *>(from + i);
    s.v[i] = four.x, s.v[i + 1] = four.y, s.v[i + 2] = four.z, s.v[i + 3] = four.w;
  }
  const float2 two = *reinterpret_cast<const float2 *>(from + 12);
  s.v[12] = two.x, s.v[13] = two.y;
  return s;
}

// Calls `blur(from, to)` for each stretch of the block's rows: from where in [WIDE][PITCH], to where in [WIDE][SIDE].
template <class Blur> SPLAT_DEVICE void for_stretches(Blur blur) {
  SPLAT_ROLLED
  for (int i = static_cast<int>(threadIdx.x); i < PLANE / EACH; i += THREADS) blur(i / (SIDE / EACH) * PITCH + i % (SIDE / EACH) * EACH, i * EACH);
}

SPLAT_DEVICE void put(float *to, const float4 &four) { *reinterpret_cast<float4 *>(to) = four; }

// The window down columns, at this thread's pixels.
SPLAT_DEVICE float4 blur_columns(const float *w, const float *rows) {
  const float *from = rows + row_of_thread() * SIDE + column_of_thread();
  return blur_four(w, [&](int i) { return from[i * SIDE]; });
}

SPLAT_DEVICE float part_of(const float4 &four, int j) { return j == 0 ? four.x : j == 1 ? four.y : j == 2 ? four.z : four.w; }

struct Ssim {
  float value, by_mean, by_square, by_product;  // derivatives by the means of x, x^2 and x y
};

// Of the windowed means of x, y, x^2 + y^2 and x y: SSIM has both variances only in a sum.
SPLAT_DEVICE Ssim ssim_of(float mx, float my, float squares, float xy) {
  const float x = mx + 0.5f, y = my + 0.5f;
  const float variances = __fmaf_rn(-my, my, __fmaf_rn(-mx, mx, squares)), cov = __fmaf_rn(-mx, my, xy);
  const float a1 = 2.0f * x * y + SPLAT_SSIM_C1, a2 = 2.0f * cov + SPLAT_SSIM_C2;
  const float b1 = x * x + y * y + SPLAT_SSIM_C1, b2 = variances + SPLAT_SSIM_C2;
  const float inverse1 = fast_rcp(b1), inverse2 = fast_rcp(b2), inverse = inverse1 * inverse2, s = a1 * a2 * inverse;
  Ssim r;
  r.value = s;
  r.by_mean = 2.0f * inverse * (y * a2 - my * a1) - 2.0f * s * (x * inverse1 - mx * inverse2);
  r.by_square = -s * inverse2;
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

struct Sums {  // over a thread's few pixels of one channel
  float l1, ssim, mse;
};

// What one pixel's value, and its target's, add to the sums; where it does not count both are the same. Leaves SSIM's derivatives for the gradient.
SPLAT_DEVICE void add_value(const LossFrame &f, uint32_t at, bool used, float x, float y, const Ssim &s, Sums *sums, float *error) {
  if (f.grad_image) f.by_mean[at] = used ? s.by_mean : 0.0f, f.by_square[at] = used ? s.by_square : 0.0f, f.by_product[at] = used ? s.by_product : 0.0f;
  const float difference = fabsf(x - y), value = used ? s.value : 0.0f;
  sums->l1 += difference;
  sums->mse = __fmaf_rn(difference, difference, sums->mse);
  sums->ssim += value;
  *error += used ? (1.0f - value) * (1.0f / 3) : 0.0f;
}

__global__ void __launch_bounds__(THREADS, 3) ssim_kernel(const LossFrame f) {
  SPLAT_SHARED(float, x_wide, WIDE *PITCH);
  SPLAT_SHARED(float, y_wide, WIDE *PITCH);
  SPLAT_SHARED(float, rows, 4 * PLANE);
  SPLAT_SHARED(double, totals, THREADS);
  const int left = static_cast<int>(blockIdx.x) * SIDE, top = static_cast<int>(blockIdx.y) * SIDE;
  const int x = left + column_of_thread(), y = top + row_of_thread(), middle = (row_of_thread() + REACH) * PITCH + column_of_thread() + REACH;
  LossSums mine = {};
  bool used[EACH];
  for (int j = 0; j < EACH; j++) used[j] = counts(f, x, y + j), mine.count += used[j] ? 3.0 : 0.0;
  float error[EACH] = {}, check = 0.0f;
  SPLAT_ROLLED
  for (int c = 0; c < 3; c++) {  // without a barrier between turns: each array's readers have met one before it is written again
    const uint32_t plane = place_in(f, c, 0, 0), channel = static_cast<uint32_t>(c);
    load_wide(
        f, left, top,
        [&](bool inside, uint32_t place) {
          const bool is_used = inside && (!f.mask || f.mask[place]);
          const float pixel = f.image[plane + place], level = static_cast<float>(f.target[3 * place + channel]);
          check = __fmaf_rn(pixel, 0.0f, check);  // what is not finite shows in the sum, also where it does not count
          return make_float2((is_used ? pixel : 0.0f) - 0.5f, __fmaf_rn(is_used ? level : 0.0f, 1.0f / 255, -0.5f));
        },
        [&](int to, const float2 &both) { x_wide[to] = both.x, y_wide[to] = both.y; });
    __syncthreads();
    float values[EACH], levels[EACH];
    for (int j = 0; j < EACH; j++) values[j] = x_wide[middle + j * PITCH], levels[j] = y_wide[middle + j * PITCH];
    for_stretches([&](int from, int to) {
      const Stretch sx = stretch_of(x_wide + from), sy = stretch_of(y_wide + from);
      put(rows + to, blur_four(f.window, [&](int i) { return sx.v[i]; }));
      put(rows + PLANE + to, blur_four(f.window, [&](int i) { return sy.v[i]; }));
      put(rows + 2 * PLANE + to, blur_four(f.window, [&](int i) { return __fmaf_rn(sx.v[i], sx.v[i], sy.v[i] * sy.v[i]); }));
      put(rows + 3 * PLANE + to, blur_four(f.window, [&](int i) { return sx.v[i] * sy.v[i]; }));
    });
    __syncthreads();
    float4 means[4];
    for (int k = 0; k < 4; k++) means[k] = blur_columns(f.window, rows + k * PLANE);
    Sums sums = {};
    for (int j = 0; j < EACH; j++) {
      if (!in_image(f, x, y + j)) continue;
      const Ssim s = ssim_of(part_of(means[0], j), part_of(means[1], j), part_of(means[2], j), part_of(means[3], j));
      add_value(f, place_in(f, c, x, y + j), used[j], values[j], levels[j], s, &sums, error + j);
    }
    mine.l1 += static_cast<double>(sums.l1), mine.ssim += static_cast<double>(sums.ssim), mine.mse += static_cast<double>(sums.mse);
  }
  for (int j = 0; j < EACH; j++)
    if (f.error_map && in_image(f, x, y + j)) f.error_map[place_in(f, 0, x, y + j)] = error[j];
  mine.l1 += static_cast<double>(check);
  const double l1 = block_sum(mine.l1, totals), ssim = block_sum(mine.ssim, totals), mse = block_sum(mine.mse, totals);
  const double count = block_sum(mine.count, totals);
  if (threadIdx.x == 0) f.partial[blockIdx.y * gridDim.x + blockIdx.x] = LossSums{l1, ssim, mse, count};
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

// Of a pixel that counts, times the number of values that do.
SPLAT_DEVICE float gradient_of(const LossFrame &f, float pixel, float level, float by_mean, float by_square, float by_product) {
  // Formed as 255 x - target, rounded once: its sign, which is L1's gradient, is then exact.
  const float difference = __fmaf_rn(pixel, 255.0f, -level);
  const float sign = difference > 0.0f ? 1.0f : difference < 0.0f ? -1.0f : 0.0f;
  const float by_ssim = by_mean + (2.0f * pixel - 1.0f) * by_square + __fmaf_rn(level, 1.0f / 255, -0.5f) * by_product;
  return (1.0f - f.ssim_weight) * sign - f.ssim_weight * by_ssim;
}

__global__ void __launch_bounds__(THREADS) loss_gradient_kernel(const LossFrame f) {
  SPLAT_SHARED(float, wide, WIDE *PITCH);
  SPLAT_SHARED(float, rows, PLANE);
  const int left = static_cast<int>(blockIdx.x) * SIDE, top = static_cast<int>(blockIdx.y) * SIDE, c = static_cast<int>(blockIdx.z);
  const int x = left + column_of_thread(), y = top + row_of_thread();
  const uint32_t plane = place_in(f, c, 0, 0);
  float4 means[3];
  for (int k = 0; k < 3; k++) {  // as in ssim_kernel, no barrier between turns
    const float *from = k == 0 ? f.by_mean : k == 1 ? f.by_square : f.by_product;
    load_wide(
        f, left, top,
        [&](bool inside, uint32_t place) {
          const float value = from[plane + place];
          return inside ? value : 0.0f;
        },
        [&](int to, float value) { wide[to] = value; });
    __syncthreads();
    for_stretches([&](int at, int to) {
      const Stretch s = stretch_of(wide + at);
      put(rows + to, blur_four(f.window, [&](int i) { return s.v[i]; }));
    });
    __syncthreads();
    means[k] = blur_columns(f.window, rows);
  }
  const float inverse = static_cast<float>(1.0 / fmax(f.total->count, 1.0));
  float pixels[EACH], levels[EACH];
  bool used[EACH];
  for (int j = 0; j < EACH; j++) {  // all on their way before the first is used
    const bool inside = in_image(f, x, y + j);
    const uint32_t place = inside ? place_in(f, 0, x, y + j) : 0;
    used[j] = inside && (!f.mask || f.mask[place]);
    pixels[j] = f.image[plane + place], levels[j] = static_cast<float>(f.target[3 * place + static_cast<uint32_t>(c)]);
  }
  for (int j = 0; j < EACH; j++) {
    const float g = gradient_of(f, pixels[j], levels[j], part_of(means[0], j), part_of(means[1], j), part_of(means[2], j));
    if (in_image(f, x, y + j)) f.grad_image[place_in(f, c, x, y + j)] = used[j] ? g * inverse : 0.0f;
  }
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
