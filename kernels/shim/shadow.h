// What was last done to each byte in the launch that runs, and what of it is not ordered before the access that comes. Exact, with few words a byte: of
// reads, and of atomics, two are enough, those that are furthest apart (of two blocks rather than of one, of two warps rather than of one); whatever
// conflicts with any conflicts with one of the two.
#pragma once
#include <stddef.h>
#include <stdint.h>

#include <memory>
#include <optional>
#include <unordered_map>
#include <vector>

namespace splat::shim {

enum class Kind : uint8_t { read, write, atomic };

struct Access {
  uint32_t block = 0;    // counted over all launches from 1; 0: none
  uint32_t site = 0;     // place in the code
  uint32_t synced = 0;   // __syncwarps of its warp before
  uint16_t barrier = 0;  // barriers of its block before
  uint16_t thread = 0;
};

struct Conflict {
  Access access;
  Kind kind;
};

class Shadow {
 public:
  // Blocks before `first_block` belong to launches before.
  void begin_launch(uint32_t first_block);
  // Notes the access; returns one before that conflicts with it. In shared memory only what its own block did counts.
  std::optional<Conflict> note(uintptr_t at, size_t bytes, Kind kind, const Access &access, bool is_shared);

 private:
  static constexpr size_t PAGE = 1024;  // bytes
  struct Cell {
    Access write, reads[2], atomics[2];
  };
  struct Page {
    size_t grain = 4;  // bytes a cell; 1 once something smaller, or not in its place, was seen
    std::vector<Cell> cells{PAGE / 4};
    void split();
  };

  Page &page(uintptr_t number);
  bool is_ordered(const Access &before, const Access &now) const;
  void keep(Access (&pair)[2], const Access &now) const;
  std::optional<Conflict> conflict(const Cell &cell, Kind kind, const Access &now) const;
  void update(Cell &cell, Kind kind, const Access &now) const;

  uint32_t first_block_ = 1;
  bool is_shared_ = false;
  std::unordered_map<uintptr_t, std::unique_ptr<Page>> pages_;
  struct Seen {
    uintptr_t number = ~uintptr_t(0);
    Page *page = nullptr;
  } seen_[4096];
};

}  // namespace splat::shim
