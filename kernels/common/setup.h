// What host code of every device makes of a call's arguments before kernels run.
#pragma once
#include <math.h>
#include <string.h>

#include <algorithm>

#include "constants.h"
#include "splat/splat.h"

namespace splat {

// The rates of a step, with what follows from its number. `Rates` is a device's own struct with these members.
template <class Rates> void set_rates(const SplatBackwardAdamArgs &args, Rates &a) {
  const float lr[16] = {args.lr_means, args.lr_means, args.lr_means,   args.lr_log_scales, args.lr_log_scales, args.lr_log_scales,
                        args.lr_quats, args.lr_quats, args.lr_quats,   args.lr_quats,      args.lr_opacity,    args.lr_sh_dc,
                        args.lr_sh_dc, args.lr_sh_dc, 0.0f,            0.0f};
  memcpy(a.lr, lr, sizeof lr);
  a.lr_rest = args.lr_sh_rest;
  a.beta1 = args.beta1, a.beta2 = args.beta2, a.eps = args.eps;
  a.log2_beta1 = log2f(std::max(args.beta1, 1e-30f));
  a.log2_beta2 = log2f(std::max(args.beta2, 1e-30f));
  a.step_scale = static_cast<float>(1.0 / (1.0 - pow(static_cast<double>(args.beta1), args.step)));
  a.root_scale = static_cast<float>(1.0 / sqrt(1.0 - pow(static_cast<double>(args.beta2), args.step)));
  a.opacity_reg = args.opacity_reg, a.scale_reg = args.scale_reg;
  a.step = args.step;
  a.with_rest = args.step_sh_rest;
}

inline void set_ssim_window(float *window) {
  double total = 0.0, taps[SPLAT_SSIM_TAPS];
  for (int i = 0; i < SPLAT_SSIM_TAPS; i++) {
    const double d = i - SPLAT_SSIM_TAPS / 2;
    total += taps[i] = exp(-d * d / (2 * SPLAT_SSIM_SIGMA * SPLAT_SSIM_SIGMA));
  }
  for (int i = 0; i < SPLAT_SSIM_TAPS; i++) window[i] = static_cast<float>(taps[i] / total);
}

inline void set_camera_position(const SplatCamera &camera, float *position) {
  const float *w = camera.cam_from_world;
  for (int i = 0; i < 3; i++) position[i] = -(w[i] * w[3] + w[4 + i] * w[7] + w[8 + i] * w[11]);
}

}  // namespace splat
