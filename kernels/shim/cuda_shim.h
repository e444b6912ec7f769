// The part of CUDA that kernels/cuda uses, for g++: the same .cu files then run on the CPU, thread by thread (fibers.h).
// Its language is here, launches and graphs in graphs.h, memory and the rest of the runtime in runtime.h.
#pragma once
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fibers.h"

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)

inline splat::shim::Index &threadIdx = splat::shim::thread_index, &blockIdx = splat::shim::block_index;
inline splat::shim::Index &blockDim = splat::shim::block_size, &gridDim = splat::shim::grid_size;

// An array in shared memory, not initialised: here full of NaN.
#define SPLAT_SHARED(type, name, count)         \
  alignas(16) static unsigned char name##_bytes[sizeof(type) * (count)]; \
  type *const name = reinterpret_cast<type *>(name##_bytes);             \
  ::splat::shim::poison(name, sizeof(type) * (count), #name)

// What lies there no longer counts as written.
#define SPLAT_FORGET(memory, bytes) (::splat::shim::forget((memory), (bytes)))

struct dim3 {
  unsigned x, y, z;
  dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};
struct alignas(16) float4 {
  float x, y, z, w;
};
struct alignas(8) float2 {
  float x, y;
};
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
inline float2 make_float2(float x, float y) { return {x, y}; }

namespace splat::shim {
inline Index to_index(const dim3 &d) { return {d.x, d.y, d.z}; }
inline uint64_t to_bits(float v) {
  uint32_t bits;
  memcpy(&bits, &v, 4);
  return bits;
}
inline float to_float(uint64_t bits) {
  const uint32_t low = static_cast<uint32_t>(bits);
  float v;
  memcpy(&v, &low, 4);
  return v;
}
inline uint64_t pack(float v) { return to_bits(v); }
inline uint64_t pack(int v) { return static_cast<uint32_t>(v); }
inline uint64_t pack(uint32_t v) { return v; }
inline uint64_t pack(uint64_t v) { return v; }
template <class T> T unpack(uint64_t bits) { return static_cast<T>(bits); }
template <> inline float unpack<float>(uint64_t bits) { return to_float(bits); }
template <class T> T shuffle(T value, int source, uint32_t mask, Place place) {
  const watch::Aside aside;
  const WarpValues &warp = meet_warp(pack(value), mask, {place, false});
  return source >= 0 && source < 32 && (warp.present >> source & 1) ? unpack<T>(warp.value[source]) : value;
}
inline uint32_t ballot(bool predicate, uint32_t mask, Place place) {
  const watch::Aside aside;
  const WarpValues &warp = meet_warp(predicate, mask, {place, false});
  uint32_t bits = 0;
  for (int i = 0; i < 32; i++)
    if (warp.present >> i & 1) bits |= static_cast<uint32_t>(warp.value[i]) << i;
  return bits;
}
}  // namespace splat::shim

#define SPLAT_HERE (::splat::shim::Place{__FILE__, __LINE__})
#define __syncthreads() (static_cast<void>(::splat::shim::meet_block(false, SPLAT_HERE)))
#define __syncthreads_count(p) (::splat::shim::meet_block((p), SPLAT_HERE))
#define __syncwarp() (static_cast<void>(::splat::shim::meet_warp(0, 0xffffffffu, {SPLAT_HERE, true})))
#define __shfl_sync(mask, v, source) (::splat::shim::shuffle((v), (source), (mask), SPLAT_HERE))
#define __shfl_up_sync(mask, v, delta) (::splat::shim::shuffle((v), ::splat::shim::lane() - static_cast<int>(delta), (mask), SPLAT_HERE))
#define __shfl_down_sync(mask, v, delta) (::splat::shim::shuffle((v), ::splat::shim::lane() + static_cast<int>(delta), (mask), SPLAT_HERE))
#define __shfl_xor_sync(mask, v, bits) (::splat::shim::shuffle((v), ::splat::shim::lane() ^ static_cast<int>(bits), (mask), SPLAT_HERE))
#define __ballot_sync(mask, p) (::splat::shim::ballot((p), (mask), SPLAT_HERE))
#define __all_sync(mask, p) (::splat::shim::ballot(!(p), (mask), SPLAT_HERE) == 0)
#define __any_sync(mask, p) (::splat::shim::ballot((p), (mask), SPLAT_HERE) != 0)

inline float __fmaf_rn(float a, float b, float c) { return fmaf(a, b, c); }
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __expf_shim(float x) { return expf(x); }
inline int __popc(unsigned v) { return __builtin_popcount(v); }
inline int __ffs(int v) { return __builtin_ffs(v); }
inline int __clz(int v) { return v ? __builtin_clz(static_cast<unsigned>(v)) : 32; }
inline uint32_t __float_as_uint(float v) { return static_cast<uint32_t>(splat::shim::to_bits(v)); }
inline float __uint_as_float(uint32_t v) { return splat::shim::to_float(v); }

template <class T> T atomicAdd(T *at, T value) {
  const splat::shim::watch::Atomic atomic;
  const T before = *at;
  *at = before + value;
  return before;
}
template <class T> T atomicMin(T *at, T value) {
  const splat::shim::watch::Atomic atomic;
  const T before = *at;
  if (value < before) *at = value;
  return before;
}

#include "graphs.h"
#include "runtime.h"
