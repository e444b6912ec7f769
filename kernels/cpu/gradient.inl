// From sums per (gaussian, tile) to gradients of the parameters, and Adam, in one walk over the visible gaussians of a chunk.

// Lazy decay of one gaussian's moments, or 1 - beta's complement alone when last_step is not kept.
struct Decay {
  float m, v;
};

// One 16-float line: moments, then the step.
INLINE void adam_line(const Adam &a, float *p, float *m, float *v, const float *g, const float *lr, Decay d) {
  for (int q = 0; q < PARTS; q++) {
    const int o = q * LANES;
    vf grad = load(g + o);
    vf mean = fma(load(m + o), set1(d.m), grad * (1.0f - a.beta1));
    vf square = fma(load(v + o), set1(d.v), grad * grad * (1.0f - a.beta2));
    store(m + o, mean);
    store(v + o, square);
    vf root = vsqrt(square) * a.root_scale + a.eps;
    store(p + o, fnma(load(lr + o) * a.step_scale, mean * rcp(root), load(p + o)));
  }
}

INLINE void decays(const Adam &a, const uint32_t *id, int count, float (*out)[LANES]) {
  float age[LANES] ALIGNED;
  for (int l = 0; l < LANES; l++) {
    const int64_t k = l < count && a.last_step ? (int64_t)a.step - a.last_step[id[l]] : 1;  // any last_step
    age[l] = (float)(k > 0 ? k : 1);
  }
  vf k = load(age);
  vm one = lt(k, set1(1.5f));
  store(out[0], select(one, set1(a.beta1), vexp2(k * a.log2_beta1)));
  store(out[1], select(one, set1(a.beta2), vexp2(k * a.log2_beta2)));
}

// Sums of a gaussian's slots, sixteen floats.
INLINE void gather_slots(const Frame *f, int64_t place, float *out) {
  const Gather g = f->gather[place];
  const Instance *items = f->parts[g.count_part & 255].items + g.first;
  vf sum[PARTS];
  for (int q = 0; q < PARTS; q++) sum[q] = zero();
  for (uint32_t k = 0; k < g.count_part >> 8; k++)
    for (int q = 0; q < PARTS; q++) sum[q] = sum[q] + load(f->slots + 16 * (int64_t)items[k].tile + q * LANES);
  for (int q = 0; q < PARTS; q++) store(out + q * LANES, sum[q]);
}

// The way to a gaussian's sums is a chain of loads that miss: record and gather, then its instances, then their slots and its rows. Each link
// is asked for one batch before the next one needs it.
INLINE void prefetch_instances(const Frame *f, int64_t place) {
  const Gather g = f->gather[place];
  __builtin_prefetch(f->parts[g.count_part & 255].items + g.first);
}

INLINE void prefetch_rows(const Frame *f, int64_t place) {
  const int64_t id = f->records[place].id;
  const Gather g = f->gather[place];
  const Instance *items = f->parts[g.count_part & 255].items + g.first;
  for (uint32_t k = 0; k < (g.count_part >> 8) && k < 4; k++) __builtin_prefetch(f->slots + 16 * (int64_t)items[k].tile);
  for (int line = 0; line < 64; line += 16) {
    __builtin_prefetch(f->params + 64 * id + line);
    if (!f->out_params || (line && !f->adam.with_rest)) continue;
    __builtin_prefetch(f->adam.moment1 + 64 * id + line, 1);
    __builtin_prefetch(f->adam.moment2 + 64 * id + line, 1);
  }
}

static void gradient(Frame *f, int64_t chunk, void *) {
  const Lens lens = make_lens(f->camera, f->dilation);
  const int64_t base = chunk * CHUNK;
  const int count = f->chunk_count[chunk];
  if (f->grad_params) {
    const int64_t rows = f->n - base < CHUNK ? f->n - base : CHUNK;
    __builtin_memset(f->grad_params + 64 * base, 0, sizeof(float) * 64 * (size_t)rows);
  }
  float lr_rest[16] ALIGNED;
  for (int i = 0; i < 16; i++) lr_rest[i] = i < 15 ? f->adam.lr_rest : 0.0f;
  for (int l = 0; l < 2 * LANES && l < count; l++) prefetch_instances(f, base + l);
  for (int l = 0; l < LANES && l < count; l++) prefetch_rows(f, base + l);
  for (int i = 0; i < count; i += LANES) {
    const int some = count - i < LANES ? count - i : LANES;
    const Record *records = f->records + base + i;
    uint32_t id[LANES];
    const float *row[LANES], *record_row[LANES], *sum_row[LANES];
    float sums[LANES][16] ALIGNED;
    for (int l = 0; l < LANES; l++) {
      const int k = l < some ? l : some - 1;
      id[l] = records[k].id;
      row[l] = f->params + 64 * (int64_t)id[l];
      record_row[l] = &records[k].x;
      sum_row[l] = sums[l];
      gather_slots(f, base + i + k, sums[l]);
      if (i + l + 2 * LANES < count) prefetch_instances(f, base + i + l + 2 * LANES);
      __builtin_prefetch(records + l + 3 * LANES);
    }
    vf p[16], r[16], h[16];
    load_lines(row, p);
    load_lines(record_row, r);
    load_lines(sum_row, h);

    Screen<vf> s;
    project_centre(lens, p[0], p[1], p[2], &s);
    project_shape(lens, p + 3, p + 6, &s);
    vf l11 = r[2], l21 = r[3], l22 = r[4];
    vf gx = l11 * h[1] * (2.0f * LN2), gy = fma(l21, h[1], l22 * h[2]) * (2.0f * LN2);
    // L' [[Suu Suv][Suv Svv]] L, L = [[l11 l21][0 l22]]
    const float two_ln2_squared = 2.0f * LN2 * LN2;
    vf top = fma(h[3], l21, h[4] * l22), low = fma(h[4], l21, h[5] * l22);
    vf ga = l11 * l11 * h[3] * two_ln2_squared, gb = l11 * top * two_ln2_squared, gc = fma(l21, top, l22 * low) * two_ln2_squared;
    ScreenGrad<vf> g;
    project_backward(lens, s, gx, gy, ga, gb, gc, &g);

    vf opacity = r[14];
    vf out[16];
    out[10] = keep(lt(opacity, set1(SPLAT_OPACITY_MAX)), h[0] * (1.0f - opacity));
    if (f->out_params) {
      out[10] = fma(opacity * (1.0f - opacity), set1(f->adam.opacity_reg), out[10]);
      for (int k = 0; k < 3; k++) g.log_scale[k] = fma(s.s[k], set1(f->adam.scale_reg), g.log_scale[k]);
    }
    vf dc[3];
    for (int k = 0; k < 3; k++) dc[k] = keep(lt(zero(), r[6 + k]), h[6 + k]);

    float basis[LANES][16] ALIGNED, colour[3][LANES] ALIGNED;
    if (f->degree > 0) {
      vf dir[3], inverse_distance, q[16], d[3];
      sh_rows(f, p, dir, &inverse_distance, basis);
      for (int k = 0; k < 3; k++) store(colour[k], dc[k]);
      float by_basis[LANES][16] ALIGNED;
      const float *by_row[LANES];
      for (int l = 0; l < LANES; l++) {
        by_row[l] = by_basis[l];
        for (int part = 0; part < PARTS; part++) {
          vf v = load_rest(row[l] + 16, part) * colour[0][l];
          v = fma(load_rest(row[l] + 32, part), set1(colour[1][l]), v);
          v = fma(load_rest(row[l] + 48, part), set1(colour[2][l]), v);
          store(by_basis[l] + part * LANES, v);
        }
      }
      load_lines(by_row, q);
      sh_direction_grad(dir[0], dir[1], dir[2], f->degree, q, d, d + 1, d + 2);
      vf along = d[0] * dir[0] + d[1] * dir[1] + d[2] * dir[2];
      for (int k = 0; k < 3; k++) g.mean[k] = g.mean[k] + (d[k] - dir[k] * along) * inverse_distance;
    }
    for (int k = 0; k < 3; k++) out[k] = g.mean[k], out[3 + k] = g.log_scale[k], out[11 + k] = dc[k] * SPLAT_SH_0;
    for (int k = 0; k < 4; k++) out[6 + k] = g.quat[k];
    out[14] = out[15] = zero();

    if (f->density) {
      vf nx = gx * (0.5f * (float)f->camera.width), ny = gy * (0.5f * (float)f->camera.height);
      const float longer = (float)(f->camera.width > f->camera.height ? f->camera.width : f->camera.height);
      float norm[LANES] ALIGNED, radius[LANES] ALIGNED;
      store(norm, vsqrt(nx * nx + ny * ny));
      vf half_trace = (s.cov_a + s.cov_c) * 0.5f, difference = (s.cov_a - s.cov_c) * 0.5f;
      vf major = half_trace + vsqrt(difference * difference + s.cov_b * s.cov_b);
      store(radius, vsqrt(major) * (SPLAT_RADIUS_SIGMAS / longer));
      for (int l = 0; l < some; l++) {
        float *d = f->density + SPLAT_DENSITY * (int64_t)id[l];
        d[0] += norm[l];
        d[1] += 1.0f;
        if (radius[l] > d[2]) d[2] = radius[l];
      }
    }

    float grads[LANES][16] ALIGNED;
    float *grad_row[LANES];
    for (int l = 0; l < LANES; l++) grad_row[l] = grads[l];
    store_lines(grad_row, out);
    if (f->grad_params) {
      for (int l = 0; l < some; l++) {
        if (i + l + LANES < count) prefetch_rows(f, base + i + l + LANES);
        float *to = f->grad_params + 64 * (int64_t)id[l];
        __builtin_memcpy(to, grads[l], 64);
        if (f->degree == 0) continue;
        for (int k = 0; k < 3; k++)
          for (int part = 0; part < PARTS; part++) store(to + 16 + 16 * k + part * LANES, load(basis[l] + part * LANES) * colour[k][l]);
      }
      continue;
    }
    const Adam &a = f->adam;
    float decay[2][LANES] ALIGNED;
    decays(a, id, some, decay);
    for (int l = 0; l < some; l++) {
      if (i + l + LANES < count) prefetch_rows(f, base + i + l + LANES);
      const int64_t at = 64 * (int64_t)id[l];
      const Decay d = {decay[0][l], decay[1][l]};
      adam_line(a, f->out_params + at, a.moment1 + at, a.moment2 + at, grads[l], a.lr, d);
      if (a.last_step) a.last_step[id[l]] = a.step;
      if (f->degree == 0 || !a.with_rest) continue;
      for (int k = 0; k < 3; k++) {
        const int64_t line = at + 16 + 16 * k;
        float rest[16] ALIGNED;
        for (int part = 0; part < PARTS; part++) store(rest + part * LANES, load(basis[l] + part * LANES) * colour[k][l]);
        adam_line(a, f->out_params + line, a.moment1 + line, a.moment2 + line, rest, lr_rest, d);
      }
    }
  }
}
