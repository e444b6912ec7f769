// A gaussian's way to the screen and its derivative, templated on the scalar (float, double, dual numbers, a vector of floats).
// Included inside a namespace after the scalar's functions exist: rcp, rsqrt, vexp, vmin, vmax, inside (1 where lo < x < hi, else 0).
//
// Screen covariance = A A^T + dilation I, A = J W R S: J the projection's Jacobian with x/z and y/z clamped to the view plus a margin,
// W the camera's rotation, R S the gaussian's axes. Its determinant is summed from squares (the cross product of A's rows), never subtracted.

#include "hd.h"

struct Lens {       // what the formulas need of a camera
  float w[12];      // cam_from_world, row-major 3x4
  float fx, fy, cx, cy;
  float x_lo, x_hi, y_lo, y_hi;  // clamp range of x/z and y/z
  float dilation;
};

template <class Camera> SPLAT_INLINE Lens make_lens(const Camera &c, float dilation) {
  Lens k;
  for (int i = 0; i < 12; i++) k.w[i] = c.cam_from_world[i];
  k.fx = c.fx, k.fy = c.fy, k.cx = c.cx, k.cy = c.cy;
  float mx = SPLAT_VIEW_MARGIN * (float)c.width / c.fx, my = SPLAT_VIEW_MARGIN * (float)c.height / c.fy;
  k.x_lo = -c.cx / c.fx - mx, k.x_hi = ((float)c.width - c.cx) / c.fx + mx;
  k.y_lo = -c.cy / c.fy - my, k.y_hi = ((float)c.height - c.cy) / c.fy + my;
  k.dilation = dilation;
  return k;
}

template <class V> struct Screen {
  V p[3], rz;              // centre in camera axes, 1/z
  V tx, ty, in_x, in_y;    // clamped x/z, y/z; 1 where not clamped
  V q[4], rq;              // unit quaternion wxyz, 1/|quat|
  V r[9], s[3], m[9];      // rotation, scales, m = r diag(s)
  V u[6], a[6];            // u = J W, a = u m
  V cov_a, cov_b, cov_c, det;
  V x, y;                  // centre in pixels
};

template <class V>
SPLAT_INLINE void project_centre(const Lens &k, V mx, V my, V mz, Screen<V> *o) {
  for (int i = 0; i < 3; i++) o->p[i] = mx * k.w[4 * i] + my * k.w[4 * i + 1] + mz * k.w[4 * i + 2] + k.w[4 * i + 3];
  o->rz = rcp(o->p[2]);
  V tx = o->p[0] * o->rz, ty = o->p[1] * o->rz;
  o->x = tx * k.fx + k.cx;
  o->y = ty * k.fy + k.cy;
  o->in_x = inside(tx, k.x_lo, k.x_hi);
  o->in_y = inside(ty, k.y_lo, k.y_hi);
  o->tx = clamp(tx, k.x_lo, k.x_hi);
  o->ty = clamp(ty, k.y_lo, k.y_hi);
}

template <class V> SPLAT_INLINE void project_shape(const Lens &k, const V *log_scale, const V *quat, Screen<V> *o) {
  V norm = quat[0] * quat[0] + quat[1] * quat[1] + quat[2] * quat[2] + quat[3] * quat[3];
  o->rq = rsqrt(vmax(norm, norm * 0.0f + 1e-30f));
  for (int i = 0; i < 4; i++) o->q[i] = quat[i] * o->rq;
  for (int i = 0; i < 3; i++) o->s[i] = vexp(log_scale[i]);
  V w = o->q[0], x = o->q[1], y = o->q[2], z = o->q[3];
  o->r[0] = 1.0f - (y * y + z * z) * 2.0f;
  o->r[1] = (x * y - w * z) * 2.0f;
  o->r[2] = (x * z + w * y) * 2.0f;
  o->r[3] = (x * y + w * z) * 2.0f;
  o->r[4] = 1.0f - (x * x + z * z) * 2.0f;
  o->r[5] = (y * z - w * x) * 2.0f;
  o->r[6] = (x * z - w * y) * 2.0f;
  o->r[7] = (y * z + w * x) * 2.0f;
  o->r[8] = 1.0f - (x * x + y * y) * 2.0f;
  for (int i = 0; i < 3; i++)
    for (int j = 0; j < 3; j++) o->m[3 * i + j] = o->r[3 * i + j] * o->s[j];
  V jx = o->rz * k.fx, jy = o->rz * k.fy;  // J = [jx 0 -jx tx; 0 jy -jy ty]
  for (int j = 0; j < 3; j++) {
    o->u[j] = jx * (o->tx * -k.w[8 + j] + k.w[j]);
    o->u[3 + j] = jy * (o->ty * -k.w[8 + j] + k.w[4 + j]);
  }
  for (int i = 0; i < 2; i++)
    for (int j = 0; j < 3; j++)
      o->a[3 * i + j] = o->u[3 * i] * o->m[j] + o->u[3 * i + 1] * o->m[3 + j] + o->u[3 * i + 2] * o->m[6 + j];
  const V *a = o->a, *b = o->a + 3;
  V aa = a[0] * a[0] + a[1] * a[1] + a[2] * a[2], bb = b[0] * b[0] + b[1] * b[1] + b[2] * b[2];
  V c0 = a[1] * b[2] - a[2] * b[1], c1 = a[2] * b[0] - a[0] * b[2], c2 = a[0] * b[1] - a[1] * b[0];
  o->cov_a = aa + k.dilation;
  o->cov_b = a[0] * b[0] + a[1] * b[1] + a[2] * b[2];
  o->cov_c = bb + k.dilation;
  o->det = c0 * c0 + c1 * c1 + c2 * c2 + (aa + bb) * k.dilation + k.dilation * k.dilation;
}

template <class V> struct ScreenGrad {  // of the loss, by what the parameters are
  V mean[3], log_scale[3], quat[4];
};

// gx, gy: by the centre in pixels; ga, gb, gc: by the covariance as a full symmetric matrix [[ga gb][gb gc]].
template <class V>
SPLAT_INLINE void project_backward(const Lens &k, const Screen<V> &s, V gx, V gy, V ga, V gb, V gc,
                                                                   ScreenGrad<V> *o) {
  V da[6], du[6], dm[9];
  for (int j = 0; j < 3; j++) {
    da[j] = (ga * s.a[j] + gb * s.a[3 + j]) * 2.0f;
    da[3 + j] = (gb * s.a[j] + gc * s.a[3 + j]) * 2.0f;
  }
  for (int i = 0; i < 2; i++)
    for (int j = 0; j < 3; j++) du[3 * i + j] = da[3 * i] * s.m[3 * j] + da[3 * i + 1] * s.m[3 * j + 1] + da[3 * i + 2] * s.m[3 * j + 2];
  for (int i = 0; i < 3; i++)
    for (int j = 0; j < 3; j++) dm[3 * i + j] = s.u[i] * da[j] + s.u[3 + i] * da[3 + j];
  for (int j = 0; j < 3; j++) o->log_scale[j] = dm[j] * s.m[j] + dm[3 + j] * s.m[3 + j] + dm[6 + j] * s.m[6 + j];

  V d[9];
  for (int i = 0; i < 9; i++) d[i] = dm[i] * s.s[i % 3];
  V w = s.q[0], x = s.q[1], y = s.q[2], z = s.q[3], g[4];
  g[0] = ((d[3] - d[1]) * z + (d[2] - d[6]) * y + (d[7] - d[5]) * x) * 2.0f;
  g[1] = ((d[1] + d[3]) * y + (d[2] + d[6]) * z + (d[7] - d[5]) * w - (d[4] + d[8]) * x * 2.0f) * 2.0f;
  g[2] = ((d[1] + d[3]) * x + (d[5] + d[7]) * z + (d[2] - d[6]) * w - (d[0] + d[8]) * y * 2.0f) * 2.0f;
  g[3] = ((d[2] + d[6]) * x + (d[5] + d[7]) * y + (d[3] - d[1]) * w - (d[0] + d[4]) * z * 2.0f) * 2.0f;
  V along = g[0] * w + g[1] * x + g[2] * y + g[3] * z;
  for (int i = 0; i < 4; i++) o->quat[i] = (g[i] - along * s.q[i]) * s.rq;

  // dJ = dU W^T, only its four entries that are not constant
  V j00 = du[0] * k.w[0] + du[1] * k.w[1] + du[2] * k.w[2], j02 = du[0] * k.w[8] + du[1] * k.w[9] + du[2] * k.w[10];
  V j11 = du[3] * k.w[4] + du[4] * k.w[5] + du[5] * k.w[6], j12 = du[3] * k.w[8] + du[4] * k.w[9] + du[5] * k.w[10];
  V fx = s.rz * k.fx, fy = s.rz * k.fy;
  V px = s.p[0] * s.rz, py = s.p[1] * s.rz;            // unclamped x/z, y/z
  V tx = fx * (gx - j02 * s.in_x * s.rz), ty = fy * (gy - j12 * s.in_y * s.rz);  // by p.x, p.y
  V tz = fx * s.rz * (j02 * s.tx - j00) + fy * s.rz * (j12 * s.ty - j11) - tx * px - ty * py;
  for (int j = 0; j < 3; j++) o->mean[j] = tx * k.w[j] + ty * k.w[4 + j] + tz * k.w[8 + j];
}
