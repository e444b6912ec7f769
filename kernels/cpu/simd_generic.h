// Four lanes in the compiler's own vectors: SSE2 on x86-64, NEON on ARM. Included inside an anonymous namespace.
#define LANES 4
typedef float vf __attribute__((vector_size(16)));
typedef int vi __attribute__((vector_size(16)));
typedef vi vm;  // all ones or all zeros per lane

INLINE vf set1(float x) { return vf{x, x, x, x}; }
INLINE vi iset1(int x) { return vi{x, x, x, x}; }
INLINE vf zero() { return set1(0.0f); }
INLINE vf load(const float *p) {
  vf v;
  __builtin_memcpy(&v, p, sizeof v);
  return v;
}
INLINE void store(float *p, vf v) { __builtin_memcpy(p, &v, sizeof v); }
// A store that need not be in the cache afterwards; p is aligned. Before other threads read it: stream_fence().
INLINE void stream(float *p, vf v) { store(p, v); }
INLINE void stream_fence() {}
INLINE vf lane_index() { return vf{0, 1, 2, 3}; }

INLINE vm lt(vf a, vf b) { return a < b; }
INLINE vm ge(vf a, vf b) { return a >= b; }
INLINE vm unordered(vf a, vf b) { return (a != a) | (b != b); }
INLINE vm both(vm a, vm b) { return a & b; }
#if defined(__SSE2__)
INLINE unsigned bits(vm m) { return (unsigned)_mm_movemask_ps((__m128)m); }
#else
INLINE unsigned bits(vm m) { return (m[0] & 1u) | (m[1] & 2u) | (m[2] & 4u) | (m[3] & 8u); }
#endif
INLINE vf keep(vm m, vf a) { return (vf)(m & (vi)a); }
INLINE vf select(vm m, vf a, vf b) { return (vf)((m & (vi)a) | (~m & (vi)b)); }
INLINE vf vmin(vf a, vf b) { return select(a < b, a, b); }
INLINE vf vmax(vf a, vf b) { return select(a > b, a, b); }
INLINE vf vabs(vf a) { return (vf)((vi)a & 0x7fffffff); }
INLINE vf fma(vf a, vf b, vf c) { return a * b + c; }
INLINE vf fnma(vf a, vf b, vf c) { return c - a * b; }
INLINE vi to_int(vf a) { return __builtin_convertvector(a, vi); }
INLINE vf to_float(vi a) { return __builtin_convertvector(a, vf); }
// Right for |a| < 2^31, which is all that is asked of it.
INLINE vf vfloor(vf a) {
  vf t = to_float(to_int(a));
  return t - keep(t > a, set1(1.0f));
}
INLINE vf rcp(vf d) { return 1.0f / d; }
#if defined(__SSE2__)
INLINE vf vsqrt(vf a) { return _mm_sqrt_ps(a); }
#else
INLINE vf vsqrt(vf a) { return vf{__builtin_sqrtf(a[0]), __builtin_sqrtf(a[1]), __builtin_sqrtf(a[2]), __builtin_sqrtf(a[3])}; }
#endif
INLINE vf rsqrt(vf d) { return 1.0f / vsqrt(d); }

INLINE vf exp2_scale(vf poly, vf x) {
  vi e = (to_int(vfloor(x)) + 127) << 23;
  return poly * (vf)e;
}
INLINE vf alpha_from_log2(vf e) {
  e = vmax(e, set1(-64.0f));
  vm k = ge(e, set1(ALPHA_CUT_LOG2));
  vi n = to_int(e) - 1;  // e is never positive, so this is its floor, or one below where e is whole: then f is 1, which is as good
  vf f = e - to_float(n);
  vf p = fma(fma(fma(fma(set1(EXP2_4), f, set1(EXP2_3)), f, set1(EXP2_2)), f, set1(EXP2_1)), f, set1(EXP2_0));
  return keep(k, (vf)((vi)p + (n << 23)));
}
INLINE vf load_bytes(const uint8_t *p) { return vf{(float)p[0], (float)p[1], (float)p[2], (float)p[3]}; }
INLINE void store_bytes(uint8_t *p, vi v) {
  for (int i = 0; i < 4; i++) p[i] = (uint8_t)v[i];
}
INLINE void transpose4(const vf *r, vf *o) {
  vf a = __builtin_shuffle(r[0], r[1], vi{0, 4, 1, 5}), b = __builtin_shuffle(r[0], r[1], vi{2, 6, 3, 7});
  vf c = __builtin_shuffle(r[2], r[3], vi{0, 4, 1, 5}), d = __builtin_shuffle(r[2], r[3], vi{2, 6, 3, 7});
  o[0] = __builtin_shuffle(a, c, vi{0, 1, 4, 5});
  o[1] = __builtin_shuffle(a, c, vi{2, 3, 6, 7});
  o[2] = __builtin_shuffle(b, d, vi{0, 1, 4, 5});
  o[3] = __builtin_shuffle(b, d, vi{2, 3, 6, 7});
}
INLINE void load_lines(const float *const *p, vf *o) {
  for (int h = 0; h < 4; h++) {
    vf r[4] = {load(p[0] + 4 * h), load(p[1] + 4 * h), load(p[2] + 4 * h), load(p[3] + 4 * h)};
    transpose4(r, o + 4 * h);
  }
}
INLINE void store_lines(float *const *p, const vf *v) {
  for (int h = 0; h < 4; h++) {
    vf r[4];
    transpose4(v + 4 * h, r);
    for (int i = 0; i < 4; i++) store(p[i] + 4 * h, r[i]);
  }
}
INLINE vf sum_rows(const vf *r) {
  vf t[4];
  transpose4(r, t);
  return (t[0] + t[1]) + (t[2] + t[3]);
}
INLINE float sum_lanes(vf v) { return (v[0] + v[1]) + (v[2] + v[3]); }
INLINE float max_lanes(vf v) {
  float a = v[0] > v[1] ? v[0] : v[1], b = v[2] > v[3] ? v[2] : v[3];
  return a > b ? a : b;
}
INLINE void store_sums9(float *slot, const vf *s) {
  store(slot, sum_rows(s));
  store(slot + 4, sum_rows(s + 4));
  store(slot + 8, vf{sum_lanes(s[8]), 0, 0, 0});
  store(slot + 12, zero());
}
INLINE vf load_block(const float *p, int64_t stride, int part) { return load(p + part * stride); }
INLINE int list_bits(uint64_t word, int base, uint8_t *out) {
  int n = 0;
  while (word) {
    out[n++] = (uint8_t)(base + __builtin_ctzll(word));
    word &= word - 1;
  }
  return n;
}
