// Blend: a block a tile, a warp a region of 8x4 pixels, a thread a pixel. Each staged gaussian carries the mask of the regions its ellipse can
// touch; a warp takes only its own, by one ballot for 32 of them (some 2.7 times fewer evaluations than all pixels of a 16x16 tile).
#include "ellipse.h"
#include "kernels.h"

namespace splat::gpu {

namespace {

constexpr int STAGED = 3;  // float4 an entry: what the pixels of this tile need of its record

SPLAT_DEVICE void stage(float4 *to, const Record &g, int tile_x, int tile_y) {
  const Local local = local_of(g, tile_x, tile_y);
  to[0] = make_float4(local.u0, local.v0, local.l11, local.l21);
  to[1] = make_float4(local.l22, local.lo, g.r, g.g);
  to[2] = make_float4(g.b, 0.0f, 0.0f, 0.0f);
}

__global__ void __launch_bounds__(TILE_PIXELS) blend_kernel(const Frame f) {
  SPLAT_SHARED(float4, staged, STAGED * ENTRIES);
  SPLAT_SHARED(uint32_t, masks, ENTRIES);
  const int tile = static_cast<int>(blockIdx.x), tile_x = tile % f.tiles_x, tile_y = tile / f.tiles_x;
  const int thread = static_cast<int>(threadIdx.x), region = thread >> 5, lane = thread & 31;
  const int x = tile_x * TILE + place_x(region, lane), y = tile_y * TILE + place_y(region, lane);
  const bool in_image = x < f.width && y < f.height;
  const float px = static_cast<float>(place_x(region, lane)), py = static_cast<float>(place_y(region, lane));
  const uint32_t begin = f.tile_begin[tile], end = f.tile_end[tile];
  const int64_t bucket = first_bucket(f, tile);
  for (uint32_t i = static_cast<uint32_t>(thread); i * BUCKET < end - begin; i += TILE_PIXELS) f.bucket_tile[bucket + i] = static_cast<uint32_t>(tile);

  // A pixel outside the image starts finished, so that it never holds its region back.
  float t = in_image ? 1.0f : 0.0f, r = 0.0f, g = 0.0f, b = 0.0f;
  bool done = __all_sync(ALL_LANES, t < SPLAT_STOP);
  uint32_t stop = done ? 0 : ~0u;
  for (uint32_t base = begin; base < end; base += ENTRIES) {
    if (__syncthreads_count(done) == TILE_PIXELS) break;
    const int count = static_cast<int>(end - base < ENTRIES ? end - base : ENTRIES);
    // A group's entries lie last to first, so that the first is a ballot's highest bit: to find that takes one instruction, the lowest two.
    const int place = thread ^ 31;
    uint32_t mask = 0;
    if (thread < count) {
      const Record mine = f.records[f.owner[f.instances[base + static_cast<uint32_t>(thread)]]];
      stage(staged + STAGED * place, mine, tile_x, tile_y);
      mask = region_mask(ellipse_of(mine), static_cast<float>(tile_x * TILE), static_cast<float>(tile_y * TILE));
      f.masks[base + static_cast<uint32_t>(thread)] = static_cast<uint8_t>(mask);
    }
    masks[place] = mask;
    __syncthreads();
    for (int j = 0; BATCH * j < count && !done; j++) {
      const uint32_t before = base - begin + static_cast<uint32_t>(BATCH * j);
      if (before > 0 && before % BUCKET == 0) f.checkpoints[(bucket + before / BUCKET) * TILE_PIXELS + thread] = make_float4(t, r, g, b);
      uint32_t todo = __ballot_sync(ALL_LANES, masks[BATCH * j + lane] >> region & 1);
      while (todo) {
        const int highest = 31 - __clz(static_cast<int>(todo));
        todo ^= 1u << highest;
        const float4 *each = staged + STAGED * (BATCH * j + highest);
        const float4 head = each[0], middle = each[1];
        const Local local = {head.x, head.y, head.z, head.w, middle.x, middle.y};
        float u, v;
        const float power = pair_power(local, px, py, &u, &v), alpha = is_drawn(power) ? fast_exp2(power) : 0.0f, w = alpha * t;
        t = __fmaf_rn(-alpha, t, t);
        r = __fmaf_rn(w, middle.z, r);
        g = __fmaf_rn(w, middle.w, g);
        b = __fmaf_rn(w, each[2].x, b);
      }
      if (__all_sync(ALL_LANES, t < SPLAT_STOP)) {
        stop = before + BATCH;
        done = true;
      }
    }
  }
  r = __fmaf_rn(t, f.background[0], r), g = __fmaf_rn(t, f.background[1], g), b = __fmaf_rn(t, f.background[2], b);
  f.finals[static_cast<int64_t>(tile) * TILE_PIXELS + thread] = make_float4(r, g, b, t);
  if (lane == 0) f.stops[tile * REGIONS + region] = stop;
  if (!in_image) return;
  const int64_t plane = static_cast<int64_t>(f.width) * f.height, at = static_cast<int64_t>(y) * f.width + x;
  f.image[at] = r, f.image[plane + at] = g, f.image[2 * plane + at] = b;
  if (f.transmittance) f.transmittance[at] = t;
}

}  // namespace

void blend(const Frame &f, Queue &queue) { queue.launch(blend_kernel, static_cast<unsigned>(f.n_tiles), TILE_PIXELS, f); }

}  // namespace splat::gpu
