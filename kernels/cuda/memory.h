// Memory of the card that grows and is kept: a step allocates nothing once it has seen its largest frame.
#pragma once
#include <stddef.h>
#include <stdint.h>

#include "check.h"

namespace splat::gpu {

class Buffer {
 public:
  Buffer() = default;
  ~Buffer() { cudaFree(memory_); }
  Buffer(const Buffer &) = delete;
  Buffer &operator=(const Buffer &) = delete;

  // At least `count` of T; what was there is lost when it has to grow. Throws OutOfMemory.
  template <class T> T *of(int64_t count) { return static_cast<T *>(reserve(sizeof(T) * static_cast<size_t>(count > 0 ? count : 1))); }
  // The same for what is written anew in every pass: a read of what the pass before left there is a mistake, which the shim's watch finds.
  template <class T> T *fresh(int64_t count) {
    T *memory = of<T>(count);
    SPLAT_FORGET(memory_, size_);
    return memory;
  }
  size_t size() const { return size_; }

 private:
  void *reserve(size_t bytes) {
    if (bytes <= size_) return memory_;
    cudaFree(memory_);  // first, so that old and new never lie side by side
    memory_ = nullptr;
    size_ = 0;
    const size_t spare = bytes + bytes / 8;
    size_t got = spare;
    cudaError_t error = cudaMalloc(&memory_, spare);
    if (error == cudaErrorMemoryAllocation) {
      cudaGetLastError();
      got = bytes;
      error = cudaMalloc(&memory_, bytes);
    }
    if (error == cudaErrorMemoryAllocation) {
      cudaGetLastError();
      memory_ = nullptr;
      throw OutOfMemory{bytes};
    }
    check(error, "allocating memory");
    size_ = got;
    return memory_;
  }

  void *memory_ = nullptr;
  size_t size_ = 0;
};

// One T of the host's memory that the card can write to while the host goes on.
template <class T> class Pinned {
 public:
  Pinned() { check(cudaMallocHost(reinterpret_cast<void **>(&value_), sizeof(T)), "allocating pinned memory"); }
  ~Pinned() { cudaFreeHost(value_); }
  Pinned(const Pinned &) = delete;
  Pinned &operator=(const Pinned &) = delete;
  T *get() { return value_; }
  T &operator*() { return *value_; }
  T *operator->() { return value_; }

 private:
  T *value_ = nullptr;
};

}  // namespace splat::gpu
