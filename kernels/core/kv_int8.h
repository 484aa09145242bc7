// How a pool of kI8 keeps KV: of every token and head, the turned key in groups of kKeyScaleDims
// dimensions and the value as one group. A group's values are scale * q with q = -127..127 and
// scale = its largest magnitude / 127 in fp32; a group with a value that is not finite is NaN.
#pragma once

#include <cstdint>
#include <limits>

namespace kvasir {

inline constexpr int32_t kKeyScaleDims = 32;
inline constexpr int32_t KeyScalesOf(int32_t head_dim) {
  return (head_dim + kKeyScaleDims - 1) / kKeyScaleDims;
}

// Below this a group is zero: the inverse of its scale would not be finite.
inline constexpr float kLeastInt8Magnitude = 1e-30f;

struct Int8Scale {
  float scale = 0, inverse = 0;  // q = round to nearest even(value * inverse)
};

// top: a group's largest magnitude, infinite or NaN where one of its values is.
constexpr Int8Scale Int8ScaleOf(float top) {
  if (!(top <= std::numeric_limits<float>::max())) {
    return {std::numeric_limits<float>::quiet_NaN(), 0.0f};
  }
  if (top < kLeastInt8Magnitude) return {};
  return {top / 127.0f, 127.0f / top};
}

}  // namespace kvasir
