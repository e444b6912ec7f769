// Where a gaussian reaches 1/255: exact tests of its ellipse against rows of pixels. Binning, counting and culling must agree to the bit, so they all
// ask here, and products that are added to something are rounded by name: nvcc may fuse the rest into multiply-adds in one kernel and not in another.
#pragma once
#include "types.h"

namespace splat::gpu {

struct Ellipse {
  float x, y, l21, l22, inverse_l11, reach;
  float half_y;   // of the box around it, pixels
  float side_y;   // how far below the centre the rightmost point lies, pixels
};

// Roots and reciprocals are the card's approximations: `reach` has a hundred times their error to spare.
SPLAT_DEVICE Ellipse ellipse_of(const Record &g) {
  Ellipse e;
  e.x = g.x, e.y = g.y, e.l21 = g.l21, e.l22 = g.l22, e.reach = g.reach;
  e.inverse_l11 = fast_rcp(g.l11);
  const float inverse_l22 = fast_rcp(g.l22), slope = __fmul_rn(g.l21, inverse_l22);
  e.half_y = __fmul_rn(fast_sqrt(g.reach), inverse_l22);
  e.side_y = __fmul_rn(-e.half_y, __fmul_rn(slope, fast_rsqrt(__fmaf_rn(slope, slope, 1.0f))));
  return e;
}

// Leftmost and rightmost x over the rows from `lo` to `hi` (from the centre); false where it reaches none of them. The furthest x over a
// band is at the ellipse's extreme point if the band holds it and at the band's nearer edge otherwise, because the outline is convex.
SPLAT_DEVICE bool row_extent(const Ellipse &e, float lo, float hi, float *left, float *right) {
  if (hi < -e.half_y || lo > e.half_y) return false;
  const float bottom = fmaxf(lo, -e.half_y), top = fminf(hi, e.half_y);
  const float y_right = clamp(e.side_y, bottom, top), y_left = clamp(-e.side_y, bottom, top);
  const float v_right = __fmul_rn(y_right, e.l22), v_left = __fmul_rn(y_left, e.l22);
  *right = __fmaf_rn(__fmaf_rn(-y_right, e.l21, fast_sqrt(fmaxf(__fmaf_rn(-v_right, v_right, e.reach), 0.0f))), e.inverse_l11, e.x);
  *left = __fmaf_rn(__fmaf_rn(-y_left, e.l21, -fast_sqrt(fmaxf(__fmaf_rn(-v_left, v_left, e.reach), 0.0f))), e.inverse_l11, e.x);
  return true;
}

struct Span {  // of tiles, both ends included; empty when last < first
  int first, last;
};

// Tiles that hold pixel centres between two coordinates, of an image of `size` pixels. Clamped as floats: a huge gaussian's box does not fit an int.
SPLAT_DEVICE Span span_of(float from, float to, int size) {
  const float most = static_cast<float>(size) - 0.5f;
  if (from > most || to < 0.5f) return {0, -1};
  const float first = ceilf((fmaxf(from, 0.5f) - (TILE - 0.5f)) / TILE), last = floorf((fminf(to, most) - 0.5f) / TILE);
  return {static_cast<int>(fmaxf(first, 0.0f)), static_cast<int>(last)};
}

SPLAT_DEVICE Span tile_rows(const Ellipse &e, const Frame &f) { return span_of(e.y - e.half_y, e.y + e.half_y, f.height); }

SPLAT_DEVICE Span tile_columns(const Ellipse &e, int tile_y, const Frame &f) {
  const float lo = static_cast<float>(tile_y * TILE) + 0.5f - e.y, hi = fminf(lo + (TILE - 1), static_cast<float>(f.height) - 0.5f - e.y);
  float left, right;
  if (!row_extent(e, lo, hi, &left, &right)) return {0, -1};
  return span_of(left, right, f.width);
}

// Bits of the 8x4 regions of a tile that it can touch.
SPLAT_DEVICE uint32_t region_mask(const Ellipse &e, float tile_left, float tile_top) {
  uint32_t mask = 0;
  for (int band = 0; band < TILE / REGION_HEIGHT; band++) {
    const float lo = tile_top + static_cast<float>(band * REGION_HEIGHT) + 0.5f - e.y;
    float left, right;
    if (!row_extent(e, lo, lo + (REGION_HEIGHT - 1), &left, &right)) continue;
    left -= tile_left, right -= tile_left;
    if (left <= REGION_WIDTH - 0.5f && right >= 0.5f) mask |= 1u << (2 * band);
    if (left <= TILE - 0.5f && right >= REGION_WIDTH + 0.5f) mask |= 2u << (2 * band);
  }
  return mask;
}

// Where in its tile a lane of a region is, pixels.
SPLAT_DEVICE int place_x(int region, int lane) { return (region & 1) * REGION_WIDTH + (lane & 7); }
SPLAT_DEVICE int place_y(int region, int lane) { return (region >> 1) * REGION_HEIGHT + (lane >> 3); }

// A record as the pixels of one tile see it: at the place (x, y) of the tile, u = u0 + l11 x + l21 y and v = v0 + l22 y. One multiply-add an unknown
// where distances from the centre would take a subtraction and a product more, for every pixel that looks.
struct Local {
  float u0, v0, l11, l21, l22, lo;
};

SPLAT_DEVICE Local local_of(const Record &g, int tile_x, int tile_y) {
  const float dx = static_cast<float>(tile_x * TILE) + 0.5f - g.x, dy = static_cast<float>(tile_y * TILE) + 0.5f - g.y;
  return {__fmaf_rn(g.l11, dx, __fmul_rn(g.l21, dy)), __fmul_rn(g.l22, dy), g.l11, g.l21, g.l22, g.lo};
}

// And as a region's row of pixels sees it, from the place (x, y) on: v is the same for all of them, so each has its u and one product left to work out.
struct RowView {
  float u, v, power;  // u at the first pixel; the power of two that alpha is, without u's part
};

SPLAT_DEVICE RowView row_of(const Local &g, float x, float y) {
  const float v = __fmaf_rn(g.l22, y, g.v0);
  return {__fmaf_rn(g.l11, x, __fmaf_rn(g.l21, y, g.u0)), v, __fmaf_rn(-v, v, g.lo)};
}

SPLAT_DEVICE float u_at(float u, float l11, float x) { return __fmaf_rn(l11, x, u); }

// The one formula of alpha; forward and backward must give the same bits. A pair below the cut is not drawn.
SPLAT_DEVICE float alpha_at(float u, float row_power) {
  const float power = __fmaf_rn(-u, u, row_power);
  return power >= ALPHA_CUT_LOG2 ? fast_exp2(power) : 0.0f;
}

}  // namespace splat::gpu
