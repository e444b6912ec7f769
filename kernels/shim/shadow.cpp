#include "shadow.h"

namespace splat::shim {

namespace {

constexpr size_t MOST_PAGES = 20000;  // of some 20 KB, kept from launch to launch

int distance(const Access &a, const Access &b) { return a.block != b.block ? 3 : a.thread / 32 != b.thread / 32 ? 2 : a.thread != b.thread; }

}  // namespace

void Shadow::Page::split() {
  std::vector<Cell> bytes;
  for (const Cell &cell : cells) bytes.insert(bytes.end(), 4, cell);
  cells.swap(bytes);
  grain = 1;
}

void Shadow::begin_launch(uint32_t first_block) {
  first_block_ = first_block;
  if (pages_.size() < MOST_PAGES) return;
  pages_.clear();
  for (Seen &each : seen_) each = Seen{};
}

Shadow::Page &Shadow::page(uintptr_t number) {
  Seen &seen = seen_[number % 4096];
  if (seen.number == number) return *seen.page;
  auto &page = pages_[number];
  if (!page) page = std::make_unique<Page>();
  seen = {number, page.get()};
  return *page;
}

bool Shadow::is_ordered(const Access &before, const Access &now) const {
  if (before.block < first_block_) return true;
  if (before.block != now.block) return is_shared_;  // another block has another array
  if (before.thread == now.thread || before.barrier != now.barrier) return true;
  return before.thread / 32 == now.thread / 32 && before.synced != now.synced;
}

void Shadow::keep(Access (&pair)[2], const Access &now) const {
  if (is_ordered(pair[0], now)) pair[0] = pair[1], pair[1] = Access{};
  if (is_ordered(pair[1], now)) pair[1] = Access{};
  if (is_ordered(pair[0], now))
    pair[0] = now;
  else if (!pair[1].block || distance(pair[0], now) > distance(pair[0], pair[1]))
    pair[1] = now;
}

std::optional<Conflict> Shadow::conflict(const Cell &cell, Kind kind, const Access &now) const {
  if (!is_ordered(cell.write, now)) return Conflict{cell.write, Kind::write};
  if (kind != Kind::read)
    for (const Access &each : cell.reads)
      if (!is_ordered(each, now)) return Conflict{each, Kind::read};
  if (kind != Kind::atomic)
    for (const Access &each : cell.atomics)
      if (!is_ordered(each, now)) return Conflict{each, Kind::atomic};
  return std::nullopt;
}

void Shadow::update(Cell &cell, Kind kind, const Access &now) const {
  if (kind == Kind::read) return keep(cell.reads, now);
  if (kind == Kind::atomic) return keep(cell.atomics, now);
  cell = Cell{};  // what came before is ordered before this, or reported
  cell.write = now;
}

std::optional<Conflict> Shadow::note(uintptr_t at, size_t bytes, Kind kind, const Access &now, bool is_shared) {
  is_shared_ = is_shared;
  std::optional<Conflict> found;
  for (const uintptr_t end = at + bytes; at < end;) {
    Page &here = page(at / PAGE);
    if (here.grain == 4 && (at % 4 || (end - at) % 4)) here.split();
    Cell &cell = here.cells[at % PAGE / here.grain];
    if (const auto other = conflict(cell, kind, now); other && !found) found = other;
    update(cell, kind, now);
    at += here.grain;
  }
  return found;
}

}  // namespace splat::shim
