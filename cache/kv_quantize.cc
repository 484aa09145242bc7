#include "cache/kv_quantize.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <vector>

#include "kernels/core/dtype.h"

namespace kvasir {
namespace {

constexpr float kLevels = 127.0f;
// Below this maximum 127 / max would overflow; such values are zero for every purpose.
constexpr float kTiny = 1e-36f;

float ScaleOf(float max) { return max < kTiny ? 0.0f : max / kLevels; }
float InverseOf(float max) { return max < kTiny ? 0.0f : kLevels / max; }

// Round to nearest even for |x| < 2^22, in a form that compilers vectorise: adding 1.5 * 2^23
// leaves the integer in the low mantissa bits.
int8_t RoundToInt8(float x) {
  constexpr float kMagic = 12582912.0f;
  return static_cast<int8_t>(std::bit_cast<int32_t>(x + kMagic) - std::bit_cast<int32_t>(kMagic));
}

float MaxAbs(const float* values, size_t count) {
  float max = 0.0f;
  for (size_t i = 0; i < count; ++i) max = std::max(max, std::fabs(values[i]));
  return max;
}

}  // namespace

bool AllFinite(const float* values, size_t count) {
  constexpr uint32_t kExponent = 0x7f800000u;
  uint32_t bad = 0;
  for (size_t i = 0; i < count; ++i) {
    bad |= static_cast<uint32_t>((std::bit_cast<uint32_t>(values[i]) & kExponent) == kExponent);
  }
  return bad == 0;
}

void QuantizePerChannel(const float* k, size_t tokens, size_t channels, int8_t* out, float* scale) {
  std::vector<float> inverse(channels, 0.0f);  // holds the maxima first
  for (size_t t = 0; t < tokens; ++t) {
    const float* row = k + t * channels;
    for (size_t c = 0; c < channels; ++c) inverse[c] = std::max(inverse[c], std::fabs(row[c]));
  }
  for (size_t c = 0; c < channels; ++c) {
    scale[c] = ScaleOf(inverse[c]);
    inverse[c] = InverseOf(inverse[c]);
  }
  for (size_t t = 0; t < tokens; ++t) {
    const float* row = k + t * channels;
    int8_t* out_row = out + t * channels;
    for (size_t c = 0; c < channels; ++c) out_row[c] = RoundToInt8(row[c] * inverse[c]);
  }
}

void QuantizePerTokenHead(const float* v, size_t tokens, size_t heads, size_t dim, int8_t* out,
                          float* scale) {
  for (size_t row = 0; row < tokens * heads; ++row) {
    const float* in = v + row * dim;
    const float max = MaxAbs(in, dim);
    const float inverse = InverseOf(max);
    scale[row] = ScaleOf(max);
    for (size_t d = 0; d < dim; ++d) out[row * dim + d] = RoundToInt8(in[d] * inverse);
  }
}

bool ToF16(const float* values, size_t count, uint16_t* out) {
  constexpr uint16_t kExponent = 0x7c00;
  bool fits = true;
  for (size_t i = 0; i < count; ++i) {
    out[i] = F32ToF16(values[i]);
    fits &= (out[i] & kExponent) != kExponent;
  }
  return fits;
}

}  // namespace kvasir
