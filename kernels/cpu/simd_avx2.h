// Eight lanes of AVX2 with FMA. Included inside an anonymous namespace: nothing here has external linkage.
#define LANES 8
#define ABREAST 2
typedef __m256 vf;
typedef int vi __attribute__((vector_size(32)));
typedef __m256 vm;  // all ones or all zeros per lane

INLINE vf set1(float x) { return _mm256_set1_ps(x); }
INLINE vi iset1(int x) { return (vi)_mm256_set1_epi32(x); }
INLINE vf zero() { return _mm256_setzero_ps(); }
INLINE vf load(const float *p) { return _mm256_loadu_ps(p); }
INLINE void store(float *p, vf v) { _mm256_storeu_ps(p, v); }
// A store that need not be in the cache afterwards; p is aligned. Before other threads read it: stream_fence().
INLINE void stream(float *p, vf v) { _mm256_stream_ps(p, v); }
INLINE void stream_fence() { _mm_sfence(); }
INLINE vf lane_index() { return _mm256_setr_ps(0, 1, 2, 3, 4, 5, 6, 7); }

INLINE vm lt(vf a, vf b) { return _mm256_cmp_ps(a, b, _CMP_LT_OQ); }
INLINE vm ge(vf a, vf b) { return _mm256_cmp_ps(a, b, _CMP_GE_OQ); }
INLINE vm unordered(vf a, vf b) { return _mm256_cmp_ps(a, b, _CMP_UNORD_Q); }
INLINE vm both(vm a, vm b) { return _mm256_and_ps(a, b); }
INLINE unsigned bits(vm m) { return (unsigned)_mm256_movemask_ps(m); }
INLINE vf select(vm m, vf a, vf b) { return _mm256_blendv_ps(b, a, m); }
INLINE vf keep(vm m, vf a) { return _mm256_and_ps(m, a); }
INLINE vf vmin(vf a, vf b) { return _mm256_min_ps(a, b); }
INLINE vf vmax(vf a, vf b) { return _mm256_max_ps(a, b); }
INLINE vf vabs(vf a) { return _mm256_andnot_ps(_mm256_set1_ps(-0.0f), a); }
INLINE vf fma(vf a, vf b, vf c) { return _mm256_fmadd_ps(a, b, c); }
INLINE vf fnma(vf a, vf b, vf c) { return _mm256_fnmadd_ps(a, b, c); }
INLINE vf vfloor(vf a) { return _mm256_floor_ps(a); }
INLINE vi to_int(vf a) { return (vi)_mm256_cvttps_epi32(a); }
INLINE vf to_float(vi a) { return _mm256_cvtepi32_ps((__m256i)a); }

// Of numbers that are not near the ends of the range, where the 12-bit estimate overflows.
// After one Newton step alone it would be 1e-7 too small on average, and the backward pass subtracts what is nearly equal.
INLINE vf rcp(vf d) {
  vf r = _mm256_rcp_ps(d), e = fnma(d, r, set1(1.0f));
  return fma(r, fma(e, e, e), r);
}
INLINE vf rsqrt(vf d) {
  vf r = _mm256_rsqrt_ps(d);
  vf e = fnma(d * r, r, set1(1.0f));
  return fma(r * e, fma(set1(0.375f), e, set1(0.5f)), r);
}
INLINE vf vsqrt(vf a) { return _mm256_sqrt_ps(a); }

INLINE vf exp2_scale(vf poly, vf x) {
  vi e = (to_int(vfloor(x)) + 127) << 23;
  return poly * (vf)e;
}
// The polynomial of simd.h about the middle of its range: rounding to the nearest whole number by adding a large one is the cheapest here, and leaves
// that number in the sum's low bits.
template <int N>
INLINE void alphas_from_log2(const vf *e, vf *alpha) {
  const vf large = set1(12582912.0f);  // 1.5 * 2^23
  vf n[N], f[N], p[N];
  for (int k = 0; k < N; k++) n[k] = e[k] + large;
  for (int k = 0; k < N; k++) f[k] = e[k] - (n[k] - large);
  for (int k = 0; k < N; k++) p[k] = fma(set1(0.0095700815f), f[k], set1(0.0559178587f));
  for (int k = 0; k < N; k++) p[k] = fma(p[k], f[k], set1(0.2402474532f));
  for (int k = 0; k < N; k++) p[k] = fma(p[k], f[k], set1(0.6931218150f));
  for (int k = 0; k < N; k++) p[k] = fma(p[k], f[k], set1(0.9999992613f));
  // p is in [0.7, 1.5) and the exponent in -8..0 wherever the cut keeps it: add it to the bits.
  for (int k = 0; k < N; k++) alpha[k] = keep(ge(e[k], set1(ALPHA_CUT_LOG2)), (vf)((vi)p[k] + ((vi)n[k] << 23)));
}
INLINE vf load_bytes(const uint8_t *p) { return _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)p))); }
INLINE void store_bytes(uint8_t *p, vi v) {
  __m128i w = _mm_packs_epi32(_mm256_castsi256_si128((__m256i)v), _mm256_extracti128_si256((__m256i)v, 1));
  _mm_storel_epi64((__m128i *)p, _mm_packus_epi16(w, w));
}

INLINE void transpose8(const vf *r, vf *o) {
  vf a[8], b[8];
#pragma GCC unroll 4
  for (int i = 0; i < 4; i++) {
    a[2 * i] = _mm256_unpacklo_ps(r[2 * i], r[2 * i + 1]);
    a[2 * i + 1] = _mm256_unpackhi_ps(r[2 * i], r[2 * i + 1]);
  }
#pragma GCC unroll 2
  for (int g = 0; g < 8; g += 4) {
    b[g] = (vf)_mm256_unpacklo_pd((__m256d)a[g], (__m256d)a[g + 2]);
    b[g + 1] = (vf)_mm256_unpackhi_pd((__m256d)a[g], (__m256d)a[g + 2]);
    b[g + 2] = (vf)_mm256_unpacklo_pd((__m256d)a[g + 1], (__m256d)a[g + 3]);
    b[g + 3] = (vf)_mm256_unpackhi_pd((__m256d)a[g + 1], (__m256d)a[g + 3]);
  }
#pragma GCC unroll 4
  for (int c = 0; c < 4; c++) {
    o[c] = _mm256_permute2f128_ps(b[c], b[4 + c], 0x20);
    o[4 + c] = _mm256_permute2f128_ps(b[c], b[4 + c], 0x31);
  }
}
INLINE void load_lines(const float *const *p, vf *o) {
  for (int h = 0; h < 2; h++) {
    vf r[8];
#pragma GCC unroll 8
    for (int i = 0; i < 8; i++) r[i] = load(p[i] + 8 * h);
    transpose8(r, o + 8 * h);
  }
}
INLINE void store_lines(float *const *p, const vf *v) {
  for (int h = 0; h < 2; h++) {
    vf r[8];
    transpose8(v + 8 * h, r);
#pragma GCC unroll 8
    for (int i = 0; i < 8; i++) store(p[i] + 8 * h, r[i]);
  }
}
INLINE vf sum_rows(const vf *r) {
  vf a = _mm256_hadd_ps(_mm256_hadd_ps(r[0], r[1]), _mm256_hadd_ps(r[2], r[3]));
  vf b = _mm256_hadd_ps(_mm256_hadd_ps(r[4], r[5]), _mm256_hadd_ps(r[6], r[7]));
  return _mm256_permute2f128_ps(a, b, 0x20) + _mm256_permute2f128_ps(a, b, 0x31);
}
INLINE float sum_lanes(vf v) {
  __m128 a = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
  a = _mm_add_ps(a, _mm_movehl_ps(a, a));
  return _mm_cvtss_f32(_mm_add_ss(a, _mm_shuffle_ps(a, a, 1)));
}
INLINE float max_lanes(vf v) {
  __m128 a = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
  a = _mm_max_ps(a, _mm_movehl_ps(a, a));
  return _mm_cvtss_f32(_mm_max_ss(a, _mm_shuffle_ps(a, a, 1)));
}
INLINE vf add_halves(vf a, vf b) { return _mm256_permute2f128_ps(a, b, 0x20) + _mm256_permute2f128_ps(a, b, 0x31); }
INLINE vf add_pairs(vf a, vf b) {
  return (vf)_mm256_unpacklo_pd((__m256d)a, (__m256d)b) + (vf)_mm256_unpackhi_pd((__m256d)a, (__m256d)b);
}
INLINE void store_sums(float *slot, const vf *s) {
  const vf last = _mm256_unpacklo_ps(s[7], s[8]) + _mm256_unpackhi_ps(s[7], s[8]);
  stream(slot, add_pairs(add_halves(s[0], s[1]), add_halves(s[4], s[5])));
  stream(slot + 8, add_pairs(add_halves(s[2], s[3]), add_halves(s[6], last)));
}
INLINE vf load_block(const float *p, int64_t stride, int part) {
  const float *q = p + 2 * part * stride;
  return _mm256_insertf128_ps(_mm256_castps128_ps256(_mm_loadu_ps(q)), _mm_loadu_ps(q + stride), 1);
}
// Eight at a time whether there are so many or not: a word holds four or five on average, and guessing where it ends costs more. Writes up to
// 72 bytes.
INLINE int list_bits(uint64_t word, int base, uint8_t *out) {
  const int count = __builtin_popcountll(word);
  do {
#pragma GCC unroll 8
    for (int i = 0; i < 8; i++, word &= word - 1) out[i] = (uint8_t)(base + (int)_tzcnt_u64(word));
    out += 8;
  } while (word);
  return count;
}
