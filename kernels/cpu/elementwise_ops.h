// ElementwiseOps: inner loops over one row, one table an instruction set.
//
// The order of every sum depends on the length alone. All pointers may be unaligned; `out` may be
// `x` (or `gate`).
#pragma once

#include <cstdint>

namespace kvasir {

struct ElementwiseOps {
  // x [width] -> out [width]; weight [width].
  void (*rms_norm)(const float* x, int64_t width, const float* weight, float eps, float* out);
  // bias [width] or null.
  void (*layer_norm)(const float* x, int64_t width, const float* weight, const float* bias,
                     float eps, float* out);
  // out [n] = activation(gate) * up, or activation(gate) if up is null.
  void (*silu)(const float* gate, const float* up, int64_t n, float* out);
  void (*gelu_tanh)(const float* gate, const float* up, int64_t n, float* out);
  void (*gelu_erf)(const float* gate, const float* up, int64_t n, float* out);
  // x [n] += y.
  void (*add)(float* x, const float* y, int64_t n);
  // The greatest of x [n]; NaN if one is NaN or +infinity.
  float (*greatest)(const float* x, int64_t n);
  // out [n] = e^((x - highest) * inverse), for a finite inverse. Relative error: three roundings of
  // the exponent and two units in the last place.
  void (*weigh)(const float* x, int64_t n, float highest, float inverse, float* out);
};

extern const ElementwiseOps kElementwiseScalar, kElementwiseAvx2, kElementwiseAvx512;

}  // namespace kvasir
