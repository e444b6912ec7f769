// L1 + SSIM and its gradient in one sweep down a strip of columns, STEP rows at a time. Two rings of rows carry the windows: horizontal means of
// x, x^2, x y; then, ten rows behind, the horizontal means of SSIM's derivatives by those three. Down the columns a window slides in registers,
// so that a row is loaded once or twice and not eleven times: the rings do not fit L1. Values are taken minus 0.5, which leaves variances as
// they are and halves what rounding costs them; outside the image and the mask a pixel is zero, so -0.5 here.

constexpr int STEP = 8;         // rows
constexpr int RING = 32;         // rows, at least STEP + SPLAT_SSIM_TAPS - 1
constexpr int REACH = SPLAT_SSIM_TAPS / 2;
constexpr int EDGE = 24;         // floats before a strip's first column; eight of them are used, on a line's boundary
constexpr int MARGIN = 16;       // floats before the first pixel of a row of the job's planes
constexpr int STRIP_MAX = 256;   // columns
constexpr int LINE = STRIP_MAX + 80;

struct LossScratch {
  float x[2][LINE], y[2][LINE];  // rows in turn
  float weight[RING][LINE];
  float means[3][RING][LINE];    // x, x^2, x y along the row
  float back[3][RING][LINE];     // derivatives along the row, from the strip's first column
  float product[3][STEP][LINE];
  float column[3][STEP][LANES];
};

// One task of one channel.
struct Strip {
  const LossJob *job;
  LossScratch *s;
  int channel, left, right, top, bottom;
  double *sums;
};

// The window's weights from its middle outwards, before a loop and not in it: for all that the compiler knows, what the loop stores changes them.
INLINE void spread(const float *w, vf *tap) {
  for (int k = 0; k <= REACH; k++) tap[k] = set1(w[REACH - k]);
}

// Window along a row: out[j] for j in [from, to) from in[j - 5 .. j + 5].
INLINE void blur_row(const float *w, const float *in, float *out, int from, int to) {
  vf tap[REACH + 1];
  spread(w, tap);
  for (int j = from; j < to; j += LANES) {
    vf sum = load(in + j) * tap[0];
    for (int k = 1; k <= REACH; k++) sum = fma(load(in + j - k) + load(in + j + k), tap[k], sum);
    store(out + j, sum);
  }
}
// Window down the ring at row r and column j.
INLINE vf blur_column(const float *w, const float (*ring)[LINE], int r, int j) {
  vf sum = load(ring[r & (RING - 1)] + j) * w[REACH];
  for (int k = 1; k <= REACH; k++)
    sum = fma(load(ring[(r - k) & (RING - 1)] + j) + load(ring[(r + k) & (RING - 1)] + j), set1(w[REACH - k]), sum);
  return sum;
}
// The same for STEP rows from r on.
INLINE void blur_down(const float *w, const float (*ring)[LINE], int r, int j, float (*out)[LANES]) {
  vf in[SPLAT_SSIM_TAPS], tap[REACH + 1];
  spread(w, tap);
#pragma GCC unroll 16
  for (int k = 0; k < SPLAT_SSIM_TAPS - 1; k++) in[k] = load(ring[(r - REACH + k) & (RING - 1)] + j);
#pragma GCC unroll 16
  for (int i = 0; i < STEP; i++) {
    in[(i + 2 * REACH) % SPLAT_SSIM_TAPS] = load(ring[(r + REACH + i) & (RING - 1)] + j);
    vf sum = in[(i + REACH) % SPLAT_SSIM_TAPS] * tap[0];
#pragma GCC unroll 8
    for (int k = 1; k <= REACH; k++)
      sum = fma(in[(i + REACH - k) % SPLAT_SSIM_TAPS] + in[(i + REACH + k) % SPLAT_SSIM_TAPS], tap[k], sum);
    store(out[i], sum);
  }
}

INLINE void fill(float *line, float value) {
  for (int j = 0; j < LINE; j += LANES) store(line + j, set1(value));
}

// Target rows as bytes and their window means, one band of one channel. Runs once per photo while it stays in the cache.
static void target(LossJob *job, int64_t task, void *scratch) {
  LossScratch *s = (LossScratch *)scratch;
  const int channel = (int)(task % 3), strip = (int)(task / 3 % job->n_strips), band = (int)(task / 3 / job->n_strips);
  const int left = strip * job->strip, top = band * job->band;
  const int right = left + job->strip < job->width ? left + job->strip : job->width;
  const int bottom = top + job->band < job->height ? top + job->band : job->height;
  const int first = left - EDGE > 0 ? left - EDGE : 0, last = right + EDGE < job->width ? right + EDGE : job->width;
  const int end = EDGE + (right - left);
  for (int r = top - REACH; r < bottom + REACH; r++) {
    float *y = s->y[0], *squares = s->product[0][0];
    fill(y, -0.5f);
    if (r >= 0 && r < job->height) {
      const uint8_t *from = job->target + (int64_t)r * job->width * 3 + channel;
      const uint8_t *mask = job->mask ? job->mask + (int64_t)r * job->width : 0;
      const bool mine = r >= top && r < bottom;
      uint8_t *bytes = job->y + ((int64_t)channel * job->height + r) * job->stride + MARGIN;
      for (int x = first; x < last; x++) {
        const uint8_t value = !mask || mask[x] ? from[3 * (int64_t)x] : 0;
        y[x - left + EDGE] = (float)value * (1.0f / 255) - 0.5f;
        if (mine && x >= left && x < right) bytes[x] = value;
      }
    }
    for (int j = 0; j < LINE; j += LANES) store(squares + j, load(y + j) * load(y + j));
    blur_row(job->window, y, s->means[0][r & (RING - 1)], EDGE, end);
    blur_row(job->window, squares, s->means[1][r & (RING - 1)], EDGE, end);
    const int row = r - REACH;
    if (row < top) continue;
    const int64_t at = ((int64_t)channel * job->height + row) * job->stride + MARGIN + left;
    for (int j = EDGE; j < end; j += LANES) {
      float mean[LANES] ALIGNED, square[LANES] ALIGNED;
      store(mean, blur_column(job->window, s->means[0], row, j));
      store(square, blur_column(job->window, s->means[1], row, j));
      const size_t bytes = sizeof(float) * (size_t)(end - j < LANES ? end - j : LANES);
      __builtin_memcpy(job->mean_y + at + j - EDGE, mean, bytes);
      __builtin_memcpy(job->square_y + at + j - EDGE, square, bytes);
    }
  }
}

// Row r of image, target and weight. Columns outside image or mask: -0.5, -0.5, 0.
INLINE void enter_row(const Strip &strip, int r) {
  const LossJob *job = strip.job;
  const int channel = strip.channel, left = strip.left, right = strip.right;
  float *x = strip.s->x[r & 1], *y = strip.s->y[r & 1], *weight = strip.s->weight[r & (RING - 1)];
  if (r < 0 || r >= job->height) {
    fill(x, -0.5f);
    fill(y, -0.5f);
    fill(weight, 0.0f);
  } else {
    const int first = left - EDGE > 0 ? left - EDGE : 0, last = right + EDGE < job->width ? right + EDGE : job->width;
    const int begin = first - left + EDGE, end = last - left + EDGE;
    const float *from = job->image + ((int64_t)channel * job->height + r) * job->width + first;
    const uint8_t *bytes = job->y + ((int64_t)channel * job->height + r) * job->stride + MARGIN + first;
    for (int j = 0; j < begin; j += LANES) store(x + j, set1(-0.5f)), store(y + j, set1(-0.5f)), store(weight + j, zero());
    int j = begin;
    for (; j + LANES <= end; j += LANES) {
      __builtin_prefetch(from + j - begin + 3 * (int64_t)job->width);  // a strip's rows are too short for the hardware to see the next
      store(x + j, load(from + j - begin) - 0.5f);
      store(y + j, fma(load_bytes(bytes + j - begin), set1(1.0f / 255), set1(-0.5f)));
      store(weight + j, set1(1.0f));
    }
    for (; j < end; j++) x[j] = from[j - begin] - 0.5f, y[j] = (float)bytes[j - begin] * (1.0f / 255) - 0.5f, weight[j] = 1.0f;
    for (; j < LINE && j % LANES; j++) x[j] = y[j] = -0.5f, weight[j] = 0.0f;
    for (; j < LINE; j += LANES) store(x + j, set1(-0.5f)), store(y + j, set1(-0.5f)), store(weight + j, zero());
    if (job->mask) {
      const uint8_t *mask = job->mask + (int64_t)r * job->width + first;
      for (j = begin; j < end; j++)
        if (!mask[j - begin]) x[j] = -0.5f, weight[j] = 0.0f;
    }
  }
}

// Windows along a row that was entered: of x, x^2 and x y, squares and products formed on the way.
INLINE void blur_entered(const Strip &strip, int r) {
  LossScratch *s = strip.s;
  const int slot = r & (RING - 1);
  vf tap[REACH + 1];
  spread(strip.job->window, tap);
  for (int j = EDGE - 8; j < EDGE + (strip.right - strip.left) + REACH; j += LANES) {
    const float *x = s->x[r & 1] + j, *y = s->y[r & 1] + j;
    vf here = load(x), there = load(y);
    vf mean = here * tap[0], square = here * here * tap[0], product = here * there * tap[0];
#pragma GCC unroll 5
    for (int k = 1; k <= REACH; k++) {
      vf before = load(x - k), after = load(x + k), weight = tap[k];
      mean = fma(before + after, weight, mean);
      square = fma(fma(before, before, after * after), weight, square);
      product = fma(fma(before, load(y - k), after * load(y + k)), weight, product);
    }
    store(s->means[0][slot] + j, mean);
    store(s->means[1][slot] + j, square);
    store(s->means[2][slot] + j, product);
  }
}

// Adds the error of some of row r's pixels to the map, which the first channel starts.
INLINE void map_error(const Strip &strip, int r, int j, vf error) {
  float part[LANES] ALIGNED;
  store(part, error);
  for (int k = 0; k < LANES; k++) {
    const int column = j + k - EDGE;
    if (column < 0 || column >= strip.right - strip.left) continue;
    float *to = strip.job->error_map + (int64_t)r * strip.job->width + strip.left + column;
    *to = (strip.channel ? *to : 0.0f) + part[k];
  }
}

// SSIM of STEP rows and its derivatives, at column j; rows from begin to end count as scored, and adds to the sum what is the strip's own.
INLINE void score_column(const Strip &strip, int r, int begin, int end, int j) {
  const LossJob *job = strip.job;
  LossScratch *s = strip.s;
  for (int k = 0; k < 3; k++) blur_down(job->window, s->means[k], r, j, s->column[k]);
  // The last vector may hang over the strip's right edge, the first over its left.
  const vf at_column = lane_index() + (float)j;
  const vm own = both(ge(at_column, set1((float)EDGE)), lt(at_column, set1((float)(EDGE + (strip.right - strip.left)))));
  vf sum = zero();
  for (int row = begin; row < end; row++) {
    const int i = row - r;
    const int64_t at = ((int64_t)strip.channel * job->height + row) * job->stride + MARGIN + strip.left - EDGE + j;
    __builtin_prefetch(job->mean_y + at + STEP * job->stride);
    __builtin_prefetch(job->square_y + at + STEP * job->stride);
    vf a = load(s->column[0][i]), xx = load(s->column[1][i]), xy = load(s->column[2][i]);
    vf b = load(job->mean_y + at), w = load(s->weight[row & (RING - 1)] + j);
    vf mx = a + 0.5f, my = b + 0.5f, vx = fnma(a, a, xx), vy = fnma(b, b, load(job->square_y + at)), cov = fnma(a, b, xy);
    vf n1 = mx * my * 2.0f + SPLAT_SSIM_C1, n2 = cov * 2.0f + SPLAT_SSIM_C2;
    vf d1 = mx * mx + my * my + SPLAT_SSIM_C1, d2 = vx + vy + SPLAT_SSIM_C2;
    vf both_inverse = rcp(d1 * d2), scaled = n1 * both_inverse;
    vf score = scaled * n2;
    vf by_vx = fnma(score * d1, both_inverse, zero());           // -S / d2
    vf by_cov = scaled * 2.0f;
    vf by_mx = n2 * both_inverse * 2.0f * fnma(mx * n1, both_inverse * d2, my);
    vf by_a = fnma(b, by_cov, fnma(a * 2.0f, by_vx, by_mx));
    store(s->product[0][i] + j, by_a * w);
    store(s->product[1][i] + j, by_vx * w);
    store(s->product[2][i] + j, by_cov * w);
    if (row < strip.top || row >= strip.bottom) continue;
    sum = fma(score, keep(own, w), sum);
    if (job->error_map) map_error(strip, row, j, (1.0f - score) * w * (1.0f / 3));
  }
  strip.sums[1] += (double)sum_lanes(sum);
}

// Values of rows begin to end, and their gradient, at column j from the strip's first. The difference is formed as 255 x - target, rounded once:
// its sign, which is L1's gradient, is then exact.
INLINE void leave_column(const Strip &strip, int r, int begin, int end, int j) {
  const LossJob *job = strip.job;
  LossScratch *s = strip.s;
  const int columns = strip.right - strip.left - j;
  const size_t bytes = sizeof(float) * (size_t)(columns < LANES ? columns : LANES);
  const float of_l1 = (1.0f - job->ssim_weight) * job->inverse_count, of_ssim = -job->ssim_weight * job->inverse_count;
  const vm own = lt(lane_index(), set1((float)columns));
  if (job->grad_image)
    for (int k = 0; k < 3; k++) blur_down(job->window, s->back[k], r, j, s->column[k]);
  vf l1 = zero(), mse = zero();
  for (int row = begin; row < end; row++) {
    const int i = row - r;
    const int64_t line = (int64_t)strip.channel * job->height + row, at = line * job->width + strip.left + j;
    float part[LANES] ALIGNED = {};
    if (columns < LANES) __builtin_memcpy(part, job->image + at, bytes);
    vf pixel = columns < LANES ? load(part) : load(job->image + at);
    vf level = load_bytes(job->y + line * job->stride + MARGIN + strip.left + j);
    vf w = keep(own, load(s->weight[row & (RING - 1)] + EDGE + j));
    vf difference = fma(pixel, set1(255.0f), zero() - level), size = vabs(difference) * (1.0f / 255);
    l1 = fma(size, w, l1);
    mse = fma(size * size, w, mse);
    if (!job->grad_image) continue;
    vf g = fma(pixel * 2.0f - 1.0f, load(s->column[1][i]), load(s->column[0][i]));
    g = fma(fma(level, set1(1.0f / 255), set1(-0.5f)), load(s->column[2][i]), g);
    vf sign = keep(lt(zero(), difference), set1(of_l1)) - keep(lt(difference, zero()), set1(of_l1));
    g = keep(lt(zero(), w), fma(g, set1(of_ssim), sign));
    if (columns < LANES) {
      store(part, g);
      __builtin_memcpy(job->grad_image + at, part, bytes);
    } else {
      store(job->grad_image + at, g);
    }
  }
  strip.sums[0] += (double)sum_lanes(l1);
  strip.sums[2] += (double)sum_lanes(mse);
}

// The derivatives of STEP rows along them; those that were not scored have none.
INLINE void blur_back(const Strip &strip, int r, int begin, int end) {
  LossScratch *s = strip.s;
  for (int i = 0; i < STEP; i++)
    for (int k = 0; k < 3; k++) {
      float *back = s->back[k][(r + i) & (RING - 1)];
      if (r + i >= begin && r + i < end)
        blur_row(strip.job->window, s->product[k][i], back - EDGE, EDGE, EDGE + (strip.right - strip.left));
      else
        fill(back, 0.0f);
    }
}

INLINE int most(int a, int b) { return a > b ? a : b; }
INLINE int least(int a, int b) { return a < b ? a : b; }

static void loss_channel(const Strip &strip) {
  const int columns = strip.right - strip.left;
  const bool with_grad = strip.job->grad_image != 0;
  // Rows of x and of SSIM above and below the band. Those of x are the same without a gradient: sums then group alike, and are equal to the bit.
  const int halo = 2 * REACH, lag = with_grad ? REACH : 0;
  for (int r = strip.top - halo; r - halo < strip.bottom; r += STEP) {
    // A row is used along its length when the next one is written: loads that straddle two stores still under way would stall.
    const int entered = least(r + STEP, strip.bottom + halo);
    for (int row = r; row <= entered && r < entered; row++) {
      if (row < entered) enter_row(strip, row);
      if (row > r) blur_entered(strip, row - 1);
    }
    const int scored = r - REACH, left = r - halo;
    const int score_from = most(most(scored, strip.top - lag), 0);
    const int score_to = least(least(scored + STEP, strip.bottom + lag), strip.job->height);
    if (score_from < score_to)
      for (int j = EDGE - 8; j < EDGE + columns + REACH; j += LANES) score_column(strip, scored, score_from, score_to, j);
    if (with_grad) blur_back(strip, scored, score_from, score_to);
    const int leave_from = most(left, strip.top), leave_to = least(left + STEP, strip.bottom);
    if (leave_from < leave_to)
      for (int j = 0; j < columns; j += LANES) leave_column(strip, left, leave_from, leave_to, j);
  }
}

static void loss(LossJob *job, int64_t task, void *scratch) {
  const int groups = 3 / job->channels_per_task;
  const int group = (int)(task % groups), column = (int)(task / groups % job->n_strips), band = (int)(task / groups / job->n_strips);
  Strip strip = {job, (LossScratch *)scratch, 0, column * job->strip, 0, band * job->band, 0, job->sums[task]};
  strip.right = least(strip.left + job->strip, job->width);
  strip.bottom = least(strip.top + job->band, job->height);
  for (int k = 0; k < 3; k++) strip.sums[k] = 0.0;
  for (int c = 0; c < job->channels_per_task; c++) {
    strip.channel = group * job->channels_per_task + c;
    loss_channel(strip);
  }
}
