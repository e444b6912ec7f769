#include "dispatch.h"

namespace splat {

extern const IsaTable isa_generic;
#if defined(SPLAT_X86)
extern const IsaTable isa_avx2;
extern const IsaTable isa_avx512;
#endif

namespace {

#if defined(SPLAT_X86)
bool has_avx2() { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi2"); }

// Everything -march=icelake-server lets the compiler use of AVX-512; VBMI2 tells Ice Lake and Zen 4 from the first AVX-512 machines.
bool has_avx512() {
  return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
         __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512vbmi") &&
         __builtin_cpu_supports("avx512vbmi2") && __builtin_cpu_supports("avx512bitalg") && __builtin_cpu_supports("avx512vpopcntdq") &&
         __builtin_cpu_supports("avx512ifma") && __builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("gfni");
}
#endif

}  // namespace

const IsaTable *find_isa(int isa, int *found) {
  const IsaTable *table = nullptr;
  *found = SPLAT_ISA_GENERIC;
#if defined(SPLAT_X86)
  if ((isa == SPLAT_ISA_AUTO || isa == SPLAT_ISA_AVX512) && has_avx512()) table = &isa_avx512, *found = SPLAT_ISA_AVX512;
  if (!table && (isa == SPLAT_ISA_AUTO || isa == SPLAT_ISA_AVX2) && has_avx2()) table = &isa_avx2, *found = SPLAT_ISA_AVX2;
#endif
  if (!table && (isa == SPLAT_ISA_AUTO || isa == SPLAT_ISA_GENERIC)) table = &isa_generic;
  return table;
}

}  // namespace splat
