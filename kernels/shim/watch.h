// Watches what kernels do to memory, in a build with SPLAT_SANITIZE=races: g++ puts a call before each access (what -fsanitize=thread inserts), and the
// calls end here instead of in its library, because only the shim knows what orders two threads of a card. Reported, at the program's end, with status 66:
//  - races: two threads, the same byte, one of them writes, not both by atomics; and nothing between them that CUDA says orders memory. That is a
//    barrier of their block, or a __syncwarp of their warp; shuffles, votes and ballots order nothing; blocks of one launch are never ordered;
//  - reads of workspaces that nothing wrote since they were given out, and of shared memory that nothing wrote in this block.
// SPLAT_WATCH_WITHOUT=forward.cu:52 takes a barrier there for one that orders nothing, a store there for one that writes nothing: a test that the watch
// finds what then goes wrong.
// SPLAT_WATCH_ACCESSES=FILE counts accesses instead (accesses.h). In other builds all of this is nothing.
#pragma once
#include <stddef.h>
#include <stdint.h>

namespace splat::shim {

struct Place {
  const char *file;
  int line;
};

namespace watch {

#if defined(SPLAT_WATCH)
void begin_launch(const void *kernel);
void begin_block();  // whose number is in block_index
void end_block();
void go_on(size_t thread, const char *stack, size_t stack_bytes);  // this fiber runs from here
void rest();                                                       // to here
void met_block(Place place);
void met_warp(size_t warp, bool orders_memory, Place place);
void begin_shared(const void *array, size_t bytes, const char *name);
void allocated(const void *memory, size_t bytes);
void freed(const void *memory);
void forget(const void *memory, size_t bytes);  // what was written there no longer counts
void library_wrote(const void *memory, size_t bytes);
void library_read(const void *memory, size_t bytes);

class Aside {  // while one lives nothing is watched: the shim's own work, whose templates may be those that were compiled to be watched
 public:
  Aside();
  ~Aside();

 private:
  const bool was_;
};
class Atomic {  // what happens while one lives is atomic
 public:
  Atomic();
  ~Atomic();
};
#else
inline void begin_launch(const void *) {}
inline void begin_block() {}
inline void end_block() {}
inline void go_on(size_t, const char *, size_t) {}
inline void rest() {}
inline void met_block(Place) {}
inline void met_warp(size_t, bool, Place) {}
inline void begin_shared(const void *, size_t, const char *) {}
inline void allocated(const void *, size_t) {}
inline void freed(const void *) {}
inline void forget(const void *, size_t) {}
inline void library_wrote(const void *, size_t) {}
inline void library_read(const void *, size_t) {}
struct Aside {
  ~Aside() {}
};
struct Atomic {
  ~Atomic() {}
};
#endif

}  // namespace watch
}  // namespace splat::shim
