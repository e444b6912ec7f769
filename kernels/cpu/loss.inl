// L1 + SSIM and its gradient in one sweep down a strip of columns. Two rings of rows carry the windows: horizontal means of x, x^2, x y;
// then, ten rows behind, the horizontal means of SSIM's derivatives by those three. Values are taken minus 0.5, which leaves variances as
// they are and halves what rounding costs them; outside the image and the mask a pixel is zero, so -0.5 here.

constexpr int RING = 16;         // rows, at least SPLAT_SSIM_TAPS
constexpr int REACH = SPLAT_SSIM_TAPS / 2;
constexpr int EDGE = 16;         // floats before a strip's first column
constexpr int STRIP_MAX = 256;   // columns
constexpr int LINE = STRIP_MAX + 3 * EDGE;

struct LossScratch {
  float x[LINE], y[LINE], weight[RING][LINE];
  float means[3][RING][LINE];    // x, x^2, x y along the row
  float back[3][RING][LINE];     // derivatives along the row
  float product[3][LINE];
};

// Window along a row: out[j] for j in [from, to) from in[j - 5 .. j + 5].
INLINE void blur_row(const float *w, const float *in, float *out, int from, int to) {
  for (int j = from; j < to; j += LANES) {
    vf sum = load(in + j) * w[REACH];
    for (int k = 1; k <= REACH; k++) sum = fma(load(in + j - k) + load(in + j + k), set1(w[REACH - k]), sum);
    store(out + j, sum);
  }
}
// Window down the ring, at row r and column j.
INLINE vf blur_column(const float *w, const float (*ring)[LINE], int r, int j) {
  vf sum = load(ring[r & (RING - 1)] + j) * w[REACH];
  for (int k = 1; k <= REACH; k++)
    sum = fma(load(ring[(r - k) & (RING - 1)] + j) + load(ring[(r + k) & (RING - 1)] + j), set1(w[REACH - k]), sum);
  return sum;
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
    float *y = s->y;
    fill(y, -0.5f);
    if (r >= 0 && r < job->height) {
      const uint8_t *from = job->target + (int64_t)r * job->width * 3 + channel;
      const uint8_t *mask = job->mask ? job->mask + (int64_t)r * job->width : 0;
      const bool mine = r >= top && r < bottom;
      uint8_t *bytes = job->y + ((int64_t)channel * job->height + r) * job->stride + EDGE;
      for (int x = first; x < last; x++) {
        const uint8_t value = !mask || mask[x] ? from[3 * (int64_t)x] : 0;
        y[x - left + EDGE] = (float)value * (1.0f / 255) - 0.5f;
        if (mine && x >= left && x < right) bytes[x] = value;
      }
    }
    for (int j = 0; j < LINE; j += LANES) store(s->product[0] + j, load(y + j) * load(y + j));
    blur_row(job->window, y, s->means[0][r & (RING - 1)], EDGE, end);
    blur_row(job->window, s->product[0], s->means[1][r & (RING - 1)], EDGE, end);
    const int row = r - REACH;
    if (row < top) continue;
    const int64_t at = ((int64_t)channel * job->height + row) * job->stride + EDGE + left;
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
INLINE void enter_row(const LossJob *job, LossScratch *s, int channel, int r, int left, int right) {
  const int slot = r & (RING - 1);
  float *x = s->x, *y = s->y, *weight = s->weight[slot];
  if (r < 0 || r >= job->height) {
    fill(x, -0.5f);
    fill(y, -0.5f);
    fill(weight, 0.0f);
  } else {
    const int first = left - EDGE > 0 ? left - EDGE : 0, last = right + EDGE < job->width ? right + EDGE : job->width;
    const int begin = first - left + EDGE, end = last - left + EDGE;
    const float *from = job->image + ((int64_t)channel * job->height + r) * job->width + first;
    const uint8_t *bytes = job->y + ((int64_t)channel * job->height + r) * job->stride + EDGE + first;
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

// Windows along the row just entered: of x, x^2 and x y, squares and products formed on the way.
INLINE void blur_entered(const LossJob *job, LossScratch *s, int r, int left, int right) {
  const int slot = r & (RING - 1);
  const float *w = job->window;
  for (int j = EDGE - 8; j < EDGE + (right - left) + REACH; j += LANES) {
    const float *x = s->x + j, *y = s->y + j;
    vf here = load(x), there = load(y);
    vf mean = here * w[REACH], square = here * here * w[REACH], product = here * there * w[REACH];
#pragma GCC unroll 5
    for (int k = 1; k <= REACH; k++) {
      vf before = load(x - k), after = load(x + k), weight = set1(w[REACH - k]);
      mean = fma(before + after, weight, mean);
      square = fma(fma(before, before, after * after), weight, square);
      product = fma(fma(before, load(y - k), after * load(y + k)), weight, product);
    }
    store(s->means[0][slot] + j, mean);
    store(s->means[1][slot] + j, square);
    store(s->means[2][slot] + j, product);
  }
}

// SSIM of row r and its derivatives; adds to the sums what lies in the strip's own columns.
INLINE void score_row(const LossJob *job, LossScratch *s, int channel, int r, int left, int right, bool counted, vf *ssim) {
  const int slot = r & (RING - 1);
  const int64_t at = ((int64_t)channel * job->height + r) * job->stride + EDGE + left - EDGE;
  const float *mean_y = job->mean_y + at, *square_y = job->square_y + at, *weight = s->weight[slot];
  const int end = EDGE + (right - left);
  const float per_pixel = 1.0f / 3;
  for (int j = EDGE - 8; j < end + REACH; j += LANES) {
    vf a = blur_column(job->window, s->means[0], r, j), xx = blur_column(job->window, s->means[1], r, j);
    vf xy = blur_column(job->window, s->means[2], r, j);
    __builtin_prefetch(mean_y + j + 2 * job->stride);
    __builtin_prefetch(square_y + j + 2 * job->stride);
    vf b = load(mean_y + j), w = load(weight + j);
    vf mx = a + 0.5f, my = b + 0.5f, vx = fnma(a, a, xx), vy = fnma(b, b, load(square_y + j)), cov = fnma(a, b, xy);
    vf n1 = mx * my * 2.0f + SPLAT_SSIM_C1, n2 = cov * 2.0f + SPLAT_SSIM_C2;
    vf d1 = mx * mx + my * my + SPLAT_SSIM_C1, d2 = vx + vy + SPLAT_SSIM_C2;
    vf both_inverse = rcp(d1 * d2), scaled = n1 * both_inverse;
    vf score = scaled * n2;
    vf by_vx = fnma(score * d1, both_inverse, zero());           // -S / d2
    vf by_cov = scaled * 2.0f;
    vf by_mx = n2 * both_inverse * 2.0f * fnma(mx * n1, both_inverse * d2, my);
    vf by_a = fnma(b, by_cov, fnma(a * 2.0f, by_vx, by_mx));
    store(s->product[0] + j, by_a * w);
    store(s->product[1] + j, by_vx * w);
    store(s->product[2] + j, by_cov * w);
    if (counted) {
      // The last vector may hang over the strip's right edge, the first over its left.
      vf at_column = lane_index() + (float)j;
      vf own = keep(both(ge(at_column, set1((float)EDGE)), lt(at_column, set1((float)end))), w);
      *ssim = fma(score, own, *ssim);
      if (job->error_map) {
        float error[LANES] ALIGNED;
        store(error, (1.0f - score) * w * per_pixel);
        for (int k = 0; k < LANES; k++) {
          const int column = j + k;
          if (column < EDGE || column >= end) continue;
          float *to = job->error_map + (int64_t)r * job->width + left + column - EDGE;
          *to = (channel ? *to : 0.0f) + error[k];
        }
      }
    }
  }
}

// Values of row r, and its gradient. The difference is formed as 255 x - target, rounded once: its sign, which is L1's gradient, is then exact.
INLINE void leave_row(const LossJob *job, LossScratch *s, int channel, int r, int left, int right, vf *l1, vf *mse) {
  const int slot = r & (RING - 1), columns = right - left;
  const int64_t row = (int64_t)channel * job->height + r;
  const float *x = job->image + row * job->width + left, *weight = s->weight[slot] + EDGE;
  const uint8_t *y = job->y + row * job->stride + EDGE + left;
  const float of_l1 = (1.0f - job->ssim_weight) * job->inverse_count, of_ssim = -job->ssim_weight * job->inverse_count;
  float *to = job->grad_image ? job->grad_image + row * job->width + left : 0;
  for (int j = 0; j < columns; j += LANES) {
    const size_t bytes = sizeof(float) * (size_t)(columns - j < LANES ? columns - j : LANES);
    float part[LANES] ALIGNED = {};
    if (j + LANES > columns) __builtin_memcpy(part, x + j, bytes);
    vf pixel = j + LANES > columns ? load(part) : load(x + j), level = load_bytes(y + j);
    vf w = keep(lt(lane_index() + (float)j, set1((float)columns)), load(weight + j));
    vf difference = fma(pixel, set1(255.0f), zero() - level), size = vabs(difference) * (1.0f / 255);
    *l1 = fma(size, w, *l1);
    *mse = fma(size * size, w, *mse);
    if (!to) continue;
    vf g = blur_column(job->window, s->back[0], r, j + EDGE);
    g = fma(pixel * 2.0f - 1.0f, blur_column(job->window, s->back[1], r, j + EDGE), g);
    g = fma(fma(level, set1(1.0f / 255), set1(-0.5f)), blur_column(job->window, s->back[2], r, j + EDGE), g);
    vf sign = keep(lt(zero(), difference), set1(of_l1)) - keep(lt(difference, zero()), set1(of_l1));
    g = keep(lt(zero(), w), fma(g, set1(of_ssim), sign));
    if (j + LANES <= columns) {
      store(to + j, g);
    } else {
      store(part, g);
      __builtin_memcpy(to + j, part, bytes);
    }
  }
}

static void loss_channel(const LossJob *job, LossScratch *s, int channel, int strip, int band, double *sums) {
  const int left = strip * job->strip, top = band * job->band;
  const int right = left + job->strip < job->width ? left + job->strip : job->width;
  const int bottom = top + job->band < job->height ? top + job->band : job->height;
  const bool with_grad = job->grad_image != 0;
  const int halo = with_grad ? 2 * REACH : REACH;  // rows of x above and below the band
  const int lag = halo - REACH;                    // rows of SSIM above and below
  // A row is used along its length one piece of work after it was written: loads that straddle two stores still under way would stall.
  for (int r = top - halo; r <= bottom + halo; r++) {
    const bool entering = r < bottom + halo;
    if (entering) enter_row(job, s, channel, r, left, right);
    const int scored = r - 1 - REACH;
    const bool scoring = scored >= top - lag && scored >= 0 && scored < job->height;
    vf ssim = zero(), l1 = zero(), mse = zero();
    if (scoring) score_row(job, s, channel, scored, left, right, scored >= top && scored < bottom, &ssim);
    if (entering) blur_entered(job, s, r, left, right);
    for (int k = 0; k < 3 && with_grad; k++) {
      float *back = s->back[k][scored & (RING - 1)];
      if (scoring)
        blur_row(job->window, s->product[k], back, EDGE, EDGE + (right - left));
      else
        fill(back, 0.0f);
    }
    const int done = r - 1 - halo;
    if (done >= top) leave_row(job, s, channel, done, left, right, &l1, &mse);
    sums[0] += (double)sum_lanes(l1);
    sums[1] += (double)sum_lanes(ssim);
    sums[2] += (double)sum_lanes(mse);
  }
}

static void loss(LossJob *job, int64_t task, void *scratch) {
  LossScratch *s = (LossScratch *)scratch;
  const int groups = 3 / job->channels_per_task;
  const int group = (int)(task % groups), strip = (int)(task / groups % job->n_strips), band = (int)(task / groups / job->n_strips);
  double *sums = job->sums[task];
  sums[0] = sums[1] = sums[2] = 0.0;
  for (int c = 0; c < job->channels_per_task; c++) loss_channel(job, s, group * job->channels_per_task + c, strip, band, sums);
}
