// Exact matching of 128-byte descriptors.
#pragma once
#include "pool.h"
#include "types.h"

namespace splat {

void match_descriptors(Pool &pool, const IsaTable &table, const SplatMatchArgs &args);

}  // namespace splat
