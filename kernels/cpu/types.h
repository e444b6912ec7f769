// What the threads of one pass share: plain structs only, because every instruction set's objects read them.
#pragma once
#include <stddef.h>
#include <stdint.h>

#include "../common/constants.h"
#include "splat/splat.h"

namespace splat {

constexpr int TILE = 32;        // pixels: eight 4x4 blocks each way, one bit of a 64-bit mask each
constexpr int BLOCKS = 64;
constexpr int TILE_PIXELS = TILE * TILE;
constexpr int CHUNK = 256;      // gaussians a projection or gradient task
constexpr int ENTRIES = 256;    // list entries held in L1 at a time
constexpr int STATE = 4 * TILE_PIXELS;  // floats kept per tile: T, R, G, B by block

// One visible gaussian on the screen: a cache line. alpha = 2^(lo - u^2 - v^2), u = l11 dx + l21 dy, v = l22 dy.
struct Record {
  float x, y, l11, l21, l22, lo;
  float r, g, b;
  float reach;        // u^2 + v^2 where alpha falls to 1/255, with slack against rounding: so are the next two
  float half_y;       // of the box around that ellipse, pixels
  float side_y;       // how far below the centre the ellipse's rightmost point lies, pixels
  float inverse_l11;
  int32_t columns, rows;  // tiles that the box meets: first | last << 16
  uint32_t id;        // row of the parameters
};
static_assert(sizeof(Record) == 64, "a record is one cache line");

// What the gradient pass needs of a visible gaussian beside its geometry line: another cache line, at the record's place.
struct Tail {
  float l11, l21, l22;
  float opacity;      // before the clamp
  float turn[9];      // of red, green, blue by the mean, through the direction that the harmonics are seen from
  uint32_t id;
  int32_t count;      // instances << 3 | colours that are not clamped at zero
  float spare;
};
static_assert(sizeof(Tail) == 64, "a tail is one cache line");

// One (gaussian, tile) pair. The pairs of a part are in the order of its records, and numbered through over the parts: that number is the
// pair's slot.
struct Instance {
  uint32_t tile;
  uint32_t record;
  uint64_t blocks;
};

// The same in the order of tiles.
struct Unsorted {
  uint32_t record;
  uint32_t slot;
  uint64_t blocks;
};

// A range of chunks that one task projects, and the instances found there. Grows through grow(), which returns false when memory is out.
struct Part {
  Instance *items;
  int64_t used, capacity;
  int64_t begin, end;  // chunks
  int64_t first_slot;
};

// A depth and where in the tile its instance is.
struct DepthWord {
  uint32_t key, index;
};

struct Adam {
  float *moment1, *moment2;
  int32_t *last_step;
  float lr[16], lr_rest;
  float beta1, beta2, log2_beta1, log2_beta2, eps;
  float step_scale, root_scale;  // 1 / (1 - b1^t), 1 / sqrt(1 - b2^t)
  float opacity_reg, scale_reg;
  int32_t step, with_rest;
};

struct Frame {
  int64_t n;
  const float *params;
  SplatCamera camera;
  float camera_position[3];
  float background[3];
  float dilation;
  int32_t degree;
  float *image, *transmittance;

  int64_t n_chunks;
  Record *records;       // CHUNK places a chunk, the first chunk_count[] of them used
  Tail *tails;           // the same places
  uint32_t *keys;        // bits of the depth, at the record's place
  int32_t *chunk_count;
  int64_t *chunk_bad;    // first row with a value that is not finite, or -1

  uint32_t *chunk_slot;  // slot of the chunk's first instance
  int64_t n_instances;
  int32_t n_parts;
  Part *parts;
  bool (*grow)(Frame *frame, int part, int64_t capacity);
  void *owner;

  int32_t tiles_x, tiles_y, n_tiles;
  uint32_t *part_counts; // [part][tile]; then where that part's next instance of the tile goes
  uint32_t *tile_begin;  // [tile + 1]
  Unsorted *unsorted;    // by tile, then place
  DepthWord *words;      // twice as many as instances, or NULL where every tile's fit a thread's scratch
  uint32_t *list;        // record places by tile, then depth, then place
  uint32_t *list_slot;   // their slots
  uint64_t *list_blocks;
  float *state;          // [tile][T R G B][block][16], background included
  uint32_t *stops;       // [tile][64 * 4]: list entries after which a block (part) needs no more

  const float *grad_image, *grad_transmittance;
  float *slots;          // [slot][16]: sums over a tile's pixels
  float *grad_params;    // plain gradients, or NULL
  float *out_params;     // parameters to step, or NULL
  float *density;
  Adam adam;

  const float *weight_map;
  float *sums, *peaks;
  uint64_t *evaluated, *blended;  // [tile], filled by the contribution pass
};

struct LossJob {
  int32_t width, height;
  float ssim_weight;
  const float *image;
  const uint8_t *target, *mask;
  float *grad_image, *error_map;
  float inverse_count;   // 1 / (3 * masked pixels)
  int32_t strip, band;   // pixels
  int32_t n_strips, n_bands, channels_per_task;
  int64_t stride;        // floats a row of the planes below; 16 before the row's first pixel, zeros around
  uint8_t *y;            // [3][H][stride] target times mask
  float *mean_y, *square_y;  // [3][H][stride]: window means of y - 0.5 and its square
  double (*sums)[3];     // [task][l1, ssim, mse]
  float window[SPLAT_SSIM_TAPS];
};

constexpr int MATCH_DIM = 128;     // bytes of a descriptor
constexpr int MATCH_BLOCK = 1024;  // rows of a in a task

struct MatchJob {
  int64_t n_a, n_b, n_tiles;
  const uint8_t *a, *b;  // [n][128]
  void *packed;          // b by tiles of match_width rows, as the instruction set wants it
  int32_t *sums;         // [n_tiles * match_width]
  int32_t *columns;      // [block][n_tiles * match_width][row, largest, second]
  int32_t *nearest_a;    // [n_a][row, largest, second]
};

// Working memory of one thread.
struct Scratch {
  void *memory;
  size_t size;
};

struct IsaTable {
  const char *name;
  void (*project)(Frame *frame, int64_t part, void *scratch);
  void (*place)(Frame *frame, int64_t part, void *scratch);
  void (*sort)(Frame *frame, int64_t tile, void *scratch);
  void (*forward)(Frame *frame, int64_t tile, void *scratch);
  void (*backward)(Frame *frame, int64_t tile, void *scratch);
  void (*contribution)(Frame *frame, int64_t tile, void *scratch);
  void (*gather_contribution)(Frame *frame, int64_t chunk, void *scratch);
  void (*gradient)(Frame *frame, int64_t chunk, void *scratch);
  void (*target)(LossJob *job, int64_t task, void *scratch);
  void (*loss)(LossJob *job, int64_t task, void *scratch);
  double (*spin)(int64_t iterations);  // floating-point operations done by a loop of independent FMAs
  void (*match_pack)(MatchJob *job, int64_t tile);
  void (*match)(MatchJob *job, int64_t block, void *scratch);
  int match_width;          // rows of b a tile
  size_t match_element_bytes;
};

constexpr size_t SCRATCH_BYTES = 1 << 20;
constexpr int64_t SORT_IN_SCRATCH = 1 << 15;  // instances of a tile

}  // namespace splat
