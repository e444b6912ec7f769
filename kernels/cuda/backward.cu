// Backward, front to back: a warp takes a bucket of a tile's list and the tile's regions (8x4 pixels) one after another. A region's share of the bucket
// is worked off eight entries at a time: a lane is an entry and a row of eight pixels, and works out what they have in common; then it is a pixel, carries
// its transmittance T and P = (what lies behind, background included) . dloss/dcolour from entry to entry and leaves two products of each in shared
// memory; then it is the entry and the row again, and adds those products up in registers. So every lane has something to do all the time, and a sum
// over 32 pixels costs two shuffles, not five. An entry's sums over the regions are kept beside it and go out in one write: no atomics, the same bits
// every time. Forward left T and the colour so far at each bucket's start, so all buckets run at once. What forward had finished with is left out.
#include "ellipse.h"
#include "kernels.h"
#include "lists.h"

namespace splat::gpu {

namespace {

constexpr int WARPS = 2;   // a block
constexpr int PITCH = 34;  // float2 from one entry's products to the next one's: eight entries, 16 bytes each, then meet all 32 banks once
constexpr int BATCHES = BUCKET / BATCH;
static_assert(ENTRIES % BUCKET == 0 && BATCH == 32, "a lane has one entry of each batch");

struct Sums {
  float v[9];
};

struct Entry {
  float4 place;     // u0, v0, l21, l22
  float4 colour;    // l11, red, green, blue
  float lo, last;   // the ninth sum
  float spare[2];
  float4 sums[2];   // the first eight
};

struct Held {  // by a warp, in shared memory
  Entry entries[BUCKET + 1];         // the last one is never drawn: lists are filled up with it
  float2 products[SET * PITCH];      // of an entry at each of 32 pixels: alpha * dloss/dalpha, and its weight
  float2 rows[SET * REGION_HEIGHT];  // by row, of an entry: u at its first pixel, the power without u's part
  uint16_t list[BUCKET + SET];       // entries that touch the region, by depth
};
static_assert(sizeof(Entry) == 80 && sizeof(Held) % 16 == 0, "16 bytes at a time are read");

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

struct Pixel {
  float x;        // place in its region's row
  float t, p;     // before the entry whose turn it is
  float grad[3];  // dloss/dcolour; for contributions the map's weight
};

// A lane's pixel of a region as it was when the bucket began.
template <bool GRADIENT> SPLAT_DEVICE Pixel load_pixel(const Frame &f, const Work &w, int region, int lane) {
  const int x = w.tile_x * TILE + place_x(region, lane), y = w.tile_y * TILE + place_y(region, lane);
  const bool in_image = x < f.width && y < f.height;
  const int thread = region * 32 + lane;
  Pixel pixel = {static_cast<float>(lane % REGION_WIDTH), 0.0f, 0.0f, {0.0f, 0.0f, 0.0f}};
  const float4 state = w.start == 0 ? make_float4(in_image ? 1.0f : 0.0f, 0.0f, 0.0f, 0.0f) : f.checkpoints[w.bucket * TILE_PIXELS + thread];
  const int64_t plane = static_cast<int64_t>(f.width) * f.height, place = static_cast<int64_t>(y) * f.width + x;
  pixel.t = state.x;
  if (!GRADIENT) {
    pixel.grad[0] = !in_image ? 0.0f : f.weight_map ? f.weight_map[place] : 1.0f;
    return pixel;
  }
  const float4 last = f.finals[static_cast<int64_t>(w.tile) * TILE_PIXELS + thread];
  float by_t = 0.0f;
  if (in_image) {
    for (int c = 0; c < 3; c++) pixel.grad[c] = f.grad_image[c * plane + place];
    if (f.grad_transmittance) by_t = f.grad_transmittance[place];
  }
  pixel.p = (last.x - state.y) * pixel.grad[0] + (last.y - state.z) * pixel.grad[1] + (last.z - state.w) * pixel.grad[2] + last.w * by_t;
  return pixel;
}

// One entry at one pixel.
template <bool GRADIENT> SPLAT_DEVICE float2 product_of(const float2 &row, const float4 &colour, Pixel *pixel) {
  const float alpha = alpha_at(u_at(row.x, colour.x, pixel->x), row.y), w = alpha * pixel->t;
  pixel->t = __fmaf_rn(-alpha, pixel->t, pixel->t);
  if (!GRADIENT) return make_float2(w * pixel->grad[0], w);
  const float cg = __fmaf_rn(colour.y, pixel->grad[0], __fmaf_rn(colour.z, pixel->grad[1], colour.w * pixel->grad[2]));
  pixel->p = __fmaf_rn(-w, cg, pixel->p);
  return make_float2(__fmaf_rn(-pixel->p, alpha * fast_rcp(1.0f - alpha), w * cg), w);
}

// Four entries side by side, so that their loads wait together: the list's from `at` on, the set's from `k` on.
template <bool GRADIENT> SPLAT_DEVICE void take_four(Held *held, int at, int k, int lane, Pixel *pixel) {
  const uint64_t four = *reinterpret_cast<const uint64_t *>(held->list + at);
  const float2 *rows = held->rows + lane / REGION_WIDTH * SET + k;
  for (int j = 0; j < 4; j += 2) {
    const float2 one = product_of<GRADIENT>(rows[j], held->entries[four >> (16 * j) & 0xffff].colour, pixel);
    const float2 two = product_of<GRADIENT>(rows[j + 1], held->entries[four >> (16 * j + 16) & 0xffff].colour, pixel);
    held->products[(k + j) * PITCH + lane] = one, held->products[(k + j + 1) * PITCH + lane] = two;
  }
}

// Adds the set's products over this lane's row of the region, at u = u0 + l11 x.
template <bool GRADIENT> SPLAT_DEVICE Sums sum_row(const float4 *products, float u0, float v, float l11, const float (*grad)[REGION_WIDTH]) {
  Sums sums = {};
  for (int x = 0; x < REGION_WIDTH; x += 2) {
    const float4 two = products[x / 2];
    for (int k = 0; k < 2; k++) {
      const float h = k ? two.z : two.x, w = k ? two.w : two.y;
      sums.v[0] += h;
      if (!GRADIENT) {
        sums.v[1] = fmaxf(sums.v[1], w);
        continue;
      }
      const float u = u_at(u0, l11, static_cast<float>(x + k)), hu = h * u;
      sums.v[1] += hu;
      sums.v[3] = __fmaf_rn(hu, u, sums.v[3]);
      for (int c = 0; c < 3; c++) sums.v[6 + c] = __fmaf_rn(w, grad[c][x + k], sums.v[6 + c]);
    }
  }
  if (!GRADIENT) return sums;
  sums.v[2] = sums.v[0] * v;  // v is the same all along a row
  sums.v[4] = sums.v[1] * v;
  sums.v[5] = sums.v[2] * v;
  return sums;
}

// Adds up four lanes' sums, one a row: the first four of them end in rows 0 and 2, the next four in rows 1 and 3, the ninth in all.
SPLAT_DEVICE float4 sum_rows(const Sums &sums, int row, float *last) {
  float kept[4];
  for (int k = 0; k < 4; k++) {
    kept[k] = row & 1 ? sums.v[4 + k] : sums.v[k];
    kept[k] += __shfl_xor_sync(ALL_LANES, row & 1 ? sums.v[k] : sums.v[4 + k], SET);
    kept[k] += __shfl_xor_sync(ALL_LANES, kept[k], 2 * SET);
  }
  *last = sums.v[8] + __shfl_xor_sync(ALL_LANES, sums.v[8], SET);
  *last += __shfl_xor_sync(ALL_LANES, *last, 2 * SET);
  return make_float4(kept[0], kept[1], kept[2], kept[3]);
}

SPLAT_DEVICE void add_gradients(Entry *entry, const Sums &sums, int row, bool counts) {
  float last;
  const float4 more = sum_rows(sums, row, &last);
  if (!counts) return;
  if (row < 2) {
    const float4 sum = entry->sums[row];
    entry->sums[row] = make_float4(sum.x + more.x, sum.y + more.y, sum.z + more.z, sum.w + more.w);
  } else if (row == 2) {
    entry->last += last;
  }
}

// The weight times the map is a sum, the largest weight is none.
SPLAT_DEVICE void add_contributions(Entry *entry, const Sums &sums, int row, bool counts) {
  float sum = sums.v[0], most = sums.v[1];
  for (int d = SET; d < 32; d *= 2) {
    sum += __shfl_xor_sync(ALL_LANES, sum, d);
    most = fmaxf(most, __shfl_xor_sync(ALL_LANES, most, d));
  }
  if (counts && row == 0) entry->sums[0] = make_float4(entry->sums[0].x + sum, fmaxf(entry->sums[0].y, most), 0.0f, 0.0f);
}

// All of the bucket that touches one region.
template <bool GRADIENT> SPLAT_DEVICE void work_region(Held *held, Pixel pixel, int region, int length, int lane) {
  const int mine = lane % SET, row = lane / SET;
  const float left = static_cast<float>(place_x(region, 0)), y = static_cast<float>(place_y(region, 0) + row);
  float grad[3][REGION_WIDTH];  // of the pixels of this lane's row
  for (int c = 0; c < 3 && GRADIENT; c++)
    for (int x = 0; x < REGION_WIDTH; x++) grad[c][x] = __shfl_sync(ALL_LANES, pixel.grad[c], REGION_WIDTH * row + x);
  SPLAT_ROLLED
  for (int first = 0; first < length; first += SET) {
    Entry *entry = held->entries + held->list[first + mine];
    const float l11 = entry->colour.x;
    const RowView view = row_of({entry->place.x, entry->place.y, l11, entry->place.z, entry->place.w, entry->lo}, left, y);
    held->rows[lane] = make_float2(view.u, view.power);
    __syncwarp();
    take_four<GRADIENT>(held, first, 0, lane, &pixel);
    if (first + 4 < length) take_four<GRADIENT>(held, first + 4, 4, lane, &pixel);
    __syncwarp();
    const float4 *products = reinterpret_cast<const float4 *>(held->products + mine * PITCH + REGION_WIDTH * row);
    const bool counts = first + mine < length;  // else nobody left products here
    const Sums sums = counts ? sum_row<GRADIENT>(products, view.u, view.v, l11, grad) : Sums{};
    if (GRADIENT)
      add_gradients(entry, sums, row, counts);
    else
      add_contributions(entry, sums, row, counts);
    __syncwarp();  // before rows, products and list are written again, and sums read
  }
}

SPLAT_DEVICE void hold(Entry *entry, const Record &g, const Local &local) {
  entry->place = make_float4(local.u0, local.v0, local.l21, local.l22);
  entry->colour = make_float4(local.l11, g.r, g.g, g.b);
  entry->lo = local.lo, entry->last = 0.0f;
  entry->sums[0] = entry->sums[1] = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
}

template <bool GRADIENT> __global__ void __launch_bounds__(32 * WARPS, 14) spread_kernel(const Frame f) {
  SPLAT_SHARED(Held, all, WARPS);
  const int lane = static_cast<int>(threadIdx.x & 31), warp = static_cast<int>(threadIdx.x >> 5);
  Held *held = all + warp;
  const int64_t bucket = static_cast<int64_t>(blockIdx.x) * WARPS + warp;
  const uint32_t tile_number = bucket < f.n_buckets ? f.bucket_tile[bucket] : HIDDEN;
  if (tile_number == HIDDEN) return;  // the whole warp
  const Work w = work_of(f, bucket, tile_number);
  uint32_t emission[BATCHES], masks[BATCHES];
  for (int k = 0; k < BATCHES; k++) {
    const uint32_t place = w.from + static_cast<uint32_t>(BATCH * k + lane);
    const bool has_entry = place < w.to;
    const uint32_t alive = __ballot_sync(ALL_LANES, lane < REGIONS && f.stops[w.tile * REGIONS + (lane & 7)] > w.start + static_cast<uint32_t>(BATCH * k));
    emission[k] = has_entry ? f.instances[place] : 0, masks[k] = 0;
    Record g = {};
    g.lo = NEVER;
    if (has_entry && alive) {  // else blending ended before, and left no masks
      g = f.records[f.owner[emission[k]]];
      masks[k] = f.masks[place] & alive;
    }
    hold(held->entries + BATCH * k + lane, g, local_of(g, w.tile_x, w.tile_y));
  }
  if (lane == 0) hold(held->entries + BUCKET, Record{}, {0.0f, 0.0f, 0.0f, 0.0f, 0.0f, NEVER});
  SPLAT_ROLLED
  for (int region = 0; region < REGIONS; region++) {
    const int length = list_region(region, lane, 0, BUCKET, held->list, [&](int k) { return masks[k]; });
    if (length > 0) work_region<GRADIENT>(held, load_pixel<GRADIENT>(f, w, region, lane), region, length, lane);
  }
  for (int k = 0; k < BATCHES; k++) {
    if (w.from + static_cast<uint32_t>(BATCH * k + lane) >= w.to) continue;
    const Entry &entry = held->entries[BATCH * k + lane];
    float4 *slot = f.slots + static_cast<int64_t>(emission[k]) * SLOT;
    slot[0] = entry.sums[0];
    if (!GRADIENT) continue;
    slot[1] = entry.sums[1];
    slot[2] = make_float4(entry.last, 0.0f, 0.0f, 0.0f);
  }
}

template <bool GRADIENT> void launch(const Frame &f, Queue &queue) {
  if (f.n_buckets) queue.launch(spread_kernel<GRADIENT>, blocks_for(f.n_buckets, WARPS), 32 * WARPS, f);
}

}  // namespace

void spread(const Frame &f, Queue &queue) { launch<true>(f, queue); }

void contribution(const Frame &f, Queue &queue) { launch<false>(f, queue); }

}  // namespace splat::gpu
