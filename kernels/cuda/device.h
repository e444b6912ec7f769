// The language of the kernels: CUDA under nvcc, the shim's imitation under g++ (kernels/shim). What differs between the two is here alone.
#pragma once
#include <stdint.h>

#if defined(SPLAT_SHIM)
#include "../shim/cuda_shim.h"
#define SPLAT_ON_CARD 0
#define SPLAT_ROLLED
#define SPLAT_UNROLLED(count)
#else
#include <cuda_runtime.h>
#define SPLAT_ON_CARD 1
#define SPLAT_ROLLED _Pragma("unroll 1")  // before a loop: unrolled, it would need more registers than there are
#define SPLAT_TEXT(x) #x
#define SPLAT_UNROLLED(count) _Pragma(SPLAT_TEXT(unroll (count)))
// An array in shared memory, not initialised.
#define SPLAT_SHARED(type, name, count) __shared__ __align__(16) type name[count]
#define SPLAT_FORGET(memory, bytes)  // what lies there no longer counts as written: for the shim's watch
// What the runtime's launches and graphs know a kernel by.
template <class... P> void *node_function(void (*kernel)(P...)) { return reinterpret_cast<void *>(kernel); }
#endif

#define SPLAT_DEVICE static __device__ __forceinline__

namespace splat::gpu {

constexpr unsigned ALL_LANES = 0xffffffffu;

SPLAT_DEVICE float rcp(float x) { return 1.0f / x; }
SPLAT_DEVICE float rsqrt(float x) { return 1.0f / sqrtf(x); }
SPLAT_DEVICE float vexp(float x) { return expf(x); }
SPLAT_DEVICE float vmax(float a, float b) { return fmaxf(a, b); }
SPLAT_DEVICE float vmin(float a, float b) { return fminf(a, b); }
SPLAT_DEVICE float inside(float x, float lo, float hi) { return lo < x && x < hi ? 1.0f : 0.0f; }
SPLAT_DEVICE float clamp(float x, float lo, float hi) { return fminf(fmaxf(x, lo), hi); }

// The card's approximations, relative error at most 2^-22, with what they stand for where there is no card. Exact ones take eight to ten instructions and a call.
#if defined(__CUDA_ARCH__)
#define SPLAT_APPROXIMATION(name, instruction, plain)         \
  SPLAT_DEVICE float name(float x) {                          \
    float y;                                                  \
    asm(instruction ".approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x)); \
    return y;                                                 \
  }
#else
#define SPLAT_APPROXIMATION(name, instruction, plain) \
  SPLAT_DEVICE float name(float x) { return plain; }
#endif

SPLAT_APPROXIMATION(fast_rcp, "rcp", 1.0f / x)           // of x that is no denormal
SPLAT_APPROXIMATION(fast_sqrt, "sqrt", sqrtf(x))         // of x from 0 up
SPLAT_APPROXIMATION(fast_rsqrt, "rsqrt", 1.0f / sqrtf(x))  // of x above 0
SPLAT_APPROXIMATION(fast_exp2, "ex2", exp2f(x))          // of x up to 0; zero far below

SPLAT_DEVICE int64_t global_thread() { return static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; }

}  // namespace splat::gpu
