// The pixel and gaussian loops, built for one instruction set. No std:: here: a template's weak symbol could be kept for every machine.
#include "types.h"

#include <immintrin.h>

#define SPLAT_SIMD_HEADER "simd_avx512.h"
#define SPLAT_ISA_TABLE isa_avx512
#define SPLAT_ISA_NAME "avx512"
#include "kernels.inl"
