// What each gaussian gave to the last forward: the backward's walk with two sums instead of nine. Also counts lanes for the benchmarks.

static void contribution(Frame *f, int64_t tile, void *scratch) {
  BackwardScratch *s = (BackwardScratch *)scratch;
  const int tile_x = (int)(tile % f->tiles_x), tile_y = (int)(tile / f->tiles_x);
  const float mid_x = (float)(tile_x * TILE + TILE / 2), mid_y = (float)(tile_y * TILE + TILE / 2);
  const int64_t begin = f->tile_begin[tile], end = f->tile_begin[tile + 1];
  f->evaluated[tile] = f->blended[tile] = 0;
  if (begin == end) return;
  const int width = f->camera.width, height = f->camera.height;
  for (int b = 0; b < BLOCKS; b++)
    for (int q = 0; q < PARTS; q++) {
      const int o = q * LANES;
      BlockPixels *to = s->block + b;
      vf px, py;
      block_pixels(b, q, &px, &py);
      store(to->px + o, px);
      store(to->py + o, py);
      store(to->t + o, start_transmittance(f, tile_x, tile_y, px, py));
      for (int i = 0; i < LANES; i++) {
        const int k = q * LANES + i, x = tile_x * TILE + (b & 7) * 4 + (k & 3), y = tile_y * TILE + (b >> 3) * 4 + (k >> 2);
        const bool in = x < width && y < height;
        to->p[o + i] = !in ? 0.0f : f->weight_map ? f->weight_map[(int64_t)y * width + x] : 1.0f;
      }
    }
  const uint32_t *stops = f->stops + tile * BLOCKS * 4;
  uint64_t running[PARTS], evaluated = 0, blended = 0;
  for (int q = 0; q < PARTS; q++) running[q] = ~0ull;
  uint32_t change = 0;
  for (int64_t at = begin; at < end; at++) {
    const uint32_t i = (uint32_t)(at - begin);
    if (i >= change) change = drop_stopped(stops, i, running);
    Entry e;
    load_entry(f->records[f->list[at]], mid_x, mid_y, &e);
    vf sum = zero(), peak = zero();
    for (int q = 0; q < PARTS; q++)
      for (uint64_t m = f->list_blocks[at] & running[q]; m; m &= m - 1) {
        const int o = q * LANES;
        BlockPixels *to = s->block + __builtin_ctzll(m);
        vf px = load(to->px + o), py = load(to->py + o), t = load(to->t + o);
        vf u = fma(set1(e.l11), px, fma(set1(e.l21), py, set1(e.u0))), v = fma(set1(e.l22), py, set1(e.v0));
        vf log2 = fnma(u, u, fnma(v, v, set1(e.lo))), alpha;
        alphas_from_log2<1>(&log2, &alpha);
        vf w = alpha * t;
        store(to->t + o, fnma(alpha, t, t));
        sum = fma(w, load(to->p + o), sum);
        peak = vmax(peak, w);
        evaluated += LANES;
        blended += (uint64_t)__builtin_popcount(bits(both(lt(zero(), alpha), ge(t, set1(SPLAT_STOP)))));
      }
    float *slot = f->slots + 2 * (int64_t)f->list_slot[at];
    slot[0] = sum_lanes(sum);
    slot[1] = max_lanes(peak);
  }
  f->evaluated[tile] = evaluated;
  f->blended[tile] = blended;
}

static void gather_contribution(Frame *f, int64_t chunk, void *) {
  const float *slot = f->slots + 2 * (int64_t)f->chunk_slot[chunk];
  const Tail *tails = f->tails + chunk * CHUNK;
  for (int i = 0; i < f->chunk_count[chunk]; i++) {
    float sum = 0.0f, peak = 0.0f;
    for (int k = tails[i].count >> 3; k > 0; k--, slot += 2) {
      sum += slot[0];
      peak = slot[1] > peak ? slot[1] : peak;
    }
    const uint32_t id = tails[i].id;
    if (f->sums) f->sums[id] += sum;
    if (f->peaks && peak > f->peaks[id]) f->peaks[id] = peak;
  }
}
