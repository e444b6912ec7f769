// What the loss needs of a photo and nothing else: bytes by channel and window means. Kept for the photos seen last, within a byte budget.
#pragma once
#include <cstdint>
#include <list>
#include <memory>

#include "memory.h"
#include "types.h"

namespace splat {

class Targets {
 public:
  struct Planes {
    uint64_t key = 0;
    int32_t width = 0, height = 0;
    bool masked = false;
    int64_t n_masked = 0;  // pixels that count
    bool ready = false;
    Buffer y, mean_y, square_y;
    size_t bytes() const { return y.size() + mean_y.size() + square_y.size(); }
  };

  // The planes of this key (made the most recent; `ready` says whether they are filled), or scratch planes for key 0.
  Planes &find(uint64_t key, int32_t width, int32_t height, bool masked);
  // Drops the least recent until the rest fits the budget; the one just found stays.
  void trim();
  size_t bytes() const;

 private:
  std::list<std::unique_ptr<Planes>> kept_;  // most recent first
  Planes scratch_;
};

}  // namespace splat
