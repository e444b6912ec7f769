// Exact nearest neighbours by a balanced kd-tree.
#pragma once
#include "pool.h"
#include "splat/splat.h"

namespace splat {

void nearest_neighbours(Pool &pool, const SplatKnnArgs &args);

}  // namespace splat
