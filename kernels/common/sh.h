// Real spherical harmonics, degrees 1 to 3, in the sign and order of the original splat files; templated on the scalar (float, double, a vector).
// Included inside a namespace after the scalar's operators exist; needs only + - * with floats.
#include "hd.h"
#define SPLAT_SH_0 0.28209479177387814f

// The 15 bases above the constant one, of a unit direction.
template <class V> SPLAT_INLINE void sh_basis(V x, V y, V z, int degree, V *out) {
  V none = x * 0.0f;
  for (int k = 0; k < 15; k++) out[k] = none;
  if (degree < 1) return;
  out[0] = y * -0.4886025119029199f;
  out[1] = z * 0.4886025119029199f;
  out[2] = x * -0.4886025119029199f;
  if (degree < 2) return;
  V xx = x * x, yy = y * y, zz = z * z, xy = x * y, yz = y * z, xz = x * z;
  out[3] = xy * 1.0925484305920792f;
  out[4] = yz * -1.0925484305920792f;
  out[5] = (zz * 2.0f - xx - yy) * 0.31539156525252005f;
  out[6] = xz * -1.0925484305920792f;
  out[7] = (xx - yy) * 0.5462742152960396f;
  if (degree < 3) return;
  V five = zz * 4.0f - xx - yy;
  out[8] = y * (xx * 3.0f - yy) * -0.5900435899266435f;
  out[9] = xy * z * 2.890611442640554f;
  out[10] = y * five * -0.4570457994644658f;
  out[11] = z * (zz * 2.0f - xx * 3.0f - yy * 3.0f) * 0.3731763325901154f;
  out[12] = x * five * -0.4570457994644658f;
  out[13] = z * (xx - yy) * 1.445305721320277f;
  out[14] = x * (xx - yy * 3.0f) * -0.5900435899266435f;
}

// Gradient by the direction of sum_k q[k] * basis_k.
template <class V>
SPLAT_INLINE void sh_direction_grad(V x, V y, V z, int degree, const V *q, V *gx, V *gy, V *gz) {
  V none = x * 0.0f;
  V dx = none, dy = none, dz = none;
  if (degree >= 1) {
    dx = q[2] * -0.4886025119029199f;
    dy = q[0] * -0.4886025119029199f;
    dz = q[1] * 0.4886025119029199f;
  }
  if (degree >= 2) {
    V a = q[3] * 1.0925484305920792f, b = q[4] * -1.0925484305920792f, c = q[5] * 0.31539156525252005f;
    V d = q[6] * -1.0925484305920792f, e = q[7] * 0.5462742152960396f;
    dx = dx + a * y + d * z + (e - c) * x * 2.0f;
    dy = dy + a * x + b * z - (e + c) * y * 2.0f;
    dz = dz + b * y + d * x + c * z * 4.0f;
  }
  if (degree >= 3) {
    V xx = x * x, yy = y * y, zz = z * z, xy = x * y, yz = y * z, xz = x * z;
    V a = q[8] * -0.5900435899266435f, b = q[9] * 2.890611442640554f, c = q[10] * -0.4570457994644658f;
    V d = q[11] * 0.3731763325901154f, e = q[12] * -0.4570457994644658f, f = q[13] * 1.445305721320277f, g = q[14] * -0.5900435899266435f;
    dx = dx + a * xy * 6.0f + b * yz - c * xy * 2.0f - d * xz * 6.0f + e * (zz * 4.0f - xx * 3.0f - yy) + f * xz * 2.0f + g * (xx - yy) * 3.0f;
    dy = dy + a * (xx - yy) * 3.0f + b * xz + c * (zz * 4.0f - xx - yy * 3.0f) - d * yz * 6.0f - e * xy * 2.0f - f * yz * 2.0f - g * xy * 6.0f;
    dz = dz + b * xy + c * yz * 8.0f + d * (zz * 2.0f - xx - yy) * 3.0f + e * xz * 8.0f + f * (xx - yy);
  }
  *gx = dx;
  *gy = dy;
  *gz = dz;
}
