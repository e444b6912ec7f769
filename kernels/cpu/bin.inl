// Which 4x4 blocks of which tiles a gaussian's ellipse can touch, exactly; then a stable counting sort by tile.

// The ellipse's extents in the eight block rows of a tile row, sixteen numbers: where the blocks it touches end, then where they begin, in
// blocks from the image's left edge. An empty row ends before it begins.
struct Extents {
  vf v[PARTS];
};

struct RowLanes {  // constants by lane
  vf top[PARTS], sign[PARTS], offset[PARTS];
};

INLINE RowLanes row_lanes() {
  RowLanes c;
  for (int q = 0; q < PARTS; q++) {
    vf k = lane_index() + (float)(q * LANES);
    vm is_end = lt(k, set1(8.0f));
    c.top[q] = (k - select(is_end, zero(), set1(8.0f))) * 4.0f + 0.5f;
    c.sign[q] = select(is_end, set1(1.0f), set1(-1.0f));
    c.offset[q] = select(is_end, set1(3.5f), set1(0.5f));
  }
  return c;
}

// The furthest x over a band of rows is at the ellipse's extreme point if the band holds it and at the band's nearer edge otherwise, because
// the outline is convex.
INLINE Extents row_extents(const Record &g, const RowLanes &c, float tile_top) {
  Extents e;
  vf bottom = set1(-g.half_y), top = set1(g.half_y);
  for (int q = 0; q < PARTS; q++) {
    vf lo = c.top[q] + (tile_top - g.y), hi = lo + 3.0f;
    vm some = both(ge(top, lo), ge(hi, bottom));
    vf y = vmin(vmax(vmin(vmax(c.sign[q] * g.side_y, lo), hi), bottom), top), v = y * g.l22;
    vf half = vsqrt(vmax(fnma(v, v, set1(g.reach)), zero()));
    vf x = fma(fnma(y, set1(g.l21), half * c.sign[q]), set1(g.inverse_l11), set1(g.x));
    e.v[q] = select(some, (x + c.offset[q]) * 0.25f, set1(-1e9f));
  }
  return e;
}

// The mask of one tile from its row's extents.
INLINE uint64_t tile_mask(const Extents &e, float tile_left) {
  uint8_t bytes[16] ALIGNED;
  for (int q = 0; q < PARTS; q++) store_bytes(bytes + q * LANES, (iset1(1) << to_int(clamp(e.v[q] - tile_left, 0.0f, 8.0f))) - 1);
  uint64_t ends, begins;
  __builtin_memcpy(&ends, bytes, 8);
  __builtin_memcpy(&begins, bytes + 8, 8);
  return ends & ~begins;
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
  const RowLanes lanes = row_lanes();
  const float last_x = (float)(f->tiles_x - 1), last_y = (float)(f->tiles_y - 1);
  for (int64_t i = part->begin; i < part->end; i++) {
    if (i + 12 < part->end) __builtin_prefetch(f->records + f->order[i + 12]);
    const uint32_t place = f->order[i];
    const Record &g = f->records[place];
    const int x0 = tile_at(g.x - g.half_x, last_x);
    const int x1 = tile_at(g.x + g.half_x, last_x);
    const int y0 = tile_at(g.y - g.half_y, last_y);
    const int y1 = tile_at(g.y + g.half_y, last_y);
    const int64_t need = used + (int64_t)(x1 - x0 + 1) * (y1 - y0 + 1);
    if (need > part->capacity && !f->grow(f, (int)index, need)) return;
    const int64_t first = used;
    for (int ty = y0; ty <= y1; ty++) {
      const Extents rows = row_extents(g, lanes, (float)(ty * TILE));
      for (int tx = x0; tx <= x1; tx++) {
        uint64_t mask = tile_mask(rows, (float)(tx * 8));
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
