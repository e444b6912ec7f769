// Gradients of a tile, gaussian by gaussian, front to back: nine sums stay in registers over the blocks its mask names, one line is stored.
// State per pixel: T before the gaussian, and P = (what lies behind it, background included) . dloss/dcolour.

// A block's pixels together: were each of these a plane of the tile, loads would seem to meet the stores to the others, 4 KB apart.
struct BlockPixels {
  float t[16], p[16];
  float grad[3][16];
  float px[16], py[16];
};

struct BackwardScratch {
  BlockPixels block[BLOCKS];
};

// Drops the blocks that have stopped before list entry i from `running`; returns the next entry at which that changes.
INLINE uint32_t drop_stopped(const uint32_t *stops, uint32_t i, uint64_t *running) {
  uint32_t next = ~0u;
  for (int q = 0; q < PARTS; q++)
    for (uint64_t m = running[q]; m; m &= m - 1) {
      const uint32_t stop = stops[__builtin_ctzll(m) * PARTS + q];
      if (stop <= i)
        running[q] ^= m & -m;
      else
        next = stop < next ? stop : next;
    }
  return next;
}

INLINE void start_pixels(const Frame *f, int tile_x, int tile_y, const float *state, BackwardScratch *s) {
  const int width = f->camera.width, height = f->camera.height;
  const int64_t plane = (int64_t)width * height;
  for (int b = 0; b < BLOCKS; b++) {
    const int x = tile_x * TILE + (b & 7) * 4, y = tile_y * TILE + (b >> 3) * 4;
    const bool whole = x + 4 <= width && y + 4 <= height;
    const int64_t at = (int64_t)y * width + x;
    float edge[4][16] = {};
    if (!whole)
      for (int j = 0; j < 4 && y + j < height; j++)
        for (int i = 0; i < 4 && x + i < width; i++) {
          for (int c = 0; c < 3; c++) edge[c][4 * j + i] = f->grad_image[c * plane + at + (int64_t)j * width + i];
          if (f->grad_transmittance) edge[3][4 * j + i] = f->grad_transmittance[at + (int64_t)j * width + i];
        }
    for (int q = 0; q < PARTS; q++) {
      const int o = b * 16 + q * LANES, l = q * LANES;
      BlockPixels *to = s->block + b;
      vf px, py, g[4];
      block_pixels(b, q, &px, &py);
      for (int c = 0; c < 3; c++) g[c] = whole ? load_block(f->grad_image + c * plane + at, width, q) : load(edge[c] + q * LANES);
      if (f->grad_transmittance)
        g[3] = whole ? load_block(f->grad_transmittance + at, width, q) : load(edge[3] + q * LANES);
      else
        g[3] = zero();
      vf last = load(state + o), p = last * g[3];
      for (int c = 0; c < 3; c++) {
        p = fma(load(state + (c + 1) * TILE_PIXELS + o), g[c], p);
        store(to->grad[c] + l, g[c]);
      }
      store(to->p + l, p);
      store(to->t + l, start_transmittance(f, tile_x, tile_y, px, py));
      store(to->px + l, px);
      store(to->py + l, py);
    }
  }
}

struct Splat {  // an entry in every lane
  vf l11, l21, u0, l22, v0, lo, r, g, b;
};

// One gaussian in one vector of a block's pixels.
INLINE void back(const Splat &e, BlockPixels *here, int at, vf *sum) {
  vf px = load(here->px + at), py = load(here->py + at);
  vf u = fma(e.l11, px, fma(e.l21, py, e.u0)), v = fma(e.l22, py, e.v0), log2 = fnma(u, u, fnma(v, v, e.lo)), alpha;
  alphas_from_log2<1>(&log2, &alpha);
  vf t = load(here->t + at), before = load(here->p + at);
  vf gr = load(here->grad[0] + at), gg = load(here->grad[1] + at), gb = load(here->grad[2] + at);
  vf w = alpha * t;
  vf cg = fma(e.r, gr, fma(e.g, gg, e.b * gb));
  vf p = fnma(w, cg, before);
  t = fnma(alpha, t, t);
  // alpha * dloss/dalpha = w cg - P alpha / (1 - alpha), two operations shorter
  vf h = fnma(p, rcp(1.0f - alpha), before);
  store(here->t + at, t);
  store(here->p + at, p);
  vf hu = h * u, hv = h * v;
  sum[0] = sum[0] + h;
  sum[1] = sum[1] + hu;
  sum[2] = sum[2] + hv;
  sum[3] = fma(hu, u, sum[3]);
  sum[4] = fma(hu, v, sum[4]);
  sum[5] = fma(hv, v, sum[5]);
  sum[6] = fma(w, gr, sum[6]);
  sum[7] = fma(w, gg, sum[7]);
  sum[8] = fma(w, gb, sum[8]);
}

static void backward(Frame *f, int64_t tile, void *scratch) {
  BackwardScratch *s = (BackwardScratch *)scratch;
  const int tile_x = (int)(tile % f->tiles_x), tile_y = (int)(tile / f->tiles_x);
  const float mid_x = (float)(tile_x * TILE + TILE / 2), mid_y = (float)(tile_y * TILE + TILE / 2);
  const int64_t begin = f->tile_begin[tile], end = f->tile_begin[tile + 1];
  if (begin == end) return;
  start_pixels(f, tile_x, tile_y, f->state + tile * STATE, s);
  const uint32_t *stops = f->stops + tile * BLOCKS * 4;
  uint64_t running[PARTS];
  for (int q = 0; q < PARTS; q++) running[q] = ~0ull;
  uint32_t change = 0;
  for (int64_t at = begin; at < end; at++) {
    if (at + 8 < end) __builtin_prefetch(f->records + f->list[at + 8]);
    const uint32_t i = (uint32_t)(at - begin);
    if (i >= change) change = drop_stopped(stops, i, running);
    const uint64_t blocks = f->list_blocks[at];
    float *slot = f->slots + 16 * (int64_t)f->list_slot[at];
    uint64_t any = 0;
    for (int q = 0; q < PARTS; q++) any |= blocks & running[q];
    if (!any) {  // behind what has stopped
      for (int k = 0; k < 16; k += LANES) stream(slot + k, zero());
      continue;
    }
    Entry e;
    load_entry(f->records[f->list[at]], mid_x, mid_y, &e);
    const Splat splat = {set1(e.l11), set1(e.l21), set1(e.u0), set1(e.l22), set1(e.v0), set1(e.lo), set1(e.r), set1(e.g), set1(e.b)};
    vf sum[9];
    for (int k = 0; k < 9; k++) sum[k] = zero();
    for (int q = 0; q < PARTS; q++)
      for (uint64_t m = blocks & running[q]; m; m &= m - 1) back(splat, s->block + __builtin_ctzll(m), q * LANES, sum);
    store_sums(slot, sum);
  }
  stream_fence();
}
