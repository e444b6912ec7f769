// One word for functions that g++ and nvcc both compile, for the host and for the card.
#pragma once
#if defined(__CUDACC__)
#define SPLAT_INLINE static __host__ __device__ __forceinline__
#else
#define SPLAT_INLINE static inline __attribute__((always_inline))
#endif
