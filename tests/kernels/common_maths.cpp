// Proves the hand-written derivatives in kernels/common by dual numbers pushed through the same templates.
// Prints, one per line: a name and the largest error over 20 000 random cases, as a share of the case's largest derivative.
#include <cmath>
#include <cstdint>
#include <cstdio>

namespace exact {

struct Dual {  // value and derivative along one direction
  double v, d;
  Dual() : v(0), d(0) {}
  Dual(double value, double derivative = 0) : v(value), d(derivative) {}
};
static Dual operator+(Dual a, Dual b) { return {a.v + b.v, a.d + b.d}; }
static Dual operator-(Dual a, Dual b) { return {a.v - b.v, a.d - b.d}; }
static Dual operator*(Dual a, Dual b) { return {a.v * b.v, a.d * b.v + a.v * b.d}; }
static Dual rcp(Dual a) { return {1 / a.v, -a.d / (a.v * a.v)}; }
static Dual rsqrt(Dual a) { return {1 / std::sqrt(a.v), -0.5 * a.d / (a.v * std::sqrt(a.v))}; }
static Dual vexp(Dual a) { return {std::exp(a.v), a.d * std::exp(a.v)}; }
static Dual vmax(Dual a, Dual b) { return a.v > b.v ? a : b; }
static Dual inside(Dual a, double lo, double hi) { return lo < a.v && a.v < hi ? 1.0 : 0.0; }
static Dual clamp(Dual a, double lo, double hi) { return a.v < lo ? Dual(lo) : a.v > hi ? Dual(hi) : a; }

static double rcp(double a) { return 1 / a; }
static double rsqrt(double a) { return 1 / std::sqrt(a); }
static double vexp(double a) { return std::exp(a); }
static double vmax(double a, double b) { return a > b ? a : b; }
static double inside(double a, double lo, double hi) { return lo < a && a < hi ? 1.0 : 0.0; }
static double clamp(double a, double lo, double hi) { return a < lo ? lo : a > hi ? hi : a; }

#include "common/constants.h"
#include "common/geometry.h"
#include "common/sh.h"

}  // namespace exact

using exact::Dual;

static uint64_t state = 0x9E3779B97F4A7C15ull;
static double uniform(double low, double high) {
  state ^= state << 13, state ^= state >> 7, state ^= state << 17;
  return low + (high - low) * (double)(state >> 11) / 9007199254740992.0;
}

static exact::Lens random_lens() {
  exact::Lens lens;
  double q[4], n = 0;
  for (double &each : q) each = uniform(-1, 1), n += each * each;
  for (double &each : q) each /= std::sqrt(n);
  const double w = q[0], x = q[1], y = q[2], z = q[3];
  const double r[9] = {1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y), 2 * (x * y + w * z), 1 - 2 * (x * x + z * z),
                       2 * (y * z - w * x),     2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)};
  for (int i = 0; i < 3; i++) {
    for (int j = 0; j < 3; j++) lens.w[4 * i + j] = (float)r[3 * i + j];
    lens.w[4 * i + 3] = (float)uniform(-1, 1);
  }
  lens.fx = (float)uniform(40, 90), lens.fy = (float)uniform(40, 90), lens.cx = 27, lens.cy = 18;
  lens.x_lo = lens.y_lo = -0.6f, lens.x_hi = lens.y_hi = 0.7f, lens.dilation = 0.3f;
  return lens;
}

// Ten parameters -> weights . (x, y, cov_a, 2 cov_b, cov_c)
template <class V> static V scalar(const exact::Lens &lens, const V *p, const double *weight, exact::Screen<V> *screen) {
  exact::project_centre(lens, p[0], p[1], p[2], screen);
  exact::project_shape(lens, p + 3, p + 6, screen);
  return screen->x * weight[0] + screen->y * weight[1] + screen->cov_a * weight[2] + screen->cov_b * (2 * weight[3]) +
         screen->cov_c * weight[4];
}

static double geometry_error(double *det_error, int *clamped) {
  const exact::Lens lens = random_lens();
  double in_camera[3] = {0, 0, uniform(0.5, 5)}, p[10], weight[5];
  for (int i = 0; i < 2; i++) in_camera[i] = uniform(-1, 1) * in_camera[2];
  for (int j = 0; j < 3; j++) {
    p[j] = 0;
    for (int i = 0; i < 3; i++) p[j] += lens.w[4 * i + j] * (in_camera[i] - lens.w[4 * i + 3]);
    p[3 + j] = uniform(-4, 0.5);
  }
  for (int i = 6; i < 10; i++) p[i] = uniform(-2, 2);
  for (double &each : weight) each = uniform(-1, 1);

  exact::Screen<double> screen;
  scalar(lens, p, weight, &screen);
  *clamped += screen.in_x * screen.in_y == 0;
  const double det = screen.cov_a * screen.cov_c - screen.cov_b * screen.cov_b;
  *det_error = std::fmax(*det_error, std::fabs(screen.det - det) / (screen.cov_a * screen.cov_c));
  exact::ScreenGrad<double> gradient;
  exact::project_backward(lens, screen, weight[0], weight[1], weight[2], weight[3], weight[4], &gradient);
  const double *parts[10] = {gradient.mean, gradient.mean + 1, gradient.mean + 2, gradient.log_scale, gradient.log_scale + 1,
                             gradient.log_scale + 2, gradient.quat, gradient.quat + 1, gradient.quat + 2, gradient.quat + 3};
  double worst = 0, largest = 0;
  for (int i = 0; i < 10; i++) {
    Dual dual[10];
    for (int j = 0; j < 10; j++) dual[j] = Dual(p[j], i == j);
    exact::Screen<Dual> dual_screen;
    const double expected = scalar(lens, dual, weight, &dual_screen).d;
    worst = std::fmax(worst, std::fabs(*parts[i] - expected));
    largest = std::fmax(largest, std::fabs(expected));
  }
  return worst / largest;
}

static double sh_error(int degree) {
  double x[3], q[15], g[3], worst = 0, largest = 1e-30;
  for (double &each : x) each = uniform(-1, 1);
  for (double &each : q) each = uniform(-1, 1);
  exact::sh_direction_grad(x[0], x[1], x[2], degree, q, g, g + 1, g + 2);
  for (int i = 0; i < 3; i++) {
    Dual basis[15], sum;
    exact::sh_basis(Dual(x[0], i == 0), Dual(x[1], i == 1), Dual(x[2], i == 2), degree, basis);
    for (int k = 0; k < 15; k++) sum = sum + basis[k] * q[k];
    worst = std::fmax(worst, std::fabs(g[i] - sum.d));
    largest = std::fmax(largest, std::fabs(sum.d));
  }
  return worst / largest;
}

int main() {
  double geometry = 0, det = 0, sh[4] = {0, 0, 0, 0};
  int clamped = 0;
  for (int i = 0; i < 20000; i++) {
    geometry = std::fmax(geometry, geometry_error(&det, &clamped));
    for (int degree = 0; degree <= 3; degree++) sh[degree] = std::fmax(sh[degree], sh_error(degree));
  }
  std::printf("geometry %.17g\ndeterminant %.17g\nclamped %d\n", geometry, det, clamped);
  for (int degree = 0; degree <= 3; degree++) std::printf("sh_direction_%d %.17g\n", degree, sh[degree]);
  double basis[15];
  exact::sh_basis(0.6, -0.48, 0.64, 3, basis);
  for (int k = 0; k < 15; k++) std::printf("basis_%d %.17g\n", k + 1, basis[k]);
  return 0;
}
