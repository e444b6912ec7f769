// Whether the shadow of memory (shim/shadow.h), which keeps two reads a byte, finds a conflict when and only when one is found by keeping all: random
// threads of random blocks, until the first conflict of each of many runs.
#include "../shim/shadow.h"

#include <stdio.h>

#include <random>

namespace {

using splat::shim::Access;
using splat::shim::Kind;

constexpr int RUNS = 5000, STEPS = 200, BYTES = 8, THREADS = 128;

struct Done {
  size_t byte;
  Kind kind;
  Access access;
};

// What runs now: blocks one after another, barriers and syncs at random.
class Machine {
 public:
  explicit Machine(uint64_t seed) : random_(seed) {}
  uint32_t below(uint32_t n) { return static_cast<uint32_t>(random_() % n); }

  void move(bool one_launch) {
    const uint32_t what = below(24);
    if (what == 0) block_++, barrier_ = 0, first_ = one_launch ? first_ : block_;
    if (what == 1) barrier_++;
    if (what < 6) synced_[below(THREADS / 32)]++;
  }

  Access access() {
    Access a;
    a.block = block_, a.barrier = barrier_;
    a.thread = static_cast<uint16_t>(below(below(2) ? THREADS : 40));
    a.synced = synced_[a.thread / 32];
    return a;
  }

  uint32_t first() const { return first_; }

 private:
  std::mt19937_64 random_;
  uint32_t block_ = 1, first_ = 1, synced_[THREADS / 32] = {};
  uint16_t barrier_ = 0;
};

bool is_ordered(const Access &a, const Access &b, uint32_t first, bool is_shared) {
  if (a.block < first) return true;
  if (a.block != b.block) return is_shared;
  return a.thread == b.thread || a.barrier != b.barrier || (a.thread / 32 == b.thread / 32 && a.synced != b.synced);
}

bool conflicts(const std::vector<Done> &all, size_t at, size_t bytes, Kind kind, const Access &now, uint32_t first, bool is_shared) {
  for (const Done &each : all) {
    if (each.byte < at || each.byte >= at + bytes) continue;
    const bool matters = kind == Kind::write || each.kind == Kind::write || kind != each.kind;
    if (matters && !is_ordered(each.access, now, first, is_shared)) return true;
  }
  return false;
}

// Returns the step of the first conflict, or STEPS; below zero where the two do not agree.
int run(uint64_t seed) {
  Machine machine(seed);
  splat::shim::Shadow shadow;
  std::vector<Done> all;
  const bool is_shared = machine.below(2), one_launch = machine.below(2);
  const uint32_t writes = 1 + machine.below(30);
  for (int step = 0; step < STEPS; step++) {
    machine.move(one_launch);
    shadow.begin_launch(machine.first());
    const uint32_t drawn = machine.below(writes + 2);
    const Kind kind = drawn == 0 ? Kind::write : drawn == 1 ? Kind::atomic : Kind::read;
    const size_t bytes = size_t(1) << machine.below(4), at = machine.below(BYTES) / bytes * bytes;
    const Access now = machine.access();
    const bool expected = conflicts(all, at, bytes, kind, now, machine.first(), is_shared);
    if (expected && machine.below(10)) continue;  // most are left out, so that there is a long past
    if (shadow.note(4096 + at, bytes, kind, now, is_shared).has_value() != expected) return -1 - step;
    if (expected) return step;
    for (size_t i = 0; i < bytes; i++) all.push_back({at + i, kind, now});
  }
  return STEPS;
}

}  // namespace

int main() {
  int conflicted = 0, late = 0;
  for (int seed = 0; seed < RUNS; seed++) {
    const int step = run(static_cast<uint64_t>(seed));
    if (step < 0) return fprintf(stderr, "seed %d: the shadow errs at step %d\n", seed, -1 - step), 1;
    conflicted += step < STEPS, late += step > STEPS / 4;
  }
  printf("%d runs, %d with a conflict, %d that went on for long\n", RUNS, conflicted, late);
  return conflicted < RUNS / 4 || late < RUNS / 4;
}
