// Workspaces: blocks that only grow, on huge pages when they are large.
#pragma once
#include <stddef.h>
#include <stdint.h>

#include "../common/refusal.h"

namespace splat {

class Buffer {
 public:
  Buffer() = default;
  Buffer(const Buffer &) = delete;
  Buffer &operator=(const Buffer &) = delete;
  ~Buffer();

  // At least this many bytes, 64-byte aligned, contents not kept. Grows by a quarter more than asked, so that slow growth is rare.
  void *reserve(size_t bytes);
  // The same, but what was there stays.
  void *extend(size_t bytes, size_t kept);
  size_t size() const { return size_; }

  template <class T> T *of(int64_t count) { return static_cast<T *>(reserve(sizeof(T) * static_cast<size_t>(count))); }

 private:
  void *data_ = nullptr;
  size_t size_ = 0;
};

}  // namespace splat
