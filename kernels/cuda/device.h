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

// 1 / x for x that is no denormal; relative error at most 2^-22. The exact division takes ten instructions and a call.
SPLAT_DEVICE float fast_rcp(float x) {
#if defined(__CUDA_ARCH__)
  float y;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
#else
  return 1.0f / x;
#endif
}

// Square root, and one over it, of x from 0 up, or above 0; relative error at most 2^-22. Exact ones take eight instructions and a branch around a call.
SPLAT_DEVICE float fast_sqrt(float x) {
#if defined(__CUDA_ARCH__)
  float y;
  asm("sqrt.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
#else
  return sqrtf(x);
#endif
}

SPLAT_DEVICE float fast_rsqrt(float x) {
#if defined(__CUDA_ARCH__)
  float y;
  asm("rsqrt.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
#else
  return 1.0f / sqrtf(x);
#endif
}

// 2^x for x up to 0, zero far below; relative error at most 2^-22.
SPLAT_DEVICE float fast_exp2(float x) {
#if defined(__CUDA_ARCH__)
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
#else
  return exp2f(x);
#endif
}

SPLAT_DEVICE int64_t global_thread() { return static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; }

}  // namespace splat::gpu
