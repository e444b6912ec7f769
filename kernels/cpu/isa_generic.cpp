// The pixel and gaussian loops, built for one instruction set. No std:: here: a template's weak symbol could be kept for every machine.
#include "types.h"

#if defined(__SSE2__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

#define SPLAT_SIMD_HEADER "simd_generic.h"
#define SPLAT_ISA_TABLE isa_generic
#if defined(__aarch64__)
#define SPLAT_ISA_NAME "neon"
#else
#define SPLAT_ISA_NAME "generic"
#endif
#include "kernels.inl"
