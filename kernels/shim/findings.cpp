#include "findings.h"

#include <stdio.h>
#include <unistd.h>

#include <algorithm>
#include <map>
#include <tuple>

#include "symbols.h"

namespace splat::shim {

namespace {

constexpr int FOUND = 66;

struct Counted {
  Finding first;
  uint64_t times = 0;
};
using Found = std::map<std::tuple<bool, uint32_t, uint32_t, uint32_t>, Counted>;

Found &found() {
  static Found &all = *new Found;  // outlives every destructor
  return all;
}

const char *name_of(Kind kind) { return kind == Kind::read ? "read" : kind == Kind::write ? "write" : "atomic operation"; }

std::string text_of(const Party &party, const std::map<uint32_t, Symbol> &symbols) {
  if (!party.site) return std::string(name_of(party.kind)) + " by a library or a copy";
  const Symbol &symbol = symbols.at(party.site);
  return std::string(name_of(party.kind)) + " at " + symbol.line + " (" + symbol.function + ")";
}

std::string thread_of(const Party &party) {
  char text[80];
  snprintf(text, sizeof text, ", block (%u, %u, %u) thread %u", party.block.x, party.block.y, party.block.z, party.thread);
  return party.site ? text : "";
}

// What is the same for a person: the code of one line may lie at many places.
std::string title_of(const Finding &f, const std::map<uint32_t, Symbol> &symbols) {
  const std::string kernel = f.kernel ? symbols.at(f.kernel).function : "no kernel", one = text_of(f.one, symbols), other = text_of(f.other, symbols);
  if (!f.is_race) return "read of what was never written, in " + kernel + ": " + one;
  return "race in " + kernel + ": " + std::min(one, other) + " and " + std::max(one, other);
}

void print_all(const std::map<uint32_t, Symbol> &symbols) {
  std::map<std::string, Counted> titles;
  for (const auto &[key, each] : found()) {
    Counted &all = titles[title_of(each.first, symbols)];
    if (!all.times) all.first = each.first;
    all.times += each.times;
  }
  for (const auto &[title, each] : titles) {
    const Finding &f = each.first;
    fprintf(stderr, "watch: %s, %llu times; first at %s\n", title.c_str(), static_cast<unsigned long long>(each.times), f.where.c_str());
    fprintf(stderr, "  %s%s\n", text_of(f.one, symbols).c_str(), thread_of(f.one).c_str());
    if (f.is_race) fprintf(stderr, "  %s%s\n", text_of(f.other, symbols).c_str(), thread_of(f.other).c_str());
  }
}

struct AtEnd {
  ~AtEnd() {
    if (found().empty()) return;
    std::set<uint32_t> sites;
    for (const auto &each : found()) sites.insert({each.second.first.kernel, each.second.first.one.site, each.second.first.other.site});
    print_all(look_up(sites));
    fflush(nullptr);
    _exit(FOUND);
  }
} at_end;

}  // namespace

void report(const Finding &finding) {
  Counted &each = found()[{finding.is_race, finding.kernel, finding.one.site, finding.other.site}];
  if (!each.times++) each.first = finding;
}

}  // namespace splat::shim
