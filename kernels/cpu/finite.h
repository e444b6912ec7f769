// Arrays that come from outside hold numbers: looked at before anything is written, told by array, place and value.
#pragma once
#include <cstdint>

#include "pool.h"

namespace splat {

// How a position in an array is told: an index into [rows][columns], or, if planes is not 0, into [planes][rows][columns].
struct Shape {
  int64_t planes, rows, columns;
};

// Refuses (SPLAT_NON_FINITE) an array that holds NaN or Inf, naming the first. NULL passes: it is no array.
void check_finite(Pool &pool, const char *name, const float *values, Shape shape);

}  // namespace splat
