// The two nearest of each descriptor by dot product, both ways, without the matrix of products ever being stored.
// Products of bytes are whole numbers below 2^24, so floats add them exactly: every instruction set gives the same numbers.
constexpr int MATCH_TILE = 3;  // vectors of b at a time: with MATCH_ROWS rows of a the sums fill the registers
constexpr int MATCH_WIDTH = MATCH_TILE * LANES;

// Keeps the largest, its place and the second largest of each lane; the earlier place of equals.
INLINE void offer(vi value, vi place, vi *best, vi *second, vi *at) {
  const vi less = value < *best ? value : *best;
  *second = *second > less ? *second : less;
  *at = value > *best ? place : *at;
  *best = value > *best ? value : *best;
}

#if defined(__AVX512VNNI__)
constexpr int MATCH_ROWS = 8;
typedef int8_t MatchElement;

// a is kept less 128, because the instruction multiplies unsigned by signed bytes; b's own sum makes up for it.
static void match_pack(MatchJob *job, int64_t tile) {
  uint8_t *out = (uint8_t *)job->packed + tile * MATCH_WIDTH * MATCH_DIM;
  for (int j = 0; j < MATCH_WIDTH; j++) {
    const int64_t row = tile * MATCH_WIDTH + j;
    int32_t sum = 0;
    for (int k = 0; k < MATCH_DIM; k++) {
      const uint8_t value = row < job->n_b ? job->b[row * MATCH_DIM + k] : 0;
      out[((k / 4) * MATCH_WIDTH + j) * 4 + k % 4] = value;
      sum += value;
    }
    job->sums[row] = 128 * sum;
  }
}

INLINE MatchElement match_element(uint8_t value) { return (MatchElement)(value - 128); }

// Written with the instruction itself: g++ 12 moves the sums of the intrinsic through memory, at half the speed.
#define SPLAT_DOT(sum, b, a) __asm__("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(b), "v"(a))
#define SPLAT_DOT_ROW(r)                                         \
  __builtin_memcpy(&four, rows + (r) * MATCH_DIM + 4 * k, 4);    \
  quad = _mm512_set1_epi32(four);                                \
  SPLAT_DOT(s##r##0, b0, quad);                                  \
  SPLAT_DOT(s##r##1, b1, quad);                                  \
  SPLAT_DOT(s##r##2, b2, quad)
#define SPLAT_DOT_ROWS(X) X(0) X(1) X(2) X(3) X(4) X(5) X(6) X(7)
#define SPLAT_DOT_BEGIN(r) __m512i s##r##0 = start0, s##r##1 = start1, s##r##2 = start2;
#define SPLAT_DOT_END(r) out[r][0] = (vi)s##r##0, out[r][1] = (vi)s##r##1, out[r][2] = (vi)s##r##2;
static __attribute__((noinline)) void match_products(const MatchJob *job, int64_t tile, const MatchElement *rows, vi (*out)[MATCH_TILE]) {
  const uint8_t *b = (const uint8_t *)job->packed + tile * MATCH_WIDTH * MATCH_DIM;
  const int32_t *sums = job->sums + tile * MATCH_WIDTH;
  const __m512i start0 = _mm512_loadu_si512(sums), start1 = _mm512_loadu_si512(sums + 16), start2 = _mm512_loadu_si512(sums + 32);
  SPLAT_DOT_ROWS(SPLAT_DOT_BEGIN)
  for (int k = 0; k < MATCH_DIM / 4; k++, b += 4 * MATCH_WIDTH) {
    const __m512i b0 = _mm512_loadu_si512(b), b1 = _mm512_loadu_si512(b + 64), b2 = _mm512_loadu_si512(b + 128);
    __m512i quad;
    int32_t four;
    SPLAT_DOT_ROW(0); SPLAT_DOT_ROW(1); SPLAT_DOT_ROW(2); SPLAT_DOT_ROW(3);
    SPLAT_DOT_ROW(4); SPLAT_DOT_ROW(5); SPLAT_DOT_ROW(6); SPLAT_DOT_ROW(7);
  }
  SPLAT_DOT_ROWS(SPLAT_DOT_END)
}
#undef SPLAT_DOT
#undef SPLAT_DOT_ROW
#undef SPLAT_DOT_ROWS
#undef SPLAT_DOT_BEGIN
#undef SPLAT_DOT_END

#else
constexpr int MATCH_ROWS = 4;
typedef float MatchElement;

static void match_pack(MatchJob *job, int64_t tile) {
  float *out = (float *)job->packed + tile * MATCH_WIDTH * MATCH_DIM;
  for (int j = 0; j < MATCH_WIDTH; j++) {
    const int64_t row = tile * MATCH_WIDTH + j;
    for (int k = 0; k < MATCH_DIM; k++) out[k * MATCH_WIDTH + j] = row < job->n_b ? (float)job->b[row * MATCH_DIM + k] : 0.0f;
  }
}

INLINE MatchElement match_element(uint8_t value) { return (MatchElement)value; }

static __attribute__((noinline)) void match_products(const MatchJob *job, int64_t tile, const MatchElement *rows, vi (*out)[MATCH_TILE]) {
  const float *b = (const float *)job->packed + tile * MATCH_WIDTH * MATCH_DIM;
  vf s00 = zero(), s01 = s00, s02 = s00, s10 = s00, s11 = s00, s12 = s00, s20 = s00, s21 = s00, s22 = s00, s30 = s00, s31 = s00, s32 = s00;
  for (int k = 0; k < MATCH_DIM; k++, b += MATCH_WIDTH) {
    const vf b0 = load(b), b1 = load(b + LANES), b2 = load(b + 2 * LANES);
    vf a = set1(rows[k]);
    s00 = fma(a, b0, s00), s01 = fma(a, b1, s01), s02 = fma(a, b2, s02);
    a = set1(rows[MATCH_DIM + k]);
    s10 = fma(a, b0, s10), s11 = fma(a, b1, s11), s12 = fma(a, b2, s12);
    a = set1(rows[2 * MATCH_DIM + k]);
    s20 = fma(a, b0, s20), s21 = fma(a, b1, s21), s22 = fma(a, b2, s22);
    a = set1(rows[3 * MATCH_DIM + k]);
    s30 = fma(a, b0, s30), s31 = fma(a, b1, s31), s32 = fma(a, b2, s32);
  }
  const vf all[MATCH_ROWS][MATCH_TILE] = {{s00, s01, s02}, {s10, s11, s12}, {s20, s21, s22}, {s30, s31, s32}};
  for (int r = 0; r < MATCH_ROWS; r++)
    for (int c = 0; c < MATCH_TILE; c++) out[r][c] = to_int(all[r][c]);
}
#endif

struct MatchScratch {
  MatchElement rows[MATCH_BLOCK][MATCH_DIM];
  vi best[MATCH_BLOCK], second[MATCH_BLOCK], at[MATCH_BLOCK];
};

// One block of a against all of b: b's tile stays in the first cache, the block's rows and standings in the second.
static void match(MatchJob *job, int64_t block, void *memory) {
  MatchScratch *scratch = (MatchScratch *)memory;
  const int64_t begin = block * MATCH_BLOCK, left = job->n_a - begin;
  const int n = (int)(left < MATCH_BLOCK ? left : MATCH_BLOCK);
  const int padded = (n + MATCH_ROWS - 1) / MATCH_ROWS * MATCH_ROWS;
  const vi none = (vi){} - 1;
  vi lane;
  for (int l = 0; l < LANES; l++) lane[l] = l;
  for (int i = 0; i < padded; i++) {
    for (int k = 0; k < MATCH_DIM; k++) scratch->rows[i][k] = match_element(i < n ? job->a[(begin + i) * MATCH_DIM + k] : 0);
    scratch->best[i] = scratch->second[i] = scratch->at[i] = none;
  }
  int32_t *columns = job->columns + block * 3 * job->n_tiles * MATCH_WIDTH;
  for (int64_t tile = 0; tile < job->n_tiles; tile++) {
    vi best[MATCH_TILE], second[MATCH_TILE], at[MATCH_TILE], products[MATCH_ROWS][MATCH_TILE];
    for (int c = 0; c < MATCH_TILE; c++) best[c] = second[c] = at[c] = none;
    for (int i = 0; i < padded; i += MATCH_ROWS) {
      match_products(job, tile, scratch->rows[i], products);
      for (int r = 0; r < MATCH_ROWS && i + r < n; r++)
        for (int c = 0; c < MATCH_TILE; c++) {
          const vi place = lane + (int32_t)(tile * MATCH_WIDTH + c * LANES);
          // Rows of padding at b's end must not be anybody's neighbour.
          const vi value = place < (int32_t)job->n_b ? products[r][c] : none;
          offer(value, place, &scratch->best[i + r], &scratch->second[i + r], &scratch->at[i + r]);
          offer(value, (vi){} + (int32_t)(begin + i + r), &best[c], &second[c], &at[c]);
        }
    }
    for (int c = 0; c < MATCH_TILE; c++)
      for (int l = 0; l < LANES; l++) {
        int32_t *column = columns + 3 * (tile * MATCH_WIDTH + c * LANES + l);
        column[0] = at[c][l], column[1] = best[c][l], column[2] = second[c][l];
      }
  }
  for (int i = 0; i < n; i++) {
    int32_t best = -1, second = -1, at = -1;
    for (int l = 0; l < LANES; l++) {
      const int32_t value = scratch->best[i][l], place = scratch->at[i][l], next = scratch->second[i][l];
      if (value > best || (value == best && place < at)) second = best > second ? best : second, best = value, at = place;
      else if (value > second) second = value;
      if (next > second) second = next;
    }
    int32_t *row = job->nearest_a + 3 * (begin + i);
    row[0] = at, row[1] = best, row[2] = second;
  }
}
static_assert(sizeof(MatchScratch) <= SCRATCH_BYTES, "a thread's scratch holds any pass");
