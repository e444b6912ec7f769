// Which 4x4 blocks of which tiles a gaussian's ellipse can touch, exactly; then the pairs by tile, and each tile's by depth.

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

// Appends the pairs of one record to its part; returns how many, or -1 when memory is out. A mask without bits is written and then forgotten,
// which is cheaper than a branch that nobody can predict.
INLINE int find_tiles(Frame *f, Part *part, int64_t index, uint32_t *counts, const RowLanes &lanes, uint32_t place) {
  const Record &g = f->records[place];
  const int x0 = g.columns & 0xffff, x1 = g.columns >> 16, y0 = g.rows & 0xffff, y1 = g.rows >> 16;
  const int64_t first = part->used, need = first + (int64_t)(x1 - x0 + 1) * (y1 - y0 + 1);
  if (need > part->capacity && !f->grow(f, (int)index, need)) return -1;
  Instance *to = part->items + first;
  for (int ty = y0; ty <= y1; ty++) {
    const Extents rows = row_extents(g, lanes, (float)(ty * TILE));
    for (int tx = x0; tx <= x1; tx++) {
      const uint64_t mask = tile_mask(rows, (float)(tx * 8));
      const uint32_t tile = (uint32_t)(ty * f->tiles_x + tx);
      *to = Instance{tile, place, mask};
      const int some = mask != 0;
      counts[tile] += (uint32_t)some;
      to += some;
    }
  }
  part->used = to - part->items;
  return (int)(part->used - first);
}

// part_counts hold where each part's instances of each tile begin: one walk puts them there.
static void place(Frame *f, int64_t index, void *) {
  const Part *part = f->parts + index;
  uint32_t *next = f->part_counts + index * f->n_tiles;
  uint32_t slot = (uint32_t)part->first_slot;
  for (int64_t chunk = part->begin; chunk < part->end; chunk++) f->chunk_slot[chunk] += slot;
  for (int64_t i = 0; i < part->used; i++) {
    const Instance item = part->items[i];
    const uint32_t at = next[item.tile]++;
    f->unsorted[at] = Unsorted{item.record, slot++, item.blocks};
    f->list[at] = f->keys[item.record];  // until the tile is sorted
  }
}

// One tile's instances by depth, equal depths by place: a radix sort from the lowest digit of the depths' range, stable throughout.
static void sort(Frame *f, int64_t tile, void *scratch) {
  const int64_t begin = f->tile_begin[tile], n = f->tile_begin[tile + 1] - begin;
  const Unsorted *from = f->unsorted + begin;
  DepthWord *words = n > SORT_IN_SCRATCH ? f->words + 2 * begin : (DepthWord *)scratch, *other = words + n;
  uint32_t low = ~0u, high = 0;
  for (int64_t i = 0; i < n; i++) {
    const uint32_t key = f->list[begin + i];
    words[i] = DepthWord{key, (uint32_t)i};
    low = key < low ? key : low;
    high = key > high ? key : high;
  }
  enum { MOST = 11 };
  const int longest = n < 4096 ? 8 : MOST;  // a digit's counters cost as much as that many instances
  int width = 1;
  while (width < 32 && (high - low) >> width) width++;
  const int passes = (width + longest - 1) / longest, digit = (width + passes - 1) / passes;
  const uint32_t mask = (1u << digit) - 1;
  uint32_t counts[4][1 << MOST];
  for (int pass = 0; pass < passes; pass++) __builtin_memset(counts[pass], 0, sizeof(uint32_t) << digit);
  for (int64_t i = 0; i < n; i++) {
    uint32_t key = words[i].key -= low;
    for (int pass = 0; pass < passes; pass++, key >>= digit) counts[pass][key & mask]++;
  }
  for (int pass = 0; pass < passes; pass++) {
    uint32_t *next = counts[pass], sum = 0;
    for (uint32_t d = 0; d <= mask; d++) {
      const uint32_t here = next[d];
      next[d] = sum;
      sum += here;
    }
    const int shift = pass * digit;
    if (pass + 1 < passes) {
      for (int64_t i = 0; i < n; i++) other[next[words[i].key >> shift & mask]++] = words[i];
      DepthWord *swapped = words;
      words = other, other = swapped;
      continue;
    }
    for (int64_t i = 0; i < n; i++) {
      const int64_t at = begin + next[words[i].key >> shift & mask]++;
      const Unsorted &item = from[words[i].index];
      f->list[at] = item.record;
      f->list_slot[at] = item.slot;
      f->list_blocks[at] = item.blocks;
    }
  }
}
