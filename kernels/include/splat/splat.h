/* Splatworks kernels: the C ABI.                                             SPDX-License-Identifier: Apache-2.0
 *
 * One shared library per device exports exactly these functions: libsplat_cpu always, libsplat_cuda where nvcc was found.
 * Plain C: no torch and no Python headers. Every entry takes a context and one pointer to a POD struct whose first member is
 * its own size in bytes (so that it can grow), and returns a SplatStatus; splat_last_error() has the text for this thread.
 * Pointers are to the device's memory, contiguous, 64-byte aligned where a row or image starts. No call allocates for the caller.
 * The specification of every operation is kernels/reference.py; names, shapes and formulas agree with it.
 *
 * Conventions. OpenCV camera axes (x right, y down, z forward), pixel centres at +0.5. Images are planar float32 [3][H][W],
 * linear in the file's own (sRGB) values, 0..1. Row layout of parameters, gradients and moments, 64 floats a gaussian:
 *   line 0:  0-2 mean | 3-5 log_scale | 6-9 quat (wxyz, unnormalised) | 10 opacity_logit | 11-13 sh degree 0 (r g b) | 14,15 spare
 *   line 1:  16-30 sh rest, red   (bases 1..15) | 31 spare
 *   line 2:  32-46 sh rest, green               | 47 spare
 *   line 3:  48-62 sh rest, blue                | 63 spare
 */
#ifndef SPLAT_SPLAT_H
#define SPLAT_SPLAT_H

#include <stddef.h>
#include <stdint.h>

#if defined(_WIN32)
#define SPLAT_API __declspec(dllexport)
#else
#define SPLAT_API __attribute__((visibility("default")))
#endif

#ifdef __cplusplus
extern "C" {
#endif

#define SPLAT_ABI_VERSION 2
#define SPLAT_ROW 64                  /* floats per gaussian row */
#define SPLAT_DENSITY 4               /* floats per gaussian of density statistics */

typedef enum SplatStatus {
  SPLAT_OK = 0,
  SPLAT_INVALID_ARGUMENT = 1,         /* a size, pointer or range is wrong: the text names it */
  SPLAT_OUT_OF_MEMORY = 2,            /* a workspace could not grow: the text says how many bytes were asked for */
  SPLAT_UNSUPPORTED = 3,              /* no such instruction set or device here */
  SPLAT_NON_FINITE = 4,               /* NaN or Inf in the input: the text names array, row and column */
  SPLAT_INTERNAL = 5
} SplatStatus;

typedef enum SplatIsa { SPLAT_ISA_AUTO = 0, SPLAT_ISA_GENERIC = 1, SPLAT_ISA_AVX2 = 2, SPLAT_ISA_AVX512 = 3 } SplatIsa;

typedef struct SplatContext SplatContext; /* owns the thread pool and every workspace; used by one thread at a time */

typedef struct SplatContextOptions {
  uint32_t struct_size;
  int32_t n_threads;                  /* 0: one per usable core */
  int32_t isa;                        /* SplatIsa; AUTO takes the best that this machine has */
  int32_t device;                     /* CUDA ordinal; ignored on CPU */
} SplatContextOptions;

typedef struct SplatContextInfo {
  uint32_t struct_size;
  int32_t abi_version;
  int32_t n_threads;
  int32_t isa;
  uint64_t workspace_bytes;           /* held now */
  char name[64];                      /* "avx512", "avx2", "generic", "neon", or the card */
  int32_t on_card;                    /* 1: pointers are to a card's memory */
  int32_t n_replays;                  /* CUDA: passes that were one graph's replay so far */
} SplatContextInfo;

/* Where and when a CUDA context works. waits = 1 (as created): a call returns when its work is done, with its own results and errors.
 * waits = 0: calls only queue work on the stream and return. Counts and losses are then those of the frame before, and so are errors: a step
 * whose parameters or gradient were not finite, or whose instances outgrew their room, changes nothing, and the next forward says so or makes
 * room. The CPU has no streams and always waits. */
typedef struct SplatStreamArgs {
  uint32_t struct_size;
  int32_t waits;
  void *stream;                       /* cudaStream_t, or NULL */
} SplatStreamArgs;

typedef struct SplatCamera {
  float cam_from_world[12];           /* row-major 3x4 */
  float fx, fy, cx, cy;               /* pixels */
  int32_t width, height;              /* pixels, 1..16384 */
  float near_plane;                   /* a gaussian whose centre is nearer is not drawn */
  float far_plane;
} SplatCamera;

/* Project, sort, bin and blend. Keeps in the context what splat_backward* and splat_contribution need, until the next forward.
 * Gaussian in screen space: covariance J W Sigma W^T J^T + dilation * I. The Jacobian takes x/z clamped to the view plus 15 % of its
 * width on each side (y alike). opacity = min(sigmoid(logit), 0.99); alpha = opacity * exp(-q/2); a pair with alpha < 1/255 is
 * skipped; a pixel stops contributing once its transmittance is below 1e-4 (a block of pixels may go on a little longer).
 * colour = max(0, SH(direction) + 0.5), degree sh_degree. image = sum w c + T_final * background. */
typedef struct SplatForwardArgs {
  uint32_t struct_size;
  int32_t sh_degree;                  /* 0..3 */
  int64_t n;                          /* gaussians, 0 allowed */
  const float *params;                /* [N][64] */
  SplatCamera camera;
  float background[3];
  float dilation;                     /* pixels^2; 0.3 as every viewer does */
  float *image;                       /* out [3][H][W] */
  float *transmittance;               /* out [H][W], or NULL */
  int64_t n_visible;                  /* out: gaussians that touch the image */
  int64_t n_instances;                /* out: (gaussian, tile) pairs */
} SplatForwardArgs;

/* loss = (1 - ssim_weight) * mean|image - target| + ssim_weight * (1 - mean SSIM), over the pixels where mask != 0 (all, if NULL).
 * Where mask is 0, SSIM's windows read image and target as zero; with no pixel left l1 = mse = 0 and ssim = 1.
 * SSIM: 11-tap Gaussian window, sigma 1.5, C1 = 0.01^2, C2 = 0.03^2, zero padding, per channel ("same" size). */
typedef struct SplatLossArgs {
  uint32_t struct_size;
  int32_t width, height;
  float ssim_weight;
  const float *image;                 /* [3][H][W] */
  const uint8_t *target;              /* [H][W][3] */
  const uint8_t *mask;                /* [H][W] 0/1, or NULL */
  float *grad_image;                  /* out [3][H][W]: dloss/dimage, or NULL for values only */
  float *error_map;                   /* out [H][W]: per-pixel 1 - SSIM mean of channels, or NULL */
  uint64_t target_key;                /* not 0: the same key means the same target and mask bytes as before, so that what depends on
                                         them alone may be kept in the context; 0: keep nothing */
  double l1, ssim, mse;               /* out: means over the masked pixels and channels */
} SplatLossArgs;

/* dloss/dparams of the last forward (params must be unchanged since), for autograd users and tests. */
typedef struct SplatBackwardArgs {
  uint32_t struct_size;
  int32_t reserved;
  int64_t n;
  const float *params;                /* [N][64] */
  const float *grad_image;            /* [3][H][W] */
  const float *grad_transmittance;    /* [H][W], or NULL */
  float *grad_params;                 /* out [N][64]; rows of unseen gaussians are zero */
  float *density;                     /* in/out [N][4], or NULL: see below */
} SplatBackwardArgs;

/* Backward and Adam in one pass, for the gaussians that the last forward saw; others are untouched (their moments decay lazily:
 * last_step holds, per gaussian, the last step at which it was updated, and b1^k, b2^k are applied when it is seen again).
 * Adam: m = b1 m + (1-b1) g; v = b2 v + (1-b2) g^2; p -= lr * (m / (1-b1^t)) / (sqrt(v / (1-b2^t)) + eps), t = step.
 * Regularisers (gradient added for seen gaussians): opacity_reg * d sigmoid(logit) ; scale_reg * d sum_k exp(log_scale_k).
 * density[i] += (|d loss / d mean2d| in NDC units: gradient in pixels times (W/2, H/2); 1; 0; 0), [2] is max'd with the screen radius
 * (3 standard deviations of the longer axis) in pixels divided by max(W, H); [3] is spare.
 * Where the last forward's sh_degree was 0, lines 1-3 are left alone, as with step_sh_rest = 0. */
typedef struct SplatBackwardAdamArgs {
  uint32_t struct_size;
  int32_t step;                       /* 1-based */
  int64_t n;
  float *params;                      /* in/out [N][64] */
  float *moment1;                     /* in/out [N][64] */
  float *moment2;                     /* in/out [N][64] */
  int32_t *last_step;                 /* in/out [N], or NULL: no lazy decay */
  const float *grad_image;            /* [3][H][W] */
  const float *grad_transmittance;    /* [H][W], or NULL */
  float *density;                     /* in/out [N][4], or NULL */
  float lr_means, lr_log_scales, lr_quats, lr_opacity, lr_sh_dc, lr_sh_rest;
  float beta1, beta2, eps;
  float opacity_reg, scale_reg;
  int32_t step_sh_rest;               /* 0: leave lines 1-3 alone in this step */
} SplatBackwardAdamArgs;

/* What each gaussian gave to the last forward: sums[i] += sum over pixels of weight_map * alpha * T, peaks[i] = max(peaks[i], alpha * T). */
typedef struct SplatContributionArgs {
  uint32_t struct_size;
  int32_t reserved;
  int64_t n;
  const float *weight_map;            /* [H][W], or NULL for ones */
  float *sums;                        /* in/out [N], or NULL */
  float *peaks;                       /* in/out [N], or NULL */
} SplatContributionArgs;

/* Mean squared distance to the k nearest other points (exact). */
typedef struct SplatKnnArgs {
  uint32_t struct_size;
  int32_t k;                          /* 1..16 */
  int64_t n;
  const float *points;                /* [N][3] */
  float *mean_sq_dist;                /* out [N]; 0 where n <= 1 */
} SplatKnnArgs;

/* The nearest and the second nearest of each 128-byte descriptor among the other set's, by dot product (exact), both ways. */
typedef struct SplatMatchArgs {
  uint32_t struct_size;
  int32_t reserved;
  int64_t n_a, n_b;                   /* at most 2^24 each */
  const uint8_t *a;                   /* [A][128] */
  const uint8_t *b;                   /* [B][128] */
  int32_t *nearest_a;                 /* out [A][3]: row of b, its product, the second largest product; -1 where there is none */
  int32_t *nearest_b;                 /* out [B][3]: row of a, likewise; the earlier row of equals */
} SplatMatchArgs;

/* Where the time goes, for benchmarks: seconds since the last reset, by the CPU clock of every thread that took part (CPU) or by events
 * (CUDA), and by the wall. Off until enabled: measuring costs two clock reads a thread and stage. */
typedef enum SplatStage {
  SPLAT_STAGE_PROJECT = 0, SPLAT_STAGE_SORT = 1, SPLAT_STAGE_BIN = 2, SPLAT_STAGE_FORWARD = 3, SPLAT_STAGE_LOSS = 4,
  SPLAT_STAGE_TARGET = 5, SPLAT_STAGE_BACKWARD = 6, SPLAT_STAGE_GRADIENT = 7, SPLAT_STAGE_CONTRIBUTION = 8, SPLAT_STAGES = 9
} SplatStage;

#define SPLAT_PROFILE_SIMULATE 2      /* CPU: the calling thread runs every task, and wall_s is what n_threads cores of their own would take */

typedef struct SplatProfile {
  uint32_t struct_size;
  int32_t enable;                     /* in: 1 measures from now on, 0 stops; or SPLAT_PROFILE_SIMULATE */
  int32_t reset;                      /* in: 1 sets every counter to zero after reading */
  int32_t reserved;
  double cpu_s[SPLAT_STAGES];         /* out, by SplatStage */
  double wall_s[SPLAT_STAGES];        /* out */
  int64_t calls[SPLAT_STAGES];        /* out */
  uint64_t n_evaluated, n_blended;    /* out, of the last splat_contribution: pixel lanes computed, and those that blended */
} SplatProfile;

SPLAT_API int splat_context_create(const SplatContextOptions *options, SplatContext **context);
SPLAT_API void splat_context_destroy(SplatContext *context);
SPLAT_API int splat_context_info(SplatContext *context, SplatContextInfo *info);
SPLAT_API const char *splat_last_error(void);
SPLAT_API int splat_context_stream(SplatContext *context, const SplatStreamArgs *args);
SPLAT_API int splat_context_profile(SplatContext *context, SplatProfile *profile);
/* Floating-point operations a second of one core in a loop of independent FMAs (CPU clock): the yardstick of every benchmark. */
SPLAT_API int splat_calibrate(SplatContext *context, double *flops_per_s);

SPLAT_API int splat_forward(SplatContext *context, SplatForwardArgs *args);
SPLAT_API int splat_loss(SplatContext *context, SplatLossArgs *args);
SPLAT_API int splat_backward(SplatContext *context, SplatBackwardArgs *args);
SPLAT_API int splat_backward_adam(SplatContext *context, SplatBackwardAdamArgs *args);
SPLAT_API int splat_contribution(SplatContext *context, SplatContributionArgs *args);
SPLAT_API int splat_knn(SplatContext *context, SplatKnnArgs *args);
SPLAT_API int splat_match(SplatContext *context, SplatMatchArgs *args);

#ifdef __cplusplus
}
#endif
#endif
