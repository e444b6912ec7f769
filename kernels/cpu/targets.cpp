#include "targets.h"

namespace splat {
namespace {

constexpr size_t BUDGET = size_t(256) << 20;

}  // namespace

Targets::Planes &Targets::find(uint64_t key, int32_t width, int32_t height, bool masked) {
  if (key == 0) {
    scratch_.ready = false;
    return scratch_;
  }
  auto at = kept_.begin();
  while (at != kept_.end() && (*at)->key != key) ++at;
  if (at == kept_.end()) {
    kept_.push_front(std::make_unique<Planes>());
    kept_.front()->key = key;
  } else {
    kept_.splice(kept_.begin(), kept_, at);
  }
  Planes &found = *kept_.front();
  if (found.width != width || found.height != height || found.masked != masked) found.ready = false;
  return found;
}

void Targets::trim() {
  while (kept_.size() > 1 && bytes() > BUDGET) kept_.pop_back();
}

size_t Targets::bytes() const {
  size_t sum = 0;
  for (const auto &planes : kept_) sum += planes->bytes();
  return sum;
}

}  // namespace splat
