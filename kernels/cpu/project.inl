// Gaussians to screen records: LANES at a time, visible ones only, colours in a second walk over what the first has just left in cache.

INLINE Lens make_lens(const SplatCamera &c, float dilation) {
  Lens k;
  for (int i = 0; i < 12; i++) k.w[i] = c.cam_from_world[i];
  k.fx = c.fx, k.fy = c.fy, k.cx = c.cx, k.cy = c.cy;
  float mx = SPLAT_VIEW_MARGIN * (float)c.width / c.fx, my = SPLAT_VIEW_MARGIN * (float)c.height / c.fy;
  k.x_lo = -c.cx / c.fx - mx, k.x_hi = ((float)c.width - c.cx) / c.fx + mx;
  k.y_lo = -c.cy / c.fy - my, k.y_hi = ((float)c.height - c.cy) / c.fy + my;
  k.dilation = dilation;
  return k;
}

INLINE vf sigmoid(vf x) { return rcp(vexp(0.0f - x) + 1.0f); }

// The part-th vector of a 16-float line with its last, spare, float read as zero.
INLINE vf load_rest(const float *line, int part) {
  vf v = load(line + part * LANES);
  if (part < PARTS - 1) return v;
  return keep(lt(lane_index(), set1(LANES - 1.5f)), v);
}

// Bases of LANES directions as rows of 16 floats (the spare last one zero), and the directions with the inverse distances.
INLINE void sh_rows(const Frame *f, const vf *mean, vf *dir, vf *inverse_distance, float (*rows)[16]) {
  vf d[3], b[16];
  for (int k = 0; k < 3; k++) d[k] = mean[k] - f->camera_position[k];
  vf r = rsqrt(vmax(d[0] * d[0] + d[1] * d[1] + d[2] * d[2], set1(1e-30f)));
  for (int k = 0; k < 3; k++) dir[k] = d[k] * r;
  *inverse_distance = r;
  sh_basis(dir[0], dir[1], dir[2], f->degree, b);
  b[15] = zero();
  float *to[LANES];
  for (int i = 0; i < LANES; i++) to[i] = rows[i];
  store_lines(to, b);
}

// Colours of the first `count` records of a chunk. Returns the first of them whose harmonics are not finite, or -1.
INLINE int colour_records(const Frame *f, Record *records, int count) {
  int bad = -1;
  float sink[16] ALIGNED;
  for (int i = 0; i < count; i += LANES) {
    const float *row[LANES];
    for (int l = 0; l < LANES; l++) row[l] = f->params + 64 * (int64_t)records[i + l < count ? i + l : count - 1].id;
    vf p[16], c[3];
    load_lines(row, p);
    for (int k = 0; k < 3; k++) c[k] = fma(p[11 + k], set1(SPLAT_SH_0), set1(0.5f));
    if (f->degree > 0) {
      float basis[LANES][16] ALIGNED;
      vf dir[3], r;
      sh_rows(f, p, dir, &r, basis);
      for (int k = 0; k < 3; k++) {
        vf v[LANES];
        for (int l = 0; l < LANES; l++) {
          v[l] = load(basis[l]) * load_rest(row[l] + 16 + 16 * k, 0);
          for (int q = 1; q < PARTS; q++) v[l] = fma(load(basis[l] + q * LANES), load_rest(row[l] + 16 + 16 * k, q), v[l]);
        }
        c[k] = c[k] + sum_rows(v);
      }
    }
    vf check = (c[0] + c[1] + c[2]) * 0.0f;
    unsigned wrong = bits(unordered(check, check));
    if (wrong && bad < 0) bad = i + __builtin_ctz(wrong);
    float out[3][LANES] ALIGNED;
    for (int k = 0; k < 3; k++) store(out[k], vmax(c[k], zero()));
    for (int l = 0; l < LANES; l++) {
      float *to = i + l < count ? &records[i + l].r : sink;
      to[0] = out[0][l], to[1] = out[1][l], to[2] = out[2][l];
    }
  }
  return bad < count ? bad : count - 1;
}

static void project(Frame *f, int64_t chunk, void *) {
  const Lens lens = make_lens(f->camera, f->dilation);
  const int64_t begin = chunk * CHUNK, end = begin + CHUNK < f->n ? begin + CHUNK : f->n;
  Record *records = f->records + begin;
  Record dump ALIGNED;
  int count = 0;
  int64_t bad = -1;
  bool likely = false;  // the batch before had visible gaussians, so the next ones will: rows are in spatial order
  const float width = (float)f->camera.width, height = (float)f->camera.height;
  for (int64_t i = begin; i < end; i += LANES) {
    const float *row[LANES];
    for (int l = 0; l < LANES; l++) {
      row[l] = f->params + 64 * (i + l < end ? i + l : end - 1);
      // Whole rows in the order of memory, which lets the hardware run ahead; only the first line where nothing nearby is seen.
      for (int line = 0; line < (likely ? 64 : 16); line += 16) __builtin_prefetch(row[l] + 64 * 32 + line, 0, 2);
    }
    unsigned alive = end - i >= LANES ? (1u << LANES) - 1 : (1u << (end - i)) - 1;
    vf p[16];
    load_lines(row, p);
    vf check = p[0] * 0.0f;
    for (int k = 1; k < 14; k++) check = fma(p[k], zero(), check);
    unsigned wrong = bits(unordered(check, check)) & alive;
    if (wrong && bad < 0) bad = i + __builtin_ctz(wrong);

    Screen<vf> s;
    project_centre(lens, p[0], p[1], p[2], &s);
    vm in_depth = both(ge(s.p[2], set1(f->camera.near_plane)), ge(set1(f->camera.far_plane), s.p[2]));
    likely = false;
    if (!(alive &= bits(in_depth) & ~wrong)) continue;
    project_shape(lens, p + 3, p + 6, &s);

    const float half_log2e = 0.5f * LOG2E;
    vf opacity = sigmoid(p[10]), clamped = vmin(opacity, set1(SPLAT_OPACITY_MAX));
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
    likely = f->degree > 0;

    vf out[16];
    out[0] = s.x, out[1] = s.y, out[2] = l11, out[3] = 0.0f - l11 * s.cov_b * rc, out[4] = l22, out[5] = lo;
    out[6] = out[7] = out[8] = zero();
    out[9] = slack, out[10] = half_x, out[11] = half_y, out[12] = half_x * s.cov_b * rcp(s.cov_a), out[13] = rcp(l11), out[14] = opacity;
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
  }
  int bad_colour = colour_records(f, records, count);
  if (bad_colour >= 0 && (bad < 0 || records[bad_colour].id < bad)) bad = records[bad_colour].id;
  f->chunk_count[chunk] = count;
  f->chunk_bad[chunk] = bad;
}
