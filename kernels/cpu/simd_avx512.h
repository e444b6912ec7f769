// Sixteen lanes of AVX-512 (Ice Lake level: F, BW, DQ, VL, VBMI2). Included inside an anonymous namespace: nothing here has external linkage.
#define LANES 16
#define ABREAST 4
typedef __m512 vf;
typedef int vi __attribute__((vector_size(64)));
typedef __mmask16 vm;

INLINE vf set1(float x) { return _mm512_set1_ps(x); }
INLINE vi iset1(int x) { return (vi)_mm512_set1_epi32(x); }
INLINE vf zero() { return _mm512_setzero_ps(); }
INLINE vf load(const float *p) { return _mm512_loadu_ps(p); }
INLINE void store(float *p, vf v) { _mm512_storeu_ps(p, v); }
// A store that need not be in the cache afterwards; p is aligned. Before other threads read it: stream_fence().
INLINE void stream(float *p, vf v) { _mm512_stream_ps(p, v); }
INLINE void stream_fence() { _mm_sfence(); }
INLINE vf lane_index() { return _mm512_setr_ps(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15); }

INLINE vm lt(vf a, vf b) { return _mm512_cmp_ps_mask(a, b, _CMP_LT_OQ); }
INLINE vm ge(vf a, vf b) { return _mm512_cmp_ps_mask(a, b, _CMP_GE_OQ); }
INLINE vm unordered(vf a, vf b) { return _mm512_cmp_ps_mask(a, b, _CMP_UNORD_Q); }
INLINE vm both(vm a, vm b) { return a & b; }
INLINE unsigned bits(vm m) { return m; }
INLINE vf select(vm m, vf a, vf b) { return _mm512_mask_blend_ps(m, b, a); }
INLINE vf keep(vm m, vf a) { return _mm512_maskz_mov_ps(m, a); }
INLINE vf vmin(vf a, vf b) { return _mm512_min_ps(a, b); }
INLINE vf vmax(vf a, vf b) { return _mm512_max_ps(a, b); }
INLINE vf vabs(vf a) { return _mm512_abs_ps(a); }
INLINE vf fma(vf a, vf b, vf c) { return _mm512_fmadd_ps(a, b, c); }
INLINE vf fnma(vf a, vf b, vf c) { return _mm512_fnmadd_ps(a, b, c); }
INLINE vf vfloor(vf a) { return _mm512_roundscale_ps(a, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC); }
INLINE vi to_int(vf a) { return (vi)_mm512_cvttps_epi32(a); }
INLINE vf to_float(vi a) { return _mm512_cvtepi32_ps((__m512i)a); }

INLINE vf rcp(vf d) {
  vf r = _mm512_rcp14_ps(d);
  return fma(r, fnma(d, r, set1(1.0f)), r);
}
INLINE vf rsqrt(vf d) {
  vf r = _mm512_rsqrt14_ps(d);
  vf e = fnma(d * r, r, set1(1.0f));
  return fma(r * e, set1(0.5f), r);
}
// rsqrt(0) is not finite after the Newton step, so the argument is kept above the smallest normal number.
INLINE vf vsqrt(vf a) { return a * rsqrt(vmax(a, set1(1.2e-38f))); }

INLINE vf exp2_scale(vf poly, vf x) { return _mm512_scalef_ps(poly, x); }

// opacity * exp(-q/2) from its base-2 logarithm, zero below the 1/255 cut; relative error 2.6e-6. N side by side, operation by operation.
template <int N>
INLINE void alphas_from_log2(const vf *e, vf *alpha) {
  vf f[N], p[N];
  for (int k = 0; k < N; k++) f[k] = _mm512_reduce_ps(e[k], 0x09);
  for (int k = 0; k < N; k++) p[k] = fma(set1(EXP2_4), f[k], set1(EXP2_3));
  for (int k = 0; k < N; k++) p[k] = fma(p[k], f[k], set1(EXP2_2));
  for (int k = 0; k < N; k++) p[k] = fma(p[k], f[k], set1(EXP2_1));
  for (int k = 0; k < N; k++) p[k] = fma(p[k], f[k], set1(EXP2_0));
  for (int k = 0; k < N; k++) alpha[k] = _mm512_maskz_scalef_ps(ge(e[k], set1(ALPHA_CUT_LOG2)), p[k], e[k]);
}
INLINE vf load_bytes(const uint8_t *p) { return _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)p))); }
INLINE void store_bytes(uint8_t *p, vi v) { _mm_storeu_si128((__m128i *)p, _mm512_cvtepi32_epi8((__m512i)v)); }

INLINE void transpose16(const vf *r, vf *o) {
  vf a[16], b[16];
#pragma GCC unroll 8
  for (int i = 0; i < 8; i++) {
    a[2 * i] = _mm512_unpacklo_ps(r[2 * i], r[2 * i + 1]);
    a[2 * i + 1] = _mm512_unpackhi_ps(r[2 * i], r[2 * i + 1]);
  }
#pragma GCC unroll 4
  for (int g = 0; g < 16; g += 4) {
    b[g] = (vf)_mm512_unpacklo_pd((__m512d)a[g], (__m512d)a[g + 2]);
    b[g + 1] = (vf)_mm512_unpackhi_pd((__m512d)a[g], (__m512d)a[g + 2]);
    b[g + 2] = (vf)_mm512_unpacklo_pd((__m512d)a[g + 1], (__m512d)a[g + 3]);
    b[g + 3] = (vf)_mm512_unpackhi_pd((__m512d)a[g + 1], (__m512d)a[g + 3]);
  }
#pragma GCC unroll 4
  for (int c = 0; c < 4; c++) {
    vf p = _mm512_shuffle_f32x4(b[c], b[4 + c], 0x88), q = _mm512_shuffle_f32x4(b[c], b[4 + c], 0xdd);
    vf s = _mm512_shuffle_f32x4(b[8 + c], b[12 + c], 0x88), t = _mm512_shuffle_f32x4(b[8 + c], b[12 + c], 0xdd);
    o[c] = _mm512_shuffle_f32x4(p, s, 0x88);
    o[4 + c] = _mm512_shuffle_f32x4(q, t, 0x88);
    o[8 + c] = _mm512_shuffle_f32x4(p, s, 0xdd);
    o[12 + c] = _mm512_shuffle_f32x4(q, t, 0xdd);
  }
}
INLINE void load_lines(const float *const *p, vf *o) {
  vf r[16];
#pragma GCC unroll 16
  for (int i = 0; i < 16; i++) r[i] = load(p[i]);
  transpose16(r, o);
}
INLINE void store_lines(float *const *p, const vf *v) {
  vf r[16];
  transpose16(v, r);
#pragma GCC unroll 16
  for (int i = 0; i < 16; i++) store(p[i], r[i]);
}

INLINE vf add_halves(vf a, vf b) { return _mm512_shuffle_f32x4(a, b, 0x44) + _mm512_shuffle_f32x4(a, b, 0xee); }
INLINE vf add_quarters(vf a, vf b) { return _mm512_shuffle_f32x4(a, b, 0x88) + _mm512_shuffle_f32x4(a, b, 0xdd); }
// Four vectors in, one out: 128-bit lane i holds four partial sums of the i-th.
INLINE vf fold4(vf a, vf b, vf c, vf d) { return add_quarters(add_halves(a, b), add_halves(c, d)); }
// Within each 128-bit lane: element j is the sum of the j-th argument's four.
INLINE vf fold_lanes(vf a, vf b, vf c, vf d) {
  vf p = _mm512_unpacklo_ps(a, b) + _mm512_unpackhi_ps(a, b);
  vf q = _mm512_unpacklo_ps(c, d) + _mm512_unpackhi_ps(c, d);
  return (vf)_mm512_unpacklo_pd((__m512d)p, (__m512d)q) + (vf)_mm512_unpackhi_pd((__m512d)p, (__m512d)q);
}
// Lane i of the result is the sum of all lanes of r[i].
INLINE vf sum_rows(const vf *r) {
  return fold_lanes(fold4(r[0], r[4], r[8], r[12]), fold4(r[1], r[5], r[9], r[13]), fold4(r[2], r[6], r[10], r[14]),
                    fold4(r[3], r[7], r[11], r[15]));
}
// A slot's line (simd.h says how it is laid out) from nine vectors.
INLINE void store_sums(float *slot, const vf *s) {
  const vf low = fold4(s[0], s[1], s[2], s[3]);
  const vf high = fold4(s[4], s[5], s[6], _mm512_unpacklo_ps(s[7], s[8]) + _mm512_unpackhi_ps(s[7], s[8]));
  stream(slot, (vf)_mm512_unpacklo_pd((__m512d)low, (__m512d)high) + (vf)_mm512_unpackhi_pd((__m512d)low, (__m512d)high));
}
INLINE float sum_lanes(vf v) { 
  vf a = fold_lanes(v, v, v, v);
  a = add_quarters(add_halves(a, a), add_halves(a, a));
  return _mm512_cvtss_f32(a);
 }
INLINE float max_lanes(vf v) { 
  float x[16] ALIGNED, most;
  store(x, v);
  most = x[0];
  for (int i = 1; i < 16; i++) most = x[i] > most ? x[i] : most;
  return most;
 }
// The 4x4 pixels at p of a plane, row by row in one vector (part is always 0 here).
INLINE vf load_block(const float *p, int64_t stride, int part) {
  (void)part;
  __m256 lo = _mm256_insertf128_ps(_mm256_castps128_ps256(_mm_loadu_ps(p)), _mm_loadu_ps(p + stride), 1);
  __m256 hi = _mm256_insertf128_ps(_mm256_castps128_ps256(_mm_loadu_ps(p + 2 * stride)), _mm_loadu_ps(p + 3 * stride), 1);
  return _mm512_insertf32x8(_mm512_castps256_ps512(lo), hi, 1);
}
// Positions of the set bits of a 64-bit word plus a base, as bytes; returns how many. Writes up to 64 bytes.
INLINE int list_bits(uint64_t word, int base, uint8_t *out) {
  static const uint8_t iota[64] __attribute__((aligned(64))) = {
      0,  1,  2,  3,  4,  5,  6,  7,  8,  9,  10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31,
      32, 33, 34, 35, 36, 37, 38, 39, 40, 41, 42, 43, 44, 45, 46, 47, 48, 49, 50, 51, 52, 53, 54, 55, 56, 57, 58, 59, 60, 61, 62, 63};
  __m512i at = _mm512_add_epi8(_mm512_load_si512(iota), _mm512_set1_epi8((char)base));
  _mm512_storeu_si512(out, _mm512_maskz_compress_epi8(word, at));
  return __builtin_popcountll(word);
}
