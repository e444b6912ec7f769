// Failures of the runtime as refusals.
#pragma once
#include "../common/refusal.h"
#include "device.h"

namespace splat {
namespace gpu {

// Throws what a call of the runtime, or a launch before it, returned.
void check(cudaError_t error, const char *doing);

}  // namespace gpu
}  // namespace splat
