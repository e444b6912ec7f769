// Which instruction set's loops to run.
#pragma once
#include "types.h"

namespace splat {

// The table for a SplatIsa (AUTO: the best this machine has), or NULL where the machine or this build lacks it.
const IsaTable *find_isa(int isa, int *found);

}  // namespace splat
