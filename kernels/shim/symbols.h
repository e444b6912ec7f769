// Places in the code of this library as a person reads them.
#pragma once
#include <stdint.h>

#include <map>
#include <set>
#include <string>

namespace splat::shim {

struct Symbol {
  std::string function = "?";
  std::string line;       // forward.cu:52
  bool is_known = false;  // as a kernel's
};

// From where this library lies in memory.
uint32_t site_of(const void *address);
bool is_in_image(uintptr_t address);

// Asks addr2line once for all; the innermost place that is a kernel's, not the shim's. Without addr2line, numbers.
std::map<uint32_t, Symbol> look_up(const std::set<uint32_t> &sites);

// blend_kernel of splat::gpu::(anonymous namespace)::blend_kernel(splat::gpu::Frame)
std::string short_name(const std::string &function);

}  // namespace splat::shim
