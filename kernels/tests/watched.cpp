// One walk through every entry point over a scene in which every barrier of every kernel is needed: lists longer than are staged at a time, more than one
// block of everything. Small, because it is run once for each of them (watch_faults.sh).
#include "scene.h"

int main() {
  SplatContext *context = create(SPLAT_ISA_GENERIC, 1);
  if (!context) return fprintf(stderr, "%s\n", splat_last_error()), 1;
  const Results r = walk(context, scene(900, 3, -2.5f), {17, 14, 3, true, true, true});
  if (r.status != SPLAT_OK) fprintf(stderr, "%s\n", splat_last_error());
  splat_context_destroy(context);
  return r.status != SPLAT_OK;
}
