// Small kernels with one mistake each, beside the same without it: whether the watch (shim/watch.h) tells them apart.
//   splat_faults list      for each: its name, a tab, what the watch must say of it (nothing: it is right)
//   splat_faults NAME      runs one
#include <stdio.h>
#include <string.h>

#include <tuple>

#include "../cuda/device.h"

namespace {

using splat::gpu::ALL_LANES;

constexpr int THREADS = 64;

struct Memory {
  int *shared_by_all, *out;
  unsigned char *bytes;
  int *unwritten, *wide;
};

enum class Order { none, shuffle, warp, block };

SPLAT_DEVICE void meet(Order order) {
  if (order == Order::shuffle) __shfl_sync(ALL_LANES, 1, 0);
  if (order == Order::warp) __syncwarp();
  if (order == Order::block) __syncthreads();
}

// Each thread reads what the one `away` from it wrote.
template <Order ORDER> __global__ void exchange_kernel(const Memory m, int away) {
  SPLAT_SHARED(int, values, THREADS);
  const int thread = static_cast<int>(threadIdx.x);
  values[thread] = thread;
  meet(ORDER);
  m.out[blockIdx.x * THREADS + threadIdx.x] = values[thread ^ away];
}

// What was read is overwritten by others, with or without a barrier before.
template <Order ORDER> __global__ void overwrite_kernel(const Memory m) {
  SPLAT_SHARED(int, values, THREADS);
  const int thread = static_cast<int>(threadIdx.x);
  int sum = 0;
  for (int turn = 0; turn < 3; turn++) {
    values[thread] = turn;
    __syncthreads();
    sum += values[thread ^ 33];
    meet(ORDER);
  }
  m.out[blockIdx.x * THREADS + threadIdx.x] = sum;
}

template <bool EACH_ITS_OWN> __global__ void blocks_kernel(const Memory m) {
  if (threadIdx.x == 0) m.shared_by_all[EACH_ITS_OWN ? blockIdx.x : 0] = 1;
}

template <bool IS_READ> __global__ void atomic_kernel(const Memory m) {
  atomicAdd(m.shared_by_all, 1);
  if (IS_READ && blockIdx.x == 1 && threadIdx.x == 5) m.out[0] = *m.shared_by_all;
}

template <int STEP> __global__ void narrow_kernel(const Memory m) {  // a byte each, or two threads the same
  m.bytes[(blockIdx.x * THREADS + threadIdx.x) / STEP] = 1;
}

template <bool WRITTEN> __global__ void workspace_kernel(const Memory m) {
  const unsigned i = blockIdx.x * THREADS + threadIdx.x;
  if (WRITTEN || i != 70) m.unwritten[i] = 1;
  m.out[i] = m.unwritten[i];
}

template <bool WRITTEN> __global__ void shared_kernel(const Memory m) {  // written by the blocks before, not by this one
  SPLAT_SHARED(int, values, THREADS);
  if (WRITTEN || blockIdx.x == 0) values[threadIdx.x] = 1;
  m.out[blockIdx.x * THREADS + threadIdx.x] = values[threadIdx.x];
}

// Nothing is wrong with these: what they cost is counted, six warps each.
template <int STRIDE> __global__ void reads_kernel(const Memory m) {
  const unsigned i = blockIdx.x * THREADS + threadIdx.x;
  m.out[i] = m.wide[i * STRIDE];
}

template <int STRIDE> __global__ void banks_kernel(const Memory m) {
  SPLAT_SHARED(int, values, STRIDE * THREADS);
  values[STRIDE * threadIdx.x] = 1;
  m.out[blockIdx.x * THREADS + threadIdx.x] = 0;
}

template <int STRIDE> __global__ void wide_banks_kernel(const Memory m) {
  SPLAT_SHARED(float4, values, STRIDE * THREADS);
  values[STRIDE * threadIdx.x] = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
  const float4 mine = values[STRIDE * threadIdx.x];
  m.out[blockIdx.x * THREADS + threadIdx.x] = mine.x > mine.y;
}

struct Case {
  const char *name;
  const char *told;  // what the watch says of it; NULL: nothing, it is right
  void (*run)(const Memory &);
};

template <class... P, class... A> void start(void (*kernel)(P...), A... values) {
  std::tuple<std::decay_t<P>...> all(values...);
  std::apply([&](auto &...each) {
    void *pointers[] = {&each...};
    cudaLaunchKernel(node_function(kernel), dim3(3), dim3(THREADS), pointers, 0, nullptr);
  }, all);
}

// What a copy reads counts as well.
template <bool FORGOTTEN> void copied(const Memory &m) {
  start(workspace_kernel<true>, m);
  if (FORGOTTEN) SPLAT_FORGET(m.out, 4);
  int first;
  cudaMemcpyAsync(&first, m.out, sizeof first, cudaMemcpyDeviceToHost, nullptr);
}

const Case CASES[] = {
    {"a_block_without_a_barrier", "race in exchange_kernel", [](const Memory &m) { start(exchange_kernel<Order::none>, m, 33); }},
    {"a_warp_orders_no_block", "race in exchange_kernel", [](const Memory &m) { start(exchange_kernel<Order::warp>, m, 33); }},
    {"a_shuffle_orders_nothing", "race in exchange_kernel", [](const Memory &m) { start(exchange_kernel<Order::shuffle>, m, 1); }},
    {"a_warp_orders_its_lanes", nullptr, [](const Memory &m) { start(exchange_kernel<Order::warp>, m, 1); }},
    {"a_barrier_orders_a_block", nullptr, [](const Memory &m) { start(exchange_kernel<Order::block>, m, 33); }},
    {"overwritten_while_read", "race in overwrite_kernel", [](const Memory &m) { start(overwrite_kernel<Order::warp>, m); }},
    {"overwritten_after_a_barrier", nullptr, [](const Memory &m) { start(overwrite_kernel<Order::block>, m); }},
    {"two_blocks_one_place", "race in blocks_kernel", [](const Memory &m) { start(blocks_kernel<false>, m); }},
    {"two_blocks_two_places", nullptr, [](const Memory &m) { start(blocks_kernel<true>, m); }},
    {"an_atomic_and_a_read", "race in atomic_kernel", [](const Memory &m) { start(atomic_kernel<true>, m); }},
    {"atomics_alone", nullptr, [](const Memory &m) { start(atomic_kernel<false>, m); }},
    {"two_threads_one_byte", "race in narrow_kernel", [](const Memory &m) { start(narrow_kernel<2>, m); }},
    {"bytes_side_by_side", nullptr, [](const Memory &m) { start(narrow_kernel<1>, m); }},
    {"a_workspace_not_written", "read of what was never written, in workspace_kernel", [](const Memory &m) { start(workspace_kernel<false>, m); }},
    {"a_workspace_written", nullptr, [](const Memory &m) { start(workspace_kernel<true>, m); }},
    {"shared_memory_not_written", "read of what was never written, in shared_kernel", [](const Memory &m) { start(shared_kernel<false>, m); }},
    {"shared_memory_written", nullptr, [](const Memory &m) { start(shared_kernel<true>, m); }},
    {"a_copy_of_what_was_forgotten", "read by a library or a copy", copied<true>},
    {"a_copy_of_what_was_written", nullptr, copied<false>},
    {"reads_side_by_side", nullptr, [](const Memory &m) { start(reads_kernel<1>, m); }},
    {"reads_a_sector_each", nullptr, [](const Memory &m) { start(reads_kernel<8>, m); }},
    {"banks_met_once", nullptr, [](const Memory &m) { start(banks_kernel<1>, m); }},
    {"banks_met_twice", nullptr, [](const Memory &m) { start(banks_kernel<2>, m); }},
    {"wide_banks_met_once", nullptr, [](const Memory &m) { start(wide_banks_kernel<1>, m); }},
    {"wide_banks_met_twice", nullptr, [](const Memory &m) { start(wide_banks_kernel<2>, m); }},
};

}  // namespace

int main(int count, char **words) {
  const char *wanted = count > 1 ? words[1] : "";
  if (!strcmp(wanted, "list")) {
    for (const Case &each : CASES) printf("%s\t%s\n", each.name, each.told ? each.told : "");
    return 0;
  }
  Memory m;
  cudaMalloc(reinterpret_cast<void **>(&m.shared_by_all), 3 * sizeof(int)), cudaMemsetAsync(m.shared_by_all, 0, 3 * sizeof(int), nullptr);
  cudaMalloc(reinterpret_cast<void **>(&m.out), 3 * THREADS * sizeof(int));
  cudaMalloc(reinterpret_cast<void **>(&m.bytes), 3 * THREADS);
  cudaMalloc(reinterpret_cast<void **>(&m.unwritten), 3 * THREADS * sizeof(int));
  cudaMalloc(reinterpret_cast<void **>(&m.wide), 8 * 3 * THREADS * sizeof(int)), cudaMemsetAsync(m.wide, 0, 8 * 3 * THREADS * sizeof(int), nullptr);
  for (const Case &each : CASES)
    if (!strcmp(wanted, each.name)) return each.run(m), 0;
  fprintf(stderr, "no case is called %s\n", wanted);
  return 2;
}
