// Which 4x4 blocks of which tiles a gaussian's ellipse can touch, exactly; then a stable counting sort by tile.

struct Rows {  // per block row of a tile: the ellipse's extent, in units of blocks from the image's left edge
  float right[8], left[8];
};

// Extents over the eight block rows of a tile row. An empty row gets right < left. The furthest x over a band of rows is at the ellipse's
// extreme point if the band holds it and at the band's nearer edge otherwise, because the outline is convex.
INLINE void row_extents(const Record &g, float tile_top, Rows *rows) {
  // Slack against rounding: the pixel loops decide, the mask must only never be too small.
  const float reach = g.reach * 1.0001f + 1e-4f;
  const float top_y = __builtin_sqrtf(reach) / g.l22, slant = g.l21 / g.l22;
  const float at_y = -__builtin_sqrtf(reach) * slant / __builtin_sqrtf(1.0f + slant * slant) / g.l22;  // dy of the rightmost point
  const float inverse = 1.0f / g.l11;
  for (int q = 0; q < 8; q += LANES) {
    vf lo = (lane_index() + (float)q) * 4.0f + (tile_top + 0.5f - g.y), hi = lo + 3.0f;
    vf some = keep(both(ge(set1(top_y), lo), ge(hi, set1(-top_y))), set1(1.0f));
    vf yr = vmin(vmax(vmin(vmax(set1(at_y), lo), hi), set1(-top_y)), set1(top_y));
    vf yl = vmin(vmax(vmin(vmax(set1(-at_y), lo), hi), set1(-top_y)), set1(top_y));
    vf vr = yr * g.l22, vl = yl * g.l22;
    vf xr = (vsqrt(vmax(set1(reach) - vr * vr, zero())) - yr * g.l21) * inverse + g.x;
    vf xl = (zero() - vsqrt(vmax(set1(reach) - vl * vl, zero())) - yl * g.l21) * inverse + g.x;
    float r[LANES] ALIGNED, l[LANES] ALIGNED;
    store(r, select(ge(some, set1(0.5f)), (xr + 3.5f) * 0.25f, set1(-1e9f)));
    store(l, (xl + 0.5f) * 0.25f);
    for (int i = 0; i < LANES && q + i < 8; i++) rows->right[q + i] = r[i], rows->left[q + i] = l[i];
  }
}

// The mask of one tile from its row's extents: blocks [left, right) of each row.
INLINE uint64_t tile_mask(const Rows *rows, float tile_left) {
  uint8_t right[32], left[32];  // room for a whole vector's bytes
  for (int q = 0; q < 8; q += LANES) {
    float buffer[2][16] ALIGNED;
    __builtin_memcpy(buffer[0], rows->right + q, (LANES < 8 ? LANES : 8) * 4);
    __builtin_memcpy(buffer[1], rows->left + q, (LANES < 8 ? LANES : 8) * 4);
    vf r = clamp(load(buffer[0]) - tile_left, 0.0f, 8.0f), l = clamp(load(buffer[1]) - tile_left, 0.0f, 8.0f);
    vi one = iset1(1);
    store_bytes(right + q, (one << to_int(r)) - 1);
    store_bytes(left + q, (one << to_int(l)) - 1);
  }
  uint64_t a, b;
  __builtin_memcpy(&a, right, 8);
  __builtin_memcpy(&b, left, 8);
  return a & ~b;
}

// The tile of a pixel coordinate, clamped as a float: a huge gaussian's box does not fit an int.
INLINE int tile_at(float pixel, float last) {
  const float t = pixel * (1.0f / TILE);
  return (int)(t < 0.0f ? 0.0f : t > last ? last : t);
}

static void bin(Frame *f, int64_t index, void *) {
  Part *part = f->parts + index;
  uint32_t *counts = f->part_counts + index * f->n_tiles;
  __builtin_memset(counts, 0, sizeof(uint32_t) * (size_t)f->n_tiles);
  int64_t used = 0;
  for (int64_t i = part->begin; i < part->end; i++) {
    if (i + 12 < part->end) __builtin_prefetch(f->records + f->order[i + 12]);
    const uint32_t place = f->order[i];
    const Record &g = f->records[place];
    const float last_x = (float)(f->tiles_x - 1), last_y = (float)(f->tiles_y - 1);
    const int x0 = tile_at((g.x - g.half_x - 1.0f), last_x);
    const int x1 = tile_at((g.x + g.half_x + 1.0f), last_x);
    const int y0 = tile_at((g.y - g.half_y - 1.0f), last_y);
    const int y1 = tile_at((g.y + g.half_y + 1.0f), last_y);
    const int64_t need = used + (int64_t)(x1 - x0 + 1) * (y1 - y0 + 1);
    if (need > part->capacity && !f->grow(f, (int)index, need)) return;
    const int64_t first = used;
    for (int ty = y0; ty <= y1; ty++) {
      Rows rows;
      row_extents(g, (float)(ty * TILE), &rows);
      for (int tx = x0; tx <= x1; tx++) {
        uint64_t mask = tile_mask(&rows, (float)(tx * 8));
        const uint32_t tile = (uint32_t)(ty * f->tiles_x + tx);
        part->items[used] = Instance{tile, place, mask};
        const int some = mask != 0;
        counts[tile] += (uint32_t)some;
        used += some;
      }
    }
    f->gather[place] = Gather{(uint32_t)first, (uint32_t)(used - first) << 8 | (uint32_t)index};
  }
  part->used = used;
}

// part_counts hold where each part's instances of each tile begin: one walk puts them there.
static void place(Frame *f, int64_t index, void *) {
  Part *part = f->parts + index;
  uint32_t *next = f->part_counts + index * f->n_tiles;
  for (int64_t i = 0; i < part->used; i++) {
    Instance &item = part->items[i];
    const uint32_t at = next[item.tile]++;
    f->list[at] = item.record;
    f->list_blocks[at] = item.blocks;
    item.tile = at;
  }
}
