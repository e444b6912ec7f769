// Blend: a block a tile, a warp a region of 8x4 pixels, a thread a pixel. Each staged gaussian carries the mask of the regions its ellipse can
// touch; a warp takes only its own, by one ballot for 32 of them (some 2.7 times fewer evaluations than all pixels of a 16x16 tile).
#include "ellipse.h"
#include "kernels.h"

namespace splat::gpu {

namespace {

SPLAT_DEVICE Record staged(const float4 *records, int k) {
  Record g;
  const float4 a = records[3 * k], b = records[3 * k + 1], c = records[3 * k + 2];
  g.x = a.x, g.y = a.y, g.l11 = a.z, g.l21 = a.w;
  g.l22 = b.x, g.lo = b.y, g.r = b.z, g.g = b.w;
  g.b = c.x, g.reach = c.y, g.opacity = c.z, g.spare = c.w;
  return g;
}

__global__ void __launch_bounds__(TILE_PIXELS) blend_kernel(const Frame f) {
  SPLAT_SHARED(float4, records, 3 * ENTRIES);
  SPLAT_SHARED(uint32_t, masks, ENTRIES);
  const int tile = static_cast<int>(blockIdx.x), tile_x = tile % f.tiles_x, tile_y = tile / f.tiles_x;
  const int thread = static_cast<int>(threadIdx.x), region = thread >> 5, lane = thread & 31;
  const int x = pixel_x(tile_x, region, lane), y = pixel_y(tile_y, region, lane);
  const bool in_image = x < f.width && y < f.height;
  const float px = static_cast<float>(x) + 0.5f, py = static_cast<float>(y) + 0.5f;
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
    uint32_t mask = 0;
    if (thread < count) {
      const Record mine = f.records[f.owner[f.instances[base + static_cast<uint32_t>(thread)]]];
      records[3 * thread] = make_float4(mine.x, mine.y, mine.l11, mine.l21);
      records[3 * thread + 1] = make_float4(mine.l22, mine.lo, mine.r, mine.g);
      records[3 * thread + 2] = make_float4(mine.b, mine.reach, mine.opacity, 0.0f);
      mask = region_mask(ellipse_of(mine), static_cast<float>(tile_x * TILE), static_cast<float>(tile_y * TILE));
    }
    masks[thread] = mask;
    __syncthreads();
    for (int j = 0; BUCKET * j < count && !done; j++) {
      const int64_t here = bucket + (base - begin) / BUCKET + j;
      if (here > bucket) f.checkpoints[here * TILE_PIXELS + thread] = make_float4(t, r, g, b);
      for (uint32_t todo = __ballot_sync(ALL_LANES, masks[BUCKET * j + lane] >> region & 1); todo; todo &= todo - 1) {
        const Record each = staged(records, BUCKET * j + __ffs(todo) - 1);
        float u, v;
        const float alpha = pair_alpha(each, px, py, &u, &v), w = alpha * t;
        t = __fmaf_rn(-alpha, t, t);
        r = __fmaf_rn(w, each.r, r);
        g = __fmaf_rn(w, each.g, g);
        b = __fmaf_rn(w, each.b, b);
      }
      if (__all_sync(ALL_LANES, t < SPLAT_STOP)) {
        stop = base - begin + static_cast<uint32_t>(BUCKET * (j + 1));
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

void blend(const Frame &f, cudaStream_t stream) { SPLAT_LAUNCH(blend_kernel, static_cast<unsigned>(f.n_tiles), TILE_PIXELS, stream, f); }

}  // namespace splat::gpu
