// How warps reach memory, by line of a kernel, instead of looking for races: SPLAT_WATCH_ACCESSES=FILE. What the lanes of a warp do at one place between two
// of its meetings is put together, first with first, second with second, into requests as a card would have them; of each is counted
//  - in the card's memory: how many 32-byte sectors it touches, how many would hold as many bytes side by side, and how many of those touched the
//    warp had not touched before in its block: what must come from behind the first cache, if that keeps all;
//  - in shared memory: how often the 32 banks of 4 bytes must be asked (eight lanes at a time for 16 bytes, sixteen for 8), and how often at least.
// At the end the file holds a line each: kernel, place, function, what, bytes a lane, requests, lanes, done, least, first; tabs
// between.
#pragma once
#include <stddef.h>
#include <stdint.h>

#include "shadow.h"

namespace splat::shim {

struct Counted {
  uint32_t kernel, site;
  unsigned thread;
  uintptr_t at;
  size_t bytes;
  Kind kind;
  bool is_shared;
};

bool count_accesses();  // whether to
void count_access(const Counted &access);
void count_met(size_t warp);  // a warp's lanes are together
void count_met_all();
void count_block();  // a block has ended

}  // namespace splat::shim
