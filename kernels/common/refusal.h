// Why a call was not done: thrown inside a library, a status and a text at its C boundary (api.inl). For host code of every device.
#pragma once
#include <math.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "splat/splat.h"

namespace splat {

struct Refusal {
  int status;
  char text[256];
};

// Thrown when there is no more memory for a workspace; becomes SPLAT_OUT_OF_MEMORY.
struct OutOfMemory {
  size_t bytes;
};

[[noreturn]] inline void refuse(int status, const char *format, ...) __attribute__((format(printf, 2, 3)));
inline void refuse(int status, const char *format, ...) {
  Refusal r;
  r.status = status;
  va_list list;
  va_start(list, format);
  vsnprintf(r.text, sizeof r.text, format, list);
  va_end(list);
  throw r;
}

// How a position in an array is told: an index into [rows][columns], or, if planes is not 0, into [planes][rows][columns].
struct Shape {
  int64_t planes, rows, columns;
  int64_t size() const { return (planes ? planes : 1) * rows * columns; }
};

[[noreturn]] inline void refuse_value(const char *name, const Shape &shape, int64_t at, float value) {
  const long long row = at / shape.columns % shape.rows, column = at % shape.columns;
  if (!shape.planes)
    refuse(SPLAT_NON_FINITE, "%s row %lld, column %lld is %f; every value must be finite", name, row, column, static_cast<double>(value));
  refuse(SPLAT_NON_FINITE, "%s channel %lld, row %lld, column %lld is %f; every value must be finite", name,
         static_cast<long long>(at / shape.columns / shape.rows), row, column, static_cast<double>(value));
}

// Names the first value of a gaussian's row that is not finite.
[[noreturn]] inline void refuse_row(int64_t row, const float *values) {
  static const char *const names[14] = {"mean x",  "mean y", "mean z", "log_scale x",   "log_scale y", "log_scale z", "quat w",
                                        "quat x", "quat y", "quat z", "opacity_logit", "sh 0 red",    "sh 0 green",  "sh 0 blue"};
  for (int column = 0; column < SPLAT_ROW; column++) {
    const bool is_used = column < 14 || (column >= 16 && column % 16 != 15);
    if (!is_used || isfinite(values[column])) continue;
    const char *name = column < 14 ? names[column] : column < 32 ? "sh rest, red" : column < 48 ? "sh rest, green" : "sh rest, blue";
    refuse(SPLAT_NON_FINITE, "params row %lld, column %d (%s) is %f; every parameter must be finite", static_cast<long long>(row), column, name,
           static_cast<double>(values[column]));
  }
  refuse(SPLAT_NON_FINITE, "params row %lld: its finite values overflow when they are evaluated", static_cast<long long>(row));
}

// Refuse a call that comes without the forward pass it builds on, or after parameters have changed since.
inline void require_frame(bool has_frame, int64_t n, int64_t frame_n, const char *call) {
  if (!has_frame) refuse(SPLAT_INVALID_ARGUMENT, "%s needs a successful splat_forward before it in the same context", call);
  if (n != frame_n)
    refuse(SPLAT_INVALID_ARGUMENT, "%s: n is %lld, the last splat_forward had %lld", call, static_cast<long long>(n), static_cast<long long>(frame_n));
}

inline void require_unstepped(bool is_stepped, const char *call) {
  if (is_stepped)
    refuse(SPLAT_INVALID_ARGUMENT, "%s: splat_backward_adam has changed params since the last splat_forward; run that again", call);
}

}  // namespace splat
