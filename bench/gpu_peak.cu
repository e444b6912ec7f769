// A loop of independent multiply-adds: what the card's float32 units do at most, the yardstick of bench/gpu_speed.py.
#include <cuda_runtime.h>

namespace {
constexpr int CHAINS = 16;

__global__ void fma_kernel(float *out, int iterations, float factor) {
  float sums[CHAINS];
  for (int i = 0; i < CHAINS; i++) sums[i] = static_cast<float>(threadIdx.x + i);
  for (int k = 0; k < iterations; k++) {
#pragma unroll
    for (int i = 0; i < CHAINS; i++) sums[i] = fmaf(sums[i], factor, 0.5f);
  }
  float total = 0.0f;
  for (int i = 0; i < CHAINS; i++) total += sums[i];
  if (total == -1.0f) out[0] = total;  // never: but the compiler cannot know
}
}  // namespace

// Operations of one launch of `blocks` blocks, or a negative cudaError_t. `milliseconds` is the least of several launches.
extern "C" double peak_fma(int device, int blocks, int iterations, double *milliseconds) {
  constexpr int THREADS = 256;
  float *out = nullptr;
  cudaEvent_t begin, end;
  cudaError_t error = cudaSetDevice(device);
  if (error == cudaSuccess) error = cudaMalloc(reinterpret_cast<void **>(&out), sizeof(float));
  if (error == cudaSuccess) error = cudaEventCreate(&begin);
  if (error == cudaSuccess) error = cudaEventCreate(&end);
  *milliseconds = 1e30;
  for (int repetition = 0; repetition < 6 && error == cudaSuccess; repetition++) {
    cudaEventRecord(begin);
    fma_kernel<<<blocks, THREADS>>>(out, iterations, 0.999f);
    cudaEventRecord(end);
    error = cudaEventSynchronize(end);
    float ms = 0.0f;
    if (error == cudaSuccess) error = cudaEventElapsedTime(&ms, begin, end);
    if (error == cudaSuccess && repetition > 0 && ms < *milliseconds) *milliseconds = ms;  // the first pays for the start
  }
  cudaFree(out);
  if (error != cudaSuccess) return -static_cast<double>(error);
  return 2.0 * CHAINS * iterations * static_cast<double>(blocks) * THREADS;
}
