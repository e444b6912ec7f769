// (gaussian, tile) pairs in depth order, and where each tile's begin once they are sorted by tile.
#include "ellipse.h"
#include "kernels.h"

namespace splat::gpu {

namespace {

constexpr int LARGE = 6;  // tile rows from which a whole warp shares a gaussian

template <class Key> SPLAT_DEVICE void write_span(const Frame &f, Key *keys, uint32_t id, int tile_y, const Span &columns, uint64_t at) {
  for (int tx = columns.first; tx <= columns.last; tx++, at++) {
    if (at >= static_cast<uint64_t>(f.listed)) return;
    keys[at] = static_cast<Key>(tile_y * f.tiles_x + tx);
    f.owner[at] = id;
  }
}

SPLAT_DEVICE uint32_t length_of(const Span &s) { return s.last >= s.first ? static_cast<uint32_t>(s.last - s.first + 1) : 0; }

SPLAT_DEVICE uint32_t sum_up_to(uint32_t value, int lane) {  // of this lane and those before it
  for (int d = 1; d < 32; d *= 2) {
    const uint32_t other = __shfl_up_sync(ALL_LANES, value, d);
    if (lane >= d) value += other;
  }
  return value;
}

// One gaussian by a whole warp, a tile row a lane.
template <class Key> SPLAT_DEVICE void emit_large(const Frame &f, Key *keys, uint32_t id, uint64_t at, int lane) {
  const Ellipse e = ellipse_of(f.records[id]);
  const Span rows = tile_rows(e, f);
  for (int base = rows.first; base <= rows.last; base += 32) {
    const int ty = base + lane;
    const Span columns = ty <= rows.last ? tile_columns(e, ty, f) : Span{0, -1};
    const uint32_t mine = length_of(columns), upto = sum_up_to(mine, lane);
    write_span(f, keys, id, ty, columns, at + upto - mine);
    at += __shfl_sync(ALL_LANES, upto, 31);
  }
}

// Also counts the instances, and gives places that none of them takes a key that no tile has.
template <class Key> __global__ void __launch_bounds__(256) emit_kernel(const Frame f, Key *keys) {
  const int64_t rank = global_thread();
  const int lane = static_cast<int>(threadIdx.x & 31);
  const bool drawn = rank < f.n && f.keys_sorted[rank] != HIDDEN;
  uint32_t id = 0;
  uint64_t at = 0;
  bool large = false;
  if (drawn) {
    id = f.order[rank];
    at = f.offsets[rank];
    f.first[id] = at;
    const Ellipse e = ellipse_of(f.records[id]);
    const Span rows = tile_rows(e, f);
    large = rows.last - rows.first + 1 >= LARGE;
    uint64_t to = at;
    for (int ty = rows.first; ty <= rows.last && !large; ty++) {
      const Span columns = tile_columns(e, ty, f);
      write_span(f, keys, id, ty, columns, to);
      to += length_of(columns);
    }
  }
  const uint64_t emitted = f.offsets[f.n];
  if (rank == 0) f.counters->n_instances = emitted;
  const int64_t threads = static_cast<int64_t>(gridDim.x) * blockDim.x;
  SPLAT_ROLLED
  for (int64_t unused = static_cast<int64_t>(emitted) + rank; unused < f.listed; unused += threads) keys[unused] = static_cast<Key>(HIDDEN);
  for (uint32_t todo = __ballot_sync(ALL_LANES, large); todo; todo &= todo - 1) {
    const int source = __ffs(static_cast<int>(todo)) - 1;
    emit_large(f, keys, __shfl_sync(ALL_LANES, id, source), __shfl_sync(ALL_LANES, at, source), lane);
  }
}

// The sum of all counts, which the sums before each left behind the last, for a host that waits for it. One thread.
__global__ void count_kernel(const Frame f) { f.counters->n_instances = f.offsets[f.n]; }

template <class Key> __global__ void __launch_bounds__(256) ranges_kernel(const Frame f, const Key *keys) {
  const int64_t i = global_thread();
  if (i >= f.listed) return;
  const uint32_t tile = keys[i];
  if (tile >= static_cast<uint32_t>(f.n_tiles)) return;
  if (i == 0 || keys[i - 1] != keys[i]) f.tile_begin[tile] = static_cast<uint32_t>(i);
  if (i + 1 == f.listed || keys[i + 1] != keys[i]) f.tile_end[tile] = static_cast<uint32_t>(i + 1);
}

__global__ void __launch_bounds__(256) count_up_kernel(uint32_t *to, int64_t n) {
  const int64_t i = global_thread();
  if (i < n) to[i] = static_cast<uint32_t>(i);
}

}  // namespace

void count_instances(const Frame &f, Queue &queue) { queue.launch(count_kernel, 1, 1, f); }

void emit(const Frame &f, void *tile_keys, Queue &queue) {
  const unsigned blocks = blocks_for(f.n + 1, 256);  // one at least
  if (has_short_keys(f.n_tiles))
    queue.launch(emit_kernel<uint16_t>, blocks, 256, f, static_cast<uint16_t *>(tile_keys));
  else
    queue.launch(emit_kernel<uint32_t>, blocks, 256, f, static_cast<uint32_t *>(tile_keys));
}

void find_ranges(const Frame &f, const void *sorted_keys, Queue &queue) {
  if (!f.listed) return;
  if (has_short_keys(f.n_tiles))
    queue.launch(ranges_kernel<uint16_t>, blocks_for(f.listed, 256), 256, f, static_cast<const uint16_t *>(sorted_keys));
  else
    queue.launch(ranges_kernel<uint32_t>, blocks_for(f.listed, 256), 256, f, static_cast<const uint32_t *>(sorted_keys));
}

void count_up(uint32_t *to, int64_t n, Queue &queue) {
  if (n) queue.launch(count_up_kernel, blocks_for(n, 256), 256, to, n);
}

}  // namespace splat::gpu
