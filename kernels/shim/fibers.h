// Threads of a CUDA block as fibers of one CPU thread, for tests of the kernels' logic on machines without a card.
//
// A fiber runs until it meets a barrier or a warp operation; then another, chosen at random from the seed, goes on. So an order that
// the hardware never promised is never relied upon. A barrier that some threads of a block never reach, or a warp operation that some
// lanes never join, ends the program with the lines at which everybody waits.
#pragma once
#include <stddef.h>
#include <stdint.h>

#include <functional>

#include "watch.h"

namespace splat::shim {

struct Index {
  unsigned x = 0, y = 0, z = 0;
};

enum class Wait { none, block, warp };

// What the fiber that runs now sees as threadIdx and so on.
extern Index thread_index, block_index, block_size, grid_size;

// Runs `kernel` for every thread of every block, blocks one after another in random order. `name`: the address it is known by.
void launch(Index grid, Index block, const std::function<void()> &kernel, const void *name);

// Waits for all threads of the block; returns how many of them came with `predicate` true.
int meet_block(bool predicate, Place place);

// Hands `value` to the warp and waits for its lanes; returns the 32 values, and whose of them are there, until this fiber's next call.
struct WarpValues {
  uint64_t value[32];
  uint32_t present;
};
struct Meeting {
  Place place;
  bool orders_memory;  // __syncwarp does, what else lanes do together does not
};
const WarpValues &meet_warp(uint64_t value, uint32_t mask, Meeting meeting);

int lane();

// Fills shared memory with NaN bytes when the first thread of a block comes by: nobody may rely on what was there.
void poison(void *memory, size_t bytes, const char *name);

// Seeds the order of fibers and blocks; SPLAT_SHIM_SEED does at the start.
void seed(uint64_t value);

}  // namespace splat::shim
