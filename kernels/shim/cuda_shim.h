// The part of CUDA that kernels/cuda uses, for g++: the same .cu files then run on the CPU, thread by thread (fibers.h).
// Device memory is host memory; a stream does everything at once. SPLAT_SHIM_MEMORY limits it, in bytes, for tests of running out.
#pragma once
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <chrono>

#include "fibers.h"

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define threadIdx ::splat::shim::thread_index
#define blockIdx ::splat::shim::block_index
#define blockDim ::splat::shim::block_size
#define gridDim ::splat::shim::grid_size

// An array in shared memory, not initialised: here full of NaN.
#define SPLAT_SHARED(type, name, count)         \
  alignas(16) static unsigned char name##_bytes[sizeof(type) * (count)]; \
  type *const name = reinterpret_cast<type *>(name##_bytes);             \
  ::splat::shim::poison(name, sizeof(type) * (count))

#define SPLAT_LAUNCH(kernel, grid, block, stream, ...) \
  (static_cast<void>(stream), ::splat::shim::launch(::splat::shim::to_index(grid), ::splat::shim::to_index(block), [&] { kernel(__VA_ARGS__); }))

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
template <class T> T shuffle(T value, int source, uint32_t mask, int line) {
  const WarpValues &warp = meet_warp(pack(value), mask, line);
  return source >= 0 && source < 32 && (warp.present >> source & 1) ? unpack<T>(warp.value[source]) : value;
}
inline uint32_t ballot(bool predicate, uint32_t mask, int line) {
  const WarpValues &warp = meet_warp(predicate, mask, line);
  uint32_t bits = 0;
  for (int i = 0; i < 32; i++)
    if (warp.present >> i & 1) bits |= static_cast<uint32_t>(warp.value[i]) << i;
  return bits;
}
}  // namespace splat::shim

#define __syncthreads() (static_cast<void>(::splat::shim::meet_block(false, __LINE__)))
#define __syncthreads_count(p) (::splat::shim::meet_block((p), __LINE__))
#define __syncwarp() (static_cast<void>(::splat::shim::meet_warp(0, 0xffffffffu, __LINE__)))
#define __shfl_sync(mask, v, source) (::splat::shim::shuffle((v), (source), (mask), __LINE__))
#define __shfl_up_sync(mask, v, delta) (::splat::shim::shuffle((v), ::splat::shim::lane() - static_cast<int>(delta), (mask), __LINE__))
#define __shfl_down_sync(mask, v, delta) (::splat::shim::shuffle((v), ::splat::shim::lane() + static_cast<int>(delta), (mask), __LINE__))
#define __shfl_xor_sync(mask, v, bits) (::splat::shim::shuffle((v), ::splat::shim::lane() ^ static_cast<int>(bits), (mask), __LINE__))
#define __ballot_sync(mask, p) (::splat::shim::ballot((p), (mask), __LINE__))
#define __all_sync(mask, p) (::splat::shim::ballot(!(p), (mask), __LINE__) == 0)
#define __any_sync(mask, p) (::splat::shim::ballot((p), (mask), __LINE__) != 0)

inline float __fmaf_rn(float a, float b, float c) { return fmaf(a, b, c); }
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __expf_shim(float x) { return expf(x); }
inline int __popc(unsigned v) { return __builtin_popcount(v); }
inline int __ffs(int v) { return __builtin_ffs(v); }
inline int __clz(int v) { return v ? __builtin_clz(static_cast<unsigned>(v)) : 32; }
inline uint32_t __float_as_uint(float v) { return static_cast<uint32_t>(splat::shim::to_bits(v)); }
inline float __uint_as_float(uint32_t v) { return splat::shim::to_float(v); }

template <class T> T atomicAdd(T *at, T value) {
  const T before = *at;
  *at = before + value;
  return before;
}
template <class T> T atomicMin(T *at, T value) {
  const T before = *at;
  if (value < before) *at = value;
  return before;
}

using cudaStream_t = void *;
struct ShimEvent {
  std::chrono::steady_clock::time_point time;
};
using cudaEvent_t = ShimEvent *;
enum cudaError_t { cudaSuccess = 0, cudaErrorMemoryAllocation = 2, cudaErrorInvalidDevice = 101 };
enum cudaMemcpyKind { cudaMemcpyDeviceToHost, cudaMemcpyHostToDevice, cudaMemcpyDeviceToDevice, cudaMemcpyDefault };
struct cudaDeviceProp {
  char name[64];
  int major, minor, multiProcessorCount;
};

namespace splat::shim {
struct Memory {
  size_t held = 0;
  static Memory &all() {
    static Memory memory;
    return memory;
  }
  static size_t limit() {
    const char *text = getenv("SPLAT_SHIM_MEMORY");
    return text ? strtoull(text, nullptr, 10) : size_t(4) << 30;
  }
};
constexpr size_t HEADER = 64;
}  // namespace splat::shim

inline const char *cudaGetErrorString(cudaError_t e) {
  return e == cudaSuccess ? "no error" : e == cudaErrorMemoryAllocation ? "out of memory" : "invalid device ordinal";
}
inline cudaError_t cudaGetLastError() { return cudaSuccess; }
inline cudaError_t cudaGetDeviceCount(int *count) { return *count = 1, cudaSuccess; }
inline cudaError_t cudaSetDevice(int device) { return device == 0 ? cudaSuccess : cudaErrorInvalidDevice; }
inline cudaError_t cudaGetDeviceProperties(cudaDeviceProp *p, int) {
  snprintf(p->name, sizeof p->name, "shim");
  p->major = 9, p->minor = 0, p->multiProcessorCount = 1;
  return cudaSuccess;
}
inline cudaError_t cudaMalloc(void **to, size_t bytes) {
  auto &memory = splat::shim::Memory::all();
  *to = nullptr;
  if (memory.held + bytes > splat::shim::Memory::limit()) return cudaErrorMemoryAllocation;
  // One allocation each, exactly as long as asked for: the address sanitizer sees an access past its end.
  auto *base = static_cast<char *>(aligned_alloc(64, splat::shim::HEADER + (bytes + 63) / 64 * 64));
  if (!base) return cudaErrorMemoryAllocation;
  memcpy(base, &bytes, sizeof bytes);
  memset(base + splat::shim::HEADER, 0xff, bytes);
  memory.held += bytes;
  *to = base + splat::shim::HEADER;
  return cudaSuccess;
}
inline cudaError_t cudaFree(void *memory) {
  if (!memory) return cudaSuccess;
  char *base = static_cast<char *>(memory) - splat::shim::HEADER;
  size_t bytes;
  memcpy(&bytes, base, sizeof bytes);
  splat::shim::Memory::all().held -= bytes;
  free(base);
  return cudaSuccess;
}
inline cudaError_t cudaMallocHost(void **to, size_t bytes) { return cudaMalloc(to, bytes); }
inline cudaError_t cudaFreeHost(void *memory) { return cudaFree(memory); }
inline cudaError_t cudaMemGetInfo(size_t *free_bytes, size_t *total) {
  *total = splat::shim::Memory::limit();
  const size_t held = splat::shim::Memory::all().held;
  *free_bytes = held < *total ? *total - held : 0;
  return cudaSuccess;
}
inline cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes, cudaMemcpyKind, cudaStream_t) { return memmove(to, from, bytes), cudaSuccess; }
inline cudaError_t cudaMemsetAsync(void *to, int value, size_t bytes, cudaStream_t) { return memset(to, value, bytes), cudaSuccess; }
inline cudaError_t cudaStreamSynchronize(cudaStream_t) { return cudaSuccess; }
inline cudaError_t cudaEventCreate(cudaEvent_t *e) { return *e = new ShimEvent{}, cudaSuccess; }
inline cudaError_t cudaEventDestroy(cudaEvent_t e) { return delete e, cudaSuccess; }
inline cudaError_t cudaEventRecord(cudaEvent_t e, cudaStream_t) { return e->time = std::chrono::steady_clock::now(), cudaSuccess; }
inline cudaError_t cudaEventSynchronize(cudaEvent_t) { return cudaSuccess; }
inline cudaError_t cudaEventElapsedTime(float *ms, cudaEvent_t from, cudaEvent_t to) {
  return *ms = std::chrono::duration<float, std::milli>(to->time - from->time).count(), cudaSuccess;
}
