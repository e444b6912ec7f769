// Blend: a block a tile, a warp a region of 8x4 pixels, a thread a pixel. Each staged gaussian carries the mask of the regions its ellipse can
// touch; a warp takes only its own, by one ballot for 32 of them (some 2.7 times fewer evaluations than all pixels of a 16x16 tile).
#include "ellipse.h"
#include "kernels.h"
#include "lists.h"

namespace splat::gpu {

namespace {

constexpr int SIDE_BY_SIDE = 4;  // entries that a pixel takes together, so that their loads wait together
static_assert(ENTRIES % BUCKET == 0, "lists end with the staged entries");

struct Entry {  // what the pixels of this tile need of a record
  float4 place;   // u0, v0, l21, l22
  float4 colour;  // l11, red, green, blue
  float lo, spare[3];
};

struct Pixel {
  float x;  // its place in its region's row
  float t, r, g, b;
};

SPLAT_DEVICE Entry entry_of(const Record &g, int tile_x, int tile_y) {
  const Local local = local_of(g, tile_x, tile_y);
  return {make_float4(local.u0, local.v0, local.l21, local.l22), make_float4(local.l11, g.r, g.g, g.b), local.lo, {0.0f, 0.0f, 0.0f}};
}

SPLAT_DEVICE float2 row_part(const Entry &e, float x, float y) {
  const RowView row = row_of({e.place.x, e.place.y, e.colour.x, e.place.z, e.place.w, e.lo}, x, y);
  return make_float2(row.u, row.power);
}

SPLAT_DEVICE void add_entry(const float2 &row, const float4 &colour, Pixel *p) {
  const float alpha = alpha_at(u_at(row.x, colour.x, p->x), row.y), w = alpha * p->t;
  p->t = __fmaf_rn(-alpha, p->t, p->t);
  p->r = __fmaf_rn(w, colour.y, p->r);
  p->g = __fmaf_rn(w, colour.z, p->g);
  p->b = __fmaf_rn(w, colour.w, p->b);
}

SPLAT_DEVICE void add_some(const Entry *entries, const uint16_t *list, const float2 *rows, Pixel *pixel) {
  const uint64_t four = *reinterpret_cast<const uint64_t *>(list);
  for (int j = 0; j < SIDE_BY_SIDE; j++) add_entry(rows[j], entries[four >> (16 * j) & 0xffff].colour, pixel);
}

// A set at a time: first a lane works out what a row of the region has in common of an entry, then it is a pixel again. `rows`: 32 of the warp's own.
SPLAT_DEVICE void add_listed(const Entry *entries, const uint16_t *list, int n, float2 *rows, int region, int lane, Pixel *pixel) {
  static_assert(SET == 2 * SIDE_BY_SIDE);
  const float x = static_cast<float>(place_x(region, 0)), y = static_cast<float>(place_y(region, lane));
  const float2 *mine = rows + lane / REGION_WIDTH * SET;
  SPLAT_ROLLED
  for (int from = 0; from < n; from += SET) {
    rows[lane] = row_part(entries[list[from + lane % SET]], x, y);
    __syncwarp();
    add_some(entries, list + from, mine, pixel);
    if (from + SIDE_BY_SIDE < n) add_some(entries, list + from + SIDE_BY_SIDE, mine + SIDE_BY_SIDE, pixel);
    __syncwarp();  // before rows, and the list, are written again
  }
}

__global__ void __launch_bounds__(TILE_PIXELS) blend_kernel(const Frame f) {
  SPLAT_SHARED(Entry, entries, ENTRIES + 1);
  SPLAT_SHARED(uint32_t, masks, ENTRIES);
  SPLAT_SHARED(uint16_t, lists, REGIONS *(BUCKET + SET));
  SPLAT_SHARED(float2, rows, TILE_PIXELS);
  const int tile = static_cast<int>(blockIdx.x), tile_x = tile % f.tiles_x, tile_y = tile / f.tiles_x;
  const int thread = static_cast<int>(threadIdx.x), region = thread >> 5, lane = thread & 31;
  const int x = tile_x * TILE + place_x(region, lane), y = tile_y * TILE + place_y(region, lane);
  const bool in_image = x < f.width && y < f.height;
  const uint32_t begin = f.tile_begin[tile], end = f.tile_end[tile];
  const int64_t bucket = first_bucket(f, tile);
  for (uint32_t i = static_cast<uint32_t>(thread); i * BUCKET < end - begin; i += TILE_PIXELS) f.bucket_tile[bucket + i] = static_cast<uint32_t>(tile);
  if (thread == 0) entries[ENTRIES] = {make_float4(0.0f, 0.0f, 0.0f, 0.0f), make_float4(0.0f, 0.0f, 0.0f, 0.0f), NEVER, {0.0f, 0.0f, 0.0f}};

  // A pixel outside the image starts finished, so that it never holds its region back.
  Pixel pixel = {static_cast<float>(lane % REGION_WIDTH), in_image ? 1.0f : 0.0f, 0.0f, 0.0f, 0.0f};
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
    uint16_t *list = lists + region * (BUCKET + SET);
    for (int j = 0; j < count && !done; j += BUCKET) {
      const uint32_t before = base - begin + static_cast<uint32_t>(j);
      if (before > 0) f.checkpoints[(bucket + before / BUCKET) * TILE_PIXELS + thread] = make_float4(pixel.t, pixel.r, pixel.g, pixel.b);
      const int n = list_region(region, lane, j, ENTRIES, list, [&](int k) { return masks[j + BATCH * k + lane]; });
      add_listed(entries, list, n, rows + BATCH * region, region, lane, &pixel);
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
