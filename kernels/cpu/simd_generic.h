// Four lanes in the compiler's own vectors: SSE2 on x86-64, NEON on Arm, whatever there is elsewhere. Where the compiler's code for an operation
// is several instructions and the machine has one, that one is named. Included inside an anonymous namespace.
#define LANES 4
#define ABREAST 1
typedef float vf __attribute__((vector_size(16)));
typedef int vi __attribute__((vector_size(16)));
typedef vi vm;  // all ones or all zeros per lane

#if defined(__clang__)  // which has one name for this, and g++ before 12 the other
#define SHUFFLE(a, b, i, j, k, l) __builtin_shufflevector(a, b, i, j, k, l)
#else
#define SHUFFLE(a, b, i, j, k, l) __builtin_shuffle(a, b, vi{i, j, k, l})
#endif

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
INLINE vf keep(vm m, vf a) { return (vf)(m & (vi)a); }
INLINE vf select(vm m, vf a, vf b) { return (vf)((m & (vi)a) | (~m & (vi)b)); }
INLINE vf vabs(vf a) { return (vf)((vi)a & 0x7fffffff); }
INLINE vf fma(vf a, vf b, vf c) { return a * b + c; }
INLINE vf fnma(vf a, vf b, vf c) { return c - a * b; }
INLINE vf to_float(vi a) { return __builtin_convertvector(a, vf); }
INLINE vf rcp(vf d) { return 1.0f / d; }

#if defined(__aarch64__)
INLINE unsigned bits(vm m) { return vaddvq_u32((uint32x4_t)(m & vi{1, 2, 4, 8})); }
INLINE vf vmin(vf a, vf b) { return vminnmq_f32(a, b); }
INLINE vf vmax(vf a, vf b) { return vmaxnmq_f32(a, b); }
INLINE vi to_int(vf a) { return vcvtq_s32_f32(a); }
INLINE vf vfloor(vf a) { return vrndmq_f32(a); }
INLINE vf vsqrt(vf a) { return vsqrtq_f32(a); }
INLINE vf load_bytes(const uint8_t *p) {
  uint32_t word;
  __builtin_memcpy(&word, p, sizeof word);
  return vcvtq_f32_u32(vmovl_u16(vget_low_u16(vmovl_u8(vcreate_u8(word)))));
}
// Of numbers from 0 to 255.
INLINE void store_bytes(uint8_t *p, vi v) {
  const uint16x4_t words = vmovn_u32((uint32x4_t)v);
  const uint32_t bytes = vget_lane_u32(vreinterpret_u32_u8(vmovn_u16(vcombine_u16(words, words))), 0);
  __builtin_memcpy(p, &bytes, sizeof bytes);
}
#else
INLINE vf vmin(vf a, vf b) { return select(a < b, a, b); }
INLINE vf vmax(vf a, vf b) { return select(a > b, a, b); }
INLINE vi to_int(vf a) { return __builtin_convertvector(a, vi); }
// Right for |a| < 2^31, which is all that is asked of it.
INLINE vf vfloor(vf a) {
  vf t = to_float(to_int(a));
  return t - keep(t > a, set1(1.0f));
}
#if defined(__SSE2__)
INLINE unsigned bits(vm m) { return (unsigned)_mm_movemask_ps((__m128)m); }
INLINE vf vsqrt(vf a) { return _mm_sqrt_ps(a); }
INLINE vf load_bytes(const uint8_t *p) {
  int word;
  __builtin_memcpy(&word, p, sizeof word);
  const __m128i none = _mm_setzero_si128();
  return _mm_cvtepi32_ps(_mm_unpacklo_epi16(_mm_unpacklo_epi8(_mm_cvtsi32_si128(word), none), none));
}
INLINE void store_bytes(uint8_t *p, vi v) {
  const __m128i words = _mm_packs_epi32((__m128i)v, (__m128i)v);
  const int bytes = _mm_cvtsi128_si32(_mm_packus_epi16(words, words));
  __builtin_memcpy(p, &bytes, sizeof bytes);
}
#else
INLINE unsigned bits(vm m) { return (m[0] & 1u) | (m[1] & 2u) | (m[2] & 4u) | (m[3] & 8u); }
INLINE vf vsqrt(vf a) { return vf{__builtin_sqrtf(a[0]), __builtin_sqrtf(a[1]), __builtin_sqrtf(a[2]), __builtin_sqrtf(a[3])}; }
INLINE vf load_bytes(const uint8_t *p) { return vf{(float)p[0], (float)p[1], (float)p[2], (float)p[3]}; }
INLINE void store_bytes(uint8_t *p, vi v) {
  for (int i = 0; i < 4; i++) p[i] = (uint8_t)v[i];
}
#endif
#endif
INLINE vf rsqrt(vf d) { return 1.0f / vsqrt(d); }

INLINE vf exp2_scale(vf poly, vf x) {
  vi e = (to_int(vfloor(x)) + 127) << 23;
  return poly * (vf)e;
}
INLINE vf alpha_from_log2(vf e) {
  vm k = ge(e, set1(ALPHA_CUT_LOG2));
#if defined(__aarch64__)
  vf whole = vfloor(e), f = e - whole;
  vi n = to_int(whole);
#else
  e = vmax(e, set1(-64.0f));
  vi n = to_int(e) - 1;  // e is never positive, so this is its floor, or one below where e is whole: then f is 1, which is as good
  vf f = e - to_float(n);
#endif
  vf p = fma(fma(fma(fma(set1(EXP2_4), f, set1(EXP2_3)), f, set1(EXP2_2)), f, set1(EXP2_1)), f, set1(EXP2_0));
  return keep(k, (vf)((vi)p + (n << 23)));
}
template <int N>
INLINE void alphas_from_log2(const vf *e, vf *alpha) {
  for (int k = 0; k < N; k++) alpha[k] = alpha_from_log2(e[k]);
}
INLINE void transpose4(const vf *r, vf *o) {
  vf a = SHUFFLE(r[0], r[1], 0, 4, 1, 5), b = SHUFFLE(r[0], r[1], 2, 6, 3, 7);
  vf c = SHUFFLE(r[2], r[3], 0, 4, 1, 5), d = SHUFFLE(r[2], r[3], 2, 6, 3, 7);
  o[0] = SHUFFLE(a, c, 0, 1, 4, 5);
  o[1] = SHUFFLE(a, c, 2, 3, 6, 7);
  o[2] = SHUFFLE(b, d, 0, 1, 4, 5);
  o[3] = SHUFFLE(b, d, 2, 3, 6, 7);
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
INLINE vf add_pairs(vf a, vf b) { return SHUFFLE(a, b, 0, 1, 4, 5) + SHUFFLE(a, b, 2, 3, 6, 7); }
INLINE void store_sums(float *slot, const vf *s) {
  for (int k = 0; k < 3; k++) store(slot + 4 * k, add_pairs(s[k], s[4 + k]));
  store(slot + 12, add_pairs(s[3], SHUFFLE(s[7], s[8], 0, 4, 1, 5) + SHUFFLE(s[7], s[8], 2, 6, 3, 7)));
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
