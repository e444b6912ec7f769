// The results of every entry point as numbers in a file, and how far two such files lie apart: for machines that cannot run each other's code.
//   splat_results write FILE [ISA]     the walk's arrays, by the SplatIsa given (the best there is, if none)
//   splat_results compare FILE FILE    fails where two arrays differ by more than rounding explains
#include <stdlib.h>

#include "scene.h"

namespace {

constexpr float TOLERANCE = 2e-4f;  // of an array's norm. Measured 3e-6; one pair on the other side of the 1/255 cut gives up to 1e-4.

int complain(const char *what, const char *which) {
  fprintf(stderr, "splat_results: %s: %s\n", which, what);
  return 1;
}

int write(const char *path, int isa) {
  SplatContext *context = create(isa, 2);
  if (!context) return complain(splat_last_error(), "context");
  auto info = sized<SplatContextInfo>();
  splat_context_info(context, &info);
  const Results r = walk(context, scene(400, 11, -2.0f), {64, 48, 3, true, true, true});
  splat_context_destroy(context);
  if (r.status != SPLAT_OK) return complain(splat_last_error(), info.name);
  FILE *file = fopen(path, "wb");
  if (!file) return complain("cannot be written", path);
  bool whole = true;
  Floats losses(r.losses, r.losses + 6);
  auto arrays = r.arrays();
  arrays.push_back(&losses);
  for (const Floats *array : arrays) {
    const uint64_t size = array->size();
    whole = fwrite(&size, sizeof size, 1, file) == 1 && fwrite(array->data(), sizeof(float), array->size(), file) == array->size() && whole;
  }
  if (fclose(file) || !whole) return complain("was not written whole", path);
  printf("%s: %d threads, loss %.7f, written\n", info.name, info.n_threads, r.losses[3]);
  return 0;
}

bool next(FILE *file, Floats &array) {
  uint64_t size;
  if (fread(&size, sizeof size, 1, file) != 1 || size > 1u << 24) return false;
  array.resize(size);
  return fread(array.data(), sizeof(float), size, file) == size;
}

int compare(const char *path_a, const char *path_b) {
  FILE *a = fopen(path_a, "rb"), *b = fopen(path_b, "rb");
  if (!a || !b) return complain("cannot be read", a ? path_b : path_a);
  const size_t n_arrays = Results().arrays().size() + 1;
  int wrong = 0;
  for (size_t i = 0; i < n_arrays; i++) {
    Floats x, y;
    if (!next(a, x) || !next(b, y) || x.size() != y.size()) return complain("the files do not hold the same arrays", path_b);
    double difference = 0, size = 0;
    for (size_t k = 0; k < x.size(); k++) difference += pow(x[k] - y[k], 2), size += pow(x[k], 2);
    const double relative = sqrt(difference / size);
    const bool fine = size > 0 && relative <= TOLERANCE;
    printf("  %-14s %8.1e%s\n", i + 1 < n_arrays ? Results::name(i) : "losses", relative, fine ? "" : "  TOO FAR");
    wrong += !fine;
  }
  fclose(a);
  fclose(b);
  return wrong ? complain("arrays differ by more than rounding", path_b) : 0;
}

}  // namespace

int main(int count, char **words) {
  if (count >= 3 && !strcmp(words[1], "write")) return write(words[2], count > 3 ? atoi(words[3]) : SPLAT_ISA_AUTO);
  if (count == 4 && !strcmp(words[1], "compare")) return compare(words[2], words[3]);
  return complain("write FILE [ISA] | compare FILE FILE", "usage");
}
