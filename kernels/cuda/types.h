// What the kernels of one frame share: plain structs, handed to them by value.
#pragma once
#include "../common/constants.h"
#include "device.h"
#include "splat/splat.h"

namespace splat::gpu {

#include "../common/geometry.h"
#include "../common/sh.h"

constexpr int TILE = 16;              // pixels
constexpr int TILE_PIXELS = TILE * TILE;
constexpr int REGIONS = 8;            // of 8x4 pixels in a tile, one a warp
constexpr int REGION_WIDTH = 8, REGION_HEIGHT = 4;
constexpr int BATCH = 32;             // list entries that blending looks at together, one a lane
constexpr int BUCKET = 2 * BATCH;     // list entries that one warp takes backward
constexpr int SET = 8;                 // entries of a list that a warp takes together: a lane for each of a region's rows of each
static_assert(SET * REGION_HEIGHT == BATCH, "as many as lanes");
constexpr int ENTRIES = 256;          // list entries staged in shared memory at a time
constexpr uint32_t HIDDEN = 0xffffffffu;  // depth key of a gaussian that is not drawn, tile of a bucket that is not used
constexpr int SLOT = 3;               // float4 a (gaussian, tile) pair: nine sums, three spare
constexpr float NEVER = -1e30f;       // log2 of an opacity that no pixel sees: of an entry that only fills up a list
constexpr float LOG2E = 1.44269504088896341f, LN2 = 0.69314718055994531f;
constexpr float ALPHA_CUT_LOG2 = -7.99435343685885793f;  // log2(1/255)

// One visible gaussian on the screen, three times 16 bytes. alpha = 2^(lo - u^2 - v^2), u = l11 dx + l21 dy, v = l22 dy.
struct alignas(16) Record {
  float x, y, l11, l21;
  float l22, lo, r, g;
  float b, reach, opacity, spare;  // reach: u^2 + v^2 where alpha falls to 1/255, with slack; opacity: before the clamp
};
static_assert(sizeof(Record) == 48, "three 16-byte loads");

struct Counters {
  unsigned long long n_instances, n_visible;  // written in every pass
  unsigned long long bad_row;    // the first row with a value that is not finite, or NONE
  unsigned long long bad_value;  // the first such value of the array looked at last, or NONE
};
constexpr unsigned long long NONE = ~0ull;

struct LossSums {
  double l1, ssim, mse, count;
};

struct AdamRates {
  float lr[16], lr_rest;
  float beta1, beta2, log2_beta1, log2_beta2, eps;
  float step_scale, root_scale;  // 1 / (1 - b1^t), 1 / sqrt(1 - b2^t)
  float opacity_reg, scale_reg;
  int32_t step, with_rest;
};

struct Frame {
  int64_t n;
  const float *params;
  Lens lens;
  float near_plane, far_plane;
  float camera_position[3];
  float background[3];
  int32_t degree, width, height, tiles_x, tiles_y, n_tiles;
  float *image, *transmittance;

  Counters *counters;
  Record *records;               // [n]
  uint32_t *keys, *keys_sorted;  // [n] bits of the depth, HIDDEN where not drawn
  uint32_t *ids, *order;         // [n] 0..n-1, and by depth
  uint32_t *n_touched;           // [n] tiles a gaussian touches
  uint64_t *offsets;             // [n + 1] by depth rank: where its instances begin; how many there are
  uint64_t *first;               // [n] the same by gaussian

  int64_t listed;                // places for instances in this frame; where there are more, the frame is void and no step is taken
  uint32_t *owner;               // [listed] the gaussian an instance belongs to, in order of emission
  const uint32_t *instances;     // [listed] emission numbers by tile, then depth
  uint8_t *masks;                // [listed] by tile, then depth: bit r where the instance can touch region r of its tile; set as far as blending goes
  uint32_t *tile_begin, *tile_end;  // [n_tiles], both HIDDEN where a tile has no instance; before bucket_tile, so that one fill clears all three
  int64_t n_buckets;             // listed / BUCKET + n_tiles
  uint32_t *bucket_tile;         // [n_buckets]
  float4 *checkpoints;           // [n_buckets][TILE_PIXELS]: T, r, g, b before the bucket's first entry
  float4 *finals;                // [n_tiles][TILE_PIXELS]: r, g, b with the background, T
  uint32_t *stops;               // [n_tiles][REGIONS]: entries after which a region needs no more

  const float *grad_image, *grad_transmittance;
  float4 *slots;                 // [listed][SLOT] by emission number
  float *grad_params;            // plain gradients, or NULL
  float *out_params;             // parameters to step, or NULL
  float *moment1, *moment2;
  int32_t *last_step;
  float *density;
  AdamRates adam;

  const float *weight_map;
  float *sums, *peaks;
};

struct LossFrame {
  int32_t width, height;
  float ssim_weight;
  const float *image;
  const uint8_t *target, *mask;
  float *grad_image, *error_map;
  float *by_mean, *by_square, *by_product;  // [3][H][W] derivatives of SSIM by its windowed means
  LossSums *partial;                        // [blocks]
  LossSums *total;                          // count is there before the gradient is formed
  float window[SPLAT_SSIM_TAPS];
};

// Number of a tile's first bucket: no two tiles share one, because a list of l entries from b on needs at most
// (b + l) / BUCKET - b / BUCKET + 1 of them.
SPLAT_DEVICE int64_t first_bucket(const Frame &f, int tile) { return f.tile_begin[tile] / BUCKET + tile; }

// False where the frame must not change anything: it did not fit, or a parameter is not finite. The host hears of it later.
SPLAT_DEVICE bool is_sound(const Frame &f) {
  return f.counters->n_instances <= static_cast<unsigned long long>(f.listed) && f.counters->bad_row == NONE && f.counters->bad_value == NONE;
}

SPLAT_DEVICE void load_line(const float *from, float *to) {
  for (int i = 0; i < 4; i++) {
    const float4 v = reinterpret_cast<const float4 *>(from)[i];
    to[4 * i] = v.x, to[4 * i + 1] = v.y, to[4 * i + 2] = v.z, to[4 * i + 3] = v.w;
  }
}

}  // namespace splat::gpu
