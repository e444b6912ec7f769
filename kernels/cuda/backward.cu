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

// In shared memory, of a warp: pixels of the region whose turn it is and of the one before, in the order in which a lane meets them. Regions take
// turns at places 32 to 63 and at 64 to 95, these also at 0 to 31, so that a lane always goes up from one place and never round.
constexpr int PLACES = 96;
struct Pixels {
  float4 head[PLACES];   // place in the tile, dloss/dred and dloss/dgreen; the map's weight instead of these for contributions
  float blue[PLACES];
  float2 state[PLACES];  // T, P before the bucket's first entry
};

struct Sums {
  float v[9];
};

struct Work {  // a warp's bucket
  int64_t bucket;
  int tile, tile_x, tile_y;
  uint32_t from, to;  // its entries
  uint32_t start;     // how many of the tile's entries come before
};

SPLAT_DEVICE Work work_of(const Frame &f, int64_t bucket, uint32_t tile_number) {
  Work w;
  w.bucket = bucket;
  w.tile = static_cast<int>(tile_number), w.tile_x = w.tile % f.tiles_x, w.tile_y = w.tile / f.tiles_x;
  w.start = static_cast<uint32_t>(bucket - first_bucket(f, w.tile)) * BUCKET;
  w.from = f.tile_begin[w.tile] + w.start, w.to = f.tile_end[w.tile];
  return w;
}

// The regions that the warp's pixels come from, in order, three bits each.
struct Stream {
  uint32_t regions;
  int length;      // regions
  uint32_t turns;  // bit k + 1: this lane's entry touches the k-th of them
};

SPLAT_DEVICE Stream stream_of(uint32_t mine, uint32_t touched) {
  Stream stream = {0, 0, 0};
  for (; touched; touched &= touched - 1) {
    const int region = __ffs(static_cast<int>(touched)) - 1;
    stream.regions |= static_cast<uint32_t>(region) << (3 * stream.length);
    stream.length++;
    stream.turns |= (mine >> region & 1) << stream.length;
  }
  return stream;
}

SPLAT_DEVICE void put(Pixels *to, int lane, bool is_even, const float4 &head, float blue, const float2 &state) {
  for (int at = is_even ? lane + 64 : lane + 32; at >= 0; at -= is_even ? 64 : PLACES) to->head[at] = head, to->blue[at] = blue, to->state[at] = state;
}

// A lane's pixel of a region as it was when the bucket began.
template <bool GRADIENT> SPLAT_DEVICE void load_pixel(const Frame &f, const Work &w, int region, int lane, bool is_even, Pixels *to) {
  const int x = w.tile_x * TILE + place_x(region, lane), y = w.tile_y * TILE + place_y(region, lane);
  const float px = static_cast<float>(place_x(region, lane)), py = static_cast<float>(place_y(region, lane));
  const bool in_image = x < f.width && y < f.height;
  const int thread = region * 32 + lane;
  const float4 state =
      w.start == 0 ? make_float4(in_image ? 1.0f : 0.0f, 0.0f, 0.0f, 0.0f) : f.checkpoints[w.bucket * TILE_PIXELS + thread];
  const int64_t plane = static_cast<int64_t>(f.width) * f.height, pixel = static_cast<int64_t>(y) * f.width + x;
  if (!GRADIENT) {
    const float weight = !in_image ? 0.0f : f.weight_map ? f.weight_map[pixel] : 1.0f;
    put(to, lane, is_even, make_float4(px, py, weight, 0.0f), 0.0f, make_float2(state.x, 0.0f));
    return;
  }
  const float4 last = f.finals[static_cast<int64_t>(w.tile) * TILE_PIXELS + thread];
  float grad[3] = {0.0f, 0.0f, 0.0f}, by_t = 0.0f;
  if (in_image) {
    for (int c = 0; c < 3; c++) grad[c] = f.grad_image[c * plane + pixel];
    if (f.grad_transmittance) by_t = f.grad_transmittance[pixel];
  }
  const float p = (last.x - state.y) * grad[0] + (last.y - state.z) * grad[1] + (last.z - state.w) * grad[2] + last.w * by_t;
  put(to, lane, is_even, make_float4(px, py, grad[0], grad[1]), grad[2], make_float2(state.x, p));
}

SPLAT_DEVICE void add_gradient(const Record &g, float alpha, float u, float v, const float *grad, float *t, float *p, Sums *sums) {
  const float w = alpha * *t;
  const float cg = __fmaf_rn(g.r, grad[0], __fmaf_rn(g.g, grad[1], g.b * grad[2]));
  *p = __fmaf_rn(-w, cg, *p);
  *t = __fmaf_rn(-alpha, *t, *t);
  const float h = __fmaf_rn(-*p, alpha * fast_rcp(1.0f - alpha), w * cg);  // alpha * dloss/dalpha
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
  SPLAT_SHARED(Pixels, pixels, WARPS);
  const int lane = static_cast<int>(threadIdx.x & 31), warp = static_cast<int>(threadIdx.x >> 5);
  Pixels *mine = pixels + warp;
  const int64_t bucket = static_cast<int64_t>(blockIdx.x) * WARPS + warp;
  const uint32_t tile_number = bucket < f.n_buckets ? f.bucket_tile[bucket] : HIDDEN;
  if (tile_number == HIDDEN) return;  // the whole warp
  const Work w = work_of(f, bucket, tile_number);
  const bool has_entry = w.from + static_cast<uint32_t>(lane) < w.to;
  const uint32_t emission = has_entry ? f.instances[w.from + static_cast<uint32_t>(lane)] : 0;
  const uint32_t alive = __ballot_sync(ALL_LANES, lane < REGIONS && f.stops[w.tile * REGIONS + (lane & 7)] > w.start);
  Record g = {};
  uint32_t mask = 0;
  if (has_entry && alive) {  // else blending ended before this bucket, and left no masks for it
    g = f.records[f.owner[emission]];
    mask = f.masks[w.from + static_cast<uint32_t>(lane)] & alive;
  }
  const Local local = local_of(g, w.tile_x, w.tile_y);
  uint32_t touched = mask;
  for (int d = 16; d > 0; d /= 2) touched |= __shfl_xor_sync(ALL_LANES, touched, d);
  const Stream stream = stream_of(mask, touched);

  Sums sums = {};
  float t = 0.0f, p = 0.0f;
  // Step j of turn k: lane l has the pixel 32 k + j - l of the stream, so the k-th region's or, before its turn comes, the one's before. The last turn
  // empties the pipe. What a pixel needs lies in shared memory as floats, one place after another: hardly an integer is worked out for a pixel.
  SPLAT_ROLLED
  for (int k = 0; k <= stream.length && stream.length > 0; k++) {
    if (k < stream.length) {
      __syncwarp();  // who read the region before the last one has done so
      load_pixel<GRADIENT>(f, w, static_cast<int>(stream.regions >> (3 * k) & 7), lane, k % 2 == 0, mine);
      __syncwarp();
    }
    const uint32_t before = stream.turns >> k & 1, now = stream.turns >> (k + 1) & 1;
    const uint32_t steps = (before ? ~(ALL_LANES << lane) : 0) | (now ? ALL_LANES << lane : 0);
    const int from = (k % 2 == 0 ? 64 : 32) - lane;
    const float4 *heads = mine->head + from;
    const float *blues = mine->blue + from;
    const float2 *states = mine->state + from;
    SPLAT_UNROLLED(GRADIENT ? 4 : 1)
    for (int j = 0; j < 32; j++) {
      t = __shfl_up_sync(ALL_LANES, t, 1);
      if (GRADIENT) p = __shfl_up_sync(ALL_LANES, p, 1);
      if (lane == 0) t = states[j].x, p = states[j].y;
      const float4 head = heads[j];
      if (!(steps >> j & 1)) continue;
      float u, v;
      const float power = pair_power(local, head.x, head.y, &u, &v);
      if (!is_drawn(power)) continue;
      const float alpha = fast_exp2(power);
      if (GRADIENT) {
        const float grad[3] = {head.z, head.w, blues[j]};
        add_gradient(g, alpha, u, v, grad, &t, &p, &sums);
      } else {
        add_contribution(alpha, &t, head.z, &sums);
      }
    }
  }
  if (!has_entry) return;
  float4 *slot = f.slots + static_cast<int64_t>(emission) * SLOT;
  slot[0] = make_float4(sums.v[0], sums.v[1], sums.v[2], sums.v[3]);
  if (!GRADIENT) return;
  slot[1] = make_float4(sums.v[4], sums.v[5], sums.v[6], sums.v[7]);
  slot[2] = make_float4(sums.v[8], 0.0f, 0.0f, 0.0f);
}

template <bool GRADIENT> void launch(const Frame &f, Queue &queue) {
  if (f.n_buckets) queue.launch(spread_kernel<GRADIENT>, blocks_for(f.n_buckets, WARPS), 32 * WARPS, f);
}

}  // namespace

void spread(const Frame &f, Queue &queue) { launch<true>(f, queue); }

void contribution(const Frame &f, Queue &queue) { launch<false>(f, queue); }

}  // namespace splat::gpu
