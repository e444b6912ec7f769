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

// Bases of LANES directions as rows of 16 floats, the spare last one zero.
INLINE void sh_rows(const Frame *f, const vf *mean, float (*rows)[16]) {
  vf d[3], b[16];
  for (int k = 0; k < 3; k++) d[k] = mean[k] - f->camera_position[k];
  const vf r = rsqrt(vmax(d[0] * d[0] + d[1] * d[1] + d[2] * d[2], set1(1e-30f)));
  sh_basis(d[0] * r, d[1] * r, d[2] * r, f->degree, b);
  b[15] = zero();
  float *to[LANES];
  for (int i = 0; i < LANES; i++) to[i] = rows[i];
  store_lines(to, b);
}

// Sums a gaussian's slots, sixteen floats each; returns where the next one's begin. The second is added without a branch: nobody can predict
// whether there is one.
INLINE const float *sum_slots(const float *slot, int count, float *out) {
  const vm one = lt(set1(0.5f), set1((float)count)), two = lt(set1(1.5f), set1((float)count));
  for (int q = 0; q < PARTS; q++) {
    const float *at = slot + q * LANES;
    vf sum = keep(one, load(at)) + keep(two, load(at + 16));
    for (int k = 2; k < count; k++) sum = sum + load(at + 16 * k);
    store(out + q * LANES, sum);
  }
  return slot + 16 * count;
}

// Nine sums from a slot's sixteen parts of them: see store_sums.
INLINE void whole_sums(vf *h) {
  const vf parts[9] = {h[0] + h[1], h[4] + h[5], h[8] + h[9], h[12] + h[13], h[2] + h[3], h[6] + h[7], h[10] + h[11], h[14], h[15]};
  for (int k = 0; k < 9; k++) h[k] = parts[k];
}

// A row's lines are asked for one batch before they are needed, a few at a time between the arithmetic: a core has few lines under way at
// once, and asking for more only waits. Slots and tails lie in the order in which they are read.
INLINE void prefetch_row(const float *array, uint32_t id, int first, int end) {
  if (!array) return;
  for (int line = first; line < end; line++) __builtin_prefetch(array + 64 * (int64_t)id + 16 * line);
}

static void gradient(Frame *f, int64_t chunk, void *) {
  const Lens lens = make_lens(f->camera, f->dilation);
  const int64_t base = chunk * CHUNK;
  const int count = f->chunk_count[chunk];
  const float *slot = f->slots + 16 * (int64_t)f->chunk_slot[chunk];
  if (f->grad_params) {
    const int64_t rows = f->n - base < CHUNK ? f->n - base : CHUNK;
    __builtin_memset(f->grad_params + 64 * base, 0, sizeof(float) * 64 * (size_t)rows);
  }
  const bool with_rest = f->degree > 0 && (f->grad_params || f->adam.with_rest);
  float lr_rest[16] ALIGNED;
  for (int i = 0; i < 16; i++) lr_rest[i] = i < 15 ? f->adam.lr_rest : 0.0f;
  const int rest_end = with_rest && f->out_params ? 4 : 0;
  for (int l = 0; l < LANES && l < count; l++) {
    const uint32_t id = f->tails[base + l].id;
    prefetch_row(f->params, id, 0, 1);
    prefetch_row(f->adam.moment1, id, 0, 1);
    prefetch_row(f->adam.moment2, id, 0, 1);
  }
  for (int i = 0; i < count; i += LANES) {
    const int some = count - i < LANES ? count - i : LANES;
    const Tail *tails = f->tails + base + i;
    uint32_t id[LANES], next[LANES];
    const float *row[LANES], *tail_row[LANES], *sum_row[LANES];
    float sums[LANES][16] ALIGNED;
    for (int l = 0; l < LANES; l++) {
      const int k = l < some ? l : some - 1;
      id[l] = tails[k].id;
      row[l] = f->params + 64 * (int64_t)id[l];
      tail_row[l] = &tails[k].l11;
      sum_row[l] = sums[l];
      next[l] = tails[i + l + LANES < count ? l + LANES : 0].id;
      prefetch_row(f->params, next[l], 0, 1);
      if (l < some) slot = sum_slots(slot, tails[l].count >> 3, sums[l]);
      __builtin_prefetch(slot + 16 * 32);
      __builtin_prefetch(tails + l + 3 * LANES);
    }
    vf p[16], r[16], h[16];
    load_lines(row, p);
    load_lines(tail_row, r);
    load_lines(sum_row, h);
    whole_sums(h);

    Screen<vf> s;
    project_centre(lens, p[0], p[1], p[2], &s);
    project_shape(lens, p + 3, p + 6, &s);
    vf l11 = r[0], l21 = r[1], l22 = r[2];
    vf gx = l11 * h[1] * (2.0f * LN2), gy = fma(l21, h[1], l22 * h[2]) * (2.0f * LN2);
    // L' [[Suu Suv][Suv Svv]] L, L = [[l11 l21][0 l22]]
    const float two_ln2_squared = 2.0f * LN2 * LN2;
    vf top = fma(h[3], l21, h[4] * l22), low = fma(h[4], l21, h[5] * l22);
    vf ga = l11 * l11 * h[3] * two_ln2_squared, gb = l11 * top * two_ln2_squared, gc = fma(l21, top, l22 * low) * two_ln2_squared;
    ScreenGrad<vf> g;
    project_backward(lens, s, gx, gy, ga, gb, gc, &g);
    // The same for the sizes, but summed in the axes that u and v measure, where a needle's long axis and its thin one are of one size: what
    // remains of large terms that cancel would be their rounding.
    for (int k = 0; k < 3; k++) {
      const vf wu = fma(l11, s.a[k], l21 * s.a[3 + k]), wv = l22 * s.a[3 + k];
      g.log_scale[k] = fma(wu, fma(h[3], wu, h[4] * wv), wv * fma(h[4], wu, h[5] * wv)) * (2.0f * two_ln2_squared);
    }

    vf opacity = r[3];
    vf out[16];
    out[10] = keep(lt(opacity, set1(SPLAT_OPACITY_MAX)), h[0] * (1.0f - opacity));
    if (f->out_params) {
      out[10] = fma(opacity * (1.0f - opacity), set1(f->adam.opacity_reg), out[10]);
      for (int k = 0; k < 3; k++) g.log_scale[k] = fma(s.s[k], set1(f->adam.scale_reg), g.log_scale[k]);
    }
    vf dc[3];
    const vi lit = (vi)r[14];
    for (int k = 0; k < 3; k++) dc[k] = h[6 + k] * to_float(lit >> k & 1);
    for (int c = 0; c < 3; c++)
      for (int k = 0; k < 3; k++) g.mean[k] = fma(dc[c], r[4 + 3 * c + k], g.mean[k]);
    float basis[LANES][16] ALIGNED, colour[3][LANES] ALIGNED;
    if (with_rest) {
      sh_rows(f, p, basis);
      for (int k = 0; k < 3; k++) store(colour[k], dc[k]);
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
        float *to = f->grad_params + 64 * (int64_t)id[l];
        __builtin_memcpy(to, grads[l], 64);
        if (!with_rest) continue;
        for (int k = 0; k < 3; k++)
          for (int part = 0; part < PARTS; part++) store(to + 16 + 16 * k + part * LANES, load(basis[l] + part * LANES) * colour[k][l]);
      }
      continue;
    }
    const Adam &a = f->adam;
    float decay[2][LANES] ALIGNED;
    decays(a, id, some, decay);
    for (int l = 0; l < some; l++) {
      prefetch_row(a.moment1, next[l], 0, 1);
      prefetch_row(a.moment2, next[l], 0, 1);
      prefetch_row(f->params, next[l], 1, rest_end);
      prefetch_row(a.moment1, next[l], 1, rest_end);
      prefetch_row(a.moment2, next[l], 1, rest_end);
      const int64_t at = 64 * (int64_t)id[l];
      const Decay d = {decay[0][l], decay[1][l]};
      adam_line(a, f->out_params + at, a.moment1 + at, a.moment2 + at, grads[l], a.lr, d);
      if (a.last_step) a.last_step[id[l]] = a.step;
      if (!with_rest) continue;
      for (int k = 0; k < 3; k++) {
        const int64_t line = at + 16 + 16 * k;
        float rest[16] ALIGNED;
        for (int part = 0; part < PARTS; part++) store(rest + part * LANES, load(basis[l] + part * LANES) * colour[k][l]);
        adam_line(a, f->out_params + line, a.moment1 + line, a.moment2 + line, rest, lr_rest, d);
      }
    }
  }
}
