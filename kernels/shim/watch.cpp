// Who does what where: from the calls that g++ inserts to the shadow of memory, and from there to findings.
#include "watch.h"

#include <stdlib.h>
#include <string.h>

#include <algorithm>
#include <map>
#include <set>
#include <string>

#include "accesses.h"
#include "fibers.h"
#include "findings.h"
#include "shadow.h"
#include "symbols.h"

namespace splat::shim::watch {

namespace {

// A workspace or an array in shared memory.
struct Range {
  uintptr_t begin = 0, end = 0;
  const char *name = nullptr;        // of an array in shared memory
  std::vector<char> written;         // by byte
};

// Asked at every access, also before State is there.
bool is_running = false, is_atomic = false;
uintptr_t stack_begin = 0, stack_end = 0;

struct State {
  Access now;
  uint32_t kernel = 0, first_block = 1, next_block = 1;
  std::vector<Index> blocks;         // of this launch
  std::vector<uint32_t> synced;      // by warp
  std::map<uintptr_t, Range> ranges;
  Range *last = nullptr;
  Shadow shadow;
  std::string without;               // forward.cu:52
  std::map<uint32_t, bool> is_without;  // by site
  const bool counts = count_accesses();
  State() {
    if (const char *text = getenv("SPLAT_WATCH_WITHOUT")) without = text;
  }
};

State &state = *new State;  // what g++ inserts also runs in destructors

bool is_without(const Place &place) {
  if (state.without.empty()) return false;
  const char *slash = strrchr(place.file, '/');
  return state.without == std::string(slash ? slash + 1 : place.file) + ":" + std::to_string(place.line);
}

bool is_without(uint32_t site) {
  if (state.without.empty()) return false;
  const auto known = state.is_without.find(site);
  if (known != state.is_without.end()) return known->second;
  return state.is_without[site] = look_up({site})[site].line == state.without;
}

Range *range_at(uintptr_t at) {
  if (state.last && at >= state.last->begin && at < state.last->end) return state.last;
  auto after = state.ranges.upper_bound(at);
  if (after == state.ranges.begin()) return nullptr;
  Range &range = std::prev(after)->second;
  if (at >= range.end) return nullptr;
  return state.last = &range;
}

void set_range(const void *memory, size_t bytes, const char *name) {
  const uintptr_t begin = reinterpret_cast<uintptr_t>(memory);
  state.last = nullptr;
  state.ranges[begin] = Range{begin, begin + bytes, name, std::vector<char>(bytes)};
}

std::string place_in(const Range *range, uintptr_t at) {
  if (!range) return "an array that was handed in";
  const std::string name = range->name ? std::string("shared array ") + range->name : "a workspace of " + std::to_string(range->end - range->begin) + " bytes";
  return name + ", byte " + std::to_string(at - range->begin);
}

Party party_of(Kind kind, const Access &access) {
  const bool is_known = access.block >= state.first_block && access.block - state.first_block < state.blocks.size();
  return {kind, access.site, is_known ? state.blocks[access.block - state.first_block] : Index{}, access.thread};
}

// How much of `bytes` from `at` on lies in the range.
size_t within(const Range &range, uintptr_t at, size_t bytes) { return std::min(bytes, range.end - at); }

void mark(Range &range, uintptr_t at, size_t bytes, bool is_written = true) {
  memset(range.written.data() + (at - range.begin), is_written, within(range, at, bytes));
}

void check_written(Range &range, uintptr_t at, size_t bytes, const Party &who) {
  const char *from = range.written.data() + (at - range.begin);
  const void *bad = memchr(from, 0, within(range, at, bytes));
  if (!bad) return;
  const size_t place = static_cast<size_t>(static_cast<const char *>(bad) - from);
  report({state.kernel, place_in(&range, at + place), who, false, {Kind::write, 0, {}, 0}});
}

void note(uintptr_t at, size_t bytes, Kind kind, const void *caller) {
  if (!is_running || (at >= stack_begin && at < stack_end)) return;
  const Aside aside;
  Range *range = range_at(at);
  if (!range && is_in_image(at)) return;  // constants, and what the shim keeps
  if (is_atomic) kind = Kind::atomic;
  Access now = state.now;
  now.site = site_of(caller) - 1;  // in the call, not behind it
  const bool is_shared = range && range->name;
  if (state.counts) return count_access({state.kernel, now.site, now.thread, at, bytes, kind, is_shared});
  if (range && kind != Kind::write) check_written(*range, at, bytes, party_of(kind, now));
  if (range && kind != Kind::read && !is_without(now.site)) mark(*range, at, bytes);
  if (const auto other = state.shadow.note(at, bytes, kind, now, is_shared)) {
    report({state.kernel, place_in(range, at), party_of(kind, now), true, party_of(other->kind, other->access)});
  }
}

}  // namespace

void begin_launch(const void *kernel) {
  state.kernel = kernel ? site_of(kernel) : 0;
  state.first_block = state.next_block;
  state.blocks.clear();
  state.shadow.begin_launch(state.first_block);
}

void begin_block() {
  state.now = Access{};
  state.now.block = state.next_block++;
  state.blocks.push_back(block_index);
  state.synced.assign(32, 0);
}

void end_block() {
  if (state.counts) count_block();
}

void go_on(size_t thread, const char *stack, size_t stack_bytes) {
  stack_begin = reinterpret_cast<uintptr_t>(stack), stack_end = stack_begin + stack_bytes;
  state.now.thread = static_cast<uint16_t>(thread);
  state.now.synced = state.synced[thread / 32];
  is_running = true;
}

void rest() { is_running = false; }

void met_block(Place place) {
  if (state.counts) count_met_all();
  if (!is_without(place)) state.now.barrier++;
}

void met_warp(size_t warp, bool orders_memory, Place place) {
  if (state.counts) count_met(warp);
  if (orders_memory && !is_without(place)) state.synced[warp]++;
}

void begin_shared(const void *array, size_t bytes, const char *name) { set_range(array, bytes, name); }

void allocated(const void *memory, size_t bytes) { set_range(memory, bytes, nullptr); }

void freed(const void *memory) {
  state.last = nullptr;
  state.ranges.erase(reinterpret_cast<uintptr_t>(memory));
}

void forget(const void *memory, size_t bytes) {
  const uintptr_t at = reinterpret_cast<uintptr_t>(memory);
  if (Range *range = range_at(at)) mark(*range, at, bytes, false);
}

void library_wrote(const void *memory, size_t bytes) {
  const uintptr_t at = reinterpret_cast<uintptr_t>(memory);
  if (Range *range = range_at(at)) mark(*range, at, bytes);
}

void library_read(const void *memory, size_t bytes) {
  const uintptr_t at = reinterpret_cast<uintptr_t>(memory);
  state.kernel = 0;
  Range *range = state.counts ? nullptr : range_at(at);
  if (range) check_written(*range, at, bytes, {Kind::read, 0, {}, 0});
}

Aside::Aside() : was_(is_running) { is_running = false; }
Aside::~Aside() { is_running = was_; }
Atomic::Atomic() { is_atomic = true; }
Atomic::~Atomic() { is_atomic = false; }

}  // namespace splat::shim::watch

// What g++ inserts, by name.
#define SPLAT_WATCHED extern "C" __attribute__((visibility("hidden")))
#define SPLAT_NOTE(name, bytes, kind) \
  SPLAT_WATCHED void __tsan_##name(void *at) { watch::note(reinterpret_cast<uintptr_t>(at), bytes, Kind::kind, __builtin_return_address(0)); }
#define SPLAT_NOTES(bytes) SPLAT_NOTE(read##bytes, bytes, read) SPLAT_NOTE(write##bytes, bytes, write)
#define SPLAT_NOTES_OUT_OF_PLACE(bytes) SPLAT_NOTE(unaligned_read##bytes, bytes, read) SPLAT_NOTE(unaligned_write##bytes, bytes, write)

namespace splat::shim {
SPLAT_NOTES(1)
SPLAT_NOTES(2)
SPLAT_NOTES(4)
SPLAT_NOTES(8)
SPLAT_NOTES(16)
SPLAT_NOTES_OUT_OF_PLACE(2)
SPLAT_NOTES_OUT_OF_PLACE(4)
SPLAT_NOTES_OUT_OF_PLACE(8)
SPLAT_NOTES_OUT_OF_PLACE(16)
SPLAT_WATCHED void __tsan_read_range(void *at, size_t bytes) {
  watch::note(reinterpret_cast<uintptr_t>(at), bytes, Kind::read, __builtin_return_address(0));
}
SPLAT_WATCHED void __tsan_write_range(void *at, size_t bytes) {
  watch::note(reinterpret_cast<uintptr_t>(at), bytes, Kind::write, __builtin_return_address(0));
}
SPLAT_WATCHED void __tsan_init() {}
SPLAT_WATCHED void __tsan_vptr_update(void *, void *) {}
// On the host: the counts of shared_ptr, and whether a function's static is there.
SPLAT_WATCHED unsigned char __tsan_atomic8_load(const volatile unsigned char *at, int) { return __atomic_load_n(at, __ATOMIC_SEQ_CST); }
SPLAT_WATCHED int __tsan_atomic32_fetch_add(volatile int *at, int value, int) { return __atomic_fetch_add(at, value, __ATOMIC_SEQ_CST); }
}  // namespace splat::shim
