#include "fibers.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <memory>
#include <random>
#include <set>
#include <vector>

#if !defined(__x86_64__)
#include <ucontext.h>
#endif
#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#endif

namespace splat::shim {

Index thread_index, block_index, block_size, grid_size;

namespace {

constexpr size_t STACK = 256 << 10;

#if defined(__x86_64__)
// Saves what the System V ABI says a callee keeps, changes the stack, restores.
asm(R"(
.text
.type splat_shim_switch, @function
splat_shim_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size splat_shim_switch, .-splat_shim_switch
)");
extern "C" void splat_shim_switch(void **from, void *to);
#endif

struct Fiber {
  std::unique_ptr<char[]> stack{new char[STACK]};
#if defined(__x86_64__)
  void *top = nullptr;
#else
  ucontext_t context;
#endif
  Index index;
  Wait wait = Wait::none;
  Place place = {};
  bool done = false;
};

struct Warp {
  WarpValues values[2];  // by generation: a fiber may reach the next operation while others still read this one's values
  uint32_t arrived = 0, alive = 0;
  unsigned generation = 0;
  Meeting meeting = {};  // that was joined last
};

// The block that runs now. One per process: kernels run one at a time.
struct Block {
  std::vector<Fiber> fibers;
  std::vector<Warp> warps;
  std::vector<int> ready;
  std::set<void *> poisoned;
  const std::function<void()> *kernel = nullptr;
  size_t count = 0, alive = 0, at_barrier = 0;
  int votes = 0, result = 0;
  Place place = {};  // of the barrier that was met last
  int current = -1;
  std::mt19937_64 random{1};
#if defined(__x86_64__)
  void *scheduler = nullptr;
#else
  ucontext_t scheduler;
#endif
  const void *scheduler_stack = nullptr;
  size_t scheduler_stack_size = 0;

  Block() {
    if (const char *text = getenv("SPLAT_SHIM_SEED")) random.seed(strtoull(text, nullptr, 10));
  }
};

Block block;

void resume(Fiber &fiber) {
#if defined(__SANITIZE_ADDRESS__)
  void *fake = nullptr;
  __sanitizer_start_switch_fiber(&fake, fiber.stack.get(), STACK);
#endif
#if defined(__x86_64__)
  splat_shim_switch(&block.scheduler, fiber.top);
#else
  swapcontext(&block.scheduler, &fiber.context);
#endif
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(fake, nullptr, nullptr);
#endif
}

// `last`: the fiber will not come back.
void yield(bool last = false) {
  Fiber &fiber = block.fibers[static_cast<size_t>(block.current)];
#if defined(__SANITIZE_ADDRESS__)
  void *fake = nullptr;
  __sanitizer_start_switch_fiber(last ? nullptr : &fake, block.scheduler_stack, block.scheduler_stack_size);
#else
  (void)last;
#endif
#if defined(__x86_64__)
  splat_shim_switch(&fiber.top, block.scheduler);
#else
  swapcontext(&fiber.context, &block.scheduler);
#endif
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(fake, &block.scheduler_stack, &block.scheduler_stack_size);
#endif
}

extern "C" void splat_shim_enter() {
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(nullptr, &block.scheduler_stack, &block.scheduler_stack_size);
#endif
  (*block.kernel)();
  Fiber &fiber = block.fibers[static_cast<size_t>(block.current)];
  fiber.done = true;
  yield(true);
  abort();
}

void prepare(Fiber &fiber) {
  fiber.wait = Wait::none;
  fiber.done = false;
#if defined(__x86_64__)
  // As if splat_shim_enter had been called: a return address below a 16-byte boundary, six registers under the entry point.
  char *end = fiber.stack.get() + STACK;
  end -= reinterpret_cast<uintptr_t>(end) & 15;
  void **top = reinterpret_cast<void **>(end) - 1;
  *top = nullptr;
  *--top = reinterpret_cast<void *>(&splat_shim_enter);
  for (int i = 0; i < 6; i++) *--top = nullptr;
  fiber.top = top;
#else
  getcontext(&fiber.context);
  fiber.context.uc_stack.ss_sp = fiber.stack.get();
  fiber.context.uc_stack.ss_size = STACK;
  fiber.context.uc_link = nullptr;
  makecontext(&fiber.context, splat_shim_enter, 0);
#endif
}

[[noreturn]] void deadlock() {
  fprintf(stderr, "shim: deadlock in block (%u, %u, %u): divergent barrier or warp mask\n", block_index.x, block_index.y, block_index.z);
  for (size_t i = 0; i < block.count; i++) {
    const Fiber &fiber = block.fibers[i];
    if (!fiber.done) fprintf(stderr, "  thread %zu waits for its %s at %s:%d\n", i, fiber.wait == Wait::warp ? "warp" : "block", fiber.place.file, fiber.place.line);
  }
  abort();
}

void wake(Wait wait, size_t first, size_t last) {
  for (size_t i = first; i < last; i++) {
    Fiber &fiber = block.fibers[i];
    if (fiber.done || fiber.wait != wait) continue;
    fiber.wait = Wait::none;
    block.ready.push_back(static_cast<int>(i));
  }
}

void release_block() {
  if (block.alive == 0 || block.at_barrier < block.alive) return;
  watch::met_block(block.place);
  block.result = block.votes;
  block.at_barrier = 0;
  block.votes = 0;
  wake(Wait::block, 0, block.count);
}

void release_warp(size_t w) {
  Warp &warp = block.warps[w];
  if (warp.arrived == 0 || (warp.arrived & warp.alive) != warp.alive) return;
  warp.values[warp.generation & 1].present = warp.arrived;
  watch::met_warp(w, warp.meeting.orders_memory, warp.meeting.place);
  warp.arrived = 0;
  warp.generation++;
  wake(Wait::warp, 32 * w, 32 * w + 32 < block.count ? 32 * w + 32 : block.count);
}

void retire(size_t i) {
  block.alive--;
  block.warps[i / 32].alive &= ~(1u << (i % 32));
  release_warp(i / 32);
  release_block();
}

void run_block() {
  watch::begin_block();
  block.poisoned.clear();
  block.alive = block.count;
  block.at_barrier = 0;
  block.votes = 0;
  block.ready.clear();
  block.warps.assign((block.count + 31) / 32, Warp{});
  for (size_t i = 0; i < block.count; i++) {
    prepare(block.fibers[i]);
    block.warps[i / 32].alive |= 1u << (i % 32);
    block.ready.push_back(static_cast<int>(i));
  }
  while (block.alive) {
    if (block.ready.empty()) deadlock();
    const size_t pick = block.random() % block.ready.size();
    const int chosen = block.ready[pick];
    block.ready[pick] = block.ready.back();
    block.ready.pop_back();
    block.current = chosen;
    Fiber &fiber = block.fibers[static_cast<size_t>(chosen)];
    thread_index = fiber.index;
    watch::go_on(static_cast<size_t>(chosen), fiber.stack.get(), STACK);
    resume(fiber);
    watch::rest();
    if (fiber.done) retire(static_cast<size_t>(chosen));
  }
  watch::end_block();
}

void wait_for(Wait wait, Place place) {
  Fiber &fiber = block.fibers[static_cast<size_t>(block.current)];
  fiber.wait = wait;
  fiber.place = place;
}

}  // namespace

void seed(uint64_t value) { block.random.seed(value); }

int lane() { return block.current % 32; }

void launch(Index grid, Index size, const std::function<void()> &kernel, const void *name) {
  block.count = static_cast<size_t>(size.x) * size.y * size.z;
  if (block.count == 0 || block.count > 1024 || grid.x == 0 || grid.y == 0 || grid.z == 0) {
    fprintf(stderr, "shim: a launch of %u x %u x %u blocks of %zu threads is not possible on a card\n", grid.x, grid.y, grid.z, block.count);
    abort();
  }
  while (block.fibers.size() < block.count) block.fibers.emplace_back();
  for (size_t i = 0; i < block.count; i++) {
    const unsigned at = static_cast<unsigned>(i);
    block.fibers[i].index = Index{at % size.x, at / size.x % size.y, at / size.x / size.y};
  }
  watch::begin_launch(name);
  block.kernel = &kernel;
  block_size = size;
  grid_size = grid;
  const uint64_t blocks = static_cast<uint64_t>(grid.x) * grid.y * grid.z;
  std::vector<uint64_t> order(blocks);
  for (uint64_t i = 0; i < blocks; i++) order[i] = i;
  for (uint64_t i = blocks; i > 1; i--) std::swap(order[i - 1], order[block.random() % i]);
  for (const uint64_t b : order) {
    block_index = Index{static_cast<unsigned>(b % grid.x), static_cast<unsigned>(b / grid.x % grid.y), static_cast<unsigned>(b / grid.x / grid.y)};
    run_block();
  }
}

int meet_block(bool predicate, Place place) {
  const watch::Aside aside;
  wait_for(Wait::block, place);
  block.place = place;
  block.at_barrier++;
  block.votes += predicate;
  const Index mine = thread_index;
  release_block();
  yield();
  thread_index = mine;
  return block.result;
}

const WarpValues &meet_warp(uint64_t value, uint32_t mask, Meeting meeting) {
  const watch::Aside aside;
  const size_t i = static_cast<size_t>(block.current);
  Warp &warp = block.warps[i / 32];
  if (mask != 0xffffffffu || warp.alive != (i / 32 * 32 + 32 <= block.count ? 0xffffffffu : (1u << (block.count % 32)) - 1)) {
    fprintf(stderr, "shim: thread %zu joins a warp operation at %s:%d with mask %08x while lanes %08x are alive; all lanes must take part\n", i,
            meeting.place.file, meeting.place.line, mask, warp.alive);
    abort();
  }
  const unsigned generation = warp.generation;
  warp.values[generation & 1].value[i % 32] = value;
  warp.arrived |= 1u << (i % 32);
  warp.meeting = meeting;
  wait_for(Wait::warp, meeting.place);
  const Index mine = thread_index;
  release_warp(i / 32);
  yield();
  thread_index = mine;
  return warp.values[generation & 1];
}

void poison(void *memory, size_t bytes, const char *name) {
  const watch::Aside aside;
  if (!block.poisoned.insert(memory).second) return;
  memset(memory, 0xff, bytes);
  watch::begin_shared(memory, bytes, name);
}

}  // namespace splat::shim
