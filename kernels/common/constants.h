// Numbers that every device must agree on. No standard library, no vectors: g++ and nvcc both read it.
#pragma once
#define SPLAT_OPACITY_MAX 0.99f
#define SPLAT_ALPHA_MIN (1.0f / 255.0f)
#define SPLAT_STOP 1e-4f           /* transmittance below which a pixel is finished */
#define SPLAT_VIEW_MARGIN 0.15f    /* of the view's width, on each side: where the Jacobian's x/z and y/z are clamped */
#define SPLAT_RADIUS_SIGMAS 3.0f   /* screen radius in density statistics, in standard deviations of the longer axis */
#define SPLAT_SSIM_TAPS 11
#define SPLAT_SSIM_SIGMA 1.5
#define SPLAT_SSIM_C1 1e-4f
#define SPLAT_SSIM_C2 9e-4f
