// Backward, gaussian by gaussian, front to back: a warp takes a bucket of 32 list entries of a tile, a lane an entry, and the tile's pixels pass
// through the lanes one after another, each carrying its transmittance T and P = (what lies behind, background included) . dloss/dcolour.
// A lane meets every pixel of the tile, so its nine sums stay in registers and go out in one write: no atomics, the same bits every time.
// Forward left T and the colour so far at each bucket's start, so all buckets run at once.
//
// Regions (8x4 pixels) that no entry of the bucket touches, or that forward had finished before it, are left out of the stream.
#include "ellipse.h"
#include "kernels.h"

namespace splat::gpu {

namespace {

constexpr int WARPS = 4;  // a block

struct Pixel {  // in shared memory, two regions of them a warp
  float t[64], p[64];
  float grad[3][64];
};

struct Sums {
  float v[9];
};

// Which pixel of which region is the s-th of the stream.
struct Stream {
  uint32_t regions;  // three bits each
  int length;        // pixels
};

SPLAT_DEVICE int region_of(const Stream &stream, int s) { return static_cast<int>(stream.regions >> (3 * (s >> 5)) & 7); }

SPLAT_DEVICE Stream stream_of(uint32_t touched, const uint32_t *stops, uint32_t start) {
  Stream stream = {0, 0};
  for (int region = 0; region < REGIONS; region++) {
    if (!(touched >> region & 1) || stops[region] <= start) continue;
    stream.regions |= static_cast<uint32_t>(region) << (3 * (stream.length >> 5));
    stream.length += 32;
  }
  return stream;
}

// A lane's pixel of a region as it was when the bucket began.
template <bool GRADIENT>
SPLAT_DEVICE void load_pixel(const Frame &f, int tile, int64_t bucket, bool is_first, int region, int lane, int at, Pixel *to) {
  const int x = pixel_x(tile % f.tiles_x, region, lane), y = pixel_y(tile / f.tiles_x, region, lane);
  const bool in_image = x < f.width && y < f.height;
  const int thread = region * 32 + lane;
  const float4 state =
      is_first ? make_float4(in_image ? 1.0f : 0.0f, 0.0f, 0.0f, 0.0f) : f.checkpoints[bucket * TILE_PIXELS + thread];
  const int64_t plane = static_cast<int64_t>(f.width) * f.height, pixel = static_cast<int64_t>(y) * f.width + x;
  to->t[at] = state.x;
  if (!GRADIENT) {
    to->p[at] = !in_image ? 0.0f : f.weight_map ? f.weight_map[pixel] : 1.0f;
    return;
  }
  const float4 last = f.finals[static_cast<int64_t>(tile) * TILE_PIXELS + thread];
  float grad[3] = {0.0f, 0.0f, 0.0f}, by_t = 0.0f;
  if (in_image) {
    for (int c = 0; c < 3; c++) grad[c] = f.grad_image[c * plane + pixel];
    if (f.grad_transmittance) by_t = f.grad_transmittance[pixel];
  }
  to->p[at] = (last.x - state.y) * grad[0] + (last.y - state.z) * grad[1] + (last.z - state.w) * grad[2] + last.w * by_t;
  for (int c = 0; c < 3; c++) to->grad[c][at] = grad[c];
}

SPLAT_DEVICE void add_gradient(const Record &g, float alpha, float u, float v, const float *grad, float *t, float *p, Sums *sums) {
  const float w = alpha * *t;
  const float cg = __fmaf_rn(g.r, grad[0], __fmaf_rn(g.g, grad[1], g.b * grad[2]));
  *p = __fmaf_rn(-w, cg, *p);
  *t = __fmaf_rn(-alpha, *t, *t);
  const float h = __fmaf_rn(-*p, alpha / (1.0f - alpha), w * cg);  // alpha * dloss/dalpha
  const float hu = h * u, hv = h * v;
  sums->v[0] += h;
  sums->v[1] += hu;
  sums->v[2] += hv;
  sums->v[3] = __fmaf_rn(hu, u, sums->v[3]);
  sums->v[4] = __fmaf_rn(hu, v, sums->v[4]);
  sums->v[5] = __fmaf_rn(hv, v, sums->v[5]);
  for (int c = 0; c < 3; c++) sums->v[6 + c] = __fmaf_rn(w, grad[c], sums->v[6 + c]);
}

// sums[0]: of weight times the map; sums[1]: the largest weight.
SPLAT_DEVICE void add_contribution(float alpha, float *t, float weight, Sums *sums) {
  const float w = alpha * *t;
  *t = __fmaf_rn(-alpha, *t, *t);
  sums->v[0] = __fmaf_rn(w, weight, sums->v[0]);
  sums->v[1] = fmaxf(sums->v[1], w);
}

template <bool GRADIENT> __global__ void __launch_bounds__(32 * WARPS) spread_kernel(const Frame f) {
  SPLAT_SHARED(Pixel, pixels, WARPS);
  const int lane = static_cast<int>(threadIdx.x & 31), warp = static_cast<int>(threadIdx.x >> 5);
  Pixel *mine = pixels + warp;
  const int64_t bucket = static_cast<int64_t>(blockIdx.x) * WARPS + warp;
  const uint32_t tile_number = bucket < f.n_buckets ? f.bucket_tile[bucket] : HIDDEN;
  if (tile_number == HIDDEN) return;  // the whole warp
  const int tile = static_cast<int>(tile_number);
  const uint32_t begin = f.tile_begin[tile], end = f.tile_end[tile];
  const uint32_t start = static_cast<uint32_t>(bucket - first_bucket(f, tile)) * BUCKET;
  const bool has_entry = begin + start + static_cast<uint32_t>(lane) < end;
  const uint32_t emission = has_entry ? f.instances[begin + start + static_cast<uint32_t>(lane)] : 0;
  Record g = {};
  uint32_t mask = 0;
  if (has_entry) {
    g = f.records[f.owner[emission]];
    mask = region_mask(ellipse_of(g), static_cast<float>(tile % f.tiles_x * TILE), static_cast<float>(tile / f.tiles_x * TILE));
  }
  uint32_t touched = mask;
  for (int d = 16; d > 0; d /= 2) touched |= __shfl_xor_sync(ALL_LANES, touched, d);
  const Stream stream = stream_of(touched, f.stops + tile * REGIONS, start);

  Sums sums = {};
  float t = 0.0f, p = 0.0f;
  for (int i = 0; i < stream.length + 31 && stream.length > 0; i++) {
    if ((i & 31) == 0 && i < stream.length) {
      __syncwarp();  // who read the region before the last one has done so
      load_pixel<GRADIENT>(f, tile, bucket, start == 0, region_of(stream, i), lane, (i & 32) + lane, mine);
      __syncwarp();
    }
    t = __shfl_up_sync(ALL_LANES, t, 1);
    if (GRADIENT) p = __shfl_up_sync(ALL_LANES, p, 1);
    const int s = i - lane;
    if (s < 0 || s >= stream.length) continue;
    const int at = s & 63, region = region_of(stream, s);
    if (lane == 0) t = mine->t[at], p = mine->p[at];
    if (!(mask >> region & 1)) continue;
    float u, v;
    const float px = static_cast<float>(pixel_x(tile % f.tiles_x, region, s & 31)) + 0.5f;
    const float py = static_cast<float>(pixel_y(tile / f.tiles_x, region, s & 31)) + 0.5f;
    const float alpha = pair_alpha(g, px, py, &u, &v);
    if (alpha == 0.0f) continue;
    if (GRADIENT) {
      const float grad[3] = {mine->grad[0][at], mine->grad[1][at], mine->grad[2][at]};
      add_gradient(g, alpha, u, v, grad, &t, &p, &sums);
    } else {
      add_contribution(alpha, &t, mine->p[at], &sums);
    }
  }
  if (!has_entry) return;
  float4 *slot = f.slots + static_cast<int64_t>(emission) * SLOT;
  slot[0] = make_float4(sums.v[0], sums.v[1], sums.v[2], sums.v[3]);
  if (!GRADIENT) return;
  slot[1] = make_float4(sums.v[4], sums.v[5], sums.v[6], sums.v[7]);
  slot[2] = make_float4(sums.v[8], 0.0f, 0.0f, 0.0f);
}

template <bool GRADIENT> void launch(const Frame &f, cudaStream_t stream) {
  if (f.n_buckets) SPLAT_LAUNCH(spread_kernel<GRADIENT>, blocks_for(f.n_buckets, WARPS), 32 * WARPS, stream, f);
}

}  // namespace

void spread(const Frame &f, cudaStream_t stream) { launch<true>(f, stream); }

void contribution(const Frame &f, cudaStream_t stream) { launch<false>(f, stream); }

}  // namespace splat::gpu
