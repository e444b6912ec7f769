// From sums per (gaussian, tile) to gradients of the parameters, and Adam. A block takes 128 gaussians: first a thread each, for the sums and
// the formulas; then all threads together over the rows, sixteen bytes each, so that parameters and moments move in whole lines.
#include "kernels.h"

namespace splat::gpu {

namespace {

constexpr int GROUP = 128;
constexpr uint32_t LARGE = 24;  // instances from which a whole warp adds up a gaussian's sums

struct Shared {  // what the formulas leave for the rows, by quarters of a line
  float4 line[GROUP][4];
  float4 basis[GROUP][4];
  float colour[GROUP][3];
  float decay1[GROUP], decay2[GROUP];
  int seen[GROUP];
};

struct Sums {
  float v[12];
};

// Where a row's quarter of a line lies in shared memory. Eight threads at a time write the same quarter of eight rows, or read the quarters of two:
// turned round like this, either way they meet all 32 banks once.
SPLAT_DEVICE int place_of(int row, int quarter) { return quarter ^ (row >> 1 & 3); }

SPLAT_DEVICE void put_line(float4 *to, int row, const float *from) {
  for (int q = 0; q < 4; q++) to[place_of(row, q)] = make_float4(from[4 * q], from[4 * q + 1], from[4 * q + 2], from[4 * q + 3]);
}

SPLAT_DEVICE void add_slot(const Frame &f, uint64_t instance, Sums *sums) {
  for (int k = 0; k < SLOT; k++) {
    const float4 each = f.slots[static_cast<int64_t>(instance) * SLOT + k];
    sums->v[4 * k] += each.x, sums->v[4 * k + 1] += each.y, sums->v[4 * k + 2] += each.z, sums->v[4 * k + 3] += each.w;
  }
}

// Sums over a gaussian's instances, always in the same order. All lanes of the warp take part.
SPLAT_DEVICE Sums gather(const Frame &f, int64_t id, uint32_t count, int lane) {
  Sums sums = {};
  const uint64_t first = count ? f.first[id] : 0;
  if (count < LARGE)
    for (uint32_t k = 0; k < count; k++) add_slot(f, first + k, &sums);
  for (uint32_t todo = __ballot_sync(ALL_LANES, count >= LARGE); todo; todo &= todo - 1) {
    const int source = __ffs(static_cast<int>(todo)) - 1;
    const uint64_t from = __shfl_sync(ALL_LANES, first, source);
    const uint32_t n = __shfl_sync(ALL_LANES, count, source);
    Sums part = {};
    for (uint32_t k = static_cast<uint32_t>(lane); k < n; k += 32) add_slot(f, from + k, &part);
    for (int j = 0; j < 9; j++) {
      for (int d = 16; d > 0; d /= 2) part.v[j] += __shfl_xor_sync(ALL_LANES, part.v[j], d);
      if (lane == source) sums.v[j] = part.v[j];
    }
  }
  return sums;
}

// Gradient by the direction of view, added to that of the mean; leaves the bases for the rows.
SPLAT_DEVICE void add_view_dependence(const Frame &f, const float *row, const float *line, const float *by_colour, float *basis, float *by_mean) {
  float dir[3];
  for (int k = 0; k < 3; k++) dir[k] = line[k] - f.camera_position[k];
  const float inverse = rsqrt(fmaxf(dir[0] * dir[0] + dir[1] * dir[1] + dir[2] * dir[2], 1e-30f));
  for (int k = 0; k < 3; k++) dir[k] *= inverse;
  float q[16] = {};
  for (int k = 0; k < 3; k++) {
    float rest[16];
    load_line(row + 16 * (k + 1), rest);
    for (int j = 0; j < 15; j++) q[j] = __fmaf_rn(rest[j], by_colour[k], q[j]);
  }
  sh_basis(dir[0], dir[1], dir[2], f.degree, basis);
  basis[15] = 0.0f;
  float d[3];
  sh_direction_grad(dir[0], dir[1], dir[2], f.degree, q, d, d + 1, d + 2);
  const float along = d[0] * dir[0] + d[1] * dir[1] + d[2] * dir[2];
  for (int k = 0; k < 3; k++) by_mean[k] += (d[k] - dir[k] * along) * inverse;
}

SPLAT_DEVICE void add_density(const Frame &f, int64_t id, const Screen<float> &s, float gx, float gy) {
  const float nx = gx * 0.5f * static_cast<float>(f.width), ny = gy * 0.5f * static_cast<float>(f.height);
  const float half_trace = (s.cov_a + s.cov_c) * 0.5f, difference = (s.cov_a - s.cov_c) * 0.5f;
  const float major = half_trace + sqrtf(difference * difference + s.cov_b * s.cov_b);
  const float radius = sqrtf(major) * SPLAT_RADIUS_SIGMAS / static_cast<float>(f.width > f.height ? f.width : f.height);
  float *to = f.density + SPLAT_DENSITY * id;
  to[0] += sqrtf(nx * nx + ny * ny);
  to[1] += 1.0f;
  to[2] = fmaxf(to[2], radius);
}

// Line 0 of the gradient, and what the other three are made of. The colours come first: their bases need not be kept beside all of the projection.
SPLAT_DEVICE void gradient_of(const Frame &f, int64_t id, const Sums &h, Shared *shared, int thread) {
  const Record r = f.records[id];
  const float *row = f.params + SPLAT_ROW * id;
  float line[16], by[16], by_view[3] = {0.0f, 0.0f, 0.0f};
  load_line(row, line);
  const float colour[3] = {r.r > 0.0f ? h.v[6] : 0.0f, r.g > 0.0f ? h.v[7] : 0.0f, r.b > 0.0f ? h.v[8] : 0.0f};
  for (int k = 0; k < 3; k++) by[11 + k] = colour[k] * SPLAT_SH_0, shared->colour[thread][k] = colour[k];
  if (f.degree > 0) {
    float basis[16];
    add_view_dependence(f, row, line, colour, basis, by_view);
    put_line(shared->basis[thread], thread, basis);
  }
  Screen<float> s;
  project_centre(f.lens, line[0], line[1], line[2], &s);
  project_shape(f.lens, line + 3, line + 6, &s);
  const float gx = r.l11 * h.v[1] * (2.0f * LN2), gy = __fmaf_rn(r.l21, h.v[1], r.l22 * h.v[2]) * (2.0f * LN2);
  // L' [[Suu Suv][Suv Svv]] L, L = [[l11 l21][0 l22]]
  const float factor = 2.0f * LN2 * LN2;
  const float top = __fmaf_rn(h.v[3], r.l21, h.v[4] * r.l22), low = __fmaf_rn(h.v[4], r.l21, h.v[5] * r.l22);
  ScreenGrad<float> g;
  project_backward(f.lens, s, gx, gy, r.l11 * r.l11 * h.v[3] * factor, r.l11 * top * factor, __fmaf_rn(r.l21, top, r.l22 * low) * factor, &g);
  // A size's gradient is a' (dloss/dcov) a, a its axis on the screen. Summed over pixel axes the terms of a needle cancel; over whitened ones,
  // where its outline is a circle, none is larger than the sum by much.
  for (int k = 0; k < 3; k++) {
    const float u = __fmaf_rn(r.l11, s.a[k], r.l21 * s.a[3 + k]), v = r.l22 * s.a[3 + k];
    g.log_scale[k] = 2.0f * factor * __fmaf_rn(u * u, h.v[3], __fmaf_rn(2.0f * u * v, h.v[4], v * v * h.v[5]));
  }
  by[10] = r.opacity < SPLAT_OPACITY_MAX ? h.v[0] * (1.0f - r.opacity) : 0.0f;
  if (f.out_params) {
    by[10] = __fmaf_rn(r.opacity * (1.0f - r.opacity), f.adam.opacity_reg, by[10]);
    for (int k = 0; k < 3; k++) g.log_scale[k] = __fmaf_rn(s.s[k], f.adam.scale_reg, g.log_scale[k]);
  }
  for (int k = 0; k < 3; k++) by[k] = g.mean[k] + by_view[k], by[3 + k] = g.log_scale[k];
  for (int k = 0; k < 4; k++) by[6 + k] = g.quat[k];
  by[14] = by[15] = 0.0f;
  put_line(shared->line[thread], thread, by);
  if (f.density) add_density(f, id, s, gx, gy);
}

// What the moments shrink by since the gaussian was last seen; notes that it is seen now.
SPLAT_DEVICE void note_age(const Frame &f, int64_t id, Shared *shared, int thread) {
  const AdamRates &a = f.adam;
  int age = 1;
  if (f.last_step) {
    age = a.step - f.last_step[id];
    f.last_step[id] = a.step;
  }
  shared->decay1[thread] = age <= 1 ? a.beta1 : exp2f(static_cast<float>(age) * a.log2_beta1);
  shared->decay2[thread] = age <= 1 ? a.beta2 : exp2f(static_cast<float>(age) * a.log2_beta2);
}

SPLAT_DEVICE float4 four_of(const Shared *shared, int row, int quarter) {  // of a row's sixteen quarters of lines
  const int place = place_of(row, quarter & 3);
  if (quarter < 4) return shared->line[row][place];
  const float4 basis = shared->basis[row][place];
  const float colour = shared->colour[row][(quarter >> 2) - 1];
  return make_float4(basis.x * colour, basis.y * colour, basis.z * colour, basis.w * colour);
}

SPLAT_DEVICE float step_one(const AdamRates &a, float p, float g, float lr, float decay1, float decay2, float *m, float *v) {
  *m = __fmaf_rn(*m, decay1, g * (1.0f - a.beta1));
  *v = __fmaf_rn(*v, decay2, g * g * (1.0f - a.beta2));
  return __fmaf_rn(-lr * a.step_scale, *m * fast_rcp(__fmaf_rn(fast_sqrt(*v), a.root_scale, a.eps)), p);
}

SPLAT_DEVICE void step_four(const Frame &f, int64_t id, int quarter, const float4 &g, float decay1, float decay2) {
  const AdamRates &a = f.adam;
  const int64_t at = SPLAT_ROW / 4 * id + quarter;
  float4 p = reinterpret_cast<const float4 *>(f.params)[at];
  float4 m = reinterpret_cast<const float4 *>(f.moment1)[at], v = reinterpret_cast<const float4 *>(f.moment2)[at];
  float lr[4];
  for (int k = 0; k < 4; k++) lr[k] = quarter < 4 ? a.lr[4 * quarter + k] : (quarter & 3) == 3 && k == 3 ? 0.0f : a.lr_rest;
  p.x = step_one(a, p.x, g.x, lr[0], decay1, decay2, &m.x, &v.x);
  p.y = step_one(a, p.y, g.y, lr[1], decay1, decay2, &m.y, &v.y);
  p.z = step_one(a, p.z, g.z, lr[2], decay1, decay2, &m.z, &v.z);
  p.w = step_one(a, p.w, g.w, lr[3], decay1, decay2, &m.w, &v.w);
  reinterpret_cast<float4 *>(f.out_params)[at] = p;
  reinterpret_cast<float4 *>(f.moment1)[at] = m;
  reinterpret_cast<float4 *>(f.moment2)[at] = v;
}

__global__ void __launch_bounds__(GROUP) gradient_kernel(const Frame f) {
  SPLAT_SHARED(Shared, all, 1);
  if (!is_sound(f)) return;
  const int thread = static_cast<int>(threadIdx.x), lane = thread & 31;
  const int64_t base = static_cast<int64_t>(blockIdx.x) * GROUP, id = base + thread;
  const uint32_t count = id < f.n ? f.n_touched[id] : 0;
  const Sums sums = gather(f, id, count, lane);
  all->seen[thread] = count > 0;
  if (count > 0) {
    gradient_of(f, id, sums, all, thread);
    if (f.out_params) note_age(f, id, all, thread);
  }
  __syncthreads();
  const bool with_rest = f.degree > 0 && (f.grad_params || f.adam.with_rest);
  const int bits = f.grad_params || with_rest ? 4 : 2;  // of a quarter's number
  SPLAT_UNROLLED(2)  // so that twice as much is on its way from memory
  for (int i = thread; i < GROUP << bits; i += GROUP) {
    const int row = i >> bits, quarter = i & ((1 << bits) - 1);
    if (base + row >= f.n) break;
    const bool is_zero = !all->seen[row] || (quarter >= 4 && f.degree == 0);
    if (f.grad_params)
      reinterpret_cast<float4 *>(f.grad_params)[SPLAT_ROW / 4 * (base + row) + quarter] =
          is_zero ? make_float4(0.0f, 0.0f, 0.0f, 0.0f) : four_of(all, row, quarter);
    else if (!is_zero)
      step_four(f, base + row, quarter, four_of(all, row, quarter), all->decay1[row], all->decay2[row]);
  }
}

// What `contribution` left in the slots, by gaussian.
__global__ void __launch_bounds__(GROUP) gather_contribution_kernel(const Frame f) {
  if (!is_sound(f)) return;
  const int64_t id = global_thread();
  const int lane = static_cast<int>(threadIdx.x & 31);
  const uint32_t count = id < f.n ? f.n_touched[id] : 0;
  const uint64_t first = count ? f.first[id] : 0;
  float sum = 0.0f, peak = 0.0f;
  for (int source = 0; source < 32; source++) {
    const uint32_t n = __shfl_sync(ALL_LANES, count, source);
    const uint64_t from = __shfl_sync(ALL_LANES, first, source);
    float part = 0.0f, most = 0.0f;
    for (uint32_t k = static_cast<uint32_t>(lane); k < n; k += 32) {
      const float4 slot = f.slots[static_cast<int64_t>(from + k) * SLOT];
      part += slot.x;
      most = fmaxf(most, slot.y);
    }
    for (int d = 16; d > 0; d /= 2) {
      part += __shfl_xor_sync(ALL_LANES, part, d);
      most = fmaxf(most, __shfl_xor_sync(ALL_LANES, most, d));
    }
    if (lane == source) sum = part, peak = most;
  }
  if (count == 0) return;
  if (f.sums) f.sums[id] += sum;
  if (f.peaks) f.peaks[id] = fmaxf(f.peaks[id], peak);
}

}  // namespace

void gradient(const Frame &f, Queue &queue) {
  if (f.n) queue.launch(gradient_kernel, blocks_for(f.n, GROUP), GROUP, f);
}

void gather_contribution(const Frame &f, Queue &queue) {
  if (f.n) queue.launch(gather_contribution_kernel, blocks_for(f.n, GROUP), GROUP, f);
}

}  // namespace splat::gpu
