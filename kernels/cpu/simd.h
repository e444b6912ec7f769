// What the .inl files are written in: vf (LANES floats), vi (LANES ints), vm (a mask), GNU vector operators, and the few functions below.
// Included by each isa_*.cpp inside its own anonymous namespace after choosing SPLAT_SIMD_HEADER.
#define INLINE static inline __attribute__((always_inline))
// ABREAST: entries that the forward pass blends side by side; so many registers there are.
#define PARTS (16 / LANES)  // a 4x4 block of pixels, or a 16-float line, is PARTS vectors

constexpr float ALPHA_CUT_LOG2 = -7.9943534368588578f;  // log2(1/255)
constexpr float LOG2E = 1.4426950408889634f;
constexpr float LN2 = 0.6931471805599453f;
// exp2 on [0, 1), degree 4, relative error 2.6e-6 (fitted to the relative error)
constexpr float EXP2_0 = 1.0000025932f, EXP2_1 = 0.6930038405f, EXP2_2 = 0.2414427242f, EXP2_3 = 0.0520115159f, EXP2_4 = 0.0135341391f;

// A slot holds the nine sums of a (gaussian, tile) pair as store_sums leaves them: floats 4 i and 4 i + 1 together are sum i for i < 4, floats
// 4 i + 2 and 4 i + 3 sum 4 + i for i < 3, floats 14 and 15 sums 7 and 8. The last addition is cheaper sixteen gaussians at a time.

#include SPLAT_SIMD_HEADER

// 2^x for any x, clamped to the range of normal numbers; relative error 2e-7.
INLINE vf vexp2(vf x) {
  x = vmin(vmax(x, set1(-126.0f)), set1(127.999f));
  vf f = x - vfloor(x);
  vf p = fma(set1(0.00021702230749880906f), f, set1(0.001243969504083494f));
  p = fma(p, f, set1(0.009678840211225035f));
  p = fma(p, f, set1(0.05548334237494079f));
  p = fma(p, f, set1(0.24022983618722618f));
  p = fma(p, f, set1(0.6931469838475479f));
  p = fma(p, f, set1(1.0f));
  return exp2_scale(p, x);
}
INLINE vf vexp(vf x) { return vexp2(x * LOG2E); }

// log2 of normal numbers; absolute error 2e-7.
INLINE vf vlog2(vf x) {
  vi i = (vi)x;
  vi e = (i - 0x3f400000) >> 23;  // so that the mantissa is in [0.75, 1.5)
  vf m = (vf)(i - (e << 23));
  vf z = (m - 1.0f) * rcp(m + 1.0f), zz = z * z;
  vf p = fma(zz, set1(2.0f / 9 * LOG2E), set1(2.0f / 7 * LOG2E));
  p = fma(p, zz, set1(2.0f / 5 * LOG2E));
  p = fma(p, zz, set1(2.0f / 3 * LOG2E));
  p = fma(p, zz, set1(2.0f * LOG2E));
  return fma(p, z, to_float(e));
}

INLINE vf clamp(vf x, float lo, float hi) { return vmin(vmax(x, set1(lo)), set1(hi)); }
INLINE vf inside(vf x, float lo, float hi) { return keep(both(lt(set1(lo), x), lt(x, set1(hi))), set1(1.0f)); }

// 64x64 bit matrix, transposed in place: bit j of word i becomes bit i of word j.
INLINE void transpose_bits(uint64_t *w) {
  uint64_t m = 0x00000000ffffffffull;
  for (int j = 32; j; j >>= 1, m ^= m << j)
    for (int k = 0; k < 64; k += 2 * j)
      for (int i = k; i < k + j; i++) {
        uint64_t t = ((w[i] >> j) ^ w[i + j]) & m;
        w[i] ^= t << j;
        w[i + j] ^= t;
      }
}
