// Blend a tile: its list in pieces that fit L1, and for each piece block by block, so that T, R, G, B stay in registers.

struct Entry {  // a record in its own order, for one tile: u = l11 px + l21 py + u0, v = l22 py + v0 with pixels from the tile's middle
  float u0, v0, l11, l21, l22, lo, r, g, b, pad[7];
};
static_assert(sizeof(Entry) == sizeof(Record), "an entry is copied from a record");

struct ForwardScratch {
  Entry entry[ENTRIES];
  uint64_t bits[ENTRIES / 64][64];
  float state[STATE];  // T, R, G, B by block
  uint32_t places[ENTRIES + 1];  // in the tile's list
  uint8_t indices[ENTRIES + 72];
};

INLINE void load_entry(const Record &g, float mid_x, float mid_y, Entry *e) {
  const float x = g.x - mid_x, y = g.y - mid_y;
  __builtin_memcpy(e, &g, sizeof *e);
  e->u0 = -(g.l11 * x + g.l21 * y), e->v0 = -(g.l22 * y);
}

// Collects list entries that meet a running block, up to ENTRIES of them, with their masks; returns how many. `at` ends behind the last one
// looked at.
INLINE int collect_entries(const uint64_t *masks, uint64_t any, int64_t begin, int64_t end, int64_t *at, ForwardScratch *s) {
  int count = 0;
  int64_t i = *at;
  for (; i < end && count < ENTRIES; i++) {
    const uint64_t mask = masks[i];
    s->places[count] = (uint32_t)(i - begin);
    s->bits[count / 64][count % 64] = mask;
    count += (mask & any) != 0;
  }
  *at = i;
  return count;
}

// Pixel centres of a part of a block, from the tile's middle.
INLINE void block_pixels(int block, int part, vf *px, vf *py) {
  vf k = lane_index() + (float)(part * LANES), row = vfloor(k * 0.25f);
  *px = k - row * 4.0f + ((float)((block & 7) * 4) + 0.5f - TILE / 2);
  *py = row + ((float)((block >> 3) * 4) + 0.5f - TILE / 2);
}

// Puts the background behind the tile's colours, keeps them for the backward pass, and copies what lies in the image. Pieces of four pixels go straight from one to
// the other: gathering whole lines first would load what narrower stores have just written, which stalls.
INLINE void write_tile(const Frame *f, int tile_x, int tile_y, float *state, float *kept) {
  const int width = f->camera.width, height = f->camera.height;
  const int64_t plane = (int64_t)width * height;
  const int columns = width - tile_x * TILE < TILE ? width - tile_x * TILE : TILE;
  const int rows = height - tile_y * TILE < TILE ? height - tile_y * TILE : TILE;
  const int64_t corner = (int64_t)(tile_y * TILE) * width + tile_x * TILE;
  for (int c = 0; c < 4; c++) {
    float *from = state + c * TILE_PIXELS;
    for (int i = 0; i < TILE_PIXELS; i += LANES) {
      vf v = load(from + i);
      if (c > 0) store(from + i, v = fma(load(state + i), set1(f->background[c - 1]), v));
      stream(kept + c * TILE_PIXELS + i, v);
    }
    float *to = c > 0 ? f->image + (c - 1) * plane : f->transmittance;
    if (!to) continue;
    for (int y = 0; y < rows; y++) {
      float *line = to + corner + (int64_t)y * width;
      const float *block = from + (y >> 2) * 128 + (y & 3) * 4;
      int x = 0;
      for (; x + 4 <= columns; x += 4) __builtin_memcpy(line + x, block + 4 * x, 16);
      for (; x < columns; x++) line[x] = block[4 * (x & ~3) + (x & 3)];
    }
  }
}

// Bits of the blocks that have a pixel in the image.
INLINE uint64_t blocks_inside(const Frame *f, int tile_x, int tile_y) {
  const int bx = (f->camera.width - tile_x * TILE + 3) / 4, by = (f->camera.height - tile_y * TILE + 3) / 4;
  uint64_t row = bx >= 8 ? 0xff : (1ull << bx) - 1;
  uint64_t all = row * 0x0101010101010101ull;
  return by >= 8 ? all : all & ((1ull << (8 * by)) - 1);
}

// A pixel outside the image starts finished, so that it never holds its block back.
INLINE vf start_transmittance(const Frame *f, int tile_x, int tile_y, vf px, vf py) {
  const float right = (float)(f->camera.width - tile_x * TILE) - TILE / 2, bottom = (float)(f->camera.height - tile_y * TILE) - TILE / 2;
  return keep(both(lt(px, set1(right)), lt(py, set1(bottom))), set1(1.0f));
}

// N entries on one vector of pixels, side by side as far as they do not depend on one another.
template <int N>
INLINE void blend(const Entry *entries, const uint8_t *indices, vf px, vf py, vf *t, vf *r, vf *g, vf *b) {
  const Entry *e[N];
  vf u[N], v[N], alpha[N];
  for (int k = 0; k < N; k++) e[k] = entries + indices[k];
  for (int k = 0; k < N; k++) u[k] = fma(set1(e[k]->l21), py, set1(e[k]->u0));
  for (int k = 0; k < N; k++) v[k] = fma(set1(e[k]->l22), py, set1(e[k]->v0));
  for (int k = 0; k < N; k++) u[k] = fma(set1(e[k]->l11), px, u[k]);
  for (int k = 0; k < N; k++) v[k] = fnma(v[k], v[k], set1(e[k]->lo));
  for (int k = 0; k < N; k++) u[k] = fnma(u[k], u[k], v[k]);
  alphas_from_log2<N>(u, alpha);
  for (int k = 0; k < N; k++) {
    vf w = alpha[k] * *t;
    *t = fnma(alpha[k], *t, *t);  // one operation after another pair's, not two: this is the loop's only chain
    *r = fma(w, set1(e[k]->r), *r);
    *g = fma(w, set1(e[k]->g), *g);
    *b = fma(w, set1(e[k]->b), *b);
  }
}

static void forward(Frame *f, int64_t tile, void *scratch) {
  ForwardScratch *s = (ForwardScratch *)scratch;
  const int tile_x = (int)(tile % f->tiles_x), tile_y = (int)(tile / f->tiles_x);
  const float mid_x = (float)(tile_x * TILE + TILE / 2), mid_y = (float)(tile_y * TILE + TILE / 2);
  const uint64_t inside_mask = blocks_inside(f, tile_x, tile_y);
  float *state = s->state;
  uint32_t *stops = f->stops + tile * BLOCKS * 4;
  const int64_t begin = f->tile_begin[tile], end = f->tile_begin[tile + 1];
  uint64_t running[PARTS];
  for (int q = 0; q < PARTS; q++) running[q] = inside_mask;
  for (int b = 0; b < BLOCKS; b++)
    for (int q = 0; q < PARTS; q++) {
      vf px, py;
      block_pixels(b, q, &px, &py);
      store(state + b * 16 + q * LANES, start_transmittance(f, tile_x, tile_y, px, py));
      for (int c = 1; c < 4; c++) store(state + c * TILE_PIXELS + b * 16 + q * LANES, zero());
      stops[b * PARTS + q] = inside_mask >> b & 1 ? ~0u : 0;
    }

  for (int64_t at = begin; at < end;) {
    uint64_t any = 0;
    for (int q = 0; q < PARTS; q++) any |= running[q];
    if (!any) break;
    const int count = collect_entries(f->list_blocks, any, begin, end, &at, s);
    const int words = (count + 63) / 64;
    for (int i = 0; i < count; i++) load_entry(f->records[f->list[begin + s->places[i]]], mid_x, mid_y, s->entry + i);
    for (int i = count; i < 64 * words; i++) s->bits[i / 64][i % 64] = 0;
    for (int w = 0; w < words; w++) transpose_bits(s->bits[w]);
    int64_t ahead = at;
    for (; any; any &= any - 1) {
      const int b = __builtin_ctzll(any);
      // The next piece's records, or the next tile's: its list follows in memory.
      for (int k = 0; k < 4 && ahead < f->n_instances; k++) __builtin_prefetch(f->records + f->list[ahead++], 0, 2);
      int n = 0;
      for (int w = 0; w < words; w++) n += list_bits(s->bits[w][b], 64 * w, s->indices + n);
      for (int q = 0; q < PARTS; q++) {
        if (!(running[q] >> b & 1)) continue;
        float *mine = state + b * 16 + q * LANES;
        vf t = load(mine), red = load(mine + TILE_PIXELS), green = load(mine + 2 * TILE_PIXELS), blue = load(mine + 3 * TILE_PIXELS);
        vf px, py;
        block_pixels(b, q, &px, &py);
        int i = 0;
        for (; i + 4 <= n; i += 4) {
          for (int k = 0; k < 4; k += ABREAST) blend<ABREAST>(s->entry, s->indices + i + k, px, py, &t, &red, &green, &blue);
          if (!bits(ge(t, set1(SPLAT_STOP)))) {
            stops[b * PARTS + q] = s->places[s->indices[i + 3]] + 1;
            running[q] &= ~(1ull << b);
            i = n;
            break;
          }
        }
        for (; i < n; i++) blend<1>(s->entry, s->indices + i, px, py, &t, &red, &green, &blue);
        store(mine, t);
        store(mine + TILE_PIXELS, red);
        store(mine + 2 * TILE_PIXELS, green);
        store(mine + 3 * TILE_PIXELS, blue);
      }
    }
  }
  write_tile(f, tile_x, tile_y, state, f->state + tile * STATE);
  stream_fence();
}
