// Blend: a block a tile, a warp a region of 8x4 pixels, a thread a pixel. Each staged gaussian carries the mask of the regions its ellipse can
// touch; a warp takes only its own, by one ballot for 32 of them (some 2.7 times fewer evaluations than all pixels of a 16x16 tile).
#include "ellipse.h"
#include "kernels.h"

namespace splat::gpu {

namespace {

constexpr int SIDE_BY_SIDE = 4;                    // entries that a pixel takes together, so that their loads wait together
static_assert(ENTRIES % BUCKET == 0, "lists end with the staged entries");

struct Entry {  // what the pixels of this tile need of a record
  float4 head, middle;  // u0, v0, l11, l21; l22, lo, red, green
  float blue, spare[3];
};

struct Pixel {
  float x, y;  // its place in the tile
  float t, r, g, b;
};

SPLAT_DEVICE Entry entry_of(const Record &g, int tile_x, int tile_y) {
  const Local local = local_of(g, tile_x, tile_y);
  return {make_float4(local.u0, local.v0, local.l11, local.l21), make_float4(local.l22, local.lo, g.r, g.g), g.b, {0.0f, 0.0f, 0.0f}};
}

SPLAT_DEVICE void add_entry(const Entry &entry, Pixel *p) {
  const float4 head = entry.head, middle = entry.middle;
  float u, v;
  const float power = pair_power({head.x, head.y, head.z, head.w, middle.x, middle.y}, p->x, p->y, &u, &v);
  const float alpha = is_drawn(power) ? fast_exp2(power) : 0.0f, w = alpha * p->t;
  p->t = __fmaf_rn(-alpha, p->t, p->t);
  p->r = __fmaf_rn(w, middle.z, p->r);
  p->g = __fmaf_rn(w, middle.w, p->g);
  p->b = __fmaf_rn(w, entry.blue, p->b);
}

// Lists, of a bucket's entries from `first` on, those that touch a region, filled up to a multiple of SIDE_BY_SIDE with one that nothing sees.
SPLAT_DEVICE int list_region(const uint32_t *masks, int first, int region, int lane, uint16_t *list) {
  int n = 0;
  for (int k = 0; k < BUCKET; k += BATCH) {
    const bool mine = masks[first + k + lane] >> region & 1;
    const uint32_t all = __ballot_sync(ALL_LANES, mine);
    if (mine) list[n + __popc(all & ~(ALL_LANES << lane))] = static_cast<uint16_t>(first + k + lane);
    n += __popc(all);
  }
  if (lane < SIDE_BY_SIDE) list[n + lane] = ENTRIES;
  __syncwarp();
  return n;
}

SPLAT_DEVICE void add_listed(const Entry *entries, const uint16_t *list, int n, Pixel *pixel) {
  SPLAT_ROLLED
  for (int k = 0; k < n; k += SIDE_BY_SIDE) {
    const uint64_t four = *reinterpret_cast<const uint64_t *>(list + k);
    for (int j = 0; j < SIDE_BY_SIDE; j++) add_entry(entries[four >> (16 * j) & 0xffff], pixel);
  }
}

__global__ void __launch_bounds__(TILE_PIXELS) blend_kernel(const Frame f) {
  SPLAT_SHARED(Entry, entries, ENTRIES + 1);
  SPLAT_SHARED(uint32_t, masks, ENTRIES);
  SPLAT_SHARED(uint16_t, lists, REGIONS *(BUCKET + SIDE_BY_SIDE));
  const int tile = static_cast<int>(blockIdx.x), tile_x = tile % f.tiles_x, tile_y = tile / f.tiles_x;
  const int thread = static_cast<int>(threadIdx.x), region = thread >> 5, lane = thread & 31;
  const int in_x = place_x(region, lane), in_y = place_y(region, lane), x = tile_x * TILE + in_x, y = tile_y * TILE + in_y;
  const bool in_image = x < f.width && y < f.height;
  const uint32_t begin = f.tile_begin[tile], end = f.tile_end[tile];
  const int64_t bucket = first_bucket(f, tile);
  for (uint32_t i = static_cast<uint32_t>(thread); i * BUCKET < end - begin; i += TILE_PIXELS) f.bucket_tile[bucket + i] = static_cast<uint32_t>(tile);
  if (thread == 0) entries[ENTRIES] = {make_float4(0.0f, 0.0f, 0.0f, 0.0f), make_float4(0.0f, NEVER, 0.0f, 0.0f), 0.0f, {0.0f, 0.0f, 0.0f}};

  // A pixel outside the image starts finished, so that it never holds its region back.
  Pixel pixel = {static_cast<float>(in_x), static_cast<float>(in_y), in_image ? 1.0f : 0.0f, 0.0f, 0.0f, 0.0f};
  bool done = __all_sync(ALL_LANES, pixel.t < SPLAT_STOP);
  uint32_t stop = done ? 0 : ~0u;
  for (uint32_t base = begin; base < end; base += ENTRIES) {
    if (__syncthreads_count(done) == TILE_PIXELS) break;
    const int count = static_cast<int>(end - base < ENTRIES ? end - base : ENTRIES);
    uint32_t mask = 0;
    if (thread < count) {
      const Record mine = f.records[f.owner[f.instances[base + static_cast<uint32_t>(thread)]]];
      entries[thread] = entry_of(mine, tile_x, tile_y);
      mask = region_mask(ellipse_of(mine), static_cast<float>(tile_x * TILE), static_cast<float>(tile_y * TILE));
      f.masks[base + static_cast<uint32_t>(thread)] = static_cast<uint8_t>(mask);
    }
    masks[thread] = mask;
    __syncthreads();
    uint16_t *list = lists + region * (BUCKET + SIDE_BY_SIDE);
    for (int j = 0; j < count && !done; j += BUCKET) {
      const uint32_t before = base - begin + static_cast<uint32_t>(j);
      if (before > 0) f.checkpoints[(bucket + before / BUCKET) * TILE_PIXELS + thread] = make_float4(pixel.t, pixel.r, pixel.g, pixel.b);
      add_listed(entries, list, list_region(masks, j, region, lane, list), &pixel);
      __syncwarp();  // before the list is written again
      if (__all_sync(ALL_LANES, pixel.t < SPLAT_STOP)) {
        stop = before + BUCKET;
        done = true;
      }
    }
  }
  const float r = __fmaf_rn(pixel.t, f.background[0], pixel.r), g = __fmaf_rn(pixel.t, f.background[1], pixel.g), b = __fmaf_rn(pixel.t, f.background[2], pixel.b);
  f.finals[static_cast<int64_t>(tile) * TILE_PIXELS + thread] = make_float4(r, g, b, pixel.t);
  if (lane == 0) f.stops[tile * REGIONS + region] = stop;
  if (!in_image) return;
  const int64_t plane = static_cast<int64_t>(f.width) * f.height, at = static_cast<int64_t>(y) * f.width + x;
  f.image[at] = r, f.image[plane + at] = g, f.image[2 * plane + at] = b;
  if (f.transmittance) f.transmittance[at] = pixel.t;
}

}  // namespace

void blend(const Frame &f, Queue &queue) { queue.launch(blend_kernel, static_cast<unsigned>(f.n_tiles), TILE_PIXELS, f); }

}  // namespace splat::gpu
