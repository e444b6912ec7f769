#include "match.h"

#include <vector>

namespace splat {
namespace {

struct Shared {
  MatchJob job;
  const IsaTable *table;
  uint8_t *scratch;
};

uint8_t *aligned(std::vector<uint8_t> &bytes) {
  return bytes.data() + (64 - reinterpret_cast<uintptr_t>(bytes.data()) % 64) % 64;
}

void pack(void *shared, int64_t task, int) {
  Shared &s = *static_cast<Shared *>(shared);
  s.table->match_pack(&s.job, task);
}

void compare(void *shared, int64_t task, int thread) {
  Shared &s = *static_cast<Shared *>(shared);
  s.table->match(&s.job, task, s.scratch + static_cast<size_t>(thread) * SCRATCH_BYTES);
}

// Blocks in their order, whoever did them: the first of equals stays.
void merge(const MatchJob &job, int64_t n_blocks, int64_t width, int32_t *nearest_b) {
  for (int64_t j = 0; j < job.n_b; j++) {
    int32_t *out = nearest_b + 3 * j;
    out[0] = out[1] = out[2] = -1;
    for (int64_t block = 0; block < n_blocks; block++) {
      const int32_t *in = job.columns + 3 * (block * width + j);
      if (in[1] > out[1]) {
        out[2] = in[2] > out[1] ? in[2] : out[1];
        out[0] = in[0], out[1] = in[1];
      } else if (in[1] > out[2]) {
        out[2] = in[1];
      }
    }
  }
}

}  // namespace

void match_descriptors(Pool &pool, const IsaTable &table, const SplatMatchArgs &args) {
  const int64_t n_tiles = (args.n_b + table.match_width - 1) / table.match_width;
  const int64_t n_blocks = (args.n_a + MATCH_BLOCK - 1) / MATCH_BLOCK, width = n_tiles * table.match_width;
  std::vector<int32_t> columns(static_cast<size_t>(3 * n_blocks * width)), sums(static_cast<size_t>(width));  // may be refused: first
  std::vector<uint8_t> packed(static_cast<size_t>(width) * MATCH_DIM * table.match_element_bytes + 64);
  std::vector<uint8_t> scratch(static_cast<size_t>(pool.n_threads()) * SCRATCH_BYTES + 64);
  Shared shared{{args.n_a, args.n_b, n_tiles, args.a, args.b, aligned(packed), sums.data(), columns.data(), args.nearest_a}, &table, aligned(scratch)};
  pool.run(n_tiles, pack, &shared);
  pool.run(n_blocks, compare, &shared);
  merge(shared.job, n_blocks, width, args.nearest_b);
}

}  // namespace splat
