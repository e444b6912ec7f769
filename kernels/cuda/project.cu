// Gaussians to screen records: one thread each. What is drawn gets a depth key and the number of tiles it touches.
#include "ellipse.h"
#include "kernels.h"

namespace splat::gpu {

namespace {

SPLAT_DEVICE void direction_from_camera(const Frame &f, const float *mean, float *dir, float *inverse_distance) {
  for (int k = 0; k < 3; k++) dir[k] = mean[k] - f.camera_position[k];
  const float r = rsqrt(fmaxf(dir[0] * dir[0] + dir[1] * dir[1] + dir[2] * dir[2], 1e-30f));
  for (int k = 0; k < 3; k++) dir[k] *= r;
  *inverse_distance = r;
}

// Colour, not below zero; false when the harmonics are not finite.
SPLAT_DEVICE bool colour_of(const Frame &f, const float *row, const float *line, Record *g) {
  float c[3], check = 0.0f;
  for (int k = 0; k < 3; k++) c[k] = __fmaf_rn(line[11 + k], SPLAT_SH_0, 0.5f);
  if (f.degree > 0) {
    float dir[3], inverse, basis[16];
    direction_from_camera(f, line, dir, &inverse);
    sh_basis(dir[0], dir[1], dir[2], f.degree, basis);
    for (int k = 0; k < 3; k++) {
      float rest[16];
      load_line(row + 16 * (k + 1), rest);
      for (int j = 0; j < 15; j++) c[k] = __fmaf_rn(basis[j], rest[j], c[k]);
    }
  }
  for (int k = 0; k < 3; k++) check = __fmaf_rn(c[k], 0.0f, check);
  g->r = fmaxf(c[0], 0.0f), g->g = fmaxf(c[1], 0.0f), g->b = fmaxf(c[2], 0.0f);
  return check == 0.0f;
}

// False where it is not drawn.
SPLAT_DEVICE bool record_of(const Frame &f, const float *line, Screen<float> *s, Record *g) {
  project_centre(f.lens, line[0], line[1], line[2], s);
  if (!(s->p[2] >= f.near_plane && s->p[2] <= f.far_plane)) return false;
  project_shape(f.lens, line + 3, line + 6, s);
  g->opacity = 1.0f / (1.0f + expf(-line[10]));
  g->lo = log2f(fmaxf(fminf(g->opacity, SPLAT_OPACITY_MAX), 1e-30f));
  const float reach = g->lo - ALPHA_CUT_LOG2;
  // A shape so large that its numbers overflow is not drawn: det is then infinite or not a number.
  if (!(reach >= 0.0f && s->det * (s->cov_a + s->cov_c) < 3e38f)) return false;
  const float half_log2e = 0.5f * LOG2E, inverse_c = 1.0f / s->cov_c;
  g->x = s->x, g->y = s->y;
  g->l22 = sqrtf(inverse_c * half_log2e);
  g->l11 = sqrtf(s->cov_c / s->det * half_log2e);
  g->l21 = -g->l11 * s->cov_b * inverse_c;
  // Slack: binning must never miss a region that a pixel's rounding lets in.
  g->reach = __fmaf_rn(reach, 1.0001f, 1e-4f);
  g->spare = 0.0f;
  return true;
}

SPLAT_DEVICE uint32_t count_tiles(const Frame &f, const Record &g) {
  const Ellipse e = ellipse_of(g);
  const Span rows = tile_rows(e, f);
  uint32_t count = 0;
  for (int ty = rows.first; ty <= rows.last; ty++) {
    const Span columns = tile_columns(e, ty, f);
    if (columns.last >= columns.first) count += static_cast<uint32_t>(columns.last - columns.first + 1);
  }
  return count;
}

__global__ void __launch_bounds__(128) project_kernel(const Frame f) {
  const int64_t i = global_thread();
  if (i >= f.n) return;
  float line[16], check = 0.0f;
  load_line(f.params + SPLAT_ROW * i, line);
  for (int k = 0; k < 14; k++) check = __fmaf_rn(line[k], 0.0f, check);
  uint32_t key = HIDDEN, count = 0;
  bool finite = check == 0.0f;
  Screen<float> s;
  Record g;
  if (finite && record_of(f, line, &s, &g)) {
    count = count_tiles(f, g);
    if (count > 0) {
      finite = colour_of(f, f.params + SPLAT_ROW * i, line, &g);
      key = __float_as_uint(s.p[2]);
      f.records[i] = g;
    }
  }
  if (!finite) atomicMin(&f.counters->bad_row, static_cast<unsigned long long>(i));
  f.keys[i] = key;
  f.ids[i] = static_cast<uint32_t>(i);
  f.n_touched[i] = count;
}

// Tile counts in depth order, ready to be summed, with a zero after the last: where their sum will be. What is drawn comes first: how many those are,
// the thread at the border knows.
__global__ void __launch_bounds__(256) counts_by_depth_kernel(const Frame f) {
  const int64_t rank = global_thread();
  if (rank > f.n) return;
  const bool drawn = rank < f.n && f.keys_sorted[rank] != HIDDEN;
  f.offsets[rank] = drawn ? f.n_touched[f.order[rank]] : 0;
  if (!drawn && (rank == 0 || f.keys_sorted[rank - 1] != HIDDEN)) f.counters->n_visible = static_cast<unsigned long long>(rank);
}

}  // namespace

void project(const Frame &f, Queue &queue) {
  if (f.n) queue.launch(project_kernel, blocks_for(f.n, 128), 128, f);
}

void counts_by_depth(const Frame &f, Queue &queue) {
  queue.launch(counts_by_depth_kernel, blocks_for(f.n + 1, 256), 256, f);
}

}  // namespace splat::gpu
