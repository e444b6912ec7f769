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

enum { LONGEST_DIGIT = 11 };

// From the lowest digit up, stable throughout; the last pass puts the instances where they belong. The number of passes is known when this is
// compiled, so that nothing in the loops asks for it.
template <int PASSES> INLINE void sort_words(Frame *f, int64_t begin, int64_t n, DepthWord *words, DepthWord *other, uint32_t low, int digit) {
  const Unsorted *from = f->unsorted + begin;
  const uint32_t mask = (1u << digit) - 1;
  uint32_t counts[PASSES][1 << LONGEST_DIGIT];
  for (int pass = 0; pass < PASSES; pass++) __builtin_memset(counts[pass], 0, sizeof(uint32_t) << digit);
  for (int64_t i = 0; i < n; i++) {
    const uint32_t key = f->list[begin + i] - low;
    words[i] = DepthWord{key, (uint32_t)i};
    for (int pass = 0; pass < PASSES; pass++) counts[pass][key >> pass * digit & mask]++;
  }
  for (int pass = 0; pass < PASSES; pass++) {
    uint32_t *next = counts[pass], sum = 0;
    for (uint32_t d = 0; d <= mask; d++) {
      const uint32_t here = next[d];
      next[d] = sum;
      sum += here;
    }
    const int shift = pass * digit;
    if (pass + 1 < PASSES) {
      for (int64_t i = 0; i < n; i++) other[next[words[i].key >> shift & mask]++] = words[i];
      DepthWord *swapped = words;
      words = other, other = swapped;
      continue;
    }
    uint32_t *list = f->list + begin, *list_slot = f->list_slot + begin;
    uint64_t *list_blocks = f->list_blocks + begin;
    for (int64_t i = 0; i < n; i++) {
      const uint32_t at = next[words[i].key >> shift & mask]++;
      const Unsorted &item = from[words[i].index];
      list[at] = item.record;
      list_slot[at] = item.slot;
      list_blocks[at] = item.blocks;
    }
  }
}

// One tile's instances by depth, equal depths by place: a radix sort over the depths' range.
static void sort(Frame *f, int64_t tile, void *scratch) {
  const int64_t begin = f->tile_begin[tile], n = f->tile_begin[tile + 1] - begin;
  DepthWord *words = n > SORT_IN_SCRATCH ? f->words + 2 * begin : (DepthWord *)scratch, *other = words + n;
  uint32_t low = ~0u, high = 0;
  for (int64_t i = 0; i < n; i++) {
    const uint32_t key = f->list[begin + i];
    __builtin_prefetch(f->unsorted + begin + i);  // for the last pass, which touches them in no order
    __builtin_prefetch(f->list_slot + begin + i, 1);
    __builtin_prefetch(f->list_blocks + begin + i, 1);
    low = key < low ? key : low;
    high = key > high ? key : high;
  }
  if (n == 0) return;
  const int longest = n < 4096 ? 8 : LONGEST_DIGIT;  // clearing and adding up a digit's counters costs as much as that many instances
  const int width = high > low ? 32 - __builtin_clz(high - low) : 1, passes = (width + longest - 1) / longest;
  const int digit = (width + passes - 1) / passes;
  switch (passes) {
    case 1: return sort_words<1>(f, begin, n, words, other, low, digit);
    case 2: return sort_words<2>(f, begin, n, words, other, low, digit);
    case 3: return sort_words<3>(f, begin, n, words, other, low, digit);
    default: return sort_words<4>(f, begin, n, words, other, low, digit);
  }
}
