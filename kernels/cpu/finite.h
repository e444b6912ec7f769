// Arrays that come from outside hold numbers: looked at before anything is written, told by array, place and value.
#pragma once
#include <cstdint>

#include "../common/refusal.h"
#include "pool.h"

namespace splat {

// Refuses (SPLAT_NON_FINITE) an array that holds NaN or Inf, naming the first. NULL passes: it is no array.
void check_finite(Pool &pool, const char *name, const float *values, Shape shape);

}  // namespace splat
