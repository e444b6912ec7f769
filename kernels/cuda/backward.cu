// Backward: a warp takes a bucket of a tile's list, and region by region (8x4 pixels) the entries that touch the region, a few at a time. First a lane is
// a pixel and meets them front to back, carrying its transmittance T and P = (what lies behind, background included) . dloss/dcolour; for each it leaves two
// numbers in shared memory. Then a lane is an entry and half the pixels, and adds them up: nine sums an entry, which the lane that owns it keeps until the last
// region and writes once. No atomics, the same bits every time; no lane looks at a pixel of a region that its gaussian does not touch.
// Forward left T and the colour so far at each bucket's start, so all buckets run at once.
#include "ellipse.h"
#include "kernels.h"

namespace splat::gpu {

namespace {

constexpr int WARPS = 2;   // a block
constexpr int STAGED = 3;  // float4 an entry: what the pixels of this tile need of its record
constexpr int CHUNK = 16;  // entries whose shares lie in shared memory at a time: a lane for every half of each
constexpr int ROWS = REGION_HEIGHT * CHUNK / 32;  // of pixels, that a lane adds up
constexpr int SIDE_BY_SIDE = 4;                   // entries that a pixel takes together, so that their loads wait together
constexpr int BATCHES = BUCKET / BATCH;
static_assert(ROWS * 32 == REGION_HEIGHT * CHUNK && CHUNK % SIDE_BY_SIDE == 0 && ENTRIES % BUCKET == 0);

// In shared memory, of a warp.
struct Bucket {
  float4 entries[BUCKET + 1][STAGED];  // the last: one that nothing sees, to fill up with
  float4 grads[32];          // dloss/dcolour of a region's pixels
  float2 shares[CHUNK][33];  // by entry and pixel: alpha * dloss/dalpha, the weight; 33 apart, so that lanes that read one pixel's meet all banks
  uint32_t list[BUCKET + SIDE_BY_SIDE];           // entries that touch the region whose turn it is, first to last
};

struct Work {  // a warp's bucket
  uint32_t bucket;
  int tile, tile_x, tile_y;
  uint32_t from, to;  // its entries
  uint32_t start;     // how many of the tile's entries come before
};

SPLAT_DEVICE Work work_of(const Frame &f, uint32_t bucket, uint32_t tile_number) {
  Work w;
  w.bucket = bucket;
  w.tile = static_cast<int>(tile_number), w.tile_x = w.tile % f.tiles_x, w.tile_y = w.tile / f.tiles_x;
  w.start = static_cast<uint32_t>(bucket - first_bucket(f, w.tile)) * BUCKET;
  w.from = f.tile_begin[w.tile] + w.start, w.to = f.tile_end[w.tile];
  return w;
}

// Puts the bucket's entries into shared memory; returns the regions that each of this lane's touches before blending ended there, a byte each.
SPLAT_DEVICE uint32_t stage_bucket(const Frame &f, const Work &w, int lane, Bucket *to) {
  uint32_t masks = 0;
  for (int k = 0; k < BATCHES; k++) {
    const int place = BATCH * k + lane;
    const uint32_t at = w.from + static_cast<uint32_t>(place);
    const uint32_t alive = __ballot_sync(ALL_LANES, lane < REGIONS && f.stops[w.tile * REGIONS + (lane & 7)] > w.start + static_cast<uint32_t>(BATCH * k));
    if (at >= w.to || !alive) continue;  // where blending ended before, it left no masks
    masks |= (f.masks[at] & alive) << (8 * k);
    const Record g = f.records[f.owner[f.instances[at]]];
    const Local local = local_of(g, w.tile_x, w.tile_y);
    to->entries[place][0] = make_float4(local.u0, local.v0, local.l11, local.l21);
    to->entries[place][1] = make_float4(local.l22, local.lo, g.r, g.g);
    to->entries[place][2] = make_float4(g.b, 0.0f, 0.0f, 0.0f);
  }
  if (lane < STAGED) to->entries[BUCKET][lane] = make_float4(0.0f, lane == 1 ? -1e30f : 0.0f, 0.0f, 0.0f);
  return masks;
}

// Lists what touches a region, filled up to a multiple of SIDE_BY_SIDE; returns how many do, and at which place of the list this lane's own entries are.
SPLAT_DEVICE int list_region(uint32_t masks, int region, int lane, uint32_t *list, int *places) {
  int n = 0;
  for (int k = 0; k < BATCHES; k++) {
    const bool mine = masks >> (8 * k + region) & 1;
    const uint32_t all = __ballot_sync(ALL_LANES, mine);
    places[k] = mine ? n + __popc(all & ~(ALL_LANES << lane)) : -1;
    if (mine) list[places[k]] = static_cast<uint32_t>(BATCH * k + lane);
    n += __popc(all);
  }
  if (lane < SIDE_BY_SIDE) list[n + lane] = BUCKET;
  return n;
}

struct Pixel {
  float x, y;     // its place in the tile
  float t, p;     // before the next entry
  float grad[3];  // by colour; the map's weight instead for contributions
};

// A lane's pixel of a region as it was when the bucket began.
template <bool GRADIENT> SPLAT_DEVICE Pixel pixel_of(const Frame &f, const Work &w, int region, int lane) {
  const int x = w.tile_x * TILE + place_x(region, lane), y = w.tile_y * TILE + place_y(region, lane);
  const bool in_image = x < f.width && y < f.height;
  const int thread = region * 32 + lane;
  const float4 state =
      w.start == 0 ? make_float4(in_image ? 1.0f : 0.0f, 0.0f, 0.0f, 0.0f) : f.checkpoints[static_cast<int64_t>(w.bucket) * TILE_PIXELS + thread];
  const int64_t plane = static_cast<int64_t>(f.width) * f.height, at = static_cast<int64_t>(y) * f.width + x;
  Pixel pixel = {static_cast<float>(place_x(region, lane)), static_cast<float>(place_y(region, lane)), state.x, 0.0f, {0.0f, 0.0f, 0.0f}};
  if (!GRADIENT) {
    pixel.grad[0] = !in_image ? 0.0f : f.weight_map ? f.weight_map[at] : 1.0f;
    return pixel;
  }
  const float4 last = f.finals[static_cast<int64_t>(w.tile) * TILE_PIXELS + thread];
  float by_t = 0.0f;
  if (in_image) {
    for (int c = 0; c < 3; c++) pixel.grad[c] = f.grad_image[c * plane + at];
    if (f.grad_transmittance) by_t = f.grad_transmittance[at];
  }
  pixel.p = (last.x - state.y) * pixel.grad[0] + (last.y - state.z) * pixel.grad[1] + (last.z - state.w) * pixel.grad[2] + last.w * by_t;
  return pixel;
}

// What an entry gave to a pixel, and by how much its alpha would have to change; takes the pixel on to the next entry.
template <bool GRADIENT> SPLAT_DEVICE float2 share_of(const float4 *entry, Pixel *pixel) {
  const float4 head = entry[0], middle = entry[1];
  const Local local = {head.x, head.y, head.z, head.w, middle.x, middle.y};
  float u, v;
  const float power = pair_power(local, pixel->x, pixel->y, &u, &v), alpha = is_drawn(power) ? fast_exp2(power) : 0.0f;
  const float w = alpha * pixel->t;
  pixel->t = __fmaf_rn(-alpha, pixel->t, pixel->t);
  if (!GRADIENT) return make_float2(w * pixel->grad[0], w);
  const float cg = __fmaf_rn(middle.z, pixel->grad[0], __fmaf_rn(middle.w, pixel->grad[1], entry[2].x * pixel->grad[2]));
  pixel->p = __fmaf_rn(-w, cg, pixel->p);
  return make_float2(__fmaf_rn(-pixel->p, alpha * fast_rcp(1.0f - alpha), w * cg), w);
}

struct Sums {
  float v[9];
};

// An entry's sums over some rows of a region, from the place (x, y) of the tile on.
SPLAT_DEVICE Sums rows_of(const float4 *entry, const float2 *shares, const float4 *grads, float x, float y) {
  const float4 head = entry[0];
  const float l22 = entry[1].x;
  Sums sums = {};
  SPLAT_ROLLED
  for (int row = 0; row < ROWS; row++) {
    const float down = y + static_cast<float>(row), v = __fmaf_rn(l22, down, head.y), u0 = __fmaf_rn(head.z, x, __fmaf_rn(head.w, down, head.x));
    float sum = 0.0f, by_u = 0.0f;
    for (int i = 0; i < REGION_WIDTH; i++) {
      const float2 share = shares[REGION_WIDTH * row + i];
      const float4 grad = grads[REGION_WIDTH * row + i];
      const float u = __fmaf_rn(head.z, static_cast<float>(i), u0), hu = share.x * u;
      sum += share.x;
      by_u += hu;
      sums.v[3] = __fmaf_rn(hu, u, sums.v[3]);
      sums.v[6] = __fmaf_rn(share.y, grad.x, sums.v[6]);
      sums.v[7] = __fmaf_rn(share.y, grad.y, sums.v[7]);
      sums.v[8] = __fmaf_rn(share.y, grad.z, sums.v[8]);
    }
    const float by_v = sum * v;  // v is the same all along a row
    sums.v[0] += sum;
    sums.v[1] += by_u;
    sums.v[2] += by_v;
    sums.v[4] = __fmaf_rn(by_u, v, sums.v[4]);
    sums.v[5] = __fmaf_rn(by_v, v, sums.v[5]);
  }
  return sums;
}

SPLAT_DEVICE Sums rows_of(const float2 *shares) {
  Sums sums = {};
  for (int i = 0; i < ROWS * REGION_WIDTH; i++) sums.v[0] += shares[i].x, sums.v[1] = fmaxf(sums.v[1], shares[i].y);
  return sums;
}

// Adds up what a chunk of entries gave to a region, and hands each entry's sums to the lane that owns it: the one with the entry's number in its batch.
template <bool GRADIENT> SPLAT_DEVICE void add_shares(const Bucket *bucket, int from, int count, int region, int lane, const int *places, Sums *owned) {
  const int each = lane % CHUNK, row = lane / CHUNK * ROWS, first = REGION_WIDTH * row;
  const float2 *shares = bucket->shares[each] + first;
  Sums sums = {};
  if (each < count && GRADIENT)
    sums = rows_of(bucket->entries[bucket->list[from + each]], shares, bucket->grads + first, static_cast<float>(place_x(region, first)),
                   static_cast<float>(place_y(region, first)));
  if (each < count && !GRADIENT) sums = rows_of(shares);
  for (int j = 0; j < (GRADIENT ? 9 : 2); j++) {
    const bool is_sum = GRADIENT || j == 0;
    for (int d = CHUNK; d < 32; d *= 2) {
      const float other = __shfl_xor_sync(ALL_LANES, sums.v[j], d);
      sums.v[j] = is_sum ? sums.v[j] + other : fmaxf(sums.v[j], other);
    }
    for (int k = 0; k < BATCHES; k++) {
      const float mine = __shfl_sync(ALL_LANES, sums.v[j], (places[k] - from) & 31);
      if (places[k] >= from && places[k] < from + count) owned[k].v[j] = is_sum ? owned[k].v[j] + mine : fmaxf(owned[k].v[j], mine);
    }
  }
}

template <bool GRADIENT> SPLAT_DEVICE void take_region(const Frame &f, const Work &w, uint32_t masks, int region, int lane, Bucket *bucket, Sums *owned) {
  int places[BATCHES];
  const int n = list_region(masks, region, lane, bucket->list, places);
  Pixel pixel = pixel_of<GRADIENT>(f, w, region, lane);
  bucket->grads[lane] = make_float4(pixel.grad[0], pixel.grad[1], pixel.grad[2], 0.0f);
  __syncwarp();  // for these, the list, and before the first region the entries
  SPLAT_ROLLED
  for (int from = 0; from < n; from += CHUNK) {
    const uint32_t *list = bucket->list + from;
    const int count = n - from < CHUNK ? n - from : CHUNK;
    SPLAT_ROLLED
    for (int k = 0; k < count; k += SIDE_BY_SIDE) {
      float2 shares[SIDE_BY_SIDE];
      for (int j = 0; j < SIDE_BY_SIDE; j++) shares[j] = share_of<GRADIENT>(bucket->entries[list[k + j]], &pixel);
      for (int j = 0; j < SIDE_BY_SIDE; j++) bucket->shares[k + j][lane] = shares[j];
    }
    __syncwarp();
    add_shares<GRADIENT>(bucket, from, count, region, lane, places, owned);
    __syncwarp();
  }
}

template <bool GRADIENT> __global__ void __launch_bounds__(32 * WARPS, 10) spread_kernel(const Frame f) {
  SPLAT_SHARED(Bucket, buckets, WARPS);
  const int lane = static_cast<int>(threadIdx.x & 31), warp = static_cast<int>(threadIdx.x >> 5);
  const uint32_t number = blockIdx.x * WARPS + static_cast<uint32_t>(warp);  // of fewer than 2^27 buckets: a list's places have 32 bits
  const uint32_t tile_number = number < f.n_buckets ? f.bucket_tile[number] : HIDDEN;
  if (tile_number == HIDDEN) return;  // the whole warp
  const Work w = work_of(f, number, tile_number);
  Bucket *bucket = buckets + warp;
  const uint32_t masks = stage_bucket(f, w, lane, bucket);
  uint32_t touched = masks;
  for (int d = 16; d > 0; d /= 2) touched |= __shfl_xor_sync(ALL_LANES, touched, d);
  for (int k = 1; k < BATCHES; k++) touched |= touched >> (8 * k);
  Sums owned[BATCHES] = {};
  SPLAT_ROLLED
  for (touched &= 0xff; touched; touched &= touched - 1)
    take_region<GRADIENT>(f, w, masks, __ffs(static_cast<int>(touched)) - 1, lane, bucket, owned);
  for (int k = 0; k < BATCHES; k++) {
    const uint32_t at = w.from + static_cast<uint32_t>(BATCH * k + lane);
    if (at >= w.to) break;
    float4 *slot = f.slots + static_cast<int64_t>(f.instances[at]) * SLOT;
    const float *v = owned[k].v;
    slot[0] = make_float4(v[0], v[1], v[2], v[3]);
    if (!GRADIENT) continue;
    slot[1] = make_float4(v[4], v[5], v[6], v[7]);
    slot[2] = make_float4(v[8], 0.0f, 0.0f, 0.0f);
  }
}

template <bool GRADIENT> void launch(const Frame &f, Queue &queue) {
  if (f.n_buckets) queue.launch(spread_kernel<GRADIENT>, blocks_for(f.n_buckets, WARPS), 32 * WARPS, f);
}

}  // namespace

void spread(const Frame &f, Queue &queue) { launch<true>(f, queue); }

void contribution(const Frame &f, Queue &queue) { launch<false>(f, queue); }

}  // namespace splat::gpu
