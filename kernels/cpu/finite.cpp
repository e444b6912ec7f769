#include "finite.h"

#include <math.h>
#include <string.h>

#include <algorithm>
#include <atomic>

namespace splat {
namespace {

constexpr int64_t PIECE = 32768;  // floats a task

struct Search {
  const float *values;
  int64_t n;
  std::atomic<int64_t> first;  // piece that holds one, or the number of pieces
};

// Whether any exponent is all ones: integer arithmetic, which compilers turn into vectors without being told that sums may be reordered.
bool holds_one(const float *values, int64_t n) {
  uint32_t found = 0;
  for (int64_t i = 0; i < n; i++) {
    uint32_t bits;
    memcpy(&bits, values + i, sizeof bits);
    found |= (bits & 0x7fffffffu) + 0x00800000u;
  }
  return found >> 31;
}

void look(void *shared, int64_t piece, int) {
  Search &s = *static_cast<Search *>(shared);
  const int64_t begin = piece * PIECE;
  if (!holds_one(s.values + begin, std::min(PIECE, s.n - begin))) return;
  int64_t known = s.first.load();
  while (piece < known && !s.first.compare_exchange_weak(known, piece)) continue;
}

}  // namespace

void check_finite(Pool &pool, const char *name, const float *values, Shape shape) {
  const int64_t n = shape.size(), pieces = (n + PIECE - 1) / PIECE;
  if (!values || !n) return;
  Search search{values, n, {pieces}};
  pool.run(pieces, look, &search);
  if (search.first == pieces) return;
  int64_t at = search.first * PIECE;
  while (isfinite(values[at])) at++;
  refuse_value(name, shape, at, values[at]);
}

}  // namespace splat
