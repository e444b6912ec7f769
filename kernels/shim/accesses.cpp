#include "accesses.h"

#include <stdio.h>
#include <stdlib.h>

#include <algorithm>
#include <map>
#include <set>
#include <tuple>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "symbols.h"

namespace splat::shim {

namespace {

constexpr size_t SECTOR = 32, BANKS = 32, WORD = 4, WIDEST = 16;  // bytes; an instruction moves at most 16 a lane

struct Key {
  uint32_t kernel, site, piece;
  Kind kind;
  bool is_shared;
  size_t bytes;
  bool operator<(const Key &o) const {
    return std::tie(kernel, site, piece, kind, is_shared, bytes) < std::tie(o.kernel, o.site, o.piece, o.kind, o.is_shared, o.bytes);
  }
};

struct Totals {
  uint64_t requests = 0, lanes = 0, done = 0, least = 0, first = 0;
};

// What the lanes of one warp did at one place since they last met.
struct Run {
  Totals *totals = nullptr;
  size_t bytes = 0;
  bool is_shared = false, is_load = false, is_begun = false;
  std::vector<uintptr_t> lanes[32];
};

struct Warp {
  std::unordered_map<uint64_t, Run> runs;
  std::vector<Run *> begun;
  std::unordered_set<uintptr_t> seen[2];  // sectors that it has touched in this block: stored to, loaded from
};

struct State {
  const char *file = getenv("SPLAT_WATCH_ACCESSES");
  std::map<Key, Totals> totals;
  Warp warps[32];
};

State &state() {
  static State &all = *new State;
  return all;
}

size_t distinct(std::vector<uintptr_t> &values) {
  std::sort(values.begin(), values.end());
  return static_cast<size_t>(std::unique(values.begin(), values.end()) - values.begin());
}

void count_sectors(const std::vector<uintptr_t> &addresses, size_t bytes, std::unordered_set<uintptr_t> &seen, Totals *to) {
  std::vector<uintptr_t> sectors, starts = addresses;
  for (const uintptr_t at : addresses)
    for (uintptr_t sector = at / SECTOR; sector <= (at + bytes - 1) / SECTOR; sector++) sectors.push_back(sector);
  sectors.resize(distinct(sectors));
  to->done += sectors.size();
  for (const uintptr_t sector : sectors) to->first += seen.insert(sector).second;
  to->least += (distinct(starts) * bytes + SECTOR - 1) / SECTOR;
}

// Of lanes that are served together: the most words that one bank is asked for.
size_t rounds(std::vector<uintptr_t> words) {
  size_t in_bank[BANKS] = {};
  words.resize(distinct(words));
  for (const uintptr_t word : words) in_bank[word % BANKS]++;
  return *std::max_element(in_bank, in_bank + BANKS);
}

void count_banks(const std::vector<uintptr_t> &addresses, const std::vector<size_t> &lanes, size_t bytes, Totals *to) {
  const size_t together = bytes > 8 ? 8 : bytes > 4 ? 16 : 32;
  for (size_t first = 0; first < 32; first += together) {
    std::vector<uintptr_t> words;
    for (size_t i = 0; i < lanes.size(); i++)
      if (lanes[i] >= first && lanes[i] < first + together)
        for (uintptr_t word = addresses[i] / WORD; word <= (addresses[i] + bytes - 1) / WORD; word++) words.push_back(word);
    if (words.empty()) continue;
    to->done += rounds(words);
    to->least++;
  }
}

void count_request(Warp &warp, const Run &run, size_t turn) {
  std::vector<uintptr_t> addresses;
  std::vector<size_t> lanes;
  for (size_t lane = 0; lane < 32; lane++)
    if (turn < run.lanes[lane].size()) addresses.push_back(run.lanes[lane][turn]), lanes.push_back(lane);
  run.totals->requests++;
  run.totals->lanes += lanes.size();
  run.is_shared ? count_banks(addresses, lanes, run.bytes, run.totals) : count_sectors(addresses, run.bytes, warp.seen[run.is_load], run.totals);
}

void put(const Counted &access, uint32_t piece, uintptr_t at, size_t bytes) {
  Warp &warp = state().warps[access.thread / 32];
  const uint64_t number = (uint64_t(access.site) << 24 | uint64_t(piece) << 8 | bytes) * 2 + access.is_shared;
  Run &run = warp.runs[number];
  if (!run.is_begun) {
    const Key key{access.kernel, access.site, piece, access.kind, access.is_shared, bytes};
    run.totals = &state().totals[key], run.bytes = bytes, run.is_shared = access.is_shared, run.is_load = access.kind == Kind::read;
    run.is_begun = true;
    warp.begun.push_back(&run);
  }
  run.lanes[access.thread % 32].push_back(at);
}

const char *name_of(Kind kind) { return kind == Kind::read ? "load" : kind == Kind::write ? "store" : "atomic"; }

void write_all(FILE *out) {
  std::set<uint32_t> sites;
  for (const auto &each : state().totals) sites.insert({each.first.kernel, each.first.site});
  const auto symbols = look_up(sites);
  for (const auto &[key, t] : state().totals) {
    const Symbol &at = symbols.at(key.site);
    if (!at.is_known) continue;  // the shim's own
    fprintf(out, "%s\t%s\t%s\t%s %s\t%zu\t%llu\t%llu\t%llu\t%llu\t%llu\n", symbols.at(key.kernel).function.c_str(), at.line.c_str(), at.function.c_str(),
            key.is_shared ? "shared" : "card", name_of(key.kind), key.bytes, static_cast<unsigned long long>(t.requests),
            static_cast<unsigned long long>(t.lanes), static_cast<unsigned long long>(t.done), static_cast<unsigned long long>(t.least),
            static_cast<unsigned long long>(t.first));
  }
}

struct AtEnd {
  ~AtEnd() {
    FILE *out = state().file ? fopen(state().file, "w") : nullptr;
    if (out) write_all(out), fclose(out);
    if (!out && state().file) perror(state().file);
  }
} at_end;

}  // namespace

bool count_accesses() { return state().file != nullptr; }

void count_access(const Counted &access) {
  uint32_t piece = 0;
  const size_t step = access.at % WIDEST == 0 ? WIDEST : access.at % 8 == 0 ? 8 : access.bytes;
  for (size_t done = 0; done < access.bytes; done += step, piece++) put(access, piece, access.at + done, std::min(step, access.bytes - done));
}

void count_met(size_t w) {
  Warp &warp = state().warps[w];
  for (Run *run : warp.begun) {
    size_t most = 0;
    for (const auto &lane : run->lanes) most = std::max(most, lane.size());
    for (size_t turn = 0; turn < most; turn++) count_request(warp, *run, turn);
    for (auto &lane : run->lanes) lane.clear();
    run->is_begun = false;
  }
  warp.begun.clear();
}

void count_met_all() {
  for (size_t w = 0; w < 32; w++) count_met(w);
}

void count_block() {
  count_met_all();
  for (Warp &warp : state().warps)
    for (auto &seen : warp.seen) seen.clear();
}

}  // namespace splat::shim
