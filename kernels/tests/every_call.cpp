// Every entry point on every instruction set that the machine has, over odd sizes, counts and extreme values: meant for a build with sanitizers
// and for emulators. Results must be finite and the same bits for any number of threads.
//   splat_every_call [quick] [ISA]     quick: a handful of sizes, for what runs a hundred times slower
#include <stdlib.h>

#include <string>

#include "scene.h"

namespace {

int failures = 0;

void expect(bool fine, const char *what, const std::string &where) {
  if (fine) return;
  failures++;
  fprintf(stderr, "%s: %s (%s)\n", where.c_str(), what, splat_last_error());
}

bool same_bits(const Results &a, const Results &b) {
  if (memcmp(a.losses, b.losses, sizeof a.losses)) return false;
  const auto x = a.arrays(), y = b.arrays();
  for (size_t i = 0; i < x.size(); i++)
    if (x[i]->size() != y[i]->size() || (!x[i]->empty() && memcmp(x[i]->data(), y[i]->data(), x[i]->size() * sizeof(float)))) return false;
  return true;
}

void check_finite(const Results &r, const std::string &where) {
  const auto arrays = r.arrays();
  for (size_t i = 0; i < arrays.size(); i++)
    for (const float value : *arrays[i])
      if (!isfinite(value)) return expect(false, (std::string(Results::name(i)) + " is not finite").c_str(), where);
}

void compare_threads(SplatContext *alone, SplatContext *three, const Floats &rows, const Walk &w, const std::string &where) {
  const Results a = walk(alone, rows, w), b = walk(three, rows, w);
  expect(a.status == SPLAT_OK, "refused", where);
  check_finite(a, where);
  expect(same_bits(a, b), "three threads give other bits than one", where);
}

void odd_sizes(SplatContext *alone, SplatContext *three, int isa, bool quick) {
  const int all[][2] = {{1, 1}, {17, 5}, {33, 31}, {640, 3}, {3, 300}, {97, 65}}, few[][2] = {{17, 5}, {64, 48}};
  const int64_t counts[] = {0, 1, 15, 16, 17, 1000}, fewer[] = {17, 300};
  int turn = 0;  // every flag meets every other at some size
  for (const auto &size : quick ? std::vector<const int *>{few[0], few[1]} : std::vector<const int *>{all[0], all[1], all[2], all[3], all[4], all[5]})
    for (const int64_t n : quick ? std::vector<int64_t>(fewer, fewer + 2) : std::vector<int64_t>(counts, counts + 6)) {
      const Walk w{size[0], size[1], turn % 4, turn % 2 == 1, turn % 3 != 2, turn % 5 != 1};
      const std::string where = "isa " + std::to_string(isa) + ", " + std::to_string(size[0]) + "x" + std::to_string(size[1]) + ", " +
                                std::to_string(n) + " gaussians, turn " + std::to_string(turn);
      compare_threads(alone, three, scene(n, static_cast<uint64_t>(turn + 1), turn % 7 == 3 ? 1.0f : -2.5f), w, where);
      turn++;
    }
}

struct Extreme {
  const char *name;
  int column, columns;
  float value;
};

// Values that no photo gives but a broken file may. Whatever they are, a call either answers with finite pixels or refuses.
void extremes(SplatContext *context, int isa) {
  const Extreme all[] = {{"as large as a galaxy", 3, 3, 30.0f},   {"scales overflow", 3, 3, 1e30f},    {"smaller than an atom", 3, 3, -60.0f},
                         {"scales vanish", 3, 3, -1e30f},         {"behind the camera", 2, 1, -50.0f}, {"in the camera's plane", 2, 1, -4.0f},
                         {"just before the near plane", 2, 1, -3.9900002f}, {"far aside", 0, 1, 1e18f}, {"means overflow", 0, 3, 3e38f},
                         {"all in one place", 0, 3, 0.25f},       {"no rotation", 6, 4, 0.0f},         {"tiny quaternions", 6, 4, 1e-30f},
                         {"huge quaternions", 6, 4, 1e25f},       {"opaque", 10, 1, 1e30f},            {"absent", 10, 1, -1e30f},
                         {"blinding", 11, 3, 1e30f},              {"colours overflow", 11, 3, 3e38f},  {"harmonics overflow", 16, 47, 3e38f},
                         {"denormal", 0, 14, 1e-42f}};
  for (const Extreme &extreme : all) {
    Floats rows = scene(70, 5, -1.0f);
    for (size_t i = 0; i < rows.size(); i += i / SPLAT_ROW % 3 == 2 ? 2 * SPLAT_ROW : SPLAT_ROW)
      for (int k = 0; k < extreme.columns; k++) rows[i + static_cast<size_t>(extreme.column + k)] = extreme.value;
    const std::string where = "isa " + std::to_string(isa) + ", " + extreme.name;
    const Results r = walk(context, rows, {53, 37, 3, false, true, true});
    expect(r.status == SPLAT_OK || r.status == SPLAT_NON_FINITE, "an unexpected status", where);
    if (r.status != SPLAT_OK) continue;
    for (const float value : r.image)
      if (!isfinite(value)) {
        expect(false, "the image is not finite", where);
        break;
      }
  }
}

// A card that does not wait makes its passes one graph after the first few; a CPU waits all the same.
void without_waiting(SplatContext *context, int isa) {
  const Walk w{64, 48, 3, true, true, true};
  const Floats rows = scene(300, 9, -2.0f);
  const Results waited = walk(context, rows, w);
  auto stream = sized<SplatStreamArgs>();
  splat_context_stream(context, &stream);
  for (int turn = 0; turn < 5; turn++) {
    const Results r = walk(context, rows, w);
    expect(r.status == SPLAT_OK, "refused", "isa " + std::to_string(isa) + ", without waiting");
    const bool same = r.image == waited.image && r.params == waited.params && r.moment2 == waited.moment2;
    expect(same, "other results", "isa " + std::to_string(isa) + ", without waiting, turn " + std::to_string(turn));
  }
  stream.waits = 1;
  splat_context_stream(context, &stream);
}

void refusals(SplatContext *context) {
  auto forward = sized<SplatForwardArgs>();
  expect(splat_forward(context, &forward) == SPLAT_INVALID_ARGUMENT, "an empty camera passed", "refusals");
  expect(splat_forward(context, nullptr) == SPLAT_INVALID_ARGUMENT, "NULL passed", "refusals");
  expect(splat_forward(nullptr, &forward) == SPLAT_INVALID_ARGUMENT, "no context passed", "refusals");
  forward.struct_size = 8;
  expect(splat_forward(context, &forward) == SPLAT_INVALID_ARGUMENT, "a short struct passed", "refusals");
  for (const float wrong : {NAN, INFINITY, -INFINITY}) {
    Floats rows = scene(40, 3, -1.0f);
    rows[17 * SPLAT_ROW + 4] = wrong;
    const Results r = walk(context, rows, {33, 31, 3, false, true, true});
    expect(r.status == SPLAT_NON_FINITE && strstr(splat_last_error(), "row 17, column 4"), "a bad value was not named", "refusals");
  }
}

}  // namespace

int main(int count, char **words) {
  const bool quick = count > 1 && !strcmp(words[1], "quick");
  const int only = count > 1 + quick ? atoi(words[1 + quick]) : SPLAT_ISA_AUTO;
  int tried = 0;
  for (int isa = SPLAT_ISA_GENERIC; isa <= SPLAT_ISA_AVX512; isa++) {
    if (only != SPLAT_ISA_AUTO && isa != only) continue;
    SplatContext *alone = create(isa, 1), *three = create(isa, 3);
    if (!alone) {
      printf("isa %d: %s\n", isa, splat_last_error());
      continue;
    }
    tried++;
    auto info = sized<SplatContextInfo>();
    splat_context_info(alone, &info);
    refusals(alone);
    odd_sizes(alone, three, isa, quick);
    without_waiting(three, isa);
    if (!quick) extremes(three, isa);
    splat_context_destroy(alone);
    splat_context_destroy(three);
    printf("%s: %s\n", info.name, failures ? "WRONG" : "right");
  }
  if (!tried) fprintf(stderr, "no instruction set was tried\n");
  return failures || !tried ? 1 : 0;
}
