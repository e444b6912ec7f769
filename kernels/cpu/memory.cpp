#include "memory.h"

#include <string.h>
#include <sys/mman.h>

namespace splat {
namespace {

constexpr size_t HUGE_PAGE = size_t(2) << 20;
constexpr size_t PAGE = 4096;

size_t rounded(size_t bytes) {
  const size_t unit = bytes >= HUGE_PAGE ? HUGE_PAGE : PAGE;
  return (bytes + unit - 1) / unit * unit;
}

// Whole pages; large blocks start on a huge page, which needs cutting the ends off a larger mapping.
void *map(size_t bytes) {
  const size_t slack = bytes >= HUGE_PAGE ? HUGE_PAGE : 0;
  void *raw = mmap(nullptr, bytes + slack, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (raw == MAP_FAILED) throw OutOfMemory{bytes};
  if (!slack) return raw;
  char *begin = static_cast<char *>(raw);
  char *start = reinterpret_cast<char *>((reinterpret_cast<uintptr_t>(begin) + HUGE_PAGE - 1) / HUGE_PAGE * HUGE_PAGE);
  if (start > begin) munmap(begin, static_cast<size_t>(start - begin));
  const size_t tail = static_cast<size_t>(begin + bytes + slack - (start + bytes));
  if (tail) munmap(start + bytes, tail);
#ifdef MADV_HUGEPAGE
  madvise(start, bytes, MADV_HUGEPAGE);  // a wish: nothing depends on it
#endif
  return start;
}

}  // namespace

Buffer::~Buffer() {
  if (data_) munmap(data_, size_);
}

void *Buffer::reserve(size_t bytes) { return bytes <= size_ && data_ ? data_ : extend(bytes, 0); }

void *Buffer::extend(size_t bytes, size_t kept) {
  if (bytes <= size_ && data_) return data_;
  const size_t size = rounded(bytes + bytes / 4 + 1);
  if (size < bytes) throw OutOfMemory{bytes};
  if (!kept && data_) {  // give back first: the peak is then one block, not two
    munmap(data_, size_);
    data_ = nullptr;
    size_ = 0;
  }
  void *fresh = map(size);
  if (data_) {
    memcpy(fresh, data_, kept);
    munmap(data_, size_);
  }
  data_ = fresh;
  size_ = size;
  return data_;
}

}  // namespace splat
