// Gaussians to screen records and their tiles, LANES at a time: geometry of all, then colours and tiles of the visible ones as soon as there
// are LANES of them, while their rows are in the cache and the next rows are on their way.

INLINE vf sigmoid(vf x) { return rcp(vexp(0.0f - x) + 1.0f); }

// The higher harmonics of LANES rows: adds their part of the colours, and gives how each colour turns with the mean (three numbers a colour).
INLINE void view_colours(const Frame *f, const float *const *row, const vf *mean, vf *colour, vf *turn) {
  vf d[3], basis[15];
  for (int k = 0; k < 3; k++) d[k] = mean[k] - f->camera_position[k];
  const vf r = rsqrt(vmax(d[0] * d[0] + d[1] * d[1] + d[2] * d[2], set1(1e-30f)));
  for (int k = 0; k < 3; k++) d[k] = d[k] * r;
  sh_basis(d[0], d[1], d[2], f->degree, basis);
  for (int c = 0; c < 3; c++) {
    const float *line[LANES];
    for (int l = 0; l < LANES; l++) line[l] = row[l] + 16 + 16 * c;
    vf q[16], t[3];
    load_lines(line, q);
    vf even = basis[0] * q[0], odd = basis[1] * q[1];
    for (int k = 2; k < 15; k += 2) even = fma(basis[k], q[k], even);
    for (int k = 3; k < 15; k += 2) odd = fma(basis[k], q[k], odd);
    colour[c] = colour[c] + (even + odd);
    sh_direction_grad(d[0], d[1], d[2], f->degree, q, t, t + 1, t + 2);
    const vf along = t[0] * d[0] + t[1] * d[1] + t[2] * d[2];
    for (int k = 0; k < 3; k++) turn[3 * c + k] = fnma(along, d[k], t[k]) * r;
  }
}

constexpr int AHEAD = 32;  // rows between asking for one and needing it: about what memory takes

struct Projection {  // what a task carries along
  Frame *f;
  Part *part;
  int64_t part_index;
  uint32_t *counts;
  RowLanes lanes;
};

INLINE void prefetch_lines(const Frame *f, int64_t row, int first, int end) {
  const uintptr_t at = (uintptr_t)f->params + 256 * (uintptr_t)row;  // may lie behind the last row
  for (int line = first; line < end; line++) __builtin_prefetch((const void *)(at + 64 * (uintptr_t)line), 0, 2);
}

// Colours, tiles and tails of `some` records from `place` on; the first row whose colour is not finite goes to *bad. False when memory is out.
// Asks for the harmonics of the rows from `ahead` on, a row at a time: all at once would wait for one another.
INLINE bool finish_records(const Projection &p, int64_t place, int some, int64_t ahead, int64_t *bad) {
  Frame *f = p.f;
  const Record *records = f->records + place;
  const float *row[LANES], *record_row[LANES];
  for (int l = 0; l < LANES; l++) {
    const int k = l < some ? l : some - 1;
    row[l] = f->params + 64 * (int64_t)records[k].id;
    record_row[l] = &records[k].x;
  }
  vf m[16], c[3], out[16], r[16];
  load_lines(row, m);
  load_lines(record_row, r);
  for (int k = 0; k < 3; k++) c[k] = fma(m[11 + k], set1(SPLAT_SH_0), set1(0.5f));
  for (int k = 0; k < 9; k++) out[4 + k] = zero();
  if (f->degree > 0) view_colours(f, row, m, c, out + 4);
  const vf check = (c[0] + c[1] + c[2]) * 0.0f;
  const unsigned wrong = bits(unordered(check, check));
  if (wrong && *bad < 0) *bad = records[__builtin_ctz(wrong)].id;
  out[0] = r[2], out[1] = r[3], out[2] = r[4], out[3] = sigmoid(m[10]);
  out[13] = r[15], out[15] = zero();
  vf lit = zero();
  for (int k = 0; k < 3; k++) lit = lit + keep(lt(zero(), c[k]), set1((float)(1 << k)));
  float colour[3][LANES] ALIGNED;
  for (int k = 0; k < 3; k++) store(colour[k], vmax(c[k], zero()));
  int32_t count[LANES] ALIGNED, lit_bits[LANES] ALIGNED;
  store((float *)lit_bits, (vf)to_int(lit));
  for (int l = 0; l < some; l++) {
    Record *to = f->records + place + l;
    to->r = colour[0][l], to->g = colour[1][l], to->b = colour[2][l];
    const int found = find_tiles(f, p.part, p.part_index, p.counts, p.lanes, (uint32_t)(place + l));
    if (found < 0) return false;
    count[l] = found << 3 | lit_bits[l];
    if (f->degree > 0) prefetch_lines(f, ahead + l, 1, 4);
  }
  for (int l = some; l < LANES; l++) count[l] = 0;
  out[14] = load((float *)count);
  float tails[LANES][16] ALIGNED;
  float *to[LANES];
  for (int l = 0; l < LANES; l++) to[l] = tails[l];
  store_lines(to, out);
  for (int l = 0; l < some; l++)
    for (int q = 0; q < PARTS; q++) stream(&f->tails[place + l].l11 + q * LANES, load(tails[l] + q * LANES));
  return true;
}

// First and last tile of a range of pixels, clamped as floats: a huge gaussian's box does not fit an int.
INLINE vf tile_range(vf low, vf high, int tiles) {
  const float last = (float)(tiles - 1);
  const vi first = to_int(clamp(low * (1.0f / TILE), 0.0f, last)), end = to_int(clamp(high * (1.0f / TILE), 0.0f, last));
  return (vf)(first | end << 16);
}

static bool project_chunk(const Projection &p, const Lens &lens, int64_t chunk) {
  Frame *f = p.f;
  const int64_t begin = chunk * CHUNK, end = begin + CHUNK < f->n ? begin + CHUNK : f->n;
  Record *records = f->records + begin;
  Record dump ALIGNED;
  int count = 0, done = 0;
  int64_t bad = -1, bad_colour = -1;
  const float width = (float)f->camera.width, height = (float)f->camera.height;
  f->chunk_slot[chunk] = (uint32_t)p.part->used;
  for (int64_t i = begin; i < end; i += LANES) {
    const float *row[LANES];
    for (int l = 0; l < LANES; l++) {
      row[l] = f->params + 64 * (i + l < end ? i + l : end - 1);
      prefetch_lines(f, i + l + AHEAD, 0, 1);
    }
    unsigned alive = end - i >= LANES ? (1u << LANES) - 1 : (1u << (end - i)) - 1;
    vf v[16];
    load_lines(row, v);
    vf check = v[0] * 0.0f;
    for (int k = 1; k < 14; k++) check = fma(v[k], zero(), check);
    unsigned wrong = bits(unordered(check, check)) & alive;
    if (wrong && bad < 0) bad = i + __builtin_ctz(wrong);

    Screen<vf> s;
    project_centre(lens, v[0], v[1], v[2], &s);
    vm in_depth = both(ge(s.p[2], set1(f->camera.near_plane)), ge(set1(f->camera.far_plane), s.p[2]));
    if (!(alive &= bits(in_depth) & ~wrong)) continue;
    project_shape(lens, v + 3, v + 6, &s);

    const float half_log2e = 0.5f * LOG2E;
    vf clamped = vmin(sigmoid(v[10]), set1(SPLAT_OPACITY_MAX));
    vf lo = vlog2(vmax(clamped, set1(1e-30f))), reach = lo - ALPHA_CUT_LOG2;
    vf rc = rcp(s.cov_c);
    vf l22 = vsqrt(rc * half_log2e), l11 = vsqrt(s.cov_c * rcp(s.det) * half_log2e);
    // Slack: binning must never miss a block that a pixel's rounding lets in.
    vf slack = fma(vmax(reach, zero()), set1(1.0001f), set1(1e-4f)), per_cov = slack * (2.0f * LN2);
    vf half_x = vsqrt(s.cov_a * per_cov), half_y = vsqrt(s.cov_c * per_cov);
    vm on_x = both(ge(s.x + half_x, set1(0.5f)), ge(set1(width - 0.5f), s.x - half_x));
    vm on_y = both(ge(s.y + half_y, set1(0.5f)), ge(set1(height - 0.5f), s.y - half_y));
    // A shape so large that its numbers overflow is not drawn: det is then infinite or not a number.
    vm sound = both(ge(reach, zero()), lt(s.det * (s.cov_a + s.cov_c), set1(3e38f)));
    alive &= bits(both(both(on_x, on_y), sound));
    if (!alive) continue;

    vf out[16];
    out[0] = s.x, out[1] = s.y, out[2] = l11, out[3] = 0.0f - l11 * s.cov_b * rc, out[4] = l22, out[5] = lo;
    out[6] = out[7] = out[8] = zero();
    out[9] = slack, out[10] = half_y, out[11] = half_x * s.cov_b * rcp(s.cov_a), out[12] = rcp(l11);
    out[13] = tile_range(s.x - half_x, s.x + half_x, f->tiles_x), out[14] = tile_range(s.y - half_y, s.y + half_y, f->tiles_y);
    out[15] = (vf)(to_int(lane_index()) + iset1((int)i));
    float depth[LANES] ALIGNED;
    store(depth, s.p[2]);
    float *to[LANES];
    for (int l = 0; l < LANES; l++) {
      bool seen = alive >> l & 1;
      to[l] = seen ? &records[count].x : &dump.x;
      if (seen) __builtin_memcpy(f->keys + begin + count, depth + l, 4);
      count += seen;
    }
    store_lines(to, out);
    for (; count - done >= LANES; done += LANES)
      if (!finish_records(p, begin + done, LANES, i + AHEAD, &bad_colour)) return false;
  }
  if (done < count && !finish_records(p, begin + done, count - done, end + AHEAD, &bad_colour)) return false;
  if (bad_colour >= 0 && (bad < 0 || bad_colour < bad)) bad = bad_colour;
  f->chunk_count[chunk] = count;
  f->chunk_bad[chunk] = bad;
  return true;
}

static void project(Frame *f, int64_t index, void *) {
  Part *part = f->parts + index;
  const Projection p = {f, part, index, f->part_counts + index * f->n_tiles, row_lanes()};
  const Lens lens = make_lens(f->camera, f->dilation);
  __builtin_memset(p.counts, 0, sizeof(uint32_t) * (size_t)f->n_tiles);
  for (int64_t chunk = part->begin; chunk < part->end; chunk++)
    if (!project_chunk(p, lens, chunk)) break;
  stream_fence();
}
