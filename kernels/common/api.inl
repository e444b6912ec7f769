// The C boundary, the same for every device: arguments checked by name, nothing thrown past it. Included after the device's context.h.
#include <math.h>
#include <stdio.h>

#include <new>
#include <system_error>

#include "refusal.h"

struct SplatContext {
  splat::Context context;
};

namespace {

using splat::refuse;

thread_local char last_error[320] = "";

constexpr int MAX_SIDE = 16384;
constexpr int MAX_THREADS = 1024;
constexpr int64_t MAX_GAUSSIANS = int64_t(1) << 31;
constexpr double MAX_DESCRIPTORS = 1 << 24;

int note(int status, const char *format, const char *text) {
  snprintf(last_error, sizeof last_error, format, text);
  return status;
}

// Runs a call; what it throws becomes a status and a text.
template <class Call> int guarded(Call call) {
  try {
    call();
    return SPLAT_OK;
  } catch (const splat::Refusal &r) {
    return note(r.status, "%s", r.text);
  } catch (const splat::OutOfMemory &e) {
    char bytes[32];
    snprintf(bytes, sizeof bytes, "%zu", e.bytes);
    return note(SPLAT_OUT_OF_MEMORY, "a workspace of %s bytes could not be had", bytes);
  } catch (const std::bad_alloc &) {
    return note(SPLAT_OUT_OF_MEMORY, "%s", "memory ran out");
  } catch (const std::system_error &e) {
    return note(SPLAT_INTERNAL, "threads could not be started: %s", e.what());
  }
}

template <class Args> void check_struct(const Args *args, const char *name) {
  if (!args) refuse(SPLAT_INVALID_ARGUMENT, "%s is NULL", name);
  if (args->struct_size < sizeof(Args))
    refuse(SPLAT_INVALID_ARGUMENT, "%s.struct_size is %u, this library needs %zu: header and library differ", name, args->struct_size, sizeof(Args));
}

void need(const void *pointer, const char *name) {
  if (!pointer) refuse(SPLAT_INVALID_ARGUMENT, "%s is NULL", name);
}

void check_context(SplatContext *context) { need(context, "context"); }

void check_count(int64_t n) {
  if (n < 0 || n > MAX_GAUSSIANS) refuse(SPLAT_INVALID_ARGUMENT, "n is %lld; it must be between 0 and 2^31", static_cast<long long>(n));
}

void check_sides(int width, int height) {
  if (width < 1 || width > MAX_SIDE) refuse(SPLAT_INVALID_ARGUMENT, "width is %d; it must be between 1 and %d pixels", width, MAX_SIDE);
  if (height < 1 || height > MAX_SIDE) refuse(SPLAT_INVALID_ARGUMENT, "height is %d; it must be between 1 and %d pixels", height, MAX_SIDE);
}

void check_range(double value, double low, double high, const char *name) {
  if (!(value >= low && value <= high)) refuse(SPLAT_INVALID_ARGUMENT, "%s is %g; it must be between %g and %g", name, value, low, high);
}

void check_camera(const SplatCamera &c) {
  check_sides(c.width, c.height);
  for (int i = 0; i < 12; i++)
    if (!isfinite(c.cam_from_world[i])) refuse(SPLAT_NON_FINITE, "camera.cam_from_world[%d] is %f", i, static_cast<double>(c.cam_from_world[i]));
  check_range(static_cast<double>(c.fx), 1e-3, 1e9, "camera.fx");
  check_range(static_cast<double>(c.fy), 1e-3, 1e9, "camera.fy");
  check_range(static_cast<double>(c.cx), -1e9, 1e9, "camera.cx");
  check_range(static_cast<double>(c.cy), -1e9, 1e9, "camera.cy");
  check_range(static_cast<double>(c.near_plane), 1e-6, 1e18, "camera.near_plane");
  check_range(static_cast<double>(c.far_plane), static_cast<double>(c.near_plane), 1e30, "camera.far_plane");
}

void check_rates(const SplatBackwardAdamArgs &a) {
  const struct {
    const char *name;
    float value;
  } rates[] = {{"lr_means", a.lr_means},   {"lr_log_scales", a.lr_log_scales}, {"lr_quats", a.lr_quats},       {"lr_opacity", a.lr_opacity},
               {"lr_sh_dc", a.lr_sh_dc}, {"lr_sh_rest", a.lr_sh_rest},       {"opacity_reg", a.opacity_reg}, {"scale_reg", a.scale_reg}};
  for (const auto &rate : rates) check_range(static_cast<double>(rate.value), -1e6, 1e6, rate.name);
}

}  // namespace

const char *splat_last_error(void) { return last_error; }

int splat_context_create(const SplatContextOptions *options, SplatContext **context) {
  return guarded([&] {
    need(context, "context");
    *context = nullptr;
    check_struct(options, "SplatContextOptions");
    check_range(options->n_threads, 0, MAX_THREADS, "n_threads");
    check_range(options->isa, SPLAT_ISA_AUTO, SPLAT_ISA_AVX512, "isa");
    *context = new SplatContext{splat::Context(*options)};
  });
}

void splat_context_destroy(SplatContext *context) { delete context; }

int splat_context_info(SplatContext *context, SplatContextInfo *info) {
  return guarded([&] {
    check_context(context);
    check_struct(info, "SplatContextInfo");
    context->context.info(*info);
  });
}

int splat_context_profile(SplatContext *context, SplatProfile *profile) {
  return guarded([&] {
    check_context(context);
    check_struct(profile, "SplatProfile");
    context->context.profile(*profile);
  });
}

int splat_context_stream(SplatContext *context, const SplatStreamArgs *args) {
  return guarded([&] {
    check_context(context);
    check_struct(args, "SplatStreamArgs");
    context->context.set_stream(*args);
  });
}

int splat_calibrate(SplatContext *context, double *flops_per_s) {
  return guarded([&] {
    check_context(context);
    need(flops_per_s, "flops_per_s");
    *flops_per_s = context->context.calibrate();
  });
}

int splat_forward(SplatContext *context, SplatForwardArgs *args) {
  return guarded([&] {
    check_context(context);
    check_struct(args, "SplatForwardArgs");
    check_count(args->n);
    check_range(args->sh_degree, 0, 3, "sh_degree");
    check_camera(args->camera);
    check_range(static_cast<double>(args->dilation), 1e-6, 1e6, "dilation");
    for (int i = 0; i < 3; i++) check_range(static_cast<double>(args->background[i]), -1e6, 1e6, i == 0 ? "background[0]" : i == 1 ? "background[1]" : "background[2]");
    if (args->n) need(args->params, "params");
    need(args->image, "image");
    context->context.forward(*args);
  });
}

int splat_loss(SplatContext *context, SplatLossArgs *args) {
  return guarded([&] {
    check_context(context);
    check_struct(args, "SplatLossArgs");
    check_sides(args->width, args->height);
    check_range(static_cast<double>(args->ssim_weight), 0, 1, "ssim_weight");
    need(args->image, "image");
    need(args->target, "target");
    context->context.loss(*args);
  });
}

int splat_backward(SplatContext *context, SplatBackwardArgs *args) {
  return guarded([&] {
    check_context(context);
    check_struct(args, "SplatBackwardArgs");
    check_count(args->n);
    need(args->grad_image, "grad_image");
    if (args->n) need(args->grad_params, "grad_params");
    context->context.backward(*args);
  });
}

int splat_backward_adam(SplatContext *context, SplatBackwardAdamArgs *args) {
  return guarded([&] {
    check_context(context);
    check_struct(args, "SplatBackwardAdamArgs");
    check_count(args->n);
    check_range(args->step, 1, 2147483647, "step");
    check_range(static_cast<double>(args->beta1), 0, 0.999999, "beta1");
    check_range(static_cast<double>(args->beta2), 0, 0.9999999, "beta2");
    check_range(static_cast<double>(args->eps), 1e-20, 1, "eps");
    check_rates(*args);
    need(args->grad_image, "grad_image");
    if (args->n) need(args->moment1, "moment1"), need(args->moment2, "moment2");
    context->context.backward_adam(*args);
  });
}

int splat_contribution(SplatContext *context, SplatContributionArgs *args) {
  return guarded([&] {
    check_context(context);
    check_struct(args, "SplatContributionArgs");
    check_count(args->n);
    context->context.contribution(*args);
  });
}

int splat_knn(SplatContext *context, SplatKnnArgs *args) {
  return guarded([&] {
    check_context(context);
    check_struct(args, "SplatKnnArgs");
    check_count(args->n);
    check_range(args->k, 1, 16, "k");
    if (args->n) need(args->points, "points"), need(args->mean_sq_dist, "mean_sq_dist");
    context->context.knn(*args);
  });
}

int splat_match(SplatContext *context, SplatMatchArgs *args) {
  return guarded([&] {
    check_context(context);
    check_struct(args, "SplatMatchArgs");
    check_range(static_cast<double>(args->n_a), 0, MAX_DESCRIPTORS, "n_a");
    check_range(static_cast<double>(args->n_b), 0, MAX_DESCRIPTORS, "n_b");
    if (args->n_a) need(args->a, "a"), need(args->nearest_a, "nearest_a");
    if (args->n_b) need(args->b, "b"), need(args->nearest_b, "nearest_b");
    context->context.match(*args);
  });
}
