// The runtime's calls for the shim: device memory is host memory, a stream does everything at once (or late), or, while it is captured, nothing.
// SPLAT_SHIM_MEMORY limits the memory, in bytes, for tests of running out. Included by cuda_shim.h.
#pragma once
#include <chrono>

struct ShimEvent {
  std::chrono::steady_clock::time_point time;
  uint64_t place = 0;  // of what was asked for before it
};
using cudaEvent_t = ShimEvent *;
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
  return e == cudaSuccess ? "no error" : e == cudaErrorMemoryAllocation ? "out of memory" : e == cudaErrorInvalidDevice ? "invalid device ordinal" : "operation not supported";
}
inline cudaError_t cudaGetLastError() { return cudaSuccess; }
inline cudaError_t cudaGetDevice(int *device) { return *device = 0, cudaSuccess; }
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
  if (splat::shim::is_capturing()) return cudaErrorStreamCaptureUnsupported;
  if (memory.held + bytes > splat::shim::Memory::limit()) return cudaErrorMemoryAllocation;
  // One allocation each, exactly as long as asked for: the address sanitizer sees an access past its end.
  auto *base = static_cast<char *>(aligned_alloc(64, splat::shim::HEADER + (bytes + 63) / 64 * 64));
  if (!base) return cudaErrorMemoryAllocation;
  memcpy(base, &bytes, sizeof bytes);
  memset(base + splat::shim::HEADER, 0xff, bytes);
  memory.held += bytes;
  *to = base + splat::shim::HEADER;
  splat::shim::watch::allocated(*to, bytes);
  return cudaSuccess;
}
inline cudaError_t cudaFree(void *memory) {
  if (!memory) return cudaSuccess;
  splat::shim::Late::all().wait();  // as a card does
  char *base = static_cast<char *>(memory) - splat::shim::HEADER;
  size_t bytes;
  memcpy(&bytes, base, sizeof bytes);
  splat::shim::Memory::all().held -= bytes;
  splat::shim::watch::freed(memory);
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
// What the host hands over is read at once, wherever it lies: no page of ours that goes that way is pinned.
inline cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes, cudaMemcpyKind kind, cudaStream_t stream) {
  if (kind != cudaMemcpyHostToDevice) return splat::shim::on_stream(stream, [=] { splat::shim::copy(to, from, bytes); }), cudaSuccess;
  const auto *values = static_cast<const char *>(from);
  return splat::shim::on_stream(stream, [to, held = std::vector<char>(values, values + bytes)] { splat::shim::copy(to, held.data(), held.size()); }), cudaSuccess;
}
inline cudaError_t cudaGraphAddMemcpyNode1D(cudaGraphNode_t *node, cudaGraph_t graph, const cudaGraphNode_t *after, size_t count, void *to, const void *from,
                                            size_t bytes, cudaMemcpyKind) {
  return splat::shim::add_node(graph, node, after, count, [=] { splat::shim::copy(to, from, bytes); }), cudaSuccess;
}
inline cudaError_t cudaMemsetAsync(void *to, int value, size_t bytes, cudaStream_t stream) {
  return splat::shim::on_stream(stream, [=] { splat::shim::fill(to, value, bytes); }), cudaSuccess;
}
inline cudaError_t cudaStreamSynchronize(cudaStream_t) {
  return splat::shim::is_capturing() ? cudaErrorStreamCaptureUnsupported : (splat::shim::Late::all().wait(), cudaSuccess);
}
inline cudaError_t cudaStreamWaitEvent(cudaStream_t, cudaEvent_t, unsigned) { return cudaSuccess; }
inline cudaError_t cudaEventCreate(cudaEvent_t *e) { return *e = new ShimEvent{}, cudaSuccess; }
inline cudaError_t cudaEventDestroy(cudaEvent_t e) { return delete e, cudaSuccess; }
inline cudaError_t cudaEventRecord(cudaEvent_t e, cudaStream_t) {
  return e->time = std::chrono::steady_clock::now(), e->place = splat::shim::Late::all().end(), cudaSuccess;
}
inline cudaError_t cudaEventSynchronize(cudaEvent_t e) { return splat::shim::Late::all().wait(e->place), cudaSuccess; }
inline cudaError_t cudaEventElapsedTime(float *ms, cudaEvent_t from, cudaEvent_t to) {
  return *ms = std::chrono::duration<float, std::milli>(to->time - from->time).count(), cudaSuccess;
}
