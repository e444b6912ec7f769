// What the watch has found, told when the program ends.
#pragma once
#include <stdint.h>

#include <string>

#include "fibers.h"
#include "shadow.h"

namespace splat::shim {

struct Party {
  Kind kind;
  uint32_t site;
  Index block;
  unsigned thread;
};

struct Finding {
  uint32_t kernel;    // a site, or 0
  std::string where;  // which byte
  Party one;
  bool is_race;
  Party other;        // of a race
};

// The first of its kind at its places is kept, the others are counted.
void report(const Finding &finding);

}  // namespace splat::shim
